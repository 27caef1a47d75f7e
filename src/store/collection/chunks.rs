//! Chunk directories: what lies in one, how old it is, and how it goes.

use std::collections::HashSet;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::io::Errno;

use super::{Pass, Run, Shared};
use crate::clock::EpochSecs;
use crate::engine::{Class, Disk, FileKind, FileStat, NamesBuffer, Stamp, StatBatch};
use crate::error::Result;
use crate::store::check::CHECK_BATCH_MAX;
use crate::store::claims::Claim;
use crate::store::custody::Keeper;
use crate::store::dir_names::{KnownDir, block_of, is_settled};
use crate::store::explain::failed;
use crate::store::layout::{Layout, bad_chunk_name, chunk_of_name, chunk_stat_name};
use crate::store::live_set::print_of;
use crate::types::Digest;

/// Files that are removed in one piece of work on the pool; between two a request to stop is seen.
const REMOVED_AT_ONCE: usize = 64;

/// The name of a file that garbage collection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChunkName {
    /// The chunk.
    pub digest: Digest,
    /// `DIGEST.N.bad`: set aside by a verification.
    pub bad: Option<u8>,
}

/// A file that has to be looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Which one.
    pub name: ChunkName,
    /// Whether it stays, however old it is: it is live, or evidence of a live chunk that is not there.
    pub stays: bool,
}

/// What lies in a chunk directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DirListing {
    /// Live chunks that are done: their inodes need not be touched.
    pub live: u64,
    /// The others.
    pub candidates: Vec<Candidate>,
    /// Live chunks that no file was met for.
    pub unmet: u64,
    /// What may be kept of it for later runs: if it holds chunks only, and has not been changed just now.
    pub known: Option<KnownDir>,
}

/// The chunk directories of a pass.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkDirs {
    /// Those that are there, in order.
    pub present: Vec<u16>,
    /// Those of the others into which live chunks belong, with how many of them, in order.
    pub unmet: Vec<(u16, u64)>,
}

impl ChunkDirs {
    /// Those that are there, in the pieces in which [`Pass::unchanged`] is asked.
    pub fn blocks(&self) -> impl Iterator<Item = &[u16]> {
        self.present.chunk_by(|a, b| block_of(*a) == block_of(*b))
    }
}

/// Which live chunks are looked at all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remains {
    /// At most so many, for their sizes.
    Sample(usize),
    /// All of them.
    All,
}

/// What became of a file that was to be removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone.
    Yes {
        /// Its length.
        bytes: u64,
    },
    /// It was gone already.
    Vanished,
    /// Somebody has a use for it after all, or is just putting it there.
    Kept,
    /// It is younger than it has to be: somebody has used it in between.
    Younger(FileStat),
}

impl ChunkName {
    /// From a file name; `None` for anything but 64 hex digits, or these and `.N.bad`.
    pub fn parse(name: &str) -> Option<Self> {
        if let Some(digest) = chunk_of_name(name) {
            return Some(Self { digest, bad: None });
        }
        let (digest, number) = name.strip_suffix(".bad")?.split_once('.')?;
        match number.as_bytes() {
            [digit @ b'0'..=b'9'] => Some(Self { digest: chunk_of_name(digest)?, bad: Some(digit - b'0') }),
            _ => None,
        }
    }

    pub(super) fn path(&self, layout: &Layout) -> PathBuf {
        layout.chunk_dir(self.digest.prefix()).join(self.to_string())
    }
}

impl fmt::Display for ChunkName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.bad {
            None => self.digest.fmt(f),
            Some(number) => f.write_str(&bad_chunk_name(&self.digest, number)),
        }
    }
}

impl Pass {
    /// Which of the chunk directories are there. One that is made later holds nothing that could be old.
    pub async fn chunk_dirs(&self) -> Result<ChunkDirs> {
        self.read(list_dirs).await
    }

