//! The systemd unit: confined, and the daemon still works inside; and what it tells systemd.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::support::daemon::{FirstStart, temp_dir};

/// How long a message to systemd may take before the test gives up. The watchdog is told at half of two seconds.
const PATIENCE: Duration = Duration::from_secs(60);

fn source(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Whether `program` runs at all here.
fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok_and(|out| out.status.success());
    if !found {
        println!("skipped: no {program}");
    }
    found
}

#[test]
fn the_unit_is_confined_to_an_exposure_of_one_and_a_half() {
    if !have("systemd-analyze") {
        return;
    }
    let out = Command::new("systemd-analyze")
        .args(["security", "--no-pager", "--offline=true", "--threshold=15"])
        .arg(source("systemd/ringvault.service"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&out.stdout);
    assert!(out.status.success(), "{}", said.lines().last().unwrap_or_default());
}

#[test]
fn the_ring_works_under_the_units_filter_as_far_as_it_works_without() {
    if !have("systemd-analyze") || !have("python3") {
        return;
    }
    let (filter, unit) = (source("tests/run_under_unit_filter.py"), source("systemd/ringvault.service"));
    let listed = Command::new("python3").arg(&filter).arg("--list").arg(&unit).output().unwrap();
    if listed.status.code() == Some(2) {
        println!("skipped: {}", String::from_utf8_lossy(&listed.stderr).trim());
        return;
    }
    let calls = String::from_utf8(listed.stdout).unwrap();
    for call in ["io_uring_setup", "io_uring_enter", "io_uring_register"] {
        assert!(calls.split_whitespace().any(|allowed| allowed == call), "{call} is not allowed");
    }
    assert!(!calls.split_whitespace().any(|allowed| allowed == "mount"), "the filter filters");

    let engine_of = |command: Command| {
        let folder = temp_dir();
        let file = folder.path().join("x.conf");
        std::fs::write(&file, "cores: 2\n").unwrap();
        let daemon = FirstStart::under(command, &folder.path().join("data"));
        let backup =
            daemon.client().args(["backup", "--backup-id", "unit"]).arg(format!("x.conf:{}", file.display())).output();
        let backup = backup.unwrap();
        assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
        daemon.end();
        let log = std::fs::read_to_string(folder.path().join("stderr.log")).unwrap();
        log.lines().find(|line| line.contains("datastore opened")).map(|line| line.contains("uring")).expect("a line")
    };
    let program = env!("CARGO_BIN_EXE_ringvault");
    let mut confined = Command::new("python3");
    confined.arg(&filter).arg(&unit).arg(program);
    assert_eq!(engine_of(confined), engine_of(Command::new(program)), "the same engine with the filter and without");
}

#[test]
fn systemd_hears_of_readiness_life_and_end() {
    let folder = temp_dir();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringvault"));
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "2000000").env_remove("WATCHDOG_PID");
    let daemon = FirstStart::under(command, &folder.path().join("data"));
    let mut heard = String::new();
    let mut wait_for = |wanted: &str| {
        while !heard.lines().any(|line| line == wanted) {
            let mut message = [0; 4096];
            let length = socket.recv(&mut message).unwrap_or_else(|e| panic!("no {wanted} after {heard:?}: {e}"));
            heard.push_str(std::str::from_utf8(&message[..length]).unwrap());
            heard.push('\n');
        }
    };
    wait_for("READY=1");
    wait_for("WATCHDOG=1");
    daemon.end();
    wait_for("STOPPING=1");
}
