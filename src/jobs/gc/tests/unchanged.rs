//! Directories that have not changed are left out: which, and that it makes no difference to what goes.

use super::resume::Readings;
use super::*;
use crate::engine::sim::{Plan, Survival};
use crate::store::GcMethod;

const NAMES: &str = ".ringvault-gc-names";

/// What was changed in the last two seconds is not kept; whole seconds are compared.
const SETTLED: std::time::Duration = std::time::Duration::from_millis(3100);

/// A simulated machine whose readings of chunk directories are counted.
fn machine() -> (Machine, Arc<Readings>) {
    let fault = Arc::new(Readings::default());
    (Machine::simulated(Some(fault.clone())), fault)
}

/// A scene with live chunks in each of the four directories, an hour later.
async fn scene(machine: &Machine) -> Scene {
    let scene = Scene::new(machine).await;
    scene.back_up(&snapshot(0), &[1, 2, 3, 4, 5]).await;
    scene.pass_time(3600);
    scene
}

impl Scene {
    fn disk(&self) -> Disk {
        Disk::simulated(self.sim.as_ref().unwrap(), None)
    }

    /// The file with the names, if it is there.
    fn kept(&self) -> Option<Vec<u8>> {
        self.disk().read(&self.base.join(NAMES), 1 << 20).ok()
    }

    fn put_kept(&self, bytes: &[u8]) {
        let path = self.base.join(NAMES);
        let _ = self.disk().unlink(&path);
        self.disk().create_new(&path, 0o600).unwrap().write_all_at(bytes, 0).unwrap();
    }

    /// Collects; the log's line about what was read, and what was found.
    async fn collect_and_tell(&self) -> (GcReport, String) {
        let (result, log) = self.try_collect().await;
        let line = log.iter().find(|line| line.contains("directories read")).cloned();
        (result.unwrap(), line.unwrap_or_else(|| panic!("{log:?}")))
    }

    /// Whether a temporary file is left.
    fn has_temp(&self) -> bool {
        self.disk().read_dir(&self.base).unwrap().iter().any(|entry| entry.name.contains(".tmp_"))
    }
}

fn told(read: usize, unchanged: usize) -> String {
    format!("{read} directories read, {unchanged} unchanged since an earlier run")
}

#[tokio::test]
async fn what_has_not_changed_is_not_read_and_what_has_is() {
    let (machine, fault) = machine();
    let scene = scene(&machine).await;
    let (first, line) = scene.collect_and_tell().await;
    assert_eq!((fault.take().len(), line), (4, told(4, 0)));
    let (second, line) = scene.collect_and_tell().await;
    assert_eq!((fault.take().len(), line), (0, told(0, 4)));
    let untold = |report: GcReport| crate::jobs::gc::GcStatus { upid: None, ..report.status };
    assert_eq!(untold(first.clone()), untold(second));
    assert!(!scene.has_temp());
    // One inserted, one removed behind our back, and one that is live no more.
    scene.pass_time(3600);
    scene.insert(8).await;
    scene.disk().unlink(&scene.path(&digest(1))).unwrap();
    scene.pass_time(3600);
    let (result, log) = scene.try_collect().await;
    assert_eq!((fault.take(), result.unwrap().status.disk_chunks), (vec!["0000".to_owned(), "0001".to_owned()], 4));
    assert!(log.iter().any(|line| line.contains(&format!("non-existent chunk {}", digest(1)))), "{log:?}");
    scene.store.remove_snapshot(&root(), &snapshot(0)).await.unwrap();
    scene.pass_time(3600);
    scene.collect().await;
    assert_eq!(fault.take().len(), 4, "nobody names what lies in them, and it is too young to go");
    scene.pass_time(2 * DAY);
    assert_eq!(scene.collect().await.status.removed_chunks, 5);
    assert_eq!((fault.take().len(), scene.chunks()), (4, BTreeSet::new()));
    scene.pass_time(3600);
    scene.collect().await;
    assert_eq!(fault.take().len(), 4, "they have changed by what went");
    scene.collect().await;
    assert_eq!(fault.take().len(), 0, "empty ones are known too");
}

