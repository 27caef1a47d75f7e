//! What an operation does to a disk, in pieces that reach it one by one. Pure.

use std::ffi::OsString;
use std::sync::Arc;

use super::tree::{Body, Ino};
use crate::engine::{FileTime, SyncScope};

/// Bytes that a disk writes whole or not at all.
pub(super) const PAGE_BYTES: u64 = 4096;

/// One piece.
#[derive(Clone, Debug)]
pub(super) enum Effect {
    /// An inode is made. Without it, names that lead to it lead to an empty file.
    Born { ino: Ino, body: Body, mode: u32 },
    /// Permission bits.
    Mode { ino: Ino, mode: u32 },
    /// User and group.
    Owner { ino: Ino, owner: (u32, u32) },
    /// The access time.
    Accessed { ino: Ino, secs: i64 },
    /// A file ends here.
    Size { ino: Ino, bytes: u64 },
    /// Bytes within one page of a file.
    Page { ino: Ino, at: u64, bytes: Arc<[u8]> },
    /// Names that change together or not at all: one of a link, two of a rename.
    Names(Vec<NameChange>),
}

/// A name of a directory leads elsewhere, or nowhere.
#[derive(Clone, Debug)]
pub(super) struct NameChange {
    pub(super) dir: Ino,
    pub(super) name: OsString,
    pub(super) to: Option<Ino>,
}

/// An effect, and when it happened.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) effect: Effect,
    pub(super) at: FileTime,
}

impl Effect {
    /// Whether a sync of the file or directory `synced` makes it durable.
    pub(super) fn is_flushed_by(&self, synced: Ino, scope: SyncScope) -> bool {
        match self {
            Self::Born { ino, .. } | Self::Size { ino, .. } | Self::Page { ino, .. } => *ino == synced,
            Self::Mode { ino, .. } | Self::Owner { ino, .. } | Self::Accessed { ino, .. } => {
                *ino == synced && scope == SyncScope::All
            }
            Self::Names(changes) => changes.iter().any(|change| change.dir == synced),
        }
    }

    /// Whether it is about what files hold rather than about the tree.
    pub(super) fn is_content(&self) -> bool {
        matches!(self, Self::Size { .. } | Self::Page { .. })
    }
}

/// The pages that a write touches.
pub(super) fn pages(ino: Ino, bytes: &[u8], offset: u64) -> Vec<Effect> {
    let mut effects = Vec::new();
    let (mut at, mut left) = (offset, bytes);
    while !left.is_empty() {
        let room = usize::try_from(PAGE_BYTES - at % PAGE_BYTES).expect("no more than a page");
        let (page, rest) = left.split_at(room.min(left.len()));
        effects.push(Effect::Page { ino, at, bytes: page.into() });
        at += page.len() as u64;
        left = rest;
    }
    effects
}
