//! What a simulated disk holds at a moment: inodes, and the names that lead to them. Pure.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

use super::effect::{Effect, NameChange};
use crate::clock::EpochSecs;
use crate::engine::{FileKind, FileMeta, FileTime};

/// Number of an inode; never used twice.
pub(in crate::engine) type Ino = u64;

/// The directory that every path begins at.
pub(in crate::engine) const ROOT: Ino = 1;

/// What a directory says is its size.
const DIR_BYTES: u64 = 4096;

/// One file, directory or link.
#[derive(Clone, Debug)]
pub(super) struct Inode {
    pub(super) mode: u32,
    pub(super) owner: (u32, u32),
    pub(super) accessed: i64,
    pub(super) mtime: FileTime,
    pub(super) ctime: FileTime,
    pub(super) nlink: u64,
    pub(super) body: Body,
}

/// What it holds.
#[derive(Clone, Debug)]
pub(super) enum Body {
    /// Bytes up to `size`; those that nobody wrote are zero. What lies behind `size` cannot be read.
    File {
        bytes: Vec<u8>,
        size: u64,
    },
    Dir(BTreeMap<OsString, Ino>),
    Link(PathBuf),
    Fifo,
}

impl Body {
    pub(super) fn empty_file() -> Self {
        Self::File { bytes: Vec::new(), size: 0 }
    }

    pub(super) fn kind(&self) -> FileKind {
        match self {
            Self::File { .. } => FileKind::File,
            Self::Dir(_) => FileKind::Dir,
            Self::Link(_) | Self::Fifo => FileKind::Other,
        }
    }
}

impl Inode {
    pub(super) fn new(body: Body, mode: u32, now: FileTime) -> Self {
        Self { mode, owner: (0, 0), accessed: now.secs, mtime: now, ctime: now, nlink: 0, body }
    }

    pub(super) fn size(&self) -> u64 {
        match &self.body {
            Body::File { size, .. } => *size,
            Body::Dir(_) => DIR_BYTES,
            Body::Link(to) => to.as_os_str().len() as u64,
            Body::Fifo => 0,
        }
    }

    /// What its content takes on the disk.
    pub(super) fn stored_bytes(&self) -> u64 {
        match &self.body {
            Body::File { bytes, .. } => (bytes.len() as u64).next_multiple_of(super::effect::PAGE_BYTES),
            _ => 0,
        }
    }

    pub(super) fn meta(&self, dev: u64, ino: Ino) -> FileMeta {
        FileMeta {
            kind: self.body.kind(),
            size_bytes: self.size(),
            mode: self.mode,
            uid: self.owner.0,
            gid: self.owner.1,
            dev,
            ino,
            nlink: self.nlink,
            mtime: self.mtime,
            ctime: self.ctime,
            accessed: EpochSecs(self.accessed),
        }
    }

    /// Up to `buf.len()` bytes at `offset`.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let Body::File { bytes, size } = &self.body else { return 0 };
        let left = usize::try_from(size.saturating_sub(offset)).unwrap_or(usize::MAX);
        let length = left.min(buf.len());
        let buf = &mut buf[..length];
        buf.fill(0);
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let written = (bytes.len() - from).min(length);
        buf[..written].copy_from_slice(&bytes[from..from + written]);
        length
    }
}

/// All inodes. A clone shares them until either side changes one.
#[derive(Clone, Debug)]
pub(super) struct Tree {
    inodes: Vec<Option<Arc<Inode>>>,
}

impl Tree {
    /// An empty root directory.
    pub(super) fn new(now: FileTime) -> Self {
        let mut root = Inode::new(Body::Dir(BTreeMap::new()), 0o755, now);
        root.nlink = 1;
        let mut tree = Self { inodes: Vec::new() };
        tree.put(ROOT, root);
        tree
    }

    fn put(&mut self, ino: Ino, inode: Inode) {
        let at = place(ino);
        if self.inodes.len() <= at {
            self.inodes.resize(at + 1, None);
        }
        self.inodes[at] = Some(Arc::new(inode));
    }

