//! `docs/api.md`.

use super::{is_in_path, sorted};
use crate::http::params::ParamKind;
use crate::http::router::{BodyUse, Route, Router};
use crate::http::shape::{Field, Returns, Shape};

/// The reference of all calls.
pub fn markdown(router: &Router) -> String {
    let mut text = "\
# API

Made from the table of calls by `ringvault api --format markdown`; a test compares them. `ringvault api --format openapi` prints the same for programs.

All paths stand below `/api2/json` (errors are a status and a line of text) or `/api2/extjs` (status 200 but without login, `success`, `message` and `errors` in the
body). Parameters come as query, form or JSON object. A path above those below answers GET with the names of what lies under it. Log in with
`Authorization: PBSAPIToken=USER@REALM!TOKEN:SECRET`, or with a ticket (`access/ticket`) in the cookie `PBSAuthCookie` and, but for GET, its
`CSRFPreventionToken` in the header of that name.
"
    .to_owned();
    for route in sorted(router) {
        section(&mut text, route);
    }
    text
}

fn section(text: &mut String, route: &Route) {
    text.push_str(&format!("\n## `{} {}`\n\n{}\n\n", route.method, route.path, route.about));
    text.push_str(&format!("* Who may: {}.\n", route.access.describe()));
    if route.body == BodyUse::Raw && route.method != http::Method::GET {
        text.push_str("* Parameters stand in the path and the query; the body is the data.\n");
    }
    match route.returns {
        Returns::Data(shape) => text.push_str(&format!("* Answers {}.\n", code(&show(&shape)))),
        Returns::With(shape, fields) => {
            text.push_str(&format!("* Answers {}, and beside `data`: {}.\n", code(&show(&shape)), fields_text(fields)));
        }
        Returns::Own(shape) => {
            text.push_str(&format!("* Answers, without `data` around it, {}.\n", code(&show(&shape))))
        }
        Returns::OwnOr(shape, other) => {
            text.push_str(&format!("* Answers, without `data` around it, {}.\n", code(&show(&shape))));
            text.push_str(&format!("* Or, where a parameter asks for it, a stream of `{other}`.\n"));
        }
        Returns::Stream(content_type) => text.push_str(&format!("* Answers a stream of `{content_type}`.\n")),
        Returns::Upgrade => {
            text.push_str("* Answers 101; the connection goes on in the protocol that `Upgrade` names.\n")
        }
    }
    let mut notes = Vec::new();
    if let Returns::Data(shape) | Returns::With(shape, _) | Returns::Own(shape) | Returns::OwnOr(shape, _) =
        route.returns
    {
        explain(&shape, "", &mut notes);
    }
    text.extend(notes.iter().map(|note| format!("  * {note}\n")));
    if route.params.is_empty() {
        return;
    }
    text.push_str("\n| parameter | value | |\n|---|---|---|\n");
    for spec in route.params {
        let place = if is_in_path(route, spec) {
            "path"
        } else if spec.required {
            "required"
        } else {
            "optional"
        };
        let default = spec.default.map_or(String::new(), |default| format!(" Default: `{default}`."));
        text.push_str(&format!(
            "| `{}` | {place}, {} | {}{default} |\n",
            spec.name,
            kind(&spec.kind),
            spec.description
        ));
    }
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

fn kind(kind: &ParamKind) -> String {
    match kind {
        ParamKind::Text { min, max, .. } if *max < 1 << 20 => format!("text of {min} to {max} characters"),
        ParamKind::Text { .. } => "text".to_owned(),
        ParamKind::Integer { min, max } if *max < i64::MAX => format!("whole number, {min} to {max}"),
        ParamKind::Integer { min, .. } => format!("whole number, at least {min}"),
        ParamKind::Boolean => "boolean".to_owned(),
        ParamKind::Enum(words) => words.iter().map(|word| code(word)).collect::<Vec<_>>().join(", "),
        ParamKind::List(of) => format!("list; each: {}", self::kind(of)),
    }
}

fn show(shape: &Shape) -> String {
    match shape {
        Shape::Null => "null".to_owned(),
        Shape::Boolean => "boolean".to_owned(),
        Shape::Integer => "integer".to_owned(),
        Shape::Number => "number".to_owned(),
        Shape::Text => "string".to_owned(),
        Shape::Enum(words) => words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(" or "),
        Shape::Any => "any".to_owned(),
        Shape::Object(fields) => {
            let one = |field: &Field| {
                format!("{}{}: {}", field.name, if field.optional { "?" } else { "" }, show(&field.shape))
            };
            format!("{{{}}}", fields.iter().map(one).collect::<Vec<_>>().join(", "))
        }
        Shape::Map(of) => format!("{{…: {}}}", show(of)),
        Shape::Array(of) => format!("[{}]", show(of)),
        Shape::Nullable(of) => format!("{} or null", show(of)),
        Shape::OneOf(shapes) => shapes.iter().map(show).collect::<Vec<_>>().join(" or "),
    }
}

fn fields_text(fields: &[Field]) -> String {
    fields.iter().map(|field| format!("`{}` ({})", field.name, show(&field.shape))).collect::<Vec<_>>().join(", ")
}

/// What the fields mean, as far as they say so.
fn explain(shape: &Shape, prefix: &str, notes: &mut Vec<String>) {
    match shape {
        Shape::Object(fields) => {
            for field in *fields {
                let name = format!("{prefix}{}", field.name);
                if !field.about.is_empty() {
                    notes.push(format!("`{name}`: {}", field.about));
                }
                explain(&field.shape, &format!("{name}."), notes);
            }
        }
        Shape::Array(of) | Shape::Nullable(of) | Shape::Map(of) => explain(of, prefix, notes),
        Shape::OneOf(shapes) => shapes.iter().for_each(|of| explain(of, prefix, notes)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_that_of_the_table() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/api.md");
        let made = markdown(&crate::http::api::router());
        if std::env::var_os("RINGVAULT_WRITE_DOCS").is_some() {
            let file = crate::engine::Disk::real().open_or_create(path.as_ref(), 0o644).unwrap();
            file.set_len(0).and_then(|()| file.write_all_at(made.as_bytes(), 0)).unwrap();
        }
        let page = std::fs::read_to_string(path).unwrap();
        assert!(page == made, "docs/api.md is old: ringvault api --format markdown > docs/api.md");
    }

    #[test]
    fn every_parameter_and_field_is_there() {
        let made = markdown(&crate::http::api::router());
        for route in crate::http::api::router().routes() {
            assert!(made.contains(&format!("## `{} {}`", route.method, route.path)), "{route:?}");
        }
    }
}
