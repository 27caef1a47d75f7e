//! One story, told with each engine by name, and once where the kernel refuses io_uring: the outcome never depends on it.

use ringvault::engine::{Engine, EngineChoice, EngineConfig};

use crate::support::daemon::{Daemon, Setup};
use crate::support::upload::{self, Backup, Chunk, FIXED_CHUNK_BYTES, Place};

const ARCHIVE: &str = "disk.img.fidx";

#[tokio::test]
async fn uring() {
    if !has_ring() {
        return println!("skipped: this kernel grants no ring");
    }
    story(Setup { engine: "uring".into(), without_ring: false, ..Setup::default() }, "uring").await;
}

#[tokio::test]
async fn threads() {
    story(Setup { engine: "threads".into(), ..Setup::default() }, "threads").await;
}

#[tokio::test]
async fn sync() {
    story(Setup { engine: "sync".into(), ..Setup::default() }, "sync").await;
}

#[tokio::test]
async fn auto_where_the_ring_is_refused() {
    let setup = Setup { engine: "auto".into(), without_ring: true, ..Setup::default() };
    let log = story(setup, "threads").await;
    assert!(log.contains("io_uring"), "nobody says that and why there is no ring:\n{log}");
}

/// Forced, the ring is a condition: the daemon says why it cannot serve instead of using another engine.
#[test]
fn uring_by_force_where_it_is_refused() {
    let setup = Setup { engine: "uring".into(), without_ring: true, ..Setup::default() };
    let started = std::panic::catch_unwind(|| Daemon::with(setup));
    let text = match started {
        Ok(_) => panic!("it serves"),
        Err(text) => text.downcast::<String>().map(|t| *t).unwrap_or_default(),
    };
    assert!(text.contains("did not start") && text.contains("io_uring"), "{text}");
}

fn has_ring() -> bool {
    let config = EngineConfig { choice: EngineChoice::Uring, ..EngineConfig::default() };
    Engine::start("probe", &config).is_ok()
}

/// First backup, an unchanged one, a hole found at append, a hole found at finish, healing, restore; the daemon's log.
async fn story(setup: Setup, engine: &str) -> String {
    let daemon = Daemon::with(Setup { checks: [true, true, false], ..setup });
    let chunks = [Chunk::made(0, FIXED_CHUNK_BYTES), Chunk::made(1, 1000)];
    let plain = [upload::made_bytes(0, FIXED_CHUNK_BYTES), upload::made_bytes(1, 1000)].concat();
    let size = FIXED_CHUNK_BYTES + 1000;
    let previous = format!("/previous?archive-name={ARCHIVE}");
    upload::full_backup(&daemon, Place::host("m", 0), ARCHIVE, &chunks).await;
    assert!(daemon.last_task_log().contains(&format!("engine {engine}")), "{}", daemon.last_task_log());

    let mut second = Backup::start(&daemon, Place::host("m", 1)).await;
    second.get(&previous).await.expect(200, "");
    let mut writer = second.create(ARCHIVE, size, "").await;
    second.append(&mut writer, &[&chunks[0], &chunks[1]]).await.expect(200, "");
    second.close(&writer).await.expect(200, "");
    second.complete(&daemon).await;

    let mut third = Backup::start(&daemon, Place::host("m", 2)).await;
    third.get(&previous).await.expect(200, "");
    let mut writer = third.create(ARCHIVE, size, "").await;
    third.append(&mut writer, &[&chunks[0], &chunks[1]]).await.expect(200, "");
    third.close(&writer).await.expect(200, "");
    third.manifest().await.expect(200, "");
    daemon.remove_chunk(&chunks[1].digest);
    third.finish().await.expect(400, "stat registered chunks failed - stat failed on");
    third.leave(&daemon).await;

    upload::full_backup(&daemon, Place::host("m", 3), ARCHIVE, &chunks).await;
    let fifth = Backup::start(&daemon, Place::host("m", 4)).await;
    fifth.get(&previous).await.expect(200, "");
    let mut writer = fifth.create(ARCHIVE, size, "").await;
    daemon.remove_chunk(&chunks[0].digest);
    fifth.append(&mut writer, &[&chunks[0], &chunks[1]]).await.expect(400, "known chunk stat failed on");
    fifth.leave(&daemon).await;

    let last = Place::host("m", 5);
    upload::full_backup(&daemon, last.clone(), ARCHIVE, &chunks).await;
    for place in [Place::host("m", 0), Place::host("m", 3), last] {
        assert!(upload::read_archive(&daemon, &place, ARCHIVE).await == plain, "{}: other bytes", place.dir());
    }
    daemon.log()
}
