//! Starts and stops the listener: what a daemon, and a test, hold in their hands.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::api;
use super::context::App;
use super::lifecycle::Phase;
use super::listener::Listener;
use super::router::Router;
use super::tls::TlsBook;
use crate::error::{IoContext, Result};

/// How long connections and sessions may take to clean up after their time is over, before the daemon ends without them.
const CLEANUP_MAX: Duration = Duration::from_secs(20);

/// What a server is made of.
#[derive(Debug)]
pub struct ServerConfig {
    /// Already listening.
    pub socket: std::net::TcpListener,
    /// Connections open at a time.
    pub connections_max: usize,
    /// The parts that handlers use.
    pub app: App,
}

/// The server.
#[derive(Debug)]
pub struct Server;

impl Server {
    /// Begins to serve. Has to run inside a runtime.
    pub fn start(config: ServerConfig) -> Result<Running> {
        config.socket.set_nonblocking(true).io_context(|| "prepare the listening socket")?;
        let local_addr = config.socket.local_addr().io_context(|| "read the listening socket's address")?;
        let socket = TcpListener::from_std(config.socket).io_context(|| "register the listening socket")?;
        let app = Arc::new(config.app);
        let router = Arc::new(api::router());
        let heartbeat = Arc::new(AtomicU64::new(0));
        let tls = app.tls.clone();
        let listener = Listener {
            socket,
            tls: tls.clone(),
            app: app.clone(),
            router: router.clone(),
            connections_max: config.connections_max,
            heartbeat: heartbeat.clone(),
        };
        let accepting = tokio::spawn(listener.run());
        Ok(Running { local_addr, tls, app, router, heartbeat, accepting })
    }
}

/// A running server.
#[derive(Debug)]
pub struct Running {
    /// Where it listens; with the real port where 0 was asked for.
    pub local_addr: SocketAddr,
    /// Its certificate and key.
    pub tls: TlsBook,
    /// The parts that handlers use.
    pub app: Arc<App>,
    /// The table of calls.
    pub router: Arc<Router>,
    heartbeat: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Running {
    /// Turns of the accept loop so far; grows several times a second while it lives.
    pub fn heartbeat(&self) -> u64 {
        self.heartbeat.load(Ordering::Relaxed)
    }

    /// Whether the accept loop has ended although nobody asked it to.
    pub fn is_dead(&self) -> bool {
        self.accepting.is_finished()
    }

    /// Stops accepting, lets running sessions finish up to the configured limit, then makes them remove what is unfinished.
    /// `true` if everything ended in time.
    pub async fn shutdown(self) -> bool {
        let lifecycle = &self.app.lifecycle;
        let limit = self.app.config.get().config.server.shutdown_timeout;
        lifecycle.advance(Phase::Draining);
        let sessions = lifecycle.session_count();
        if sessions > 0 {
            tracing::info!(sessions, ?limit, "waiting for running sessions");
        }
        let finished = lifecycle.idle_within(limit).await;
        lifecycle.advance(Phase::Closing);
        let cleaned = finished || lifecycle.idle_within(CLEANUP_MAX).await;
        let answered = tokio::time::timeout(CLEANUP_MAX, self.accepting).await.is_ok();
        if !cleaned || !answered {
            tracing::error!(sessions = lifecycle.session_count(), "sessions did not end in time");
        }
        self.app.tasks.flush().await;
        cleaned && answered
    }
}
