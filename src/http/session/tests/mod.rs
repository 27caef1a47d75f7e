//! Sessions over HTTP/2 against a small real datastore, without a socket: the client's end of the pipe is in the test.

mod checks;
mod life;
mod restore;

use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::JoinHandle;

use crate::clock::{Clock, EpochSecs};
use crate::engine::{ComputePool, Engine, EngineConfig};
use crate::format::blob::{self, Compression};
use crate::http::{Delays, Lifecycle, backup, reader};
use crate::metrics::{ServerMetrics, SessionKind};
use crate::store::layout::Layout;
use crate::store::{CheckSwitches, Datastore, DatastoreConfig, SyncLevel};
use crate::task;
use crate::types::{AuthId, Digest, Namespace, Snapshot, Upid};

/// 2024-06-05T14:23:38Z, the time of all recordings.
const T0: i64 = 1_717_597_418;

/// Nothing in these tests takes this long unless it hangs.
const TEST_MAX: Duration = Duration::from_secs(30);

/// What a reader's client takes unread; far less than a body can have, so that one can be on its way.
const WINDOW_BYTES: u32 = 1 << 16;

/// What is on its way in a reader's pipe.
const PIPE_BYTES: usize = 64 << 10;

/// A datastore without its 65,536 chunk directories (they are made as chunks come), and what sessions need beside it.
struct World {
    store: Datastore,
    tasks: task::Registry,
    metrics: Arc<ServerMetrics>,
    compute: ComputePool,
    lifecycle: Lifecycle,
    dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        Self::with_checks(CheckSwitches::default()).await
    }

    async fn with_checks(checks: CheckSwitches) -> Self {
        Self::on(Engine::start("test", &EngineConfig::default()).unwrap(), checks).await
    }

    async fn on(engine: Engine, checks: CheckSwitches) -> Self {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("store");
        for (path, mode) in [(base.clone(), 0o755), (base.join(".chunks"), 0o750)] {
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }
        let config = DatastoreConfig {
            sync_level: SyncLevel::None,
            checks,
            ..DatastoreConfig::new("store1".parse().unwrap(), base)
        };
        let clock = Clock::manual(EpochSecs(T0));
        let store = Datastore::open(config, engine, clock.clone()).await.unwrap();
        let tasks = task::Registry::open(&dir.path().join("tasks"), clock).unwrap();
        let metrics = Arc::new(ServerMetrics::new(EpochSecs(T0)));
        let (compute, lifecycle) = (ComputePool::new(2).unwrap(), Lifecycle::new(16));
        Self { store, tasks, metrics, compute, lifecycle, dir }
    }

    fn layout(&self) -> Layout {
        Layout::new(self.store.base_path())
    }

    fn chunk_path(&self, digest: &Digest) -> PathBuf {
        self.layout().chunk(digest)
    }

    fn snapshot_dir(&self, snapshot: &Snapshot) -> PathBuf {
        self.layout().snapshot(&Namespace::root(), snapshot)
    }

    async fn try_backup(&self, group: &str, hours: i64) -> Result<Running, String> {
        let snapshot = snapshot(group, hours);
        let root = Namespace::root();
        let lease = self.store.begin_backup(&root, &snapshot, &auth(), false).await.map_err(|e| e.to_string())?;
        let task = self.tasks.start("backup", Some(format!("store1:{group}")), &auth()).await.unwrap();
        let upid = task.upid().clone();
        let parts = backup::Parts {
            store: self.store.clone(),
            lease,
            task,
            tasks: self.tasks.clone(),
            compute: self.compute.clone(),
            benchmark: false,
            snapshot_path: self.snapshot_dir(&snapshot).display().to_string(),
            counted: self.metrics.begin_session(SessionKind::Backup),
            guard: self.lifecycle.enter().unwrap(),
        };
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let session = tokio::spawn(backup::run(parts, Ok(TokioIo::new(theirs)), self.lifecycle.clone()));
        Ok(Running { client: Client::connect(ours).await, session, upid, snapshot })
    }

    async fn backup(&self, group: &str, hours: i64) -> Running {
        self.try_backup(group, hours).await.unwrap()
    }

    async fn reader(&self, snapshot: &Snapshot) -> Running {
        self.reader_of(snapshot, false).await
    }

    /// The session of a client that will go without a TLS end, if it is rude.
    async fn reader_of(&self, snapshot: &Snapshot, is_rude: bool) -> Running {
        let lease = self.store.begin_reader(&Namespace::root(), snapshot).await.unwrap();
        let task = self.tasks.start("reader", Some("store1:x".into()), &auth()).await.unwrap();
        let upid = task.upid().clone();
        let delays = Delays { unauthenticated: Duration::from_millis(50), denied: Duration::ZERO };
        let parts = reader::Parts {
            store: self.store.clone(),
            lease,
            task,
            compute: self.compute.clone(),
            delays,
            counted: self.metrics.begin_session(SessionKind::Reader),
            guard: self.lifecycle.enter().unwrap(),
        };
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let stream = Rude { stream: theirs, is_rude };
        let session = tokio::spawn(reader::run(parts, Ok(TokioIo::new(stream)), self.lifecycle.clone()));
        let client = Client::connect_with(ours, WINDOW_BYTES).await;
        Running { client, session, upid, snapshot: snapshot.clone() }
    }

    /// The messages of a task's log.
    async fn log(&self, upid: &Upid) -> Vec<String> {
        self.tasks.flush().await;
        let text = std::fs::read_to_string(self.tasks.log_path(upid)).unwrap();
        text.lines().map(|line| line[27..].to_owned()).collect()
    }

    /// `failed` with the task that found it, as the manifest says.
    async fn verify_state(&self, snapshot: &Snapshot) -> Option<String> {
        let loaded = self.store.load_manifest(&Namespace::root(), snapshot).await.unwrap();
        loaded.manifest.verify_state().map(|found| format!("{} {}", found.state.as_str(), found.upid))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // Not an assertion while a test fails already.
        if !std::thread::panicking() {
            assert_eq!(crate::sync::violations(), 0, "a lock was held while the disk worked");
        }
        let _ = &self.dir;
    }
}

