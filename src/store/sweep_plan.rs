//! Which chunks of a sorted sweep are asked for by reading their directory, and which one by one. Pure.
//!
//! A `statx` costs a system call, and cold a read of the inode or requests to a server. A directory costs three system calls, and cold a
//! read of its own inode and of one block for each 50 names; the names in it that nobody asked for cost too. So it depends on how many
//! chunks of the directory are asked for, on how full the directories are, and on whether the disk is waited for. Digests are spread evenly,
//! so what the directories read so far were like says what the next will be like.

use std::time::Duration;

use super::check::CHECK_BATCH_MAX;
use crate::types::Digest;

/// Directories that are read in one piece of work on the pool: the hand-over is a small part of it when warm (0.3 ms), and a store of 2 ms
/// per request is done with it in 0.3 s.
pub(super) const DIRECTORIES_AT_ONCE: usize = 32;

/// Chunks that are asked for by name in one piece of work, as soon as it has that many.
pub(super) const NAMES_AT_ONCE: usize = 1024;

/// A sweep of fewer chunks is over before it is worth finding out what its disk is like.
const TRIED_FROM: usize = 4096;

/// Directories that are read to find that out.
const TRIAL_DIRECTORIES: usize = 16;

/// A directory that took longer, its names aside, was waited for: a warm one takes 5–10 µs, the quickest NVMe read 60 µs and more.
const SLOW_AFTER: Duration = Duration::from_micros(40);

/// What a name may take in that.
const SLOW_AFTER_NAME: Duration = Duration::from_nanos(500);

/// When reading a directory pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Threshold {
    /// Chunks asked for in it, at least.
    asked: usize,
    /// Names in it for each chunk asked for, at most.
    names_per_asked: u64,
}

/// From memory: about 6 µs and 0.2 µs a name against 2 µs a chunk.
const WARM: Threshold = Threshold { asked: 3, names_per_asked: 8 };

/// A disk of this machine: the directory is read either way, one block for each 50 names; the inodes of chunks are what is saved.
const COLD: Threshold = Threshold { asked: 1, names_per_asked: 24 };

/// Elsewhere: four requests, a dozen directories at a time, against two requests, 64 chunks at a time.
const REMOTE: Threshold = Threshold { asked: 8, names_per_asked: 8 };

/// What has been seen of directories in this sweep.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    /// Directories planned to be read.
    pub(super) planned: usize,
    /// Directories read, or tried to.
    pub(super) directories: usize,
    /// Names in them.
    pub(super) names: u64,
    /// Chunks looked for in them.
    pub(super) asked: usize,
    /// Of these: found.
    pub(super) found: usize,
    /// What reading them took, one after another.
    pub(super) took: Duration,
}

impl Seen {
    /// Adds what another piece of work has seen.
    pub(super) fn add(&mut self, other: &Self) {
        self.directories += other.directories;
        self.names += other.names;
        self.asked += other.asked;
        self.found += other.found;
        self.took += other.took;
    }
}

/// A sorted sweep, cut into pieces of work.
#[derive(Debug)]
pub(super) struct Plan<'a> {
    digests: &'a [Digest],
    remote: bool,
    large: bool,
}

/// The next piece of a sweep; both parts are sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Piece {
    /// By name: all that is asked for of at most [`DIRECTORIES_AT_ONCE`] directories.
    pub(super) listed: Vec<Digest>,
    /// One by one; about [`CHECK_BATCH_MAX`] at most.
    pub(super) asked: Vec<Digest>,
}

impl<'a> Plan<'a> {
    /// Of `digests`, sorted, each once; `remote`: on a network file system.
    pub(super) fn new(digests: &'a [Digest], remote: bool) -> Self {
        Self { digests, remote, large: digests.len() >= TRIED_FROM }
    }

    /// The next piece, given what has been `seen`, which learns of what is planned; `None` at the end.
    pub(super) fn next_piece(&mut self, seen: &mut Seen) -> Option<Piece> {
        let mut piece = Piece::default();
        let mut directories = 0;
        while let Some(first) = self.digests.first() {
            // Of a large sweep the first piece is a trial: how it goes on depends on that.
            let tried = self.large && seen.directories == 0 && directories >= TRIAL_DIRECTORIES;
            if tried
                || directories == DIRECTORIES_AT_ONCE
                || piece.listed.len() >= NAMES_AT_ONCE
                || piece.asked.len() >= CHECK_BATCH_MAX
            {
                break;
            }
            let prefix = first.prefix();
            let count = self.digests.iter().take_while(|digest| digest.prefix() == prefix).count();
            let (run, rest) = self.digests.split_at(count);
            self.digests = rest;
            if reading_pays(count, self.remote, self.large, seen) {
                piece.listed.extend_from_slice(run);
                seen.planned += 1;
                directories += 1;
            } else {
                piece.asked.extend_from_slice(run);
            }
        }
        (piece != Piece::default()).then_some(piece)
    }
}

