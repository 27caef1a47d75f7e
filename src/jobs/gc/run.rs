//! A garbage collection from its first line to its last.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use super::cutoff::Cutoff;
use super::mark::{mark, name_missing};
use super::report::{GcStatus, Marked, Swept, effort, estimate, reading, shown_bytes};
use super::resume::{self, LAST_WORD_MAX, Manner, Progress, Trail, sample_left, unnamed};
use super::sweep::{Progress as Told, Rule, sweep};
use crate::error::{Error, Kind, Result, SHUTTING_DOWN};
use crate::jobs::budget::{tell_rate, told};
use crate::store::layout::CHUNK_DIR_COUNT as DIRS;
use crate::store::{Collection, Datastore, DirNames, GcConfig, GcMethod as Method, Rate};
use crate::task::{Registry, RunKind, Task};
use crate::types::{AuthId, Upid};

/// Type of the task.
pub const WORKER_TYPE: &str = "garbage_collection";

/// What a run found and did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcReport {
    /// The status that is kept.
    pub status: GcStatus,
    /// What the marking found, and what it took.
    pub marked: Marked,
    /// What the sweep found, and what it took.
    pub swept: Swept,
}

/// Starts a garbage collection as a task, which ends early when somebody aborts it, or when `closing` resolves. `guard` is kept until it is over. `rate`
/// holds for this run, beside that of the datastore.
///
/// Errors: `Busy` while another one runs on this datastore, or while another process uses it.
pub async fn start(
    store: Datastore,
    (manner, rate): (Manner, Rate),
    tasks: &Registry,
    auth: &AuthId,
    closing: impl Future<Output = ()> + Send + 'static,
    guard: impl Send + 'static,
) -> Result<Upid> {
    let collection = begin_at(&store, rate).await?;
    let task = match tasks.start(WORKER_TYPE, Some(store.name().to_string()), auth).await {
        Ok(task) => task,
        Err(e) => {
            collection.end().await;
            return Err(e);
        }
    };
    let upid = task.upid().clone();
    task.is_run_of(store.name(), RunKind::Gc);
    tell_rate(&rate, &task);
    tokio::spawn(async move {
        let result = run(&store, manner, collection, &task, closing).await;
        task.end(result.map(drop).map_err(|e| e.to_string())).await;
        drop(guard);
    });
    Ok(upid)
}

/// Takes the right to remove chunks.
pub async fn begin(store: &Datastore) -> Result<Collection> {
    begin_at(store, Rate::NONE).await
}

async fn begin_at(store: &Datastore, rate: Rate) -> Result<Collection> {
    store.begin_collection(rate).await.map_err(|e| match e.kind() {
        Kind::Busy => e.context(format_args!("unable to start garbage collection on datastore '{}'", store.name())),
        _ => e,
    })
}

/// Collects the garbage of a datastore, tells the task how far it is, and stores the status of a complete run. An abort of the task, or
/// `closing`, ends it within the file operation that it is in. How far it was is kept for the next run, whatever ended it.
pub async fn run(
    store: &Datastore,
    manner: Manner,
    collection: Collection,
    task: &Task,
    closing: impl Future<Output = ()>,
) -> Result<GcReport> {
    let result = {
        let work = told(collection.share(), task, collect(store, manner, &collection, task));
        tokio::pin!(work);
        tokio::select! {
            result = &mut work => result,
            () = task.aborted() => {
                task.log("received abort request ...");
                collection.stop();
                // What has begun to remove ends first; only then may anybody else come in.
                work.await
            }
            () = closing => {
                collection.stop();
                work.await.map_err(|e| match e.kind() {
                    Kind::Closed => Error::closed(SHUTTING_DOWN),
                    _ => e,
                })
            }
        }
    };
    collection.end().await;
    result
}

