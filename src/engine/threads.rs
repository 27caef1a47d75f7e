//! Threads in the place of the ring's workers. With none of them: the serial engine.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;

use super::counters::Way;
use super::dir_fd::DirFd;
use super::driver::{Check, Ended, Ticket, Wake, Workers};
use super::plain;
use super::pool::join_unless_self;
use super::priority::{OfThread, Priorities, Urgency};
use super::schedule::Limits;
use super::stat::StatName;
use super::work_queue::{Taken, WorkQueue};

/// More threads than this cost more than they gain: 32 were the best pool on every disk measured (design §4), and
/// unlike the kernel's workers they stay when idle.
pub(super) const STAT_THREADS_MAX: u32 = 32;

/// A check that owns what it needs, for a thread that may outlive the batch's asker.
#[derive(Debug)]
struct Task {
    ticket: Ticket,
    dir: Arc<DirFd>,
    name: StatName,
    force_sync: bool,
    stamps: bool,
    urgency: Urgency,
}

/// What the engine's thread sleeps for.
#[derive(Debug)]
enum Event {
    Ended(Ended),
    Wake,
}

/// Wakes the engine's thread through the queue that it sleeps on.
#[derive(Clone, Debug)]
pub(super) struct Events {
    queue: Arc<WorkQueue<Event>>,
}

impl Events {
    pub(super) fn new() -> Self {
        Self { queue: Arc::new(WorkQueue::new()) }
    }
}

impl Wake for Events {
    fn wake(&self) {
        // The queue is never closed, so it takes everything.
        let _ = self.queue.push(Event::Wake);
    }
}

/// The threads.
#[derive(Debug)]
pub(super) struct Threads {
    count: usize,
    tasks: Arc<WorkQueue<Task>>,
    events: Events,
    threads: Vec<JoinHandle<()>>,
}

impl Threads {
    /// Starts `count` of them; 0 for an engine that hands nothing over.
    pub(super) fn start(name: &str, count: usize, events: Events, priorities: &Arc<Priorities>) -> io::Result<Self> {
        let tasks = Arc::new(WorkQueue::new());
        let mut started = Self { count, tasks, events, threads: Vec::with_capacity(count) };
        for _ in 0..count {
            let (tasks, events) = (Arc::clone(&started.tasks), started.events.clone());
            let priority = OfThread::new(priorities);
            let body = move || serve(&tasks, &events, priority);
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(body)?;
            started.threads.push(thread);
        }
        Ok(started)
    }
}

fn serve(tasks: &WorkQueue<Task>, events: &Events, mut priority: OfThread) {
    while let Some(task) = tasks.pop() {
        priority.suit(task.urgency);
        let result = plain::stat(&task.dir, &task.name, task.force_sync, task.stamps);
        let _ = events.queue.push(Event::Ended(Ended { ticket: task.ticket, result }));
    }
}

impl Workers for Threads {
    fn limits(&self) -> Limits {
        // As many again wait in the queue, so that a thread finds its next check without the engine's thread.
        Limits { workers: self.count, slots: 2 * self.count }
    }

    fn way(&self) -> Way {
        Way::Pool
    }

    fn begin(&mut self, check: Check<'_>) {
        let Check { ticket, dir, name, force_sync, stamps, urgency } = check;
        // Closed only by our own drop.
        let _ = self.tasks.push(Task { ticket, dir: Arc::clone(dir), name: *name, force_sync, stamps, urgency });
    }

    fn turn(&mut self, sleep: bool, ended: &mut Vec<Ended>) -> io::Result<()> {
        let mut take = |event| match event {
            Event::Ended(end) => ended.push(end),
            Event::Wake => {}
        };
        if sleep && let Some(event) = self.events.queue.pop() {
            take(event);
        }
        while let Taken::Item(event) = self.events.queue.try_pop() {
            take(event);
        }
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.tasks.close_and_clear();
        for thread in self.threads.drain(..) {
            join_unless_self(thread);
        }
    }
}
