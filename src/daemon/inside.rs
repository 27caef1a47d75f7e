//! A daemon inside another program: what `ringvault bench` sends backups through. Everything is as in one of its own, but for signals
//! and schedules, which belong to the program.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use super::connection_file::CONNECTION_FILE;
use super::{first_start, run};
use crate::config::{DataDir, DirLock};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::http::Running;
use crate::store::Datastore;
use crate::types::DatastoreName;

/// A daemon that serves on a free port of the loopback.
#[derive(Debug)]
pub struct Inside {
    dir: DataDir,
    running: Running,
    _lock: DirLock,
}

impl Inside {
    /// Starts one over the data directory `path`, whose configuration is there; what else a first start makes is made.
    pub async fn start(path: &Path) -> Result<Self> {
        let dir = DataDir::open(path)?;
        let lock = run::take_lock(&dir).await?;
        let loaded = first_start::configuration(&dir, None)?;
        let config = first_start::configuration_path(&dir, None)?;
        let running = run::start(&dir, config, loaded, Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))).await?;
        Ok(Self { dir, running, _lock: lock })
    }

    /// The variables that a client needs to get in, by their names.
    pub fn connection(&self) -> Result<Vec<(String, String)>> {
        let text = self.dir.read_secret(CONNECTION_FILE)?;
        let text = text.ok_or_else(|| Error::not_found(format!("there is no {CONNECTION_FILE}")))?;
        let text = String::from_utf8_lossy(&text).into_owned();
        let pair = |line: &str| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('\'').to_owned()))
        };
        Ok(text.lines().filter_map(pair).collect())
    }

    /// A datastore that it serves.
    pub fn datastore(&self, name: &DatastoreName) -> Option<Datastore> {
        self.running.app.datastores.get(name)
    }

    /// Ends it as a signal would. The engines come back to be shut down outside of the runtime.
    pub async fn shutdown(self) -> Vec<Engine> {
        let engines = self.running.app.datastores.engines();
        self.running.shutdown().await;
        engines
    }
}
