//! Every number that the daemon counts, with its unit, and the one page that shows them (`GET /metrics`).
//!
//! ```text
//!  hot paths ──▶ cells: atomics, found by arithmetic ─┐
//!  census of a datastore, engine counters ────────────┴─▶ Exposition ──▶ text for Prometheus
//! ```
//!
//! A cell belongs to what it counts: [`StoreMetrics`] to an open datastore, [`TaskMetrics`] to the tasks, [`ServerMetrics`] to the daemon. None is
//! global, so that two daemons in one test do not count for each other. All metrics are listed in [`METRICS`]; `docs/metrics.md` is made from it.

mod cell;
mod exposition;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::EpochSecs;
use crate::error::Kind;
use crate::sync::{Mutex, violations};

use self::cell::labels;
pub use self::cell::{Counter, Histogram, LATENCY_BOUNDS, Label, Level, Row};
pub use self::exposition::{Exposition, Metric, MetricKind};

/// Who a request spoke to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interface {
    /// The REST API, everything over HTTP/1 else included.
    Rest,
    /// A backup session.
    Backup,
    /// A reader session.
    Reader,
}
labels!(Interface { Rest: "rest", Backup: "backup", Reader: "reader" });

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionKind {
    /// It writes a snapshot.
    Backup,
    /// It reads one.
    Reader,
}
labels!(SessionKind { Backup: "backup", Reader: "reader" });

/// The first digit of an HTTP status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// 100 to 199: upgrades.
    Informational,
    /// 200 to 299.
    Success,
    /// 300 to 399.
    Redirection,
    /// 400 to 499.
    ClientError,
    /// 500 and above.
    ServerError,
}
labels!(StatusClass {
    Informational: "1xx",
    Success: "2xx",
    Redirection: "3xx",
    ClientError: "4xx",
    ServerError: "5xx",
});

impl StatusClass {
    /// Of a status.
    pub fn of(status: u16) -> Self {
        match status / 100 {
            1 => Self::Informational,
            2 => Self::Success,
            3 => Self::Redirection,
            4 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

labels!(Kind {
    NotFound: "not_found",
    Denied: "denied",
    Unauthenticated: "unauthenticated",
    Busy: "busy",
    Invalid: "invalid",
    Corrupt: "corrupt",
    Io: "io",
    Closed: "closed",
});

/// Whether an uploaded chunk was there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// It was written.
    New,
    /// It was there and stays.
    Duplicate,
}
labels!(Arrival { New: "new", Duplicate: "duplicate" });

/// When a known chunk is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckPlace {
    /// A backup refers to it.
    Append,
    /// A backup finishes.
    Finish,
    /// A client is about to build on the index that names it.
    Preflight,
}
labels!(CheckPlace { Append: "append", Finish: "finish", Preflight: "preflight" });

/// What a check of a known chunk found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOutcome {
    /// The chunk is there.
    Present,
    /// It is not.
    Missing,
    /// The question got no answer.
    Unchecked,
}
labels!(CheckOutcome { Present: "present", Missing: "missing", Unchecked: "unchecked" });

/// How a task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskResult {
    /// Well.
    Ok,
    /// With warnings.
    Warnings,
    /// With an error, abort included.
    Error,
}
labels!(TaskResult { Ok: "ok", Warnings: "warnings", Error: "error" });

/// What an open datastore counts.
#[derive(Debug, Default)]
pub struct StoreMetrics {
    /// Chunks that backups uploaded.
    pub received_chunks: Row<Arrival, Counter>,
    /// Their bytes, encoded as they came.
    pub received_chunk_bytes: Row<Arrival, Counter>,
    /// Blobs that backups uploaded, manifests included.
    pub received_blobs: Counter,
    /// Their bytes.
    pub received_blob_bytes: Counter,
    /// Chunks handed to readers.
    pub sent_chunks: Counter,
    /// Their bytes, encoded as they lie on the disk.
    pub sent_chunk_bytes: Counter,
    /// Known chunks checked.
    pub known_chunk_checks: Row<CheckPlace, Row<CheckOutcome, Counter>>,
    /// How long a batch of checks took.
    pub check_batches: Row<CheckPlace, Histogram>,
}

