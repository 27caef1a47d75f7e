//! Drives a backup session: actions from requests, effects onto the datastore, answers back (spec 03).
//!
//! ```text
//! request ─ action ─→ Session (microseconds, under its lock) ─ effect ─→ datastore, compute pool ─ outcome ─→ Session ─→ answer
//! ```
//!
//! Requests of a session run concurrently. The session's lock is held for its own arithmetic only; what waits for a disk holds
//! nothing but its own memory.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};

use super::chunk_intake;
use super::known_chunks::KnownChunks;
use super::params::Received;
use super::reply::{self, Response};
use super::session::params::{Carrier, NoAction, backup_action, carrier};
use super::session::{
    BodyBudget, BodyFault, Ended, Ending, Handler, answer, discard, drain, file_body, index_chunks, not_found,
};
use crate::engine::ComputePool;
use crate::error::{Error, Kind, Result};
use crate::format::blob;
use crate::format::dynamic_index::DynamicEntry;
use crate::http::{Lifecycle, SessionGuard};
use crate::protocol::action::{Action, BackupEndpoint, ChunkUpload, WriterId, WriterKind};
use crate::protocol::backup::{
    About, ClosePlan, CreatePlan, Effect, FinishPlan, Session, Step, check_blob_length, close_failed_context,
};
use crate::protocol::manifest_check;
use crate::protocol::reply::Reply;
use crate::protocol::writers::{AppendPlan, Entries, Layout, UploadStats};
use crate::store::{BackupLease, Datastore, DynamicWriter, FixedWriter, IndexReader, Inserted};
use crate::sync::Mutex;
use crate::task::Task;
use crate::types::{ArchiveKind, ArchiveName, Digest};

/// Chunks that become known under one hold of the session's lock: a millisecond of it.
const REGISTERED_AT_ONCE: usize = 1024;

/// What a session is made of.
#[derive(Debug)]
pub struct Parts {
    /// Where it writes.
    pub store: Datastore,
    /// Its right to write.
    pub lease: BackupLease,
    /// Its task.
    pub task: Task,
    /// Threads for hashing.
    pub compute: ComputePool,
    /// Whether nothing is to be kept.
    pub benchmark: bool,
    /// Where the snapshot lies, for error texts.
    pub snapshot_path: String,
    /// Keeps the daemon from closing before the session has cleaned up.
    pub guard: SessionGuard,
}

#[derive(Debug)]
struct Driver {
    store: Datastore,
    lease: Arc<BackupLease>,
    task: Arc<Task>,
    compute: ComputePool,
    benchmark: bool,
    session: Arc<Mutex<Session>>,
    writers: Mutex<HashMap<WriterId, Arc<OpenIndex>>>,
    known: Arc<KnownChunks>,
    budget: BodyBudget,
    ending: Ending,
}

/// The file behind a writer.
#[derive(Debug)]
enum OpenIndex {
    Fixed(FixedWriter),
    /// Appends to one dynamic index follow each other, since each begins where the one before it ended. Who sends two at
    /// a time gets them applied in the order of arrival; nobody else waits for this.
    Dynamic(DynamicWriter, Turn),
}

type Turn = Arc<tokio::sync::Mutex<()>>;