/// Whether to read a directory of which `count` chunks are asked for.
fn reading_pays(count: usize, remote: bool, large: bool, seen: &Seen) -> bool {
    if seen.directories == 0 {
        // Nothing is known: a few are tried, and full ones are read in any case.
        let threshold = if remote { REMOTE.asked } else { WARM.asked + 1 };
        return count >= threshold || (large && !remote && seen.planned < TRIAL_DIRECTORIES);
    }
    if seen.found < seen.asked / 2 {
        // The file system does not tell what a name is, or the directories cannot be read: it has all to be asked again.
        return false;
    }
    let directories = u64::try_from(seen.directories).unwrap_or(u64::MAX);
    let warm = SLOW_AFTER.as_nanos() * u128::from(directories) + SLOW_AFTER_NAME.as_nanos() * u128::from(seen.names);
    let slow = seen.took.as_nanos() > warm;
    let threshold = match (remote, slow) {
        (true, _) => REMOTE,
        (false, true) => COLD,
        (false, false) => WARM,
    };
    let names_each = seen.names / directories;
    count >= threshold.asked && names_each <= threshold.names_per_asked * u64::try_from(count).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: usize = 20;

    /// What 100 directories were like: `names` in each, which took `micros`; of 10 chunks `found` were.
    fn seen(names: u64, micros: u64, found: usize) -> Seen {
        let took = Duration::from_micros(micros * 100);
        Seen { planned: 100, directories: 100, names: names * 100, asked: 1000, found: found * 100, took }
    }

    #[test]
    fn a_directory_is_read_when_that_is_less_work() {
        let (warm, cold) = (8, 800);
        // (chunks asked for, on a network file system, what was seen, whether it is read)
        for (count, remote, seen, reads) in [
            (1, false, seen(15, warm, 10), false),
            (2, false, seen(15, warm, 10), false),
            (3, false, seen(15, warm, 10), true),
            (3, false, seen(24, warm, 10), true),
            (3, false, seen(25, warm, 10), false),
            (218, false, seen(218, warm, 10), true),
            // The disk is waited for.
            (1, false, seen(3, 42, 10), true),
            (1, false, seen(3, 41, 10), false),
            (1, false, seen(24, cold, 10), true),
            (1, false, seen(25, cold, 10), false),
            (2, false, seen(48, cold, 10), true),
            (2, false, seen(49, cold, 10), false),
            (3, false, seen(49, cold, 10), true),
            // Wherever the server is, waiting is the same.
            (7, true, seen(15, warm, 10), false),
            (8, true, seen(15, cold, 10), true),
            (8, true, seen(65, cold, 10), false),
            // Reading has not told much.
            (FULL, false, seen(FULL as u64, warm, 5), true),
            (FULL, false, seen(FULL as u64, warm, 4), false),
            (FULL, true, seen(FULL as u64, cold, 0), false),
        ] {
            assert_eq!(reading_pays(count, remote, true, &seen), reads, "{count} {remote} {seen:?}");
        }
    }

    #[test]
    fn a_large_sweep_tries_some_directories_first() {
        let planned = |planned| Seen { planned, ..Seen::default() };
        // (chunks asked for, remote, large, planned so far, whether it is read)
        for (count, remote, large, so_far, reads) in [
            (1, false, false, 0, false),
            (3, false, false, 0, false),
            (4, false, false, 0, true),
            (1, false, true, 0, true),
            (1, false, true, TRIAL_DIRECTORIES - 1, true),
            (1, false, true, TRIAL_DIRECTORIES, false),
            (4, false, true, TRIAL_DIRECTORIES, true),
            (7, true, true, 0, false),
            (8, true, false, 0, true),
        ] {
            assert_eq!(
                reading_pays(count, remote, large, &planned(so_far)),
                reads,
                "{count} {remote} {large} {so_far}"
            );
        }
    }

    fn digest(prefix: u16, n: u16) -> Digest {
        let mut digest = Digest([7; 32]);
        digest.0[..2].copy_from_slice(&prefix.to_be_bytes());
        digest.0[2..4].copy_from_slice(&n.to_be_bytes());
        digest
    }

    fn sweep(directories: u16, each: u16) -> Vec<Digest> {
        (0..directories).flat_map(|prefix| (0..each).map(move |n| digest(prefix, n))).collect()
    }

    /// The lengths of the pieces, and whether they are the sweep again, in order.
    fn pieces(digests: &[Digest], seen: &mut Seen) -> Vec<(usize, usize)> {
        let mut plan = Plan::new(digests, false);
        let mut all = Vec::new();
        let mut lengths = Vec::new();
        while let Some(piece) = plan.next_piece(seen) {
            assert!(piece.listed.is_sorted() && piece.asked.is_sorted());
            lengths.push((piece.listed.len(), piece.asked.len()));
            all.extend(piece.listed.into_iter().chain(piece.asked));
        }
        all.sort_unstable();
        assert_eq!(all, digests, "each once");
        lengths
    }

    #[test]
    fn pieces_are_bounded_and_never_share_a_directory() {
        assert_eq!(pieces(&[], &mut Seen::default()), []);
        assert_eq!(pieces(&sweep(70, 4), &mut Seen::default()), [(128, 0), (128, 0), (24, 0)]);
        assert_eq!(pieces(&sweep(5, 400), &mut Seen::default()), [(1200, 0), (800, 0)], "a directory is read once");
        assert_eq!(pieces(&sweep(10_000, 1), &mut seen(1, 8, 10)), [(0, 4096), (0, 4096), (0, 1808)]);
        let mut seen = Seen::default();
        let digests = sweep(10_000, 1);
        let first = Plan::new(&digests, false).next_piece(&mut seen).unwrap();
        assert_eq!((first.listed.len(), first.asked.len()), (TRIAL_DIRECTORIES, 0), "a trial");
    }

    #[test]
    fn one_piece_holds_both_kinds() {
        let mut digests = sweep(3, 10);
        digests.push(digest(9, 1));
        assert_eq!(pieces(&digests, &mut Seen::default()), [(30, 1)]);
    }
}
