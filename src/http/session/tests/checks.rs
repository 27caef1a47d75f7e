//! Known-chunk checks: spec 03 §12 with the outcomes of design §3.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::engine::{Disk, Fault};
use crate::format::dynamic_index::DynamicEntry;
use crate::http::known_chunks::KnownChunks;
use crate::http::session::Ending;
use crate::protocol::backup::{About, Session};
use crate::protocol::writers::AppendPlan;
use crate::sync::Mutex;
use crate::task::Task;

const NO_ENTRY: &str = "No such file or directory (os error 2)";

fn without_preflight() -> CheckSwitches {
    CheckSwitches { preflight: false, ..CheckSwitches::default() }
}

fn remove(world: &World, seed: u64) -> Digest {
    let digest = Digest::of(&plain(seed));
    std::fs::remove_file(world.chunk_path(&digest)).unwrap();
    digest
}

async fn use_base(client: &Client) -> (u16, String) {
    client.ask("GET", &format!("/previous?archive-name={ARCHIVE}")).await
}

/// The session failed: its snapshot is gone, and what happened to the base is in the log and in its manifest.
async fn gone_and_marked(world: &World, session: Running, base: &Snapshot) {
    let (upid, lost) = session.vanish().await;
    assert!(!world.snapshot_dir(&lost).exists());
    assert_eq!(world.verify_state(base).await, Some(format!("failed {upid}")));
    let log = world.log(&upid).await;
    assert!(log.iter().any(|line| line.starts_with(&format!("marked snapshot {base} as failed"))), "{log:#?}");
    assert!(log.last().unwrap().starts_with("TASK ERROR: "));
}

