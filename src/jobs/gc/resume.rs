//! How far a run is, kept beside the datastore, so that one that was cut off is gone on with.
//!
//! What is live is known only under the watch of the run that has marked it, so a run that resumes marks anew. It leaves out the directories that are
//! swept. That is safe whatever has happened in between: a directory that is left out loses nothing.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::report::Swept;
use super::sweep::SIZE_SAMPLE_CHUNKS;
use crate::clock::EpochSecs;
use crate::error::Result;
use crate::store::layout::CHUNK_DIR_COUNT as DIRS;
use crate::store::{Collection, Datastore, GcConfig, GcMethod};

/// Form of what is kept; another one is not understood.
const VERSION: u32 = 1;

/// Directories between two writings: 64 small files a run, and at most 1/64 of the sweep is done twice.
const DIRS_BETWEEN: u32 = DIRS / 64;

/// On slow disks it is written as often as this, so that a run which takes hours loses seconds.
const TIME_BETWEEN: Duration = Duration::from_secs(5);

/// After that what is left of a run is left: the directories that it has swept hold new garbage by then, which took a day to become old enough.
const AGE_MAX_SECS: i64 = 86_400;

/// How long a run that is asked to stop takes to write down how far it was. A disk that hangs is not waited for.
pub(super) const LAST_WORD_MAX: Duration = Duration::from_millis(500);

/// More than any counter of a real run: what is larger was not written by us, and sums of it would overflow.
const COUNTER_MAX: u64 = 1 << 60;

/// Whether a run goes on with one that was cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Manner {
    /// It does, if there is one.
    #[default]
    Resume,
    /// All directories are swept.
    Fresh,
}

/// How far a run is, over all runs that it goes on with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Progress {
    version: u32,
    /// The task.
    pub(super) upid: String,
    /// When this was written.
    saved: EpochSecs,
    method: GcMethod,
    cutoff_minutes: u32,
    /// The first directory that is not swept, 1 to 65535.
    pub(super) next: u32,
    /// Chunk files that could not be looked at.
    pub(super) unreadable: u64,
    /// What the directories before that had.
    pub(super) swept: Swept,
}

impl Progress {
    /// Understands what was kept. The error says why it cannot be.
    fn parse(bytes: &[u8]) -> Result<Self, String> {
        let progress: Self = serde_json::from_slice(bytes).map_err(|e| format!("it cannot be read ({e})"))?;
        let counters = serde_json::to_value(&progress.swept).unwrap_or_default();
        let counters = counters.as_object().into_iter().flat_map(|all| all.values());
        let is_sane =
            counters.chain([&progress.unreadable.into()]).all(|n| n.as_u64().is_some_and(|n| n < COUNTER_MAX));
        match progress {
            _ if progress.version != VERSION => Err(format!("it is of version {}", progress.version)),
            _ if !(1..DIRS).contains(&progress.next) || !is_sane => Err("it makes no sense".to_owned()),
            progress => Ok(progress),
        }
    }

    /// Why a run with this configuration does not go on with it at `now`; `None` if it does.
    fn objection(&self, config: &GcConfig, now: EpochSecs) -> Option<&'static str> {
        let age = now.0.saturating_sub(self.saved.0);
        if (self.method, self.cutoff_minutes) != (config.method, config.cutoff_minutes) {
            return Some("another method or cutoff is configured now");
        }
        if !(-AGE_MAX_SECS..=AGE_MAX_SECS).contains(&age) {
            return Some("that was more than a day ago");
        }
        None
    }
}

/// How far the run that was cut off is, as a number that grows from try to try; 0 if there is none.
pub async fn progress_made(store: &Datastore) -> u64 {
    let kept = store.gc_progress().await.ok().flatten();
    kept.and_then(|bytes| Progress::parse(&bytes).ok()).map_or(0, |progress| progress.next.into())
}

/// The progress that a run begins with, and the line of the log that says so.
pub(super) async fn found(store: &Datastore, manner: Manner) -> (Option<Progress>, Option<String>) {
    let kept = match store.gc_progress().await {
        Ok(Some(bytes)) => Progress::parse(&bytes),
        Ok(None) => return (None, None),
        Err(e) => Err(e.to_string()),
    };
    let progress = match kept {
        Ok(progress) => progress,
        Err(why) => {
            let line = format!("how far the last run was is not known, so all directories are swept: {why}");
            tracing::warn!(store = %store.name(), %why, "the progress of a garbage collection is passed over");
            return (None, Some(line));
        }
    };
    let Progress { upid, next, swept, .. } = &progress;
    let objection = match manner {
        Manner::Fresh => Some("a fresh run was asked for"),
        Manner::Resume => progress.objection(&store.config().gc, store.clock().now()),
    };
    if let Some(why) = objection {
        return (None, Some(format!("not resuming the run {upid}, which was cut off at directory {next:04x}: {why}")));
    }
    let line = format!(
        "resuming at directory {next:04x} of the run {upid} ({next} of {DIRS} directories are swept, {} chunks removed there)",
        swept.removed_chunks
    );
    (Some(progress), Some(line))
}

