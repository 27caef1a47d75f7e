//! The original's maintenance, for `ioengine=serial-std`: one thread that does one thing after another (spec 07 §1.2, §1.4, §3.2).
//!
//! ```text
//! collection    index by index ─▶ utimensat of each chunk   then   0000…ffff ─▶ directory read ─▶ fstatat of each chunk ─▶ unlinkat if old
//! verification  snapshot by snapshot ─▶ one reader, chunk after chunk ─▶ 4 threads that decode and hash
//! ```

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;

use crate::bench::turn::Turn;
use crate::clock::Clock;
use crate::error::{Error, IoContext, Result};
use crate::format::blob::{CrcPolicy, decode};
use crate::format::dynamic_index::entries;
use crate::format::index::INDEX_HEADER_BYTES;
use crate::store::layout::{CHUNK_DIR_COUNT, Layout, chunk_of_name};
use crate::types::{CHUNK_BYTES_MAX, Digest};

/// Threads that decode and hash behind the one reader.
const JUDGES: usize = 4;

/// Chunks that wait for one of them.
const WAITING_MAX: usize = 2;

/// Seconds that a chunk has to be unused for.
const CUTOFF_SECS: i64 = 86_400 + 300;

/// Chunks between two looks whether to stop.
const STEP: usize = 256;

/// What a collection took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Collected {
    /// Chunk files that were there.
    pub chunks: u64,
    /// Access times written.
    pub touched: u64,
    /// Inodes asked.
    pub asked: u64,
    /// Chunk files that are gone.
    pub removed: u64,
    /// Directories swept.
    pub directories: u64,
    /// How long the first phase took.
    pub marked_in: Duration,
    /// How long the second took.
    pub swept_in: Duration,
}

/// Collects the garbage of the datastore at `base`, as much of it as it has time for.
pub fn collect(base: &Path, turn: &Turn) -> Result<Collected> {
    let layout = Layout::new(base);
    let min_atime = Clock::system().now().0 - CUTOFF_SECS;
    let mut collected = Collected::default();
    let now = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
    let times = Timestamps { last_access: now, last_modification: Timespec { tv_nsec: UTIME_OMIT, ..now } };
    let begun = Instant::now();
    for path in indexes(base)? {
        for step in read_index(&path)?.chunks(STEP) {
            if !turn.go_on() {
                collected.marked_in = begun.elapsed();
                return Ok(collected);
            }
            for digest in step {
                let path = layout.chunk(digest);
                rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(std::io::Error::from)
                    .io_context(|| format!("cannot touch {path:?}"))?;
                collected.touched += 1;
            }
        }
    }
    collected.marked_in = begun.elapsed();
    for prefix in 0..CHUNK_DIR_COUNT {
        if !turn.go_on() {
            break;
        }
        let path = layout.chunk_dir(u16::try_from(prefix).expect("below 65,536"));
        sweep(&path, min_atime, &mut collected)
            .map_err(std::io::Error::from)
            .io_context(|| format!("cannot sweep {path:?}"))?;
        collected.directories += 1;
    }
    collected.swept_in = begun.elapsed() - collected.marked_in;
    Ok(collected)
}

fn sweep(path: &Path, min_atime: i64, collected: &mut Collected) -> std::result::Result<(), Errno> {
    let dir = match rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
        Err(Errno::NOENT) => return Ok(()),
        dir => dir?,
    };
    let mut dir = Dir::new(dir)?;
    while let Some(entry) = dir.read() {
        let entry = entry?;
        if entry.file_name().to_str().ok().and_then(chunk_of_name).is_none() {
            continue;
        }
        let stat = rustix::fs::statat(dir.fd()?, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW)?;
        collected.asked += 1;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            continue;
        }
        collected.chunks += 1;
        if stat.st_atime < min_atime {
            rustix::fs::unlinkat(dir.fd()?, entry.file_name(), AtFlags::empty())?;
            collected.removed += 1;
        }
    }
    Ok(())
}

/// All index files below `dir`.
fn indexes(dir: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("cannot list {dir:?}");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).io_context(context)? {
        let entry = entry.io_context(context)?;
        if entry.file_name().as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if entry.file_type().io_context(context)?.is_dir() {
            found.extend(indexes(&entry.path())?);
        } else if entry.path().extension().is_some_and(|extension| extension == "didx") {
            found.push(entry.path());
        }
    }
    Ok(found)
}

/// The chunks of an index, in its order.
fn read_index(path: &Path) -> Result<Vec<Digest>> {
    let bytes = std::fs::read(path).io_context(|| format!("cannot read {path:?}"))?;
    let header = usize::try_from(INDEX_HEADER_BYTES).expect("4096");
    let list = bytes.get(header..).ok_or_else(|| Error::corrupt(format!("{path:?} is too short")))?;
    Ok(entries(list).map(|entry| entry.digest).collect())
}

/// Verifies `digests`: read one after another, decoded and hashed by threads of their own. With `by_inode` each is asked for its inode first,
/// and they are read in that order. False if it was told to stop.
pub fn verify(layout: &Layout, digests: &[Digest], by_inode: bool, turn: &Turn) -> Result<bool> {
    let mut paths: Vec<(u64, PathBuf, Digest)> = digests.iter().map(|d| (0, layout.chunk(d), *d)).collect();
    if by_inode {
        for (ino, path, _) in &mut paths {
            *ino = path.symlink_metadata().io_context(|| format!("chunk {path:?}"))?.ino();
        }
        paths.sort_unstable_by_key(|(ino, ..)| *ino);
    }
    std::thread::scope(|scope| {
        let (mut to, mut judges) = (Vec::new(), Vec::new());
        for _ in 0..JUDGES {
            let (sender, receiver) = sync_channel::<(Digest, Vec<u8>)>(WAITING_MAX);
            to.push(sender);
            judges
                .push(scope.spawn(move || receiver.iter().try_for_each(|(digest, encoded)| judge(&digest, &encoded))));
        }
        let mut whole = true;
        for ((_, path, digest), sender) in paths.iter().zip(to.iter().cycle()) {
            whole = turn.go_on();
            let mut encoded = Vec::new();
            let read = File::open(path).and_then(|mut file| file.read_to_end(&mut encoded));
            read.io_context(|| format!("chunk {path:?}"))?;
            // A judge that has ended has found something.
            if !whole || sender.send((*digest, encoded)).is_err() {
                break;
            }
        }
        drop(to);
        for judge in judges {
            judge.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok(whole)
    })
}

/// Decodes a chunk and compares its hash.
pub fn judge(digest: &Digest, encoded: &[u8]) -> Result<()> {
    let plain = decode(encoded, u64::from(CHUNK_BYTES_MAX), CrcPolicy::Check)?;
    if Digest::of(&plain) == *digest { Ok(()) } else { Err(Error::corrupt(format!("chunk {digest} is another one"))) }
}
