//! What a running job shows to whoever prints the status line.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::log::Logs;
use super::stats::{Io, Stats};
use crate::sync::Mutex;

/// Where a job is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Waits for an earlier wave.
    #[default]
    Waiting,
    /// Makes the data that it needs.
    LayingOut,
    /// Runs, and what it measures does not count yet.
    Ramp,
    /// Runs and counts.
    Running,
    /// Has ended, and removes what it made.
    Ending,
    /// Is done.
    Done,
}

/// One of the `numjobs` runs of a job: written by it, read by the status line and by `--status-interval`.
#[derive(Clone, Debug, Default)]
pub struct Live {
    state: Arc<Mutex<State>>,
    stop: Arc<AtomicBool>,
}

#[derive(Debug, Default)]
struct State {
    phase: Phase,
    since: Option<Instant>,
    /// How long it counted, once it does no longer.
    counted: Option<Duration>,
    /// When it began to count, in ms since 1970.
    started_ms: u64,
    /// Whether it left the ramp.
    has_run: bool,
    /// I/Os until the job ends by itself, if that is known.
    expected_ios: Option<u64>,
    stats: Stats,
    logs: Option<Logs>,
}

/// A look at a job under way.
#[derive(Clone, Debug, Default)]
pub struct Glance {
    /// Where it is.
    pub phase: Phase,
    /// How long it has been counting.
    pub elapsed: Duration,
    /// I/Os until it ends by itself, if that is known.
    pub expected_ios: Option<u64>,
    /// What it measured.
    pub stats: Stats,
}

impl State {
    fn elapsed(&self) -> Duration {
        self.counted.or_else(|| self.since.map(|since| since.elapsed())).unwrap_or_default()
    }
}

impl Live {
    /// A job that shares the order to stop with `other`.
    pub fn beside(other: &Self) -> Self {
        Self { state: Arc::default(), stop: Arc::clone(&other.stop) }
    }

    /// Enters a phase; entering [`Phase::Running`] forgets what was measured before it and starts the clock,
    /// [`Phase::Ending`] stops it.
    pub fn enter(&self, phase: Phase) {
        let mut state = self.state.lock();
        if matches!(phase, Phase::Ramp | Phase::Running) {
            state.since = Some(Instant::now());
            state.started_ms = now_ms();
            state.has_run |= phase == Phase::Running;
            state.stats = Stats::default();
        } else if state.counted.is_none() && state.since.is_some() {
            let counted = state.elapsed();
            state.counted = Some(counted);
            if let Some(mut logs) = state.logs.take().filter(|_| state.has_run) {
                logs.end(counted);
            }
        }
        state.phase = phase;
    }

    /// Lets it write logs from when it counts until it ends.
    pub fn log_to(&self, logs: Logs) {
        self.state.lock().logs = Some(logs);
    }

    /// Closes its logs.
    pub fn end_log(&self) {
        let logs = self.state.lock().logs.take();
        drop(logs);
    }

    /// Says how many I/Os the job makes in all.
    pub fn expect(&self, ios: u64) {
        self.state.lock().expected_ios = Some(ios);
    }

    /// Counts what came back.
    pub fn record(&self, io: &Io) {
        let mut state = self.state.lock();
        let at = state.elapsed();
        state.stats.add(io, at);
        if state.phase == Phase::Running
            && let Some(logs) = &mut state.logs
        {
            logs.add(io, at);
        }
    }

    /// Phase and time in it; cheap.
    pub fn clock(&self) -> (Phase, Duration) {
        let state = self.state.lock();
        (state.phase, state.elapsed())
    }

    /// When it began to count, in ms since 1970; 0 before that.
    pub fn started_ms(&self) -> u64 {
        self.state.lock().started_ms
    }

    /// Whether it has counted anything, ramps aside.
    pub fn counted(&self) -> bool {
        self.state.lock().has_run
    }

    /// Takes `spent` out of the time that counts: caches were dropped, data was made anew.
    pub fn leave_out(&self, spent: Duration) {
        let mut state = self.state.lock();
        state.since = state.since.map(|since| since.checked_add(spent).unwrap_or(since));
    }

    /// Looks without disturbing.
    pub fn glance(&self) -> Glance {
        let state = self.state.lock();
        Glance {
            phase: state.phase,
            elapsed: state.elapsed(),
            expected_ios: state.expected_ios,
            stats: state.stats.clone(),
        }
    }

    /// Asks all jobs that share this order to stop (Ctrl-C, a job that failed).
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether to stop now.
    pub fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

/// Milliseconds since 1970, for the report.
pub fn now_ms() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    let (secs, nanos) = (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0));
    secs * 1000 + nanos / 1_000_000
}
