//! Whether chunks of one directory are asked for one by one or found by reading the directory. Pure.

use std::ops::Range;

use crate::types::Digest;

/// What opening and closing a directory costs, in names read: 6 µs against 0.15 µs in memory, a round trip or two against a share of one
/// elsewhere.
const OPEN_COSTS_NAMES: u64 = 40;

/// What a check of one file costs, in names read: 2.3 µs against 0.15 µs in memory. Where it is a seek it costs far more, so that a
/// directory that pays in memory pays everywhere.
const CHECK_COSTS_NAMES: u64 = 15;

/// The rule of one sweep, which learns how full directories are: digests are spread evenly, so a few tell about all.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct SweepPlan {
    directories: u64,
    names: u64,
}

impl SweepPlan {
    /// Whether reading the directory is cheaper than asking for `wanted` of its files.
    pub(super) fn lists(&self, wanted: usize) -> bool {
        let wanted = wanted as u64;
        // Nothing but the chunks asked for, until it has seen one.
        let names = self.names.checked_div(self.directories).unwrap_or(0).max(wanted);
        wanted * CHECK_COSTS_NAMES > OPEN_COSTS_NAMES + names
    }

    /// `directories` were read and held `names` names.
    pub(super) fn saw(&mut self, directories: u64, names: u64) {
        self.directories += directories;
        self.names += names;
    }
}

/// Where the chunks of each directory lie in sorted `digests`.
pub(super) fn runs(digests: &[Digest]) -> impl Iterator<Item = (u16, Range<usize>)> {
    let mut begin = 0;
    digests.chunk_by(|a, b| a.prefix() == b.prefix()).map(move |run| {
        let range = begin..begin + run.len();
        begin = range.end;
        (run[0].prefix(), range)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_read_where_enough_of_it_is_wanted() {
        // (names per directory seen so far, least number of wanted chunks for which it is read)
        for (names, least) in [(0, 3), (3, 3), (15, 4), (218, 18), (1000, 70), (100_000, 6670)] {
            let mut plan = SweepPlan::default();
            if names > 0 {
                plan.saw(10, 10 * names);
            }
            assert!(plan.lists(least), "{least} of {names}");
            assert!(!plan.lists(least - 1), "{} of {names}", least - 1);
        }
    }

    #[test]
    fn runs_cover_all_and_never_two_directories() {
        let digest = |prefix: u16, n: u8| {
            let mut bytes = [n; 32];
            bytes[..2].copy_from_slice(&prefix.to_be_bytes());
            Digest(bytes)
        };
        let digests = [digest(0, 1), digest(0, 2), digest(7, 0), digest(0xffff, 0), digest(0xffff, 9)];
        let found: Vec<_> = runs(&digests).collect();
        assert_eq!(found, [(0, 0..2), (7, 2..3), (0xffff, 3..5)]);
        assert_eq!(runs(&[]).count(), 0);
    }
}
