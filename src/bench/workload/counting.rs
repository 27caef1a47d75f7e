//! Hears from a client what its chunks and appends took.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use crate::bench::stats::{Direction, Io};
use crate::bench::turn::Turn;
use crate::client::Observer;
use crate::types::{ArchiveName, Digest};

/// What waits before each append: given its digests.
pub type Hold = Box<dyn Fn(&[Digest]) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Counts what a client tells as I/Os of a run, or, without a run, as nothing.
pub struct Counting {
    turn: Option<Turn>,
    hold: Option<Hold>,
}

impl Counting {
    /// Counts for `turn`.
    pub fn new(turn: &Turn) -> Self {
        Self { turn: Some(turn.clone()), hold: None }
    }

    /// Counts for nobody.
    pub fn nothing() -> Self {
        Self { turn: None, hold: None }
    }

    /// Counts for nobody, and holds each append up until `hold` is done.
    pub fn holding(hold: Hold) -> Self {
        Self { turn: None, hold: Some(hold) }
    }

    fn count(&self, direction: Direction, count: u32, bytes: u64, clat: Duration) {
        if let Some(turn) = &self.turn {
            turn.record(&Io { direction, count, bytes, slat: Duration::ZERO, clat, depth: count });
        }
    }
}

impl Observer for Counting {
    fn begins(&self, _: &ArchiveName, _: Option<u64>) {}
    fn advances(&self, _: u64) {}
    fn ends(&self, _: &ArchiveName) {}
    fn warns(&self, text: &str) {
        tracing::warn!("{text}");
    }
    fn uploads(&self, bytes: u64, elapsed: Duration) {
        self.count(Direction::Write, 1, bytes, elapsed);
    }
    fn reuses(&self, chunks: u32, bytes: u64, elapsed: Duration) {
        self.count(Direction::Write, chunks, bytes, elapsed);
    }
    fn holds_up(&self, digests: &[Digest]) -> Option<Pin<Box<dyn Future<Output = ()> + Send>>> {
        self.hold.as_ref().map(|hold| hold(digests))
    }
    fn downloads(&self, bytes: u64, elapsed: Duration) {
        self.count(Direction::Read, 1, bytes, elapsed);
    }
}