/// Writes down how far a run is.
#[derive(Debug)]
pub(super) struct Trail<'a> {
    store: &'a Datastore,
    collection: &'a Collection,
    /// Whether there may be a file.
    is_there: bool,
    now: Progress,
    written: u32,
    at: Instant,
}

impl<'a> Trail<'a> {
    /// Of a run that begins, or goes on with `from`.
    pub(super) fn new(store: &'a Datastore, collection: &'a Collection, upid: String, from: Option<&Progress>) -> Self {
        let GcConfig { method, cutoff_minutes, .. } = store.config().gc;
        let saved = store.clock().now();
        let (next, unreadable, swept) =
            from.map_or_else(Default::default, |from| (from.next, from.unreadable, from.swept.clone()));
        let now = Progress { version: VERSION, upid, saved, method, cutoff_minutes, next, unreadable, swept };
        Self { store, collection, is_there: from.is_some(), now, written: next, at: Instant::now() }
    }

    /// All directories before `next` are swept, and had `swept`.
    pub(super) async fn advance(&mut self, next: u32, swept: &Swept, unreadable: u64) {
        if next >= DIRS {
            // Nothing would be left for a run to stand on; the last directory is swept once more.
            return;
        }
        self.now.next = next;
        self.now.unreadable = unreadable;
        self.now.swept.clone_from(swept);
        if next - self.written >= DIRS_BETWEEN || self.at.elapsed() >= TIME_BETWEEN {
            self.write().await;
        }
    }

    /// The run ends here, before its end.
    pub(super) async fn cut_off(&mut self) {
        if self.now.next > self.written {
            let _ = tokio::time::timeout(LAST_WORD_MAX, self.write()).await;
        }
    }

    async fn write(&mut self) {
        (self.written, self.at, self.is_there) = (self.now.next, Instant::now(), true);
        self.now.saved = self.store.clock().now();
        let written = match serde_json::to_vec(&self.now) {
            Ok(bytes) => self.collection.write_progress(bytes).await.map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        if let Err(error) = written {
            tracing::debug!(%error, "how far a garbage collection is could not be written down");
        }
    }

    /// The run is complete: nothing is left to go on with.
    pub(super) async fn clear(&self) -> Result<()> {
        if self.is_there { self.collection.clear_progress().await } else { Ok(()) }
    }
}

/// What is left of the chunks that are looked at for their sizes.
pub(super) fn sample_left(swept: &Swept) -> usize {
    SIZE_SAMPLE_CHUNKS.saturating_sub(usize::try_from(swept.sampled_chunks).unwrap_or(usize::MAX))
}

/// What a run that resumes has to warn of, because the run that was cut off did not come to naming it; `None` if there is nothing.
pub(super) fn unnamed(progress: &Progress) -> Option<String> {
    let Progress { unreadable, swept: Swept { unmet, .. }, upid, .. } = progress;
    (*unmet + *unreadable > 0).then(|| {
        format!(
            "in the directories that are swept, {unmet} chunks that indexes name were missing and {unreadable} could not be looked at: see the log of {upid}, \
             verify the datastore, or run garbage collection afresh"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress() -> Progress {
        Progress {
            version: VERSION,
            upid: "UPID:x".to_owned(),
            saved: EpochSecs(1_717_600_000),
            method: GcMethod::Memory,
            cutoff_minutes: 1445,
            next: 8000,
            unreadable: 0,
            swept: Swept { removed_chunks: 7, ..Swept::default() },
        }
    }

    #[test]
    fn what_was_written_is_read_and_nothing_else() {
        let good = serde_json::to_vec(&progress()).unwrap();
        assert_eq!(Progress::parse(&good), Ok(progress()));
        for cut in 0..good.len() {
            assert!(Progress::parse(&good[..cut]).is_err(), "{cut}");
        }
        for edit in [
            |p: &mut Progress| p.version = 2,
            |p: &mut Progress| p.next = 0,
            |p: &mut Progress| p.next = DIRS,
            |p: &mut Progress| p.unreadable = u64::MAX,
            |p: &mut Progress| p.swept.used_bytes = COUNTER_MAX,
        ] {
            let mut other = progress();
            edit(&mut other);
            assert!(Progress::parse(&serde_json::to_vec(&other).unwrap()).is_err(), "{other:?}");
        }
        assert!(Progress::parse(b"\0\0\0\0").is_err() && Progress::parse(b"[]").is_err());
    }

    #[test]
    fn a_run_of_yesterday_or_of_another_configuration_is_left() {
        let config = GcConfig::default();
        let at = |secs: i64| EpochSecs(1_717_600_000 + secs);
        for (now, config, is_resumed) in [
            (at(0), config, true),
            (at(86_400), config, true),
            (at(86_401), config, false),
            // The clock was set back a little, or by far.
            (at(-300), config, true),
            (at(-86_401), config, false),
            (at(0), GcConfig { method: GcMethod::AccessTime, ..config }, false),
            (at(0), GcConfig { cutoff_minutes: 5, ..config }, false),
            (at(0), GcConfig { memory_max: 1, reserve_bytes: 0, ..config }, true),
        ] {
            assert_eq!(progress().objection(&config, now).is_none(), is_resumed, "{now:?} {config:?}");
        }
    }
}
