//! The configuration file: text → `RawConfig` → [`Config`]. Pure.
//!
//! [`Config`] is complete and valid; parts of the daemon receive their own section by value, and none of them reads a
//! file, an environment variable or a global.

mod raw;
mod schema;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::engine::{EngineChoice, EngineConfig};
use crate::error::{Error, Result};
use crate::store::{CheckSwitches, DatastoreConfig, SyncLevel};
use raw::{RawConfig, RawSection, Source};
pub use schema::{Key, Kind, SECTIONS, Section, first_file, reference};

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// How clients reach the daemon.
    pub server: ServerSection,
    /// What it keeps, each with its engine.
    pub datastores: Vec<(DatastoreConfig, EngineConfig)>,
    /// Directory of the task logs.
    pub tasks_dir: PathBuf,
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

impl Config {
    /// Reads a file's text. `name` is how errors call the file; relative paths start at `data_dir`.
    pub fn parse(text: &str, name: &str, data_dir: &Path) -> Result<Self> {
        let raw = RawConfig::parse(Source { name, text })?;
        let mut datastores: Vec<(DatastoreConfig, EngineConfig)> = Vec::new();
        for section in raw.sections("datastore") {
            let (store, engine) = datastore(section, raw.source(), data_dir)?;
            if datastores.iter().any(|(other, _)| other.name == store.name) {
                let text = format!("there are two datastores {:?}", store.name.as_str());
                return Err(raw.source().error(&section.span("name"), text));
            }
            if let Some((other, _)) = datastores.iter().find(|(other, _)| other.path == store.path) {
                let text =
                    format!("the datastores {:?} and {:?} have one path", other.name.as_str(), store.name.as_str());
                return Err(raw.source().error(&section.span("path"), text));
            }
            datastores.push((store, engine));
        }
        let tasks_dir = path(raw.section("tasks"), "dir", data_dir).unwrap_or_else(|| data_dir.join("tasks"));
        Ok(Self { server: server(raw.section("server"), raw.source(), data_dir)?, datastores, tasks_dir })
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

fn datastore(section: &RawSection, source: Source<'_>, data_dir: &Path) -> Result<(DatastoreConfig, EngineConfig)> {
    let name = section.text("name").unwrap_or_default();
    let name = name.parse().map_err(|e: Error| source.error(&section.span("name"), e))?;
    let base = path(section, "path", data_dir).unwrap_or_default();
    let mut store = DatastoreConfig::new(name, base);
    store.comment = section.text("comment").filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    store.sync_level = match section.text("sync-level") {
        Some("none") => SyncLevel::None,
        Some("file") => SyncLevel::File,
        _ => SyncLevel::Filesystem,
    };
    store.checks = CheckSwitches {
        append: section.boolean("checks.append"),
        finish: section.boolean("checks.finish"),
        preflight: section.boolean("checks.preflight"),
    };
    if let Some(text) = section.text("owner") {
        let owner = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
        let wrong = || source.error(&section.span("owner"), format!("{text:.80?} is not UID:GID in numbers"));
        store.owner = Some(owner.ok_or_else(wrong)?);
    }
    store.lock_dir = path(section, "manifest-lock-dir", data_dir);
    let choice = match section.text("engine") {
        Some("uring") => EngineChoice::Uring,
        Some("threads") => EngineChoice::Threads,
        Some("sync") => EngineChoice::Sync,
        _ => EngineChoice::Auto,
    };
    let engine =
        EngineConfig { choice, workers: section.integer("workers"), io_threads: section.integer("io-threads") };
    Ok((store, engine))
}

fn path(section: &RawSection, key: &str, data_dir: &Path) -> Option<PathBuf> {
    section.text(key).map(|text| data_dir.join(text))
}

#[cfg(test)]
mod tests;
