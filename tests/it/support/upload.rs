//! Backup and reader sessions by hand, with encoders of their own so that nothing of the crate checks itself.

use bytes::Bytes;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::daemon::Daemon;
use super::wire::{Conn, OpenStream, Reply, Session, Upgraded};
pub use super::wire::{Reply as Answer, Upgraded as Asked};

/// Protocol name of a backup session.
pub const BACKUP_PROTOCOL: &str = "proxmox-backup-protocol-v1";
/// Protocol name of a reader session.
pub const READER_PROTOCOL: &str = "proxmox-backup-reader-protocol-v1";
/// Chunk size of every fixed index that a server of this protocol makes.
pub const FIXED_CHUNK_BYTES: u64 = 4 << 20;
/// Most recorded backups were made at this time.
pub const FIRST_TIME: i64 = 1_717_597_418;

const PLAIN: [u8; 8] = [0x42, 0xab, 0x38, 0x07, 0xbe, 0x83, 0x70, 0xa1];
const PLAIN_ZSTD: [u8; 8] = [0x31, 0xb9, 0x58, 0x42, 0x6f, 0xb6, 0xa3, 0x7f];

/// A data blob of `plain` (spec 02 §1), compressed where that is shorter.
pub fn encode_blob(plain: &[u8]) -> Bytes {
    let packed = zstd::bulk::compress(plain, 1).expect("zstd");
    let (magic, payload) = if packed.len() < plain.len() { (PLAIN_ZSTD, &packed[..]) } else { (PLAIN, plain) };
    raw_blob(magic, payload)
}

/// A data blob of `plain`, uncompressed.
pub fn encode_plain_blob(plain: &[u8]) -> Bytes {
    raw_blob(PLAIN, plain)
}

/// A blob whose payload is any zstd frame.
pub fn zstd_blob(frame: &[u8]) -> Bytes {
    raw_blob(PLAIN_ZSTD, frame)
}

fn raw_blob(magic: [u8; 8], payload: &[u8]) -> Bytes {
    let mut blob = Vec::with_capacity(12 + payload.len());
    blob.extend_from_slice(&magic);
    blob.extend_from_slice(&crc32fast::hash(payload).to_le_bytes());
    blob.extend_from_slice(payload);
    blob.into()
}

/// The plain bytes of an unencrypted blob; panics if it is not whole.
pub fn decode_blob(blob: &[u8]) -> Vec<u8> {
    let (head, payload) = blob.split_at(12);
    assert_eq!(head[8..], crc32fast::hash(payload).to_le_bytes(), "CRC of a blob");
    match &head[..8] {
        m if m == PLAIN => payload.to_vec(),
        m if m == PLAIN_ZSTD => zstd::stream::decode_all(payload).expect("zstd"),
        other => panic!("magic {}", hex::encode(other)),
    }
}

/// SHA-256 as lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// A chunk ready to be sent.
#[derive(Clone, Debug)]
pub struct Chunk {
    /// Digest of the plain bytes.
    pub digest: String,
    /// How many plain bytes.
    pub size: u64,
    /// Its data blob.
    pub encoded: Bytes,
}

impl Chunk {
    /// A chunk of these bytes.
    pub fn of(plain: &[u8]) -> Self {
        Self { digest: sha256(plain), size: plain.len() as u64, encoded: encode_blob(plain) }
    }

    /// `size` bytes that depend on `seed` and compress well.
    pub fn made(seed: u64, size: u64) -> Self {
        Self::of(&made_bytes(seed, size))
    }

    /// Where its file lies below the datastore.
    pub fn path(&self) -> String {
        chunk_path(&self.digest)
    }
}

/// What [`Chunk::made`] consists of.
pub fn made_bytes(seed: u64, size: u64) -> Vec<u8> {
    let word = Sha256::digest(seed.to_le_bytes());
    word.iter().copied().cycle().take(usize::try_from(size).expect("size")).collect()
}

