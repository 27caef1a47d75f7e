//! `access/users`: who is known.

use std::collections::BTreeMap;

use http::Method;
use serde_json::{Map, Value, json};

use super::RequestContext;
use super::access::{DIGEST, NEW_PASSWORD, USERID, WITH_DIGEST, check_digest, oneself_or};
use super::access_tokens::{TOKEN, token_item};
use crate::auth::{Account, AccountChange, AclPath, DETAIL_CHARS_MAX, Detail, Privileges, Users, hash_password};
use crate::clock::EpochSecs;
use crate::error::Result;
use crate::http::listed::{About, Own, RowFilter};
use crate::http::params::{ParamErrors, ParamKind, ParamSpec, Params};
use crate::http::reply::Outcome;
use crate::http::rights::{HandlerRule, Ownership, Where, demand};
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::types::{AuthId, Userid};

const LINE: ParamKind = ParamKind::line(0, DETAIL_CHARS_MAX);
pub(super) const COMMENT: ParamSpec = ParamSpec::optional("comment", LINE, "What it is for; empty removes it.");
pub(super) const ENABLE: ParamSpec = ParamSpec::optional("enable", ParamKind::Boolean, "Whether it may act.");
pub(super) const EXPIRE: ParamSpec = ParamSpec::optional(
    "expire",
    ParamKind::Integer { min: 0, max: i64::MAX },
    "When it ends, in seconds since 1970; 0 for never.",
);
const EMAIL: ParamSpec = ParamSpec::optional("email", LINE, "An address.");
const FIRSTNAME: ParamSpec = ParamSpec::optional("firstname", LINE, "Given name.");
const LASTNAME: ParamSpec = ParamSpec::optional("lastname", LINE, "Family name.");

/// On `/access/users`, to see users.
pub(super) const SEE: Privileges = Privileges::SYS_AUDIT.union(Privileges::PERMISSIONS_MODIFY);
/// On `/access/users`, to change them.
pub(super) const CHANGE: Privileges = Privileges::PERMISSIONS_MODIFY;

macro_rules! user_with {
    ($($more:expr),*) => {
        Shape::Object(&[
            Field::new("userid", Shape::Text, "NAME@REALM."),
            Field::new("enable", Shape::Boolean, "Whether the user may act."),
            Field::new("expire", Shape::Integer, "When the user's time ends; 0 for never."),
            Field::optional("comment", Shape::Text, "For people."),
            Field::optional("email", Shape::Text, "An address."),
            Field::optional("firstname", Shape::Text, "Given name."),
            Field::optional("lastname", Shape::Text, "Family name."),
            $($more),*
        ])
    };
}

const USER: Shape = user_with!();
const LISTED_USER: Shape =
    user_with!(Field::optional("tokens", Shape::Array(&TOKEN), "The user's tokens, with include_tokens."));

const SEEN: RowFilter =
    RowFilter { grants: &[(SEE, Where::At("/access/users"))], own: Own::Oneself, is_refused_if_empty: false };

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "access/users",
        access: Access::Listed(SEEN),
        body: BodyUse::Parameters,
        params: &[ParamSpec::optional("include_tokens", ParamKind::Boolean, "Whether to list tokens too.").or("false")],
        returns: Returns::With(Shape::Array(&LISTED_USER), WITH_DIGEST),
        handler: |context, params| Box::pin(list(context, params)),
        about: "Users.",
    },
    Route {
        method: Method::POST,
        path: "access/users",
        access: Access::At("/access/users", CHANGE),
        body: BodyUse::Parameters,
        params: &[
            USERID,
            ParamSpec::optional(
                "password",
                NEW_PASSWORD,
                "For the realm pbs; without one the user can only have tokens.",
            ),
            COMMENT,
            ENABLE.or("true"),
            EXPIRE.or("0"),
            EMAIL,
            FIRSTNAME,
            LASTNAME,
        ],
        returns: Returns::NULL,
        handler: |context, params| Box::pin(create(context, params)),
        about: "Makes a user.",
    },
    Route {
        method: Method::GET,
        path: "access/users/{userid}",
        access: Access::Handler(HandlerRule {
            grants: &[(Privileges::SYS_AUDIT.union(Privileges::PERMISSIONS_MODIFY), Where::At("/access/users"))],
            groups: Ownership::Any,
            also: "users themselves",
        }),
        body: BodyUse::Parameters,
        params: &[USERID],
        returns: Returns::With(USER, WITH_DIGEST),
        handler: |context, params| Box::pin(show(context, params)),
        about: "One user.",
    },
    Route {
        method: Method::PUT,
        path: "access/users/{userid}",
        access: Access::Handler(HandlerRule {
            grants: &[(Privileges::PERMISSIONS_MODIFY, Where::At("/access/users"))],
            groups: Ownership::Any,
            also: "users their own texts",
        }),
        body: BodyUse::Parameters,
        params: &[
            USERID,
            COMMENT,
            ENABLE,
            EXPIRE,
            EMAIL,
            FIRSTNAME,
            LASTNAME,
            ParamSpec::optional(
                "delete",
                ParamKind::List(&ParamKind::Enum(&["comment", "email", "firstname", "lastname"])),
                "Texts to remove.",
            ),
            DIGEST,
        ],
        returns: Returns::NULL,
        handler: |context, params| Box::pin(update(context, params)),
        about: "Changes a user.",
    },
    Route {
        method: Method::DELETE,
        path: "access/users/{userid}",
        access: Access::At("/access/users", CHANGE),
        body: BodyUse::Parameters,
        params: &[USERID, DIGEST],
        returns: Returns::NULL,
        handler: |context, params| Box::pin(delete(context, params)),
        about: "Removes a user with all tokens and permissions; groups keep their owner.",
    },
];

