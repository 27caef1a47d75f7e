//! The configuration: text → `RawConfig` → [`Config`], and [`LiveConfig`], which keeps a running daemon by its file.
//!
//! [`Config`] is complete and valid; parts of the daemon receive their own section by value, and none of them reads a
//! file, an environment variable or a global. All but [`LiveConfig`], [`StoreBook`] and [`DataDir`] is pure.

mod data_dir;
mod edit;
mod import;
mod jobs;
mod live;
mod parts;
mod raw;
pub(crate) use raw::unknown;
mod schema;
mod stores;

use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::store::MaintenanceMode;
use crate::types::{DatastoreName, Schedule};
pub use data_dir::{DataDir, DirLock, FILE_BYTES_MAX, PUBLIC_MODE, SECRET_MODE};
pub use edit::Draft;
pub use import::{IMPORTED_FILES, Import, Note};
pub use jobs::{JOB_ID_CHARS, JobSection, KEEP_KEYS, PruneJobSection, VerifyJobSection};
pub use live::{LiveConfig, Loaded, read_text};
pub use raw::Problem;
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
    /// What is refused.
    pub maintenance: Option<MaintenanceMode>,
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
    /// Space that is kept for garbage collection on a full disk.
    pub gc_reserve_mib: u64,
    /// How old an access time has to be, in minutes.
    pub gc_atime_cutoff: u32,
    /// Most chunks that background work takes in a second.
    pub background_chunks: Option<NonZeroU64>,
    /// Most MiB that it reads in a second.
    pub background_mib: Option<NonZeroU64>,
    /// Whether it makes way for sessions.
    pub background_back_off: bool,
    /// Whether its reads are idle for the disk.
    pub background_idle: bool,
    /// Where manifest locks lie.
    pub manifest_lock_dir: Option<PathBuf>,
    /// The same, taken apart.
    pub gc_event: Option<Schedule>,
}

impl Config {
    /// Reads a file's text. `name` is how errors call the file; relative paths start at `data_dir`.
    ///
    /// Errors: `Invalid` with file, line and column of the first problem, and how many there are.
    pub fn parse(text: &str, name: &str, data_dir: &Path) -> Result<Self> {
        Self::check(text, data_dir).map_err(|problems| {
            let more = problems.len().saturating_sub(1);
            let Some(Problem { line, column, message }) = problems.into_iter().next() else {
                return Error::invalid(name);
            };
            let more = if more == 0 { String::new() } else { format!("; {more} more: ringvault config check") };
            Error::invalid(format!("{name}:{line}:{column}: {message}{more}"))
        })
    }

    /// Reads a file's text, or says everything that is wrong with it, in the order of the file.
    pub fn check(text: &str, data_dir: &Path) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let config =
            RawConfig::parse(Source { text }, &mut problems).and_then(|raw| read(&raw, data_dir, &mut problems));
        problems.sort();
        problems.dedup();
        config.filter(|_| problems.is_empty()).ok_or(problems)
    }

    /// Line and column of a value of the file, or of the section's header where it is not given: to say what is wrong with what it names.
    /// `id` is the name of a row of a repeated section.
    pub fn place(text: &str, section: &str, id: Option<&str>, key: &str) -> (usize, usize) {
        let raw = RawConfig::parse(Source { text }, &mut Vec::new());
        let place = raw.as_ref().and_then(|raw| {
            let row = raw.sections(section).iter().find(|row| row.id() == id)?;
            Some(raw.source().problem(&row.span(key), ""))
        });
        place.map_or((1, 1), |problem| (problem.line, problem.column))
    }
}

/// What the text means, as far as each value is of its kind.
fn read(raw: &RawConfig<'_>, data_dir: &Path, problems: &mut Vec<Problem>) -> Option<Config> {
    let mut datastores: Vec<DatastoreSection> = Vec::new();
    for section in raw.sections("datastore") {
        let Some(store) = datastore(section, raw.source(), data_dir, problems) else { continue };
        let twin = |other: &&DatastoreSection| other.path == store.path && other.name != store.name;
        if let Some(other) = datastores.iter().find(twin) {
            let text = format!("the datastores {:?} and {:?} have one path", other.name.as_str(), store.name.as_str());
            problems.push(raw.source().problem(&section.span("path"), text));
        }
        datastores.push(store);
    }
    let tasks_dir = path(raw.section("tasks"), "dir", data_dir).unwrap_or_else(|| data_dir.join("tasks"));
    let whole = |name: &str| raw.sections(name).iter().filter(|section| section.is_whole());
    let prune_jobs = whole("prune-job").map(|section| jobs::prune_job(section, raw.source()));
    let prune_jobs = kept(prune_jobs, problems);
    let verify_jobs = whole("verify-job").map(|section| jobs::verify_job(section, raw.source()));
    let verify_jobs = kept(verify_jobs, problems);
    let tasks_keep = raw.section("tasks").integer("keep");
    let server = server(raw.section("server"), raw.source(), data_dir, problems)?;
    let metrics = MetricsSection { access: metrics_access(raw.section("metrics"), raw.source(), problems)? };
    Some(Config { server, datastores, prune_jobs, verify_jobs, tasks_dir, tasks_keep, metrics })
}

