//! What goes back: bodies, content types, and the one map from error to status.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode, header};
use http_body::{Frame, SizeHint};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use serde::Serialize;
use serde_json::{Value, json};

use super::params::ParamErrors;
use crate::error::{Error, Kind, Result};

/// A body, whole or streamed. An error in the middle of a stream cuts the answer off, so that the client sees it.
pub type Body = UnsyncBoxBody<Bytes, Error>;

/// An answer.
pub type Response = http::Response<Body>;

/// The type of every answer of the API, errors included (recorded).
pub const JSON: &str = "application/json;charset=UTF-8";

/// The type of raw file contents.
pub const OCTET_STREAM: &str = "application/octet-stream";

/// How an answer is dressed, the second component of the path: `/api2/json`, `/api2/extjs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `{"data":…}`, errors as plain text with their status.
    Json,
    /// Always status 200, success and errors inside.
    ExtJs,
}

/// A successful result: the value under `data`, and what stands beside it (`total`, `digest`).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Under `data`.
    pub data: Value,
    /// Beside `data`.
    pub attributes: Vec<(&'static str, Value)>,
}

impl Outcome {
    /// `value` under `data`.
    pub fn of(value: impl Serialize) -> Result<Self> {
        let data = serde_json::to_value(value)
            .map_err(|e| Error::new(Kind::Io, "the answer cannot be written as JSON").with_source(e))?;
        Ok(Self { data, attributes: Vec::new() })
    }

    /// `{"data":null}`.
    pub fn null() -> Self {
        Self::default()
    }
}

/// A whole body.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Response {
    with_body(status, None, full(Bytes::new()))
}

/// A whole text.
pub fn text(status: StatusCode, content_type: Option<&'static str>, text: impl Into<Bytes>) -> Response {
    with_body(status, content_type, full(text))
}

/// An answer with its parts named.
pub fn with_body(status: StatusCode, content_type: Option<&'static str>, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if let Some(content_type) = content_type {
        set_header(&mut response, header::CONTENT_TYPE, content_type);
    }
    response
}

/// A body with something that is to live until the last of it is sent, or until nobody wants it any more.
pub fn held(body: Body, guard: impl Send + Unpin + 'static) -> Body {
    Held { body, _guard: guard }.boxed_unsync()
}

struct Held<G> {
    body: Body,
    _guard: G,
}

impl<G: Unpin> http_body::Body for Held<G> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Sets one header to a constant.
pub fn set_header(response: &mut Response, name: HeaderName, value: &'static str) {
    response.headers_mut().insert(name, HeaderValue::from_static(value));
}

/// `{"data": value}` with status 200.
pub fn data(value: impl Serialize) -> Result<Response> {
    Ok(outcome(Format::Json, Outcome::of(value)?))
}

/// A raw stream with status 200.
pub fn octet_stream(body: Body) -> Response {
    with_body(StatusCode::OK, Some(OCTET_STREAM), body)
}

/// A successful result in its dress.
pub fn outcome(format: Format, outcome: Outcome) -> Response {
    let mut object = serde_json::Map::new();
    object.insert("data".to_owned(), outcome.data);
    object.extend(outcome.attributes.into_iter().map(|(name, value)| (name.to_owned(), value)));
    if format == Format::ExtJs {
        object.insert("status".to_owned(), json!(200));
        object.insert("success".to_owned(), json!(true));
    }
    text(StatusCode::OK, Some(JSON), Value::Object(object).to_string())
}

/// What an error means to the client.
pub fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Denied => StatusCode::FORBIDDEN,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Busy | Kind::Invalid | Kind::Corrupt | Kind::Io | Kind::Closed => StatusCode::BAD_REQUEST,
    }
}

/// A refused or failed call: its text, typed as JSON although it is not (recorded). Wrong parameters are named one by one in the format
/// that has a place for that, whoever found them: the check of the row or its handler.
pub fn error(format: Format, error: &Error) -> Response {
    let response = match (format, error.cause::<ParamErrors>()) {
        (Format::Json, _) => text(status(error.kind()), Some(JSON), error.to_string()),
        (Format::ExtJs, Some(ParamErrors::Wrong(list))) => {
            extjs_error(status(error.kind()), "parameter verification errors".to_owned(), json!(list))
        }
        (Format::ExtJs, _) => extjs_error(status(error.kind()), error.to_string(), json!({})),
    };
    marked(response, error.kind())
}

/// An error outside the API, or of the HTTP/2 parameter check: without a content type (recorded).
pub fn untyped_error(error: &Error) -> Response {
    marked(text(status(error.kind()), None, error.to_string()), error.kind())
}

/// Remembers beside the answer which error it tells of, for the metrics; nothing of it is sent.
fn marked(mut response: Response, kind: Kind) -> Response {
    response.extensions_mut().insert(kind);
    response
}

/// Which error an answer of [`error`] or [`untyped_error`] tells of.
pub fn error_kind(response: &Response) -> Option<Kind> {
    response.extensions().get().copied()
}

fn extjs_error(status: StatusCode, message: String, errors: Value) -> Response {
    let body = json!({ "success": false, "status": status.as_u16(), "message": message, "errors": errors });
    text(StatusCode::OK, Some(JSON), body.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn shown(response: Response) -> (u16, String) {
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn both_dresses() {
        let version = || Outcome::of(json!({"version": "3.2"})).unwrap();
        assert_eq!(shown(outcome(Format::Json, version())).await, (200, r#"{"data":{"version":"3.2"}}"#.into()));
        assert_eq!(
            shown(outcome(Format::ExtJs, version())).await,
            (200, r#"{"data":{"version":"3.2"},"status":200,"success":true}"#.into())
        );
        let denied = Error::denied("permission check failed");
        assert_eq!(shown(error(Format::Json, &denied)).await, (403, "permission check failed".into()));
        assert_eq!(
            shown(error(Format::ExtJs, &denied)).await,
            (200, r#"{"errors":{},"message":"permission check failed","status":403,"success":false}"#.into())
        );
        let wrong = Error::from(ParamErrors::one("a", "bad"));
        assert_eq!(shown(error(Format::Json, &wrong)).await, (400, "parameter verification failed - 'a': bad".into()));
        assert_eq!(
            shown(error(Format::ExtJs, &wrong)).await,
            (
                200,
                r#"{"errors":{"a":"bad"},"message":"parameter verification errors","status":400,"success":false}"#
                    .into()
            )
        );
        let unreadable = Error::from(ParamErrors::Unreadable("no JSON".into()));
        assert_eq!(
            shown(error(Format::ExtJs, &unreadable)).await,
            (200, r#"{"errors":{},"message":"no JSON","status":400,"success":false}"#.into())
        );
    }
}
