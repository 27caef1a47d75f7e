//! All index files of a datastore, several at a time, with what they say taken in a fixed order.

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;

use rustix::io::Errno;
use tokio::task::JoinSet;

use crate::engine::ComputePool;
use crate::error::{Error, Kind, Result};
use crate::store::{Datastore, IndexEntry, IndexReader, IndexScan, IndexedSnapshot};
use crate::task::Task;
use crate::types::{ArchiveName, Namespace, Snapshot};

/// Snapshots whose indexes are read at a time, each in blocks of 1 MiB: a disk that seeks loses little, many small ones do not wait for one
/// another's round trips, and backups get their turn.
const AT_ONCE: usize = 4;

/// Unreadable index files that are named; each has lost what it says about every chunk, so a few are enough to act upon.
pub(super) const UNREADABLE_MAX: usize = 100;

/// Who works.
#[derive(Clone, Debug)]
pub(super) struct Site {
    pub(super) store: Datastore,
    pub(super) compute: ComputePool,
}

/// A snapshot that was there when the datastore was listed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Listed {
    pub(super) ns: Namespace,
    pub(super) snapshot: Snapshot,
    pub(super) indexes: Vec<ArchiveName>,
    pub(super) finished: bool,
    /// The newest finished one of its group.
    pub(super) newest: bool,
}

impl Listed {
    /// Whether both belong to one group.
    pub(super) fn same_group(&self, other: &Self) -> bool {
        self.ns == other.ns && self.snapshot.group() == other.snapshot.group()
    }
}

/// All snapshots: namespaces in the order of the tree, groups sorted, oldest first. About 300 bytes each.
pub(super) async fn list(store: &Datastore) -> Result<Vec<Arc<Listed>>> {
    let mut listed = Vec::new();
    for ns in store.namespaces(&Namespace::root(), None).await? {
        listed.extend(in_namespace(&ns, store.indexed_snapshots(&ns).await?));
    }
    Ok(listed.into_iter().map(Arc::new).collect())
}

fn in_namespace(ns: &Namespace, found: Vec<IndexedSnapshot>) -> Vec<Listed> {
    let mut listed: Vec<Listed> = found
        .into_iter()
        .map(|IndexedSnapshot { snapshot, finished, indexes }| Listed {
            ns: ns.clone(),
            snapshot,
            indexes,
            finished,
            newest: false,
        })
        .collect();
    for group in listed.chunk_by_mut(|a, b| a.same_group(b)) {
        if let Some(newest) = group.iter_mut().rev().find(|listed| listed.finished) {
            newest.newest = true;
        }
    }
    listed
}

/// What comes next of an index.
#[derive(Debug)]
pub(super) enum Next {
    /// Some entries.
    Block(Vec<IndexEntry>),
    /// There are no more, or the index is gone.
    End,
    /// It cannot be read, for this reason.
    Unreadable(String),
}

/// An index of a snapshot that nobody locks.
#[derive(Debug)]
pub(super) struct Walk<'a> {
    store: &'a Datastore,
    listed: &'a Listed,
    name: &'a ArchiveName,
    scan: Option<IndexScan>,
}

impl<'a> Walk<'a> {
    pub(super) fn new(store: &'a Datastore, listed: &'a Listed, name: &'a ArchiveName) -> Self {
        Self { store, listed, name, scan: None }
    }

    /// The next entries. An error ends everything: the daemon does.
    pub(super) async fn next(&mut self) -> Result<Next> {
        let read = match self.scan.as_mut() {
            Some(scan) => scan.next_block().await,
            None => match self.open().await {
                Ok(index) => self.scan.insert(index.scan()).next_block().await,
                Err(e) => Err(e),
            },
        };
        match read {
            Ok(Some(block)) => Ok(Next::Block(block)),
            Ok(None) => Ok(Next::End),
            Err(e) if e.kind() == Kind::Closed => Err(e),
            // Removed meanwhile, which a network file system may tell in any way.
            Err(e) if is_gone(&e) || self.open().await.is_err_and(|e| is_gone(&e)) => Ok(Next::End),
            Err(e) => Ok(Next::Unreadable(e.to_string())),
        }
    }

