//! `access/ticket`: a user's password, or a ticket that is still good, for a new ticket.

use http::Method;
use serde_json::json;

use super::{RequestContext, reply};
use crate::auth::login;
use crate::error::{Error, Result};
use crate::http::dispatch::log_failure;
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::types::Userid;

const PASSWORD: ParamKind = ParamKind::Text {
    pattern: r"^[^\x00-\x1f\x7f-\x9f]*$",
    min: 1,
    max: 1024,
    matches: |s| !s.chars().any(char::is_control),
};
const USERNAME: ParamKind = ParamKind::Text {
    pattern: r"^[^\s:/@!\x00-\x1f\x7f]+@[A-Za-z0-9_][A-Za-z0-9._\-]{1,31}$",
    min: 3,
    max: 64,
    matches: |s| s.parse::<Userid>().is_ok(),
};

pub(super) const ROUTES: &[Route] = &[Route {
    method: Method::POST,
    path: "access/ticket",
    access: Access::Anybody,
    body: BodyUse::Parameters,
    params: &[
        ParamSpec::required("username", USERNAME, "Who: NAME@REALM."),
        ParamSpec::required("password", PASSWORD, "The password, or a ticket."),
    ],
    returns: Returns::Data(Shape::Object(&[
        Field::new("username", Shape::Text, "Who."),
        Field::new("ticket", Shape::Text, "For the cookie PBSAuthCookie, good for two hours."),
        Field::new("CSRFPreventionToken", Shape::Text, "For the header of that name, with every method but GET."),
    ])),
    handler: |context, params| Box::pin(ticket(context, params)),
    about: "Logs a user in.",
}];

async fn ticket(context: RequestContext, params: Params) -> Result<Reply> {
    let app = &context.app;
    let user: Userid = params.parsed("username")?;
    let password = params.text("password").unwrap_or_default().to_owned();
    let (users, keys, now) = (app.users.get(), app.keys.clone(), app.clock.now());
    let asked = user.clone();
    // A password costs tens of milliseconds of a CPU: never more than a few at a time, and not on a runtime thread.
    let place = app.logins.acquire().await.map_err(|_| Error::closed("the server is shutting down"))?;
    let known = app.compute.run(move || login(&users, &keys, &asked, &password, now)).await?;
    drop(place);
    if !known {
        log_failure(context.peer, Some(user.as_str()), "invalid credentials");
        return Err(Error::unauthenticated("permission check failed."));
    }
    reply(json!({
        "username": user.as_str(),
        "ticket": app.keys.tickets.issue_ticket(&user, now),
        "CSRFPreventionToken": app.keys.tickets.issue_csrf(&user, now),
    }))
}
