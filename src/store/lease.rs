//! What a running backup holds, and how it is let go: the machine behind [`BackupLease`](super::BackupLease) and its index writers.
//!
//! Whoever writes into the snapshot's directory has a [`Pass`], which goes along with the work onto the pool. A lease that is abandoned gives
//! out no more of them, and the last one that comes back removes the directory; so nothing is written behind the removal, and the locks are
//! held until it is done.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::watch;

use super::backup::Base;
use super::config::SyncLevel;
use super::datastore::Inner;
use super::explain::failed;
use super::lock::DirLock;
use super::operations::OperationGuard;
use super::process_lock::Share;
use super::snapshot::{remove_group_if_empty, remove_snapshot_dir};
use crate::engine::Disk;
use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::types::{ArchiveName, Namespace, Snapshot};

/// A running backup.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) store: Arc<Inner>,
    pub(super) namespace: Namespace,
    pub(super) snapshot: Snapshot,
    /// The snapshot's directory.
    pub(super) dir: PathBuf,
    pub(super) base: Option<Base>,
    /// Whether this backup made the group.
    pub(super) group_made: bool,
    /// The sync level at the begin.
    pub(super) level: SyncLevel,
    state: Mutex<State>,
    over: watch::Sender<bool>,
    /// Temporary files of dropped index writers that are on their way out.
    discards: watch::Sender<usize>,
}

/// The locks of a backup, in the order of their release.
#[derive(Debug)]
pub(super) struct Locks {
    pub(super) snapshot: DirLock,
    pub(super) base: Option<DirLock>,
    pub(super) group: DirLock,
    pub(super) share: Share,
    /// Counted as a running operation as long as anything is locked.
    pub(super) operation: OperationGuard,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Open,
    /// The manifest is there.
    Finished,
    /// To be removed when the last pass is back.
    Closing,
    Closed,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    passes: usize,
    locks: Option<Locks>,
    share: Option<Share>,
    writing: HashSet<ArchiveName>,
    failure: Option<Error>,
}

/// The right to write into the snapshot's directory for one piece of work.
#[derive(Debug)]
pub(super) struct Pass {
    lease: Arc<Lease>,
}

impl Lease {
    pub(super) fn new(
        store: Arc<Inner>,
        (namespace, snapshot): (Namespace, Snapshot),
        base: Option<Base>,
        group_made: bool,
        locks: Locks,
    ) -> Self {
        let dir = store.layout.snapshot(&namespace, &snapshot);
        let state = State {
            phase: Phase::Open,
            passes: 0,
            locks: Some(locks),
            share: None,
            writing: HashSet::new(),
            failure: None,
        };
        let (over, discards) = (watch::Sender::new(false), watch::Sender::new(0));
        let level = store.durable.level();
        Self { store, namespace, snapshot, dir, base, group_made, level, state: Mutex::new(state), over, discards }
    }