/// Rule 1.
#[tokio::test]
async fn what_was_changed_just_before_it_was_read_is_read_again() {
    let (machine, fault) = machine();
    let scene = Scene::new(&machine).await;
    scene.back_up(&snapshot(0), &[1, 2, 3, 4]).await;
    for (later, read) in [(0, 4), (2, 4), (1, 4), (0, 0)] {
        scene.pass_time(later);
        scene.collect().await;
        assert_eq!(fault.take().len(), read, "{later} seconds later");
    }
}

/// Rule 2.
#[tokio::test]
async fn the_file_counts_for_the_same_mount_of_the_same_boot_only() {
    let (machine, fault) = machine();
    let scene = scene(&machine).await;
    scene.collect().await;
    // Another process, after one that was killed, and after a power cut that has cost nothing.
    scene.disk().syncfs(Path::new("/")).unwrap();
    fault.take();
    let now = scene.now();
    for (survival, read, why) in [(Survival::Everything, 0, ""), (Survival::Nothing, 4, "the machine was started anew")]
    {
        let sim = scene.sim.as_ref().unwrap().crash(survival, 1);
        let machine = Machine::on(&sim, Some(fault.clone()));
        let other = Scene::at(&machine, tempfile::tempdir().unwrap(), scene.base.clone(), |_| {}).await;
        other.set_time(now);
        let (result, log) = other.try_collect().await;
        assert_eq!((result.unwrap().status.disk_chunks, fault.take().len()), (5, read), "{log:?}");
        assert!(log.iter().any(|line| line.contains(why)), "{log:?}");
    }
    // A clock that was set back may come by the same stamps again.
    scene.pass_time(-60);
    let (_, log) = scene.try_collect().await;
    assert!(log.iter().any(|line| line.contains("the clock was set back")), "{log:?}");
    assert_eq!(fault.take().len(), 4);
}

/// Rule 3.
#[tokio::test]
async fn after_thirty_days_each_directory_is_read_again() {
    let (machine, fault) = machine();
    let scene = scene(&machine).await;
    scene.collect().await;
    fault.take();
    for (days, read) in [(29, 0), (1, 4), (29, 0), (1, 4)] {
        scene.pass_time(days * DAY);
        scene.collect().await;
        assert_eq!(fault.take().len(), read, "{days} days later");
    }
}

/// Rule 4.
#[tokio::test]
async fn a_file_that_is_torn_or_foreign_is_passed_over_and_told() {
    let (machine, fault) = machine();
    let scene = scene(&machine).await;
    scene.collect().await;
    let good = scene.kept().unwrap();
    fault.take();
    for bytes in
        (0..good.len()).step_by(13).map(|end| good[..end].to_vec()).chain((0..good.len()).step_by(7).map(|at| {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            bytes
        }))
    {
        scene.put_kept(&bytes);
        let (result, log) = scene.try_collect().await;
        assert_eq!(result.unwrap().status.disk_chunks, 5);
        assert_eq!(fault.take().len(), 4);
        assert!(log.iter().any(|line| line.contains(NAMES) && !line.starts_with("WARN")), "{log:?}");
        assert_eq!(log.last().unwrap(), "TASK OK");
        assert_eq!(scene.kept(), Some(good.clone()), "it is written anew");
    }
}

#[tokio::test]
async fn a_run_that_ends_early_leaves_the_file_as_it_was() {
    let (machine, fault) = machine();
    let scene = scene(&machine).await;
    scene.collect().await;
    let good = scene.kept();
    scene.back_up(&snapshot(1), &[6, 7, 8, 9]).await;
    scene.pass_time(3600);
    fault.fail_at("0002");
    assert!(scene.try_collect().await.0.is_err());
    assert_eq!((scene.kept(), scene.has_temp()), (good.clone(), false));
    // The next one goes on there; of what that leaves out it keeps what was known, which is not right any more.
    fault.take();
    scene.collect().await;
    assert_eq!(fault.take(), ["0002", "0003"]);
    assert_ne!(scene.kept(), good);
    scene.collect().await;
    assert_eq!(fault.take(), ["0000", "0001"]);
    scene.collect().await;
    assert_eq!(fault.take().len(), 0);
}

