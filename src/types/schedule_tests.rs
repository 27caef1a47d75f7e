use super::*;
use proptest::prelude::*;

fn event(text: &str) -> Schedule {
    text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
}

fn zone(name: &str) -> TimeZone {
    TimeZone::get(name).unwrap()
}

/// A time on the wall of a zone; in a repeated hour the first pass.
fn at(text: &str, zone: &TimeZone) -> EpochSecs {
    let wall: DateTime = text.parse().unwrap();
    EpochSecs(wall.to_zoned(zone.clone()).unwrap().timestamp().as_second())
}

fn next(text: &str, after: &str) -> Option<String> {
    let next = event(text).next_after(at(after, &TimeZone::UTC), &TimeZone::UTC)?;
    next.to_utc_name().map(|name| name.trim_end_matches('Z').to_owned())
}

/// 2024-06-05 is a Wednesday.
#[test]
fn the_examples_of_the_specification() {
    for (text, after, want) in [
        ("02:30", "2024-06-05T02:29:59", "2024-06-05T02:30:00"),
        ("02:30", "2024-06-05T02:30:00", "2024-06-06T02:30:00"),
        ("mon..fri 8..17,22:0/15", "2024-06-05T17:45:00", "2024-06-05T22:00:00"),
        ("mon..fri 8..17,22:0/15", "2024-06-07T22:45:00", "2024-06-10T08:00:00"),
        ("*-01 12:00", "2024-06-05T00:00:00", "2024-07-01T12:00:00"),
        ("monthly", "2024-06-01T00:00:00", "2024-07-01T00:00:00"),
        ("sat 18:15", "2024-06-05T00:00:00", "2024-06-08T18:15:00"),
        ("*:0/5", "2024-06-05T00:00:00", "2024-06-05T00:05:00"),
        ("0/5", "2024-06-05T23:55:01", "2024-06-06T00:00:00"),
        ("0", "2024-06-05T00:00:00", "2024-06-05T01:00:00"),
        ("*", "2024-06-05T00:00:01", "2024-06-05T00:01:00"),
        ("minutely", "2024-06-05T00:00:00", "2024-06-05T00:01:00"),
        ("hourly", "2024-06-05T00:00:00", "2024-06-05T01:00:00"),
        ("daily", "2024-06-05T00:00:00", "2024-06-06T00:00:00"),
        ("weekly", "2024-06-05T00:00:00", "2024-06-10T00:00:00"),
        ("yearly", "2024-06-05T00:00:00", "2025-01-01T00:00:00"),
        ("annually", "2024-06-05T00:00:00", "2025-01-01T00:00:00"),
        ("quarterly", "2024-06-05T00:00:00", "2024-07-01T00:00:00"),
        ("semiannually", "2024-07-05T00:00:00", "2025-01-01T00:00:00"),
        ("semi-annually", "2024-06-05T00:00:00", "2024-07-01T00:00:00"),
    ] {
        assert_eq!(next(text, after).as_deref(), Some(want), "{text} after {after}");
    }
}

#[test]
fn numbers_lists_ranges_and_steps() {
    let base = "2024-06-05T12:00:00";
    for (text, want) in [
        ("monday 5", "2024-06-10T00:05:00"),
        ("FRI..mon 00:00", "2024-06-07T00:00:00"),
        ("mon,wed 13:00:30", "2024-06-05T13:00:30"),
        ("2025-*-1,15 00:00", "2025-01-01T00:00:00"),
        ("2020/2-02-29 00:00", "2028-02-29T00:00:00"),
        ("2020..2030/5-06-05", "2025-06-05T00:00:00"),
        ("tue 02-29", "2028-02-29T00:00:00"),
        ("8/2:0", "2024-06-05T14:00:00"),
        ("8..18/5:30", "2024-06-05T13:30:00"),
        ("*:*:*", "2024-06-05T12:00:01"),
        ("*:*:7/20", "2024-06-05T12:00:07"),
        ("06-05", "2025-06-05T00:00:00"),
        ("sat", "2024-06-08T00:00:00"),
        ("daily utc", "2024-06-06T00:00:00"),
    ] {
        assert_eq!(next(text, base).as_deref(), Some(want), "{text}");
    }
}

#[test]
fn what_never_happens() {
    for text in ["02-30", "2023-*-* 00:00", "04,06-31", "2023,2025-02-29", "1970..2000/3-01-01 00:00"] {
        assert_eq!(next(text, "2024-06-05T00:00:00"), None, "{text}");
    }
    assert_eq!(event("daily").next_after(EpochSecs(i64::MAX), &TimeZone::UTC), None);
    assert_eq!(event("daily").next_after(EpochSecs(253_402_207_200), &TimeZone::UTC), None, "the end of the calendar");
}

