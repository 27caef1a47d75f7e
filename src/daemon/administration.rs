//! A command's way to users, permissions, datastores and configuration: through the daemon that runs, or by itself when none does.
//!
//! Both make the same calls. Which of the two it is, the data directory's lock decides: who holds it is alone.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use http::Method;
use serde_json::Value;

use super::run::{DAEMON_LOCK, LOCK_LOOK_INTERVAL, LOCK_WAIT, assemble};
use super::{first_start, keys, users_file};
use crate::clock::Clock;
use crate::config::{DataDir, DirLock, StoreBook};
use crate::engine::Engine;
use crate::error::{Error, Kind, Result};
use crate::http::{App, ControlClient, Phase, TlsIdentity, api, self_signed};
use crate::task;
use crate::types::DatastoreName;

/// What a command holds while it works.
#[derive(Debug)]
pub struct Administration {
    client: ControlClient,
    alone: Option<Alone>,
}

/// No daemon runs, and none starts meanwhile.
#[derive(Debug)]
struct Alone {
    app: Arc<App>,
    _lock: DirLock,
}

/// Reaches the daemon of a data directory, or takes its place. `config` is the configuration file if it is not in the data directory; a
/// running daemon has its own. `store` is opened if this process has to do the work.
///
/// Errors: `NotFound` if there is no such directory; `Busy` if another command works on it for long, or a daemon is about to start.
pub async fn administer(
    data_dir: &Path,
    config: Option<&Path>,
    store: Option<&DatastoreName>,
) -> Result<Administration> {
    if !data_dir.is_dir() {
        let text = format!(
            "there is no data directory {data_dir:?}: name it with --data-dir, or make it with `ringvault serve`"
        );
        return Err(Error::not_found(text));
    }
    let dir = DataDir::open(data_dir)?;
    let begun = Instant::now();
    loop {
        match dir.lock(DAEMON_LOCK) {
            Ok(lock) => return alone(&dir, config, store, lock).await,
            Err(e) if e.kind() != Kind::Busy => return Err(e),
            Err(busy) => {
                if let Some(client) = ControlClient::reach(dir.path()).await {
                    return Ok(Administration { client, alone: None });
                }
                if begun.elapsed() > LOCK_WAIT {
                    return Err(
                        busy.context("a daemon is starting or stopping, or another command is at work; try again")
                    );
                }
                tokio::time::sleep(LOCK_LOOK_INTERVAL).await;
            }
        }
    }
}

async fn alone(
    dir: &DataDir,
    config: Option<&Path>,
    store: Option<&DatastoreName>,
    lock: DirLock,
) -> Result<Administration> {
    let loaded = first_start::configuration(dir, config)?;
    let path = first_start::configuration_path(dir, config)?;
    let (keys, users) = (keys::load_or_make(dir)?, users_file::load(dir)?);
    let clock = Clock::system();
    let tasks = task::Registry::open(&loaded.config.tasks_dir, clock.clone())?;
    let stores = StoreBook::on_request(clock);
    if let Some(section) = store.and_then(|name| loaded.config.datastores.iter().find(|section| section.name == *name))
    {
        stores.open(section).await?;
    }
    // Nobody connects; the daemon's own certificate, which may be missing or broken, is no concern of a command.
    let certificate = self_signed("")?;
    let tls = TlsIdentity::from_pem(certificate.chain_pem.as_bytes(), certificate.key_pem.as_bytes())?;
    let app = Arc::new(assemble(dir, (path, loaded), tls, keys, users, tasks, stores)?);
    let client = ControlClient::Within(app.clone(), Arc::new(api::router()));
    Ok(Administration { client, alone: Some(Alone { app, _lock: lock }) })
}

impl Administration {
    /// Makes a call: `path` as in docs/api.md, its variable parts escaped. Returns `data` and what stands beside it.
    pub async fn call(&self, method: Method, path: &str, params: &Value) -> Result<Value> {
        self.client.call(method, path, params).await
    }

    /// Whether this process does the work itself, because no daemon runs.
    pub fn is_alone(&self) -> bool {
        self.alone.is_some()
    }

    /// Ends what this process does by itself: tasks first, then what they logged, then the engines.
    ///
    /// The engines come back to be shut down when the runtime has ended.
    pub async fn close(self) -> Vec<Engine> {
        let Some(Alone { app, _lock }) = self.alone else { return Vec::new() };
        app.lifecycle.advance(Phase::Draining);
        app.lifecycle.idle().await;
        app.lifecycle.advance(Phase::Closing);
        app.tasks.flush().await;
        app.datastores.engines()
    }
}
