//! The acceptance matrix of the known-chunk checks: the 15 rows of spec 03 §12 with the outcomes of design §3, and what the
//! preflight adds. Rows about append and finish run with the preflight off, which would catch the hole before them.

use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::gc::{age, collect};
use crate::support::daemon::{Daemon, Setup, temp_dir};
use crate::support::slowfs::{Behaviour, Op, SlowFs};
use crate::support::upload::{self, Backup, Chunk, FIXED_CHUNK_BYTES, Place, ask_backup, rest};

const ARCHIVE: &str = "disk.img.fidx";
const GONE: &str = "No such file or directory (os error 2)";

/// A daemon whose group `host/m` has the finished base B: one index of d0 and d1.
struct Scene {
    daemon: Daemon,
    base: Place,
    d: [Chunk; 2],
}

fn without_preflight() -> Setup {
    Setup { checks: [true, true, false], ..Setup::default() }
}

impl Scene {
    async fn new() -> Self {
        Self::with(Daemon::with(without_preflight())).await
    }

    async fn with(daemon: Daemon) -> Self {
        let base = Place::host("m", 0);
        let d = [Chunk::made(0, FIXED_CHUNK_BYTES), Chunk::made(1, 1000)];
        upload::full_backup(&daemon, base.clone(), ARCHIVE, &d).await;
        Self { daemon, base, d }
    }

    fn size(&self) -> u64 {
        self.d.iter().map(|c| c.size).sum()
    }

    fn file_of(&self, chunk: &Chunk) -> std::path::PathBuf {
        self.daemon.store().join(chunk.path())
    }

    fn remove(&self, chunk: &Chunk) {
        self.daemon.remove_chunk(&chunk.digest);
    }

    /// A session `hours` after B that has downloaded B's index.
    async fn next(&self, hours: i64) -> Backup {
        let backup = Backup::start(&self.daemon, Place::host("m", hours)).await;
        self.download(&backup).await.expect(200, "");
        backup
    }

    async fn download(&self, backup: &Backup) -> upload::Answer {
        backup.get(&format!("/previous?archive-name={ARCHIVE}")).await
    }

    async fn reuse(&self, backup: &Backup) -> upload::Writer {
        let csum = upload::sha256(
            &[hex::decode(&self.d[0].digest).unwrap(), hex::decode(&self.d[1].digest).unwrap()].concat(),
        );
        backup.create(ARCHIVE, self.size(), &format!("&reuse-csum={csum}")).await
    }

    /// What the listing says about a snapshot's verification.
    async fn verification(&self, place: &Place) -> Value {
        let target = format!("/api2/json/admin/datastore/{}/snapshots", self.daemon.store_name());
        let all = rest(&self.daemon, "GET", &target, b"").await.data();
        let of = |s: &&Value| s["backup-id"] == place.id.as_str() && s["backup-time"] == place.time;
        let found = all.as_array().unwrap().iter().find(of).unwrap_or_else(|| panic!("not listed: {all}"));
        found["verification"].clone()
    }

    async fn assert_base_is_failed_by(&self, upid: &str) {
        assert_eq!(self.verification(&self.base).await, json!({"state": "failed", "upid": upid}));
    }

    async fn assert_base_is_not_marked(&self) {
        assert_eq!(self.verification(&self.base).await, Value::Null);
    }

    /// The client leaves; its snapshot is gone, everything else is as it was, and the task has failed.
    async fn assert_leaves_nothing(&self, backup: Backup) {
        let upid = self.only_running();
        let dir = backup.place.dir();
        backup.leave(&self.daemon).await;
        assert!(!self.daemon.has(&dir), "{dir} is still there");
        assert!(self.daemon.has(self.base.dir()), "the base is gone");
        let ended = self.daemon.ended();
        let (_, result) = ended.iter().find(|(u, _)| *u == upid).expect("the task has ended");
        assert_ne!(result, "OK");
    }

    fn only_running(&self) -> String {
        let running = self.daemon.running();
        assert_eq!(running.len(), 1, "{running:?}");
        running[0].clone()
    }

    async fn append_known(&self, backup: &Backup, writer: &mut upload::Writer) -> upload::Answer {
        backup.append(writer, &[&self.d[0], &self.d[1]]).await
    }

