//! The configuration: text → `RawConfig` → [`Config`], and [`LiveConfig`], which keeps a running daemon by its file.
//!
//! [`Config`] is complete and valid; parts of the daemon receive their own section by value, and none of them reads a
//! file, an environment variable or a global. All but [`LiveConfig`], [`StoreBook`] and [`DataDir`] is pure.

mod data_dir;
mod edit;
mod jobs;
mod live;
mod parts;
mod raw;
mod schema;
mod stores;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::error::{Error, Result};
use crate::types::{DatastoreName, Schedule};
pub use data_dir::{DataDir, DirLock, FILE_BYTES_MAX, PUBLIC_MODE, SECRET_MODE};
pub use edit::Draft;
pub use jobs::{JOB_ID_CHARS, JobSection, KEEP_KEYS, PruneJobSection, VerifyJobSection};
pub use live::{LiveConfig, Loaded, read_text};
use raw::{RawConfig, RawSection, Source};
pub use schema::{Effect, Key, Kind, SECTIONS, Section, first_file, reference};
pub use stores::{Prepared, StoreBook};

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// How clients reach the daemon.
    pub server: ServerSection,
    /// What it keeps.
    pub datastores: Vec<DatastoreSection>,
    /// Scheduled prunes.
    pub prune_jobs: Vec<PruneJobSection>,
    /// Scheduled verifications.
    pub verify_jobs: Vec<VerifyJobSection>,
    /// Directory of the task logs.
    pub tasks_dir: PathBuf,
    /// How many ended tasks are kept.
    pub tasks_keep: usize,
    /// Who may see what is counted.
    pub metrics: MetricsSection,
}

/// `[metrics]`.
#[derive(Clone, Debug)]
pub struct MetricsSection {
    /// Who may see it.
    pub access: MetricsAccess,
}

/// Who may see the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAccess {
    /// Nobody.
    Off,
    /// Processes of this host.
    Loopback,
    /// Whoever sends the token with this SHA-256.
    Token([u8; 32]),
}

/// `[server]`.
#[derive(Clone, Debug)]
pub struct ServerSection {
    /// Address and port.
    pub listen: SocketAddr,
    /// Certificate chain in PEM.
    pub tls_cert: PathBuf,
    /// Private key in PEM.
    pub tls_key: PathBuf,
    /// Connections open at a time.
    pub connections_max: usize,
    /// Sessions at a time.
    pub sessions_max: usize,
    /// How long sessions may go on after SIGTERM.
    pub shutdown_timeout: Duration,
    /// How long a 401 waits.
    pub unauthenticated_delay: Duration,
    /// How long a 403 waits.
    pub denied_delay: Duration,
    /// Threads for hashing; 0: one for each CPU.
    pub compute_threads: usize,
}

/// `[[datastore]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DatastoreSection {
    /// Unique in the file.
    pub name: DatastoreName,
    /// Unique in the file too.
    pub path: PathBuf,
    /// A line for listings.
    pub comment: Option<String>,
    /// When garbage collection runs, as a calendar event.
    pub gc_schedule: Option<String>,
    /// `none`, `file` or `filesystem`.
    pub sync_level: String,
    /// Known-chunk checks: append, finish, preflight.
    pub checks: (bool, bool, bool),
    /// Whether each new backup is verified.
    pub verify_new: bool,
    /// `auto`, `uring`, `threads` or `sync`.
    pub engine: String,
    /// Presence checks in flight.
    pub workers: u32,
    /// Threads for file work.
    pub io_threads: usize,
    /// Owner and group of new objects.
    pub owner: Option<(u32, u32)>,
    /// `memory` or `atime`.
    pub gc_method: String,
    /// Memory for garbage collection.
    pub gc_memory_mib: u64,
    /// Where manifest locks lie.
    pub manifest_lock_dir: Option<PathBuf>,
    /// The same, taken apart.
    pub gc_event: Option<Schedule>,
}

