//! The rules of spec 07 §1, one after the other.

use super::*;
use crate::error::Kind;
use crate::jobs::gc::{GcStatus, Marked, Swept};
use crate::store::GcMethod;

/// Length of a chunk's file.
const BYTES: u64 = 40 + 12;

#[tokio::test]
async fn what_nobody_names_goes_when_it_is_old_enough() {
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    scene.back_up(&snapshot(0), &[1, 2, 1]).await;
    for n in [10, 11, 12] {
        scene.insert(n).await;
    }
    let start = T0 + 10 * DAY;
    scene.clock.set(EpochSecs(start));
    set_accessed(&scene.path(&digest(10)), start - DAY - 301);
    set_accessed(&scene.path(&digest(11)), start - DAY - 300);
    set_accessed(&scene.path(&digest(12)), start);
    let GcReport { status, marked, swept } = scene.collect().await;
    assert_eq!(scene.chunks(), [1, 2, 11, 12].into());
    let upid = status.upid.clone();
    let wanted = GcStatus {
        upid: upid.clone(),
        index_file_count: 1,
        index_data_bytes: 3 << 22,
        disk_bytes: 3 * BYTES,
        disk_chunks: 3,
        removed_bytes: BYTES,
        removed_chunks: 1,
        pending_bytes: BYTES,
        pending_chunks: 1,
        ..GcStatus::default()
    };
    assert_eq!(status, wanted);
    assert_eq!((marked.chunks, marked.touches, marked.passes), (2, 0, 1));
    assert_eq!((swept.stats, swept.sampled_chunks), (3, 2), "candidates, and the sample of sizes");
    let kept = std::fs::read_to_string(scene.base.join(".gc-status")).unwrap();
    assert_eq!(kept, serde_json::to_string(&wanted).unwrap());
    assert_eq!(scene.store.gc_status().await.unwrap()["upid"], serde_json::json!(upid));
    std::fs::write(scene.base.join(".gc-status"), "[]").unwrap();
    assert_eq!(scene.store.gc_status().await.unwrap()["disk-chunks"], 0, "what is no status is none");
}

#[tokio::test]
async fn what_is_gone_and_wanted_by_nobody_is_doubted_no_longer() {
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    scene.back_up(&snapshot(0), &[1, 2]).await;
    for n in [9, 10] {
        scene.insert(n).await;
    }
    let known = Known::of(&scene.store);
    known.add(12);
    // Named and not there, whole, garbage, garbage that is too young, named by nobody and not there, not there and known to a session.
    std::fs::remove_file(scene.path(&digest(1))).unwrap();
    scene.store.mark_suspect(&digests(&[1, 2, 9, 10, 11, 12]));
    scene.pass_time(30 * DAY);
    set_accessed(&scene.path(&digest(10)), scene.now());
    scene.collect().await;
    assert_eq!((scene.chunks(), scene.store.suspects()), ([2, 10].into(), 4));
    scene.pass_time(30 * DAY);
    drop(known);
    scene.collect().await;
    assert_eq!((scene.chunks(), scene.store.suspects()), ([2].into(), 2), "1 is missed, and nobody has looked at 2");
}

#[tokio::test]
async fn a_running_backup_moves_the_cutoff() {
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    let lease = scene.begin(&snapshot(0)).await;
    scene.insert(1).await;
    scene.pass_time(-100);
    scene.insert(2).await;
    scene.pass_time(-201);
    scene.insert(3).await;
    scene.clock.set(EpochSecs(T0 + 30 * DAY));
    let status = scene.collect().await.status;
    assert_eq!((status.disk_chunks, status.pending_chunks, status.removed_chunks), (1, 1, 1));
    assert_eq!(scene.chunks(), [1, 2].into());
    lease.abandon().await.unwrap();
    assert_eq!(scene.collect().await.status.removed_chunks, 2);
}

