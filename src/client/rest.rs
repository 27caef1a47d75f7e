//! Calls to the server before any upgrade: login, JSON over HTTP/1.1, and the connection that a session grows from.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, COOKIE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::environment::{self, Secret};
use super::repository::Repository;
use super::tls::{Connector, Trust};
use crate::error::{Error, Kind, Result};
use crate::sync::Mutex;

/// How long a call may take (the official client's limit, spec 06 §1).
const CALL_TIMEOUT: Duration = Duration::from_secs(120);

/// Age at which a ticket is replaced (spec 06 §1.2); the server takes it for two hours.
const TICKET_AGE_MAX: Duration = Duration::from_secs(15 * 60);

/// Longest JSON answer that is read: a listing of some hundred thousand snapshots.
const JSON_BYTES_MAX: usize = 256 << 20;

/// Longest error text that is read.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// What the official client escapes in the ticket's cookie (spec 06 §1.2).
const COOKIE_ESCAPED: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'`').add(b'?').add(b'{').add(b'}');

/// What a secret may show unescaped; a generated one has nothing else.
const SECRET_ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// How this program names itself.
pub(super) const AGENT: HeaderValue = HeaderValue::from_static(concat!("ringvault/", env!("CARGO_PKG_VERSION")));

/// The content type of every request that carries its parameters in the query.
pub(super) const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");

/// The content type of JSON bodies.
pub(super) const JSON: HeaderValue = HeaderValue::from_static("application/json");

const CSRF_TOKEN: HeaderName = HeaderName::from_static("csrfpreventiontoken");

/// Name and value of query parameters, in the order in which they are sent.
pub type Query<'a> = &'a [(&'a str, &'a str)];

/// A user of one server: knows how to log in and to call. Cheap to clone; connects at each call.
#[derive(Clone, Debug)]
pub struct Client {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    repository: Repository,
    secret: Secret,
    connector: Connector,
    ticket: Mutex<Option<(Instant, HeaderMap)>>,
}

impl Client {
    /// Prepares to call the server of `repository`. Nothing is sent yet.
    pub fn new(repository: Repository, secret: Secret, trust: Trust) -> Result<Self> {
        let connector = Connector::new(trust)?;
        Ok(Self { inner: Arc::new(Inner { repository, secret, connector, ticket: Mutex::new(None) }) })
    }

    /// As the environment says, with `repository` in place of `PBS_REPOSITORY` when given.
    pub fn from_environment(repository: Option<&str>) -> Result<Self> {
        let lookup = &environment::process;
        Self::new(
            environment::repository(repository, lookup)?,
            environment::secret(lookup)?,
            environment::trust(lookup)?,
        )
    }

    /// Server, user and datastore.
    pub fn repository(&self) -> &Repository {
        &self.inner.repository
    }

    /// A GET of `/api2/json/{path}`; the answer's `data`.
    pub async fn get(&self, path: &str, query: Query<'_>) -> Result<Value> {
        self.call(Method::GET, path, query, FORM, Bytes::new()).await
    }

