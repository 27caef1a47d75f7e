//! Notes, protection, owners, and the removal of groups: what is there afterwards, also after every step has failed once.
#![expect(clippy::disallowed_methods, reason = "a test makes files behind the store's back")]

use std::path::Path;

use super::test_support::*;
use super::{Datastore, OnProtected, RemovalReport, SnapshotState, SyncLevel};
use crate::error::{Error, Kind};
use crate::types::{AuthId, Group, Namespace};

fn group(text: &str) -> Group {
    text.parse().unwrap()
}

async fn store_with(base: &Path, name: &str, hours: std::ops::Range<i64>) -> Datastore {
    let store = open(base).await;
    for hour in hours {
        back_up(&store, &snapshot(name, hour), &[1]).await.unwrap();
    }
    store
}

#[tokio::test]
async fn notes_of_snapshots_and_groups() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = store_with(&base, "vm/1", 0..1).await;
    let (first, vm) = (snapshot("vm/1", 0), group("vm/1"));
    let text = "first line\nsecond: äöü & \"quoted\" 100%\n\ttab";
    let files = store.load_manifest(&root(), &first).await.unwrap().manifest.files().to_vec();
    assert_eq!(store.notes(&root(), &first).await.unwrap(), "");
    store.set_notes(&root(), &first, text.into()).await.unwrap();
    assert_eq!(store.notes(&root(), &first).await.unwrap(), text);
    assert_eq!(store.load_manifest(&root(), &first).await.unwrap().manifest.files(), files);
    store.set_notes(&root(), &first, String::new()).await.unwrap();
    assert_eq!(store.notes(&root(), &first).await.unwrap(), "");

    let file = base.join("vm/1/notes");
    assert_eq!(store.group_notes(&root(), &vm).await.unwrap(), "");
    store.set_group_notes(&root(), &vm, text.into()).await.unwrap();
    assert_eq!(store.group_notes(&root(), &vm).await.unwrap(), text);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), text, "no newline is added");
    assert_eq!(store.groups(&root()).await.unwrap()[0].comment.as_deref(), Some("first line"));
    for _ in 0..2 {
        store.set_group_notes(&root(), &vm, String::new()).await.unwrap();
        assert!(!file.exists(), "no notes, no file");
        assert_eq!(store.group_notes(&root(), &vm).await.unwrap(), "");
    }
    // As the original may leave it.
    std::fs::write(&file, "").unwrap();
    assert_eq!(store.group_notes(&root(), &vm).await.unwrap(), "");
    assert_eq!(store.groups(&root()).await.unwrap()[0].comment, None);

    let (missing, nobody) = (snapshot("vm/2", 0), group("vm/2"));
    let error = store.notes(&root(), &missing).await.unwrap_err().to_string();
    let manifest = base.join("vm/2/2024-06-05T14:23:38Z/index.json.blob");
    assert_eq!(error, format!("unable to load blob '{manifest:?}' - No such file or directory (os error 2)"));
    assert!(store.set_notes(&root(), &missing, "x".into()).await.is_err());
    assert_eq!(store.group_notes(&root(), &nobody).await.unwrap(), "");
    let error = store.set_group_notes(&root(), &nobody, "x".into()).await.unwrap_err();
    assert_eq!(error.to_string(), "ENOENT: No such file or directory");
    let error = store.set_group_notes(&root(), &vm, "x".repeat((1 << 20) + 1)).await.unwrap_err();
    assert_eq!(error.to_string(), "group notes may have at most 1048576 bytes");
    assert!(!base.join("vm/2").exists());
}