#[tokio::test]
async fn what_a_resumed_run_leaves_out_stays_known() {
    let (machine, fault) = machine();
    let scene = scene(&machine).await;
    scene.collect().await;
    scene.back_up(&snapshot(1), &[10]).await;
    scene.pass_time(3600);
    fault.fail_at("0002");
    assert!(scene.try_collect().await.0.is_err());
    scene.collect().await;
    fault.take();
    let (report, line) = scene.collect_and_tell().await;
    assert_eq!((fault.take().len(), line, report.status.disk_chunks), (0, told(0, 4), 6));
}

/// Rule 4.
#[tokio::test]
async fn on_a_full_disk_nothing_is_kept_and_the_run_goes_well() {
    let (machine, fault) = machine();
    let scene = scene(&machine).await;
    let used = scene.disk().usage(Path::new("/")).unwrap().used;
    scene.sim.as_ref().unwrap().set_plan(Plan { capacity_bytes: Some(used), ..Plan::default() });
    for _ in 0..2 {
        let (result, log) = scene.try_collect().await;
        assert_eq!((result.unwrap().status.disk_chunks, fault.take().len()), (5, 4), "{log:?}");
        assert!(log.iter().any(|line| line.contains("what this one finds is not kept")), "{log:?}");
        assert_eq!((scene.kept(), scene.has_temp()), (None, false));
    }
    scene.sim.as_ref().unwrap().set_plan(Plan::default());
    scene.collect().await;
    assert!(scene.kept().is_some());
}

/// Rule 5, on a disk of this machine: a simulated one has no clock that goes by itself, which the check of access times waits for.
#[tokio::test]
async fn by_access_times_the_figures_are_those_of_a_full_run() {
    let fault = Arc::new(Readings::default());
    let machine = Machine::faulty(fault.clone());
    let scene = Scene::new(&machine).await;
    scene.back_up(&snapshot(0), &[1, 2, 3, 4, 5]).await;
    scene.insert(6).await;
    tokio::time::sleep(SETTLED).await;
    scene.collect().await;
    fault.take();
    // Nobody named 6 when its directory was read; its size was asked for all the same.
    scene.back_up(&snapshot(1), &[6]).await;
    let report = scene.collect().await;
    assert_eq!((fault.take().len(), report.swept.sampled_chunks, report.swept.unasked_chunks), (0, 6, 0));
    assert_eq!(report.status.disk_chunks, 6);
    let mut config = (*scene.store.config()).clone();
    config.gc.method = GcMethod::AccessTime;
    scene.store.set_config(config);
    let figures = |report: &GcReport| (report.status.disk_chunks, report.status.disk_bytes, report.marked.touches);
    let (first, line) = scene.collect_and_tell().await;
    // That of the chunk that tells whether there are access times, which nobody names.
    assert_eq!((fault.take(), line), (vec!["bb9f".to_owned()], told(1, 4)));
    let (second, line) = scene.collect_and_tell().await;
    assert_eq!((figures(&first), line), (figures(&second), told(1, 4)));
    assert_eq!((second.swept.unasked_chunks, second.swept.sampled_chunks, second.status.disk_chunks), (0, 6, 7));
}

#[tokio::test]
async fn directories_with_anything_but_chunks_are_always_read() {
    let (machine, fault) = machine();
    let scene = scene(&machine).await;
    for (n, name) in [(0, format!("{}.0.bad", digest(4))), (1, "README".to_owned()), (2, "0002.tmp_AbC123".to_owned())]
    {
        let path = scene.base.join(format!(".chunks/000{n}")).join(name);
        scene.disk().create_new(&path, 0o600).unwrap();
        scene.sim.as_ref().unwrap().set_accessed(&path, scene.now() + 30 * DAY).unwrap();
    }
    scene.disk().mkdir(&scene.path(&digest(7)), 0o755).unwrap();
    scene.pass_time(3600);
    for _ in 0..3 {
        scene.collect().await;
        assert_eq!(fault.take().len(), 4);
    }
}

