//! A simulated disk: a tree in memory that knows which of it a crash would leave.
//!
//! ```text
//! operation ─▶ effects ─┬─▶ now       what everybody sees
//!                       └─▶ pending ──sync──▶ durable
//! crash: durable and some of pending, chosen by a seed ─▶ the next disk
//! ```
//!
//! An operation is checked against `now` and turns into effects (`effect.rs`): names, lengths, pages of 4 KiB, each of which reaches the disk by
//! itself unless a sync says otherwise. Whatever a file system may do to what nobody synced, `crash.rs` does: data without length,
//! a rename without data, a name without its inode, half a write. Everything follows from what was asked and from the seed.

mod crash;
mod effect;
mod handle;
mod operations;
mod path;
mod random;
mod tree;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::io::Errno;

use self::effect::{Effect, Record};
use self::path::{LastLink, Place};
use self::tree::{Ino, Tree};
use super::file::{LockMode, SyncScope};
use super::{FileTime, FsUsage, Mount};
use crate::sync::Mutex;

pub use self::crash::Survival;
pub(super) use self::handle::SimHandle;
pub(super) use self::operations::Open;
pub(super) use self::tree::ROOT;

/// Device number of the next simulated disk: no two are the same, as no two disks of a machine are.
static NEXT_DEVICE: AtomicU64 = AtomicU64::new(1 << 40);

/// Number of the next boot of a machine with a simulated disk.
static NEXT_BOOT: AtomicU64 = AtomicU64::new(1);

/// Its magic number, that of ext4: a local file system.
const MAGIC: u64 = 0xef53;

/// What goes wrong, and when. Operations count from 0.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The power goes before the change with this number: an operation that changes something, or a sync.
    pub crash_before_change: Option<u64>,
    /// Operations, by their number, that fail with this error and do nothing.
    pub fail: BTreeMap<u64, Errno>,
    /// From the change with this number on, all that would change something fails with this error: a disk that turned read-only, or died.
    pub fail_changes_from: Option<(u64, Errno)>,
    /// Bytes that files may hold; none more fits (`ENOSPC`).
    pub capacity_bytes: Option<u64>,
    /// What each operation takes.
    pub latency: Option<Duration>,
}

/// A simulated disk. A clone is the same disk.
#[derive(Clone, Debug)]
pub struct Sim {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    device: u64,
    /// A power cut ends it, a killed process does not.
    boot: u64,
    now: Tree,
    durable: Tree,
    pending: Vec<Record>,
    secs: i64,
    next_ino: Ino,
    next_handle: u64,
    locks: HashMap<Ino, Vec<(u64, LockMode)>>,
    plan: Plan,
    operations: u64,
    changes: u64,
    has_power: bool,
    used_bytes: u64,
    moments: Option<Vec<Moment>>,
}

/// A simulated disk as it was before one of its changes, to be crashed as often as one likes. Shares what did not change.
#[derive(Clone, Debug)]
pub struct Moment {
    /// How many changes there were before.
    pub changes: u64,
    durable: Tree,
    pending: Arc<[Record]>,
    next_ino: Ino,
    secs: i64,
    boot: u64,
}

impl Moment {
    /// The disk as the machine finds it after a power cut at this moment, or, with [`Survival::Everything`], the next process after a kill: no
    /// lock is held, and nothing of it is lost any more.
    pub fn crash(&self, survival: Survival, seed: u64) -> Sim {
        let tree = crash::crash(&self.durable, &self.pending, survival, seed);
        let boot = if survival == Survival::Everything { self.boot } else { next_boot() };
        Sim::of(tree, self.next_ino, self.secs, boot)
    }

    /// How many effects might be lost.
    pub fn at_risk(&self) -> usize {
        self.pending.len()
    }
}

impl Sim {
    /// An empty disk on which it is `secs` after the epoch.
    pub fn new(secs: i64) -> Self {
        let tree = Tree::new(FileTime { secs, nanos: 0 });
        Self::of(tree, ROOT + 1, secs, next_boot())
    }

