//! Backups come first: what background work asks before each of its steps (docs/operations.md, "Backups come first").
//!
//! ```text
//!  job ─▶ Share::take ─▶ rule ● ─ go ───▶ Turn ─ dropped when the unit is done ─┐
//!                         │ ▲ wait: for the rate, or for backups                │
//!              bucket ●, back_off ●, latency ●, pressure ●  ◀──────────────────┘
//!                           ▲
//!  session's append ─▶ Append ─ dropped when it is answered
//! ```
//!
//! One per open datastore, whatever jobs run on it. Whoever waits holds nothing but its place in the line of its job: a future that is dropped
//! has drawn nothing, and one that is stopped stops at once.

mod back_off;
mod bucket;
mod latency;
mod pressure;
mod rate;
mod rule;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

pub use self::rate::Rate;
pub use self::rule::{BackgroundConfig, Cause};
use self::rule::{Buckets, Rule, Verdict};
use crate::sync::Mutex;

/// Asks the kernel for the text of `/proc/pressure/io`.
type ReadPressure = Box<dyn Fn() -> io::Result<String> + Send + Sync>;

/// The budget of a datastore's background work. A cheap clone.
#[derive(Clone, Debug)]
pub struct Budget {
    inner: Arc<Inner>,
}

struct Inner {
    store: String,
    rule: Mutex<Rule>,
    /// Rouses whoever waits, when more may be allowed than he thinks.
    changed: Notify,
    started: Instant,
    read_pressure: ReadPressure,
    no_pressure: AtomicBool,
    waited: Mutex<Waited>,
}

/// How long background work was held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waited {
    /// For sessions.
    pub backups: Duration,
    /// For its rate.
    pub rate: Duration,
}

impl Waited {
    fn add(&mut self, cause: Cause, time: Duration) {
        match cause {
            Cause::Backups => self.backups += time,
            Cause::Rate => self.rate += time,
        }
    }
}

/// The part of one job. A cheap clone for each of the things that it does at a time; they wait in line.
#[derive(Clone, Debug)]
pub struct Share {
    job: Arc<Job>,
}

#[derive(Debug)]
struct Job {
    budget: Budget,
    /// The rate of this job alone.
    own: Mutex<Buckets>,
    /// Held by the one that is asking: those behind it have nothing to ask.
    line: tokio::sync::Mutex<()>,
    waited: watch::Sender<Waited>,
}

/// A unit of background work that may go on, until this is dropped.
#[derive(Debug)]
pub struct Turn {
    job: Arc<Job>,
    begun: Duration,
    bytes: u64,
}

/// A session that runs, until this is dropped.
#[derive(Debug)]
pub struct Guest {
    budget: Budget,
}

/// An append that a client waits for, until this is dropped.
#[derive(Debug)]
pub(super) struct Append {
    budget: Budget,
    key: u64,
}

