//! What the machine says of itself to hosts and monitoring tools.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, read_environment};
use crate::support::upload::rest;
use crate::support::wire::{Conn, Reply};

/// Asked by the token of the first start, which may see everything.
async fn ask(daemon: &Daemon, path: &str) -> Reply {
    let secret = &read_environment(&daemon.data().join("connection.env"))["PBS_PASSWORD"];
    let auth = format!("PBSAPIToken admin@pbs!default:{secret}");
    let mut conn = Conn::open(daemon.peer()).await.expect("connect");
    let reply = conn.call("GET", &format!("/api2/json/{path}"), &[("authorization", &auth)], &[]).await;
    conn.close().await;
    reply.expect("an answer")
}

async fn get(daemon: &Daemon, path: &str) -> Value {
    ask(daemon, path).await.data()
}

#[tokio::test]
async fn the_node_says_what_is_true() {
    let daemon = Daemon::start();
    assert_eq!(get(&daemon, "nodes").await, json!([{"node": "localhost"}]));

    // Whoever may only use a datastore does not learn of the machine.
    rest(&daemon, "GET", "/api2/json/nodes/localhost/status", &[]).await.expect(403, "permission check failed");
    let status = get(&daemon, "nodes/localhost/status").await;
    let fingerprint: Vec<String> = daemon.peer().fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(status["info"], json!({"fingerprint": fingerprint.join(":")}));
    for part in ["cpu", "wait"] {
        assert!((0.0..=1.0).contains(&status[part].as_f64().expect("a number")), "{status}");
    }
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap();
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")).expect("MemTotal");
    let total: u64 = total.trim().trim_end_matches(" kB").parse().unwrap();
    assert_eq!(status["memory"]["total"], json!(total * 1024));
    let root = rustix::fs::statvfs("/").unwrap();
    assert_eq!(status["root"]["total"], json!(root.f_blocks * root.f_frsize));
    assert_eq!(status["loadavg"].as_array().map(Vec::len), Some(3));

    // Any name of the node will do, and the ids agree.
    let subscription = get(&daemon, "nodes/anything/subscription").await;
    assert_eq!(subscription["status"], "notfound");
    assert_eq!(subscription["message"], "there is no subscription key");
    let machine = std::fs::read_to_string("/etc/machine-id").unwrap_or_default();
    if machine.trim().is_empty() {
        ask(&daemon, "nodes/localhost/identity").await.expect(404, "systemd-machine-id-setup");
        assert_eq!(subscription.get("serverid"), None);
        return;
    }
    let id = get(&daemon, "nodes/localhost/identity").await;
    assert_eq!(id["pbs-instance-id"], subscription["serverid"]);
    assert_ne!(id["pbs-instance-id"], machine.trim());
    assert_eq!(id["pbs-instance-id"].as_str().map(str::len), Some(32));
}
