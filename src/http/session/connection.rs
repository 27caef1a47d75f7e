//! One HTTP/2 connection behind a 101: served until it ends, then drained.
//!
//! ```text
//! serve ── connection ends, task is aborted, daemon closes ──→ Ending is told ──→ requests in flight end ──→ back
//! ```
//!
//! Each request runs as a task of its own, so that a stream that the client resets does not cut off what its request has
//! begun on the disk; [`serve`] returns when the last one is through. Only then may the caller clean up.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{mpsc, watch};

use super::params::NoAction;
use crate::error::{Error, Result};
use crate::http::Lifecycle;
use crate::http::reply::{self, Format, Response};
use crate::metrics::AnswerCount;
use crate::task::Task;

/// Window of a stream and of the connection (spec 03 §3): what a client may send before it is read.
const WINDOW_BYTES: u32 = 32 << 20;

/// Largest frame that we take (spec 03 §3).
const FRAME_BYTES_MAX: u32 = 4 << 20;

/// Streams at a time. The official client has about 70 open per archive and two archives at a time, the QEMU library up to
/// 100 per disk and all disks at a time; further ones wait in the client.
const STREAMS_MAX: u32 = 1024;

/// Longest header list. Queries have at most 4096 bytes, and the other headers are few.
const HEADERS_BYTES_MAX: u32 = 64 << 10;

/// Streams that the client reset before they were begun: what h2 keeps against rapid reset, said here.
const RESET_STREAMS_MAX: usize = 64;

/// A client that is silent for this long is asked whether it is there. Long sessions are silent while the client reads its disk; a
/// peer that died would keep the group locked.
const PING_INTERVAL: Duration = Duration::from_secs(120);

/// And is gone if it does not say so in this time. On a slow line its answer stands behind a frame of 4 MiB and as much in the
/// sender's socket: 230 kbit/s get that through. The socket's own keepalive notices a dead host sooner.
const PING_TIMEOUT: Duration = Duration::from_secs(300);

/// Answers requests of one session.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request, whatever it is.
    fn handle(self: Arc<Self>, request: Request<Incoming>) -> impl Future<Output = Response> + Send;
}

/// Why a connection was served no longer.
#[derive(Debug)]
pub enum Ended {
    /// The client closed it, or it broke.
    Connection(Result<(), hyper::Error>),
    /// Somebody asked the task to stop.
    Aborted,
    /// The daemon stops.
    Closing,
}

/// Tells the requests of a session that it is over, so that none waits for long.
#[derive(Clone, Debug)]
pub struct Ending {
    over: watch::Sender<bool>,
}

impl Default for Ending {
    fn default() -> Self {
        Self { over: watch::Sender::new(false) }
    }
}

impl Ending {
    /// From now on it is over.
    pub fn begin(&self) {
        self.over.send_replace(true);
    }

    /// Resolves when it is over.
    pub async fn begun(&self) {
        // The sender lives in `self`, so this ends only with the value.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }

    /// What `work` yields, or `Closed` as soon as the session is over.
    pub async fn unless<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::select! {
            done = work => done,
            () = self.begun() => Err(Error::closed("the session has ended")),
        }
    }
}

/// Serves a connection, then waits for the requests in flight. `ending` is told in between.
pub async fn serve<H: Handler>(
    stream: impl Read + Write + Unpin + Send,
    handler: &Arc<H>,
    ending: &Ending,
    task: &Task,
    answers: &AnswerCount,
    lifecycle: &Lifecycle,
) -> Ended {
    let (in_flight, mut drained) = mpsc::channel::<Infallible>(1);
    let ended = {
        let service = service_fn(|request| {
            let (handler, token, answers) = (handler.clone(), in_flight.clone(), answers.clone());
            let running = tokio::spawn(async move {
                let response = handler.handle(request).await;
                drop(token);
                response
            });
            async move {
                let response = running.await.unwrap_or_else(|_| internal_error());
                answers.answered(response.status().as_u16(), reply::error_kind(&response));
                Ok::<_, Infallible>(response)
            }
        });
        let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        server
            .timer(TokioTimer::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .max_concurrent_streams(STREAMS_MAX)
            .max_header_list_size(HEADERS_BYTES_MAX)
            .max_pending_accept_reset_streams(RESET_STREAMS_MAX)
            .keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(PING_TIMEOUT);
        let connection = server.serve_connection(stream, service);
        tokio::select! {
            // A client that leaves because the task is stopped is not why it ended.
            biased;
            () = task.aborted() => Ended::Aborted,
            () = lifecycle.closing() => Ended::Closing,
            end = connection => Ended::Connection(end),
        }
    };
    ending.begin();
    drop(in_flight);
    // Nothing is ever sent: this is the moment when the last request lets its sender go.
    let _ = drained.recv().await;
    ended
}

fn internal_error() -> Response {
    reply::text(StatusCode::INTERNAL_SERVER_ERROR, None, "the server failed on this request: see its log")
}

/// The answer to a path or method that does not exist.
pub(in crate::http) fn not_found(path: &str) -> Response {
    reply::error(Format::Json, &Error::not_found(format!("Path '{path}' not found.")))
}

/// The answer to a request that never became an action, or the other one.
pub(in crate::http) fn answer(result: Result<Response, NoAction>) -> Response {
    match result {
        Ok(response) => response,
        Err(NoAction::Params(errors)) => reply::untyped_error(&errors.into()),
        Err(NoAction::Refused(error)) => reply::error(Format::Json, &error),
    }
}

/// An HTTP error with what is below it; hyper's own text says only what kind it is.
pub(in crate::http) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |e| e.source()).fold(error.to_string(), |text, e| format!("{text}: {e}"))
}
