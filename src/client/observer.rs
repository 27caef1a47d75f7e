//! What a backup or a restore tells while it runs.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::types::{ArchiveName, Digest};

/// Hears what happens; called from runtime threads, so it must not block.
pub trait Observer: Send + Sync {
    /// An archive begins; `None` when nobody knows how long it is.
    fn begins(&self, archive: &ArchiveName, size_bytes: Option<u64>);

    /// `bytes` more of it are done: acknowledged by the server, or written to the target.
    fn advances(&self, bytes: u64);

    /// The archive is complete.
    fn ends(&self, archive: &ArchiveName);

    /// Something went wrong that does not end the run.
    fn warns(&self, text: &str);
    /// The server took a chunk of `bytes`; its request was on the way for `elapsed`. For who measures.
    fn uploads(&self, bytes: u64, elapsed: Duration) {
        let _ = (bytes, elapsed);
    }
    /// The server took an append with `chunks` entries, `bytes` long, that needed no upload. For who measures.
    fn reuses(&self, chunks: u32, bytes: u64, elapsed: Duration) {
        let _ = (chunks, bytes, elapsed);
    }
    /// An append that names `digests` is about to be sent, and waits for what comes back. For who measures what a check costs.
    fn holds_up(&self, digests: &[Digest]) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        let _ = digests;
        None
    }
    /// A chunk of `bytes` came from the server. For who measures.
    fn downloads(&self, bytes: u64, elapsed: Duration) {
        let _ = (bytes, elapsed);
    }
}

/// Tells nobody, apart from the log.
#[derive(Clone, Copy, Debug, Default)]
pub struct Silent;

impl Observer for Silent {
    fn begins(&self, _: &ArchiveName, _: Option<u64>) {}

    fn advances(&self, _: u64) {}

    fn ends(&self, _: &ArchiveName) {}

    fn warns(&self, text: &str) {
        tracing::warn!("{text}");
    }
}
