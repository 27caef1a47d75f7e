//! Maintenance modes as clients meet them.

use serde_json::{Value, json};

use super::test_support::{self, ADMIN, Tested};
use crate::store::{Datastore, Operation};

async fn start() -> (Tested, Datastore) {
    let dir = tempfile::tempdir().unwrap();
    let store = test_support::datastore(dir.path()).await;
    let app = test_support::app(dir.path(), test_support::first_users(), [store.clone()]);
    (test_support::serve(app, dir, 64), store)
}

/// Status and body of a call; `more` are header lines.
async fn call(server: &Tested, method: &str, path: &str, more: &str) -> (u16, String) {
    let request = format!("{method} /api2/json/{path} HTTP/1.1\r\nhost: x\r\n{ADMIN}{more}\r\n");
    let answer = server.ask(request.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0), body.to_owned())
}

/// `data` of an answer that is not chunked.
async fn data(server: &Tested, path: &str) -> Value {
    let (status, body) = call(server, "GET", path, "connection: close\r\n").await;
    assert_eq!(status, 200, "{path}: {body}");
    serde_json::from_str::<Value>(&body).unwrap()["data"].take()
}

const CLOSE: &str = "connection: close\r\n";

#[tokio::test]
async fn a_mode_refuses_calls_and_sessions_by_what_they_do() {
    let (server, store) = start().await;
    let snapshot = "backup-type=vm&backup-id=1&backup-time=1717597418";
    // Closed after a refusal, or the test would wait for the end of the connection.
    let upgrade = |protocol: &str| format!("connection: upgrade, close\r\nupgrade: {protocol}\r\n");
    let backup = (format!("backup?store=main&{snapshot}"), upgrade("proxmox-backup-protocol-v1"));
    let reader = (format!("reader?store=main&{snapshot}"), upgrade("proxmox-backup-reader-protocol-v1"));
    let base = "admin/datastore/main";
    for (mode, reads, text) in [
        (
            "read-only,message=new disk",
            true,
            "datastore 'main' is in maintenance mode 'read-only', nothing may change it: new disk",
        ),
        ("offline", false, "datastore 'main' is in maintenance mode 'offline', nothing may use it"),
    ] {
        store.set_maintenance(Some(mode.parse().unwrap()));
        for (method, path, is_read, headers) in [
            ("GET", format!("{base}/snapshots"), true, CLOSE),
            ("GET", format!("{base}/groups"), true, CLOSE),
            ("GET", format!("{base}/namespace"), true, CLOSE),
            ("GET", format!("{base}/status?verbose=1"), true, CLOSE),
            ("POST", format!("{base}/namespace?name=x"), false, CLOSE),
            ("DELETE", format!("{base}/namespace?ns=x"), false, CLOSE),
            ("DELETE", format!("{base}/snapshots?{snapshot}"), false, CLOSE),
            ("GET", backup.0.clone(), false, backup.1.as_str()),
        ] {
            let (status, body) = call(&server, method, &path, headers).await;
            if is_read && reads {
                assert_eq!(status, 200, "{mode}: {method} {path}: {body}");
            } else {
                // Parameters come before: of a form in the body, which this is not.
                let refused = body == text || body.contains("parameter verification failed");
                assert!(status == 400 && refused, "{mode}: {method} {path}: {status} {body}");
            }
        }
        let (status, body) = call(&server, "GET", &reader.0, &reader.1).await;
        assert!(status == 400 && (body == text) != reads, "{mode}: {status} {body}");
        let listed = data(&server, "admin/datastore").await;
        assert_eq!(listed[0]["maintenance"], store.maintenance().unwrap().to_string(), "it is still listed");
        let usage = data(&server, "status/datastore-usage").await;
        assert_eq!((usage[0]["error"].as_str(), usage[0]["total"].is_u64()), ((!reads).then_some(text), reads));
    }
    store.set_maintenance(None);
    let listed = data(&server, "admin/datastore").await;
    assert_eq!(listed, json!([{"store": "main", "comment": null}]));
    assert!(server.running.shutdown().await);
}

#[tokio::test]
async fn what_runs_goes_on_and_is_counted() {
    let (server, store) = start().await;
    let path = "admin/datastore/main/active-operations";
    assert_eq!(data(&server, path).await, json!({"read": 0, "write": 0}));
    let snapshot = "vm/1/2024-06-05T14:23:38Z".parse().unwrap();
    let auth = "admin@pbs!default".parse().unwrap();
    let lease = store.begin_backup(&Default::default(), &snapshot, &auth, false).await.unwrap();
    let reading = store.begin_operation(Operation::Read).unwrap();
    store.set_maintenance(Some("offline".parse().unwrap()));
    assert_eq!(data(&server, path).await, json!({"read": 1, "write": 1}), "asked for while the datastore is offline");
    drop(reading);
    lease.abandon().await.unwrap();
    assert_eq!(data(&server, path).await, json!({"read": 0, "write": 0}));
    assert!(store.begin_reader(&Default::default(), &snapshot).await.is_err());
    assert!(server.running.shutdown().await);
}
