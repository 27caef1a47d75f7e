//! Whole backups against a datastore in a temporary folder.

use std::path::Path;
use std::time::Duration;

use super::test_support::*;
use super::{Freshness, GroupFilter, MissingReason, SyncLevel};
use crate::engine::Class;
use crate::error::Kind;
use crate::format::blob::{Compression, encode};
use crate::format::dynamic_index::DynamicEntry;
use crate::format::manifest::{Manifest, VerifyOutcome};
use crate::types::{Digest, MANIFEST_BLOB};

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[tokio::test]
async fn a_backup_appears_whole_at_every_sync_level() {
    for level in [SyncLevel::None, SyncLevel::File, SyncLevel::Filesystem] {
        let dir = tempfile::tempdir().unwrap();
        let base = make_base(dir.path());
        let store = open_on(&base, engine(), level).await.unwrap();
        let first = snapshot("vm/100", 0);
        back_up(&store, &first, &[1, 2, 1]).await.unwrap();
        let group = base.join("vm/100");
        assert_eq!(std::fs::read_to_string(group.join("owner")).unwrap(), "tester@pbs!bench\n");
        let files = names(&group.join("2024-06-05T14:23:38Z"));
        assert_eq!(files, ["disk.img.fidx", "index.json.blob", "vm.conf.blob"], "{level:?}");

        let second = snapshot("vm/100", 1);
        let lease = store.begin_backup(&root(), &second, &auth(), false).await.unwrap();
        let known = lease.base().unwrap();
        assert_eq!(known.snapshot, first);
        let index = lease.open_base_index(&name("disk.img.fidx")).await.unwrap();
        let mut scan = index.scan();
        let entries = scan.next_block().await.unwrap().unwrap();
        assert_eq!(entries.len(), 3);
        assert_eq!((entries[2].pos, entries[2].digest, entries[2].size_bytes), (8 << 20, chunk(1).0, 4 << 20));
        assert_eq!(scan.next_block().await.unwrap(), None);
        assert_eq!(scan.csum(), Some(index.stored_csum()));
        write_backup(&store, &lease, &[1, 3]).await.unwrap();

        let listed = store.snapshots(&root(), GroupFilter::default()).await.unwrap();
        assert_eq!(listed.iter().map(|s| s.snapshot.clone()).collect::<Vec<_>>(), [first, second]);
        assert_eq!(listed[0].files[0].size, Some(12 << 20));
        assert!(!base.join(".lock").metadata().unwrap().is_dir());
        drop((store, lease));
        for _ in 0..100 {
            if !names(&base).iter().any(|n| n.starts_with(super::RECORD_PREFIX)) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(names(&base), [".chunks", ".lock", "vm"], "a closed datastore holds nothing of ours");
    }
    assert_eq!(crate::sync::violations(), 0, "no lock was held while the disk worked");
}

#[tokio::test]
async fn who_comes_second_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    let lease = store.begin_backup(&root(), &snapshot("host/conc", 0), &auth(), false).await.unwrap();
    let group = base.join("host/conc");
    let error = store.begin_backup(&root(), &snapshot("host/conc", 1), &auth(), false).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("unable to acquire lock on backup group directory {group:?} - another backup is already running")
    );
    let taken = group.join("2024-06-05T14:23:38Z");
    let error = store.begin_reader(&root(), &snapshot("host/conc", 0)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("unable to acquire lock on snapshot directory {taken:?} - locked by another operation")
    );
    let error = store.remove_snapshot(&root(), &snapshot("host/conc", 0)).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("unable to acquire lock on snapshot directory {taken:?} - possibly running or in use")
    );
    assert_eq!(error.kind(), Kind::Busy);
    lease.abandon().await.unwrap();
    assert!(!group.exists(), "this backup made the group");

    back_up(&store, &snapshot("host/conc", 0), &[1]).await.unwrap();
    for (hours, auth_id, text) in [
        (0, "tester@pbs!bench", "backup timestamp is older than last backup."),
        (-1, "tester@pbs!bench", "backup timestamp is older than last backup."),
        (1, "tester@pbs!second", "backup owner check failed (tester@pbs!second != tester@pbs!bench)"),
    ] {
        let begun = store.begin_backup(&root(), &snapshot("host/conc", hours), &auth_id.parse().unwrap(), false).await;
        let error = begun.unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Invalid, text));
    }
    let nowhere = "nope".parse().unwrap();
    let error = store.begin_backup(&nowhere, &snapshot("host/conc", 1), &auth(), false).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::NotFound, "namespace not found"));
    assert_eq!(names(&group), ["2024-06-05T14:23:38Z", "owner"]);
    let plain_user = "tester@pbs".parse().unwrap();
    store.begin_backup(&root(), &snapshot("host/conc", 1), &plain_user, false).await.unwrap().abandon().await.unwrap();
    assert!(group.exists());
}