impl Budget {
    /// Of the datastore `store`. `read_pressure` gets the text of `/proc/pressure/io`; an error means that there is none.
    pub(super) fn new(
        store: &str,
        config: &BackgroundConfig,
        read_pressure: impl Fn() -> io::Result<String> + Send + Sync + 'static,
    ) -> Self {
        let inner = Inner {
            store: store.to_owned(),
            rule: Mutex::new(Rule::new(config, Duration::ZERO)),
            changed: Notify::new(),
            started: Instant::now(),
            read_pressure: Box::new(read_pressure),
            no_pressure: AtomicBool::new(false),
            waited: Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Other settings from now on, for what runs too.
    pub(super) fn set(&self, config: &BackgroundConfig) {
        self.inner.rule.lock().set(config, self.now());
        self.inner.changed.notify_waiters();
    }

    /// The part of a job that begins, which may have a rate of its own beside that of the datastore.
    pub fn share(&self, own: Rate) -> Share {
        let own = Mutex::new(Buckets::new(own, self.now()));
        let job =
            Job { budget: self.clone(), own, line: tokio::sync::Mutex::new(()), waited: watch::Sender::default() };
        Share { job: Arc::new(job) }
    }

    /// For how long background work has been held back since the datastore was opened. Jobs that wait at the same time count each.
    pub fn waited(&self) -> Waited {
        *self.inner.waited.lock()
    }

    /// How far it makes way for sessions now: 0 not at all, each number half as much as the one before, 8 at most.
    pub fn level(&self) -> u32 {
        self.inner.rule.lock().level()
    }

    /// A session begins.
    pub fn guest(&self) -> Guest {
        self.inner.rule.lock().back_off.guest(true);
        Guest { budget: self.clone() }
    }

    /// A client waits for an append.
    pub(super) fn append(&self) -> Append {
        let now = self.now();
        let mut rule = self.inner.rule.lock();
        let busy = rule.busy(now);
        let key = rule.back_off.append_begun(now, busy);
        Append { budget: self.clone(), key }
    }

    fn now(&self) -> Duration {
        self.inner.started.elapsed()
    }

    fn see_pressure(&self) {
        let now = self.now();
        if self.inner.no_pressure.load(Ordering::Relaxed) || !self.inner.rule.lock().wants_pressure(now) {
            return;
        }
        // Some microseconds, out of the kernel's memory: no disk is asked.
        let total = (self.inner.read_pressure)().map(|text| pressure::some_total(&text));
        match total {
            Ok(Some(total)) => self.inner.rule.lock().back_off.take_pressure(now, total),
            Ok(None) | Err(_) => {
                let error = total.err().map(|e| e.to_string());
                if !self.inner.no_pressure.swap(true, Ordering::Relaxed) {
                    let store = &self.inner.store;
                    tracing::info!(
                        store,
                        error,
                        "the kernel tells no I/O pressure: background work goes by appends alone"
                    );
                }
            }
        }
    }
}

impl Share {
    /// Waits until a unit of about so many chunks and bytes may begin. It may be dropped at any time, and has drawn nothing then.
    pub async fn take(&self, chunks: u64, bytes: u64) -> Turn {
        let (job, budget) = (&self.job, &self.job.budget);
        let _first_in_line = job.line.lock().await;
        loop {
            // Listens before it asks, so that nothing that happens in between is missed.
            let changed = budget.inner.changed.notified();
            budget.see_pressure();
            let now = budget.now();
            let verdict = {
                let mut own = job.own.lock();
                budget.inner.rule.lock().ask(now, &mut own, (chunks, bytes))
            };
            let Verdict::Wait { until, cause } = verdict else {
                return Turn { job: Arc::clone(job), begun: now, bytes };
            };
            let _waiting = Waiting { job, cause, since: now };
            let until = budget.inner.started + until;
            tokio::select! {
                () = tokio::time::sleep_until(until) => {}
                () = changed => {}
            }
        }
    }

    /// Most of `chunks` that should be one unit.
    pub fn piece(&self, chunks: usize) -> usize {
        let own = self.job.own.lock().piece();
        let piece = own.min(self.job.budget.inner.rule.lock().piece());
        chunks.min(usize::try_from(piece).unwrap_or(usize::MAX))
    }

    /// For how long this job was held back. A change is told when a wait ends.
    pub fn waited(&self) -> watch::Receiver<Waited> {
        self.job.waited.subscribe()
    }
}

/// A wait, counted when it ends, however it does.
struct Waiting<'a> {
    job: &'a Job,
    cause: Cause,
    since: Duration,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let Self { job, cause, since } = *self;
        let time = job.budget.now().saturating_sub(since);
        job.waited.send_modify(|waited| waited.add(cause, time));
        job.budget.inner.waited.lock().add(cause, time);
    }
}

impl Turn {
    /// Says how many bytes it has been, where that was not known before.
    pub fn settle(&mut self, bytes: u64) {
        let more = bytes.saturating_sub(self.bytes);
        let less = self.bytes.saturating_sub(bytes);
        let mut own = self.job.own.lock();
        let mut rule = self.job.budget.inner.rule.lock();
        for buckets in [&mut *own, &mut rule.buckets] {
            buckets.draw((0, more));
            buckets.put_back_bytes(less);
        }
        self.bytes = bytes;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let budget = &self.job.budget;
        let now = budget.now();
        budget.inner.rule.lock().ended(now, now.saturating_sub(self.begun));
        budget.inner.changed.notify_waiters();
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.budget.inner.rule.lock().back_off.guest(false);
        self.budget.inner.changed.notify_waiters();
    }
}

impl Drop for Append {
    fn drop(&mut self) {
        let now = self.budget.now();
        let mut rule = self.budget.inner.rule.lock();
        let busy = rule.busy(now);
        rule.back_off.append_ended(self.key, now, busy);
    }
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget").field("store", &self.store).field("rule", &self.rule).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
