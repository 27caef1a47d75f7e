//! The limited stores of the benchmarks do what their readers rely on: exact counts, a width that is kept, a whole datastore on a
//! slow store, a small disk that goes away without a trace.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::gc::collect;
use crate::support::daemon::{Daemon, STORE, Setup, make_store, temp_dir};
use crate::support::slowfs::{Behaviour, Mounting, Op, SlowFs};
use crate::support::upload::{self, Chunk, Place};

const ARCHIVE: &str = "a.pxar.didx";

/// A slow store in a folder of its own.
fn mount(folder: &Path, behaviour: Behaviour, mounting: Mounting) -> Option<SlowFs> {
    let (backing, mount) = (folder.join("backing"), folder.join("mount"));
    std::fs::create_dir_all(&backing).expect("a directory");
    std::fs::create_dir(&mount).expect("a mount point");
    match SlowFs::mount_as(&backing, &mount, behaviour, mounting) {
        Ok(fs) => Some(fs),
        Err(e) => {
            println!("skipped: no FUSE here: {e}");
            None
        }
    }
}

/// What is in order of the kernel's protocol: each path component a lookup, each listing and each file an open.
#[test]
fn a_known_pattern_costs_so_many_requests() {
    let folder = temp_dir();
    let Some(fs) = mount(folder.path(), Behaviour::default(), Mounting::default()) else { return };
    let dir = fs.path().join("dir");
    std::fs::create_dir(&dir).expect("a directory");
    std::fs::write(dir.join("old"), b"old").expect("a file");
    fs.reset_counts();

    for n in 0..10 {
        std::fs::metadata(dir.join("old")).expect("a file");
        std::fs::metadata(dir.join(format!("none{n}"))).expect_err("no file");
    }
    assert_eq!((fs.total(Op::Lookup), fs.count("dir", Op::Lookup), fs.count("old", Op::Lookup)), (40, 20, 10));
    assert_eq!(fs.total(Op::Open) + fs.total(Op::Create) + fs.total(Op::Read), 0);

    fs.reset_counts();
    let file = std::fs::File::create(dir.join("new")).expect("a file");
    std::os::unix::fs::FileExt::write_all_at(&file, b"new", 0).expect("written");
    file.sync_all().expect("synced");
    drop(file);
    std::fs::rename(dir.join("new"), dir.join("old")).expect("renamed");
    let of = |ops: &[Op]| ops.iter().map(|op| fs.total(*op)).collect::<Vec<_>>();
    assert_eq!(of(&[Op::Create, Op::Write, Op::Fsync, Op::Rename, Op::Unlink]), [1, 1, 1, 1, 0]);
    assert_eq!(fs.bytes(), (0, 3));
    assert_eq!(std::fs::read(dir.join("old")).expect("read"), b"new");
    assert_eq!(fs.total(Op::Open), 1);
    assert_eq!(fs.bytes().0, 3);
}

/// A thousand names come in few requests, with the numbers of the directory below; attributes come along where asked for.
#[test]
fn a_listing_costs_requests_by_its_size_not_by_its_entries() {
    for lists_attributes in [false, true] {
        let folder = temp_dir();
        let mounting = Mounting { lists_attributes, ..Mounting::default() };
        // Attributes that come along help only where they may be believed.
        let behaviour = Behaviour { ttl: Duration::from_secs(3600), ..Behaviour::default() };
        let Some(fs) = mount(folder.path(), behaviour, mounting) else { return };
        for n in 0..1000 {
            std::fs::write(fs.backing().join(format!("file{n}")), b"").expect("a file");
        }
        fs.reset_counts();
        let mut seen = 0;
        for entry in std::fs::read_dir(fs.path()).expect("a directory") {
            let entry = entry.expect("an entry");
            let below = std::fs::symlink_metadata(fs.backing().join(entry.file_name())).expect("below");
            assert_eq!(
                std::os::unix::fs::DirEntryExt::ino(&entry),
                std::os::unix::fs::MetadataExt::ino(&below),
                "{:?}",
                entry.file_name()
            );
            entry.metadata().expect("attributes");
            seen += 1;
        }
        assert_eq!(seen, 1000);
        assert_eq!(fs.total(Op::Opendir), 1);
        assert!(fs.total(Op::Readdir) < 100, "{} requests for a listing", fs.total(Op::Readdir));
        let asked = fs.total(Op::Lookup);
        assert!(if lists_attributes { asked < 1000 } else { asked == 1000 }, "{lists_attributes}: {asked} lookups");
    }
}

