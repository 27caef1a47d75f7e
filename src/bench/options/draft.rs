//! What options say before a job is finished, and what finishes it. Pure.

use std::path::PathBuf;
use std::time::Duration;

use super::table::{find, workload_name};
use crate::bench::job::{IoEngine, Job, SyncLevel, Workload};
use crate::bench::log::LogOptions;
use crate::client::restore::CHUNKS_IN_FLIGHT;
use crate::error::{Error, Result};
use crate::store::GcMethod;

/// Form of the report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// fio's text.
    Normal,
    /// fio's JSON.
    Json,
    /// The same with all latency bins.
    JsonPlus,
}

/// Whether the status line is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Eta {
    /// On a terminal.
    #[default]
    Auto,
    /// In any case.
    Always,
    /// Not at all.
    Never,
}

/// What concerns the run as a whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOptions {
    /// `output`: where the report goes instead of standard output.
    pub output: Option<PathBuf>,
    /// `output-format`, in the order given.
    pub formats: Vec<Format>,
    /// `status-interval`.
    pub status_interval: Option<Duration>,
    /// `eta`.
    pub eta: Eta,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self { output: None, formats: vec![Format::Normal], status_interval: None, eta: Eta::Auto }
    }
}

/// What setters of the table write to.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// The job that is being described.
    pub job: Draft,
    /// The run.
    pub run: RunOptions,
}

/// A job whose options are being read: as [`Job`], with `None` for what depends on the workload.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each field is the option of its name, see the table")]
pub struct Draft {
    pub name: String,
    pub directory: Option<PathBuf>,
    pub filename: Option<String>,
    pub workdir: Option<PathBuf>,
    pub workload: Option<Workload>,
    pub bs: u64,
    pub size: Option<u64>,
    pub nrfiles: Option<u64>,
    pub iodepth: Option<u32>,
    pub ioengine: IoEngine,
    pub workers: u32,
    pub numjobs: u32,
    pub runtime: Option<Duration>,
    pub time_based: bool,
    pub ramp_time: Duration,
    pub rate: Option<u64>,
    pub rate_iops: Option<u64>,
    pub loops: u64,
    pub randseed: u64,
    pub stonewall: bool,
    pub group_reporting: bool,
    pub percentiles: Vec<f64>,
    pub existing: bool,
    pub keep: bool,
    pub cold: bool,
    pub sorted: Option<bool>,
    pub sync: SyncLevel,
    pub compress_percentage: u8,
    pub unchanged: bool,
    pub checks: bool,
    pub garbage_percent: u8,
    pub gc_method: GcMethod,
    pub again: bool,
    pub logs: LogOptions,
}

/// fio's.
const DEFAULT_PERCENTILES: [f64; 17] =
    [1.0, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 95.0, 99.0, 99.5, 99.9, 99.95, 99.99];

/// What clients cut images into.
const DEFAULT_CHUNK_BYTES: u64 = 4 << 20;

/// No chunk may be longer.
const MAX_CHUNK_BYTES: u64 = 16 << 20;

/// Of backup and restore.
const DEFAULT_IMAGE_BYTES: u64 = 1 << 30;

impl Default for Draft {
    fn default() -> Self {
        Self {
            name: String::new(),
            directory: None,
            filename: None,
            workdir: None,
            workload: None,
            bs: DEFAULT_CHUNK_BYTES,
            size: None,
            nrfiles: None,
            iodepth: None,
            ioengine: IoEngine::Auto,
            workers: 64,
            numjobs: 1,
            runtime: None,
            time_based: false,
            ramp_time: Duration::ZERO,
            rate: None,
            rate_iops: None,
            loops: 1,
            randseed: 1,
            stonewall: false,
            group_reporting: false,
            percentiles: DEFAULT_PERCENTILES.to_vec(),
            existing: false,
            keep: false,
            cold: false,
            sorted: None,
            sync: SyncLevel::Filesystem,
            compress_percentage: 0,
            unchanged: false,
            checks: true,
            garbage_percent: 10,
            gc_method: GcMethod::default(),
            again: false,
            logs: LogOptions::default(),
        }
    }
}

/// Where a job stands among the others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// [`Job::wave`].
    pub wave: usize,
    /// [`Job::group_id`].
    pub group_id: u32,
    /// [`Job::first_run`].
    pub first_run: u32,
}

impl Draft {
    /// Decides what is left open, and refuses what contradicts itself. `given` are the options of the job itself.
    ///
    /// Errors: `Invalid`, naming job, option and remedy.
    pub fn finish(self, given: Vec<(String, String)>, place: Place) -> Result<Job> {
        let name = self.name.clone();
        self.decide(given, place).map_err(|text| Error::invalid(format!("job {name:.80?}: {text}")))
    }

