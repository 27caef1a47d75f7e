//! `access/ticket`, `access/password`, `access/domains`: logins and what they need; and what the calls below `access` share.

use http::Method;
use serde_json::json;

use super::{RequestContext, reply};
use crate::auth::{AclPath, PASSWORD_CHARS_MIN, Privileges, REALM_PAM, REALM_PBS, hash_password};
use crate::error::{Error, Result};
use crate::http::login;
use crate::http::params::{ParamErrors, ParamKind, ParamSpec, Params};
use crate::http::reply::Outcome;
use crate::http::rights::{HandlerRule, Ownership, Where, demand};
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::types::{AuthId, Userid};

const PASSWORD: ParamKind = ParamKind::line(1, 1024);
/// A password that is set; one that is shown may be shorter.
pub(super) const NEW_PASSWORD: ParamKind = ParamKind::line(PASSWORD_CHARS_MIN, 1024);
pub(super) const USERNAME: ParamKind = ParamKind::Text {
    pattern: r"^[^\s:/\x00-\x1f\x7f]+@[A-Za-z0-9_][A-Za-z0-9._\-]{1,31}$",
    min: 3,
    max: 64,
    matches: |s| s.parse::<Userid>().is_ok(),
};
pub(super) const AUTH_ID: ParamKind = ParamKind::Text {
    pattern: r"^[^\s:/\x00-\x1f\x7f]+@[A-Za-z0-9_][A-Za-z0-9._\-]{1,31}(![A-Za-z0-9_][A-Za-z0-9._\-]{0,63})?$",
    min: 3,
    max: 129,
    matches: |s| s.parse::<AuthId>().is_ok(),
};
pub(super) const USERID: ParamSpec = ParamSpec::required("userid", USERNAME, "Who: NAME@REALM.");
pub(super) const DIGEST: ParamSpec = ParamSpec::optional(
    "digest",
    ParamKind::DIGEST,
    "The `digest` of the answer that the change is based on: refused if it is another by now.",
);
/// Beside the data of what can be changed.
pub(super) const WITH_DIGEST: &[Field] =
    &[Field::new("digest", Shape::Text, "Changes with the data; for the parameter of that name.")];

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::POST,
        path: "access/ticket",
        access: Access::Anybody,
        body: BodyUse::Parameters,
        params: &[
            ParamSpec::required("username", USERNAME, "Who: NAME@REALM."),
            ParamSpec::required("password", PASSWORD, "The password, or a ticket that is still good."),
            ParamSpec::optional("path", super::access_acl::ACL_PATH, "With `privs`: where they must be held."),
            ParamSpec::optional(
                "privs",
                ParamKind::Text {
                    pattern: r"^[A-Za-z., ]+$",
                    min: 1,
                    max: 1024,
                    matches: |s| s.parse::<Privileges>().is_ok(),
                },
                "Refuse the ticket unless the user has all these privileges, separated by commas, on `path`.",
            ),
            ParamSpec::optional(
                "port",
                ParamKind::Integer { min: 0, max: 65535 },
                "Of a terminal; refused, for there are none here.",
            ),
            ParamSpec::optional(
                "http-only",
                ParamKind::Boolean,
                "Of newer clients, that may take the ticket as a cookie; it is in the answer in any case.",
            ),
            ParamSpec::optional(
                "tfa-challenge",
                ParamKind::ANY_TEXT,
                "Of a second factor; refused, for none is asked for here.",
            ),
        ],
        returns: Returns::Data(Shape::Object(&[
            Field::new("username", Shape::Text, "Who."),
            Field::new("ticket", Shape::Text, "For the cookie PBSAuthCookie, good for two hours."),
            Field::new("CSRFPreventionToken", Shape::Text, "For the header of that name, with every method but GET."),
        ])),
        handler: |context, params| Box::pin(ticket(context, params)),
        about: "Logs a user in.",
    },
    Route {
        method: Method::PUT,
        path: "access/password",
        access: Access::Handler(HandlerRule {
            grants: &[(Privileges::PERMISSIONS_MODIFY, Where::At("/access/users"))],
            groups: Ownership::Any,
            also: "users their own, with confirmation-password",
        }),
        body: BodyUse::Parameters,
        params: &[
            USERID,
            ParamSpec::required("password", NEW_PASSWORD, "The new password."),
            ParamSpec::optional(
                "confirmation-password",
                PASSWORD,
                "The asker's present password; not needed with Permissions.Modify on /access/users.",
            ),
        ],
        returns: Returns::NULL,
        handler: |context, params| Box::pin(set_password(context, params)),
        about: "Sets the password of a user of the realm pbs.",
    },
    Route {
        method: Method::GET,
        path: "access/domains",
        access: Access::Anybody,
        body: BodyUse::Parameters,
        params: &[],
        returns: Returns::Data(Shape::Array(&Shape::Object(&[
            Field::new("realm", Shape::Text, "What stands behind the @ of a user."),
            Field::new("type", Shape::Enum(&["pbs", "pam"]), "Who checks passwords."),
            Field::new("comment", Shape::Text, "For people."),
            Field::new("default", Shape::Boolean, "Whether a login dialog should begin with it."),
        ]))),
        handler: |context, params| Box::pin(domains(context, params)),
        about: "Realms whose users can log in.",
    },
];