impl StoreMetrics {
    /// Adds the numbers of the datastore `store`, whose presence checks `engine` makes.
    pub fn show(&self, store: &str, engine: &str, into: &mut Exposition) {
        for (arrival, count) in self.received_chunks.each() {
            into.sample(&RECEIVED_CHUNKS, &[store, arrival], count.get());
        }
        for (arrival, bytes) in self.received_chunk_bytes.each() {
            into.sample(&RECEIVED_CHUNK_BYTES, &[store, arrival], bytes.get());
        }
        into.sample(&RECEIVED_BLOBS, &[store], self.received_blobs.get());
        into.sample(&RECEIVED_BLOB_BYTES, &[store], self.received_blob_bytes.get());
        into.sample(&SENT_CHUNKS, &[store], self.sent_chunks.get());
        into.sample(&SENT_CHUNK_BYTES, &[store], self.sent_chunk_bytes.get());
        for (place, outcomes) in self.known_chunk_checks.each() {
            for (outcome, count) in outcomes.each() {
                into.sample(&KNOWN_CHUNK_CHECKS, &[store, engine, place, outcome], count.get());
            }
        }
        for (place, batches) in self.check_batches.each() {
            batches.show(&CHECK_BATCHES, &[store, engine, place], into);
        }
    }
}

/// What the daemon counts about its clients.
#[derive(Debug)]
pub struct ServerMetrics {
    /// Sessions that run.
    pub sessions: Row<SessionKind, Level>,
    /// Sessions begun.
    pub sessions_started: Row<SessionKind, Counter>,
    /// Requests answered.
    pub requests: Row<Interface, Row<StatusClass, Counter>>,
    /// Requests that ended with an error, a dressed one (`extjs`) included.
    pub errors: Row<Interface, Row<Kind, Counter>>,
    started: EpochSecs,
}

impl ServerMetrics {
    /// Of a daemon that starts now.
    pub fn new(started: EpochSecs) -> Self {
        Self {
            sessions: Row::default(),
            sessions_started: Row::default(),
            requests: Row::default(),
            errors: Row::default(),
            started,
        }
    }

    /// A session begins; it is counted as running until what is returned is dropped.
    pub fn begin_session(self: &Arc<Self>, kind: SessionKind) -> SessionCount {
        self.sessions_started.at(kind).inc();
        self.sessions.at(kind).rise();
        SessionCount { metrics: self.clone(), kind }
    }

    /// A request was answered with `status`, because of an error of kind `error` if there was one.
    pub fn answered(&self, interface: Interface, status: u16, error: Option<Kind>) {
        self.requests.at(interface).at(StatusClass::of(status)).inc();
        if let Some(kind) = error {
            self.errors.at(interface).at(kind).inc();
        }
    }

    /// Adds the numbers of the daemon.
    pub fn show(&self, into: &mut Exposition) {
        into.sample(&BUILD_INFO, &[env!("CARGO_PKG_VERSION")], 1);
        into.sample(&PROCESS_START_TIME, &[], self.started);
        into.sample(&LOCKS_HELD, &[], violations());
        for (kind, sessions) in self.sessions.each() {
            into.sample(&SESSIONS, &[kind], sessions.get());
        }
        for (kind, count) in self.sessions_started.each() {
            into.sample(&SESSIONS_STARTED, &[kind], count.get());
        }
        for (interface, classes) in self.requests.each() {
            for (class, count) in classes.each() {
                into.sample(&HTTP_REQUESTS, &[interface, class], count.get());
            }
        }
        for (interface, kinds) in self.errors.each() {
            for (kind, count) in kinds.each() {
                into.sample(&ERRORS, &[interface, kind], count.get());
            }
        }
    }
}

/// A running session, as far as it is counted.
#[derive(Debug)]
pub struct SessionCount {
    metrics: Arc<ServerMetrics>,
    kind: SessionKind,
}

/// Counts the answers of one interface; may outlive the session.
#[derive(Clone, Debug)]
pub struct AnswerCount {
    metrics: Arc<ServerMetrics>,
    interface: Interface,
}

impl SessionCount {
    /// What counts the session's answers.
    pub fn answers(&self) -> AnswerCount {
        let interface = match self.kind {
            SessionKind::Backup => Interface::Backup,
            SessionKind::Reader => Interface::Reader,
        };
        AnswerCount { metrics: self.metrics.clone(), interface }
    }
}

impl AnswerCount {
    /// A request was answered with `status`, because of an error of kind `error` if there was one.
    pub fn answered(&self, status: u16, error: Option<Kind>) {
        self.metrics.answered(self.interface, status, error);
    }
}

