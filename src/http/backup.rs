//! Drives a backup session: actions from requests, effects onto the datastore, answers back (spec 03).
//!
//! ```text
//! request ─ action ─→ Session (microseconds, under its lock) ─ effect ─→ datastore, compute pool ─ outcome ─→ Session ─→ answer
//! ```
//!
//! Requests of a session run concurrently. The session's lock is held for its own arithmetic only; what waits for a disk holds
//! nothing but its own memory.

mod end;
mod indexes;
mod uploads;

use std::collections::HashMap;
use std::sync::Arc;

use http::Request;
use hyper::body::Incoming;
use hyper::rt::{Read, Write};

use super::known_chunks::KnownChunks;
use super::params::Received;
use super::reply::{self, Response};
use super::session::params::{Carrier, NoAction, backup_action, carrier};
use super::session::{BodyBudget, Ended, Ending, Handler, answer, not_found};
use crate::engine::ComputePool;
use crate::error::Result;
use crate::http::{Lifecycle, Phase, SessionGuard};
use crate::jobs::verify::{Filter, Scope, Verification};
use crate::metrics::SessionCount;
use crate::protocol::action::{Action, BackupEndpoint, WriterId};
use crate::protocol::backup::{About, Effect, Session, Step};
use crate::protocol::reply::Reply;
use crate::store::{BackupLease, Datastore, DynamicWriter, FixedWriter, Keeper};
use crate::sync::Mutex;
use crate::task::{self, Task};
use crate::types::{AuthId, Digest};

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
    /// Where a verification of what was backed up becomes a task.
    pub tasks: task::Registry,
    /// Where the snapshot lies, for error texts.
    pub snapshot_path: String,
    /// Counts it as running, and its answers.
    pub counted: SessionCount,
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
    /// Appends to one dynamic index follow each other, since each begins where the one before it ended; an append that
    /// comes while another is being checked waits for its turn, and nobody else does.
    Dynamic(DynamicWriter, Turn),
}

type Turn = Arc<tokio::sync::Mutex<()>>;

/// Runs a session on the upgraded connection until it has ended and everything it leaves behind is in order.
pub async fn run(parts: Parts, stream: hyper::Result<impl Read + Write + Unpin + Send>, lifecycle: Lifecycle) {
    let Parts { store, lease, task, tasks, compute, benchmark, snapshot_path, counted, guard } = parts;
    let guest = store.budget().guest();
    let verify_new = VerifyNew::of(&store, &lease, &task, &compute, tasks);
    let (lease, task) = (Arc::new(lease), Arc::new(task));
    let about = About {
        snapshot: lease.snapshot().clone(),
        snapshot_path,
        base_time: lease.base().map(|base| base.snapshot.time()),
    };
    let session = Arc::new(Mutex::new(Session::new(about)));
    let keeper: Arc<dyn Keeper> = session.clone();
    store.add_keeper(&keeper);
    let ending = Ending::default();
    let known =
        KnownChunks::new(store.clone(), lease.clone(), task.clone(), compute.clone(), ending.clone(), session.clone());
    let budget = BodyBudget::with_buffers(store.engine().buffers().clone());
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
        budget,
        ending,
    });
    let ended = match stream {
        Ok(stream) => {
            let answers = counted.answers();
            let ended =
                super::session::serve(stream, &driver, &driver.ending, &driver.task, &answers, &lifecycle).await;
            driver.known.end().await;
            ended
        }
        Err(e) => Ended::Connection(Err(e)),
    };
    let result = driver.clean_up(ended).await;
    driver.store.engine().buffers().release();
    let is_new = result.is_ok() && !benchmark;
    drop(driver);
    match Arc::into_inner(task) {
        Some(task) => task.end(result).await,
        None => tracing::error!("a backup task is still in use after its session"),
    }
    drop((counted, guest));
    if is_new && lifecycle.phase() == Phase::Serving {
        verify_new.start(lifecycle, guard).await;
    }
}

/// What it takes to verify the snapshot when it is finished and its session has let go of it (spec 07 §3.3).
struct VerifyNew {
    job: Verification,
    worker: (&'static str, String),
    auth: AuthId,
    tasks: task::Registry,
}

impl VerifyNew {
    fn of(store: &Datastore, lease: &BackupLease, task: &Task, compute: &ComputePool, tasks: task::Registry) -> Self {
        let (ns, snapshot) = (lease.namespace(), lease.snapshot());
        let scope = Scope::Snapshot(ns.clone(), snapshot.clone());
        Self {
            job: Verification::job(store.clone(), compute.clone(), scope, Filter::NONE),
            worker: Verification::worker_of_new(store, ns, snapshot),
            auth: task.upid().auth_id.clone(),
            tasks,
        }
    }

    /// Starts it, if the datastore is told to.
    async fn start(self, lifecycle: Lifecycle, guard: SessionGuard) {
        let Self { job, worker, auth, tasks } = self;
        if !job.store.config().verify_new {
            return;
        }
        let closing = async move { lifecycle.draining().await };
        if let Err(error) = job.start(&tasks, worker, &auth, closing, guard).await {
            tracing::error!(%error, "a new backup is not verified");
        }
    }
}

/// Garbage collection asks a session about what it is about to remove.
impl Keeper for Mutex<Session> {
    fn keeps(&self, digest: &Digest) -> bool {
        self.lock().knows(digest)
    }
}

impl Handler for Driver {
    async fn handle(self: Arc<Self>, request: Request<Incoming>) -> Response {
        let path = request.uri().path();
        let Some(endpoint) = BackupEndpoint::of(request.method().as_str(), path) else {
            let response = not_found(path);
            self.budget.drain(request.into_body()).await;
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
                    self.budget.drain(body).await;
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
                self.discard_index(wid).await;
                return Err(error);
            }
            Effect::Finish(plan) => self.finish(plan).await?,
            Effect::Speedtest => {
                if let Some(body) = body {
                    self.budget.discard(body).await;
                }
                Reply::Null
            }
        };
        reply::data(reply.data())
    }
}
