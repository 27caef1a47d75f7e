//! What the jobs of each datastore came to, in figures: one file a datastore, a line a run.
//!
//! ```text
//! tasks/history/STORE.jsonl   {"kind":"gc","upid":"UPID:…","endtime":1717597418,"status":"OK","figures":{"removed-chunks":12,…}}
//! ```
//!
//! Lines are added; when there are twice as many of a kind as are shown, the file is written anew and takes the place of the old one. A line that
//! a crash cut off is skipped. The thread that writes task logs is the only one that reads and changes these files.

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::replace::replace;
use crate::clock::EpochSecs;
use crate::engine::Disk;
use crate::error::{Error, IoContext, Result};
use crate::types::{DatastoreName, Upid};

/// Runs of each kind that are shown: three months of nightly ones.
pub const RUNS_KEPT: usize = 100;

/// Longest status that is kept; the task's log has all of it.
const STATUS_CHARS_MAX: usize = 1000;

/// Longest file that is read: all kinds at twice their number, each line as long as it may become. One that is longer is no work of ours.
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What was done. Kinds have bounds of their own, so that prunes after each backup do not push out the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunKind {
    /// A garbage collection.
    Gc,
    /// A verification of a datastore, a namespace, a group or a snapshot.
    Verify,
    /// The verification of a backup that has just finished.
    VerifyNew,
    /// A prune of a datastore or a namespace.
    Prune,
    /// A prune of one group.
    PruneGroup,
}

/// A run that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What was done.
    pub kind: RunKind,
    /// Its task, which tells when it began and for whom.
    pub upid: String,
    /// When it ended.
    pub endtime: EpochSecs,
    /// `OK`, `WARNINGS: n`, or the error.
    pub status: String,
    /// What it came to, an object of numbers; null if it ended before it knew.
    #[serde(default)]
    pub figures: Value,
}

/// What a running task says of its run.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Draft {
    pub(super) store: DatastoreName,
    pub(super) kind: RunKind,
    pub(super) figures: Value,
}

impl RunKind {
    /// Every kind, by its word.
    pub const WORDS: &[&str] = &["gc", "verify", "verify-new", "prune", "prune-group"];

    /// As in the file and on the wire.
    pub fn word(self) -> &'static str {
        Self::WORDS[self as usize]
    }
}

impl Draft {
    pub(super) fn ended(self, upid: &Upid, endtime: EpochSecs, status: &impl ToString) -> Run {
        let status = status.to_string().chars().take(STATUS_CHARS_MAX).collect();
        Run { kind: self.kind, upid: upid.to_string(), endtime, status, figures: self.figures }
    }
}

pub(super) struct Histories {
    dir: PathBuf,
    disk: Disk,
    known: HashMap<DatastoreName, Known>,
}

/// What is known of a file.
#[derive(Default)]
struct Known {
    lines: HashMap<RunKind, usize>,
    /// Whether its last line was cut off.
    torn: bool,
}

impl Histories {
    pub(super) fn new(dir: PathBuf, disk: Disk) -> Self {
        Self { dir, disk, known: HashMap::new() }
    }

    fn path(&self, store: &DatastoreName) -> PathBuf {
        self.dir.join(file_name(store))
    }

    /// Adds a run. Not durable by itself: after a power cut the last ones may be missing.
    pub(super) fn add(&mut self, store: &DatastoreName, run: &Run) -> Result<()> {
        if !self.known.contains_key(store) {
            let (runs, torn) = self.read(store)?;
            let mut known = Known { torn, ..Known::default() };
            runs.iter().for_each(|run| *known.lines.entry(run.kind).or_default() += 1);
            self.known.insert(store.clone(), known);
        }
        let path = self.path(store);
        match self.disk.mkdir(&self.dir, 0o755) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(Error::io(format!("create directory {:?}", self.dir), e));
            }
            _ => {}
        }
        let known = self.known.entry(store.clone()).or_default();
        let line = format!("{}{}\n", if known.torn { "\n" } else { "" }, as_line(run)?);
        // If the disk takes half of it, the next one begins a line.
        known.torn = true;
        let append = || -> io::Result<()> {
            let file = self.disk.open_or_create(&path, 0o644)?;
            let end = file.meta()?.size_bytes;
            file.write_all_at(line.as_bytes(), end)
        };
        append().io_context(|| format!("write {path:?}"))?;
        known.torn = false;
        let lines = known.lines.entry(run.kind).or_default();
        *lines += 1;
        if *lines >= 2 * RUNS_KEPT { self.shorten(store) } else { Ok(()) }
    }

    /// The last runs of each kind, the one that ended last at the end.
    pub(super) fn list(&self, store: &DatastoreName) -> Result<Vec<Run>> {
        let (mut runs, _) = self.read(store)?;
        let mut count: HashMap<RunKind, usize> = HashMap::new();
        runs.reverse();
        runs.retain(|run| {
            let count = count.entry(run.kind).or_default();
            *count += 1;
            *count <= RUNS_KEPT
        });
        runs.reverse();
        Ok(runs)
    }

    fn shorten(&mut self, store: &DatastoreName) -> Result<()> {
        let runs = self.list(store)?;
        let text = runs.iter().map(|run| Ok(as_line(run)? + "\n")).collect::<Result<String>>()?;
        let replaced = replace(&self.disk, &self.dir, &file_name(store), &text, true);
        let known = self.known.entry(store.clone()).or_default();
        known.lines.clear();
        // Counted from here also if it failed: then it is tried again after as many more.
        runs.iter().for_each(|run| *known.lines.entry(run.kind).or_default() += 1);
        replaced
    }

    /// All lines that can be understood, and whether the last one was cut off.
    fn read(&self, store: &DatastoreName) -> Result<(Vec<Run>, bool)> {
        let path = self.path(store);
        let bytes = match self.disk.read(&path, FILE_BYTES_MAX) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok((Vec::new(), false)),
            read => read.io_context(|| format!("read {path:?}"))?,
        };
        let runs = bytes.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect();
        Ok((runs, bytes.last().is_some_and(|byte| *byte != b'\n')))
    }
}

