//! The digests that need no upload: those of the previous index, and what this archive has sent already.

use std::collections::HashSet;

use crate::sync::Mutex;
use crate::types::Digest;

/// Known digests of one archive: 32 bytes for each that the previous index names, and about 40 for each sent.
#[derive(Debug, Default)]
pub struct Known {
    /// Sorted, each once.
    previous: Vec<Digest>,
    sent: Mutex<HashSet<Digest>>,
}

impl Known {
    /// With the digests of the previous index, in any order and number.
    pub fn new(previous: impl Iterator<Item = Digest>) -> Self {
        let mut previous: Vec<Digest> = previous.collect();
        previous.sort_unstable();
        previous.dedup();
        previous.shrink_to_fit();
        Self { previous, sent: Mutex::default() }
    }

    /// Whether `digest` may be appended without an upload. Once true, it stays true.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.previous.binary_search(digest).is_ok() || self.sent.lock().contains(digest)
    }

    /// Notes that `digest` is on its way; false if it was known already.
    pub fn insert(&self, digest: Digest) -> bool {
        self.previous.binary_search(&digest).is_err() && self.sent.lock().insert(digest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_new_once() {
        let known = Known::new([Digest([2; 32]), Digest([1; 32]), Digest([2; 32])].into_iter());
        assert!(known.contains(&Digest([1; 32])) && known.contains(&Digest([2; 32])));
        assert!(!known.insert(Digest([2; 32])));
        assert!(!known.contains(&Digest([3; 32])));
        assert!(known.insert(Digest([3; 32])));
        assert!(!known.insert(Digest([3; 32])));
        assert!(known.contains(&Digest([3; 32])));
    }
}
