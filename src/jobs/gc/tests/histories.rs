//! Random histories against a model: no chunk is lost that a finished snapshot or a running session needs, and what nobody needs goes when it is
//! old enough. Clocks jump to and fro.

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::jobs::gc::cutoff::Cutoff;

/// Groups, each with at most one running session.
const GROUPS: usize = 3;

/// Chunks that there are at all; few, so that they meet.
const CHUNKS: u8 = 12;

#[derive(Clone, Debug)]
enum Step {
    Begin {
        group: usize,
    },
    Upload {
        group: usize,
        chunk: u8,
    },
    /// Writes an index of everything that the session knows, of its base too or not.
    Write {
        group: usize,
        takes_over: bool,
    },
    Close {
        group: usize,
    },
    Finish {
        group: usize,
    },
    Abort {
        group: usize,
    },
    Prune {
        group: usize,
        which: usize,
    },
    /// A chunk that an aborted session left.
    Leave {
        chunk: u8,
    },
    PassTime {
        hours: i64,
    },
    SetClock {
        hours: i64,
    },
    Collect,
    /// A collection beside which the next steps are made.
    CollectBeside {
        steps: usize,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let group = || 0..GROUPS;
    let step = prop_oneof![
        3 => group().prop_map(|group| Step::Begin { group }),
        6 => (group(), 0..CHUNKS).prop_map(|(group, chunk)| Step::Upload { group, chunk }),
        3 => (group(), any::<bool>()).prop_map(|(group, takes_over)| Step::Write { group, takes_over }),
        3 => group().prop_map(|group| Step::Close { group }),
        3 => group().prop_map(|group| Step::Finish { group }),
        1 => group().prop_map(|group| Step::Abort { group }),
        3 => (group(), 0..4_usize).prop_map(|(group, which)| Step::Prune { group, which }),
        1 => (0..CHUNKS).prop_map(|chunk| Step::Leave { chunk }),
        3 => (0..100_i64).prop_map(|hours| Step::PassTime { hours }),
        1 => (-200..200_i64).prop_map(|hours| Step::SetClock { hours }),
        2 => Just(Step::Collect),
        2 => (1..8_usize).prop_map(|steps| Step::CollectBeside { steps }),
    ];
    prop::collection::vec(step, 1..50)
}

/// A running session.
struct Session {
    lease: BackupLease,
    known: Arc<Known>,
    /// What it knows: sent, or in its base.
    sent: BTreeSet<u8>,
    base: BTreeSet<u8>,
    snapshot: Snapshot,
    open: Option<(FixedWriter, Vec<u8>)>,
    closed: Option<Vec<u8>>,
}

#[derive(Default)]
struct Model {
    sessions: BTreeMap<usize, Session>,
    snapshots: BTreeMap<(usize, i64), (Snapshot, BTreeSet<u8>)>,
    next_hour: i64,
    /// The last use of each chunk, as its file says.
    accessed: BTreeMap<u8, i64>,
}

impl Model {
    /// What may not go.
    fn needed(&self) -> BTreeSet<u8> {
        let finished = self.snapshots.values().flat_map(|(_, chunks)| chunks);
        let running = self.sessions.values().flat_map(|s| s.sent.iter().chain(&s.base));
        finished.chain(running).copied().collect()
    }

    async fn apply(&mut self, scene: &Scene, step: &Step) {
        match step {
            Step::Begin { group } => self.begin(scene, *group).await,
            Step::Upload { group, chunk } => {
                let Some(session) = self.sessions.get_mut(group) else { return };
                let change = scene.store.begin_change();
                scene.insert(*chunk).await;
                session.known.add(*chunk);
                drop(change);
                session.sent.insert(*chunk);
                self.accessed.insert(*chunk, scene.now());
            }
            Step::Write { group, takes_over } => {
                let Some(session) = self.sessions.get_mut(group) else { return };
                let mut chunks = session.sent.clone();
                if *takes_over {
                    chunks.extend(&session.base);
                }
                if session.open.is_none() && session.closed.is_none() && !chunks.is_empty() {
                    let chunks: Vec<u8> = chunks.into_iter().collect();
                    session.open = Some((write(&session.lease, &chunks).await.unwrap(), chunks));
                }
            }
            Step::Close { group } => {
                let Some(session) = self.sessions.get_mut(group) else { return };
                if let Some((writer, chunks)) = session.open.take() {
                    close(&writer, &chunks).await.unwrap();
                    session.closed = Some(chunks);
                }
            }
            Step::Finish { group } => {
                if self.sessions.get(group).is_none_or(|session| session.closed.is_none()) {
                    return;
                }
                let Session { lease, known, snapshot, closed, .. } = self.sessions.remove(group).unwrap();
                let chunks = closed.unwrap();
                finish(&scene.store, &lease, &chunks).await.unwrap();
                drop(known);
                self.snapshots.insert((*group, snapshot.time().0), (snapshot, chunks.into_iter().collect()));
            }
            Step::Abort { group } => {
                let Some(Session { lease, open, .. }) = self.sessions.remove(group) else { return };
                drop(open);
                lease.abandon().await.unwrap();
            }
            Step::Prune { group, which } => {
                let of_group = self.snapshots.keys().filter(|(g, _)| g == group).copied();
                let Some(key) = of_group.collect::<Vec<_>>().get(*which).copied() else { return };
                // The base of a running session is locked.
                if scene.store.remove_snapshot(&root(), &self.snapshots[&key].0).await.is_ok() {
                    self.snapshots.remove(&key);
                }
            }
            Step::Leave { chunk } => {
                scene.insert(*chunk).await;
                self.accessed.insert(*chunk, scene.now());
            }
            Step::PassTime { hours } | Step::SetClock { hours } => scene.pass_time(hours * 3600),
            Step::Collect | Step::CollectBeside { .. } => {}
        }
    }

