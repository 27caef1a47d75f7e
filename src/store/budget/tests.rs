use std::num::NonZeroU64;
use std::sync::atomic::AtomicU64;

use super::*;

const MS: Duration = Duration::from_millis(1);
const S: Duration = Duration::from_secs(1);

fn no_pressure() -> io::Result<String> {
    Err(io::Error::from(io::ErrorKind::NotFound))
}

fn budget(rate: Rate) -> Budget {
    Budget::new("main", &BackgroundConfig { rate, ..BackgroundConfig::default() }, no_pressure)
}

fn rate(chunks: u64, bytes: u64) -> Rate {
    Rate { chunks: NonZeroU64::new(chunks), bytes: NonZeroU64::new(bytes) }
}

/// Sessions whose appends take 20 ms alone, then 200 ms beside background work.
async fn slow_sessions(budget: &Budget) {
    for _ in 0..20 {
        let append = budget.append();
        tokio::time::sleep(MS * 20).await;
        drop(append);
    }
    let share = budget.share(Rate::NONE);
    while budget.level() < back_off::LEVEL_MAX {
        let turn = share.take(1, 0).await;
        let append = budget.append();
        tokio::time::sleep(MS * 200).await;
        drop((turn, append));
    }
}

#[tokio::test(start_paused = true)]
async fn the_rate_is_kept_exactly_whoever_takes() {
    let budget = budget(rate(100, 0));
    let begun = Instant::now();
    let mut jobs = tokio::task::JoinSet::new();
    for share in [budget.share(Rate::NONE), budget.share(Rate::NONE)] {
        for _ in 0..4 {
            let share = share.clone();
            jobs.spawn(async move {
                for _ in 0..125 {
                    drop(share.take(1, 0).await);
                }
            });
        }
    }
    jobs.join_all().await;
    // 1000 of them, ten of which the bucket had. The clock of tokio goes by milliseconds.
    let took = begun.elapsed();
    assert!(took >= S * 99 / 10 && took <= S * 101 / 10, "{took:?}");
    let waited = budget.waited();
    assert_eq!(waited.backups, Duration::ZERO);
    assert!(waited.rate >= S * 19, "each job has waited: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn bytes_are_settled_when_they_are_known() {
    let budget = budget(rate(0, 1000));
    let share = budget.share(Rate::NONE);
    let begun = Instant::now();
    for _ in 0..10 {
        share.take(1, 1000).await.settle(100);
    }
    assert!(begun.elapsed() <= S, "{:?}", begun.elapsed());
    share.take(1, 0).await.settle(3000);
    let begun = Instant::now();
    drop(share.take(1, 0).await);
    assert!(begun.elapsed() >= S * 2, "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_job_may_have_a_rate_of_its_own() {
    let budget = budget(Rate::NONE);
    let (slow, fast) = (budget.share(rate(1, 0)), budget.share(Rate::NONE));
    assert_eq!((slow.piece(4096), fast.piece(4096)), (1, 4096));
    let begun = Instant::now();
    for share in [&slow, &slow, &fast] {
        drop(share.take(1, 0).await);
    }
    assert!(begun.elapsed() >= S && begun.elapsed() <= S + MS);
    let (slow, fast) = (*slow.waited().borrow(), *fast.waited().borrow());
    assert!(slow.rate >= S && fast == Waited::default());
}

#[tokio::test(start_paused = true)]
async fn what_is_given_up_has_drawn_nothing_and_holds_nobody_up() {
    let budget = budget(rate(1, 0));
    let share = budget.share(Rate::NONE);
    drop(share.take(1, 0).await);
    for _ in 0..100 {
        assert!(tokio::time::timeout(MS * 5, share.take(1, 0)).await.is_err());
    }
    let begun = Instant::now();
    drop(share.take(1, 0).await);
    assert!(begun.elapsed() <= S / 2 + MS, "{:?}", begun.elapsed());
    assert_eq!(budget.inner.rule.lock().busy(budget.now()), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn another_rate_is_heard_by_who_waits() {
    let budget = budget(rate(1, 0));
    let share = budget.share(Rate::NONE);
    drop(share.take(3600, 0).await);
    let waiting = tokio::spawn(async move { drop(share.take(1, 0).await) });
    tokio::time::sleep(S).await;
    assert!(!waiting.is_finished());
    let begun = Instant::now();
    budget.set(&BackgroundConfig::default());
    waiting.await.unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn slow_appends_hold_background_work_back_until_the_sessions_are_gone() {
    let budget = budget(Rate::NONE);
    slow_sessions(&budget).await;
    let share = budget.share(Rate::NONE);
    assert_eq!(share.piece(4096), 32);
    let begun = Instant::now();
    let mut units = 0;
    while begun.elapsed() < S * 5 {
        let turn = share.take(1, 0).await;
        let append = budget.append();
        tokio::time::sleep(MS * 100).await;
        drop((turn, append));
        units += 1;
    }
    // 100 ms of work, 1500 ms of pause, and never nothing.
    assert!((3..=6).contains(&units), "{units}");
    assert!(share.waited().borrow().backups >= S * 4);
    tokio::time::sleep(S * 11).await;
    let begun = Instant::now();
    for _ in 0..1000 {
        drop(share.take(1, 0).await);
    }
    assert_eq!((begun.elapsed(), budget.level()), (Duration::ZERO, 0));
}

#[tokio::test(start_paused = true)]
async fn pressure_counts_only_beside_sessions() {
    let total = Arc::new(AtomicU64::new(0));
    let (reads, text) = (Arc::new(AtomicU64::new(0)), Arc::clone(&total));
    let count = Arc::clone(&reads);
    let budget = Budget::new("main", &BackgroundConfig::default(), move || {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(format!("some avg10=0.00 avg60=0.00 avg300=0.00 total={}\n", text.load(Ordering::Relaxed)))
    });
    let share = budget.share(Rate::NONE);
    let work = async |seconds: u32| {
        for _ in 0..seconds * 10 {
            drop(share.take(1, 0).await);
            tokio::time::sleep(MS * 100).await;
            total.fetch_add(90_000, Ordering::Relaxed);
        }
    };
    work(10).await;
    assert_eq!((budget.level(), reads.load(Ordering::Relaxed)), (0, 0));
    let session = budget.guest();
    work(10).await;
    assert_eq!(budget.level(), back_off::LEVEL_MAX_BY_PRESSURE);
    assert!(reads.load(Ordering::Relaxed) <= 11, "once a second");
    drop(session);
    work(1).await;
    assert_eq!(budget.level(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_kernel_without_pressure_is_asked_once() {
    let reads = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&reads);
    let budget = Budget::new("main", &BackgroundConfig::default(), move || {
        count.fetch_add(1, Ordering::Relaxed);
        no_pressure()
    });
    let (share, _session) = (budget.share(Rate::NONE), budget.guest());
    for _ in 0..10 {
        drop(share.take(1, 0).await);
        tokio::time::sleep(S).await;
    }
    assert_eq!((budget.level(), reads.load(Ordering::Relaxed)), (0, 1));
}

/// What a client waits for counts, and nothing else does.
#[tokio::test]
async fn a_store_tells_of_appends_alone() {
    use crate::engine::Class;
    use crate::store::Freshness;
    use crate::store::test_support::{make_base, open};
    let dir = tempfile::tempdir().unwrap();
    let store = open(&make_base(dir.path())).await;
    let budget = store.budget();
    let is_appending = || budget.inner.rule.lock().wants_pressure(budget.now());
    for class in [Class::Sweep, Class::Background] {
        store.check_chunks(Vec::new(), class, Freshness::Cached).await.unwrap();
        assert!(!is_appending(), "{class:?}");
    }
    store.check_chunks(Vec::new(), Class::Interactive, Freshness::Cached).await.unwrap();
    assert!(is_appending());
}
