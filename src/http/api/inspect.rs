//! `…/inspect`, `…/chunk-report` and `…/report`: ours. Tasks that say what indexes and presence checks tell, and what they found.

use std::sync::Arc;

use http::Method;

use super::{BACKUP_ID, BACKUP_TIME, BACKUP_TYPE, NS, Place, RequestContext, STORE, reply, snapshot_of};
use crate::auth::{AclPath, Privileges};
use crate::error::{Error, Result, TASK_ABORTED};
use crate::http::params::{ParamErrors, ParamKind, ParamSpec, Params};
use crate::http::rights::demand;
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::http::work;
use crate::jobs::inspect::{About, Inspection, MaySee, Report, Tracing, words};
use crate::store::{Datastore, Operation};
use crate::task::Task;
use crate::types::{ArchiveName, Digest, Namespace, Upid};

const AUDIT: Privileges = Privileges::DATASTORE_AUDIT;

/// Chunks that may be asked about by name in one call: a body of 70 kB.
const CHUNKS_ASKED_MAX: usize = 1000;

const NAMED: Shape = Shape::Object(&[
    Field::new("ns", Shape::Text, "Namespace; empty for the root."),
    Field::new("backup-type", Shape::Enum(&["vm", "ct", "host"]), ""),
    Field::new("backup-id", Shape::Text, ""),
    Field::new("backup-time", Shape::Integer, "Seconds since the epoch."),
]);

const PLACES: Shape = Shape::Array(&Shape::Object(&[
    Field::new("offset", Shape::Integer, "Where it begins in the archive."),
    Field::new("bytes", Shape::Integer, "How long it is."),
    Field::new("digest", Shape::Text, "The chunk."),
]));

const FATE: Shape = Shape::Object(&[
    Field::new("digest", Shape::Text, ""),
    Field::new("state", Shape::Enum(&["present", "missing", "unknown"]), "Whether it is on the disk."),
    Field::new("reason", Shape::Text, "Why not."),
    Field::new("snapshots", Shape::Integer, "How many name it."),
    Field::new(
        "remedies",
        Shape::Array(&Shape::OneOf(&[
            Shape::Object(&[
                Field::new("by", Shape::Enum(&["copy"]), ""),
                Field::new("store", Shape::Text, "A datastore of this server that has it."),
            ]),
            Shape::Object(&[
                Field::new("by", Shape::Enum(&["backup"]), ""),
                Field::new("ns", Shape::Text, ""),
                Field::new("group", Shape::Text, "A group whose newest snapshot names it."),
                Field::new("full", Shape::Boolean, "Whether its next backup uploads everything."),
            ]),
            Shape::Object(&[
                Field::new("by", Shape::Enum(&["set-aside"]), ""),
                Field::new("file", Shape::Text, "A bad version beside it."),
            ]),
        ])),
        "What would bring it back, the easiest first.",
    ),
]);