    fn decide(self, given: Vec<(String, String)>, place: Place) -> Result<Job, String> {
        let all = super::table::WORKLOADS.join(", ");
        let workload = self.workload.ok_or(format!("rw is missing: what to do is one of {all}"))?;
        let rw = workload_name(workload);
        if self.existing && !super::table::READ_ONLY.contains(&workload) {
            return Err(format!(
                "existing writes nothing, and rw={rw} has to: leave out existing, or choose another rw"
            ));
        }
        for (option, _) in &given {
            let opt = find(option).filter(|opt| !opt.is_used_by(workload));
            if let Some(users) = opt.and_then(|opt| opt.users()) {
                return Err(format!("{option} means nothing to rw={rw}: it belongs to {users}"));
            }
        }
        let directory =
            self.directory.ok_or("directory is missing: say where to measure, as in directory=/mnt/disk")?;
        if self.existing && self.keep {
            return Err("keep is about data that is made, and existing makes none: leave out one of them".to_owned());
        }
        if self.keep && workload == Workload::Backup && !self.unchanged {
            return Err("keep leaves a datastore behind that is not empty, and a first backup needs one that is: leave out keep, or add \
                        unchanged"
                .to_owned());
        }
        if self.runtime == Some(Duration::ZERO) {
            return Err("runtime=0 measures nothing: give it a time, or leave it out to do the work once".to_owned());
        }
        if self.time_based && self.runtime.is_none() {
            return Err("time_based needs runtime: say how long".to_owned());
        }
        if self.rate == Some(0) {
            return Err("rate=0 lets nothing through: leave it out for no limit".to_owned());
        }
        if self.filename.as_deref().is_some_and(|name| name.contains('/') || name == "." || name == "..") {
            return Err("filename is a name within directory, without a slash".to_owned());
        }
        // What a job says itself goes before the other that holds for all.
        let says = |name: &str| given.iter().any(|(option, _)| find(option).is_some_and(|opt| opt.name == name));
        let (size, nrfiles) = match (says("size"), says("nrfiles")) {
            (true, false) => (self.size, None),
            (false, true) => (None, self.nrfiles),
            _ => (self.size, self.nrfiles),
        };
        let (nrfiles, size) = amount(workload, self.bs, size, nrfiles)?;
        Ok(Job {
            name: self.name,
            wave: place.wave,
            group_id: place.group_id,
            given,
            directory,
            filename: self.filename,
            workdir: self.workdir,
            keep: self.keep,
            existing: self.existing,
            workload,
            bs: self.bs,
            size,
            nrfiles,
            iodepth: self.iodepth.unwrap_or(match workload {
                Workload::KnownAppend => 128,
                Workload::Restore => u32::try_from(CHUNKS_IN_FLIGHT).unwrap_or(u32::MAX),
                _ => 1,
            }),
            ioengine: self.ioengine,
            workers: self.workers,
            numjobs: self.numjobs,
            runtime: self.runtime,
            time_based: self.time_based,
            ramp_time: self.ramp_time,
            rate: self.rate,
            rate_iops: self.rate_iops,
            loops: self.loops,
            randseed: self.randseed,
            cold: self.cold,
            sorted: self.sorted.unwrap_or(workload == Workload::KnownFinish),
            sync: self.sync,
            compress_percentage: self.compress_percentage,
            unchanged: self.unchanged,
            checks: self.checks,
            garbage_percent: self.garbage_percent,
            gc_method: self.gc_method,
            again: self.again,
            group_reporting: self.group_reporting,
            percentiles: self.percentiles,
            logs: self.logs,
            first_run: place.first_run,
        })
    }
}

/// Chunks, and their bytes together.
fn amount(workload: Workload, bs: u64, size: Option<u64>, nrfiles: Option<u64>) -> Result<(u64, u64), String> {
    if !(1..=MAX_CHUNK_BYTES).contains(&bs) {
        return Err(format!("bs={bs}: a chunk has 1 to {MAX_CHUNK_BYTES} bytes"));
    }
    let too_many = || format!("nrfiles × bs is more than any disk holds, with bs={bs}");
    match (size, nrfiles) {
        (Some(size), _) if size < bs || size % bs != 0 => Err(format!(
            "size={size} is no multiple of bs={bs}: make it {}",
            size.div_ceil(bs).max(1).saturating_mul(bs)
        )),
        (Some(size), Some(nrfiles)) if size / bs != nrfiles => Err(format!(
            "size={size} with bs={bs} are {} chunks, and nrfiles says {nrfiles}: leave out size or nrfiles",
            size / bs
        )),
        (Some(size), _) => Ok((size / bs, size)),
        (None, Some(nrfiles)) => Ok((nrfiles, nrfiles.checked_mul(bs).ok_or_else(too_many)?)),
        (None, None) => {
            let nrfiles = match workload {
                Workload::KnownAppend | Workload::KnownFinish | Workload::Gc => 100_000,
                Workload::ChunkInsert | Workload::ChunkRead | Workload::Verify => 256,
                Workload::Backup | Workload::Restore => DEFAULT_IMAGE_BYTES.div_ceil(bs),
            };
            Ok((nrfiles, nrfiles * bs))
        }
    }
}
