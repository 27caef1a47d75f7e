//! Prunes on a disk that fails, that dies, or whose task is told to stop: nothing is ever half there and looks whole.
#![expect(clippy::disallowed_methods, reason = "a test makes files behind the store's back")]

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use jiff::tz::TimeZone;
use tempfile::TempDir;

use super::*;
use crate::clock::{Clock, EpochSecs};
use crate::engine::{Disk, Engine, EngineConfig, Fault};
use crate::error::Result;
use crate::store::{Datastore, DatastoreConfig, Rate, SyncLevel};
use crate::task::{Registry, Task};
use crate::types::{AuthId, Group, Namespace, Upid};

const FILES: [&str; 3] = ["index.json.blob", "disk.img.fidx", "vm.conf.blob"];

/// An hour apart; retention keeps the last one.
const TIMES: [&str; 4] =
    ["2024-06-05T14:23:38Z", "2024-06-05T15:23:38Z", "2024-06-05T16:23:38Z", "2024-06-05T17:23:38Z"];

struct Ground {
    dir: TempDir,
    tasks: Registry,
}

impl Ground {
    /// Two groups of whole snapshots; what is in their files is of no interest to prune.
    fn new() -> Self {
        use std::os::unix::fs::PermissionsExt;
        // In memory if there is such a place: hundreds of times each of its syncs would be waited for.
        let memory = Path::new("/dev/shm");
        let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
        let base = dir.path().join("store");
        for (path, mode) in [(base.clone(), 0o755), (base.join(".chunks"), 0o750)] {
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        for group in ["host/a", "vm/7"] {
            for time in TIMES {
                let snapshot = base.join(group).join(time);
                std::fs::create_dir_all(&snapshot).unwrap();
                for name in FILES {
                    std::fs::write(snapshot.join(name), name).unwrap();
                }
            }
            std::fs::write(base.join(group).join("owner"), "tester@pbs!bench\n").unwrap();
        }
        let tasks = Registry::open(&dir.path().join("tasks"), Clock::system()).unwrap();
        Self { dir, tasks }
    }

    fn base(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    async fn open(&self, disk: Disk) -> Datastore {
        let engine = Engine::start_on("test", &EngineConfig::default(), disk).unwrap();
        let mut config = DatastoreConfig::new("store1".parse().unwrap(), self.base());
        config.sync_level = SyncLevel::File;
        Datastore::open(config, engine, Clock::manual(EpochSecs(1_717_700_000))).await.unwrap()
    }

    async fn task(&self) -> Task {
        let auth: AuthId = "root@pam".parse().unwrap();
        self.tasks.start("prunejob", Some("store1".to_owned()), &auth).await.unwrap()
    }

    fn log(&self, upid: &Upid) -> Vec<String> {
        let text = std::fs::read_to_string(self.tasks.log_path(upid)).unwrap();
        text.lines().map(|line| line[27..].to_owned()).collect()
    }

    /// Files of each snapshot's directory that is there.
    fn left(&self) -> BTreeMap<String, Vec<String>> {
        let mut left = BTreeMap::new();
        for group in ["host/a", "vm/7"] {
            for time in TIMES {
                let dir = self.base().join(group).join(time);
                if let Ok(entries) = std::fs::read_dir(&dir) {
                    let mut names: Vec<String> =
                        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
                    names.sort();
                    left.insert(format!("{group}/{time}"), names);
                }
            }
        }
        left
    }
}

fn scope(keep: KeepOptions) -> Scope {
    Scope { ns: Namespace::root(), max_depth: 7, keep, dry_run: false, rate: Rate::NONE }
}

fn last(last: u64) -> KeepOptions {
    KeepOptions { last, ..KeepOptions::default() }
}

async fn prune(store: &Datastore, keep: KeepOptions, task: &Task) -> Result<Report> {
    prune_datastore(store, &scope(keep), &TimeZone::UTC, |_, _| true, task).await
}

/// Fails operations by their number, from [`Self::arm`] on: one, or all from it on.
#[derive(Debug)]
struct Failing {
    count: AtomicU64,
    at: u64,
    for_good: bool,
}

const UNARMED: u64 = 1 << 60;

impl Failing {
    fn new(at: u64, for_good: bool) -> Arc<Self> {
        Arc::new(Self { count: AtomicU64::new(UNARMED), at, for_good })
    }

    fn arm(&self) {
        self.count.store(0, Ordering::SeqCst);
    }
}

impl Fault for Failing {
    fn before(&self, _op: &'static str, _path: Option<&Path>) -> io::Result<()> {
        let at = self.count.fetch_add(1, Ordering::SeqCst);
        if at == self.at || (self.for_good && (self.at..UNARMED).contains(&at)) {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_of_a_prune_may_fail_and_the_machine_may_die_before_it() {
    for for_good in [false, true] {
        let (mut at, mut troubled) = (0, 0);
        loop {
            let ground = Ground::new();
            let fault = Failing::new(at, for_good);
            let store = ground.open(Disk::with_fault(fault.clone())).await;
            let task = ground.task().await;
            fault.arm();
            let outcome = prune(&store, last(1), &task).await;
            let count = fault.count.load(Ordering::SeqCst);
            let context = format!("operation {at} of {count}, for good {for_good}: {outcome:?}");
            task.end(Ok(())).await;
            drop(store);

            let left = ground.left();
            for (snapshot, files) in &left {
                let is_finished = files.iter().any(|name| name == FILES[0]);
                assert!(!is_finished || files.len() == 3, "{context}: {snapshot} looks whole with {files:?}");
            }
            for group in ["host/a", "vm/7"] {
                let kept = &left[&format!("{group}/{}", TIMES[3])];
                assert_eq!(kept.len(), 3, "{context}");
            }
            let clean = outcome.as_ref().is_ok_and(|report| report.result().is_ok() && report.removed == 6);
            assert!(!clean || left.len() == 2, "{context}: {left:?}");
            troubled += u64::from(!clean);
            // The next run does what this one could not.
            let store = ground.open(Disk::real()).await;
            let task = ground.task().await;
            let report = prune(&store, last(1), &task).await.unwrap();
            assert_eq!((report.kept, report.spared, report.faults), (2, 0, 0), "{context}");
            assert_eq!(ground.left().len(), 2, "{context}");
            task.end(Ok(())).await;
            if count <= at {
                break;
            }
            at += 1;
        }
        assert!(troubled > 30, "{troubled} of {at}, for good {for_good}");
    }
}

/// Asks the task to stop when the second snapshot's directory goes.
#[derive(Debug)]
struct Stopping {
    tasks: Registry,
    upid: OnceLock<Upid>,
}

impl Fault for Stopping {
    fn before(&self, op: &'static str, path: Option<&Path>) -> io::Result<()> {
        if op == "rmdir" && path.is_some_and(|path| path.ends_with(TIMES[1])) {
            self.tasks.abort(self.upid.get().expect("the task has begun"));
        }
        Ok(())
    }
}

#[tokio::test]
async fn an_abort_is_heard_between_two_snapshots() {
    let ground = Ground::new();
    let fault = Arc::new(Stopping { tasks: ground.tasks.clone(), upid: OnceLock::new() });
    let store = ground.open(Disk::with_fault(fault.clone())).await;
    let task = ground.task().await;
    let upid = task.upid().clone();
    fault.upid.set(upid.clone()).unwrap();
    let error = prune(&store, last(1), &task).await.unwrap_err();
    assert_eq!(error.to_string(), "task aborted");
    task.end(Err(error.to_string())).await;
    // The one that was on its way is gone entirely, the next one is untouched.
    let left: Vec<String> = ground.left().into_keys().filter(|name| name.starts_with("host")).collect();
    assert_eq!(left, [format!("host/a/{}", TIMES[2]), format!("host/a/{}", TIMES[3])]);
    assert_eq!(ground.left().values().filter(|files| files.len() == 3).count(), 6);
    let log = ground.log(&upid);
    assert_eq!(log[log.len() - 2..], [format!("removed host/a/{}", TIMES[1]), "TASK ERROR: task aborted".to_owned()]);
}

#[tokio::test]
async fn only_groups_that_may_be_pruned_are() {
    let ground = Ground::new();
    std::fs::write(ground.base().join("vm/7/owner"), "other@pbs\n").unwrap();
    let store = ground.open(Disk::real()).await;
    let task = ground.task().await;
    let asker: AuthId = "other@pbs".parse().unwrap();
    let may = |ns: &Namespace, owner: &AuthId| ns.is_root() && asker.owns(owner);
    let report = prune_datastore(&store, &scope(last(3)), &TimeZone::UTC, may, &task).await.unwrap();
    assert_eq!(report, Report { groups: 1, kept: 3, removed: 1, spared: 0, faults: 0 });
    assert_eq!(ground.left().keys().filter(|name| name.starts_with("host")).count(), 4);
    task.end(Ok(())).await;
}

/// Makes a file impossible to read, as it is for a daemon that is not root.
#[derive(Debug)]
struct Unreadable(&'static str);

impl Fault for Unreadable {
    fn before(&self, op: &'static str, path: Option<&Path>) -> io::Result<()> {
        match path {
            Some(path) if op == "open" && path.ends_with(self.0) => Err(io::Error::from_raw_os_error(libc::EACCES)),
            _ => Ok(()),
        }
    }
}

#[tokio::test]
async fn a_group_whose_owner_cannot_be_told_is_named_and_left_out() {
    let all = |_: &Namespace, _: &AuthId| true;
    let own = |_: &Namespace, owner: &AuthId| owner.to_string().starts_with("tester@pbs");
    for (owner, unreadable, may, says, ends) in [
        ("x", true, true, "(os error 13)", "TASK ERROR: pruning failed in one place, see the log"),
        ("nonsense", false, true, "not a valid user id", "TASK ERROR: pruning failed in one place, see the log"),
        ("", false, true, "(os error 2)", "TASK WARNINGS: 1"),
        // It concerns those alone who may prune everybody's.
        ("nonsense", false, false, "", "TASK OK"),
    ] {
        let ground = Ground::new();
        let path = ground.base().join("vm/7/owner");
        match owner {
            "" => std::fs::remove_file(&path).unwrap(),
            text => std::fs::write(&path, text).unwrap(),
        }
        // A group that is just being made has neither an owner nor a snapshot.
        std::fs::create_dir(ground.base().join("host/new")).unwrap();
        let disk = if unreadable { Disk::with_fault(Arc::new(Unreadable("vm/7/owner"))) } else { Disk::real() };
        let store = ground.open(disk).await;
        let task = ground.task().await;
        let upid = task.upid().clone();
        let may = if may { all as fn(&Namespace, &AuthId) -> bool } else { own };
        let report = prune_datastore(&store, &scope(last(1)), &TimeZone::UTC, may, &task).await.unwrap();
        task.end(report.result()).await;
        let log = ground.log(&upid);
        assert_eq!((report.groups, report.removed, log.last().unwrap().as_str()), (1, 3, ends), "{log:?}");
        assert_eq!(ground.left().keys().filter(|name| name.starts_with("vm")).count(), 4);
        let warned: Vec<&String> = log.iter().filter(|line| line.contains("vm/7")).collect();
        if says.is_empty() {
            assert!(warned.is_empty(), "{log:?}");
            continue;
        }
        let file = format!("{path:?}");
        for part in ["group vm/7 is left out", &file, says, "let the daemon read that file", "store1/change-owner"] {
            assert!(warned[0].contains(part), "{part}: {log:?}");
        }
    }
}

#[tokio::test]
async fn a_prune_with_a_rate_of_its_own_keeps_it() {
    let ground = Ground::new();
    let store = ground.open(Disk::real()).await;
    let rate: Rate = "20/s".parse().unwrap();
    let (all, one) = (Scope { rate, ..scope(last(2)) }, "vm/7".parse().unwrap());
    let task = ground.task().await;
    let upid = task.upid().clone();
    prune_datastore(&store, &all, &TimeZone::UTC, |_, _| true, &task).await.unwrap();
    task.end(Ok(())).await;
    let waited = store.budget().waited().rate;
    assert!(!waited.is_zero());
    assert!(ground.log(&upid).iter().any(|line| line == "at most 20 chunks a second, as was asked for"));
    let plan = plan_group(&store, &Namespace::root(), &one, &last(1), &TimeZone::UTC).await.unwrap();
    let task = ground.task().await;
    let rate: Rate = "1/s".parse().unwrap();
    prune_group(&store, &Namespace::root(), &one, &last(1), &plan, (true, rate), &task).await.unwrap();
    task.end(Ok(())).await;
    assert_eq!(
        (store.budget().waited().rate, ground.left().len()),
        (waited, 4),
        "what only tells a plan need not wait"
    );
}

#[tokio::test]
async fn a_snapshot_protected_after_the_plan_stays() {
    let ground = Ground::new();
    let store = ground.open(Disk::real()).await;
    let (ns, group): (_, Group) = (Namespace::root(), "vm/7".parse().unwrap());
    let plan = plan_group(&store, &ns, &group, &last(1), &TimeZone::UTC).await.unwrap();
    let keeps: Vec<_> = plan.iter().map(|decision| (decision.mark, decision.keep)).collect();
    assert_eq!(keeps[..3], [(Mark::Remove, false); 3]);
    assert_eq!(keeps[3], (Mark::Keep, true));
    store.set_protected(&ns, &plan[1].snapshot, true).await.unwrap();
    store.remove_snapshot(&ns, &plan[2].snapshot).await.unwrap();
    let task = ground.task().await;
    let upid = task.upid().clone();
    let report = prune_group(&store, &ns, &group, &last(1), &plan, (false, Rate::NONE), &task).await.unwrap();
    assert_eq!(report, Report { groups: 1, kept: 1, removed: 1, spared: 2, faults: 0 });
    task.end(Ok(())).await;
    assert_eq!(ground.log(&upid).last().unwrap(), "TASK WARNINGS: 2");
    let left: Vec<String> = ground.left().into_keys().filter(|name| name.starts_with("vm")).collect();
    assert_eq!(left, [format!("vm/7/{}", TIMES[1]), format!("vm/7/{}", TIMES[3])]);
}

#[tokio::test]
async fn the_last_snapshots_take_their_group_along() {
    let ground = Ground::new();
    std::fs::remove_dir_all(ground.base().join("vm/7").join(TIMES[3])).unwrap();
    // Unfinished and not the newest: leftovers of crashes.
    for time in &TIMES[..3] {
        std::fs::remove_file(ground.base().join("vm/7").join(time).join(FILES[0])).unwrap();
    }
    let store = ground.open(Disk::real()).await;
    let task = ground.task().await;
    let report = prune(&store, last(1), &task).await.unwrap();
    assert_eq!(report, Report { groups: 2, kept: 2, removed: 5, spared: 0, faults: 0 });
    let group: Group = "vm/7".parse().unwrap();
    let plan = plan_group(&store, &Namespace::root(), &group, &last(1), &TimeZone::UTC).await.unwrap();
    assert_eq!(plan.iter().map(|decision| decision.mark).collect::<Vec<_>>(), [Mark::KeepPartial]);
    store.remove_snapshot(&Namespace::root(), &plan[0].snapshot).await.unwrap();
    assert!(!ground.base().join("vm/7").exists());
    let error = plan_group(&store, &Namespace::root(), &group, &last(1), &TimeZone::UTC).await.unwrap_err();
    assert_eq!(error.to_string(), "ENOENT: No such file or directory");
    task.end(Ok(())).await;
}

/// Somebody keeps a manifest elsewhere, or plays a trick: it may be a good snapshot, so it is not for prune to remove it.
#[tokio::test]
async fn a_manifest_that_is_a_link_is_told_and_keeps_nothing_else_from_going() {
    let ground = Ground::new();
    let elsewhere = ground.dir.path().join("elsewhere");
    std::fs::write(&elsewhere, "somebody's").unwrap();
    let odd = ground.base().join("host/a").join(TIMES[1]);
    std::fs::remove_file(odd.join(FILES[0])).unwrap();
    std::os::unix::fs::symlink(&elsewhere, odd.join(FILES[0])).unwrap();
    let store = ground.open(Disk::real()).await;
    let task = ground.task().await;
    let upid = task.upid().clone();
    let report = prune(&store, last(1), &task).await.unwrap();
    assert_eq!(report, Report { groups: 2, kept: 2, removed: 5, spared: 0, faults: 1 });
    task.end(report.result()).await;
    let log = ground.log(&upid);
    let told = format!("WARN: host/a/{} is not removed: ", TIMES[1]);
    assert!(
        log.iter().any(|line| line.starts_with(&told) && line.contains("a symbolic link: put the file in its place")),
        "{log:#?}"
    );
    assert_eq!(log.last().unwrap(), "TASK ERROR: pruning failed in one place, see the log");
    let left: Vec<String> = ground.left().into_keys().collect();
    assert_eq!(left, [format!("host/a/{}", TIMES[1]), format!("host/a/{}", TIMES[3]), format!("vm/7/{}", TIMES[3])]);
    assert_eq!(std::fs::read_to_string(&elsewhere).unwrap(), "somebody's");
    assert_eq!(ground.left()[&left[0]].len(), 3, "all of it stays");
    // The way out that the message names.
    std::fs::remove_file(odd.join(FILES[0])).unwrap();
    let task = ground.task().await;
    let report = prune(&store, last(1), &task).await.unwrap();
    assert_eq!((report.removed, report.faults, ground.left().len()), (1, 0, 2));
    task.end(Ok(())).await;
}

/// What happens to all operations from the removal of a snapshot on.
#[derive(Debug)]
struct FromThen {
    base: PathBuf,
    /// A read-only file system, or none at all.
    read_only: bool,
    begun: std::sync::atomic::AtomicBool,
}

impl Fault for FromThen {
    #[expect(clippy::disallowed_methods, reason = "a test takes a datastore away")]
    fn before(&self, op: &'static str, path: Option<&Path>) -> io::Result<()> {
        let is_removed = op == "rmdir" && path.is_some_and(|path| path.ends_with(TIMES[2]));
        let is_other = path.is_some_and(|path| path.to_string_lossy().contains("vm/7"));
        if self.begun.load(Ordering::SeqCst) && is_other && !self.read_only {
            let _ = std::fs::rename(&self.base, self.base.with_extension("away"));
        }
        let changes = ["create", "mkdir", "rename", "unlink", "rmdir", "pwrite"].contains(&op);
        if self.begun.load(Ordering::SeqCst) && self.read_only && changes {
            return Err(io::Error::from_raw_os_error(libc::EROFS));
        }
        if is_removed {
            self.begun.store(true, Ordering::SeqCst);
        }
        Ok(())
    }
}

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test takes a datastore away")]
async fn a_datastore_that_vanishes_or_turns_read_only_under_a_prune_is_told() {
    for read_only in [true, false] {
        let ground = Ground::new();
        let fault = Arc::new(FromThen { base: ground.base(), read_only, begun: false.into() });
        let store = ground.open(Disk::with_fault(fault)).await;
        let task = ground.task().await;
        let upid = task.upid().clone();
        let result = prune(&store, last(1), &task).await.map_err(|e| e.to_string()).and_then(|report| report.result());
        task.end(result.clone()).await;
        let error = result.unwrap_err();
        if read_only {
            assert_eq!(error, "pruning failed in 3 places, see the log");
            let told = ground.log(&upid).iter().filter(|line| line.contains("Read-only file system")).count();
            assert_eq!(told, 3);
        } else {
            assert!(error.contains("the datastore is not at its place"), "{error}");
            std::fs::rename(ground.base().with_extension("away"), ground.base()).unwrap();
        }
        let left = ground.left();
        assert_eq!((left.len(), left.values().all(|files| files.len() == 3)), (5, true), "{left:#?}");
    }
}

#[tokio::test]
async fn names_that_are_no_group_and_no_snapshot_are_left_alone() {
    let ground = Ground::new();
    let base = ground.base();
    let others: Vec<PathBuf> =
        ["lost+found", "host/lost+found", "host/a/lost+found", "vm/7/2024-06-05", "other/x/2024-06-05T14:23:38Z"]
            .map(|name| base.join(name))
            .to_vec();
    others.iter().for_each(|path| std::fs::create_dir_all(path.join("kept")).unwrap());
    let store = ground.open(Disk::real()).await;
    let task = ground.task().await;
    let report = prune(&store, last(1), &task).await.unwrap();
    assert_eq!(report, Report { groups: 2, kept: 2, removed: 6, spared: 0, faults: 0 });
    assert!(others.iter().all(|path| path.join("kept").is_dir()));
    task.end(Ok(())).await;
}
