//! A verification as a task: walks its scope, tells how far it is, and ends with what failed.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::chunks::Bench;
use super::part::Part;
use super::resume::Trail;
use super::scope::{Filter, Scope, group_order, is_benchmark};
use super::snapshot::{Outcome, path_of};
use crate::engine::ComputePool;
use crate::error::{Result, SHUTTING_DOWN, TASK_ABORTED};
use crate::jobs::budget::{tell_rate, told};
use crate::store::{Datastore, GroupInfo, Operation, Rate};
use crate::task::{Registry, RunKind, Task};
use crate::types::{AuthId, Group, Namespace, Snapshot, Upid};

/// Worker type of a scheduled verification; its id is `STORE:JOB`.
pub const JOB_WORKER_TYPE: &str = "verificationjob";

/// The recorded words.
const FAILED: &str = "verification failed - please check the log for details";

/// Failed snapshots that the end of a log names; the log has them all where they failed.
const LISTED_MAX: usize = 1000;

/// Whether a group in a namespace, with this owner, may be verified on behalf of whoever asked.
pub type Permit = Arc<dyn Fn(&Namespace, &AuthId) -> bool + Send + Sync>;

/// The permit of jobs, which run as the superuser.
pub fn everybody() -> Permit {
    Arc::new(|_, _| true)
}

/// A verification that is about to be run as a task.
pub struct Verification {
    /// What is verified.
    pub store: Datastore,
    /// Who hashes.
    pub compute: ComputePool,
    /// Which part of it.
    pub scope: Scope,
    /// What is left out.
    pub filter: Filter,
    /// Which chunks of what is verified are read.
    pub part: Part,
    /// How fast it may be, beside the rate of the datastore.
    pub rate: Rate,
    /// Which groups of a namespace; for a group or snapshot the caller has asked already.
    pub permit: Permit,
}

impl fmt::Debug for Verification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, scope, filter, part, .. } = self;
        write!(f, "verification of {part} of {scope:?} of {} with {filter:?}", store.name())
    }
}

/// How it went.
#[derive(Debug, Default)]
struct Failures {
    listed: Vec<String>,
    more: usize,
}

impl Failures {
    fn add(&mut self, what: String) {
        if self.listed.len() < LISTED_MAX {
            self.listed.push(what);
        } else {
            self.more += 1;
        }
    }
}

/// A verification that runs.
#[derive(Debug)]
pub struct Started {
    /// The name of its task.
    pub upid: Upid,
    /// How it ends, once the task's result is in its log.
    pub outcome: JoinHandle<Result<(), String>>,
}

impl Verification {
    /// A job of the configuration as it was when it became due; its task is of type [`JOB_WORKER_TYPE`] and has the id `STORE:JOB`. Jobs run
    /// as the superuser.
    pub fn job(store: Datastore, compute: ComputePool, scope: Scope, filter: Filter) -> Self {
        Self { store, compute, scope, filter, part: Part::All, rate: Rate::NONE, permit: everybody() }
    }

    /// Starts it as a task of `auth`. It stops when somebody aborts the task, and when `closing` resolves: the daemon ends. `guard` is let go
    /// when the task has ended.
    pub async fn start(
        self,
        tasks: &Registry,
        (worker_type, worker_id): (&str, String),
        auth: &AuthId,
        closing: impl Future<Output = ()> + Send + 'static,
        guard: impl Send + 'static,
    ) -> Result<Started> {
        let operation = self.store.begin_operation(Operation::Read)?;
        let task = tasks.start(worker_type, Some(worker_id), auth).await?;
        let upid = task.upid().clone();
        let outcome = tokio::spawn(async move {
            let result = self.run_until(&task, closing, true).await;
            task.end(result.clone()).await;
            drop((operation, guard));
            result
        });
        Ok(Started { upid, outcome })
    }

    /// Worker type and id of its task when somebody asks for it (spec 05 §6, §10).
    pub fn worker(&self) -> (&'static str, String) {
        let store = self.store.name();
        match &self.scope {
            Scope::Namespace { ns, .. } if ns.is_root() => ("verify", store.to_string()),
            Scope::Namespace { ns, .. } => ("verify", format!("{store}:{ns}")),
            Scope::Group(ns, group) => ("verify_group", format!("{store}:{}/{group}", ns_path(ns))),
            Scope::Snapshot(ns, snapshot) => ("verify_snapshot", snapshot_id(&self.store, ns, snapshot)),
        }
    }

