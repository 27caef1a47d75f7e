//! Calendar events: when a job is due (spec 07 §5). Pure.
//!
//! ```text
//! [WEEKDAYS] [[YEAR-]MONTH-DAY] [HOUR:MINUTE[:SECOND]] [UTC]     mon..fri 8..17,22:0/15
//! ```
//!
//! The clock of the wall has gaps and repeats an hour. What falls into a gap happens at its end. What falls into a repeated hour happens
//! in its first pass, unless the event has no hour of its own (`*:0/5`): that goes on through both.

use std::fmt;
use std::str::FromStr;

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{Offset, TimeZone};
use jiff::{Timestamp, ToSpan};

use crate::clock::EpochSecs;
use crate::error::{Error, Result};

/// The calendar repeats itself after so many years; what has not happened by then never does.
const YEARS_MAX: i16 = 400;

/// The last year that can be shown as a time of a snapshot.
const YEAR_LAST: i16 = 9999;

/// Longest text of an event.
const TEXT_BYTES_MAX: usize = 255;

/// When something is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Monday is bit 0.
    weekdays: Set,
    years: Vec<Years>,
    months: Set,
    days: Set,
    hours: Set,
    minutes: Set,
    seconds: Set,
    utc: bool,
}

/// Numbers below 64.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Set(u64);

/// `first..=last` in steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Years {
    first: i16,
    last: i16,
    step: i16,
}

/// What numbers a place takes.
#[derive(Clone, Copy)]
struct Place {
    name: &'static str,
    first: u32,
    last: u32,
}

const WEEKDAY: Place = Place { name: "weekday", first: 0, last: 6 };
const YEAR: Place = Place { name: "year", first: 1970, last: YEAR_LAST as u32 };
const MONTH: Place = Place { name: "month", first: 1, last: 12 };
const DAY: Place = Place { name: "day", first: 1, last: 31 };
const HOUR: Place = Place { name: "hour", first: 0, last: 23 };
const MINUTE: Place = Place { name: "minute", first: 0, last: 59 };
const SECOND: Place = Place { name: "second", first: 0, last: 59 };

/// Most days of each month.
const MONTH_DAYS: [u32; 12] = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];

/// Words for common events, and what they stand for.
const KEYWORDS: [(&str, &str); 10] = [
    ("minutely", "*:*"),
    ("hourly", "*:00"),
    ("daily", "00:00"),
    ("weekly", "mon 00:00"),
    ("monthly", "*-01 00:00"),
    ("quarterly", "01,04,07,10-01 00:00"),
    ("semiannually", "01,07-01 00:00"),
    ("semi-annually", "01,07-01 00:00"),
    ("yearly", "01-01 00:00"),
    ("annually", "01-01 00:00"),
];

const WEEKDAYS: [&str; 7] = ["monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"];

impl Set {
    const EMPTY: Self = Self(0);

    fn full(place: Place) -> Self {
        (place.first..=place.last).fold(Self::EMPTY, Self::with)
    }

    fn with(self, n: u32) -> Self {
        Self(self.0 | 1 << n)
    }

    fn has(self, n: u32) -> bool {
        n < 64 && self.0 & 1 << n != 0
    }

    /// The smallest number that is not below `n`.
    fn from(self, n: u32) -> Option<u32> {
        let rest = if n < 64 { self.0 >> n << n } else { 0 };
        (rest != 0).then(|| rest.trailing_zeros())
    }

    fn first(self) -> u32 {
        self.0.trailing_zeros()
    }
}

impl Years {
    fn has(self, year: i16) -> bool {
        year >= self.first && year <= self.last && (year - self.first) % self.step == 0
    }
}