impl Drop for SessionCount {
    fn drop(&mut self) {
        self.metrics.sessions.at(self.kind).fall();
    }
}

/// What the tasks count: by worker type, which are few and named in the code. Tasks start and end a few times a second at most, so a lock is cheap.
#[derive(Debug, Default)]
pub struct TaskMetrics {
    types: Mutex<BTreeMap<String, TaskType>>,
}

#[derive(Debug, Default)]
struct TaskType {
    running: u64,
    ended: Row<TaskResult, (u64, Option<EpochSecs>)>,
}

impl TaskMetrics {
    /// A task of that type started.
    pub fn task_started(&self, worker_type: &str) {
        self.types.lock().entry(worker_type.to_owned()).or_default().running += 1;
    }

    /// A task of that type ended at `now`.
    pub fn task_ended(&self, worker_type: &str, result: TaskResult, now: EpochSecs) {
        let mut types = self.types.lock();
        let ty = types.entry(worker_type.to_owned()).or_default();
        ty.running = ty.running.saturating_sub(1);
        let (count, last) = ty.ended.at_mut(result);
        *count += 1;
        *last = Some(now);
    }

    /// Adds the numbers of all types.
    pub fn show(&self, into: &mut Exposition) {
        for (name, ty) in &*self.types.lock() {
            into.sample(&TASKS_RUNNING, &[name], ty.running);
            for (result, (count, last)) in ty.ended.each() {
                into.sample(&TASKS, &[name, result], count);
                if let Some(last) = last {
                    into.sample(&TASK_LAST_END, &[name, result], last);
                }
            }
        }
    }
}

/// Labels of a group.
const GROUP: &[&str] = &["datastore", "namespace", "backup_type", "backup_id"];

/// All metrics, sorted by name.
pub static METRICS: &[&Metric] = &[
    &PROCESS_START_TIME,
    &BACKGROUND_LEVEL,
    &BACKGROUND_WAITED,
    &BUILD_INFO,
    &AVAILABLE_BYTES,
    &CENSUS_DURATION,
    &CENSUS_TIME,
    &DOUBTED_CHUNKS,
    &DATASTORE_FAILED,
    &DATASTORE_GROUPS,
    &DATASTORE_READABLE,
    &SIZE_BYTES,
    &DATASTORE_SNAPSHOTS,
    &USED_BYTES,
    &ENGINE_BATCHES,
    &ENGINE_IN_FLIGHT,
    &ENGINE_IN_FLIGHT_MAX,
    &ENGINE_CHECKS,
    &ENGINE_FILE_JOBS,
    &ENGINE_INFO,
    &ENGINE_RING_SUBMISSIONS,
    &ENGINE_WORKERS,
    &ERRORS,
    &GC_DISK_BYTES,
    &GC_DISK_CHUNKS,
    &GC_INDEX_DATA_BYTES,
    &GC_START_TIME,
    &GC_PENDING_BYTES,
    &GC_REMOVED_BYTES,
    &GC_BAD_CHUNKS,
    &GROUP_FAILED,
    &GROUP_NEWEST,
    &GROUP_SNAPSHOTS,
    &HTTP_REQUESTS,
    &CHECK_BATCHES,
    &KNOWN_CHUNK_CHECKS,
    &LOCKS_HELD,
    &OTHER_GROUPS,
    &OTHER_GROUPS_STALEST,
    &OTHER_GROUPS_SNAPSHOTS,
    &RECEIVED_BLOB_BYTES,
    &RECEIVED_BLOBS,
    &RECEIVED_CHUNK_BYTES,
    &RECEIVED_CHUNKS,
    &SENT_CHUNK_BYTES,
    &SENT_CHUNKS,
    &SESSIONS,
    &SESSIONS_STARTED,
    &TASK_LAST_END,
    &TASKS_RUNNING,
    &TASKS,
];

/// How far jobs make way.
pub static BACKGROUND_LEVEL: Metric = Metric::gauge(
    "ringvault_background_back_off_level",
    &["datastore"],
    "How far jobs make way for sessions now: 0 not at all, each number half as much work at a time as the one before, 8 at most.",
);
/// How long jobs waited.
pub static BACKGROUND_WAITED: Metric = Metric::counter(
    "ringvault_background_waited_seconds_total",
    &["datastore", "cause"],
    "How long jobs were held back: for backups (and other sessions), or for the rate that is set. Jobs that wait at the same time count each.",
);
/// Version of the program.
pub static BUILD_INFO: Metric =
    Metric::gauge("ringvault_build_info", &["version"], "Always 1; the version that runs is in the label.");
