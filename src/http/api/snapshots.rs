//! `…/snapshots` and `…/files`.

use http::Method;
use serde_json::{Value, json};

use super::{NS, Place, RequestContext, SNAPSHOT_PARAMS, STORE, reply, snapshot_of};
use crate::auth::Privileges;
use crate::error::Result;
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::http::rows::Rows;
use crate::store::{FileInfo, GroupFilter, SnapshotInfo};

/// Spec 05 §3, BackupContent.
pub(super) const FILE: Shape = Shape::Object(&[
    Field::new("filename", Shape::Text, "Its name on the server."),
    Field::optional(
        "size",
        Shape::Integer,
        "Bytes of its contents, of the manifest itself as it is stored; absent for files that no manifest lists.",
    ),
    Field::optional(
        "crypt-mode",
        Shape::Enum(&["none", "encrypt", "sign-only"]),
        "Absent for files that no manifest lists.",
    ),
]);

/// Spec 05 §3, SnapshotListItem.
const SNAPSHOT: Shape = Shape::Object(&[
    Field::new("backup-type", Shape::Enum(&["vm", "ct", "host"]), "Type of the group."),
    Field::new("backup-id", Shape::Text, "Id of the group."),
    Field::new("backup-time", Shape::Integer, "Seconds since the epoch."),
    Field::new("files", Shape::Array(&FILE), "Its files."),
    Field::optional("size", Shape::Integer, "Sum of the files' sizes; absent if the manifest cannot be read."),
    Field::optional("owner", Shape::Text, "Owner of the group."),
    Field::optional("comment", Shape::Text, "First line of its notes."),
    Field::optional(
        "verification",
        Shape::Object(&[
            Field::new("upid", Shape::Text, "Of the task."),
            Field::new("state", Shape::Enum(&["ok", "failed"]), "What it found."),
        ]),
        "What the last verification, or a known-chunk check that failed, says.",
    ),
    Field::optional("fingerprint", Shape::Text, "Of the key that encrypts or signs it."),
    Field::new("protected", Shape::Boolean, "Whether it cannot be removed."),
]);

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "admin/datastore/{store}/snapshots",
        access: Access::Groups { full: Privileges::DATASTORE_AUDIT, own: Privileges::DATASTORE_BACKUP },
        body: BodyUse::Parameters,
        params: &[
            STORE,
            NS,
            ParamSpec::optional("backup-type", ParamKind::BACKUP_TYPE, "Only groups of this type."),
            ParamSpec::optional("backup-id", ParamKind::SAFE_ID, "Only groups of this id."),
        ],
        returns: Returns::Data(Shape::Array(&SNAPSHOT)),
        handler: |context, params| Box::pin(list(context, params)),
        about: "Snapshots of a namespace.",
    },
    Route {
        method: Method::DELETE,
        path: "admin/datastore/{store}/snapshots",
        access: Access::Group { full: Privileges::DATASTORE_MODIFY, own: Privileges::DATASTORE_PRUNE },
        body: BodyUse::Parameters,
        params: SNAPSHOT_PARAMS,
        returns: Returns::NULL,
        handler: |context, params| Box::pin(remove(context, params)),
        about: "Removes a snapshot.",
    },
    Route {
        method: Method::GET,
        path: "admin/datastore/{store}/files",
        access: Access::Group {
            full: Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_READ),
            own: Privileges::DATASTORE_BACKUP,
        },
        body: BodyUse::Parameters,
        params: SNAPSHOT_PARAMS,
        returns: Returns::Data(Shape::Array(&FILE)),
        handler: |context, params| Box::pin(files(context, params)),
        about: "Files of a snapshot.",
    },
];

async fn list(context: RequestContext, params: Params) -> Result<Reply> {
    let place = Place::of(&params)?;
    let filter =
        GroupFilter { ty: params.parsed_opt("backup-type")?, id: params.text("backup-id").map(ToOwned::to_owned) };
    let mut listing = place.open(&context)?.list_snapshots(&place.ns, &filter, context.may_use_owner()).await?;
    Ok(Reply::Rows(Rows::new(|mut rows| async move {
        while let Some(found) = listing.next().await? {
            for info in &found {
                rows.send(&snapshot_item(info)).await?;
            }
        }
        Ok(rows)
    })))
}

async fn remove(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, snapshot) = (Place::of(&params)?, snapshot_of(&params)?);
    let store = place.open(&context)?;
    store.remove_snapshot(&place.ns, &snapshot).await?;
    tracing::info!(store = %place.store, ns = %place.ns, %snapshot, by = %context.auth, "snapshot removed");
    reply(Value::Null)
}

async fn files(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, snapshot) = (Place::of(&params)?, snapshot_of(&params)?);
    let store = place.open(&context)?;
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
