//! The file with what was found in the chunk directories: read beside the sweep, and written anew beside it.
//!
//! A directory whose stamp is the one at which it was read holds what it held then. If all of that is live there is nothing to judge in it, so it is not read
//! again. A directory of which anything is in doubt is read: nothing is ever removed on the word of this file, and no error of it is one of the run.
//!
//! Nothing is synced: after a power cut it is another boot, and the file does not count.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::{Collection, Pass, Run};
use crate::engine::{Class, Disk, DiskFile, FileKind, StatBatch, StatName};
use crate::error::Result;
use crate::store::dir_names::{
    BLOCK_HEAD_BYTES, BlockWriter, HEADER_BYTES, Header, KnownDir, block_bytes, block_of, decode_block, is_honest,
};
use crate::store::durable::TempFile;
use crate::store::layout::{GC_NAMES_FILE, chunk_dir_name, random_suffix, temp_name};

/// Inodes of directories in a block of a disk, about: what asking for their stamps costs, in readings of a directory.
const STAMPS_PER_READING: usize = 16;

/// What earlier runs have found, and what is kept for later ones.
#[derive(Debug)]
pub struct DirNames {
    /// The former; moves to where it is read.
    pub known: KnownDirs,
    run: Arc<Run>,
    kept: Option<Kept>,
    /// Why nothing is kept, if anybody is to hear of it.
    trouble: Option<String>,
}

/// What earlier runs have found, in the order of the directories.
#[derive(Debug, Default)]
pub struct KnownDirs {
    file: Option<Arc<DiskFile>>,
    /// Where its next block begins.
    at: u64,
    /// Read and not yet asked for.
    pending: VecDeque<KnownDir>,
    last: Option<u16>,
    /// By the clock of the file system.
    now: i64,
    trouble: Option<String>,
}

/// What is kept for later runs, as it is written.
#[derive(Debug)]
struct Kept {
    temp: Arc<TempFile>,
    end: u64,
    block: BlockWriter,
    now: i64,
}

/// A directory that is as it was, and all of whose chunks are live.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unchanged {
    /// What it holds.
    pub dir: KnownDir,
    /// Live chunks that belong there and are not in it.
    pub unmet: u64,
}

/// What a run begins with.
struct Begun {
    kept: Kept,
    old: Option<DiskFile>,
    passed_over: Option<String>,
}

impl Collection {
    /// Begins to keep what is found in the chunk directories, and opens what was kept before; with `afresh` all of them are read.
    pub async fn dir_names(&self, afresh: bool) -> DirNames {
        let run = Arc::clone(&self.run);
        let mut names = DirNames { known: KnownDirs::default(), run, kept: None, trouble: None };
        let run = Arc::clone(&self.run);
        match self.run.background.run(move |disk| begin(disk, &run, afresh)).await {
            Ok(Ok(Begun { kept, old, passed_over })) => {
                names.known = KnownDirs {
                    file: old.map(Arc::new),
                    at: HEADER_BYTES as u64,
                    now: kept.now,
                    trouble: passed_over
                        .map(|why| format!("all directories are read: {GC_NAMES_FILE} is passed over: {why}")),
                    ..KnownDirs::default()
                };
                names.kept = Some(kept);
            }
            Ok(Err(e)) => names.give_up(&e),
            // The engine is shut down.
            Err(_) => {}
        }
        names
    }
}

fn begin(disk: &Disk, run: &Run, afresh: bool) -> io::Result<Begun> {
    let base = run.store.layout.base();
    let mount = disk.mount_of(&run.store.checker.chunks_dir())?;
    let path = base.join(temp_name(GC_NAMES_FILE, &random_suffix()?));
    let temp = run.store.durable.create_temp(disk, &path, 0o600)?;
    let begun = || {
        let made = temp.file.meta()?.mtime;
        if !is_honest(&disk.stat(base)?.stamp(), made.secs) {
            return Err(io::Error::other("the times of directories say nothing on this file system"));
        }
        let header = Header::new(&mount, run.store.checker.token, run.place[1].1, made.secs);
        temp.file.write_all_at(&header.encode(), 0)?;
        let (old, passed_over) = if afresh { (None, None) } else { open_old(disk, &base.join(GC_NAMES_FILE), &header) };
        Ok((made.secs, old, passed_over))
    };
    match begun() {
        Ok((now, old, passed_over)) => {
            let kept = Kept { temp: Arc::new(temp), end: HEADER_BYTES as u64, block: BlockWriter::default(), now };
            Ok(Begun { kept, old, passed_over })
        }
        Err(e) => {
            temp.discard(disk);
            Err(e)
        }
    }
}