/// When the daemon began.
pub static PROCESS_START_TIME: Metric = Metric::gauge(
    "process_start_time_seconds",
    &[],
    "When the daemon began, in seconds since the epoch. Counters start at zero then.",
);
/// Defects of ours.
pub static LOCKS_HELD: Metric = Metric::counter(
    "ringvault_locks_held_during_disk_work_total",
    &[],
    "Disk work begun while a lock in memory was held. Anything but 0 is a defect: please report it.",
);
/// Running sessions.
pub static SESSIONS: Metric = Metric::gauge("ringvault_sessions", &["kind"], "Sessions that run now.");
/// Sessions begun.
pub static SESSIONS_STARTED: Metric = Metric::counter("ringvault_sessions_started_total", &["kind"], "Sessions begun.");
/// Requests.
pub static HTTP_REQUESTS: Metric = Metric::counter(
    "ringvault_http_requests_total",
    &["interface", "code"],
    "Requests answered, by status class: REST calls, and requests inside backup and reader sessions.",
);
/// Errors.
pub static ERRORS: Metric = Metric::counter(
    "ringvault_errors_total",
    &["interface", "kind"],
    "Requests answered with an error. io is a fault of this machine, corrupt one of its data, busy a lock or limit, the rest the client's.",
);
/// Tasks that run.
pub static TASKS_RUNNING: Metric = Metric::gauge("ringvault_tasks_running", &["type"], "Tasks that run now.");
/// Tasks that ended.
pub static TASKS: Metric =
    Metric::counter("ringvault_tasks_total", &["type", "result"], "Tasks ended; an aborted one counts as error.");
/// When.
pub static TASK_LAST_END: Metric = Metric::gauge(
    "ringvault_task_last_end_timestamp_seconds",
    &["type", "result"],
    "When the newest task of that type ended with that result, in seconds since the epoch; absent until one has since the daemon began.",
);

/// Chunks in.
pub static RECEIVED_CHUNKS: Metric = Metric::counter(
    "ringvault_received_chunks_total",
    &["datastore", "result"],
    "Chunks that backups uploaded: new ones, and duplicates of what was there.",
);
/// Their bytes.
pub static RECEIVED_CHUNK_BYTES: Metric = Metric::counter(
    "ringvault_received_chunk_bytes_total",
    &["datastore", "result"],
    "Bytes of uploaded chunks as they came, compressed and encrypted.",
);
/// Blobs in.
pub static RECEIVED_BLOBS: Metric = Metric::counter(
    "ringvault_received_blobs_total",
    &["datastore"],
    "Blobs that backups uploaded, manifests included.",
);
/// Their bytes.
pub static RECEIVED_BLOB_BYTES: Metric =
    Metric::counter("ringvault_received_blob_bytes_total", &["datastore"], "Bytes of uploaded blobs as they came.");
/// Chunks out.
pub static SENT_CHUNKS: Metric =
    Metric::counter("ringvault_sent_chunks_total", &["datastore"], "Chunks read for restores.");
/// Their bytes.
pub static SENT_CHUNK_BYTES: Metric = Metric::counter(
    "ringvault_sent_chunk_bytes_total",
    &["datastore"],
    "Bytes of chunks read for restores, as they lie on the disk.",
);

