//! How far background work makes way, by what appends and the kernel say. Pure.
//!
//! ```text
//!  level   0         1   2   3   4   5     6     7     8
//!  units   no limit  8   4   2   1   1/2   1/4   1/8   1/16      under way at a time, on average
//! ```
//!
//! A unit is a directory, a block of an index, a chunk. Half a unit is one unit and then a pause of its length, so a slow disk gets long pauses
//! and a fast one short ones, and nobody has to say how fast the disk is. Each look that finds appends slow goes one level further; some that
//! find nothing wrong go one back. So background work takes what backups leave, and a little more from time to time to see whether there is more.

use std::collections::BTreeMap;
use std::time::Duration;

use super::latency::{Batch, Latency, Look};
use super::pressure::{self, Pressure};

/// The last level: a sixteenth of what one reader after another would do. Never nothing, so every job ends.
pub(super) const LEVEL_MAX: u32 = 8;

/// As far as pressure alone goes, two units. The kernel does not tell whose waiting it counts, and background work waits too: further
/// back, a collection beside an idle session would crawl for its own sake.
pub(super) const LEVEL_MAX_BY_PRESSURE: u32 = 3;

/// How often it is decided: often enough that a client notices a few slow appends at most, seldom enough that what a level does is seen before the next.
pub(super) const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// How often the kernel is asked. Its own averages are made every two seconds, the total grows all the time.
pub(super) const PRESSURE_INTERVAL: Duration = Duration::from_secs(1);

/// Looks in a row with nothing wrong before a step back. With one each, half of all time would be spent beyond what backups leave; with eight, a
/// ninth.
pub(super) const CLEAR_LOOKS: u32 = 8;

/// A session that has appended nothing for so long is not kept waiting by anybody.
pub(super) const SESSION_SECS: Duration = Duration::from_secs(10);

/// The longest pause after one unit: what takes longer than the disk of anybody is no measure any more.
pub(super) const PAUSE_MAX: Duration = Duration::from_secs(2);

/// How much background work may be under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowed {
    /// As much as there is.
    All,
    /// So many units at a time.
    AtOnce(u32),
    /// One at a time, and after it a pause of so many times its length.
    Pausing(u32),
}

impl Allowed {
    pub(super) fn at(level: u32) -> Self {
        match level {
            0 => Self::All,
            1..=4 => Self::AtOnce(1 << (4 - level)),
            _ => Self::Pausing((1 << (level - 4)) - 1),
        }
    }
}

/// One reason to make way, and how far it has led.
#[derive(Debug, Default)]
struct Steps {
    level: u32,
    clear: u32,
}

impl Steps {
    fn further(&mut self, max: u32) {
        *self = Self { level: (self.level + 1).min(max), clear: 0 };
    }

    fn clear(&mut self, needed: u32) {
        self.clear += 1;
        if self.clear >= needed {
            *self = Self { level: self.level.saturating_sub(1), clear: 0 };
        }
    }
}

/// An append that has not ended.
#[derive(Debug)]
struct UnderWay {
    begun: Duration,
    busy_before: Duration,
}

/// The state of a datastore. Times are since any moment, the same for all calls; `busy` is for how long background work was under way by then.
#[derive(Debug, Default)]
pub(super) struct BackOff {
    latency: Latency,
    by_latency: Steps,
    by_pressure: Steps,
    /// When [`Self::look`] was last due.
    looked_at: Duration,
    last_append: Option<Duration>,
    under_way: BTreeMap<u64, UnderWay>,
    next_key: u64,
    /// Sessions that run.
    guests: u32,
    /// When the kernel was asked last, and its answer.
    pressure: Option<(Duration, Duration)>,
}

impl BackOff {
    /// A session begins or ends.
    pub(super) fn guest(&mut self, comes: bool) {
        self.guests = if comes { self.guests + 1 } else { self.guests.saturating_sub(1) };
    }