#[test]
fn no_more_than_the_width_is_in_service() {
    const ASKERS: u64 = 24;
    let folder = temp_dir();
    let mounting = Mounting { width: 3, ..Mounting::default() };
    let behaviour = Behaviour { delay: Duration::from_millis(20), ..Behaviour::default() };
    let Some(fs) = mount(folder.path(), behaviour, mounting) else { return };
    let ask_all = || {
        fs.reset_counts();
        std::thread::scope(|scope| {
            for n in 0..ASKERS {
                let path = fs.path().join(format!("none{n}"));
                scope.spawn(move || std::fs::metadata(path).expect_err("no file"));
            }
        });
        assert_eq!(fs.total(Op::Lookup), ASKERS);
    };
    ask_all();
    assert!((1..=3).contains(&fs.waiting_max()), "{} in service", fs.waiting_max());
    assert!(fs.in_line_max() > 0, "nobody waited in line");
    fs.set_width(0);
    ask_all();
    assert!(fs.waiting_max() > 3, "{} in service", fs.waiting_max());
    assert_eq!(fs.in_line_max(), 0);
    assert!(!fs.has_ended());
}

#[test]
fn each_kind_of_request_has_its_counter_and_its_name() {
    let names: HashSet<&str> = Op::ALL.iter().map(|op| op.name()).collect();
    assert_eq!(names.len(), Op::ALL.len());
    assert!(Op::ALL.iter().zip(0..).all(|(op, place)| *op as usize == place));
}

/// The daemon backs up to and restores from a store where everything takes its time.
#[tokio::test]
async fn a_datastore_lives_on_a_slow_store() {
    let folder = temp_dir();
    let backing = folder.path().join("backing");
    make_store(&backing.join("golden"));
    let behaviour =
        Behaviour { delay: Duration::from_micros(200), data_delay: Duration::from_micros(300), ..Behaviour::default() };
    let Some(fs) = mount(folder.path(), behaviour, Mounting { width: 16, ..Mounting::default() }) else { return };
    let setup = Setup { store: Some(fs.path().join("golden")), sync_level: "file", ..Setup::default() };
    let daemon = Daemon::with(setup);
    let chunks: Vec<Chunk> = (0..40).map(|seed| Chunk::made(seed, 50_000 + seed)).collect();
    fs.reset_counts();
    upload::full_backup(&daemon, Place::host("slow", 0), ARCHIVE, &chunks).await;
    assert!(fs.total(Op::Fsync) >= 40, "{} fsyncs", fs.total(Op::Fsync));
    assert!(fs.total(Op::Rename) >= 40, "{} renames", fs.total(Op::Rename));
    let read = upload::read_archive(&daemon, &Place::host("slow", 0), ARCHIVE).await;
    let whole: Vec<u8> = (0..40).flat_map(|seed| upload::made_bytes(seed, 50_000 + seed)).collect();
    assert!(read == whole, "what is restored is not what was backed up");
    let target = format!("/api2/json/admin/datastore/{STORE}/verify");
    upload::rest(&daemon, "POST", &target, b"").await.data();
    daemon.idle().await;
    assert!(daemon.ended().iter().all(|(_, result)| result == "OK"), "{:?}", daemon.ended());
    assert!(fs.waiting_max() <= 16, "{} in service", fs.waiting_max());

    // All 65,536 directories are listed: without a delay.
    fs.set(|b| (b.delay, b.data_delay) = (Duration::ZERO, Duration::ZERO));
    fs.set_width(0);
    let (result, log) = collect(&daemon).await;
    assert_eq!(result, "OK", "{log:#?}");
    assert!(fs.total(Op::Setattr) >= 40, "{} chunks were touched", fs.total(Op::Setattr));
}

/// Beside the tests, where `cargo test` without a target has built it.
fn slowstore() -> Option<PathBuf> {
    let here = std::env::current_exe().expect("this program");
    let program = here.parent()?.parent()?.join("examples/slowstore");
    program.exists().then_some(program)
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if is_there() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("{what} did not come about");
}

fn signal(child: &Child, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, signal).expect("a signal");
}

