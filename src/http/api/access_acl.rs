//! `access/acl`, `access/permissions`, `access/roles`: who may do what where.

use std::collections::BTreeSet;

use http::Method;
use serde_json::{Map, Value, json};

use super::access::{AUTH_ID, DIGEST, WITH_DIGEST, check_digest, is_oneself};
use super::{RequestContext, reply};
use crate::auth::{ACL_PATH_PATTERN, AclEntry, AclPath, Held, Privileges, Role, Users};
use crate::error::Result;
use crate::http::listed::{About, Own, RowFilter};
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::reply::Outcome;
use crate::http::rights::{HandlerRule, Ownership, Where, demand};
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::types::{AuthId, Namespace};

pub(super) const ACL_PATH: ParamKind =
    ParamKind::Text { pattern: ACL_PATH_PATTERN, min: 1, max: 1024, matches: |s| s.parse::<AclPath>().is_ok() };

/// On `/access/acl`, to see all permissions.
const SEE: Privileges = Privileges::SYS_AUDIT.union(Privileges::PERMISSIONS_MODIFY);
/// On `/access/acl`, to change any.
const CHANGE: Privileges = Privileges::PERMISSIONS_MODIFY;

/// Places that privileges are looked up on, whatever datastores there are.
const FIXED_PLACES: [&str; 8] =
    ["/", "/access", "/access/acl", "/access/users", "/datastore", "/remote", "/system", "/system/tasks"];

const SEEN: RowFilter =
    RowFilter { grants: &[(SEE, Where::At("/access/acl"))], own: Own::Tokens, is_refused_if_empty: false };

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "access/acl",
        access: Access::Listed(SEEN),
        body: BodyUse::Parameters,
        params: &[
            ParamSpec::optional("path", ACL_PATH, "Only permissions there and below."),
            ParamSpec::optional("exact", ParamKind::Boolean, "With `path`: only there.").or("false"),
        ],
        returns: Returns::With(
            Shape::Array(&Shape::Object(&[
                Field::new("path", Shape::Text, "Where."),
                Field::new("ugid", Shape::Text, "For whom: a user or a token."),
                Field::new("ugid_type", Shape::Enum(&["user"]), "There are no groups of users."),
                Field::new("roleid", Shape::Enum(&Role::NAMES), "What."),
                Field::new("propagate", Shape::Boolean, "Whether it also holds below."),
            ])),
            WITH_DIGEST,
        ),
        handler: |context, params| Box::pin(list(context, params)),
        about: "Permissions.",
    },
    Route {
        method: Method::PUT,
        path: "access/acl",
        access: Access::Handler(HandlerRule {
            grants: &[(CHANGE, Where::At("/access/acl"))],
            groups: Ownership::Any,
            also: "users for their own tokens",
        }),
        body: BodyUse::Parameters,
        params: &[
            ParamSpec::required("path", ACL_PATH, "Where."),
            ParamSpec::required("role", ParamKind::Enum(&Role::NAMES), "What."),
            ParamSpec::required("auth-id", AUTH_ID, "For whom: a user or a token."),
            ParamSpec::optional("propagate", ParamKind::Boolean, "Whether it also holds below.").or("true"),
            ParamSpec::optional("delete", ParamKind::Boolean, "Whether to take the role away.").or("false"),
            DIGEST,
        ],
        returns: Returns::NULL,
        handler: |context, params| Box::pin(change(context, params)),
        about: "Gives a role to somebody at a place, or takes it away.",
    },
    Route {
        method: Method::GET,
        path: "access/permissions",
        access: Access::Handler(HandlerRule {
            grants: &[(SEE, Where::At("/access/acl"))],
            groups: Ownership::Any,
            also: "users and tokens their own; users those of their tokens",
        }),
        body: BodyUse::Parameters,
        params: &[
            ParamSpec::optional("auth-id", AUTH_ID, "Whose; the asker's unless given."),
            ParamSpec::optional("path", ACL_PATH, "Only there, whatever is held there."),
        ],
        returns: Returns::Data(Shape::Map(&Shape::Map(&Shape::Boolean))),
        handler: |context, params| Box::pin(permissions(context, params)),
        about: "What somebody may do where: place → privilege → whether it also holds below.",
    },
    Route {
        method: Method::GET,
        path: "access/roles",
        access: Access::Authenticated,
        body: BodyUse::Parameters,
        params: &[],
        returns: Returns::Data(Shape::Array(&Shape::Object(&[
            Field::new("roleid", Shape::Enum(&Role::NAMES), "Its name."),
            Field::new("privs", Shape::Array(&Shape::Text), "What it gives."),
            Field::new("comment", Shape::Text, "For people."),
        ]))),
        handler: |context, params| Box::pin(roles(context, params)),
        about: "Roles, and the privileges that each gives.",
    },
];