#[tokio::test]
async fn protection_keeps_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = store_with(&base, "vm/1", 0..2).await;
    let (first, second) = (snapshot("vm/1", 0), snapshot("vm/1", 1));
    assert!(!store.is_protected(&root(), &first).await.unwrap());
    for _ in 0..2 {
        store.set_protected(&root(), &first, true).await.unwrap();
        assert!(store.is_protected(&root(), &first).await.unwrap());
    }
    assert_eq!(std::fs::read(base.join("vm/1/2024-06-05T14:23:38Z/.protected")).unwrap(), b"");
    let states = store.snapshot_states(&root(), &group("vm/1")).await.unwrap();
    let state = |snapshot: &_, protected| SnapshotState { snapshot: Clone::clone(snapshot), finished: true, protected };
    assert_eq!(states, [state(&first, true), state(&second, false)]);
    let error = store.remove_snapshot(&root(), &first).await.unwrap_err();
    assert_eq!(error.to_string(), "cannot remove protected snapshot");
    for _ in 0..2 {
        store.set_protected(&root(), &first, false).await.unwrap();
        assert!(!store.is_protected(&root(), &first).await.unwrap());
    }
    // A reader holds it, and a backup that builds on it.
    let reader = store.begin_reader(&root(), &first).await.unwrap();
    assert_eq!(store.set_protected(&root(), &first, true).await.unwrap_err().kind(), Kind::Busy);
    reader.release().await;
    let lease = store.begin_backup(&root(), &snapshot("vm/1", 2), &auth(), false).await.unwrap();
    assert_eq!(store.set_protected(&root(), &second, true).await.unwrap_err().kind(), Kind::Busy);
    store.set_protected(&root(), &first, true).await.unwrap();
    lease.abandon().await.unwrap();

    let missing = snapshot("vm/1", 9);
    assert!(!store.is_protected(&root(), &missing).await.unwrap());
    for protected in [true, false] {
        let error = store.set_protected(&root(), &missing, protected).await.unwrap_err().to_string();
        assert!(error.ends_with("for locking - ENOENT: No such file or directory"), "{error}");
    }
}

#[tokio::test]
async fn owners_change_whatever_the_file_says() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = store_with(&base, "host/a", 0..1).await;
    let (host, path) = (group("host/a"), base.join("host/a/owner"));
    let new: AuthId = "tester@pbs".parse().unwrap();
    let heard = |want: &'static str| {
        move |now: crate::error::Result<AuthId>| {
            assert_eq!(now.map_or_else(|e| e.to_string(), |id| id.to_string()), want);
            Ok(())
        }
    };
    store.change_owner(&root(), &host, &new, heard("tester@pbs!bench")).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"tester@pbs\n");
    let refuse = |_| Err(Error::denied("no"));
    assert_eq!(store.change_owner(&root(), &host, &auth(), refuse).await.unwrap_err().kind(), Kind::Denied);
    assert_eq!(store.owner(&root(), &host).await.unwrap(), new);
    for broken in ["", "nonsense\n"] {
        std::fs::write(&path, broken).unwrap();
        let says = heard("parsing owner for host/a failed: not a valid user id");
        store.change_owner(&root(), &host, &new, says).await.unwrap();
        assert_eq!(store.owner(&root(), &host).await.unwrap(), new);
    }
    let missing = base.join("host/none/owner");
    let error = store.change_owner(&root(), &group("host/none"), &new, |_| Ok(())).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("unable to create owner file {missing:?} - No such file or directory (os error 2)")
    );
    let owned = store.owned_groups(&root()).await.unwrap();
    assert_eq!(owned.into_iter().map(|(group, owner)| (group, owner.unwrap())).collect::<Vec<_>>(), [(host, new)]);
}