/// Where a chunk's file lies below the datastore.
pub fn chunk_path(digest: &str) -> String {
    format!(".chunks/{}/{digest}", &digest[..4])
}

/// Which snapshot a session is about.
#[derive(Clone, Debug)]
pub struct Place {
    /// Namespace, empty for the root.
    pub ns: String,
    /// `vm`, `ct` or `host`.
    pub kind: String,
    /// Backup id.
    pub id: String,
    /// Epoch seconds.
    pub time: i64,
}

impl Place {
    /// A snapshot `host/ID` in the root namespace, `hours` after the first time.
    pub fn host(id: &str, hours: i64) -> Self {
        Self { ns: String::new(), kind: "host".into(), id: id.into(), time: FIRST_TIME + 3600 * hours }
    }

    /// Its directory below the datastore.
    pub fn dir(&self) -> String {
        let name = ringvault::clock::EpochSecs(self.time).to_utc_name().expect("a time with a name");
        let ns: String = self.ns.split('/').filter(|c| !c.is_empty()).map(|c| format!("ns/{c}/")).collect();
        format!("{ns}{}/{}/{name}", self.kind, self.id)
    }

    /// As query parameters.
    pub fn query(&self) -> String {
        let Self { ns, kind, id, time } = self;
        let ns = if ns.is_empty() { String::new() } else { format!("&ns={}", ns.replace('/', "%2F")) };
        format!("backup-type={kind}&backup-id={id}&backup-time={time}{ns}")
    }
}

/// An index being filled.
#[derive(Clone, Debug)]
pub struct Writer {
    /// Its number in the session.
    pub wid: u64,
    /// `fixed` or `dynamic`.
    pub kind: &'static str,
    /// Its archive name.
    pub name: String,
    /// What [`Backup::close`] will say.
    pub count: u64,
    /// Plain bytes so far, or the declared size of a fixed index.
    pub size: u64,
    entries: Vec<u8>,
    offset: u64,
}

impl Writer {
    /// The index's checksum so far, entries appended in order.
    pub fn csum(&self) -> String {
        sha256(&self.entries)
    }

    /// The target that closes it.
    pub fn close_target(&self) -> String {
        format!(
            "/{}_close?wid={}&chunk-count={}&size={}&csum={}",
            self.kind,
            self.wid,
            self.count,
            self.size,
            self.csum()
        )
    }
}

/// A backup session.
#[derive(Debug)]
pub struct Backup {
    /// The connection.
    pub session: Session,
    /// What it makes.
    pub place: Place,
    files: Vec<Value>,
}

const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
const OCTETS: [(&str, &str); 1] = [("content-type", "application/octet-stream")];

/// Asks for a backup session.
pub async fn ask_backup(daemon: &Daemon, place: &Place, more: &str) -> Upgraded {
    let target = format!("/api2/json/backup?store={}&{}{more}", daemon.store_name(), place.query());
    let auth = daemon.authorization();
    let conn = Conn::open(daemon.peer()).await.expect("connect");
    conn.upgrade(&target, BACKUP_PROTOCOL, &[("authorization", &auth)]).await.expect("an answer to the upgrade")
}

/// Asks for a reader session.
pub async fn ask_reader(daemon: &Daemon, place: &Place) -> Upgraded {
    let target = format!("/api2/json/reader?store={}&{}", daemon.store_name(), place.query());
    let auth = daemon.authorization();
    let conn = Conn::open(daemon.peer()).await.expect("connect");
    conn.upgrade(&target, READER_PROTOCOL, &[("authorization", &auth)]).await.expect("an answer to the upgrade")
}

/// A REST call on a connection of its own.
pub async fn rest(daemon: &Daemon, method: &str, target: &str, body: &[u8]) -> Reply {
    let auth = daemon.authorization();
    let mut conn = Conn::open(daemon.peer()).await.expect("connect");
    let kind = if body.first() == Some(&b'{') { JSON[0] } else { FORM[0] };
    let reply = conn.call(method, target, &[("authorization", &auth), kind], body).await.expect("an answer");
    conn.close().await;
    reply
}