#[tokio::test(flavor = "multi_thread")]
async fn row_1_a_chunk_that_is_gone_before_its_append_fails_that_and_marks_the_base() {
    let world = World::new().await;
    let base = full_backup(&world, "host/a", 0, &[1, 2, 3]).await;
    let session = world.backup("host/a", 1).await;
    assert_eq!(use_base(&session.client).await.0, 200);
    let digest = remove(&world, 2);
    let refused = write_archive(&session.client, &[1, 2, 3], &[1, 2, 3]).await.unwrap_err();
    assert_eq!(refused, (400, format!("known chunk stat failed on {digest} - {NO_ENTRY}")));
    gone_and_marked(&world, session, &base).await;

    // Rows 7 to 9: the next one is full and heals, the one after it builds on that.
    let session = world.backup("host/a", 2).await;
    assert_eq!(session.client.ok("GET", "/previous_backup_time").await, Value::Null);
    assert_eq!(use_base(&session.client).await, (400, "no valid previous backup".into()));
    session.vanish().await;
    full_backup(&world, "host/a", 3, &[1, 2, 3]).await;
    assert!(world.chunk_path(&digest).exists());
    let session = world.backup("host/a", 4).await;
    assert_eq!(session.client.ok("GET", "/previous_backup_time").await, json!(T0 + 3 * 3600));
    assert_eq!(use_base(&session.client).await.0, 200);
    session.vanish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_2_a_chunk_that_vanishes_after_its_append_fails_finish() {
    let world = World::new().await;
    let base = full_backup(&world, "host/a", 0, &[1, 2, 3]).await;
    let session = world.backup("host/a", 1).await;
    let client = &session.client;
    assert_eq!(use_base(client).await.0, 200);
    let (size, csum) = write_archive(client, &[1, 2, 3], &[1, 2, 3]).await.unwrap();
    client.manifest(&session.snapshot, &[(ARCHIVE, size, csum)]).await;
    let digest = remove(&world, 2);
    let text = format!("stat registered chunks failed - stat failed on {digest} - {NO_ENTRY}");
    assert_eq!(client.ask("POST", "/finish").await, (400, text));
    assert!(!world.snapshot_dir(&session.snapshot).join("index.json.blob").exists());
    gone_and_marked(&world, session, &base).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn row_3_a_missing_chunk_that_the_new_backup_does_not_use_does_not_fail_it() {
    let world = World::with_checks(without_preflight()).await;
    let base = full_backup(&world, "host/a", 0, &[1, 2, 3]).await;
    let session = world.backup("host/a", 1).await;
    let client = &session.client;
    assert_eq!(use_base(client).await.0, 200);
    remove(&world, 2);
    let (size, csum) = write_archive(client, &[1, 9, 3], &[1, 3]).await.unwrap();
    client.manifest(&session.snapshot, &[(ARCHIVE, size, csum)]).await;
    client.ok("POST", "/finish").await;
    let (_, kept) = session.vanish().await;
    assert!(world.snapshot_dir(&kept).exists());
    assert_eq!(world.verify_state(&base).await, None);
}

/// A job takes a chunk right behind the sweep that has seen it, and the manifest waits until that is known.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_a_job_takes_behind_the_finish_sweep_fails_finish() {
    let world = World::new().await;
    let base = full_backup(&world, "host/a", 0, &[1, 2, 3]).await;
    let session = world.backup("host/a", 1).await;
    let client = &session.client;
    assert_eq!(use_base(client).await.0, 200);
    let (size, csum) = write_archive(client, &[1, 2, 3], &[1, 2, 3]).await.unwrap();
    client.manifest(&session.snapshot, &[(ARCHIVE, size, csum)]).await;
    // Chunk 3 is announced and stays after all, chunk 9 is in no index of this backup.
    let taking = world.store.taking([2, 3, 9].map(|seed| Digest::of(&plain(seed))).to_vec()).await;
    let finish = async {
        let finishing = client.ask("POST", "/finish");
        tokio::pin!(finishing);
        loop {
            tokio::select! {
                answer = &mut finishing => panic!("not before the taking ends: {answer:?}"),
                () = tokio::time::sleep(Duration::from_millis(10)) => {}
            }
            if world.log(&session.upid).await.contains_line("finish check: 3 chunks of 1 indexes are there") {
                break;
            }
        }
        let digest = remove(&world, 2);
        drop(taking);
        let text = format!("stat registered chunks failed - stat failed on {digest} - {NO_ENTRY}");
        assert_eq!(finishing.await, (400, text));
    };
    finish.await;
    assert!(
        world.log(&session.upid).await.contains_line("finish check: 3 chunks were taken out of the store meanwhile")
    );
    assert!(!world.snapshot_dir(&session.snapshot).join("index.json.blob").exists());
    gone_and_marked(&world, session, &base).await;
}

/// Without the finish check, nothing is asked for but what jobs have taken since the session began.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_finish_check_a_chunk_that_a_job_has_taken_fails_finish_still() {
    let world = World::with_checks(CheckSwitches { finish: false, ..CheckSwitches::default() }).await;
    let base = full_backup(&world, "host/a", 0, &[1, 2, 3]).await;
    let session = world.backup("host/a", 1).await;
    let client = &session.client;
    assert_eq!(use_base(client).await.0, 200);
    let (size, csum) = write_archive(client, &[1, 2, 3], &[1, 2, 3]).await.unwrap();
    client.manifest(&session.snapshot, &[(ARCHIVE, size, csum)]).await;
    let taking = world.store.taking(vec![Digest::of(&plain(2))]).await;
    let digest = remove(&world, 2);
    drop(taking);
    let before = world.store.engine().counters().statx;
    let text = format!("stat registered chunks failed - stat failed on {digest} - {NO_ENTRY}");
    for _ in 0..2 {
        assert_eq!(client.ask("POST", "/finish").await, (400, text.clone()), "the second attempt is no better");
    }
    assert_eq!(world.store.engine().counters().statx - before, 2, "only what was taken is asked for");
    gone_and_marked(&world, session, &base).await;
}

trait ContainsLine {
    fn contains_line(&self, begin: &str) -> bool;
}

impl ContainsLine for Vec<String> {
    fn contains_line(&self, begin: &str) -> bool {
        self.iter().any(|line| line.starts_with(begin))
    }
}

/// An image of two slots, the second short.
async fn image_backup(world: &World) -> (Snapshot, Vec<Digest>, Digest) {
    let session = world.backup("vm/1", 0).await;
    let client = &session.client;
    let image = [vec![0; 4 << 20], vec![65; 1000]];
    client.ok("POST", "/fixed_index?archive-name=x.img.fidx&size=4195304").await;
    let mut digests = Vec::new();
    for chunk in &image {
        digests.push(client.chunk("fixed", 1, chunk).await);
    }
    assert_eq!(client.append("fixed", 1, &[(digests[1], 4 << 20), (digests[0], 0)]).await.0, 200);
    let csum = Digest::of(&[digests[0].0, digests[1].0].concat());
    client.ok("POST", &format!("/fixed_close?chunk-count=2&csum={csum}&size=4195304&wid=1")).await;
    client.manifest(&session.snapshot, &[("x.img.fidx", 4_195_304, csum)]).await;
    client.ok("POST", "/finish").await;
    (session.vanish().await.1, digests, csum)
}

