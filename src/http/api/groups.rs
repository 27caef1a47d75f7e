//! `…/groups`.

use http::Method;
use serde_json::{Value, json};

use super::{NS, Place, RequestContext, STORE, reply};
use crate::auth::Privileges;
use crate::error::Result;
use crate::http::params::Params;
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::store::GroupInfo;

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
    let groups = place.open(&context)?.groups(&place.ns).await?;
    let shown = groups.iter().filter(|info| context.may_use(&info.owner));
    reply(shown.filter_map(item).collect::<Vec<_>>())
}

/// `None` for a group without snapshots. Time and files are those of the newest finished one, else of the newest.
fn item(info: &GroupInfo) -> Option<Value> {
    let newest = info.snapshots.iter().filter(|s| s.finished).max_by_key(|s| s.snapshot.time());
    let last = newest.or_else(|| info.snapshots.iter().max_by_key(|s| s.snapshot.time()))?;
    let mut item = json!({
        "backup-type": info.group.ty().as_str(),
        "backup-id": info.group.id(),
        "last-backup": last.snapshot.time(),
        "backup-count": info.snapshots.len(),
        "files": last.files,
        "owner": info.owner,
    });
    if let Some(comment) = &info.comment {
        item["comment"] = json!(comment);
    }
    Some(item)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::SnapshotFiles;

    #[test]
    fn the_newest_finished_snapshot_speaks_for_the_group() {
        let snapshot = |time: &str, finished: bool| SnapshotFiles {
            snapshot: format!("vm/1/{time}").parse().unwrap(),
            finished,
            files: vec![time.to_owned()],
            protected: false,
        };
        let mut info = GroupInfo {
            group: "vm/1".parse().unwrap(),
            owner: "a@pbs!t".parse().unwrap(),
            comment: None,
            snapshots: vec![snapshot("1970-01-01T00:00:03Z", false)],
        };
        assert_eq!(item(&info).unwrap()["last-backup"], 3);
        info.snapshots.insert(0, snapshot("1970-01-01T00:00:02Z", true));
        assert_eq!(
            item(&info).unwrap(),
            json!({
                "backup-type": "vm", "backup-id": "1", "last-backup": 2, "backup-count": 2,
                "files": ["1970-01-01T00:00:02Z"], "owner": "a@pbs!t",
            })
        );
        info.snapshots.clear();
        assert_eq!(item(&info), None);
    }
}
