//! The loop of an engine's own thread: takes batches in, answers what is warm itself, hands the rest to workers,
//! answers.
//!
//! The same loop drives the ring, the threads and the serial engine; they differ in the [`Workers`] behind it and in
//! the [`Policy`].

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use rustix::io::Errno;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::adaptive::{Adaptive, Next, Start};
use super::counters::{Counters, Way};
use super::dir_fd::DirFd;
use super::plain::{self, Cached};
use super::priority::{OfThread, Priorities, Urgency};
use super::schedule::{Key, Limits, Schedule};
use super::stat::{StatBatch, StatName, StatResult};
use super::work_queue::{Taken, WorkQueue};

/// Checks of one batch that may be asked again because they ended without an answer (`EINTR`, `EAGAIN`, `ECANCELED`).
/// Past it the number is the answer, so a file system that always says `EAGAIN` ends too.
const RETRIES_MAX: u32 = 1024;

/// Who makes the checks of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// Warm ones inline, the rest by the workers.
    Adaptive,
    /// All of them by the workers.
    WorkersOnly,
    /// All of them inline.
    InlineOnly,
}

/// A batch on its way to the engine's thread.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) batch: StatBatch,
    pub(super) reply: oneshot::Sender<Vec<StatResult>>,
    /// Bounds the batches that are taken in; goes back with the answer.
    pub(super) place: OwnedSemaphorePermit,
}

/// Ends the sleep of an engine's thread from another one.
pub(super) trait Wake: Send + Sync {
    fn wake(&self);
}

/// Where batches come in.
pub(super) struct Intake {
    requests: WorkQueue<Request>,
    /// Set by the engine's thread before it looks at `requests` for the last time and sleeps; a wake-up is a system
    /// call, so it is only made then.
    asleep: AtomicBool,
    waker: Box<dyn Wake>,
}

impl Intake {
    pub(super) fn new(waker: Box<dyn Wake>) -> Self {
        Self { requests: WorkQueue::new(), asleep: AtomicBool::new(false), waker }
    }

    /// Gives the request back when the engine is closed.
    pub(super) fn push(&self, request: Request) -> Result<(), Request> {
        self.requests.push(request)?;
        self.rouse();
        Ok(())
    }

    /// Refuses further batches; the engine's thread ends after those that are in.
    pub(super) fn close(&self) {
        self.requests.close();
        self.rouse();
    }

    fn rouse(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }
}

/// One check of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) key: Key,
    pub(super) pos: u32,
}

/// A check as workers get it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Check<'a> {
    pub(super) ticket: Ticket,
    pub(super) dir: &'a Arc<DirFd>,
    pub(super) name: &'a StatName,
    pub(super) force_sync: bool,
    pub(super) stamps: bool,
    pub(super) urgency: Urgency,
}

/// A check that a worker has ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) ticket: Ticket,
    pub(super) result: StatResult,
}

/// Those who may wait for a disk so that the engine's thread need not.
pub(super) trait Workers {
    fn limits(&self) -> Limits;

    /// How their answers are counted.
    fn way(&self) -> Way;

    /// Takes a check over. The caller keeps to [`Limits::slots`]. Need not begin before the next [`Self::turn`].
    fn begin(&mut self, check: Check<'_>);

    /// Begins all that was taken over and puts what has ended behind `ended`. With `sleep` it waits until there is
    /// something, or for a wake-up.
    ///
    /// An error is final: the workers answer no more.
    fn turn(&mut self, sleep: bool, ended: &mut Vec<Ended>) -> io::Result<()>;
}

/// A batch under way.
struct Job {
    request: Request,
    results: Vec<StatResult>,
    retries: u32,
}

/// The state of an engine's thread.
///
/// Fields are dropped in this order: the workers first, which wait until nothing is in flight, then the batches and
/// their descriptors.
pub(super) struct Driver<W: Workers> {
    workers: W,
    policy: Policy,
    /// One per class: what a sweep finds cold says little about an append, which a preflight sweep may have warmed.
    adaptive: [Adaptive; 3],
    cache_can_be_asked: bool,
    schedule: Schedule<Job>,
    ended: Vec<Ended>,
    counters: Arc<Counters>,
    intake: Arc<Intake>,
    /// Of this thread, and with it of the ring's workers.
    priority: OfThread,
}

impl<W: Workers> Driver<W> {
    pub(super) fn new(
        workers: W,
        policy: Policy,
        intake: Arc<Intake>,
        counters: Arc<Counters>,
        priorities: &Arc<Priorities>,
    ) -> Self {
        Self {
            schedule: Schedule::new(workers.limits()),
            workers,
            policy,
            adaptive: [Adaptive::new(); 3],
            cache_can_be_asked: true,
            ended: Vec::new(),
            counters,
            intake,
            priority: OfThread::new(priorities),
        }
    }

    /// Works until the intake is closed and all that was in it is answered.
    pub(super) fn run(mut self) -> io::Result<()> {
        self.priority.prepare();
        loop {
            let open = self.take_requests();
            if let Some(urgency) = self.schedule.urgency() {
                self.priority.suit(urgency);
            }
            let piece = self.schedule.next_piece();
            let idle = piece.is_none();
            if let Some((key, piece)) = piece {
                self.examine(key, piece);
                self.answer_if_done(key);
            }
            self.hand_over();
            if !open && self.schedule.is_empty() {
                return Ok(());
            }
            self.turn(idle, open)?;
        }
    }

    /// `false` once no more can come.
    fn take_requests(&mut self) -> bool {
        loop {
            match self.intake.requests.try_pop() {
                Taken::Item(request) => {
                    let names = request.batch.names.len();
                    let class = request.batch.class;
                    let results = vec![Err(Errno::CANCELED); names];
                    let key = self.schedule.add(class, names, Job { request, results, retries: 0 });
                    self.answer_if_done(key);
                }
                Taken::Empty => return true,
                Taken::Closed => return false,
            }
        }
    }

