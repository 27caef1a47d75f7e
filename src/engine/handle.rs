//! The handle that the rest of the crate holds: starts an engine, asks it, ends it.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use tokio::sync::{Semaphore, oneshot};

use super::buffers::BufferPool;
use super::counters::{Counters, EngineCounters, Way};
use super::disk::Disk;
use super::driver::{Driver, Intake, Policy, Request, Wake, Workers};
use super::pool::{Pool, join_unless_self, may_block};
use super::priority::{Priorities, Urgency};
use super::probe::Refusal;
use super::stat::{Class, EngineChoice, EngineConfig, StatBatch, StatReply, StatResult};
use super::threads::{Events, STAT_THREADS_MAX, Threads};
use super::uring::{Ring, WakeFd};
use crate::error::{Error, IoContext, Result};
use crate::sync::{Mutex, note_disk_work};

/// Most that [`EngineConfig::workers`] may be; with 256 workers a store of 10 ms per request answers 25,000 checks a
/// second.
pub const WORKERS_MAX: u32 = 256;

/// Batches of appends taken in at a time; at 128 names of 72 bytes each they hold 10 MB. Further ones wait at the door.
const INTERACTIVE_BATCHES_MAX: usize = 1024;

/// Batches of sweeps taken in at a time. They take turns, and few make the ring as busy as many.
const SWEEP_BATCHES_MAX: usize = 64;

/// A handle on one datastore's engine; cheap to clone. The last one to go ends the engine's threads.
#[derive(Clone, Debug)]
pub struct Engine {
    inner: Arc<Inner>,
    /// Whom the work of this handle is for.
    urgency: Urgency,
}

struct Inner {
    disk: Disk,
    kind: &'static str,
    choice: EngineChoice,
    workers: u32,
    fallback_reason: Option<String>,
    counters: Arc<Counters>,
    pool: Pool,
    io_threads: usize,
    priorities: Arc<Priorities>,
    intake: Arc<Intake>,
    /// Places for batches, by class.
    places: [Arc<Semaphore>; 3],
    /// Places for the file work of sweeps.
    sweep_places: Arc<Semaphore>,
    /// Places for the file work of jobs.
    background_places: Arc<Semaphore>,
    thread: Mutex<Option<JoinHandle<()>>>,
    shut_down: AtomicBool,
}

/// The engine's thread and the way to it.
struct Front {
    kind: &'static str,
    intake: Arc<Intake>,
    thread: JoinHandle<()>,
}

impl Engine {
    /// Starts the threads of an engine for the datastore `name` and says which one it became.
    ///
    /// Errors: `Invalid` for a number out of its range; `Io` when threads cannot be had, or when
    /// [`EngineChoice::Uring`] is asked for and the kernel refuses, with the likely cause.
    pub fn start(name: &str, config: &EngineConfig) -> Result<Self> {
        Self::start_on(name, config, Disk::real())
    }

    /// As [`Self::start`], with `disk` for what [`Self::run`] does (tests inject faults with it).
    pub fn start_on(name: &str, config: &EngineConfig, disk: Disk) -> Result<Self> {
        if !(1..=WORKERS_MAX).contains(&config.workers) {
            return Err(Error::invalid(format!("engine: workers must be 1 to {WORKERS_MAX}, not {}", config.workers)));
        }
        if config.io_threads == 0 {
            return Err(Error::invalid("engine: io-threads must be at least 1"));
        }
        let counters = Arc::new(Counters::default());
        let priorities = Arc::new(Priorities::default());
        let (front, fallback_reason) = start_front(name, config, &counters, &priorities)?;
        let pool = match Pool::start(&format!("io:{name}"), config.io_threads, &priorities) {
            Ok(pool) => pool,
            Err(e) => {
                front.intake.close();
                join_unless_self(front.thread);
                return Err(Error::io("cannot start the threads for file work", e));
            }
        };
        tracing::info!(datastore = name, engine = front.kind, workers = config.workers, "presence checks are ready");
        Ok(Self {
            urgency: Urgency::Foreground,
            inner: Arc::new(Inner {
                disk,
                kind: front.kind,
                choice: config.choice,
                workers: config.workers,
                fallback_reason,
                counters,
                pool,
                io_threads: config.io_threads,
                priorities,
                intake: front.intake,
                places: [INTERACTIVE_BATCHES_MAX, SWEEP_BATCHES_MAX, SWEEP_BATCHES_MAX]
                    .map(|n| Arc::new(Semaphore::new(n))),
                sweep_places: Arc::new(Semaphore::new(sweep_width(config.io_threads))),
                background_places: Arc::new(Semaphore::new((config.io_threads / 2).max(1))),
                thread: Mutex::new(Some(front.thread)),
                shut_down: AtomicBool::new(false),
            }),
        })
    }

