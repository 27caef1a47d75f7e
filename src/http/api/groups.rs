//! `…/groups`.

use http::Method;
use serde_json::{Value, json};

use super::{BACKUP_ID, BACKUP_TYPE, NS, Place, RequestContext, STORE, reply};
use crate::auth::Privileges;
use crate::error::Result;
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::rights::group_of;
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::http::rows::Rows;
use crate::store::{GroupSummary, OnProtected};

/// Spec 05 §3, GroupListItem.
const GROUP: Shape = Shape::Object(&[
    Field::new("backup-type", Shape::Enum(&["vm", "ct", "host"]), "Type."),
    Field::new("backup-id", Shape::Text, "Id."),
    Field::new("last-backup", Shape::Integer, "Time of the newest finished snapshot, else of the newest."),
    Field::new("backup-count", Shape::Integer, "Snapshots."),
    Field::new("files", Shape::Array(&Shape::Text), "Files of that snapshot."),
    Field::optional("owner", Shape::Text, "Who may back up into it."),
    Field::optional("comment", Shape::Text, "First line of its notes."),
]);

/// What a removal did.
pub(super) const REMOVED: Shape = Shape::Object(&[
    Field::new("removed-groups", Shape::Integer, "Groups that are gone."),
    Field::new("protected-snapshots", Shape::Integer, "Snapshots that stay because they are protected."),
    Field::new("removed-snapshots", Shape::Integer, "Snapshots that are gone."),
]);

pub(super) const ERROR_ON_PROTECTED: ParamSpec = ParamSpec::optional(
    "error-on-protected",
    ParamKind::Boolean,
    "Whether this call fails when protected snapshots stay, as they do in any case.",
)
.or("true");

pub(super) fn on_protected(params: &Params) -> OnProtected {
    if params.bool("error-on-protected").unwrap_or(true) { OnProtected::Fail } else { OnProtected::Count }
}

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "admin/datastore/{store}/groups",
        access: Access::Groups { full: Privileges::DATASTORE_AUDIT, own: Privileges::DATASTORE_BACKUP },
        body: BodyUse::Parameters,
        params: &[STORE, NS],
        returns: Returns::Data(Shape::Array(&GROUP)),
        handler: |context, params| Box::pin(list(context, params)),
        about: "Groups of a namespace.",
    },
    Route {
        method: Method::DELETE,
        path: "admin/datastore/{store}/groups",
        access: Access::Group { full: Privileges::DATASTORE_MODIFY, own: Privileges::DATASTORE_PRUNE },
        body: BodyUse::Parameters,
        params: &[STORE, NS, BACKUP_TYPE, BACKUP_ID, ERROR_ON_PROTECTED],
        returns: Returns::Data(REMOVED),
        handler: |context, params| Box::pin(remove(context, params)),
        about: "Removes a group and all its snapshots but the protected ones, which keep it.",
    },
];

async fn list(context: RequestContext, params: Params) -> Result<Reply> {
    let place = Place::of(&params)?;
    let mut listing = place.open(&context)?.list_groups(&place.ns, context.may_use_owner()).await?;
    Ok(Reply::Rows(Rows::new(|mut rows| async move {
        while let Some(found) = listing.next().await? {
            for summary in &found {
                rows.send(&item(summary)).await?;
            }
        }
        Ok(rows)
    })))
}

async fn remove(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, group) = (Place::of(&params)?, group_of(&params)?);
    let removed = place.open(&context)?.remove_group(&place.ns, &group, on_protected(&params)).await?;
    tracing::info!(store = %place.store, ns = %place.ns, %group, by = %context.auth, ?removed, "group removed");
    reply(removed)
}

fn item(summary: &GroupSummary) -> Value {
    let mut item = json!({
        "backup-type": summary.group.ty().as_str(),
        "backup-id": summary.group.id(),
        "last-backup": summary.last_backup,
        "backup-count": summary.snapshot_count,
        "files": summary.files,
        "owner": summary.owner,
    });
    if let Some(comment) = &summary.comment {
        item["comment"] = json!(comment);
    }
    item
}