/// Runs a session on the upgraded connection until it has ended and everything it leaves behind is in order.
pub async fn run(parts: Parts, stream: hyper::Result<impl Read + Write + Unpin + Send>, lifecycle: Lifecycle) {
    let Parts { store, lease, task, compute, benchmark, snapshot_path, guard } = parts;
    let (lease, task) = (Arc::new(lease), Arc::new(task));
    let about = About {
        snapshot: lease.snapshot().clone(),
        snapshot_path,
        base_time: lease.base().map(|base| base.snapshot.time()),
    };
    let session = Arc::new(Mutex::new(Session::new(about)));
    let ending = Ending::default();
    let known =
        KnownChunks::new(store.clone(), lease.clone(), task.clone(), compute.clone(), ending.clone(), session.clone());
    let known = Arc::new(known);
    let driver = Arc::new(Driver {
        store,
        lease,
        task: task.clone(),
        compute,
        benchmark,
        session,
        writers: Mutex::default(),
        known,
        budget: BodyBudget::default(),
        ending,
    });
    let ended = match stream {
        Ok(stream) => {
            let ended = super::session::serve(stream, &driver, &driver.ending, &driver.task, &lifecycle).await;
            driver.known.end().await;
            ended
        }
        Err(e) => Ended::Connection(Err(e)),
    };
    let result = driver.clean_up(ended).await;
    drop(driver);
    match Arc::into_inner(task) {
        Some(task) => task.end(result).await,
        None => tracing::error!("a backup task is still in use after its session"),
    }
    drop(guard);
}

impl Handler for Driver {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response {
        let path = request.uri().path();
        let Some(endpoint) = BackupEndpoint::of(request.method().as_str(), path) else {
            let response = not_found(path);
            drain(request.into_body()).await;
            return response;
        };
        answer(self.respond(endpoint, request).await)
    }
}

impl Driver {
    async fn respond(&self, endpoint: BackupEndpoint, request: Request<Incoming>) -> Result<Response, NoAction> {
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or("");
        let (received, body) = match carrier(endpoint) {
            Carrier::Query => (Received::from_query(&[], query), Some(body)),
            Carrier::Any => {
                let bytes = self.budget.read_params(body).await?;
                let media_type = head.headers.get(http::header::CONTENT_TYPE).and_then(|text| text.to_str().ok());
                (Received::from_request(&[], query, media_type, &bytes), None)
            }
        };
        let action = received.map_err(NoAction::from).and_then(|received| backup_action(endpoint, received));
        let _turn = match &action {
            Ok(Action::Append(request)) => self.turn(request.wid).await,
            _ => None,
        };
        let step = action.and_then(|action| Ok(self.session.lock().on(action)?));
        match (step, body) {
            (Ok(Step::Reply(reply)), _) => Ok(reply::data(reply.data())?),
            (Ok(Step::Do(effect)), body) => Ok(self.carry_out(effect, body).await?),
            (Err(refused), body) => {
                if let Some(body) = body {
                    drain(body).await;
                }
                Err(refused)
            }
        }
    }

    /// The turn of an append to a dynamic index, kept until it is through.
    async fn turn(&self, wid: WriterId) -> Option<tokio::sync::OwnedMutexGuard<()>> {
        let turn = match self.writers.lock().get(&wid).map(Arc::as_ref) {
            Some(OpenIndex::Dynamic(_, turn)) => turn.clone(),
            _ => return None,
        };
        Some(turn.lock_owned().await)
    }

    async fn carry_out(&self, effect: Effect, body: Option<Incoming>) -> Result<Response> {
        let reply = match effect {
            Effect::ServePrevious(archive) => return self.serve_previous(&archive).await,
            Effect::StoreBlob { name, encoded_bytes } => self.store_blob(name, encoded_bytes, body).await?,
            Effect::CreateIndex(plan) => self.create_index(plan).await?,
            Effect::StoreChunk(upload) => self.store_chunk(&upload, body).await?,
            Effect::Append(plan) => self.append(plan).await?,
            Effect::Close(plan) => self.close(plan).await?,
            Effect::Discard(wid, error) => {
                // Dropping the writer removes its file.
                drop(self.writers.lock().remove(&wid));
                return Err(error);
            }
            Effect::Finish(plan) => self.finish(plan).await?,
            Effect::Speedtest => {
                if let Some(body) = body {
                    discard(body).await;
                }
                Reply::Null
            }
        };
        reply::data(reply.data())
    }