    async fn assert_reads_back(&self, place: &Place) {
        let plain: Vec<u8> = [upload::made_bytes(0, FIXED_CHUNK_BYTES), upload::made_bytes(1, 1000)].concat();
        assert!(upload::read_archive(&self.daemon, place, ARCHIVE).await == plain, "{}: other bytes", place.dir());
    }
}

#[tokio::test]
async fn row_01_missing_before_its_append() {
    let scene = Scene::new().await;
    let backup = scene.next(1).await;
    let upid = scene.only_running();
    let mut writer = backup.create(ARCHIVE, scene.size(), "").await;
    scene.remove(&scene.d[0]);
    let text = format!("known chunk stat failed on {} - {GONE}", scene.d[0].digest);
    scene.append_known(&backup, &mut writer).await.expect(400, &text);
    scene.assert_base_is_failed_by(&upid).await;
    scene.assert_leaves_nothing(backup).await;
    assert!(scene.daemon.has(scene.d[1].path()));
}

#[tokio::test]
async fn row_02_missing_between_append_and_finish() {
    let scene = Scene::new().await;
    let mut backup = scene.next(1).await;
    let upid = scene.only_running();
    let mut writer = backup.create(ARCHIVE, scene.size(), "").await;
    scene.append_known(&backup, &mut writer).await.expect(200, "");
    scene.remove(&scene.d[0]);
    backup.close(&writer).await.expect(200, "");
    backup.manifest().await.expect(200, "");
    let text = format!("stat registered chunks failed - stat failed on {} - {GONE}", scene.d[0].digest);
    backup.finish().await.expect(400, &text);
    assert!(!scene.daemon.has(format!("{}/index.json.blob", backup.place.dir())), "the manifest appeared");
    scene.assert_base_is_failed_by(&upid).await;
    scene.assert_leaves_nothing(backup).await;
}

#[tokio::test]
async fn row_03_missing_but_not_used_any_more() {
    let scene = Scene::new().await;
    let mut backup = scene.next(1).await;
    let new = Chunk::made(7, 4096);
    let mut writer = backup.create(ARCHIVE, new.size, "").await;
    scene.remove(&scene.d[0]);
    backup.upload(&writer, &new).await.expect(200, "");
    backup.append(&mut writer, &[&new]).await.expect(200, "");
    backup.close(&writer).await.expect(200, "");
    backup.complete(&scene.daemon).await;
    scene.assert_base_is_not_marked().await;
}

#[tokio::test]
async fn row_04_missing_in_a_copied_slot() {
    copied_slot(true).await;
}

#[tokio::test]
async fn row_05_missing_in_a_copied_slot_without_previous() {
    copied_slot(false).await;
}

async fn copied_slot(downloads: bool) {
    let scene = Scene::new().await;
    let mut backup = Backup::start(&scene.daemon, Place::host("m", 1)).await;
    let upid = scene.only_running();
    if downloads {
        scene.download(&backup).await.expect(200, "");
    }
    let writer = scene.reuse(&backup).await;
    scene.remove(&scene.d[0]);
    let csum =
        upload::sha256(&[hex::decode(&scene.d[0].digest).unwrap(), hex::decode(&scene.d[1].digest).unwrap()].concat());
    let close = format!("/fixed_close?wid={}&chunk-count=0&size=0&csum={csum}", writer.wid);
    backup.post(&close).await.expect(200, "");
    backup.list(ARCHIVE, scene.size(), &csum);
    backup.manifest().await.expect(200, "");
    let text = format!("stat registered chunks failed - stat failed on {} - {GONE}", scene.d[0].digest);
    backup.finish().await.expect(400, &text);
    scene.assert_base_is_failed_by(&upid).await;
    scene.assert_leaves_nothing(backup).await;
}