    /// Reads a chunk directory; one that is not there is empty. Names of chunks that are live are done with that. `now` is the time of the file system at or
    /// before this moment, if what is found is to be kept.
    pub async fn list_chunks(&self, prefix: u16, remains: Remains, now: Option<i64>) -> Result<DirListing> {
        let _turn = self.shared.run.turn(1, 0).await?;
        self.read(move |disk, shared| list(disk, shared, prefix, remains, now)).await
    }

    /// Size and access time of files, as one batch; `None` for what is not there, or is no regular file.
    pub async fn stat(&self, names: &[ChunkName]) -> Result<Vec<Result<Option<FileStat>, Errno>>> {
        let run = &self.shared.run;
        let mut found = Vec::with_capacity(names.len());
        for part in names.chunks(run.share.piece(CHECK_BATCH_MAX)) {
            let _turn = run.turn(part.len(), 0).await?;
            let good: Vec<_> = part.iter().filter(|name| name.bad.is_none()).collect();
            let mut answers = Vec::new().into_iter();
            if !good.is_empty() {
                let batch = StatBatch {
                    dir: run.store.checker.chunks_dir(),
                    names: good.iter().map(|name| chunk_stat_name(&name.digest)).collect(),
                    class: Class::Background,
                    force_sync: run.store.network_fs,
                    stamps: false,
                };
                answers = run.unless_stopped(run.engine().stat(batch)).await?.results.into_iter();
            }
            for name in part {
                let answer = match name.bad {
                    None => answers.next().unwrap_or(Err(Errno::CANCELED)),
                    // Too long a name for a batch, and there are few of them.
                    Some(_) => self.lstat(*name).await?,
                };
                found.push(match answer {
                    Ok(stat) => Ok((stat.kind == FileKind::File).then_some(stat)),
                    Err(Errno::NOENT) => Ok(None),
                    Err(errno) => Err(errno),
                });
            }
        }
        Ok(found)
    }

    async fn lstat(&self, name: ChunkName) -> Result<Result<FileStat, Errno>> {
        let stat = move |disk: &Disk, shared: &Shared| Ok(lstat(disk, &name.path(&shared.run.store.layout)));
        Ok(self.read(stat).await?.map_err(|e| Errno::from_io_error(&e).unwrap_or(Errno::IO)))
    }

    /// Removes files that were last used before `older_than`, and says of each what became of it.
    ///
    /// The claim of a digest is held from before the last look to behind the removal: an insert that finds the file there, and the
    /// removal, exclude each other. A digest that somebody has claimed is being inserted, so it stays.
    pub async fn remove(&self, names: &[ChunkName], older_than: EpochSecs) -> Result<Vec<Removed>> {
        let mut done = Vec::with_capacity(names.len());
        let run = &self.shared.run;
        for part in names.chunks(run.share.piece(REMOVED_AT_ONCE)) {
            run.go_on()?;
            let _turn = run.turn(part.len(), 0).await?;
            let claimed: Vec<_> =
                part.iter().map(|name| (*name, run.store.custody.claims.try_claim(name.digest))).collect();
            let shared = Arc::clone(&self.shared);
            // Not `read`: what has begun to remove is waited for.
            done.extend(run.engine().run(move |disk| remove_claimed(disk, &shared, claimed, older_than)).await??);
        }
        Ok(done)
    }
}

fn list_dirs(disk: &Disk, shared: &Shared) -> Result<ChunkDirs> {
    shared.run.confirm_place(disk)?;
    let chunks = shared.run.store.layout.chunks();
    let entries = disk.read_dir(&chunks).map_err(|e| failed("unable to list", &chunks, e))?;
    let prefix = |name: &str| {
        let digits = name.len() == 4 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        u16::from_str_radix(name, 16).ok().filter(|_| digits)
    };
    let live = shared.live.lock();
    let covered = live.prefixes();
    // A symbolic link may lead to one.
    let there = entries.iter().filter(|e| e.kind != FileKind::File).filter_map(|e| prefix(&e.name));
    let mut dirs =
        ChunkDirs { present: there.filter(|p| covered.contains(&u32::from(*p))).collect(), unmet: Vec::new() };
    dirs.present.sort_unstable();
    let absent = |prefix: &u16| dirs.present.binary_search(prefix).is_err();
    let unmet = covered.filter_map(|p| u16::try_from(p).ok()).filter(absent).map(|p| (p, live.unmet_count(p)));
    dirs.unmet = unmet.filter(|(_, count)| *count > 0).collect();
    Ok(dirs)
}

