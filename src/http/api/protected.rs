//! `…/protected`.

use http::Method;
use serde_json::Value;

use super::{BACKUP_ID, BACKUP_TIME, BACKUP_TYPE, NS, Place, RequestContext, SNAPSHOT_PARAMS, STORE, reply};
use crate::auth::Privileges;
use crate::error::Result;
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::rights::snapshot_of;
use crate::http::router::{Access, BodyUse, Reply, Returns, Route, Shape};

const PATH: &str = "admin/datastore/{store}/protected";

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: PATH,
        access: Access::Group { full: Privileges::DATASTORE_AUDIT, own: Privileges::DATASTORE_BACKUP },
        body: BodyUse::Parameters,
        params: SNAPSHOT_PARAMS,
        returns: Returns::Data(Shape::Boolean),
        handler: |context, params| Box::pin(get(context, params)),
        about: "Whether a snapshot is protected against removal; one that is not there is not.",
    },
    Route {
        method: Method::PUT,
        path: PATH,
        access: Access::Group { full: Privileges::DATASTORE_MODIFY, own: Privileges::DATASTORE_BACKUP },
        body: BodyUse::Parameters,
        params: &[
            STORE,
            NS,
            BACKUP_TYPE,
            BACKUP_ID,
            BACKUP_TIME,
            ParamSpec::required("protected", ParamKind::Boolean, "Whether it is protected from now on."),
        ],
        returns: Returns::NULL,
        handler: |context, params| Box::pin(set(context, params)),
        about: "Protects a snapshot against removal, or ends that. Refused while somebody uses it.",
    },
];

async fn get(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, snapshot) = (Place::of(&params)?, snapshot_of(&params)?);
    reply(place.open(&context)?.is_protected(&place.ns, &snapshot).await?)
}

async fn set(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, snapshot) = (Place::of(&params)?, snapshot_of(&params)?);
    let protected = params.bool("protected").unwrap_or_default();
    place.open(&context)?.set_protected(&place.ns, &snapshot, protected).await?;
    tracing::info!(store = %place.store, ns = %place.ns, %snapshot, protected, by = %context.auth, "protection set");
    reply(Value::Null)
}
