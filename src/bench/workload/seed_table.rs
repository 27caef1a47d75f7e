//! `--unchanged`: what the checks cost a backup that has nothing to send. An image and a stream are backed up once; then backups with checks,
//! without, and with the original's, in turn.
//!
//! The original's method is played by the bench: the daemon's checks are off, and before each append goes out, and at the end for all chunks,
//! somebody asks for the metadata of the absolute paths, one after another, while that request waits. That is when and how the original asks;
//! the client goes on reading and hashing meanwhile, as it does while it waits for an answer.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::counting::{Counting, Hold};
use super::served::{self, Served};
use super::{Ground, Stage, Told, opened, serial};
use crate::bench::cold;
use crate::bench::turn::Turn;
use crate::engine::{ComputePool, Engine};
use crate::error::{Error, Result};
use crate::store::layout::Layout;
use crate::sync::Mutex;
use crate::types::Digest;

/// Runs of each kind, unless `loops` says more than one.
const RUNS: u64 = 5;

/// Which checks a run has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Checks {
    On,
    Off,
    Original,
}

impl Checks {
    const ALL: [Self; 3] = [Self::On, Self::Off, Self::Original];

    fn name(self) -> &'static str {
        match self {
            Self::On => "checks on",
            Self::Off => "checks off",
            Self::Original => "original's checks",
        }
    }

    fn key(self) -> &'static str {
        match self {
            Self::On => "on",
            Self::Off => "off",
            Self::Original => "original",
        }
    }
}

/// A row of the table: what was backed up, and how long each run took.
#[derive(Debug)]
struct Row {
    what: &'static str,
    took: [Vec<Duration>; 3],
    last: [Ran; 3],
}

/// One backup.
#[derive(Clone, Copy, Debug, Default)]
struct Ran {
    took: Duration,
    chunks: u64,
    /// Questions whether a chunk is there, by whomever.
    checks: u64,
}

/// An image and a stream, and an empty datastore.
pub struct SeedTable {
    ground: Ground,
    sources: [(&'static str, &'static str, PathBuf); 2],
    /// Groups that were there before.
    there: usize,
    compute: ComputePool,
    table: Mutex<Vec<Row>>,
}

impl SeedTable {
    /// Makes the datastore and what is backed up.
    pub fn prepare(ground: &Ground) -> Result<Self> {
        let scratch = ground.scratch()?;
        let work = ground.work()?;
        let path = |name| work.path().join(name);
        let sources = [("image", "disk.img", path("image")), ("directory stream", "tree.stream", path("stream"))];
        let job = &ground.job;
        let what = format!(
            "unchanged 2 size={} randseed={} buffer_compress_percentage={}",
            job.size, job.randseed, job.compress_percentage
        );
        let write_sources = || {
            served::write_image(ground, &sources[0].2, 0)?;
            served::write_archive(ground, &sources[1].2, 1)
        };
        scratch.lay_out(&what, || {
            served::make_store(ground, scratch)?;
            if ground.work.is_none() { write_sources() } else { Ok(()) }
        })?;
        if let Some(work) = &ground.work {
            work.lay_out(&format!("sources of {what}"), write_sources)?;
        }
        // Whether it can be had shows before the first backup. Each run has a daemon, and so an engine, of its own.
        opened::engine(ground)?.shutdown();
        // Those of an earlier run that was told to keep them.
        let there = std::fs::read_dir(scratch.store().join("host")).map_or(0, Iterator::count);
        let compute = ComputePool::named("serial", 1)?;
        Ok(Self { ground: ground.clone(), sources, there, compute, table: Mutex::default() })
    }

    fn runs(&self) -> u64 {
        if self.ground.job.loops > 1 { self.ground.job.loops } else { RUNS }
    }