#[tokio::test]
async fn a_failed_base_is_none_and_its_group_may_be_backed_up_in_full() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    let first = snapshot("vm/604", 0);
    back_up(&store, &first, &[1]).await.unwrap();
    let lease = store.begin_backup(&root(), &snapshot("vm/604", 1), &auth(), false).await.unwrap();
    lease.mark_base_failed("UPID:x").await.unwrap();
    lease.abandon().await.unwrap();
    let state = store.load_manifest(&root(), &first).await.unwrap().manifest.verify_state().unwrap();
    assert_eq!((state.state, state.upid.as_str()), (VerifyOutcome::Failed, "UPID:x"));

    let error = store.begin_backup(&root(), &first, &auth(), false).await.unwrap_err();
    assert_eq!(error.to_string(), "backup directory already exists.");
    assert!(base.join("vm/604/2024-06-05T14:23:38Z/index.json.blob").exists());
    // Older than the marked one: no timestamp check without a base.
    let lease = store.begin_backup(&root(), &snapshot("vm/604", -1), &auth(), false).await.unwrap();
    assert!(lease.base().is_none());
    let error = lease.open_base_blob(&name("index.json.blob")).await.unwrap_err();
    assert_eq!(error.to_string(), "no valid previous backup");
    let error = lease.create_fixed_from_base(&name("disk.img.fidx"), 1, "00").await.unwrap_err();
    assert_eq!(error.to_string(), "cannot reuse index - no valid previous backup exists");
}

#[tokio::test]
async fn an_index_of_the_base_is_reused_if_everything_agrees() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&make_base(dir.path())).await;
    back_up(&store, &snapshot("vm/700", 0), &[1, 2]).await.unwrap();
    let lease = store.begin_backup(&root(), &snapshot("vm/700", 1), &auth(), false).await.unwrap();
    let csum = fixed_csum(&[chunk(1).0, chunk(2).0]).to_string();
    let upper = csum.to_uppercase();
    let zeros = "0".repeat(64);
    let wrong = |csum_sent: &str| {
        format!("expected csum ({csum_sent}) doesn't match last backup's ({csum}), cannot do incremental backup")
    };
    for (archive, size, reuse, text) in [
        ("disk.img.fidx", 8 << 20, &zeros, wrong(&zeros)),
        ("disk.img.fidx", 8 << 20, &upper, wrong(&upper)),
        ("other.img.fidx", 8 << 20, &csum, "cannot reuse index - no previous backup exists for archive".to_owned()),
        ("disk.img.fidx", (8 << 20) + 1, &csum, "clone_data_from failed - index sizes not equal".to_owned()),
    ] {
        let error = lease.create_fixed_from_base(&name(archive), size, reuse).await.unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    // The last chunk may have become shorter.
    let writer = lease.create_fixed_from_base(&name("disk.img.fidx"), (8 << 20) - 5, &csum).await.unwrap();
    insert(&store, 3).await.unwrap();
    writer.write_slots(vec![(1, chunk(3).0)]).await.unwrap();
    let closed = writer.close(fixed_csum(&[chunk(1).0, chunk(3).0])).await.unwrap();
    assert_eq!((closed.count, closed.size_bytes), (2, (8 << 20) - 5));
    let index = lease.open_index(&name("disk.img.fidx")).await.unwrap();
    let entries = index.scan().next_block().await.unwrap().unwrap();
    assert_eq!(entries[1].size_bytes, (4 << 20) - 5);
    lease.finish(manifest(lease.snapshot(), closed.csum, closed.size_bytes), stay(&store).await).await.unwrap();
    assert_eq!(
        lease.create_dynamic(&name("late.didx")).await.unwrap_err().to_string(),
        "backup already marked as finished."
    );
}

