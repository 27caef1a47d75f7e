//! Stories about the whole daemon, one module each, over the tools in `support`.
#![expect(clippy::disallowed_methods, reason = "a test makes and breaks files behind the daemon's back")]

mod support;

#[test]
fn slow_file_system_passes_through_and_counts() {
    use support::slowfs::{Behaviour, Op, SlowFs};
    let temp = tempfile::tempdir().unwrap();
    let (backing, mount) = (temp.path().join("backing"), temp.path().join("mount"));
    std::fs::create_dir(&backing).unwrap();
    std::fs::create_dir(&mount).unwrap();
    let fs = match SlowFs::mount(&backing, &mount, Behaviour::default()) {
        Ok(fs) => fs,
        Err(e) => return eprintln!("skipped: no FUSE here: {e}"),
    };
    std::fs::create_dir(mount.join("d")).unwrap();
    std::fs::write(mount.join("d/a"), b"hello").unwrap();
    std::fs::rename(mount.join("d/a"), mount.join("d/b")).unwrap();
    assert_eq!(std::fs::read(mount.join("d/b")).unwrap(), b"hello");
    assert_eq!(std::fs::read(backing.join("d/b")).unwrap(), b"hello");
    assert_eq!(std::fs::read_dir(mount.join("d")).unwrap().count(), 1);
    fs.reset_counts();
    std::fs::metadata(mount.join("d/b")).unwrap();
    assert_eq!(fs.count("b", Op::Lookup), 1);
    fs.fail("b", Op::Lookup, libc::EIO);
    assert_eq!(std::fs::metadata(mount.join("d/b")).unwrap_err().raw_os_error(), Some(libc::EIO));
    fs.heal();
    fs.set(|b| b.delay = std::time::Duration::from_millis(20));
    let threads: Vec<_> = (0..8)
        .map(|i| {
            let path = mount.join(format!("d/none{i}"));
            std::thread::spawn(move || std::fs::metadata(path).unwrap_err())
        })
        .collect();
    for t in threads {
        assert_eq!(t.join().unwrap().raw_os_error(), Some(libc::ENOENT));
    }
    println!("{} waited at once", fs.waiting_max());
    std::fs::remove_file(mount.join("d/b")).unwrap();
    std::fs::remove_dir(mount.join("d")).unwrap();
}

#[test]
fn loop_file_system_fills_up() {
    let temp = tempfile::tempdir().unwrap();
    let fs = match support::loopfs::LoopFs::mount(temp.path(), 8 << 20) {
        Ok(fs) => fs,
        Err(e) => return eprintln!("skipped: no loop device here: {e}"),
    };
    let full = std::fs::write(fs.path().join("a"), vec![1; 10 << 20]).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    fs.set_read_only(true).unwrap();
    assert_eq!(std::fs::write(fs.path().join("b"), b"").unwrap_err().raw_os_error(), Some(libc::EROFS));
}
