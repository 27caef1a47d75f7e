//! The client against a server in memory: the recorded sequences, and what happens when something is refused.

use std::path::Path;
use std::sync::Arc;

use super::fake_server::Fake;
use super::{BackupReport, Observer, RestoreReport, Silent, TargetPath, backup, restore, snapshots};
use crate::clock::EpochSecs;
use crate::error::Result;
use crate::types::{Namespace, Snapshot};

const BLOCK: usize = 4 << 20;
const ZERO_DIGEST: &str = "bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8";

fn put(path: &Path, bytes: &[u8]) {
    use std::io::Write;
    let mut options = std::fs::OpenOptions::new();
    options.create(true).write(true).truncate(true).open(path).unwrap().write_all(bytes).unwrap();
}

fn noise(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

fn snapshot(time: i64) -> Snapshot {
    Snapshot::new("vm/100".parse().unwrap(), EpochSecs(time)).unwrap()
}

async fn back_up_with(
    fake: &Fake,
    time: i64,
    specs: &[String],
    edit: impl FnOnce(&mut backup::Options),
) -> Result<BackupReport> {
    fake.state.lock().log.clear();
    let archives = specs.iter().map(|s| s.parse().unwrap()).collect();
    let mut options = backup::Options::new(snapshot(time), archives);
    edit(&mut options);
    backup::run(&fake.client, &options, Arc::new(Silent)).await
}

async fn back_up(fake: &Fake, time: i64, specs: &[String]) -> Result<BackupReport> {
    back_up_with(fake, time, specs, |_| ()).await
}

async fn bring_back(fake: &Fake, time: i64, archive: &str, target: &Path) -> Result<RestoreReport> {
    fake.state.lock().log.clear();
    let options = restore::Options {
        snapshot: snapshot(time),
        namespace: Namespace::root(),
        archive: archive.to_owned(),
        target: TargetPath::from_argument(target),
        force: true,
        chunks_in_flight: restore::CHUNKS_IN_FLIGHT,
    };
    restore::run(&fake.client, &options, Arc::new(Silent)).await
}

/// Two blocks of data, two of zeros, a short one.
fn image() -> Vec<u8> {
    let mut image = noise(1, 2 * BLOCK);
    image.resize(4 * BLOCK, 0);
    image.extend_from_slice(b"short end");
    image
}

struct Setup {
    fake: Fake,
    dir: tempfile::TempDir,
    specs: Vec<String>,
}

async fn set_up() -> Setup {
    let dir = tempfile::tempdir().unwrap();
    let (disk, conf) = (dir.path().join("disk"), dir.path().join("conf"));
    put(&disk, &image());
    put(&conf, b"cores: 4\n");
    let specs = vec![format!("drive.img:{}", disk.display()), format!("vm.conf:{}", conf.display())];
    Setup { fake: Fake::start().await, dir, specs }
}

/// Log lines without digests, sizes and lists, which the fake has checked.
fn outline(fake: &Fake) -> Vec<String> {
    let short = |line: &String| line.split(['?', '{']).next().unwrap_or_default().trim_end().to_owned();
    fake.state.lock().log.iter().map(short).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_and_an_unchanged_second_backup_send_the_recorded_requests() {
    let Setup { fake, dir, specs } = set_up().await;
    let report = back_up(&fake, 100, &specs).await.unwrap();
    assert_eq!((report.chunks_uploaded, report.chunks_reused), (4, 1), "the zero block is sent once");
    assert_eq!(report.bytes_read, (4 * BLOCK + 9 + 9) as u64);
    assert_eq!(report.warnings, [""; 0]);
    let first = fake.state.lock().log.clone();
    assert_eq!(
        first[1],
        "GET /api2/json/backup?backup-id=100&backup-time=100&backup-type=vm&benchmark=false&debug=true&store=main"
    );
    assert_eq!(first[3], "POST /fixed_index?archive-name=drive.img.fidx&size=16777225");
    assert!(first[4].starts_with("POST /fixed_chunk?digest="), "{}", first[4]);
    assert_eq!(
        outline(&fake),
        [
            "POST /api2/json/access/ticket",
            "GET /api2/json/backup",
            "GET /previous_backup_time",
            "POST /fixed_index",
            "POST /fixed_chunk",
            "POST /fixed_chunk",
            "POST /fixed_chunk",
            "POST /fixed_chunk",
            "PUT /fixed_index",
            "POST /fixed_close",
            "POST /blob",
            "POST /blob",
            "POST /finish",
        ]
    );

    let report = back_up(&fake, 200, &specs).await.unwrap();
    assert_eq!((report.chunks_uploaded, report.chunks_reused), (0, 5));
    assert_eq!(report.previous.as_deref(), Some("vm/100/1970-01-01T00:01:40Z"));
    assert_eq!(
        outline(&fake),
        [
            "GET /api2/json/backup",
            "GET /previous_backup_time",
            "GET /previous",
            "GET /previous",
            "POST /fixed_index",
            "PUT /fixed_index",
            "POST /fixed_close",
            "POST /blob",
            "POST /blob",
            "POST /finish",
        ]
    );
    let target = dir.path().join("back");
    let report = bring_back(&fake, 200, "drive.img", &target).await.unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), image());
    assert_eq!(report.bytes_written, (4 * BLOCK + 9) as u64);
    bring_back(&fake, 200, "vm.conf.blob", &target).await.unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), b"cores: 4\n");
    bring_back(&fake, 200, "index.json", &target).await.unwrap();
    assert!(std::fs::read_to_string(&target).unwrap().contains("\"backup-time\": 200"));
    let newest = snapshots::newest(&fake.client, &Namespace::root(), snapshot(1).group()).await.unwrap();
    assert_eq!(newest, snapshot(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn many_chunks_go_in_appends_of_128_and_come_back_in_order() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    // 130 blocks, cheap to hash: a number in each, some repeated, many zero.
    let path = dir.path().join("disk");
    let file = std::fs::OpenOptions::new().create_new(true).write(true).open(&path).unwrap();
    file.set_len(130 * BLOCK as u64).unwrap();
    for i in (0..130_u64).filter(|i| i % 15 == 3) {
        std::os::unix::fs::FileExt::write_all_at(&file, &(i % 4 + 1).to_le_bytes(), i * BLOCK as u64).unwrap();
    }
    let report = back_up(&fake, 100, &[format!("a.img:{}", path.display())]).await.unwrap();
    assert_eq!(report.chunks_uploaded + report.chunks_reused, 130);
    assert_eq!(report.chunks_uploaded, 5, "four contents and the zero block");
    let sizes: Vec<usize> = fake
        .state
        .lock()
        .log
        .iter()
        .filter_map(|line| line.strip_prefix("PUT /fixed_index "))
        .map(|body| serde_json::from_str::<serde_json::Value>(body).unwrap()["offset-list"].as_array().unwrap().len())
        .collect();
    assert_eq!(sizes, [128, 2]);
    let target = dir.path().join("back");
    bring_back(&fake, 100, "a.img", &target).await.unwrap();
    assert!(fake.state.lock().count("GET /chunk") < 40, "the zero chunk is not fetched for each slot");
    let equal = std::process::Command::new("cmp").arg(&path).arg(&target).status().unwrap();
    assert!(equal.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_come_back_and_share_chunks_with_the_previous_one() {
    let fake = Fake::start().await;
    let dir = tempfile::tempdir().unwrap();
    let (path, target) = (dir.path().join("tar"), dir.path().join("back"));
    let specs = [format!("data.tar.stream:{}", path.display())];
    let mut content = noise(3, 12 << 20);
    put(&path, &content);
    let first = back_up(&fake, 100, &specs).await.unwrap();
    content.splice(0..0, *b"inserted at the front");
    put(&path, &content);
    let second = back_up(&fake, 200, &specs).await.unwrap();
    assert_eq!(second.chunks_uploaded, 1, "{} in the first", first.chunks_uploaded);
    bring_back(&fake, 200, "data.tar.stream", &target).await.unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), content);
    put(&path, b"");
    let error = back_up(&fake, 300, &specs).await.unwrap_err().to_string();
    assert!(error.contains("stream is empty"), "{error}");
    assert_eq!(fake.state.lock().snapshots.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn tracked_changes_reuse_the_previous_index() {
    let Setup { fake, dir, specs } = set_up().await;
    back_up(&fake, 100, &specs).await.unwrap();
    let mut changed = image();
    changed[BLOCK + 5] ^= 1;
    put(&dir.path().join("disk"), &changed);
    let offset = BLOCK as u64;
    let dirty = |options: &mut backup::Options| {
        options.dirty.insert("drive.img.fidx".parse().unwrap(), std::iter::once(offset + 5..offset + 6).collect());
    };
    let report = back_up_with(&fake, 200, &specs, dirty).await.unwrap();
    assert_eq!((report.chunks_uploaded, report.chunks_reused), (1, 0));
    assert_eq!(fake.state.lock().count("POST /fixed_index?archive-name=drive.img.fidx&reuse-csum="), 1);
    assert!(
        fake.state
            .lock()
            .log
            .iter()
            .any(|l| l.starts_with("POST /fixed_close?chunk-count=1&") && l.contains("size=4194304"))
    );
    // Nothing changed at all: no entry, closed with zeros.
    let none = |options: &mut backup::Options| {
        options.dirty.insert("drive.img.fidx".parse().unwrap(), Vec::new());
    };
    back_up_with(&fake, 300, &specs, none).await.unwrap();
    assert_eq!(fake.state.lock().count("PUT"), 0);
    let target = dir.path().join("back");
    bring_back(&fake, 300, "drive.img", &target).await.unwrap();
    assert_eq!(std::fs::read(&target).unwrap(), changed);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_server_refuses_ends_the_backup_or_makes_it_full() {
    let Setup { fake, specs, dir: _dir } = set_up().await;
    for begin in ["POST /fixed_index", "POST /fixed_chunk", "PUT", "POST /fixed_close", "POST /blob", "POST /finish"] {
        fake.state.lock().refuse = Some(begin);
        let error = back_up(&fake, 50, &specs).await.unwrap_err().to_string();
        assert!(error.ends_with("the server answered 400: refused by the test"), "{begin}: {error}");
        assert!(fake.state.lock().snapshots.is_empty());
    }
    fake.state.lock().refuse = None;
    back_up(&fake, 100, &specs).await.unwrap();
    for (time, begin, uploaded) in [
        (200, "GET /previous?archive-name=drive", 4),
        (300, "GET /previous?archive-name=index", 4),
        (400, "GET /previous_backup_time", 0),
    ] {
        fake.state.lock().refuse = Some(begin);
        let report = back_up(&fake, time, &specs).await.unwrap();
        assert_eq!(report.chunks_uploaded, uploaded, "{begin}");
        assert_eq!(report.warnings.len(), 1, "{:?}", report.warnings);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_previous_index_is_not_used() {
    let Setup { fake, specs, dir: _dir } = set_up().await;
    back_up(&fake, 100, &specs).await.unwrap();
    {
        let mut state = fake.state.lock();
        let files = state.snapshots.get_mut(&("vm/100".to_owned(), 100)).unwrap();
        let index = files.get_mut("drive.img.fidx").unwrap();
        let mut bytes = index.to_vec();
        bytes[4096] ^= 1;
        *index = bytes.into();
    }
    let report = back_up(&fake, 200, &specs).await.unwrap();
    assert_eq!(report.chunks_uploaded, 4);
    assert!(report.warnings[0].contains("checksum"), "{:?}", report.warnings);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_checks_every_chunk_and_leaves_nothing_behind() {
    let Setup { fake, dir, specs } = set_up().await;
    back_up(&fake, 100, &specs).await.unwrap();
    let target = dir.path().join("out").join("disk");
    std::fs::create_dir(dir.path().join("out")).unwrap();
    let good = fake.state.lock().chunks.clone();
    let zero = ZERO_DIGEST.parse().unwrap();
    let data = *good.keys().find(|d| **d != zero && good[*d].len() > 1000).unwrap();
    let with = |digest, bytes: Option<Vec<u8>>| {
        let mut chunks = good.clone();
        chunks.remove(&digest);
        chunks.extend(bytes.map(|b| (digest, b.into())));
        fake.state.lock().chunks = chunks;
    };
    let mut flipped = good[&data].to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    for (digest, bytes, why) in [
        (data, None, "not found"),
        (data, Some(flipped), "CRC"),
        (data, Some(good[&data][..good[&data].len() - 1].to_vec()), "CRC"),
        (data, Some(good[&zero].to_vec()), "damaged on the server"),
        (data, Some(Vec::new()), "too small"),
        (zero, None, "not found"),
    ] {
        with(digest, bytes);
        let error = bring_back(&fake, 100, "drive.img", &target).await.unwrap_err().to_string();
        assert!(error.contains(why) && error.contains(&digest.to_string()), "{why}: {error}");
        assert_eq!(std::fs::read_dir(dir.path().join("out")).unwrap().count(), 0);
    }
    let error = bring_back(&fake, 100, "nothing.img", &target).await.unwrap_err().to_string();
    assert!(error.contains("it has drive.img.fidx, vm.conf.blob"), "{error}");
    let error = bring_back(&fake, 101, "drive.img", &target).await.unwrap_err().to_string();
    assert!(error.contains("not finished"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_backup_cuts_the_connection_and_a_dropped_restore_its_file() {
    struct Stop(tokio::sync::Notify);
    impl Observer for Stop {
        fn begins(&self, _: &crate::types::ArchiveName, _: Option<u64>) {}
        fn advances(&self, _: u64) {
            self.0.notify_one();
        }
        fn ends(&self, _: &crate::types::ArchiveName) {}
        fn warns(&self, _: &str) {}
    }
    let Setup { fake, dir, specs } = set_up().await;
    back_up(&fake, 100, &specs).await.unwrap();
    let out = dir.path().join("out");
    std::fs::create_dir(&out).unwrap();
    let options = restore::Options {
        snapshot: snapshot(100),
        namespace: Namespace::root(),
        archive: "drive.img".to_owned(),
        target: TargetPath::Path(out.join("disk")),
        force: false,
        chunks_in_flight: restore::CHUNKS_IN_FLIGHT,
    };
    let stop = Arc::new(Stop(tokio::sync::Notify::new()));
    tokio::select! {
        biased;
        () = stop.0.notified() => {}
        done = restore::run(&fake.client, &options, stop.clone()) => drop(done.unwrap()),
    }
    let left: Vec<_> = std::fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(left.is_empty() || left == ["disk"], "{left:?}");
    let backup = backup::Options::new(snapshot(200), specs.iter().map(|s| s.parse().unwrap()).collect());
    fake.state.lock().refuse = Some("POST /finish");
    tokio::select! {
        biased;
        () = stop.0.notified() => {}
        done = backup::run(&fake.client, &backup, stop.clone()) => drop(done.unwrap_err()),
    }
    assert_eq!(fake.state.lock().snapshots.len(), 1);
}
