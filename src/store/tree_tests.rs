//! Namespaces, removal, creation, and the locks of other processes.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::test_support::*;
use super::{Datastore, OnProtected, SyncLevel};
use crate::clock::Clock;
use crate::error::Kind;
use crate::types::Namespace;

/// A foreign process that holds a flock on `path` until it is dropped.
struct Foreign {
    child: Child,
}

impl Foreign {
    fn flock(path: &Path, kind: &str) -> Self {
        let script = "import fcntl,os,sys\n\
                      fd=os.open(sys.argv[1],os.O_RDONLY)\n\
                      fcntl.flock(fd,getattr(fcntl,sys.argv[2])|fcntl.LOCK_NB)\n\
                      print('held',flush=True)\n\
                      sys.stdin.read()\n";
        let mut child = Command::new("python3")
            .args(["-c", script])
            .arg(path)
            .arg(kind)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut said = [0; 5];
        child.stdout.as_mut().unwrap().read_exact(&mut said).unwrap();
        Self { child }
    }

    fn release(mut self) {
        drop(self.child.stdin.take());
        self.child.wait().unwrap();
    }
}

/// Whether a foreign process can lock `path`.
fn foreign_can_lock(path: &Path, kind: &str) -> bool {
    let script = "import fcntl,os,sys\nfd=os.open(sys.argv[1],os.O_RDONLY)\n\
                  try: fcntl.flock(fd,getattr(fcntl,sys.argv[2])|fcntl.LOCK_NB)\n\
                  except OSError: sys.exit(1)\n";
    Command::new("python3").args(["-c", script]).arg(path).arg(kind).status().unwrap().success()
}

#[tokio::test]
async fn a_foreign_server_and_we_exclude_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    back_up(&store, &snapshot("vm/1", 0), &[1]).await.unwrap();
    let group = base.join("vm/1");
    let first = group.join("2024-06-05T14:23:38Z");

    let foreign = Foreign::flock(&group, "LOCK_EX");
    let error = store.begin_backup(&root(), &snapshot("vm/1", 1), &auth(), false).await.unwrap_err();
    assert!(error.to_string().contains("another backup is already running"), "{error}");
    foreign.release();
    // A foreign reader, or a backup that builds on it.
    let foreign = Foreign::flock(&first, "LOCK_SH");
    let error = store.remove_snapshot(&root(), &snapshot("vm/1", 0)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error}");
    store.begin_reader(&root(), &snapshot("vm/1", 0)).await.unwrap().release().await;
    let lease = store.begin_backup(&root(), &snapshot("vm/1", 1), &auth(), false).await.unwrap();
    foreign.release();

    assert!(!foreign_can_lock(&group, "LOCK_SH"), "our backup holds the group");
    assert!(!foreign_can_lock(&first, "LOCK_EX"), "and its base, shared");
    assert!(foreign_can_lock(&first, "LOCK_SH"));
    assert!(!foreign_can_lock(&group.join("2024-06-05T15:23:38Z"), "LOCK_SH"), "and its own snapshot");
    lease.abandon().await.unwrap();
    assert!(foreign_can_lock(&group, "LOCK_EX") && foreign_can_lock(&first, "LOCK_EX"));

    let foreign = Foreign::flock(&first, "LOCK_EX");
    let error = store.begin_backup(&root(), &snapshot("vm/1", 1), &auth(), false).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "the base is being removed: {error}");
    foreign.release();
    assert_eq!(walk(&group).len(), 5, "nothing of the refused backups is left: {:?}", walk(&group));
}

