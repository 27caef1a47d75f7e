//! An eventfd that ends the sleep of the ring's thread from another one.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;

use io_uring::{opcode, squeue, types};
use rustix::event::{EventfdFlags, PollFlags, eventfd};

use crate::engine::driver::Wake;

/// The eventfd; clones are the same one.
#[derive(Clone, Debug)]
pub(in crate::engine) struct WakeFd {
    fd: Arc<OwnedFd>,
}

impl WakeFd {
    pub(in crate::engine) fn new() -> io::Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// An operation that completes once somebody has called `wake` since the last [`Self::reset`]. A poll rather than a
    /// read: it has no buffer that would have to outlive it.
    pub(super) fn poll(&self) -> squeue::Entry {
        opcode::PollAdd::new(types::Fd(self.fd.as_raw_fd()), u32::from(PollFlags::IN.bits())).build()
    }

    /// Forgets the calls so far.
    pub(super) fn reset(&self) {
        // EAGAIN: somebody else's reset came first; there is nothing to forget then.
        let _ = rustix::io::read(self.fd.as_fd(), &mut [0; 8]);
    }
}

impl Wake for WakeFd {
    #[expect(clippy::host_endian_bytes, reason = "eventfd(2) takes the machine's own order")]
    fn wake(&self) {
        // It fails only when 2^64 - 2 calls are not yet forgotten.
        let _ = rustix::io::write(self.fd.as_fd(), &1u64.to_ne_bytes());
    }
}