    async fn serve_previous(&self, archive: &ArchiveName) -> Result<Response> {
        let file = if archive.kind() == ArchiveKind::Blob {
            self.task.log(format!("download '{archive}' from previous backup."));
            self.lease.open_base_blob(archive).await?
        } else {
            let index = self.lease.open_base_index(archive).await?;
            let cannot = || format!("cannot use '{archive}' of the previous backup");
            self.known.preflight(archive, &index).await.map_err(|e| {
                let error = e.context(cannot());
                self.task.log(error.to_string());
                error
            })?;
            self.task.log(format!("register chunks in '{archive}' from previous backup."));
            self.register_base(&index).await?;
            index.file().clone()
        };
        Ok(reply::octet_stream(file_body(file)))
    }

    /// About a microsecond a chunk, so not on a thread of the runtime, and the session's lock is let go in between.
    async fn register_base(&self, index: &IndexReader) -> Result<()> {
        let mut scan = index.scan();
        while let Some(block) = scan.next_block().await? {
            let session = self.session.clone();
            self.compute
                .run(move || {
                    let chunks = index_chunks(&block);
                    chunks.chunks(REGISTERED_AT_ONCE).try_for_each(|part| session.lock().register_base(part))
                })
                .await??;
        }
        Ok(())
    }

    async fn store_blob(&self, name: ArchiveName, announced: u64, body: Option<Incoming>) -> Result<Reply> {
        let stored = async {
            let mut held = self.read_blob(announced, body).await?;
            let encoded = held.take().freeze();
            let (digest, encoded) = self.compute.run(move || check_blob(encoded)).await??;
            // The manifest stays in the session, so that no crash leaves a snapshot that looks finished.
            if !name.is_manifest() {
                self.lease.store_blob(&name, encoded.clone()).await?;
            }
            Ok((digest, encoded))
        };
        let result = stored.await;
        let mut session = self.session.lock();
        match result {
            Ok((_, encoded)) if name.is_manifest() => Ok(session.hold_manifest(&name, encoded)),
            Ok((digest, _)) => {
                self.task.log(format!("add blob '{name}' ({announced} bytes)"));
                Ok(session.stored_blob(name, announced, digest))
            }
            Err(error) => {
                session.blob_failed(&name);
                Err(error)
            }
        }
    }