#[test]
fn the_program_counts_tells_and_goes() {
    let Some(program) = slowstore() else {
        return println!("skipped: no slowstore here: cargo build --example slowstore");
    };
    let folder = temp_dir();
    let (backing, mount, counts) =
        (folder.path().join("backing"), folder.path().join("mount"), folder.path().join("counts.json"));
    std::fs::create_dir(&backing).expect("a directory");
    std::fs::create_dir(&mount).expect("a directory");
    std::fs::write(backing.join("file"), b"hello").expect("a file");
    let mut command = Command::new(program);
    command.args(["--metadata-delay", "1ms", "--data-delay", "0", "--width", "4", "--backing"]).arg(&backing);
    command.arg("--mount").arg(&mount).arg("--counts").arg(&counts).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().expect("the program starts");
    let mut is_gone = false;
    wait_for("a mount", || {
        is_gone = child.try_wait().expect("a child").is_some();
        is_gone || mount.join("file").exists()
    });
    if is_gone {
        return println!("skipped: no FUSE here");
    }
    signal(&child, rustix::process::Signal::USR2);
    let read = || serde_json::from_slice::<Value>(&std::fs::read(&counts).unwrap_or_default()).unwrap_or_default();
    let ask = |child: &Child| {
        let _ = std::fs::remove_file(&counts);
        signal(child, rustix::process::Signal::USR1);
        wait_for("a report", || counts.exists());
        read()
    };
    wait_for("zero", || ask(&child)["requests"]["lookup"] == 0);
    assert_eq!(std::fs::read(mount.join("file")).expect("read"), b"hello");
    let told = ask(&child);
    assert_eq!((&told["requests"]["lookup"], &told["requests"]["open"]), (&1.into(), &1.into()), "{told:#}");
    assert_eq!((&told["read_bytes"], &told["width"]), (&5.into(), &4.into()), "{told:#}");
    let _ = std::fs::remove_file(&counts);
    signal(&child, rustix::process::Signal::TERM);
    assert!(child.wait().expect("an end").success());
    assert_eq!(read()["requests"]["open"], 1, "the last report stays");
    assert!(!mount.join("file").exists(), "it is still mounted");
}

/// Takes the small disk down, whatever happened.
struct Disk(PathBuf);

impl Disk {
    fn command(&self, action: &str, more: &[&str]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/limited/disk"));
        command.arg(action).arg("--mount").arg(&self.0).args(more);
        command
    }

    fn run(&self, action: &str, more: &[&str]) -> std::process::Output {
        self.command(action, more).output().expect("bash")
    }

    /// What the device is asked for a line of the shell, whose `$0` is the disk, per 10 things.
    fn count(&self, line: &str) -> Value {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/limited/counts");
        let mut command = Command::new(script);
        command.args(["--per", "10"]).arg(&self.0).args(["--", "sh", "-c", line]).arg(&self.0);
        serde_json::from_slice(&command.output().expect("bash").stdout).expect("counters")
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.run("down", &[]);
    }
}

/// All that is there of it: a mount, a device.
fn traces(of: &Path) -> Vec<String> {
    let name = of.to_str().expect("a name");
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("mounts");
    let devices = Command::new("losetup").arg("--all").output().expect("losetup").stdout;
    let devices = String::from_utf8_lossy(&devices).into_owned();
    mounts.lines().chain(devices.lines()).filter(|line| line.contains(name)).map(str::to_owned).collect()
}