#[tokio::test]
async fn manifest_changes_queue_up_and_wait_for_other_processes() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    let first = snapshot("vm/1", 0);
    back_up(&store, &first, &[1]).await.unwrap();
    let before = store.load_manifest(&root(), &first).await.unwrap().manifest;
    let updates: Vec<_> = (0..20)
        .map(|n| {
            let (store, first) = (store.clone(), first.clone());
            tokio::spawn(async move {
                let edit = move |m: &mut crate::format::manifest::Manifest| m.set_notes(&format!("{}{n};", m.notes()));
                store.update_manifest(&root(), &first, edit).await.unwrap();
            })
        })
        .collect();
    for update in updates {
        update.await.unwrap();
    }
    let after = store.load_manifest(&root(), &first).await.unwrap().manifest;
    assert_eq!(after.notes().matches(';').count(), 20, "no change was lost: {}", after.notes());
    assert_eq!(after.files(), before.files());

    let path = base.join("vm/1/2024-06-05T14:23:38Z/index.json.blob");
    let foreign = Foreign::flock(&path, "LOCK_EX");
    let waiting = tokio::spawn({
        let (store, first) = (store.clone(), first.clone());
        async move { store.update_manifest(&root(), &first, |m| m.set_notes("late")).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    foreign.release();
    waiting.await.unwrap().unwrap();
    let foreign = Foreign::flock(&path, "LOCK_EX");
    let started = Instant::now();
    let error = store.update_manifest(&root(), &first, |m| m.set_notes("never")).await.unwrap_err();
    assert!(error.kind() == Kind::Busy && started.elapsed() >= Duration::from_secs(5), "{error}");
    foreign.release();
    assert_eq!(store.load_manifest(&root(), &first).await.unwrap().manifest.notes(), "late");
    let error = store.update_manifest(&root(), &snapshot("vm/1", 9), |_| {}).await.unwrap_err();
    assert!(error.to_string().starts_with("unable to load blob '\""), "{error}");
}

#[tokio::test]
async fn with_a_lock_directory_the_scheme_is_the_originals() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let locks = dir.path().join("locks");
    let config = super::DatastoreConfig { lock_dir: Some(locks.clone()), ..config(&base, SyncLevel::None) };
    let store = Datastore::open(config, engine(), Clock::system()).await.unwrap();
    let ns = store.create_namespace(&root(), "prod").await.unwrap();
    let snapshot = snapshot("vm/1", 0);
    let lease = store.begin_backup(&ns, &snapshot, &auth(), false).await.unwrap();
    write_backup(&store, &lease, &[1]).await.unwrap();
    store.update_manifest(&ns, &snapshot, |m| m.set_notes("x")).await.unwrap();
    let file = locks.join("store1/ns/prod/vm/1/2024-06-05T14:23:38Z/2024-06-05T14:23:38Z.index.json.lck");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777 & !0o022, 0o640);
    let foreign = Foreign::flock(&file, "LOCK_EX");
    let update = store.update_manifest(&ns, &snapshot, |m| m.set_notes("y"));
    assert!(tokio::time::timeout(Duration::from_millis(200), update).await.is_err(), "a server of that kind holds it");
    foreign.release();
    store.remove_snapshot(&ns, &snapshot).await.unwrap();
    assert!(!file.exists());
}

#[tokio::test]
async fn the_last_snapshot_takes_its_group_along_unless_it_is_locked() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    for hours in 0..2 {
        back_up(&store, &snapshot("host/x", hours), &[1]).await.unwrap();
    }
    let group = base.join("host/x");
    std::fs::File::create_new(group.join("notes")).unwrap().write_all(b"first\nsecond").unwrap();
    assert_eq!(store.groups(&root()).await.unwrap()[0].comment.as_deref(), Some("first"));
    store.remove_snapshot(&root(), &snapshot("host/x", 0)).await.unwrap();
    assert!(group.exists());
    let error = store.remove_snapshot(&root(), &snapshot("host/x", 0)).await.unwrap_err();
    let path = group.join("2024-06-05T14:23:38Z");
    assert_eq!(
        error.to_string(),
        format!("unable to open snapshot directory {path:?} for locking - ENOENT: No such file or directory")
    );
    let foreign = Foreign::flock(&group, "LOCK_EX");
    store.remove_snapshot(&root(), &snapshot("host/x", 1)).await.unwrap();
    foreign.release();
    assert_eq!(walk(&group).len(), 2, "owner and notes stay for whoever holds the group");
    back_up(&store, &snapshot("host/x", 2), &[1]).await.unwrap();
    store.remove_snapshot(&root(), &snapshot("host/x", 2)).await.unwrap();
    assert!(!group.exists());
}

#[tokio::test]
async fn what_a_crash_leaves_of_a_group_is_taken_over() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    for (id, owner) in [("bare", None), ("empty", Some(""))] {
        let group = base.join("host").join(id);
        std::fs::create_dir_all(&group).unwrap();
        if owner.is_some() {
            std::fs::File::create_new(group.join("owner")).unwrap();
        }
        back_up(&store, &snapshot(&format!("host/{id}"), 0), &[1]).await.unwrap();
        assert_eq!(std::fs::read(group.join("owner")).unwrap(), b"tester@pbs!bench\n");
        std::fs::remove_file(group.join("owner")).unwrap();
        let error = store.begin_backup(&root(), &snapshot(&format!("host/{id}"), 1), &auth(), false).await.unwrap_err();
        let path = group.join("owner");
        assert_eq!(error.to_string(), format!("unable to read {path:?} - No such file or directory (os error 2)"));
    }
    assert!(store.groups(&root()).await.unwrap().is_empty(), "groups without an owner are not listed");
}

