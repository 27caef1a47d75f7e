//! The table as an OpenAPI 3.1 document (<https://spec.openapis.org/oas/v3.1.0>).

use serde_json::{Map, Value, json};

use super::{is_in_path, sorted};
use crate::http::params::{ParamKind, ParamSpec};
use crate::http::reply::OCTET_STREAM;
use crate::http::router::{Access, BodyUse, Route, Router};
use crate::http::shape::{Field, Returns, Shape};

/// Longest text that is worth saying; longer ones are as good as unbounded, and the request's own limit comes first.
const MAX_LENGTH_SAID: usize = 1 << 16;

/// The description of all calls in the `json` format.
pub fn openapi(router: &Router) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in sorted(router) {
        let path = paths.entry(format!("/api2/json/{}", route.path)).or_insert_with(|| json!({}));
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Ringvault",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Errors are a status of 4xx and a line of text, whatever their content type says.",
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "security": [{ "token": [] }, { "ticket": [], "csrf": [] }],
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "apiKey", "in": "header", "name": "Authorization",
                    "description": "PBSAPIToken=USER@REALM!TOKEN:SECRET",
                },
                "ticket": { "type": "apiKey", "in": "cookie", "name": "PBSAuthCookie" },
                "csrf": { "type": "apiKey", "in": "header", "name": "CSRFPreventionToken" },
            },
        },
        "paths": paths,
    })
}

fn operation(route: &Route) -> Value {
    let in_body = |spec: &ParamSpec| {
        !is_in_path(route, spec)
            && route.body == BodyUse::Parameters
            && matches!(route.method, http::Method::POST | http::Method::PUT)
    };
    let parameters: Vec<Value> = route
        .params
        .iter()
        .filter(|spec| !in_body(spec))
        .map(|spec| {
            let in_path = is_in_path(route, spec);
            json!({
                "name": spec.name,
                "in": if in_path { "path" } else { "query" },
                "required": spec.required,
                "description": spec.description,
                "schema": param_schema(spec),
            })
        })
        .collect();
    let mut operation = json!({
        "operationId": format!("{} {}", route.method.as_str().to_ascii_lowercase(), route.path),
        "summary": route.about,
        "description": format!("Who may: {}.", route.access.describe()),
        "parameters": parameters,
        "responses": responses(route),
    });
    let body: Vec<&ParamSpec> = route.params.iter().filter(|spec| in_body(spec)).collect();
    if !body.is_empty() {
        let properties: Map<String, Value> =
            body.iter().map(|spec| (spec.name.to_owned(), param_schema(spec))).collect();
        let required: Vec<&str> = body.iter().filter(|spec| spec.required).map(|spec| spec.name).collect();
        operation["requestBody"] = json!({
            "required": !required.is_empty(),
            "content": { "application/json": { "schema": object(properties, &required) } },
        });
    } else if route.body == BodyUse::Raw && route.method != http::Method::GET {
        operation["requestBody"] = json!({
            "required": true,
            "content": { OCTET_STREAM: { "schema": { "type": "string", "format": "binary" } } },
        });
    }
    if matches!(route.access, Access::Anybody) {
        operation["security"] = json!([]);
    }
    operation
}

fn responses(route: &Route) -> Value {
    let dressed = |shape: &Shape, beside: &[Field]| {
        let mut properties: Map<String, Value> =
            beside.iter().map(|field| (field.name.to_owned(), schema(&field.shape))).collect();
        properties.insert("data".to_owned(), schema(shape));
        let mut required = vec!["data"];
        required.extend(beside.iter().filter(|field| !field.optional).map(|field| field.name));
        json!({ "application/json": { "schema": object(properties, &required) } })
    };
    let (status, content) = match &route.returns {
        Returns::Data(shape) => ("200", dressed(shape, &[])),
        Returns::With(shape, beside) => ("200", dressed(shape, beside)),
        Returns::Own(shape) => ("200", json!({ "application/json": { "schema": schema(shape) } })),
        Returns::OwnOr(shape, other) => ("200", json!({ "application/json": { "schema": schema(shape) }, *other: {} })),
        Returns::Stream(content_type) => ("200", json!({ *content_type: {} })),
        Returns::Upgrade => ("101", Value::Null),
    };
    let mut responses = json!({
        status: { "description": "What was asked for." },
        "400": { "description": "Wrong parameters, or the call failed: the text says why." },
        "404": { "description": "It is not there." },
    });
    if !content.is_null() {
        responses[status]["content"] = content;
    }
    responses["401"] = json!({ "description": "No login, or a wrong one." });
    responses["403"] = json!({ "description": "The privilege is missing." });
    responses
}

