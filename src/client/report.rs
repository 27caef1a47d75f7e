//! What a backup or a restore came to, for people and for programs.

use std::fmt;

use indicatif::HumanBytes;

use super::backup::Options;
use super::repository::Repository;
use crate::types::Digest;

/// One archive of a finished backup.
#[derive(Clone, Debug, serde::Serialize)]
pub struct ArchiveReport {
    /// Its name on the server.
    pub name: String,
    /// Length of its content.
    pub size_bytes: u64,
    /// Chunks that were sent.
    pub chunks_uploaded: u64,
    /// Chunks that the server had, or that were sent before.
    pub chunks_reused: u64,
    /// Bytes read from the source.
    pub bytes_read: u64,
    /// Bytes sent, compressed and with their headers.
    pub bytes_uploaded: u64,
    /// From its first request to its last answer, in seconds.
    pub duration_s: f64,
}

/// A finished backup. The sums are those of all archives.
#[derive(Clone, Debug, serde::Serialize)]
pub struct BackupReport {
    /// `type/id/time`.
    pub snapshot: String,
    /// Empty for the root.
    pub namespace: String,
    /// User, server and datastore.
    pub repository: String,
    /// The snapshot that lent its chunks.
    pub previous: Option<String>,
    /// Chunks that were sent.
    pub chunks_uploaded: u64,
    /// Chunks that the server had, or that were sent before.
    pub chunks_reused: u64,
    /// Bytes read from the sources.
    pub bytes_read: u64,
    /// Bytes sent, the manifest included.
    pub bytes_uploaded: u64,
    /// In seconds, from the start to the answer to `finish`.
    pub duration_s: f64,
    /// In the order of their upload.
    pub archives: Vec<ArchiveReport>,
    /// What went wrong without ending the backup.
    pub warnings: Vec<String>,
}

impl BackupReport {
    pub(super) fn new(
        repository: &Repository,
        options: &Options,
        previous: Option<String>,
        archives: Vec<ArchiveReport>,
        warnings: Vec<String>,
    ) -> Self {
        let sum = |field: fn(&ArchiveReport) -> u64| archives.iter().map(field).sum();
        Self {
            snapshot: options.snapshot.to_string(),
            namespace: options.namespace.to_string(),
            repository: repository.to_string(),
            previous,
            chunks_uploaded: sum(|a| a.chunks_uploaded),
            chunks_reused: sum(|a| a.chunks_reused),
            bytes_read: sum(|a| a.bytes_read),
            bytes_uploaded: sum(|a| a.bytes_uploaded),
            duration_s: 0.0,
            archives,
            warnings,
        }
    }
}

impl fmt::Display for BackupReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for a in &self.archives {
            write!(f, "{}: {}", a.name, HumanBytes(a.bytes_read))?;
            if a.chunks_uploaded + a.chunks_reused > 0 {
                write!(f, ", chunks: {} new, {} reused", a.chunks_uploaded, a.chunks_reused)?;
            }
            writeln!(f, ", {} sent in {:.1} s", HumanBytes(a.bytes_uploaded), a.duration_s)?;
        }
        let (read, sent) = (HumanBytes(self.bytes_read), HumanBytes(self.bytes_uploaded));
        let rate = HumanBytes(rate(self.bytes_read, self.duration_s));
        write!(
            f,
            "{}: {read} read, {sent} sent, chunks: {} new, {} reused, {:.1} s ({rate}/s)",
            self.snapshot, self.chunks_uploaded, self.chunks_reused, self.duration_s
        )
    }
}

/// A finished restore.
#[derive(Clone, Debug, serde::Serialize)]
pub struct RestoreReport {
    /// `type/id/time`.
    pub snapshot: String,
    /// Empty for the root.
    pub namespace: String,
    /// User, server and datastore.
    pub repository: String,
    /// Name of the archive on the server.
    pub archive: String,
    /// Where it went; `-` is standard output.
    pub target: String,
    /// Bytes of the restored content.
    pub bytes_written: u64,
    /// Bytes that came over the wire as chunks or blobs.
    pub bytes_downloaded: u64,
    /// Chunks that were downloaded.
    pub chunks_downloaded: u64,
    /// Checksum that the manifest and the downloaded index, or blob, agree on.
    pub csum: Digest,
    /// In seconds.
    pub duration_s: f64,
}

impl fmt::Display for RestoreReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (written, loaded) = (HumanBytes(self.bytes_written), HumanBytes(self.bytes_downloaded));
        let rate = HumanBytes(rate(self.bytes_written, self.duration_s));
        write!(
            f,
            "{} {} to {}: {written} written, {loaded} in {} chunks downloaded, {:.1} s ({rate}/s)",
            self.snapshot, self.archive, self.target, self.chunks_downloaded, self.duration_s
        )
    }
}

/// Bytes in a second, for people.
#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a figure to be read, and `as` saturates"
)]
fn rate(bytes: u64, duration_s: f64) -> u64 {
    (bytes as f64 / duration_s.max(1e-3)) as u64
}