    /// A handle for a job: what it does is behind everybody else's work, and at idle I/O priority if that is wanted
    /// ([`Self::want_idle_priority`]). Not for work that holds what a client may wait for.
    pub fn in_background(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), urgency: Urgency::Background }
    }

    /// Whether work of [`Self::in_background`] is to have idle I/O priority from now on.
    pub fn want_idle_priority(&self, wanted: bool) {
        self.inner.priorities.want_idle(wanted);
    }

    /// `uring`, `threads` or `sync`.
    pub fn kind(&self) -> &'static str {
        self.inner.kind
    }

    /// Whether a check may be made in another way than by the engine that was asked for, where that is cheaper: not if one is forced,
    /// which is for measuring it.
    pub fn may_choose(&self) -> bool {
        self.inner.choice == EngineChoice::Auto
    }

    /// Most checks that may be in flight, as configured.
    pub fn workers(&self) -> u32 {
        self.inner.workers
    }

    /// Why a wanted ring was not had, if so.
    pub fn fallback_reason(&self) -> Option<&str> {
        self.inner.fallback_reason.as_deref()
    }

    /// Threads for blocking file work.
    pub fn io_threads(&self) -> usize {
        self.inner.io_threads
    }

    /// Memory for whole chunks of this datastore.
    pub fn buffers(&self) -> &BufferPool {
        self.inner.disk.buffers()
    }

    /// What was done so far.
    pub fn counters(&self) -> EngineCounters {
        let Inner { pool, priorities, disk, .. } = &*self.inner;
        self.inner.counters.snapshot(pool.done(), priorities.changes(), disk.counts())
    }

    /// Does blocking file work on the pool; of [`Self::in_background`], at most half of the threads do such work at a time. A future dropped before its work has begun may take it along; begun work
    /// runs to its end.
    ///
    /// Errors: `Closed` once the engine is shut down; `Io` with the panic's text when `work` panics.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce(&Disk) -> T + Send + 'static) -> Result<T> {
        note_disk_work("run");
        let disk = self.inner.disk.clone();
        if self.urgency == Urgency::Foreground {
            return self.inner.pool.run(self.urgency, move || work(&disk)).await;
        }
        let places = Arc::clone(&self.inner.background_places);
        let place = places.acquire_owned().await.map_err(|_| self.inner.ended())?;
        // The place goes with the work: nobody may be waiting for it any more.
        self.inner.pool.run(self.urgency, move || (work(&disk), drop(place)).0).await
    }

    /// As [`Self::run`] for work of a sweep: at most [`Self::sweep_width`] pieces of it are with the pool at a time, those of all sweeps
    /// together, so that a client's chunk always finds a thread. A piece should be short.
    pub async fn run_for_sweep<T: Send + 'static>(&self, work: impl FnOnce(&Disk) -> T + Send + 'static) -> Result<T> {
        let places = Arc::clone(&self.inner.sweep_places);
        let place = places.acquire_owned().await.map_err(|_| self.inner.ended())?;
        // The place goes with the work: nobody may be waiting for it any more.
        self.run(move |disk| (work(disk), drop(place)).0).await
    }

    /// How many pieces of [`Self::run_for_sweep`] are done at the same time.
    pub fn sweep_width(&self) -> usize {
        sweep_width(self.inner.io_threads)
    }

    /// Gives blocking file work to the pool and does not wait for it: what a `Drop` does, which cannot wait. It needs
    /// no place in the queue and no runtime. Work given after the shutdown is dropped undone.
    pub fn detach(&self, work: impl FnOnce(&Disk) + Send + 'static) {
        let disk = self.inner.disk.clone();
        self.inner.pool.detach(move || work(&disk));
    }

    /// Makes all checks of a batch. A dropped future does not stop them, only the answer is lost.
    ///
    /// Errors: `Closed` once the engine is shut down. What the kernel says about a single name is in the reply.
    pub async fn stat(&self, mut batch: StatBatch) -> Result<StatReply> {
        note_disk_work("stat");
        let started = Instant::now();
        if u32::try_from(batch.names.len()).is_err() {
            return Err(Error::invalid("more names than a batch may have"));
        }
        if self.urgency == Urgency::Background {
            batch.class = Class::Background;
        }
        let inner = &self.inner;
        let places = Arc::clone(&inner.places[batch.class as usize]);
        let place = places.acquire_owned().await.map_err(|_| inner.ended())?;
        if let Some(handle) = batch.dir.sim() {
            let results: Vec<StatResult> =
                batch.names.iter().map(|name| handle.file_stat(name, batch.stamps)).collect();
            inner.counters.answered(Way::Inline, results.len() as u64);
            inner.counters.batch(batch.class);
            return Ok(StatReply { results, elapsed: started.elapsed() });
        }
        let (reply, replied) = oneshot::channel();
        inner.intake.push(Request { batch, reply, place }).map_err(|_| inner.ended())?;
        let results = replied.await.map_err(|_| inner.ended())?;
        Ok(StatReply { results, elapsed: started.elapsed() })
    }

    /// Ends all threads after the work under way is done; later calls answer `Closed`. Blocks: not for a runtime
    /// thread.
    pub fn shutdown(&self) {
        self.inner.close();
        self.inner.join();
    }
}

impl Inner {
    /// Refuses what is new and lets what has begun end.
    fn close(&self) {
        self.shut_down.store(true, Ordering::SeqCst);
        for places in &self.places {
            places.close();
        }
        self.sweep_places.close();
        self.background_places.close();
        self.intake.close();
        self.pool.close();
    }