const SNAPSHOT_REPORT: Shape = Shape::Object(&[
    Field::new("report", Shape::Enum(&["snapshot"]), "Of `inspect`."),
    Field::new("store", Shape::Text, ""),
    Field::new("snapshot", NAMED, ""),
    Field::new("archive", Shape::Nullable(&Shape::Text), "The only archive whose chunks were looked at."),
    Field::new("sound", Shape::Boolean, "Whether all that was looked at is in order."),
    Field::new("manifest-fault", Shape::Nullable(&Shape::Text), "Why the manifest cannot be read."),
    Field::new(
        "verification",
        Shape::Nullable(&Shape::Object(&[
            Field::new("state", Shape::Enum(&["ok", "failed"]), ""),
            Field::new("upid", Shape::Text, ""),
            Field::new("time", Shape::Nullable(&Shape::Integer), "When that task began."),
        ])),
        "What the manifest says of the last one.",
    ),
    Field::new("newest", Shape::Boolean, "Whether the next backup builds on it, unless it is marked."),
    Field::new(
        "files",
        Shape::Array(&Shape::Object(&[
            Field::new("filename", Shape::Text, ""),
            Field::new("kind", Shape::Enum(&["fixed-index", "dynamic-index", "blob"]), ""),
            Field::new("size", Shape::Nullable(&Shape::Integer), ""),
            Field::new("crypt-mode", Shape::Nullable(&Shape::Text), "Null for one that no manifest lists."),
            Field::new("fault", Shape::Nullable(&Shape::Text), "What is wrong with size, checksum or file."),
        ])),
        "",
    ),
    Field::new(
        "archives",
        Shape::Array(&Shape::Object(&[
            Field::new("archive", Shape::Text, ""),
            Field::new("entries", Shape::Integer, "Chunks named."),
            Field::new("distinct", Shape::Integer, "Different ones."),
            Field::new("zero-entries", Shape::Integer, "Of a fixed index: how often the chunk of zeros."),
            Field::new("bytes", Shape::Integer, "Length of the archive."),
            Field::new("lost-entries", Shape::Integer, "Entries whose chunk is missing."),
            Field::new("lost-bytes", Shape::Integer, ""),
            Field::new("places", PLACES, "Where; at most 1000."),
            Field::new("more-places", Shape::Integer, ""),
        ])),
        "",
    ),
    Field::new(
        "chunks",
        Shape::Object(&[
            Field::new("entries", Shape::Integer, ""),
            Field::new("distinct", Shape::Integer, ""),
            Field::new("bytes", Shape::Integer, "Of all archives."),
            Field::new("disk-bytes", Shape::Integer, "Of the files of its chunks."),
            Field::new("missing", Shape::Integer, ""),
            Field::new("unknown", Shape::Integer, "Could not be asked for."),
            Field::new("shared", Shape::Integer, "Other snapshots name them too."),
            Field::new("shared-disk-bytes", Shape::Integer, ""),
            Field::new("own", Shape::Integer, "No other snapshot names them."),
            Field::new("own-disk-bytes", Shape::Integer, "What removing the snapshot would free."),
        ]),
        "Different chunks, but for `entries` and `bytes`.",
    ),
    Field::new(
        "groups",
        Shape::Array(&Shape::Object(&[
            Field::new("ns", Shape::Text, ""),
            Field::new("group", Shape::Text, ""),
            Field::new("snapshots", Shape::Integer, ""),
            Field::new("chunks", Shape::Integer, ""),
            Field::new("disk-bytes", Shape::Integer, ""),
        ])),
        "Groups that share chunks.",
    ),
    Field::new(
        "snapshots",
        Shape::Array(&Shape::Object(&[
            Field::new("snapshot", NAMED, ""),
            Field::new("chunks", Shape::Integer, ""),
            Field::new("disk-bytes", Shape::Integer, ""),
        ])),
        "Snapshots that share chunks; at most 100.",
    ),
    Field::new("more-snapshots", Shape::Integer, ""),
    Field::new("hidden-snapshots", Shape::Integer, "Those in namespaces that the asker may not see."),
    Field::new("unreadable", Shape::Array(&Shape::Text), "Indexes that do not count as sharing."),
    Field::new("missing", Shape::Array(&FATE), "At most 16384."),
]);

const CHUNKS_REPORT: Shape = Shape::Object(&[
    Field::new("report", Shape::Enum(&["chunks"]), "Of `chunk-report`."),
    Field::new("store", Shape::Text, ""),
    Field::new("about", Shape::Enum(&["chunks", "missing", "bad"]), ""),
    Field::new("indexes", Shape::Integer, "Index files read."),
    Field::new("unreadable", Shape::Array(&Shape::Text), "Index files that could not be."),
    Field::new("chunks", Shape::Array(&FATE), "At most 16384."),
    Field::new("more-chunks", Shape::Integer, ""),
    Field::new(
        "snapshots",
        Shape::Array(&Shape::Object(&[
            Field::new("snapshot", NAMED, ""),
            Field::new("finished", Shape::Boolean, ""),
            Field::new("newest", Shape::Boolean, "Of its group."),
            Field::new("loses-data", Shape::Boolean, "Whether it names a chunk that is missing."),
            Field::new("verification", Shape::Nullable(&Shape::Enum(&["ok", "failed"])), ""),
            Field::new(
                "archives",
                Shape::Array(&Shape::Object(&[
                    Field::new("archive", Shape::Text, ""),
                    Field::new("entries", Shape::Integer, "Entries that name one of the chunks."),
                    Field::new("bytes", Shape::Integer, ""),
                    Field::new("places", PLACES, "At most 1000, 100000 in all."),
                    Field::new("more-places", Shape::Integer, ""),
                ])),
                "",
            ),
        ])),
        "Snapshots that name some.",
    ),
    Field::new("hidden-snapshots", Shape::Integer, "Those in namespaces that the asker may not see."),
    Field::new("marked", Shape::Integer, "Snapshots marked as failed."),
]);

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::POST,
        path: "admin/datastore/{store}/inspect",
        access: Access::Store(AUDIT),
        body: BodyUse::Parameters,
        params: &[
            STORE,
            NS,
            BACKUP_TYPE,
            BACKUP_ID,
            BACKUP_TIME,
            ParamSpec::optional("archive", ParamKind::SAFE_ID, "Only the chunks of this file; of all if left out."),
        ],
        returns: Returns::UPID,
        handler: |context, params| Box::pin(inspect(context, params)),
        about: "Starts a task that looks at a snapshot without reading chunks: its files, whether its chunks are there, with whom it shares them.",
    },
    Route {
        method: Method::POST,
        path: "admin/datastore/{store}/chunk-report",
        access: Access::Store(AUDIT),
        body: BodyUse::Parameters,
        params: &[
            STORE,
            ParamSpec::optional("chunk", ParamKind::List(&ParamKind::DIGEST), "About these chunks; at most 1000."),
            ParamSpec::optional("missing", ParamKind::Boolean, "About all that an index names and that are not there.")
                .or("false"),
            ParamSpec::optional("bad", ParamKind::Boolean, "About all that a verification has set aside.").or("false"),
            ParamSpec::optional(
                "mark",
                ParamKind::Boolean,
                "Marks finished snapshots that name a missing chunk as failed; needs Datastore.Verify on the datastore.",
            )
            .or("false"),
        ],
        returns: Returns::UPID,
        handler: |context, params| Box::pin(chunk_report(context, params)),
        about: "Starts a task that finds, in all indexes, which snapshots name some chunks and lose data where these are missing.",
    },
    Route {
        method: Method::GET,
        path: "admin/datastore/{store}/report",
        access: Access::Store(AUDIT),
        body: BodyUse::Parameters,
        params: &[STORE, ParamSpec::required("upid", ParamKind::UPID, "The task, which the asker has started.")],
        returns: Returns::Data(Shape::OneOf(&[SNAPSHOT_REPORT, CHUNKS_REPORT])),
        handler: |context, params| Box::pin(report(context, params)),
        about: "What a task of `inspect` or `chunk-report` found. The last eight are kept while the daemon runs.",
    },
];

