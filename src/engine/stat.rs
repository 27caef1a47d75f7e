//! What is asked of an engine's presence checks, and what it answers. Pure.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::dir_fd::DirFd;
use super::disk::{FileKind, FileMeta, FileTime};
use super::priority::Urgency;
use crate::clock::EpochSecs;

/// Which engine an operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EngineChoice {
    /// The ring where the kernel grants one, else threads with a warning; warm batches inline.
    #[default]
    Auto,
    /// Every check through the ring; refuses to start where the kernel refuses a ring.
    Uring,
    /// Threads in the place of the ring; warm batches inline.
    Threads,
    /// One check after another.
    Sync,
}

/// How an engine is built.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Which one.
    pub choice: EngineChoice,
    /// Most checks that the kernel's workers (or our threads) have in flight, 1 to 256.
    pub workers: u32,
    /// Threads for blocking file work.
    pub io_threads: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self { choice: EngineChoice::Auto, workers: 64, io_threads: 16 }
    }
}

/// Who waits for a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// A client's append: ahead of everything else.
    Interactive,
    /// Finish, preflight: a client waits, and knows that it takes a while.
    Sweep,
    /// A job: when nobody waits.
    Background,
}

impl Class {
    pub(super) fn urgency(self) -> Urgency {
        if self == Self::Background { Urgency::Background } else { Urgency::Foreground }
    }
}

/// A path relative to the batch's directory, at most 71 bytes, kept inline and NUL-terminated for the kernel.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct StatName {
    bytes: [u8; 72],
}

impl StatName {
    /// `None` if longer than 71 bytes or with a NUL inside.
    pub fn new(path: &str) -> Option<Self> {
        let mut bytes = [0; 72];
        if path.len() >= bytes.len() || path.bytes().any(|b| b == 0) {
            return None;
        }
        bytes[..path.len()].copy_from_slice(path.as_bytes());
        Some(Self { bytes })
    }

    /// The path as the kernel reads it.
    pub fn as_c_str(&self) -> &std::ffi::CStr {
        std::ffi::CStr::from_bytes_until_nul(&self.bytes).expect("the last byte is always NUL")
    }
}

impl fmt::Debug for StatName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_c_str().fmt(f)
    }
}

/// Checks to be made together. Nothing is held while they are made but `dir`.
#[derive(Clone, Debug)]
pub struct StatBatch {
    /// The directory that names are relative to.
    pub dir: Arc<DirFd>,
    /// What to look at; symbolic links are followed.
    pub names: Vec<StatName>,
    /// Whom it serves.
    pub class: Class,
    /// Ask the server of a network file system rather than its cache (`AT_STATX_FORCE_SYNC`).
    pub force_sync: bool,
    /// Ask for the stamps too. Not for files: a network file system writes back what it has of one before it tells its times.
    pub stamps: bool,
}

/// What tells whether a directory was changed: it is the same one, and neither its names nor anything about it has another time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Device number.
    pub device: u64,
    /// Inode number.
    pub ino: u64,
    /// When names in it changed last.
    pub mtime: FileTime,
    /// When anything about it changed last.
    pub ctime: FileTime,
}

/// What `statx` says, mask type, size and access time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// What it is.
    pub kind: FileKind,
    /// `stx_size`.
    pub size_bytes: u64,
    /// `stx_atime`, whole seconds.
    pub accessed: EpochSecs,
    /// All zeros unless the batch asked for stamps.
    pub stamp: Stamp,
}

impl From<FileMeta> for FileStat {
    /// With the stamp.
    fn from(meta: FileMeta) -> Self {
        Self { kind: meta.kind, size_bytes: meta.size_bytes, accessed: meta.accessed, stamp: meta.stamp() }
    }
}

/// The answer to one check; an error is the kernel's number.
pub type StatResult = Result<FileStat, rustix::io::Errno>;

/// Answers in the order of the batch's names.
#[derive(Debug)]
pub struct StatReply {
    /// One per name.
    pub results: Vec<StatResult>,
    /// From the call to the last answer.
    pub elapsed: Duration,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_bounded_and_hold_no_nul() {
        assert_eq!(StatName::new(&"x".repeat(71)).unwrap().as_c_str().to_bytes().len(), 71);
        assert_eq!(StatName::new(&"x".repeat(72)), None);
        assert_eq!(StatName::new("a\0b"), None);
        assert_eq!(StatName::new("").unwrap().as_c_str().to_bytes(), b"");
    }
}
