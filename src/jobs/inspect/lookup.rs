//! Which of many chunks an index names: found fast, remembered in a bit each. Pure.

use crate::types::Digest;

/// One entry for each value of a digest's first two bytes, and the end.
const STARTS: usize = (1 << 16) + 1;

/// Distinct digests, to be looked up. 32 bytes each, and 512 KiB.
#[derive(Debug)]
pub(super) struct Lookup {
    digests: Vec<Digest>,
    /// Where the digests of each prefix begin: a search is over a few dozen of a million, wherever digests are spread evenly.
    starts: Vec<usize>,
}

impl Lookup {
    /// Of digests in any order, each as often as may be.
    pub(super) fn of(mut digests: Vec<Digest>) -> Self {
        digests.sort_unstable();
        digests.dedup();
        let mut starts = vec![0; STARTS];
        for digest in &digests {
            starts[usize::from(digest.prefix()) + 1] += 1;
        }
        for at in 1..STARTS {
            starts[at] += starts[at - 1];
        }
        Self { digests, starts }
    }

    /// All of them, sorted.
    pub(super) fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// Where in [`Self::digests`] a digest is.
    pub(super) fn find(&self, digest: &Digest) -> Option<usize> {
        let prefix = usize::from(digest.prefix());
        let (from, to) = (self.starts[prefix], self.starts[prefix + 1]);
        Some(from + self.digests[from..to].binary_search(digest).ok()?)
    }
}

/// A bit for each digest of a [`Lookup`].
#[derive(Clone, Debug, Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    /// `len` bits, none set.
    pub(super) fn none(len: usize) -> Self {
        Self { words: vec![0; len.div_ceil(64)] }
    }

    /// Sets one.
    pub(super) fn set(&mut self, at: usize) {
        self.words[at / 64] |= 1 << (at % 64);
    }

    /// Sets those that `other` has, which has as many.
    pub(super) fn add(&mut self, other: &Self) {
        for (word, more) in self.words.iter_mut().zip(&other.words) {
            *word |= more;
        }
    }

    /// Those that are set, in order.
    pub(super) fn ones(&self) -> impl Iterator<Item = usize> {
        let ones = |(at, word): (usize, &u64)| {
            let word = *word;
            (0..64).filter(move |bit| word >> bit & 1 == 1).map(move |bit| at * 64 + bit)
        };
        self.words.iter().enumerate().filter(|(_, word)| **word != 0).flat_map(ones)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn digest(n: u16, low: u8) -> Digest {
        let mut bytes = [0; 32];
        bytes[..2].copy_from_slice(&n.to_be_bytes());
        bytes[31] = low;
        Digest(bytes)
    }

    proptest! {
        #[test]
        fn what_is_in_it_is_found_and_nothing_else(
            given in prop::collection::vec((any::<u16>(), 0..3_u8), 0..300),
            asked in prop::collection::vec((any::<u16>(), 0..3_u8), 0..50),
        ) {
            let all: Vec<Digest> = given.iter().map(|(n, low)| digest(*n, *low)).collect();
            let set: BTreeSet<Digest> = all.iter().copied().collect();
            let lookup = Lookup::of(all.clone());
            prop_assert_eq!(lookup.digests(), set.iter().copied().collect::<Vec<_>>());
            for wanted in all.iter().copied().chain(asked.iter().map(|(n, low)| digest(*n, *low))) {
                let at = lookup.find(&wanted);
                prop_assert_eq!(at.is_some(), set.contains(&wanted));
                prop_assert!(at.is_none_or(|at| lookup.digests()[at] == wanted));
            }
        }

        #[test]
        fn bits_are_a_set(a in prop::collection::btree_set(0..500_usize, 0..60), b in prop::collection::btree_set(0..500_usize, 0..60)) {
            let bits = |of: &BTreeSet<usize>| {
                let mut bits = Bits::none(500);
                of.iter().for_each(|at| bits.set(*at));
                bits
            };
            let mut both = bits(&a);
            both.add(&bits(&b));
            prop_assert_eq!(both.ones().collect::<Vec<_>>(), a.union(&b).copied().collect::<Vec<_>>());
        }
    }

    #[test]
    fn digests_at_the_ends_of_the_table() {
        let ends = [Digest([0; 32]), Digest([255; 32])];
        let lookup = Lookup::of(ends.to_vec());
        assert_eq!(ends.map(|digest| lookup.find(&digest)), [Some(0), Some(1)]);
    }
}
