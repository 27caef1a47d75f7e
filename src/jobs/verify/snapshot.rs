//! One snapshot: its manifest, its files one after another, and the state that is written into the manifest (spec 07 §3.2).

use super::chunks::Bench;
use super::scope::Filter;
use super::verdict::speaks_of_data;
use crate::error::{Error, Kind, Result};
use crate::format::blob::{self, BLOB_ENCODED_BYTES_MAX};
use crate::format::manifest::{CryptMode, Manifest, ManifestFile, VerifyOutcome, VerifyState};
use crate::store::layout::Layout;
use crate::store::{Operation, ReaderLease, SCAN_BLOCK_BYTES};
use crate::types::{ArchiveKind, Digest, Namespace, Snapshot};

/// Longest plaintext of a blob: what encoders take (spec 02 §1).
const BLOB_PLAIN_BYTES_MAX: u64 = 128 << 20;

/// What became of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// All is right.
    Ok,
    /// It was not looked at, for a reason that is no fault.
    Skipped,
    /// Something is wrong, or could not be seen to be right.
    Failed,
}

/// What became of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum FileOutcome {
    Ok,
    /// Nobody knows: the machine failed.
    Unknown,
    /// Wrong or missing.
    Wrong,
}

impl Bench<'_> {
    /// Verifies a snapshot. Errors of its files are logged and counted; one that is returned ends the task.
    pub(super) async fn verify_snapshot(
        &mut self,
        ns: &Namespace,
        snapshot: &Snapshot,
        filter: &Filter,
    ) -> Result<Outcome> {
        let outcome = self.look_at(ns, snapshot, filter).await?;
        *match outcome {
            Outcome::Ok => &mut self.figures.snapshots_ok,
            Outcome::Failed => &mut self.figures.snapshots_failed,
            Outcome::Skipped => &mut self.figures.snapshots_skipped,
        } += 1;
        Ok(outcome)
    }

    async fn look_at(&mut self, ns: &Namespace, snapshot: &Snapshot, filter: &Filter) -> Result<Outcome> {
        let (store, task, shown) = (self.store, self.task, self.shown(ns, snapshot));
        // A datastore that went into maintenance has no snapshots to skip.
        let _reading = store.begin_operation(Operation::Read)?;
        let lease = match store.begin_reader(ns, snapshot).await {
            Ok(lease) => lease,
            // In use, or gone.
            Err(e) if matches!(e.kind(), Kind::Busy | Kind::Invalid) => {
                if e.kind() == Kind::Invalid {
                    // One that somebody removed, or all of them: the disk has gone.
                    store.confirm_place().await?;
                }
                task.log(format!("SKIPPED: verify {shown} - {e}"));
                return Ok(Outcome::Skipped);
            }
            Err(e) => return self.not_verified(&shown, e),
        };
        let loaded = store.load_manifest(ns, snapshot).await;
        let state = loaded.as_ref().ok().and_then(|loaded| loaded.manifest.verify_state());
        let is_ours = |state: &VerifyState| self.trail.as_ref().is_some_and(|trail| trail.is_ours(&state.upid));
        let done = state.as_ref().filter(|state| is_ours(state)).map(|state| state.state);
        let outcome = match loaded {
            _ if done == Some(VerifyOutcome::Ok) => {
                task.log(format!("SKIPPED: verify {shown} (verified by the run that was cut off)"));
                Ok(Outcome::Skipped)
            }
            _ if done == Some(VerifyOutcome::Failed) => {
                task.log(format!("SKIPPED: verify {shown} (failed in the run that was cut off, see its log)"));
                Ok(Outcome::Failed)
            }
            _ if !filter.wants(state.as_ref(), store.clock().now()) => {
                task.log(format!("SKIPPED: verify {shown} (recently verified)"));
                Ok(Outcome::Skipped)
            }
            Ok(loaded) => self.verify_files(&lease, &shown, &loaded.manifest).await,
            Err(e) if e.kind() == Kind::Closed => Err(e),
            Err(e) => {
                task.log(format!("verify {shown} - manifest load error: {e}"));
                Ok(Outcome::Failed)
            }
        };
        lease.release().await;
        self.keep_trail().await;
        outcome
    }

    fn not_verified(&self, shown: &str, e: Error) -> Result<Outcome> {
        if e.kind() == Kind::Closed {
            return Err(e);
        }
        self.task.log(format!("verify {shown} failed: {e}"));
        Ok(Outcome::Failed)
    }

    async fn verify_files(&mut self, lease: &ReaderLease, shown: &str, manifest: &Manifest) -> Result<Outcome> {
        self.task.log(format!("verify {shown}"));
        let mut worst = FileOutcome::Ok;
        for file in manifest.files() {
            self.task.log(format!("  check {}", file.filename));
            let outcome = match self.verify_file(lease, file).await {
                Ok(()) => continue,
                Err(Fault::Ends(e)) => return Err(e),
                Err(Fault::File(outcome, text)) => {
                    self.task.log(format!("verify {shown}/{} failed: {text}", file.filename));
                    outcome
                }
            };
            worst = worst.max(outcome);
        }
        let state = match worst {
            // What was not read may be wrong: the state tells of whole verifications.
            FileOutcome::Ok if !self.part.is_all() => return Ok(Outcome::Ok),
            FileOutcome::Ok => VerifyOutcome::Ok,
            FileOutcome::Wrong => VerifyOutcome::Failed,
            FileOutcome::Unknown => {
                // Either the datastore has gone, and then so has everything else,
                self.store.confirm_place().await?;
                // or this was about these files: a mark would say more than is known.
                self.task.log(format!("verify {shown}: not all of it could be read, its state stays as it was"));
                return Ok(Outcome::Failed);
            }
        };
        let found = VerifyState { state, upid: self.task.upid().to_string() };
        let edit = move |manifest: &mut Manifest| manifest.set_verify_state(found);
        match self.store.update_manifest(lease.namespace(), lease.snapshot(), edit).await {
            Ok(()) if state == VerifyOutcome::Ok => Ok(Outcome::Ok),
            Ok(()) => Ok(Outcome::Failed),
            Err(e) => self.not_verified(shown, e.context("manifest update failed")),
        }
    }

    async fn verify_file(&mut self, lease: &ReaderLease, file: &ManifestFile) -> Result<(), Fault> {
        match file.filename.kind() {
            ArchiveKind::Blob => self.verify_blob(lease, file).await,
            ArchiveKind::FixedIndex | ArchiveKind::DynamicIndex => self.verify_index(lease, file).await,
        }
    }

    async fn verify_blob(&self, lease: &ReaderLease, file: &ManifestFile) -> Result<(), Fault> {
        let turn = self.share.take(1, file.size.min(BLOB_ENCODED_BYTES_MAX)).await;
        let encoded = lease.open_blob(&file.filename).await?.read_all(BLOB_ENCODED_BYTES_MAX).await?;
        drop(turn);
        let ManifestFile { crypt_mode, size, csum, .. } = *file;
        let path = Layout::new(self.store.base_path()).snapshot(lease.namespace(), lease.snapshot());
        let path = path.join(file.filename.as_str());
        let check = move || -> Result<()> {
            let loading = |e: Error| e.context(format!("unable to load blob '{path:?}'"));
            blob::check_crc(&encoded).map_err(loading)?;
            check_size(size, encoded.len() as u64)?;
            check_csum(&csum, &Digest::of(&encoded))?;
            if crypt_mode != CryptMode::Encrypt {
                blob::decode(&encoded, BLOB_PLAIN_BYTES_MAX, blob::CrcPolicy::Ignore).map_err(loading)?;
            }
            Ok(())
        };
        Ok(self.compute.run(check).await.map_err(Fault::Ends)??)
    }

    async fn verify_index(&mut self, lease: &ReaderLease, file: &ManifestFile) -> Result<(), Fault> {
        let index = lease.open_index(&file.filename).await?.in_background();
        check_size(file.size, index.size_bytes())?;
        let mut scan = index.scan();
        loop {
            let _turn = self.share.take(1, SCAN_BLOCK_BYTES.min(scan.left_bytes())).await;
            if scan.next_block().await?.is_none() {
                break;
            }
        }
        if let Some(csum) = scan.csum() {
            check_csum(&file.csum, &csum)?;
        }
        let encrypted = file.crypt_mode == CryptMode::Encrypt;
        let tally = self.verify_chunks(&index, encrypted).await?;
        match (tally.errors(), tally.unknown()) {
            (0, _) => Ok(()),
            (errors, unknown) if errors > unknown => {
                Err(Fault::File(FileOutcome::Wrong, "chunks could not be verified".to_owned()))
            }
            _ => Err(Fault::File(FileOutcome::Unknown, "chunks could not be read".to_owned())),
        }
    }

    /// `STORE:vm/100/TIME`; below the root the path in the datastore, which the original leaves out.
    pub(super) fn shown(&self, ns: &Namespace, below: impl std::fmt::Display) -> String {
        format!("{}:{}", self.store.name(), path_of(ns, below))
    }
}

/// `vm/100`, or `ns/a/ns/b/vm/100`.
pub(super) fn path_of(ns: &Namespace, below: impl std::fmt::Display) -> String {
    let parents: String = ns.components().iter().map(|name| format!("ns/{name}/")).collect();
    format!("{parents}{below}")
}

/// Why a file is not verified.
#[derive(Debug)]
enum Fault {
    /// This file is not what it should be.
    File(FileOutcome, String),
    /// The task ends.
    Ends(Error),
}

impl From<Error> for Fault {
    fn from(e: Error) -> Self {
        match e.kind() {
            Kind::Closed => Self::Ends(e),
            _ if speaks_of_data(&e) => Self::File(FileOutcome::Wrong, e.to_string()),
            _ => Self::File(FileOutcome::Unknown, e.to_string()),
        }
    }
}

fn check_size(listed: u64, found: u64) -> Result<()> {
    if listed == found { Ok(()) } else { Err(Error::corrupt(format!("wrong size ({listed} != {found})"))) }
}

fn check_csum(listed: &Digest, found: &Digest) -> Result<()> {
    if listed == found { Ok(()) } else { Err(Error::corrupt("wrong index checksum")) }
}
