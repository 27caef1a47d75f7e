//! Every step of a backup fails once, and the machine dies before every step once: what does a reopened datastore show?

use std::path::Path;

use super::layout::is_temp_name;
use super::test_support::*;
use super::{Datastore, Freshness, SyncLevel};
use crate::engine::Class;

/// A finished first backup, then a second one on a disk that fails. Returns the number of operations of the second.
async fn scenario(base: &Path, fault: &std::sync::Arc<Countdown>, level: SyncLevel) -> (u64, bool) {
    let store = open_on(base, faulty_engine(fault.clone()), level).await.unwrap();
    back_up(&store, &snapshot("vm/100", 0), &[1, 2]).await.unwrap();
    fault.arm();
    let done = back_up(&store, &snapshot("vm/100", 1), &[2, 3]).await.is_ok();
    (fault.count(), done)
}

/// What holds after whatever happened: the first backup is whole, the second is whole, unfinished or absent, every chunk that a finished one
/// names is there, and the next backup works.
async fn check(base: &Path, store: &Datastore, context: &str) -> bool {
    let infos = store.groups(&root()).await.unwrap();
    let snapshots = &infos[0].snapshots;
    assert_eq!(snapshots[0].snapshot, snapshot("vm/100", 0), "{context}");
    assert!(snapshots[0].finished, "{context}");
    for listed in snapshots.iter().filter(|s| s.finished) {
        assert_eq!(listed.files.len(), 3, "{context}: {listed:?}");
        store.load_manifest(&root(), &listed.snapshot).await.unwrap();
        let reader = store.begin_reader(&root(), &listed.snapshot).await.unwrap();
        let index = reader.open_index(&name("disk.img.fidx")).await.unwrap();
        let entries = index.scan().next_block().await.unwrap().unwrap();
        let digests: Vec<_> = entries.iter().map(|entry| entry.digest).collect();
        let report = store.check_chunks(digests.clone(), Class::Sweep, Freshness::Server).await.unwrap();
        assert!(report.all_present(), "{context}: {report:?}");
        for digest in digests {
            crate::format::blob::check_crc(&store.read_chunk(digest).await.unwrap()).unwrap();
        }
    }
    let temps: Vec<_> =
        walk(base).into_iter().filter(|p| is_temp_name(p.file_name().unwrap().to_str().unwrap())).collect();
    assert!(temps.is_empty(), "{context}: {temps:?}");
    let second = snapshots.get(1).is_some_and(|s| s.finished);
    back_up(store, &snapshot("vm/100", 2), &[2, 4]).await.unwrap_or_else(|e| panic!("{context}: {e}"));
    second
}

async fn count_operations(level: SyncLevel) -> u64 {
    let dir = tempfile::tempdir().unwrap();
    let (count, done) = scenario(&make_base(dir.path()), &Countdown::new(u64::MAX, 0, false), level).await;
    assert!(done);
    assert!(count > 30, "the scenario is real: {count} operations");
    count
}

#[tokio::test(flavor = "multi_thread")]
async fn each_step_may_fail_once() {
    for level in [SyncLevel::File, SyncLevel::Filesystem] {
        for at in 0..count_operations(level).await {
            // A full disk, and a broken one.
            let errno = if at % 2 == 0 { libc::ENOSPC } else { libc::EIO };
            let dir = tempfile::tempdir().unwrap();
            let base = make_base(dir.path());
            let fault = Countdown::new(at, errno, false);
            let (_, done) = scenario(&base, &fault, level).await;
            let context = format!("{level:?}, operation {at}, done {done}");
            let store = reopen(&base).await;
            let finished = check(&base, &store, &context).await;
            assert_eq!(finished, done, "{context}: what was reported is what is there");
        }
    }
}

#[tokio::test]
async fn a_finish_that_fails_may_be_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let mut failures = 0;
    for at in 0.. {
        let fault = Countdown::new(at, libc::EIO, false);
        let store = open_on(&base, faulty_engine(fault.clone()), SyncLevel::File).await.unwrap();
        let hours = i64::try_from(at).unwrap();
        let lease = store.begin_backup(&root(), &snapshot("host/again", hours), &auth(), false).await.unwrap();
        let blob = manifest(lease.snapshot(), chunk(1).0, 1);
        fault.arm();
        if lease.finish(blob.clone(), stay(&store).await).await.is_err() {
            failures += 1;
            assert!(store.load_manifest(&root(), lease.snapshot()).await.is_err(), "operation {at}");
            lease.finish(blob, stay(&store).await).await.unwrap();
        }
        if fault.count() <= at {
            break;
        }
        assert!(store.load_manifest(&root(), lease.snapshot()).await.is_ok());
    }
    assert!(failures > 5, "{failures}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_machine_may_die_before_each_step() {
    let level = SyncLevel::File;
    for at in 0..count_operations(level).await {
        let dir = tempfile::tempdir().unwrap();
        let base = make_base(dir.path());
        let (_, done) = scenario(&base, &Countdown::new(at, libc::EIO, true), level).await;
        let context = format!("operation {at}, done {done}");
        let store = reopen(&base).await;
        let finished = check(&base, &store, &context).await;
        assert!(finished || !done, "{context}: a finished backup is lost");
    }
}