#[tokio::test]
async fn row_06_sent_and_lost_in_a_first_backup() {
    let daemon = Daemon::with(without_preflight());
    let chunk = Chunk::made(0, 5000);
    for lost_before_append in [true, false] {
        let mut backup = Backup::start(&daemon, Place::host("first", 0)).await;
        let mut writer = backup.create("a.pxar.didx", 0, "").await;
        backup.upload(&writer, &chunk).await.expect(200, "");
        if lost_before_append {
            daemon.remove_chunk(&chunk.digest);
            backup.append(&mut writer, &[&chunk]).await.expect(400, "known chunk stat failed on");
        } else {
            backup.append(&mut writer, &[&chunk]).await.expect(200, "");
            daemon.remove_chunk(&chunk.digest);
            backup.close(&writer).await.expect(200, "");
            backup.manifest().await.expect(200, "");
            backup.finish().await.expect(400, "stat registered chunks failed - stat failed on");
        }
        let dir = backup.place.dir();
        backup.leave(&daemon).await;
        assert!(!daemon.has(dir));
    }
}

/// A chunk that this session sent and then lost says nothing about the base.
#[tokio::test]
async fn row_06b_sent_and_lost_does_not_mark_the_base() {
    let scene = Scene::new().await;
    let backup = scene.next(1).await;
    let new = Chunk::made(8, 4096);
    let mut writer = backup.create("other.pxar.didx", 0, "").await;
    backup.upload(&writer, &new).await.expect(200, "");
    scene.remove(&new);
    backup.append(&mut writer, &[&new]).await.expect(400, "known chunk stat failed on");
    scene.assert_base_is_not_marked().await;
    scene.assert_leaves_nothing(backup).await;
}

#[tokio::test]
async fn rows_07_08_09_the_next_backups_heal_the_store() {
    let scene = Scene::new().await;
    let backup = scene.next(1).await;
    let upid = scene.only_running();
    let mut writer = backup.create(ARCHIVE, scene.size(), "").await;
    scene.remove(&scene.d[0]);
    scene.append_known(&backup, &mut writer).await.expect(400, "known chunk stat failed on");
    backup.leave(&scene.daemon).await;

    // Row 7: B lends nothing any more, and its time binds nobody; but its directory is there.
    ask_backup(&scene.daemon, &scene.base, "").await.refused().expect(400, "backup directory already exists.");
    let earlier = Backup::start(&scene.daemon, Place::host("m", -1)).await;
    assert_eq!(earlier.get("/previous_backup_time").await.data(), Value::Null);
    scene.download(&earlier).await.expect(400, "no valid previous backup");
    let reuse = format!("/fixed_index?archive-name={ARCHIVE}&size={}&reuse-csum={}", scene.size(), "0".repeat(64));
    earlier.post(&reuse).await.expect(400, "cannot reuse index - no valid previous backup exists");
    earlier.leave(&scene.daemon).await;

    // Row 8: the full backup brings d0 back, for B as well; only a verification may clear B's mark.
    let healing = Place::host("m", 2);
    upload::full_backup(&scene.daemon, healing.clone(), ARCHIVE, &scene.d).await;
    scene.assert_reads_back(&healing).await;
    scene.assert_reads_back(&scene.base).await;
    scene.assert_base_is_failed_by(&upid).await;

    // Row 9: the healed snapshot lends again.
    let mut again = scene.next(3).await;
    assert_eq!(again.get("/previous_backup_time").await.data(), json!(healing.time));
    let mut writer = again.create(ARCHIVE, scene.size(), "").await;
    scene.append_known(&again, &mut writer).await.expect(200, "");
    again.close(&writer).await.expect(200, "");
    again.complete(&scene.daemon).await;
}

#[tokio::test]
async fn row_10_set_aside_as_bad_during_the_session() {
    let scene = Scene::new().await;
    let mut backup = scene.next(1).await;
    let upid = scene.only_running();
    let mut writer = backup.create(ARCHIVE, scene.size(), "").await;
    scene.append_known(&backup, &mut writer).await.expect(200, "");
    let file = scene.file_of(&scene.d[0]);
    let bad = file.with_file_name(format!("{}.0.bad", scene.d[0].digest));
    std::fs::rename(&file, &bad).unwrap();
    scene.daemon.expect(&["--allow-missing-chunk", &scene.d[0].digest]);
    backup.close(&writer).await.expect(200, "");
    backup.manifest().await.expect(200, "");
    backup.finish().await.expect(400, "stat registered chunks failed - stat failed on");
    scene.assert_base_is_failed_by(&upid).await;
    scene.assert_leaves_nothing(backup).await;
    assert!(bad.exists(), "evidence is kept");
}