    /// A backup with a daemon of its own; how long it took from the client's first request to its last answer. `None` if it was stopped.
    fn back_up(&self, turn: &Turn, at: (usize, u64), checks: Checks, counts: bool) -> Result<Option<Ran>> {
        let (source, number) = at;
        let (what, archive, path) = &self.sources[source];
        let served = turn.aside(|| Served::start(&self.ground, served::switches(checks == Checks::On)))?;
        if self.ground.job.cold {
            turn.aside(|| cold::drop_caches([&*self.ground.job.directory]))?;
        }
        let original = Original::new(Layout::new(self.ground.scratch()?.store()), self.compute.clone());
        let observer = match checks {
            _ if counts => Counting::new(turn),
            Checks::Original => Counting::holding(original.hold()),
            _ => Counting::nothing(),
        };
        let (group, spec) =
            (format!("{}-{}", what.replace(' ', "-"), self.there), format!("{archive}:{}", path.display()));
        let run = || -> Result<Option<Ran>> {
            let begun = Instant::now();
            let Some(report) = served.back_up(turn, &group, number, &spec, observer)? else { return Ok(None) };
            let asked = if checks == Checks::Original { original.finish()? } else { 0 };
            let (took, chunks) = (begun.elapsed(), report.chunks_uploaded + report.chunks_reused);
            Ok(Some(Ran { took, chunks, checks: asked + served.engine().counters().statx }))
        };
        let done = if counts { run() } else { turn.aside(run) }?;
        turn.aside(|| drop(served));
        Ok(done)
    }
}

/// The original's checks of one backup.
#[derive(Clone)]
struct Original {
    layout: Layout,
    compute: ComputePool,
    seen: Arc<Mutex<(Vec<Digest>, Option<Error>)>>,
}

impl Original {
    fn new(layout: Layout, compute: ComputePool) -> Self {
        Self { layout, compute, seen: Arc::default() }
    }

    /// Asks for the chunks of an append.
    fn hold(&self) -> Hold {
        let own = self.clone();
        Box::new(move |digests| {
            let (own, digests) = (own.clone(), digests.to_vec());
            Box::pin(async move {
                let (layout, asked) = (own.layout.clone(), digests.clone());
                let checked = own.compute.run(move || serial::check(&layout, &asked)).await;
                let mut seen = own.seen.lock();
                seen.0.extend(digests);
                if let Err(e) = checked.and_then(|checked| checked) {
                    seen.1.get_or_insert(e);
                }
            })
        })
    }

    /// Asks for all of them, each once. How many questions that were, those of the appends included.
    fn finish(&self) -> Result<u64> {
        let (mut digests, error) = std::mem::take(&mut *self.seen.lock());
        if let Some(e) = error {
            return Err(e);
        }
        let appended = digests.len();
        digests.sort_unstable();
        digests.dedup();
        serial::check(&self.layout, &digests)?;
        Ok((appended + digests.len()) as u64)
    }
}

impl Stage for SeedTable {
    fn ios(&self) -> Option<u64> {
        None
    }

    fn round(&self, turn: &Turn, round: u64) -> Result<()> {
        // The runs are the loops.
        if round > 0 {
            return Ok(());
        }
        for source in 0..self.sources.len() {
            if self.back_up(turn, (source, 0), Checks::Off, false)?.is_none() {
                return Ok(());
            }
            let row = Row { what: self.sources[source].0, took: Default::default(), last: Default::default() };
            self.table.lock().push(row);
            let mut number = 0;
            for run in 0..self.runs() {
                // Nobody always comes first.
                let first = usize::try_from(run % 3).expect("below 3");
                for column in (first..3).chain(0..first) {
                    number += 1;
                    let checks = Checks::ALL[column];
                    let done = self.back_up(turn, (source, number), checks, checks == Checks::On)?;
                    let Some(ran) = done else { return Ok(()) };
                    if let Some(row) = self.table.lock().last_mut() {
                        row.took[column].push(ran.took);
                        row.last[column] = ran;
                    }
                }
            }
        }
        Ok(())
    }