fn auth() -> AuthId {
    "tester@pbs!bench".parse().unwrap()
}

fn snapshot(group: &str, hours: i64) -> Snapshot {
    Snapshot::new(group.parse().unwrap(), EpochSecs(T0 + 3600 * hours)).unwrap()
}

/// The server's end of a pipe that reports its end as TLS does if the other side did not announce it.
struct Rude {
    stream: tokio::io::DuplexStream,
    is_rude: bool,
}

impl AsyncRead for Rude {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let had = buf.filled().len();
        let read = std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        match read {
            Ok(()) if self.is_rude && buf.filled().len() == had => {
                Poll::Ready(Err(io::Error::new(io::ErrorKind::UnexpectedEof, "peer closed connection")))
            }
            read => Poll::Ready(read),
        }
    }
}

impl AsyncWrite for Rude {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// A session with its client.
struct Running {
    client: Client,
    session: JoinHandle<()>,
    upid: Upid,
    snapshot: Snapshot,
}

impl Running {
    /// The client goes away without a word; waits until the session has cleaned up.
    async fn vanish(self) -> (Upid, Snapshot) {
        self.client.connection.abort();
        self.over().await
    }

    /// Waits until the session has ended, whoever ends it.
    async fn over(self) -> (Upid, Snapshot) {
        let Self { client: _client, session, upid, snapshot } = self;
        tokio::time::timeout(TEST_MAX, session).await.expect("the session ends").unwrap();
        (upid, snapshot)
    }
}

/// Status, content type, body.
type Answer = (u16, String, Bytes);

#[derive(Clone)]
struct Sender(h2::client::SendRequest<Bytes>);

struct Client {
    sender: Sender,
    connection: JoinHandle<()>,
}

impl Client {
    async fn connect(stream: tokio::io::DuplexStream) -> Self {
        Self::connect_with(stream, 1 << 30).await
    }

    /// A client that takes so many bytes before somebody has read them.
    async fn connect_with(stream: tokio::io::DuplexStream, window: u32) -> Self {
        let mut builder = h2::client::Builder::new();
        builder.initial_window_size(window).initial_connection_window_size(window).max_frame_size(4 << 20);
        let (sender, connection) = builder.handshake(stream).await.unwrap();
        let connection = tokio::spawn(async move { drop(connection.await) });
        Self { sender: Sender(sender), connection }
    }

    async fn call(&self, method: &str, target: &str, body: &[u8]) -> Answer {
        self.sender.clone().call(method, target, "application/octet-stream", body).await.unwrap()
    }

    /// Status and text of a call with parameters in the query.
    async fn ask(&self, method: &str, target: &str) -> (u16, String) {
        let sent = self.sender.clone().call(method, target, "application/x-www-form-urlencoded", b"");
        let (status, _, body) = tokio::time::timeout(TEST_MAX, sent).await.expect("an answer").unwrap();
        (status, String::from_utf8_lossy(&body).into_owned())
    }

    async fn ok(&self, method: &str, target: &str) -> Value {
        let (status, text) = self.ask(method, target).await;
        assert_eq!(status, 200, "{method} {target}: {text}");
        serde_json::from_str::<Value>(&text).unwrap()["data"].clone()
    }

    /// Uploads a chunk.
    async fn chunk(&self, kind: &str, wid: u64, plain: &[u8]) -> Digest {
        let (digest, blob) = (Digest::of(plain), blob::encode(plain, Compression::Try));
        let target =
            format!("/{kind}_chunk?digest={digest}&encoded-size={}&size={}&wid={wid}", blob.len(), plain.len());
        let (status, _, body) = self.call("POST", &target, &blob).await;
        assert_eq!((status, &body[..]), (200, format!("{{\"data\":\"{digest}\"}}").as_bytes()));
        digest
    }

    /// Status and text of an append.
    async fn append(&self, kind: &str, wid: u64, chunks: &[(Digest, u64)]) -> (u16, String) {
        self.sender.clone().append(kind, wid, chunks).await
    }