/// Checks.
pub static KNOWN_CHUNK_CHECKS: Metric = Metric::counter(
    "ringvault_known_chunk_checks_total",
    &["datastore", "engine", "place", "outcome"],
    "Known chunks checked. missing: the chunk is not on the disk; unchecked: the disk did not say.",
);
/// How long.
pub static CHECK_BATCHES: Metric = Metric::histogram(
    "ringvault_known_chunk_check_batch_duration_seconds",
    &["datastore", "engine", "place"],
    "How long a batch of known-chunk checks took: up to 4096 chunks at finish, 1024 in preflight, one request's at append.",
);
/// Which engine.
pub static ENGINE_INFO: Metric = Metric::gauge(
    "ringvault_engine_info",
    &["datastore", "engine"],
    "Always 1; the label says how presence is checked: uring, threads or sync.",
);
/// Workers.
pub static ENGINE_WORKERS: Metric = Metric::gauge(
    "ringvault_engine_workers",
    &["datastore"],
    "Presence checks that may be in flight at a time, as configured.",
);
/// Depth.
pub static ENGINE_IN_FLIGHT: Metric = Metric::gauge(
    "ringvault_engine_checks_in_flight",
    &["datastore"],
    "Presence checks in flight now: the depth of the ring, or of the threads' queue.",
);
/// Greatest depth.
pub static ENGINE_IN_FLIGHT_MAX: Metric = Metric::gauge(
    "ringvault_engine_checks_in_flight_max",
    &["datastore"],
    "Most presence checks that were ever in flight together.",
);
/// Checks by way.
pub static ENGINE_CHECKS: Metric = Metric::counter(
    "ringvault_engine_checks_total",
    &["datastore", "way"],
    "Presence checks answered, jobs' included: inline by a system call, cached by the kernel's name cache, by the ring, by the thread pool, by name in a directory that was read.",
);
/// Batches.
pub static ENGINE_BATCHES: Metric = Metric::counter(
    "ringvault_engine_batches_total",
    &["datastore", "class"],
    "Batches of presence checks answered: interactive for appends, sweep for finishes and preflights, background for jobs.",
);
/// Submissions.
pub static ENGINE_RING_SUBMISSIONS: Metric = Metric::counter(
    "ringvault_engine_ring_submissions_total",
    &["datastore"],
    "System calls that handed checks to the ring; checks by the ring divided by this is how many went together.",
);
/// File work.
pub static ENGINE_FILE_JOBS: Metric =
    Metric::counter("ringvault_engine_file_jobs_total", &["datastore"], "Pieces of blocking file work done.");

/// Size.
pub static SIZE_BYTES: Metric =
    Metric::gauge("ringvault_datastore_size_bytes", &["datastore"], "Size of the datastore's file system.");
/// Used.
pub static USED_BYTES: Metric =
    Metric::gauge("ringvault_datastore_used_bytes", &["datastore"], "Bytes in use on the datastore's file system.");
/// Available.
pub static AVAILABLE_BYTES: Metric = Metric::gauge(
    "ringvault_datastore_available_bytes",
    &["datastore"],
    "Bytes that may still be written to the datastore's file system.",
);
/// Whether it can be read.
pub static DATASTORE_READABLE: Metric = Metric::gauge(
    "ringvault_datastore_readable",
    &["datastore"],
    "1 if the last look at the datastore succeeded, else 0; the numbers of a failed look are those of the last good one.",
);
/// Groups.
pub static DATASTORE_GROUPS: Metric = Metric::gauge(
    "ringvault_datastore_groups",
    &["datastore"],
    "Groups with at least one snapshot, all namespaces together.",
);
/// Snapshots.
pub static DATASTORE_SNAPSHOTS: Metric = Metric::gauge(
    "ringvault_datastore_snapshots",
    &["datastore"],
    "Snapshots, all namespaces together, those under way included.",
);
/// Snapshots that are known to be bad.
pub static DATASTORE_FAILED: Metric = Metric::gauge(
    "ringvault_datastore_failed_snapshots",
    &["datastore"],
    "Snapshots whose last verification failed, or that a known-chunk check has marked, all namespaces together; absent until all have been looked at once.",
);
/// Chunks that are known to be bad.
pub static DOUBTED_CHUNKS: Metric = Metric::gauge(
    "ringvault_datastore_doubted_chunks",
    &["datastore"],
    "Chunks that a check or verification has found missing or bad and that were neither written anew nor verified nor collected as garbage since, at most 65536. Counted from the opening of the datastore.",
);
/// When it was looked at.
pub static CENSUS_TIME: Metric = Metric::gauge(
    "ringvault_datastore_census_timestamp_seconds",
    &["datastore"],
    "When space, groups and snapshots of the datastore were looked at, in seconds since the epoch.",
);
/// How long that took.
pub static CENSUS_DURATION: Metric =
    Metric::gauge("ringvault_datastore_census_duration_seconds", &["datastore"], "How long that look took.");
/// Snapshots of a group.
pub static GROUP_SNAPSHOTS: Metric =
    Metric::gauge("ringvault_group_snapshots", GROUP, "Snapshots of a group, those under way included.");
