//! What an operator does on the first day: start the daemon on an empty folder, back up a disk image three times, restore it.

use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::daemon::{FirstStart, temp_dir};

const MIB: u64 = 1 << 20;

#[test]
fn image_of_256_mib() {
    back_up_three_times(256 * MIB);
}

/// `cargo test --release -- --ignored image_of_4_gib`; needs about 13 GiB of temporary space.
#[test]
#[ignore = "long: 4 GiB, backed up three times and restored"]
fn image_of_4_gib() {
    back_up_three_times(4096 * MIB);
}

fn back_up_three_times(size: u64) {
    let folder = if size > 512 * MIB { tempfile::tempdir().expect("a folder") } else { temp_dir() };
    let image = folder.path().join("disk.img");
    if !make_image(folder.path(), &image, size) {
        return;
    }
    let conf = folder.path().join("machine.conf");
    std::fs::write(&conf, "cores: 2\nmemory: 2048\n").unwrap();
    let log = folder.path().join("run.log");
    std::fs::write(&log, "all is well\n").unwrap();
    // Numbers by the million: long enough for several chunks, cut by content.
    let stream = folder.path().join("numbers");
    std::fs::write(
        &stream,
        (0..3_000_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect::<Vec<u8>>(),
    )
    .unwrap();

    let daemon = FirstStart::new(&folder.path().join("ringvault-data"));
    let environment = folder.path().join("ringvault-data/connection.env");
    let mode = std::fs::metadata(&environment).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "connection.env");
    let text = std::fs::read_to_string(&environment).unwrap();
    let names: Vec<&str> = text.lines().map(|l| l.split('=').next().unwrap()).collect();
    assert_eq!(names, ["PBS_REPOSITORY", "PBS_PASSWORD", "PBS_FINGERPRINT"]);
    assert!(text.starts_with("PBS_REPOSITORY='admin@pbs!default@127.0.0.1:"), "{text}");
    assert!(text.lines().next().unwrap().ends_with(":main'"), "{text}");

    let archives = [
        format!("disk.img:{}", image.display()),
        format!("machine.conf:{}", conf.display()),
        format!("run.log:{}", log.display()),
        format!("numbers.stream:{}", stream.display()),
    ];
    let backup = |time: &str| -> Value {
        let out = daemon
            .client()
            .args(["backup", "--output", "json", "--backup-id", "first", "--backup-time", time])
            .args(&archives)
            .output()
            .expect("run the client");
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        serde_json::from_slice(&out.stdout).expect("JSON")
    };
    let uploaded = |report: &Value| report["archives"][0]["chunks_uploaded"].as_u64().expect("a number");

    let kept = folder.path().join("kept.img");
    let first = backup("2024-06-05T14:00:00Z");
    assert!(uploaded(&first) > 0);
    std::fs::copy(&image, &kept).unwrap();
    let again = backup("2024-06-05T15:00:00Z");
    assert_eq!(uploaded(&again), 0, "an unchanged image was sent again: {again}");

    // 10,000 bytes over a chunk's edge in the middle: two chunks change, and no more.
    let file = std::fs::OpenOptions::new().write(true).open(&image).unwrap();
    file.write_all_at(&[0x5a; 10_000], size / 2 - 5000).unwrap();
    let changed = backup("2024-06-05T16:00:00Z");
    assert_eq!(uploaded(&changed), 2, "{changed}");

    for (time, source) in [("14:00:00Z", &kept), ("15:00:00Z", &kept), ("16:00:00Z", &image)] {
        let snapshot = format!("host/first/2024-06-05T{time}");
        let files = [("disk.img", source), ("machine.conf", &conf), ("run.log", &log), ("numbers.stream", &stream)];
        for (archive, source) in files {
            let target = folder.path().join("restored");
            let out = daemon.client().args(["restore", "--force", &snapshot, archive]).arg(&target).output().unwrap();
            assert!(out.status.success(), "{snapshot}: {}", String::from_utf8_lossy(&out.stderr));
            assert!(same_bytes(source, &target), "{snapshot} {archive}: other bytes");
        }
    }
    let out = daemon.client().args(["snapshots", "--output", "json"]).output().unwrap();
    let listed: Value = serde_json::from_slice(&out.stdout).expect("JSON");
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    daemon.end();
}

fn same_bytes(a: &Path, b: &Path) -> bool {
    Command::new("cmp").arg("--silent").arg(a).arg(b).status().expect("run cmp").success()
}

/// An ext4 image with files of the machine's own /usr, about two thirds full; false if that cannot be made here.
fn make_image(folder: &Path, image: &Path, size: u64) -> bool {
    let tree = folder.join("tree");
    std::fs::create_dir(&tree).unwrap();
    let mut left = size * 2 / 3;
    let mut count = 0;
    copy_some(Path::new("/usr"), &tree, &mut left, &mut count);
    let made = Command::new("mkfs.ext4")
        .args(["-q", "-F", "-d"])
        .arg(&tree)
        .arg(image)
        .arg(format!("{}M", size / MIB))
        .stdin(Stdio::null())
        .output();
    std::fs::remove_dir_all(&tree).unwrap();
    match made {
        Ok(out) if out.status.success() => true,
        Ok(out) => panic!("mkfs.ext4: {}", String::from_utf8_lossy(&out.stderr)),
        Err(e) => {
            println!("skipped: mkfs.ext4: {e}");
            false
        }
    }
}

/// Copies files below `from` until `left` bytes are used up; not the smallest, which take the time and
/// fill no image.
fn copy_some(from: &Path, into: &Path, left: &mut u64, count: &mut u64) {
    let Ok(entries) = std::fs::read_dir(from) else { return };
    let mut paths: Vec<PathBuf> = entries.filter_map(|e| Some(e.ok()?.path())).collect();
    paths.sort();
    for path in paths {
        let Ok(meta) = std::fs::symlink_metadata(&path) else { continue };
        if meta.is_dir() {
            copy_some(&path, into, left, count);
        } else if meta.is_file() && (16 * 1024..*left).contains(&(meta.len() + 4096)) && copy_one(&path, into, *count) {
            *left -= meta.len() + 4096;
            *count += 1;
        }
        if *left < 64 * 1024 || *count > 50_000 {
            return;
        }
    }
}

/// Into directories of 500 files each: `mkfs.ext4 -d` takes long over large ones.
fn copy_one(from: &Path, into: &Path, count: u64) -> bool {
    let dir = into.join((count / 500).to_string());
    std::fs::create_dir_all(&dir).unwrap();
    std::fs::copy(from, dir.join(count.to_string())).is_ok()
}
