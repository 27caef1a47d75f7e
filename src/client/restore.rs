//! A whole restore: manifest, index, chunks several at a time, each checked before it is written.
//!
//! Memory: the index, plus [`Options::chunks_in_flight`] chunks, each held twice (as stored and decoded) while it is decoded.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

use super::archive_spec;
use super::index::{Index, Slot};
use super::observer::Observer;
use super::reader::ReaderSession;
use super::report::RestoreReport;
use super::rest::Client;
use super::source::is_zero;
use super::spawned::{Compute, Spawned};
use super::target::{Target, TargetPath};
use crate::error::{Error, IoContext, Kind, Result};
use crate::format::blob::{self, CrcPolicy};
use crate::format::manifest::{CryptMode, Manifest, ManifestFile};
use crate::types::{
    ArchiveKind, ArchiveName, CHUNK_BYTES_MAX, CLIENT_LOG_BLOB, Digest, MANIFEST_BLOB, Namespace, Snapshot,
};

/// Chunks between request and disk. The official client asks for one at a time; eight hide a round trip of 20 ms at
/// 1.6 GB/s.
pub const CHUNKS_IN_FLIGHT: usize = 8;

/// Most that may be asked for: half a gigabyte of chunks of 4 MiB, and more than a server of ours has under way for one session.
pub const CHUNKS_IN_FLIGHT_MAX: usize = 64;

/// What to restore, and where to.
#[derive(Clone, Debug)]
pub struct Options {
    /// The snapshot.
    pub snapshot: Snapshot,
    /// Where its group lives.
    pub namespace: Namespace,
    /// Name of the archive, with or without the server's extension; `index.json` for the manifest, `client.log`.
    pub archive: String,
    /// Where its content goes.
    pub target: TargetPath,
    /// Replace an existing file.
    pub force: bool,
    /// Chunks between request and disk, 1 to [`CHUNKS_IN_FLIGHT_MAX`]; [`CHUNKS_IN_FLIGHT`] suits most.
    pub chunks_in_flight: usize,
}

/// Runs a restore to its end. After an error, or when the future is dropped, no new file is left behind.
pub async fn run(client: &Client, options: &Options, observer: Arc<dyn Observer>) -> Result<RestoreReport> {
    let started = Instant::now();
    let compute = Compute::new();
    let session = Arc::new(ReaderSession::open(client, &options.namespace, &options.snapshot).await?);
    let manifest = session.manifest(&options.snapshot).await?;
    let wanted = find(&options.archive, &manifest)?;
    // A blob says itself whether it is encrypted; the escrowed key is listed as such, and is not.
    if let Wanted::Listed(file) = &wanted
        && file.crypt_mode == CryptMode::Encrypt
        && file.filename.kind() != ArchiveKind::Blob
    {
        return Err(encrypted().context(&file.filename));
    }
    if manifest.is_signed() {
        observer.warns("the manifest is signed; without the key its signature was not checked");
    }
    let (path, force) = (options.target.clone(), options.force);
    let target = compute.run(move || Target::open(&path, force)).await??;
    // The writing thread may not live to clean up when the program is interrupted; this does.
    let _cleanup = target.cleanup();
    let in_flight = options.chunks_in_flight.clamp(1, CHUNKS_IN_FLIGHT_MAX);
    let run = Run { session, compute, observer, in_flight };
    let name = wanted.name();
    let done = run.restore(&wanted, &manifest, target).await.map_err(|e| e.context(&name))?;
    run.observer.ends(&name);
    if let Some(session) = Arc::into_inner(run.session) {
        session.close().await;
    }
    Ok(RestoreReport {
        snapshot: options.snapshot.to_string(),
        namespace: options.namespace.to_string(),
        repository: client.repository().to_string(),
        archive: name.to_string(),
        target: options.target.to_string(),
        bytes_written: done.bytes_written,
        bytes_downloaded: done.bytes_downloaded,
        chunks_downloaded: done.chunks_downloaded,
        csum: done.csum,
        duration_s: started.elapsed().as_secs_f64(),
    })
}

fn encrypted() -> Error {
    Error::invalid(
        "this archive is encrypted, and this client knows no keys: restore it with the official client and its key file",
    )
}

/// What the name on the command line stands for.
enum Wanted {
    /// An archive of the manifest.
    Listed(ManifestFile),
    /// The manifest's own text.
    Manifest,
    /// The log that a client may have added; no manifest lists it.
    Log,
}

impl Wanted {
    fn name(&self) -> ArchiveName {
        let fixed = |name: &str| name.parse().expect("a name of the protocol");
        match self {
            Self::Listed(file) => file.filename.clone(),
            Self::Manifest => fixed(MANIFEST_BLOB),
            Self::Log => fixed(CLIENT_LOG_BLOB),
        }
    }
}