#[tokio::test]
async fn indexes_that_do_not_add_up_leave_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    let lease = store.begin_backup(&root(), &snapshot("host/bad", 0), &auth(), false).await.unwrap();
    let path = base.join("host/bad/2024-06-05T14:23:38Z");
    let digest = chunk(1).0;

    let writer = lease.create_fixed(&name("a.img.fidx"), 9_000_000).await.unwrap();
    assert_eq!(writer.slot_count(), 3);
    assert!(
        lease.create_fixed(&name("a.img.fidx"), 1).await.unwrap_err().to_string().contains("already being written")
    );
    let error = writer.write_slots(vec![(0, digest), (3, digest)]).await.unwrap_err();
    assert!(error.to_string().contains("behind the last"), "{error}");
    assert!(
        lease
            .finish(manifest(lease.snapshot(), digest, 1), stay(&store).await)
            .await
            .unwrap_err()
            .to_string()
            .contains("open index writer")
    );
    assert_eq!(names(&path), ["a.img.tmp_fidx"]);
    let error = writer.close(Digest::ZERO).await.unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Invalid, "got unexpected checksum"));
    assert!(writer.close(Digest::ZERO).await.unwrap_err().to_string().contains("closed"));
    assert_eq!(names(&path), [""; 0]);

    let writer = lease.create_dynamic(&name("a.pxar.didx")).await.unwrap();
    let entry = |end| DynamicEntry { end, digest };
    // Out of order in time, in order in the file.
    writer.append(2, vec![entry(30)]).await.unwrap();
    writer.append(0, vec![entry(10), entry(20)]).await.unwrap();
    let bytes: Vec<u8> = [10, 20, 30].iter().flat_map(|end| entry(*end).encode()).collect();
    let closed = writer.close(3, Digest::of(&bytes)).await.unwrap();
    assert_eq!((closed.count, closed.size_bytes), (3, 30));
    for (entries, count) in [(vec![(1, 20)], 2), (vec![(0, 10)], 2), (vec![(0, 10), (1, 10)], 2), (vec![], 0)] {
        let writer = lease.create_dynamic(&name("b.pxar.didx")).await.unwrap();
        let mut bytes = Vec::new();
        for (first, end) in &entries {
            writer.append(*first, vec![entry(*end)]).await.unwrap();
            bytes.resize(40 * usize::try_from(*first).unwrap(), 0);
            bytes.extend(entry(*end).encode());
        }
        let error = writer.close(count, Digest::of(&bytes)).await;
        // An empty index is for the session to refuse: nobody can open it.
        assert_eq!(error.is_err(), !entries.is_empty(), "{entries:?}");
    }
    for _ in 0..20 {
        drop(lease.create_fixed(&name("dropped.img.fidx"), 1).await.unwrap());
    }
    let huge = lease.create_fixed(&name("huge.img.fidx"), u64::MAX).await.unwrap_err();
    assert!(huge.to_string().contains("too large"), "{huge}");
    lease.abandon().await.unwrap();
    assert!(!path.exists());
    assert_eq!(lease.create_fixed(&name("a.img.fidx"), 1).await.unwrap_err().kind(), Kind::Closed);
}

