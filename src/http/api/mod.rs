//! The table of REST calls (spec 05), and what their handlers share.

mod access;
mod datastore;
mod groups;
mod namespace;
mod node;
mod sessions;
mod snapshots;
mod upload_log;

use serde::Serialize;

use super::context::RequestContext;
use super::params::{ParamKind, ParamSpec, Params};
use super::reply::Outcome;
use super::router::{Reply, Router};
use crate::auth::{AclPath, Privileges};
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::store::Datastore;
use crate::types::{DatastoreName, Group, Namespace, Snapshot};

/// All calls.
pub fn router() -> Router {
    let tables = [
        node::ROUTES,
        access::ROUTES,
        datastore::ROUTES,
        groups::ROUTES,
        snapshots::ROUTES,
        namespace::ROUTES,
        upload_log::ROUTES,
        sessions::ROUTES,
    ];
    Router::new(tables.into_iter().flatten())
}

const STORE: ParamSpec = ParamSpec::required("store", ParamKind::DATASTORE, "Name of the datastore.");
const NS: ParamSpec = ParamSpec::optional("ns", ParamKind::NAMESPACE, "Namespace; the root if left out.");
const BACKUP_TYPE: ParamSpec = ParamSpec::required("backup-type", ParamKind::BACKUP_TYPE, "Type of the group.");
const BACKUP_ID: ParamSpec = ParamSpec::required("backup-id", ParamKind::SAFE_ID, "Id of the group.");
const BACKUP_TIME: ParamSpec = ParamSpec::required("backup-time", ParamKind::BACKUP_TIME, "Time of the snapshot.");

/// The parameters that name a snapshot.
const SNAPSHOT_PARAMS: &[ParamSpec] = &[STORE, NS, BACKUP_TYPE, BACKUP_ID, BACKUP_TIME];

fn reply(value: impl Serialize) -> Result<Reply> {
    Outcome::of(value).map(Reply::Data)
}

/// Where a request acts: a namespace of a datastore.
struct Place {
    store: DatastoreName,
    ns: Namespace,
}

/// How far a privilege goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// All groups.
    All,
    /// The asker's own groups.
    Own,
}

impl Place {
    fn of(params: &Params) -> Result<Self> {
        Ok(Self { store: params.parsed("store")?, ns: params.parsed_opt("ns")?.unwrap_or_default() })
    }

    /// A privilege of `full` reaches all groups, one of `own` one's own; neither is refused in the recorded words.
    fn reach(&self, context: &RequestContext, full: Privileges, own: Privileges) -> Result<Reach> {
        let path = AclPath::datastore(&self.store, &self.ns);
        let held = context.privileges(&path);
        if held.has_any(full) {
            Ok(Reach::All)
        } else if held.has_any(own) {
            Ok(Reach::Own)
        } else {
            let missing = full.union(own);
            Err(Error::denied(format!("permission check failed - missing {missing} on {path}")))
        }
    }

    /// The datastore, once it is known that the asker may use it: whether it exists is not told to others.
    fn open(&self, context: &RequestContext) -> Result<Datastore> {
        context.app.datastore(&self.store)
    }

    /// Refuses a group of somebody else to whom only their own are allowed.
    async fn check_owner(
        &self,
        context: &RequestContext,
        reach: Reach,
        store: &Datastore,
        group: &Group,
    ) -> Result<()> {
        if reach == Reach::All {
            return Ok(());
        }
        let owner = store.owner(&self.ns, group).await?;
        if context.auth.owns(&owner) {
            return Ok(());
        }
        Err(Error::invalid(format!("backup owner check failed ({} != {owner})", context.auth)))
    }
}

fn group_of(params: &Params) -> Result<Group> {
    Group::new(params.parsed("backup-type")?, params.text("backup-id").unwrap_or_default())
}

fn snapshot_of(params: &Params) -> Result<Snapshot> {
    Snapshot::new(group_of(params)?, EpochSecs(params.int("backup-time").unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn the_table_is_consistent() {
        let router = router();
        let mut seen = HashSet::new();
        for route in router.routes() {
            assert!(seen.insert(format!("{route:?}")), "{route:?} is there twice");
            assert!(!route.about.is_empty(), "{route:?} says nothing");
            for name in route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')) {
                let spec = route.params.iter().find(|spec| spec.name == name);
                assert!(spec.is_some_and(|spec| spec.required), "{route:?} lacks {name}");
            }
            let names: HashSet<_> = route.params.iter().map(|spec| spec.name).collect();
            assert_eq!(names.len(), route.params.len(), "{route:?} names a parameter twice");
        }
    }
}
