//! `access/users/{userid}/token`: what programs log in with.

use http::Method;
use serde_json::{Map, Value, json};

use super::access::{DIGEST, USERID, WITH_DIGEST, check_digest, oneself_or};
use super::access_users::{CHANGE, COMMENT, ENABLE, EXPIRE, SEE, account_item, change_of, with_digest};
use super::{RequestContext, reply};
use crate::auth::{Account, Privileges, Users, new_token_secret};
use crate::error::Result;
use crate::http::params::{ParamKind, ParamSpec, Params, SAFE_ID_PATTERN};
use crate::http::reply::Outcome;
use crate::http::rights::{HandlerRule, Ownership, Where};
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::types::{AuthId, Userid, is_safe_id};

const TOKEN_NAME: ParamSpec = ParamSpec::required(
    "token-name",
    ParamKind::Text { pattern: SAFE_ID_PATTERN, min: 1, max: 64, matches: is_safe_id },
    "Name of the token.",
);

pub(super) const TOKEN: Shape = Shape::Object(&[
    Field::new("tokenid", Shape::Text, "NAME@REALM!TOKEN."),
    Field::new("token-name", Shape::Text, "The part behind the !."),
    Field::new("enable", Shape::Boolean, "Whether the token may act, if its user may."),
    Field::new("expire", Shape::Integer, "When its time ends; 0 for never."),
    Field::optional("comment", Shape::Text, "For people."),
]);

/// A secret, which is shown this once.
const SECRET: Shape = Shape::Object(&[
    Field::new("tokenid", Shape::Text, "NAME@REALM!TOKEN."),
    Field::new("value", Shape::Text, "The secret; it is kept only as a hash."),
]);

const SEEN_BY: Access = Access::Handler(HandlerRule {
    grants: &[(Privileges::SYS_AUDIT.union(Privileges::PERMISSIONS_MODIFY), Where::At("/access/users"))],
    groups: Ownership::Any,
    also: "users their own",
});
const CHANGED_BY: Access = Access::Handler(HandlerRule {
    grants: &[(Privileges::PERMISSIONS_MODIFY, Where::At("/access/users"))],
    groups: Ownership::Any,
    also: "users their own",
});

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "access/users/{userid}/token",
        access: SEEN_BY,
        body: BodyUse::Parameters,
        params: &[USERID],
        returns: Returns::With(Shape::Array(&TOKEN), WITH_DIGEST),
        handler: |context, params| Box::pin(list(context, params)),
        about: "Tokens of a user.",
    },
    Route {
        method: Method::GET,
        path: "access/users/{userid}/token/{token-name}",
        access: SEEN_BY,
        body: BodyUse::Parameters,
        params: &[USERID, TOKEN_NAME],
        returns: Returns::With(TOKEN, WITH_DIGEST),
        handler: |context, params| Box::pin(show(context, params)),
        about: "One token.",
    },
    Route {
        method: Method::POST,
        path: "access/users/{userid}/token/{token-name}",
        access: CHANGED_BY,
        body: BodyUse::Parameters,
        params: &[USERID, TOKEN_NAME, COMMENT, ENABLE.or("true"), EXPIRE.or("0"), DIGEST],
        returns: Returns::Data(SECRET),
        handler: |context, params| Box::pin(create(context, params)),
        about: "Makes a token and tells its secret, once.",
    },
    Route {
        method: Method::PUT,
        path: "access/users/{userid}/token/{token-name}",
        access: CHANGED_BY,
        body: BodyUse::Parameters,
        params: &[
            USERID,
            TOKEN_NAME,
            COMMENT,
            ENABLE,
            EXPIRE,
            ParamSpec::optional("regenerate", ParamKind::Boolean, "Whether to give it another secret.").or("false"),
            ParamSpec::optional("delete", ParamKind::List(&ParamKind::Enum(&["comment"])), "Texts to remove."),
            DIGEST,
        ],
        returns: Returns::Data(Shape::Nullable(&SECRET)),
        handler: |context, params| Box::pin(update(context, params)),
        about: "Changes a token; with regenerate the new secret is told, once.",
    },
    Route {
        method: Method::DELETE,
        path: "access/users/{userid}/token/{token-name}",
        access: CHANGED_BY,
        body: BodyUse::Parameters,
        params: &[USERID, TOKEN_NAME, DIGEST],
        returns: Returns::NULL,
        handler: |context, params| Box::pin(delete(context, params)),
        about: "Removes a token with its permissions; groups keep their owner.",
    },
];

