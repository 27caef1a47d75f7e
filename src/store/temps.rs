//! The record of temporary files, so that what a crash leaves is found without a search.
//!
//! A temporary file lies next to its final place, which for a chunk is one of 65,536 directories: to look through these takes minutes on
//! a slow disk. So before such a file is made, its path is written into a slot of one small file, and at the next start the slots of
//! a record that nobody holds any more are the list of what to remove. That costs one small write into the page cache per file and one
//! read of a few kilobytes at start. The record need not be durable: after a power cut it may name too few files, which cost space until
//! a garbage collection meets them, and never too many, since a name is only removed if it is that of a temporary file.
//!
//! The record is `BASE/.ringvault-temps-XXXXXX`, made with the first temporary file and removed when the datastore is closed. Its flock
//! says that its writer lives, on whatever host. A slot is 1 KiB: a little-endian `u16` with the length, then the path below the base
//! directory. A slot that is free is not cleared: its file has a random name and is gone.

use std::collections::BTreeSet;
use std::fmt;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, OnceLock};

use super::layout::{CHUNKS_DIR, GC_STATUS_FILE, NAMESPACE_DIR, is_own_state, is_temp_name, random_suffix};
use crate::engine::{Disk, DiskFile, Engine, LockMode};
use crate::sync::Mutex;
use crate::types::BackupType;

/// What the names of records begin with.
pub const RECORD_PREFIX: &str = ".ringvault-temps-";

/// Longer than any path of a datastore: 277 for a namespace, 5 for the type, 256 for the id, 21 for the time and 255 for the file.
const SLOT_BYTES: u64 = 1024;

/// Slots that are read at start: as many as a daemon with its bounds on sessions and writers can have in use.
const SLOTS_MAX: u64 = 65_536;

/// The record of one open datastore.
pub(super) struct Temps {
    base: PathBuf,
    record: OnceLock<Option<Record>>,
    slots: Mutex<Slots>,
    engine: Engine,
}

struct Record {
    file: DiskFile,
    path: PathBuf,
}

#[derive(Debug, Default)]
struct Slots {
    /// Below `next` and not in use; the lowest is used first, so the record stays as short as the work in flight.
    free: BTreeSet<u64>,
    next: u64,
}

/// A temporary file that is on record; dropped when its name is gone.
#[derive(Debug)]
pub(super) struct TempNote {
    temps: Arc<Temps>,
    slot: u64,
    keep: bool,
}

impl Temps {
    /// The record of the datastore at `base`; nothing is written yet.
    pub(super) fn new(base: &Path, engine: Engine) -> Self {
        Self { base: base.to_owned(), record: OnceLock::new(), slots: Mutex::default(), engine }
    }

    /// Puts a temporary file on record, before it is made. A record that cannot be written is no reason to refuse a backup: that is
    /// logged once, and a crash may then leave files behind.
    pub(super) fn note(self: &Arc<Self>, disk: &Disk, temp: &Path) -> TempNote {
        let slot = {
            let mut slots = self.slots.lock();
            slots.free.pop_first().unwrap_or_else(|| {
                slots.next += 1;
                slots.next - 1
            })
        };
        let note = TempNote { temps: Arc::clone(self), slot, keep: false };
        let record = self.record.get_or_init(|| match create_record(disk, &self.base) {
            Ok(record) => Some(record),
            Err(e) => {
                tracing::warn!(base = ?self.base, error = %e, "no record of temporary files: a crash may leave some behind");
                None
            }
        });
        if let (Some(record), Some(bytes)) = (record, encode_slot(&self.base, temp))
            && let Err(e) = record.file.write_all_at(&bytes, slot * SLOT_BYTES)
        {
            tracing::debug!(?temp, error = %e, "temporary file is not on record");
        }
        note
    }
}

impl TempNote {
    /// Leaves the file on record for good: it could not be removed.
    pub(super) fn keep(mut self) {
        self.keep = true;
    }
}

impl Drop for TempNote {
    fn drop(&mut self) {
        if !self.keep {
            self.temps.slots.lock().free.insert(self.slot);
        }
    }
}

impl Drop for Temps {
    fn drop(&mut self) {
        if let Some(Some(record)) = self.record.take() {
            self.engine.detach(move |disk| {
                // Still locked here, so no other process takes it for a dead one's.
                let _ = disk.unlink(&record.path);
                drop(record.file);
            });
        }
    }
}

impl fmt::Debug for Temps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Temps").field("base", &self.base).field("slots", &self.slots).finish_non_exhaustive()
    }
}

fn create_record(disk: &Disk, base: &Path) -> io::Result<Record> {
    let path = base.join(format!("{RECORD_PREFIX}{}", random_suffix()?));
    let file = disk.create_new(&path, 0o600)?;
    match file.try_flock(LockMode::Exclusive) {
        Ok(()) => Ok(Record { file, path }),
        Err(e) => {
            let _ = disk.unlink(&path);
            Err(e)
        }
    }
}

fn encode_slot(base: &Path, temp: &Path) -> Option<Vec<u8>> {
    let text = temp.strip_prefix(base).ok()?.to_str()?;
    let length = u16::try_from(text.len()).ok().filter(|n| u64::from(*n) + 2 <= SLOT_BYTES)?;
    let mut bytes = length.to_le_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    Some(bytes)
}

