//! Logins over real sockets: whoever guesses takes nothing from others.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::test_support::{self, ADMIN};
use crate::auth::hash_password;

const GUESSES: usize = 30;

fn login(password: &str) -> String {
    format!(r#"{{"username":"u@pbs","password":"{password}"}}"#)
}

/// Refusals wait as long as the configuration allows, a minute, so whatever is answered did not wait behind one.
#[tokio::test]
async fn many_failing_logins_hold_neither_worker_nor_place() {
    let dir = tempfile::tempdir().unwrap();
    let mut users = test_support::first_users();
    users.add_user(&"u@pbs".parse().unwrap(), None);
    users.set_password_hash(&"u@pbs".parse().unwrap(), hash_password("right one").unwrap()).unwrap();
    let app = test_support::app_with(dir.path(), users, [], Duration::from_secs(60));
    let server = Arc::new(test_support::serve(app, dir, 2 * GUESSES));
    let app = server.running.app.clone();
    let mut waiting = Vec::new();
    for i in 0..GUESSES {
        let mut stream = server.connect().await;
        let body = login(&format!("guess {i}"));
        let head = "POST /api2/json/access/ticket HTTP/1.1\r\nhost: x\r\ncontent-type: application/json";
        stream.write_all(format!("{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        waiting.push(stream);
    }
    // With all of them sent, before their checks are through, a token and a password get in.
    assert!(server.get("/api2/json/version").await.starts_with("HTTP/1.1 200 "));
    for _ in 0..2 {
        let answer = server.request("POST", "/api2/json/access/ticket", "", Some(&login("right one"))).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:.300}");
    }
    // And when they all wait for their refusal, nothing is held.
    while !app.logins.is_idle() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let answer = server.request("POST", "/api2/json/access/ticket", ADMIN, Some(&login("right one"))).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer:.300}");
    for mut stream in waiting {
        let mut byte = [0];
        let read = tokio::io::AsyncReadExt::read(&mut stream, &mut byte);
        assert!(tokio::time::timeout(Duration::from_millis(1), read).await.is_err(), "a refusal did not wait");
    }
}
