//! `…/groups`.

use http::Method;
use serde_json::{Value, json};

use super::{NS, Place, RequestContext, STORE};
use crate::auth::Privileges;
use crate::error::Result;
use crate::http::params::Params;
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::http::rows::Rows;
use crate::store::GroupSummary;

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

pub(super) const ROUTES: &[Route] = &[Route {
    method: Method::GET,
    path: "admin/datastore/{store}/groups",
    access: Access::Groups { full: Privileges::DATASTORE_AUDIT, own: Privileges::DATASTORE_BACKUP },
    body: BodyUse::Parameters,
    params: &[STORE, NS],
    returns: Returns::Data(Shape::Array(&GROUP)),
    handler: |context, params| Box::pin(list(context, params)),
    about: "Groups of a namespace.",
}];

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