#[tokio::test]
async fn row_11_empty_is_missing() {
    replaced_by("empty", |file| std::fs::write(file, b"").unwrap()).await;
}

#[tokio::test]
async fn row_11_five_bytes_are_missing() {
    replaced_by("five bytes", |file| std::fs::write(file, b"12345").unwrap()).await;
}

#[tokio::test]
async fn row_11_a_directory_is_missing() {
    replaced_by("a directory", |file| {
        std::fs::remove_file(file).unwrap();
        std::fs::create_dir(file).unwrap();
    })
    .await;
}

async fn replaced_by(what: &str, damage: impl Fn(&Path)) {
    let scene = Scene::with(Daemon::with(Setup { is_checked: false, ..without_preflight() })).await;
    let backup = scene.next(1).await;
    let upid = scene.only_running();
    let mut writer = backup.create(ARCHIVE, scene.size(), "").await;
    damage(&scene.file_of(&scene.d[0]));
    let text = format!("known chunk stat failed on {}", scene.d[0].digest);
    scene.append_known(&backup, &mut writer).await.expect(400, &text);
    scene.assert_base_is_failed_by(&upid).await;
    scene.assert_leaves_nothing(backup).await;
    if what != "a directory" {
        upload::full_backup(&scene.daemon, Place::host("m", 2), ARCHIVE, &scene.d).await;
        scene.assert_reads_back(&scene.base).await;
    }
}

/// Presence cannot see a file that is cut but longer than a header; its upload heals it (03 §13).
#[tokio::test]
async fn row_11_a_truncated_chunk_passes_and_is_healed_by_its_upload() {
    let scene = Scene::new().await;
    let file = scene.file_of(&scene.d[0]);
    let whole = std::fs::read(&file).unwrap();
    std::fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    let backup = scene.next(1).await;
    let mut writer = backup.create(ARCHIVE, scene.size(), "").await;
    scene.append_known(&backup, &mut writer).await.expect(200, "");
    backup.upload(&writer, &scene.d[0]).await.expect(200, "");
    backup.leave(&scene.daemon).await;
    assert!(std::fs::read(&file).unwrap() == whole, "the upload did not heal it");
    scene.assert_base_is_not_marked().await;
}

#[tokio::test]
async fn row_12_the_base_cannot_be_marked() {
    let scene = Scene::new().await;
    let backup = scene.next(1).await;
    let mut writer = backup.create(ARCHIVE, scene.size(), "").await;
    scene.remove(&scene.d[0]);
    // Somebody rewrites the manifest for longer than the daemon waits for its lock.
    let path = scene.daemon.store().join(scene.base.dir()).join("index.json.blob");
    let manifest = std::fs::File::open(&path).unwrap();
    ringvault::engine::try_flock(&manifest, ringvault::engine::LockMode::Exclusive).unwrap();
    scene.append_known(&backup, &mut writer).await.expect(400, "manifest update failed - ");
    drop(manifest);
    scene.assert_base_is_not_marked().await;
    scene.assert_leaves_nothing(backup).await;
}

#[tokio::test]
async fn row_13_a_signed_base_keeps_its_signature() {
    let scene = Scene::new().await;
    let path = scene.daemon.store().join(scene.base.dir()).join("index.json.blob");
    let load = || serde_json::from_slice::<Value>(&upload::decode_blob(&std::fs::read(&path).unwrap())).unwrap();
    let mut signed = load();
    signed["signature"] = json!(signature(&signed));
    signed["unprotected"]["key-fingerprint"] = json!(vec!["ab"; 32].join(":"));
    signed["x-unknown"] = json!({"kept": [1, null]});
    signed["files"][0]["x-unknown"] = json!("kept");
    signed["signature"] = json!(signature(&signed));
    std::fs::write(&path, upload::encode_blob(signed.to_string().as_bytes())).unwrap();

    let backup = scene.next(1).await;
    let mut writer = backup.create(ARCHIVE, scene.size(), "").await;
    scene.remove(&scene.d[0]);
    scene.append_known(&backup, &mut writer).await.expect(400, "known chunk stat failed on");
    backup.leave(&scene.daemon).await;
    let mut marked = load();
    assert_eq!(marked["unprotected"]["verify_state"]["state"], "failed");
    assert_eq!(json!(signature(&marked)), marked["signature"], "the signature does not fit any more");
    marked["unprotected"].as_object_mut().unwrap().remove("verify_state");
    assert_eq!(marked, signed, "more than the state was changed");
}

