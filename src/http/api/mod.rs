//! The table of REST calls (spec 05), and what their handlers share.

mod access;
mod access_acl;
mod access_tokens;
mod access_users;
mod config_datastore;
mod datastore;
mod download;
mod gc;
mod groups;
mod history;
mod inspect;
mod job_status;
mod jobs;
mod keep;
mod namespace;
mod node;
mod notes;
mod owner;
mod protected;
mod prune;
mod sessions;
mod snapshots;
mod tasks;
mod upload_log;
mod verify;

use serde::Serialize;

use super::context::RequestContext;
use super::params::{ParamKind, ParamSpec, Params};
use super::reply::Outcome;
use super::rights::snapshot_of;
use super::router::{Reply, Router};
use crate::error::Result;
use crate::store::Datastore;
use crate::store::Rate;
use crate::types::{DatastoreName, Namespace};

/// All calls.
pub fn router() -> Router {
    let tables = [
        node::ROUTES,
        access::ROUTES,
        access_acl::ROUTES,
        access_tokens::ROUTES,
        access_users::ROUTES,
        datastore::ROUTES,
        config_datastore::ROUTES,
        gc::ROUTES,
        history::ROUTES,
        download::ROUTES,
        groups::ROUTES,
        snapshots::ROUTES,
        namespace::ROUTES,
        notes::ROUTES,
        protected::ROUTES,
        owner::ROUTES,
        prune::ROUTES,
        upload_log::ROUTES,
        verify::ROUTES,
        inspect::ROUTES,
        sessions::ROUTES,
        tasks::ROUTES,
        jobs::ROUTES,
        job_status::ROUTES,
    ];
    Router::new(tables.into_iter().flatten())
}

const STORE: ParamSpec = ParamSpec::required("store", ParamKind::DATASTORE, "Name of the datastore.");
const NS: ParamSpec = ParamSpec::optional("ns", ParamKind::NAMESPACE, "Namespace; the root if left out.");
const BACKUP_TYPE: ParamSpec = ParamSpec::required("backup-type", ParamKind::BACKUP_TYPE, "Type of the group.");
const BACKUP_ID: ParamSpec = ParamSpec::required("backup-id", ParamKind::SAFE_ID, "Id of the group.");
const BACKUP_TIME: ParamSpec = ParamSpec::required("backup-time", ParamKind::BACKUP_TIME, "Time of the snapshot.");

/// Of a job that somebody starts.
const RATE: ParamSpec = ParamSpec::optional(
    "rate",
    ParamKind::Text { pattern: Rate::PATTERN, min: 3, max: 32, matches: |text| text.parse::<Rate>().is_ok() },
    "How many chunks (`500/s`), MiB (`20M/s`) or both (`500/s,20M/s`) this run takes in a second at most; the rate of the datastore holds as well.",
);

/// Of changes of the configuration.
const CONFIG_DIGEST: ParamSpec = ParamSpec::optional(
    "digest",
    ParamKind::DIGEST,
    "Of the configuration that the asker has seen; refused if it has changed since.",
);

/// The parameters that name a snapshot.
const SNAPSHOT_PARAMS: &[ParamSpec] = &[STORE, NS, BACKUP_TYPE, BACKUP_ID, BACKUP_TIME];

fn reply(value: impl Serialize) -> Result<Reply> {
    Outcome::of(value).map(Reply::Data)
}

fn rate_of(params: &Params) -> Result<Rate> {
    Ok(params.parsed_opt("rate")?.unwrap_or_default())
}

/// Where a request acts: a namespace of a datastore.
struct Place {
    store: DatastoreName,
    ns: Namespace,
}

impl Place {
    fn of(params: &Params) -> Result<Self> {
        Ok(Self { store: params.parsed("store")?, ns: params.parsed_opt("ns")?.unwrap_or_default() })
    }

    /// The datastore, once it is known that the asker may use it: whether it exists is not told to others.
    fn open(&self, context: &RequestContext) -> Result<Datastore> {
        context.app.datastore(&self.store)
    }
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
