//! Runs that are cut off, and those that go on with them.

use super::*;
use crate::store::GcMethod;
use crate::store::test_support::Countdown;

const PROGRESS: &str = ".ringvault-gc-progress";

/// Counts the readings of chunk directories, and fails one of them.
#[derive(Debug, Default)]
pub(super) struct Readings {
    dirs: Mutex<Vec<String>>,
    fail: Mutex<Option<String>>,
}

impl Fault for Readings {
    fn before(&self, op: &'static str, path: Option<&Path>) -> std::io::Result<()> {
        let is_chunk_dir = |path: &&Path| path.parent().is_some_and(|parent| parent.ends_with(".chunks"));
        let Some(path) = path.filter(is_chunk_dir).filter(|_| op == "readdir") else { return Ok(()) };
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        self.dirs.lock().push(name.clone());
        let fails = self.fail.lock().take_if(|fail| *fail == name).is_some();
        if fails { Err(std::io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }
}

impl Readings {
    pub(super) fn fail_at(&self, dir: &str) {
        self.dirs.lock().clear();
        *self.fail.lock() = Some(dir.to_owned());
    }

    pub(super) fn take(&self) -> Vec<String> {
        let mut dirs = std::mem::take(&mut *self.dirs.lock());
        dirs.sort();
        dirs
    }
}

/// A scene with live chunks and with garbage in each of the four directories, 30 days later.
async fn scene(fault: &Arc<Readings>) -> (Machine, Scene) {
    let machine = Machine::faulty(fault.clone());
    let scene = Scene::new(&machine).await;
    scene.back_up(&snapshot(0), &[1, 2, 3, 4]).await;
    for n in [8, 9, 10, 11] {
        scene.insert(n).await;
    }
    scene.pass_time(30 * DAY);
    (machine, scene)
}

fn line<'a>(log: &'a [String], part: &str) -> &'a str {
    log.iter().find(|line| line.contains(part)).unwrap_or_else(|| panic!("no {part:?} in {log:?}"))
}

#[tokio::test]
async fn a_run_that_was_cut_off_is_gone_on_with() {
    let fault = Arc::new(Readings::default());
    let (_machine, scene) = scene(&fault).await;
    fault.fail_at("0002");
    assert!(scene.try_collect().await.0.is_err());
    // Directories are read ahead of one another; what counts is what came before the failure.
    let kept: serde_json::Value = serde_json::from_slice(&std::fs::read(scene.base.join(PROGRESS)).unwrap()).unwrap();
    assert_eq!((&kept["next"], &kept["swept"]["removed-chunks"]), (&2.into(), &2.into()), "{kept}");
    let first = kept["upid"].as_str().unwrap().to_owned();
    fault.take();
    // A chunk that comes to a swept directory in between is looked at by the next run but one.
    scene.insert(12).await;
    set_accessed(&scene.path(&digest(12)), T0);
    let (result, log) = scene.try_collect().await;
    let report = result.unwrap();
    let told = line(&log, "resuming at directory 0002 of the run ");
    assert!(told.contains(&first) && told.contains("2 chunks removed there"), "{told}");
    assert_eq!(fault.take(), ["0002", "0003"]);
    // The status is that of the whole; 11 had gone by the first run, behind the failure.
    let status = report.status;
    assert_eq!((status.disk_chunks, status.removed_chunks, status.index_file_count), (4, 3, 1), "{log:?}");
    assert_eq!(scene.chunks(), [1, 2, 3, 4, 12].into());
    assert!(!scene.base.join(PROGRESS).exists());
    let (result, log) = scene.try_collect().await;
    assert!(!log.iter().any(|line| line.contains("resuming")), "{log:?}");
    assert_eq!((result.unwrap().status.removed_chunks, fault.take().len()), (1, 4));
}

#[tokio::test]
async fn what_lives_is_marked_anew_by_the_run_that_resumes() {
    let fault = Arc::new(Readings::default());
    let (_machine, scene) = scene(&fault).await;
    fault.fail_at("0001");
    assert!(scene.try_collect().await.0.is_err());
    // 6 is in a directory that is left, and gets an index in between.
    scene.back_up(&snapshot(1), &[6, 1]).await;
    set_accessed(&scene.path(&digest(6)), T0);
    let report = scene.collect().await;
    assert!(scene.has(6) && report.marked.files == 2, "{report:?}");
    assert_eq!(scene.chunks(), [1, 2, 3, 4, 6].into());
}

