//! The operations of a [`Disk`](crate::engine::Disk) on a simulated one, each as the system call of its name does it.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use super::effect::{Effect, NameChange};
use super::handle::SimHandle;
use super::path::{LastLink, Place};
use super::tree::{Body, Ino, ROOT};
use super::{MAGIC, Sim, State};
use crate::engine::file::SyncScope;
use crate::engine::{FileKind, FileMeta, FsUsage};

/// What is not set of the bits that somebody asks for.
const UMASK: u32 = 0o022;

/// How a file is opened.
#[derive(Clone, Copy, Debug)]
pub(in crate::engine) struct Open {
    pub(in crate::engine) write: bool,
    pub(in crate::engine) create: Option<u32>,
    /// Only if it was not there.
    pub(in crate::engine) exclusive: bool,
    pub(in crate::engine) follow: bool,
}

impl Open {
    pub(in crate::engine) const READ: Self = Self { write: false, create: None, exclusive: false, follow: false };
}

/// Name, kind, inode number.
pub(in crate::engine) type Entry = (OsString, FileKind, Ino);

impl Sim {
    pub(in crate::engine) fn open(&self, start: Ino, path: &Path, how: Open) -> io::Result<SimHandle> {
        let follow = if how.follow { LastLink::Follow } else { LastLink::Keep };
        let (ino, handle) = self.operate(how.create.is_some(), |state| {
            let place = state.at(start, path, follow)?;
            let ino = match (place.ino, how.create) {
                (Some(_), Some(_)) if how.exclusive => return Err(Errno::EXIST),
                (Some(ino), _) => ino,
                (None, None) => return Err(Errno::NOENT),
                (None, Some(mode)) => state.make(&place, Body::empty_file(), mode)?,
            };
            match state.now.get(ino).map(|inode| &inode.body) {
                Some(Body::Link(_)) => Err(Errno::LOOP),
                Some(Body::Dir(_)) if how.write => Err(Errno::ISDIR),
                Some(_) => Ok((ino, state.next_handle())),
                None => Err(Errno::NOENT),
            }
        })?;
        Ok(SimHandle::new(self.clone(), ino, handle))
    }

    pub(in crate::engine) fn open_dir(&self, start: Ino, path: &Path, follow: bool) -> io::Result<SimHandle> {
        let follow = if follow { LastLink::Follow } else { LastLink::Keep };
        let (ino, handle) = self.operate(false, |state| {
            let ino = state.dir(start, path, follow)?;
            Ok((ino, state.next_handle()))
        })?;
        Ok(SimHandle::new(self.clone(), ino, handle))
    }

    pub(in crate::engine) fn stat(&self, start: Ino, path: &Path, follow: bool) -> io::Result<FileMeta> {
        let follow = if follow { LastLink::Follow } else { LastLink::Keep };
        self.operate(false, |state| {
            let ino = state.at(start, path, follow)?.ino.ok_or(Errno::NOENT)?;
            state.meta(ino)
        })
    }

    pub(in crate::engine) fn read_dir(&self, start: Ino, path: &Path) -> io::Result<Vec<Entry>> {
        self.operate(false, |state| {
            let ino = state.dir(start, path, LastLink::Follow)?;
            let Some(Body::Dir(entries)) = state.now.get(ino).map(|inode| &inode.body) else {
                return Err(Errno::NOTDIR);
            };
            let mut all: Vec<Entry> = Vec::with_capacity(entries.len());
            for (name, ino) in entries {
                let inode = state.now.get(*ino).ok_or(Errno::IO)?;
                all.push((name.clone(), inode.body.kind(), *ino));
            }
            // No file system gives them sorted: in an order of their numbers that is the same every time.
            all.sort_by_key(|(_, _, ino)| ino.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            Ok(all)
        })
    }

    pub(in crate::engine) fn mkdir(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.make(path, Body::Dir(BTreeMap::new()), mode)
    }

    /// Makes a symbolic link.
    pub fn symlink(&self, to: &Path, path: &Path) -> io::Result<()> {
        self.make(path, Body::Link(PathBuf::from(to)), 0o777)
    }

    /// Makes a FIFO: something that is no file.
    pub fn mkfifo(&self, path: &Path) -> io::Result<()> {
        self.make(path, Body::Fifo, 0o600)
    }

    fn make(&self, path: &Path, body: Body, mode: u32) -> io::Result<()> {
        self.operate(true, |state| {
            let place = state.at(ROOT, path, LastLink::Keep)?;
            match place.ino {
                Some(_) => Err(Errno::EXIST),
                None => state.make(&place, body, mode).map(drop),
            }
        })
    }

    pub(in crate::engine) fn rmdir(&self, path: &Path) -> io::Result<()> {
        self.operate(true, |state| {
            let place = state.at(ROOT, path, LastLink::Keep)?;
            let ino = place.ino.ok_or(Errno::NOENT)?;
            match state.now.get(ino).map(|inode| &inode.body) {
                Some(Body::Dir(entries)) if entries.is_empty() => state.unname(&place),
                Some(Body::Dir(_)) => Err(Errno::NOTEMPTY),
                _ => Err(Errno::NOTDIR),
            }
        })
    }

    pub(in crate::engine) fn unlink(&self, path: &Path) -> io::Result<()> {
        self.operate(true, |state| {
            let place = state.at(ROOT, path, LastLink::Keep)?;
            let ino = place.ino.ok_or(Errno::NOENT)?;
            match state.now.get(ino).map(|inode| inode.body.kind()) {
                Some(FileKind::Dir) => Err(Errno::ISDIR),
                _ => state.unname(&place),
            }
        })
    }

    pub(in crate::engine) fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.operate(true, |state| {
            let from = state.at(ROOT, from, LastLink::Keep)?;
            let to = state.at(ROOT, to, LastLink::Keep)?;
            let ino = from.ino.ok_or(Errno::NOENT)?;
            let (from_dir, from_name) = from.name.ok_or(Errno::BUSY)?;
            let (to_dir, to_name) = to.name.ok_or(Errno::BUSY)?;
            if to.ino == Some(ino) {
                return Ok(());
            }
            let moved = state.now.get(ino).ok_or(Errno::NOENT)?.body.kind();
            if state.now.is_within(to_dir, ino) {
                return Err(Errno::INVAL);
            }
            if to.ino.is_some_and(|replaced| state.now.is_within(from_dir, replaced)) {
                return Err(Errno::NOTEMPTY);
            }
            if let Some(replaced) = to.ino.and_then(|ino| state.now.get(ino)) {
                match (&replaced.body, moved) {
                    (Body::Dir(entries), FileKind::Dir) if !entries.is_empty() => return Err(Errno::NOTEMPTY),
                    (Body::Dir(_), FileKind::Dir) => {}
                    (Body::Dir(_), _) => return Err(Errno::ISDIR),
                    (_, FileKind::Dir) => return Err(Errno::NOTDIR),
                    _ => {}
                }
            }
            state.emit(Effect::Names(vec![
                NameChange { dir: from_dir, name: from_name, to: None },
                NameChange { dir: to_dir, name: to_name, to: Some(ino) },
            ]));
            Ok(())
        })
    }