    /// A POST with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        self.call(Method::POST, path, &[], JSON, Bytes::from(body.to_string())).await
    }

    /// Any call of the management interface; the answer's `data`. `path` comes without `/api2/json/`.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        content_type: HeaderValue,
        body: Bytes,
    ) -> Result<Value> {
        let mut headers = self.credentials().await?;
        headers.insert(CONTENT_TYPE, content_type);
        self.limited(self.exchange(method, path, query, headers, body)).await
    }

    /// Sends the upgrade request for `protocol` and gives the connection that the server hands over.
    pub(super) async fn upgrade(
        &self,
        path: &str,
        query: Query<'_>,
        protocol: &'static str,
    ) -> Result<hyper::upgrade::Upgraded> {
        let mut headers = self.credentials().await?;
        headers.insert(CONTENT_TYPE, FORM);
        headers.insert(http::header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(http::header::UPGRADE, HeaderValue::from_static(protocol));
        let upgraded = async {
            let mut response = self.send(Method::GET, path, query, headers, Bytes::new()).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let status = response.status();
                let text = error_text(response.into_body()).await;
                return Err(self.refusal(status, &text));
            }
            hyper::upgrade::on(&mut response).await.map_err(|e| lost(&self.inner.repository, e))
        };
        self.limited(upgraded).await
    }

    async fn limited<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::time::timeout(CALL_TIMEOUT, call).await.unwrap_or_else(|_| {
            let authority = self.inner.repository.authority();
            let seconds = CALL_TIMEOUT.as_secs();
            Err(Error::new(Kind::Io, format!("{authority} gave no answer for {seconds} s: look at the server's log")))
        })
    }

    /// Headers that say who calls: a token's own, or a ticket's.
    async fn credentials(&self) -> Result<HeaderMap> {
        let auth_id = self.inner.repository.auth_id();
        if auth_id.token().is_some() {
            let secret = utf8_percent_encode(self.inner.secret.expose(), SECRET_ESCAPED);
            return Ok(HeaderMap::from_iter([(AUTHORIZATION, hidden(&format!("PBSAPIToken {auth_id}:{secret}"))?)]));
        }
        let kept = self.inner.ticket.lock().clone();
        match kept {
            Some((since, headers)) if since.elapsed() < TICKET_AGE_MAX => Ok(headers),
            _ => self.login().await,
        }
    }

    async fn login(&self) -> Result<HeaderMap> {
        let body = json!({
            "username": self.inner.repository.auth_id().to_string(),
            "password": self.inner.secret.expose(),
        });
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, JSON)]);
        let login = self.exchange(Method::POST, "access/ticket", &[], headers, Bytes::from(body.to_string()));
        let data = self.limited(login).await?;
        let (Some(ticket), Some(csrf)) = (data["ticket"].as_str(), data["CSRFPreventionToken"].as_str()) else {
            return Err(Error::invalid("the server's answer to the login holds no ticket"));
        };
        if ticket.starts_with("PBS:!tfa!") {
            return Err(Error::denied("this user has a second factor: make an API token for backups and use that"));
        }
        let cookie = format!("PBSAuthCookie={}", utf8_percent_encode(ticket, COOKIE_ESCAPED));
        let headers = HeaderMap::from_iter([(COOKIE, hidden(&cookie)?), (CSRF_TOKEN, hidden(csrf)?)]);
        *self.inner.ticket.lock() = Some((Instant::now(), headers.clone()));
        Ok(headers)
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Value> {
        let response = self.send(method, path, query, headers, body).await?;
        let status = response.status();
        if !status.is_success() {
            let text = error_text(response.into_body()).await;
            return Err(self.refusal(status, &text));
        }
        let body = collect(response.into_body(), JSON_BYTES_MAX).await?;
        data_of(&body)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        headers: HeaderMap,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let repository = &self.inner.repository;
        let stream = self.inner.connector.connect(repository).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| lost(repository, e))?;
        // Ends by itself when the answer is read or dropped.
        tokio::spawn(connection.with_upgrades());
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target("/api2/json/", path, query)?;
        *request.headers_mut() = headers;
        let host = HeaderValue::from_str(&repository.authority())
            .map_err(|_| Error::invalid("the host's name does not fit into a header"))?;
        request.headers_mut().insert(HOST, host);
        request.headers_mut().insert(USER_AGENT, AGENT);
        sender.send_request(request).await.map_err(|e| lost(repository, e))
    }

    fn refusal(&self, status: StatusCode, text: &str) -> Error {
        let auth_id = self.inner.repository.auth_id();
        let hint = match status {
            StatusCode::UNAUTHORIZED => {
                format!(
                    " (is {auth_id} right, and PBS_PASSWORD its {}?)",
                    if auth_id.token().is_some() { "secret" } else { "password" }
                )
            }
            StatusCode::FORBIDDEN => format!(" ({auth_id} lacks the privilege for this)"),
            _ => String::new(),
        };
        refused(status, &format!("{text}{hint}"))
    }
}

