//! A daemon that cannot serve says why and ends.

use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::daemon::temp_dir;

/// Runs `serve` and expects it to end by itself with a failure; what it said.
fn refused_start(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringvault"));
    command.arg("serve").args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("start the daemon");
    let started = std::time::Instant::now();
    while child.try_wait().expect("its state").is_none() {
        if started.elapsed() > Duration::from_secs(60) {
            child.kill().expect("kill");
            panic!("{arguments:?}: it serves");
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let out = child.wait_with_output().expect("its output");
    assert!(!out.status.success(), "{arguments:?}: success");
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(!said.contains("panicked"), "{said}");
    said
}

#[test]
fn serve_on_a_busy_port() {
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = busy.local_addr().unwrap().to_string();
    let folder = temp_dir();
    let config = folder.path().join("config.toml");
    std::fs::write(&config, "[server]\n").unwrap();
    let data = folder.path().join("data");
    let paths = [data.to_str().unwrap(), config.to_str().unwrap()];
    let said = refused_start(&["--data-dir", paths[0], "--config", paths[1], "--listen", &addr]);
    assert!(said.contains(&addr) && said.contains("in use"), "{said}");
}

#[test]
fn serve_on_a_directory_that_is_no_datastore() {
    let folder = temp_dir();
    let plain = folder.path().join("plain");
    std::fs::create_dir(&plain).unwrap();
    std::fs::write(plain.join("letter.txt"), "dear").unwrap();
    let absent = folder.path().join("absent");
    for path in [&plain, &absent] {
        let config = folder.path().join("config.toml");
        std::fs::write(&config, format!("[[datastore]]\nname = \"main\"\npath = {path:?}\n")).unwrap();
        let data = folder.path().join("data");
        let said = refused_start(&[
            "--data-dir",
            data.to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
            "--listen",
            "127.0.0.1:0",
        ]);
        assert!(said.contains(path.to_str().unwrap()), "{said}");
    }
    assert_eq!(std::fs::read_dir(&plain).unwrap().count(), 1, "it wrote into a directory that is not its own");
    assert!(!absent.exists());
}

#[test]
fn serve_with_a_broken_configuration() {
    let folder = temp_dir();
    let config = folder.path().join("config.toml");
    for (text, wanted) in [
        ("[server]\nlisten = \"127.0.0.1:0\"\nlsiten = 3\n", [":3:", "lsiten"]),
        ("[server]\nlisten = 8007\n", [":2:", "listen"]),
        ("[server]\n\nconnections-max = 0\n", [":3:", "connections-max"]),
        ("[[datastore]]\nname = \"main\"\n", [":1:", "path"]),
        ("[[datastore]]\nname = \"x\"\npath = \"a\"\n", [":2:", "name"]),
        ("[[datastore]]\nname = \"main\"\npath = \"a\"\nengine = \"magic\"\n", [":4:", "engine"]),
        ("[server\n", [":1:", ""]),
        ("[sever]\n", [":1:", "sever"]),
    ] {
        std::fs::write(&config, text).unwrap();
        let data = folder.path().join("data");
        let said = refused_start(&["--data-dir", data.to_str().unwrap(), "--config", config.to_str().unwrap()]);
        for part in wanted {
            assert!(said.contains(part), "{text:?}: {said}");
        }
    }
    let (data, none) = (folder.path().join("none"), folder.path().join("none.toml"));
    let said = refused_start(&["--data-dir", data.to_str().unwrap(), "--config", none.to_str().unwrap()]);
    assert!(said.contains("none.toml"), "{said}");
}