/// As a client signs: HMAC over the sorted object without what is not protected (spec 02 §5). Nulls are left out here.
fn signature(manifest: &Value) -> String {
    use hmac::{KeyInit, Mac};
    let mut signed = manifest.clone();
    let object = signed.as_object_mut().unwrap();
    object.remove("unprotected");
    object.remove("signature");
    let mut mac = hmac::Hmac::<sha2::Sha256>::new_from_slice(&[7; 32]).unwrap();
    mac.update(signed.to_string().as_bytes());
    hex::encode(mac.finalize().into_bytes())
}

#[tokio::test]
async fn row_14_two_appends_name_the_missing_chunk() {
    let scene = Scene::new().await;
    let backup = scene.next(1).await;
    let upid = scene.only_running();
    let mut first = backup.create(ARCHIVE, scene.size(), "").await;
    let mut second = backup.create("second.img.fidx", scene.size(), "").await;
    scene.remove(&scene.d[0]);
    let (a, b) = tokio::join!(scene.append_known(&backup, &mut first), scene.append_known(&backup, &mut second));
    a.expect(400, "known chunk stat failed on");
    b.expect(400, "known chunk stat failed on");
    scene.assert_base_is_failed_by(&upid).await;
    scene.assert_leaves_nothing(backup).await;
}

/// A collection runs while a backup builds on B, whose chunks are old: nothing of it goes, and while an index is being written another
/// process gets no exclusive lock on the datastore.
#[tokio::test]
async fn row_15_collection_in_parallel() {
    use ringvault::engine::{Disk, RecordLock};
    let scene = Scene::new().await;
    let garbage = Chunk::made(99, 2000);
    let mut prefix = std::fs::DirBuilder::new();
    prefix.mode(0o750).recursive(true).create(scene.file_of(&garbage).parent().unwrap()).unwrap();
    std::fs::write(scene.file_of(&garbage), &garbage.encoded).unwrap();
    let lock_path = scene.daemon.store().join(".lock");
    let foreign = Disk::real().open_or_create(&lock_path, 0o644).unwrap();

    let mut backup = scene.next(1).await;
    let mut writer = backup.create(ARCHIVE, scene.size(), "").await;
    assert!(foreign.try_record_lock(RecordLock::Exclusive).is_err(), "a foreign collector may run during a backup");
    age(&scene.daemon.store().join(".chunks"), 30 * 86_400);
    let ((result, log), appended) = tokio::join!(collect(&scene.daemon), scene.append_known(&backup, &mut writer));
    appended.expect(200, "");
    assert_eq!(result, "OK", "{log:?}");
    assert!(!scene.daemon.has(garbage.path()), "{log:?}");
    let (result, closed) = tokio::join!(collect(&scene.daemon), backup.close(&writer));
    closed.expect(200, "");
    assert_eq!(result.0, "OK");
    backup.manifest().await.expect(200, "");
    let (result, finished) = tokio::join!(collect(&scene.daemon), backup.finish());
    finished.expect(200, "");
    assert_eq!(result.0, "OK");
    backup.session.close().await;
    scene.daemon.idle().await;
    foreign.try_record_lock(RecordLock::Exclusive).expect("after the session a collector may run");
    foreign.try_record_lock(RecordLock::Unlocked).unwrap();
    scene.assert_reads_back(&Place::host("m", 1)).await;
    scene.assert_base_is_not_marked().await;
}