#[test]
fn a_small_disk_comes_is_limited_and_goes_without_a_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    let probe = Disk(folder.path().join("probe"));
    let up = probe.run("up", &["--fs", "ext4", "--size", "64M", "--iops", "0"]);
    if !up.status.success() {
        assert_eq!(traces(folder.path()), Vec::<String>::new());
        return println!("skipped: {}", String::from_utf8_lossy(&up.stderr).trim());
    }
    drop(probe);
    // The smallest that the makers of each accept.
    for (fs, size) in [("ext4", "64M"), ("xfs", "320M"), ("btrfs", "320M")] {
        let disk = Disk(folder.path().join(fs));
        let up = disk.run("up", &["--fs", fs, "--size", size, "--iops", "500"]);
        let text = String::from_utf8_lossy(&up.stderr).into_owned();
        if !up.status.success() {
            assert_eq!(traces(&disk.0), Vec::<String>::new(), "{text}");
            println!("skipped: {fs}: {}", text.trim());
            continue;
        }
        std::fs::write(disk.0.join("file"), b"hello").expect("a file system");
        let again = disk.run("up", &["--fs", fs]);
        assert!(again.status.success(), "{}", String::from_utf8_lossy(&again.stderr));
        assert!(disk.0.join("file").exists(), "up again keeps what is there");
        let told = String::from_utf8_lossy(&disk.run("status", &[]).stdout).into_owned();
        assert!(told.contains(&format!("({fs})")) && told.contains("limit   500 I/Os a second"), "{told}");
        let counted = disk.count("dd if=/dev/zero of=$0/new bs=4k count=10 conv=fsync status=none");
        assert!(counted["writes"].as_u64().expect("a number") > 0, "{counted}");
        assert!(counted["written_kib"].as_u64().expect("a number") >= 40, "{counted}");
        assert_eq!(counted["reads_per_thousand"].as_f64(), counted["reads"].as_f64().map(|reads| reads * 100.0));
        assert!(disk.run("down", &[]).status.success());
        assert_eq!(traces(&disk.0), Vec::<String>::new());
        assert!(disk.run("down", &[]).status.success(), "down of nothing is no fault");
    }
    assert_eq!(std::fs::read_dir(folder.path()).expect("the folder").count(), 0, "images and records are gone");
}

/// Where there is only the newer kind of control groups, the limit is a group's, and commands are run in it.
#[test]
fn a_small_disk_is_limited_by_a_group_where_groups_are_new() {
    let folder = tempfile::tempdir().expect("a folder");
    let groups = folder.path().join("cgroup");
    std::fs::create_dir(&groups).expect("a directory");
    std::fs::write(groups.join("cgroup.controllers"), "cpu io memory\n").expect("a file");
    let disk = Disk(folder.path().join("disk"));
    let run = |action: &str, more: &[&str]| {
        let mut command = disk.command(action, more);
        command.env("CGROUP_ROOT", &groups).output().expect("bash")
    };
    let up = run("up", &["--size", "64M", "--iops", "700"]);
    if !up.status.success() {
        return println!("skipped: {}", String::from_utf8_lossy(&up.stderr).trim());
    }
    let told = String::from_utf8_lossy(&up.stdout).into_owned();
    assert!(told.contains("limit   riops=700 wiops=700 I/Os a second, by cgroup v2"), "{told}");
    let group = |file: &str| {
        let mut entries = std::fs::read_dir(&groups).expect("groups").map(|entry| entry.expect("an entry").path());
        std::fs::read_to_string(entries.find(|path| path.is_dir()).expect("a group").join(file)).expect(file)
    };
    assert!(run("run", &["--", "true"]).status.success());
    assert!(group("cgroup.procs").trim().parse::<u32>().is_ok());
    assert!(run("down", &[]).status.success());
    assert!(group("io.max").contains("riops=max wiops=max"));
    assert_eq!(traces(&disk.0), Vec::<String>::new());
}

/// What it did not make, it leaves alone.
#[test]
fn a_small_disk_refuses_what_is_not_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let full = Disk(folder.path().join("full"));
    std::fs::create_dir(&full.0).expect("a directory");
    std::fs::write(full.0.join("file"), b"mine").expect("a file");
    let refused = |disk: &Disk, action: &str, more: &[&str], why: &str| {
        let out = disk.run(action, more);
        let text = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(!out.status.success() && text.contains(why), "{action} {more:?}: {text}");
    };
    refused(&full, "up", &[], "not empty");
    assert!(full.run("down", &[]).status.success());
    assert_eq!(std::fs::read(full.0.join("file")).expect("still there"), b"mine");

    let taken = Disk(folder.path().join("taken"));
    std::fs::write(folder.path().join("taken.image"), b"mine").expect("a file");
    refused(&taken, "up", &[], "not ours");
    refused(&taken, "run", &["--", "true"], "is not up");
    refused(&taken, "up", &["--fs", "ext9"], "ext4, xfs or btrfs");
    refused(&taken, "up", &["--iops", "many"], "a whole number");
    std::fs::write(folder.path().join("taken.disk"), b"device=/dev/loop0\n").expect("a file");
    refused(&taken, "up", &[], "not ours");
    assert!(taken.run("down", &[]).status.success());
    assert_eq!(std::fs::read(folder.path().join("taken.image")).expect("still there"), b"mine");
    assert!(folder.path().join("taken.disk").exists());
}
