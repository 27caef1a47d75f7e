//! The right to remove chunks, and all that is done under it; what to remove, and in which order, is the caller's to decide.
//!
//! A [`Collection`] keeps other processes out. A [`Pass`] of it watches some of the chunk directories: from its beginning on, whatever
//! comes to the datastore is in its set of live chunks, and what was there before, the caller marks. Then a chunk file may go when
//! [`Pass::remove`] finds, with the claim of its digest in hand, that nobody keeps it, that it is not live, and that it is still as old as it
//! has to be. Why that suffices: `docs/garbage-collection.md`.
//!
//! Every step asks the budget of the datastore first, and what only reads does so in the background. A removal does not: it holds claims that
//! uploads wait for.
//!
//! Both are held by the work on the pool as well, so an abandoned caller lets nobody in before the last file operation is over.

mod access_time;
mod chunks;
mod doubts;
mod indexes;
mod looks;
mod names;
mod progress;
mod reserve;

use std::ops::Range;
use std::sync::Arc;

use tokio::sync::{oneshot, watch};

pub use self::chunks::{Candidate, ChunkDirs, ChunkName, DirListing, Remains, Removed};
pub use self::indexes::IndexFile;
pub use self::looks::{LOOKED_AT_ONCE, LookedDir};
pub use self::names::{DirNames, KnownDirs, Unchanged};
use super::Datastore;
use super::budget::{Rate, Share, Turn};
use super::custody::{Change, Keeper};
use super::datastore::Inner;
use super::explain::failed;
use super::layout::CHUNK_DIR_COUNT;
use super::live_set::LiveSet;
use super::operations::{Operation, OperationGuard};
use super::process_lock::Exclusion;
use crate::engine::{Disk, Engine};
use crate::error::{Error, Result, TASK_ABORTED};
use crate::sync::Mutex;

/// The right to remove chunks of a datastore, one per process and datastore.
#[derive(Debug)]
pub struct Collection {
    run: Arc<Run>,
    /// What keeps others out, once nobody works under it any more.
    over: oneshot::Receiver<Exclusion>,
}

#[derive(Debug)]
struct Run {
    store: Arc<Inner>,
    exclusion: Option<(Exclusion, oneshot::Sender<Exclusion>)>,
    /// A maintenance mode sees that somebody works here.
    _operation: OperationGuard,
    /// Device and inode of the base directory and of `.chunks`.
    place: [(u64, u64); 2],
    stop: watch::Sender<bool>,
    /// What reads only.
    background: Engine,
    share: Share,
    reserve: reserve::Reserve,
}

/// One pass over some of the chunk directories.
#[derive(Clone, Debug)]
pub struct Pass {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    run: Arc<Run>,
    live: Arc<Mutex<LiveSet>>,
}

impl Datastore {
    /// Keeps other processes, and other collections of this one, from working on this datastore. Backups of this process go on. `rate` holds beside that
    /// of the datastore.
    pub async fn begin_collection(&self, rate: Rate) -> Result<Collection> {
        let operation = self.begin_operation(Operation::Write)?;
        self.inner.checker.confirm_place(&self.inner.engine).await?;
        let exclusion = self.exclude_other_processes().await?;
        let place = self.inner.run(|disk, inner| place(disk, inner)).await?;
        let (is_over, over) = oneshot::channel();
        let run = Run {
            store: Arc::clone(&self.inner),
            exclusion: Some((exclusion, is_over)),
            _operation: operation,
            place,
            stop: watch::Sender::new(false),
            background: self.inner.engine.in_background(),
            share: self.inner.budget.share(rate),
            reserve: reserve::Reserve::default(),
        };
        Ok(Collection { run: Arc::new(run), over })
    }

    /// Says that a chunk is on its way to somebody who will keep it; to be dropped when he does (see [`Self::add_keeper`]).
    pub fn begin_change(&self) -> Change {
        self.inner.custody.begin_change()
    }

    /// Makes garbage collection ask `keeper` before it removes a chunk, for as long as he lives.
    pub fn add_keeper(&self, keeper: &Arc<dyn Keeper>) {
        self.inner.custody.add_keeper(keeper);
    }
}

fn place(disk: &Disk, store: &Inner) -> Result<[(u64, u64); 2]> {
    let id = |path: &std::path::Path| {
        let meta = disk.stat(path).map_err(|e| failed("the datastore is not at its place:", path, e))?;
        Ok::<_, Error>((meta.dev, meta.ino))
    };
    Ok([id(store.layout.base())?, id(&store.layout.chunks())?])
}

