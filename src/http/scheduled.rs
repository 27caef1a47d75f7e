//! Runs the jobs of the configuration: those that are due, once a minute, and any when somebody asks (spec 07 §5).
//!
//! A job that is due while it runs, while something else of its kind does, or while as many sessions run as may, is started by a later minute. Any
//! other reason not to start it is told, and it waits for its next time.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use tokio::sync::oneshot;

use super::context::App;
use super::lifecycle::Phase;
use super::work;
use crate::clock::EpochSecs;
use crate::config::{JobSection, PruneJobSection, VerifyJobSection};
use crate::error::{Error, Kind, Result, SHUTTING_DOWN, TASK_ABORTED};
use crate::jobs::due::{local_day, next_run, planned};
use crate::jobs::gc::{self, Manner};
use crate::jobs::prune::{self, KeepOptions};
use crate::jobs::state::{Again, JobKey, JobState};
use crate::jobs::verify::{self, Filter, Part, Verification};
use crate::store::Rate;
use crate::task::TaskState;
use crate::types::{AuthId, DatastoreName, NAMESPACE_DEPTH_MAX, Upid};

/// Worker type of prune jobs.
const PRUNE_JOB: &str = "prunejob";

/// How jobs end that the end of the daemon cuts off.
const CUT_OFF: [&str; 2] = [SHUTTING_DOWN, TASK_ABORTED];

/// How a garbage collection runs that nobody asked for: a run that was cut off is gone on with, at the rate of the datastore.
const AS_SCHEDULED: (Manner, Rate) = (Manner::Resume, Rate::NONE);

/// Seconds of a minute.
const MINUTE_SECS: i64 = 60;

/// Who scheduled jobs run as.
fn superuser() -> AuthId {
    "root@pam".parse().expect("a user")
}

/// Looks once a minute, as the minute begins, until the daemon stops.
pub async fn follow(app: Arc<App>) {
    go_on_with_cut_off(&app, app.clock.now()).await;
    loop {
        let rest = MINUTE_SECS - app.clock.now().0.rem_euclid(MINUTE_SECS);
        let wait = Duration::from_secs(rest.unsigned_abs());
        tokio::select! {
            () = tokio::time::sleep(wait) => tick(&app, app.clock.now()).await,
            () = app.lifecycle.draining() => return,
        }
    }
}

/// Goes on with the jobs that a schedule had started when the last daemon ended: once a start, and not for ever.
pub async fn go_on_with_cut_off(app: &Arc<App>, now: EpochSecs) {
    let loaded = app.config.get();
    for job in planned(&loaded.config).into_iter().filter(|job| job.schedule.is_some()) {
        let Some(again) = app.jobs.cut_off(&job.key).filter(|_| !app.jobs.is_running(&job.key)) else { continue };
        let Some(next) = again.next(progress_made(app, &job.key).await) else {
            tracing::warn!(key = %job.key, "a job was cut off again and again and got no further: it waits for its next time");
            app.jobs.leave_cut_off(&job.key);
            app.jobs.touch(&job.key, now).await;
            continue;
        };
        match start_with(app, &job.key, &superuser(), AS_SCHEDULED, Some(next)).await {
            Ok(upid) => tracing::info!(key = %job.key, %upid, tries = next.tries, "a job that was cut off goes on"),
            Err(error) if matches!(error.kind(), Kind::Busy | Kind::Closed) => {
                tracing::info!(key = %job.key, %error, "a job that was cut off has to wait");
            }
            Err(error) => {
                tracing::warn!(key = %job.key, %error, "a job that was cut off could not be started: it waits for its next time");
                app.jobs.leave_cut_off(&job.key);
                app.jobs.touch(&job.key, now).await;
            }
        }
    }
}