    fn engine(&self) -> Option<Engine> {
        None
    }

    fn found(&self) -> bool {
        false
    }

    fn tell(&self, told: &mut Told) {
        let table = self.table.lock();
        told.notes.extend(lines(&table));
        told.map.insert("unchanged".into(), table.iter().map(row_value).collect());
        told.map.insert(
            "unchanged_original".into(),
            json!("checks off; metadata of absolute paths, one after another, before each append and at the end"),
        );
    }
}

/// Mean and standard deviation of a sample, in seconds; the latter is 0 for one run.
#[expect(clippy::cast_precision_loss, reason = "a handful of runs")]
fn spread(took: &[Duration]) -> Option<(f64, f64)> {
    if took.is_empty() {
        return None;
    }
    let count = took.len() as f64;
    let mean = took.iter().map(Duration::as_secs_f64).sum::<f64>() / count;
    let squares: f64 = took.iter().map(|t| (t.as_secs_f64() - mean).powi(2)).sum();
    Some((mean, if took.len() > 1 { (squares / (count - 1.0)).sqrt() } else { 0.0 }))
}

fn lines(table: &[Row]) -> Vec<String> {
    let runs = table.iter().map(|row| row.took[0].len()).max().unwrap_or(0);
    let mut lines = vec![format!("unchanged backups, seconds, mean ± standard deviation of {runs} runs in turn:")];
    let head = Checks::ALL.map(|checks| format!("{:>22}", checks.name()));
    lines.push(format!("{:<18}{}{:>10}{:>10}", "", head.concat(), "on/off", "orig/off"));
    for row in table {
        let cells = row.took.each_ref().map(|took| spread(took));
        let shown = cells.map(|cell| {
            let text = cell.map_or("-".to_owned(), |(mean, deviation)| format!("{mean:.3} ± {deviation:.3}"));
            format!("{text:>22}")
        });
        let ratio = |column: usize| match (cells[column], cells[1]) {
            (Some((mean, _)), Some((off, _))) if off > 0.0 => format!("{:>10.3}", mean / off),
            _ => format!("{:>10}", "-"),
        };
        lines.push(format!("{:<18}{}{}{}", row.what, shown.concat(), ratio(0), ratio(2)));
    }
    lines
}

fn row_value(row: &Row) -> Value {
    let mut value = json!({"what": row.what, "chunks": row.last[0].chunks});
    for ((checks, took), last) in Checks::ALL.into_iter().zip(&row.took).zip(&row.last) {
        let (mean, deviation) = spread(took).unzip();
        let runs: Vec<f64> = took.iter().map(Duration::as_secs_f64).collect();
        value[checks.key()] = json!({"mean_s": mean, "stddev_s": deviation, "runs_s": runs, "checks": last.checks});
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_means_and_deviations() {
        let secs = |list: &[f64]| list.iter().map(|s| Duration::from_secs_f64(*s)).collect::<Vec<_>>();
        let ran = Ran { took: Duration::ZERO, chunks: 9, checks: 18 };
        let table = [Row { what: "image", took: [secs(&[1.0, 1.2]), secs(&[1.0, 1.0]), secs(&[2.0])], last: [ran; 3] }];
        let shown = lines(&table);
        assert_eq!(shown.len(), 3);
        assert!(shown[1].contains("checks on") && shown[1].contains("original's checks"), "{}", shown[1]);
        for part in ["image", "1.100 ± 0.141", "1.000 ± 0.000", "2.000 ± 0.000", "1.100  ", "2.000"] {
            assert!(shown[2].contains(part), "{part}: {}", shown[2]);
        }
        let value = row_value(&table[0]);
        assert_eq!((value["chunks"].as_u64(), value["off"]["mean_s"].as_f64()), (Some(9), Some(1.0)));
        assert_eq!(value["on"]["runs_s"].as_array().unwrap().len(), 2);
    }
}