    fn join(&self) {
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            join_unless_self(thread);
        }
        self.pool.join();
    }

    /// Why there is no answer.
    fn ended(&self) -> Error {
        if self.shut_down.load(Ordering::SeqCst) {
            Error::closed("the engine is shut down")
        } else {
            let cause = io::Error::other("its thread has ended, the log says why");
            Error::io("presence checks of this datastore are out of service until a restart", cause)
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.close();
        if may_block() {
            self.join();
        }
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engine").field("kind", &self.kind).field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// Three quarters of the threads: what is left is as much as four clients insert at once with the default of 16.
fn sweep_width(io_threads: usize) -> usize {
    (io_threads * 3 / 4).max(1)
}

/// What all threads of an engine share.
type Shared<'a> = (&'a Arc<Counters>, &'a Arc<Priorities>);

/// The front that the operator's choice and the kernel allow, and why it is not the one that was wanted.
fn start_front(
    name: &str,
    config: &EngineConfig,
    counters: &Arc<Counters>,
    priorities: &Arc<Priorities>,
) -> Result<(Front, Option<String>)> {
    let shared = (counters, priorities);
    match config.choice {
        EngineChoice::Sync => Ok((start_threads(name, 0, shared)?, None)),
        EngineChoice::Threads => Ok((start_threads(name, config.workers, shared)?, None)),
        EngineChoice::Uring => match start_ring(name, config.workers, Policy::WorkersOnly, shared)? {
            Ok(front) => Ok((front, None)),
            Err(refusal) => {
                Err(Error::io("engine uring was asked for, and there is no ring", io::Error::other(refusal)))
            }
        },
        EngineChoice::Auto => match start_ring(name, config.workers, Policy::Adaptive, shared)? {
            Ok(front) => Ok((front, None)),
            Err(refusal) => {
                tracing::warn!(datastore = name, cause = %refusal, "no io_uring, presence checks use threads");
                Ok((start_threads(name, config.workers, shared)?, Some(refusal.to_string())))
            }
        },
    }
}

/// The kernel's workers behind a ring, or why there is none. The outer error is one of ours: no thread, no descriptor.
fn start_ring(
    name: &str,
    workers: u32,
    policy: Policy,
    shared: Shared<'_>,
) -> Result<std::result::Result<Front, Refusal>> {
    let wake = WakeFd::new().io_context(|| "cannot make an eventfd")?;
    let (ring_wake, ring_counters) = (wake.clone(), Arc::clone(shared.0));
    start_driver(name, "uring", policy, shared, wake, move || Ring::start(workers, ring_wake, ring_counters))
}

/// Threads in the place of a ring; the serial engine when `workers` is 0.
fn start_threads(name: &str, workers: u32, shared: Shared<'_>) -> Result<Front> {
    let count = usize::try_from(workers.min(STAT_THREADS_MAX)).expect("a small number");
    let (kind, policy) = if count == 0 { ("sync", Policy::InlineOnly) } else { ("threads", Policy::Adaptive) };
    let events = Events::new();
    let threads = Threads::start(&format!("stat:{name}"), count, events.clone(), shared.1);
    let threads = threads.io_context(|| "cannot start the threads for presence checks")?;
    let Ok(front) = start_driver(name, kind, policy, shared, events, move || Ok::<_, Infallible>(threads))?;
    Ok(front)
}

/// Starts the engine's own thread. `make` runs on it, since a ring and its workers belong to the thread that made it;
/// the inner error is its.
fn start_driver<W: Workers, E: Send + 'static>(
    name: &str,
    kind: &'static str,
    policy: Policy,
    (counters, priorities): Shared<'_>,
    waker: impl Wake + 'static,
    make: impl FnOnce() -> std::result::Result<W, E> + Send + 'static,
) -> Result<std::result::Result<Front, E>> {
    let intake = Arc::new(Intake::new(Box::new(waker)));
    let (made, was_made) = std::sync::mpsc::channel();
    let own = (Arc::clone(&intake), Arc::clone(counters), Arc::clone(priorities), name.to_owned());
    let body = move || {
        let (intake, counters, priorities, name) = own;
        let driver = match make() {
            Ok(workers) => Driver::new(workers, policy, intake, counters, &priorities),
            Err(e) => {
                let _ = made.send(Err(e));
                return;
            }
        };
        let _ = made.send(Ok(()));
        if let Err(e) = driver.run() {
            tracing::error!(datastore = name, error = %e, "presence checks ended; restart the daemon");
        }
    };
    let thread = std::thread::Builder::new().name(format!("{kind}:{name}"));
    let thread = thread.spawn(body).io_context(|| "cannot start the engine's thread")?;
    match was_made.recv() {
        Ok(Ok(())) => Ok(Ok(Front { kind, intake, thread })),
        Ok(Err(e)) => {
            join_unless_self(thread);
            Ok(Err(e))
        }
        Err(_) => {
            join_unless_self(thread);
            Err(Error::io("cannot start the engine's thread", io::Error::other("it panicked")))
        }
    }
}
