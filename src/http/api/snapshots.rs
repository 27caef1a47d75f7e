//! `…/snapshots` and `…/files`.

use http::Method;
use serde_json::{Value, json};

use super::{NS, Place, Reach, RequestContext, SNAPSHOT_PARAMS, STORE, reply, snapshot_of};
use crate::auth::Privileges;
use crate::error::Result;
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::router::{Access, BodyUse, Reply, Route};
use crate::store::{FileInfo, GroupFilter, SnapshotInfo};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "admin/datastore/{store}/snapshots",
        access: Access::Authenticated,
        body: BodyUse::Parameters,
        params: &[
            STORE,
            NS,
            ParamSpec::optional("backup-type", ParamKind::BACKUP_TYPE, "Only groups of this type."),
            ParamSpec::optional("backup-id", ParamKind::SAFE_ID, "Only groups of this id."),
        ],
        handler: |context, params| Box::pin(list(context, params)),
        about: "Snapshots of a namespace.",
    },
    Route {
        method: Method::DELETE,
        path: "admin/datastore/{store}/snapshots",
        access: Access::Authenticated,
        body: BodyUse::Parameters,
        params: SNAPSHOT_PARAMS,
        handler: |context, params| Box::pin(remove(context, params)),
        about: "Removes a snapshot.",
    },
    Route {
        method: Method::GET,
        path: "admin/datastore/{store}/files",
        access: Access::Authenticated,
        body: BodyUse::Parameters,
        params: SNAPSHOT_PARAMS,
        handler: |context, params| Box::pin(files(context, params)),
        about: "Files of a snapshot.",
    },
];

async fn list(context: RequestContext, params: Params) -> Result<Reply> {
    let place = Place::of(&params)?;
    let reach = place.reach(&context, Privileges::DATASTORE_AUDIT, Privileges::DATASTORE_BACKUP)?;
    let filter =
        GroupFilter { ty: params.parsed_opt("backup-type")?, id: params.text("backup-id").map(ToOwned::to_owned) };
    let snapshots = place.open(&context)?.snapshots(&place.ns, filter).await?;
    let shown = snapshots.iter().filter(|info| reach == Reach::All || context.auth.owns(&info.owner));
    reply(shown.map(snapshot_item).collect::<Vec<_>>())
}

async fn remove(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, snapshot) = (Place::of(&params)?, snapshot_of(&params)?);
    let reach = place.reach(&context, Privileges::DATASTORE_MODIFY, Privileges::DATASTORE_PRUNE)?;
    let store = place.open(&context)?;
    place.check_owner(&context, reach, &store, snapshot.group()).await?;
    store.remove_snapshot(&place.ns, &snapshot).await?;
    tracing::info!(store = %place.store, ns = %place.ns, %snapshot, by = %context.auth, "snapshot removed");
    reply(Value::Null)
}

async fn files(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, snapshot) = (Place::of(&params)?, snapshot_of(&params)?);
    let full = Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_READ);
    let reach = place.reach(&context, full, Privileges::DATASTORE_BACKUP)?;
    let store = place.open(&context)?;
    place.check_owner(&context, reach, &store, snapshot.group()).await?;
    let files = store.files(&place.ns, &snapshot).await?;
    reply(files.iter().map(file_item).collect::<Vec<_>>())
}

/// What is absent has no key (spec 05 §3).
fn snapshot_item(info: &SnapshotInfo) -> Value {
    let mut item = json!({
        "backup-type": info.snapshot.group().ty().as_str(),
        "backup-id": info.snapshot.group().id(),
        "backup-time": info.snapshot.time(),
        "files": info.files.iter().map(file_item).collect::<Vec<_>>(),
        "owner": info.owner,
        "protected": info.protected,
    });
    if let Some(size) = info.size {
        item["size"] = json!(size);
    }
    if let Some(comment) = &info.comment {
        item["comment"] = json!(comment);
    }
    if let Some(verification) = &info.verification {
        item["verification"] = json!({ "upid": verification.upid, "state": verification.state.as_str() });
    }
    if let Some(fingerprint) = &info.fingerprint {
        item["fingerprint"] = json!(fingerprint);
    }
    item
}

fn file_item(file: &FileInfo) -> Value {
    let mut item = json!({ "filename": file.filename });
    if let Some(size) = file.size {
        item["size"] = json!(size);
    }
    if let Some(mode) = file.crypt_mode {
        item["crypt-mode"] = json!(mode.as_str());
    }
    item
}