#[tokio::test]
async fn a_dropped_backup_cleans_up_behind_its_last_work() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    let lease = store.begin_backup(&root(), &snapshot("host/gone", 0), &auth(), false).await.unwrap();
    let writer = lease.create_fixed(&name("a.img.fidx"), 1 << 30).await.unwrap();
    lease.store_blob(&name("x.conf.blob"), encode(b"x", Compression::None).into()).await.unwrap();
    drop(lease);
    // The writer outlives the lease, and is refused.
    for _ in 0..200 {
        if !base.join("host/gone").exists() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(names(&base.join("host")), [""; 0]);
    assert_eq!(writer.write_slots(vec![(0, Digest::ZERO)]).await.unwrap_err().kind(), Kind::Closed);
    back_up(&store, &snapshot("host/gone", 0), &[1]).await.unwrap();
    drop(writer);
    assert_eq!(store.files(&root(), &snapshot("host/gone", 0)).await.unwrap().len(), 3);
}

#[tokio::test]
async fn holes_are_found_told_apart_and_healed_by_the_next_upload() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    for seed in 1..=5 {
        insert(&store, seed).await.unwrap();
    }
    let path = |seed| super::layout::Layout::new(&base).chunk(&chunk(seed).0);
    std::fs::remove_file(path(1)).unwrap();
    std::fs::File::create_new(dir.path().join("empty")).unwrap();
    std::fs::copy(dir.path().join("empty"), path(2)).unwrap();
    std::fs::OpenOptions::new().write(true).open(path(3)).unwrap().set_len(5).unwrap();
    std::fs::remove_file(path(4)).unwrap();
    std::fs::create_dir(path(4)).unwrap();
    let digests: Vec<Digest> = (1..=5).map(|seed| chunk(seed).0).collect();
    let mut heard = Vec::new();
    let report = store.check_chunks_with(&digests, Class::Sweep, Freshness::Server, |n| heard.push(n)).await.unwrap();
    let reasons: Vec<MissingReason> = report.missing.iter().map(|(_, reason)| *reason).collect();
    assert_eq!(
        reasons,
        [
            MissingReason::Absent,
            MissingReason::TooShort { size_bytes: 0 },
            MissingReason::TooShort { size_bytes: 5 },
            MissingReason::NotRegular
        ]
    );
    assert_eq!((report.checked, report.unchecked.len(), heard), (5, 0, vec![5]));
    // Equal length, other bytes: kept on the hot path, but not when suspect.
    for seed in [1, 2, 3] {
        let (_, blob, _) = chunk(seed);
        std::fs::copy(path(5), path(seed)).unwrap();
        assert_eq!(std::fs::metadata(path(seed)).unwrap().len(), blob.len() as u64, "same length");
        assert_eq!(insert(&store, seed).await.unwrap(), super::Inserted::New { bytes: blob.len() as u64 });
        assert_eq!(store.read_chunk(chunk(seed).0).await.unwrap()[..], blob);
        assert!(matches!(insert(&store, seed).await.unwrap(), super::Inserted::Known { .. }));
    }
    let error = insert(&store, 4).await.unwrap_err();
    let digest = chunk(4).0;
    let said = error.to_string();
    assert!(said.starts_with(&format!("got unexpected file type on store 'store1' for chunk {digest} - ")), "{said}");
    assert!(said.contains(&format!("remove {:?} by hand", path(4))), "{said}");
}

#[tokio::test]
async fn a_store_that_went_away_has_no_missing_chunks() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    insert(&store, 1).await.unwrap();
    std::fs::File::create_new(base.join("mark")).unwrap();
    for moved in [base.with_extension("away"), base.join(".chunks.away")] {
        let from = if moved.starts_with(&base) { base.join(".chunks") } else { base.clone() };
        std::process::Command::new("mv").arg(&from).arg(&moved).status().unwrap();
        if from == base {
            make_base(dir.path());
        }
        let error = store.check_chunks(vec![chunk(9).0], Class::Interactive, Freshness::Cached).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Io);
        assert!(error.to_string().contains("not at its place"), "{error}");
        let error = store.begin_backup(&root(), &snapshot("vm/1", 0), &auth(), false).await.unwrap_err();
        assert!(error.to_string().contains("not at its place"), "{error}");
        assert!(store.groups(&root()).await.is_err());
        assert!(!from.join("vm").exists());
        if from == base {
            std::fs::remove_dir_all(&from).unwrap();
        }
        std::process::Command::new("mv").arg(&moved).arg(&from).status().unwrap();
    }
    let report = store.check_chunks(vec![chunk(9).0], Class::Interactive, Freshness::Cached).await.unwrap();
    assert_eq!(report.missing.len(), 1);
}

