//! The accept loop: limits, TLS or a redirect, HTTP/1.1 with upgrades, and an orderly end.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::{Request, StatusCode, header};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use super::context::App;
use super::dispatch::dispatch;
use super::redirect;
use super::reply::{self, Response};
use super::router::Router;
use super::tls::TlsBook;

/// How long the first byte and the TLS handshake may take. A slow line needs a second; ten keep the idle from gathering.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);

/// How long a connection may take to send its next request's header, idling between requests included.
const HEADER_TIMEOUT: Duration = Duration::from_secs(60);

/// Headers of one request; clients send about eight.
const HEADERS_MAX: usize = 64;

/// Bytes of one request's head: the longest target, a ticket, and room.
const HEADER_BYTES_MAX: usize = 32 << 10;

/// Connections beyond the limit that are told so with a 503; the others are closed at once, which costs nothing.
const REFUSALS_MAX: usize = 16;

/// Idle time before the kernel asks whether the peer is still there: the original's 120 s (spec 03 §9).
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);

/// Between the kernel's questions, and how many go unanswered before the connection is dead.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEPALIVE_PROBES: u32 = 4;

/// How long sent data may stay unacknowledged (`TCP_USER_TIMEOUT`): as long as idle detection takes altogether.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(180);

/// What `accept` waits after an error such as too many open files, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often the accept loop shows that it lives: well within the shortest watchdog period that makes sense.
const BEAT_INTERVAL: Duration = Duration::from_millis(250);

/// Accepts connections until the daemon drains.
#[derive(Debug)]
pub(super) struct Listener {
    pub socket: TcpListener,
    pub tls: TlsBook,
    pub app: Arc<App>,
    pub router: Arc<Router>,
    pub connections_max: usize,
    /// Counts turns of the accept loop, so that the watchdog sees it live.
    pub heartbeat: Arc<AtomicU64>,
}

impl Listener {
    /// Serves until draining begins, then waits for the connections under way (upgraded ones are sessions, and counted as such).
    pub(super) async fn run(self) {
        let places = Arc::new(Semaphore::new(self.connections_max));
        let refusals = Arc::new(Semaphore::new(REFUSALS_MAX));
        let all = u32::try_from(self.connections_max).unwrap_or(u32::MAX);
        let draining = self.app.lifecycle.draining();
        tokio::pin!(draining);
        let mut pulse = tokio::time::interval(BEAT_INTERVAL);
        loop {
            let accepted = tokio::select! {
                () = &mut draining => break,
                _ = pulse.tick() => {
                    self.heartbeat.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                accepted = self.socket.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            // An IPv4 peer of an IPv6 socket under the address that people and their filters know.
            let peer = SocketAddr::new(peer.ip().to_canonical(), peer.port());
            let acceptor = TlsAcceptor::from(self.tls.get().config());
            let connection = Connection { app: self.app.clone(), router: self.router.clone(), acceptor, peer };
            match places.clone().try_acquire_owned() {
                Ok(place) => {
                    tokio::spawn(async move {
                        connection.serve(stream).await;
                        drop(place);
                    });
                }
                Err(_) => {
                    let Ok(place) = refusals.clone().try_acquire_owned() else { continue };
                    tracing::warn!(%peer, limit = self.connections_max, "a connection was refused: too many are open");
                    tokio::spawn(async move {
                        connection.refuse(stream).await;
                        drop(place);
                    });
                }
            }
        }
        drop(self.socket);
        // Every place free again means that every request under way has its answer.
        let _ = places.acquire_many(all).await;
    }
}

struct Connection {
    app: Arc<App>,
    router: Arc<Router>,
    acceptor: TlsAcceptor,
    peer: SocketAddr,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        if let Err(error) = tune(&stream) {
            tracing::debug!(peer = %self.peer, %error, "the connection was gone before it began");
            return;
        }
        match timeout(HANDSHAKE_TIMEOUT, speaks_tls(&stream)).await {
            Ok(Ok(true)) => {}
            Ok(Ok(false)) => {
                let lifecycle = self.app.lifecycle.clone();
                let service = service_fn(|request: Request<Incoming>| async move {
                    Ok::<_, std::convert::Infallible>(redirect::to_https(&request))
                });
                let connection = http().serve_connection(TokioIo::new(stream), service);
                tokio::pin!(connection);
                tokio::select! {
                    _ = connection.as_mut() => {}
                    () = lifecycle.draining() => {}
                }
                return;
            }
            Ok(Err(_)) | Err(_) => return,
        }
        let stream = match timeout(HANDSHAKE_TIMEOUT, self.acceptor.accept(stream)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!(peer = %self.peer, %error, "TLS handshake failed");
                return;
            }
            Err(_) => return,
        };
        let (app, router, peer) = (self.app.clone(), self.router, self.peer);
        let service = service_fn(move |request| {
            let answer = dispatch(app.clone(), router.clone(), peer, request);
            async move { Ok::<_, std::convert::Infallible>(answer.await) }
        });
        let connection = http().serve_connection(TokioIo::new(stream), service).with_upgrades();
        tokio::pin!(connection);
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.app.lifecycle.draining() => {
                // The request under way gets its answer, then the connection ends.
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "connection ended");
        }
    }

    /// One connection too many: says so and closes.
    async fn refuse(self, stream: TcpStream) {
        let serve = async {
            let stream = self.acceptor.accept(stream).await?;
            let service = service_fn(|_: Request<Incoming>| async { Ok::<_, std::convert::Infallible>(too_many()) });
            let served = http().keep_alive(false).serve_connection(TokioIo::new(stream), service).await;
            served.map_err(std::io::Error::other)
        };
        // Whether it heard is its own affair.
        let _ = timeout(HANDSHAKE_TIMEOUT, serve).await;
    }
}

fn too_many() -> Response {
    let text = "the server has as many connections as it may have: try again later";
    let mut response = reply::text(StatusCode::SERVICE_UNAVAILABLE, None, text);
    reply::set_header(&mut response, header::RETRY_AFTER, "10");
    response
}

fn http() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEADER_BYTES_MAX)
        .half_close(false);
    builder
}

/// A TLS connection begins with a handshake record, whose first byte is 22; HTTP begins with a letter.
async fn speaks_tls(stream: &TcpStream) -> std::io::Result<bool> {
    let mut first = [0];
    match stream.peek(&mut first).await? {
        0 => Err(std::io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(first[0] == 22),
    }
}

/// Small answers leave at once, and dead peers are found out.
fn tune(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES)?;
    let unacknowledged_ms = u32::try_from(UNACKNOWLEDGED_MAX.as_millis()).unwrap_or(u32::MAX);
    sockopt::set_tcp_user_timeout(stream, unacknowledged_ms)?;
    Ok(())
}