fn find(asked: &str, manifest: &Manifest) -> Result<Wanted> {
    let names = manifest.files().iter().map(|file| &file.filename);
    if let Some(file) = archive_spec::find(asked, names.clone()).and_then(|name| manifest.file(name)) {
        return Ok(Wanted::Listed(file.clone()));
    }
    match asked.strip_suffix(".blob").unwrap_or(asked) {
        "index.json" => Ok(Wanted::Manifest),
        "client.log" => Ok(Wanted::Log),
        _ => {
            let listed: Vec<&str> = names.map(ArchiveName::as_str).collect();
            Err(Error::not_found(format!(
                "{} has no archive {asked:.120?}; it has {}",
                manifest.snapshot(),
                if listed.is_empty() { "none".to_owned() } else { listed.join(", ") }
            )))
        }
    }
}

struct Run {
    session: Arc<ReaderSession>,
    compute: Compute,
    observer: Arc<dyn Observer>,
    in_flight: usize,
}

struct Done {
    bytes_written: u64,
    bytes_downloaded: u64,
    chunks_downloaded: u64,
    csum: Digest,
}

/// Decoded bytes on their way to the target; the permit is the chunk's place among those in flight.
struct Block {
    bytes: Arc<Vec<u8>>,
    _permit: Option<OwnedSemaphorePermit>,
}

impl Run {
    async fn restore(&self, wanted: &Wanted, manifest: &Manifest, target: Target) -> Result<Done> {
        match wanted {
            Wanted::Manifest => {
                let text = manifest.to_json_pretty().into_bytes();
                let csum = Digest::of(&text);
                self.write_whole(&wanted.name(), text, 0, csum, target).await
            }
            Wanted::Listed(file) if file.filename.kind() != ArchiveKind::Blob => self.chunks(file, target).await,
            Wanted::Listed(file) => self.blob(&file.filename, Some(file), target).await,
            Wanted::Log => self.blob(&wanted.name(), None, target).await,
        }
    }

    async fn blob(&self, name: &ArchiveName, listed: Option<&ManifestFile>, target: Target) -> Result<Done> {
        let encoded = self.session.blob(name).await?;
        let (csum, size) = (Digest::of(&encoded), encoded.len() as u64);
        if let Some(file) = listed
            && (file.csum != csum || file.size != size)
        {
            return Err(Error::corrupt(format!(
                "the server sent {size} bytes with checksum {csum}, the manifest says {} bytes and {}",
                file.size, file.csum
            )));
        }
        if blob::check_crc(&encoded)?.is_encrypted() {
            return Err(encrypted());
        }
        let decode = move || blob::decode(&encoded, u64::from(CHUNK_BYTES_MAX), CrcPolicy::Ignore);
        let text = self.compute.run(decode).await??;
        self.write_whole(name, text, size, csum, target).await
    }

    async fn write_whole(
        &self,
        name: &ArchiveName,
        text: Vec<u8>,
        downloaded: u64,
        csum: Digest,
        mut target: Target,
    ) -> Result<Done> {
        let size = text.len() as u64;
        self.observer.begins(name, Some(size));
        let write = move || {
            target.write(&text)?;
            target.complete()
        };
        let bytes_written = self.compute.run(write).await??;
        self.observer.advances(size);
        Ok(Done { bytes_written, bytes_downloaded: downloaded, chunks_downloaded: 0, csum })
    }

    async fn chunks(&self, file: &ManifestFile, target: Target) -> Result<Done> {
        self.observer.begins(&file.filename, Some(file.size));
        let index = self.session.index(file).await?;
        let (tx, rx) = mpsc::channel(1);
        let writer = Writing::start(target, rx, self.observer.clone())?;
        let fetched = self.fetch(&index, tx).await;
        // The target's own error, such as a full disk, is why nobody takes the blocks any more.
        let bytes_written = match (writer.join().await, fetched.as_ref()) {
            (Err(e), _) => return Err(e),
            (Ok(_), Err(_)) => 0,
            (Ok(bytes), Ok(_)) => bytes,
        };
        let (chunks_downloaded, bytes_downloaded) = fetched?;
        Ok(Done { bytes_written, bytes_downloaded, chunks_downloaded, csum: file.csum })
    }