async fn ticket(context: RequestContext, params: Params) -> Result<Reply> {
    let app = &context.app;
    let user: Userid = params.parsed("username")?;
    let wanted: Option<(AclPath, Privileges)> = match (params.parsed_opt("path")?, params.parsed_opt("privs")?) {
        (None, None) => None,
        (Some(path), Some(privileges)) => Some((path, privileges)),
        (path, _) => {
            let missing = if path.is_some() { "privs" } else { "path" };
            return Err(ParamErrors::one(missing, "`path` and `privs` come together.").into());
        }
    };
    for (name, reason) in [
        ("port", "there are no terminals here."),
        ("tfa-challenge", "no second factor is asked for here: log in with the password alone."),
    ] {
        if params.text(name).is_some() || params.int(name).is_some() {
            return Err(ParamErrors::one(name, reason).into());
        }
    }
    let password = params.text("password").unwrap_or_default();
    // Before the password is checked: one that is set meanwhile ends the ticket.
    let stamp = app.users.get().ticket_stamp(&user).to_owned();
    login::of_user(app, context.peer, &user, password).await.map_err(|error| match error.kind() {
        // What was wrong stands in the log only.
        crate::error::Kind::Unauthenticated => Error::unauthenticated("permission check failed."),
        _ => error,
    })?;
    if let Some((path, privileges)) = wanted {
        let held = app.users.get().acl.privileges(&user.clone().into(), &path);
        if !held.has_all(privileges) {
            return Err(Error::denied(format!("permission check failed - missing {privileges} on {path}")));
        }
    }
    let now = app.clock.now();
    reply(json!({
        "username": user.as_str(),
        "ticket": app.keys.tickets.issue_ticket(&user, now, &stamp),
        "CSRFPreventionToken": app.keys.tickets.issue_csrf(&user, now),
    }))
}

async fn set_password(context: RequestContext, params: Params) -> Result<Reply> {
    let user: Userid = params.parsed("userid")?;
    let confirmation = "confirmation-password";
    let may_set_any = may(&context, "/access/users", Privileges::PERMISSIONS_MODIFY);
    if !may_set_any && !is_oneself(&context, &user) {
        demand(&context, &AclPath::fixed("/access/users"), Privileges::PERMISSIONS_MODIFY)?;
    }
    match params.text(confirmation) {
        Some(_) if context.auth.token().is_some() => {
            return Err(ParamErrors::one(confirmation, "a token has no password.").into());
        }
        // A ticket will not do: whoever found one could keep the account for good.
        Some(shown) => login::confirm(&context.app, context.peer, context.auth.user(), shown).await?,
        None if may_set_any => {}
        None => return Err(ParamErrors::one(confirmation, "the present password is needed to set another.").into()),
    }
    if user.realm() == REALM_PBS {
        context.app.users.get().account(&user.clone().into())?;
    }
    let password = params.text("password").unwrap_or_default().to_owned();
    let hash = context.app.compute.run(move || hash_password(&password)).await??;
    let of = user.clone();
    context.app.edit_users(move |users| users.set_password_hash(&of, hash.clone())).await?;
    tracing::info!(by = %context.auth, %user, "password set");
    Ok(Reply::Data(Outcome::null()))
}

async fn domains(_: RequestContext, _: Params) -> Result<Reply> {
    let mut realms =
        vec![json!({ "realm": REALM_PBS, "type": REALM_PBS, "comment": "Users of this server", "default": true })];
    if cfg!(feature = "pam") {
        realms.push(
            json!({ "realm": REALM_PAM, "type": REALM_PAM, "comment": "Users of the machine", "default": false }),
        );
    }
    reply(realms)
}

/// Whether the asker has one of these privileges at a place.
pub(super) fn may(context: &RequestContext, place: &'static str, wanted: Privileges) -> bool {
    context.privileges(&AclPath::fixed(place)).has_any(wanted)
}

/// Whether a user asks about themselves. Tokens are not their user here: one that leaked must not make others.
pub(super) fn is_oneself(context: &RequestContext, user: &Userid) -> bool {
    context.auth.token().is_none() && context.auth.user() == user
}

/// Lets in the user themselves, and whoever has one of these privileges on `/access/users`.
pub(super) fn oneself_or(context: &RequestContext, user: &Userid, wanted: Privileges) -> Result<()> {
    if is_oneself(context, user) { Ok(()) } else { demand(context, &AclPath::fixed("/access/users"), wanted) }
}

/// Refuses a change that is based on an older state.
pub(super) fn check_digest(given: Option<&str>, is: &str) -> Result<()> {
    match given {
        Some(given) if given != is => Err(Error::invalid(
            "detected modified configuration - somebody else changed it meanwhile: read it again and retry",
        )),
        _ => Ok(()),
    }
}
