//! Looks at datastores for the metrics: in the background, at most one a datastore, and not oftener than needed.
//!
//! A scrape is answered with what was seen last. If that is old, a new look is begun first and waited for a moment: a small datastore is shown as it is now,
//! a large or hanging one as it was, and no scrape waits for a disk for long.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::clock::{Clock, EpochSecs};
use crate::store::{Census, Datastore};
use crate::sync::Mutex;
use crate::types::DatastoreName;

/// A look that is younger is shown as it is: scrapers ask every 15 s to 60 s, and several of them share one look.
const FRESH_MAX: Duration = Duration::from_secs(10);

/// How long a scrape waits for a look; Prometheus gives up after 10 s.
const PATIENCE: Duration = Duration::from_secs(2);

/// How often all manifests are asked what their last verification said, for the sake of other programs that write there; what this daemon
/// writes is known at once. A listing of ten thousand snapshots is a second where the cache is warm.
const SURVEY_INTERVAL: Duration = Duration::from_secs(3600);

/// What a datastore held.
#[derive(Debug)]
pub(super) struct Seen {
    pub at: EpochSecs,
    pub took: Duration,
    pub census: Census,
}

/// The last look.
#[derive(Debug)]
pub(super) struct Look {
    /// Whether it succeeded.
    pub readable: bool,
    /// What the last successful one saw.
    pub seen: Option<Arc<Seen>>,
    ended: Instant,
    /// Of the marks, before it began: what has been found to be bad is shown by the next scrape.
    marks: u64,
}

#[derive(Debug)]
struct Slot {
    latest: watch::Sender<Option<Arc<Look>>>,
    is_looking: AtomicBool,
    is_surveying: AtomicBool,
    surveyed: Mutex<Option<Instant>>,
}

/// The looks at all datastores.
#[derive(Debug, Default)]
pub(super) struct Censuses {
    slots: Mutex<HashMap<DatastoreName, Arc<Slot>>>,
}

impl Censuses {
    /// The last look at each of `stores`, `None` where none has ended yet.
    pub(super) async fn looks(&self, stores: &[Datastore], clock: &Clock) -> Vec<Option<Arc<Look>>> {
        let slots = self.slots(stores);
        let deadline = Instant::now() + PATIENCE;
        let waits: Vec<_> = stores.iter().zip(slots).map(|(store, slot)| slot.begin(store, clock)).collect();
        let mut looks = Vec::with_capacity(waits.len());
        for (mut latest, is_fresh) in waits {
            if !is_fresh {
                // Past the deadline the former look has to do.
                let _ = timeout_at(deadline, latest.changed()).await;
            }
            let look = latest.borrow().clone();
            looks.push(look);
        }
        looks
    }

    /// The places of `stores`; those of others are given up.
    fn slots(&self, stores: &[Datastore]) -> Vec<Arc<Slot>> {
        let mut slots = self.slots.lock();
        slots.retain(|name, _| stores.iter().any(|store| store.name() == name));
        let of = |store: &Datastore| slots.entry(store.name().clone()).or_insert_with(Slot::new).clone();
        stores.iter().map(of).collect()
    }
}

impl Slot {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            latest: watch::Sender::new(None),
            is_looking: AtomicBool::new(false),
            is_surveying: AtomicBool::new(false),
            surveyed: Mutex::default(),
        })
    }

    /// Begins a look unless the last one is fresh or one is under way. Says whether it is fresh.
    fn begin(self: Arc<Self>, store: &Datastore, clock: &Clock) -> (watch::Receiver<Option<Arc<Look>>>, bool) {
        let latest = self.latest.subscribe();
        let is_fresh = latest
            .borrow()
            .as_ref()
            .is_some_and(|look| look.ended.elapsed() < FRESH_MAX && look.marks == store.marks_version());
        if !is_fresh && !self.is_looking.swap(true, Ordering::AcqRel) {
            let (store, clock) = (store.clone(), clock.clone());
            let slot = Arc::clone(&self);
            tokio::spawn(async move { slot.look(&store, &clock).await });
        }
        let is_surveyed = store.knows_marks() && self.surveyed.lock().is_some_and(|at| at.elapsed() < SURVEY_INTERVAL);
        if !is_surveyed && !self.is_surveying.swap(true, Ordering::AcqRel) {
            let store = store.clone();
            tokio::spawn(async move { self.survey(&store).await });
        }
        (latest, is_fresh)
    }

    /// Has the datastore find out which snapshots are marked. One that is not readable is asked again by the next scrape.
    async fn survey(&self, store: &Datastore) {
        match store.survey_marks().await {
            Ok(()) => *self.surveyed.lock() = Some(Instant::now()),
            Err(error) => tracing::debug!(store = %store.name(), %error, "the marks of snapshots were not looked at"),
        }
        self.is_surveying.store(false, Ordering::Release);
    }

    async fn look(&self, store: &Datastore, clock: &Clock) {
        let started = Instant::now();
        let marks = store.marks_version();
        let census = store.census().await;
        let former = self.latest.borrow().clone();
        let was_readable = former.as_ref().is_none_or(|look| look.readable);
        let look = match census {
            Ok(census) => {
                let seen = Seen { at: clock.now(), took: started.elapsed(), census };
                Look { readable: true, seen: Some(Arc::new(seen)), ended: Instant::now(), marks }
            }
            Err(error) => {
                // Once for each time that it goes away, not at each scrape.
                if was_readable {
                    tracing::warn!(store = %store.name(), %error, "the datastore could not be looked at for the metrics");
                }
                Look { readable: false, seen: former.and_then(|look| look.seen.clone()), ended: Instant::now(), marks }
            }
        };
        self.latest.send_replace(Some(Arc::new(look)));
        self.is_looking.store(false, Ordering::Release);
    }
}