    /// Asks for the chunks, so many ahead as may be in flight, and hands them on in order. How many there were, and how many bytes.
    async fn fetch(&self, index: &Index, out: mpsc::Sender<Message>) -> Result<(u64, u64)> {
        let permits = Arc::new(Semaphore::new(self.in_flight));
        let mut ahead: VecDeque<Ahead> = VecDeque::new();
        let mut slots = index.slots().fuse();
        // Many images are mostly zeros: once their chunk was fetched and checked, it is not asked for again.
        let mut zero: Option<(Slot, Arc<Vec<u8>>)> = None;
        let (mut chunks, mut bytes) = (0, 0);
        loop {
            while ahead.len() < self.in_flight
                && let Some(slot) = slots.next()
            {
                ahead.push_back(match &zero {
                    Some((known, zeros)) if is_same_chunk(known, &slot) => Ahead::Zeros(zeros.clone()),
                    _ => {
                        let (session, compute, permits) = (self.session.clone(), self.compute.clone(), permits.clone());
                        let observer = self.observer.clone();
                        let fetch = async move { fetch_one(&session, &compute, permits, slot, &*observer).await };
                        Ahead::Fetch(Spawned::start(fetch))
                    }
                });
            }
            let block = match ahead.pop_front() {
                Some(Ahead::Fetch(next)) => {
                    let fetched = next.join().await??;
                    chunks += 1;
                    bytes += fetched.encoded_bytes;
                    if fetched.is_zero && zero.is_none() {
                        zero = Some((fetched.slot, fetched.block.bytes.clone()));
                    }
                    fetched.block
                }
                Some(Ahead::Zeros(zeros)) => Block { bytes: zeros, _permit: None },
                None => break,
            };
            if out.send(Message::Block(block)).await.is_err() {
                return Err(Error::closed("the target takes no more"));
            }
        }
        let _ = out.send(Message::End).await;
        Ok((chunks, bytes))
    }
}

fn is_same_chunk(a: &Slot, b: &Slot) -> bool {
    a.digest == b.digest && a.range.end - a.range.start == b.range.end - b.range.start
}

/// What comes next in the archive.
enum Ahead {
    Fetch(Spawned<Result<Fetched>>),
    Zeros(Arc<Vec<u8>>),
}

struct Fetched {
    slot: Slot,
    block: Block,
    encoded_bytes: u64,
    is_zero: bool,
}

/// Downloads one chunk and checks CRC, digest and length.
async fn fetch_one(
    session: &ReaderSession,
    compute: &Compute,
    permits: Arc<Semaphore>,
    slot: Slot,
    observer: &dyn Observer,
) -> Result<Fetched> {
    let permit = permits.acquire_owned().await.map_err(|_| Error::closed("the restore ended early"))?;
    let context = |e: Error| match e.kind() {
        // The connection broke, or this machine is at fault: the snapshot may be whole.
        Kind::Io | Kind::Closed => e,
        kind => Error::new(
            kind,
            format!(
                "chunk {} at byte {} - {e}; this archive cannot be restored as it is: try another snapshot of the group",
                slot.digest, slot.range.start
            ),
        ),
    };
    let begun = Instant::now();
    let encoded = session.chunk(slot.digest).await.map_err(context)?;
    observer.downloads(slot.range.end - slot.range.start, begun.elapsed());
    let encoded_bytes = encoded.len() as u64;
    let (digest, size_bytes) = (slot.digest, slot.range.end - slot.range.start);
    let check = move || {
        let plain = blob::decode(&encoded, u64::from(CHUNK_BYTES_MAX), CrcPolicy::Check)?;
        let found = Digest::of(&plain);
        if found != digest {
            return Err(Error::corrupt(format!(
                "its content has the digest {found}: the chunk is damaged on the server"
            )));
        }
        if plain.len() as u64 != size_bytes {
            return Err(Error::corrupt(format!("it holds {} bytes, the index says {size_bytes}", plain.len())));
        }
        let is_zero = is_zero(&plain);
        Ok((plain, is_zero))
    };
    let (plain, is_zero) = compute.run(check).await?.map_err(context)?;
    let block = Block { bytes: Arc::new(plain), _permit: Some(permit) };
    Ok(Fetched { slot, block, encoded_bytes, is_zero })
}

/// To the writing thread. Without an `End` the target is not complete and must vanish.
enum Message {
    Block(Block),
    End,
}

/// The thread that writes.
struct Writing(tokio::sync::oneshot::Receiver<Result<u64>>);

impl Writing {
    fn start(mut target: Target, mut blocks: mpsc::Receiver<Message>, observer: Arc<dyn Observer>) -> Result<Self> {
        let (tx, rx) = tokio::sync::oneshot::channel();
        let write = move || -> Result<u64> {
            while let Some(message) = blocks.blocking_recv() {
                match message {
                    Message::Block(block) => {
                        target.write(&block.bytes)?;
                        observer.advances(block.bytes.len() as u64);
                    }
                    Message::End => return target.complete(),
                }
            }
            Ok(0)
        };
        let thread = std::thread::Builder::new().name("rv-write".into());
        // Nobody may be left to hear it.
        thread.spawn(move || drop(tx.send(write()))).io_context(|| "cannot start the writing thread")?;
        Ok(Self(rx))
    }

    /// Bytes written; 0 if the blocks ended before their end.
    async fn join(self) -> Result<u64> {
        self.0.await.unwrap_or_else(|_| Err(Error::new(Kind::Closed, "the writing thread ended early")))
    }
}