/// The preflight finds the hole before the client has its list: this very backup sends the archive in full and heals.
#[tokio::test]
async fn preflight_heals_in_the_same_backup() {
    let scene = Scene::with(Daemon::start()).await;
    scene.remove(&scene.d[0]);
    let mut backup = Backup::start(&scene.daemon, Place::host("m", 1)).await;
    let upid = scene.only_running();
    let refused = scene.download(&backup).await;
    refused.expect(400, &scene.d[0].digest);
    scene.assert_base_is_failed_by(&upid).await;
    let mut writer = backup.create(ARCHIVE, scene.size(), "").await;
    for chunk in &scene.d {
        backup.upload(&writer, chunk).await.expect(200, "");
    }
    scene.append_known(&backup, &mut writer).await.expect(200, "");
    backup.close(&writer).await.expect(200, "");
    backup.complete(&scene.daemon).await;
    scene.assert_reads_back(&Place::host("m", 1)).await;
    scene.assert_reads_back(&scene.base).await;
    scene.assert_base_is_failed_by(&upid).await;
}

#[tokio::test]
async fn preflight_refuses_to_copy_an_index_with_a_hole() {
    let scene = Scene::with(Daemon::start()).await;
    scene.remove(&scene.d[0]);
    let backup = Backup::start(&scene.daemon, Place::host("m", 1)).await;
    let upid = scene.only_running();
    let csum =
        upload::sha256(&[hex::decode(&scene.d[0].digest).unwrap(), hex::decode(&scene.d[1].digest).unwrap()].concat());
    let target = format!("/fixed_index?archive-name={ARCHIVE}&size={}&reuse-csum={csum}", scene.size());
    backup.post(&target).await.expect(400, &scene.d[0].digest);
    scene.assert_base_is_failed_by(&upid).await;
    scene.assert_leaves_nothing(backup).await;
}

#[tokio::test]
async fn an_unanswered_check_fails_the_append_and_marks_nothing() {
    for errno in [libc::EIO, libc::EACCES, libc::ESTALE] {
        let folder = temp_dir();
        let Some((fs, store)) = faulty_store(folder.path()) else { return };
        let scene = Scene::with(Daemon::with(Setup { store: Some(store), ..without_preflight() })).await;
        let backup = scene.next(1).await;
        let mut writer = backup.create(ARCHIVE, scene.size(), "").await;
        fs.fail(&scene.d[0].digest, Op::Lookup, errno);
        fs.fail(&scene.d[0].digest, Op::Getattr, errno);
        let refused = scene.append_known(&backup, &mut writer).await;
        refused.expect(400, &scene.d[0].digest);
        assert!(refused.text().contains(&std::io::Error::from_raw_os_error(errno).to_string()), "{}", refused.text());
        fs.heal();
        scene.assert_base_is_not_marked().await;
        scene.append_known(&backup, &mut writer).await.expect(200, "");
        scene.assert_leaves_nothing(backup).await;
        drop(scene);
    }
}

#[tokio::test]
async fn an_unanswered_check_fails_the_finish_and_marks_nothing() {
    let folder = temp_dir();
    let Some((fs, store)) = faulty_store(folder.path()) else { return };
    let scene = Scene::with(Daemon::with(Setup { store: Some(store), ..without_preflight() })).await;
    let mut backup = scene.next(1).await;
    let mut writer = backup.create(ARCHIVE, scene.size(), "").await;
    scene.append_known(&backup, &mut writer).await.expect(200, "");
    backup.close(&writer).await.expect(200, "");
    backup.manifest().await.expect(200, "");
    fs.fail(&scene.d[0].digest, Op::Lookup, libc::EIO);
    fs.fail(&scene.d[0].digest, Op::Getattr, libc::EIO);
    backup.finish().await.expect(400, &scene.d[0].digest);
    fs.heal();
    scene.assert_base_is_not_marked().await;
    // The disk is well again, and the session is still there: the client may ask once more.
    backup.finish().await.expect(200, "");
    backup.session.close().await;
    scene.daemon.idle().await;
}

/// A datastore on a file system with faults; none if this machine does not permit one.
fn faulty_store(folder: &Path) -> Option<(SlowFs, std::path::PathBuf)> {
    let (backing, mount) = (folder.join("backing"), folder.join("mount"));
    crate::support::daemon::make_store(&backing.join("golden"));
    std::fs::create_dir(&mount).unwrap();
    match SlowFs::mount(&backing, &mount, Behaviour { delay: Duration::ZERO, ..Behaviour::default() }) {
        Ok(fs) => {
            let store = mount.join("golden");
            Some((fs, store))
        }
        Err(e) => {
            println!("skipped: no FUSE here: {e}");
            None
        }
    }
}
