//! One request from its target to its answer: path, login, parameters, privileges, handler.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{Method, Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::context::{App, RequestContext, read_body};
use super::params::{self, JSON_BYTES_MAX, ParamErrors, Params, Received};
use super::reply::{self, Format, Outcome, Response};
use super::router::{Access, BodyUse, Found, PathError, Reply, Route, Router, TARGET_BYTES_MAX, components};
use crate::auth::{AclPath, AuthFailure, Privileges, authenticate};
use crate::error::{Error, Kind, Result};
use crate::types::{AuthId, DatastoreName, Namespace};

/// Who a request without a login counts as; it has no privileges anywhere.
const NOBODY: &str = "nobody@pbs";

/// Answers a request. Never fails: an error is an answer too.
pub async fn dispatch(app: Arc<App>, router: Arc<Router>, peer: SocketAddr, request: Request<Incoming>) -> Response {
    let started = Instant::now();
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let response = answer(app, &router, peer, request).await;
    let elapsed_ms = started.elapsed().as_millis();
    tracing::debug!(%peer, %method, path, status = response.status().as_u16(), elapsed_ms, "request");
    response
}

async fn answer(app: Arc<App>, router: &Router, peer: SocketAddr, request: Request<Incoming>) -> Response {
    if request.uri().path_and_query().map_or(0, |target| target.as_str().len()) > TARGET_BYTES_MAX {
        return reply::empty(StatusCode::URI_TOO_LONG);
    }
    let components = match components(request.uri().path()) {
        Ok(components) => components,
        Err(PathError::Illegal) => return reply::untyped_error(&Error::invalid("path contains illegal components")),
        Err(PathError::Undecodable) => return reply::untyped_error(&Error::not_found("path is not UTF-8")),
    };
    let (format, below) = match components.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["api2", "json", ..] => (Format::Json, &components[2..]),
        ["api2", "extjs", ..] => (Format::ExtJs, &components[2..]),
        ["api2", other, ..] => {
            return reply::untyped_error(&Error::invalid(format!("Unsupported output format '{other:.80}'.")));
        }
        _ => {
            let name = components.join("/");
            return reply::untyped_error(&Error::not_found(format!("no such file: '{name:.200}'")));
        }
    };
    let found = router.find(request.method(), below);
    let open = matches!(&found, Found::Call(route, _) if matches!(route.access, Access::Anybody));
    let auth = if open { Ok(NOBODY.parse().expect("a user")) } else { login(&app, peer, &request) };
    let auth = match auth {
        Ok(auth) => auth,
        Err(failure) => {
            tokio::time::sleep(app.delays.unauthenticated).await;
            return reply::untyped_error(&Error::unauthenticated(failure.to_string()));
        }
    };
    match found {
        Found::Nothing => {
            let path = components.join("/");
            reply::error(format, &Error::not_found(format!("Path '/{path:.200}' not found.")))
        }
        Found::Directory(names) => {
            let list: Vec<_> = names.into_iter().map(|name| serde_json::json!({ "subdir": name })).collect();
            reply::outcome(format, Outcome { data: list.into(), attributes: Vec::new() })
        }
        Found::Call(route, path_params) => {
            let delays = app.delays;
            match call(app, route, &path_params, peer, auth, request).await {
                Ok(Reply::Data(outcome)) => reply::outcome(format, outcome),
                Ok(Reply::Raw(response)) => response,
                Err(Refusal::Parameters(errors)) => reply::param_errors(format, &errors),
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

/// Why a call gave no result.
enum Refusal {
    Parameters(ParamErrors),
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
        Self::Parameters(errors)
    }
}

fn login(app: &App, peer: SocketAddr, request: &Request<Incoming>) -> Result<AuthId, AuthFailure> {
    let users = app.users.get();
    let checked = authenticate(&users, &app.keys, request.headers(), request.method(), app.clock.now());
    checked.inspect_err(|failure| log_failure(peer, failure.claimed.as_deref(), &failure.reason))
}

/// The line that watchers such as fail2ban look for; see docs/operations in the manual. Its form does not change.
pub(super) fn log_failure(peer: SocketAddr, user: Option<&str>, reason: &str) {
    let user = user.unwrap_or("unknown");
    tracing::warn!(target: "ringvault::auth", "authentication failure; rhost={} user={user} msg={reason}", peer.ip());
}

async fn call(
    app: Arc<App>,
    route: &Route,
    path_params: &[(&'static str, String)],
    peer: SocketAddr,
    auth: AuthId,
    request: Request<Incoming>,
) -> Result<Reply, Refusal> {
    let (mut head, body) = request.into_parts();
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
    let params = params::check(route.params, received)?;
    let upgrade = head.extensions.remove::<OnUpgrade>().filter(|_| head.method == Method::GET);
    let context =
        RequestContext { app, auth, peer, headers: head.headers, version: head.version, upgrade, body: raw_body };
    if !may(&context, route.access, &params)? {
        return Err(Refusal::Access);
    }
    Ok((route.handler)(context, params).await?)
}

fn may(context: &RequestContext, access: Access, params: &Params) -> Result<bool> {
    let any = |wanted: Privileges, below: bool| -> Result<bool> {
        let store: DatastoreName = params.parsed("store")?;
        let path = AclPath::datastore(&store, &Namespace::root());
        let users = context.app.users.get();
        let held = users.acl.privileges(&context.auth, &path);
        Ok(held.has_any(wanted) || (below && !users.acl.privileges_below(&context.auth, &path).is_empty()))
    };
    match access {
        Access::Anybody | Access::Authenticated => Ok(true),
        Access::Store(wanted) => any(wanted, false),
        Access::StoreOrBelow(wanted) => any(wanted, true),
    }
}