/// The paths that a record names, as far as they can be those of temporary files in a datastore.
fn decode_slots(record: &[u8]) -> BTreeSet<PathBuf> {
    let slot_bytes = usize::try_from(SLOT_BYTES).expect("1024");
    let path_of = |slot: &[u8]| {
        let (length, rest) = slot.split_first_chunk()?;
        let text = std::str::from_utf8(rest.get(..usize::from(u16::from_le_bytes(*length)))?).ok()?;
        is_temp_path(Path::new(text)).then(|| PathBuf::from(text))
    };
    record.chunks(slot_bytes).filter_map(path_of).collect()
}

fn is_temp_path(path: &Path) -> bool {
    let plain = path.components().all(|c| matches!(c, Component::Normal(_)));
    let name = path.file_name().and_then(|n| n.to_str()).is_some_and(is_temp_name);
    let top = path.components().next().and_then(|c| c.as_os_str().to_str());
    let status = |t: &str| t.rsplit_once(".tmp_").is_some_and(|(name, _)| name == GC_STATUS_FILE || is_own_state(name));
    let top =
        top.is_some_and(|t| t == CHUNKS_DIR || t == NAMESPACE_DIR || t.parse::<BackupType>().is_ok() || status(t));
    plain && name && top
}

/// Removes what crashed runs left: the files on every record below `base` whose writer is gone, then the record. A file in a snapshot that
/// somebody has locked stays, for he may have made a new snapshot of that name. Returns how many files were removed.
pub(super) fn recover(disk: &Disk, base: &Path) -> io::Result<usize> {
    let mut removed = 0;
    for entry in disk.read_dir(base)? {
        if entry.name.starts_with(RECORD_PREFIX) {
            match recover_record(disk, base, &base.join(&entry.name)) {
                Ok(count) => removed += count,
                // Of another daemon that runs, or of one that was faster than we are.
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::NotFound) => {}
                Err(e) => tracing::warn!(record = entry.name, error = %e, "unable to clean up after a crash"),
            }
        }
    }
    Ok(removed)
}

fn recover_record(disk: &Disk, base: &Path, record: &Path) -> io::Result<usize> {
    let file = disk.open_rw(record)?;
    file.try_flock(LockMode::Exclusive)?;
    let mut removed = 0;
    for path in decode_slots(&file.read_all(SLOTS_MAX * SLOT_BYTES)?) {
        match remove_temp(disk, base, &path) {
            Ok(()) => removed += 1,
            Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::WouldBlock) => {}
            Err(e) => tracing::warn!(?path, error = %e, "unable to remove a temporary file of a crashed run"),
        }
    }
    disk.unlink(record)?;
    Ok(removed)
}

fn remove_temp(disk: &Disk, base: &Path, path: &Path) -> io::Result<()> {
    let full = base.join(path);
    let lock = match (path.starts_with(CHUNKS_DIR), full.parent()) {
        (false, Some(dir)) => {
            let dir = disk.open_dir(dir)?;
            dir.try_flock(LockMode::Exclusive)?;
            Some(dir)
        }
        _ => None,
    };
    let removed = disk.unlink(&full);
    drop(lock);
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineConfig;

    #[test]
    fn slots_name_temporary_files_and_nothing_else() {
        let base = Path::new("/d");
        let mut record = Vec::new();
        let good = [
            ".chunks/bb9f/bb9f.tmp_AbC123",
            "vm/100/2024-06-05T14:23:38Z/x.img.tmp_fidx",
            "ns/a/host/x/2024/y.tmp_didx",
            ".gc-status.tmp_AbC123",
            ".ringvault-gc-progress.tmp_AbC123",
            ".ringvault-gc-names.tmp_AbC123",
        ];
        for path in good.into_iter().chain([
            "vm/100/2024-06-05T14:23:38Z/x.img.fidx",
            "../x/y.tmp_AbC123",
            "vm/../../y.tmp_AbC123",
            "etc/y.tmp_AbC123",
            ".lock.tmp_AbC123",
            "vm/100/owner",
            "",
        ]) {
            let mut slot = encode_slot(base, &base.join(path)).unwrap_or_default();
            slot.resize(1024, 0);
            record.extend(slot);
        }
        record.extend([0xff; 700]);
        assert_eq!(decode_slots(&record), good.iter().map(PathBuf::from).collect());
        assert!(encode_slot(base, &base.join("x".repeat(1023))).is_none(), "does not fit");
    }

    #[tokio::test]
    async fn a_dead_record_is_worked_off_and_a_living_one_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path();
        let disk = Disk::real();
        std::fs::create_dir_all(base.join(".chunks/bb9f")).unwrap();
        let engine = Engine::start("t", &EngineConfig::default()).unwrap();
        let temps = Arc::new(Temps::new(base, engine));
        let temp = base.join(".chunks/bb9f/bb9f.tmp_AbC123");
        let note = temps.note(&disk, &temp);
        disk.create_new(&temp, 0o600).unwrap();
        assert_eq!(recover(&disk, base).unwrap(), 0, "its writer lives");
        // A copy of the record stands for that of a process that was killed: nobody holds its lock.
        let record = disk.read_dir(base).unwrap().into_iter().find(|e| e.name.starts_with(RECORD_PREFIX)).unwrap();
        std::fs::copy(base.join(&record.name), base.join(".ringvault-temps-killed")).unwrap();
        assert_eq!(recover(&disk, base).unwrap(), 1);
        assert!(!temp.exists() && !base.join(".ringvault-temps-killed").exists() && base.join(&record.name).exists());
        drop(note);
        assert_eq!(temps.slots.lock().free.len(), 1);
    }
}