#[tokio::test]
async fn a_group_goes_with_all_but_its_protected_snapshots() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = store_with(&base, "vm/1", 0..3).await;
    let vm = group("vm/1");
    store.set_protected(&root(), &snapshot("vm/1", 1), true).await.unwrap();
    store.set_group_notes(&root(), &vm, "stay".into()).await.unwrap();
    let error = store.remove_group(&root(), &vm, OnProtected::Fail).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "group vm/1 only partially deleted due to protected snapshots: 2 removed, 1 protected"
    );
    let left = store.groups(&root()).await.unwrap();
    assert_eq!((left.len(), left[0].comment.as_deref(), &left[0].owner), (1, Some("stay"), &auth()));
    let kept: Vec<_> = left[0].snapshots.iter().map(|s| (s.snapshot.clone(), s.finished, s.files.len())).collect();
    assert_eq!(kept, [(snapshot("vm/1", 1), true, 3)]);
    store.begin_reader(&root(), &snapshot("vm/1", 1)).await.unwrap().release().await;

    let report = |removed_groups, protected_snapshots, removed_snapshots| RemovalReport {
        removed_groups,
        protected_snapshots,
        removed_snapshots,
    };
    assert_eq!(store.remove_group(&root(), &vm, OnProtected::Count).await.unwrap(), report(0, 1, 0));
    store.set_protected(&root(), &snapshot("vm/1", 1), false).await.unwrap();
    // Strays are nobody's.
    std::fs::create_dir_all(base.join("vm/1/not-a-time/deep")).unwrap();
    std::fs::write(base.join("vm/1/stray"), "x").unwrap();
    let lease = store.begin_backup(&root(), &snapshot("vm/1", 3), &auth(), false).await.unwrap();
    let error = store.remove_group(&root(), &vm, OnProtected::Fail).await.unwrap_err();
    assert!(error.to_string().ends_with("possible running backup"), "{error}");
    lease.abandon().await.unwrap();
    assert_eq!(store.remove_group(&root(), &vm, OnProtected::Fail).await.unwrap(), report(1, 0, 1));
    assert!(!base.join("vm/1").exists());
    let error = store.remove_group(&root(), &vm, OnProtected::Fail).await.unwrap_err();
    assert!(error.to_string().ends_with("for locking - ENOENT: No such file or directory"), "{error}");
}

#[tokio::test]
async fn a_namespace_with_protected_snapshots_stays_and_may_be_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    let alpha = store.create_namespace(&root(), "alpha").await.unwrap();
    let beta = store.create_namespace(&alpha, "beta").await.unwrap();
    for (ns, hours) in [(&alpha, 0..2), (&beta, 0..1)] {
        for hour in hours {
            let lease = store.begin_backup(ns, &snapshot("vm/1", hour), &auth(), false).await.unwrap();
            write_backup(&store, &lease, &[1]).await.unwrap();
        }
    }
    store.set_protected(&alpha, &snapshot("vm/1", 0), true).await.unwrap();
    let report = store.delete_namespace(&alpha, true, OnProtected::Count).await.unwrap();
    assert_eq!(report, RemovalReport { removed_groups: 1, protected_snapshots: 1, removed_snapshots: 2 });
    assert!(!store.namespace_exists(&beta).await.unwrap());
    store.load_manifest(&alpha, &snapshot("vm/1", 0)).await.unwrap();
    let error = store.delete_namespace(&alpha, true, OnProtected::Fail).await.unwrap_err();
    assert_eq!(error.to_string(), "only partially deleted due to existing protected snapshots ");
    store.set_protected(&alpha, &snapshot("vm/1", 0), false).await.unwrap();
    std::fs::write(base.join("ns/alpha/stray"), "x").unwrap();
    let error = store.delete_namespace(&alpha, true, OnProtected::Count).await.unwrap_err().to_string();
    assert!(error.contains("files that belong to no group"), "{error}");
    std::fs::remove_file(base.join("ns/alpha/stray")).unwrap();
    let report = store.delete_namespace(&alpha, true, OnProtected::Fail).await.unwrap();
    assert_eq!(report, RemovalReport::default());
}

/// What one faulty run does.
#[derive(Clone, Copy, Debug)]
enum Act {
    Protect,
    Unprotect,
    Notes,
    GroupNotes,
    NoGroupNotes,
    Owner,
    RemoveGroup,
}

const ACTS: [Act; 7] =
    [Act::Protect, Act::Unprotect, Act::Notes, Act::GroupNotes, Act::NoGroupNotes, Act::Owner, Act::RemoveGroup];

async fn act(store: &Datastore, act: Act) -> crate::error::Result<()> {
    let (first, vm) = (snapshot("vm/1", 0), group("vm/1"));
    match act {
        Act::Protect => store.set_protected(&root(), &first, true).await,
        Act::Unprotect => store.set_protected(&root(), &first, false).await,
        Act::Notes => store.set_notes(&root(), &first, "new".into()).await,
        Act::GroupNotes => store.set_group_notes(&root(), &vm, "new".into()).await,
        Act::NoGroupNotes => store.set_group_notes(&root(), &vm, String::new()).await,
        Act::Owner => store.change_owner(&root(), &vm, &"tester@pbs".parse().unwrap(), |_| Ok(())).await,
        Act::RemoveGroup => store.remove_group(&root(), &vm, OnProtected::Fail).await.map(|_| ()),
    }
}

