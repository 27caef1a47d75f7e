//! What a whole run hands to the report. Pure.

use std::time::Duration;

use super::job::Job;
use super::stats::Stats;
use crate::error::Error;

/// One of the `numjobs` runs of a job.
#[derive(Debug)]
pub struct JobOutcome {
    /// What was asked for.
    pub job: Job,
    /// 0 to `numjobs` less one.
    pub number: u32,
    /// When it began to count, in ms since 1970.
    pub started_ms: u64,
    /// How long it counted.
    pub runtime: Duration,
    /// What it measured.
    pub stats: Stats,
    /// Processor time and faults while it counted, of the whole process divided by the jobs that ran.
    pub usage: Usage,
    /// Why it did not end as it should.
    pub error: Option<Error>,
    /// Whether it was interrupted: what it measured up to then stands.
    pub interrupted: bool,
    /// What only a datastore has to tell (engine counters, checks, tables), for the key `datastore` of the report.
    pub datastore: serde_json::Map<String, serde_json::Value>,
    /// The same for people: lines below the job's text report.
    pub notes: Vec<String>,
}

/// What `getrusage` says.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage {
    /// In user mode.
    pub user: Duration,
    /// In the kernel.
    pub system: Duration,
    /// Context switches.
    pub switches: u64,
    /// Page faults that read a disk.
    pub major_faults: u64,
    /// Those that did not.
    pub minor_faults: u64,
}
