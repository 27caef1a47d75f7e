//! When a job ran last, across restarts: one small file a job (spec 07 §5).
//!
//! ```text
//! DATA/jobs/prunejob-nightly.json   {"created":{"time":…}} → {"started":{"upid":…}} → {"finished":{"upid":…,"endtime":…,"status":…}}
//! ```
//!
//! Memory is what is asked, the files are for the next start. Whether a job runs is known in memory alone: after a crash none does. One that a schedule
//! had started is noted with `"again":{"tries":…,"progress":…}`, and gone on with.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

use crate::clock::EpochSecs;
use crate::config::{DataDir, PUBLIC_MODE};
use crate::engine::{ComputePool, Disk};
use crate::error::{Error, Kind, Result};
use crate::sync::Mutex;
use crate::types::{DatastoreName, Upid};

/// Names a job.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum JobKey {
    /// `[[prune-job]]` of that id.
    Prune(String),
    /// `[[verify-job]]` of that id.
    Verify(String),
    /// The garbage collection of a datastore.
    Gc(DatastoreName),
}

/// A run that is to be gone on with when the daemon dies under it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Again {
    /// How often that has been done since it last got ahead.
    pub tries: u32,
    /// How far it was when it began, as the job counts.
    pub progress: u64,
}

impl Again {
    /// Runs that get no further and are cut off before a job is left to its schedule: it may be the job that kills the daemon.
    pub const TRIES_MAX: u32 = 3;

    /// The next try of a run that is at `progress` now; `None` if it has been tried often enough.
    pub fn next(self, progress: u64) -> Option<Self> {
        let tries = if progress > self.progress { 1 } else { self.tries + 1 };
        (tries <= Self::TRIES_MAX).then_some(Self { tries, progress })
    }
}

/// What is known of a job's runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// It has not run.
    Created {
        /// Since when it is there, or has its schedule.
        time: EpochSecs,
    },
    /// It has begun. Whether it has ended, its task knows.
    Started {
        /// Its task.
        upid: String,
        /// If it was started by itself: what the next start of the daemon has to know to go on with it, should it be cut off.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        again: Option<Again>,
    },
    /// It has ended.
    Finished {
        /// Its task.
        upid: String,
        /// When.
        endtime: EpochSecs,
        /// `OK`, `WARNINGS: n`, `unknown`, or the error.
        status: String,
        /// Since when it has its schedule, if that is later.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        updated: Option<EpochSecs>,
    },
}

impl fmt::Display for JobKey {
    /// The worker type of its tasks, and its id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Prune(id) => write!(f, "prunejob-{id}"),
            Self::Verify(id) => write!(f, "verificationjob-{id}"),
            Self::Gc(store) => write!(f, "garbage_collection-{store}"),
        }
    }
}

impl JobKey {
    fn of(name: &str) -> Option<Self> {
        match name.split_once('-')? {
            ("prunejob", id) => Some(Self::Prune(id.to_owned())),
            ("verificationjob", id) => Some(Self::Verify(id.to_owned())),
            ("garbage_collection", store) => store.parse().ok().map(Self::Gc),
            _ => None,
        }
    }
}

impl JobState {
    /// The time that the next run is counted from.
    pub fn last_run(&self) -> EpochSecs {
        let begun = |upid: &str| upid.parse::<Upid>().map_or(EpochSecs(0), |upid| upid.start);
        match self {
            Self::Created { time } => *time,
            Self::Started { upid, .. } | Self::Finished { upid, updated: None, .. } => begun(upid),
            Self::Finished { updated: Some(updated), .. } => *updated,
        }
    }

    /// The same with another schedule since `now`: it counts from there.
    fn touched(self, now: EpochSecs) -> Self {
        match self {
            Self::Created { .. } => Self::Created { time: now },
            Self::Finished { upid, endtime, status, .. } => {
                Self::Finished { upid, endtime, status, updated: Some(now) }
            }
            // Cut off by a crash: how it ended nobody knows.
            Self::Started { upid, .. } => {
                Self::Finished { endtime: now, status: "unknown".to_owned(), upid, updated: Some(now) }
            }
        }
    }
}

/// The states of all jobs. A cheap clone.
#[derive(Clone, Debug)]
pub struct JobStates {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: DataDir,
    pool: ComputePool,
    jobs: Mutex<HashMap<JobKey, Job>>,
    /// Held while a file is written, so that the last word in memory is the last on the disk.
    writing: tokio::sync::Mutex<()>,
    /// Rung when a run begins, and when the right to run is given back.
    turned: Notify,
}

