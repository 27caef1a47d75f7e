//! Carries retention out: asks a datastore what there is, decides, removes, and words the task's log.
//!
//! ```text
//! namespaces → groups that the caller may prune → plan (marks of all snapshots) → removals, oldest first
//! ```
//!
//! A group is planned as a whole before anything of it is removed. Each removal takes the locks of its snapshot and looks at the protection
//! again under them, so what has changed since the plan is only ever a removal less. An abort is heard between two snapshots.

use jiff::tz::TimeZone;
use serde::Serialize;

use super::retention::{Candidate, KeepOptions, Mark, marks};
use crate::error::{Error, Kind, Result, TASK_ABORTED};
use crate::jobs::budget::{tell_rate, told};
use crate::store::{BudgetShare, Datastore, Operation, Rate, SnapshotState, Turn};
use crate::task::{RunKind, Task};
use crate::types::{AuthId, Group, Namespace, Snapshot};

/// What becomes of one snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Which one.
    pub snapshot: Snapshot,
    /// What retention says.
    pub mark: Mark,
    /// Whether it stays: not marked for removal, or no option was given.
    pub keep: bool,
}

/// What a prune of a datastore covers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Where to begin.
    pub ns: Namespace,
    /// How many levels of namespaces below that; 0 for none.
    pub max_depth: usize,
    /// What stays.
    pub keep: KeepOptions,
    /// Whether nothing is removed, only said.
    pub dry_run: bool,
    /// How fast snapshots are removed, beside the rate of the datastore; each counts as a chunk.
    pub rate: Rate,
}

/// What a prune came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Groups that were looked at.
    pub groups: u64,
    /// Snapshots that stay as decided.
    pub kept: u64,
    /// Snapshots that are gone; with a dry run: that would be.
    pub removed: u64,
    /// Snapshots that stay for now: in use, or protected since the plan was made.
    pub spared: u64,
    /// Snapshots, groups and namespaces that could not be worked on, the machine's fault. Each is told in the log.
    pub faults: u64,
}

impl Report {
    /// The task's result: what failed for the machine's sake makes it fail, as late as that is known.
    pub fn result(&self) -> Result<(), String> {
        match self.faults {
            0 => Ok(()),
            1 => Err("pruning failed in one place, see the log".to_owned()),
            n => Err(format!("pruning failed in {n} places, see the log")),
        }
    }

    fn add(&mut self, other: Self) {
        self.groups += other.groups;
        self.kept += other.kept;
        self.removed += other.removed;
        self.spared += other.spared;
        self.faults += other.faults;
    }
}

/// The server's time zone. Reading it may take a file, so it is read on the datastore's pool.
pub async fn local_zone(store: &Datastore) -> Result<TimeZone> {
    store.engine().run(|_| TimeZone::system()).await
}

/// Decides about all snapshots of a group, oldest first. A group that is not there is an error.
pub async fn plan_group(
    store: &Datastore,
    ns: &Namespace,
    group: &Group,
    keep: &KeepOptions,
    zone: &TimeZone,
) -> Result<Vec<Decision>> {
    let states = store.snapshot_states(ns, group).await?;
    let candidate = |state: &SnapshotState| Candidate {
        time: state.snapshot.time(),
        finished: state.finished,
        protected: state.protected,
    };
    let candidates: Vec<Candidate> = states.iter().map(candidate).collect();
    let marks = marks(&candidates, keep, zone);
    let decide = |(state, mark): (SnapshotState, Mark)| Decision {
        snapshot: state.snapshot,
        mark,
        keep: mark != Mark::Remove || keep.keeps_all(),
    };
    Ok(states.into_iter().zip(marks).map(decide).collect())
}

/// Tells the plan of one group, and carries it out unless it is a dry run. What cannot be removed is a warning of the task; an error is the
/// task's end.
pub async fn prune_group(
    store: &Datastore,
    ns: &Namespace,
    group: &Group,
    keep: &KeepOptions,
    plan: &[Decision],
    (dry_run, rate): (bool, Rate),
    task: &Task,
) -> Result<Report> {
    let _operation = store.begin_operation(operation(dry_run))?;
    task.log(format!("pruning group {group}{} of datastore '{}'", within(ns), store.name()));
    head(keep, (dry_run, rate), task);
    if !dry_run {
        task.is_run_of(store.name(), RunKind::PruneGroup);
    }
    let share = store.budget().share(rate);
    let report = told(&share, task, carry_out(store, ns, plan, dry_run, (&share, task))).await?;
    task.log(summary(&report, dry_run));
    task.figures(&report);
    Ok(report)
}

/// What a maintenance mode has to let through.
fn operation(dry_run: bool) -> Operation {
    if dry_run { Operation::Read } else { Operation::Write }
}

/// What a log begins with.
fn head(keep: &KeepOptions, (dry_run, rate): (bool, Rate), task: &Task) {
    task.log(match keep.keeps_all() {
        true => "retention: no keep option is given, so all snapshots stay".to_owned(),
        false => format!("retention: {keep}"),
    });
    if dry_run {
        task.log("dry run: nothing is removed");
    }
    tell_rate(&rate, task);
}

