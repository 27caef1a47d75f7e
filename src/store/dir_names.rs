//! What garbage collection has found in the chunk directories, kept for the next one: the form of it, and when it counts. Pure.
//!
//! ```text
//! file       header, block, block, …                              all numbers little-endian
//! header     "RVGCNAME" | version u32 | boot 16 | device u64 | mount u64 | inode of .chunks u64 | written i64 | CRC-32 of all that
//! block      bytes u32 | directories u32 | CRC-32 of these two and the bytes | bytes          one for each 256 directories of which any is known
//! directory  prefix u16 | listed i64 | inode u64 | mtime i64, u32 | ctime i64, u32 | measured u32 | their bytes u64 | chunks u32 | 8 bytes a chunk
//! ```
//!
//! A directory is in it only if it held nothing but chunks. Of a chunk, those bytes of its digest are kept that the set of live chunks compares.
//!
//! What the file says is never a reason to remove anything. It is one not to look: so what matters is only that it does not say for ever what is not so.

use crate::engine::{FileTime, Mount, Stamp};

/// Directories of a block: the unit in which it is read and written, so that memory is bounded. Of a datastore with 200 chunks a directory it has 420 KB.
pub const BLOCK_DIRS: u32 = 256;

/// Longest block: 128 times what a petabyte of chunks of 4 MiB takes. A longer one was not written by us, and is not.
pub const BLOCK_BYTES_MAX: usize = 64 << 20;

/// Bytes of a header.
pub const HEADER_BYTES: usize = 8 + 4 + 16 + 8 + 8 + 8 + 8 + 4;

/// Bytes before those of a block.
pub const BLOCK_HEAD_BYTES: usize = 12;

const MAGIC: &[u8; 8] = b"RVGCNAME";

/// Form of what is kept; another one is not understood.
const VERSION: u32 = 1;

const DIR_BYTES: usize = 2 + 8 + 8 + 12 + 12 + 4 + 8 + 4;
const PRINT_BYTES: usize = 8;

/// What was changed this recently may be changed again without another stamp: two seconds are the coarsest stamps that there are (FAT); ext4 and others
/// have them as coarse as a tick of the kernel.
const RACY_SECS: i64 = 2;

/// After this a directory is read again, whatever its stamp says, so that nothing which is not so stays for ever.
const AGE_MAX_SECS: i64 = 30 * 86_400;

/// By how much earlier, at most: the first run has read all of them on the same day, and they are not to come due on the same day.
const AGE_SPREAD_SECS: i64 = 15 * 86_400;

/// Where and when a file was written: it counts there only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Boot, device and mount of `.chunks`. Behind an unmounted file system's back, a repair may take names from a directory and leave its times.
    pub boot: [u8; 16],
    /// Device number.
    pub device: u64,
    /// Of the mount.
    pub mount: u64,
    /// Inode number of `.chunks`.
    pub chunks_ino: u64,
    /// By the clock of the file system.
    pub written: i64,
}

/// What a directory held when it was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownDir {
    /// Which one.
    pub prefix: u16,
    /// When it was read, by the clock of the file system: seconds.
    pub listed: i64,
    /// Its stamp then. The device is that of the header.
    pub stamp: Stamp,
    /// Chunks whose size was asked for then.
    pub measured: u32,
    /// Their bytes.
    pub measured_bytes: u64,
    /// The fingerprints of all of its chunks.
    pub prints: Vec<u64>,
}

impl Header {
    /// For a datastore at this mount; `token` stands for a mount that has no number.
    pub fn new(mount: &Mount, token: u64, chunks_ino: u64, written: i64) -> Self {
        let Mount { boot, device, id } = *mount;
        Self { boot, device, mount: id.unwrap_or(token), chunks_ino, written }
    }

