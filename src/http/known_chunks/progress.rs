//! How far a long check is, for the task log.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::Instant;

/// How often a long check says how far it is.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// How far a sweep is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    /// Entries of all indexes.
    pub(super) entries: u64,
    /// Times that the indexes have been begun to be read.
    pub(super) passes: AtomicU64,
    /// Entries read, in this pass.
    pub(super) read: AtomicU64,
    /// Chunks asked for.
    pub(super) asked: AtomicU64,
    /// Chunks asked for once this pass is through; 0 while that is not known.
    pub(super) to_ask: AtomicU64,
    /// Chunks seen by name.
    pub(super) by_name: AtomicU64,
    /// Directories read for that.
    pub(super) directories: AtomicU64,
}

impl Progress {
    /// How the chunks that were asked for were seen: by name proves no size, so the log says which.
    pub(super) fn ways(&self) -> String {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (by_name, directories) = (now(&self.by_name), now(&self.directories));
        let by_stat = now(&self.asked).saturating_sub(by_name);
        if directories == 0 {
            return format!("{by_stat} by stat");
        }
        format!("{by_name} by name in {directories} directories, {by_stat} by stat")
    }
}

impl fmt::Display for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let now = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let (asked, to_ask) = (now(&self.asked), now(&self.to_ask));
        if asked < to_ask {
            write!(f, "{asked} of {to_ask} chunks so far")?;
        } else {
            write!(f, "{asked} chunks so far, {} of {} entries read", now(&self.read), self.entries)?;
        }
        match now(&self.passes) {
            0 | 1 => Ok(()),
            pass => write!(f, ", pass {pass}"),
        }
    }
}

/// Does `work`, and calls `tell` every [`PROGRESS_INTERVAL`] meanwhile.
pub(super) async fn told_regularly<T>(work: impl Future<Output = T>, tell: impl Fn()) -> T {
    tokio::pin!(work);
    let mut ticks = tokio::time::interval_at(Instant::now() + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    loop {
        tokio::select! {
            done = &mut work => return done,
            _ = ticks.tick() => tell(),
        }
    }
}

/// Seconds, or milliseconds below one.
pub(super) fn shown(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64();
    if seconds < 1.0 { format!("{:.1} ms", seconds * 1000.0) } else { format!("{seconds:.1} s") }
}

pub(super) fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}
