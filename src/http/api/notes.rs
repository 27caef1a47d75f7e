//! `…/notes` and `…/group-notes`.

use http::Method;
use serde_json::Value;

use super::{BACKUP_ID, BACKUP_TIME, BACKUP_TYPE, NS, Place, RequestContext, SNAPSHOT_PARAMS, STORE, reply};
use crate::auth::Privileges;
use crate::error::Result;
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::rights::{group_of, snapshot_of};
use crate::http::router::{Access, BodyUse, Reply, Returns, Route, Shape};

const NOTES: ParamSpec =
    ParamSpec::required("notes", ParamKind::ANY_TEXT, "The new notes, of any number of lines; empty for none.");

const READ: Access = Access::Group { full: Privileges::DATASTORE_AUDIT, own: Privileges::DATASTORE_BACKUP };
const WRITE: Access = Access::Group { full: Privileges::DATASTORE_MODIFY, own: Privileges::DATASTORE_BACKUP };

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "admin/datastore/{store}/notes",
        access: READ,
        body: BodyUse::Parameters,
        params: SNAPSHOT_PARAMS,
        returns: Returns::Data(Shape::Text),
        handler: |context, params| Box::pin(get(context, params)),
        about: "Notes of a snapshot; empty if it has none.",
    },
    Route {
        method: Method::PUT,
        path: "admin/datastore/{store}/notes",
        access: WRITE,
        body: BodyUse::Parameters,
        params: &[STORE, NS, BACKUP_TYPE, BACKUP_ID, BACKUP_TIME, NOTES],
        returns: Returns::NULL,
        handler: |context, params| Box::pin(set(context, params)),
        about: "Replaces the notes of a snapshot.",
    },
    Route {
        method: Method::GET,
        path: "admin/datastore/{store}/group-notes",
        access: READ,
        body: BodyUse::Parameters,
        params: &[STORE, NS, BACKUP_TYPE, BACKUP_ID],
        returns: Returns::Data(Shape::Text),
        handler: |context, params| Box::pin(get_of_group(context, params)),
        about: "Notes of a group; empty if it has none.",
    },
    Route {
        method: Method::PUT,
        path: "admin/datastore/{store}/group-notes",
        access: WRITE,
        body: BodyUse::Parameters,
        params: &[STORE, NS, BACKUP_TYPE, BACKUP_ID, NOTES],
        returns: Returns::NULL,
        handler: |context, params| Box::pin(set_of_group(context, params)),
        about: "Replaces the notes of a group.",
    },
];

async fn get(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, snapshot) = (Place::of(&params)?, snapshot_of(&params)?);
    reply(place.open(&context)?.notes(&place.ns, &snapshot).await?)
}

async fn set(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, snapshot) = (Place::of(&params)?, snapshot_of(&params)?);
    let notes = params.text("notes").unwrap_or_default().to_owned();
    place.open(&context)?.set_notes(&place.ns, &snapshot, notes).await?;
    reply(Value::Null)
}

async fn get_of_group(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, group) = (Place::of(&params)?, group_of(&params)?);
    reply(place.open(&context)?.group_notes(&place.ns, &group).await?)
}

async fn set_of_group(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, group) = (Place::of(&params)?, group_of(&params)?);
    let notes = params.text("notes").unwrap_or_default().to_owned();
    place.open(&context)?.set_group_notes(&place.ns, &group, notes).await?;
    reply(Value::Null)
}