    pub(super) fn get(&self, ino: Ino) -> Option<&Inode> {
        self.inodes.get(place(ino))?.as_deref()
    }

    fn edit(&mut self, ino: Ino) -> Option<&mut Inode> {
        self.inodes.get_mut(place(ino))?.as_mut().map(Arc::make_mut)
    }

    /// Whether `dir` is the directory `above`, or below it.
    pub(super) fn is_within(&self, dir: Ino, above: Ino) -> bool {
        dir == above
            || match self.get(above).map(|inode| &inode.body) {
                Some(Body::Dir(entries)) => entries.values().any(|below| self.is_within(dir, *below)),
                _ => false,
            }
    }

    /// What all files that have a name take.
    pub(super) fn stored_bytes(&self) -> u64 {
        self.inodes.iter().flatten().filter(|inode| inode.nlink > 0).map(|inode| inode.stored_bytes()).sum()
    }

    /// What a name in a directory leads to.
    pub(super) fn entry(&self, dir: Ino, name: &std::ffi::OsStr) -> Option<Ino> {
        match &self.get(dir)?.body {
            Body::Dir(entries) => entries.get(name).copied(),
            _ => None,
        }
    }

    /// Does what one effect does. What it is about may be missing on a disk that lost something before; then it does nothing.
    pub(super) fn apply(&mut self, effect: &Effect, now: FileTime) {
        match effect {
            Effect::Born { ino, body, mode } => {
                // Its names may have come before it.
                let nlink = self.get(*ino).map_or(0, |inode| inode.nlink);
                let mut inode = Inode::new(body.clone(), *mode, now);
                inode.nlink = nlink;
                self.put(*ino, inode);
            }
            Effect::Mode { ino, mode } => self.change(*ino, now, |inode| inode.mode = *mode),
            Effect::Owner { ino, owner } => self.change(*ino, now, |inode| inode.owner = *owner),
            Effect::Accessed { ino, secs } => self.change(*ino, now, |inode| inode.accessed = *secs),
            Effect::Size { ino, bytes } => self.change(*ino, now, |inode| {
                inode.mtime = now;
                if let Body::File { bytes: content, size } = &mut inode.body {
                    *size = *bytes;
                    // What is cut off does not come back when it grows again.
                    content.truncate(usize::try_from(*bytes).unwrap_or(usize::MAX));
                }
            }),
            Effect::Page { ino, at, bytes } => self.change(*ino, now, |inode| {
                inode.mtime = now;
                if let Body::File { bytes: content, .. } = &mut inode.body {
                    let at = usize::try_from(*at).expect("it fits into memory");
                    if content.len() < at + bytes.len() {
                        content.resize(at + bytes.len(), 0);
                    }
                    content[at..at + bytes.len()].copy_from_slice(bytes);
                }
            }),
            Effect::Names(changes) => changes.iter().for_each(|change| self.rename(change, now)),
        }
    }

    fn change(&mut self, ino: Ino, now: FileTime, change: impl FnOnce(&mut Inode)) {
        if let Some(inode) = self.edit(ino) {
            inode.ctime = now;
            change(inode);
        }
    }

    fn rename(&mut self, change: &NameChange, now: FileTime) {
        let Some(dir) = self.edit(change.dir) else { return };
        let Body::Dir(entries) = &mut dir.body else { return };
        let before = match change.to {
            Some(ino) => entries.insert(change.name.clone(), ino),
            None => entries.remove(&change.name),
        };
        (dir.mtime, dir.ctime) = (now, now);
        if let Some(ino) = before {
            self.change(ino, now, |inode| inode.nlink = inode.nlink.saturating_sub(1));
        }
        if let Some(ino) = change.to {
            // A name whose inode never reached the disk leads to an empty file.
            if self.get(ino).is_none() {
                self.put(ino, Inode::new(Body::empty_file(), 0o600, now));
            }
            self.change(ino, now, |inode| inode.nlink += 1);
        }
    }
}

fn place(ino: Ino) -> usize {
    usize::try_from(ino).expect("it fits into memory")
}
