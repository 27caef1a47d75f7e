//! What the file may say, and how it is told when it is wrong.

use super::*;

fn parse(text: &str) -> Result<Config> {
    Config::parse(text, "ringvault.toml", Path::new("/data"))
}

fn told(text: &str) -> String {
    parse(text).map(|_| ()).expect_err("should be refused").to_string()
}

#[test]
fn an_empty_file_is_all_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config.server.listen.to_string(), "127.0.0.1:8007");
    assert_eq!(config.server.tls_cert, Path::new("/data/tls/cert.pem"));
    assert_eq!(config.server.unauthenticated_delay, Duration::from_secs(3));
    assert!(config.datastores.is_empty());
    assert_eq!(config.tasks_dir, Path::new("/data/tasks"));
    assert_eq!(config.tasks_keep, crate::task::ENDED_TASKS_KEPT);
}

#[test]
fn the_first_file_makes_main() {
    let config = parse(&first_file()).unwrap();
    let store = &config.datastores[0];
    assert_eq!((store.name.as_str(), store.path.as_path()), ("main", Path::new("/data/main")));
    // The comments are settings too, and say what the defaults are.
    let uncommented = first_file().replace("\n# ", "\n").replacen('#', "# ", 1);
    assert_eq!(format!("{:?}", parse(&uncommented).unwrap()), format!("{config:?}"));
}

#[test]
fn all_keys_are_read() {
    let text = r#"
        [server]
        listen = "[::1]:9000"
        tls-cert = "/etc/ssl/c.pem"
        tls-key = "k.pem"
        connections-max = 5
        sessions-max = 4
        shutdown-timeout-secs = 3
        unauthenticated-delay-ms = 2
        denied-delay-ms = 1
        compute-threads = 7
        [tasks]
        dir = "/var/log/t"
        keep = 500
        [[datastore]]
        name = "usb"
        path = "/mnt/usb"
        comment = "a disk"
        sync-level = "file"
        checks.append = false
        engine = "threads"
        workers = 0x10
        io-threads = 2
        owner = "34:35"
        manifest-lock-dir = "/run/locks"
        [[datastore]]
        name = "two"
        path = "two"
        [datastore.checks]
        finish = false
    "#;
    let config = parse(text).unwrap();
    assert_eq!(config.server.listen.port(), 9000);
    assert_eq!(config.server.tls_key, Path::new("/data/k.pem"));
    assert_eq!((config.server.connections_max, config.server.sessions_max), (5, 4));
    assert_eq!(
        (config.server.shutdown_timeout, config.server.denied_delay),
        (Duration::from_secs(3), Duration::from_millis(1))
    );
    assert_eq!(config.tasks_dir, Path::new("/var/log/t"));
    assert_eq!(config.tasks_keep, 500);
    let usb = &config.datastores[0];
    assert_eq!((usb.owner, usb.manifest_lock_dir.as_deref()), (Some((34, 35)), Some(Path::new("/run/locks"))));
    assert_eq!(
        (usb.comment.as_deref(), usb.sync_level.as_str(), usb.checks),
        (Some("a disk"), "file", (false, true, true))
    );
    assert_eq!((usb.engine.as_str(), usb.workers, usb.io_threads), ("threads", 16, 2));
    let two = &config.datastores[1];
    assert_eq!((two.path.as_path(), two.checks), (Path::new("/data/two"), (true, false, true)));
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    for (text, want) in [
        ("[server]\nlisen = \"x\"", "ringvault.toml:2:1: unknown key \"lisen\" in [server]: did you mean \"listen\"?"),
        ("[servr]\n", "ringvault.toml:1:2: unknown section \"servr\": did you mean \"server\"?"),
        (
            "[qqqqqqqqq]\n",
            "ringvault.toml:1:2: unknown section \"qqqqqqqqq\": known are server, datastore, prune-job, verify-job, tasks, metrics",
        ),
        ("[server]\n  listen = 5", "ringvault.toml:2:12: \"listen\" is an integer, \"ADDRESS:PORT\" is expected"),
        (
            "[server]\nlisten = \"localhost\"",
            "ringvault.toml:2:10: \"localhost\" is not ADDRESS:PORT with a numeric address",
        ),
        (
            "[server]\nsessions-max = 0",
            "ringvault.toml:2:16: \"sessions-max\" is 0, a whole number from 1 to 4096 is expected",
        ),
        (
            "[[datastore]]\nname = \"abc\"\npath = \"p\"\nengine = \"ring\"",
            "ringvault.toml:4:10: \"engine\" is \"ring\", one of \"auto\", \"uring\", \"threads\", \"sync\" is expected",
        ),
        (
            "[[datastore]]\nname = \"abc\"\npath = \"p\"\nchecks.apend = true",
            "ringvault.toml:4:8: unknown key \"checks.apend\" in [[datastore]]: did you mean \"checks.append\"?",
        ),
        ("[[datastore]]\nname = \"abc\"", "ringvault.toml:1:3: [[datastore]] lacks the key \"path\""),
        ("[datastore]\nname = \"abc\"", "ringvault.toml:1:2: \"datastore\" is written [[datastore]]"),
        ("[[server]]\n", "ringvault.toml:1:3: \"server\" is written [server]"),
        (
            "[[datastore]]\nname = \"abc\"\npath = \"p\"\n[[datastore]]\nname = \"abc\"\npath = \"q\"",
            "ringvault.toml:5:8: there are two datastores \"abc\"",
        ),
        (
            "[[datastore]]\nname = \"abc\"\npath = \"p\"\n[[datastore]]\nname = \"abd\"\npath = \"p\"",
            "ringvault.toml:6:8: the datastores \"abc\" and \"abd\" have one path",
        ),
        (
            "[[datastore]]\nname = \"abc\"\npath = \"p\"\nowner = \"backup\"",
            "ringvault.toml:4:9: \"backup\" is not UID:GID in numbers",
        ),
    ] {
        assert_eq!(told(text), want);
    }
    assert!(told("[server]\nlisten = ").starts_with("ringvault.toml:2:"), "{}", told("[server]\nlisten = "));
    assert!(
        told("[[datastore]]\nname = \"ab\"\npath = \"p\"")
            .starts_with("ringvault.toml:2:8: \"ab\" is not a datastore name")
    );
    assert!(told("[server]\nlisten = \"a\"\nlisten = \"b\"").starts_with("ringvault.toml:3:"));
}

