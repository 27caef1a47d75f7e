//! Drives a reader session: files and chunks of one snapshot to a client that restores (spec 04).

use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use tokio::sync::Semaphore;

use super::reply::{self, Response};
use super::session::params::{NoAction, ReaderAction, reader_action};
use super::session::{BodyBudget, Deliveries, Ended, Ending, Handler, answer, file_body, not_found, take_chunks};
use crate::engine::ComputePool;
use crate::error::{Error, Result, SHUTTING_DOWN, TASK_ABORTED};
use crate::format::blob::BlobHeader;
use crate::http::{Delays, Lifecycle, SessionGuard};
use crate::metrics::SessionCount;
use crate::protocol::action::ReaderEndpoint;
use crate::protocol::reader::ReaderSession;
use crate::protocol::reply::Reply;
use crate::store::{Datastore, ReaderLease};
use crate::sync::Mutex;
use crate::task::Task;
use crate::types::{ArchiveKind, ArchiveName, Digest};

/// Chunks of one session in memory at a time, from the read to the last byte sent. Twice what the greediest client asks for in
/// parallel (a sync of 20 is known), at most 16 MiB each.
const CHUNKS_HELD_MAX: usize = 40;

/// What `speedtest` sends: this many of this byte (spec 04 §3).
const SPEEDTEST_BYTES: usize = 1 << 20;
const SPEEDTEST_BYTE: u8 = 0x41;

/// What a session is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where it reads.
    pub store: Datastore,
    /// Keeps the snapshot from being removed.
    pub lease: ReaderLease,
    /// Its task.
    pub task: Task,
    /// Threads for what takes the processor long.
    pub compute: ComputePool,
    /// How long refusals wait.
    pub delays: Delays,
    /// Counts it as running, and its answers.
    pub counted: SessionCount,
    /// Keeps the daemon from closing before the session has ended.
    pub guard: SessionGuard,
}

#[derive(Debug)]
struct Driver {
    store: Datastore,
    lease: ReaderLease,
    task: Task,
    delays: Delays,
    compute: ComputePool,
    session: Arc<Mutex<ReaderSession>>,
    chunks: Arc<Semaphore>,
    bodies: BodyBudget,
    ending: Ending,
    deliveries: Deliveries,
}

/// Runs a session on the upgraded connection until it has ended.
pub async fn run(parts: Parts, stream: hyper::Result<impl Read + Write + Unpin + Send>, lifecycle: Lifecycle) {
    let Parts { store, lease, task, compute, delays, counted, guard } = parts;
    let guest = store.budget().guest();
    let driver = Arc::new(Driver {
        store,
        lease,
        task,
        delays,
        compute,
        session: Arc::new(Mutex::new(ReaderSession::new())),
        chunks: Arc::new(Semaphore::new(CHUNKS_HELD_MAX)),
        bodies: BodyBudget::default(),
        ending: Ending::default(),
        deliveries: Deliveries::default(),
    });
    let deliveries = driver.deliveries.clone();
    let ended = match stream {
        Ok(stream) => {
            let stream = deliveries.watch(stream);
            super::session::serve(stream, &driver, &driver.ending, &driver.task, &counted.answers(), &lifecycle).await
        }
        Err(e) => Ended::Connection(Err(e)),
    };
    let result = match ended {
        // To close the connection is how a client says that it has what it wanted; not every one does so in good form.
        Ended::Connection(outcome) => match (outcome, deliveries.at_break()) {
            (_, Some(0)) | (Ok(()), None) => Ok(()),
            (Err(e), _) => Err(super::session::chain(&e)),
            (Ok(()), Some(count)) => Err(format!("the client went away with {count} answers on their way to it")),
        },
        Ended::Aborted => Err(TASK_ABORTED.to_owned()),
        Ended::Closing => Err(SHUTTING_DOWN.to_owned()),
    };
    match Arc::into_inner(driver) {
        Some(Driver { store, task, lease, .. }) => {
            lease.release().await;
            store.engine().buffers().release();
            task.log(if result.is_ok() { "reader finished successfully" } else { "reader failed" });
            task.end(result).await;
        }
        None => tracing::error!("a reader is still in use after its session"),
    }
    drop(counted);
    drop((guard, guest));
}

impl Handler for Driver {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response {
        let counted = self.deliveries.begin();
        let (head, body) = request.into_parts();
        self.bodies.drain(body).await;
        let response = match ReaderEndpoint::of(head.method.as_str(), head.uri.path()) {
            Some(endpoint) => answer(self.respond(endpoint, head.uri.query().unwrap_or("")).await),
            None => not_found(head.uri.path()),
        };
        response.map(|body| counted.body(body))
    }
}

impl Driver {
    async fn respond(&self, endpoint: ReaderEndpoint, query: &str) -> Result<Response, NoAction> {
        Ok(match reader_action(endpoint, query)? {
            ReaderAction::Root => reply::data(Reply::Subdirs(&ReaderEndpoint::SUBDIRS).data())?,
            ReaderAction::Speedtest => reply::octet_stream(reply::full(vec![SPEEDTEST_BYTE; SPEEDTEST_BYTES])),
            ReaderAction::Download(name) => self.download(&name).await?,
            ReaderAction::Chunk(digest) => self.chunk(digest).await?,
        })
    }

    async fn download(&self, name: &ArchiveName) -> Result<Response> {
        let file = if name.kind() == ArchiveKind::Blob {
            self.lease.open_blob(name).await?
        } else {
            let index = self.lease.open_index(name).await?;
            take_chunks(&index, &self.compute, &self.session, ReaderSession::allow).await?;
            index.file().clone()
        };
        self.task.log(format!("download '{name}'"));
        Ok(reply::octet_stream(file_body(file)))
    }

    async fn chunk(&self, digest: Digest) -> Result<Response> {
        let allowed = self.session.lock().may_fetch(&digest);
        if let Err(refused) = allowed {
            self.task.log(refused.to_string());
            // Guessing digests is to be slow; a session that ends need not wait for it.
            let wait = tokio::time::sleep(self.delays.unauthenticated);
            tokio::select! { () = wait => {}, () = self.ending.begun() => {} }
            return Err(refused);
        }
        let turn = async { self.chunks.clone().acquire_owned().await.map_err(|e| Error::closed(e.to_string())) };
        let permit = self.ending.unless(turn).await?;
        let read = self.store.read_chunk(digest).await.and_then(|stored| {
            // Whether the content is right only the client checks; that there is none is seen here.
            BlobHeader::parse(&stored).map_err(|e| {
                self.store.mark_suspect(&[digest]);
                e.context(format!("chunk {digest} cannot be read"))
            })?;
            Ok(stored)
        });
        let stored = read.inspect_err(|e| self.task.log(e.to_string()))?;
        let metrics = self.store.metrics();
        metrics.sent_chunks.inc();
        metrics.sent_chunk_bytes.add(u64::try_from(stored.len()).unwrap_or(u64::MAX));
        Ok(reply::octet_stream(reply::held(reply::full(stored.freeze()), permit)))
    }
}
