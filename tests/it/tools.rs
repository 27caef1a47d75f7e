//! The tools of the stories do what they say.

use std::time::Duration;

use crate::support::daemon::temp_dir;
use crate::support::loopfs::LoopFs;
use crate::support::slowfs::{Behaviour, Op, SlowFs};
use crate::support::trace::Trace;
use crate::support::{golden, upload};

#[test]
fn slow_file_system_passes_through_counts_and_fails() {
    let temp = temp_dir();
    let (backing, mount) = (temp.path().join("backing"), temp.path().join("mount"));
    std::fs::create_dir(&backing).unwrap();
    std::fs::create_dir(&mount).unwrap();
    let fs = match SlowFs::mount(&backing, &mount, Behaviour::default()) {
        Ok(fs) => fs,
        Err(e) => return println!("skipped: no FUSE here: {e}"),
    };
    assert_eq!((fs.path(), fs.backing()), (mount.as_path(), backing.as_path()));
    std::fs::create_dir(mount.join("d")).unwrap();
    std::fs::write(mount.join("d/a"), b"hello").unwrap();
    std::fs::rename(mount.join("d/a"), mount.join("d/b")).unwrap();
    assert_eq!(std::fs::read(mount.join("d/b")).unwrap(), b"hello");
    assert_eq!(std::fs::read(backing.join("d/b")).unwrap(), b"hello");
    assert_eq!(std::fs::read_dir(mount.join("d")).unwrap().count(), 1);
    fs.reset_counts();
    std::fs::metadata(mount.join("d/b")).unwrap();
    assert_eq!((fs.count("b", Op::Lookup), fs.total(Op::Lookup)), (1, 2));
    fs.fail("b", Op::Lookup, libc::EIO);
    assert_eq!(std::fs::metadata(mount.join("d/b")).unwrap_err().raw_os_error(), Some(libc::EIO));
    fs.heal();
    fs.set(|b| b.delay = Duration::from_millis(20));
    let ask = |i| {
        std::thread::spawn({
            let path = mount.join(format!("none{i}"));
            move || std::fs::metadata(path).unwrap_err().raw_os_error()
        })
    };
    let asked: Vec<_> = (0..8).map(ask).collect();
    for answer in asked {
        assert_eq!(answer.join().unwrap(), Some(libc::ENOENT));
    }
    assert!(fs.waiting_max() >= 2, "requests wait one after another");
    std::fs::remove_file(mount.join("d/b")).unwrap();
    std::fs::remove_dir(mount.join("d")).unwrap();
}

#[test]
fn loop_file_system_fills_up_and_turns_read_only() {
    let temp = tempfile::tempdir().unwrap();
    let fs = match LoopFs::mount(temp.path(), 8 << 20) {
        Ok(fs) => fs,
        Err(e) => return println!("skipped: no loop device here: {e}"),
    };
    let full = std::fs::write(fs.path().join("a"), vec![1; 10 << 20]).unwrap_err();
    assert_eq!(full.raw_os_error(), Some(libc::ENOSPC));
    fs.abort().unwrap();
    assert_eq!(std::fs::write(fs.path().join("b"), b"").unwrap_err().raw_os_error(), Some(libc::EROFS));
}

#[test]
fn every_recorded_trace_can_be_read() {
    if golden::is_absent() {
        return;
    }
    let mut count = 0;
    for entry in std::fs::read_dir(golden::dir().join("traces")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            let trace = Trace::load(path.file_stem().unwrap().to_str().unwrap());
            assert!(!trace.requests.is_empty(), "{}", trace.name);
            count += 1;
        }
    }
    assert!(count >= 28, "{count}");
}

#[test]
fn blobs_of_the_tests_are_those_of_the_specification() {
    let hello = upload::encode_plain_blob(b"hello");
    assert_eq!(hex::encode(&hello), "42ab3807be8370a186a6103668656c6c6f");
    assert_eq!(upload::decode_blob(&upload::encode_blob(&[7; 1000])), [7; 1000]);
    assert_eq!(upload::Chunk::made(1, 4096).size, 4096);
}