#[tokio::test]
async fn what_is_not_resumed_is_swept_from_the_beginning() {
    let fault = Arc::new(Readings::default());
    let (_machine, scene) = scene(&fault).await;
    let cut_off = async || {
        fault.fail_at("0003");
        assert!(scene.try_collect().await.0.is_err());
        fault.take();
    };
    let all = ["0000", "0001", "0002", "0003"];
    let log_of = async |part: &str| {
        let (result, log) = scene.try_collect().await;
        result.unwrap();
        assert!(!scene.base.join(PROGRESS).exists());
        line(&log, part);
        assert_eq!(fault.take(), all, "{log:?}");
    };
    cut_off().await;
    scene.pass_time(DAY + 1);
    log_of("that was more than a day ago").await;
    cut_off().await;
    std::fs::write(scene.base.join(PROGRESS), [0; 300]).unwrap();
    log_of("how far the last run was is not known").await;
    cut_off().await;
    let mut config = (*scene.store.config()).clone();
    config.gc.cutoff_minutes = 100;
    scene.store.set_config(config);
    log_of("another method or cutoff is configured now").await;
    cut_off().await;
    let task = scene.task().await;
    let collection = begin(&scene.store).await.unwrap();
    run(&scene.store, Manner::Fresh, collection, &task, std::future::pending()).await.unwrap();
    assert_eq!(fault.take(), all);
}

/// What the first run saw and could not name any more is not forgotten.
#[tokio::test]
async fn missing_chunks_of_swept_directories_are_a_warning() {
    let fault = Arc::new(Readings::default());
    let (_machine, scene) = scene(&fault).await;
    std::fs::remove_file(scene.path(&digest(4))).unwrap();
    std::fs::remove_dir_all(scene.path(&digest(1)).parent().unwrap()).unwrap();
    fault.fail_at("0002");
    assert!(scene.try_collect().await.0.is_err());
    let (result, log) = scene.try_collect().await;
    assert_eq!(result.unwrap().status.disk_chunks, 2);
    // 4 lies in directory 0000. That of 1 is not there, so it is behind what was swept, and is named.
    line(&log, "WARN: in the directories that are swept, 1 chunks that indexes name were missing");
    line(&log, &format!("non-existent chunk {}", digest(1)));
    assert_eq!(log.last().unwrap(), "TASK WARNINGS: 2");
}

#[tokio::test]
async fn passes_and_the_original_method_resume_too() {
    let fault = Arc::new(Readings::default());
    for (method, memory_max) in [(GcMethod::Memory, 1 << 20), (GcMethod::AccessTime, 1 << 30)] {
        let (_machine, scene) = scene(&fault).await;
        let mut config = (*scene.store.config()).clone();
        (config.gc.method, config.gc.memory_max) = (method, memory_max);
        scene.store.set_config(config);
        fault.fail_at("0003");
        assert!(scene.try_collect().await.0.is_err());
        let (result, log) = scene.try_collect().await;
        line(&log, "resuming at directory 0003");
        let zeros = u64::from(method == GcMethod::AccessTime);
        let status = result.unwrap().status;
        assert_eq!((status.disk_chunks, scene.chunks()), (4 + zeros, [1, 2, 3, 4].into()), "{log:?}");
    }
}

/// Whatever cuts runs off and however often, with what is written torn or lost: nothing that is named goes, and in the end the garbage has gone.
#[tokio::test]
async fn a_run_that_is_cut_off_anywhere_and_again_comes_to_its_end() {
    for step in [3, 7, 11] {
        let machine = Machine::new();
        let scene = Scene::new(&machine).await;
        scene.back_up(&snapshot(0), &[1, 2, 3, 4, 5]).await;
        for n in 6..30 {
            scene.insert(n).await;
        }
        scene.pass_time(30 * DAY);
        let Scene { dir, base, store, clock, .. } = scene;
        let config = (*store.config()).clone();
        drop(store);
        let mut kept = Some((dir, base));
        for at in (0..).step_by(step) {
            let (dir, base) = kept.take().unwrap();
            crate::store::test_support::closed(&base).await;
            let fault = Countdown::new(at, libc::EIO, true);
            let machine = Machine::faulty(fault.clone());
            let store = Datastore::open(config.clone(), machine.engine.clone(), clock.clone()).await.unwrap();
            let (tasks, clock) = (machine.tasks.clone(), clock.clone());
            let scene = Scene { dir, base, store, clock, tasks, sim: None, manner: Manner::Resume };
            fault.arm();
            let (result, log) = scene.try_collect().await;
            assert!((1..=5).all(|n| scene.has(n)), "cut off at {at}: {log:?}");
            if let Ok(report) = result {
                assert_eq!((scene.chunks(), report.status.disk_chunks), ((1..=5).collect(), 5), "{log:?}");
                break;
            }
            kept = Some((scene.dir, scene.base));
        }
    }
}
