//! A bounded pool of threads for work that blocks or computes.
//!
//! Who wants work done first waits, asynchronously, for one of a fixed number of places; so the queue behind the
//! threads never grows past it, and no runtime thread ever blocks. A panic of the work comes back to its caller as an
//! error and costs no thread.

use std::any::Any;
use std::fmt;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use tokio::sync::{Semaphore, oneshot};

use super::priority::{OfThread, Priorities, Urgency};
use super::work_queue::WorkQueue;
use crate::error::{Error, IoContext, Result};
use crate::sync::Mutex;

/// Places per thread: one for the piece under way and one waiting, so that a thread that ends a piece finds the next
/// without a round trip through the runtime.
const PLACES_PER_THREAD: usize = 2;

/// Most threads of a pool; more than any disk wants, and far from the limits of a process.
const THREADS_MAX: usize = 512;

type Work = (Urgency, Box<dyn FnOnce() + Send>);

/// Threads and the queue before them.
pub(super) struct Pool {
    queue: Arc<WorkQueue<Work>>,
    places: Arc<Semaphore>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    done: Arc<AtomicU64>,
}

impl Pool {
    /// Starts `threads` threads (at least one, at most [`THREADS_MAX`]) called `name`; `priorities` says what background work is to be.
    pub(super) fn start(name: &str, threads: usize, priorities: &Arc<Priorities>) -> io::Result<Self> {
        let threads = threads.clamp(1, THREADS_MAX);
        let pool = Self {
            queue: Arc::new(WorkQueue::new()),
            places: Arc::new(Semaphore::new(threads * PLACES_PER_THREAD)),
            threads: Mutex::new(Vec::with_capacity(threads)),
            done: Arc::new(AtomicU64::new(0)),
        };
        for _ in 0..threads {
            let queue = Arc::clone(&pool.queue);
            // On an error here `pool` is dropped, which ends the threads that were started before.
            let priority = OfThread::new(priorities);
            let body = move || serve(&queue, priority);
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
            pool.threads.lock().push(thread);
        }
        Ok(pool)
    }

    /// Does `work` on a thread of the pool. A future dropped before its work has a place takes the work with it; after
    /// that the work runs to its end and only the answer is lost.
    ///
    /// Errors: `Io` with the panic's text when `work` panics, `Closed` after [`Self::close`].
    pub(super) async fn run<T: Send + 'static>(
        &self,
        urgency: Urgency,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let closed = || Error::closed("the pool is shut down");
        let place = Arc::clone(&self.places).acquire_owned().await.map_err(|_| closed())?;
        let (answer, answered) = oneshot::channel();
        let done = Arc::clone(&self.done);
        let work = move || {
            let outcome = catch_unwind(AssertUnwindSafe(work));
            done.fetch_add(1, Ordering::Relaxed);
            drop(place);
            // Nobody there: then the value is dropped here, where closing a file may block.
            let _ = answer.send(outcome);
        };
        self.queue.push((urgency, Box::new(work))).map_err(|_| closed())?;
        match answered.await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(panic)) => {
                let text = panic_text(panic.as_ref());
                Err(Error::io("work on the pool panicked", io::Error::other(text.to_owned())))
            }
            Err(_) => Err(closed()),
        }
    }

    /// Gives `work` to the pool and does not wait for it, not even for a place. Dropped undone after [`Self::close`].
    pub(super) fn detach(&self, work: impl FnOnce() + Send + 'static) {
        let done = Arc::clone(&self.done);
        let work = move || {
            if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
                tracing::error!(panic = panic_text(panic.as_ref()), "work that nobody waits for panicked");
            }
            done.fetch_add(1, Ordering::Relaxed);
        };
        if self.queue.push((Urgency::Foreground, Box::new(work))).is_err() {
            tracing::debug!("work that came after the shutdown was not done");
        }
    }

    /// Pieces of work done, panics included.
    pub(super) fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Refuses further work; what has a place is still done.
    pub(super) fn close(&self) {
        self.places.close();
        self.queue.close();
    }

    /// Waits for the threads to end after [`Self::close`]. Blocks.
    pub(super) fn join(&self) {
        let threads = std::mem::take(&mut *self.threads.lock());
        for thread in threads {
            join_unless_self(thread);
        }
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("done", &self.done()).finish_non_exhaustive()
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.close();
        if may_block() {
            self.join();
        }
    }
}

/// Whether this thread may wait for others: a runtime's may not. Threads that are not waited for still end by
/// themselves, since each owns all that it touches.
pub(super) fn may_block() -> bool {
    tokio::runtime::Handle::try_current().is_err()
}