impl Schedule {
    /// The first time after `after` at which this happens, on the wall clocks of `zone` unless the event says `UTC`; `None` if it
    /// never does.
    pub fn next_after(&self, after: EpochSecs, zone: &TimeZone) -> Option<EpochSecs> {
        if !self.has_a_day() {
            return None;
        }
        let utc = TimeZone::UTC;
        let zone = if self.utc { &utc } else { zone };
        let after = Timestamp::from_second(after.0).ok()?;
        let begun = self.segment_at(after, zone);
        let mut offset = begun.0;
        // The next second on the wall, but not again what an hour before has had already.
        let mut wall = offset.to_datetime(after).checked_add(1.second()).ok()?;
        if let Some(first) = begun.1 {
            wall = wall.max(first);
        }
        let end = wall.year().saturating_add(YEARS_MAX).min(YEAR_LAST);
        for transition in zone.following(after) {
            let old_end = offset.to_datetime(transition.timestamp());
            if let Some(found) = self.next_on_wall(wall, old_end) {
                return instant(found, offset);
            }
            let new_start = transition.offset().to_datetime(transition.timestamp());
            if new_start > old_end && self.next_on_wall(wall.max(old_end), new_start).is_some() {
                return Some(EpochSecs(transition.timestamp().as_second()));
            }
            if old_end.year() > end {
                return None;
            }
            wall = wall.max(self.first_of_segment(old_end, new_start));
            if self.has_every_hour() {
                wall = self.first_of_segment(old_end, new_start);
            }
            offset = transition.offset();
        }
        let limit = DateTime::from_parts(Date::new(end, 12, 31).ok()?, Time::new(23, 59, 59, 0).ok()?);
        self.next_on_wall(wall, limit).and_then(|found| instant(found, offset))
    }

    /// The offset that holds at a time, and where on the wall events begin since it does; `None` if it always did.
    fn segment_at(&self, time: Timestamp, zone: &TimeZone) -> (Offset, Option<DateTime>) {
        let offset = zone.to_offset(time);
        let not_later = time.checked_add(1.second()).unwrap_or(time);
        let first = zone.preceding(not_later).next().and_then(|transition| {
            let before = transition.timestamp().checked_sub(1.second()).ok()?;
            let old = zone.to_offset(before).to_datetime(transition.timestamp());
            Some(self.first_of_segment(old, transition.offset().to_datetime(transition.timestamp())))
        });
        (offset, first)
    }

    /// Where on the wall events begin after its clock went from `old_end` to `new_start`.
    fn first_of_segment(&self, old_end: DateTime, new_start: DateTime) -> DateTime {
        if self.has_every_hour() { new_start } else { new_start.max(old_end) }
    }

    fn has_every_hour(&self) -> bool {
        self.hours == Set::full(HOUR)
    }

    /// Whether any month has one of the days.
    fn has_a_day(&self) -> bool {
        (1..=12).any(|month| self.months.has(month) && self.days.first() <= MONTH_DAYS[month as usize - 1])
    }

    fn has_year(&self, year: i16) -> bool {
        self.years.is_empty() || self.years.iter().any(|years| years.has(year))
    }

