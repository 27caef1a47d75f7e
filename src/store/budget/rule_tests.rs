use super::super::back_off::{LEVEL_MAX, LOOK_INTERVAL};
use super::*;
use proptest::prelude::*;

const MS: Duration = Duration::from_millis(1);

fn rate(chunks: u64, bytes: u64) -> Rate {
    Rate { chunks: NonZeroU64::new(chunks), bytes: NonZeroU64::new(bytes) }
}

fn rule(rate: Rate) -> Rule {
    Rule::new(&BackgroundConfig { rate, ..BackgroundConfig::default() }, Duration::ZERO)
}

/// Asks until it may go, as the handle does; returns when that is, and the causes met.
fn begin(rule: &mut Rule, mut now: Duration, cost: (u64, u64)) -> (Duration, Vec<Cause>) {
    let mut causes = Vec::new();
    loop {
        match rule.ask(now, &mut Buckets::default(), cost) {
            Verdict::Go => return (now, causes),
            Verdict::Wait { until, cause } => {
                assert!(until > now, "asking again at once would never end");
                causes.push(cause);
                now = until;
            }
        }
    }
}

/// Appends that take 20 ms are usual; then some take far longer, until the rule makes way as far as it does.
fn slow_sessions(rule: &mut Rule) -> Duration {
    let mut now = Duration::ZERO;
    for n in 0..60 {
        let took = if n < 20 { MS * 20 } else { MS * 200 };
        let key = rule.back_off.append_begun(now, Duration::ZERO);
        now += took;
        rule.back_off.append_ended(key, now, if n < 20 { Duration::ZERO } else { took });
        now += LOOK_INTERVAL;
        rule.back_off.look(now, Duration::ZERO);
    }
    assert_eq!(rule.level(), LEVEL_MAX);
    now
}

#[test]
fn without_limits_and_sessions_nothing_waits() {
    let mut rule = rule(Rate::NONE);
    for _ in 0..10_000 {
        assert_eq!(begin(&mut rule, MS, (u64::MAX, u64::MAX)), (MS, vec![]));
    }
    assert_eq!(rule.piece(), u64::MAX);
}

#[test]
fn both_rates_hold_and_the_tighter_one_decides() {
    let mut rule = rule(rate(10, 1000));
    assert_eq!(begin(&mut rule, Duration::ZERO, (1, 50)).0, Duration::ZERO);
    assert_eq!(begin(&mut rule, Duration::ZERO, (1, 50)), (MS * 100, vec![Cause::Rate]), "chunks");
    assert_eq!(begin(&mut rule, MS * 200, (1, 300)).0, MS * 200);
    assert_eq!(begin(&mut rule, MS * 300, (1, 100)).0, MS * 500, "bytes");
    rule.buckets.put_back_bytes(100);
    assert_eq!(begin(&mut rule, MS * 600, (1, 100)).0, MS * 600, "what was read less comes back");
}

#[test]
fn a_jobs_own_rate_holds_beside_that_of_the_datastore() {
    let mut rule = rule(rate(1000, 0));
    let mut own = Buckets::new(rate_of(10), Duration::ZERO);
    assert_eq!(rule.ask(MS, &mut own, (1, 0)), Verdict::Go);
    assert_eq!(rule.ask(MS, &mut own, (1, 0)), Verdict::Wait { until: MS * 101, cause: Cause::Rate });
    assert_eq!(rule.ask(MS, &mut Buckets::default(), (1, 0)), Verdict::Go, "another job");
}

fn rate_of(chunks: u64) -> Rate {
    rate(chunks, 0)
}

#[test]
fn another_rate_holds_at_once_and_the_same_one_keeps_its_debt() {
    let mut rule = rule(rate(10, 0));
    let config = |rate| BackgroundConfig { rate, ..BackgroundConfig::default() };
    assert_eq!(begin(&mut rule, Duration::ZERO, (100, 0)).0, Duration::ZERO);
    rule.set(&config(rate_of(10)), MS);
    assert_eq!(begin(&mut rule, MS, (1, 0)).0, MS * 10_000);
    rule.set(&config(Rate::NONE), MS * 10_001);
    assert_eq!(begin(&mut rule, MS * 10_001, (100, 0)).0, MS * 10_001);
}