    async fn read_blob(&self, announced: u64, body: Option<Incoming>) -> Result<super::session::HeldBody<'_>> {
        let read = self.budget.read(body.ok_or_else(no_body)?, announced).await;
        read.map_err(|fault| match fault {
            BodyFault::Longer(received) | BodyFault::Shorter(received) => {
                check_blob_length(announced, received).err().unwrap_or_else(|| Error::invalid("unexpected length"))
            }
            BodyFault::Broken(error) => error,
        })
    }

    async fn store_chunk(&self, upload: &ChunkUpload, body: Option<Incoming>) -> Result<Reply> {
        let read = self.budget.read(body.ok_or_else(no_body)?, upload.encoded_bytes).await;
        let mut held = read.map_err(|fault| match fault {
            BodyFault::Longer(_) => Error::invalid("uploaded chunk is larger than announced."),
            BodyFault::Shorter(_) => Error::invalid("uploaded chunk has unexpected size."),
            BodyFault::Broken(error) => error,
        })?;
        let (bytes, announced) = (held.take(), *upload);
        let encoded = self.compute.run(move || chunk_intake::check(bytes, &announced)).await??;
        let (disk_bytes, duplicate) = match self.store.insert_chunk(upload.digest, encoded, upload.size).await? {
            Inserted::New { bytes } => (bytes, false),
            Inserted::Known { bytes } => (bytes, true),
        };
        self.session.lock().registered(upload, disk_bytes, duplicate)
    }

    async fn create_index(&self, plan: CreatePlan) -> Result<Reply> {
        let made = self.make_index(&plan).await;
        let mut session = self.session.lock();
        match made {
            Ok(index) => {
                let (archive, kind) = (plan.archive.clone(), plan.layout.kind());
                let wid = session.created(plan);
                self.writers.lock().insert(wid, Arc::new(index));
                drop(session);
                self.task.log(format!("created new {kind} index {wid} ('{archive}')"));
                Ok(Reply::Writer(wid))
            }
            Err(error) => {
                session.create_failed();
                Err(error)
            }
        }
    }

    async fn make_index(&self, plan: &CreatePlan) -> Result<OpenIndex> {
        let archive = &plan.archive;
        match (&plan.layout, &plan.reuse_csum) {
            (Layout::Dynamic { .. }, _) => {
                Ok(OpenIndex::Dynamic(self.lease.create_dynamic(archive).await?, Turn::default()))
            }
            (Layout::Fixed { size_bytes, .. }, None) => {
                Ok(OpenIndex::Fixed(self.lease.create_fixed(archive, *size_bytes).await?))
            }
            (Layout::Fixed { size_bytes, .. }, Some(csum)) => {
                let writer = self.lease.create_fixed_from_base(archive, *size_bytes, csum).await?;
                let index = self.lease.open_base_index(archive).await?;
                self.known.preflight(archive, &index).await.map_err(|e| {
                    let error = e.context("cannot reuse index");
                    self.task.log(error.to_string());
                    error
                })?;
                Ok(OpenIndex::Fixed(writer))
            }
        }
    }

    async fn append(&self, plan: AppendPlan) -> Result<Reply> {
        match self.see_and_write(&plan).await {
            Ok(()) => Ok(self.session.lock().appended(plan)),
            Err(error) => {
                self.session.lock().append_failed(plan);
                Err(error)
            }
        }
    }

    async fn see_and_write(&self, plan: &AppendPlan) -> Result<()> {
        self.known.check_append(plan).await?;
        self.session.lock().append_still_fits(plan)?;
        let index = self.writers.lock().get(&plan.wid).cloned();
        match (index.as_deref(), &plan.entries) {
            (Some(OpenIndex::Fixed(writer)), Entries::Fixed(slots)) => writer.write_slots(slots.clone()).await,
            (Some(OpenIndex::Dynamic(writer, _)), Entries::Dynamic { first, entries }) => {
                let entry = |(end, digest): &(u64, Digest)| DynamicEntry { end: *end, digest: *digest };
                writer.append(*first, entries.iter().map(entry).collect()).await
            }
            _ => Err(not_registered(plan.kind(), plan.wid)),
        }
    }

    async fn close(&self, plan: ClosePlan) -> Result<Reply> {
        let ClosePlan { writer: closed, csum } = &plan;
        let index = self.writers.lock().remove(&closed.wid);
        let done = match index.as_deref() {
            Some(OpenIndex::Fixed(writer)) => writer.close(*csum).await,
            Some(OpenIndex::Dynamic(writer, _)) => writer.close(closed.appended, *csum).await,
            None => Err(not_registered(closed.layout.kind(), closed.wid)),
        };
        let mut session = self.session.lock();
        match done {
            Ok(_) => {
                let reply = session.closed(&plan);
                drop(session);
                self.log_closed(&plan);
                Ok(reply)
            }
            Err(error) => {
                session.close_failed(&plan);
                Err(error.context(close_failed_context(closed.layout.kind(), &closed.archive)))
            }
        }
    }

    fn log_closed(&self, plan: &ClosePlan) {
        let ClosePlan { writer: closed, csum } = plan;
        let size_bytes = closed.size_bytes();
        let UploadStats { count, size_bytes: sent_bytes, compressed_bytes, duplicates } = closed.stats;
        let percent = |part: u64, whole: u64| u128::from(part) * 100 / u128::from(whole.max(1));
        let known_count = closed.known_count();
        let reused = percent(known_count.saturating_add(duplicates), closed.appended);
        self.task.log(format!("Upload statistics for '{}'", closed.archive));
        self.task.log(format!("Checksum: {csum}"));
        self.task.log(format!("Size: {size_bytes}"));
        self.task.log(format!("Chunk count: {}", closed.appended));
        if size_bytes > 0 {
            self.task.log(format!("Upload size: {sent_bytes} ({}%)", percent(sent_bytes, size_bytes)));
        }
        self.task.log(format!("Duplicates: {known_count}+{duplicates} ({reused}%)"));
        if count > 0 {
            self.task.log(format!("Compression: {}%", percent(compressed_bytes, sent_bytes)));
        }
        self.task.log(format!("successfully closed {} index {}", closed.layout.kind(), closed.wid));
    }

    async fn finish(&self, plan: FinishPlan) -> Result<Reply> {
        match self.check_and_finish(plan).await {
            Ok(()) => {
                self.task.log("successfully finished backup");
                Ok(self.session.lock().finished())
            }
            Err(error) => {
                self.task.log(format!("finish failed: {error}"));
                self.session.lock().finish_failed();
                Err(error)
            }
        }
    }

    async fn check_and_finish(&self, plan: FinishPlan) -> Result<()> {
        let indexes = plan.indexes();
        let FinishPlan { manifest, snapshot, files, stats } = plan;
        let checked = self.compute.run(move || manifest_check::check(&manifest, &snapshot, &files, &stats)).await??;
        for name in &checked.unlisted {
            self.task.log(format!("the manifest does not list '{name}': it stays, and nobody will restore it"));
        }
        if self.benchmark {
            return Ok(());
        }
        self.known.check_finish(&indexes).await?;
        self.lease.finish(checked.blob).await
    }

    /// What the end of the connection means (spec 03 §9), and the result of the task.
    async fn clean_up(&self, ended: Ended) -> Result<(), String> {
        self.budget.close();
        self.writers.lock().clear();
        let (finished, known) = {
            let mut session = self.session.lock();
            (session.end(), session.known_chunks())
        };
        if matches!(ended, Ended::Aborted) {
            self.task.log("received abort request ...");
        }
        if finished && !self.benchmark {
            if let Ended::Connection(Err(e)) = &ended {
                tracing::debug!(error = %e, "a client left after it had finished");
            }
            return Ok(());
        }
        let fault = match ended {
            _ if self.benchmark => None,
            Ended::Connection(Ok(())) => Some("backup ended but finished flag is not set.".to_owned()),
            Ended::Connection(Err(e)) => Some(format!("connection error: {}", super::session::chain(&e))),
            Ended::Aborted => Some("task aborted".to_owned()),
            Ended::Closing => Some("the server is shutting down".to_owned()),
        };
        match &fault {
            Some(fault) => {
                self.task.log(format!("backup failed: {fault}"));
                tracing::debug!(known_chunks = known.0, known_bytes = known.1, "an unfinished session ends");
                self.task.log("removing failed backup");
            }
            None => self.task.log("removing benchmark backup"),
        }
        let removed = self.lease.abandon().await.map_err(|e| {
            tracing::error!(snapshot = %self.lease.snapshot(), error = %e, "an unfinished backup was not removed");
            format!("the unfinished snapshot could not be removed - {e}")
        });
        if let Err(text) = &removed {
            self.task.log(text.clone());
        }
        fault.map_or(removed, Err)
    }
}

fn no_body() -> Error {
    Error::invalid("the request has no body")
}

fn not_registered(kind: WriterKind, wid: WriterId) -> Error {
    Error::invalid(format!("{kind} writer '{wid}' not registered"))
}

/// Checks a blob's header and CRC, and computes the checksum that the manifest has to name.
fn check_blob(encoded: Bytes) -> Result<(Digest, Bytes)> {
    blob::check_crc(&encoded).map_err(|e| e.with_kind(Kind::Invalid))?;
    Ok((Digest::of(&encoded), encoded))
}
