//! `ringvault gc|verify|prune|history|task`: the work is started, followed and shown, and the exit status tells how it went.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

use crate::abort::{on_slow_disk, until};
use crate::support::daemon::{Daemon, STORE, temp_dir};
use crate::support::slowfs::Op;
use crate::support::upload::{self, Chunk, FIXED_CHUNK_BYTES, Place};

const ARCHIVE: &str = "disk.img.fidx";

fn command(daemon: &Daemon, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringvault"));
    command.args(arguments).arg("--data-dir").arg(daemon.data()).env("NO_COLOR", "1").stdin(Stdio::null());
    // As the daemon was started; it is read when none runs.
    command.arg("--config").arg(daemon.data().join("config.toml"));
    command
}

/// Runs a command: exit code, standard output, standard error.
async fn run(daemon: &Daemon, arguments: &[&str]) -> (i32, String, String) {
    let mut command = command(daemon, arguments);
    let output: Output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().expect("a run");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

async fn json_of(daemon: &Daemon, arguments: &[&str]) -> (i32, Value) {
    let (code, out, error) = run(daemon, &[arguments, &["--output", "json"]].concat()).await;
    (code, serde_json::from_str(&out).unwrap_or_else(|e| panic!("{e}: {out}{error}")))
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_run_and_their_figures_shown_whether_a_daemon_runs_or_not() {
    let daemon = Daemon::start();
    let chunks = [Chunk::made(0, FIXED_CHUNK_BYTES), Chunk::made(1, FIXED_CHUNK_BYTES)];
    for hours in 0..3 {
        upload::full_backup(&daemon, Place::host("m", hours), ARCHIVE, &chunks).await;
    }
    let (code, out, log) = run(&daemon, &["verify", STORE]).await;
    assert_eq!(
        (code, out.starts_with("3 snapshots right, 0 failed, 0 skipped; 2 chunks read (")),
        (0, true),
        "{out}{log}"
    );
    assert!(log.contains("percentage done: 100.00% (1/1 groups)") && log.contains("TASK OK"), "{log}");
    let (code, run_of_part) = json_of(&daemon, &["verify", STORE, "--group", "host/m", "--n-of-m", "1/1000"]).await;
    assert_eq!((code, &run_of_part["status"], &run_of_part["kind"]), (0, &json!("OK"), &json!("verify")));
    assert_eq!(run_of_part["figures"]["chunks-named"], json!(6), "{run_of_part}");
    let (_, out, _) = run(&daemon, &["verify", STORE, "--ignore-verified"]).await;
    assert!(out.starts_with("0 snapshots right, 0 failed, 3 skipped;"), "{out}");

    // A dry run says what would go, for people and for programs, and is none.
    let (code, out, log) = run(&daemon, &["prune", STORE, "--keep-last", "1", "--dry-run"]).await;
    assert_eq!((code, out.as_str()), (0, ""), "{log}");
    assert!(log.contains("2 would be removed"), "{log}");
    let (code, plan) = json_of(&daemon, &["prune", STORE, "host/m", "--keep-last", "1", "--dry-run"]).await;
    let kept = plan.as_array().expect("a plan").iter().filter(|row| row["keep"] == json!(true)).count();
    assert_eq!((code, plan.as_array().unwrap().len(), kept), (0, 3, 1));
    let (code, out, _) = run(&daemon, &["prune", STORE, "host/m", "--keep-last", "2"]).await;
    assert_eq!((code, out.as_str()), (0, "1 snapshots removed, 2 kept, 0 spared, 0 failures in 1 groups\n"));
    let (code, out, _) = run(&daemon, &["prune", STORE, "--keep-last", "1"]).await;
    assert_eq!((code, out.as_str()), (0, "1 snapshots removed, 1 kept, 0 spared, 0 failures in 1 groups\n"));
    let (code, _, error) = run(&daemon, &["prune", STORE]).await;
    assert!(code == 2 && error.contains("--keep-last"), "{error}");

    let (code, collected) = json_of(&daemon, &["gc", "start", STORE]).await;
    assert_eq!((code, &collected["figures"]["disk-chunks"]), (0, &json!(2)), "{collected}");
    let (code, out, _) = run(&daemon, &["gc", "status", STORE]).await;
    assert!(code == 0 && out.contains("disk-chunks: 2"), "{out}");
    let (code, _, error) = run(&daemon, &["gc", "stop", STORE]).await;
    assert!(code == 1 && error.contains("no garbage collection runs on datastore"), "{error}");

    // What is wrong makes the command fail, and its figures are shown all the same.
    daemon.remove_chunk(&chunks[1].digest);
    let (code, failed) = json_of(&daemon, &["verify", STORE]).await;
    assert_eq!((code, &failed["figures"]["chunk-errors"]), (1, &json!(1)), "{failed}");
    let (code, out, error) = run(&daemon, &["verify", STORE]).await;
    assert!(code == 1 && out.starts_with("0 snapshots right, 1 failed"), "{out}");
    assert!(error.lines().last().unwrap().contains("failed: verification failed"), "{error}");
    let (code, _, error) = run(&daemon, &["verify", "nosuch"]).await;
    assert!(code == 1 && error.contains("nosuch"), "{error}");

    let told = async || {
        let (code, runs) = json_of(&daemon, &["history", STORE]).await;
        assert_eq!(code, 0);
        let kinds = runs.as_array().expect("runs").iter().map(|run| run["kind"].as_str().unwrap().to_owned());
        (kinds.collect::<Vec<_>>(), runs)
    };
    let (kinds, runs) = told().await;
    assert_eq!(kinds, ["verify", "verify", "gc", "prune", "prune-group", "verify", "verify", "verify"], "{runs:#}");
    assert_eq!(runs[2], collected);
    let (_, out, _) = run(&daemon, &["history", STORE, "--kind", "gc", "--kind", "prune", "--limit", "1"]).await;
    let lines: Vec<&str> = out.lines().collect();
    assert!(lines.len() == 2 && lines[0].starts_with("KIND") && lines[1].starts_with("gc "), "{out}");

    // The name of a task is enough to follow it; one that was only started goes on by itself.
    let (code, out, _) = run(&daemon, &["gc", "start", STORE, "--detach"]).await;
    let upid = out.trim().to_owned();
    assert!(code == 0 && upid.starts_with("UPID:"), "{out}");
    let (code, _, log) = run(&daemon, &["task", "log", &upid]).await;
    // The chunk that is missing is a warning.
    assert!(code == 0 && log.contains("TASK WARNINGS"), "{log}");
    let (code, out, _) = run(&daemon, &["task", "list", "--store", STORE, "--errors"]).await;
    assert!(code == 0 && out.lines().count() == 3 && out.contains(":verify:"), "{out}");
    daemon.idle().await;

    // Without a daemon the command does it.
    daemon.terminate();
    let (code, out, log) = run(&daemon, &["gc", "start", STORE]).await;
    assert!(code == 0 && out.contains("chunks removed"), "{out}{log}");
    let (code, _, error) = run(&daemon, &["verify", STORE, "--detach"]).await;
    assert!(code == 1 && error.contains("no server runs on this data directory"), "{error}");
    let (kinds, _) = told().await;
    assert_eq!((kinds.len(), kinds[0].as_str(), kinds[1].as_str()), (10, "gc", "gc"));
}

/// Ctrl-C stops the task and says so; a second one would leave.
#[tokio::test(flavor = "multi_thread")]
async fn an_interrupt_stops_the_task_and_the_command_fails() {
    let folder = temp_dir();
    let Some((fs, daemon)) = on_slow_disk(folder.path()) else { return };
    let chunks: Vec<Chunk> = (0..200).map(|seed| Chunk::made(seed, 1000)).collect();
    upload::full_backup(&daemon, Place::host("v", 0), "a.pxar.didx", &chunks).await;
    fs.reset_counts();
    fs.set(|b| b.delay = Duration::from_millis(30));
    let mut verify = command(&daemon, &["verify", STORE, "--output", "json"]);
    let child = verify.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("a run");
    let pid = rustix::process::Pid::from_child(&child);
    until("a chunk is read", || chunks.iter().any(|chunk| fs.count(&chunk.digest, Op::Open) > 0)).await;
    rustix::process::kill_process(pid, rustix::process::Signal::INT).expect("a signal");
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.unwrap().expect("its end");
    let (out, error) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert_eq!(output.status.code(), Some(1), "{out}{error}");
    assert!(error.contains("stopping the task") && error.contains("failed: task aborted"), "{error}");
    let run: Value = serde_json::from_str(&out).expect("a run");
    assert_eq!((&run["status"], &run["figures"]["snapshots-ok"]), (&json!("task aborted"), &json!(0)), "{out}");
    fs.set(|b| b.delay = Duration::ZERO);
    daemon.idle().await;
}
