//! The configuration changes while the daemon runs, by a signal and by commands; commands and daemons keep out of each other's way.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, FirstStart, STORE, make_store, temp_dir};
use crate::support::upload::{self, Backup, Chunk, FIXED_CHUNK_BYTES, Place, ask_backup, rest};
use crate::support::users::PASSWORD;
use crate::support::wire::PATIENCE;

const ARCHIVE: &str = "disk.img.fidx";

/// What `golden-password-1` is in the C library's SHA-256 form.
const SHA_CRYPT: &str = "$5$saltstring$5OEgah10p6LHY7VMhjHi26TvRdoxaOsd5ugEEYSNmw/";

fn ringvault(data: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringvault"));
    command.args(arguments).arg("--data-dir").arg(data).env("NO_COLOR", "1").stdin(Stdio::null());
    command.output().expect("a run")
}

#[track_caller]
fn said(output: &Output) -> String {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {error}", output.status);
    String::from_utf8(output.stdout.clone()).expect("text")
}

#[track_caller]
fn refused(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stderr.clone()).expect("text")
}

fn config_of(daemon: &Daemon) -> String {
    std::fs::read_to_string(daemon.data().join("config.toml")).expect("a configuration")
}

fn set_config(daemon: &Daemon, text: &str) {
    std::fs::write(daemon.data().join("config.toml"), text).expect("write the configuration");
}

