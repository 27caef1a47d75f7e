//! `…/namespace`.

use http::Method;
use serde_json::{Value, json};

use super::groups::{ERROR_ON_PROTECTED, REMOVED, on_protected};
use super::{Place, RequestContext, STORE, reply};
use crate::auth::{AclPath, Privileges};
use crate::error::{Error, Result};
use crate::http::listed::{About, Own, RowFilter};
use crate::http::params::{ParamErrors, ParamKind, ParamSpec, Params, SAFE_ID_PATTERN};
use crate::http::rights::Where;
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::types::{Namespace, is_safe_id};

/// Longest name that may be made (spec 01 §1); longer ones that are there already can be used.
const NAME: ParamKind = ParamKind::Text { pattern: SAFE_ID_PATTERN, min: 1, max: 32, matches: is_safe_id };

const PATH: &str = "admin/datastore/{store}/namespace";

const NAMESPACE: Shape = Shape::Object(&[
    Field::new("ns", Shape::Text, "Its path; empty for the root."),
    Field::optional("comment", Shape::Text, ""),
]);

const SEEN: RowFilter = RowFilter {
    grants: &[(
        Privileges::DATASTORE_AUDIT
            .union(Privileges::DATASTORE_MODIFY)
            .union(Privileges::DATASTORE_READ)
            .union(Privileges::DATASTORE_BACKUP),
        Where::EachNamespace,
    )],
    own: Own::Nothing,
    is_refused_if_empty: true,
};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: PATH,
        access: Access::Listed(SEEN),
        body: BodyUse::Parameters,
        params: &[
            STORE,
            ParamSpec::optional("parent", ParamKind::NAMESPACE, "Where to begin; the root if left out."),
            ParamSpec::optional("max-depth", ParamKind::Integer { min: 0, max: 7 }, "How many levels below.").or("7"),
        ],
        returns: Returns::Data(Shape::Array(&NAMESPACE)),
        handler: |context, params| Box::pin(list(context, params)),
        about: "A namespace and those below it.",
    },
    Route {
        method: Method::POST,
        path: PATH,
        access: Access::ParentNamespace(Privileges::DATASTORE_MODIFY),
        body: BodyUse::Parameters,
        params: &[
            STORE,
            ParamSpec::optional("parent", ParamKind::NAMESPACE, "Where; the root if left out."),
            ParamSpec::required("name", NAME, "Its name."),
        ],
        returns: Returns::Data(Shape::Text),
        handler: |context, params| Box::pin(create(context, params)),
        about: "Makes a namespace.",
    },
    Route {
        method: Method::DELETE,
        path: PATH,
        access: Access::ParentNamespace(Privileges::DATASTORE_MODIFY),
        body: BodyUse::Parameters,
        params: &[
            STORE,
            ParamSpec::required("ns", ParamKind::NAMESPACE, "Which one."),
            ParamSpec::optional("delete-groups", ParamKind::Boolean, "With everything in it.").or("false"),
            ERROR_ON_PROTECTED,
        ],
        returns: Returns::Data(REMOVED),
        handler: |context, params| Box::pin(delete(context, params)),
        about: "Removes a namespace and those below it.",
    },
];

async fn list(context: RequestContext, params: Params) -> Result<Reply> {
    let place = Place::of(&params)?;
    let parent: Namespace = params.parsed_opt("parent")?.unwrap_or_default();
    let depth = params.uint("max-depth").and_then(|depth| usize::try_from(depth).ok());
    let store = place.open(&context)?;
    // Whoever can be shown none learns nothing of the disk either.
    let path = AclPath::datastore(&place.store, &parent);
    let below = || context.app.users.get().acl.privileges_below(&context.auth, &path);
    if !SEEN.shows(&context, About::Namespace(&place.store, &parent)) && below().is_empty() {
        return Err(denied());
    }
    let all = store.namespaces(&parent, depth).await?;
    let seen = all.iter().filter(|ns| SEEN.shows(&context, About::Namespace(&place.store, ns)));
    let shown: Vec<Value> = seen.map(|ns| json!({ "ns": ns.to_string() })).collect();
    if shown.is_empty() {
        return Err(denied());
    }
    reply(shown)
}

fn denied() -> Error {
    Error::denied("permission check failed")
}

async fn create(context: RequestContext, params: Params) -> Result<Reply> {
    let place = Place::of(&params)?;
    let parent: Namespace = params.parsed_opt("parent")?.unwrap_or_default();
    let name = params.text("name").unwrap_or_default();
    // Too deep or too long with all that stands before it.
    parent.child(name).map_err(|e| ParamErrors::one("name", e.to_string()))?;
    let made = place.open(&context)?.create_namespace(&parent, name).await?;
    reply(made.to_string())
}

async fn delete(context: RequestContext, params: Params) -> Result<Reply> {
    let place = Place::of(&params)?;
    let delete_groups = params.bool("delete-groups").unwrap_or(false);
    let removed = place.open(&context)?.delete_namespace(&place.ns, delete_groups, on_protected(&params)).await?;
    tracing::info!(store = %place.store, ns = %place.ns, by = %context.auth, ?removed, "namespace removed");
    reply(removed)
}
