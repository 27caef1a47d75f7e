//! What stands below the requests: TLS, the settings of HTTP/2, and the limit of sessions.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use tokio_rustls::rustls;

use crate::support::daemon::{Daemon, Setup, temp_dir};
use crate::support::upload::{Backup, Place, ask_backup, ask_reader, rest};
use crate::support::wire::Conn;

/// One frame's type, flags, stream and payload (RFC 9113 §4.1).
async fn frame(conn: &mut Conn) -> (u8, u8, u32, Vec<u8>) {
    let head = conn.read_raw(9).await.expect("a frame's head");
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
    let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
    let payload = conn.read_raw(length as usize).await.expect("a frame's payload");
    (head[3], head[4], stream, payload.to_vec())
}

#[tokio::test]
async fn a_session_announces_the_windows_that_the_recorded_server_did() {
    let daemon = Daemon::start();
    let authorization = daemon.authorization();
    let mut conn = Conn::open(daemon.peer()).await.unwrap();
    let target = format!("/api2/json/backup?store={}&{}", daemon.store_name(), Place::host("settings", 0).query());
    let headers = [
        ("authorization", authorization.as_str()),
        ("connection", "upgrade"),
        ("upgrade", "proxmox-backup-protocol-v1"),
    ];
    assert_eq!(conn.call("GET", &target, &headers, b"").await.unwrap().status, 101);
    conn.send_raw(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let (kind, flags, stream, payload) = frame(&mut conn).await;
    assert_eq!((kind, flags, stream), (4, 0, 0), "SETTINGS come first");
    let settings: BTreeMap<u16, u32> = payload
        .chunks_exact(6)
        .map(|s| (u16::from_be_bytes([s[0], s[1]]), u32::from_be_bytes([s[2], s[3], s[4], s[5]])))
        .collect();
    // SETTINGS_INITIAL_WINDOW_SIZE, SETTINGS_MAX_FRAME_SIZE.
    assert_eq!((settings[&4], settings[&5]), (32 << 20, 4 << 20), "{settings:?}");
    if let Some(streams) = settings.get(&3) {
        assert!(*streams >= 140, "two archives keep up to 70 requests each in flight: {settings:?}");
    }
    let mut window = 65_535;
    while window < 32 << 20 {
        let (kind, _, stream, payload) = frame(&mut conn).await;
        if (kind, stream) == (8, 0) {
            window += u32::from_be_bytes([payload[0], payload[1], payload[2], payload[3]]);
        }
    }
    assert_eq!(window, 32 << 20, "window of the connection");
    conn.close().await;
    daemon.idle().await;
}

#[tokio::test]
async fn both_versions_of_tls_serve_and_older_ones_are_not_known() {
    let daemon = Daemon::start();
    for (version, agreed) in [
        (&rustls::version::TLS12, rustls::ProtocolVersion::TLSv1_2),
        (&rustls::version::TLS13, rustls::ProtocolVersion::TLSv1_3),
    ] {
        let mut conn = Conn::open_with(daemon.peer(), &[version]).await.unwrap();
        assert_eq!(conn.tls_version(), Some(agreed));
        let answer = conn.call("GET", "/api2/json/ping", &[], b"").await.unwrap();
        assert_eq!(answer.data()["pong"], true);
        conn.close().await;
    }
}

#[tokio::test]
async fn the_certificate_that_the_configuration_names_is_served() {
    let folder = temp_dir();
    let new = ringvault::http::self_signed("backup.example").unwrap();
    let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
    std::fs::write(&chain, &new.chain_pem).unwrap();
    std::fs::write(&key, &new.key_pem).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let server = format!("tls-cert = {chain:?}\ntls-key = {key:?}");
    // The test's client takes the certificate of `connection.env` alone, so that a request passes says that both are this one.
    let daemon = Daemon::with(Setup { server, ..Setup::default() });
    let der = pem_body(&new.chain_pem);
    assert_eq!(daemon.peer().fingerprint[..], Sha256::digest(&der)[..]);
    let mut conn = Conn::open(daemon.peer()).await.unwrap();
    assert_eq!(conn.call("GET", "/api2/json/ping", &[], b"").await.unwrap().status, 200);
    assert!(!daemon.data().join("tls").exists(), "none is made beside it");
}

/// The bytes of the first certificate of a PEM file.
fn pem_body(pem: &str) -> Vec<u8> {
    use rustls::pki_types::pem::PemObject;
    rustls::pki_types::CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate").to_vec()
}

#[tokio::test]
async fn sessions_beyond_the_limit_are_told_so_and_may_come_back() {
    let daemon = Daemon::with(Setup { server: "sessions-max = 1".into(), ..Setup::default() });
    let first = Backup::start(&daemon, Place::host("one", 0)).await;
    let second = Place::host("two", 0);
    ask_backup(&daemon, &second, "").await.refused().expect(400, "1 sessions are running, which is the limit");
    ask_reader(&daemon, &second).await.refused().expect(400, "1 sessions are running, which is the limit");
    assert!(!daemon.has(second.dir()), "nothing is made for a session that is refused");
    assert_eq!(rest(&daemon, "GET", "/api2/json/version", b"").await.status, 200);
    first.leave(&daemon).await;
    Backup::start(&daemon, second).await.leave(&daemon).await;
}
