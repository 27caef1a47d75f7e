//! What dear checks of secrets have said lately. Memory only.
//!
//! The official client logs in with its password at every command, and a host asks every ten seconds; at tens of milliseconds of a CPU each
//! that adds up. Only a yes is remembered. Its name is a keyed hash of id, stored hash and secret together: another password, or a new
//! one set, is another name, so nothing has to be invalidated and nothing here helps whoever reads it. Whether the account is active is
//! asked anew each time.

use std::collections::{HashMap, VecDeque};

use super::secret::TokenKey;
use crate::clock::EpochSecs;
use crate::sync::Mutex;
use crate::types::AuthId;

/// Most verdicts at a time: one for each client of a large site. The oldest goes first; 100 bytes each.
const VERDICTS_MAX: usize = 4096;

/// How long a verdict holds, in seconds: far less than the ticket that a login gives.
const LIFETIME_SECS: i64 = 300;

type Name = [u8; 32];

/// Secrets that were right a short time ago.
#[derive(Debug, Default)]
pub struct Verdicts {
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    since: HashMap<Name, EpochSecs>,
    /// In the order in which they were learnt.
    order: VecDeque<(Name, EpochSecs)>,
}

impl Verdicts {
    /// Whether this secret matched this hash of this id a short time ago.
    pub fn knows(&self, key: &TokenKey, auth: &AuthId, secret: &str, hash: &str, now: EpochSecs) -> bool {
        let name = key.verdict(auth, secret, hash);
        self.known.lock().since.get(&name).is_some_and(|since| holds(*since, now))
    }

    /// Remembers that it does.
    pub fn learn(&self, key: &TokenKey, auth: &AuthId, secret: &str, hash: &str, now: EpochSecs) {
        let name = key.verdict(auth, secret, hash);
        let mut known = self.known.lock();
        known.since.insert(name, now);
        known.order.push_back((name, now));
        while let Some((oldest, learnt)) = known.order.front().copied() {
            if known.order.len() <= VERDICTS_MAX && holds(learnt, now) {
                break;
            }
            known.order.pop_front();
            // It may have been learnt anew since.
            if known.since.get(&oldest) == Some(&learnt) {
                known.since.remove(&oldest);
            }
        }
    }
}

/// A clock that was set back makes a verdict void, not longer.
fn holds(since: EpochSecs, now: EpochSecs) -> bool {
    (0..LIFETIME_SECS).contains(&(now.0 - since.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: EpochSecs = EpochSecs(10_000);

    fn key() -> TokenKey {
        TokenKey::new(vec![1; 32])
    }

    #[test]
    fn a_verdict_is_about_one_secret_of_one_hash_of_one_id() {
        let (verdicts, key, user) = (Verdicts::default(), key(), "u@pbs".parse().unwrap());
        verdicts.learn(&key, &user, "secret", "hash", NOW);
        let knows = |id: &str, secret: &str, hash: &str, now: i64| {
            verdicts.knows(&key, &id.parse().unwrap(), secret, hash, EpochSecs(now))
        };
        for (id, secret, hash, now, want) in [
            ("u@pbs", "secret", "hash", 10_000, true),
            ("u@pbs", "secret", "hash", 10_299, true),
            ("u@pbs", "secret", "hash", 10_300, false),
            ("u@pbs", "secret", "hash", 9_999, false),
            ("u@pbs", "Secret", "hash", 10_000, false),
            ("u@pbs", "secret", "hash of a new password", 10_000, false),
            ("v@pbs", "secret", "hash", 10_000, false),
            ("u@pbs!secret", "", "hash", 10_000, false),
        ] {
            assert_eq!(knows(id, secret, hash, now), want, "{id} {secret} {hash} {now}");
        }
        assert!(!verdicts.knows(&TokenKey::new(vec![2; 32]), &user, "secret", "hash", NOW));
    }

    #[test]
    fn the_oldest_goes_first_and_what_is_void_goes_at_once() {
        let (verdicts, key, user) = (Verdicts::default(), key(), "u@pbs".parse().unwrap());
        for i in 0..=VERDICTS_MAX {
            verdicts.learn(&key, &user, &i.to_string(), "hash", NOW);
        }
        let knows = |i: usize, now| verdicts.knows(&key, &user, &i.to_string(), "hash", now);
        assert_eq!([knows(0, NOW), knows(1, NOW), knows(VERDICTS_MAX, NOW)], [false, true, true]);
        let later = EpochSecs(NOW.0 + LIFETIME_SECS);
        verdicts.learn(&key, &user, "1", "hash", later);
        assert_eq!(verdicts.known.lock().order.len(), 1);
        assert!(knows(1, later));
    }

    #[test]
    fn what_was_learnt_again_outlives_its_first_time() {
        let (verdicts, key, user) = (Verdicts::default(), key(), "u@pbs".parse().unwrap());
        verdicts.learn(&key, &user, "a", "hash", NOW);
        let later = EpochSecs(NOW.0 + LIFETIME_SECS - 1);
        verdicts.learn(&key, &user, "a", "hash", later);
        let last = EpochSecs(NOW.0 + LIFETIME_SECS);
        verdicts.learn(&key, &user, "b", "hash", last);
        assert!(verdicts.knows(&key, &user, "a", "hash", last));
    }
}
