//! gc: garbage is collected.

use std::time::{Duration, Instant};

use serde_json::json;

use super::opened::{self, Opened};
use super::{Ground, Stage, Told, layout, snapshots};
use crate::bench::seed;
use crate::bench::stats::{Direction, Io};
use crate::bench::turn::Turn;
use crate::engine::Engine;
use crate::error::Result;
use crate::format::blob::BLOB_BYTES_MIN;
use crate::jobs::gc;
use crate::sync::Mutex;
use crate::types::Digest;

/// A snapshot's chunks, and others that nobody names.
#[derive(Debug)]
pub struct Gc {
    ground: Ground,
    opened: Opened,
    tasks: snapshots::Tasks,
    garbage: Vec<Digest>,
    bytes: u64,
    chunks: u64,
    found: bool,
    effort: Mutex<(u64, u64)>,
}

impl Gc {
    /// Lays out `nrfiles` hollow chunks, those that no index names apart: they are made before each round.
    pub fn prepare(ground: &Ground) -> Result<Self> {
        let (job, scratch) = (&ground.job, ground.scratch()?);
        let engine = opened::engine(ground)?;
        let bytes = job.bs.max(BLOB_BYTES_MIN);
        let mut live = seed::digests(job.randseed, job.nrfiles);
        let garbage_count = job.nrfiles * u64::from(job.garbage_percent.min(100)) / 100;
        let garbage = live.split_off(usize::try_from(job.nrfiles - garbage_count).expect("a length"));
        let stamp = format!(
            "gc 1 nrfiles={} bs={bytes} randseed={} garbage_percent={}",
            job.nrfiles, job.randseed, job.garbage_percent
        );
        let found = scratch.lay_out(&stamp, || {
            opened::make(ground, &scratch.store(), &engine)?;
            layout::put_hollow(ground, &scratch.store(), &live, bytes, true)?;
            if live.is_empty() { Ok(()) } else { snapshots::write(ground, &engine, 0, &live, bytes) }
        })?;
        Ok(Self {
            ground: ground.clone(),
            opened: opened::open(ground, engine)?,
            tasks: snapshots::Tasks::open(ground)?,
            garbage,
            bytes,
            chunks: job.nrfiles,
            found,
            effort: Mutex::new((0, 0)),
        })
    }

    async fn collect(&self, turn: &Turn) -> Result<()> {
        if !turn.go_on() {
            return Ok(());
        }
        let begun = Instant::now();
        let collection = gc::begin(&self.opened.store).await?;
        let task = self.tasks.start(gc::WORKER_TYPE).await?;
        let result = gc::run(&self.opened.store, gc::Manner::Fresh, collection, &task, turn.over()).await;
        let clat = begun.elapsed();
        task.end(result.as_ref().map(|_| ()).map_err(ToString::to_string)).await;
        let report = match result {
            Ok(report) => report,
            // It was told to stop.
            Err(_) if !turn.go_on() => return Ok(()),
            Err(e) => return Err(e),
        };
        let removed = report.swept.removed_chunks;
        // Hollow files free nothing, so there are no bytes.
        for (direction, count) in [(Direction::Read, report.swept.chunks - removed), (Direction::Trim, removed)] {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            if count > 0 {
                turn.record(&Io { direction, count, bytes: 0, slat: Duration::ZERO, clat, depth: count });
            }
        }
        *self.effort.lock() = (report.swept.stats, report.marked.touches);
        Ok(())
    }
}

impl Stage for Gc {
    fn ios(&self) -> Option<u64> {
        Some(self.chunks)
    }

    fn before(&self, _: &Turn, _: u64) -> Result<()> {
        layout::put_hollow(&self.ground, &self.opened.path, &self.garbage, self.bytes, true)
    }

    fn round(&self, turn: &Turn, _: u64) -> Result<()> {
        self.opened.runtime.block_on(self.collect(turn))
    }

    fn engine(&self) -> Option<Engine> {
        Some(self.opened.engine.clone())
    }

    fn found(&self) -> bool {
        self.found
    }

    fn tell(&self, told: &mut Told) {
        let (asked, touched) = *self.effort.lock();
        told.map.insert("gc".into(), json!({"inodes_asked": asked, "access_times_written": touched}));
    }
}
