//! Which snapshots a verification looks at, and in which order (spec 07 §3.1). Pure.

use std::cmp::Ordering;

use crate::clock::EpochSecs;
use crate::format::manifest::{VerifyOutcome, VerifyState};
use crate::types::{BackupType, Group, Namespace, Snapshot, Upid};

/// Worker type of the tasks whose mark in a manifest comes from a known-chunk check: they look at what one backup needs, a verification
/// looks at all.
const CHECKING_WORKER_TYPE: &str = "backup";

/// The same of a report about chunks, which has read no chunk either.
const REPORTING_WORKER_TYPE: &str = "chunkreport";

const SECS_PER_DAY: i64 = 86_400;

/// What is verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All groups of a namespace and of those below it.
    Namespace {
        /// Where to begin.
        ns: Namespace,
        /// How many levels down; `None` for all.
        max_depth: Option<usize>,
    },
    /// All snapshots of a group, newest first.
    Group(Namespace, Group),
    /// One snapshot.
    Snapshot(Namespace, Snapshot),
}

/// Which of them are left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Filter {
    /// Leave out what has been verified, whatever the outcome.
    pub ignore_verified: bool,
    /// But not what was verified more than so many days ago.
    pub outdated_after_days: Option<u64>,
    /// And not what the known-chunk check of a backup has marked. The original has no such thing, and leaves a marked snapshot failed until
    /// it is outdated, even when the next backup has healed it.
    pub recheck_marked: bool,
}

impl Filter {
    /// Nothing is left out.
    pub const NONE: Self = Self { ignore_verified: false, outdated_after_days: None, recheck_marked: true };

    /// Whether a snapshot with this state is to be verified at `now`. `None`: it has none, or its manifest cannot be read, which the
    /// verification will tell.
    pub fn wants(&self, state: Option<&VerifyState>, now: EpochSecs) -> bool {
        if !self.ignore_verified {
            return true;
        }
        let Some((outcome, upid)) = state.and_then(|found| Some((found.state, found.upid.parse::<Upid>().ok()?)))
        else {
            return true;
        };
        let marked = outcome == VerifyOutcome::Failed
            && [CHECKING_WORKER_TYPE, REPORTING_WORKER_TYPE].contains(&upid.worker_type.as_str());
        if marked && self.recheck_marked {
            return true;
        }
        let age_days = now.0.saturating_sub(upid.start.0).div_euclid(SECS_PER_DAY);
        self.outdated_after_days.is_some_and(|days| i64::try_from(days).is_ok_and(|days| age_days > days))
    }
}

impl Default for Filter {
    /// As a call without parameters, and as a job.
    fn default() -> Self {
        Self { ignore_verified: true, ..Self::NONE }
    }
}

/// The order of groups: by type, then numbers by their value, then everything else by its bytes.
pub fn group_order(a: &Group, b: &Group) -> Ordering {
    let number = |group: &Group| group.id().parse::<u64>().ok();
    let by_id = || match (number(a), number(b)) {
        (Some(x), Some(y)) => x.cmp(&y).then_with(|| a.id().cmp(b.id())),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.id().cmp(b.id()),
    };
    a.ty().cmp(&b.ty()).then_with(by_id)
}

/// Whether a group holds what `benchmark` runs of clients leave, which nobody will ever restore.
pub fn is_benchmark(group: &Group) -> bool {
    group.ty() == BackupType::Host && group.id() == "benchmark"
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: EpochSecs = EpochSecs(1_717_597_418);

    fn state(state: VerifyOutcome, worker_type: &str, age_secs: i64) -> VerifyState {
        let start = u64::try_from(NOW.0 - age_secs).unwrap();
        let upid = format!("UPID:pbs1:00001A2B:0012C3D4:00000005:{start:08X}:{worker_type}:store1:root@pam:");
        assert!(upid.parse::<Upid>().is_ok());
        VerifyState { state, upid }
    }

    #[test]
    fn what_has_been_verified_is_left_out_until_it_is_outdated() {
        use VerifyOutcome::{Failed, Ok};
        let verify = |outcome, age| Some(state(outcome, "verify", age));
        let garbage = Some(VerifyState { state: Ok, upid: "nonsense".into() });
        let day = SECS_PER_DAY;
        // State, days that are outdated, whether it is verified.
        for (found, outdated, wanted) in [
            (None, None, true),
            (garbage.clone(), None, true),
            (garbage, Some(30), true),
            (verify(Ok, 0), None, false),
            (verify(Ok, 1000 * day), None, false),
            (verify(Failed, 1000 * day), None, false),
            (verify(Ok, day), Some(0), true),
            (verify(Ok, day - 1), Some(0), false),
            (verify(Ok, -5 * day), Some(0), false),
            (verify(Ok, 31 * day - 1), Some(30), false),
            (verify(Ok, 31 * day), Some(30), true),
            (verify(Failed, 31 * day), Some(30), true),
            (verify(Ok, day), Some(u64::MAX), false),
            (Some(state(Failed, "backup", 0)), None, true),
            (Some(state(Ok, "backup", 0)), None, false),
        ] {
            let filter = Filter { outdated_after_days: outdated, ..Filter::default() };
            assert_eq!(filter.wants(found.as_ref(), NOW), wanted, "{found:?}, outdated after {outdated:?}");
            assert!(Filter::NONE.wants(found.as_ref(), NOW));
        }
        let marked = state(Failed, "backup", 0);
        assert!(!Filter { recheck_marked: false, ..Filter::default() }.wants(Some(&marked), NOW), "as the original");
    }

    #[test]
    fn groups_go_by_type_then_number_then_name() {
        let sorted = [
            "ct/2",
            "ct/10",
            "ct/a",
            "host/007",
            "host/7",
            "host/18446744073709551615",
            "host/-1",
            "host/18446744073709551616",
            "host/B",
            "host/a",
            "vm/100",
        ];
        let mut groups: Vec<Group> = sorted.iter().rev().filter_map(|text| text.parse().ok()).collect();
        groups.sort_by(group_order);
        let shown: Vec<String> = groups.iter().map(Group::to_string).collect();
        let valid: Vec<&str> = sorted.into_iter().filter(|text| text.parse::<Group>().is_ok()).collect();
        assert_eq!(shown, valid);
        assert!(is_benchmark(&"host/benchmark".parse().unwrap()) && !is_benchmark(&"vm/benchmark".parse().unwrap()));
    }
}
