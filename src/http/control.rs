//! The way of the command line into a daemon: the table of calls, over a socket in the data directory or within one process.
//!
//! HTTP/1.1 without TLS. Whoever may open the socket is the local administrator, `root@pam`: the file is 0600, and the kernel is asked who
//! the peer is. The same calls serve a command when no daemon runs; then both ends are in its own process.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{Method, Request};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;

use super::context::App;
use super::dispatch::dispatch_as;
use super::router::Router;
use crate::error::{Error, IoContext, Kind, Result};

/// Name of the socket in a data directory.
pub const CONTROL_SOCKET: &str = "control.sock";

/// Who asks over it.
const ADMINISTRATOR: &str = "root@pam";

/// Commands at a time: people and their scripts.
const CONNECTIONS_MAX: usize = 16;

/// Bytes under way between the two ends within one process.
const DUPLEX_BYTES: usize = 64 << 10;

/// Longest path of a socket that the kernel takes, without its closing zero (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Longest answer that a command reads: a listing of some hundred thousand snapshots.
const ANSWER_BYTES_MAX: usize = 256 << 20;

/// How long an answer may take. What takes longer is a task, and its name comes at once.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// What `accept` waits after an error such as too many open files, so that it does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket of a running daemon.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file; nobody else's while the listener lives.
    file: (u64, u64),
}

