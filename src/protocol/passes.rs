//! The distinct digests of indexes of any size, in passes of bounded memory. Pure.
//!
//! A snapshot of 60 TB has 14 million chunks: 460 MB of digests. Its index files are read once per pass instead, and each pass
//! keeps the smallest digests above those of the pass before. Where a pass ends is found on the way, from the digests
//! themselves: those of encrypted chunks are whatever the client says and need not be spread evenly.

use crate::types::Digest;

/// Digests kept at a time: 2 Mi, 64 MiB of memory.
pub const PASS_DIGESTS_MAX: usize = 2 << 20;

/// One pass over all entries.
#[derive(Debug)]
pub struct Pass {
    /// Only digests above this one: the others were in earlier passes.
    above: Option<Digest>,
    /// Only digests up to this one: the others are for later passes.
    up_to: Option<Digest>,
    digests: Vec<Digest>,
    digests_max: usize,
}

impl Pass {
    /// The first pass.
    pub fn first(digests_max: usize) -> Self {
        Self { above: None, up_to: None, digests: Vec::new(), digests_max: digests_max.max(2) }
    }

    /// Takes one entry of an index. Whether it is time to [`Self::compact`].
    pub fn add(&mut self, digest: &Digest) -> bool {
        let early = self.above.is_some_and(|above| *digest <= above);
        let late = self.up_to.is_some_and(|up_to| *digest > up_to);
        // What repeats most, repeats in a row: the blocks of zeros of an image.
        if !early && !late && self.digests.last() != Some(digest) {
            self.digests.push(*digest);
        }
        self.digests.len() >= self.digests_max
    }

    /// Drops repetitions, and when that does not help, the larger half. Some tenths of a second of sorting.
    pub fn compact(&mut self) {
        self.digests.sort_unstable();
        self.digests.dedup();
        if self.digests.len() > self.digests_max / 2 {
            self.digests.truncate(self.digests_max / 2);
            self.up_to = self.digests.last().copied();
        }
    }

    /// The digests of this pass, sorted, each once; and the next pass, if there is to be one. Sorts, as [`Self::compact`].
    pub fn end(mut self) -> (Vec<Digest>, Option<Self>) {
        self.digests.sort_unstable();
        self.digests.dedup();
        let next = self.up_to.map(|up_to| Self { above: Some(up_to), ..Self::first(self.digests_max) });
        (self.digests, next)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    /// All passes over `entries`, and how many digests were kept at most.
    fn run(entries: &[Digest], digests_max: usize) -> (Vec<Vec<Digest>>, usize) {
        let (mut passes, mut most) = (Vec::new(), 0);
        let mut pass = Some(Pass::first(digests_max));
        while let Some(mut now) = pass {
            for digest in entries {
                if now.add(digest) {
                    now.compact();
                }
                most = most.max(now.digests.len());
            }
            let (digests, next) = now.end();
            passes.push(digests);
            pass = next;
        }
        (passes, most)
    }

    proptest! {
        #[test]
        fn every_digest_comes_exactly_once(numbers in prop::collection::vec(0..300_u16, 0..2000), digests_max in 2..100_usize) {
            let entries: Vec<Digest> = numbers
                .iter()
                .map(|n| {
                    // Only the last bytes differ, as a hostile client would have it.
                    let mut bytes = [7; 32];
                    bytes[30..].copy_from_slice(&n.to_be_bytes());
                    Digest(bytes)
                })
                .collect();
            let (passes, most) = run(&entries, digests_max);
            let all: Vec<Digest> = passes.concat();
            let want: Vec<Digest> = entries.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
            prop_assert_eq!(all, want);
            prop_assert!(most <= digests_max);
            prop_assert!(passes.len() <= 1 + 300 / (digests_max / 2));
        }
    }

    #[test]
    fn an_image_of_zeros_is_one_pass_of_one_digest() {
        let entries = vec![Digest::ZERO; 100_000];
        assert_eq!(run(&entries, 16), (vec![vec![Digest::ZERO]], 1));
    }
}