    /// Worker type and id of the task that verifies a new backup (option `verify-new`, spec 07 §3.3).
    pub fn worker_of_new(store: &Datastore, ns: &Namespace, snapshot: &Snapshot) -> (&'static str, String) {
        ("verify", format!("{}:{}/{:08X}", store.name(), path_of(ns, snapshot.group()), snapshot.time().0))
    }

    /// Worker type and id of the task of a configured job.
    pub fn worker_of_job(store: &Datastore, job: &str) -> (&'static str, String) {
        (JOB_WORKER_TYPE, format!("{}:{job}", store.name()))
    }

    /// Runs it to its end, or until the task is asked to stop. What comes back is the result of the task.
    pub async fn run(&self, task: &Task) -> Result<(), String> {
        self.run_until(task, std::future::pending(), false).await
    }

    /// The same, or until the daemon ends. With `is_kept`, what it sees is kept for the next run that is called as this one, and what one before it
    /// has seen that was cut off is not looked at again.
    async fn run_until(&self, task: &Task, closing: impl Future<Output = ()>, is_kept: bool) -> Result<(), String> {
        let share = self.store.budget().share(self.rate);
        let mut bench = Bench { part: self.part, share: share.clone(), ..Bench::new(&self.store, &self.compute, task) };
        tell_rate(&self.rate, task);
        // A new backup's is the only one of a snapshot that is called so.
        let is_new = matches!(self.scope, Scope::Snapshot(..)) && task.upid().worker_type == "verify";
        task.is_run_of(self.store.name(), if is_new { RunKind::VerifyNew } else { RunKind::Verify });
        if !self.part.is_all() {
            task.log(format!("only {} will be read: no snapshot is called verified for that", self.part));
        }
        if is_kept {
            let (trail, seen, told) = Trail::begin(&self.store, task.upid()).await;
            told.into_iter().for_each(|line| task.log(line));
            (bench.seen, bench.trail) = (seen, Some(trail));
        }
        let mut failures = Failures::default();
        let walked = tokio::select! {
            biased;
            () = closing => Err(SHUTTING_DOWN),
            () = task.aborted() => Err("received abort request ..."),
            walked = told(&share, task, self.walk(&mut bench, &mut failures)) => Ok(walked),
        };
        let is_through = matches!(walked, Ok(Ok(())));
        if let Some(trail) = bench.trail.take() {
            if is_through { trail.end().await } else { trail.cut_off().await }
        }
        let walked = match walked {
            Ok(walked) => walked,
            Err(why) => {
                task.log(why);
                task.figures(&bench.figures);
                return Err(TASK_ABORTED.to_owned());
            }
        };
        self.store.engine().buffers().release();
        task.figures(&bench.figures);
        if !self.part.is_all() {
            task.log(bench.figures.of_part(&self.part));
        }
        let Failures { listed, more } = failures;
        if bench.seen.has_bad() {
            let store = self.store.name();
            task.log(format!(
                "`ringvault repair report {store} --bad` or `--missing` tells who else names such chunks"
            ));
        }
        if !listed.is_empty() {
            task.log("Failed to verify the following snapshots/groups:");
            for what in &listed {
                task.log(format!("\t{what}"));
            }
            if more > 0 {
                task.log(format!("\tand {more} more"));
            }
        }
        match walked {
            Err(e) => Err(e.to_string()),
            Ok(()) if listed.is_empty() => Ok(()),
            Ok(()) => Err(FAILED.to_owned()),
        }
    }

    async fn walk(&self, bench: &mut Bench<'_>, failures: &mut Failures) -> Result<()> {
        match &self.scope {
            Scope::Namespace { ns, max_depth } => self.walk_namespaces(bench, ns, *max_depth, failures).await,
            Scope::Group(ns, group) => {
                // No group of that name is an error, one without snapshots is not.
                self.store.owner(ns, group).await?;
                let found = self.store.groups_or_faults(ns).await?.into_iter().find(|(found, _)| found == group);
                let info = found.map(|(_, info)| info).transpose()?;
                let snapshots = info.into_iter().flat_map(snapshots_of).collect();
                self.walk_group(bench, ns, group, snapshots, "", failures).await
            }
            Scope::Snapshot(ns, snapshot) => {
                if bench.verify_snapshot(ns, snapshot, &self.filter).await? == Outcome::Failed {
                    failures.add(path_of(ns, snapshot));
                }
                Ok(())
            }
        }
    }

