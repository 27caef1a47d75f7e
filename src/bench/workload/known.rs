//! known-append and known-finish: are these chunks on the disk?

use std::time::{Duration, Instant};

use serde_json::json;

use super::opened::{self, Opened};
use super::{Ground, Stage, Told, layout, serial};
use crate::bench::job::{IoEngine, Job, Workload};
use crate::bench::seed;
use crate::bench::stats::{Direction, Io};
use crate::bench::turn::Turn;
use crate::engine::{Class, Engine};
use crate::error::{Error, Result};
use crate::store::layout::Layout;
use crate::store::{CHECK_BATCH_MAX, CheckReport, Freshness};
use crate::types::Digest;

/// Chunks that are there, and who asks for them.
#[derive(Debug)]
pub struct Known {
    opened: Opened,
    layout: Layout,
    digests: Vec<Digest>,
    found: bool,
}

impl Known {
    /// Lays out `nrfiles` hollow chunks, or takes those of an existing datastore.
    pub fn prepare(ground: &Ground) -> Result<Self> {
        let job = &ground.job;
        let engine = opened::engine(ground)?;
        let (mut digests, found) = match &ground.scratch {
            None => (layout::sample(ground, &job.directory)?, true),
            Some(scratch) => {
                let digests = seed::digests(job.randseed, job.nrfiles);
                let bytes = job.bs.max(crate::format::blob::BLOB_BYTES_MIN);
                let stamp = format!("known 1 nrfiles={} bs={bytes} randseed={}", job.nrfiles, job.randseed);
                let found = scratch.lay_out(&stamp, || {
                    opened::make(ground, &scratch.store(), &engine)?;
                    layout::put_hollow(ground, &scratch.store(), &digests, bytes, false)
                })?;
                (digests, found)
            }
        };
        if job.sorted && job.workload == Workload::KnownFinish {
            digests.sort_unstable();
        }
        let opened = opened::open(ground, engine)?;
        let layout = Layout::new(&opened.path);
        Ok(Self { opened, layout, digests, found })
    }

    fn append(&self, turn: &Turn) -> Result<()> {
        let batch_max = batch_of(&turn.job);
        // Runs at the same time are other clients: each is elsewhere in its index.
        let batches = self.digests.len().div_ceil(batch_max);
        let first = batches * turn.number as usize / turn.job.numjobs.max(1) as usize;
        for batch in (first..batches).chain(0..first) {
            let begin = batch * batch_max;
            let mut batch = self.digests[begin..self.digests.len().min(begin + batch_max)].to_vec();
            if turn.job.sorted {
                batch.sort_unstable();
            }
            if !turn.pace(batch.len() as u64, 0) {
                break;
            }
            let (count, begun) = (batch.len(), Instant::now());
            if turn.job.ioengine == IoEngine::SerialStd {
                serial::check(&self.layout, &batch)?;
            } else {
                let check = self.opened.store.check_chunks(batch, Class::Interactive, Freshness::Cached);
                all_there(&self.opened.runtime.block_on(check)?)?;
            }
            turn.record(&checks(count, begun.elapsed()));
        }
        Ok(())
    }

    fn finish(&self, turn: &Turn) -> Result<()> {
        if turn.job.ioengine == IoEngine::SerialStd {
            for batch in self.digests.chunks(CHECK_BATCH_MAX) {
                if !turn.pace(batch.len() as u64, 0) {
                    break;
                }
                let begun = Instant::now();
                serial::check(&self.layout, batch)?;
                turn.record(&checks(batch.len(), begun.elapsed()));
            }
            return Ok(());
        }
        let (mut done, mut begun) = (0, Instant::now());
        let tell = |asked: usize| {
            turn.record(&checks(asked - done, begun.elapsed()));
            turn.pace((asked - done) as u64, 0);
            (done, begun) = (asked, Instant::now());
        };
        let store = &self.opened.store;
        let sweep = async {
            // As a session does: it sorts, and then directories may be read.
            if turn.job.sorted {
                store.check_sorted_chunks_with(&self.digests, tell).await
            } else {
                store.check_chunks_with(&self.digests, Class::Sweep, Freshness::Server, tell).await
            }
        };
        let report = self.opened.runtime.block_on(async {
            tokio::select! {
                report = sweep => report.map(Some),
                () = turn.over() => Ok(None),
            }
        })?;
        report.as_ref().map_or(Ok(()), all_there)
    }
}

/// Chunks of one append.
fn batch_of(job: &Job) -> usize {
    usize::try_from(job.iodepth.max(1)).expect("32 bits")
}

fn checks(count: usize, clat: Duration) -> Io {
    let count = u32::try_from(count).unwrap_or(u32::MAX);
    Io { direction: Direction::Read, count, bytes: 0, slat: Duration::ZERO, clat, depth: count }
}

fn all_there(report: &CheckReport) -> Result<()> {
    match (report.missing.first(), report.unchecked.first()) {
        (None, None) => Ok(()),
        (Some((digest, reason)), _) => Err(Error::not_found(format!("chunk {digest} is missing - {reason}"))),
        (None, Some((digest, errno))) => {
            Err(Error::io(format!("chunk {digest} could not be checked"), std::io::Error::from(*errno)))
        }
    }
}

impl Stage for Known {
    fn ios(&self) -> Option<u64> {
        Some(self.digests.len() as u64)
    }

    fn round(&self, turn: &Turn, _: u64) -> Result<()> {
        if turn.job.workload == Workload::KnownAppend { self.append(turn) } else { self.finish(turn) }
    }

    fn engine(&self) -> Option<Engine> {
        Some(self.opened.engine.clone())
    }

    fn found(&self) -> bool {
        self.found
    }

    fn tell(&self, told: &mut Told) {
        told.map.insert("chunks".into(), json!(self.digests.len()));
    }
}
