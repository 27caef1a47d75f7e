//! gc: garbage is collected.

use std::time::{Duration, Instant};

use serde_json::json;

use super::opened::{self, Opened};
use super::{Ground, Stage, Told, layout, original, snapshots};
use crate::bench::job::IoEngine;
use crate::bench::report::millis;
use crate::bench::seed;
use crate::bench::stats::{Direction, Io};
use crate::bench::turn::Turn;
use crate::engine::Engine;
use crate::error::Result;
use crate::format::blob::BLOB_BYTES_MIN;
use crate::jobs::gc;
use crate::store::GcMethod;
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
    effort: Mutex<Effort>,
}

/// What the last collection took.
#[derive(Clone, Copy, Debug, Default)]
struct Effort {
    live: u64,
    removed: u64,
    asked: u64,
    asked_for_size: u64,
    touched: u64,
    set_bytes: u64,
    directories_read: u64,
    directories_unchanged: u64,
    /// Of the original's way, which may be told to stop before its end.
    serial: Option<original::Collected>,
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
            effort: Mutex::default(),
        })
    }

    async fn collect(&self, turn: &Turn) -> Result<()> {
        if !turn.go_on() {
            return Ok(());
        }
        let begun = Instant::now();
        let collection = gc::begin(&self.opened.store).await?;
        let task = self.tasks.start(gc::WORKER_TYPE).await?;
        let manner = if turn.job.again { gc::Manner::Resume } else { gc::Manner::Fresh };
        let result = gc::run(&self.opened.store, manner, collection, &task, turn.over()).await;
        let clat = begun.elapsed();
        task.end(result.as_ref().map(|_| ()).map_err(ToString::to_string)).await;
        let report = match result {
            Ok(report) => report,
            // It was told to stop.
            Err(_) if !turn.go_on() => return Ok(()),
            Err(e) => return Err(e),
        };
        let swept = &report.swept;
        let touches = self.ground.job.gc_method == GcMethod::AccessTime;
        let effort = Effort {
            live: report.marked.chunks,
            removed: swept.removed_chunks,
            // By access times every live chunk is asked; then these questions are no sample.
            asked: swept.stats + if touches { swept.sampled_chunks } else { 0 },
            asked_for_size: if touches { 0 } else { swept.sampled_chunks },
            touched: report.marked.touches,
            set_bytes: report.marked.memory_bytes,
            directories_read: swept.dirs_read,
            directories_unchanged: swept.dirs_unchanged,
            serial: None,
        };
        self.count(turn, effort, swept.chunks, clat);
        Ok(())
    }

    /// The same as the original does it.
    fn collect_serially(&self, turn: &Turn) -> Result<()> {
        let begun = Instant::now();
        let collected = original::collect(&self.opened.path, turn)?;
        let original::Collected { chunks, touched, asked, removed, .. } = collected;
        let effort = Effort { live: touched, removed, asked, touched, serial: Some(collected), ..Effort::default() };
        self.count(turn, effort, chunks, begun.elapsed());
        Ok(())
    }

    fn count(&self, turn: &Turn, effort: Effort, chunks: u64, clat: Duration) {
        // Hollow files free nothing, so there are no bytes.
        for (direction, count) in [(Direction::Read, chunks - effort.removed), (Direction::Trim, effort.removed)] {
            let count = u32::try_from(count).unwrap_or(u32::MAX);
            if count > 0 {
                turn.record(&Io { direction, count, bytes: 0, slat: Duration::ZERO, clat, depth: count });
            }
        }
        *self.effort.lock() = effort;
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
        if turn.job.ioengine == IoEngine::SerialStd {
            return self.collect_serially(turn);
        }
        self.opened.runtime.block_on(self.collect(turn))
    }

    fn engine(&self) -> Option<Engine> {
        Some(self.opened.engine.clone())
    }

    fn found(&self) -> bool {
        self.found
    }

    fn tell(&self, told: &mut Told) {
        let effort = *self.effort.lock();
        let method = match (self.ground.job.ioengine, self.ground.job.gc_method) {
            (IoEngine::SerialStd, _) => "original",
            (_, GcMethod::Memory) => "memory",
            (_, GcMethod::AccessTime) => "atime",
        };
        let mut told_of = json!({
            "method": method,
            "live_chunks": effort.live,
            "removed_chunks": effort.removed,
            "inodes_asked": effort.asked,
            "inodes_asked_for_mean_size": effort.asked_for_size,
            "access_times_written": effort.touched,
            "inode_operations_per_live_chunk": per_live(&effort),
            "set_bytes": effort.set_bytes,
            "directories_read": effort.directories_read,
            "directories_unchanged": effort.directories_unchanged,
        });
        if let Some(serial) = effort.serial {
            told_of["directories_swept"] = json!(serial.directories);
            told_of["directories_read"] = json!(serial.directories);
            told_of["marked_in_ms"] = json!(millis(serial.marked_in));
            told_of["swept_in_ms"] = json!(millis(serial.swept_in));
        }
        told.map.insert("gc".into(), told_of);
    }
}

/// Questions and access times for each live chunk, to two places, those for the mean size apart: what was removed has had its question.
#[expect(clippy::cast_precision_loss, reason = "a figure to be read")]
fn per_live(effort: &Effort) -> f64 {
    let operations = (effort.asked + effort.touched).saturating_sub(effort.removed);
    (operations as f64 * 100.0 / effort.live.max(1) as f64).round() / 100.0
}