#[derive(Clone, Debug, Default)]
struct Job {
    state: Option<JobState>,
    running: bool,
    /// The last daemon died under it, and this one has not gone on with it.
    cut_off: Option<Again>,
    /// The schedule that was seen last.
    schedule: Option<String>,
}

impl JobStates {
    /// Reads what is in `dir`, making that where it is missing. A file that cannot be understood counts as none, and is told. Blocks; call it
    /// before the runtime serves.
    pub fn open(dir: &Path, pool: ComputePool) -> Result<Self> {
        let dir = DataDir::open(dir)?;
        let mut jobs = HashMap::new();
        for name in dir.names()? {
            let Some(key) = name.strip_suffix(".json").and_then(JobKey::of) else { continue };
            let bytes = dir.read(&name)?.unwrap_or_default();
            match serde_json::from_slice(&bytes) {
                Ok(state) => {
                    let cut_off = if let JobState::Started { again, .. } = state { again } else { None };
                    jobs.insert(key, Job { state: Some(state), cut_off, ..Job::default() });
                }
                Err(error) => tracing::warn!(%key, %error, "the state of a job cannot be read: it counts as new"),
            }
        }
        let inner =
            Inner { dir, pool, jobs: Mutex::new(jobs), writing: tokio::sync::Mutex::default(), turned: Notify::new() };
        Ok(Self { inner: Arc::new(inner) })
    }

    /// What is known of a job's runs.
    pub fn get(&self, key: &JobKey) -> Option<JobState> {
        self.inner.jobs.lock().get(key)?.state.clone()
    }

    /// Whether it runs.
    pub fn is_running(&self, key: &JobKey) -> bool {
        self.inner.jobs.lock().get(key).is_some_and(|job| job.running)
    }

    /// What is to be gone on with, because the last daemon ended under it.
    pub fn cut_off(&self, key: &JobKey) -> Option<Again> {
        self.inner.jobs.lock().get(key)?.cut_off
    }

    /// It is not gone on with after all.
    pub fn leave_cut_off(&self, key: &JobKey) {
        if let Some(job) = self.inner.jobs.lock().get_mut(key) {
            job.cut_off = None;
        }
    }

    /// Takes the right to run a job.
    ///
    /// Errors: `Busy` while it runs.
    pub fn claim(&self, key: &JobKey) -> Result<Claim> {
        let mut jobs = self.inner.jobs.lock();
        let job = jobs.entry(key.clone()).or_default();
        if std::mem::replace(&mut job.running, true) {
            return Err(Error::busy(format!("job '{key}' is already running")));
        }
        Ok(Claim { states: self.clone(), key: key.clone() })
    }

    /// The same, but waits while the right is taken and the last run that is known is over, as `is_over` tells by its state: then that run is
    /// being written down, or the next one is about to begin. So whoever has seen a run end may start the next.
    pub async fn claim_behind(&self, key: &JobKey, is_over: impl Fn(&JobState) -> bool) -> Result<Claim> {
        loop {
            let turned = self.inner.turned.notified();
            tokio::pin!(turned);
            turned.as_mut().enable();
            match self.claim(key) {
                Err(e) if e.kind() == Kind::Busy && self.get(key).is_some_and(|state| is_over(&state)) => turned.await,
                claimed => return claimed,
            }
        }
    }

    /// A job is there with this schedule. One that is new, or has another schedule than before, counts from `now`, so that it does not
    /// run at once.
    pub async fn see(&self, key: &JobKey, schedule: &str, now: EpochSecs) {
        let (is_new, is_other) = {
            let mut jobs = self.inner.jobs.lock();
            let job = jobs.entry(key.clone()).or_default();
            let before = job.schedule.replace(schedule.to_owned());
            (job.state.is_none(), before.is_some_and(|before| before != schedule))
        };
        if is_new || is_other {
            self.touch(key, now).await;
        }
    }

    /// A job is there and is not started by itself: a schedule that it gets later is a new one.
    pub fn see_without_schedule(&self, key: &JobKey) {
        if let Some(job) = self.inner.jobs.lock().get_mut(key) {
            job.schedule = Some(String::new());
        }
    }