fn object(properties: Map<String, Value>, required: &[&str]) -> Value {
    json!({ "type": "object", "properties": properties, "required": required, "additionalProperties": false })
}

fn param_schema(spec: &ParamSpec) -> Value {
    let mut schema = kind(&spec.kind);
    schema["description"] = json!(spec.description);
    if let Some(default) = spec.default {
        schema["default"] = match spec.kind {
            ParamKind::Integer { .. } | ParamKind::Boolean => serde_json::from_str(default).unwrap_or(Value::Null),
            _ => json!(default),
        };
    }
    schema
}

fn kind(kind: &ParamKind) -> Value {
    match kind {
        ParamKind::Text { pattern, min, max, .. } => {
            let mut schema = json!({ "type": "string" });
            if *min > 0 {
                schema["minLength"] = json!(min);
            }
            if *max < MAX_LENGTH_SAID {
                schema["maxLength"] = json!(max);
            }
            if !pattern.is_empty() {
                schema["pattern"] = json!(pattern);
            }
            schema
        }
        ParamKind::Integer { min, max } => {
            let mut schema = json!({ "type": "integer", "minimum": min });
            if *max < i64::MAX {
                schema["maximum"] = json!(max);
            }
            schema
        }
        ParamKind::Boolean => json!({ "type": "boolean" }),
        ParamKind::Enum(words) => json!({ "type": "string", "enum": words }),
        ParamKind::List(of) => json!({ "type": "array", "items": self::kind(of) }),
    }
}

fn schema(shape: &Shape) -> Value {
    match shape {
        Shape::Null => json!({ "type": "null" }),
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Integer => json!({ "type": "integer" }),
        Shape::Number => json!({ "type": "number" }),
        Shape::Text => json!({ "type": "string" }),
        Shape::Enum(words) => json!({ "type": "string", "enum": words }),
        Shape::Any => json!({}),
        Shape::Object(fields) => {
            let described = |field: &Field| {
                let mut schema = schema(&field.shape);
                if !field.about.is_empty() {
                    schema["description"] = json!(field.about);
                }
                (field.name.to_owned(), schema)
            };
            let required: Vec<&str> = fields.iter().filter(|field| !field.optional).map(|field| field.name).collect();
            object(fields.iter().map(described).collect(), &required)
        }
        Shape::Map(of) => json!({ "type": "object", "additionalProperties": schema(of) }),
        Shape::Array(of) => json!({ "type": "array", "items": schema(of) }),
        Shape::Nullable(of) => json!({ "anyOf": [schema(of), { "type": "null" }] }),
        Shape::OneOf(shapes) => json!({ "anyOf": shapes.iter().map(schema).collect::<Vec<_>>() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_an_operation() {
        let router = crate::http::api::router();
        let document = openapi(&router);
        for route in router.routes() {
            let path = format!("/api2/json/{}", route.path);
            let operation = &document["paths"][&path][route.method.as_str().to_ascii_lowercase()];
            assert_eq!(operation["summary"], route.about, "{route:?}");
        }
    }

    #[test]
    fn a_row_with_everything() {
        const ROUTE: Route = Route {
            method: http::Method::POST,
            path: "a/{store}/b",
            access: Access::Authenticated,
            body: BodyUse::Parameters,
            params: &[
                ParamSpec::required("store", ParamKind::DATASTORE, "Which."),
                ParamSpec::optional("limit", ParamKind::Integer { min: 0, max: i64::MAX }, "How many.").or("50"),
            ],
            returns: Returns::With(Shape::Nullable(&Shape::Text), &[Field::new("total", Shape::Integer, "All.")]),
            handler: |_, _| Box::pin(std::future::ready(Ok(crate::http::Reply::Data(Default::default())))),
            about: "Does.",
        };
        let operation = operation(&ROUTE);
        assert_eq!(operation["parameters"].as_array().map(Vec::len), Some(1));
        assert_eq!(operation["parameters"][0]["in"], "path");
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["properties"]["limit"]["default"], 50);
        assert_eq!(body["additionalProperties"], false);
        let data = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        assert_eq!(data["required"], json!(["data", "total"]));
        assert_eq!(data["properties"]["data"], json!({ "anyOf": [{ "type": "string" }, { "type": "null" }] }));
    }
}