async fn list(context: RequestContext, params: Params) -> Result<Reply> {
    let user: Userid = params.parsed("userid")?;
    oneself_or(&context, &user, SEE)?;
    let users = context.app.users.get();
    users.account(&user.clone().into())?;
    let tokens = users.tokens_of(&user).map(|(id, account)| Value::Object(token_item(id, account)));
    Ok(with_digest(tokens.collect(), &users))
}

async fn show(context: RequestContext, params: Params) -> Result<Reply> {
    let token = token_of(&params)?;
    oneself_or(&context, token.user(), SEE)?;
    let users = context.app.users.get();
    let item = token_item(&token, users.account(&token)?);
    Ok(with_digest(Value::Object(item), &users))
}

async fn create(context: RequestContext, params: Params) -> Result<Reply> {
    let token = token_of(&params)?;
    oneself_or(&context, token.user(), CHANGE)?;
    let (change, digest) = (change_of(&params), params.text("digest").map(ToOwned::to_owned));
    let (new, secret, key) = (token.clone(), new_token_secret(), context.app.keys.tokens.clone());
    let told = json!({ "tokenid": token, "value": secret });
    let make = move |users: &mut Users| {
        check_digest(digest.as_deref(), &users.accounts_digest())?;
        users.create_token(&new, &secret, &key, &change)
    };
    context.app.edit_users(make).await?;
    tracing::info!(by = %context.auth, %token, "token made");
    reply(told)
}

async fn update(context: RequestContext, params: Params) -> Result<Reply> {
    let token = token_of(&params)?;
    oneself_or(&context, token.user(), CHANGE)?;
    let (change, digest) = (change_of(&params), params.text("digest").map(ToOwned::to_owned));
    let secret = params.bool("regenerate").unwrap_or(false).then(new_token_secret);
    let told = secret.as_ref().map(|secret| json!({ "tokenid": token, "value": secret }));
    let (of, key) = (token.clone(), context.app.keys.tokens.clone());
    let make = move |users: &mut Users| {
        check_digest(digest.as_deref(), &users.accounts_digest())?;
        users.change(&of, &change)?;
        secret.iter().try_for_each(|secret| users.regenerate_token(&of, secret, &key))
    };
    context.app.edit_users(make).await?;
    tracing::info!(by = %context.auth, %token, "token changed");
    reply(told)
}

async fn delete(context: RequestContext, params: Params) -> Result<Reply> {
    let token = token_of(&params)?;
    oneself_or(&context, token.user(), CHANGE)?;
    let (of, digest) = (token.clone(), params.text("digest").map(ToOwned::to_owned));
    let make = move |users: &mut Users| {
        check_digest(digest.as_deref(), &users.accounts_digest())?;
        users.remove(&of)
    };
    context.app.edit_users(make).await?;
    tracing::info!(by = %context.auth, %token, "token removed");
    Ok(Reply::Data(Outcome::null()))
}

/// The token that `userid` and `token-name` name.
fn token_of(params: &Params) -> Result<AuthId> {
    let user: Userid = params.parsed("userid")?;
    format!("{user}!{}", params.text("token-name").unwrap_or_default()).parse()
}

pub(super) fn token_item(token: &AuthId, account: &Account) -> Map<String, Value> {
    let mut item = account_item(account);
    item.insert("tokenid".to_owned(), json!(token));
    item.insert("token-name".to_owned(), json!(token.token()));
    item
}
