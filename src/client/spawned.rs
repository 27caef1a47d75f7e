//! Work that goes on by itself, and ends when nobody waits for it any more.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::error::{Error, Kind, Result};

/// A task that is cut off when this handle is dropped, so that a failed or interrupted run leaves nothing behind.
#[derive(Debug)]
pub(super) struct Spawned<T>(JoinHandle<T>);

impl<T: Send + 'static> Spawned<T> {
    /// Starts `work` on the runtime.
    pub(super) fn start(work: impl Future<Output = T> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    /// What came out of it.
    pub(super) async fn join(mut self) -> Result<T> {
        (&mut self.0).await.map_err(|e| Error::new(Kind::Closed, "a task of the client ended early").with_source(e))
    }
}

impl<T> Drop for Spawned<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A bounded number of threads for hashing, compression and blocking file work. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Compute {
    permits: Arc<Semaphore>,
}

impl Compute {
    /// One thread for each processor, at least two so that a file read never stops the hashing.
    pub(super) fn new() -> Self {
        let threads = std::thread::available_parallelism().map_or(2, |n| n.get().max(2));
        Self { permits: Arc::new(Semaphore::new(threads)) }
    }

    /// Does `work` on one of the threads, first come first served.
    pub(super) async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
        let closed = |_| Error::closed("the client is shutting down");
        let permit = self.permits.clone().acquire_owned().await.map_err(closed)?;
        #[expect(clippy::disallowed_methods, reason = "the permit bounds it; this is no work on a datastore's files")]
        let handle = tokio::task::spawn_blocking(move || {
            let out = work();
            drop(permit);
            out
        });
        handle.await.map_err(|e| Error::new(Kind::Closed, "a working thread of the client ended early").with_source(e))
    }
}
