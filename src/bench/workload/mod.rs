//! What jobs do, one file a workload.
//!
//! | workload | what an I/O is | as one batch, with one latency |
//! |---|---|---|
//! | known-append | the check of a chunk | `iodepth` chunks, as an append names them |
//! | known-finish | the check of a chunk | what the sweep tells progress after, 4096 at most |
//! | chunk-insert, chunk-read | a chunk | each alone |
//! | verify | a chunk | a snapshot |
//! | gc | a chunk file: seen (read) or removed (trim) | the whole collection |
//! | backup | a chunk of the source: sent, or named again | sent ones alone, named ones with their append |
//! | restore | a chunk | each alone |

mod backup;
mod chunk_insert;
mod chunk_read;
mod counting;
mod gc;
mod known;
mod layout;
mod opened;
mod original;
mod restore;
mod seed_table;
mod serial;
mod served;
mod snapshots;
mod verify;

use std::sync::Arc;

use serde_json::{Map, Value};
use tokio::runtime::Handle;

use super::job::{IoEngine, Job, Workload};
use super::live::Live;
use super::scratch::Scratch;
use super::turn::Turn;
use crate::engine::{Disk, Engine, EngineChoice, EngineConfig};
use crate::error::{Error, Result};

/// What a workload gets to make its data with.
#[derive(Clone, Debug)]
pub struct Ground {
    /// What is asked for.
    pub job: Arc<Job>,
    /// Where data may be made; `None` on an existing datastore.
    pub scratch: Option<Arc<Scratch>>,
    /// Where all but the datastore is made: the same, or that in `workdir`.
    pub work: Option<Arc<Scratch>>,
    /// The runtime that everything asynchronous runs on.
    pub runtime: Handle,
    /// The disk of the engines; tests inject faults with it.
    pub disk: Disk,
    /// Whether to stop.
    pub stop: Live,
}

impl Ground {
    /// The scratch directory of a workload that writes.
    fn scratch(&self) -> Result<&Arc<Scratch>> {
        self.scratch
            .as_ref()
            .ok_or_else(|| Error::invalid("this workload writes, and an existing datastore is only read"))
    }

    /// The directory of what is not the datastore.
    fn work(&self) -> Result<&Arc<Scratch>> {
        self.work.as_ref().map_or_else(|| self.scratch(), Ok)
    }

    /// Sees to it that a layout ends when it is asked to.
    fn go_on(&self) -> Result<()> {
        if self.stop.is_stopped() { Err(Error::closed("interrupted")) } else { Ok(()) }
    }

    /// What the engine of this job is told.
    fn engine_config(&self) -> EngineConfig {
        let choice = match self.job.ioengine {
            IoEngine::SerialStd | IoEngine::Sync => EngineChoice::Sync,
            IoEngine::Threads => EngineChoice::Threads,
            IoEngine::Uring => EngineChoice::Uring,
            IoEngine::Auto => EngineChoice::Auto,
        };
        EngineConfig { choice, workers: self.job.workers, ..EngineConfig::default() }
    }
}

/// What a job has to tell besides its statistics.
#[derive(Debug, Default)]
pub struct Told {
    /// For the key `datastore` of the report.
    pub map: Map<String, Value>,
    /// Lines for people.
    pub notes: Vec<String>,
}

/// A workload whose data is there. All runs of a job share it.
pub trait Stage: Send + Sync {
    /// I/Os of one round of one run, if that is known.
    fn ios(&self) -> Option<u64>;

    /// Makes what the round `round` needs, while the clock stands still and before caches are dropped.
    fn before(&self, turn: &Turn, round: u64) -> Result<()> {
        let _ = (turn, round);
        Ok(())
    }

    /// One pass over the data; ends early, and well, when `turn` says so.
    fn round(&self, turn: &Turn, round: u64) -> Result<()>;

    /// The engine that works for it.
    fn engine(&self) -> Option<Engine>;

    /// Whether what it needed was there from an earlier run, or from somebody else.
    fn found(&self) -> bool;

    /// What it has to tell when all runs have ended.
    fn tell(&self, told: &mut Told) {
        let _ = told;
    }
}

/// Refuses what cannot be done before anything is made.
///
/// Errors: `Invalid`, with what to do.
pub fn check(job: &Job) -> Result<()> {
    let whole_daemon = matches!(job.workload, Workload::Backup | Workload::Restore);
    let only_checks = matches!(job.workload, Workload::KnownAppend | Workload::KnownFinish);
    let refuse = |why: &str| Err(Error::invalid(why));
    if job.existing && !only_checks && job.workload != Workload::ChunkRead {
        return refuse(
            "existing: the datastore is only read, and this workload writes to it (a verification notes its result, a restore needs a \
             daemon of its own); known-append, known-finish and chunk-read can be run",
        );
    }
    let maintains = matches!(job.workload, Workload::Gc | Workload::Verify);
    if job.ioengine == IoEngine::SerialStd && !only_checks && !maintains {
        return refuse(
            "ioengine serial-std is for known-append, known-finish, gc and verify; \
             for backups it is the third column of unchanged",
        );
    }
    if job.sorted && job.workload == Workload::Verify && job.ioengine != IoEngine::SerialStd {
        return refuse(
            "sorted is how serial-std reads the chunks of a verification; the other engines decide by themselves",
        );
    }
    if job.size == 0 && whole_daemon {
        return refuse("size: a backup needs at least one byte");
    }
    if job.nrfiles == 0 && !whole_daemon {
        return refuse("nrfiles: at least one chunk is needed");
    }
    if !whole_daemon && !only_checks && crate::types::ChunkSize::new(job.bs).is_none() {
        return refuse("bs: a chunk has 1 byte to 16 MiB");
    }
    let limited = job.rate.is_some() || job.rate_iops.is_some();
    if limited && (whole_daemon || matches!(job.workload, Workload::Verify | Workload::Gc)) {
        return refuse("rate and rate_iops limit checks and single chunks; this workload goes as fast as it can");
    }
    if job.numjobs != 1 && (job.workload == Workload::Gc || job.unchanged) {
        return refuse(
            "numjobs must be 1: garbage is collected by one at a time, and unchanged compares single backups",
        );
    }
    if job.unchanged && job.workload != Workload::Backup {
        return refuse("unchanged belongs to the workload backup");
    }
    if job.time_based && job.workload == Workload::Backup {
        return refuse("time_based: each backup takes space, so they cannot begin anew without end; use loops");
    }
    Ok(())
}

/// Makes the data of a job, and opens what it measures.
pub fn prepare(ground: &Ground) -> Result<Box<dyn Stage>> {
    Ok(match ground.job.workload {
        Workload::KnownAppend | Workload::KnownFinish => Box::new(known::Known::prepare(ground)?),
        Workload::ChunkInsert => Box::new(chunk_insert::Insert::prepare(ground)?),
        Workload::ChunkRead => Box::new(chunk_read::Read::prepare(ground)?),
        Workload::Verify => Box::new(verify::Verify::prepare(ground)?),
        Workload::Gc => Box::new(gc::Gc::prepare(ground)?),
        Workload::Backup if ground.job.unchanged => Box::new(seed_table::SeedTable::prepare(ground)?),
        Workload::Backup => Box::new(backup::Backup::prepare(ground)?),
        Workload::Restore => Box::new(restore::Restore::prepare(ground)?),
    })
}
