//! chunk-read: chunks as a restore asks the store for them.

use std::time::{Duration, Instant};

use tokio::task::JoinSet;

use super::opened::{self, Opened};
use super::{Ground, Stage, layout};
use crate::bench::seed::Numbers;
use crate::bench::stats::{Direction, Io};
use crate::bench::turn::Turn;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::types::Digest;

/// Chunks with content.
#[derive(Debug)]
pub struct Read {
    opened: Opened,
    digests: Vec<Digest>,
    found: bool,
}

impl Read {
    /// Lays out `nrfiles` chunks of `bs` bytes, or takes those of an existing datastore.
    pub fn prepare(ground: &Ground) -> Result<Self> {
        let engine = opened::engine(ground)?;
        let (digests, found) = match &ground.scratch {
            None => (layout::sample(ground, &ground.job.directory)?, true),
            Some(_) => whole_chunks(ground, &engine, "read", |_| Ok(()))?,
        };
        Ok(Self { opened: opened::open(ground, engine)?, digests, found })
    }

    async fn read(&self, turn: &Turn) -> Result<()> {
        let depth_max = turn.job.iodepth.max(1);
        // Another order for each run, and the same in each loop.
        let mut digests = self.digests.clone();
        Numbers::new(turn.job.randseed, 1 + u64::from(turn.number)).shuffle(&mut digests);
        let mut running: JoinSet<Result<()>> = JoinSet::new();
        let ended = |done: std::result::Result<Result<()>, tokio::task::JoinError>| {
            done.unwrap_or_else(|e| Err(Error::io("a read ended", std::io::Error::other(e))))
        };
        for digest in digests {
            while running.len() >= depth_max as usize {
                running.join_next().await.map_or(Ok(()), ended)?;
            }
            if !turn.pace(1, turn.job.bs) {
                break;
            }
            let depth = u32::try_from(running.len() + 1).unwrap_or(u32::MAX);
            let (store, turn) = (self.opened.store.clone(), turn.clone());
            running.spawn(async move {
                let begun = Instant::now();
                let bytes = store.read_chunk(digest).await?.len() as u64;
                let clat = begun.elapsed();
                turn.record(&Io { direction: Direction::Read, count: 1, bytes, slat: Duration::ZERO, clat, depth });
                Ok(())
            });
        }
        while let Some(done) = running.join_next().await {
            ended(done)?;
        }
        Ok(())
    }
}

/// Chunks with content in the scratch datastore, and what `more` makes of them; `kind` tells the data of workloads apart.
pub(super) fn whole_chunks(
    ground: &Ground,
    engine: &Engine,
    kind: &str,
    more: impl FnOnce(&[Digest]) -> Result<()>,
) -> Result<(Vec<Digest>, bool)> {
    let (job, scratch) = (&ground.job, ground.scratch()?);
    let stamp = format!(
        "{kind} 1 nrfiles={} bs={} randseed={} buffer_compress_percentage={}",
        job.nrfiles, job.bs, job.randseed, job.compress_percentage
    );
    let found = scratch.lay_out(&stamp, || {
        opened::make(ground, &scratch.store(), engine)?;
        more(&layout::put_whole(ground, scratch.path(), &scratch.store())?)
    })?;
    Ok((layout::read_digests(scratch.path())?, found))
}

impl Stage for Read {
    fn ios(&self) -> Option<u64> {
        Some(self.digests.len() as u64)
    }

    fn round(&self, turn: &Turn, _: u64) -> Result<()> {
        self.opened.runtime.block_on(self.read(turn))
    }

    fn engine(&self) -> Option<Engine> {
        Some(self.opened.engine.clone())
    }

    fn found(&self) -> bool {
        self.found
    }
}
