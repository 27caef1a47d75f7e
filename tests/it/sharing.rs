//! Another server works on the same datastore: whoever comes second is refused, as spec 01 §4 says.

use ringvault::engine::{Disk, LockMode, RecordLock, try_flock};

use crate::support::daemon::{Daemon, STORE};
use crate::support::upload::{self, Backup, Chunk, FIXED_CHUNK_BYTES, Place, ask_backup, ask_reader, rest};

const ARCHIVE: &str = "disk.img.fidx";

async fn with_a_backup() -> (Daemon, Place) {
    let daemon = Daemon::start();
    let place = Place::host("m", 0);
    upload::full_backup(&daemon, place.clone(), ARCHIVE, &[Chunk::made(0, FIXED_CHUNK_BYTES)]).await;
    (daemon, place)
}

#[tokio::test]
async fn a_foreign_collector_keeps_backups_out() {
    let (daemon, place) = with_a_backup().await;
    let lock = Disk::real().open_or_create(&daemon.store().join(".lock"), 0o644).unwrap();
    lock.try_record_lock(RecordLock::Exclusive).expect("no session runs");
    // Refused at the start, or at the latest when an index is to be written.
    match ask_backup(&daemon, &Place::host("m", 1), "").await {
        upload::Asked::Refused(reply) => reply.expect(400, "lock"),
        upload::Asked::Session(_, session) => {
            let backup = Backup::from_session(session, Place::host("m", 1));
            backup.post(&format!("/fixed_index?archive-name={ARCHIVE}&size=5")).await.expect(400, "lock");
            backup.leave(&daemon).await;
        }
    }
    assert!(!daemon.has(Place::host("m", 1).dir()));
    // Restores go on.
    assert_eq!(upload::read_archive(&daemon, &place, ARCHIVE).await.len() as u64, FIXED_CHUNK_BYTES);
    lock.try_record_lock(RecordLock::Unlocked).unwrap();
    Backup::start(&daemon, Place::host("m", 1)).await.leave(&daemon).await;
}

#[tokio::test]
async fn a_foreign_backup_holds_its_group() {
    let (daemon, _) = with_a_backup().await;
    let group = std::fs::File::open(daemon.store().join("host/m")).unwrap();
    try_flock(&group, LockMode::Exclusive).unwrap();
    let refused = ask_backup(&daemon, &Place::host("m", 1), "").await.refused();
    refused.expect(400, "another backup is already running");
    drop(group);
    Backup::start(&daemon, Place::host("m", 1)).await.leave(&daemon).await;
}

#[tokio::test]
async fn a_foreign_reader_holds_its_snapshot() {
    let (daemon, place) = with_a_backup().await;
    let target = format!("/api2/json/admin/datastore/{STORE}/snapshots?{}", place.query());
    let snapshot = std::fs::File::open(daemon.store().join(place.dir())).unwrap();
    try_flock(&snapshot, LockMode::Shared).unwrap();
    rest(&daemon, "DELETE", &target, b"").await.expect(400, "possibly running or in use");
    ask_reader(&daemon, &place).await.session().close().await;
    daemon.idle().await;
    drop(snapshot);

    let snapshot = std::fs::File::open(daemon.store().join(place.dir())).unwrap();
    try_flock(&snapshot, LockMode::Exclusive).unwrap();
    ask_reader(&daemon, &place).await.refused().expect(400, "locked by another operation");
    ask_backup(&daemon, &Place::host("m", 1), "").await.refused().expect(400, "lock");
    drop(snapshot);
    rest(&daemon, "DELETE", &target, b"").await.expect(200, "");
    assert!(!daemon.has(place.dir()));
}

/// What a session of ours holds, another server sees.
#[tokio::test]
async fn our_locks_are_seen_by_others() {
    let (daemon, base) = with_a_backup().await;
    let backup = Backup::start(&daemon, Place::host("m", 1)).await;
    let reader = ask_reader(&daemon, &base).await.session();
    let open = |path: &str| std::fs::File::open(daemon.store().join(path)).unwrap();
    let lock = Disk::real().open_or_create(&daemon.store().join(".lock"), 0o644).unwrap();
    let held = [
        ("the group", try_flock(open("host/m"), LockMode::Shared).is_err()),
        ("the new snapshot", try_flock(open(&backup.place.dir()), LockMode::Shared).is_err()),
        ("the base", try_flock(open(&base.dir()), LockMode::Exclusive).is_err()),
        ("the process lock", lock.try_record_lock(RecordLock::Exclusive).is_err()),
    ];
    for (what, is_held) in held {
        assert!(is_held, "{what} is free during a session");
    }
    assert!(try_flock(open(&base.dir()), LockMode::Shared).is_ok(), "others may read the base too");
    reader.close().await;
    backup.leave(&daemon).await;
    assert!(try_flock(open("host/m"), LockMode::Exclusive).is_ok());
    assert!(try_flock(open(&base.dir()), LockMode::Exclusive).is_ok());
    lock.try_record_lock(RecordLock::Exclusive).unwrap();
    lock.try_record_lock(RecordLock::Unlocked).unwrap();
}