async fn carry_out(
    store: &Datastore,
    ns: &Namespace,
    plan: &[Decision],
    dry_run: bool,
    (share, task): (&BudgetShare, &Task),
) -> Result<Report> {
    let mut report = Report { groups: 1, ..Report::default() };
    for decision in plan {
        // Without any option retention marks nearly all for removal, and nothing goes: that would read badly.
        let mark = if decision.keep && decision.mark == Mark::Remove { Mark::Keep } else { decision.mark };
        task.log(format!("{mark:<12} {}", decision.snapshot));
    }
    for Decision { snapshot, keep, .. } in plan {
        if *keep {
            report.kept += 1;
            continue;
        }
        if dry_run {
            report.removed += 1;
            continue;
        }
        let _turn = turn(share, task).await?;
        match store.remove_snapshot(ns, snapshot).await {
            Ok(()) => {
                task.log(format!("removed {snapshot}"));
                report.removed += 1;
            }
            Err(e) => {
                task.warn(format!("{snapshot} is not removed: {e}"));
                *if is_machines_fault(&e) { &mut report.faults } else { &mut report.spared } += 1;
            }
        }
    }
    Ok(report)
}

/// Prunes the groups of a namespace and of those below it, as far as `may` lets: it is asked with the namespace and the owner of each group.
///
/// `|_, _| true` is the answer for a scheduled job. The log of `task` tells everything; the caller ends the task, with
/// [`Report::result`]. What cannot be read is told, counted, and does not keep the rest from being pruned.
pub async fn prune_datastore(
    store: &Datastore,
    scope: &Scope,
    zone: &TimeZone,
    may: impl Fn(&Namespace, &AuthId) -> bool + Send,
    task: &Task,
) -> Result<Report> {
    let share = store.budget().share(scope.rate);
    told(&share, task, prune_all(store, scope, zone, may, (&share, task))).await
}

async fn prune_all(
    store: &Datastore,
    scope: &Scope,
    zone: &TimeZone,
    may: impl Fn(&Namespace, &AuthId) -> bool + Send,
    (share, task): (&BudgetShare, &Task),
) -> Result<Report> {
    let Scope { ns, max_depth, keep, dry_run, rate } = scope;
    let _operation = store.begin_operation(operation(*dry_run))?;
    task.log(format!("pruning datastore '{}'{}, at most {max_depth} levels down", store.name(), within(ns)));
    head(keep, (*dry_run, *rate), task);
    if !*dry_run {
        task.is_run_of(store.name(), RunKind::Prune);
    }
    if !store.namespace_exists(ns).await? {
        return Err(Error::not_found(format!("namespace '{ns}' not found")));
    }
    let superuser: AuthId = "root@pam".parse()?;
    let mut total = Report::default();
    for ns in store.namespaces(ns, Some(*max_depth)).await? {
        stop_if_asked(task).await?;
        let groups = match store.owned_groups(&ns).await {
            Ok(groups) => groups,
            // Somebody may have removed it since it was listed.
            Err(_) if matches!(store.namespace_exists(&ns).await, Ok(false)) => continue,
            Err(e) => {
                task.warn(format!("namespace '{ns}' is left out: {e}"));
                total.faults += 1;
                continue;
            }
        };
        for (group, owner) in groups {
            stop_if_asked(task).await?;
            let place = within(&ns);
            let owner = match owner {
                Ok(owner) if may(&ns, &owner) => owner,
                Ok(_) => continue,
                Err(e) => {
                    // Whose it is cannot be told, so it concerns those alone who may prune everybody's.
                    if may(&ns, &superuser) {
                        task.warn(format!(
                            "group {group}{place} is left out, for nobody can tell whose it is: {}",
                            with_remedy(store, &e)
                        ));
                        total.faults += u64::from(e.errno() != Some(libc::ENOENT));
                    }
                    continue;
                }
            };
            task.log(format!("group {group}{place}, owner {owner}"));
            let pruned = match plan_group(store, &ns, &group, keep, zone).await {
                Ok(plan) => carry_out(store, &ns, &plan, *dry_run, (share, task)).await?,
                Err(e) if is_machines_fault(&e) => {
                    task.warn(format!("group {group}{place} is left out: {e}"));
                    Report { faults: 1, ..Report::default() }
                }
                // Gone since it was listed, unless everything has.
                Err(e) => {
                    store.confirm_place().await?;
                    task.log(format!("group {group}{place} is left out: {e}"));
                    Report::default()
                }
            };
            total.add(pruned);
            task.figures(&total);
        }
    }
    task.log(summary(&total, *dry_run));
    Ok(total)
}

/// Where a group lies, for a log.
fn within(ns: &Namespace) -> String {
    if ns.is_root() { String::new() } else { format!(" in namespace '{ns}'") }
}

/// The last line of a log.
fn summary(report: &Report, dry_run: bool) -> String {
    let Report { groups, kept, removed, spared, faults } = report;
    let done = if dry_run { "would be removed" } else { "removed" };
    let mut text = format!("{groups} groups: {kept} snapshots kept, {removed} {done}");
    if *spared > 0 {
        text += &format!(", {spared} not removed because they are in use or protected");
    }
    if *faults > 0 {
        text += &format!(", {faults} failures");
    }
    text
}

/// For the reader of the log: what to do about an owner that cannot be read.
fn with_remedy(store: &Datastore, error: &Error) -> String {
    let store = store.name();
    format!(
        "{error} - let the daemon read that file, or give the group an owner: POST admin/datastore/{store}/change-owner"
    )
}

/// Whether trying again later would not help by itself.
fn is_machines_fault(error: &Error) -> bool {
    matches!(error.kind(), Kind::Io | Kind::Corrupt)
}

/// Waits until something may be removed, or somebody asks to stop.
async fn turn(share: &BudgetShare, task: &Task) -> Result<Turn> {
    tokio::select! {
        biased;
        () = task.aborted() => Err(Error::closed(TASK_ABORTED)),
        turn = share.take(1, 0) => Ok(turn),
    }
}

async fn stop_if_asked(task: &Task) -> Result<()> {
    tokio::select! {
        biased;
        () = task.aborted() => Err(Error::closed(TASK_ABORTED)),
        () = std::future::ready(()) => Ok(()),
    }
}
