//! What a task has verified already: each chunk is read once, however many snapshots name it. Pure.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use super::verdict::Claim;
use crate::types::Digest;

/// Chunks that are remembered as right: a table of 2^23 places at 7/8, 17 bytes each, 143 MB. That many chunks of 4 MiB are 28 TiB of
/// distinct data; a chunk beyond them is read again for each archive that names it, and is right each time.
const VERIFIED_MAX: usize = (1 << 23) / 8 * 7;

/// Chunks that are remembered as bad, 48 MB. A bad one that is forgotten is found missing when it is asked for again.
const BAD_MAX: usize = 1 << 20;

/// The chunks that a task has looked at.
#[derive(Debug, Default)]
pub struct Seen {
    /// 128 bits of keyed hash of digest, length and crypt mode instead of 37 bytes. Two of 14 million chunks share one with a probability of
    /// 10^-24, and nobody who chooses digests knows the keys.
    verified: HashSet<u128>,
    keys: (RandomState, RandomState),
    bad: HashSet<Digest>,
}

impl Seen {
    fn fingerprint(&self, claim: &Claim) -> u128 {
        let (high, low) = (self.keys.0.hash_one(claim), self.keys.1.hash_one(claim));
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

    /// It is what this claim says.
    pub fn add_verified(&mut self, claim: &Claim) {
        if self.verified.len() < VERIFIED_MAX {
            let fingerprint = self.fingerprint(claim);
            self.verified.insert(fingerprint);
        }
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
        seen.add_verified(&claim);
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