#[tokio::test]
async fn indexes_count_wherever_they_lie() {
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    // Unfinished, with an index that has its name.
    let lease = scene.begin(&snapshot(0)).await;
    for n in 1..=9 {
        scene.insert(n).await;
    }
    let writer = write(&lease, &[1]).await.unwrap();
    close(&writer, &[1]).await.unwrap();
    let index = scene.base.join("host/a").join(snapshot(0).dir_name()).join("disk.img.fidx");
    let strange = scene.base.join("lost/and/found");
    std::fs::create_dir_all(&strange).unwrap();
    let copy = |n: u8, to: &Path| {
        let mut bytes = std::fs::read(&index).unwrap();
        bytes[4096..4128].copy_from_slice(&digest(n).0);
        std::fs::write(to, bytes).unwrap();
    };
    use std::os::unix::ffi::OsStrExt;
    copy(2, &strange.join("copy.fidx"));
    copy(3, &strange.join(std::ffi::OsStr::from_bytes(b"not-utf-8-\xff.fidx")));
    copy(4, &scene.base.join("top.fidx"));
    // Not these: hidden, another extension, none, a symbolic link.
    copy(5, &strange.join(".hidden.fidx"));
    copy(6, &strange.join("x.fidx.old"));
    copy(7, &strange.join("fidx"));
    std::os::unix::fs::symlink("/nowhere.fidx", strange.join("link.fidx")).unwrap();
    scene.clock.set(EpochSecs(T0 + 30 * DAY));
    // The backup is older than all chunks, and would keep them.
    for n in 1..=9 {
        set_accessed(&scene.path(&digest(n)), T0 - DAY);
    }
    let status = scene.collect().await.status;
    assert_eq!((status.index_file_count, scene.chunks()), (4, [1, 2, 3, 4].into()));
    drop(lease);
}

#[tokio::test]
async fn an_index_that_cannot_be_read_stops_everything() {
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    scene.back_up(&snapshot(0), &[1]).await;
    scene.back_up(&snapshot(1), &[2]).await;
    scene.insert(3).await;
    scene.clock.set(EpochSecs(T0 + 30 * DAY));
    let index = scene.base.join("host/a").join(snapshot(0).dir_name()).join("disk.img.fidx");
    let good = std::fs::read(&index).unwrap();
    for (damage, why) in [
        (&good[..100], "index too small (100)"),
        (&good[..4096], "got unexpected file size"),
        (&[&[0; 8], &good[8..]].concat()[..], "got unknown magic number"),
    ] {
        std::fs::write(&index, damage).unwrap();
        let (result, log) = scene.try_collect().await;
        let text = result.unwrap_err().to_string();
        assert!(text.starts_with(&format!("can't read index '{}' - {why}", index.display())), "{text}");
        assert!(text.contains("remove its snapshot"), "{text}");
        assert_eq!(log.last(), Some(&format!("TASK ERROR: {text}")));
        assert_eq!(scene.chunks(), [1, 2, 3].into());
        assert!(!scene.base.join(".gc-status").exists());
    }
    // One that names another chunk than its checksum knows is told, and believed.
    let mut other = good.clone();
    other[4096..4128].copy_from_slice(&digest(2).0);
    std::fs::write(&index, &other).unwrap();
    let (result, log) = scene.try_collect().await;
    assert_eq!(result.unwrap().status.removed_chunks, 2);
    assert!(log.iter().any(|line| line.contains("the checksum of") && line.contains("disk.img.fidx")), "{log:?}");
    assert_eq!(log.last().unwrap(), "TASK OK");
}

#[tokio::test]
async fn a_datastore_within_is_refused() {
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    std::fs::create_dir_all(scene.base.join("vm/other/.chunks/0000")).unwrap();
    scene.insert(1).await;
    scene.clock.set(EpochSecs(T0 + 30 * DAY));
    let text = scene.try_collect().await.0.unwrap_err().to_string();
    assert!(text.contains("vm/other\" is a datastore within this one"), "{text}");
    assert!(scene.has(1));
}

