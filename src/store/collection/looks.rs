//! Chunk directories of which every chunk is looked at, as collections by access time do.
//!
//! Their live chunks have been touched a moment ago, so what the kernel knows about them is in memory: a piece of work on the pool reads a few directories
//! and asks for each chunk on the spot. To hand each directory over twice, for its names and for their times, takes longer than that. Where an answer does
//! not come out of memory, the rest is left to the engine, which asks for many at a time.

use std::io;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::chunks::{ChunkName, DirListing, Remains, list, lstat};
use super::{Pass, Shared};
use crate::engine::{Disk, FileKind, FileStat};
use crate::error::Result;

/// Directories that are looked at in one piece of work: enough that its hand-over does not count, few enough that backups are served in between and a
/// request to stop is seen soon.
pub const LOOKED_AT_ONCE: usize = 16;

/// An answer that took longer came from a disk, or the thread had to wait: out of memory it takes some microseconds.
const SLOW: Duration = Duration::from_micros(100);

/// Slow answers of one piece of work after which the rest is left to the engine.
const SLOW_MAX: usize = 2;

/// Size and access time of a file; `None` for what is not there, or is no regular file.
type Looked = Result<Option<FileStat>, Errno>;

/// What lies in a chunk directory, and what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LookedDir {
    /// Which directory.
    pub prefix: u16,
    /// What lies in it.
    pub listing: DirListing,
    /// What each of its candidates is, in their order.
    pub stats: Vec<Looked>,
}

/// The same while it is being looked at: `None` is left to the engine.
struct Looking {
    prefix: u16,
    listing: DirListing,
    stats: Vec<Option<Looked>>,
}

impl Pass {
    /// Reads chunk directories and looks at all that lies in them: as [`Self::list_chunks`] and [`Self::stat`], for several that follow one another. What was
    /// looked at before an error comes along with it. `now` as there.
    pub async fn look(&self, prefixes: &[u16], now: Option<i64>) -> (Vec<LookedDir>, Result<()>) {
        let mut dirs = Vec::with_capacity(prefixes.len());
        for part in prefixes.chunks(self.shared.run.share.piece(LOOKED_AT_ONCE)) {
            if let Err(e) = self.look_at_part(part, now, &mut dirs).await {
                return (dirs, Err(e));
            }
        }
        (dirs, Ok(()))
    }

    async fn look_at_part(&self, part: &[u16], now: Option<i64>, dirs: &mut Vec<LookedDir>) -> Result<()> {
        let run = &self.shared.run;
        let turn = run.turn(part.len(), 0).await?;
        let prefixes = part.to_vec();
        let (looking, ended) = self.read(move |disk, shared| Ok(look(disk, shared, &prefixes, now))).await?;
        drop(turn);
        // How many there were is known only now, so they are paid for behind.
        let on_the_spot = looking.iter().map(|dir| dir.stats.iter().flatten().count()).sum();
        drop(run.turn(on_the_spot, 0).await?);
        let left: Vec<ChunkName> = looking.iter().flat_map(Looking::left).collect();
        let mut answers = self.stat(&left).await?.into_iter();
        dirs.extend(looking.into_iter().map(|dir| dir.with(&mut answers)));
        ended
    }
}

impl Looking {
    /// What the engine is asked for.
    fn left(&self) -> impl Iterator<Item = ChunkName> {
        let names = self.listing.candidates.iter().zip(&self.stats);
        names.filter(|(_, stat)| stat.is_none()).map(|(candidate, _)| candidate.name)
    }

    fn with(self, answers: &mut impl Iterator<Item = Looked>) -> LookedDir {
        let Self { prefix, listing, stats } = self;
        let stats =
            stats.into_iter().map(|stat| stat.or_else(|| answers.next()).unwrap_or(Err(Errno::CANCELED))).collect();
        LookedDir { prefix, listing, stats }
    }
}

fn look(disk: &Disk, shared: &Shared, prefixes: &[u16], now: Option<i64>) -> (Vec<Looking>, Result<()>) {
    // A server's word is not to be had without waiting for it.
    let mut slow_left = if shared.run.store.network_fs { 0 } else { SLOW_MAX };
    let mut dirs = Vec::with_capacity(prefixes.len());
    for prefix in prefixes {
        let listed = shared.run.go_on().and_then(|()| list(disk, shared, *prefix, Remains::All, now));
        let listing = match listed {
            Ok(listing) => listing,
            Err(e) => return (dirs, Err(e)),
        };
        let mut stats = Vec::with_capacity(listing.candidates.len());
        for candidate in &listing.candidates {
            if slow_left == 0 {
                stats.push(None);
                continue;
            }
            let begun = Instant::now();
            stats.push(Some(look_at(disk, shared, &candidate.name)));
            slow_left -= usize::from(begun.elapsed() > SLOW);
        }
        dirs.push(Looking { prefix: *prefix, listing, stats });
    }
    (dirs, Ok(()))
}

fn look_at(disk: &Disk, shared: &Shared, name: &ChunkName) -> Looked {
    let path = name.path(&shared.run.store.layout);
    // A chunk may be where a symbolic link leads to; what was set aside is what it is.
    let stat = match name.bad {
        None => disk.stat(&path).map(FileStat::from),
        Some(_) => lstat(disk, &path),
    };
    match stat {
        Ok(stat) => Ok((stat.kind == FileKind::File).then_some(stat)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Errno::from_io_error(&e).unwrap_or(Errno::IO)),
    }
}