/// How far a job is that was cut off, as a number that grows.
async fn progress_made(app: &App, key: &JobKey) -> u64 {
    match key {
        // A prune begins with what there is.
        JobKey::Prune(_) => 0,
        JobKey::Verify(id) => {
            let loaded = app.config.get();
            let job = loaded.config.verify_jobs.iter().find(|verify| verify.job.id == *id);
            match job.and_then(|verify| app.datastore(&verify.job.store).ok()) {
                Some(store) => verify::progress_made(&store, &Verification::worker_of_job(&store, id)).await,
                None => 0,
            }
        }
        JobKey::Gc(store) => match app.datastore(store) {
            Ok(store) => gc::progress_made(&store).await,
            Err(_) => 0,
        },
    }
}

/// Starts every job that is due at `now`, and those that wait since the start because they were cut off.
pub async fn tick(app: &Arc<App>, now: EpochSecs) {
    go_on_with_cut_off(app, now).await;
    let loaded = app.config.get();
    let zone = local_zone(app).await;
    for job in planned(&loaded.config) {
        let Some(schedule) = job.schedule else {
            app.jobs.see_without_schedule(&job.key);
            continue;
        };
        app.jobs.see(&job.key, job.text.unwrap_or_default(), now).await;
        let state = app.jobs.get(&job.key).filter(|_| !app.jobs.is_running(&job.key));
        let is_due = |state: JobState| next_run(schedule, &state, &zone).is_some_and(|next| next <= now);
        if !state.is_some_and(is_due) {
            continue;
        }
        match start_with(app, &job.key, &superuser(), AS_SCHEDULED, Some(Again::default())).await {
            Ok(upid) => tracing::info!(key = %job.key, %upid, "a scheduled job begins"),
            Err(error) if matches!(error.kind(), Kind::Busy | Kind::Closed) => {
                tracing::info!(key = %job.key, %error, "a scheduled job has to wait");
            }
            Err(error) => {
                tracing::warn!(key = %job.key, %error, "a scheduled job could not be started: it waits for its next time");
                app.jobs.touch(&job.key, now).await;
            }
        }
    }
}

/// The server's time zone. Reading it may take a file.
pub(super) async fn local_zone(app: &App) -> TimeZone {
    app.compute.run(TimeZone::system).await.unwrap_or(TimeZone::UTC)
}

/// Resolves when the work of a task is over.
type Over = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Starts a job now, whatever its schedule says.
///
/// Errors: `Busy` while it runs; `NotFound` if there is none of that name; `Invalid` for a prune that would keep everything.
pub async fn start(app: &Arc<App>, key: &JobKey, auth: &AuthId) -> Result<Upid> {
    start_with(app, key, auth, AS_SCHEDULED, None).await
}

/// Starts a garbage collection now, in this manner and at most this fast.
pub async fn start_gc_by_hand(
    app: &Arc<App>,
    store: DatastoreName,
    how: (Manner, Rate),
    auth: &AuthId,
) -> Result<Upid> {
    start_with(app, &JobKey::Gc(store), auth, how, None).await
}

/// With `again`, the next daemon goes on with it if this one ends before it does.
async fn start_with(
    app: &Arc<App>,
    key: &JobKey,
    auth: &AuthId,
    how: (Manner, Rate),
    again: Option<Again>,
) -> Result<Upid> {
    let loaded = app.config.get();
    let config = &loaded.config;
    let is_over = |state: &JobState| match state {
        JobState::Started { upid, .. } => {
            let upid = upid.parse::<Upid>().ok();
            upid.and_then(|upid| app.tasks.state(&upid)).is_some_and(|state| matches!(state, TaskState::Ended(..)))
        }
        JobState::Created { .. } | JobState::Finished { .. } => true,
    };
    let claim = app.jobs.claim_behind(key, is_over).await.map_err(|e| match key {
        JobKey::Gc(store) => e.context(format_args!("unable to start garbage collection on datastore '{store}'")),
        JobKey::Prune(_) | JobKey::Verify(_) => e,
    })?;
    let (upid, over) = match key {
        JobKey::Prune(id) => {
            let job = config.prune_jobs.iter().find(|prune| prune.job.id == *id);
            start_prune(app, job.ok_or_else(|| no_such("prune-job", id))?, auth).await?
        }
        JobKey::Verify(id) => {
            let job = config.verify_jobs.iter().find(|verify| verify.job.id == *id);
            start_verify(app, job.ok_or_else(|| no_such("verify-job", id))?, auth).await?
        }
        JobKey::Gc(store) => start_gc(app, store, how, auth).await?,
    };
    claim.started(&upid, again).await;
    let (app, name) = (app.clone(), upid.clone());
    tokio::spawn(async move {
        over.await;
        let (end, status) = match app.tasks.state(&name) {
            Some(TaskState::Ended(end, status)) => (end, status.to_string()),
            Some(TaskState::Running) | None => (app.clock.now(), "unknown".to_owned()),
        };
        if again.is_some() && app.lifecycle.phase() != Phase::Serving && CUT_OFF.contains(&status.as_str()) {
            // It stays as if it ran: the next daemon goes on with it.
            return drop(claim);
        }
        claim.finished(&name, end, status).await;
    });
    Ok(upid)
}

