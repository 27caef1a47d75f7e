//! Phase 1: every index file is read once, and what it names is live.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};

use tokio::task::JoinSet;

use super::report::Marked;
use crate::engine::Class;
use crate::error::{Error, Result};
use crate::store::{Datastore, Freshness, GcMethod as Method, IndexFile, MissingReason, Pass};
use crate::task::Task;
use crate::types::Digest;

/// Directories that are listed at a time: enough to keep a network busy, half of the pool so that backups are served in between.
const DIRS_IN_FLIGHT: usize = 8;

/// Index files that are read at a time. Each is read in order and in blocks of 1 MiB, so even a disk that seeks loses little; and many small
/// ones do not wait for one another's round trips.
const INDEXES_IN_FLIGHT: usize = 4;

/// Missing chunks that are named one by one; more are no list that anybody reads. They still count as one more warning.
const MISSING_NAMED_MAX: u64 = 1000;

/// Answers about missing chunks that are remembered, so that each is asked for once; 40 bytes each.
const REMEMBERED_MAX: usize = 1 << 20;

/// What one index file said.
struct Read {
    file: IndexFile,
    bytes: u64,
    touches: u64,
    sound: bool,
}

/// Marks what all index files name. Adds to `marked`; returns the files, newest snapshots first.
pub(super) async fn mark(pass: &Pass, method: Method, task: &Task, marked: &mut Marked) -> Result<Vec<IndexFile>> {
    let first_pass = marked.passes == 0;
    marked.passes += 1;
    let mut files = walk(pass).await?;
    read_all(pass, &files, method, first_pass.then_some(task), marked, first_pass).await?;
    // Indexes that this daemon writes meanwhile tell the pass themselves what they name. Those that somebody moves or copies behind its back
    // do not, so the tree is walked once more for what was not there before.
    let known: HashSet<&Path> = files.iter().map(|file| file.path.as_path()).collect();
    let again = walk(pass).await?;
    let new: Vec<IndexFile> = again.into_iter().filter(|file| !known.contains(file.path.as_path())).collect();
    read_all(pass, &new, method, None, marked, first_pass).await?;
    files.extend(new);
    marked.chunks += pass.live().0;
    Ok(files)
}

/// All index files, in the descending order of their paths: within a group the newest snapshot comes first, which is the one that a
/// backup builds on (spec 07 §1.3).
async fn walk(pass: &Pass) -> Result<Vec<IndexFile>> {
    let mut found = Vec::new();
    let mut left: Vec<Option<PathBuf>> = vec![None];
    let mut running = JoinSet::new();
    loop {
        while running.len() < DIRS_IN_FLIGHT
            && let Some(dir) = left.pop()
        {
            let pass = pass.clone();
            running.spawn(async move { pass.list_indexes(dir).await });
        }
        let Some(listed) = running.join_next().await else { break };
        let (files, dirs) = listed.map_err(cut_off)??;
        found.extend(files);
        left.extend(dirs.into_iter().map(Some));
    }
    found.sort_unstable_by(|a, b| b.path.cmp(&a.path));
    Ok(found)
}

/// Reads index files; with `told`, says how far that is.
async fn read_all(
    pass: &Pass,
    files: &[IndexFile],
    method: Method,
    told: Option<&Task>,
    marked: &mut Marked,
    counted: bool,
) -> Result<()> {
    let mut left = files.iter();
    let mut running = JoinSet::new();
    let (mut done, mut percentage) = (0, 0);
    loop {
        while running.len() < INDEXES_IN_FLIGHT
            && let Some(file) = left.next()
        {
            let (pass, file) = (pass.clone(), file.clone());
            running.spawn(async move { read(&pass, file, method).await });
        }
        let Some(read) = running.join_next().await else { return Ok(()) };
        if let Some(read) = read.map_err(cut_off)?? {
            marked.touches += read.touches;
            if counted {
                marked.files += 1;
                marked.bytes += read.bytes;
            }
            if let (Some(task), false) = (told, read.sound) {
                let path = read.file.path.display();
                task.log(format!("the checksum of '{path}' is not that of its entries: verify its snapshot"));
            }
        }
        marked.memory_bytes = marked.memory_bytes.max(pass.live().1);
        done += 1;
        let now = done * 100 / files.len();
        if let Some(task) = told.filter(|_| now != percentage) {
            task.log(format!("marked {now}% ({done} of {} index files)", files.len()));
        }
        percentage = now;
    }
}

/// Marks what one index names; `None` if it is gone.
async fn read(pass: &Pass, file: IndexFile, method: Method) -> Result<Option<Read>> {
    let Some(index) = pass.open_index(&file).await? else { return Ok(None) };
    let mut scan = index.scan();
    let mut touches = 0;
    while let Some(block) = pass.next_block(&file, &mut scan).await? {
        let new = pass.mark(block).await?;
        if method == Method::AccessTime {
            touches += count(new.len());
            pass.touch(&new).await?;
        }
    }
    let sound = scan.csum().is_none_or(|csum| csum == index.stored_csum());
    Ok(Some(Read { file, bytes: index.size_bytes(), touches, sound }))
}

/// Looks up who names the chunks that no directory had: reads the index files once more, and asks for each such chunk whether it is
/// really not there. A warning for each time that one is named, as the original counts.
pub(super) async fn name_missing(pass: &Pass, store: &Datastore, files: &[IndexFile], task: &Task) -> Result<()> {
    let mut absent: HashMap<Digest, bool> = HashMap::new();
    let mut named: u64 = 0;
    // Oldest snapshots first.
    for file in files.iter().rev() {
        let Some(index) = pass.open_index(file).await? else { continue };
        let mut scan = index.scan();
        while let Some(block) = pass.next_block(file, &mut scan).await? {
            if absent.len() > REMEMBERED_MAX {
                absent.clear();
            }
            let unmet = pass.unmet(block).await?;
            let mut asked: Vec<Digest> = unmet.iter().copied().filter(|digest| !absent.contains_key(digest)).collect();
            asked.sort_unstable();
            asked.dedup();
            let report = store.check_chunks(asked.clone(), Class::Background, Freshness::Server).await?;
            pass.go_on()?;
            absent.extend(asked.into_iter().map(|digest| (digest, false)));
            for (digest, reason) in report.missing {
                absent.insert(digest, reason == MissingReason::Absent);
            }
            for digest in unmet.iter().filter(|digest| absent[*digest]) {
                named += 1;
                if named <= MISSING_NAMED_MAX {
                    let path = &file.path;
                    task.warn(format!("warning: unable to access non-existent chunk {digest}, required by {path:?}"));
                }
            }
        }
    }
    if named > MISSING_NAMED_MAX {
        let more = named - MISSING_NAMED_MAX;
        task.warn(format!("missing chunks are named {more} times more; verify the snapshots above and all newer ones"));
    }
    Ok(())
}

pub(super) fn cut_off(e: tokio::task::JoinError) -> Error {
    Error::io("a piece of garbage collection ended early", io::Error::other(e))
}

pub(super) fn count(items: usize) -> u64 {
    u64::try_from(items).unwrap_or(u64::MAX)
}
