//! What is no HTTP at all.

use std::time::Duration;

use super::assert_still_serves;
use crate::support::daemon::Daemon;
use crate::support::wire::Conn;

#[tokio::test]
async fn malformed_http() {
    let daemon = Daemon::start();
    let huge = format!("GET / HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(20_000));
    for bytes in [
        &b"\r\n\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: x\r\n\r\n",
        b"GET /\0 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /api2/json/access/ticket HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n",
        b"POST /api2/json/access/ticket HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\nhello!",
        b"POST /api2/json/access/ticket HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        &[0xff; 5000],
        huge.as_bytes(),
        many.as_bytes(),
    ] {
        let mut conn = Conn::open(daemon.peer()).await.unwrap();
        if conn.send_raw(bytes).await.is_ok() && conn.end_sending().await.is_ok() {
            match tokio::time::timeout(Duration::from_secs(20), conn.receive(false)).await {
                Ok(Ok(reply)) => assert!((400..=505).contains(&reply.status), "{}", reply.status),
                Ok(Err(_)) => {}
                Err(_) => {
                    panic!("{:?}: neither an answer nor an end", String::from_utf8_lossy(&bytes[..bytes.len().min(60)]))
                }
            }
        }
    }
    assert_still_serves(&daemon, "after").await;
}