    /// The first time on the wall from `from` on and before `limit`.
    fn next_on_wall(&self, from: DateTime, limit: DateTime) -> Option<DateTime> {
        let mut date = from.date();
        while date <= limit.date() {
            let month = u32::from(date.month().unsigned_abs());
            if !self.has_year(date.year()) {
                date = Date::new(date.year().checked_add(1)?, 1, 1).ok()?;
                continue;
            }
            if !self.months.has(month) {
                date = date.last_of_month().tomorrow().ok()?;
                continue;
            }
            let weekday = u32::from(date.weekday().to_monday_zero_offset().unsigned_abs());
            if self.days.has(u32::from(date.day().unsigned_abs())) && self.weekdays.has(weekday) {
                let earliest = if date == from.date() { from.time() } else { Time::midnight() };
                if let Some(time) = self.time_from(earliest) {
                    let found = DateTime::from_parts(date, time);
                    return (found < limit).then_some(found);
                }
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// The first time of a day that is not before `earliest`.
    fn time_from(&self, earliest: Time) -> Option<Time> {
        let part = |n: i8| u32::from(n.unsigned_abs());
        let (hour, minute) = (part(earliest.hour()), part(earliest.minute()));
        let made = |hour: u32, minute: u32, second: u32| {
            let part = |n: u32| i8::try_from(n).ok();
            Time::new(part(hour)?, part(minute)?, part(second)?, 0).ok()
        };
        if self.hours.has(hour) {
            if self.minutes.has(minute)
                && let Some(second) = self.seconds.from(part(earliest.second()))
            {
                return made(hour, minute, second);
            }
            if let Some(minute) = self.minutes.from(minute + 1) {
                return made(hour, minute, self.seconds.first());
            }
        }
        made(self.hours.from(hour + 1)?, self.minutes.first(), self.seconds.first())
    }
}

fn instant(wall: DateTime, offset: Offset) -> Option<EpochSecs> {
    offset.to_timestamp(wall).ok().map(|time| EpochSecs(time.as_second()))
}

/// What is wrong with a text, without the text.
type Fault = String;

impl FromStr for Schedule {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let shown: String = text.chars().take(80).collect();
        parse(text).map_err(|fault| Error::invalid(format!("{shown:?} is not a calendar event: {fault}")))
    }
}

fn parse(text: &str) -> Result<Schedule, Fault> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(format!("longer than {TEXT_BYTES_MAX} bytes"));
    }
    let lower = text.to_ascii_lowercase();
    let mut parts: Vec<&str> = lower.split_ascii_whitespace().collect();
    let utc = parts.last() == Some(&"utc");
    parts.truncate(parts.len() - usize::from(utc));
    if let [word] = parts[..]
        && let Some((_, meaning)) = KEYWORDS.iter().find(|(keyword, _)| *keyword == word)
    {
        return Ok(Schedule { utc, ..parse(meaning)? });
    }
    let mut schedule = Schedule {
        weekdays: Set::full(WEEKDAY),
        years: Vec::new(),
        months: Set::full(MONTH),
        days: Set::full(DAY),
        hours: Set(1),
        minutes: Set(1),
        seconds: Set(1),
        utc,
    };
    if parts.is_empty() {
        return Err("it is empty".to_owned());
    }
    let mut rest = parts.into_iter().peekable();
    if let Some(part) = rest.next_if(|part| part.starts_with(|c: char| c.is_ascii_alphabetic())) {
        schedule.weekdays = weekdays(part)?;
    }
    if let Some(part) = rest.next_if(|part| part.contains('-')) {
        schedule.date(part)?;
    }
    if let Some(part) = rest.next_if(|part| !part.contains('-')) {
        schedule.time(part)?;
    }
    match rest.next() {
        Some(part) => {
            Err(format!("{part:?} is out of place: [WEEKDAYS] [[YEAR-]MONTH-DAY] [HOUR:MINUTE[:SECOND]] [UTC]"))
        }
        None => Ok(schedule),
    }
}

impl Schedule {
    fn date(&mut self, text: &str) -> Result<(), Fault> {
        let (year, month, day) = match text.split('-').collect::<Vec<_>>()[..] {
            [month, day] => ("*", month, day),
            [year, month, day] => (year, month, day),
            _ => return Err(format!("{text:?} is not YEAR-MONTH-DAY or MONTH-DAY")),
        };
        self.years = years(year)?;
        self.months = set(month, MONTH)?;
        self.days = set(day, DAY)?;
        Ok(())
    }

    fn time(&mut self, text: &str) -> Result<(), Fault> {
        let (hour, minute, second) = match text.split(':').collect::<Vec<_>>()[..] {
            // A lone number is the minute, of every hour.
            [minute] => ("*", minute, "0"),
            [hour, minute] => (hour, minute, "0"),
            [hour, minute, second] => (hour, minute, second),
            _ => return Err(format!("{text:?} is not HOUR:MINUTE or HOUR:MINUTE:SECOND")),
        };
        self.hours = set(hour, HOUR)?;
        self.minutes = set(minute, MINUTE)?;
        self.seconds = set(second, SECOND)?;
        Ok(())
    }
}