    pub(in crate::engine) fn touch(&self, path: &Path) -> io::Result<()> {
        self.change(path, LastLink::Keep, |state, ino| {
            let secs = state.secs;
            state.emit(Effect::Accessed { ino, secs });
        })
    }

    /// Sets the access time of a file, as `touch -a -d` does.
    pub fn set_accessed(&self, path: &Path, secs: i64) -> io::Result<()> {
        self.change(path, LastLink::Keep, |state, ino| state.emit(Effect::Accessed { ino, secs }))
    }

    pub(in crate::engine) fn chmod(&self, path: &Path, mode: u32) -> io::Result<()> {
        self.change(path, LastLink::Follow, |state, ino| state.emit(Effect::Mode { ino, mode }))
    }

    pub(in crate::engine) fn chown(&self, path: &Path, owner: (u32, u32)) -> io::Result<()> {
        self.change(path, LastLink::Keep, |state, ino| state.emit(Effect::Owner { ino, owner }))
    }

    fn change(&self, path: &Path, last: LastLink, change: impl FnOnce(&mut State, Ino)) -> io::Result<()> {
        self.operate(true, |state| {
            let ino = state.at(ROOT, path, last)?.ino.ok_or(Errno::NOENT)?;
            change(state, ino);
            Ok(())
        })
    }

    pub(in crate::engine) fn fsync_dir(&self, path: &Path) -> io::Result<()> {
        self.operate(true, |state| {
            let ino = state.dir(ROOT, path, LastLink::Follow)?;
            state.sync_inode(ino, SyncScope::All);
            Ok(())
        })
    }

    pub(in crate::engine) fn syncfs(&self, path: &Path) -> io::Result<()> {
        self.operate(true, |state| {
            state.dir(ROOT, path, LastLink::Follow)?;
            state.sync_all();
            Ok(())
        })
    }

    pub(in crate::engine) fn usage(&self, path: &Path) -> io::Result<FsUsage> {
        self.operate(false, |state| {
            state.at(ROOT, path, LastLink::Follow)?.ino.ok_or(Errno::NOENT)?;
            Ok(state.usage())
        })
    }

    pub(in crate::engine) fn fs_magic(&self, path: &Path) -> io::Result<u64> {
        self.stat(ROOT, path, true).map(|_| MAGIC)
    }
}

impl State {
    fn next_handle(&mut self) -> u64 {
        self.next_handle += 1;
        self.next_handle
    }

    pub(super) fn meta(&self, ino: Ino) -> Result<FileMeta, Errno> {
        Ok(self.now.get(ino).ok_or(Errno::NOENT)?.meta(self.device, ino))
    }

    fn dir(&self, start: Ino, path: &Path, last: LastLink) -> Result<Ino, Errno> {
        let ino = self.at(start, path, last)?.ino.ok_or(Errno::NOENT)?;
        match &self.now.get(ino).ok_or(Errno::NOENT)?.body {
            Body::Dir(_) => Ok(ino),
            _ => Err(Errno::NOTDIR),
        }
    }

    /// A new inode with a name.
    fn make(&mut self, place: &Place, body: Body, mode: u32) -> Result<Ino, Errno> {
        let (dir, name) = place.name.clone().ok_or(Errno::EXIST)?;
        if self.now.get(dir).is_none_or(|dir| dir.nlink == 0) {
            return Err(Errno::NOENT);
        }
        if self.usage().avail == 0 {
            return Err(Errno::NOSPC);
        }
        let ino = self.next_ino;
        self.next_ino += 1;
        self.emit(Effect::Born { ino, body, mode: mode & !UMASK });
        self.emit(Effect::Names(vec![NameChange { dir, name, to: Some(ino) }]));
        Ok(ino)
    }

    fn unname(&mut self, place: &Place) -> Result<(), Errno> {
        let (dir, name) = place.name.clone().ok_or(Errno::BUSY)?;
        self.emit(Effect::Names(vec![NameChange { dir, name, to: None }]));
        Ok(())
    }
}