fn server(
    section: &RawSection,
    source: Source<'_>,
    data_dir: &Path,
    problems: &mut Vec<Problem>,
) -> Option<ServerSection> {
    let listen = section.text("listen")?;
    let listen = match listen.parse() {
        Ok(listen) => listen,
        Err(_) => {
            let text = format!("{listen:.80?} is not ADDRESS:PORT with a numeric address");
            problems.push(source.problem(&section.span("listen"), text));
            return None;
        }
    };
    Some(ServerSection {
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

fn datastore(
    section: &RawSection,
    source: Source<'_>,
    data_dir: &Path,
    problems: &mut Vec<Problem>,
) -> Option<DatastoreSection> {
    let text = |key: &str| section.text(key).unwrap_or_default().to_owned();
    let name = parsed(section, "name", source, problems);
    let maintenance = parsed(section, "maintenance-mode", source, problems);
    let (gc_event, gc_schedule) =
        jobs::schedule(section, "gc-schedule", source).map_err(|problem| problems.push(problem)).unwrap_or_default();
    let owner = section.text("owner").and_then(|text| {
        let numbers = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
        if numbers.is_none() {
            let text = format!("{text:.80?} is not UID:GID in numbers");
            problems.push(source.problem(&section.span("owner"), text));
        }
        numbers
    });
    Some(DatastoreSection {
        name: name?,
        path: path(section, "path", data_dir)?,
        comment: section.text("comment").filter(|text| !text.is_empty()).map(ToOwned::to_owned),
        maintenance,
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
        owner,
        gc_method: text("gc-method"),
        gc_memory_mib: section.integer("gc-memory-mib"),
        gc_reserve_mib: section.integer("gc-reserve-mib"),
        gc_atime_cutoff: section.integer("gc-atime-cutoff"),
        background_chunks: section.integer_opt("background.chunks-per-second").and_then(NonZeroU64::new),
        background_mib: section.integer_opt("background.mib-per-second").and_then(NonZeroU64::new),
        background_back_off: section.boolean("background.back-off"),
        background_idle: section.boolean("background.idle-priority"),
        manifest_lock_dir: path(section, "manifest-lock-dir", data_dir),
        gc_event,
    })
}

fn metrics_access(section: &RawSection, source: Source<'_>, problems: &mut Vec<Problem>) -> Option<MetricsAccess> {
    let mut wrong = |key: &str, text: &str| problems.push(source.problem(&section.span(key), text));
    let mut token = None;
    if let Some(text) = section.text("token-sha256") {
        let mut bytes = [0; 32];
        match hex::decode_to_slice(text, &mut bytes) {
            Ok(()) => token = Some(bytes),
            Err(_) => wrong("token-sha256", "a SHA-256 has 64 hex digits: `sha256sum` shows them"),
        }
    }
    match (section.text("access"), token) {
        (Some("off"), _) => Some(MetricsAccess::Off),
        (Some("token"), Some(token)) => Some(MetricsAccess::Token(token)),
        (Some("token"), None) => {
            if section.text("token-sha256").is_none() {
                wrong("access", "access = \"token\" needs the key \"token-sha256\"");
            }
            None
        }
        _ => Some(MetricsAccess::Loopback),
    }
}

/// What was read, without what is wrong, which is told.
fn kept<T>(read: impl Iterator<Item = Result<T, Problem>>, problems: &mut Vec<Problem>) -> Vec<T> {
    read.filter_map(|read| read.map_err(|problem| problems.push(problem)).ok()).collect()
}

/// A text that is one of the crate's nouns; `None` if it is not given, or if it is wrong, which is told.
fn parsed<T: FromStr<Err = Error>>(
    section: &RawSection,
    key: &str,
    source: Source<'_>,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let text = section.text(key).filter(|text| !text.is_empty() || section.requires(key))?;
    text.parse().map_err(|e: Error| problems.push(source.problem(&section.span(key), e))).ok()
}

fn path(section: &RawSection, key: &str, data_dir: &Path) -> Option<PathBuf> {
    section.text(key).map(|text| data_dir.join(text))
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod live_tests;