/// Sends SIGHUP and waits for the daemon's word on it.
fn reload(daemon: &Daemon, word: &str) {
    let before = daemon.log().matches(word).count();
    let pid = rustix::process::Pid::from_raw(daemon.pid().cast_signed()).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("a signal");
    let begun = Instant::now();
    while daemon.log().matches(word).count() == before {
        assert!(begun.elapsed() < PATIENCE, "it says nothing: {}", daemon.log());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What a running session needs to go on.
async fn half_a_backup(daemon: &Daemon, place: Place, chunk: &Chunk) -> (Backup, upload::Writer) {
    let backup = Backup::start(daemon, place).await;
    let writer = backup.create(ARCHIVE, FIXED_CHUNK_BYTES, "").await;
    backup.upload(&writer, chunk).await.expect(200, "");
    (backup, writer)
}

async fn finish(daemon: &Daemon, mut backup: Backup, mut writer: upload::Writer, chunk: &Chunk) {
    backup.append(&mut writer, &[chunk]).await.expect(200, "");
    backup.close(&writer).await.expect(200, "");
    backup.complete(daemon).await;
}

#[tokio::test]
async fn a_backup_goes_on_while_everything_around_it_changes() {
    let daemon = Daemon::start();
    let chunk = Chunk::made(0, FIXED_CHUNK_BYTES);
    let (backup, writer) = half_a_backup(&daemon, Place::host("m", 0), &chunk).await;
    let text = config_of(&daemon);
    let second = daemon.data().join("second");
    make_store(&second);
    let more = format!("[[datastore]]\nname = \"second\"\npath = {second:?}\n");
    set_config(&daemon, &(text.replace("sync-level = \"none\"", "sync-level = \"file\"\ncomment = \"new\"") + &more));
    reload(&daemon, "configuration reloaded");
    let listed: serde_json::Value =
        rest(&daemon, "GET", "/api2/json/admin/datastore", b"").await.text().parse().unwrap();
    assert_eq!(listed["data"][0]["comment"], "new");
    assert!(said(&ringvault(daemon.data(), &["datastore", "list"])).contains("second"));
    // Even while its datastore is no longer named.
    set_config(&daemon, &format!("{}{more}", text.split("[[datastore]]").next().expect("a head")));
    reload(&daemon, "configuration reloaded");
    assert!(!said(&ringvault(daemon.data(), &["datastore", "list"])).contains(STORE));
    ask_backup(&daemon, &Place::host("m", 1), "").await.refused().expect(400, "no such datastore");
    set_config(&daemon, &text);
    reload(&daemon, "configuration reloaded");
    finish(&daemon, backup, writer, &chunk).await;
    assert_eq!(upload::read_archive(&daemon, &Place::host("m", 0), ARCHIVE).await.len() as u64, FIXED_CHUNK_BYTES);
    // A datastore in use stays as it is built, and that is said.
    let backup = Backup::start(&daemon, Place::host("m", 2)).await;
    set_config(
        &daemon,
        &text.replace("sync-level", "io-threads = 2\nsync-level").replace("127.0.0.1:0", "127.0.0.1:1"),
    );
    reload(&daemon, "configuration reloaded");
    let log = daemon.log();
    assert!(log.contains("listen of [server] takes effect at the next start"), "{log}");
    assert!(log.contains("datastore 'golden' is in use"), "{log}");
    backup.leave(&daemon).await;
}

#[tokio::test]
async fn an_invalid_file_changes_nothing() {
    let daemon = Daemon::start();
    let chunk = Chunk::made(0, FIXED_CHUNK_BYTES);
    let (backup, writer) = half_a_backup(&daemon, Place::host("m", 0), &chunk).await;
    let text = config_of(&daemon);
    for (bad, why) in [
        (text.replace("sync-level = \"none\"", "sync-level = \"often\""), "\"sync-level\" is \"often\""),
        (format!("{text}[[datastore]]\nname = \"gone\"\npath = \"/nonexistent/x\"\n"), "is not mounted"),
        (text.replace("[server]", "[server]\ntls-cert = \"none.pem\""), "there is no certificate"),
        ("rubbish".to_owned(), "config.toml:1:"),
    ] {
        set_config(&daemon, &bad);
        reload(&daemon, "the configuration was not reloaded");
        let log = daemon.log();
        assert!(
            log.lines().rev().find(|line| line.contains("was not reloaded")).is_some_and(|line| line.contains(why)),
            "{why}: {log}"
        );
        let listed: serde_json::Value =
            rest(&daemon, "GET", "/api2/json/admin/datastore", b"").await.text().parse().unwrap();
        assert_eq!(listed["data"].as_array().map(Vec::len), Some(1));
        // Nor does a command write into a file that is not in force.
        let error = refused(&ringvault(daemon.data(), &["datastore", "update", STORE, "--comment", "x"]));
        assert!(error.contains("changed by hand"), "{error}");
        assert_eq!(config_of(&daemon), bad);
    }
    set_config(&daemon, &text);
    finish(&daemon, backup, writer, &chunk).await;
}

#[test]
fn another_certificate_is_used_after_a_reload() {
    let folder = temp_dir();
    let data = folder.path().join("data");
    let daemon = FirstStart::new(&data);
    let before = daemon.environment("PBS_FINGERPRINT");
    let new = ringvault::http::self_signed("other").expect("a certificate");
    std::fs::write(data.join("tls/key.pem"), new.key_pem).unwrap();
    std::fs::write(data.join("tls/cert.pem"), new.chain_pem).unwrap();
    daemon.hang_up();
    let begun = Instant::now();
    while daemon.environment("PBS_FINGERPRINT") == before {
        assert!(begun.elapsed() < PATIENCE, "connection.env keeps the old fingerprint");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(said(&daemon.client().args(["snapshots", "--output", "json"]).output().unwrap()).trim(), "[]");
    daemon.end();
}

/// Each command in the order of a day's work, and what it says.
fn a_days_work(data: &Path, config: &[&str]) -> Vec<String> {
    let store = data.parent().expect("a folder").join(format!("store-{}", config.len()));
    let store = store.to_str().expect("text").to_owned();
    let run = |arguments: &[&str]| {
        let out = ringvault(data, &[arguments, config].concat());
        let text = if out.status.success() { out.stdout } else { out.stderr };
        let text = String::from_utf8(text).expect("text").replace(&store, "STORE");
        format!("{} {text}", out.status.code().expect("an end"))
    };
    let mut said = vec![
        run(&["user", "create", "u@pbs", "--comment", "a b", "--role", "DatastoreAudit", "--path", "/datastore/abc"]),
        run(&["user", "create", "u@pbs"]),
        run(&["user", "update", "u@pbs", "--enable", "false"]),
        run(&["user", "show", "u@pbs", "--output", "json"]),
        run(&["acl", "create", "/datastore", "u@pbs", "DatastoreReader", "--no-propagate"]),
        run(&["acl", "delete", "/datastore/abc", "u@pbs", "DatastoreAudit"]),
        run(&["acl", "list", "--path", "/datastore"]),
        run(&["acl", "create", "/nowhere/x", "u@pbs", "Emperor"]).lines().next().unwrap_or_default().to_owned(),
        run(&["datastore", "create", "abc", &store, "--comment", "c", "--sync-level", "file"]),
        run(&["datastore", "create", "abc", "/tmp/abc-two"]),
        run(&["datastore", "create", "inside", &format!("{store}/x")]),
        run(&["datastore", "update", "abc", "--delete", "comment", "--workers", "3"]),
        run(&["datastore", "show", "abc"]),
        run(&["namespace", "create", "abc", "a"]),
        run(&["namespace", "create", "abc", "a/b"]),
        run(&["namespace", "list", "abc"]),
        run(&["namespace", "delete", "abc", "a/b"]),
        run(&["namespace", "list", "abc", "--output", "json"]),
        run(&["datastore", "update", "abc", "--maintenance-mode", "type=read-only,message=x"]),
        run(&["namespace", "create", "abc", "c"]),
        run(&["datastore", "update", "abc", "--delete", "maintenance-mode"]),
    ];
    let token = run(&["token", "create", "u@pbs!t", "--role", "DatastoreBackup"]);
    assert!(token.starts_with("0 ") && token.trim().len() == 38, "{token}");
    said.extend([
        run(&["token", "list", "u@pbs"]),
        run(&["token", "delete", "u@pbs!t"]),
        run(&["user", "delete", "u@pbs"]),
        run(&["user", "show", "u@pbs"]),
        run(&["datastore", "delete", "abc", "--destroy-data", "--output", "text"]),
        run(&["datastore", "show", "abc"]),
    ]);
    assert!(!Path::new(&store).exists(), "its data is gone");
    said
}

#[test]
fn commands_do_the_same_whether_a_daemon_runs_or_not() {
    let daemon = Daemon::start();
    let running = a_days_work(daemon.data(), &[]);
    assert!(daemon.terminate().success());
    let config = daemon.data().join("config.toml");
    let stopped = a_days_work(daemon.data(), &["--config", config.to_str().expect("text")]);
    for (running, stopped) in running.iter().zip(&stopped) {
        assert_eq!(running, stopped);
    }
    assert_eq!(running.len(), stopped.len());
    // And it is what one expects, not the same failure twice.
    assert!(running.iter().filter(|line| line.starts_with("0 ")).count() > 18, "{running:#?}");
    assert!(running.iter().any(|line| line.contains("1 error: user 'u@pbs' already exists.")), "{running:#?}");
}

#[test]
fn commands_and_a_starting_daemon_at_once_lose_nothing() {
    let mut daemon = Daemon::start();
    assert!(daemon.terminate().success());
    let config = daemon.data().join("config.toml");
    let config = config.to_str().expect("text").to_owned();
    let data = daemon.data().to_owned();
    let commands: Vec<_> = (0..6)
        .map(|n| {
            let (data, config) = (data.clone(), config.clone());
            std::thread::spawn(move || {
                said(&ringvault(&data, &["user", "create", &format!("user{n}@pbs"), "--config", &config]));
            })
        })
        .collect();
    daemon.launch();
    commands.into_iter().for_each(|command| command.join().expect("it succeeds"));
    let listed = said(&ringvault(&data, &["user", "list"]));
    for n in 0..6 {
        assert!(listed.contains(&format!("user{n}@pbs")), "{listed}");
    }
    // A second daemon says at once who is there.
    let second = Command::new(env!("CARGO_BIN_EXE_ringvault"))
        .args(["serve", "--config", &config, "--data-dir"])
        .arg(&data)
        .output();
    let second = refused(&second.unwrap());
    assert!(second.contains("a daemon runs already"), "{second}");
    // What a killed daemon leaves is no hindrance, neither to commands nor to the next daemon.
    daemon.kill();
    assert!(data.join("control.sock").exists());
    assert!(said(&ringvault(&data, &["user", "list", "--config", &config])).contains("user5@pbs"));
    daemon.launch();
    assert!(said(&ringvault(&data, &["user", "list"])).contains("user5@pbs"));
}

#[test]
fn an_existing_server_is_taken_over() {
    let folder = temp_dir();
    let (data, from) = (folder.path().join("data"), folder.path().join("etc"));
    std::fs::create_dir_all(&from).unwrap();
    let store = folder.path().join("old");
    make_store(&store);
    let write = |name: &str, text: &str| std::fs::write(from.join(name), text).unwrap();
    write(
        "datastore.cfg",
        &format!("datastore: old\n\tpath {}\n\tcomment as it was\n\tnotify gc=never\n", store.display()),
    );
    write("user.cfg", "user: alice@pbs\n\ttoken: x\n\ntoken: alice@pbs!t\n");
    write("acl.cfg", "acl:1:/datastore/old:alice@pbs,alice@pbs!t:DatastoreAdmin\n");
    write("token.shadow", &format!("{{\"alice@pbs!t\":\"{SHA_CRYPT}\"}}"));
    std::fs::create_dir(&data).unwrap();
    let from = from.to_str().expect("text");
    let dry = said(&ringvault(&data, &["config", "import", from]));
    assert!(dry.contains("would import datastore old at") && dry.contains("nothing was changed"), "{dry}");
    for note in [
        "datastore.cfg:4: datastore old: notify has no counterpart",
        "user.cfg:2: alice@pbs: token: has no counterpart",
    ] {
        assert!(dry.contains(note), "{note}: {dry}");
    }
    assert_eq!(std::fs::read_dir(&data).unwrap().count(), 0);
    let done = said(&ringvault(&data, &["config", "import", from, "--write"]));
    assert!(done.contains("imported token alice@pbs!t") && done.contains("imported 2 permissions"), "{done}");
    let again = refused(&ringvault(&data, &["config", "import", from, "--write"]));
    assert!(again.contains("already exists"), "{again}");
    assert!(said(&ringvault(&data, &["config", "check"])).contains("is in order"));
    let daemon = FirstStart::new(&data);
    let repository = daemon.environment("PBS_REPOSITORY").replace("admin@pbs!default@", "alice@pbs!t@");
    assert!(repository.ends_with(":old"), "{repository}");
    let mut client = daemon.client();
    let listed = client.env("PBS_REPOSITORY", &repository).env("PBS_PASSWORD", PASSWORD).args(["snapshots"]).output();
    assert!(said(&listed.unwrap()).contains("SNAPSHOT"));
    daemon.end();
}

#[test]
fn a_configuration_is_checked_with_all_that_it_names() {
    let folder = temp_dir();
    let file = folder.path().join("c.toml");
    std::fs::write(
        &file,
        "[server]\ntls-cert = \"absent.pem\"\n[[datastore]]\nname = \"abc\"\npath = \"nowhere\"\n[tasks]\ndir = \"a/b/c\"\n",
    )
    .unwrap();
    std::fs::create_dir(folder.path().join("tls")).unwrap();
    std::fs::write(folder.path().join("tls/key.pem"), "x").unwrap();
    let path = file.to_str().expect("text");
    let check = |more: &[&str]| ringvault(folder.path(), &[&["config", "check", "--config", path], more].concat());
    let out = check(&["--output", "json"]);
    assert_eq!(out.status.code(), Some(1));
    let told: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    let places: Vec<(u64, u64)> = told["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["line"].as_u64().unwrap(), p["column"].as_u64().unwrap()))
        .collect();
    assert_eq!(places, [(2, 12), (5, 8), (7, 7)], "{told:#}");
    std::fs::write(&file, "[server]\nlisen = 1\n[servr]\n").unwrap();
    let text = String::from_utf8(check(&[]).stdout).unwrap();
    assert!(text.contains(":2:1: unknown key \"lisen\" in [server]: did you mean \"listen\"?"), "{text}");
    assert!(
        text.contains(":3:2: unknown section \"servr\": did you mean \"server\"?") && text.contains("2 problems"),
        "{text}"
    );
    std::fs::remove_file(folder.path().join("tls/key.pem")).unwrap();
    std::fs::write(&file, "").unwrap();
    assert!(said(&check(&[])).contains("is in order"));
}
