//! Which thread works at idle I/O priority, and when that changes.
//!
//! A thread remembers what it is and asks the kernel only when the next piece of work is of the other kind. So a collection on its own costs one
//! system call a thread, and sessions on their own none; both together cost one for each change (0.2 µs), beside a piece of work that waits for a disk.
//!
//! What has an effect: the reads of a pool thread, and of the ring's workers, which share the priority of the engine's own thread. A request that
//! the ring carries for `statx` has no priority of its own (the kernel refuses one), so the engine's thread is idle only while all that is in flight
//! is background work. The disk's scheduler has to look at it: `bfq` and `mq-deadline` do, `none` and `kyber` do not, nor do limits of control groups.
//!
//! What holds a lock that a client may wait for, a chunk's claim above all, is never done at idle priority: the client would wait as long as
//! the disk is busy.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::uring::ioprio;

/// For whom a piece of work is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Urgency {
    /// Somebody waits for it.
    #[default]
    Foreground,
    /// A job, when the disk has nothing else to do.
    Background,
}

/// Whether background work is to be idle, for all threads of an engine; and what came of it.
#[derive(Debug, Default)]
pub(super) struct Priorities {
    idle_wanted: AtomicBool,
    changes: AtomicU64,
    refused: AtomicBool,
}

/// What one thread is, which it alone changes.
#[derive(Debug)]
pub(super) struct OfThread {
    shared: Arc<Priorities>,
    is_idle: bool,
    /// What it was before it first became idle: the daemon may have been started with a priority.
    before: Option<i32>,
}

impl Priorities {
    pub(super) fn want_idle(&self, wanted: bool) {
        self.idle_wanted.store(wanted, Ordering::Relaxed);
    }

    /// Changes of a thread's priority so far.
    pub(super) fn changes(&self) -> u64 {
        self.changes.load(Ordering::Relaxed)
    }
}

impl OfThread {
    pub(super) fn new(shared: &Arc<Priorities>) -> Self {
        Self { shared: Arc::clone(shared), is_idle: false, before: None }
    }

    /// For the thread that calls, before it has workers of the ring: they share what the kernel keeps a priority in, if it is there by then, and
    /// it is there once a priority has been set.
    pub(super) fn prepare(&self) {
        // Without it they only stay as they are.
        let _ = ioprio::get().and_then(ioprio::set);
    }

    /// Makes the thread that calls what the next piece of work wants.
    pub(super) fn suit(&mut self, urgency: Urgency) {
        let idle = urgency == Urgency::Background && self.shared.idle_wanted.load(Ordering::Relaxed);
        if idle == self.is_idle || (idle && self.shared.refused.load(Ordering::Relaxed)) {
            return;
        }
        match self.set(idle) {
            Ok(()) => {
                self.is_idle = idle;
                self.shared.changes.fetch_add(1, Ordering::Relaxed);
            }
            Err(error) => {
                // Nothing is lost but politeness.
                self.shared.refused.store(true, Ordering::Relaxed);
                tracing::warn!(%error, "background work keeps its I/O priority: the kernel, or a sandbox, refuses another");
            }
        }
    }

    fn set(&mut self, idle: bool) -> io::Result<()> {
        if !idle {
            return ioprio::set(self.before.unwrap_or_default());
        }
        if self.before.is_none() {
            self.before = Some(ioprio::get()?);
        }
        ioprio::set(ioprio::IDLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Class, DirFd, Engine, EngineChoice, EngineConfig, StatBatch, StatName};
    use std::os::fd::OwnedFd;

    #[tokio::test]
    async fn a_collection_on_its_own_costs_one_system_call_a_thread() {
        let engine = Engine::start("prio-pool", &EngineConfig { io_threads: 2, ..EngineConfig::default() }).unwrap();
        let job = engine.in_background();
        let is = async |engine: &Engine| engine.run(|_| ioprio::get().unwrap()).await.unwrap();
        let own = is(&engine).await;
        assert_eq!((is(&job).await, engine.counters().priority_changes), (own, 0), "nobody wants it");
        engine.want_idle_priority(true);
        for _ in 0..100 {
            assert_eq!(is(&job).await, ioprio::IDLE);
        }
        assert!(engine.counters().priority_changes <= 2, "{:?}", engine.counters());
        for _ in 0..100 {
            assert_eq!(is(&engine).await, own);
        }
        assert!(engine.counters().priority_changes <= 4, "{:?}", engine.counters());
        engine.shutdown();
    }

    /// Numbers of the threads of this process whose names begin so.
    fn threads(name: &str) -> Vec<i32> {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().map(|entry| entry.unwrap());
        let named =
            tasks.filter(|task| std::fs::read_to_string(task.path().join("comm")).is_ok_and(|c| c.starts_with(name)));
        named.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
    }

    /// The ring's workers have the priority of the thread that submits, also when that changes: they share what the kernel keeps it in.
    #[tokio::test]
    async fn the_rings_workers_are_idle_for_jobs_alone() {
        let config = EngineConfig { choice: EngineChoice::Uring, ..EngineConfig::default() };
        let engine = match Engine::start("prio-ring", &config) {
            Ok(engine) => engine,
            Err(e) => return println!("skipped: {e}"),
        };
        engine.want_idle_priority(true);
        let dir = Arc::new(DirFd::from(OwnedFd::from(std::fs::File::open("/").unwrap())));
        let batch = |class| StatBatch {
            dir: Arc::clone(&dir),
            names: vec![StatName::new("etc").unwrap(); 256],
            class,
            force_sync: false,
            stamps: false,
        };
        let own = ioprio::get().unwrap();
        let mut seen = 0;
        for (class, wanted) in [
            (Class::Interactive, own),
            (Class::Background, ioprio::IDLE),
            (Class::Sweep, own),
            (Class::Background, ioprio::IDLE),
            (Class::Interactive, own),
        ] {
            engine.stat(batch(class)).await.unwrap();
            // A worker that has just been made has its name for a moment; the first one is the thread.
            let submitter = threads("uring:prio-ring").into_iter().min().expect("its thread");
            assert_eq!(ioprio::of_thread(submitter).unwrap(), wanted, "{class:?}");
            for worker in threads(&format!("iou-wrk-{submitter}")) {
                // It may end at any time.
                let is = ioprio::of_thread(worker);
                assert!(is.as_ref().map_or(true, |is| *is == wanted), "{class:?}: worker has {is:?}");
                seen += 1;
            }
        }
        println!("looked at {seen} workers");
        assert_eq!(engine.counters().priority_changes, 4);
        engine.shutdown();
    }

    #[test]
    fn a_thread_changes_only_when_the_kind_of_work_does() {
        std::thread::spawn(|| {
            let shared = Arc::new(Priorities::default());
            let mut thread = OfThread::new(&shared);
            let own = ioprio::get().unwrap();
            thread.suit(Urgency::Background);
            assert_eq!((shared.changes(), ioprio::get().unwrap()), (0, own), "nobody wants it");
            shared.want_idle(true);
            (0..100).for_each(|_| thread.suit(Urgency::Background));
            assert_eq!((shared.changes(), ioprio::get().unwrap()), (1, ioprio::IDLE));
            (0..100).for_each(|_| thread.suit(Urgency::Foreground));
            assert_eq!((shared.changes(), ioprio::get().unwrap()), (2, own));
            thread.suit(Urgency::Background);
            shared.want_idle(false);
            thread.suit(Urgency::Background);
            assert_eq!((shared.changes(), ioprio::get().unwrap()), (4, own), "switched off");
        })
        .join()
        .unwrap();
    }
}
