//! Brings a daemon up, keeps it up, takes it down.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use super::data_dir::DataDir;
use super::watch::watch;
use super::{first_start, keys, users_file};
use crate::clock::Clock;
use crate::config::{Config, DatastoreSection};
use crate::engine::{ComputePool, Engine, EngineChoice, EngineConfig};
use crate::error::{Error, IoContext, Result};
use crate::http::{App, Delays, LOGINS_MAX, Lifecycle, Phase, Running, Server, ServerConfig, UserBook};
use crate::store::{CheckSwitches, Datastore, DatastoreConfig, SyncLevel};
use crate::{systemd, task};

/// What the command line says.
#[derive(Clone, Debug)]
pub struct Options {
    /// The data directory; made where it is missing.
    pub data_dir: PathBuf,
    /// Instead of the configuration's address.
    pub listen: Option<SocketAddr>,
    /// Instead of the data directory's configuration file.
    pub config: Option<PathBuf>,
}

/// Runs a daemon until SIGTERM or SIGINT. Ready once it has said so on standard output and to systemd.
///
/// The engines come back to be shut down when the runtime has ended, and with it whatever still holds a datastore.
pub async fn run(options: Options) -> Result<Vec<Engine>> {
    // Asked for first, so that no signal ends a half-made first start the hard way.
    let mut terminate = signal(SignalKind::terminate()).io_context(|| "listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).io_context(|| "listen for SIGINT")?;
    raise_file_limit();
    let dir = DataDir::open(&options.data_dir)?;
    first_start::check_ours(&dir, options.config.as_deref())?;
    let _lock = dir.lock(".lock")?;
    let config = first_start::configuration(&dir, options.config.as_deref())?;
    let engines = {
        let starting = start(&dir, &config, options.listen);
        tokio::pin!(starting);
        let (running, engines) = tokio::select! {
            started = &mut starting => started?,
            _ = terminate.recv() => return Ok(Vec::new()),
            _ = interrupt.recv() => return Ok(Vec::new()),
        };
        let following = tokio::spawn(users_file::follow(running.app.clone(), dir.clone()));
        announce(&running)?;
        let watched = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            died = watch(&running) => Err(died),
        };
        following.abort();
        systemd::stopping();
        tracing::info!("shutting down");
        let app = running.app.clone();
        let stopping = running.shutdown();
        tokio::pin!(stopping);
        let in_time = tokio::select! {
            in_time = &mut stopping => in_time,
            _ = second_signal(&mut terminate, &mut interrupt) => {
                tracing::warn!("second signal: running sessions are ended now");
                app.lifecycle.advance(Phase::Closing);
                stopping.await
            }
        };
        watched?;
        if !in_time {
            return Err(Error::closed("not everything ended in time; unfinished snapshots may have been left behind"));
        }
        engines
    };
    tracing::info!("stopped");
    Ok(engines)
}

