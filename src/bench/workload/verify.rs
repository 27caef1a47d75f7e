//! verify: snapshots are verified, one after another.

use std::time::{Duration, Instant};

use serde_json::json;

use super::chunk_read::whole_chunks;
use super::opened::{self, Opened};
use super::{Ground, Stage, Told, original, snapshots};
use crate::bench::job::IoEngine;
use crate::bench::scratch::in_parallel;
use crate::bench::stats::{Direction, Io};
use crate::bench::turn::Turn;
use crate::engine::{ComputePool, Engine};
use crate::error::{Error, IoContext, Result};
use crate::jobs::verify::{Filter, Scope, Verification};
use crate::store::layout::Layout;
use crate::sync::Mutex;
use crate::types::{Digest, Namespace, Snapshot};

/// Chunks of a snapshot: what is told and counted at a time.
const SNAPSHOT_CHUNKS: usize = 256;

/// Plaintext that the cores hash to show what they can, and how often; the median counts.
const HASHED_BYTES: u64 = 128 << 20;
const HASHED_TIMES: usize = 5;

/// Snapshots of chunks with content.
#[derive(Debug)]
pub struct Verify {
    opened: Opened,
    compute: ComputePool,
    tasks: snapshots::Tasks,
    /// With the number of their chunks.
    snapshots: Vec<(Snapshot, u32)>,
    digests: Vec<Digest>,
    /// What all cores together decode and hash in a second, from memory.
    cores_bytes_per_sec: Mutex<Option<u64>>,
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
            digests,
            cores_bytes_per_sec: Mutex::default(),
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

impl Verify {
    /// The same as the original does it.
    fn verify_serially(&self, turn: &Turn) -> Result<()> {
        let layout = Layout::new(&self.opened.path);
        let parts = self.digests.chunks(SNAPSHOT_CHUNKS);
        let first = parts.len() * turn.number as usize / turn.job.numjobs.max(1) as usize;
        for part in parts.clone().skip(first).chain(parts.take(first)) {
            let begun = Instant::now();
            if !original::verify(&layout, part, turn.job.sorted, turn)? {
                break;
            }
            let (clat, count) = (begun.elapsed(), u32::try_from(part.len()).expect("256 at most"));
            let bytes = u64::from(count) * turn.job.bs;
            turn.record(&Io { direction: Direction::Read, count, bytes, slat: Duration::ZERO, clat, depth: count });
        }
        Ok(())
    }

    /// Lets the cores hash, with nothing to wait for.
    fn hash_alone(&self, bs: u64) -> Result<()> {
        let count = usize::try_from(HASHED_BYTES.div_ceil(bs)).unwrap_or(usize::MAX);
        let read = |digest: &Digest| {
            let path = self.opened.chunk(digest);
            Ok((*digest, std::fs::read(&path).io_context(|| format!("chunk {path:?}"))?))
        };
        let chunks = self.digests.iter().take(count).map(read).collect::<Result<Vec<_>>>()?;
        let mut times = Vec::new();
        for _ in 0..HASHED_TIMES {
            let begun = Instant::now();
            in_parallel(&chunks, |part| {
                part.iter().try_for_each(|(digest, encoded)| original::judge(digest, encoded))
            })?;
            times.push(begun.elapsed());
        }
        times.sort_unstable();
        let (bytes, time) = (chunks.len() as u64 * bs, times[HASHED_TIMES / 2].as_micros().max(1));
        let rate = u128::from(bytes) * 1_000_000 / time;
        *self.cores_bytes_per_sec.lock() = Some(u64::try_from(rate).unwrap_or(u64::MAX));
        Ok(())
    }
}

impl Stage for Verify {
    fn ios(&self) -> Option<u64> {
        Some(self.digests.len() as u64)
    }

    fn before(&self, turn: &Turn, round: u64) -> Result<()> {
        if turn.number == 0 && round == 0 { self.hash_alone(turn.job.bs) } else { Ok(()) }
    }

    fn tell(&self, told: &mut Told) {
        let rate = *self.cores_bytes_per_sec.lock();
        told.map.insert("verify".into(), json!({"cores_bytes_per_sec": rate}));
    }

    fn round(&self, turn: &Turn, _: u64) -> Result<()> {
        if turn.job.ioengine == IoEngine::SerialStd {
            return self.verify_serially(turn);
        }
        self.opened.runtime.block_on(self.verify(turn))
    }

    fn engine(&self) -> Option<Engine> {
        Some(self.opened.engine.clone())
    }

    fn found(&self) -> bool {
        self.found
    }
}
