//! The chunks that somebody has doubted. Pure but for its mutex.

use std::collections::{HashMap, VecDeque};

use crate::sync::Mutex;
use crate::types::Digest;

/// How many are remembered; the oldest are forgotten first. About 6 MB. More holes than that are no repair by upload any more but a case for
/// verification, and a forgotten one is still healed if it is absent, empty or shorter than its upload.
pub const SUSPECTS_MAX: usize = 65_536;

/// A bounded set of digests.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// With the number of the latest mark, for `order` keeps the earlier ones too.
    marked: HashMap<Digest, u64>,
    order: VecDeque<(u64, Digest)>,
    next: u64,
}

impl Suspects {
    /// Remembers `digests`.
    pub(super) fn mark(&self, digests: impl IntoIterator<Item = Digest>) {
        let mut inner = self.inner.lock();
        for digest in digests {
            inner.next += 1;
            let number = inner.next;
            if inner.marked.insert(digest, number).is_none() && inner.marked.len() > SUSPECTS_MAX {
                inner.forget_oldest();
            }
            inner.order.push_back((number, digest));
        }
        if inner.order.len() > 2 * SUSPECTS_MAX {
            let Inner { marked, order, .. } = &mut *inner;
            order.retain(|(number, digest)| marked.get(digest) == Some(number));
        }
    }

    /// Whether it is doubted.
    pub(super) fn contains(&self, digest: &Digest) -> bool {
        self.inner.lock().marked.contains_key(digest)
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.inner.lock().marked.len()
    }

    /// All of them, each with the number of its latest mark.
    pub(super) fn list(&self) -> Vec<(Digest, u64)> {
        self.inner.lock().marked.iter().map(|(digest, number)| (*digest, *number)).collect()
    }

    /// It is gone and nobody wants it, unless somebody has marked it again since.
    pub(super) fn forget(&self, digest: &Digest, number: u64) {
        let mut inner = self.inner.lock();
        if inner.marked.get(digest) == Some(&number) {
            inner.marked.remove(digest);
        }
    }

    /// It was written anew, or seen to be whole.
    pub(super) fn clear(&self, digest: &Digest) {
        self.inner.lock().marked.remove(digest);
    }
}

impl Inner {
    fn forget_oldest(&mut self) {
        while let Some((number, digest)) = self.order.pop_front() {
            if self.marked.get(&digest) == Some(&number) {
                self.marked.remove(&digest);
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(n: usize) -> Digest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        Digest(bytes)
    }

    #[test]
    fn the_oldest_is_forgotten_first_and_memory_stays_bounded() {
        let suspects = Suspects::default();
        suspects.mark((0..SUSPECTS_MAX).map(digest));
        suspects.mark([digest(0)]);
        suspects.mark([digest(SUSPECTS_MAX)]);
        assert!(suspects.contains(&digest(0)), "marked again, so it is young");
        assert!(!suspects.contains(&digest(1)));
        assert!(suspects.contains(&digest(2)) && suspects.contains(&digest(SUSPECTS_MAX)));
        for _ in 0..5 * SUSPECTS_MAX {
            suspects.mark([digest(7)]);
        }
        let inner = suspects.inner.lock();
        assert!(inner.marked.len() <= SUSPECTS_MAX && inner.order.len() <= 2 * SUSPECTS_MAX);
    }

    #[test]
    fn written_anew_it_is_no_longer_doubted() {
        let suspects = Suspects::default();
        suspects.mark([digest(1)]);
        assert_eq!(suspects.count(), 1);
        suspects.clear(&digest(1));
        assert_eq!(suspects.count(), 0);
        assert!(!suspects.contains(&digest(1)));
    }

    #[test]
    fn what_was_marked_again_is_not_forgotten() {
        let suspects = Suspects::default();
        suspects.mark([digest(1), digest(2)]);
        let mut listed = suspects.list();
        listed.sort_unstable_by_key(|(digest, _)| *digest);
        assert_eq!(listed, [(digest(1), 1), (digest(2), 2)]);
        suspects.mark([digest(2)]);
        listed.iter().for_each(|(digest, number)| suspects.forget(digest, *number));
        assert!(!suspects.contains(&digest(1)) && suspects.contains(&digest(2)));
    }
}