    fn of(tree: Tree, next_ino: Ino, secs: i64, boot: u64) -> Self {
        let used_bytes = tree.stored_bytes();
        let state = State {
            device: NEXT_DEVICE.fetch_add(1, Ordering::Relaxed),
            boot,
            now: tree.clone(),
            durable: tree,
            pending: Vec::new(),
            secs,
            next_ino,
            next_handle: 0,
            locks: HashMap::new(),
            plan: Plan::default(),
            operations: 0,
            changes: 0,
            has_power: true,
            used_bytes,
            moments: None,
        };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// What it is now.
    pub fn moment(&self) -> Moment {
        self.state.lock().moment()
    }

    /// As [`Moment::crash`] now. `self` is as it was.
    pub fn crash(&self, survival: Survival, seed: u64) -> Self {
        self.moment().crash(survival, seed)
    }

    /// From now on the moment before each change is kept, for [`Self::recorded`].
    pub fn record(&self) {
        self.state.lock().moments = Some(Vec::new());
    }

    /// The moments since [`Self::record`], the present one last.
    pub fn recorded(&self) -> Vec<Moment> {
        let mut state = self.state.lock();
        let mut moments = state.moments.take().unwrap_or_default();
        moments.push(state.moment());
        moments
    }

    /// What is to go wrong from now on; counts begin anew.
    pub fn set_plan(&self, plan: Plan) {
        let mut state = self.state.lock();
        (state.plan, state.operations, state.changes) = (plan, 0, 0);
    }

    /// Operations and changes since the plan was set.
    pub fn counts(&self) -> (u64, u64) {
        let state = self.state.lock();
        (state.operations, state.changes)
    }

    /// Whether the power has gone.
    pub fn is_dead(&self) -> bool {
        !self.state.lock().has_power
    }

    /// Moves its clock, from which files get their times.
    pub fn set_time(&self, secs: i64) {
        self.state.lock().secs = secs;
    }

    /// Which mount it is: for as long as the machine runs the same one, whatever device number the tests see.
    pub(super) fn mount(&self) -> Mount {
        let boot = self.state.lock().boot;
        Mount { boot: u128::from(boot).to_le_bytes(), device: boot, id: Some(boot) }
    }

    /// Does one operation, which `changes` something or not.
    fn operate<T>(&self, changes: bool, work: impl FnOnce(&mut State) -> Result<T, Errno>) -> std::io::Result<T> {
        let mut state = self.state.lock();
        let latency = state.plan.latency;
        let done = state.enter(changes).and_then(|()| work(&mut state));
        drop(state);
        if let Some(latency) = latency {
            std::thread::sleep(latency);
        }
        Ok(done?)
    }
}

fn next_boot() -> u64 {
    NEXT_BOOT.fetch_add(1, Ordering::Relaxed)
}

impl State {
    /// Counts an operation, and fails it if that is its fate.
    fn enter(&mut self, changes: bool) -> Result<(), Errno> {
        let operation = self.operations;
        self.operations += 1;
        if !self.has_power {
            return Err(Errno::IO);
        }
        if let Some(errno) = self.plan.fail.get(&operation) {
            return Err(*errno);
        }
        if !changes {
            return Ok(());
        }
        if self.moments.is_some() {
            let moment = self.moment();
            self.moments.get_or_insert_default().push(moment);
        }
        let change = self.changes;
        self.changes += 1;
        if self.plan.crash_before_change == Some(change) {
            self.has_power = false;
            return Err(Errno::IO);
        }
        match self.plan.fail_changes_from {
            Some((first, errno)) if change >= first => Err(errno),
            _ => Ok(()),
        }
    }

    fn moment(&self) -> Moment {
        let Self { changes, next_ino, secs, boot, .. } = *self;
        let (durable, pending) = (self.durable.clone(), self.pending.as_slice().into());
        Moment { changes, durable, pending, next_ino, secs, boot }
    }

    /// A stamp that no earlier operation had.
    fn time(&self) -> FileTime {
        FileTime { secs: self.secs, nanos: u32::try_from(self.operations % 1_000_000_000).expect("less than a second") }
    }

    fn emit(&mut self, effect: Effect) {
        let at = self.time();
        let touched = self.touched(&effect);
        let before = self.bytes_of(&touched);
        self.now.apply(&effect, at);
        self.used_bytes = (self.used_bytes + self.bytes_of(&touched)).saturating_sub(before);
        self.pending.push(Record { effect, at });
    }

    /// The inodes whose room on the disk an effect may change.
    fn touched(&self, effect: &Effect) -> Vec<Ino> {
        let mut touched: Vec<Ino> = match effect {
            Effect::Size { ino, .. } | Effect::Page { ino, .. } => vec![*ino],
            Effect::Names(changes) => {
                let before = changes.iter().filter_map(|change| self.now.entry(change.dir, &change.name));
                before.chain(changes.iter().filter_map(|change| change.to)).collect()
            }
            _ => Vec::new(),
        };
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// What files take on the disk, without those that have no name any more.
    fn bytes_of(&self, inodes: &[Ino]) -> u64 {
        let bytes = |ino: &Ino| match self.now.get(*ino) {
            Some(inode) if inode.nlink > 0 => inode.stored_bytes(),
            _ => 0,
        };
        inodes.iter().map(bytes).sum()
    }

    /// Makes durable what `is_flushed` says, what came before it under the same names, and the directories that it names something in.
    fn flush(&mut self, is_flushed: impl Fn(&Effect) -> bool) {
        let (mut names, mut dirs) = (std::collections::HashSet::new(), std::collections::HashSet::new());
        let mut chosen = vec![false; self.pending.len()];
        for (n, record) in self.pending.iter().enumerate().rev() {
            let changed = match &record.effect {
                Effect::Names(changes) => changes.as_slice(),
                _ => &[],
            };
            let key = |change: &effect::NameChange| (change.dir, change.name.clone());
            let is_before = changed.iter().any(|change| names.contains(&key(change)));
            let is_home =
                matches!(&record.effect, Effect::Born { ino, body: tree::Body::Dir(_), .. } if dirs.contains(ino));
            chosen[n] = is_flushed(&record.effect) || is_before || is_home;
            if chosen[n] {
                dirs.extend(changed.iter().map(|change| change.dir));
                names.extend(changed.iter().map(key));
            }
        }
        let mut chosen = chosen.into_iter();
        let durable = &mut self.durable;
        self.pending.retain(|record| {
            let is_chosen = chosen.next() == Some(true);
            if is_chosen {
                durable.apply(&record.effect, record.at);
            }
            !is_chosen
        });
    }

    fn sync_inode(&mut self, ino: Ino, scope: SyncScope) {
        self.flush(|effect| effect.is_flushed_by(ino, scope));
    }

    fn sync_all(&mut self) {
        self.durable = self.now.clone();
        self.pending.clear();
    }

    fn at(&self, start: Ino, path: &Path, last: LastLink) -> Result<Place, Errno> {
        path::resolve(&self.now, start, path, last)
    }

    fn usage(&self) -> FsUsage {
        let total = self.plan.capacity_bytes.unwrap_or(1 << 40);
        FsUsage { total, used: self.used_bytes, avail: total.saturating_sub(self.used_bytes) }
    }
}
