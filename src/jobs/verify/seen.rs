//! What a task has verified already: each chunk is read once, however many snapshots name it. Pure.

use std::collections::HashSet;
use std::hash::{BuildHasher, DefaultHasher, Hash, Hasher, RandomState};

use super::verdict::Claim;
use crate::types::Digest;

/// Chunks that are remembered as right: a table of 2^23 places at 7/8, 17 bytes each, 143 MB. That many chunks of 4 MiB are 28 TiB of
/// distinct data; a chunk beyond them is read again for each archive that names it, and is right each time.
const VERIFIED_MAX: usize = (1 << 23) / 8 * 7;

/// Chunks that are remembered as bad, 48 MB. A bad one that is forgotten is found missing when it is asked for again.
const BAD_MAX: usize = 1 << 20;

/// The chunks that a task has looked at.
#[derive(Debug)]
pub struct Seen {
    /// 128 bits of keyed hash of digest, length and crypt mode instead of 37 bytes. Two of 14 million chunks share one with a probability of
    /// 10^-24, and nobody who chooses digests knows the keys.
    verified: HashSet<u128>,
    keys: [u64; 4],
    bad: HashSet<Digest>,
}

impl Default for Seen {
    fn default() -> Self {
        let random = || RandomState::new().hash_one(());
        Self::with_keys([random(), random(), random(), random()])
    }
}

impl Seen {
    /// Nothing seen yet. What was seen under other keys is another chunk.
    pub fn with_keys(keys: [u64; 4]) -> Self {
        Self { verified: HashSet::new(), keys, bad: HashSet::new() }
    }

    /// What fingerprints are made with, for [`Self::restore`].
    pub fn keys(&self) -> [u64; 4] {
        self.keys
    }

    /// Takes fingerprints that were made with these keys, and by the same build; those of another one match nothing.
    pub fn restore(&mut self, fingerprints: Vec<u128>) {
        self.verified.extend(fingerprints.into_iter().take(VERIFIED_MAX));
    }

    fn fingerprint(&self, claim: &Claim) -> u128 {
        let half = |keys: &[u64]| {
            let mut hasher = DefaultHasher::new();
            keys.hash(&mut hasher);
            claim.hash(&mut hasher);
            hasher.finish()
        };
        let (high, low) = (half(&self.keys[..2]), half(&self.keys[2..]));
        (u128::from(high) << 64) | u128::from(low)
    }

    /// Whether the chunk was read and was what this claim says.
    pub fn is_verified(&self, claim: &Claim) -> bool {
        self.verified.contains(&self.fingerprint(claim))
    }

    /// Whether the chunk was found to be bad or missing.
    pub fn is_bad(&self, digest: &Digest) -> bool {
        self.bad.contains(digest)
    }

    /// Whether any chunk was.
    pub fn has_bad(&self) -> bool {
        !self.bad.is_empty()
    }

    /// It is what this claim says. Its fingerprint, if that is remembered from now on.
    pub fn add_verified(&mut self, claim: &Claim) -> Option<u128> {
        if self.verified.len() >= VERIFIED_MAX {
            return None;
        }
        let fingerprint = self.fingerprint(claim);
        self.verified.insert(fingerprint).then_some(fingerprint)
    }

    /// It is bad or missing.
    pub fn add_bad(&mut self, digest: Digest) {
        if self.bad.len() < BAD_MAX {
            self.bad.insert(digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_counts_for_the_claim_it_was_held_against() {
        let mut seen = Seen::default();
        let claim = Claim { digest: Digest::of(b"x"), size_bytes: 1, encrypted: false };
        let print = seen.add_verified(&claim).unwrap();
        assert_eq!(seen.add_verified(&claim), None);
        let mut again = Seen::with_keys(seen.keys());
        again.restore(vec![print]);
        assert!(again.is_verified(&claim) && !Seen::default().is_verified(&claim));
        assert!(seen.is_verified(&claim));
        for other in [
            Claim { digest: Digest::of(b"y"), ..claim },
            Claim { size_bytes: 2, ..claim },
            Claim { encrypted: true, ..claim },
        ] {
            assert!(!seen.is_verified(&other), "{other:?}");
        }
        assert!(!seen.has_bad());
        seen.add_bad(claim.digest);
        assert!(seen.has_bad());
        assert!(seen.is_bad(&claim.digest) && !seen.is_bad(&Digest::of(b"y")));
    }
}