#[tokio::test]
async fn passes_and_fresh_runs_keep_what_they_find() {
    let (machine, fault) = machine();
    let mut scene = Scene::with(&machine, |config| config.gc.memory_max = 100_000).await;
    scene.back_up(&snapshot(0), &[1, 2, 3, 4, 5]).await;
    scene.pass_time(3600);
    for (manner, read) in [(Manner::Resume, 4), (Manner::Resume, 0), (Manner::Fresh, 4), (Manner::Resume, 0)] {
        scene.manner = manner;
        let report = scene.collect().await;
        assert_eq!((report.marked.passes, report.status.disk_chunks), (16, 5));
        assert_eq!(fault.take().len(), read, "{manner:?}");
    }
}

/// What an index names that was never there is found missing, whether its directory is read or not.
#[tokio::test]
async fn a_missing_chunk_is_told_each_time() {
    let (machine, fault) = machine();
    let scene = scene(&machine).await;
    let lease = scene.begin(&snapshot(1)).await;
    let writer = write(&lease, &[1, 9]).await.unwrap();
    close(&writer, &[1, 9]).await.unwrap();
    for read in [4, 0, 0] {
        let (result, log) = scene.try_collect().await;
        assert_eq!((result.unwrap().swept.unmet, fault.take().len()), (1, read));
        assert!(log.iter().any(|line| line.contains(&format!("non-existent chunk {}", digest(9)))), "{log:?}");
    }
    drop(lease);
}

/// Each in a block of its own, those without any between them.
#[tokio::test]
async fn many_blocks_are_as_one() {
    let (machine, fault) = machine();
    let scene = Scene::new(&machine).await;
    let digests: Vec<Digest> = (0..=255_u8)
        .flat_map(|n| [(n, 0, 1), (n, 0, 2), (n, 255, 1)])
        .filter(|(n, ..)| n % 7 != 3)
        .map(|(n, m, last)| Digest([&[n, m][..], &[last; 30]].concat().try_into().unwrap()))
        .collect();
    for digest in &digests {
        let (_, blob, size) = chunk(1);
        scene.store.insert_chunk(*digest, blob, size).await.unwrap();
    }
    let lease = scene.begin(&snapshot(0)).await;
    let writer = lease.create_fixed(&name("disk.img.fidx"), (digests.len() as u64) << 22).await.unwrap();
    writer.write_slots((0..).zip(digests.iter().copied()).collect()).await.unwrap();
    writer.close(fixed_csum(&digests)).await.unwrap();
    scene.pass_time(3600);
    let dirs = digests.len() / 3 * 2;
    for read in [dirs, 0, 0] {
        let (report, line) = scene.collect_and_tell().await;
        assert_eq!((fault.take().len(), line), (read, told(read, dirs - read)));
        assert_eq!(report.status.disk_chunks, digests.len() as u64);
    }
    let (one, other) = (scene.path(&digests[0]), scene.path(&digests[300]));
    scene.disk().unlink(&one).unwrap();
    scene.disk().unlink(&other).unwrap();
    scene.pass_time(60);
    let (report, line) = scene.collect_and_tell().await;
    assert_eq!((line, report.swept.unmet), (told(2, dirs - 2), 2));
    drop(lease);
}

/// On a disk of this machine, through the ring where there is one.
#[tokio::test]
async fn on_a_real_disk_too() {
    let fault = Arc::new(Readings::default());
    let machine = Machine::faulty(fault.clone());
    let scene = Scene::new(&machine).await;
    scene.back_up(&snapshot(0), &[1, 2, 3, 4, 5]).await;
    tokio::time::sleep(SETTLED).await;
    scene.collect().await;
    assert_eq!(fault.take().len(), 4);
    let (report, line) = scene.collect_and_tell().await;
    assert_eq!((fault.take().len(), line, report.status.disk_chunks), (0, told(0, 4), 5));
    scene.insert(6).await;
    assert_eq!(scene.collect().await.status.disk_chunks, 6);
    assert_eq!(fault.take(), ["0002"]);
}