pub(super) fn list(
    disk: &Disk,
    shared: &Shared,
    prefix: u16,
    remains: Remains,
    now: Option<i64>,
) -> Result<DirListing> {
    let Names { named, stamp, is_plain } = names(disk, shared, prefix)?;
    let there: HashSet<Digest> = named.iter().filter(|(n, _)| n.bad.is_none()).map(|(n, _)| n.digest).collect();
    let mut listing = DirListing::default();
    let is_plain = is_plain && named.iter().all(|(name, kind)| (*kind, name.bad) == (FileKind::File, None));
    // A link may lead to another file system.
    let is_ours = |stamp: &Stamp| stamp.device == shared.run.place[1].0;
    if let (true, Some(now), Some(stamp)) = (is_plain, now, stamp.filter(is_ours))
        && is_settled(&stamp, now)
    {
        let prints = named.iter().map(|(name, _)| print_of(&name.digest)).collect();
        listing.known = Some(KnownDir { prefix, listed: now, stamp, prints, ..KnownDir::default() });
    }
    let mut sample = match remains {
        Remains::Sample(count) => count,
        Remains::All => usize::MAX,
    };
    let mut live = shared.live.lock();
    for (name, kind) in named {
        let is_live = match name.bad {
            None => live.meet(&name.digest),
            Some(_) => live.contains(&name.digest) && !there.contains(&name.digest),
        };
        match (kind, name.bad) {
            (FileKind::File, None) if is_live && sample == 0 => listing.live += 1,
            (FileKind::File, bad) => {
                sample -= usize::from(is_live && bad.is_none());
                listing.candidates.push(Candidate { name, stays: is_live });
            }
            // Something else in the place of a chunk: no business of ours, and never removed.
            _ => {}
        }
    }
    listing.unmet = live.unmet_count(prefix);
    Ok(listing)
}

/// The files of a chunk directory.
#[derive(Debug)]
struct Names {
    /// Those that have a chunk's name.
    named: Vec<(ChunkName, FileKind)>,
    /// Before and after.
    stamp: Option<Stamp>,
    /// Whether there is nothing else.
    is_plain: bool,
}

/// The files of a chunk directory that have a chunk's name, asked relative to the open `.chunks`: nearly all directories of a small datastore are
/// empty, and on a network file system each component of a path is a request of its own.
fn names(disk: &Disk, shared: &Shared, prefix: u16) -> Result<Names> {
    let store = &shared.run.store;
    let mut names: Vec<(ChunkName, Option<FileKind>)> = Vec::new();
    let mut is_plain = true;
    let each = |name: &[u8], kind| {
        let parsed = std::str::from_utf8(name).ok().and_then(ChunkName::parse);
        match parsed.filter(|name| name.digest.prefix() == prefix) {
            Some(name) => names.push((name, kind)),
            None => is_plain &= name == b"." || name == b"..",
        }
        false
    };
    let (parent, mut buffer) = (store.checker.chunks_dir(), NamesBuffer::default());
    // A cached listing of a server's would do no harm: a chunk that it lacks stays, or is asked for before anybody is told that it is missing.
    let dir = store.layout.chunk_dir(prefix);
    let stamp = match disk.names_at(&parent, &dir, &mut buffer, each) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        read => read.map_err(|e| failed("unable to list", &dir, e))?,
    };
    let mut known = Vec::with_capacity(names.len());
    for (name, kind) in names {
        let path = name.path(&store.layout);
        // Some file systems do not say.
        match kind.map_or_else(|| lstat(disk, &path).map(|stat| stat.kind), Ok) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => is_plain = false,
            kind => known.push((name, kind.map_err(|e| failed("unable to stat", &path, e))?)),
        }
    }
    Ok(Names { named: known, stamp, is_plain })
}