/// Those that are known to be bad.
pub static GROUP_FAILED: Metric = Metric::gauge(
    "ringvault_group_failed_snapshots",
    GROUP,
    "Snapshots of a group whose last verification failed, or that a known-chunk check has marked; absent until all have been looked at once.",
);
/// Newest of a group.
pub static GROUP_NEWEST: Metric = Metric::gauge(
    "ringvault_group_newest_snapshot_timestamp_seconds",
    GROUP,
    "Time of the newest finished snapshot of a group, in seconds since the epoch; absent without one.",
);
/// Groups without series.
pub static OTHER_GROUPS: Metric = Metric::gauge(
    "ringvault_other_groups",
    &["datastore"],
    "Groups past the first 1000 of a datastore, which have no series of their own.",
);
/// Their snapshots.
pub static OTHER_GROUPS_SNAPSHOTS: Metric = Metric::gauge(
    "ringvault_other_groups_snapshots",
    &["datastore"],
    "Snapshots of the groups without series of their own.",
);
/// Their stalest.
pub static OTHER_GROUPS_STALEST: Metric = Metric::gauge(
    "ringvault_other_groups_oldest_newest_snapshot_timestamp_seconds",
    &["datastore"],
    "Of the groups without series of their own: the newest finished snapshot of the one whose newest is oldest, in seconds since the epoch.",
);
/// Last collection.
pub static GC_START_TIME: Metric = Metric::gauge(
    "ringvault_gc_last_start_timestamp_seconds",
    &["datastore"],
    "When the last garbage collection that left a status began, in seconds since the epoch; absent without one.",
);
/// Its numbers.
pub static GC_INDEX_DATA_BYTES: Metric = Metric::gauge(
    "ringvault_gc_index_data_bytes",
    &["datastore"],
    "Bytes that all indexes together name, before deduplication and compression, at the last garbage collection.",
);
/// Chunk bytes.
pub static GC_DISK_BYTES: Metric =
    Metric::gauge("ringvault_gc_disk_bytes", &["datastore"], "Bytes of chunks in use at the last garbage collection.");
/// Chunks.
pub static GC_DISK_CHUNKS: Metric =
    Metric::gauge("ringvault_gc_disk_chunks", &["datastore"], "Chunks in use at the last garbage collection.");
/// Removed.
pub static GC_REMOVED_BYTES: Metric = Metric::gauge(
    "ringvault_gc_removed_bytes",
    &["datastore"],
    "Bytes of chunks that the last garbage collection removed.",
);
/// Pending.
pub static GC_PENDING_BYTES: Metric = Metric::gauge(
    "ringvault_gc_pending_bytes",
    &["datastore"],
    "Bytes of unused chunks that the last garbage collection left because they were too young.",
);
/// Bad.
pub static GC_BAD_CHUNKS: Metric = Metric::gauge(
    "ringvault_gc_still_bad_chunks",
    &["datastore"],
    "Chunks that a verification set aside and that were still there after the last garbage collection.",
);