#[test]
fn slow_appends_leave_one_unit_with_pauses_of_fifteen_times_its_length() {
    let mut rule = rule(Rate::NONE);
    let now = slow_sessions(&mut rule);
    assert_eq!(rule.piece(), PIECE_WHILE_SLOWED);
    let (now, _) = begin(&mut rule, now + PAUSE_MAX, (1, 0));
    let Verdict::Wait { cause: Cause::Backups, until } = rule.ask(now, &mut Buckets::default(), (1, 0)) else {
        panic!("a second unit")
    };
    assert!(until <= now + LOOK_INTERVAL, "decided anew soon");
    let ended = now + MS * 10;
    rule.ended(ended, MS * 10);
    let (begun, causes) = begin(&mut rule, ended, (1, 0));
    assert_eq!((begun, causes), (ended + MS * 150, vec![Cause::Backups]));
    // The switch is heard at once.
    rule.set(&BackgroundConfig { back_off: false, ..BackgroundConfig::default() }, begun);
    assert_eq!(rule.ask(begun, &mut Buckets::default(), (1, 0)), Verdict::Go);
}

#[test]
fn time_is_busy_while_any_unit_is_under_way() {
    let mut rule = rule(Rate::NONE);
    let go = |rule: &mut Rule, at| assert_eq!(rule.ask(at, &mut Buckets::default(), (1, 0)), Verdict::Go);
    go(&mut rule, MS * 10);
    go(&mut rule, MS * 15);
    rule.ended(MS * 20, MS * 10);
    assert_eq!(rule.busy(MS * 25), MS * 15);
    rule.ended(MS * 30, MS * 15);
    assert_eq!(rule.busy(MS * 100), MS * 20);
    go(&mut rule, MS * 100);
    assert_eq!(rule.busy(MS * 101), MS * 21);
}

proptest! {
    /// Whatever sessions do and however long units take, the next unit begins within the longest pause: a collection under constant backups ends.
    #[test]
    fn it_never_stalls_for_ever(
        steps in proptest::collection::vec((0u64..5_000, 0u64..30_000, 0u64..10_000), 1..80),
    ) {
        let mut rule = rule(Rate::NONE);
        let mut now = slow_sessions(&mut rule);
        for (append_ms, unit_ms, idle_ms) in steps {
            let key = rule.back_off.append_begun(now, rule.busy(now));
            let (begun, _) = begin(&mut rule, now, (1, 1 << 20));
            prop_assert!(begun <= now + PAUSE_MAX, "{:?}", begun - now);
            let took = Duration::from_millis(unit_ms);
            rule.ended(begun + took, took);
            now = begun + took + Duration::from_millis(append_ms);
            let busy = rule.busy(now);
            rule.back_off.append_ended(key, now, busy);
            now += Duration::from_millis(idle_ms);
        }
    }

    /// Whatever the order of units, both rates hold over every stretch of time from the first unit on.
    #[test]
    fn no_more_than_the_rate_whatever_the_order(
        chunks in 1u64..500,
        units in proptest::collection::vec((1u64..20, 0u64..100_000), 1..60),
    ) {
        let bytes = 100_000;
        let mut rule = rule(rate(chunks, bytes));
        let (mut now, mut sum, mut largest) = (Duration::ZERO, (0, 0), (0, 0));
        for cost in units {
            now = begin(&mut rule, now, cost).0;
            rule.ended(now, Duration::ZERO);
            sum = (sum.0 + cost.0, sum.1 + cost.1);
            largest = (cost.0.max(largest.0), cost.1.max(largest.1));
            let allowed = |rate: u64, largest: u64| {
                u128::from(rate) * now.as_nanos() / 1_000_000_000 + u128::from((rate / 10).max(largest)) + 1
            };
            prop_assert!(u128::from(sum.0) <= allowed(chunks, largest.0));
            prop_assert!(u128::from(sum.1) <= allowed(bytes, largest.1));
        }
    }
}
