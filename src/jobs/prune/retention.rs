//! Which snapshots of a group stay. Pure: times, options and time zone are arguments.
//!
//! Each option is a pass over the group, newest first, in the order last, hourly, daily, weekly, monthly, yearly. It keeps the newest snapshot of
//! each of the most recent `n` periods that have one. What must not be lost sight of:
//!
//! - a period without a snapshot does not count;
//! - a period in which an earlier pass kept one is passed over, and does not count either;
//! - the older snapshots of a period that a pass has taken are lost to all later passes; those beyond its `n` are not;
//! - protected snapshots, and unfinished ones, neither count nor stand for their period.
//!
//! Source: spec 07 §2.1.

use std::collections::HashSet;
use std::fmt;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use crate::clock::EpochSecs;

/// How many periods of each kind keep a snapshot; 0 for none of that kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KeepOptions {
    /// The newest snapshots, whatever their time.
    pub last: u64,
    /// Hours.
    pub hourly: u64,
    /// Days.
    pub daily: u64,
    /// ISO weeks.
    pub weekly: u64,
    /// Months.
    pub monthly: u64,
    /// Years.
    pub yearly: u64,
}

impl KeepOptions {
    /// Without any option nothing is removed, whatever the marks say.
    pub fn keeps_all(&self) -> bool {
        *self == Self::default()
    }

    /// The options with their names, in the order of the passes.
    pub fn named(&self) -> [(&'static str, u64); 6] {
        [
            ("keep-last", self.last),
            ("keep-hourly", self.hourly),
            ("keep-daily", self.daily),
            ("keep-weekly", self.weekly),
            ("keep-monthly", self.monthly),
            ("keep-yearly", self.yearly),
        ]
    }
}

/// `keep-last=1 keep-daily=2`; `keep all` without any.
impl fmt::Display for KeepOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.keeps_all() {
            return f.write_str("keep all");
        }
        let set: Vec<String> =
            self.named().iter().filter(|(_, n)| *n > 0).map(|(name, n)| format!("{name}={n}")).collect();
        f.write_str(&set.join(" "))
    }
}

/// What retention knows of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// When it was taken.
    pub time: EpochSecs,
    /// Whether its manifest is there.
    pub finished: bool,
    /// Whether it is protected against removal.
    pub protected: bool,
}

/// What retention says of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// A pass kept it.
    Keep,
    /// Unfinished, and the newest of its group: a backup may be running.
    KeepPartial,
    /// Protected, so it stays whatever the passes say.
    Protected,
    /// No pass kept it.
    Remove,
}

impl Mark {
    /// As logs show it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Keep => "keep",
            Self::KeepPartial => "keep-partial",
            Self::Protected => "protected",
            Self::Remove => "remove",
        }
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// The marks of all snapshots of one group, in the order of `group`, which may be any. `zone` says when days and weeks begin: the server's
/// local time.
pub fn marks(group: &[Candidate], keep: &KeepOptions, zone: &TimeZone) -> Vec<Mark> {
    let mut newest_first: Vec<usize> = (0..group.len()).collect();
    newest_first.sort_by_key(|&at| std::cmp::Reverse(group[at].time));
    let mut marks: Vec<Option<Mark>> = vec![None; group.len()];
    for (rank, &at) in newest_first.iter().enumerate() {
        let Candidate { finished, protected, .. } = group[at];
        marks[at] = match (protected, finished, rank) {
            (true, ..) => Some(Mark::Protected),
            (false, false, 0) => Some(Mark::KeepPartial),
            (false, false, _) => Some(Mark::Remove),
            (false, true, _) => None,
        };
    }
    let local: Vec<DateTime> = group.iter().map(|candidate| local_time(candidate.time, zone)).collect();
    for (number, kind) in passes(keep) {
        let period = |at: usize| kind.of(group[at].time, local[at]);
        pass(&mut marks, &newest_first, number, period);
    }
    marks.into_iter().map(|mark| mark.unwrap_or(Mark::Remove)).collect()
}

/// Keeps the newest snapshot of each of at most `number` periods.
fn pass(marks: &mut [Option<Mark>], newest_first: &[usize], number: u64, period: impl Fn(usize) -> Period) {
    let kept = newest_first.iter().copied().filter(|&at| marks[at] == Some(Mark::Keep));
    let covered: HashSet<Period> = kept.map(&period).collect();
    let mut taken = HashSet::new();
    for &at in newest_first {
        let id = period(at);
        if marks[at].is_some() || covered.contains(&id) {
            continue;
        }
        if taken.contains(&id) {
            marks[at] = Some(Mark::Remove);
        } else if taken.len() as u64 == number {
            return;
        } else {
            taken.insert(id);
            marks[at] = Some(Mark::Keep);
        }
    }
}

/// The passes that are asked for, in their order.
fn passes(keep: &KeepOptions) -> impl Iterator<Item = (u64, PeriodKind)> {
    let all = [
        (keep.last, PeriodKind::Snapshot),
        (keep.hourly, PeriodKind::Hour),
        (keep.daily, PeriodKind::Day),
        (keep.weekly, PeriodKind::Week),
        (keep.monthly, PeriodKind::Month),
        (keep.yearly, PeriodKind::Year),
    ];
    all.into_iter().filter(|(number, _)| *number > 0)
}

#[derive(Clone, Copy, Debug)]
enum PeriodKind {
    Snapshot,
    Hour,
    Day,
    Week,
    Month,
    Year,
}

/// Which period; comparable within one kind. A clock that is set back makes two hours of one name, and they are one period.
type Period = (i64, i8, i8, i8);

impl PeriodKind {
    fn of(self, time: EpochSecs, local: DateTime) -> Period {
        let year = i64::from(local.year());
        match self {
            Self::Snapshot => (time.0, 0, 0, 0),
            Self::Hour => (year, local.month(), local.day(), local.hour()),
            Self::Day => (year, local.month(), local.day(), 0),
            Self::Week => {
                let week = local.date().iso_week_date();
                (i64::from(week.year()), week.week(), 0, 0)
            }
            Self::Month => (year, local.month(), 0, 0),
            Self::Year => (year, 0, 0, 0),
        }
    }
}

/// The time on a wall clock of `zone`. A time that the calendar does not have counts as its end; no snapshot can have one.
fn local_time(time: EpochSecs, zone: &TimeZone) -> DateTime {
    let end = if time.0 < 0 { Timestamp::MIN } else { Timestamp::MAX };
    zone.to_datetime(Timestamp::from_second(time.0).unwrap_or(end))
}