fn file_name(store: &DatastoreName) -> String {
    format!("{store}.jsonl")
}

fn as_line(run: &Run) -> Result<String> {
    serde_json::to_string(run).map_err(|e| Error::invalid("a run's figures").with_source(e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(kind: RunKind, n: u32) -> Run {
        let upid = format!("UPID:a:00000001:00000001:{n:08X}:66607C8A:verify:main:root@pam:").parse().unwrap();
        let store = "main".parse().unwrap();
        Draft { store, kind, figures: json!({ "n": n }) }.ended(&upid, EpochSecs(i64::from(n)), &"OK")
    }

    fn histories(dir: &tempfile::TempDir) -> Histories {
        Histories::new(dir.path().join("history"), Disk::real())
    }

    #[test]
    fn kinds_are_kept_apart_and_the_file_stays_short() {
        let dir = tempfile::tempdir().unwrap();
        let (mut all, store) = (histories(&dir), "main".parse().unwrap());
        assert_eq!(all.list(&store).unwrap(), []);
        all.add(&store, &run(RunKind::Gc, 0)).unwrap();
        for n in 1..1000 {
            all.add(&store, &run(RunKind::PruneGroup, n)).unwrap();
            if n == 500 {
                // As after a restart.
                all = histories(&dir);
            }
        }
        let kept = all.list(&store).unwrap();
        assert_eq!((kept.len(), &kept[0]), (RUNS_KEPT + 1, &run(RunKind::Gc, 0)));
        assert_eq!(kept.last(), Some(&run(RunKind::PruneGroup, 999)));
        let text = std::fs::read_to_string(all.path(&store)).unwrap();
        assert!(text.lines().count() <= 2 * RUNS_KEPT + 1, "{}", text.lines().count());
        assert_eq!(all.list(&"other".parse().unwrap()).unwrap(), []);
        for (at, kind) in [RunKind::Gc, RunKind::Verify, RunKind::VerifyNew, RunKind::Prune, RunKind::PruneGroup]
            .into_iter()
            .enumerate()
        {
            assert_eq!((kind.word(), json!(kind)), (RunKind::WORDS[at], json!(RunKind::WORDS[at])));
        }
    }

    /// A crash at every byte of a line costs that line and no other.
    #[test]
    fn a_line_that_was_cut_off_is_skipped() {
        let dir = tempfile::tempdir().unwrap();
        let store: DatastoreName = "main".parse().unwrap();
        let path = histories(&dir).path(&store);
        let whole = as_line(&run(RunKind::Gc, 2)).unwrap() + "\n";
        for cut in 0..=whole.len() {
            let _ = std::fs::remove_file(&path);
            let mut died = histories(&dir);
            died.add(&store, &run(RunKind::Gc, 1)).unwrap();
            let file = Disk::real().open_rw(&path).unwrap();
            let end = file.meta().unwrap().size_bytes;
            file.write_all_at(&whole.as_bytes()[..cut], end).unwrap();
            let mut next = histories(&dir);
            next.add(&store, &run(RunKind::Gc, 3)).unwrap();
            let ended: Vec<i64> = next.list(&store).unwrap().iter().map(|run| run.endtime.0).collect();
            let is_whole = cut + 1 >= whole.len();
            assert_eq!(ended, if is_whole { vec![1, 2, 3] } else { vec![1, 3] }, "{cut}");
        }
    }
}