/// What was kept before if it counts here and now, or else why it does not.
fn open_old(disk: &Disk, path: &std::path::Path, now: &Header) -> (Option<DiskFile>, Option<String>) {
    let mut bytes = [0; HEADER_BYTES];
    let opened = disk.open(path).and_then(|file| {
        file.read_exact_at(&mut bytes, 0)?;
        Ok(file)
    });
    match opened {
        Ok(file) => match now.objection(&bytes) {
            None => (Some(file), None),
            Some(why) => (None, Some(why.to_owned())),
        },
        Err(e) if e.kind() == io::ErrorKind::NotFound => (None, None),
        Err(e) => (None, Some(e.to_string())),
    }
}

impl KnownDirs {
    /// What has to be told about it, once.
    pub fn take_trouble(&mut self) -> Option<String> {
        self.trouble.take()
    }

    /// Whether there may be more.
    fn is_at_end(&self) -> bool {
        self.file.is_none() && self.pending.is_empty()
    }

    /// The next directory if it is one of those before `end`; reads the next block where needed.
    async fn next_before(&mut self, end: u32, run: &Arc<Run>) -> Result<Option<KnownDir>> {
        if self.pending.is_empty()
            && let Some(file) = self.file.clone()
        {
            let (at, after, device) = (self.at, self.last, run.place[1].0);
            let read = run.background.run(move |_| read_block(&file, at, device, after));
            match run.unless_stopped(read).await? {
                Ok(Some((dirs, next))) => {
                    self.last = dirs.last().map(|dir| dir.prefix);
                    (self.pending, self.at) = (dirs.into(), next);
                }
                Ok(None) => self.file = None,
                Err(e) => {
                    self.file = None;
                    let from = self.last.map_or_else(|| "0000".to_owned(), chunk_dir_name);
                    self.trouble = Some(format!("directories behind {from} are read: {GC_NAMES_FILE} is damaged: {e}"));
                }
            }
        }
        Ok(self.pending.pop_front_if(|dir| u32::from(dir.prefix) < end))
    }
}

/// The block at this place and where the next one begins; `None` at the end.
fn read_block(file: &DiskFile, at: u64, device: u64, after: Option<u16>) -> io::Result<Option<(Vec<KnownDir>, u64)>> {
    let damaged = || io::Error::from(io::ErrorKind::InvalidData);
    let mut head = [0; BLOCK_HEAD_BYTES];
    if file.read_at(&mut head, at)? == 0 {
        return Ok(None);
    }
    file.read_exact_at(&mut head, at)?;
    let mut bytes = vec![0; block_bytes(&head).ok_or_else(damaged)?];
    let at = at + BLOCK_HEAD_BYTES as u64;
    file.read_exact_at(&mut bytes, at)?;
    let dirs = decode_block(&head, &bytes, device, after).ok_or_else(damaged)?;
    Ok(Some((dirs, at + bytes.len() as u64)))
}

