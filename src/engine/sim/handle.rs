//! An open file or directory of a simulated disk.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::io::Errno;

use super::Sim;
use super::effect::{Effect, PAGE_BYTES, pages};
use super::operations::{Entry, Open};
use super::tree::Ino;
use crate::engine::file::{LockMode, SyncScope};
use crate::engine::stat::{FileStat, Stamp, StatName, StatResult};
use crate::engine::{FileKind, FileMeta, Mount};

/// What a descriptor is on a real disk. Its lock ends with it.
#[derive(Debug)]
pub(in crate::engine) struct SimHandle {
    sim: Sim,
    ino: Ino,
    handle: u64,
}

impl SimHandle {
    pub(super) fn new(sim: Sim, ino: Ino, handle: u64) -> Self {
        Self { sim, ino, handle }
    }

    pub(in crate::engine) fn meta(&self) -> io::Result<FileMeta> {
        self.sim.operate(false, |state| state.meta(self.ino))
    }

    pub(in crate::engine) fn mount(&self) -> Mount {
        self.sim.mount()
    }

    pub(in crate::engine) fn lstat(&self, name: &Path) -> io::Result<FileMeta> {
        self.sim.stat(self.ino, name, false)
    }

    /// What a presence check is told.
    pub(in crate::engine) fn file_stat(&self, name: &StatName, stamps: bool) -> StatResult {
        let path = Path::new(OsStr::from_bytes(name.as_c_str().to_bytes()));
        let meta = self.sim.stat(self.ino, path, true).map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO))?;
        let stat = FileStat::from(meta);
        Ok(if stamps { stat } else { FileStat { stamp: Stamp::default(), ..stat } })
    }

    pub(in crate::engine) fn open(&self, name: &Path) -> io::Result<Self> {
        self.sim.open(self.ino, name, Open::READ)
    }

    pub(in crate::engine) fn open_dir(&self, name: &Path, follow: bool) -> io::Result<Self> {
        self.sim.open_dir(self.ino, name, follow)
    }

    pub(in crate::engine) fn entries(&self) -> io::Result<Vec<Entry>> {
        self.sim.read_dir(self.ino, Path::new("."))
    }

    pub(in crate::engine) fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.sim.operate(false, |state| {
            let inode = state.now.get(self.ino).ok_or(Errno::STALE)?;
            if inode.body.kind() == FileKind::Dir {
                return Err(Errno::ISDIR);
            }
            Ok(inode.read(buf, offset))
        })
    }

    pub(in crate::engine) fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        let wanted = buf.len();
        match self.read_at(buf, offset)? {
            read if read == wanted => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "failed to fill whole buffer")),
        }
    }

    /// Page by page: on a full disk the first ones may be written and the last ones not.
    pub(in crate::engine) fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.sim.operate(true, |state| {
            let size = state.meta(self.ino)?.size_bytes;
            let mut end = size;
            let mut full = Ok(());
            for page in pages(self.ino, bytes, offset) {
                let Effect::Page { at, bytes, .. } = &page else { continue };
                let until = at + bytes.len() as u64;
                let has_room = {
                    let stored = state.now.get(self.ino).map_or(0, super::tree::Inode::stored_bytes);
                    let more = until.next_multiple_of(PAGE_BYTES).saturating_sub(stored);
                    more <= state.usage().avail
                };
                if !has_room {
                    full = Err(Errno::NOSPC);
                    break;
                }
                end = end.max(until);
                state.emit(page);
            }
            if end > size {
                state.emit(Effect::Size { ino: self.ino, bytes: end });
            }
            full
        })
    }

    pub(in crate::engine) fn set_len(&self, size_bytes: u64) -> io::Result<()> {
        self.sim.operate(true, |state| {
            state.emit(Effect::Size { ino: self.ino, bytes: size_bytes });
            Ok(())
        })
    }

    pub(in crate::engine) fn chmod(&self, mode: u32) -> io::Result<()> {
        self.sim.operate(true, |state| {
            state.emit(Effect::Mode { ino: self.ino, mode });
            Ok(())
        })
    }

    pub(in crate::engine) fn sync(&self, scope: SyncScope) -> io::Result<()> {
        self.sim.operate(true, |state| {
            state.sync_inode(self.ino, scope);
            Ok(())
        })
    }

    pub(in crate::engine) fn try_flock(&self, mode: LockMode) -> io::Result<()> {
        self.sim.operate(false, |state| {
            let holders = state.locks.entry(self.ino).or_default();
            let clash = |(holder, held): &(u64, LockMode)| {
                *holder != self.handle && (mode == LockMode::Exclusive || *held == LockMode::Exclusive)
            };
            if holders.iter().any(clash) {
                return Err(Errno::WOULDBLOCK);
            }
            holders.retain(|(holder, _)| *holder != self.handle);
            holders.push((self.handle, mode));
            Ok(())
        })
    }

    pub(in crate::engine) fn release_flock(&self) {
        let mut state = self.sim.state.lock();
        if let Some(holders) = state.locks.get_mut(&self.ino) {
            holders.retain(|(holder, _)| *holder != self.handle);
            if holders.is_empty() {
                state.locks.remove(&self.ino);
            }
        }
    }
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        self.release_flock();
    }
}