/// What a reopened store shows of the group: owner, notes, protection and notes of the first snapshot, and per snapshot whether it is finished.
type Shown = (Option<String>, String, bool, Option<String>, Vec<bool>);

async fn shown(store: &Datastore, context: &str) -> Shown {
    let (first, vm) = (snapshot("vm/1", 0), group("vm/1"));
    let owner = store.owner(&root(), &vm).await.map(|owner| owner.to_string()).ok();
    let states = store.snapshot_states(&root(), &vm).await.unwrap_or_default();
    for state in states.iter().filter(|state| state.finished) {
        // Whole or unfinished: nothing in between.
        let files = store.files(&root(), &state.snapshot).await.unwrap_or_else(|e| panic!("{context}: {e}"));
        assert_eq!(files.len(), 3, "{context}: {files:?}");
        let reader = store.begin_reader(&root(), &state.snapshot).await.unwrap();
        reader.open_index(&name("disk.img.fidx")).await.unwrap_or_else(|e| panic!("{context}: {e}"));
        // Dropped, it would give its lock back behind, and the act that is to come could find it held.
        reader.release().await;
    }
    let finished = states.iter().map(|state| state.finished).collect();
    let notes = store.notes(&root(), &first).await.ok();
    let group_notes = store.group_notes(&root(), &vm).await.unwrap();
    (owner, group_notes, store.is_protected(&root(), &first).await.unwrap(), notes, finished)
}