    async fn blob(&self, name: &str, plain: &[u8]) -> (u64, Digest) {
        let blob = blob::encode(plain, Compression::Try);
        let target = format!("/blob?encoded-size={}&file-name={name}", blob.len());
        let (status, _, body) = self.call("POST", &target, &blob).await;
        assert_eq!((status, &body[..]), (200, &br#"{"data":null}"#[..]));
        (blob.len() as u64, Digest::of(&blob))
    }

    async fn manifest(&self, snapshot: &Snapshot, files: &[(&str, u64, Digest)]) {
        let entry = |(filename, size, csum): &(&str, u64, Digest)| json!({"filename": filename, "crypt-mode": "none", "size": size, "csum": csum});
        let manifest = json!({
            "backup-type": snapshot.group().ty().as_str(),
            "backup-id": snapshot.group().id(),
            "backup-time": snapshot.time(),
            "files": files.iter().map(entry).collect::<Vec<Value>>(),
            "signature": null,
            "unprotected": {},
        });
        self.blob("index.json.blob", manifest.to_string().as_bytes()).await;
    }
}

impl Sender {
    async fn append(self, kind: &str, wid: u64, chunks: &[(Digest, u64)]) -> (u16, String) {
        let (digests, offsets): (Vec<Digest>, Vec<u64>) = chunks.iter().copied().unzip();
        let body = json!({"wid": wid, "digest-list": digests, "offset-list": offsets}).to_string();
        let target = format!("/{kind}_index");
        let (status, _, text) = self.call("PUT", &target, "application/json", body.as_bytes()).await.unwrap();
        (status, String::from_utf8_lossy(&text).into_owned())
    }

    async fn call(self, method: &str, target: &str, content_type: &str, body: &[u8]) -> Result<Answer, h2::Error> {
        let mut sender = self.0.ready().await?;
        let request = http::Request::builder()
            .method(method)
            .uri(format!("https://localhost:8007{target}"))
            .header("content-type", content_type)
            .body(())
            .unwrap();
        let (response, mut stream) = sender.send_request(request, body.is_empty())?;
        if !body.is_empty() {
            // A body that is refused is cut off; the answer tells why.
            let _ = stream.send_data(Bytes::copy_from_slice(body), true);
        }
        let response = response.await?;
        let status = response.status().as_u16();
        let content_type = response.headers().get("content-type").map_or("", |text| text.to_str().unwrap()).to_owned();
        let (mut received, mut body) = (BytesMut::new(), response.into_body());
        while let Some(data) = body.data().await {
            let data = data?;
            body.flow_control().release_capacity(data.len())?;
            received.extend_from_slice(&data);
        }
        Ok((status, content_type, received.freeze()))
    }
}

/// Chunks of a dynamic archive: each a seed's own, of unequal lengths.
fn plain(seed: u64) -> Vec<u8> {
    let text = format!("chunk {seed}, ");
    text.as_bytes().iter().copied().cycle().take(1000 + usize::try_from(seed).unwrap() % 500).collect()
}

/// Chunks with their offsets, the whole length, and the checksum of the index.
fn dynamic_index(seeds: &[u64]) -> (Vec<(Digest, u64)>, u64, Digest) {
    let (mut chunks, mut end, mut entries) = (Vec::new(), 0, Vec::new());
    for seed in seeds {
        let (digest, start) = (Digest::of(&plain(*seed)), end);
        end += plain(*seed).len() as u64;
        entries.extend_from_slice(&end.to_le_bytes());
        entries.extend_from_slice(&digest.0);
        chunks.push((digest, start));
    }
    (chunks, end, Digest::of(&entries))
}

const ARCHIVE: &str = "root.pxar.didx";

/// Opens a writer, uploads what `known` does not say is there, appends, closes. The first refusal ends it.
async fn write_archive(client: &Client, seeds: &[u64], known: &[u64]) -> Result<(u64, Digest), (u16, String)> {
    let wid = client.ok("POST", &format!("/dynamic_index?archive-name={ARCHIVE}")).await.as_u64().unwrap();
    for seed in seeds.iter().filter(|seed| !known.contains(seed)) {
        client.chunk("dynamic", wid, &plain(*seed)).await;
    }
    let (chunks, size, csum) = dynamic_index(seeds);
    for part in chunks.chunks(128) {
        let answer = client.append("dynamic", wid, part).await;
        if answer.0 != 200 {
            return Err(answer);
        }
    }
    let count = chunks.len();
    client.ok("POST", &format!("/dynamic_close?chunk-count={count}&csum={csum}&size={size}&wid={wid}")).await;
    Ok((size, csum))
}

/// A whole first backup of `seeds`.
async fn full_backup(world: &World, group: &str, hours: i64, seeds: &[u64]) -> Snapshot {
    let session = world.backup(group, hours).await;
    let (size, csum) = write_archive(&session.client, seeds, &[]).await.unwrap();
    session.client.manifest(&session.snapshot, &[(ARCHIVE, size, csum)]).await;
    session.client.ok("POST", "/finish").await;
    session.vanish().await.1
}

#[expect(clippy::disallowed_methods, reason = "a test does to the store what no part of the daemon would")]
fn put(path: &std::path::Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
}