async fn second_signal(terminate: &mut tokio::signal::unix::Signal, interrupt: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Everything up to the open socket. The address is taken first: whether the port is busy shows before anything dear is made.
async fn start(dir: &DataDir, config: &Config, listen: Option<SocketAddr>) -> Result<(Running, Vec<Engine>)> {
    let address = listen.unwrap_or(config.server.listen);
    let socket = TcpListener::bind(address).map_err(|e| busy(address, e))?;
    let local = socket.local_addr().io_context(|| "read the listening socket's address")?;
    let clock = Clock::system();
    let keys = keys::load_or_make(dir)?;
    let tls = first_start::identity(dir, &config.server, &host_name())?;
    first_start::main_datastore(dir, config, &users_file::load(dir)?).await?;
    let users = first_start::users(dir, &keys, config, local, tls.fingerprint())?;
    let tasks = task::Registry::open(&config.tasks_dir, clock.clone())?;
    let mut datastores = BTreeMap::new();
    let mut engines = Vec::new();
    for section in &config.datastores {
        let (store, engine_config) = (store_config(section), engine_config(section));
        let engine = Engine::start(store.name.as_str(), &engine_config)?;
        if let Some(reason) = engine.fallback_reason() {
            tracing::warn!(store = %store.name, engine = engine.kind(), "{reason}");
        }
        let opened = Datastore::open(store.clone(), engine.clone(), clock.clone()).await?;
        tracing::info!(store = %store.name, path = ?store.path, engine = engine.kind(), "datastore opened");
        datastores.insert(store.name.clone(), opened);
        engines.push(engine);
    }
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let compute_threads = if config.server.compute_threads == 0 { cpus } else { config.server.compute_threads };
    let app = App {
        clock,
        tasks,
        compute: ComputePool::new(compute_threads)?,
        lifecycle: Lifecycle::new(config.server.sessions_max),
        users: UserBook::new(users),
        keys,
        delays: Delays { unauthenticated: config.server.unauthenticated_delay, denied: config.server.denied_delay },
        logins: Semaphore::new(LOGINS_MAX),
        datastores,
    };
    let running = Server::start(ServerConfig {
        socket,
        tls,
        connections_max: config.server.connections_max,
        shutdown_timeout: config.server.shutdown_timeout,
        app,
    })?;
    Ok((running, engines))
}

/// What the store is told of a section.
fn store_config(section: &DatastoreSection) -> DatastoreConfig {
    let mut store = DatastoreConfig::new(section.name.clone(), &section.path);
    store.comment.clone_from(&section.comment);
    store.sync_level = match section.sync_level.as_str() {
        "none" => SyncLevel::None,
        "file" => SyncLevel::File,
        _ => SyncLevel::Filesystem,
    };
    let (append, finish, preflight) = section.checks;
    store.checks = CheckSwitches { append, finish, preflight };
    store.owner = section.owner;
    store.lock_dir.clone_from(&section.manifest_lock_dir);
    store
}

/// What the engine is told of a section.
fn engine_config(section: &DatastoreSection) -> EngineConfig {
    let choice = match section.engine.as_str() {
        "uring" => EngineChoice::Uring,
        "threads" => EngineChoice::Threads,
        "sync" => EngineChoice::Sync,
        _ => EngineChoice::Auto,
    };
    EngineConfig { choice, workers: section.workers, io_threads: section.io_threads }
}

fn busy(address: SocketAddr, e: std::io::Error) -> Error {
    let hint = match e.kind() {
        std::io::ErrorKind::AddrInUse => "; another program listens there: stop it, or choose another with --listen",
        std::io::ErrorKind::PermissionDenied => "; ports below 1024 need CAP_NET_BIND_SERVICE",
        _ => "",
    };
    Error::busy(format!("cannot listen on {address} - {e}{hint}"))
}

/// The line that scripts wait for, and systemd's notice.
fn announce(running: &Running) -> Result<()> {
    let (address, fingerprint) = (running.local_addr, &running.fingerprint);
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on https://{address} fingerprint {fingerprint}")
        .and_then(|()| out.flush())
        .io_context(|| "write to standard output")?;
    systemd::ready(&format!("listening on https://{address}"));
    Ok(())
}

/// The host's name for the certificate.
fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let letters = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.');
    if letters { name } else { String::new() }
}

/// Connections and index files each take a descriptor; the soft limit of many systems is 1024 for the sake of `select`, which we
/// do not use.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!(%error, "the limit of open files could not be raised");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::first_file;
    use std::path::Path;

    #[test]
    fn defaults_of_the_file_are_those_of_the_parts() {
        let config = Config::parse(&first_file(), "x", Path::new("/data")).unwrap();
        let (store, engine) = (store_config(&config.datastores[0]), engine_config(&config.datastores[0]));
        let default = DatastoreConfig::new(store.name.clone(), "/data/main");
        assert_eq!(format!("{store:?}"), format!("{default:?}"));
        assert_eq!(format!("{engine:?}"), format!("{:?}", EngineConfig::default()));
    }

    #[test]
    fn every_word_has_its_meaning() {
        let read = |line: &str| {
            let text = format!("[[datastore]]\nname = \"abc\"\npath = \"p\"\n{line}\n");
            let config = Config::parse(&text, "x", Path::new("/data")).unwrap();
            (store_config(&config.datastores[0]), engine_config(&config.datastores[0]))
        };
        for level in [SyncLevel::None, SyncLevel::File, SyncLevel::Filesystem] {
            let word = serde_json::to_string(&level).unwrap();
            assert_eq!(read(&format!("sync-level = {word}")).0.sync_level, level);
        }
        for choice in [EngineChoice::Auto, EngineChoice::Uring, EngineChoice::Threads, EngineChoice::Sync] {
            let word = serde_json::to_string(&choice).unwrap();
            assert_eq!(read(&format!("engine = {word}")).1.choice, choice);
        }
        let (store, _) = read("checks = { append = false, preflight = false }\nowner = \"1:2\"\ncomment = \"c\"");
        assert_eq!(store.checks, CheckSwitches { append: false, finish: true, preflight: false });
        assert_eq!((store.owner, store.comment.as_deref()), (Some((1, 2)), Some("c")));
    }
}
