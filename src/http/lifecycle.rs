//! Serving, draining, closing: how a daemon ends without cutting off a backup.
//!
//! ```text
//!  Serving ──SIGTERM──▶ Draining ──all sessions ended, or the limit──▶ Closing
//!  new ones            no new ones; running ones go on                running ones clean up and end
//! ```

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::error::{Error, Result, SHUTTING_DOWN};

/// Where the daemon stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything is accepted.
    Serving,
    /// Nothing new is accepted.
    Draining,
    /// What still runs has to end now, its unfinished work removed.
    Closing,
}

/// Shared by everything that has to know. A cheap clone.
#[derive(Clone, Debug)]
pub struct Lifecycle {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    phase: watch::Sender<Phase>,
    sessions: watch::Sender<usize>,
    sessions_max: AtomicUsize,
}

impl Lifecycle {
    /// Serving, with at most `sessions_max` sessions at a time.
    pub fn new(sessions_max: usize) -> Self {
        let (phase, sessions) = (watch::Sender::new(Phase::Serving), watch::Sender::new(0));
        Self { inner: Arc::new(Inner { phase, sessions, sessions_max: AtomicUsize::new(sessions_max) }) }
    }

    /// Another limit from now on; sessions beyond it go on.
    pub fn set_sessions_max(&self, sessions_max: usize) {
        self.inner.sessions_max.store(sessions_max, Ordering::Relaxed);
    }

    /// Where the daemon stands now.
    pub fn phase(&self) -> Phase {
        *self.inner.phase.borrow()
    }

    /// Goes on to a later phase; never back.
    pub fn advance(&self, phase: Phase) {
        self.inner.phase.send_if_modified(|now| {
            let later = phase > *now;
            *now = phase.max(*now);
            later
        });
    }

    /// Resolves when nothing new is accepted any more.
    pub async fn draining(&self) {
        self.reached(Phase::Draining).await;
    }

    /// Resolves when a session has to end: it removes what it has not finished and lets its guard go.
    pub async fn closing(&self) {
        self.reached(Phase::Closing).await;
    }

    async fn reached(&self, phase: Phase) {
        let mut phases = self.inner.phase.subscribe();
        // The sender lives in `self`, so this ends only with the phase.
        let _ = phases.wait_for(|now| *now >= phase).await;
    }

    /// Enters a backup or reader session. The daemon waits for the guard, so keep it until all clean-up is done.
    pub fn enter(&self) -> Result<SessionGuard> {
        if self.phase() != Phase::Serving {
            return Err(Error::closed(SHUTTING_DOWN));
        }
        let sessions_max = self.inner.sessions_max.load(Ordering::Relaxed);
        let mut entered = false;
        self.inner.sessions.send_if_modified(|count| {
            entered = *count < sessions_max;
            *count += usize::from(entered);
            entered
        });
        if !entered {
            return Err(Error::busy(format!(
                "{sessions_max} sessions are running, which is the limit: try again later"
            )));
        }
        Ok(SessionGuard { lifecycle: self.clone() })
    }

    /// How many sessions run.
    pub fn session_count(&self) -> usize {
        *self.inner.sessions.borrow()
    }

    /// Waits until no session runs.
    pub async fn idle(&self) {
        let mut sessions = self.inner.sessions.subscribe();
        // The sender lives in `self`.
        let _ = sessions.wait_for(|count| *count == 0).await;
    }

    /// Waits until no session runs; `false` if the limit passed first.
    pub async fn idle_within(&self, limit: Duration) -> bool {
        let mut sessions = self.inner.sessions.subscribe();
        tokio::time::timeout(limit, sessions.wait_for(|count| *count == 0)).await.is_ok()
    }
}

/// Held by a running session.
#[derive(Debug)]
pub struct SessionGuard {
    lifecycle: Lifecycle,
}

impl Drop for SessionGuard {
    fn drop(&mut self) {
        self.lifecycle.inner.sessions.send_modify(|count| *count -= 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sessions_hold_the_end_back() {
        let lifecycle = Lifecycle::new(2);
        let first = lifecycle.enter().unwrap();
        let second = lifecycle.enter().unwrap();
        assert!(lifecycle.enter().is_err());
        drop(second);
        assert_eq!(lifecycle.session_count(), 1);
        lifecycle.set_sessions_max(1);
        assert!(lifecycle.enter().is_err());
        lifecycle.advance(Phase::Draining);
        lifecycle.draining().await;
        assert!(lifecycle.enter().is_err());
        assert!(!lifecycle.idle_within(Duration::from_millis(20)).await);
        lifecycle.advance(Phase::Closing);
        lifecycle.advance(Phase::Serving);
        assert_eq!(lifecycle.phase(), Phase::Closing);
        lifecycle.closing().await;
        drop(first);
        assert!(lifecycle.idle_within(Duration::from_millis(20)).await);
    }
}
