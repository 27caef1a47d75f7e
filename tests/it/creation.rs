//! The making of a datastore by the command line, cut off in the middle by a signal or with the daemon that does the work: what is half made
//! is not taken for a datastore, the configuration does not name it, and the same command completes it.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::support::daemon::{Daemon, temp_dir};
use crate::support::wire::PATIENCE;

/// What people and machines send to end a command.
const SIGNALS: [Signal; 3] = [Signal::INT, Signal::TERM, Signal::KILL];

const ALL: usize = 65_536;

fn ringvault<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    // A shell has what it starts in the background ignore SIGINT, these tests too, and all that they start.
    let mut command = Command::new("env");
    command
        .args(["--default-signal=INT", env!("CARGO_BIN_EXE_ringvault")])
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ASCII")
}

/// What a run that has to succeed says.
#[track_caller]
fn said(mut command: Command) -> String {
    let output = command.output().expect("a run");
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

/// What a run that has to fail says.
#[track_caller]
fn refused(mut command: Command) -> String {
    words(&command.output().expect("a run"))
}

#[track_caller]
fn words(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{}: {said}", output.status);
    said
}

fn dirs(base: &Path) -> usize {
    std::fs::read_dir(base.join(".chunks")).map_or(0, Iterator::count)
}

/// Starts a command that makes a datastore, and comes back when it has made one chunk directory more than there were.
fn begun(mut command: Command, base: &Path) -> Child {
    let path = |n: usize| base.join(format!(".chunks/{n:04x}"));
    let next = path((0..ALL).find(|n| !path(*n).exists()).expect("an unfinished datastore"));
    let mut child = command.spawn().expect("a run");
    let started = Instant::now();
    while !next.exists() {
        if let Some(status) = child.try_wait().expect("its state") {
            let mut said = String::new();
            child.stderr.take().expect("its errors").read_to_string(&mut said).expect("text");
            panic!("it ended with {status}: {said}");
        }
        assert!(started.elapsed() < PATIENCE, "it makes nothing");
        std::thread::sleep(Duration::from_micros(200));
    }
    child
}

/// The same, ended by a signal; how it ended, and what it said.
fn ended_by(command: Command, base: &Path, signal: Signal) -> (ExitStatus, String) {
    let mut child = begun(command, base);
    kill_process(Pid::from_child(&child), signal).expect("a signal");
    let status = child.wait().expect("its end");
    let mut said = String::new();
    child.stderr.take().expect("its errors").read_to_string(&mut said).expect("text");
    (status, said)
}

/// The same for a command that the signal ends at once.
fn interrupted(command: Command, base: &Path, signal: Signal) {
    let (status, said) = ended_by(command, base, signal);
    assert_eq!(status.signal(), Some(signal.as_raw()), "{status}: {said}");
}

fn check(base: &Path) -> Command {
    ringvault(["datastore", "check", text(base)])
}

#[track_caller]
fn is_half_made(base: &Path) {
    let said = refused(check(base));
    assert!(said.contains("the creation of this datastore was cut off") && said.contains(text(base)), "{said}");
    assert!((1..ALL).contains(&dirs(base)), "{}", dirs(base));
}

/// Puts a file into what is half made: the command leaves all of it alone until the file is gone.
#[track_caller]
fn is_left_alone_with_a_file_in_it(command: impl Fn() -> Command, base: &Path) {
    for file in [base.join("mine"), base.join(".chunks/0000/mine")] {
        std::fs::write(&file, "x").unwrap();
        let before = dirs(base);
        let said = refused(command());
        assert!(said.contains("its creation was cut off, and") && said.contains(text(&file)), "{said}");
        assert_eq!((dirs(base), std::fs::read(&file).unwrap()), (before, b"x".to_vec()));
        std::fs::remove_file(&file).unwrap();
    }
}

/// A directory of somebody's that is no datastore, and what there is to see of it.
fn somebodys(folder: &Path) -> (PathBuf, impl Fn() -> (u32, Vec<PathBuf>)) {
    let base = folder.join("somebodys");
    std::fs::create_dir(&base).unwrap();
    std::fs::write(base.join("letter"), "dear all").unwrap();
    std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o700)).unwrap();
    let seen = base.clone();
    let look = move || {
        let names = std::fs::read_dir(&seen).unwrap().map(|entry| entry.unwrap().path()).collect();
        (std::fs::metadata(&seen).unwrap().permissions().mode(), names)
    };
    (base, look)
}

#[test]
fn an_init_that_is_cut_off_is_completed_by_the_next() {
    let folder = temp_dir();
    let base = folder.path().join("new");
    let init = || ringvault(["datastore", "init", text(&base)]);
    for signal in SIGNALS {
        interrupted(init(), &base, signal);
        is_half_made(&base);
    }
    is_left_alone_with_a_file_in_it(init, &base);
    said(init());
    said(check(&base));
    assert_eq!(dirs(&base), ALL);
    let again = refused(init());
    assert!(again.contains("there is one already"), "{again}");

    let (base, look) = somebodys(folder.path());
    let before = look();
    let said = refused(ringvault(["datastore", "init", text(&base)]));
    assert!(said.contains("it holds \"letter\": give a new or empty directory"), "{said}");
    assert_eq!(look(), before);
}

