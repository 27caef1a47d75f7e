//! `ringvault bench` as a process: Ctrl-C, and what it leaves behind.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Starts an append that would go on for an hour, and waits until it says that it runs.
fn start(directory: &Path, report: &Path) -> std::process::Child {
    Command::new(env!("CARGO_BIN_EXE_ringvault"))
        .args(["bench", "--name=a", "--rw=known-append", "--nrfiles=1000", "--time_based", "--runtime=1h"])
        .args(["--output-format=json", "--eta=never", "--numjobs=2"])
        .arg(format!("--directory={}", directory.display()))
        .arg(format!("--output={}", report.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start")
}

fn wait_for(what: &str, mut there: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !there() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn an_interrupted_bench_reports_and_cleans_up() {
    let (dir, out) = (tempfile::tempdir_in("/dev/shm").unwrap(), tempfile::tempdir().unwrap());
    let report = out.path().join("report.json");
    let child = start(dir.path(), &report);
    let pid = Pid::from_child(&child);
    // It is laid out once the stamp says what it is; then the runs begin at once.
    let stamp = dir.path().join("a.ringvault-bench/.ringvault-bench");
    wait_for("the data is laid out", || std::fs::metadata(&stamp).is_ok_and(|meta| meta.len() > 0));
    std::thread::sleep(Duration::from_millis(300));
    kill_process(pid, Signal::INT).expect("a signal");
    let ended = child.wait_with_output().expect("an end");
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    let text = std::fs::read_to_string(&report).unwrap_or_else(|e| panic!("{e}: {said}"));
    let json: serde_json::Value = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
    let jobs = json["jobs"].as_array().expect("jobs");
    assert_eq!(jobs.len(), 2, "{text}");
    let done: u64 = jobs.iter().map(|job| job["read"]["total_ios"].as_u64().unwrap()).sum();
    assert!(done > 0, "{text}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something stays behind");
}

#[test]
fn what_a_killed_bench_left_is_cleared_by_the_next() {
    let (dir, out) = (tempfile::tempdir_in("/dev/shm").unwrap(), tempfile::tempdir().unwrap());
    let mut child = start(dir.path(), &out.path().join("report.json"));
    let chunks = dir.path().join("a.ringvault-bench/store/.chunks");
    wait_for("the layout has begun", || chunks.exists());
    child.kill().expect("kill");
    child.wait().expect("an end");
    assert!(chunks.exists());
    let next = Command::new(env!("CARGO_BIN_EXE_ringvault"))
        .args(["bench", "--name=a", "--rw=known-finish", "--nrfiles=100", "--output-format=json"])
        .arg(format!("--directory={}", dir.path().display()))
        .output()
        .expect("start");
    assert!(next.status.success(), "{}", String::from_utf8_lossy(&next.stderr));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "something stays behind");
}
