//! One of a job's runs: how long it may go on, how fast, and where what it measures goes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::job::Job;
use super::live::{Live, Phase};
use super::stats::Io;
use crate::sync::Mutex;

/// How long a run sleeps before it looks again whether it was asked to stop.
const LOOK_INTERVAL: Duration = Duration::from_millis(50);

/// What a run asks before each step. Cheap to clone: chunks in flight each have one.
#[derive(Clone, Debug)]
pub struct Turn {
    /// What it does.
    pub job: Arc<Job>,
    /// Which of the `numjobs` it is, from 0.
    pub number: u32,
    live: Live,
    pace: Arc<Mutex<Pace>>,
}

/// What the rate limits count, from the last change of phase on.
#[derive(Debug)]
struct Pace {
    since: Instant,
    ios: u64,
    bytes: u64,
}

impl Turn {
    /// A run that has not begun.
    pub fn new(job: Arc<Job>, number: u32, live: Live) -> Self {
        let pace = Pace { since: Instant::now(), ios: 0, bytes: 0 };
        Self { job, number, live, pace: Arc::new(Mutex::new(pace)) }
    }

    /// What is shown of it.
    pub fn live(&self) -> &Live {
        &self.live
    }

    /// Starts the clock: with the ramp, if there is one.
    pub fn begin(&self) {
        self.enter(if self.job.ramp_time.is_zero() { Phase::Running } else { Phase::Ramp });
    }

    fn enter(&self, phase: Phase) {
        *self.pace.lock() = Pace { since: Instant::now(), ios: 0, bytes: 0 };
        self.live.enter(phase);
    }

    /// Whether to do another step; leaves the ramp when it is over.
    pub fn go_on(&self) -> bool {
        if self.live.is_stopped() {
            return false;
        }
        let (phase, elapsed) = self.live.clock();
        match phase {
            Phase::Ramp if elapsed >= self.job.ramp_time => {
                self.enter(Phase::Running);
                true
            }
            Phase::Running => self.job.runtime.is_none_or(|runtime| elapsed < runtime),
            _ => true,
        }
    }

    /// Waits until the rates allow `ios` more of `bytes` altogether. False when it is time to stop.
    pub fn pace(&self, ios: u64, bytes: u64) -> bool {
        loop {
            if !self.go_on() {
                return false;
            }
            let wait = {
                let mut pace = self.pace.lock();
                let due = due(pace.ios, self.job.rate_iops).max(due(pace.bytes, self.job.rate));
                let wait = due.saturating_sub(pace.since.elapsed());
                if wait.is_zero() {
                    pace.ios += ios;
                    pace.bytes += bytes;
                    return true;
                }
                wait
            };
            std::thread::sleep(wait.min(LOOK_INTERVAL));
        }
    }

    /// Resolves when it is time to stop: for what cannot be done step by step.
    pub async fn over(&self) {
        while self.go_on() {
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    }

    /// Counts what came back.
    pub fn record(&self, io: &Io) {
        self.live.record(io);
    }

    /// Does what does not count: the clock stands still meanwhile.
    pub fn aside<T>(&self, work: impl FnOnce() -> T) -> T {
        let begun = Instant::now();
        let done = work();
        let spent = begun.elapsed();
        self.live.leave_out(spent);
        self.pace.lock().since += spent;
        done
    }
}

/// When the next may begin, after `done` at `rate` a second.
fn due(done: u64, rate: Option<u64>) -> Duration {
    match rate {
        None | Some(0) => Duration::ZERO,
        Some(rate) => {
            let nanos = u128::from(done) * 1_000_000_000 / u128::from(rate);
            Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_says_when_the_next_is_due() {
        assert_eq!(due(5, None), Duration::ZERO);
        assert_eq!(due(0, Some(10)), Duration::ZERO);
        assert_eq!(due(5, Some(10)), Duration::from_millis(500));
        assert_eq!(due(u64::MAX, Some(1)), Duration::from_nanos(u64::MAX));
    }
}
