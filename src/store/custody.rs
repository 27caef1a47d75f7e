//! What the writers of a datastore and its garbage collection agree on, so that no chunk is removed that somebody may still name.
//!
//! One per directory and process, as the process lock, however often the datastore is opened. None of it waits for a disk.
//!
//! | part | what it rules out |
//! |---|---|
//! | claims | an insert that says "is there already" and the removal of that chunk, at a time |
//! | watch | a chunk put into the store, or an index that gets its name, after the collection has looked there |
//! | changes | one of these that began just before the watch and is not over |
//! | taken | a chunk that a verification renames behind the last look of a backup that then finishes; see `taken` |
//! | keepers | a chunk that a running session sent, and that no index with a name names yet |
//!
//! The whole argument is in `docs/garbage-collection.md`.

use std::fmt;
use std::sync::{Arc, Weak};

use tokio::sync::watch;

use super::claims::Claims;
use super::live_set::{LiveSet, Mark};
use super::taken::Board;
use crate::sync::Mutex;
use crate::types::Digest;

/// Somebody who may still name chunks that no index names yet: a running session.
pub trait Keeper: fmt::Debug + Send + Sync {
    /// Whether this chunk is one of them. Memory work only.
    fn keeps(&self, digest: &Digest) -> bool;
}

/// See the module.
#[derive(Debug)]
pub(super) struct Custody {
    pub(super) claims: Claims<Digest>,
    pub(super) taken: Arc<Board>,
    watch: Mutex<Option<Arc<Mutex<LiveSet>>>>,
    /// The last one is the present; those before it are kept until their changes are over. A change listens to its epoch, so an epoch is over
    /// when nobody listens.
    epochs: Mutex<Vec<Arc<watch::Sender<()>>>>,
    keepers: Mutex<Vec<Weak<dyn Keeper>>>,
}

/// Something that adds to what has to stay is under way: an upload until its session knows the chunk, an index until it has its name. A pass
/// of a collection begins when all changes are over that began before it.
#[derive(Debug)]
pub struct Change {
    _epoch: watch::Receiver<()>,
}

impl Default for Custody {
    fn default() -> Self {
        Self {
            claims: Claims::default(),
            taken: Arc::default(),
            watch: Mutex::default(),
            epochs: Mutex::new(vec![Arc::new(watch::Sender::new(()))]),
            keepers: Mutex::default(),
        }
    }
}

impl Custody {
    /// Begins a change. Whoever holds one asks for the watch afterwards, never before.
    pub(super) fn begin_change(&self) -> Change {
        let epochs = self.epochs.lock();
        Change { _epoch: epochs.last().expect("the present is always there").subscribe() }
    }

    /// Waits until the changes are over that have begun by now.
    pub(super) async fn changes_are_over(&self) {
        let past = {
            let mut epochs = self.epochs.lock();
            epochs.push(Arc::new(watch::Sender::new(())));
            epochs[..epochs.len() - 1].to_vec()
        };
        for epoch in &past {
            epoch.closed().await;
        }
        // Kept until here: a wait that is given up leaves them for the next one.
        self.epochs.lock().retain(|epoch| !past.iter().any(|over| Arc::ptr_eq(over, epoch)));
    }

    /// From now on everything that comes is also in `live`.
    pub(super) fn set_watch(&self, live: &Arc<Mutex<LiveSet>>) {
        *self.watch.lock() = Some(Arc::clone(live));
    }

    /// Ends a watch, unless another has taken its place.
    pub(super) fn end_watch(&self, live: &Arc<Mutex<LiveSet>>) {
        let mut watch = self.watch.lock();
        if watch.as_ref().is_some_and(|watched| Arc::ptr_eq(watched, live)) {
            *watch = None;
        }
    }

    /// Says that chunks are about to be put into the store, or to be named by an index that is about to get its name.
    pub(super) fn tell(&self, digests: impl Iterator<Item = Digest>) {
        let watch = self.watch.lock().clone();
        if let Some(live) = watch {
            let mut live = live.lock();
            for digest in digests {
                live.add(&digest, Mark::There);
            }
        }
    }

    /// Remembers somebody who may still name chunks, for as long as he lives.
    pub(super) fn add_keeper(&self, keeper: &Arc<dyn Keeper>) {
        let mut keepers = self.keepers.lock();
        keepers.retain(|keeper| keeper.strong_count() > 0);
        keepers.push(Arc::downgrade(keeper));
    }

    /// Those who live.
    pub(super) fn keepers(&self) -> Vec<Arc<dyn Keeper>> {
        self.keepers.lock().iter().filter_map(Weak::upgrade).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn digest(n: u8) -> Digest {
        Digest::of(&[n])
    }

    fn live() -> Arc<Mutex<LiveSet>> {
        Arc::new(Mutex::new(LiveSet::new(0..65_536, u64::MAX)))
    }

    #[tokio::test]
    async fn a_pass_waits_for_changes_that_began_before_it_and_for_no_later_ones() {
        let custody = Arc::new(Custody::default());
        let before = custody.begin_change();
        // Given up, and still nothing is forgotten.
        let short = Duration::from_millis(5);
        assert!(tokio::time::timeout(short, custody.changes_are_over()).await.is_err());
        let between = custody.begin_change();
        let wait = tokio::spawn({
            let custody = Arc::clone(&custody);
            async move { custody.changes_are_over().await }
        });
        tokio::time::sleep(short).await;
        let after = custody.begin_change();
        drop(between);
        tokio::time::sleep(short).await;
        assert!(!wait.is_finished(), "the first change is still under way");
        drop(before);
        wait.await.unwrap();
        assert_eq!(custody.epochs.lock().len(), 1);
        drop(after);
        custody.changes_are_over().await;
        assert_eq!(custody.epochs.lock().len(), 1);
    }

    #[test]
    fn what_comes_under_a_watch_is_live() {
        let (custody, live, later) = (Custody::default(), live(), live());
        custody.tell([digest(0)].into_iter());
        custody.set_watch(&live);
        custody.tell([digest(1), digest(2)].into_iter());
        custody.set_watch(&later);
        custody.end_watch(&live);
        custody.tell([digest(3)].into_iter());
        custody.end_watch(&later);
        custody.tell([digest(4)].into_iter());
        let held = |set: &Mutex<LiveSet>| (0..5).filter(|n| set.lock().contains(&digest(*n))).collect::<Vec<u8>>();
        assert_eq!((held(&live), held(&later)), (vec![1, 2], vec![3]));
        assert!(!live.lock().is_unmet(&digest(1)));
    }

    #[test]
    fn a_keeper_is_asked_as_long_as_he_lives() {
        #[derive(Debug)]
        struct One(Digest);
        impl Keeper for One {
            fn keeps(&self, digest: &Digest) -> bool {
                self.0 == *digest
            }
        }
        let custody = Custody::default();
        let keeps = |digest: &Digest| custody.keepers().iter().any(|keeper| keeper.keeps(digest));
        let one: Arc<dyn Keeper> = Arc::new(One(digest(1)));
        custody.add_keeper(&one);
        assert!(keeps(&digest(1)) && !keeps(&digest(2)));
        drop(one);
        assert!(!keeps(&digest(1)));
        let other: Arc<dyn Keeper> = Arc::new(One(digest(2)));
        custody.add_keeper(&other);
        assert_eq!(custody.keepers.lock().len(), 1, "the dead are forgotten");
    }
}
