//! Lays out chunk files, as many at a time as there are processors.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags, Timespec, Timestamps, ftruncate, futimens, openat};

use super::Ground;
use crate::bench::scratch::{in_parallel, in_parts};
use crate::bench::seed::{Numbers, fill};
use crate::engine::NamesBuffer;
use crate::error::{Error, IoContext, Result};
use crate::format::blob::{self, Compression};
use crate::store::layout::{CHUNKS_DIR, Layout, chunk_dir_name, chunk_of_name, chunk_stat_name};
use crate::sync::Mutex;
use crate::types::{DIGEST_BYTES, Digest};

/// Chunks between two looks whether to stop.
const STEP: usize = 16 << 10;

/// Age that makes a chunk garbage: twice what a collection asks for.
const OLD_SECS: i64 = 2 * 86_400;

/// Directories of an existing datastore between two looks whether there are enough chunks, and those that are read at a time: as many as a slow
/// server answers at once.
const SAMPLED_AT_ONCE: usize = 1024;
const SAMPLE_THREADS: usize = 64;

/// How long to look for more chunks once there are so many: a few hundred appends.
const SAMPLE_TIME: Duration = Duration::from_secs(10);
const SAMPLE_MIN: usize = 32 << 10;

/// The file with the digests of chunks whose content was hashed.
const DIGESTS: &str = "digests";

/// Makes files of `bytes` under the names of `digests`, all of them holes: a presence check sees type and size. Fine if some are there.
///
/// They are made in the order given, that of an index, as backups make them: the inodes of a directory then lie as far apart as in a
/// datastore that has grown. In the order of their names they would be neighbours, and cold checks cheaper than they are. With `old` nobody
/// has used them for two days.
pub fn put_hollow(ground: &Ground, store: &Path, digests: &[Digest], bytes: u64, old: bool) -> Result<()> {
    let chunks = store.join(CHUNKS_DIR);
    let context = || format!("cannot lay out chunks in {chunks:?}");
    let dir_flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let top = openat(CWD, &chunks, dir_flags, Mode::empty()).map_err(std::io::Error::from).io_context(context)?;
    let times = old.then(|| {
        let now = crate::clock::Clock::system().now().0;
        let time = Timespec { tv_sec: now - OLD_SECS, tv_nsec: 0 };
        Timestamps { last_access: time, last_modification: time }
    });
    let put = |digest: &Digest| -> rustix::io::Result<()> {
        let flags = OFlags::CREATE | OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = openat(&top, chunk_stat_name(digest).as_c_str(), flags, Mode::from_raw_mode(0o644))?;
        ftruncate(&file, bytes)?;
        times.as_ref().map_or(Ok(()), |times| futimens(&file, times))
    };
    // Parts of some steps each, so that all processors are at about the same place of the index.
    for part in digests.chunks(STEP) {
        ground.go_on()?;
        in_parallel(part, |digests| digests.iter().try_for_each(put))
            .map_err(std::io::Error::from)
            .io_context(context)?;
    }
    Ok(())
}

/// Makes `nrfiles` chunks of `bs` bytes with content, and a list of their digests in the order of their numbers.
pub fn put_whole(ground: &Ground, scratch: &Path, store: &Path) -> Result<Vec<Digest>> {
    let job = &ground.job;
    let count = usize::try_from(job.nrfiles).map_err(|_| Error::invalid("nrfiles: too many"))?;
    let bytes = usize::try_from(job.bs).map_err(|_| Error::invalid("bs: too many"))?;
    let layout = Layout::new(store);
    let numbers: Vec<usize> = (0..count).collect();
    let digests = Mutex::new(vec![Digest::ZERO; count]);
    in_parallel(&numbers, |numbers| {
        let mut plain = vec![0; bytes];
        for number in numbers {
            ground.go_on()?;
            fill(&mut plain, &mut Numbers::new(job.randseed, *number as u64), job.compress_percentage);
            // Two short ones may be the same.
            let digest = Digest::of(&plain);
            digests.lock()[*number] = digest;
            let path = layout.chunk(&digest);
            let context = || format!("cannot lay out {path:?}");
            match File::options().write(true).create_new(true).open(&path) {
                Ok(mut file) => file.write_all(&blob::encode(&plain, Compression::Try)).io_context(context)?,
                Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(e) => return Err(e).io_context(context),
            }
        }
        Ok::<_, Error>(())
    })?;
    let digests = digests.into_inner();
    let bytes: Vec<u8> = digests.iter().flat_map(|digest| digest.0).collect();
    let path = scratch.join(DIGESTS);
    let context = || format!("cannot write {path:?}");
    let mut file = File::options().write(true).create_new(true).open(&path).io_context(context)?;
    file.write_all(&bytes).io_context(context)?;
    Ok(digests)
}

/// The list that [`put_whole`] made.
pub fn read_digests(scratch: &Path) -> Result<Vec<Digest>> {
    let path = scratch.join(DIGESTS);
    let mut bytes = Vec::new();
    let read = File::open(&path).and_then(|mut file| file.read_to_end(&mut bytes));
    read.io_context(|| format!("cannot read {path:?}"))?;
    Ok(bytes.chunks_exact(DIGEST_BYTES).map(|digest| Digest(digest.try_into().expect("32 bytes"))).collect())
}

/// At most `nrfiles` chunks of an existing datastore: those of whole directories, which the seed chooses. Directories are read many at a time, only
/// until that many are found, and where that takes long, only until there are some.
pub fn sample(ground: &Ground, store: &Path) -> Result<Vec<Digest>> {
    let job = &ground.job;
    let mut numbers = Numbers::new(job.randseed, 0);
    let mut prefixes: Vec<u16> = (0..=u16::MAX).collect();
    numbers.shuffle(&mut prefixes);
    let wanted = usize::try_from(job.nrfiles).unwrap_or(usize::MAX);
    let chunks = store.join(CHUNKS_DIR);
    let context = || format!("cannot read {chunks:?}");
    let top = ground.disk.open_dir(&chunks).io_context(context)?;
    let mut found: Vec<Digest> = Vec::new();
    let begun = Instant::now();
    for wave in prefixes.chunks(SAMPLED_AT_ONCE) {
        ground.go_on()?;
        if found.len() >= wanted || found.len() >= SAMPLE_MIN && begun.elapsed() > SAMPLE_TIME {
            break;
        }
        let listed = Mutex::new(vec![Vec::new(); wave.len()]);
        let places: Vec<(usize, u16)> = wave.iter().copied().enumerate().collect();
        in_parts(&places, wave.len().div_ceil(SAMPLE_THREADS), |part| {
            let mut buffer = NamesBuffer::default();
            for (place, prefix) in part {
                let mut names = Vec::new();
                let each = |name: &[u8], _| {
                    names.extend(std::str::from_utf8(name).ok().and_then(chunk_of_name));
                    false
                };
                match ground.disk.names_in(&top, &chunk_dir_name(*prefix), false, &mut buffer, each) {
                    // Made when the first chunk wants to go there.
                    Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                    read => read.io_context(|| format!("cannot read {prefix:04x} in {chunks:?}"))?,
                }
                listed.lock()[*place] = names;
            }
            Ok::<_, Error>(())
        })?;
        // In the order of the seed, whoever was first.
        found.extend(listed.into_inner().into_iter().flatten());
    }
    found.truncate(wanted);
    if found.is_empty() {
        return Err(Error::invalid(format!("there are no chunks in {store:?}")));
    }
    // An index names them in no order.
    numbers.shuffle(&mut found);
    Ok(found)
}
