//! Memory for whole chunks, used again and again.
//!
//! A buffer of 4 MiB that is taken from the allocator for each chunk and given back costs a page fault per 4 KiB, about as much processor
//! time as a third of the chunk's SHA-256 (docs/performance.md). These stay mapped while there is work, and are given back when it ends.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use bytes::Bytes;

use crate::sync::Mutex;

/// Room of a buffer that is kept: a chunk of 4 MiB with the longest header, what nearly all are. A longer one is not kept.
const KEPT_BYTES: usize = (4 << 20) + 44;

/// What is shorter is left to the allocator, which has it at hand.
const POOLED_BYTES_MIN: usize = 64 << 10;

/// Buffers kept while nobody uses them, 64 MiB: sixteen chunks under way, which is what one busy session has.
const KEPT_MAX: usize = 16;

/// Buffers of one datastore; cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct BufferPool {
    free: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl BufferPool {
    /// An empty buffer with room for `bytes`.
    pub fn take(&self, bytes: usize) -> Buffer {
        let pooled = (POOLED_BYTES_MIN..=KEPT_BYTES).contains(&bytes);
        let kept = if pooled { self.free.lock().pop() } else { None };
        let bytes = kept.unwrap_or_else(|| Vec::with_capacity(if pooled { KEPT_BYTES } else { bytes }));
        Buffer { bytes, used: 0, home: pooled.then(|| self.clone()) }
    }

    /// Gives everything back that nobody uses; for the end of a session or a job.
    pub fn release(&self) {
        let unused = std::mem::take(&mut *self.free.lock());
        drop(unused);
    }

    /// Buffers that nobody uses now.
    #[cfg(test)]
    fn unused(&self) -> usize {
        self.free.lock().len()
    }
}

/// Bytes in a buffer; goes home when dropped.
#[derive(Default)]
pub struct Buffer {
    /// Initialised memory: what is in use, and behind it what an earlier use has left.
    bytes: Vec<u8>,
    used: usize,
    home: Option<BufferPool>,
}

impl Buffer {
    /// Adds bytes at the end.
    pub fn extend_from_slice(&mut self, more: &[u8]) {
        let end = self.used + more.len();
        if let Some(place) = self.bytes.get_mut(self.used..end) {
            place.copy_from_slice(more);
        } else {
            self.bytes.truncate(self.used);
            self.bytes.extend_from_slice(more);
        }
        self.used = end;
    }

    /// Makes it `bytes` long. What it holds then is arbitrary, to be written over.
    pub(super) fn set_len(&mut self, bytes: usize) {
        if self.bytes.len() < bytes {
            self.bytes.resize(bytes, 0);
        }
        self.used = bytes;
    }

    /// The bytes, shared and unchangeable; the buffer goes home with the last handle on them.
    pub fn freeze(mut self) -> Bytes {
        if self.home.is_some() {
            return Bytes::from_owner(self);
        }
        self.bytes.truncate(self.used);
        Bytes::from(std::mem::take(&mut self.bytes))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let Some(home) = self.home.take() else { return };
        // One that was filled beyond its room has moved, and is as long as it needed to be.
        if !(KEPT_BYTES..=2 * KEPT_BYTES).contains(&self.bytes.capacity()) {
            return;
        }
        let mut free = home.free.lock();
        if free.len() < KEPT_MAX {
            free.push(std::mem::take(&mut self.bytes));
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[..self.used]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.used]
    }
}

impl From<&[u8]> for Buffer {
    fn from(bytes: &[u8]) -> Self {
        Self { bytes: bytes.to_vec(), used: bytes.len(), home: None }
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Buffer").field("bytes", &self.used).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_and_nothing_of_its_earlier_use_is_seen() {
        let pool = BufferPool::default();
        let mut first = pool.take(4 << 20);
        first.extend_from_slice(&[7; 1 << 20]);
        let at = first.as_ptr();
        drop(first);
        assert_eq!(pool.unused(), 1);
        let mut second = pool.take(100_000);
        assert_eq!((second.as_ptr(), &second[..]), (at, &b""[..]));
        second.extend_from_slice(b"abc");
        second.extend_from_slice(&[1; 2 << 20]);
        second.extend_from_slice(b"def");
        assert_eq!((&second[..3], second.len(), &second[3 + (2 << 20)..]), (&b"abc"[..], 6 + (2 << 20), &b"def"[..]));
        second.set_len(4);
        let frozen = second.freeze();
        let again = frozen.slice(1..);
        drop(frozen);
        assert_eq!((&again[..], pool.unused()), (&b"bc\x01"[..], 0), "somebody still reads it");
        drop(again);
        assert_eq!(pool.unused(), 1);
        pool.release();
        assert_eq!(pool.unused(), 0);
    }

    #[test]
    fn no_more_is_kept_than_stated_and_nothing_odd() {
        let pool = BufferPool::default();
        let many: Vec<_> = (0..KEPT_MAX + 5).map(|_| pool.take(1 << 20)).collect();
        drop(many);
        assert_eq!(pool.unused(), KEPT_MAX);
        pool.release();
        for bytes in [0, 1, POOLED_BYTES_MIN - 1, KEPT_BYTES + 1, 16 << 20] {
            let mut buffer = pool.take(bytes);
            buffer.extend_from_slice(b"x");
            assert_eq!(&buffer.freeze()[..], b"x");
        }
        let mut grown = pool.take(POOLED_BYTES_MIN);
        grown.extend_from_slice(&vec![0; 16 << 20]);
        drop(grown);
        assert_eq!(pool.unused(), 0);
    }
}