    /// An append begins; what comes back is for [`Self::append_ended`].
    pub(super) fn append_begun(&mut self, now: Duration, busy: Duration) -> u64 {
        self.next_key += 1;
        self.under_way.insert(self.next_key, UnderWay { begun: now, busy_before: busy });
        self.last_append = Some(now);
        self.next_key
    }

    /// An append has ended.
    pub(super) fn append_ended(&mut self, key: u64, now: Duration, busy: Duration) {
        let Some(append) = self.under_way.remove(&key) else { return };
        self.last_append = Some(now);
        self.latency.add(append.until(now, busy));
    }

    /// Whether a client appends, or did a moment ago.
    fn is_appending(&self, now: Duration) -> bool {
        !self.under_way.is_empty() || self.last_append.is_some_and(|last| now.saturating_sub(last) <= SESSION_SECS)
    }

    /// Whether there is anybody to make way for.
    fn has_guests(&self, now: Duration) -> bool {
        self.guests > 0 || self.is_appending(now)
    }

    /// Decides anew, if it is time to.
    pub(super) fn look(&mut self, now: Duration, busy: Duration) {
        if !self.is_appending(now) {
            self.by_latency = Steps::default();
        }
        if !self.has_guests(now) {
            (self.by_pressure, self.pressure) = (Steps::default(), None);
        }
        if now.saturating_sub(self.looked_at) < LOOK_INTERVAL {
            return;
        }
        self.looked_at = now;
        match self.latency.look(self.under_way.values().map(|append| append.until(now, busy))) {
            Look::Nothing => {}
            Look::Slow => self.by_latency.further(LEVEL_MAX),
            Look::Fine => self.by_latency.clear(CLEAR_LOOKS),
        }
    }

    /// Whether to ask the kernel: somebody is there to make way for, and it was not asked just now.
    pub(super) fn wants_pressure(&self, now: Duration) -> bool {
        let is_old = |(asked, _): (Duration, Duration)| now.saturating_sub(asked) >= PRESSURE_INTERVAL;
        self.has_guests(now) && self.pressure.is_none_or(is_old)
    }

    /// What the kernel said.
    pub(super) fn take_pressure(&mut self, now: Duration, some_total: Duration) {
        let before = self.pressure.replace((now, some_total));
        let Some((asked, total)) = before else { return };
        let passed = now.saturating_sub(asked);
        // Of longer ago: nobody wanted to know for a while, so it tells of another time.
        if passed > PRESSURE_INTERVAL * 4 {
            return;
        }
        match pressure::between(total, some_total, passed) {
            Pressure::High => self.by_pressure.further(LEVEL_MAX_BY_PRESSURE),
            Pressure::Middling => self.by_pressure.clear = 0,
            Pressure::Low => self.by_pressure.clear(2),
        }
    }

    /// How far to make way.
    pub(super) fn level(&self) -> u32 {
        self.by_latency.level.max(self.by_pressure.level)
    }

    /// When [`Self::look`] decides next.
    pub(super) fn next_look(&self) -> Duration {
        self.looked_at + LOOK_INTERVAL
    }
}

