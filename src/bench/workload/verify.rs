//! verify: snapshots are verified, one after another.

use std::time::{Duration, Instant};

use super::chunk_read::whole_chunks;
use super::opened::{self, Opened};
use super::{Ground, Stage, snapshots};
use crate::bench::stats::{Direction, Io};
use crate::bench::turn::Turn;
use crate::engine::{ComputePool, Engine};
use crate::error::{Error, Result};
use crate::jobs::verify::{Filter, Scope, Verification};
use crate::types::{Digest, Namespace, Snapshot};

/// Chunks of a snapshot: what is told and counted at a time.
const SNAPSHOT_CHUNKS: usize = 256;

/// Snapshots of chunks with content.
#[derive(Debug)]
pub struct Verify {
    opened: Opened,
    compute: ComputePool,
    tasks: snapshots::Tasks,
    /// With the number of their chunks.
    snapshots: Vec<(Snapshot, u32)>,
    chunks: u64,
    found: bool,
}

impl Verify {
    /// Lays out `nrfiles` chunks of `bs` bytes, 256 to a snapshot.
    pub fn prepare(ground: &Ground) -> Result<Self> {
        let engine = opened::engine(ground)?;
        let write = |digests: &[Digest]| {
            let mut parts = digests.chunks(SNAPSHOT_CHUNKS).enumerate();
            parts.try_for_each(|(number, part)| snapshots::write(ground, &engine, number, part, ground.job.bs))
        };
        let (digests, found) = whole_chunks(ground, &engine, "verify", write)?;
        let count = |part: &[Digest]| u32::try_from(part.len()).expect("256 at most");
        let named = |(number, part)| Ok((snapshots::name(number)?, count(part)));
        let snapshots = digests.chunks(SNAPSHOT_CHUNKS).enumerate().map(named).collect::<Result<_>>()?;
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        Ok(Self {
            opened: opened::open(ground, engine)?,
            compute: ComputePool::new(cpus)?,
            tasks: snapshots::Tasks::open(ground)?,
            snapshots,
            chunks: digests.len() as u64,
            found,
        })
    }

    async fn verify(&self, turn: &Turn) -> Result<()> {
        let first = self.snapshots.len() * turn.number as usize / turn.job.numjobs.max(1) as usize;
        let (before, from) = self.snapshots.split_at(first);
        for (snapshot, count) in from.iter().chain(before) {
            if !turn.go_on() {
                break;
            }
            let scope = Scope::Snapshot(Namespace::root(), snapshot.clone());
            let verification = Verification::job(self.opened.store.clone(), self.compute.clone(), scope, Filter::NONE);
            let task = self.tasks.start("verify").await?;
            let begun = Instant::now();
            let result = tokio::select! {
                result = verification.run(&task) => Some(result),
                () = turn.over() => None,
            };
            let clat = begun.elapsed();
            task.end(result.clone().unwrap_or(Ok(()))).await;
            let Some(result) = result else { break };
            result.map_err(|text| Error::corrupt(format!("{snapshot}: {text}")))?;
            let (count, bytes) = (*count, u64::from(*count) * turn.job.bs);
            turn.record(&Io { direction: Direction::Read, count, bytes, slat: Duration::ZERO, clat, depth: count });
        }
        Ok(())
    }
}

impl Stage for Verify {
    fn ios(&self) -> Option<u64> {
        Some(self.chunks)
    }

    fn round(&self, turn: &Turn, _: u64) -> Result<()> {
        self.opened.runtime.block_on(self.verify(turn))
    }

    fn engine(&self) -> Option<Engine> {
        Some(self.opened.engine.clone())
    }

    fn found(&self) -> bool {
        self.found
    }
}