async fn inspect(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, snapshot) = (Place::of(&params)?, snapshot_of(&params)?);
    let store = place.open(&context)?;
    let inspection = Inspection {
        others: others(&context, &store),
        compute: context.app.compute.clone(),
        ns: place.ns.clone(),
        snapshot,
        archive: params.parsed_opt::<ArchiveName>("archive")?,
        may_see: may_see(&context, &place),
        store,
    };
    let (worker_type, worker_id) = inspection.worker();
    start(&context, &inspection.store.clone(), worker_type, worker_id, move |task| async move {
        let report = inspection.run(&task).await?;
        for (at, line) in words::summary_of_snapshot(&report).into_iter().enumerate() {
            if at == 0 || report.sound { task.log(line) } else { task.warn(line) }
        }
        Ok(Report::Snapshot(Box::new(report)))
    })
    .await
}

async fn chunk_report(context: RequestContext, params: Params) -> Result<Reply> {
    let place = Place::of(&params)?;
    let mark = params.bool("mark").unwrap_or(false);
    if mark {
        demand(&context, &AclPath::datastore(&place.store, &Namespace::root()), Privileges::DATASTORE_VERIFY)?;
    }
    let about = about(&params)?;
    let store = place.open(&context)?;
    let tracing = Tracing {
        others: others(&context, &store),
        compute: context.app.compute.clone(),
        about,
        mark,
        may_see: may_see(&context, &place),
        store,
    };
    let (worker_type, worker_id) = tracing.worker();
    start(&context, &tracing.store.clone(), worker_type, worker_id, move |task| async move {
        Ok(Report::Chunks(tracing.run(&task).await?))
    })
    .await
}

fn about(params: &Params) -> Result<About> {
    let digests = params.texts("chunk");
    let (missing, bad) = (params.bool("missing") == Some(true), params.bool("bad") == Some(true));
    match (digests.len(), missing, bad) {
        (0, true, false) => Ok(About::Missing),
        (0, false, true) => Ok(About::SetAside),
        (1..=CHUNKS_ASKED_MAX, false, false) => {
            Ok(About::Chunks(digests.map(str::parse::<Digest>).collect::<Result<_>>()?))
        }
        (count, false, false) if count > CHUNKS_ASKED_MAX => {
            let text = format!("at most {CHUNKS_ASKED_MAX} at a time.");
            Err(ParamErrors::one("chunk", &text).into())
        }
        _ => Err(ParamErrors::one("chunk", "one of chunk, missing and bad is needed.").into()),
    }
}

async fn report(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, upid) = (Place::of(&params)?, params.parsed::<Upid>("upid")?);
    let found = context.app.reports.get(&upid).filter(|report| {
        let of = match &**report {
            Report::Snapshot(report) => &report.store,
            Report::Chunks(report) => &report.store,
        };
        context.auth.owns(&upid.auth_id) && of == place.store.as_str()
    });
    match found {
        Some(report) => reply(&*report),
        None => Err(Error::not_found(format!("there is no report of the task '{upid}', or no longer"))),
    }
}