impl UnderWay {
    fn until(&self, now: Duration, busy: Duration) -> Batch {
        Batch { took: now.saturating_sub(self.begun), beside: busy.saturating_sub(self.busy_before) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);
    const S: Duration = Duration::from_secs(1);

    /// An append of `took` that ends at `now`, with background work beside all of it or none.
    fn append(back_off: &mut BackOff, now: Duration, took: Duration, beside: bool) {
        let key = back_off.append_begun(now - took, Duration::ZERO);
        back_off.append_ended(key, now, if beside { took } else { Duration::ZERO });
    }

    /// One whose appends take 20 ms when nothing else runs.
    fn usual() -> BackOff {
        let mut back_off = BackOff::default();
        (1..=20).for_each(|n| append(&mut back_off, MS * 100 * n, MS * 20, false));
        back_off.look(S * 2, Duration::ZERO);
        assert_eq!(back_off.level(), 0);
        back_off
    }

    #[test]
    fn each_level_is_half_of_the_one_before() {
        use Allowed::{All, AtOnce, Pausing};
        let levels: Vec<Allowed> = (0..=LEVEL_MAX).map(Allowed::at).collect();
        let wanted = [All, AtOnce(8), AtOnce(4), AtOnce(2), AtOnce(1), Pausing(1), Pausing(3), Pausing(7), Pausing(15)];
        assert_eq!(levels, wanted);
    }

    #[test]
    fn slow_appends_slow_it_down_step_by_step_to_a_floor_and_it_recovers() {
        let mut back_off = usual();
        let mut now = S * 2;
        let mut levels = Vec::new();
        for _ in 0..10 {
            now += LOOK_INTERVAL;
            append(&mut back_off, now, MS * 200, true);
            back_off.look(now, Duration::ZERO);
            levels.push(back_off.level());
        }
        assert_eq!(levels, [1, 2, 3, 4, 5, 6, 7, 8, 8, 8]);
        let mut looks = 0;
        while back_off.level() > 0 {
            now += LOOK_INTERVAL;
            looks += 1;
            append(&mut back_off, now, MS * 20, true);
            back_off.look(now, Duration::ZERO);
        }
        assert_eq!(looks, LEVEL_MAX * CLEAR_LOOKS);
    }

    #[test]
    fn it_is_decided_no_more_often_than_every_interval() {
        let mut back_off = usual();
        for n in 1..=10 {
            append(&mut back_off, S * 2 + MS * n, MS * 200, true);
            back_off.look(S * 2 + MS * n, Duration::ZERO);
        }
        assert_eq!((back_off.level(), back_off.next_look()), (0, S * 2 + LOOK_INTERVAL));
        back_off.look(S * 2 + LOOK_INTERVAL, Duration::ZERO);
        assert_eq!(back_off.level(), 1);
    }

    #[test]
    fn an_append_that_hangs_counts_before_it_ends() {
        let mut back_off = usual();
        let key = back_off.append_begun(S * 2, Duration::ZERO);
        (1..=4).for_each(|n| back_off.look(S * 2 + LOOK_INTERVAL * n, LOOK_INTERVAL * n));
        assert_eq!(back_off.level(), 4);
        // For longer than any session is quiet, and still it is there.
        back_off.look(S * 60, S * 58);
        assert_eq!(back_off.level(), 5);
        back_off.append_ended(key, S * 60, S * 58);
    }

    #[test]
    fn without_sessions_nothing_makes_way() {
        let mut back_off = usual();
        append(&mut back_off, S * 3, MS * 500, true);
        back_off.look(S * 3, Duration::ZERO);
        assert_eq!(back_off.level(), 1);
        back_off.look(S * 13, Duration::ZERO);
        assert_eq!(back_off.level(), 1);
        back_off.look(S * 13 + MS, Duration::ZERO);
        assert_eq!(back_off.level(), 0);
        assert!(!back_off.wants_pressure(S * 14));
    }

    #[test]
    fn pressure_counts_while_somebody_is_there_and_goes_half_as_far() {
        let mut back_off = BackOff::default();
        assert!(!back_off.wants_pressure(S));
        back_off.guest(true);
        assert!(back_off.wants_pressure(S));
        let mut levels = Vec::new();
        for n in 1..=6 {
            assert!(back_off.wants_pressure(S * n));
            back_off.take_pressure(S * n, S * n * 6 / 10);
            assert!(!back_off.wants_pressure(S * n + MS * 999));
            levels.push(back_off.level());
        }
        assert_eq!(levels, [0, 1, 2, 3, 3, 3]);
        let total = S * 36 / 10;
        (7..=12).for_each(|n| back_off.take_pressure(S * n, total));
        assert_eq!(back_off.level(), 0);
        back_off.take_pressure(S * 13, total + S);
        assert_eq!(back_off.level(), 1);
        // Readings too far apart say nothing about now.
        back_off.take_pressure(S * 60, total + S * 40);
        assert_eq!(back_off.level(), 1);
        back_off.guest(false);
        back_off.look(S * 61, Duration::ZERO);
        assert_eq!(back_off.level(), 0);
    }
}