async fn list(context: RequestContext, params: Params) -> Result<Reply> {
    let users = context.app.users.get();
    let with_tokens = params.bool("include_tokens").unwrap_or(false);
    let shown = users.accounts().filter(|(id, _)| id.token().is_none() && SEEN.shows(&context, About::Account(id)));
    let item = |(id, account): (&AuthId, &Account)| {
        let mut item = user_item(id.user(), account);
        if with_tokens {
            let tokens = users.tokens_of(id.user()).map(|(token, account)| Value::Object(token_item(token, account)));
            item.insert("tokens".to_owned(), tokens.collect());
        }
        Value::Object(item)
    };
    Ok(with_digest(shown.map(item).collect(), &users))
}

async fn create(context: RequestContext, params: Params) -> Result<Reply> {
    let user: Userid = params.parsed("userid")?;
    Users::check_realm(&user).map_err(|e| ParamErrors::one("userid", e.to_string()))?;
    let change = change_of(&params);
    let hash = match params.text("password").map(ToOwned::to_owned) {
        Some(password) => Some(context.app.compute.run(move || hash_password(&password)).await??),
        None => None,
    };
    let new = user.clone();
    let make = move |users: &mut Users| {
        users.create_user(&new, &change)?;
        hash.iter().try_for_each(|hash| users.set_password_hash(&new, hash.clone()))
    };
    context.app.edit_users(make).await?;
    tracing::info!(by = %context.auth, %user, "user made");
    Ok(Reply::Data(Outcome::null()))
}

async fn show(context: RequestContext, params: Params) -> Result<Reply> {
    let user: Userid = params.parsed("userid")?;
    oneself_or(&context, &user, SEE)?;
    let users = context.app.users.get();
    let item = user_item(&user, users.account(&user.clone().into())?);
    Ok(with_digest(Value::Object(item), &users))
}

async fn update(context: RequestContext, params: Params) -> Result<Reply> {
    let user: Userid = params.parsed("userid")?;
    oneself_or(&context, &user, CHANGE)?;
    let change = change_of(&params);
    if change.enabled.is_some() || change.expire.is_some() {
        // Whoever is to end at a certain time must not move that.
        demand(&context, &AclPath::fixed("/access/users"), CHANGE)?;
    }
    let digest = params.text("digest").map(ToOwned::to_owned);
    let of: AuthId = user.clone().into();
    let make = move |users: &mut Users| {
        check_digest(digest.as_deref(), &users.accounts_digest())?;
        users.change(&of, &change)
    };
    context.app.edit_users(make).await?;
    tracing::info!(by = %context.auth, %user, "user changed");
    Ok(Reply::Data(Outcome::null()))
}

async fn delete(context: RequestContext, params: Params) -> Result<Reply> {
    let user: Userid = params.parsed("userid")?;
    let digest = params.text("digest").map(ToOwned::to_owned);
    let of: AuthId = user.clone().into();
    let make = move |users: &mut Users| {
        check_digest(digest.as_deref(), &users.accounts_digest())?;
        users.remove(&of)
    };
    context.app.edit_users(make).await?;
    tracing::info!(by = %context.auth, %user, "user removed");
    Ok(Reply::Data(Outcome::null()))
}

fn user_item(user: &Userid, account: &Account) -> Map<String, Value> {
    let mut item = account_item(account);
    item.insert("userid".to_owned(), json!(user.as_str()));
    item
}

/// What users and tokens have in common.
pub(super) fn account_item(account: &Account) -> Map<String, Value> {
    let mut item = Map::new();
    item.insert("enable".to_owned(), json!(account.enabled));
    item.insert("expire".to_owned(), json!(account.expire));
    item.extend(account.details.iter().map(|(detail, text)| (detail.name().to_owned(), json!(text))));
    item
}

/// The change that `enable`, `expire`, the texts and `delete` ask for.
pub(super) fn change_of(params: &Params) -> AccountChange {
    let given = |detail: &Detail| params.text(detail.name()).map(|text| (*detail, Some(text.to_owned())));
    let removed = |detail: &&Detail| params.texts("delete").any(|name| name == detail.name());
    let mut details: BTreeMap<_, _> = Detail::ALL.iter().filter_map(given).collect();
    details.extend(Detail::ALL.iter().filter(removed).map(|detail| (*detail, None)));
    AccountChange { enabled: params.bool("enable"), expire: params.int("expire").map(EpochSecs), details }
}

/// Data about users, and what a change may be based on.
pub(super) fn with_digest(data: Value, users: &Users) -> Reply {
    Reply::Data(Outcome { data, attributes: vec![("digest", json!(users.accounts_digest()))] })
}