#[test]
fn what_is_no_event() {
    for (text, part) in [
        ("", "empty"),
        ("utc", "empty"),
        ("moon", "\"moon\" is not a weekday"),
        ("mon..", "\"\" is not a weekday"),
        ("25:00", "25 is not a hour: 0 to 23"),
        ("24:00", "24 is not a hour"),
        ("0:60", "60 is not a minute"),
        ("0:0:60", "60 is not a second"),
        ("00-01", "0 is not a month"),
        ("01-32", "32 is not a day"),
        ("1969-01-01", "1969 is not a year"),
        ("1-2-3-4", "is not YEAR-MONTH-DAY"),
        ("1:2:3:4", "is not HOUR:MINUTE"),
        ("9..8:0", "ends before it begins"),
        ("*/0", "a step of 0"),
        ("+5", "is not a minute"),
        ("5,", "\"\" is not a minute"),
        ("1:2 3-4", "out of place"),
        ("daily weekly", "is not a weekday"),
        ("mon tue", "\"tue\" is not a minute"),
        ("0:0 0:0", "out of place"),
        ("99999999999", "is not a minute"),
    ] {
        let error = text.parse::<Schedule>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!("1,".repeat(200).parse::<Schedule>().unwrap_err().to_string().contains("longer"));
}

/// Berlin: on 2024-03-31 02:00 became 03:00, on 2024-10-27 03:00 became 02:00.
#[test]
fn a_gap_and_a_repeated_hour() {
    let berlin = zone("Europe/Berlin");
    let show = |time: EpochSecs| time.to_utc_name().unwrap();
    let run = |text: &str, after: &str, count: usize| {
        let mut times = vec![at(after, &berlin)];
        for _ in 0..count {
            times.push(event(text).next_after(*times.last().unwrap(), &berlin).unwrap());
        }
        times[1..].iter().map(|time| show(*time)).collect::<Vec<_>>()
    };
    assert_eq!(
        run("02:30", "2024-03-30T00:00:00", 3),
        ["2024-03-30T01:30:00Z", "2024-03-31T01:00:00Z", "2024-04-01T00:30:00Z"],
        "in the gap: at its end"
    );
    assert_eq!(
        run("*:0/30", "2024-03-31T01:29:00", 3),
        ["2024-03-31T00:30:00Z", "2024-03-31T01:00:00Z", "2024-03-31T01:30:00Z"],
        "the gap's end is an event of its own, once"
    );
    assert_eq!(
        run("02:30", "2024-10-26T12:00:00", 2),
        ["2024-10-27T00:30:00Z", "2024-10-28T01:30:00Z"],
        "once in the repeated hour"
    );
    assert_eq!(
        run("*:30", "2024-10-27T01:00:00", 4),
        ["2024-10-26T23:30:00Z", "2024-10-27T00:30:00Z", "2024-10-27T01:30:00Z", "2024-10-27T02:30:00Z"],
        "every hour that passes"
    );
    // Asked in the second pass of the hour: what the first has had does not come again.
    let second_pass = EpochSecs(at("2024-10-27T02:10:00", &berlin).0 + 3600);
    assert_eq!(show(event("02:30").next_after(second_pass, &berlin).unwrap()), "2024-10-28T01:30:00Z");
    assert_eq!(show(event("*:30").next_after(second_pass, &berlin).unwrap()), "2024-10-27T01:30:00Z");
    assert_eq!(show(event("02:30 UTC").next_after(second_pass, &berlin).unwrap()), "2024-10-27T02:30:00Z");
    // A day that was left out altogether: Samoa had no 2011-12-30.
    let apia = zone("Pacific/Apia");
    let skipped = event("2011-12-30 12:00").next_after(at("2011-12-29T13:00:00", &apia), &apia);
    assert_eq!(skipped.map(show).as_deref(), Some("2011-12-30T10:00:00Z"));
}

fn part(first: u32, last: u32) -> impl Strategy<Value = String> {
    let number = first..=last;
    let one = prop_oneof![
        3 => number.clone().prop_map(|n| n.to_string()),
        1 => (number.clone(), 1..=last).prop_map(|(n, step)| format!("{n}/{step}")),
        1 => (1..=last).prop_map(|step| format!("*/{step}")),
        1 => (number.clone(), number).prop_map(|(a, b)| format!("{}..{}", a.min(b), a.max(b))),
    ];
    prop_oneof![1 => Just("*".to_owned()), 3 => proptest::collection::vec(one, 1..3).prop_map(|list| list.join(","))]
}

fn texts() -> impl Strategy<Value = String> {
    let weekday = (0..7_usize, 0..7_usize, 0..3).prop_map(|(a, b, kind)| match kind {
        0 => WEEKDAYS[a].to_owned(),
        1 => format!("{}..{}", &WEEKDAYS[a][..3], &WEEKDAYS[b][..3]),
        _ => format!("{},{}", &WEEKDAYS[a][..3], WEEKDAYS[b]),
    });
    let date = (proptest::option::of(Just("2024")), part(1, 12), part(1, 31)).prop_map(|(y, m, d)| match y {
        Some(y) => format!("{y}-{m}-{d}"),
        None => format!("{m}-{d}"),
    });
    let time = (part(0, 23), part(0, 59), proptest::option::of(part(0, 59))).prop_map(|(h, m, s)| match s {
        Some(s) => format!("{h}:{m}:{s}"),
        None => format!("{h}:{m}"),
    });
    let parts = (proptest::option::of(weekday), proptest::option::of(date), proptest::option::of(time), any::<bool>());
    parts.prop_filter_map("an empty event", |(weekday, date, time, utc)| {
        let some: Vec<String> = [weekday, date, time].into_iter().flatten().collect();
        (!some.is_empty()).then(|| some.join(" ") + if utc { " UTC" } else { "" })
    })
}

fn matches(event: &Schedule, time: i64, zone: &TimeZone) -> bool {
    let zone = if event.utc { TimeZone::UTC } else { zone.clone() };
    let wall = zone.to_offset(Timestamp::from_second(time).unwrap()).to_datetime(Timestamp::from_second(time).unwrap());
    let part = |n: i8| u32::from(n.unsigned_abs());
    event.has_year(wall.year())
        && event.months.has(part(wall.month()))
        && event.days.has(part(wall.day()))
        && event.weekdays.has(part(wall.weekday().to_monday_zero_offset()))
        && event.hours.has(part(wall.hour()))
        && event.minutes.has(part(wall.minute()))
        && event.seconds.has(part(wall.second()))
}

proptest! {
    // Each case scans some hundred thousand seconds.
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn what_is_shown_means_the_same(text in texts()) {
        let event = event(&text);
        prop_assert_eq!(&event.to_string().parse::<Schedule>().unwrap(), &event, "{} as {}", text, event);
    }

    /// Where the wall clock does not jump: the next event is later, is one, and none is missed in between.
    #[test]
    fn next_is_the_first_that_a_scan_finds(text in texts(), start in 1_704_067_200_i64..1_735_689_600) {
        let (event, kolkata) = (event(&text), zone("Asia/Kolkata"));
        let next = event.next_after(EpochSecs(start), &kolkata);
        if let Some(next) = next {
            prop_assert!(next.0 > start);
            prop_assert!(matches(&event, next.0, &kolkata), "{} gives {}", text, next);
        }
        // Two days of seconds.
        let end = next.map_or(start + 172_800, |next| next.0.min(start + 172_800));
        let missed = (start + 1..end).find(|time| matches(&event, *time, &kolkata));
        prop_assert_eq!(missed, None, "{} after {}", text, start);
    }

    /// Around the jumps of the wall clock: nothing comes twice on the wall but for events of every hour, and nothing is left out.
    #[test]
    fn jumps_of_the_wall_clock(text in texts(), spring in any::<bool>(), before in 0_i64..14_400) {
        let (event, berlin) = (event(&text), zone("Europe/Berlin"));
        let jump: i64 = if spring { 1_711_846_800 } else { 1_729_990_800 };
        let (start, end) = (jump - before, jump + 10_800);
        let mut found = Vec::new();
        let mut time = EpochSecs(start);
        while let Some(next) = event.next_after(time, &berlin).filter(|next| next.0 <= end) {
            prop_assert!(next > time);
            found.push(next.0);
            time = next;
        }
        let in_gap = (jump - 3600..jump).any(|t| spring && !event.utc && gap_matches(&event, t));
        let want: Vec<i64> = (start + 1..=end).filter(|t| {
            let repeated = !spring && !event.utc && (jump..jump + 3600).contains(t) && !event.has_every_hour();
            (matches(&event, *t, &berlin) && !repeated) || (*t == jump && in_gap)
        }).collect();
        prop_assert_eq!(found, want, "{}", text);
    }
}

/// Whether the wall would show an event in the hour that is left out, `time` being so long before the jump that the wall shows it an hour
/// early.
fn gap_matches(event: &Schedule, time: i64) -> bool {
    let hour_later = TimeZone::fixed(Offset::constant(2));
    matches(event, time, &hour_later)
}