#[tokio::test]
async fn missing_chunks_are_warnings_for_each_time_that_they_are_named() {
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    scene.back_up(&snapshot(0), &[1, 2, 4, 2]).await;
    scene.back_up(&snapshot(1), &[2, 3]).await;
    std::fs::remove_file(scene.path(&digest(2))).unwrap();
    // With its directory.
    std::fs::remove_dir_all(scene.path(&digest(3)).parent().unwrap()).unwrap();
    let (result, log) = scene.try_collect().await;
    let warning = |n: u8, hours| {
        let path = scene.base.join("host/a").join(snapshot(hours).dir_name()).join("disk.img.fidx");
        format!("WARN: warning: unable to access non-existent chunk {}, required by {path:?}", digest(n))
    };
    let warnings: Vec<&String> = log.iter().filter(|line| line.starts_with("WARN: ")).collect();
    assert_eq!(warnings, [&warning(2, 0), &warning(2, 0), &warning(2, 1), &warning(3, 1)]);
    assert_eq!(log.last().unwrap(), "TASK WARNINGS: 4");
    assert_eq!(result.unwrap().status.disk_chunks, 2);
    // Its next upload is written whatever lies there by then, and then all is well.
    for n in [2, 3] {
        assert_eq!(scene.insert(n).await, Inserted::New { bytes: BYTES });
    }
    assert_eq!(scene.try_collect().await.1.last().unwrap(), "TASK OK");
}

#[tokio::test]
async fn something_else_in_the_place_of_a_chunk_is_left_alone() {
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    scene.back_up(&snapshot(0), &[1]).await;
    std::fs::remove_file(scene.path(&digest(1))).unwrap();
    std::fs::create_dir(scene.path(&digest(1))).unwrap();
    let strangers = ["README", "0001.tmp_AbC123", &format!("{}.12.bad", digest(5)), &digest(4).to_string()];
    for name in strangers {
        let path = scene.base.join(".chunks/0001").join(name);
        std::fs::write(&path, "x").unwrap();
        set_accessed(&path, T0);
    }
    std::os::unix::fs::symlink("README", scene.path(&digest(9))).unwrap();
    scene.clock.set(EpochSecs(T0 + 30 * DAY));
    let (result, log) = scene.try_collect().await;
    // As recorded: no warning, and no chunk.
    assert_eq!((result.unwrap().status.disk_chunks, log.last().unwrap().as_str()), (0, "TASK OK"));
    for name in strangers {
        assert!(scene.base.join(".chunks/0001").join(name).exists(), "{name}");
    }
    assert!(scene.path(&digest(9)).symlink_metadata().is_ok());
}

#[tokio::test]
async fn evidence_stays_while_its_chunk_is_missing_and_named() {
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    scene.back_up(&snapshot(0), &[1, 2]).await;
    let bad = |n: u8, k: u8| scene.path(&digest(n)).with_file_name(format!("{}.{k}.bad", digest(n)));
    // 1 is missing, 2 is healed, nobody names 3.
    std::fs::rename(scene.path(&digest(1)), bad(1, 0)).unwrap();
    for (n, k, age) in [(1, 9, 9), (2, 0, 9), (2, 1, 0), (3, 0, 9), (3, 1, 0)] {
        std::fs::create_dir_all(bad(n, k).parent().unwrap()).unwrap();
        std::fs::write(bad(n, k), [0; 7]).unwrap();
        set_accessed(&bad(n, k), T0 + (10 - age) * DAY - 1);
    }
    set_accessed(&bad(1, 0), T0);
    scene.clock.set(EpochSecs(T0 + 10 * DAY));
    let (result, log) = scene.try_collect().await;
    let status = result.unwrap().status;
    let there: Vec<bool> =
        [(1, 0), (1, 9), (2, 0), (2, 1), (3, 0), (3, 1)].iter().map(|(n, k)| bad(*n, *k).exists()).collect();
    assert_eq!(there, [true, true, false, true, false, true]);
    assert_eq!((status.removed_bad, status.still_bad, status.removed_bytes), (2, 2, 14));
    assert_eq!((status.disk_chunks, status.disk_bytes), (1, BYTES + BYTES + 7));
    assert_eq!(log.last().unwrap(), "TASK WARNINGS: 1");
}

#[tokio::test]
async fn one_at_a_time_and_nobody_else() {
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    let first = begin(&scene.store).await.unwrap();
    let second = begin(&scene.store).await.unwrap_err();
    assert_eq!(second.kind(), Kind::Busy);
    let text = "unable to start garbage collection on datastore 'store1' - the datastore is locked by another job of this daemon";
    assert_eq!(second.to_string(), text);
    first.end().await;
    begin(&scene.store).await.unwrap().end().await;
}