/// Waits for a thread to end, except for the one that asks: the last handle of an engine may well be dropped by its own
/// work.
pub(super) fn join_unless_self(thread: JoinHandle<()>) {
    if thread.thread().id() == std::thread::current().id() {
        return;
    }
    if let Err(panic) = thread.join() {
        tracing::error!(panic = panic_text(panic.as_ref()), "a thread of the engine ended in a panic");
    }
}

/// What a panic said.
pub(super) fn panic_text(panic: &(dyn Any + Send)) -> &str {
    if let Some(text) = panic.downcast_ref::<&'static str>() {
        text
    } else if let Some(text) = panic.downcast_ref::<String>() {
        text
    } else {
        "no text"
    }
}

fn serve(queue: &WorkQueue<Work>, mut priority: OfThread) {
    while let Some((urgency, work)) = queue.pop() {
        priority.suit(urgency);
        // The work's own panic was caught inside; this is for a value whose drop panics because nobody took it.
        if let Err(panic) = catch_unwind(AssertUnwindSafe(work)) {
            tracing::error!(panic = panic_text(panic.as_ref()), "dropping an answer that nobody waited for panicked");
        }
    }
}

/// A pool for hashing, compression and other work of the processor. Cheap to clone; ends with its last handle.
#[derive(Clone, Debug)]
pub struct ComputePool {
    pool: Arc<Pool>,
}

impl ComputePool {
    /// Starts `threads` threads, at least one.
    pub fn new(threads: usize) -> Result<Self> {
        Self::named("compute", threads)
    }

    /// The same with another name, for small work of another kind that must not wait for hashing.
    pub fn named(name: &str, threads: usize) -> Result<Self> {
        let pool =
            Pool::start(name, threads, &Arc::default()).io_context(|| format!("cannot start the {name} threads"))?;
        Ok(Self { pool: Arc::new(pool) })
    }

    /// Does `work` on a thread of the pool; waits, asynchronously, while as much as the pool may hold is under way.
    ///
    /// Errors: `Io` with the panic's text when `work` panics, `Closed` after [`Self::shutdown`].
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        self.pool.run(Urgency::Foreground, work).await
    }

    /// Ends all threads after the work under way is done; later calls answer `Closed`. Blocks: not for a runtime
    /// thread.
    pub fn shutdown(&self) {
        self.pool.close();
        self.pool.join();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::sync::mpsc;

    #[tokio::test]
    async fn a_panic_comes_back_and_costs_no_thread() {
        let pool = ComputePool::new(1).unwrap();
        let error = pool.run(|| panic!("sum of {} is wrong", 7)).await.map(|()| 0).unwrap_err();
        assert_eq!(error.kind(), Kind::Io);
        assert_eq!(error.to_string(), "work on the pool panicked - sum of 7 is wrong");
        assert_eq!(pool.run(|| 7).await.unwrap(), 7);
        assert_eq!(pool.pool.done(), 2);
    }

    #[tokio::test]
    async fn no_more_work_is_queued_than_there_are_places() {
        let pool = ComputePool::new(2).unwrap();
        let (open_gate, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let waiting: Vec<_> = (0..50)
            .map(|i| {
                let (pool, gate) = (pool.clone(), Arc::clone(&gate));
                tokio::spawn(async move {
                    let work = move || {
                        let _ = gate.lock().recv();
                        i
                    };
                    pool.run(work).await
                })
            })
            .collect();
        while pool.pool.places.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(pool.pool.done(), 0);
        drop(open_gate);
        for (i, answer) in waiting.into_iter().enumerate() {
            assert_eq!(answer.await.unwrap().unwrap(), i);
        }
        assert_eq!(pool.pool.places.available_permits(), 2 * PLACES_PER_THREAD);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn shutdown_ends_what_has_begun_and_refuses_the_rest() {
        let pool = ComputePool::new(1).unwrap();
        let (open_gate, gate) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel::<()>();
        let first = tokio::spawn({
            let pool = pool.clone();
            async move {
                let work = move || {
                    begun.send(()).unwrap();
                    let _ = gate.recv();
                    "done"
                };
                pool.run(work).await
            }
        });
        has_begun.recv().unwrap();
        pool.pool.close();
        assert_eq!(pool.run(|| ()).await.unwrap_err().kind(), Kind::Closed);
        drop(open_gate);
        assert_eq!(first.await.unwrap().unwrap(), "done");
        pool.shutdown();
    }

    #[tokio::test]
    async fn the_last_handle_may_die_inside_the_work() {
        let pool = ComputePool::new(1).unwrap();
        let inner = pool.clone();
        pool.run(move || drop(inner)).await.unwrap();
        // Dropping inside a runtime does not wait; the thread ends on its own.
        drop(pool);
    }

    #[test]
    fn a_pool_without_a_runtime_ends_its_threads_at_the_drop() {
        let pool = ComputePool::new(3).unwrap();
        drop(pool);
    }
}
