//! One request from its target to its answer: path, login, parameters, privileges, handler.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::request::Parts;
use http::{Method, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::context::{App, RequestContext, discard, read_body};
use super::login;
use super::maintenance;
use super::metrics;
use super::params::{self, JSON_BYTES_MAX, ParamErrors, Received};
use super::reply::{self, Format, Outcome, Response};
use super::rights::{Reach, Refused, enforce};
use super::router::{Access, BodyUse, Found, PathError, Reply, Route, Router, TARGET_BYTES_MAX, components};
use crate::auth::AuthFailure;
use crate::error::{Error, Kind, Result};
use crate::metrics::Interface;
use crate::types::AuthId;

/// Who a request without a login counts as; it has no privileges anywhere.
const NOBODY: &str = "nobody@pbs";

/// Answers a request. Never fails: an error is an answer too.
pub async fn dispatch(app: Arc<App>, router: Arc<Router>, peer: SocketAddr, request: Request<Incoming>) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = answer(app.clone(), &router, None, peer, request).await;
    app.metrics.answered(Interface::Rest, response.status().as_u16(), reply::error_kind(&response));
    let elapsed_ms = started.elapsed().as_millis();
    tracing::debug!(%peer, %method, path, status = response.status().as_u16(), elapsed_ms, "request");
    response
}