/// What failed with other reads under way has ended only when those have; whoever sees it end may begin anew.
#[tokio::test]
async fn whoever_sees_a_collection_end_may_start_the_next() {
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    let collection = begin(&scene.store).await.unwrap();
    let behind = collection.begin_pass(0..1, 1 << 20).await.unwrap();
    let end = tokio::spawn(collection.end());
    tokio::task::yield_now().await;
    assert!(!end.is_finished(), "somebody works under it");
    drop(behind);
    end.await.unwrap();
    let stopped = begin(&scene.store).await.unwrap();
    let behind = stopped.begin_pass(0..1, 1 << 20).await.unwrap();
    stopped.stop();
    // A disk that hangs keeps nobody from an abort.
    stopped.end().await;
    assert_eq!(begin(&scene.store).await.unwrap_err().kind(), Kind::Busy);
    drop(behind);
    // Nobody waits for the end of what was stopped, so the right is given back behind.
    loop {
        match begin(&scene.store).await {
            Ok(next) => break next.end().await,
            Err(e) => assert_eq!(e.kind(), Kind::Busy, "{e}"),
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
}

#[tokio::test]
async fn a_small_ceiling_takes_several_passes_and_the_same_goes() {
    let machine = Machine::new();
    for (memory_max, passes) in [(100_000, 16), (1 << 20, 2), (1 << 30, 1)] {
        let scene = Scene::with(&machine, |config| config.gc.memory_max = memory_max).await;
        scene.back_up(&snapshot(0), &[1, 2, 3, 4, 5]).await;
        scene.insert(9).await;
        std::fs::remove_file(scene.path(&digest(5))).unwrap();
        scene.clock.set(EpochSecs(T0 + 30 * DAY));
        let (result, log) = scene.try_collect().await;
        let GcReport { status, marked, .. } = result.unwrap();
        assert_eq!(scene.chunks(), [1, 2, 3, 4].into());
        assert_eq!((status.index_file_count, status.removed_chunks, status.disk_chunks), (1, 1, 4));
        assert_eq!(marked.passes, passes);
        assert!(marked.memory_bytes <= memory_max, "{marked:?}");
        assert_eq!(log.last().unwrap(), "TASK WARNINGS: 1");
    }
    let scene = Scene::with(&machine, |config| config.gc.memory_max = 1).await;
    scene.back_up(&snapshot(0), &[1]).await;
    let text = scene.try_collect().await.0.unwrap_err().to_string();
    assert!(text.contains("raise gc-memory-mib"), "{text}");
}

#[tokio::test]
async fn by_access_time_each_named_chunk_is_touched_once() {
    let machine = Machine::new();
    let scene = Scene::with(&machine, |config| config.gc.method = GcMethod::AccessTime).await;
    scene.back_up(&snapshot(0), &[1, 2, 1]).await;
    scene.back_up(&snapshot(1), &[1, 2, 3]).await;
    scene.insert(9).await;
    scene.clock.set(EpochSecs(T0 + 30 * DAY));
    let GcReport { marked, swept, status } = scene.collect().await;
    let accessed = |n: u8| std::os::unix::fs::MetadataExt::atime(&scene.path(&digest(n)).metadata().unwrap());
    assert!(
        [1, 2, 3].into_iter().all(|n| accessed(n) > T0 + 30 * DAY),
        "they are touched now, whatever the clock of the test says"
    );
    assert!(!scene.has(9));
    assert_eq!(
        marked,
        Marked { files: 2, bytes: 6 << 22, chunks: 3, touches: 3, memory_bytes: marked.memory_bytes, passes: 1 }
    );
    // All chunks are looked at; the chunk of zeros was put there for the test of the file system.
    assert_eq!((swept.sampled_chunks, swept.stats, status.disk_chunks), (3, 2, 4));
    assert_eq!(swept, Swept { unasked_chunks: 0, ..swept.clone() });
}
