//! A job as the runner gets it: every option decided, nothing left to be looked up. Pure.

use std::path::PathBuf;
use std::time::Duration;

use super::log::LogOptions;
use crate::store::GcMethod;

/// What a job does (`--rw`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Workload {
    /// An append's check: batches of `iodepth` known chunks.
    KnownAppend,
    /// A finish's check: all `nrfiles` chunks, once each.
    KnownFinish,
    /// New chunks are written.
    ChunkInsert,
    /// Chunks are read.
    ChunkRead,
    /// A verification of snapshots.
    Verify,
    /// A garbage collection.
    Gc,
    /// Backups through a whole daemon, over TLS.
    Backup,
    /// Restores through a whole daemon, over TLS.
    Restore,
}

/// Who makes the presence checks (`--ioengine`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum IoEngine {
    /// The original method: `std::fs::metadata` of the absolute path, one after another.
    SerialStd,
    /// Serial `statx` relative to an open directory.
    Sync,
    /// A pool of threads.
    Threads,
    /// Every check through io_uring.
    Uring,
    /// What the daemon does unless told otherwise.
    Auto,
}

/// What of a written chunk is on stable storage, and when (`--sync`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum SyncLevel {
    /// Nothing is asked for.
    None,
    /// Each chunk, as it is written.
    File,
    /// The whole file system, at the end.
    Filesystem,
}

/// One job, finished: fio's meaning where fio has the option.
#[derive(Clone, Debug)]
pub struct Job {
    /// `name`.
    pub name: String,
    /// Jobs with the same number run at the same time; a `stonewall` begins the next.
    pub wave: usize,
    /// `groupid` of the report.
    pub group_id: u32,
    /// The options as they were given, for the report: name, value.
    pub given: Vec<(String, String)>,
    /// `directory`: where a datastore is made and removed again, or the datastore itself with `existing`.
    pub directory: PathBuf,
    /// `filename`: what the data lies under in the directory, instead of `name`. Jobs that say the same share it.
    pub filename: Option<String>,
    /// `workdir`: where what is not the datastore lies, if not in `directory`.
    pub workdir: Option<PathBuf>,
    /// `keep`: the data stays, and a later run that needs the same uses it again.
    pub keep: bool,
    /// `existing`: measure the datastore that is there, and write nothing.
    pub existing: bool,
    /// `rw`.
    pub workload: Workload,
    /// `bs`: bytes of a chunk.
    pub bs: u64,
    /// `size`: bytes altogether (of an image, of all chunks); with `nrfiles` instead, derived from it.
    pub size: u64,
    /// `nrfiles`: chunks; with `size` instead, derived from it.
    pub nrfiles: u64,
    /// `iodepth`: checks of one batch, chunks in flight.
    pub iodepth: u32,
    /// `ioengine`.
    pub ioengine: IoEngine,
    /// `workers`: checks that the engine has in flight, at most.
    pub workers: u32,
    /// `numjobs`: threads, or clients, that do this job at the same time.
    pub numjobs: u32,
    /// `runtime`.
    pub runtime: Option<Duration>,
    /// `time_based`: begin anew until `runtime` is over.
    pub time_based: bool,
    /// `ramp_time`: what is measured in it does not count.
    pub ramp_time: Duration,
    /// `rate`: bytes a second of each direction, at most.
    pub rate: Option<u64>,
    /// `rate_iops`: I/Os a second, at most.
    pub rate_iops: Option<u64>,
    /// `loops`.
    pub loops: u64,
    /// `randseed`: what is made and asked follows from it.
    pub randseed: u64,
    /// `cold`: the caches are dropped before it begins (and before each loop).
    pub cold: bool,
    /// `sorted`: chunks are asked for in the order of their digests (finish) or as they come (append).
    pub sorted: bool,
    /// `sync`.
    pub sync: SyncLevel,
    /// `buffer_compress_percentage`: how much of the data compresses away.
    pub compress_percentage: u8,
    /// `unchanged`: backups repeat one that is there, checks on and off in turn.
    pub unchanged: bool,
    /// `checks`: known-chunk checks of a daemon's datastore.
    pub checks: bool,
    /// `garbage`: percent of the chunks that no index names (gc).
    pub garbage_percent: u8,
    /// `gc_method`: how a garbage collection tells what is in use.
    pub gc_method: GcMethod,
    /// `again`: a collection leaves out what is as the one before it found it.
    pub again: bool,
    /// `group_reporting`.
    pub group_reporting: bool,
    /// `percentile_list`.
    pub percentiles: Vec<f64>,
    /// `write_bw_log`, `write_iops_log`, `write_lat_log`, `log_avg_msec`.
    pub logs: LogOptions,
    /// Number of its first run among those of the plan, from 1.
    pub first_run: u32,
}