#[tokio::test]
async fn namespaces_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let base = make_base(dir.path());
    let store = open(&base).await;
    let alpha = store.create_namespace(&root(), "alpha").await.unwrap();
    let beta = store.create_namespace(&alpha, "beta").await.unwrap();
    assert_eq!(store.create_namespace(&alpha, "beta").await.unwrap(), beta);
    let error = store.create_namespace(&"nope".parse().unwrap(), "x").await.unwrap_err();
    assert_eq!(error.to_string(), "cannot create new namespace, parent nope doesn't already exists");
    assert!(store.namespace_exists(&beta).await.unwrap());
    for (depth, count) in [(None, 3), (Some(0), 1), (Some(1), 2), (Some(7), 3)] {
        assert_eq!(store.namespaces(&root(), depth).await.unwrap().len(), count, "{depth:?}");
    }
    let kept = snapshot("vm/1", 0);
    for hours in 0..2 {
        let lease = store.begin_backup(&beta, &snapshot("vm/1", hours), &auth(), false).await.unwrap();
        write_backup(&store, &lease, &[1]).await.unwrap();
    }
    let marker = base.join("ns/alpha/ns/beta/vm/1/2024-06-05T14:23:38Z/.protected");
    std::fs::File::create_new(&marker).unwrap();
    let error = store.delete_namespace(&alpha, false, OnProtected::Fail).await.unwrap_err();
    assert!(error.to_string().starts_with("only partially deleted due to existing groups but"), "{error}");
    assert!(
        store.delete_namespace(&alpha, true, OnProtected::Fail).await.unwrap_err().to_string().contains("protected")
    );
    let left = store.groups(&beta).await.unwrap();
    assert_eq!(left[0].snapshots.iter().map(|s| s.snapshot.clone()).collect::<Vec<_>>(), [kept]);
    std::fs::remove_file(&marker).unwrap();
    let report = store.delete_namespace(&alpha, true, OnProtected::Fail).await.unwrap();
    assert_eq!((report.removed_groups, report.removed_snapshots, report.protected_snapshots), (1, 1, 0));
    assert!(!base.join("ns/alpha").exists());
    store.delete_namespace(&alpha, false, OnProtected::Fail).await.unwrap();
    assert!(store.delete_namespace(&Namespace::root(), true, OnProtected::Fail).await.is_err());
    let error = store.groups(&beta).await.unwrap_err();
    assert_eq!(error.to_string(), "ENOENT: No such file or directory");
}

#[tokio::test]
async fn a_new_datastore_has_exactly_the_modes_that_adoption_asks_for() {
    // In memory if there is such a place: to make and remove so many directories takes minutes on a busy disk.
    let memory = Path::new("/dev/shm");
    let dir = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap();
    let base = dir.path().join("new");
    let engine = engine();
    Datastore::create(&base, None, &engine).await.unwrap();
    Datastore::verify_layout(&base, None, &engine).await.unwrap();
    let mode = |p: &Path| p.metadata().unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(&base), 0o755);
    assert_eq!(mode(&base.join(".lock")), 0o644);
    assert_eq!(mode(&base.join(".chunks/ffff")), 0o750);
    assert_eq!(std::fs::read_dir(base.join(".chunks")).unwrap().count(), 65_536);
    let error = Datastore::create(&base, None, &engine).await.unwrap_err();
    assert!(error.to_string().contains("there is one already"), "{error}");
    let wrong = base.join(".chunks/00ff");
    std::fs::set_permissions(&wrong, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = Datastore::verify_layout(&base, None, &engine).await.unwrap_err();
    assert_eq!(error.to_string(), format!("{wrong:?} has mode 0755; put it right with: chmod 0750 {wrong:?}"));
    std::fs::remove_dir(&wrong).unwrap();
    let error = Datastore::verify_layout(&base, None, &engine).await.unwrap_err();
    assert!(error.to_string().contains("mkdir -m 0750"), "{error}");
    open(&base).await;
}

#[tokio::test]
async fn a_creation_that_fails_leaves_nothing() {
    for at in [0, 1, 2, 5, 7, 500] {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("new");
        let fault = Countdown::new(at, libc::ENOSPC, false);
        fault.arm();
        let error = Datastore::create(&base, None, &faulty_engine(fault)).await.unwrap_err();
        assert!(error.to_string().contains("free space"), "{error}");
        assert!(!base.exists(), "operation {at}");
    }
}

#[tokio::test]
async fn what_is_not_a_datastore_is_not_opened() {
    let dir = tempfile::tempdir().unwrap();
    let mut path = dir.path().to_owned();
    let error = open_on(&path.join("nope"), engine(), SyncLevel::File).await.unwrap_err();
    assert!(error.to_string().contains("does not exist: this is not a datastore"), "{error}");
    let base = make_base(&path);
    path.push("plain");
    std::fs::create_dir(&path).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let error = open_on(&path, engine(), SyncLevel::File).await.unwrap_err();
    assert!(error.to_string().contains(".chunks") && error.to_string().starts_with("datastore 'store1' - "), "{error}");
    std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o777)).unwrap();
    let error = open_on(&base, engine(), SyncLevel::File).await.unwrap_err();
    assert!(error.to_string().contains("chmod 0755"), "{error}");
}
