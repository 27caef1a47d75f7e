//! Things that do not belong into a datastore, and datastores that go away: the run says what is wrong or passes it over, and nothing is lost.

use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;

/// From the first operation of this kind on a path of this kind on, everything of that kind fails.
#[derive(Debug)]
struct From {
    op: &'static str,
    part: &'static str,
    errno: i32,
    only: &'static [&'static str],
    has_begun: AtomicBool,
    is_armed: AtomicBool,
}

impl Fault for From {
    fn before(&self, op: &'static str, path: Option<&Path>) -> std::io::Result<()> {
        let is_it = op == self.op && path.is_some_and(|path| path.display().to_string().contains(self.part));
        if self.is_armed.load(Ordering::SeqCst) && is_it {
            self.has_begun.store(true, Ordering::SeqCst);
        }
        let fails = self.has_begun.load(Ordering::SeqCst) && (self.only.is_empty() || self.only.contains(&op));
        if fails { Err(std::io::Error::from_raw_os_error(self.errno)) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_datastore_that_goes_bad_under_the_run_ends_it_with_a_clear_message() {
    const WRITES: &[&str] = &["unlink", "create", "pwrite", "rename", "utimensat"];
    for (op, part, errno, only, words) in [
        ("readdir", ".chunks/0001", libc::EROFS, WRITES, "mount it read-write"),
        ("unlink", ".chunks/0002", libc::EROFS, WRITES, "mount it read-write"),
        ("readdir", "host/a", libc::ESTALE, &[], "mount it again"),
        ("readdir", ".chunks/0001", libc::ENOTCONN, &[], "mount it again"),
        ("unlink", ".chunks/0001", libc::ESTALE, &[], "mount it again"),
        ("open", "disk.img.fidx", libc::EACCES, &[], "put it right"),
        ("readdir", ".chunks/0002", libc::EACCES, &[], "chown -R"),
        ("unlink", ".chunks/0002", libc::EACCES, &["unlink"], "chown -R"),
        ("readdir", ".chunks/0002", libc::EMFILE, &[], "LimitNOFILE"),
    ] {
        let (has_begun, is_armed) = (AtomicBool::new(false), AtomicBool::new(false));
        let fault = Arc::new(From { op, part, errno, only, has_begun, is_armed });
        let machine = Machine::faulty(fault.clone());
        let scene = Scene::new(&machine).await;
        scene.back_up(&snapshot(0), &[1, 2, 3]).await;
        for n in [8, 9, 10, 11] {
            scene.insert(n).await;
        }
        scene.pass_time(30 * DAY);
        fault.is_armed.store(true, Ordering::SeqCst);
        let (result, log) = scene.try_collect().await;
        let text = result.map(|_| ()).unwrap_err().to_string();
        assert!(text.contains(words) || text.contains("went away"), "{op} {part} {errno}: {text}");
        assert!(log.last().unwrap().starts_with("TASK ERROR: ") && scene.chunks().is_superset(&[1, 2, 3].into()));
        assert!(!scene.base.join(".gc-status").exists());
        // The disk is well again.
        fault.is_armed.store(false, Ordering::SeqCst);
        fault.has_begun.store(false, Ordering::SeqCst);
        assert_eq!(scene.collect().await.status.disk_chunks, 3);
        assert_eq!(scene.chunks(), [1, 2, 3].into(), "{op} {part} {errno}");
    }
}

#[tokio::test]
async fn an_index_that_names_one_chunk_a_million_times_costs_no_more_than_the_chunk() {
    const TIMES: u64 = 1 << 20;
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    scene.insert(1).await;
    scene.insert(9).await;
    let lease = scene.begin(&snapshot(0)).await;
    let writer = lease.create_fixed(&name("disk.img.fidx"), TIMES << 22).await.unwrap();
    for block in 0..16 {
        let slots = (block * (TIMES / 16)..(block + 1) * (TIMES / 16)).map(|slot| (slot, digest(1))).collect();
        writer.write_slots(slots).await.unwrap();
    }
    let all = vec![digest(1); usize::try_from(TIMES).unwrap()];
    writer.close(fixed_csum(&all)).await.unwrap();
    lease.finish(manifest(lease.snapshot(), fixed_csum(&all), TIMES << 22), stay(&scene.store).await).await.unwrap();
    scene.pass_time(30 * DAY);
    let GcReport { status, marked, .. } = scene.collect().await;
    assert_eq!((marked.chunks, status.index_data_bytes, scene.chunks()), (1, TIMES << 22, [1].into()));
    // Missing, it is a million warnings in a few lines.
    std::fs::remove_file(scene.path(&digest(1))).unwrap();
    let (result, log) = scene.try_collect().await;
    result.unwrap();
    assert_eq!(log.last().unwrap(), "TASK WARNINGS: 1001");
    assert!(log.iter().any(|line| line.contains(&format!("named {} times more", TIMES - 1000))) && log.len() < 1100);
}

#[tokio::test]
async fn strange_names_and_absent_directories_are_passed_over() {
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    scene.back_up(&snapshot(0), &[1, 2]).await;
    scene.insert(9).await;
    let chunks = scene.base.join(".chunks");
    let long = "x".repeat(255);
    let names: [&[u8]; 8] =
        [b"\xff\xfe", b"lost+found", b"a\nb", b"0001 ", b"000G", b"00011", long.as_bytes(), b".nfs000000000001"];
    let mut strangers = Vec::new();
    for (dir, name) in [&chunks, &chunks.join("0001")].into_iter().flat_map(|dir| names.map(|name| (dir, name))) {
        let path = dir.join(std::ffi::OsStr::from_bytes(name));
        if name.len() % 2 == 0 {
            std::fs::create_dir(&path).unwrap()
        } else {
            std::fs::write(&path, "x").unwrap()
        }
        set_accessed(&path, T0);
        strangers.push(path);
    }
    // A file and a dangling link in the place of chunk directories.
    std::fs::write(chunks.join("00aa"), "x").unwrap();
    std::os::unix::fs::symlink("/nowhere", chunks.join("00bb")).unwrap();
    // A group without snapshots, a type that is a file, a namespace directory that is a link into the tree.
    std::fs::create_dir_all(scene.base.join("vm/empty")).unwrap();
    std::fs::write(scene.base.join("ct"), "x").unwrap();
    std::os::unix::fs::symlink(".", scene.base.join("ns")).unwrap();
    scene.pass_time(30 * DAY);
    let (result, log) = scene.try_collect().await;
    assert_eq!((result.unwrap().status.disk_chunks, log.last().unwrap().as_str()), (2, "TASK OK"), "{log:?}");
    assert_eq!(scene.chunks(), [1, 2].into());
    assert!(strangers.iter().all(|path| path.symlink_metadata().is_ok()));
    // No chunk directory at all.
    std::fs::remove_dir_all(&chunks).unwrap();
    let text = scene.try_collect().await.0.unwrap_err().to_string();
    assert!(text.contains("not at its place") || text.contains(".chunks"), "{text}");
}
