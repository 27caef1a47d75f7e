//! What a request asks for, and how many there were.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use super::held;

/// What a request asks for: the words of the kernel's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A name is looked up.
    Lookup,
    /// An inode's attributes are read.
    Getattr,
    /// Mode, owner, size or times are changed.
    Setattr,
    /// A file is opened.
    Open,
    /// A directory is opened.
    Opendir,
    /// A part of a directory is listed.
    Readdir,
    /// A file is made and opened.
    Create,
    /// A directory is made.
    Mkdir,
    /// A file loses its name.
    Unlink,
    /// A directory is removed.
    Rmdir,
    /// A name is changed; counted under both names, once in the totals.
    Rename,
    /// Free space is asked for.
    Statfs,
    /// Data is read.
    Read,
    /// Data is written.
    Write,
    /// A file or a directory is to be on the disk.
    Fsync,
    /// A descriptor is closed. It costs no delay.
    Flush,
    /// A file is no longer used by anybody. It costs no delay.
    Release,
}

/// Which of the two delays a request has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Names, attributes, directories.
    Metadata,
    /// Contents: reads, writes, and waiting until they are on the disk.
    Data,
    /// What the kernel says without waiting for an answer that matters.
    Free,
}

impl Op {
    /// All of them, in the order of [`Op`].
    pub const ALL: [Self; 17] = [
        Self::Lookup,
        Self::Getattr,
        Self::Setattr,
        Self::Open,
        Self::Opendir,
        Self::Readdir,
        Self::Create,
        Self::Mkdir,
        Self::Unlink,
        Self::Rmdir,
        Self::Rename,
        Self::Statfs,
        Self::Read,
        Self::Write,
        Self::Fsync,
        Self::Flush,
        Self::Release,
    ];

    /// Its name in reports.
    pub fn name(self) -> &'static str {
        match self {
            Self::Lookup => "lookup",
            Self::Getattr => "getattr",
            Self::Setattr => "setattr",
            Self::Open => "open",
            Self::Opendir => "opendir",
            Self::Readdir => "readdir",
            Self::Create => "create",
            Self::Mkdir => "mkdir",
            Self::Unlink => "unlink",
            Self::Rmdir => "rmdir",
            Self::Rename => "rename",
            Self::Statfs => "statfs",
            Self::Read => "read",
            Self::Write => "write",
            Self::Fsync => "fsync",
            Self::Flush => "flush",
            Self::Release => "release",
        }
    }

    /// Which delay it has.
    pub fn class(self) -> Class {
        match self {
            Self::Read | Self::Write | Self::Fsync => Class::Data,
            Self::Flush | Self::Release => Class::Free,
            _ => Class::Metadata,
        }
    }
}

/// Counters of a mounted file system.
#[derive(Debug, Default)]
pub struct Counts {
    totals: [AtomicU64; Op::ALL.len()],
    by_name: Mutex<HashMap<(OsString, Op), u64>>,
    /// Bytes read by clients.
    pub read_bytes: AtomicU64,
    /// Bytes written by clients.
    pub written_bytes: AtomicU64,
}

impl Counts {
    /// Counts a request.
    pub fn add(&self, op: Op) {
        self.totals[op as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts it under the name of its file as well.
    pub fn add_name(&self, name: &OsStr, op: Op) {
        *held(&self.by_name).entry((name.to_owned(), op)).or_default() += 1;
    }

    /// How many there were of this kind.
    pub fn total(&self, op: Op) -> u64 {
        self.totals[op as usize].load(Ordering::Relaxed)
    }

    /// How many there were of this kind and name.
    pub fn of_name(&self, name: &OsStr, op: Op) -> u64 {
        held(&self.by_name).get(&(name.to_owned(), op)).copied().unwrap_or(0)
    }

    /// Starts again from zero.
    pub fn reset(&self) {
        held(&self.by_name).clear();
        self.totals.iter().chain([&self.read_bytes, &self.written_bytes]).for_each(|n| n.store(0, Ordering::Relaxed));
    }
}
