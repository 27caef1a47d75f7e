//! What an answer of `statx` says about a chunk. Pure.
//!
//! Design §3: *missing* is no such entry, not a regular file, or shorter than a blob header, and nothing else. Any other error
//! means that the check could not be made; it never counts against the chunk or the snapshot that lent it.

use std::fmt;
use std::time::Duration;

use rustix::io::Errno;

use crate::engine::{FileKind, FileStat};
use crate::format::blob::BLOB_BYTES_MIN;
use crate::types::Digest;

/// Why a chunk counts as missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MissingReason {
    /// No entry of that name.
    Absent,
    /// A directory, a device, … in its place.
    NotRegular,
    /// A file that is too short to hold even the header of a blob.
    TooShort {
        /// Its length.
        size_bytes: u64,
    },
}

impl fmt::Display for MissingReason {
    /// `Absent` in the words of the original, so that log watchers keep working (spec 03 §10).
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("No such file or directory (os error 2)"),
            Self::NotRegular => f.write_str("not a regular file"),
            Self::TooShort { size_bytes } => {
                write!(f, "file has {size_bytes} bytes, fewer than the {BLOB_BYTES_MIN} of a blob header")
            }
        }
    }
}

/// What one answer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// There, with a plausible size. Nothing is said about its content.
    Present,
    /// Not there.
    Missing(MissingReason),
    /// The question was not answered.
    Unknown(Errno),
}

/// Sorts an answer of the engine.
pub fn classify(answer: std::result::Result<FileStat, Errno>) -> Presence {
    match answer {
        Ok(FileStat { kind: FileKind::File, size_bytes, .. }) if size_bytes >= BLOB_BYTES_MIN => Presence::Present,
        Ok(FileStat { kind: FileKind::File, size_bytes, .. }) => {
            Presence::Missing(MissingReason::TooShort { size_bytes })
        }
        Ok(_) => Presence::Missing(MissingReason::NotRegular),
        Err(Errno::NOENT) => Presence::Missing(MissingReason::Absent),
        Err(errno) => Presence::Unknown(errno),
    }
}

/// What became of a list of digests.
#[derive(Clone, Debug, Default)]
pub struct CheckReport {
    /// Not there, in the order asked.
    pub missing: Vec<(Digest, MissingReason)>,
    /// Could not be checked, in the order asked; the kernel's error number.
    pub unchecked: Vec<(Digest, Errno)>,
    /// How many were asked.
    pub checked: usize,
    /// Of these: seen as regular files by name in a directory that was read. Their sizes were not looked at.
    pub by_name: usize,
    /// Directories that were read for it.
    pub directories: usize,
    /// How long it took.
    pub elapsed: Duration,
}

impl CheckReport {
    /// Whether every digest asked for was seen present.
    pub fn all_present(&self) -> bool {
        self.missing.is_empty() && self.unchecked.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::EpochSecs;
    use crate::engine::Stamp;

    #[test]
    fn only_three_things_count_as_missing() {
        let accessed = EpochSecs(0);
        let file = |size_bytes| Ok(FileStat { kind: FileKind::File, size_bytes, accessed, stamp: Stamp::default() });
        let other = |kind| Ok(FileStat { kind, size_bytes: 4096, accessed, stamp: Stamp::default() });
        for (answer, verdict) in [
            (file(12), Presence::Present),
            (file(u64::MAX), Presence::Present),
            (file(0), Presence::Missing(MissingReason::TooShort { size_bytes: 0 })),
            (file(11), Presence::Missing(MissingReason::TooShort { size_bytes: 11 })),
            (other(FileKind::Dir), Presence::Missing(MissingReason::NotRegular)),
            (other(FileKind::Other), Presence::Missing(MissingReason::NotRegular)),
            (Err(Errno::NOENT), Presence::Missing(MissingReason::Absent)),
            (Err(Errno::IO), Presence::Unknown(Errno::IO)),
            (Err(Errno::STALE), Presence::Unknown(Errno::STALE)),
            (Err(Errno::ACCESS), Presence::Unknown(Errno::ACCESS)),
            (Err(Errno::TIMEDOUT), Presence::Unknown(Errno::TIMEDOUT)),
            (Err(Errno::LOOP), Presence::Unknown(Errno::LOOP)),
            (Err(Errno::NOTDIR), Presence::Unknown(Errno::NOTDIR)),
        ] {
            assert_eq!(classify(answer), verdict, "{answer:?}");
        }
    }
}