impl Drop for Run {
    /// The last one who works under the right hands it to whoever waits for the end. If nobody does, it is given back here.
    fn drop(&mut self) {
        if let Some((exclusion, is_over)) = self.exclusion.take() {
            drop(is_over.send(exclusion));
        }
    }
}

impl Run {
    fn engine(&self) -> &Engine {
        &self.store.engine
    }

    /// Whether base and chunks are still where they were. On the empty mount point of a disk that is gone no index names any chunk.
    fn confirm_place(&self, disk: &Disk) -> Result<()> {
        if place(disk, &self.store)? == self.place {
            return Ok(());
        }
        let base = self.store.layout.base();
        Err(Error::io(
            "the datastore is not at its place",
            std::io::Error::other(format!(
                "{base:?} or its chunks are another directory than when the collection began"
            )),
        ))
    }

    fn stopped() -> Error {
        Error::closed(TASK_ABORTED)
    }

    /// Waits until a step of about so many chunks and bytes may begin, or somebody asks to stop.
    async fn turn(&self, chunks: usize, bytes: u64) -> Result<Turn> {
        let chunks = u64::try_from(chunks).unwrap_or(u64::MAX);
        self.unless_stopped(async { Ok(self.share.take(chunks, bytes).await) }).await
    }

    /// An error once somebody has asked to stop.
    fn go_on(&self) -> Result<()> {
        if *self.stop.borrow() { Err(Self::stopped()) } else { Ok(()) }
    }

    /// Does `work` unless it is time to stop, or as long as it is not. For what reads only: begun work runs on behind the caller.
    async fn unless_stopped<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            biased;
            // The sender is in `self`, so this ends only with a request.
            _ = stop.wait_for(|stop| *stop) => Err(Self::stopped()),
            done = work => done,
        }
    }
}

impl Collection {
    /// Its share of the budget of the datastore.
    pub fn share(&self) -> &Share {
        &self.run.share
    }

    /// Makes everything under way end at its next step with an error of kind `Closed`.
    pub fn stop(&self) {
        self.run.stop.send_replace(true);
    }

    /// Begins a pass over the chunk directories `prefixes` whose set of live chunks takes at most `memory_max` bytes. Waits for uploads and
    /// indexes that are on their way.
    pub async fn begin_pass(&self, prefixes: Range<u32>, memory_max: u64) -> Result<Pass> {
        debug_assert!(prefixes.end <= CHUNK_DIR_COUNT);
        let live = Arc::new(Mutex::new(LiveSet::new(prefixes, memory_max)));
        let custody = &self.run.store.custody;
        custody.set_watch(&live);
        let pass = Pass { shared: Arc::new(Shared { run: Arc::clone(&self.run), live }) };
        let over = async {
            custody.changes_are_over().await;
            Ok(())
        };
        self.run.unless_stopped(over).await?;
        Ok(pass)
    }

    /// The end of a complete run: an error if the datastore is not where it was, so that the run was about something else, or if somebody has
    /// asked to stop.
    pub async fn confirm(&self) -> Result<()> {
        self.run.go_on()?;
        let run = Arc::clone(&self.run);
        self.run.engine().run(move |disk| run.confirm_place(disk)).await?
    }

    /// Gives the right back, and waits until other processes see that. Work that was left behind under it (other reads, when one failed) is
    /// waited for, unless somebody has asked to stop: then it keeps the right until it is over.
    pub async fn end(self) {
        let is_stopped = *self.run.stop.borrow();
        let Self { run, mut over } = self;
        drop(run);
        let exclusion = if is_stopped { over.try_recv().ok() } else { over.await.ok() };
        if let Some(exclusion) = exclusion {
            exclusion.release().await;
        }
    }
}

impl Pass {
    /// The directories that are left of those asked for: fewer, when the set would not have fitted.
    pub fn prefixes(&self) -> Range<u32> {
        self.shared.live.lock().prefixes()
    }

    /// Live chunks, and the bytes that their set takes.
    pub fn live(&self) -> (u64, u64) {
        let live = self.shared.live.lock();
        (live.count(), live.memory_bytes())
    }

    /// An error once somebody has asked to stop.
    pub fn go_on(&self) -> Result<()> {
        self.shared.run.go_on()
    }

    /// Does work on the pool that reads only, in the background.
    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Disk, &Shared) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let shared = Arc::clone(&self.shared);
        let run = &self.shared.run;
        run.unless_stopped(async { run.background.run(move |disk| work(disk, &shared)).await? }).await
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.run.store.custody.end_watch(&self.live);
    }
}
