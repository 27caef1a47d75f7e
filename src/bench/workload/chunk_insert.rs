//! chunk-insert: new chunks on their way to the disk.

use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::task::JoinSet;

use super::opened::{self, Opened};
use super::{Ground, Stage};
use crate::bench::job::SyncLevel;
use crate::bench::seed::{self, Numbers};
use crate::bench::stats::{Direction, Io};
use crate::bench::turn::Turn;
use crate::engine::Engine;
use crate::error::{Error, IoContext, Result};
use crate::format::blob::{self, Compression};
use crate::types::{ChunkSize, Digest};

/// Different contents that are written in turn: making new ones for each would measure the making.
const CONTENTS: u64 = 16;

/// An empty datastore, and what is put into it.
#[derive(Debug)]
pub struct Insert {
    opened: Opened,
    blobs: Vec<Bytes>,
    size: ChunkSize,
    count: u64,
}

impl Insert {
    /// Makes an empty datastore and a few contents. The store does not hash what it is given, so that digests can be made up.
    pub fn prepare(ground: &Ground) -> Result<Self> {
        let job = &ground.job;
        let scratch = ground.scratch()?;
        let engine = opened::engine(ground)?;
        scratch.lay_out("insert 1", || opened::make(ground, &scratch.store(), &engine))?;
        scratch.spoil()?;
        let opened = opened::open(ground, engine)?;
        let size = ChunkSize::new(job.bs).ok_or_else(|| Error::invalid("bs: a chunk has 1 byte to 16 MiB"))?;
        let blob = |number| {
            let mut plain = vec![0; size.bytes() as usize];
            seed::fill(&mut plain, &mut Numbers::new(job.randseed, number), job.compress_percentage);
            Bytes::from(blob::encode(&plain, Compression::Try))
        };
        Ok(Self { opened, blobs: (0..CONTENTS.min(job.nrfiles)).map(blob).collect(), size, count: job.nrfiles })
    }

    /// Chunks of a run and a round: nobody else's.
    fn digests(turn: &Turn, round: u64) -> Vec<Digest> {
        let seed = Numbers::new(turn.job.randseed, u64::from(turn.number) << 32 | round).next_u64();
        seed::digests(seed, turn.job.nrfiles)
    }

    async fn insert(&self, turn: &Turn, digests: Vec<Digest>) -> Result<()> {
        let depth_max = turn.job.iodepth.max(1);
        let mut running: JoinSet<Result<()>> = JoinSet::new();
        let ended = |done: std::result::Result<Result<()>, tokio::task::JoinError>| {
            done.unwrap_or_else(|e| Err(Error::io("an insertion ended", std::io::Error::other(e))))
        };
        for (digest, blob) in digests.into_iter().zip(self.blobs.iter().cycle()) {
            while running.len() >= depth_max as usize {
                running.join_next().await.map_or(Ok(()), ended)?;
            }
            if !turn.pace(1, blob.len() as u64) {
                break;
            }
            let depth = u32::try_from(running.len() + 1).unwrap_or(u32::MAX);
            let (store, turn, blob, size) = (self.opened.store.clone(), turn.clone(), blob.clone(), self.size);
            running.spawn(async move {
                let (bytes, begun) = (blob.len() as u64, Instant::now());
                store.insert_chunk(digest, blob, size).await?;
                let clat = begun.elapsed();
                turn.record(&Io { direction: Direction::Write, count: 1, bytes, slat: Duration::ZERO, clat, depth });
                Ok(())
            });
        }
        while let Some(done) = running.join_next().await {
            ended(done)?;
        }
        if turn.job.sync == SyncLevel::Filesystem {
            let base = self.opened.path.clone();
            let synced = self.opened.engine.run(move |disk| disk.syncfs(&base)).await?;
            synced.io_context(|| format!("cannot sync {:?}", self.opened.path))?;
        }
        Ok(())
    }
}

impl Stage for Insert {
    fn ios(&self) -> Option<u64> {
        Some(self.count)
    }

    /// Removes what the round before has written: it would fill the disk.
    fn before(&self, turn: &Turn, round: u64) -> Result<()> {
        if round == 0 {
            return Ok(());
        }
        for digest in Self::digests(turn, round - 1) {
            let path = self.opened.chunk(&digest);
            match std::fs::remove_file(&path) {
                Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::io(format!("cannot remove {path:?}"), e));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn round(&self, turn: &Turn, round: u64) -> Result<()> {
        self.opened.runtime.block_on(self.insert(turn, Self::digests(turn, round)))
    }

    fn engine(&self) -> Option<Engine> {
        Some(self.opened.engine.clone())
    }

    fn found(&self) -> bool {
        false
    }
}