pub(super) fn lstat(disk: &Disk, path: &std::path::Path) -> io::Result<FileStat> {
    disk.lstat(path).map(FileStat::from)
}

fn remove_claimed(
    disk: &Disk,
    shared: &Shared,
    claimed: Vec<(ChunkName, Option<Claim<Digest>>)>,
    older_than: EpochSecs,
) -> Result<Vec<Removed>> {
    shared.run.confirm_place(disk)?;
    let mut done = Vec::with_capacity(claimed.len());
    for (name, claim) in claimed {
        shared.run.go_on()?;
        done.push(match claim {
            Some(claim) => {
                let removed = remove_one(disk, shared, name, older_than)?;
                drop(claim);
                removed
            }
            None => Removed::Kept,
        });
    }
    Ok(done)
}

/// In this order: a session that ends between the two questions has told the watch what its indexes name before it stops to keep.
pub(super) fn is_wanted(shared: &Shared, digest: &Digest, keepers: &[Arc<dyn Keeper>]) -> bool {
    keepers.iter().any(|keeper| keeper.keeps(digest)) || shared.live.lock().contains(digest)
}

fn remove_one(disk: &Disk, shared: &Shared, name: ChunkName, older_than: EpochSecs) -> Result<Removed> {
    let Run { store, .. } = &*shared.run;
    let path = name.path(&store.layout);
    let looking = |e| failed("unable to stat", &path, e);
    if is_wanted(shared, &name.digest, &store.custody.keepers()) {
        // Of a chunk that is wanted, only what was set aside may go, and only when a good one has taken its place.
        let good = ChunkName { bad: None, ..name };
        match disk.lstat(&good.path(&store.layout)) {
            Ok(_) if name.bad.is_some() => {}
            Ok(_) => return Ok(Removed::Kept),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Removed::Kept),
            Err(e) => return Err(looking(e)),
        }
    }
    let stat = match lstat(disk, &path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Removed::Vanished),
        stat => stat.map_err(looking)?,
    };
    if stat.kind != FileKind::File {
        return Ok(Removed::Kept);
    }
    if stat.accessed >= older_than {
        return Ok(Removed::Younger(stat));
    }
    match shared.run.with_reserve(disk, || disk.unlink(&path)) {
        Ok(()) => Ok(Removed::Yes { bytes: stat.size_bytes }),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Removed::Vanished),
        Err(e) => Err(failed("unable to remove chunk", &path, e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chunks_and_what_was_set_aside_have_names() {
        let digest = Digest::of(b"x");
        for (name, wanted) in [
            (digest.to_string(), Some(None)),
            (format!("{digest}.0.bad"), Some(Some(0))),
            (bad_chunk_name(&digest, 9), Some(Some(9))),
            ("x.0.bad".to_owned(), None),
            (format!("{digest}.10.bad"), None),
            (format!("{digest}.a.bad"), None),
            (format!("{digest}.bad"), None),
            (format!("{digest}.0.bax"), None),
            (format!("{digest}.tmp_AbC123"), None),
            (format!("{digest}.tmp_1"), None),
            (digest.to_string().to_uppercase(), None),
            (digest.to_string()[1..].to_owned(), None),
            (String::new(), None),
        ] {
            let parsed = ChunkName::parse(&name);
            assert_eq!(parsed.map(|parsed| parsed.bad), wanted, "{name}");
            assert_eq!(parsed.map(|parsed| parsed.to_string()), wanted.map(|_| name));
        }
    }
}