    /// As bytes.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = Vec::with_capacity(HEADER_BYTES);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&VERSION.to_le_bytes());
        bytes.extend_from_slice(&self.boot);
        for number in [self.device, self.mount, self.chunks_ino] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.written.to_le_bytes());
        bytes.extend_from_slice(&crc32fast::hash(&bytes).to_le_bytes());
        bytes.try_into().expect("that many were written")
    }

    /// Why a file that begins with these bytes does not count for who would write `self` now; `None` if it does.
    pub fn objection(&self, bytes: &[u8; HEADER_BYTES]) -> Option<&'static str> {
        let mut left = &bytes[..];
        let magic = left.split_off(..8).unwrap_or_default();
        let (body, crc) = bytes.split_at(HEADER_BYTES - 4);
        if magic != MAGIC || take::<4>(&mut left).map(u32::from_le_bytes) != Some(VERSION) {
            return Some("it is of another version");
        }
        if crc != crc32fast::hash(body).to_le_bytes() {
            return Some("its checksum is wrong");
        }
        let mut number = |_| take::<8>(&mut left).map_or(0, u64::from_le_bytes);
        let mut boot = [0; 16];
        boot[..8].copy_from_slice(&number(()).to_le_bytes());
        boot[8..].copy_from_slice(&number(()).to_le_bytes());
        let [device, mount, chunks_ino, written] = [(); 4].map(number);
        let written = written.cast_signed();
        if boot != self.boot {
            return Some("the machine was started anew since");
        }
        if (device, mount, chunks_ino) != (self.device, self.mount, self.chunks_ino) {
            return Some("the datastore was mounted anew since, or the daemon started, or this is a copy");
        }
        // A clock that was set back may come by the same stamp twice.
        (written > self.written).then_some("the clock was set back since")
    }
}

/// Whether names that were read now count for later: it was read after `now`, by the clock of the file system, and had not been changed just before.
pub fn is_settled(stamp: &Stamp, now: i64) -> bool {
    let latest = stamp.mtime.secs.max(stamp.ctime.secs);
    latest < now.saturating_sub(RACY_SECS)
}

/// Whether the times of directories say anything on a file system: of one in which a file was made at `made`, by the clock of the file system.
pub fn is_honest(dir: &Stamp, made: i64) -> bool {
    dir.mtime.secs >= made.saturating_sub(RACY_SECS) && dir.ctime.secs >= made.saturating_sub(RACY_SECS)
}

impl KnownDir {
    /// Whether it is to be read again at `now`, whatever its stamp says.
    pub fn is_due(&self, now: i64) -> bool {
        let earlier = i64::from(self.prefix) * AGE_SPREAD_SECS / i64::from(u16::MAX);
        !(0..AGE_MAX_SECS - earlier).contains(&now.saturating_sub(self.listed))
    }

    /// The number of its block.
    pub fn block(&self) -> u32 {
        block_of(self.prefix)
    }

    fn encode(&self, to: &mut Vec<u8>) {
        let Self { prefix, listed, stamp: Stamp { device: _, ino, mtime, ctime }, measured, measured_bytes, prints } =
            self;
        to.extend_from_slice(&prefix.to_le_bytes());
        to.extend_from_slice(&listed.to_le_bytes());
        to.extend_from_slice(&ino.to_le_bytes());
        for FileTime { secs, nanos } in [mtime, ctime] {
            to.extend_from_slice(&secs.to_le_bytes());
            to.extend_from_slice(&nanos.to_le_bytes());
        }
        to.extend_from_slice(&measured.to_le_bytes());
        to.extend_from_slice(&measured_bytes.to_le_bytes());
        to.extend_from_slice(&u32::try_from(prints.len()).expect("a block is shorter").to_le_bytes());
        to.extend(prints.iter().flat_map(|print| print.to_le_bytes()));
    }

    fn decode(left: &mut &[u8], device: u64) -> Option<Self> {
        let prefix = u16::from_le_bytes(take(left)?);
        let listed = i64::from_le_bytes(take(left)?);
        let ino = u64::from_le_bytes(take(left)?);
        let mut time =
            || Some(FileTime { secs: i64::from_le_bytes(take(left)?), nanos: u32::from_le_bytes(take(left)?) });
        let stamp = Stamp { device, ino, mtime: time()?, ctime: time()? };
        let measured = u32::from_le_bytes(take(left)?);
        let measured_bytes = u64::from_le_bytes(take(left)?);
        let count = usize::try_from(u32::from_le_bytes(take(left)?)).ok()?;
        let bytes = left.split_off(..count.checked_mul(PRINT_BYTES)?)?;
        let prints: Vec<u64> =
            bytes.as_chunks().0.iter().map(|print: &[u8; PRINT_BYTES]| u64::from_le_bytes(*print)).collect();
        (measured as usize <= prints.len()).then_some(Self { prefix, listed, stamp, measured, measured_bytes, prints })
    }
}

