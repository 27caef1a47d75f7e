//! What tasks found that is more than a log holds: kept for a while, for whoever started the task.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::error::{Error, Result};
use crate::jobs::inspect::Report;
use crate::sync::Mutex;
use crate::types::Upid;

/// Reports that are kept, the oldest forgotten first. Most take some kilobytes; the longest lists that one may hold take 30 MB.
const KEPT_MAX: usize = 8;

/// Tasks that make one at a time: each has some 100 MB and a few threads' work.
const MAKING_MAX: usize = 2;

/// The reports of a daemon.
#[derive(Debug)]
pub struct Reports {
    kept: Mutex<VecDeque<(Upid, Arc<Report>)>>,
    places: Arc<Semaphore>,
}

impl Default for Reports {
    fn default() -> Self {
        Self { kept: Mutex::default(), places: Arc::new(Semaphore::new(MAKING_MAX)) }
    }
}

impl Reports {
    /// A place for a task that makes one. `Busy` if there is none.
    pub fn begin(&self) -> Result<OwnedSemaphorePermit> {
        let busy = || format!("{MAKING_MAX} inspections and chunk reports run already; try again when one has ended");
        Arc::clone(&self.places).try_acquire_owned().map_err(|_| Error::busy(busy()))
    }

    /// Keeps what a task found.
    pub fn keep(&self, upid: Upid, report: Report) {
        let mut kept = self.kept.lock();
        if kept.len() >= KEPT_MAX {
            kept.pop_front();
        }
        kept.push_back((upid, Arc::new(report)));
    }

    /// What a task found, if it is kept.
    pub fn get(&self, upid: &Upid) -> Option<Arc<Report>> {
        self.kept.lock().iter().find(|(of, _)| of == upid).map(|(_, report)| Arc::clone(report))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::inspect::report::ChunksReport;

    fn upid(n: usize) -> Upid {
        format!("UPID:localhost:0000138E:0008DD54:{n:08X}:6B033371:chunkreport:main:x@pbs:").parse().unwrap()
    }

    fn report() -> Report {
        Report::Chunks(ChunksReport {
            store: "main".into(),
            about: "missing".into(),
            indexes: 0,
            unreadable: Vec::new(),
            chunks: Vec::new(),
            more_chunks: 0,
            snapshots: Vec::new(),
            hidden_snapshots: 0,
            marked: 0,
        })
    }

    #[test]
    fn the_oldest_goes_first_and_few_are_made_at_a_time() {
        let reports = Reports::default();
        for n in 0..=KEPT_MAX {
            reports.keep(upid(n), report());
        }
        assert!(reports.get(&upid(0)).is_none());
        assert!((1..=KEPT_MAX).all(|n| reports.get(&upid(n)).is_some()));
        let places: Vec<_> = (0..MAKING_MAX).map(|_| reports.begin().unwrap()).collect();
        assert!(reports.begin().unwrap_err().to_string().contains("try again"));
        drop(places);
        assert!(reports.begin().is_ok());
    }
}