    async fn walk_namespaces(
        &self,
        bench: &mut Bench<'_>,
        parent: &Namespace,
        max_depth: Option<usize>,
        failures: &mut Failures,
    ) -> Result<()> {
        let task = bench.task;
        task.log(match parent.is_root() {
            true => format!("verify datastore {}", self.store.name()),
            false => format!("verify datastore {}, namespace {parent}", self.store.name()),
        });
        let superuser: AuthId = "root@pam".parse()?;
        let mut groups = Vec::new();
        for ns in self.store.namespaces(parent, max_depth).await? {
            match self.store.groups_or_faults(&ns).await {
                Ok(found) => {
                    let (found, faults): (Vec<_>, Vec<_>) = found.into_iter().partition(|(_, info)| info.is_ok());
                    for (group, e) in faults.into_iter().filter_map(|(group, info)| Some((group, info.err()?))) {
                        // Whose it is cannot be told, so it concerns those alone who may verify everybody's.
                        if (self.permit)(&ns, &superuser) {
                            task.log(format!("unable to list group {} - {e}", bench.shown(&ns, &group)));
                            failures.add(path_of(&ns, &group));
                        }
                    }
                    groups.extend(self.chosen(&ns, found.into_iter().filter_map(|(_, info)| info.ok())));
                }
                Err(e) => {
                    task.log(format!("unable to list groups of namespace '{ns}' - {e}"));
                    failures.add(path_of(&ns, "*"));
                }
            }
        }
        task.log(format!("found {} groups", groups.len()));
        let count = groups.len();
        for (done, (ns, group, snapshots)) in groups.into_iter().enumerate() {
            let before = format!("{done}/{count} groups, ");
            self.walk_group(bench, &ns, &group, snapshots, &before, failures).await?;
            task.log(format!("percentage done: {} ({}/{count} groups)", percent(done + 1, count), done + 1));
        }
        Ok(())
    }

    /// The groups of a namespace that are verified, in order.
    fn chosen(&self, ns: &Namespace, found: impl Iterator<Item = GroupInfo>) -> Vec<(Namespace, Group, Vec<Snapshot>)> {
        let mut groups: Vec<GroupInfo> = found
            .filter(|info| !is_benchmark(&info.group) && (self.permit)(ns, &info.owner) && !info.snapshots.is_empty())
            .collect();
        groups.sort_by(|a, b| group_order(&a.group, &b.group));
        groups.into_iter().map(|info| (ns.clone(), info.group.clone(), snapshots_of(info).collect())).collect()
    }

    /// `snapshots` is sorted, oldest first; the newest is verified first.
    async fn walk_group(
        &self,
        bench: &mut Bench<'_>,
        ns: &Namespace,
        group: &Group,
        mut snapshots: Vec<Snapshot>,
        before: &str,
        failures: &mut Failures,
    ) -> Result<()> {
        snapshots.sort_by_key(|snapshot| std::cmp::Reverse(snapshot.time()));
        let count = snapshots.len();
        bench.task.log(format!("verify group {} ({count} snapshots)", bench.shown(ns, group)));
        for (done, snapshot) in snapshots.iter().enumerate() {
            if bench.verify_snapshot(ns, snapshot, &self.filter).await? == Outcome::Failed {
                failures.add(path_of(ns, snapshot));
            }
            let done = done + 1;
            // Of a whole datastore the groups tell the percentage.
            bench.task.log(match before {
                "" => format!("percentage done: {} ({done}/{count} snapshots)", percent(done, count)),
                _ => format!("done: {before}{done}/{count} snapshots in group {group}"),
            });
        }
        Ok(())
    }
}

fn snapshots_of(info: GroupInfo) -> impl Iterator<Item = Snapshot> {
    info.snapshots.into_iter().map(|files| files.snapshot)
}

/// The recorded ids have a `/` before the type even in the root.
fn ns_path(ns: &Namespace) -> String {
    path_of(ns, "").trim_end_matches('/').to_owned()
}

fn snapshot_id(store: &Datastore, ns: &Namespace, snapshot: &Snapshot) -> String {
    format!("{}:{}/{}/{:08X}", store.name(), ns_path(ns), snapshot.group(), snapshot.time().0)
}

#[expect(clippy::cast_precision_loss, reason = "two decimals for people")]
fn percent(done: usize, count: usize) -> String {
    format!("{:.2}%", 100.0 * done as f64 / count.max(1) as f64)
}