/// The number of the block that a directory belongs to.
pub fn block_of(prefix: u16) -> u32 {
    u32::from(prefix) / BLOCK_DIRS
}

fn take<const N: usize>(left: &mut &[u8]) -> Option<[u8; N]> {
    left.split_off(..N)?.try_into().ok()
}

/// A block that is being written.
#[derive(Debug, Default)]
pub struct BlockWriter {
    bytes: Vec<u8>,
    dirs: u32,
    last: Option<u16>,
}

impl BlockWriter {
    /// Adds a directory behind those that were added before. Returns what is whole with that: the block before, if this one begins another.
    ///
    /// One for which a block has no room is left out.
    pub fn add(&mut self, dir: &KnownDir) -> Option<Vec<u8>> {
        debug_assert!(self.last.is_none_or(|last| last < dir.prefix), "{:?}, then {:04x}", self.last, dir.prefix);
        let whole = self.last.is_some_and(|last| block_of(last) != dir.block()).then(|| self.finish()).flatten();
        self.last = Some(dir.prefix);
        if self.bytes.len() + DIR_BYTES + dir.prints.len() * PRINT_BYTES <= BLOCK_BYTES_MAX {
            dir.encode(&mut self.bytes);
            self.dirs += 1;
        }
        whole
    }

    /// The block that is not whole yet, if there is one.
    pub fn finish(&mut self) -> Option<Vec<u8>> {
        let (bytes, dirs) = (std::mem::take(&mut self.bytes), std::mem::take(&mut self.dirs));
        if dirs == 0 {
            return None;
        }
        let length = u32::try_from(bytes.len()).expect("a block is shorter");
        let mut block = Vec::with_capacity(BLOCK_HEAD_BYTES + bytes.len());
        block.extend_from_slice(&length.to_le_bytes());
        block.extend_from_slice(&dirs.to_le_bytes());
        block.extend_from_slice(&block_crc(&block, &bytes).to_le_bytes());
        block.extend_from_slice(&bytes);
        Some(block)
    }
}

fn block_crc(head: &[u8], bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(head);
    hasher.update(bytes);
    hasher.finalize()
}

/// How many bytes the block has that begins with this; `None` if they are too many.
pub fn block_bytes(head: &[u8; BLOCK_HEAD_BYTES]) -> Option<usize> {
    let mut left = &head[..];
    let bytes = usize::try_from(u32::from_le_bytes(take(&mut left)?)).ok()?;
    (bytes <= BLOCK_BYTES_MAX).then_some(bytes)
}

/// The directories of a block, in order; `None` if it is not whole, or is not behind the directory `after`.
pub fn decode_block(
    head: &[u8; BLOCK_HEAD_BYTES],
    bytes: &[u8],
    device: u64,
    after: Option<u16>,
) -> Option<Vec<KnownDir>> {
    let (sizes, crc) = head.split_at(8);
    if crc != block_crc(sizes, bytes).to_le_bytes() {
        return None;
    }
    let count = u32::from_le_bytes(take(&mut &sizes[4..])?);
    let mut left = bytes;
    let mut dirs: Vec<KnownDir> = Vec::new();
    let mut last = after;
    for _ in 0..count {
        let dir = KnownDir::decode(&mut left, device)?;
        let is_same_block = dirs.first().is_none_or(|first| first.block() == dir.block());
        if last.is_some_and(|last| last >= dir.prefix) || !is_same_block {
            return None;
        }
        last = Some(dir.prefix);
        dirs.push(dir);
    }
    (left.is_empty() && !dirs.is_empty()).then_some(dirs)
}

#[cfg(test)]
#[path = "dir_names_tests.rs"]
mod tests;