    /// A pass, unless the backup is finished or abandoned.
    pub(super) fn enter(self: &Arc<Self>) -> Result<Pass> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Open => {
                state.passes += 1;
                Ok(Pass { lease: Arc::clone(self) })
            }
            Phase::Finished => Err(Error::invalid("backup already marked as finished.")),
            Phase::Closing | Phase::Closed => Err(Error::closed("the backup was aborted")),
        }
    }

    /// Reserves an index's name until [`Self::release`]: two writers would share one temporary file.
    pub(super) fn reserve(&self, name: &ArchiveName) -> Result<()> {
        if self.state.lock().writing.insert(name.clone()) {
            Ok(())
        } else {
            Err(Error::invalid(format!("index '{name}' is already being written")))
        }
    }

    /// The temporary file of that index is gone or has its final name.
    pub(super) fn release(&self, name: &ArchiveName) {
        self.state.lock().writing.remove(name);
    }

    /// Gives a name back when the guard is dropped: the temporary file of a dropped writer is removed behind the caller's back.
    pub(super) fn discarding(self: &Arc<Self>, name: ArchiveName) -> Discard {
        self.discards.send_modify(|count| *count += 1);
        Discard { lease: Arc::clone(self), name }
    }

    /// Waits until no dropped writer holds a name any more.
    pub(super) async fn settled(&self) {
        // The sender is in `self`, so this ends with the value.
        let _ = self.discards.subscribe().wait_for(|count| *count == 0).await;
    }

    /// Whether an index is being written.
    pub(super) fn is_writing(&self) -> bool {
        !self.state.lock().writing.is_empty()
    }

    /// The manifest has appeared: lets all locks go. On a pool thread, since closing a descriptor may wait.
    pub(super) fn set_finished(&self) -> Option<Share> {
        let locks = {
            let mut state = self.state.lock();
            state.phase = Phase::Finished;
            state.locks.take()
        };
        self.over.send_replace(true);
        locks.map(|locks| locks.share)
    }

    /// Closes the lease, and removes the snapshot as soon as nobody works on it. Does not wait.
    pub(super) fn close(self: &Arc<Self>) {
        let idle = {
            let mut state = self.state.lock();
            if state.phase != Phase::Open {
                return;
            }
            state.phase = Phase::Closing;
            state.passes == 0
        };
        if idle {
            self.remove_behind();
        }
    }

    /// Waits until a closed lease is over, and says how the removal went.
    pub(super) async fn wait_over(&self) -> Result<()> {
        let mut over = self.over.subscribe();
        // The sender is in `self`, so this ends with the value.
        let _ = over.wait_for(|over| *over).await;
        let (share, failure) = {
            let mut state = self.state.lock();
            (state.share.take(), state.failure.take())
        };
        if let Some(share) = share {
            share.release().await;
        }
        failure.map_or(Ok(()), Err)
    }

    fn remove_behind(self: &Arc<Self>) {
        let removal = Removal { lease: Arc::clone(self), done: false };
        self.store.engine.detach(move |disk| removal.run(disk));
    }

    fn remove(&self, disk: &Disk) -> Result<()> {
        let removing = |e| failed("unable to remove unfinished snapshot", &self.dir, e);
        remove_snapshot_dir(disk, &self.store.durable, &self.dir).map_err(removing)?;
        if self.group_made {
            let group = self.store.layout.group(&self.namespace, self.snapshot.group());
            let removed = remove_group_if_empty(disk, &self.store.durable, &group);
            removed.map_err(|e| failed("unable to remove emptied group", &group, e))?;
        }
        Ok(())
    }

    fn set_closed(&self, outcome: Result<()>) {
        if let Err(e) = &outcome {
            tracing::error!(snapshot = %self.snapshot, error = %e, "an unfinished snapshot stays behind");
        }
        let locks = {
            let mut state = self.state.lock();
            state.phase = Phase::Closed;
            state.failure = outcome.err();
            state.locks.take()
        };
        if let Some(Locks { snapshot, base, group, share, operation }) = locks {
            drop((snapshot, base, group, operation));
            self.state.lock().share = Some(share);
        }
        self.over.send_replace(true);
    }
}

/// A dropped writer whose temporary file is being removed.
#[derive(Debug)]
pub(super) struct Discard {
    lease: Arc<Lease>,
    name: ArchiveName,
}

impl Drop for Discard {
    fn drop(&mut self) {
        self.lease.release(&self.name);
        self.lease.discards.send_modify(|count| *count -= 1);
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let last = {
            let mut state = self.lease.state.lock();
            state.passes -= 1;
            state.passes == 0 && state.phase == Phase::Closing
        };
        if last {
            self.lease.remove_behind();
        }
    }
}

/// The removal on its way to the pool; an engine that is shut down drops it undone, and then too nobody may wait for ever.
struct Removal {
    lease: Arc<Lease>,
    done: bool,
}

impl Removal {
    fn run(mut self, disk: &Disk) {
        let outcome = self.lease.remove(disk);
        self.lease.set_closed(outcome);
        self.done = true;
    }
}

impl Drop for Removal {
    fn drop(&mut self) {
        if !self.done {
            let undone = io::Error::other("the work was cut off; prune removes what is left");
            self.lease.set_closed(Err(failed("unable to remove unfinished snapshot", &self.lease.dir, undone)));
        }
    }
}
