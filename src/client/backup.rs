//! A whole backup: session, archives one after another, manifest, finish.

use std::collections::HashMap;
use std::fs::File;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;

use super::archive_spec::{self, ArchiveSpec};
use super::index::Index;
use super::known::Known;
use super::observer::Observer;
use super::pipeline::{Outcome, Pipeline, Tally};
use super::report::{ArchiveReport, BackupReport};
use super::rest::Client;
use super::source::{self, Piece, Source};
use super::spawned::Compute;
use super::writer::{BackupSession, Writer};
use crate::error::{Error, Result};
use crate::format::blob::{self, BLOB_ENCODED_BYTES_MAX, Compression};
use crate::format::index::IndexCsum;
use crate::format::manifest::{CryptMode, Manifest, ManifestFile};
use crate::types::{ArchiveName, Digest, MANIFEST_BLOB, Namespace, Snapshot};

/// What to back up, and as what.
#[derive(Clone, Debug)]
pub struct Options {
    /// Group and time of the new snapshot.
    pub snapshot: Snapshot,
    /// Where the group lives.
    pub namespace: Namespace,
    /// The archives, in the order of their upload.
    pub archives: Vec<ArchiveSpec>,
    /// For images whose changes are tracked: the byte ranges that may differ from the previous snapshot. Such an image begins
    /// as a copy of the previous index, and only these ranges are read, as a hypervisor with a dirty bitmap does it. An image
    /// that the previous snapshot does not hold is read in full.
    pub dirty: HashMap<ArchiveName, Vec<Range<u64>>>,
}

impl Options {
    /// A backup of `archives` with no tracked changes, into the root namespace.
    pub fn new(snapshot: Snapshot, archives: Vec<ArchiveSpec>) -> Self {
        Self { snapshot, namespace: Namespace::root(), archives, dirty: HashMap::new() }
    }
}

/// Runs a backup to its end. An error, or dropping the future, cuts the connection, and the server removes the snapshot.
pub async fn run(client: &Client, options: &Options, observer: Arc<dyn Observer>) -> Result<BackupReport> {
    run_once(client, options, observer).await.map_err(advise)
}

/// Says what to do where the server's words alone do not.
fn advise(error: Error) -> Error {
    let text = error.to_string();
    // How servers that check known chunks word it (spec 03 §10).
    if text.contains("known chunk stat failed") || text.contains("stat registered chunks failed") {
        return Error::new(
            error.kind(),
            format!(
                "{text}: a chunk that earlier backups rely on is missing on the server, so this backup was given up; \
                 run it again: it uploads everything and puts the missing chunks back"
            ),
        );
    }
    error
}

async fn run_once(client: &Client, options: &Options, observer: Arc<dyn Observer>) -> Result<BackupReport> {
    let started = Instant::now();
    archive_spec::check_all(&options.archives)?;
    let compute = Compute::new();
    // A typing error in a path must not cost a session.
    let mut sources = Vec::new();
    for spec in &options.archives {
        let opened = spec.clone();
        sources.push(compute.run(move || source::open(&opened)).await??);
    }
    let session = BackupSession::open(client, &options.namespace, &options.snapshot).await?;
    let mut run = Run {
        session: Arc::new(session),
        compute,
        observer,
        previous: None,
        manifest: Manifest::new(&options.snapshot),
        archives: Vec::new(),
        warnings: Vec::new(),
    };
    run.find_previous().await;
    for (spec, source) in options.archives.iter().zip(sources) {
        let name = &spec.name;
        run.archive(name, source, options.dirty.get(name)).await.map_err(|e| e.context(name))?;
    }
    let manifest_bytes = run.finish().await?;
    let previous = run.previous.map(|manifest| manifest.snapshot().to_string());
    let mut report = BackupReport::new(client.repository(), options, previous, run.archives, run.warnings);
    report.bytes_uploaded += manifest_bytes;
    report.duration_s = started.elapsed().as_secs_f64();
    // Every other handle on the session has ended with its request.
    if let Some(session) = Arc::into_inner(run.session) {
        session.close().await;
    }
    Ok(report)
}

/// A backup under way.
struct Run {
    session: Arc<BackupSession>,
    compute: Compute,
    observer: Arc<dyn Observer>,
    previous: Option<Manifest>,
    manifest: Manifest,
    archives: Vec<ArchiveReport>,
    warnings: Vec<String>,
}

impl Run {
    fn warn(&mut self, text: String) {
        self.observer.warns(&text);
        self.warnings.push(text);
    }

    /// Looks for a snapshot that lends its chunks. Whatever goes wrong here only makes the backup a full one.
    async fn find_previous(&mut self) {
        match self.session.previous_backup_time().await {
            Ok(None) => return,
            Ok(Some(_)) => {}
            // The official client goes on to the manifest all the same (spec 06 §2).
            Err(e) => self.warn(format!("the time of the previous backup is not known: {e}")),
        }
        match self.session.previous_manifest().await {
            Ok(manifest) if manifest.key_fingerprint().is_some() => {
                self.warn("the previous backup was made with an encryption key, everything is uploaded".to_owned());
            }
            Ok(manifest) => self.previous = Some(manifest),
            Err(e) => self.warn(format!("the previous backup cannot be used, everything is uploaded: {e}")),
        }
    }

    /// The index of that name in the previous snapshot, if there is one and it is whole.
    async fn previous_index(&mut self, name: &ArchiveName) -> Option<(ManifestFile, Index)> {
        let file = self.previous.as_ref()?.file(name)?.clone();
        if file.crypt_mode == CryptMode::Encrypt {
            return None;
        }
        match self.session.previous_index(&file).await {
            Ok(index) => Some((file, index)),
            Err(e) => {
                self.warn(format!("the previous {name} cannot be used, it is uploaded in full: {e}"));
                None
            }
        }
    }