#[tokio::test]
async fn a_backup_does_not_finish_on_a_store_whose_chunks_were_moved_away() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    let lease = store.begin_backup(&root(), &snapshot("vm/1", 0), &auth(), false).await.unwrap();
    let (chunks, away) = (base.join(".chunks"), base.join(".chunks.away"));
    std::process::Command::new("mv").arg(&chunks).arg(&away).status().unwrap();
    std::fs::create_dir(&chunks).unwrap();
    let manifest = Manifest::new(lease.snapshot()).to_blob();
    let error = lease.finish(manifest.clone(), stay(&store).await).await.unwrap_err();
    assert!(error.to_string().contains("not at its place"), "{error}");
    let path = base.join("vm/1").join(lease.snapshot().dir_name()).join(MANIFEST_BLOB);
    assert!(!path.exists(), "no manifest before its chunks are where readers look");
    std::fs::remove_dir(&chunks).unwrap();
    std::process::Command::new("mv").arg(&away).arg(&chunks).status().unwrap();
    lease.finish(manifest, stay(&store).await).await.unwrap();
    assert!(path.exists());
}

#[tokio::test]
async fn a_snapshot_with_a_directory_for_a_manifest_can_be_removed() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    let lease = store.begin_backup(&root(), &snapshot("vm/1", 0), &auth(), false).await.unwrap();
    lease.finish(Manifest::new(lease.snapshot()).to_blob(), stay(&store).await).await.unwrap();
    let path = base.join("vm/1").join(lease.snapshot().dir_name());
    std::fs::remove_file(path.join(MANIFEST_BLOB)).unwrap();
    std::fs::create_dir(path.join(MANIFEST_BLOB)).unwrap();
    store.remove_snapshot(&root(), &snapshot("vm/1", 0)).await.unwrap();
    assert!(!path.exists());
}

#[tokio::test]
async fn concurrent_inserts_of_one_digest_write_it_once() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&make_base(dir.path())).await;
    let inserts: Vec<_> = (0..32)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move { insert(&store, n % 2).await.unwrap() })
        })
        .collect();
    let mut new = 0;
    for inserted in inserts {
        new += usize::from(matches!(inserted.await.unwrap(), super::Inserted::New { .. }));
    }
    assert_eq!(new, 2);
}

#[tokio::test]
async fn corrupt_chunks_heal_when_they_are_shorter() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    let (digest, small, size) = chunk(7);
    let large: bytes::Bytes = encode(&vec![7; 4 << 20], Compression::None).into();
    let path = super::layout::Layout::new(&base).chunk(&digest);
    let put = |bytes: &[u8]| {
        let _ = std::fs::remove_file(&path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::io::Write::write_all(&mut std::fs::File::create_new(&path).unwrap(), bytes).unwrap();
    };
    let mut flipped = small.to_vec();
    flipped[20] ^= 1;
    for (on_disk, upload, new) in [
        (&small[..], &large, false),
        (&flipped[..], &large, true),
        (&flipped[..], &small, false),
        (&small[..small.len() - 1], &small, true),
        (&small[..100], &large, true),
        (&large[..], &small, true),
        (b"nonsense that is no blob", &large, true),
    ] {
        put(on_disk);
        let inserted = store.insert_chunk(digest, upload.clone(), size).await.unwrap();
        assert_eq!(matches!(inserted, super::Inserted::New { .. }), new, "{} <- {}", on_disk.len(), upload.len());
        let expected = if new { &upload[..] } else { on_disk };
        assert_eq!(store.read_chunk(digest).await.unwrap()[..], *expected);
    }
    assert_eq!(names(path.parent().unwrap()).len(), 1, "no temporary file is left");
}