/// The same for somebody of whom it is known who they are; whatever the request says of that counts for nothing.
pub(super) async fn dispatch_as(
    app: Arc<App>,
    router: Arc<Router>,
    auth: AuthId,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response {
    answer(app, &router, Some(auth), peer, request).await
}

async fn answer(
    app: Arc<App>,
    router: &Router,
    known: Option<AuthId>,
    peer: SocketAddr,
    request: Request<Incoming>,
) -> Response {
    let (mut head, body) = request.into_parts();
    let upgrade = head.extensions.remove::<OnUpgrade>();
    let request = Taken { head, body, upgrade };
    let no_wait = Duration::ZERO;
    if request.head.uri.path_and_query().map_or(0, |target| target.as_str().len()) > TARGET_BYTES_MAX {
        return request.ignoring_body(no_wait, reply::empty(StatusCode::URI_TOO_LONG)).await;
    }
    let components = match components(request.head.uri.path()) {
        Ok(components) => components,
        Err(error) => {
            let error = match error {
                PathError::Illegal => Error::invalid("path contains illegal components"),
                PathError::Undecodable => Error::not_found("path is not UTF-8"),
            };
            return request.ignoring_body(no_wait, reply::untyped_error(&error)).await;
        }
    };
    if components == ["metrics"] && request.head.method == Method::GET {
        return match metrics::serve(&app, peer.ip(), &request.head.headers).await {
            Ok(page) => request.ignoring_body(no_wait, page).await,
            Err(error) => {
                let wait = match error.kind() {
                    Kind::Unauthenticated => {
                        let claimed = Some("metrics".to_owned());
                        // Logged as every refused login.
                        login::refuse(peer, &AuthFailure { reason: error.to_string(), claimed });
                        app.delays().unauthenticated
                    }
                    Kind::Denied => app.delays().denied,
                    _ => no_wait,
                };
                request.ignoring_body(wait, metrics::refusal(&error)).await
            }
        };
    }
    let (format, below) = match format_of(&components) {
        Ok(found) => found,
        Err(error) => return request.ignoring_body(no_wait, reply::untyped_error(&error)).await,
    };
    let found = router.find(&request.head.method, below);
    let open = matches!(&found, Found::Call(route, _) if matches!(route.access, Access::Anybody));
    let auth = match known {
        Some(auth) => Ok(auth),
        None if open => Ok(NOBODY.parse().expect("a user")),
        None => login::of_request(&app, peer, &request.head).await,
    };
    let auth = match auth {
        Ok(auth) => auth,
        Err(error) => {
            let wait = if error.kind() == Kind::Unauthenticated { app.delays().unauthenticated } else { no_wait };
            return request.ignoring_body(wait, reply::untyped_error(&error)).await;
        }
    };
    match found {
        Found::Nothing => {
            let path = components.join("/");
            let error = Error::not_found(format!("Path '/{path:.200}' not found."));
            request.ignoring_body(no_wait, reply::error(format, &error)).await
        }
        Found::Directory(names) => {
            let list: Vec<_> = names.into_iter().map(|name| serde_json::json!({ "subdir": name })).collect();
            let listing = Outcome { data: list.into(), attributes: Vec::new() };
            request.ignoring_body(no_wait, reply::outcome(format, listing)).await
        }
        Found::Call(route, path_params) => {
            let delays = app.delays();
            match call(app, route, &path_params, format, peer, auth, request).await {
                Ok(response) => response,
                Err(Refusal::Access) => {
                    tokio::time::sleep(delays.denied).await;
                    reply::error(format, &Error::denied("permission check failed"))
                }
                Err(Refusal::Failed(error)) => {
                    if error.kind() == Kind::Unauthenticated {
                        tokio::time::sleep(delays.unauthenticated).await;
                    }
                    reply::error(format, &error)
                }
            }
        }
    }
}

/// The dress that a path asks for, and the path below it.
fn format_of(components: &[String]) -> Result<(Format, &[String])> {
    match components {
        [api, format, below @ ..] if api == "api2" => match format.as_str() {
            "json" => Ok((Format::Json, below)),
            "extjs" => Ok((Format::ExtJs, below)),
            other => Err(Error::invalid(format!("Unsupported output format '{other:.80}'."))),
        },
        _ => Err(Error::not_found(format!("no such file: '{:.200}'", components.join("/")))),
    }
}

/// A request, taken apart.
struct Taken {
    head: Parts,
    body: Incoming,
    upgrade: Option<OnUpgrade>,
}

impl Taken {
    /// An answer that does not depend on the body, after a wait. The body is received first, so that a client that sends before it
    /// listens sees the answer; one that asks before it sends is spared that.
    async fn ignoring_body(mut self, wait: Duration, response: Response) -> Response {
        let receive = async {
            if !self.head.headers.contains_key(header::EXPECT) {
                discard(&mut self.body).await;
            }
        };
        tokio::join!(tokio::time::sleep(wait), receive);
        response
    }
}

/// Why a call gave no result.
enum Refusal {
    Access,
    Failed(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<ParamErrors> for Refusal {
    fn from(errors: ParamErrors) -> Self {
        Self::Failed(errors.into())
    }
}

async fn call(
    app: Arc<App>,
    route: &Route,
    path_params: &[(&'static str, String)],
    format: Format,
    peer: SocketAddr,
    auth: AuthId,
    request: Taken,
) -> Result<Response, Refusal> {
    let Taken { head, body, upgrade } = request;
    let query = head.uri.query().unwrap_or("");
    let path: Vec<(&str, &str)> = path_params.iter().map(|(name, text)| (*name, text.as_str())).collect();
    let mut raw_body = None;
    let received = match route.body {
        BodyUse::Raw => {
            raw_body = Some(body);
            Received::from_query(&path, query)?
        }
        BodyUse::Parameters => {
            let content_type =
                head.headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("unreadable"));
            // GET and DELETE of some clients announce a body that is not there.
            let bytes = read_body(body, JSON_BYTES_MAX).await?;
            Received::from_request(&path, query, content_type, &bytes)?
        }
    };
    let params = match params::check(route.params, received) {
        Ok(params) => params,
        Err(errors) => {
            drain(raw_body, &head.headers).await;
            return Err(errors.into());
        }
    };
    let upgrade = upgrade.filter(|_| head.method == Method::GET);
    let mut context = RequestContext {
        app,
        auth,
        peer,
        headers: head.headers,
        version: head.version,
        upgrade,
        body: raw_body,
        reach: Reach::Own,
    };
    let entered = match enforce(route.access, &context, &params).await {
        Ok(reach) => {
            context.reach = reach;
            maintenance::begin(route, &context, &params).map_err(Refusal::Failed)
        }
        Err(Refused::Plainly) => Err(Refusal::Access),
        Err(Refused::With(error)) => Err(Refusal::Failed(error)),
    };
    let operation = match entered {
        Ok(operation) => operation,
        Err(refusal) => {
            drain(context.body.take(), &context.headers).await;
            return Err(refusal);
        }
    };
    Ok(match (route.handler)(context, params).await? {
        Reply::Data(outcome) => reply::outcome(format, outcome),
        Reply::Rows(rows) => maintenance::hold(rows.into_response(format).await?, operation),
        Reply::Raw(response) => maintenance::hold(response, operation),
    })
}

/// Receives a raw body that no handler will read, for the reason of [`Taken::ignoring_body`].
async fn drain(body: Option<Incoming>, headers: &http::HeaderMap) {
    if let Some(mut body) = body.filter(|_| !headers.contains_key(header::EXPECT)) {
        discard(&mut body).await;
    }
}