    /// Answers what can be answered here, and leaves the rest of the piece to the workers.
    fn examine(&mut self, key: Key, piece: Range<usize>) {
        let batch = &self.schedule.payload(key).request.batch;
        let adaptive = self.adaptive[batch.class as usize];
        match self.policy {
            Policy::InlineOnly => self.inline(key, piece, false),
            Policy::WorkersOnly => self.leave_to_workers(key, piece),
            // Its answer is with a server, never in memory.
            Policy::Adaptive if batch.force_sync => self.leave_to_workers(key, piece),
            Policy::Adaptive => match adaptive.start() {
                Start::Inline => self.inline(key, piece, true),
                Start::ProbeFirst if self.cache_can_be_asked => self.probe(key, piece),
                Start::ProbeFirst => self.leave_to_workers(key, piece),
            },
        }
    }

    /// Plain calls. With `may_give_up` the first slow one ends it and leaves the rest to the workers.
    fn inline(&mut self, key: Key, piece: Range<usize>, may_give_up: bool) {
        let job = self.schedule.payload(key);
        let batch = &job.request.batch;
        let adaptive = &mut self.adaptive[batch.class as usize];
        let mut left = piece.clone();
        let mut before = Instant::now();
        for pos in left.by_ref() {
            job.results[pos] = plain::stat(&batch.dir, &batch.names[pos], batch.force_sync, batch.stamps);
            let after = Instant::now();
            if may_give_up && adaptive.inline_took(after - before) == Next::Workers {
                break;
            }
            before = after;
        }
        self.counters.answered(Way::Inline, (left.start - piece.start) as u64);
        self.leave_to_workers(key, left);
    }

    /// What the name cache knows; misses to the workers.
    fn probe(&mut self, key: Key, piece: Range<usize>) {
        let job = self.schedule.payload(key);
        let batch = &job.request.batch;
        let class = batch.class;
        let dir = Arc::clone(&batch.dir);
        let count = piece.len();
        let mut misses = Vec::new();
        for pos in piece {
            match plain::stat_cached(dir.as_fd(), &batch.names[pos], batch.stamps) {
                Cached::Hit(stat) => job.results[pos] = Ok(stat),
                Cached::Miss => misses.push(pos),
                Cached::Unsupported => {
                    self.cache_can_be_asked = false;
                    misses.push(pos);
                }
            }
        }
        self.adaptive[class as usize].probed(misses.len());
        self.counters.answered(Way::Cached, (count - misses.len()) as u64);
        self.leave_to_workers(key, misses);
    }

    fn leave_to_workers(&mut self, key: Key, positions: impl IntoIterator<Item = usize>) {
        for pos in positions {
            let pos = u32::try_from(pos).expect("longer batches are refused at the door");
            self.schedule.needs_worker(key, pos);
        }
    }

    fn hand_over(&mut self) {
        while let Some((key, pos)) = self.schedule.next_hand_over() {
            let batch = &self.schedule.payload(key).request.batch;
            self.workers.begin(Check {
                ticket: Ticket { key, pos },
                dir: &batch.dir,
                name: &batch.names[pos as usize],
                force_sync: batch.force_sync,
                stamps: batch.stamps,
                urgency: batch.class.urgency(),
            });
        }
        self.counters.in_flight(self.schedule.in_flight());
    }

    /// Lets the workers have what was handed over and takes their answers in. `open`: whether batches may still come.
    fn turn(&mut self, idle: bool, open: bool) -> io::Result<()> {
        let mut ended = std::mem::take(&mut self.ended);
        let turned = if idle { self.sleep(open, &mut ended) } else { self.workers.turn(false, &mut ended) };
        for Ended { ticket: Ticket { key, pos }, result } in ended.drain(..) {
            self.schedule.ended(key);
            let job = self.schedule.payload(key);
            let no_answer = matches!(result, Err(Errno::INTR | Errno::AGAIN | Errno::CANCELED));
            if no_answer && job.retries < RETRIES_MAX {
                job.retries += 1;
                self.schedule.needs_worker(key, pos);
            } else {
                job.results[pos as usize] = result;
                self.counters.answered(self.workers.way(), 1);
                self.answer_if_done(key);
            }
        }
        self.ended = ended;
        self.counters.in_flight(self.schedule.in_flight());
        turned
    }

    fn sleep(&mut self, open: bool, ended: &mut Vec<Ended>) -> io::Result<()> {
        // In this order: a push or a close after our look finds `asleep` set and wakes us; one before is seen by the
        // look. Once we know of the close nothing more can come, and only answers end the sleep.
        self.intake.asleep.store(true, Ordering::SeqCst);
        let sleep = !open || self.intake.requests.would_wait();
        let turned = self.workers.turn(sleep, ended);
        self.intake.asleep.store(false, Ordering::SeqCst);
        turned
    }

    fn answer_if_done(&mut self, key: Key) {
        let Some(job) = self.schedule.take_if_done(key) else { return };
        let Request { batch, reply, place } = job.request;
        self.counters.batch(batch.class);
        drop(place);
        // The asker may be gone; its checks were made all the same.
        let _ = reply.send(job.results);
    }
}

impl<W: Workers> Drop for Driver<W> {
    fn drop(&mut self) {
        // After a panic or a failed ring: nobody is left to answer, so those who ask must hear of it rather than wait.
        self.intake.requests.close_and_clear();
    }
}

#[cfg(test)]
#[path = "driver_tests.rs"]
mod tests;
