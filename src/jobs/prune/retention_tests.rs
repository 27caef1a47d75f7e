//! Retention against the recorded cases, against dates where calendars are odd, and against a second reading of the rules.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use proptest::prelude::*;
use serde_json::Value;

use super::{Candidate, KeepOptions, Mark, marks};
use crate::clock::EpochSecs;

fn zone(name: &str) -> TimeZone {
    match name {
        "UTC" => TimeZone::UTC,
        // As POSIX writes it, so that no time zone database is needed: UTC+1, UTC+2 between the last Sundays of March and October, 1 h UTC.
        "Berlin" => TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap(),
        "Nepal" => TimeZone::posix("NPT-5:45").unwrap(),
        // Half an hour of summer time, on the other side of the equator.
        "Lord Howe" => TimeZone::posix("LHST-10:30LHDT-11,M10.1.0,M4.1.0").unwrap(),
        other => panic!("{other} is none of the zones here"),
    }
}

fn at(text: &str) -> EpochSecs {
    EpochSecs(text.parse::<Timestamp>().unwrap().as_second())
}

fn finished(times: &[&str]) -> Vec<Candidate> {
    times.iter().map(|text| Candidate { time: at(text), finished: true, protected: false }).collect()
}

fn kept(times: &[&str], keep: KeepOptions, zone_name: &str) -> Vec<String> {
    let group = finished(times);
    let marks = marks(&group, &keep, &zone(zone_name));
    times.iter().zip(marks).filter(|(_, mark)| *mark == Mark::Keep).map(|(text, _)| (*text).to_owned()).collect()
}

#[test]
fn the_vectors() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/vectors/prune-cases.json");
    let cases: Vec<Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    assert!(cases.len() >= 13, "{}", cases.len());
    for case in cases {
        let number = |name: &str| case["keep"][name].as_u64().unwrap_or(0);
        let keep = KeepOptions {
            last: number("keep-last"),
            hourly: number("keep-hourly"),
            daily: number("keep-daily"),
            weekly: number("keep-weekly"),
            monthly: number("keep-monthly"),
            yearly: number("keep-yearly"),
        };
        let rows = case["result"].as_array().unwrap();
        let group: Vec<Candidate> = rows
            .iter()
            .map(|row| Candidate {
                time: EpochSecs(row["time"].as_i64().unwrap()),
                finished: row["finished"].as_bool().unwrap(),
                protected: row["protected"].as_bool().unwrap(),
            })
            .collect();
        let want: Vec<&str> = rows.iter().map(|row| row["mark"].as_str().unwrap()).collect();
        let got: Vec<&str> =
            marks(&group, &keep, &zone(case["timezone"].as_str().unwrap())).into_iter().map(Mark::as_str).collect();
        assert_eq!(got, want, "{}", case["name"]);
    }
}

#[test]
fn options_show_and_count() {
    assert!(KeepOptions::default().keeps_all());
    assert_eq!(KeepOptions::default().to_string(), "keep all");
    let keep = KeepOptions { last: 1, weekly: 4, ..KeepOptions::default() };
    assert!(!keep.keeps_all());
    assert_eq!(keep.to_string(), "keep-last=1 keep-weekly=4");
    assert_eq!(marks(&[], &keep, &TimeZone::UTC), []);
    let many = KeepOptions { yearly: u64::MAX, ..KeepOptions::default() };
    assert_eq!(kept(&["2024-06-05T00:00:00Z", "2023-06-05T00:00:00Z"], many, "UTC").len(), 2);
}

#[test]
fn days_begin_where_the_server_is() {
    let daily = KeepOptions { daily: 5, ..KeepOptions::default() };
    // 22:30 UTC is half past midnight of the next day in a Berlin summer, half past eleven in its winter.
    let times = ["2024-06-05T22:30:00Z", "2024-06-05T21:30:00Z", "2024-12-05T22:30:00Z", "2024-12-05T21:30:00Z"];
    assert_eq!(kept(&times, daily, "UTC"), [times[0], times[2]]);
    assert_eq!(kept(&times, daily, "Berlin"), [times[0], times[1], times[2]]);
    let weekly = KeepOptions { weekly: 5, ..KeepOptions::default() };
    // Sunday 22:30 UTC is a Monday already, and so another week.
    let times = ["2024-06-09T22:30:00Z", "2024-06-09T21:30:00Z"];
    assert_eq!(kept(&times, weekly, "UTC"), [times[0]]);
    assert_eq!(kept(&times, weekly, "Berlin"), times);
}