    async fn archive(&mut self, name: &ArchiveName, source: Source, dirty: Option<&Vec<Range<u64>>>) -> Result<()> {
        let started = Instant::now();
        let mut report = match source {
            Source::Blob(content) => self.blob(name, content).await?,
            Source::Image { file, size_bytes } => self.image(name, file, size_bytes, dirty).await?,
            Source::Stream(stream) => {
                self.observer.begins(name, None);
                let known = self.previous_index(name).await.map(|(_, index)| Known::new(index.digests()));
                let writer = self.session.create_dynamic(name).await?;
                let pieces = source::read_stream(stream)?;
                let outcome =
                    self.upload(writer, known.unwrap_or_default(), pieces, Tally::Dynamic(IndexCsum::new())).await?;
                if outcome.bytes_read == 0 {
                    return Err(Error::invalid("the stream is empty: did the program that writes it fail?"));
                }
                let size_bytes = outcome.bytes_read;
                self.close(name, writer, &outcome, size_bytes).await?
            }
        };
        self.observer.ends(name);
        report.duration_s = started.elapsed().as_secs_f64();
        self.archives.push(report);
        Ok(())
    }

    async fn image(
        &mut self,
        name: &ArchiveName,
        file: File,
        size_bytes: u64,
        dirty: Option<&Vec<Range<u64>>>,
    ) -> Result<ArchiveReport> {
        let previous = self.previous_index(name).await;
        let tracked = dirty.zip(previous.as_ref()).filter(|(_, (file, _))| file.size == size_bytes);
        let (reuse_csum, dirty, tally) = match tracked {
            Some((dirty, (file, index))) => (Some(file.csum), Some(dirty), Tally::Patched(index.digests().collect())),
            None => (None, None, Tally::Fixed(IndexCsum::new())),
        };
        let known = previous.as_ref().map(|(_, index)| Known::new(index.digests())).unwrap_or_default();
        let to_read = super::plan::blocks(size_bytes, dirty.map(Vec::as_slice)).map(|r| r.end - r.start).sum();
        self.observer.begins(name, Some(to_read));
        let pieces = source::read_image(file, size_bytes, dirty.map(Vec::as_slice))?;
        // Its digests are in `known` and `tally` by now.
        drop(previous);
        let writer = self.session.create_fixed(name, size_bytes, reuse_csum).await?;
        let outcome = self.upload(writer, known, pieces, tally).await?;
        self.close(name, writer, &outcome, size_bytes).await
    }

    async fn upload(
        &self,
        writer: Writer,
        known: Known,
        pieces: mpsc::Receiver<Result<Piece>>,
        tally: Tally,
    ) -> Result<Outcome> {
        let pipeline = Pipeline {
            session: self.session.clone(),
            writer,
            known: Arc::new(known),
            compute: self.compute.clone(),
            observer: self.observer.clone(),
        };
        pipeline.run(pieces, tally).await
    }

    async fn close(
        &mut self,
        name: &ArchiveName,
        writer: Writer,
        outcome: &Outcome,
        size_bytes: u64,
    ) -> Result<ArchiveReport> {
        let count = outcome.chunks_uploaded + outcome.chunks_reused;
        self.session.close_index(writer, count, outcome.bytes_read, outcome.csum).await?;
        self.list(name, size_bytes, outcome.csum)?;
        Ok(ArchiveReport {
            name: name.to_string(),
            size_bytes,
            chunks_uploaded: outcome.chunks_uploaded,
            chunks_reused: outcome.chunks_reused,
            bytes_read: outcome.bytes_read,
            bytes_uploaded: outcome.bytes_uploaded,
            duration_s: 0.0,
        })
    }

    async fn blob(&mut self, name: &ArchiveName, content: Vec<u8>) -> Result<ArchiveReport> {
        let bytes_read = content.len() as u64;
        self.observer.begins(name, Some(bytes_read));
        let encode = move || {
            let encoded = blob::encode(&content, Compression::Try);
            (Digest::of(&encoded), Bytes::from(encoded))
        };
        let (csum, encoded) = self.compute.run(encode).await?;
        let size_bytes = encoded.len() as u64;
        if size_bytes > BLOB_ENCODED_BYTES_MAX {
            return Err(Error::invalid("too long for a .conf or .log: use NAME.stream"));
        }
        self.session.upload_blob(name.as_str(), encoded).await?;
        self.list(name, size_bytes, csum)?;
        self.observer.advances(bytes_read);
        Ok(ArchiveReport {
            name: name.to_string(),
            size_bytes: bytes_read,
            chunks_uploaded: 0,
            chunks_reused: 0,
            bytes_read,
            bytes_uploaded: size_bytes,
            duration_s: 0.0,
        })
    }

    fn list(&mut self, name: &ArchiveName, size: u64, csum: Digest) -> Result<()> {
        self.manifest.add_file(ManifestFile { filename: name.clone(), crypt_mode: CryptMode::None, size, csum })
    }

    /// The manifest last, then the server's own checks. How many bytes the manifest took.
    async fn finish(&self) -> Result<u64> {
        let manifest = Bytes::from(self.manifest.to_blob());
        let bytes = manifest.len() as u64;
        self.session.upload_blob(MANIFEST_BLOB, manifest).await.map_err(|e| e.context("manifest"))?;
        self.session.finish().await.map_err(|e| e.context("finish"))?;
        Ok(bytes)
    }
}