    /// A first backup of a chunk in each directory, an hour ago: there is something that may be left out.
    async fn back_up(&mut self, scene: &Scene) {
        let group = 0;
        let uploads = (0..4).map(|chunk| Step::Upload { group, chunk });
        let first = [Step::Begin { group }].into_iter().chain(uploads);
        let last = [Step::Write { group, takes_over: false }, Step::Close { group }, Step::Finish { group }];
        for step in first.chain(last).chain([Step::PassTime { hours: 1 }]) {
            self.apply(scene, &step).await;
        }
    }

    async fn begin(&mut self, scene: &Scene, group: usize) {
        if self.sessions.contains_key(&group) {
            return;
        }
        self.next_hour += 1;
        let snapshot = crate::store::test_support::snapshot(&format!("host/g{group}"), self.next_hour);
        let lease = scene.begin(&snapshot).await;
        let known = Known::of(&scene.store);
        let base = lease.base().map(|base| (group, base.snapshot.time().0));
        let base = base.map(|key| self.snapshots[&key].1.clone()).unwrap_or_default();
        let session = Session { lease, known, sent: BTreeSet::new(), base, snapshot, open: None, closed: None };
        self.sessions.insert(group, session);
    }

    /// What a collection at this moment leaves of `before`: what is needed, and what is too young.
    fn left(&self, scene: &Scene, before: &BTreeSet<u8>) -> BTreeSet<u8> {
        let cutoff = Cutoff::new(scene.clock.now(), scene.store.oldest_writer(), 1445 * 60);
        let (needed, named) = (self.needed(), self.named());
        let stays = |n: &u8| {
            needed.contains(n) || named.contains(n) || self.accessed.get(n).is_none_or(|at| *at >= cutoff.min_atime.0)
        };
        before.iter().copied().filter(stays).collect()
    }