#[tokio::test(flavor = "multi_thread")]
async fn row_5_a_copied_slot_without_a_chunk_fails_finish_though_no_append_named_it() {
    let world = World::with_checks(without_preflight()).await;
    let (base, digests, csum) = image_backup(&world).await;
    std::fs::remove_file(world.chunk_path(&digests[1])).unwrap();
    let session = world.backup("vm/1", 1).await;
    let client = &session.client;
    let wid = client.ok("POST", &format!("/fixed_index?archive-name=x.img.fidx&size=4195304&reuse-csum={csum}")).await;
    assert_eq!(wid, json!(1));
    client.ok("POST", &format!("/fixed_close?chunk-count=0&csum={csum}&size=0&wid=1")).await;
    client.manifest(&session.snapshot, &[("x.img.fidx", 4_195_304, csum)]).await;
    let text = format!("stat registered chunks failed - stat failed on {} - {NO_ENTRY}", digests[1]);
    assert_eq!(client.ask("POST", "/finish").await, (400, text));
    gone_and_marked(&world, session, &base).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_with_a_hole_is_not_copied() {
    let world = World::new().await;
    let (base, digests, csum) = image_backup(&world).await;
    std::fs::remove_file(world.chunk_path(&digests[1])).unwrap();
    let session = world.backup("vm/1", 1).await;
    let target = format!("/fixed_index?archive-name=x.img.fidx&size=4195304&reuse-csum={csum}");
    let text = format!("cannot reuse index - known chunk stat failed on {} - {NO_ENTRY}", digests[1]);
    assert_eq!(session.client.ask("POST", &target).await, (400, text));
    // The number was not used up, and the file is not in the way.
    assert_eq!(session.client.ok("POST", "/fixed_index?archive-name=x.img.fidx&size=4195304").await, json!(1));
    gone_and_marked(&world, session, &base).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hole_found_by_preflight_makes_this_backup_heal_the_store() {
    let world = World::new().await;
    let base = full_backup(&world, "host/a", 0, &[1, 2, 3]).await;
    let digest = remove(&world, 2);
    let session = world.backup("host/a", 1).await;
    let client = &session.client;
    assert_eq!(client.ok("GET", "/previous_backup_time").await, json!(T0));
    let text =
        format!("cannot use '{ARCHIVE}' of the previous backup - known chunk stat failed on {digest} - {NO_ENTRY}");
    assert_eq!(use_base(client).await, (400, text.clone()));
    assert_eq!(use_base(client).await, (400, text), "asked again");
    // Nothing of that index became known.
    let one = Digest::of(&plain(1));
    client.ok("POST", "/dynamic_index?archive-name=other.pxar.didx").await;
    assert_eq!(client.append("dynamic", 1, &[(one, 0)]).await, (400, format!("no such chunk {one}")));
    session.vanish().await;
    assert!(world.verify_state(&base).await.unwrap().starts_with("failed UPID:"));
    // The same again, with a client that then sends everything.
    let session = world.backup("host/b", 0).await;
    session.vanish().await;
    let base = full_backup(&world, "host/b", 0, &[1, 2, 3]).await;
    remove(&world, 2);
    let session = world.backup("host/b", 1).await;
    let client = &session.client;
    assert_eq!(use_base(client).await.0, 400);
    let (size, csum) = write_archive(client, &[1, 2, 3], &[]).await.unwrap();
    client.manifest(&session.snapshot, &[(ARCHIVE, size, csum)]).await;
    client.ok("POST", "/finish").await;
    assert!(world.chunk_path(&digest).exists());
    let (upid, kept) = session.vanish().await;
    assert!(world.snapshot_dir(&kept).exists());
    assert_eq!(world.verify_state(&base).await, Some(format!("failed {upid}")));
    assert_eq!(world.log(&upid).await.last().unwrap(), "TASK OK");
}

#[tokio::test(flavor = "multi_thread")]
async fn row_6_a_chunk_of_this_session_that_is_lost_is_nobody_elses_fault() {
    let world = World::new().await;
    let base = full_backup(&world, "host/a", 0, &[1]).await;
    let session = world.backup("host/a", 1).await;
    let client = &session.client;
    client.ok("POST", &format!("/dynamic_index?archive-name={ARCHIVE}")).await;
    client.chunk("dynamic", 1, &plain(2)).await;
    let digest = remove(&world, 2);
    let refused = client.append("dynamic", 1, &[(digest, 0)]).await;
    assert_eq!(refused, (400, format!("known chunk stat failed on {digest} - {NO_ENTRY}")));
    session.vanish().await;
    assert_eq!(world.verify_state(&base).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_11_an_empty_a_short_and_no_file_at_all_are_missing() {
    let world = World::new().await;
    let base = full_backup(&world, "host/a", 0, &[1, 2, 3]).await;
    let session = world.backup("host/a", 1).await;
    let client = &session.client;
    assert_eq!(use_base(client).await.0, 200);
    client.ok("POST", &format!("/dynamic_index?archive-name={ARCHIVE}")).await;
    let short = |bytes: u64| format!("file has {bytes} bytes, fewer than the 12 of a blob header");
    for (seed, content, why) in
        [(1, Some(&b""[..]), short(0)), (2, Some(b"short"), short(5)), (3, None, "not a regular file".into())]
    {
        let digest = remove(&world, seed);
        match content {
            Some(content) => put(&world.chunk_path(&digest), content),
            None => std::fs::create_dir(world.chunk_path(&digest)).unwrap(),
        }
        let refused = client.append("dynamic", 1, &[(digest, 0)]).await;
        assert_eq!(refused, (400, format!("known chunk stat failed on {digest} - {why}")));
    }
    gone_and_marked(&world, session, &base).await;
    std::fs::remove_dir(world.chunk_path(&Digest::of(&plain(3)))).unwrap();
    full_backup(&world, "host/a", 2, &[1, 2, 3]).await;
    for seed in [1, 2, 3] {
        let stored = std::fs::read(world.chunk_path(&Digest::of(&plain(seed)))).unwrap();
        assert_eq!(stored, blob::encode(&plain(seed), Compression::Try), "healed");
    }
}

/// A symbolic link that leads to itself is the error that even root gets from a stat.
#[tokio::test(flavor = "multi_thread")]
async fn a_chunk_that_cannot_be_asked_for_fails_the_request_and_marks_nothing() {
    let world = World::new().await;
    let base = full_backup(&world, "host/a", 0, &[1, 2, 3]).await;
    let digest = remove(&world, 2);
    let path = world.chunk_path(&digest);
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let why = "Too many levels of symbolic links (os error 40) - the check could not be made";
    let session = world.backup("host/a", 1).await;
    let (status, text) = use_base(&session.client).await;
    assert_eq!(status, 400);
    assert!(text.ends_with(&format!("known chunk stat failed on {digest} - {why}")), "{text}");
    // Tried again once the cause has passed.
    std::fs::remove_file(&path).unwrap();
    put(&path, &blob::encode(&plain(2), Compression::Try));
    assert_eq!(use_base(&session.client).await.0, 200);
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&path, &path).unwrap();
    let refused = write_archive(&session.client, &[1, 2, 3], &[1, 2, 3]).await.unwrap_err();
    assert_eq!(refused, (400, format!("known chunk stat failed on {digest} - {why}")));
    session.vanish().await;
    assert_eq!(world.verify_state(&base).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn row_14_two_appends_that_name_the_missing_chunk_both_fail() {
    let world = World::new().await;
    let base = full_backup(&world, "host/a", 0, &[1, 2, 3]).await;
    let session = world.backup("host/a", 1).await;
    let client = &session.client;
    assert_eq!(use_base(client).await.0, 200);
    for name in ["a.pxar.didx", "b.pxar.didx"] {
        client.ok("POST", &format!("/dynamic_index?archive-name={name}")).await;
    }
    let digest = remove(&world, 2);
    let named = [(digest, 0)];
    let answers = tokio::join!(client.append("dynamic", 1, &named), client.append("dynamic", 2, &named));
    let refused = (400, format!("known chunk stat failed on {digest} - {NO_ENTRY}"));
    assert_eq!(answers, (refused.clone(), refused));
    gone_and_marked(&world, session, &base).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn switches_turn_each_check_off() {
    let world = World::with_checks(CheckSwitches { append: false, finish: false, preflight: false }).await;
    let base = full_backup(&world, "host/a", 0, &[1, 2]).await;
    remove(&world, 2);
    let before = world.store.engine().counters().statx;
    let session = world.backup("host/a", 1).await;
    let client = &session.client;
    assert_eq!(use_base(client).await.0, 200);
    let (size, csum) = write_archive(client, &[1, 2], &[1, 2]).await.unwrap();
    client.manifest(&session.snapshot, &[(ARCHIVE, size, csum)]).await;
    client.ok("POST", "/finish").await;
    let (upid, _) = session.vanish().await;
    assert_eq!(world.verify_state(&base).await, None);
    assert_eq!(world.store.engine().counters().statx, before);
    assert!(world.log(&upid).await.contains(&"finish check: switched off for this datastore".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_is_one_batch_and_a_finish_asks_for_each_chunk_once() {
    let world = World::with_checks(without_preflight()).await;
    // The last quarter of the entries repeats chunks.
    let distinct: Vec<u64> = (0..96).collect();
    let seeds: Vec<u64> = distinct.iter().copied().chain(0..32).collect();
    full_backup(&world, "host/a", 0, &distinct).await;
    let session = world.backup("host/a", 1).await;
    let client = &session.client;
    assert_eq!(use_base(client).await.0, 200);
    let counters = || world.store.engine().counters();
    let start = counters();
    let (size, csum) = write_archive(client, &seeds, &seeds).await.unwrap();
    let appended = counters();
    assert_eq!(appended.batches_interactive - start.batches_interactive, 1);
    assert_eq!(appended.statx - start.statx, 96);
    client.manifest(&session.snapshot, &[(ARCHIVE, size, csum)]).await;
    client.ok("POST", "/finish").await;
    assert_eq!(counters().statx - appended.statx, 96);
    session.vanish().await;
}

/// A base whose manifest has been damaged meanwhile cannot be marked: that is what the request then says.
#[tokio::test(flavor = "multi_thread")]
async fn row_12_a_base_that_cannot_be_marked_is_the_error() {
    let world = World::new().await;
    let base = full_backup(&world, "host/a", 0, &[1, 2]).await;
    let session = world.backup("host/a", 1).await;
    let client = &session.client;
    assert_eq!(use_base(client).await.0, 200);
    remove(&world, 2);
    put(&world.snapshot_dir(&base).join("index.json.blob"), b"not a blob at all");
    let (status, text) = write_archive(client, &[1, 2], &[1, 2]).await.unwrap_err();
    assert_eq!(status, 400);
    assert!(text.starts_with("manifest update failed - "), "{text}");
    let (_, lost) = session.vanish().await;
    assert!(!world.snapshot_dir(&lost).exists());
}

/// Rows 4 and 5 with `previous` downloaded: the copied slots are judged the same.
#[tokio::test(flavor = "multi_thread")]
async fn row_4_a_chunk_that_vanishes_behind_a_copied_index_fails_finish() {
    let world = World::new().await;
    let (base, digests, csum) = image_backup(&world).await;
    let session = world.backup("vm/1", 1).await;
    let client = &session.client;
    assert_eq!(client.ask("GET", "/previous?archive-name=x.img.fidx").await.0, 200);
    client.ok("POST", &format!("/fixed_index?archive-name=x.img.fidx&size=4195304&reuse-csum={csum}")).await;
    std::fs::remove_file(world.chunk_path(&digests[0])).unwrap();
    client.ok("POST", &format!("/fixed_close?chunk-count=0&csum={csum}&size=0&wid=1")).await;
    client.manifest(&session.snapshot, &[("x.img.fidx", 4_195_304, csum)]).await;
    let text = format!("stat registered chunks failed - stat failed on {} - {NO_ENTRY}", digests[0]);
    assert_eq!(client.ask("POST", "/finish").await, (400, text));
    gone_and_marked(&world, session, &base).await;
}

/// What was named while a check was off has not been asked for its length, so finish asks for inodes, though both are on again.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_was_off_for_a_while_is_made_up_for_at_finish() {
    let all = CheckSwitches::default();
    for off in [CheckSwitches { append: false, ..all }, CheckSwitches { preflight: false, ..all }] {
        let world = World::new().await;
        let switch = |checks| world.store.set_config(DatastoreConfig { checks, ..(*world.store.config()).clone() });
        full_backup(&world, "host/a", 0, &[1, 2, 3]).await;
        let (known, _task) = checks_of(&world, snapshot("host/a", 1)).await;
        let known = Arc::new(known);
        let index = known.lease().open_base_index(&ARCHIVE.parse().unwrap()).await.unwrap();
        let plan = AppendPlan::naming(vec![Digest::of(&plain(1))]);
        known.preflight(&ARCHIVE.parse().unwrap(), &index).await.unwrap();
        known.check_append(&plan).await.unwrap();
        assert!(known.lengths_are_seen());
        switch(off);
        known.preflight(&ARCHIVE.parse().unwrap(), &index).await.unwrap();
        known.check_append(&plan).await.unwrap();
        switch(all);
        assert!(!known.lengths_are_seen(), "{off:?}");
        known.end().await;
        known.lease().abandon().await.unwrap();
    }
}

/// The checks of a session without its connection.
async fn checks_of(world: &World, snapshot: Snapshot) -> (KnownChunks, Arc<Task>) {
    let lease = world.store.begin_backup(&Namespace::root(), &snapshot, &auth(), false).await.unwrap();
    let task = Arc::new(world.tasks.start("backup", None, &auth()).await.unwrap());
    let about = About { snapshot, snapshot_path: String::new(), base_time: None };
    let session = Arc::new(Mutex::new(Session::new(about)));
    let (store, compute) = (world.store.clone(), world.compute.clone());
    let known = KnownChunks::new(store, Arc::new(lease), task.clone(), compute, Ending::default(), session);
    (known, task)
}

/// The index is larger than what is kept in memory: several passes see each chunk once, and find the one that is missing.
#[tokio::test(flavor = "multi_thread")]
async fn a_finish_check_in_passes_sees_every_chunk_once() {
    let world = World::new().await;
    let seeds: Vec<u64> = (0..200).collect();
    full_backup(&world, "host/a", 0, &seeds).await;
    let (known, _task) = checks_of(&world, snapshot("host/b", 0)).await;
    let lease = known.lease();
    let writer = lease.create_dynamic(&ARCHIVE.parse().unwrap()).await.unwrap();
    let twice: Vec<u64> = seeds.iter().chain(&seeds).copied().collect();
    let (chunks, size, csum) = dynamic_index(&twice);
    let ends = chunks.iter().skip(1).map(|(_, start)| *start).chain([size]);
    let entries = chunks.iter().zip(ends).map(|((digest, _), end)| DynamicEntry { end, digest: *digest }).collect();
    writer.append(0, entries).await.unwrap();
    writer.close(400, csum).await.unwrap();
    let archives = [ARCHIVE.parse().unwrap()];
    let before = world.store.engine().counters().statx;
    known.sweep_indexes(&archives, 16, None).await.unwrap();
    assert_eq!(world.store.engine().counters().statx - before, 200);
    let digest = remove(&world, 77);
    let error = known.sweep_indexes(&archives, 16, None).await.unwrap_err();
    let text = format!("stat registered chunks failed - stat failed on {digest} - {NO_ENTRY}");
    assert_eq!(error.to_string(), text);
    lease.abandon().await.unwrap();
}

/// A disk that takes a tenth of a second for every read, once it has become slow.
#[derive(Debug, Default)]
struct SlowReads(AtomicBool);

impl Fault for SlowReads {
    fn before(&self, op: &'static str, _path: Option<&Path>) -> std::io::Result<()> {
        if op == "pread" && self.0.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }
}

/// A store too slow for the budget: the request is answered, the sweep goes on, and what it finds is marked and logged.
#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_past_its_budget_goes_on_behind_the_session() {
    let slow = Arc::new(SlowReads::default());
    let disk = Disk::with_fault(slow.clone());
    let world =
        World::on(Engine::start_on("test", &EngineConfig::default(), disk).unwrap(), CheckSwitches::default()).await;
    let base = full_backup(&world, "host/a", 0, &[1, 2, 3]).await;
    let digest = remove(&world, 2);
    let (known, task) = checks_of(&world, snapshot("host/a", 1)).await;
    let known = Arc::new(known.with_budget(Duration::ZERO));
    let archive = ARCHIVE.parse().unwrap();
    let index = known.lease().open_base_index(&archive).await.unwrap();
    slow.0.store(true, Ordering::Relaxed);
    assert!(known.lengths_are_seen(), "no index has brought chunks along");
    known.preflight(&archive, &index).await.unwrap();
    assert!(!known.lengths_are_seen(), "a name would do for chunks that nobody has asked for");
    slow.0.store(false, Ordering::Relaxed);
    known.end().await;
    assert!(!known.lengths_are_seen(), "its sweep ended at the hole");
    assert_eq!(world.verify_state(&base).await, Some(format!("failed {}", task.upid())));
    let log = world.log(task.upid()).await;
    for text in ["goes on meanwhile".to_owned(), format!("preflight check: chunk {digest} is missing - {NO_ENTRY}")] {
        assert!(log.iter().any(|line| line.contains(&text)), "{text}: {log:#?}");
    }
    // Who asks again is told what was found.
    assert!(known.preflight(&archive, &index).await.is_err());
    known.lease().abandon().await.unwrap();
}