#[test]
fn a_create_without_a_daemon_that_is_cut_off_is_completed_by_the_next() {
    let daemon = Daemon::start();
    assert!(daemon.terminate().success());
    let folder = temp_dir();
    let base = folder.path().join("new");
    let file = daemon.data().join("config.toml");
    let alone = |arguments: &[&str]| {
        let mut command = ringvault(["datastore"]);
        command.args(arguments).arg("--data-dir").arg(daemon.data()).arg("--config").arg(&file);
        command
    };
    let config = || std::fs::read_to_string(&file).unwrap();
    let create = || alone(&["create", "second", text(&base)]);
    let before = config();
    for signal in SIGNALS {
        if signal == Signal::KILL {
            interrupted(create(), &base, signal);
            is_half_made(&base);
        } else {
            // It stops the work, and nothing of it is left.
            let (status, said) = ended_by(create(), &base, signal);
            assert!(status.code() == Some(1) && said.contains("stopping the task"), "{status}: {said}");
            assert!(!base.exists(), "{said}");
        }
        assert_eq!(config(), before);
        assert!(!said(alone(&["list"])).contains("second"));
    }
    let reused = refused(alone(&["create", "second", text(&base), "--reuse"]));
    assert!(reused.contains("was cut off"), "{reused}");
    is_left_alone_with_a_file_in_it(create, &base);
    assert_eq!(config(), before);
    // A daemon that is told to serve it does not take it for a datastore either.
    std::fs::write(&file, format!("{before}\n[[datastore]]\nname = \"second\"\npath = {base:?}\n")).unwrap();
    let mut serve = ringvault(["serve", "--data-dir", text(daemon.data()), "--config", text(&file)]);
    serve.env("RUST_LOG", "info");
    let started = refused(serve);
    assert!(started.contains("was cut off"), "{started}");
    std::fs::write(&file, &before).unwrap();

    said(create());
    said(check(&base));
    assert!(said(alone(&["list"])).contains("second") && config().contains("second"));
    let again = refused(create());
    assert!(again.contains("second") && again.contains("already"), "{again}");

    let (base, look) = somebodys(folder.path());
    let (before, named) = (look(), config());
    let said = refused(alone(&["create", "third", text(&base)]));
    assert!(said.contains("it holds \"letter\": give a new or empty directory"), "{said}");
    assert_eq!((look(), config()), (before, named));
}

#[tokio::test]
async fn a_create_by_a_daemon_goes_on_when_its_command_is_cut_off_and_is_completed_when_the_daemon_is() {
    let mut daemon = Daemon::start();
    let folder = temp_dir();
    let data = daemon.data().to_owned();
    let by_daemon = |arguments: &[&str]| {
        let mut command = ringvault(["datastore"]);
        command.args(arguments).arg("--data-dir").arg(&data);
        command
    };
    let config = || std::fs::read_to_string(data.join("config.toml")).unwrap();
    for signal in SIGNALS {
        let name = format!("signal-{}", signal.as_raw());
        let base = folder.path().join(&name);
        let create = || by_daemon(&["create", &name, text(&base)]);
        if signal == Signal::KILL {
            interrupted(create(), &base, signal);
        } else {
            let (status, said) = ended_by(create(), &base, signal);
            assert!(status.code() == Some(1) && said.contains("goes on in the server"), "{status}: {said}");
        }
        // At once: it is being made, or is made by now.
        let at_once = refused(create());
        assert!(at_once.contains("is being made by another command") || at_once.contains("already"), "{at_once}");
        daemon.idle().await;
        assert!(said(by_daemon(&["list"])).contains(&name) && config().contains(&name));
        said(check(&base));
        let again = refused(create());
        assert!(again.contains(&name) && again.contains("already"), "{again}");
    }
    let (somebodys, look) = somebodys(folder.path());
    let (before, named) = (look(), config());
    let foreign = refused(by_daemon(&["create", "third", text(&somebodys)]));
    assert!(foreign.contains("it holds \"letter\": give a new or empty directory"), "{foreign}");
    assert_eq!((look(), config()), (before, named));

    let base = folder.path().join("last");
    let create = || by_daemon(&["create", "last", text(&base)]);
    let child = begun(create(), &base);
    daemon.kill();
    let cut_off = words(&child.wait_with_output().expect("its end"));
    assert!(cut_off.contains("daemon"), "{cut_off}");
    is_half_made(&base);
    assert!(!config().contains("last"));
    daemon.launch();
    assert!(!said(by_daemon(&["list"])).contains("last"));
    is_left_alone_with_a_file_in_it(create, &base);
    said(create());
    said(check(&base));
    assert!(said(by_daemon(&["list"])).contains("last") && config().contains("last"));
}