/// `mon`, `mon,wed`, `fri..mon`.
fn weekdays(text: &str) -> Result<Set, Fault> {
    let day = |name: &str| {
        let known = WEEKDAYS.iter().position(|day| *day == name || day[..3] == *name);
        known.and_then(|n| u32::try_from(n).ok()).ok_or_else(|| format!("{name:?} is not a weekday"))
    };
    text.split(',').try_fold(Set::EMPTY, |set, part| {
        let (first, last) = part.split_once("..").unwrap_or((part, part));
        let (first, last) = (day(first)?, day(last)?);
        // From Friday to Monday goes round the end of the week.
        let length = (last + 7 - first) % 7;
        Ok((0..=length).fold(set, |set, n| set.with((first + n) % 7)))
    })
}

fn set(text: &str, place: Place) -> Result<Set, Fault> {
    text.split(',').try_fold(Set::EMPTY, |set, part| {
        let (first, last, step) = range(part, place)?;
        Ok((first..=last).step_by(step as usize).fold(set, Set::with))
    })
}

fn years(text: &str) -> Result<Vec<Years>, Fault> {
    if text == "*" {
        return Ok(Vec::new());
    }
    let year = |n: u32| i16::try_from(n).unwrap_or(i16::MAX);
    let one = |part| range(part, YEAR).map(|(a, b, s)| Years { first: year(a), last: year(b), step: year(s) });
    text.split(',').map(one).collect()
}

/// `5`, `*`, `8..17`, each with `/STEP`: first, last, step.
fn range(text: &str, place: Place) -> Result<(u32, u32, u32), Fault> {
    let Place { name, first, last } = place;
    let number = |digits: &str| {
        let read = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse::<u32>().ok() } else { None };
        read.ok_or_else(|| format!("{digits:?} is not a {name}"))
    };
    let (span, step) = match text.split_once('/') {
        Some((span, step)) => (span, Some(number(step)?)),
        None => (text, None),
    };
    if step == Some(0) {
        return Err(format!("a step of 0 in {text:?}"));
    }
    let (low, high) = match (span, span.split_once("..")) {
        ("*", _) => (first, last),
        (_, Some((low, high))) => (number(low)?, number(high)?),
        // A step goes on to the end.
        (_, None) => (number(span)?, if step.is_some() { last } else { number(span)? }),
    };
    for n in [low, high] {
        if !(first..=last).contains(&n) {
            return Err(format!("{n} is not a {name}: {first} to {last}"));
        }
    }
    if low > high {
        return Err(format!("the range {span:?} ends before it begins"));
    }
    Ok((low, high, step.unwrap_or(1)))
}

impl fmt::Display for Schedule {
    /// A text that means the same; keywords are written out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.weekdays != Set::full(WEEKDAY) {
            let days: Vec<&str> =
                (0..7).filter(|n| self.weekdays.has(*n)).map(|n| &WEEKDAYS[n as usize][..3]).collect();
            write!(f, "{} ", days.join(","))?;
        }
        let every_day = self.months == Set::full(MONTH) && self.days == Set::full(DAY) && self.years.is_empty();
        if !every_day {
            let years = self.years.iter().map(|Years { first, last, step }| match (first == last, step) {
                (true, _) => first.to_string(),
                (false, 1) => format!("{first}..{last}"),
                (false, step) => format!("{first}..{last}/{step}"),
            });
            let years = years.collect::<Vec<_>>().join(",");
            write!(
                f,
                "{}-{}-{} ",
                if years.is_empty() { "*" } else { &years },
                shown(self.months, MONTH),
                shown(self.days, DAY)
            )?;
        }
        write!(f, "{}:{}", shown(self.hours, HOUR), shown(self.minutes, MINUTE))?;
        if self.seconds != Set(1) {
            write!(f, ":{}", shown(self.seconds, SECOND))?;
        }
        f.write_str(if self.utc { " UTC" } else { "" })
    }
}

/// The numbers of a set as a list of two digits each, neighbours as ranges.
fn shown(set: Set, place: Place) -> String {
    if set == Set::full(place) {
        return "*".to_owned();
    }
    let mut parts = Vec::new();
    let mut next = place.first;
    while let Some(first) = set.from(next) {
        let last = (first..=place.last).take_while(|n| set.has(*n)).last().unwrap_or(first);
        parts.push(if first == last { format!("{first:02}") } else { format!("{first:02}..{last:02}") });
        next = last + 1;
    }
    parts.join(",")
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