/// Two snapshots; the first is protected or not, as the act needs it.
async fn prepared(base: &Path, act: Act, fault: &std::sync::Arc<Countdown>) -> Datastore {
    let store = open_on(base, faulty_engine(fault.clone()), SyncLevel::File).await.unwrap();
    for hour in 0..2 {
        back_up(&store, &snapshot("vm/1", hour), &[1]).await.unwrap();
    }
    store.set_notes(&root(), &snapshot("vm/1", 0), "old".into()).await.unwrap();
    store.set_group_notes(&root(), &group("vm/1"), "old".into()).await.unwrap();
    store.set_protected(&root(), &snapshot("vm/1", 0), matches!(act, Act::Unprotect)).await.unwrap();
    store
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_happens_or_does_not() {
    for what in ACTS {
        for for_good in [false, true] {
            let (mut at, mut failed) = (0, 0);
            loop {
                let dir = tempfile::tempdir().unwrap();
                let base = make_base(dir.path());
                let fault = Countdown::new(at, libc::EIO, for_good);
                let store = prepared(&base, what, &fault).await;
                let before = shown(&store, "before").await;
                fault.arm();
                let done = act(&store, what).await.is_ok();
                let count = fault.count();
                drop(store);
                let context = format!("{what:?}, operation {at} of {count}, for good {for_good}, done {done}");
                let store = reopen(&base).await;
                check(&store, what, done, &before, &context).await;
                failed += u64::from(!done);
                if count <= at {
                    assert!(done, "{context}: nothing failed");
                    break;
                }
                at += 1;
            }
            assert!(failed >= 3, "{what:?}: {failed} failures of {at} operations");
        }
    }
}

async fn check(store: &Datastore, what: Act, done: bool, before: &Shown, context: &str) {
    let after = shown(store, context).await;
    if matches!(what, Act::RemoveGroup) {
        let (owner, notes, _, _, finished) = &after;
        // On the way snapshots go one by one; the owner goes last.
        assert!(owner.as_deref().is_none_or(|owner| owner == "tester@pbs!bench"), "{context}: {after:?}");
        assert!(["old", ""].contains(&notes.as_str()), "{context}: {after:?}");
        assert!(owner.is_some() || finished.is_empty(), "{context}: {after:?}");
        assert!(!done || (owner.is_none() && finished.is_empty()), "{context}: {after:?}");
        // Whatever is left, it can be removed, and the next backup works.
        if owner.is_some() {
            store.remove_group(&root(), &group("vm/1"), OnProtected::Fail).await.unwrap();
        }
    } else {
        let mut want = before.clone();
        match what {
            Act::Protect => want.2 = true,
            Act::Unprotect => want.2 = false,
            Act::Notes => want.3 = Some("new".to_owned()),
            Act::GroupNotes => want.1 = "new".to_owned(),
            Act::NoGroupNotes => want.1 = String::new(),
            Act::Owner => want.0 = Some("tester@pbs".to_owned()),
            Act::RemoveGroup => {}
        }
        // Reported as done it is done; reported as failed it may be either, for a sync may fail behind the change.
        assert!(after == want || (!done && after == *before), "{context}: {after:?}");
    }
    let next = snapshot("vm/1", 5);
    let owner = if after.0.as_deref() == Some("tester@pbs") { "tester@pbs".parse().unwrap() } else { auth() };
    let lease = store.begin_backup(&Namespace::root(), &next, &owner, false).await;
    let lease = lease.unwrap_or_else(|e| panic!("{context}: {e}"));
    write_backup(store, &lease, &[1]).await.unwrap_or_else(|e| panic!("{context}: {e}"));
}

/// A link in a group's, a type's or a namespace's place leads out of the datastore, or back into it: nothing is removed or written through it.
#[tokio::test]
async fn nothing_is_removed_or_written_through_a_symbolic_link() {
    let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let base = make_base(dir.path());
    let group_dir = outside.path().join("vm/9/2024-06-05T14:23:38Z");
    std::fs::create_dir_all(&group_dir).unwrap();
    for file in ["index.json.blob", "../owner", "../../../precious"] {
        std::fs::write(group_dir.join(file), "tester@pbs!bench\n").unwrap();
    }
    for (target, link) in [("vm/9", "host/lnk"), ("vm", "vm"), ("", "ns/out")] {
        let link = base.join(link);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(outside.path().join(target), link).unwrap();
    }
    std::os::unix::fs::symlink("..", base.join("ns/loop")).unwrap();
    let before = walk(outside.path());
    let store = open(&base).await;
    let (inside, out): (Namespace, Namespace) = ("loop".parse().unwrap(), "out".parse().unwrap());
    for (ns, name) in [(root(), "host/lnk"), (root(), "vm/9"), (out.clone(), "vm/9"), (inside.clone(), "host/lnk")] {
        let text = store.remove_group(&ns, &group(name), OnProtected::Fail).await.unwrap_err().to_string();
        assert!(text.contains("symbolic links within a datastore are not followed"), "{ns} {name}: {text}");
        assert!(store.remove_snapshot(&ns, &snapshot(name, 0)).await.is_err(), "{ns} {name}");
        // Nor is anything written.
        assert!(store.set_group_notes(&ns, &group(name), "x".into()).await.is_err(), "{ns} {name}");
        assert!(store.set_notes(&ns, &snapshot(name, 0), "x".into()).await.is_err(), "{ns} {name}");
        assert!(store.set_protected(&ns, &snapshot(name, 0), true).await.is_err(), "{ns} {name}");
        assert!(store.change_owner(&ns, &group(name), &auth(), |_| Ok(())).await.is_err(), "{ns} {name}");
        assert!(store.upload_client_log(&ns, &snapshot(name, 0), chunk(1).1.to_vec()).await.is_err(), "{ns} {name}");
    }
    for ns in [&inside, &out] {
        assert!(!store.namespace_exists(ns).await.unwrap(), "{ns}");
        assert_eq!(store.delete_namespace(ns, true, OnProtected::Fail).await.unwrap(), RemovalReport::default());
        assert!(store.begin_backup(ns, &snapshot("host/new", 1), &auth(), false).await.is_err(), "{ns}");
    }
    assert!(store.begin_backup(&root(), &snapshot("vm/9", 1), &auth(), false).await.is_err());
    assert_eq!(walk(outside.path()), before);
    assert_eq!(std::fs::read_to_string(outside.path().join("vm/9/owner")).unwrap(), "tester@pbs!bench\n");
    assert!(base.join("ns/loop").symlink_metadata().is_ok() && base.join("vm").symlink_metadata().is_ok());
}
