//! Which snapshots are marked as failed, for whoever counts them often. Pure but for its mutex, and the survey at the end.
//!
//! Every change that this process makes is told at once ([`Marks::note`]). What was there before it, and what other programs write, a
//! survey finds: a listing of all snapshots, now and then. A mark told while a survey runs is newer than what that has read.

use std::collections::{HashMap, HashSet};

use super::Datastore;
use super::snapshot::GroupFilter;
use crate::error::Result;
use crate::format::manifest::VerifyOutcome;
use crate::sync::Mutex;
use crate::types::{Namespace, Snapshot};

type Set = HashMap<Namespace, HashSet<Snapshot>>;

/// The marks of one datastore. Some 100 bytes for each failed snapshot.
#[derive(Debug, Default)]
pub(super) struct Marks {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    failed: Set,
    /// Whether a survey has been through.
    is_complete: bool,
    /// How often anything changed.
    version: u64,
    /// What was told since a survey began, while one runs.
    told: Option<Set>,
}

fn put(set: &mut Set, ns: &Namespace, snapshot: &Snapshot, is_in: bool) {
    if is_in {
        set.entry(ns.clone()).or_default().insert(snapshot.clone());
    } else if let Some(of_ns) = set.get_mut(ns) {
        of_ns.remove(snapshot);
    }
}

impl Marks {
    /// A manifest has been written, with or without a mark of failure.
    pub(super) fn note(&self, ns: &Namespace, snapshot: &Snapshot, is_failed: bool) {
        let mut inner = self.inner.lock();
        let was_failed = inner.failed.get(ns).is_some_and(|failed| failed.contains(snapshot));
        inner.version += u64::from(was_failed != is_failed);
        put(&mut inner.failed, ns, snapshot, is_failed);
        if let Some(told) = &mut inner.told {
            put(told, ns, snapshot, true);
        }
    }

    /// How many of these snapshots of a namespace are marked; `None` before the first survey is through.
    pub(super) fn count(&self, ns: &Namespace, snapshots: &[Snapshot]) -> Option<u64> {
        let inner = self.inner.lock();
        let failed = inner.failed.get(ns);
        let marked = |snapshot: &&Snapshot| failed.is_some_and(|failed| failed.contains(*snapshot));
        inner.is_complete.then(|| snapshots.iter().filter(marked).count() as u64)
    }

    fn begin_survey(&self) {
        self.inner.lock().told = Some(Set::new());
    }

    fn end_survey(&self, mut found: Set) {
        let mut inner = self.inner.lock();
        for (ns, snapshots) in inner.told.take().unwrap_or_default() {
            for snapshot in snapshots {
                let is_failed = inner.failed.get(&ns).is_some_and(|failed| failed.contains(&snapshot));
                put(&mut found, &ns, &snapshot, is_failed);
            }
        }
        inner.failed = found;
        inner.is_complete = true;
        inner.version += 1;
    }
}

impl Datastore {
    /// Whether a survey has been through since the datastore was opened.
    pub fn knows_marks(&self) -> bool {
        self.inner.marks.inner.lock().is_complete
    }

    /// Changes whenever a snapshot is marked or a mark goes, and with each survey.
    pub fn marks_version(&self) -> u64 {
        self.inner.marks.inner.lock().version
    }

    /// Looks which snapshots are marked as failed: a listing of all of them, in bounded pieces that leave room for backups, which opens only
    /// manifests that changed since the last listing. One at a time; what [`Self::census`] counts as failed is up to date from then on, but
    /// for what other programs write.
    pub async fn survey_marks(&self) -> Result<()> {
        self.inner.marks.begin_survey();
        let mut found = Set::new();
        for ns in self.namespaces(&Namespace::root(), None).await? {
            let mut listing = self.list_snapshots(&ns, &GroupFilter::default(), |_| true).await?;
            while let Some(rows) = listing.next().await? {
                for row in rows {
                    if row.verification.is_some_and(|found| found.state == VerifyOutcome::Failed) {
                        put(&mut found, &ns, &row.snapshot, true);
                    }
                }
            }
        }
        self.inner.marks.end_survey(found);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::*;
    use super::*;
    use crate::format::manifest::VerifyState;

    #[test]
    fn what_is_told_during_a_survey_is_newer_than_what_it_reads() {
        let marks = Marks::default();
        let [a, b, c] = [0, 1, 2].map(|hours| snapshot("host/a", hours));
        let all = [a.clone(), b.clone(), c.clone()];
        marks.note(&root(), &a, true);
        assert_eq!(marks.count(&root(), &all), None, "nobody knows what else there is");
        marks.begin_survey();
        marks.note(&root(), &a, false);
        marks.note(&root(), &b, true);
        let mut read = Set::new();
        [&a, &c].iter().for_each(|snapshot| put(&mut read, &root(), snapshot, true));
        marks.end_survey(read);
        assert_eq!(marks.count(&root(), &all), Some(2));
        assert_eq!(marks.count(&root(), &all[..1]), Some(0));
        assert_eq!(marks.count(&"x".parse().unwrap(), &all), Some(0));
    }

    #[tokio::test]
    async fn a_census_counts_marks_that_were_there_and_those_that_come() {
        let dir = tempfile::tempdir().unwrap();
        let base = make_base(dir.path());
        let store = open(&base).await;
        let set = |state| VerifyState { state, upid: "UPID:x".into() };
        let mark = async |store: &Datastore, hours, state| {
            let found = set(state);
            let edit = move |manifest: &mut crate::format::manifest::Manifest| manifest.set_verify_state(found);
            store.update_manifest(&root(), &snapshot("host/a", hours), edit).await.unwrap();
        };
        for hours in 0..3 {
            back_up(&store, &snapshot("host/a", hours), &[1]).await.unwrap();
        }
        mark(&store, 0, VerifyOutcome::Failed).await;
        let failed = async |store: &Datastore| store.census().await.unwrap().groups[0].failed;
        assert_eq!(failed(&store).await, None);
        // As if the daemon had been started again.
        drop(store);
        let store = open(&base).await;
        store.survey_marks().await.unwrap();
        assert_eq!(failed(&store).await, Some(1));
        mark(&store, 2, VerifyOutcome::Failed).await;
        assert_eq!(failed(&store).await, Some(2));
        mark(&store, 0, VerifyOutcome::Ok).await;
        assert_eq!(failed(&store).await, Some(1));
        store.remove_snapshot(&root(), &snapshot("host/a", 2)).await.unwrap();
        assert_eq!(failed(&store).await, Some(0));
    }
}