/// Starts a task whose report is kept.
async fn start<W>(
    context: &RequestContext,
    store: &Datastore,
    worker_type: &str,
    worker_id: String,
    make: impl FnOnce(Arc<Task>) -> W + Send + 'static,
) -> Result<Reply>
where
    W: Future<Output = Result<Report>> + Send + 'static,
{
    let app = context.app.clone();
    let guards = (app.reports.begin()?, store.begin_operation(Operation::Read)?);
    let reports = app.clone();
    let work = move |task: Arc<Task>| async move {
        let aborted = task.aborted();
        let upid = task.upid().clone();
        let made = tokio::select! {
            biased;
            () = aborted => Err(Error::closed(TASK_ABORTED)),
            made = make(task) => made,
        };
        drop(guards);
        reports.reports.keep(upid, made?);
        Ok(())
    };
    let started = work::start(&app, &context.auth, worker_type, worker_id, work).await?;
    reply(started.upid.to_string())
}

/// Namespaces whose names the asker may see, as the rules are now.
fn may_see(context: &RequestContext, place: &Place) -> MaySee {
    let (users, auth, store) = (context.app.users.get(), context.auth.clone(), place.store.clone());
    Arc::new(move |ns: &Namespace| users.acl.privileges(&auth, &AclPath::datastore(&store, ns)).has_any(AUDIT))
}

/// The other open datastores that the asker may look at.
fn others(context: &RequestContext, store: &Datastore) -> Vec<Datastore> {
    let may_look = |other: &Datastore| context.datastore_privileges(other.name(), &Namespace::root()).has_any(AUDIT);
    let others = context.app.datastores.all().into_iter().filter(|other| !other.is(store) && may_look(other));
    others.filter(|other| other.maintenance().is_none()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::EpochSecs;
    use crate::jobs::inspect::report::{self, *};

    fn named() -> Named {
        Named { ns: "a".into(), backup_type: "vm".into(), backup_id: "7".into(), backup_time: EpochSecs(9) }
    }

    fn places() -> Vec<report::Place> {
        vec![report::Place { offset: 0, bytes: 5, digest: "ab".into() }]
    }

    fn fate() -> ChunkFate {
        let remedies = vec![
            Remedy::Copy { store: "usb".into() },
            Remedy::Backup { ns: String::new(), group: "vm/7".into(), full: true },
            Remedy::SetAside { file: "ab.0.bad".into() },
        ];
        ChunkFate { digest: "ab".into(), state: ChunkState::Missing, reason: "gone".into(), snapshots: 1, remedies }
    }

    #[test]
    fn reports_are_as_described_and_read_back() {
        let verification = Verification { state: "ok".into(), upid: "UPID".into(), time: None };
        let file = FileRow {
            filename: "x.fidx".into(),
            kind: "fixed-index".into(),
            size: Some(1),
            crypt_mode: None,
            fault: Some("wrong".into()),
        };
        let group = SharingGroup { ns: String::new(), group: "vm/7".into(), snapshots: 1, chunks: 1, disk_bytes: 1 };
        let snapshot = SnapshotReport {
            store: "main".into(),
            snapshot: named(),
            archive: None,
            sound: false,
            manifest_fault: None,
            verification: Some(verification),
            newest: true,
            files: vec![file],
            archives: vec![ArchiveRow { archive: "x.fidx".into(), places: places(), ..ArchiveRow::default() }],
            chunks: ChunkTotals::default(),
            groups: vec![group],
            snapshots: vec![SharingSnapshot { snapshot: named(), chunks: 1, disk_bytes: 1 }],
            more_snapshots: 0,
            hidden_snapshots: 0,
            unreadable: vec!["y".into()],
            missing: vec![fate()],
        };
        let archive =
            AffectedArchive { archive: "x.fidx".into(), entries: 1, bytes: 5, places: places(), more_places: 0 };
        let affected = AffectedSnapshot {
            snapshot: named(),
            finished: true,
            newest: true,
            loses_data: true,
            verification: Some("failed".into()),
            archives: vec![archive],
        };
        let chunks = ChunksReport {
            store: "main".into(),
            about: "missing".into(),
            indexes: 1,
            unreadable: Vec::new(),
            chunks: vec![fate()],
            more_chunks: 0,
            snapshots: vec![affected],
            hidden_snapshots: 0,
            marked: 0,
        };
        let reports =
            [(Report::Snapshot(Box::new(snapshot)), SNAPSHOT_REPORT), (Report::Chunks(chunks), CHUNKS_REPORT)];
        for (report, shape) in reports {
            let value = serde_json::to_value(&report).unwrap();
            shape.check(&value).unwrap();
            assert_eq!(serde_json::from_value::<Report>(value).unwrap(), report);
        }
    }
}