    /// From now on its next run is counted from `now`.
    pub async fn touch(&self, key: &JobKey, now: EpochSecs) {
        self.change(key, |job| {
            // A run that goes on keeps its name.
            if !job.running {
                let new = JobState::Created { time: now };
                job.state = Some(job.state.take().map_or(new, |state| state.touched(now)));
            }
        })
        .await;
    }

    /// The job is gone.
    pub async fn remove(&self, key: &JobKey) {
        let _turn = self.inner.writing.lock().await;
        self.inner.jobs.lock().remove(key);
        let path = self.inner.dir.path().join(format!("{key}.json"));
        let removed = self.inner.pool.run(move || Disk::real().unlink(&path)).await;
        if let Ok(Err(error)) = removed
            && error.kind() != std::io::ErrorKind::NotFound
        {
            tracing::warn!(%key, %error, "the state of a removed job is still there");
        }
    }

    /// Changes a state in memory and in its file. A disk that does not take it costs no run: memory knows.
    async fn change(&self, key: &JobKey, change: impl FnOnce(&mut Job)) {
        let _turn = self.inner.writing.lock().await;
        let state = {
            let mut jobs = self.inner.jobs.lock();
            let job = jobs.entry(key.clone()).or_default();
            let before = job.state.clone();
            change(job);
            if job.state == before { None } else { job.state.clone() }
        };
        let Some(state) = state else { return };
        let (inner, name) = (self.inner.clone(), format!("{key}.json"));
        let write = move || -> Result<()> {
            let bytes = serde_json::to_vec(&state).map_err(|e| Error::invalid("a job's state").with_source(e))?;
            inner.dir.put(name, &bytes, PUBLIC_MODE)
        };
        if let Err(error) = self.inner.pool.run(write).await.and_then(|written| written) {
            tracing::error!(%key, %error, "the state of a job could not be kept");
        }
    }
}

/// Held while a job runs.
#[derive(Debug)]
pub struct Claim {
    states: JobStates,
    key: JobKey,
}

impl Claim {
    /// It has begun, as this task; with `again`, the next daemon goes on with it if this one dies, or drops this claim, before it has ended.
    pub async fn started(&self, upid: &Upid, again: Option<Again>) {
        let upid = upid.to_string();
        let begin = |job: &mut Job| {
            job.cut_off = None;
            job.state = Some(JobState::Started { upid, again });
        };
        self.states.change(&self.key, begin).await;
        self.states.inner.turned.notify_waiters();
    }