#[test]
fn hours_that_are_there_twice_or_not_at_all() {
    let hourly = KeepOptions { hourly: 9, ..KeepOptions::default() };
    // 2024-10-27: both are half past two on the wall, so one period.
    let times = ["2024-10-27T01:30:00Z", "2024-10-27T00:30:00Z", "2024-10-26T23:30:00Z"];
    assert_eq!(kept(&times, hourly, "Berlin"), [times[0], times[2]]);
    assert_eq!(kept(&times, hourly, "UTC"), times);
    // 2024-03-31: from 01:59:59 to 03:00:00.
    let times = ["2024-03-31T01:00:00Z", "2024-03-31T00:59:59Z", "2024-03-31T00:00:00Z"];
    assert_eq!(kept(&times, hourly, "Berlin"), [times[0], times[1]]);
    // A quarter of an hour off: 18:15 UTC is midnight.
    let times = ["2024-06-05T18:15:00Z", "2024-06-05T18:14:59Z", "2024-06-05T17:15:00Z"];
    assert_eq!(kept(&times, hourly, "Nepal"), [times[0], times[1]]);
}

#[test]
fn weeks_belong_to_the_year_of_their_thursday() {
    let weekly = KeepOptions { weekly: 9, ..KeepOptions::default() };
    // 2020 had a week 53, which ended on Sunday, 2021-01-03.
    let times = ["2021-01-04T00:00:00Z", "2021-01-03T12:00:00Z", "2020-12-28T12:00:00Z", "2020-12-27T12:00:00Z"];
    assert_eq!(kept(&times, weekly, "UTC"), [times[0], times[1], times[3]]);
}

#[test]
fn the_ends_of_the_calendar() {
    let all = KeepOptions { hourly: 1, weekly: 1, yearly: 1, ..KeepOptions::default() };
    for zone_name in ["UTC", "Berlin", "Nepal", "Lord Howe"] {
        let group = [EpochSecs(1), EpochSecs(253_402_207_200), EpochSecs(i64::MAX)].map(|time| Candidate {
            time,
            finished: true,
            protected: false,
        });
        assert_eq!(marks(&group, &all, &zone(zone_name)).len(), 3);
    }
}

/// The rules once more, as their prose has them: a period is the text that `strftime` makes of it, and every question is answered by looking
/// through all snapshots again.
mod naive {
    use super::*;

    /// From time to mark; times are unique, as they are in a group.
    pub(super) fn marks(group: &[Candidate], keep: &KeepOptions, zone: &TimeZone) -> BTreeMap<i64, &'static str> {
        let text = |format: &'static str| {
            move |candidate: &Candidate| {
                let stamp = Timestamp::from_second(candidate.time.0).unwrap();
                stamp.to_zoned(zone.clone()).strftime(format).to_string()
            }
        };
        let formats = [
            (keep.last, "%Y-%m-%dT%H:%M:%S%z"),
            (keep.hourly, "%Y/%m/%d/%H"),
            (keep.daily, "%Y/%m/%d"),
            (keep.weekly, "%G/%V"),
            (keep.monthly, "%Y/%m"),
            (keep.yearly, "%Y"),
        ];
        let mut marked: BTreeMap<i64, &'static str> = BTreeMap::new();
        // Of the unfinished ones only the newest of the whole group may be a backup that is running.
        for candidate in group.iter().filter(|c| !c.finished) {
            let is_newest = group.iter().all(|other| other.time <= candidate.time);
            marked.insert(candidate.time.0, if is_newest { "keep-partial" } else { "remove" });
        }
        // Who takes part in passes: finished and not protected.
        let mut players: Vec<&Candidate> = group.iter().filter(|c| c.finished && !c.protected).collect();
        players.sort_by_key(|c| -c.time.0);
        for (number, format) in formats {
            let id = text(format);
            let covered: BTreeSet<String> =
                players.iter().filter(|c| marked.get(&c.time.0) == Some(&"keep")).map(|c| id(c)).collect();
            let open: Vec<&Candidate> = players
                .iter()
                .copied()
                .filter(|c| !marked.contains_key(&c.time.0) && !covered.contains(&id(c)))
                .collect();
            // The periods that are left, each once, the most recent first; the pass takes the first `number`.
            let mut periods: Vec<String> = Vec::new();
            for candidate in &open {
                if !periods.contains(&id(candidate)) {
                    periods.push(id(candidate));
                }
            }
            let number = usize::try_from(number).unwrap();
            // When the pass meets the first period that is one too many it stops: whatever is older it does not see.
            let stop =
                periods.get(number).map(|first_beyond| open.iter().position(|c| id(c) == *first_beyond).unwrap());
            let seen = if number == 0 { &[][..] } else { &open[..stop.unwrap_or(open.len())] };
            for candidate in seen {
                let newest = seen.iter().filter(|c| id(c) == id(candidate)).map(|c| c.time).max().unwrap();
                marked.insert(candidate.time.0, if newest == candidate.time { "keep" } else { "remove" });
            }
        }
        for candidate in group {
            marked.entry(candidate.time.0).or_insert("remove");
        }
        for candidate in group.iter().filter(|c| c.protected) {
            marked.insert(candidate.time.0, "protected");
        }
        marked
    }
}