impl Pass {
    /// Which of the directories `asked`, all of one block and behind those that were asked for before, need not be read: those that are as they were, and hold
    /// nothing that is not live. With `measured`, only those whose chunks' sizes are known, every one.
    pub async fn unchanged(&self, known: &mut KnownDirs, asked: &[u16], measured: bool) -> Result<Vec<Unchanged>> {
        let (Some(last), run) = (asked.last(), &self.shared.run) else { return Ok(Vec::new()) };
        let mut dirs = Vec::new();
        while !known.is_at_end()
            && let Some(dir) = known.next_before(u32::from(*last) + 1, run).await?
        {
            let is_measured = !measured || dir.measured as usize == dir.prints.len();
            if asked.binary_search(&dir.prefix).is_ok() && is_measured && !dir.is_due(known.now) {
                debug_assert_eq!(dir.block(), block_of(*last));
                dirs.push(dir);
            }
        }
        if dirs.is_empty() {
            return Ok(Vec::new());
        }
        let _turn = run.turn(dirs.len().div_ceil(STAMPS_PER_READING), 0).await?;
        let name = |dir: &KnownDir| StatName::new(&chunk_dir_name(dir.prefix)).expect("four digits");
        let batch = StatBatch {
            dir: run.store.checker.chunks_dir(),
            names: dirs.iter().map(name).collect(),
            class: Class::Background,
            force_sync: run.store.network_fs,
            stamps: true,
        };
        let stats = run.unless_stopped(run.engine().stat(batch)).await?.results;
        let same = dirs
            .into_iter()
            .zip(stats)
            .filter(|(dir, stat)| stat.is_ok_and(|stat| stat.kind == FileKind::Dir && stat.stamp == dir.stamp));
        let same: Vec<KnownDir> = same.map(|(dir, _)| dir).collect();
        self.read(move |_, shared| {
            // One directory at a time: uploads wait for this lock.
            let meet = |dir: KnownDir| {
                let unmet = shared.live.lock().meet_all(dir.prefix, &dir.prints)?;
                Some(Unchanged { dir, unmet })
            };
            Ok(same.into_iter().filter_map(meet).collect())
        })
        .await
    }
}

impl DirNames {
    /// The time of the file system when this was begun, if anything is kept: what directories were like that are read from now on may be kept.
    pub fn now(&self) -> Option<i64> {
        self.kept.as_ref().map(|kept| kept.now)
    }

    /// What has to be told, once.
    pub fn take_trouble(&mut self) -> Vec<String> {
        self.known.take_trouble().into_iter().chain(self.trouble.take()).collect()
    }

    /// Keeps what was kept of the directories before `end`, which this run leaves out.
    pub async fn carry_over(&mut self, end: u32) -> Result<()> {
        let run = Arc::clone(&self.run);
        while !self.known.is_at_end()
            && let Some(dir) = self.known.next_before(end, &run).await?
        {
            self.keep(&dir).await;
        }
        Ok(())
    }

    /// Keeps what was found in a directory, behind those that were kept before.
    pub async fn keep(&mut self, dir: &KnownDir) {
        if let Some(block) = self.kept.as_mut().and_then(|kept| kept.block.add(dir)) {
            self.write(block).await;
        }
    }

    async fn write(&mut self, block: Vec<u8>) {
        let Some(kept) = &mut self.kept else { return };
        let (temp, at) = (Arc::clone(&kept.temp), kept.end);
        kept.end += block.len() as u64;
        let written = self.run.background.run(move |_| temp.file.write_all_at(&block, at)).await;
        if let Ok(Err(e)) = written {
            self.give_up(&e);
            self.discard().await;
        }
    }

    fn give_up(&mut self, error: &io::Error) {
        self.trouble = Some(format!(
            "the next run will read all directories that {GC_NAMES_FILE} does not know: what this one finds is not kept: {error}"
        ));
    }

    /// The run is complete: what it has found takes the place of what was kept before.
    pub async fn finish(&mut self) {
        if let Some(block) = self.kept.as_mut().and_then(|kept| kept.block.finish()) {
            self.write(block).await;
        }
        let Some(temp) = self.take_temp() else { return };
        let path: PathBuf = self.run.store.layout.base().join(GC_NAMES_FILE);
        let named = self.run.engine().run(move |disk| {
            let renamed = disk.rename(&temp.path, &path);
            renamed.inspect_err(|_| temp.discard(disk))
        });
        if let Ok(Err(e)) = named.await {
            self.give_up(&e);
        }
    }

    /// The run is not complete: what was kept before stays, and is as right as it was.
    pub async fn discard(&mut self) {
        if let Some(temp) = self.take_temp() {
            let _ = self.run.engine().run(move |disk| temp.discard(disk)).await;
        }
    }

    fn take_temp(&mut self) -> Option<TempFile> {
        Arc::into_inner(self.kept.take()?.temp)
    }
}