    async fn open(&self) -> Result<IndexReader> {
        self.store.open_index(&self.listed.ns, &self.listed.snapshot, self.name).await
    }
}

fn is_gone(e: &Error) -> bool {
    e.errno() == Some(Errno::NOENT.raw_os_error())
}

/// Does `start(0)`, `start(1)`, … some at once, and gives what comes of them to `take` in this order. The first error ends it.
pub(super) async fn in_order<T, F>(
    count: usize,
    start: impl Fn(usize) -> F,
    mut take: impl FnMut(usize, T),
) -> Result<()>
where
    T: Send + 'static,
    F: Future<Output = Result<T>> + Send + 'static,
{
    let mut running = JoinSet::new();
    let mut early = BTreeMap::new();
    let (mut begun, mut next) = (0, 0);
    while next < count {
        // What waits for its turn has a bound too.
        while begun < count && begun < next + AT_ONCE {
            let (at, work) = (begun, start(begun));
            running.spawn(async move { (at, work.await) });
            begun += 1;
        }
        let Some(ended) = running.join_next().await else { break };
        let (at, done) = ended.map_err(|e| Error::io("a piece of the inspection ended early", io::Error::other(e)))?;
        early.insert(at, done?);
        while let Some(done) = early.remove(&next) {
            take(next, done);
            next += 1;
        }
    }
    Ok(())
}

/// Tells a task how far something is, ten times at most.
#[derive(Debug)]
pub(super) struct Tenths<'a> {
    task: &'a Task,
    what: &'static str,
    of: usize,
    told: usize,
}

impl<'a> Tenths<'a> {
    /// About `of` things called `what`.
    pub(super) fn new(task: &'a Task, what: &'static str, of: usize) -> Self {
        Self { task, what, of, told: 0 }
    }

    /// So many are done.
    pub(super) fn tell(&mut self, done: usize) {
        let tenths = (done * 10).checked_div(self.of).unwrap_or(10);
        if tenths > self.told {
            self.told = tenths;
            self.task.log(format!("{}: {}% ({done} of {})", self.what, tenths * 10, self.of));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn some_at_once_and_in_order() {
        let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let mut taken = Vec::new();
        let start = |at: usize| {
            let (running, most) = (running.clone(), most.clone());
            async move {
                most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                tokio::time::sleep(Duration::from_millis([5, 1, 2][at % 3])).await;
                running.fetch_sub(1, Ordering::SeqCst);
                Ok(at * 2)
            }
        };
        in_order(20, start, |at, value| taken.push((at, value))).await.unwrap();
        assert_eq!(taken, (0..20).map(|at| (at, at * 2)).collect::<Vec<_>>());
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
        let fails = |at: usize| async move { if at == 2 { Err(Error::invalid("no")) } else { Ok(()) } };
        assert_eq!(in_order(9, fails, |_, ()| ()).await.unwrap_err().to_string(), "no");
        in_order(0, fails, |_, ()| ()).await.unwrap();
    }

    #[test]
    fn the_newest_finished_of_each_group_is_told() {
        let found =
            |name: &str, finished| IndexedSnapshot { snapshot: name.parse().unwrap(), finished, indexes: Vec::new() };
        let listed = in_namespace(
            &Namespace::root(),
            vec![
                found("host/a/2024-06-05T14:23:38Z", true),
                found("host/a/2024-06-06T14:23:38Z", true),
                found("host/a/2024-06-07T14:23:38Z", false),
                found("host/b/2024-06-05T14:23:38Z", false),
                found("vm/1/2024-06-05T14:23:38Z", true),
            ],
        );
        let newest: Vec<bool> = listed.iter().map(|listed| listed.newest).collect();
        assert_eq!(newest, [false, true, false, false, true]);
    }
}
