//! When a check is made inline and when it goes to the workers. Pure.
//!
//! A warm check costs 2 µs of plain system call; through a ring it costs up to twice the processor time and a hand-over
//! between threads. A cold one waits for a disk, and then only being in flight together helps. Nobody knows beforehand
//! which it will be, so the engine watches:
//!
//! ```text
//!          a check took longer than SLOW_AFTER: the rest of its piece to the workers
//!   Fast ───────────────────────────────────────────────────────────────────────────▶ Slow
//!   inline, timed                                            ask the name cache first, which never waits;
//!        ◀─────────────────────────────────────────────────  what it does not know to the workers
//!          HIT_PIECES_TO_FAST pieces in a row without a miss
//! ```
//!
//! A piece is a batch, or 128 names of a longer one, so that a sweep of millions can change its mind on the way.

use std::time::Duration;

/// A check that took longer did not come from memory: a warm one takes 2–4 µs, the quickest NVMe read 60 µs and more.
pub(super) const SLOW_AFTER: Duration = Duration::from_micros(50);

/// Pieces without a miss, in a row, after which inline is worth another try. One may be luck; the price of being wrong
/// is one wait inline.
pub(super) const HIT_PIECES_TO_FAST: u8 = 2;

/// What the next piece starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    /// Plain calls, each timed.
    Inline,
    /// The name cache, misses to the workers.
    ProbeFirst,
}

/// What to do with the names of a piece after one that was made inline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Go on inline.
    Inline,
    /// All of them to the workers.
    Workers,
}

/// What has been seen of one class's checks on one datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Adaptive {
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Fast,
    Slow { hit_pieces: u8 },
}

impl Adaptive {
    /// Starts out trusting the cache: an idle daemon's first batch finds out.
    pub(super) fn new() -> Self {
        Self { state: State::Fast }
    }

    /// How the next piece begins.
    pub(super) fn start(&self) -> Start {
        match self.state {
            State::Fast => Start::Inline,
            State::Slow { .. } => Start::ProbeFirst,
        }
    }

    /// A check made inline took this long.
    pub(super) fn inline_took(&mut self, elapsed: Duration) -> Next {
        if elapsed <= SLOW_AFTER {
            return Next::Inline;
        }
        self.state = State::Slow { hit_pieces: 0 };
        Next::Workers
    }

    /// A piece was put to the name cache, which knew all but `misses` of its names. Pieces are never empty.
    pub(super) fn probed(&mut self, misses: usize) {
        let State::Slow { hit_pieces } = self.state else { return };
        let hit_pieces = if misses == 0 { hit_pieces + 1 } else { 0 };
        self.state = if hit_pieces >= HIT_PIECES_TO_FAST { State::Fast } else { State::Slow { hit_pieces } };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WARM: Duration = Duration::from_micros(2);

    #[test]
    fn exactly_the_threshold_is_still_fast() {
        let mut a = Adaptive::new();
        assert_eq!(a.inline_took(SLOW_AFTER), Next::Inline);
        assert_eq!(a.start(), Start::Inline);
        assert_eq!(a.inline_took(SLOW_AFTER + Duration::from_nanos(1)), Next::Workers);
        assert_eq!(a.start(), Start::ProbeFirst);
    }

    #[test]
    fn the_way_back_takes_two_pieces_in_a_row_without_a_miss() {
        // (misses of the pieces after the slow one, what the next piece starts with)
        let table: &[(&[usize], Start)] = &[
            (&[], Start::ProbeFirst),
            (&[0], Start::ProbeFirst),
            (&[0, 0], Start::Inline),
            (&[0, 1, 0], Start::ProbeFirst),
            (&[0, 1, 0, 0], Start::Inline),
            (&[128, 0, 1, 0, 1], Start::ProbeFirst),
            (&[0, 0, 0], Start::Inline),
        ];
        for (misses, start) in table {
            let mut a = Adaptive::new();
            assert_eq!(a.inline_took(SLOW_AFTER * 2), Next::Workers);
            for &n in *misses {
                a.probed(n);
            }
            assert_eq!(a.start(), *start, "{misses:?}");
        }
    }

    #[test]
    fn a_slow_check_forgets_the_hits_before_it() {
        let mut a = Adaptive::new();
        a.inline_took(SLOW_AFTER * 2);
        a.probed(0);
        a.probed(0);
        assert_eq!(a.inline_took(WARM), Next::Inline);
        assert_eq!(a.inline_took(SLOW_AFTER * 2), Next::Workers);
        a.probed(0);
        assert_eq!(a.start(), Start::ProbeFirst);
    }
}
