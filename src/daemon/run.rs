//! Brings a daemon up, keeps it up, takes it down.

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};

use super::watch::watch;
use super::{first_start, keys, reload, users_file};
use crate::auth::{ServerKeys, Users};
use crate::clock::Clock;
use crate::config::{DataDir, DirLock, LiveConfig, Loaded, StoreBook};
use crate::engine::{ComputePool, Engine};
use crate::error::{Error, IoContext, Kind, Result};
use crate::http::{
    App, ControlClient, ControlSocket, Lifecycle, Logins, MetricsPage, Phase, Reports, Running, Server, ServerConfig,
    TlsBook, TlsIdentity, UserBook, scheduled,
};
use crate::jobs::state::JobStates;
use crate::metrics::ServerMetrics;
use crate::{systemd, task};

/// Name of the lock that a daemon holds, and a command that does its own work because none runs.
pub(super) const DAEMON_LOCK: &str = ".lock";

/// How long to wait for whoever holds it: commands take a second or two.
pub(super) const LOCK_WAIT: Duration = Duration::from_secs(10);

/// How often to look meanwhile.
pub(super) const LOCK_LOOK_INTERVAL: Duration = Duration::from_millis(50);

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
    let hangup = signal(SignalKind::hangup()).io_context(|| "listen for SIGHUP")?;
    raise_file_limit();
    let dir = DataDir::open(&options.data_dir)?;
    first_start::check_ours(&dir, options.config.as_deref())?;
    let _lock = take_lock(&dir).await?;
    let loaded = first_start::configuration(&dir, options.config.as_deref())?;
    let path = first_start::configuration_path(&dir, options.config.as_deref())?;
    let engines = {
        let starting = start(&dir, path, loaded, options.listen);
        tokio::pin!(starting);
        let running = tokio::select! {
            started = &mut starting => started?,
            _ = terminate.recv() => return Ok(Vec::new()),
            _ = interrupt.recv() => return Ok(Vec::new()),
        };
        let following = tokio::spawn(users_file::follow(running.app.clone(), dir.clone()));
        let reloading = tokio::spawn(reload::follow(
            hangup,
            running.app.clone(),
            running.tls.clone(),
            dir.clone(),
            running.local_addr,
        ));
        // It ends by itself when the daemon begins to stop.
        tokio::spawn(scheduled::follow(running.app.clone()));
        announce(&running)?;
        let watched = tokio::select! {
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
            died = watch(&running) => Err(died),
        };
        following.abort();
        reloading.abort();
        systemd::stopping();
        tracing::info!("shutting down");
        let app = running.app.clone();
        // Those of datastores that leave the configuration end with their last session: these must be there until that is cleaned up.
        let engines = app.datastores.engines();
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

/// The lock of the data directory. A command holds it for as long as it works, so it is worth a wait; another daemon for ever.
pub(super) async fn take_lock(dir: &DataDir) -> Result<DirLock> {
    let begun = Instant::now();
    loop {
        match dir.lock(DAEMON_LOCK) {
            Err(e) if e.kind() == Kind::Busy && begun.elapsed() < LOCK_WAIT => {
                if ControlClient::reach(dir.path()).await.is_some() {
                    return Err(e.context("a daemon runs already"));
                }
                tokio::time::sleep(LOCK_LOOK_INTERVAL).await;
            }
            taken => return taken,
        }
    }
}

async fn second_signal(terminate: &mut tokio::signal::unix::Signal, interrupt: &mut tokio::signal::unix::Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Everything up to the open socket. The address is taken first: whether the port is busy shows before anything dear is made.
pub(super) async fn start(dir: &DataDir, path: PathBuf, loaded: Loaded, listen: Option<SocketAddr>) -> Result<Running> {
    let config = loaded.config.clone();
    let address = listen.unwrap_or(config.server.listen);
    let socket = TcpListener::bind(address).map_err(|e| busy(address, e))?;
    let local = socket.local_addr().io_context(|| "read the listening socket's address")?;
    let clock = Clock::system();
    let keys = keys::load_or_make(dir)?;
    let tls = first_start::identity(dir, &config.server, &host_name())?;
    first_start::main_datastore(dir, &config, &users_file::load(dir)?).await?;
    let users = first_start::users(dir, &keys, &config, local, tls.fingerprint())?;
    let tasks = task::Registry::open_keeping(&config.tasks_dir, clock.clone(), config.tasks_keep)?;
    let datastores = StoreBook::new(clock.clone());
    datastores.commit(datastores.prepare(&config.datastores).await?);
    let connections_max = config.server.connections_max;
    let app = assemble(dir, (path, loaded), tls, keys, users, tasks, datastores)?;
    let control = ControlSocket::open(dir.path())?;
    let running = Server::start(ServerConfig { socket, connections_max, app })?;
    tokio::spawn(control.run(running.app.clone(), running.router.clone()));
    Ok(running)
}

/// The parts of a daemon, or of a command that does its own work because none runs.
pub(super) fn assemble(
    dir: &DataDir,
    (path, loaded): (PathBuf, Loaded),
    tls: TlsIdentity,
    keys: ServerKeys,
    users: Users,
    tasks: task::Registry,
    datastores: StoreBook,
) -> Result<App> {
    let server = loaded.config.server.clone();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let compute = ComputePool::new(if server.compute_threads == 0 { cpus } else { server.compute_threads })?;
    let clock = Clock::system();
    Ok(App {
        metrics: Arc::new(ServerMetrics::new(clock.now())),
        metrics_page: MetricsPage::default(),
        reports: Reports::default(),
        tls: TlsBook::new(tls),
        clock,
        tasks,
        config: LiveConfig::new(dir.clone(), path, loaded, compute.clone(), datastores.clone()),
        jobs: JobStates::open(&dir.path().join("jobs"), compute.clone())?,
        compute,
        lifecycle: Lifecycle::new(server.sessions_max),
        users: UserBook::new(users, Arc::new(users_file::InDataDir(dir.clone()))),
        keys,
        logins: Logins::new()?,
        datastores,
    })
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
    let (address, identity) = (running.local_addr, running.tls.get());
    let mut out = std::io::stdout().lock();
    writeln!(out, "listening on https://{address} fingerprint {}", identity.fingerprint())
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