#[test]
fn the_page_is_made_from_the_table() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/configuration.md");
    if std::env::var_os("RINGVAULT_WRITE_DOCS").is_some() {
        let disk = crate::engine::Disk::real();
        let file = disk.open_or_create(Path::new(path), 0o644).unwrap();
        file.set_len(0).and_then(|()| file.write_all_at(reference().as_bytes(), 0)).unwrap();
    }
    let page = std::fs::read_to_string(path).expect("docs/configuration.md is there");
    assert!(page == reference(), "run the tests once with RINGVAULT_WRITE_DOCS=1 and read the difference");
}

#[test]
fn metrics_are_for_this_host_unless_told_otherwise() {
    assert_eq!(parse("").unwrap().metrics.access, MetricsAccess::Loopback);
    assert_eq!(parse("[metrics]\naccess = \"off\"").unwrap().metrics.access, MetricsAccess::Off);
    let text = format!("[metrics]\naccess = \"token\"\ntoken-sha256 = \"{}\"", "0A".repeat(32));
    assert_eq!(parse(&text).unwrap().metrics.access, MetricsAccess::Token([10; 32]));
    // A token alone opens nothing, and closes nothing.
    let text = format!("[metrics]\ntoken-sha256 = \"{}\"", "00".repeat(32));
    assert_eq!(parse(&text).unwrap().metrics.access, MetricsAccess::Loopback);
    let refused = told("[metrics]\naccess = \"token\"");
    assert_eq!(refused, "ringvault.toml:2:10: access = \"token\" needs the key \"token-sha256\"");
    let refused = told("[metrics]\ntoken-sha256 = \"s3cret\"");
    assert_eq!(refused, "ringvault.toml:2:16: a SHA-256 has 64 hex digits: `sha256sum` shows them");
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let text = "[server]\nlisten = \"x\"\nlisen = 1\n[nonsense]\n[[datastore]]\nname = \"a\"\nowner = \"me\"\nmaintenance-mode = \"asleep\"\n\
                workers = 0\n[[datastore]]\nname = \"abc\"\npath = 5\n";
    let problems = Config::check(text, Path::new("/data")).unwrap_err();
    let told: Vec<String> = problems.iter().map(|p| format!("{}:{} {:.40}", p.line, p.column, p.message)).collect();
    assert_eq!(
        told,
        [
            "2:10 \"x\" is not ADDRESS:PORT with a numeric a",
            "3:1 unknown key \"lisen\" in [server]: did you",
            "4:2 unknown section \"nonsense\": known are se",
            "5:3 [[datastore]] lacks the key \"path\"",
            "6:8 \"a\" is not a datastore name: 3 to 32 of ",
            "7:9 \"me\" is not UID:GID in numbers",
            "8:20 \"asleep\" is no maintenance mode: read-on",
            "9:11 \"workers\" is 0, a whole number from 1 to",
            "12:8 \"path\" is an integer, a path is expected",
        ]
    );
    let first = parse(text).unwrap_err().to_string();
    assert!(
        first.starts_with("ringvault.toml:2:10: ") && first.ends_with("; 8 more: ringvault config check"),
        "{first}"
    );
    let file = "\n[[datastore]]\nname = \"abc\"\npath = \"p\"\n";
    assert_eq!(Config::place(file, "datastore", Some("abc"), "path"), (4, 8));
    assert_eq!(Config::place(file, "server", None, "tls-cert"), (1, 1));
}