async fn collect(store: &Datastore, manner: Manner, collection: &Collection, task: &Task) -> Result<GcReport> {
    task.log(format!("starting garbage collection on store {}", store.name()));
    let (resumed, told) = resume::found(store, manner).await;
    if let (None, Some(_)) = (&resumed, &told) {
        // Should this run end before it has swept anything, nobody goes on with that one either.
        collection.clear_progress().await?;
    }
    told.into_iter().for_each(|line| task.log(line));
    let mut trail = Trail::new(store, collection, task.upid().to_string(), resumed.as_ref());
    let mut names = collection.dir_names(manner == Manner::Fresh).await;
    let report = collect_from(store, resumed, collection, task, (&mut trail, &mut names)).await;
    if report.is_err() {
        trail.cut_off().await;
        let _ = tokio::time::timeout(LAST_WORD_MAX, names.discard()).await;
    }
    report
}

async fn collect_from(
    store: &Datastore,
    resumed: Option<Progress>,
    collection: &Collection,
    task: &Task,
    (trail, names): (&mut Trail<'_>, &mut DirNames),
) -> Result<GcReport> {
    let GcConfig { method, memory_max, cutoff_minutes, reserve_bytes } = store.config().gc;
    collection.keep_reserve(reserve_bytes).await;
    if method == Method::AccessTime {
        task.log("checking that the file system keeps access times");
        collection.check_access_times().await?;
    }
    let phase1_start = store.clock().now();
    let cutoff = Cutoff::new(phase1_start, store.oldest_writer(), i64::from(cutoff_minutes) * 60);
    let (mut next, mut width) = (resumed.as_ref().map_or(0, |from| from.next), DIRS);
    let (mut marked, mut told) = (Marked::default(), Told::from(resumed.as_ref()));
    resumed.as_ref().and_then(unnamed).into_iter().for_each(|line| task.warn(line));
    names.carry_over(next).await?;
    let mut swept = resumed.map(|from| from.swept).unwrap_or_default();
    let rule = Rule { cutoff, method, sample: Arc::new(AtomicUsize::new(sample_left(&swept))) };
    while next < DIRS {
        let pass = collection.begin_pass(next..DIRS.min(next + width), memory_max).await?;
        task.log("Start GC phase1 (mark used chunks)");
        let files = mark(&pass, method, task, &mut marked).await?;
        let range = pass.prefixes();
        if range.end != DIRS || marked.passes > 1 {
            let (end, max) = (range.end - 1, shown_bytes(memory_max));
            task.log(format!("the live chunks do not fit into {max}: this pass is about {next:04x} to {end:04x}"));
        }
        task.log("Start GC phase2 (sweep unused chunks)");
        let unmet_before = swept.unmet;
        sweep(&pass, &rule, task, (&mut swept, &mut told, trail, names)).await?;
        names.take_trouble().into_iter().for_each(|line| task.log(line));
        if swept.unmet > unmet_before {
            name_missing(&pass, store, &files, task).await?;
        }
        pass.forget_doubts().await?;
        // Digests are spread evenly, so the next pass will hold about as many directories.
        (next, width) = (range.end, range.end - range.start);
    }
    collection.confirm().await?;
    let status = swept.status(&marked, task.upid().to_string());
    status.lines().into_iter().chain(estimate(&swept)).for_each(|line| task.log(line));
    task.log(effort(&marked, &swept));
    task.log(reading(&swept));
    // The history names the task anyway.
    task.figures(&GcStatus { upid: None, ..status.clone() });
    if collection.has_used_reserve() {
        task.log(format!("the disk was full: the reserve of {} was given up for this run", shown_bytes(reserve_bytes)));
    }
    let json = serde_json::to_vec(&status).map_err(|e| Error::invalid("status cannot be written").with_source(e))?;
    if let Err(e) = collection.write_status(json).await {
        // The garbage is gone all the same; on a full disk that may be the only thing that works.
        task.log(format!("the status of this run is not kept: {e}"));
    }
    names.finish().await;
    names.take_trouble().into_iter().for_each(|line| task.log(line));
    if let Err(e) = trail.clear().await {
        task.log(format!("the next run may take this one for one that was cut off: {e}"));
    }
    collection.keep_reserve(reserve_bytes).await;
    Ok(GcReport { status, marked, swept })
}