impl ControlSocket {
    /// Opens the socket in `dir`, whose lock the caller holds: what lies there under its name is of a daemon that was killed.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join(CONTROL_SOCKET);
        let open = || -> std::io::Result<(UnixListener, (u64, u64))> {
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(e),
                _ => {}
            }
            let (reachable, _dir) = reachable(&path)?;
            let listener = UnixListener::bind(reachable)?;
            // Who connects before this is asked who they are all the same.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600))?;
            Ok((listener, file_id(&path)?))
        };
        let (listener, file) = open().io_context(|| format!("open the control socket {path:?}"))?;
        Ok(Self { listener, path, file })
    }

    /// Serves commands until the daemon closes. A command under way gets its answer, for the daemon ends after its tasks.
    pub async fn run(self, app: Arc<App>, router: Arc<Router>) {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let lifecycle = app.lifecycle.clone();
        let closing = lifecycle.closing();
        tokio::pin!(closing);
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            let accepted = tokio::select! {
                () = &mut closing => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) if is_ours(&stream) => {
                    let (app, router) = (app.clone(), router.clone());
                    tokio::spawn(async move {
                        serve(app, router, stream).await;
                        drop(place);
                    });
                }
                Ok(_) => tracing::warn!("a process of another user was refused on the control socket"),
                Err(error) => {
                    tracing::warn!(%error, "a command could not be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for ControlSocket {
    fn drop(&mut self) {
        // Not that of the next daemon, which may have begun already. If ours stays, the next one removes it.
        if file_id(&self.path).is_ok_and(|found| found == self.file) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn file_id(path: &Path) -> std::io::Result<(u64, u64)> {
    std::fs::symlink_metadata(path).map(|meta| (meta.dev(), meta.ino()))
}

/// Whether the peer is root or runs as this process does.
fn is_ours(stream: &UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw())
}

/// A path that the kernel takes, however long the real one is; valid while the descriptor is open.
fn reachable(path: &Path) -> std::io::Result<(PathBuf, Option<OwnedFd>)> {
    if path.as_os_str().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok((path.to_owned(), None));
    }
    let dir: OwnedFd = std::fs::File::open(path.parent().unwrap_or(Path::new("/")))?.into();
    let name = path.file_name().unwrap_or_default();
    Ok((Path::new("/proc/self/fd").join(dir.as_raw_fd().to_string()).join(name), Some(dir)))
}

async fn serve(app: Arc<App>, router: Arc<Router>, stream: impl AsyncRead + AsyncWrite + Unpin) {
    let auth: crate::types::AuthId = ADMINISTRATOR.parse().expect("a user");
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let service = service_fn(|request: Request<Incoming>| {
        let answer = dispatch_as(app.clone(), router.clone(), auth.clone(), peer, request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    if let Err(error) = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a command's connection ended");
    }
}

/// One end of a way to the table of calls.
#[derive(Debug)]
pub enum ControlClient {
    /// Of a daemon that runs.
    Socket(PathBuf),
    /// Of this process.
    Within(Arc<App>, Arc<Router>),
}

impl ControlClient {
    /// Whether a daemon listens on the socket in `dir`.
    pub async fn reach(dir: &Path) -> Option<Self> {
        let path = dir.join(CONTROL_SOCKET);
        connect(&path).await.ok().map(|_| Self::Socket(path))
    }

    /// Makes a call and returns the whole answer: `data` and what stands beside it. `path` begins below `/api2/json/`, its parts escaped.
    pub async fn call(&self, method: Method, path: &str, params: &Value) -> Result<Value> {
        match self {
            Self::Socket(socket) => {
                let stream =
                    connect(socket).await.io_context(|| format!("the daemon does not answer on {socket:?}"))?;
                exchange(stream, method, path, params).await
            }
            Self::Within(app, router) => {
                let (near, far): (DuplexStream, DuplexStream) = tokio::io::duplex(DUPLEX_BYTES);
                let serving = tokio::spawn(serve(app.clone(), router.clone(), far));
                let answer = exchange(near, method, path, params).await;
                // It ends with the connection.
                let _ = serving.await;
                answer
            }
        }
    }
}

async fn connect(path: &Path) -> std::io::Result<UnixStream> {
    let (reachable, _dir) = reachable(path)?;
    UnixStream::connect(reachable).await
}

async fn exchange<S>(stream: S, method: Method, path: &str, params: &Value) -> Result<Value>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let broken = |e: hyper::Error| Error::closed("the connection to the daemon broke off").with_source(e);
    // As clients do: what changes something takes JSON, the others have their parameters in the query.
    let (query, body) = match method {
        Method::GET | Method::DELETE => (query_of(params), None),
        _ => (String::new(), Some(params.to_string())),
    };
    let content_type = if body.is_some() { "application/json" } else { "application/x-www-form-urlencoded" };
    let request = Request::builder()
        .method(method)
        .uri(format!("/api2/json/{path}{query}"))
        .header(HOST, "localhost")
        .header(CONTENT_TYPE, content_type)
        .body(Full::new(Bytes::from(body.unwrap_or_default())))
        .map_err(|e| Error::invalid("this cannot be asked").with_source(e))?;
    let talk = async {
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(broken)?;
        let driving = tokio::spawn(connection);
        let response = sender.send_request(request).await.map_err(broken)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|e| Error::closed("the answer is not whole").with_source(e))?.to_bytes();
        drop(sender);
        let _ = driving.await;
        Ok::<_, Error>((status, body))
    };
    let late = |_| Error::closed("the daemon did not answer in time");
    let (status, body) = tokio::time::timeout(ANSWER_TIMEOUT, talk).await.map_err(late)??;
    if !status.is_success() {
        let kind = match status.as_u16() {
            404 => Kind::NotFound,
            403 => Kind::Denied,
            _ => Kind::Invalid,
        };
        return Err(Error::new(kind, String::from_utf8_lossy(&body).trim_end().to_owned()));
    }
    serde_json::from_slice(&body).map_err(|e| Error::corrupt("the answer is not JSON").with_source(e))
}

/// `?a=b&c=d`; a list is a repeated key.
fn query_of(params: &Value) -> String {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned);
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in params.as_object().into_iter().flatten() {
        let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        query.extend_pairs(values.iter().map(|value| (name, text(value))));
    }
    let query = query.finish();
    if query.is_empty() { query } else { format!("?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{api, test_support};
    use serde_json::json;

    fn parts(dir: &Path) -> (Arc<App>, Arc<Router>) {
        (Arc::new(test_support::app(dir, test_support::first_users(), [])), Arc::new(api::router()))
    }

    #[tokio::test]
    async fn a_daemon_that_ends_late_leaves_the_socket_of_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let old = ControlSocket::open(dir.path()).unwrap();
        let new = ControlSocket::open(dir.path()).unwrap();
        drop(old);
        assert!(ControlClient::reach(dir.path()).await.is_some());
        drop(new);
        assert!(!dir.path().join(CONTROL_SOCKET).exists());
    }

    async fn versions(client: &ControlClient) -> Value {
        client.call(Method::GET, "config/datastore", &json!({})).await.unwrap()["data"].clone()
    }

    #[tokio::test]
    async fn both_ways_lead_to_the_same_calls() {
        let dir = tempfile::tempdir().unwrap();
        // Far longer than a socket's path may be.
        let data = dir.path().join("x".repeat(120));
        std::fs::create_dir(&data).unwrap();
        let (app, router) = parts(dir.path());
        // What a killed daemon leaves.
        drop(std::os::unix::net::UnixListener::bind(dir.path().join("s")).unwrap());
        crate::engine::Disk::real().rename(&dir.path().join("s"), &data.join(CONTROL_SOCKET)).unwrap();
        assert!(ControlClient::reach(&data).await.is_none());
        let socket = ControlSocket::open(&data).unwrap();
        let mode = std::fs::metadata(data.join(CONTROL_SOCKET)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let serving = tokio::spawn(socket.run(app.clone(), router.clone()));
        let outside = ControlClient::reach(&data).await.unwrap();
        let within = ControlClient::Within(app.clone(), router);
        for client in [&outside, &within] {
            assert_eq!(versions(client).await, json!([]));
            let error = client.call(Method::GET, "config/datastore/none", &json!({})).await.unwrap_err();
            assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NotFound, "no such datastore 'none'"));
            let error = client.call(Method::PUT, "config/datastore/none", &json!({ "x": 1 })).await.unwrap_err();
            assert!(error.to_string().contains("does not allow additional properties"), "{error}");
        }
        app.lifecycle.advance(crate::http::Phase::Closing);
        serving.await.unwrap();
        assert!(!data.join(CONTROL_SOCKET).exists());
    }
}