    /// It has ended.
    pub async fn finished(self, upid: &Upid, endtime: EpochSecs, status: String) {
        let upid = upid.to_string();
        let is_it = |state: &JobState| matches!(state, JobState::Started { upid: begun, .. } if *begun == upid);
        let ended = JobState::Finished { upid: upid.clone(), endtime, status, updated: None };
        let end = |job: &mut Job| {
            // Not if the job was removed meanwhile.
            if job.state.as_ref().is_some_and(is_it) {
                job.state = Some(ended);
            }
        };
        self.states.change(&self.key, end).await;
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if let Some(job) = self.states.inner.jobs.lock().get_mut(&self.key) {
            job.running = false;
        }
        self.states.inner.turned.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(dir: &Path) -> JobStates {
        JobStates::open(&dir.join("jobs"), ComputePool::new(1).unwrap()).unwrap()
    }

    fn upid(start: i64) -> Upid {
        format!("UPID:a:00000001:00000001:00000001:{start:08X}:prunejob:main:root@pam:").parse().unwrap()
    }

    #[tokio::test]
    async fn a_job_from_its_creation_to_its_removal() {
        let dir = tempfile::tempdir().unwrap();
        let key = JobKey::Prune("nightly".to_owned());
        let all = states(dir.path());
        all.see(&key, "daily", EpochSecs(100)).await;
        assert_eq!(all.get(&key).unwrap().last_run(), EpochSecs(100));
        all.see(&key, "daily", EpochSecs(150)).await;
        assert_eq!(states(dir.path()).get(&key), Some(JobState::Created { time: EpochSecs(100) }), "from the file");
        all.see(&key, "hourly", EpochSecs(200)).await;
        assert_eq!(all.get(&key).unwrap().last_run(), EpochSecs(200), "another schedule");

        let claim = all.claim(&key).unwrap();
        assert_eq!(all.claim(&key).unwrap_err().to_string(), "job 'prunejob-nightly' is already running");
        claim.started(&upid(300), None).await;
        all.touch(&key, EpochSecs(310)).await;
        assert_eq!(all.get(&key), Some(JobState::Started { upid: upid(300).to_string(), again: None }), "it runs on");
        let text = std::fs::read_to_string(dir.path().join("jobs/prunejob-nightly.json")).unwrap();
        assert_eq!(text, format!(r#"{{"started":{{"upid":"{}"}}}}"#, upid(300)));
        claim.finished(&upid(300), EpochSecs(320), "OK".to_owned()).await;
        assert!(!all.is_running(&key));
        assert_eq!(all.get(&key).unwrap().last_run(), EpochSecs(300));
        all.touch(&key, EpochSecs(330)).await;
        let next = states(dir.path());
        assert_eq!(next.get(&key).unwrap().last_run(), EpochSecs(330));
        next.remove(&key).await;
        assert_eq!((next.get(&key), states(dir.path()).get(&key)), (None, None));
    }

    #[test]
    fn what_gets_no_further_is_tried_three_times() {
        let try_again = |made: [u64; 6]| {
            let mut again = Some(Again::default());
            made.map(|progress| {
                again = again.and_then(|again| again.next(progress));
                again.map_or(0, |again| again.tries)
            })
        };
        assert_eq!(try_again([0, 0, 0, 0, 0, 0]), [1, 2, 3, 0, 0, 0]);
        assert_eq!(try_again([0, 0, 5, 5, 4, 6]), [1, 2, 1, 2, 3, 1]);
        assert_eq!(try_again([1, 2, 3, 4, 5, 6]), [1; 6]);
    }

    #[tokio::test]
    async fn who_has_seen_a_run_end_may_start_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let (key, all) = (JobKey::Gc("main".parse().unwrap()), states(dir.path()));
        let first = all.claim(&key).unwrap();
        first.started(&upid(1), None).await;
        assert_eq!(all.claim_behind(&key, |_| false).await.unwrap_err().kind(), Kind::Busy, "it runs");
        // Two have seen it end, and it is not yet written down.
        let over = [JobState::Started { upid: upid(1).to_string(), again: None }];
        let behind = |over: &[JobState]| {
            let (all, key, over) = (all.clone(), key.clone(), over.to_vec());
            let is_over = move |state: &JobState| over.contains(state) || matches!(state, JobState::Finished { .. });
            tokio::spawn(async move { all.claim_behind(&key, is_over).await })
        };
        let waits = behind(&over);
        tokio::task::yield_now().await;
        assert!(!waits.is_finished());
        first.finished(&upid(1), EpochSecs(2), "OK".to_owned()).await;
        let second = waits.await.unwrap().unwrap();
        assert!(matches!(all.get(&key), Some(JobState::Finished { .. })));
        let late = behind(&over);
        tokio::task::yield_now().await;
        assert!(!late.is_finished(), "whether the second begins is not known yet");
        second.started(&upid(3), None).await;
        assert_eq!(late.await.unwrap().unwrap_err().kind(), Kind::Busy, "it runs");
    }

    #[tokio::test]
    async fn a_run_that_a_crash_cut_off_does_not_run_on() {
        let dir = tempfile::tempdir().unwrap();
        let key = JobKey::Gc("main".parse().unwrap());
        let died = states(dir.path());
        let claim = died.claim(&key).unwrap();
        let again = Again { tries: 1, progress: 7 };
        claim.started(&upid(300), Some(again)).await;
        std::fs::OpenOptions::new().create_new(true).write(true).open(dir.path().join("jobs/prunejob-x.json")).unwrap();
        let next = states(dir.path());
        assert!(!next.is_running(&key));
        assert_eq!((next.cut_off(&key), died.cut_off(&key)), (Some(again), None), "the next daemon goes on with it");
        assert_eq!(next.get(&key).unwrap().last_run(), EpochSecs(300));
        assert_eq!(next.get(&JobKey::Prune("x".to_owned())), None, "an empty file is no state");
        next.claim(&key).unwrap().started(&upid(310), again.next(7)).await;
        assert_eq!(next.cut_off(&key), None, "it has done so");
        assert_eq!(states(dir.path()).cut_off(&key), Some(Again { tries: 2, progress: 7 }));
        next.touch(&key, EpochSecs(400)).await;
        assert!(matches!(next.get(&key), Some(JobState::Finished { status, .. }) if status == "unknown"));
    }
}