/// The error that an answer with this status means.
pub(super) fn refused(status: StatusCode, text: &str) -> Error {
    let kind = match status {
        StatusCode::UNAUTHORIZED => Kind::Unauthenticated,
        StatusCode::FORBIDDEN => Kind::Denied,
        StatusCode::NOT_FOUND => Kind::NotFound,
        StatusCode::SERVICE_UNAVAILABLE => Kind::Busy,
        _ => Kind::Invalid,
    };
    let text = text.trim();
    if text.is_empty() {
        Error::new(kind, format!("the server answered {status}"))
    } else {
        Error::new(kind, format!("the server answered {}: {text}", status.as_u16()))
    }
}

/// The error for a connection that broke.
pub(super) fn lost(repository: &Repository, error: hyper::Error) -> Error {
    Error::new(Kind::Io, format!("the connection to {} broke: look at the server's log", repository.authority()))
        .with_source(WithCauses(error))
}

/// Shows an error with all its causes; hyper's own text stops at the first.
#[derive(Debug)]
struct WithCauses(hyper::Error);

impl std::fmt::Display for WithCauses {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)?;
        let mut cause = std::error::Error::source(&self.0);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for WithCauses {}

/// Path and encoded query.
pub(super) fn target(prefix: &str, path: &str, query: Query) -> Result<http::Uri> {
    let mut text = format!("{prefix}{path}");
    if !query.is_empty() {
        let encoded = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
        text = format!("{text}?{encoded}");
    }
    text.parse().map_err(|e| Error::invalid(format!("{text:.200?} cannot be asked for")).with_source(Box::new(e)))
}

/// The whole body, at most `bytes_max`.
pub(super) async fn collect(body: Incoming, bytes_max: usize) -> Result<Bytes> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(whole) => Ok(whole.to_bytes()),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => {
            Err(Error::invalid(format!("the server's answer is longer than {bytes_max} bytes")))
        }
        Err(e) => Err(Error::new(Kind::Io, "the server's answer broke off").with_source(e)),
    }
}

/// The text of an error answer; what cannot be read is left out.
pub(super) async fn error_text(body: Incoming) -> String {
    collect(body, ERROR_BYTES_MAX).await.map(|b| String::from_utf8_lossy(&b).into_owned()).unwrap_or_default()
}

/// The `data` of a JSON answer; an empty body is null (spec 06 §1.3).
pub(super) fn data_of(body: &[u8]) -> Result<Value> {
    if body.is_empty() {
        return Ok(Value::Null);
    }
    let whole: Value =
        serde_json::from_slice(body).map_err(|e| Error::invalid("the server's answer is not JSON").with_source(e))?;
    match whole {
        Value::Object(mut object) if object.contains_key("data") => Ok(object.remove("data").unwrap_or_default()),
        _ => Err(Error::invalid("the server's answer has no \"data\"")),
    }
}

fn hidden(text: &str) -> Result<HeaderValue> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Error::invalid("user or secret hold characters that no header can carry"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_encoded_as_forms() {
        let uri = target("/api2/json/", "backup", &[("ns", "a/b"), ("id", "x y:!+")]).unwrap();
        assert_eq!(uri.to_string(), "/api2/json/backup?ns=a%2Fb&id=x+y%3A%21%2B");
        assert_eq!(target("/", "finish", &[]).unwrap().to_string(), "/finish");
    }

    #[test]
    fn an_answer_is_an_object_with_data_or_nothing() {
        assert_eq!(data_of(b"").unwrap(), Value::Null);
        assert_eq!(data_of(b"{\"data\":3}").unwrap(), json!(3));
        for bad in [&b"3"[..], b"{}", b"{\"data\":", b"[1]"] {
            assert!(data_of(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_ticket_keeps_its_signs_in_the_cookie() {
        let ticket = "PBS:u@pbs:666074EA::ab+/=%";
        assert_eq!(utf8_percent_encode(ticket, COOKIE_ESCAPED).to_string(), ticket);
    }
}