impl Config {
    /// Reads a file's text. `name` is how errors call the file; relative paths start at `data_dir`.
    pub fn parse(text: &str, name: &str, data_dir: &Path) -> Result<Self> {
        let raw = RawConfig::parse(Source { name, text })?;
        let mut datastores: Vec<DatastoreSection> = Vec::new();
        for section in raw.sections("datastore") {
            let store = datastore(section, raw.source(), data_dir)?;
            if let Some(other) = datastores.iter().find(|other| other.path == store.path) {
                let text =
                    format!("the datastores {:?} and {:?} have one path", other.name.as_str(), store.name.as_str());
                return Err(raw.source().error(&section.span("path"), text));
            }
            datastores.push(store);
        }
        let tasks_dir = path(raw.section("tasks"), "dir", data_dir).unwrap_or_else(|| data_dir.join("tasks"));
        let source = raw.source();
        let prune_jobs = raw.sections("prune-job").iter().map(|section| jobs::prune_job(section, source));
        let verify_jobs = raw.sections("verify-job").iter().map(|section| jobs::verify_job(section, source));
        let (prune_jobs, verify_jobs) = (prune_jobs.collect::<Result<_>>()?, verify_jobs.collect::<Result<_>>()?);
        let tasks_keep = raw.section("tasks").integer("keep");
        let server = server(raw.section("server"), raw.source(), data_dir)?;
        let metrics = MetricsSection { access: metrics_access(raw.section("metrics"), raw.source())? };
        Ok(Self { server, datastores, prune_jobs, verify_jobs, tasks_dir, tasks_keep, metrics })
    }
}

fn server(section: &RawSection, source: Source<'_>, data_dir: &Path) -> Result<ServerSection> {
    let listen = section.text("listen").unwrap_or_default();
    let listen = listen.parse().map_err(|_| {
        source.error(&section.span("listen"), format!("{listen:.80?} is not ADDRESS:PORT with a numeric address"))
    })?;
    Ok(ServerSection {
        listen,
        tls_cert: path(section, "tls-cert", data_dir).unwrap_or_default(),
        tls_key: path(section, "tls-key", data_dir).unwrap_or_default(),
        connections_max: section.integer("connections-max"),
        sessions_max: section.integer("sessions-max"),
        shutdown_timeout: Duration::from_secs(section.integer("shutdown-timeout-secs")),
        unauthenticated_delay: Duration::from_millis(section.integer("unauthenticated-delay-ms")),
        denied_delay: Duration::from_millis(section.integer("denied-delay-ms")),
        compute_threads: section.integer("compute-threads"),
    })
}

fn datastore(section: &RawSection, source: Source<'_>, data_dir: &Path) -> Result<DatastoreSection> {
    let text = |key: &str| section.text(key).unwrap_or_default().to_owned();
    let name = text("name").parse().map_err(|e: Error| source.error(&section.span("name"), e))?;
    let (gc_event, gc_schedule) = jobs::schedule(section, "gc-schedule", source)?;
    let owner = section.text("owner").map(|text| {
        let numbers = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
        numbers.ok_or_else(|| source.error(&section.span("owner"), format!("{text:.80?} is not UID:GID in numbers")))
    });
    Ok(DatastoreSection {
        name,
        path: path(section, "path", data_dir).unwrap_or_default(),
        comment: section.text("comment").filter(|text| !text.is_empty()).map(ToOwned::to_owned),
        gc_schedule,
        sync_level: text("sync-level"),
        checks: (
            section.boolean("checks.append"),
            section.boolean("checks.finish"),
            section.boolean("checks.preflight"),
        ),
        verify_new: section.boolean("verify-new"),
        engine: text("engine"),
        workers: section.integer("workers"),
        io_threads: section.integer("io-threads"),
        owner: owner.transpose()?,
        gc_method: text("gc-method"),
        gc_memory_mib: section.integer("gc-memory-mib"),
        manifest_lock_dir: path(section, "manifest-lock-dir", data_dir),
        gc_event,
    })
}

fn metrics_access(section: &RawSection, source: Source<'_>) -> Result<MetricsAccess> {
    let token = section.text("token-sha256").map(|text| {
        let mut bytes = [0; 32];
        let read = hex::decode_to_slice(text, &mut bytes).map(|()| bytes);
        read.map_err(|_| {
            source.error(&section.span("token-sha256"), "a SHA-256 has 64 hex digits: `sha256sum` shows them")
        })
    });
    match (section.text("access"), token.transpose()?) {
        (Some("off"), _) => Ok(MetricsAccess::Off),
        (Some("token"), Some(token)) => Ok(MetricsAccess::Token(token)),
        (Some("token"), None) => {
            Err(source.error(&section.span("access"), "access = \"token\" needs the key \"token-sha256\""))
        }
        _ => Ok(MetricsAccess::Loopback),
    }
}

fn path(section: &RawSection, key: &str, data_dir: &Path) -> Option<PathBuf> {
    section.text(key).map(|text| data_dir.join(text))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod live_tests;