/// Times that crowd: a few per hour, around new year, around both changes of the clock, and years apart.
fn times() -> impl Strategy<Value = i64> {
    let around = |text: &str, spread: i64| {
        let middle = at(text).0;
        (-spread..spread).prop_map(move |off| middle + off * 600)
    };
    prop_oneof![
        around("2024-10-27T01:00:00Z", 30),
        around("2024-03-31T01:00:00Z", 30),
        around("2024-04-06T15:00:00Z", 30),
        around("2025-01-01T00:00:00Z", 2_000),
        around("2024-06-05T12:00:00Z", 20_000),
        around("2024-06-05T12:00:00Z", 1_000_000),
    ]
}

fn groups() -> impl Strategy<Value = Vec<Candidate>> {
    let candidate = (times(), prop::bool::weighted(0.9), prop::bool::weighted(0.1));
    prop::collection::vec(candidate, 0..40).prop_map(|mut rows| {
        let mut seen = BTreeSet::new();
        rows.retain(|row| seen.insert(row.0));
        rows.into_iter()
            .map(|(time, finished, protected)| Candidate { time: EpochSecs(time), finished, protected })
            .collect()
    })
}

fn options() -> impl Strategy<Value = KeepOptions> {
    let number = || prop_oneof![3 => Just(0), 4 => 1..4_u64, 1 => 4..60_u64];
    (number(), number(), number(), number(), number(), number()).prop_map(
        |(last, hourly, daily, weekly, monthly, yearly)| KeepOptions { last, hourly, daily, weekly, monthly, yearly },
    )
}

fn zones() -> impl Strategy<Value = TimeZone> {
    prop::sample::select(vec!["UTC", "Berlin", "Nepal", "Lord Howe"]).prop_map(zone)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_readings_of_the_rules_agree(group in groups(), keep in options(), zone in zones()) {
        let got: BTreeMap<i64, &str> =
            group.iter().zip(marks(&group, &keep, &zone)).map(|(c, mark)| (c.time.0, mark.as_str())).collect();
        prop_assert_eq!(got, naive::marks(&group, &keep, &zone));
    }

    #[test]
    fn what_always_holds(group in groups(), keep in options(), zone in zones()) {
        let marks = marks(&group, &keep, &zone);
        prop_assert_eq!(marks.len(), group.len());
        for (candidate, mark) in group.iter().zip(&marks) {
            prop_assert_eq!(candidate.protected, *mark == Mark::Protected);
            prop_assert!(candidate.finished || *mark != Mark::Keep);
        }
        let kept = marks.iter().filter(|mark| **mark == Mark::Keep).count() as u64;
        let asked: u64 = keep.named().iter().map(|(_, number)| number).sum();
        prop_assert!(kept <= asked);
        // The newest finished snapshot that is not protected stays as soon as anything is asked for.
        let newest = (0..group.len()).filter(|&i| group[i].finished && !group[i].protected).max_by_key(|&i| group[i].time);
        if let Some(newest) = newest.filter(|_| asked > 0) {
            prop_assert_eq!(marks[newest], Mark::Keep);
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter(group in groups(), keep in options(), zone in zones()) {
        let mut turned = group.clone();
        turned.reverse();
        let mut back = marks(&turned, &keep, &zone);
        back.reverse();
        prop_assert_eq!(back, marks(&group, &keep, &zone));
    }
}
