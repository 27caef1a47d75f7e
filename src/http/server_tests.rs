//! The server over real sockets, against clients that do not behave.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::test_support::{self, ADMIN, Tested};

fn start(connections_max: usize, unauthenticated: Duration) -> Tested {
    let dir = tempfile::tempdir().unwrap();
    let app = test_support::app_with(dir.path(), test_support::first_users(), [], unauthenticated);
    test_support::serve(app, dir, connections_max)
}

#[track_caller]
fn assert_answer(answer: &str, status: u16, body: &str) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:.400}");
    assert!(answer.ends_with(body), "{answer:.400}");
}

#[tokio::test]
async fn hostile_requests_get_an_answer() {
    let server = start(64, Duration::ZERO);
    assert!(server.get("/api2/json/ping").await.contains("{\"data\":{\"pong\":true}}"));
    assert_answer(&server.get("/api2/json/admin/datastore/%00%00%00/status").await, 400, "the regex pattern");
    assert_answer(&server.get("/api2/json/admin/datastore/..%2F..%2Fetc/status").await, 400, "illegal components");
    assert_answer(&server.get("/api2/json/admin/datastore/%ff/status").await, 404, "path is not UTF-8");
    assert_answer(&server.get(&format!("/api2/json/{}", "a".repeat(10_000))).await, 414, "\r\n\r\n");
    assert_answer(&server.get("/api2/json/backup?store=main").await, 400, "it is not optional.");
    let many: String = (0..200).map(|i| format!("x-{i}: 1\r\n")).collect();
    let request = format!("GET /api2/json/ping HTTP/1.1\r\n{many}\r\n");
    assert_answer(&server.ask(request.as_bytes()).await, 431, "\r\n\r\n");
    let request = format!("GET /api2/json/ping HTTP/1.1\r\nx: {}\r\n\r\n", "a".repeat(100_000));
    // The server closes while this is still being sent, so that the answer may not get through.
    let answer = server.ask(request.as_bytes()).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_answer(&server.ask(b"\x00\x01\x02 rubbish\r\n\r\n").await, 400, "\r\n\r\n");
    // HTTP/2 without an upgrade is not spoken here: closed without a word that such a client would understand.
    assert_eq!(server.ask(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, "");
}

#[tokio::test]
async fn bodies_too_long_or_never_ending_are_refused() {
    let server = start(64, Duration::ZERO);
    let post = |length: &str, body: Vec<u8>| {
        let head = "POST /api2/json/access/ticket HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\nconnection: close\r\n";
        [format!("{head}{length}\r\n\r\n").into_bytes(), body].concat()
    };
    let too_long = "the request body is longer than 524287 bytes";
    let body = vec![b' '; 2 << 20];
    assert_answer(&server.ask(&post(&format!("content-length: {}", body.len()), body.clone())).await, 400, too_long);
    let chunk = [format!("{:x}\r\n", body.len()).into_bytes(), body, b"\r\n0\r\n\r\n".to_vec()].concat();
    assert_answer(&server.ask(&post("transfer-encoding: chunked", chunk)).await, 400, too_long);
    let wrong_length = server.ask(&post("content-length: 5\r\ncontent-length: 6", b"{}".to_vec())).await;
    assert_answer(&wrong_length, 400, "\r\n\r\n");
    // A body that stops in the middle: the client goes away, and its place is free again.
    let mut stream = server.connect().await;
    stream.write_all(&post("content-length: 100", b"{".to_vec())).await.unwrap();
    drop(stream);
    assert!(server.running.shutdown().await);
}

#[tokio::test]
async fn one_connection_serves_many_requests_and_refusals() {
    let server = start(64, Duration::ZERO);
    let mut stream = server.connect().await;
    for (headers, want) in [(ADMIN, "HTTP/1.1 200"), ("", "HTTP/1.1 401"), (ADMIN, "HTTP/1.1 200")] {
        let request = format!("GET //api2/json/version HTTP/1.1\r\nhost: x\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = [0; 1024];
        let count = stream.read(&mut answer).await.unwrap();
        assert!(String::from_utf8_lossy(&answer[..count]).starts_with(want));
    }
}

#[tokio::test]
async fn one_connection_too_many_is_told_so() {
    let server = start(1, Duration::ZERO);
    let held = server.connect().await;
    let answer = server.get("/api2/json/ping").await;
    assert_answer(&answer, 503, "try again later");
    assert!(answer.contains("retry-after: 10"), "{answer}");
    drop(held);
    let started = Instant::now();
    while !server.get("/api2/json/ping").await.starts_with("HTTP/1.1 200") {
        assert!(started.elapsed() < Duration::from_secs(20), "the place did not become free");
    }
}

#[tokio::test]
async fn plain_http_is_sent_to_https_and_rubbish_closed() {
    let server = start(64, Duration::ZERO);
    let mut stream = TcpStream::connect(server.running.local_addr).await.unwrap();
    let request = "POST /x HTTP/1.1\r\nhost: backup.example:8007\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 308 "), "{answer}");
    assert!(answer.contains("location: https://backup.example:8007\r\n"), "{answer}");
    let mut stream = TcpStream::connect(server.running.local_addr).await.unwrap();
    stream.write_all(&[22, 3, 1, 0xff, 0xff, 7, 7, 7]).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(!rest.starts_with(b"HTTP"));
}

#[tokio::test]
async fn a_shutdown_answers_what_is_under_way_and_closes_what_idles() {
    let server = start(64, Duration::from_millis(300));
    let idle = server.connect().await;
    let mut waiting = server.connect().await;
    waiting.write_all(b"GET /api2/json/version HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    let address = server.running.local_addr;
    let started = Instant::now();
    assert!(server.running.shutdown().await);
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
    let mut answer = Vec::new();
    let _ = waiting.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 401"));
    assert!(TcpStream::connect(address).await.is_err());
    drop(idle);
}

#[tokio::test]
async fn no_http2_is_offered() {
    let server = start(64, Duration::ZERO);
    let mut config = (**server.connector.config()).clone();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(server.running.local_addr).await.unwrap();
    let connector = TlsConnector::from(Arc::new(config));
    let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), None);
}