async fn list(context: RequestContext, params: Params) -> Result<Reply> {
    let users = context.app.users.get();
    let path: Option<AclPath> = params.parsed_opt("path")?;
    let exact = params.bool("exact").unwrap_or(false);
    let is_there = |place: &AclPath| path.as_ref().is_none_or(|path| place == path || (!exact && place.is_below(path)));
    let is_seen = |auth: &AuthId| SEEN.shows(&context, About::Account(auth));
    let entries = users.acl.entries().into_iter().filter(|entry| is_there(&entry.path) && is_seen(&entry.auth_id));
    let row = |entry: AclEntry| {
        json!({
            "path": entry.path.to_string(),
            "ugid": entry.auth_id,
            "ugid_type": "user",
            "roleid": entry.role.as_str(),
            "propagate": entry.propagate,
        })
    };
    let attributes = vec![("digest", json!(users.acl_digest()))];
    Ok(Reply::Data(Outcome { data: entries.map(row).collect(), attributes }))
}

async fn change(context: RequestContext, params: Params) -> Result<Reply> {
    let auth_id: AuthId = params.parsed("auth-id")?;
    if !is_own_token(&context, &auth_id) {
        demand(&context, &AclPath::fixed("/access/acl"), CHANGE)?;
    }
    let (path, role): (AclPath, Role) = (params.parsed("path")?, params.parsed("role")?);
    let propagate = params.bool("propagate").unwrap_or(true);
    let delete = params.bool("delete").unwrap_or(false);
    let digest = params.text("digest").map(ToOwned::to_owned);
    let entry = AclEntry { path, auth_id, role, propagate };
    let told = entry.clone();
    let make = move |users: &mut Users| {
        check_digest(digest.as_deref(), &users.acl_digest())?;
        if delete {
            // Taking away what is not there is done already.
            users.acl.revoke(&entry.auth_id, &entry.path, entry.role);
            return Ok(());
        }
        users.account(&entry.auth_id)?;
        users.allow(entry.clone());
        Ok(())
    };
    context.app.edit_users(make).await?;
    let AclEntry { path, auth_id, role, .. } = told;
    tracing::info!(by = %context.auth, %path, %auth_id, %role, delete, propagate, "permission changed");
    Ok(Reply::Data(Outcome::null()))
}

async fn permissions(context: RequestContext, params: Params) -> Result<Reply> {
    let users = context.app.users.get();
    let asked = params.parsed_opt("auth-id")?.unwrap_or_else(|| context.auth.clone());
    if asked != context.auth && !is_own_token(&context, &asked) {
        demand(&context, &AclPath::fixed("/access/acl"), SEE)?;
        users.account(&asked)?;
    }
    let held = |path: &AclPath| (path.to_string(), Value::Object(shown(users.acl.held(&asked, path))));
    if let Some(path) = params.parsed_opt("path")? {
        return reply(Map::from_iter([held(&path)]));
    }
    let mut places: BTreeSet<AclPath> = FIXED_PLACES.into_iter().map(AclPath::fixed).collect();
    places
        .extend(context.app.datastores.all().iter().map(|store| AclPath::datastore(store.name(), &Namespace::root())));
    places.extend(users.acl.places_of(&asked).into_iter().cloned());
    let all = places.iter().filter(|path| !users.acl.privileges(&asked, path).is_empty());
    reply(all.map(held).collect::<Map<_, _>>())
}

async fn roles(_: RequestContext, _: Params) -> Result<Reply> {
    let row = |role: Role| {
        let privileges: Vec<_> = role.privileges().names().collect();
        json!({ "roleid": role.as_str(), "privs": privileges, "comment": role.about() })
    };
    reply(Role::ALL.map(row))
}

/// Privileges by name, each with whether it goes on below.
fn shown(held: Held) -> Map<String, Value> {
    let below: BTreeSet<_> = held.below.names().collect();
    held.here.names().map(|name| (name.to_owned(), json!(below.contains(name)))).collect()
}

/// A token of the user who asks. It can do no more than its user, so whatever it is given is the user's to give.
fn is_own_token(context: &RequestContext, auth: &AuthId) -> bool {
    auth.token().is_some() && is_oneself(context, auth.user())
}
