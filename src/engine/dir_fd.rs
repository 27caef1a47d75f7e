//! A directory's descriptor, of the kernel's disk or of a simulated one.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::file::{LockMode, release_flock, try_flock};
use super::sim::SimHandle;

/// An open directory, to which names are relative.
#[derive(Debug)]
pub struct DirFd(Place);

#[derive(Debug)]
enum Place {
    Kernel(OwnedFd),
    Sim(SimHandle),
}

impl From<OwnedFd> for DirFd {
    fn from(fd: OwnedFd) -> Self {
        Self(Place::Kernel(fd))
    }
}

impl From<SimHandle> for DirFd {
    fn from(handle: SimHandle) -> Self {
        Self(Place::Sim(handle))
    }
}

impl AsFd for DirFd {
    /// Panics for a directory of a simulated disk, which is asked before anything comes to a system call.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Place::Kernel(fd) => fd.as_fd(),
            Place::Sim(handle) => panic!("{handle:?} has no descriptor"),
        }
    }
}

impl DirFd {
    pub(super) fn sim(&self) -> Option<&SimHandle> {
        match &self.0 {
            Place::Kernel(_) => None,
            Place::Sim(handle) => Some(handle),
        }
    }

    /// `flock(2)` without waiting; `WouldBlock` when somebody holds it.
    pub fn try_flock(&self, mode: LockMode) -> io::Result<()> {
        match &self.0 {
            Place::Kernel(fd) => try_flock(fd, mode),
            Place::Sim(handle) => handle.try_flock(mode),
        }
    }

    /// Gives up a `flock(2)` at once. Closing the descriptor does so too, but only when a child process that is just being started does
    /// not have a copy of it.
    pub fn release_flock(&self) -> io::Result<()> {
        match &self.0 {
            Place::Kernel(fd) => release_flock(fd),
            Place::Sim(handle) => {
                handle.release_flock();
                Ok(())
            }
        }
    }
}