    /// What closed indexes of running sessions name.
    fn named(&self) -> BTreeSet<u8> {
        self.sessions.values().filter_map(|s| s.closed.as_ref()).flatten().copied().collect()
    }
}

/// Plays a history; adds to `unchanged` how many directories were left out.
async fn play(machine: &Machine, steps: &[Step], unchanged: &AtomicU64) -> std::result::Result<(), TestCaseError> {
    let scene = Arc::new(Scene::new(machine).await);
    let mut model = Model::default();
    if scene.sim.is_some() {
        model.back_up(&scene).await;
    }
    let mut beside: Option<(tokio::task::JoinHandle<GcReport>, usize)> = None;
    for step in steps {
        match (step, &beside) {
            (Step::Collect, None) => {
                let before = scene.chunks();
                let left = model.left(&scene, &before);
                let GcReport { status, swept, .. } = scene.collect().await;
                unchanged.fetch_add(swept.dirs_unchanged, Ordering::Relaxed);
                prop_assert_eq!(scene.chunks(), left.clone(), "{:?}", status);
                prop_assert_eq!(status.disk_chunks + status.pending_chunks, left.len() as u64);
                prop_assert_eq!(status.removed_chunks, (before.len() - left.len()) as u64);
                if scene.sim.is_some() {
                    let GcReport { status: again, swept, .. } = scene.collect().await;
                    unchanged.fetch_add(swept.dirs_unchanged, Ordering::Relaxed);
                    prop_assert_eq!(scene.chunks(), left);
                    prop_assert_eq!((again.disk_chunks, again.disk_bytes), (status.disk_chunks, status.disk_bytes));
                }
            }
            (Step::CollectBeside { steps }, None) => {
                let own = Arc::clone(&scene);
                beside = Some((tokio::spawn(async move { own.collect().await }), *steps));
            }
            _ => model.apply(&scene, step).await,
        }
        beside = match beside {
            Some((running, 0)) => {
                running.await.unwrap();
                None
            }
            Some((running, left)) => Some((running, left - 1)),
            None => None,
        };
        let lost: BTreeSet<u8> = model.needed().difference(&scene.chunks()).copied().collect();
        prop_assert!(lost.is_empty(), "lost {:?} after {:?}", lost, step);
    }
    if let Some((running, _)) = beside {
        running.await.unwrap();
    }
    let lost: BTreeSet<u8> = model.needed().difference(&scene.chunks()).copied().collect();
    prop_assert!(lost.is_empty(), "lost {:?} at the end", lost);
    for (_, session) in std::mem::take(&mut model.sessions) {
        drop(session.open);
        session.lease.abandon().await.unwrap();
    }
    // In the end nobody needs more than the snapshots, and time passes.
    let latest = model.accessed.values().copied().max().unwrap_or(T0).max(scene.now());
    scene.set_time(latest + 2 * DAY);
    scene.collect().await;
    let needed = model.needed();
    prop_assert_eq!(scene.chunks(), needed);
    Ok(())
}

static RUNTIME: LazyLock<tokio::runtime::Runtime> =
    LazyLock::new(|| tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap());

/// Plays histories on such a machine; returns how many directories were left out.
fn play_many(cases: u32, machine: fn() -> Machine) -> u64 {
    let machine = RUNTIME.block_on(async { machine() });
    let unchanged = AtomicU64::new(0);
    let played =
        TestRunner::new(config(cases)).run(&steps(), |steps| RUNTIME.block_on(play(&machine, &steps, &unchanged)));
    played.unwrap();
    unchanged.into_inner()
}

fn config(cases: u32) -> Config {
    Config { cases, failure_persistence: None, max_shrink_iters: 500, ..Config::default() }
}

/// Plays the same twice: on one machine directories that have not changed are left out, on the other all are read.
async fn compare(machines: &[Machine; 2], steps: &[Step]) -> std::result::Result<u64, TestCaseError> {
    let [one, mut other] = [Scene::new(&machines[0]).await, Scene::new(&machines[1]).await];
    other.manner = Manner::Fresh;
    let (mut model, mut same) = (Model::default(), Model::default());
    let mut unchanged = 0;
    model.back_up(&one).await;
    same.back_up(&other).await;
    for step in steps {
        // Once after what was changed, and once more.
        let times = if let Step::Collect | Step::CollectBeside { .. } = step { 2 } else { 0 };
        for _ in 0..times {
            let (left_out, all) = (one.collect().await, other.collect().await);
            let untold = |status| crate::jobs::gc::GcStatus { upid: None, ..status };
            prop_assert_eq!(untold(left_out.status), untold(all.status));
            prop_assert_eq!(left_out.swept.unmet, all.swept.unmet);
            prop_assert_eq!(left_out.swept.dirs_read + left_out.swept.dirs_unchanged, all.swept.dirs_read);
            unchanged += left_out.swept.dirs_unchanged;
        }
        if times == 0 {
            model.apply(&one, step).await;
            same.apply(&other, step).await;
        }
        prop_assert_eq!(one.chunks(), other.chunks(), "after {:?}", step);
    }
    for (_, session) in model.sessions.into_iter().chain(same.sessions) {
        drop(session.open);
        session.lease.abandon().await.unwrap();
    }
    Ok(unchanged)
}

fn compare_many(cases: u32) -> u64 {
    let machines = RUNTIME.block_on(async { [Machine::simulated(None), Machine::simulated(None)] });
    let unchanged = AtomicU64::new(0);
    let compared = TestRunner::new(config(cases)).run(&steps(), |steps| {
        unchanged.fetch_add(RUNTIME.block_on(compare(&machines, &steps))?, Ordering::Relaxed);
        Ok(())
    });
    compared.unwrap();
    unchanged.into_inner()
}

#[test]
fn no_history_loses_a_chunk_or_keeps_garbage() {
    play_many(100, Machine::new);
}

/// On a disk whose clock goes with the history's, so that directories become known.
#[test]
fn nor_does_one_in_which_directories_are_left_out() {
    let unchanged = play_many(60, || Machine::simulated(None));
    assert!(unchanged > 60, "{unchanged} directories were left out");
}

#[test]
fn what_is_left_out_makes_no_difference() {
    let unchanged = compare_many(40);
    assert!(unchanged > 40, "{unchanged} directories were left out");
}

/// `cargo test --lib gc::tests::histories -- --ignored`
#[test]
#[ignore = "ten thousand histories take a quarter of an hour"]
fn ten_thousand_histories() {
    play_many(10_000, Machine::new);
}

#[test]
#[ignore = "as above, on a simulated disk"]
fn ten_thousand_histories_with_directories_left_out() {
    println!("{} directories left out", play_many(10_000, || Machine::simulated(None)));
}

#[test]
#[ignore = "as above, each played twice"]
fn ten_thousand_comparisons() {
    println!("{} directories left out", compare_many(10_000));
}