pub(super) fn no_such(section: &str, id: &str) -> Error {
    Error::not_found(format!("no such {section} '{id}'"))
}

async fn start_prune(app: &Arc<App>, section: &PruneJobSection, auth: &AuthId) -> Result<(Upid, Over)> {
    let PruneJobSection { job, keep: [last, hourly, daily, weekly, monthly, yearly], .. } = section.clone();
    let keep = KeepOptions { last, hourly, daily, weekly, monthly, yearly };
    if keep.keeps_all() {
        return Err(Error::invalid(format!("prune-job '{}' has no keep option: there is nothing to do", job.id)));
    }
    let store = app.datastore(&job.store)?;
    let worker_id = if job.ns.is_root() { job.store.to_string() } else { format!("{}:{}", job.store, job.ns) };
    let max_depth = job.max_depth.unwrap_or(NAMESPACE_DEPTH_MAX);
    let scope = prune::Scope { ns: job.ns, max_depth, keep, dry_run: false, rate: Rate::NONE };
    let started = work::start(app, auth, PRUNE_JOB, worker_id, move |task| async move {
        let zone = prune::local_zone(&store).await?;
        // It is the server that prunes: what the job covers was decided when it was made.
        let report = prune::prune_datastore(&store, &scope, &zone, |_, _| true, &task).await?;
        report.result().map_err(Error::invalid)
    });
    let started = started.await?;
    Ok((started.upid.clone(), Box::pin(async move { drop(started.outcome().await) })))
}

async fn start_verify(app: &Arc<App>, section: &VerifyJobSection, auth: &AuthId) -> Result<(Upid, Over)> {
    let VerifyJobSection { job, ignore_verified, outdated_after, parts } = section.clone();
    let JobSection { id, store, ns, max_depth, .. } = job;
    let store = app.datastore(&store)?;
    let worker = Verification::worker_of_job(&store, &id);
    let scope = verify::Scope::Namespace { ns, max_depth };
    let part = match parts {
        Some(of) => Part::of_day(local_day(app.clock.now(), &local_zone(app).await), of),
        None => Part::All,
    };
    let filter = match part {
        Part::All => Filter { ignore_verified, outdated_after_days: outdated_after, ..Filter::default() },
        _ => Filter::NONE,
    };
    let job = Verification { part, ..Verification::job(store, app.compute.clone(), scope, filter) };
    let lifecycle = app.lifecycle.clone();
    let guard = lifecycle.enter()?;
    let closing = async move { lifecycle.draining().await };
    let started = job.start(&app.tasks, worker, auth, closing, guard).await?;
    Ok((started.upid, Box::pin(async move { drop(started.outcome.await) })))
}

async fn start_gc(app: &Arc<App>, store: &DatastoreName, how: (Manner, Rate), auth: &AuthId) -> Result<(Upid, Over)> {
    let store = app.datastore(store)?;
    let lifecycle = app.lifecycle.clone();
    let (told, over) = oneshot::channel::<()>();
    // The daemon waits for the guard; what is dropped with it tells that the collection is over.
    let guard = (lifecycle.enter()?, told);
    let closing = async move { lifecycle.draining().await };
    let upid = gc::start(store, how, &app.tasks, auth, closing, guard).await?;
    Ok((upid, Box::pin(async move { drop(over.await) })))
}
