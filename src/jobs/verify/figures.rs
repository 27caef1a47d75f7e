//! What a verification came to, in numbers. Pure.

use serde::Serialize;

use super::part::Part;

/// Counts of one task. A chunk that several archives name is read once, and named each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Figures {
    /// Snapshots in which all that was looked at is right.
    pub snapshots_ok: u64,
    /// Snapshots that are not right, or could not be looked at.
    pub snapshots_failed: u64,
    /// Snapshots that were left out: verified not long ago, in use, or gone.
    pub snapshots_skipped: u64,
    /// Chunks that the indexes name, each as often as it is named.
    pub chunks_named: u64,
    /// Those of them that were to be looked at: all, unless a part or a sample was asked for.
    pub chunks_chosen: u64,
    /// Chunk files that were read.
    pub chunks_read: u64,
    /// Chunks that are wrong, missing or unreadable, once for each archive that names them.
    pub chunk_errors: u64,
    /// Bytes of the files that were read.
    pub stored_bytes: u64,
    /// Bytes that they hold for clients.
    pub plain_bytes: u64,
}

impl Figures {
    /// For the end of a task that did not read all.
    pub(super) fn of_part(&self, part: &Part) -> String {
        let Self { chunks_named, chunks_chosen, chunks_read, chunk_errors, .. } = self;
        format!(
            "{part}: {chunks_chosen} of {chunks_named} named chunks, {chunks_read} files read, {chunk_errors} errors"
        )
    }
}