impl Backup {
    /// Starts a session; panics if it is refused.
    pub async fn start(daemon: &Daemon, place: Place) -> Self {
        let session = ask_backup(daemon, &place, "").await.session();
        Self::from_session(session, place)
    }

    /// Goes on with a session that was asked for by hand.
    pub fn from_session(session: Session, place: Place) -> Self {
        Self { session, place, files: Vec::new() }
    }

    /// A GET request.
    pub async fn get(&self, target: &str) -> Reply {
        self.session.call("GET", target, &FORM, Bytes::new()).await.expect("an answer")
    }

    /// A POST request without a body.
    pub async fn post(&self, target: &str) -> Reply {
        self.session.call("POST", target, &FORM, Bytes::new()).await.expect("an answer")
    }

    /// Creates an index of the kind that `name` ends in; `size` is for fixed ones.
    pub async fn create(&self, name: &str, size: u64, more: &str) -> Writer {
        let (kind, target) = if name.ends_with(".fidx") {
            ("fixed", format!("/fixed_index?archive-name={name}&size={size}{more}"))
        } else {
            ("dynamic", format!("/dynamic_index?archive-name={name}"))
        };
        let wid = self.post(&target).await.data().as_u64().expect("a writer id");
        let size = if kind == "fixed" { size } else { 0 };
        Writer { wid, kind, name: name.to_owned(), count: 0, size, entries: Vec::new(), offset: 0 }
    }

    /// The target that uploads a chunk.
    pub fn chunk_target(writer: &Writer, chunk: &Chunk) -> String {
        let Chunk { digest, size, encoded } = chunk;
        format!("/{}_chunk?wid={}&digest={digest}&size={size}&encoded-size={}", writer.kind, writer.wid, encoded.len())
    }

    /// Begins to upload a chunk.
    pub async fn begin_upload(&self, writer: &Writer, chunk: &Chunk) -> OpenStream {
        let target = Self::chunk_target(writer, chunk);
        self.session.start("POST", &target, &OCTETS, chunk.encoded.clone()).await.expect("a stream")
    }

    /// Uploads a chunk.
    pub async fn upload(&self, writer: &Writer, chunk: &Chunk) -> Reply {
        self.begin_upload(writer, chunk).await.answer().await.expect("an answer")
    }

    /// Names chunks at these offsets.
    pub async fn append_at(&self, writer: &Writer, entries: &[(&str, u64)]) -> Reply {
        let digests: Vec<&str> = entries.iter().map(|(d, _)| *d).collect();
        let offsets: Vec<u64> = entries.iter().map(|(_, o)| *o).collect();
        let body = json!({"wid": writer.wid, "digest-list": digests, "offset-list": offsets}).to_string();
        let target = format!("/{}_index", writer.kind);
        self.session.call("PUT", &target, &JSON, body.into()).await.expect("an answer")
    }

    /// Names chunks, each behind the one before; counts them in `writer` when that succeeds.
    pub async fn append(&self, writer: &mut Writer, chunks: &[&Chunk]) -> Reply {
        let mut next = writer.clone();
        let mut entries = Vec::new();
        for chunk in chunks {
            entries.push((chunk.digest.as_str(), next.offset));
            next.offset += chunk.size;
            next.count += 1;
            if next.kind == "dynamic" {
                next.size = next.offset;
                next.entries.extend_from_slice(&next.offset.to_le_bytes());
            }
            next.entries.extend_from_slice(&hex::decode(&chunk.digest).expect("hex"));
        }
        let reply = self.append_at(writer, &entries).await;
        if reply.status == 200 {
            *writer = next;
        }
        reply
    }

    /// Closes an index and lists it in the manifest.
    pub async fn close(&mut self, writer: &Writer) -> Reply {
        let reply = self.post(&writer.close_target()).await;
        if reply.status == 200 {
            self.list(&writer.name, writer.size, &writer.csum());
        }
        reply
    }