/// `docs/metrics.md`.
pub fn reference() -> String {
    let mut text = "\
# Metrics

`GET /metrics` answers in Prometheus' text format. Who may ask: section `[metrics]` in [configuration.md](configuration.md); how to scrape, and alerts
worth having: [operations.md](operations.md). Times are seconds since the epoch, so an age is `time() - x`. Counters start at zero with the daemon, those with the label
`datastore` when the datastore is opened.

This page is made from the table in `src/metrics.rs`; a test compares them.

| name | type | labels | |
|---|---|---|---|
"
    .to_owned();
    for metric in METRICS {
        let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        let (name, kind, labels) = (metric.name, metric.kind.word(), labels.join(" "));
        text.push_str(&format!("| `{name}` | {kind} | {labels} | {} |\n", metric.help));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a page of the source tree, written when a developer asks for it")]
    fn the_page_of_the_documentation_is_this_table() {
        let written = include_str!("../docs/metrics.md");
        if std::env::var_os("RINGVAULT_WRITE_DOCS").is_some() {
            std::fs::write(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md"), reference()).unwrap();
        } else {
            assert_eq!(written, reference(), "run this test with RINGVAULT_WRITE_DOCS=1 to write docs/metrics.md");
        }
    }

    #[test]
    fn names_follow_the_conventions() {
        let mut last = "";
        for metric in METRICS {
            let name = metric.name;
            assert!(last < name, "{last} and {name} are not sorted");
            last = name;
            assert!(name.starts_with("ringvault_") || name.starts_with("process_"), "{name}");
            assert_eq!(metric.kind == MetricKind::Counter, name.ends_with("_total"), "{name}");
            assert!(metric.kind != MetricKind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(metric.help.ends_with('.'), "{name}");
        }
    }

    #[test]
    fn words_of_a_label_are_different_and_in_place() {
        fn check<L: Label>() {
            let words: Vec<&str> = L::ALL.iter().map(|value| value.word()).collect();
            let unique: std::collections::BTreeSet<&&str> = words.iter().collect();
            assert_eq!(unique.len(), words.len(), "{words:?}");
            assert!(L::ALL.iter().enumerate().all(|(at, value)| value.pos() == at), "{words:?}");
        }
        check::<Interface>();
        check::<SessionKind>();
        check::<StatusClass>();
        check::<Kind>();
        check::<Arrival>();
        check::<CheckPlace>();
        check::<CheckOutcome>();
        check::<TaskResult>();
    }

    #[test]
    fn what_is_counted_is_what_is_shown() {
        let store = StoreMetrics::default();
        store.received_chunks.at(Arrival::Duplicate).inc();
        store.known_chunk_checks.at(CheckPlace::Finish).at(CheckOutcome::Missing).add(3);
        for millis in [0, 1, 2, 40_000, 200_000] {
            store.check_batches.at(CheckPlace::Append).observe(Duration::from_millis(millis));
        }
        let mut page = Exposition::default();
        store.show("main", "sync", &mut page);
        let page = page.into_text();
        for line in [
            "ringvault_received_chunks_total{datastore=\"main\",result=\"new\"} 0",
            "ringvault_received_chunks_total{datastore=\"main\",result=\"duplicate\"} 1",
            "ringvault_known_chunk_checks_total{datastore=\"main\",engine=\"sync\",place=\"finish\",outcome=\"missing\"} 3",
            "ringvault_known_chunk_check_batch_duration_seconds_bucket{datastore=\"main\",engine=\"sync\",place=\"append\",le=\"0.0001\"} 1",
            "ringvault_known_chunk_check_batch_duration_seconds_bucket{datastore=\"main\",engine=\"sync\",place=\"append\",le=\"0.001\"} 2",
            "ringvault_known_chunk_check_batch_duration_seconds_bucket{datastore=\"main\",engine=\"sync\",place=\"append\",le=\"100\"} 4",
            "ringvault_known_chunk_check_batch_duration_seconds_bucket{datastore=\"main\",engine=\"sync\",place=\"append\",le=\"+Inf\"} 5",
            "ringvault_known_chunk_check_batch_duration_seconds_sum{datastore=\"main\",engine=\"sync\",place=\"append\"} 240.003",
            "ringvault_known_chunk_check_batch_duration_seconds_count{datastore=\"main\",engine=\"sync\",place=\"append\"} 5",
        ] {
            assert!(page.lines().any(|is| is == line), "{line} is not in\n{page}");
        }
    }

    #[test]
    fn sessions_and_tasks_that_end_run_no_longer() {
        let server = Arc::new(ServerMetrics::new(EpochSecs(5)));
        let session = server.begin_session(SessionKind::Reader);
        session.answers().answered(404, Some(Kind::NotFound));
        drop(server.begin_session(SessionKind::Reader));
        let tasks = TaskMetrics::default();
        tasks.task_started("verify");
        tasks.task_started("verify");
        tasks.task_ended("verify", TaskResult::Warnings, EpochSecs(7));
        let mut page = Exposition::default();
        server.show(&mut page);
        tasks.show(&mut page);
        let page = page.into_text();
        for line in [
            "process_start_time_seconds 5",
            "ringvault_sessions{kind=\"reader\"} 1",
            "ringvault_sessions_started_total{kind=\"reader\"} 2",
            "ringvault_http_requests_total{interface=\"reader\",code=\"4xx\"} 1",
            "ringvault_errors_total{interface=\"reader\",kind=\"not_found\"} 1",
            "ringvault_tasks_running{type=\"verify\"} 1",
            "ringvault_tasks_total{type=\"verify\",result=\"warnings\"} 1",
            "ringvault_task_last_end_timestamp_seconds{type=\"verify\",result=\"warnings\"} 7",
        ] {
            assert!(page.lines().any(|is| is == line), "{line} is not in\n{page}");
        }
    }
}
