//! One at a time per key, any number of keys at once.
//!
//! Who claims a key that somebody holds waits asynchronously, in the order of arrival; different keys never meet. The guard may be
//! moved into work on the engine's pool, so that the claim lasts as long as the work does and not just as long as somebody
//! waits for it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use crate::sync::Mutex;

type Turn = Arc<tokio::sync::Mutex<()>>;

/// The keys that are claimed or waited for; as many entries as there are such keys.
#[derive(Debug)]
pub(super) struct Claims<K> {
    turns: Arc<Mutex<HashMap<K, Turn>>>,
}

impl<K> Default for Claims<K> {
    fn default() -> Self {
        Self { turns: Arc::default() }
    }
}

/// The key is this holder's until it is dropped.
#[derive(Debug)]
pub(super) struct Claim<K: Eq + Hash> {
    turns: Arc<Mutex<HashMap<K, Turn>>>,
    key: K,
    turn: Option<OwnedMutexGuard<()>>,
}

impl<K: Clone + Eq + Hash> Claims<K> {
    /// Waits for the key.
    pub(super) async fn claim(&self, key: K) -> Claim<K> {
        let turn = Arc::clone(self.turns.lock().entry(key.clone()).or_default());
        // Made before the wait, so that a waiter that is given up tidies the table as well.
        let mut claim = Claim { turns: Arc::clone(&self.turns), key, turn: None };
        claim.turn = Some(turn.lock_owned().await);
        claim
    }

    /// The key, if nobody has it or waits for it.
    pub(super) fn try_claim(&self, key: K) -> Option<Claim<K>> {
        let turn = Arc::clone(self.turns.lock().entry(key.clone()).or_default());
        let mut claim = Claim { turns: Arc::clone(&self.turns), key, turn: None };
        claim.turn = Some(turn.try_lock_owned().ok()?);
        Some(claim)
    }

    #[cfg(test)]
    fn count(&self) -> usize {
        self.turns.lock().len()
    }
}

impl<K: Eq + Hash> Drop for Claim<K> {
    fn drop(&mut self) {
        let mut turns = self.turns.lock();
        self.turn = None;
        // The table's own reference is the last one when nobody waits. References are only ever added under the table's lock.
        if turns.get(&self.key).is_some_and(|turn| Arc::strong_count(turn) == 1) {
            turns.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_second_claim_waits_for_the_first_and_other_keys_do_not() {
        let claims = Arc::new(Claims::default());
        let first = claims.claim(1).await;
        let _other = claims.claim(2).await;
        let waiting = tokio::spawn({
            let claims = Arc::clone(&claims);
            async move { drop(claims.claim(1).await) }
        });
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!waiting.is_finished());
        drop(first);
        waiting.await.unwrap();
        assert_eq!(claims.count(), 1, "only key 2 is left");
    }

    #[tokio::test]
    async fn a_waiter_that_gives_up_leaves_nothing_behind() {
        let claims = Claims::default();
        let first = claims.claim("k").await;
        assert!(tokio::time::timeout(Duration::from_millis(10), claims.claim("k")).await.is_err());
        drop(first);
        assert_eq!(claims.count(), 0);
        drop(claims.claim("k").await);
        assert_eq!(claims.count(), 0);
    }

    #[tokio::test]
    async fn a_key_that_somebody_has_is_not_had_by_trying() {
        let claims = Claims::default();
        let first = claims.try_claim("k").unwrap();
        assert!(claims.try_claim("k").is_none() && claims.try_claim("l").is_some());
        assert_eq!(claims.count(), 1, "the attempt left nothing behind");
        drop(first);
        assert!(claims.try_claim("k").is_some());
        assert_eq!(claims.count(), 0);
    }
}