    /// Adds a file to the manifest that [`Self::manifest`] will send.
    pub fn list(&mut self, name: &str, size: u64, csum: &str) {
        self.files.push(json!({"filename": name, "crypt-mode": "none", "size": size, "csum": csum}));
    }

    /// Uploads a blob's stored bytes as they are.
    pub async fn raw_blob(&self, name: &str, encoded: Bytes) -> Reply {
        let target = format!("/blob?file-name={name}&encoded-size={}", encoded.len());
        self.session.call("POST", &target, &OCTETS, encoded).await.expect("an answer")
    }

    /// Uploads a blob and lists it in the manifest.
    pub async fn blob(&mut self, name: &str, plain: &[u8]) -> Reply {
        let encoded = encode_blob(plain);
        let reply = self.raw_blob(name, encoded.clone()).await;
        if reply.status == 200 {
            self.list(name, encoded.len() as u64, &sha256(&encoded));
        }
        reply
    }

    /// The manifest of what was listed so far.
    pub fn manifest_value(&self) -> Value {
        let Place { kind, id, time, .. } = &self.place;
        json!({"backup-type": kind, "backup-id": id, "backup-time": time, "files": self.files, "signature": null, "unprotected": {}})
    }

    /// Uploads the manifest.
    pub async fn manifest(&self) -> Reply {
        self.raw_blob("index.json.blob", encode_blob(self.manifest_value().to_string().as_bytes())).await
    }

    /// Asks to finish.
    pub async fn finish(&self) -> Reply {
        self.post("/finish").await
    }

    /// Manifest, finish and goodbye; panics if one is refused.
    pub async fn complete(self, daemon: &Daemon) {
        self.manifest().await.expect(200, "");
        self.finish().await.expect(200, "");
        self.session.close().await;
        daemon.idle().await;
    }

    /// Leaves without finishing and waits until the daemon has cleaned up.
    pub async fn leave(self, daemon: &Daemon) {
        self.session.close().await;
        daemon.idle().await;
    }
}

/// Makes a whole snapshot with one index of these chunks, each uploaded.
pub async fn full_backup(daemon: &Daemon, place: Place, archive: &str, chunks: &[Chunk]) {
    let mut backup = Backup::start(daemon, place).await;
    let size = chunks.iter().map(|c| c.size).sum();
    let mut writer = backup.create(archive, size, "").await;
    for chunk in chunks {
        backup.upload(&writer, chunk).await.expect(200, &chunk.digest);
    }
    for part in chunks.chunks(128) {
        backup.append(&mut writer, &part.iter().collect::<Vec<_>>()).await.expect(200, "");
    }
    backup.close(&writer).await.expect(200, "");
    backup.complete(daemon).await;
}

/// Reads an index and all its chunks through a reader session: the plain bytes.
pub async fn read_archive(daemon: &Daemon, place: &Place, archive: &str) -> Vec<u8> {
    let reader = ask_reader(daemon, place).await.session();
    let get = async |target: String| reader.call("GET", &target, &FORM, Bytes::new()).await.expect("an answer");
    let index = get(format!("/download?file-name={archive}")).await;
    assert_eq!(index.status, 200, "{}", index.text());
    let (step, skip) = if archive.ends_with(".fidx") { (32, 0) } else { (40, 8) };
    let mut plain = Vec::new();
    for entry in index.body[4096..].chunks(step) {
        let digest = hex::encode(&entry[skip..]);
        let chunk = get(format!("/chunk?digest={digest}")).await;
        assert_eq!(chunk.status, 200, "{}", chunk.text());
        let bytes = decode_blob(&chunk.body);
        assert_eq!(sha256(&bytes), digest);
        plain.extend_from_slice(&bytes);
    }
    reader.close().await;
    daemon.idle().await;
    plain
}
