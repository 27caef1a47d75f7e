//! Making a datastore, and looking at one that is to be opened or adopted.
//!
//! The modes are those of spec 01 §1.2, so that a server of the original kind can take the directory over and the reverse. Adoption
//! ([`verify`]) asks for exactly these, of every directory. A start ([`check_top`]) looks at four objects only, for 65,536 directories take
//! minutes on a slow disk, and refuses what cannot work or lets strangers write. A chunk directory that is missing is made when a chunk wants
//! to go there, one with wrong modes names itself then.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::explain::failed;
use super::layout::{CHUNK_DIR_COUNT, Layout, chunk_dir_name};
use super::process_lock::LOCK_FILE_MODE;
use crate::engine::{Disk, DiskFile, Engine, FileKind, FileMeta, LockMode};
use crate::error::{Error, Result, TASK_ABORTED};

/// Mode of `.chunks` and of the directories in it.
pub(super) const CHUNK_DIR_MODE: u32 = 0o750;

/// Mode of the base directory.
const BASE_MODE: u32 = 0o755;

/// Chunk directories per piece of work: some milliseconds on a disk, so that nobody waits long behind it.
const STEP: u32 = 1024;

/// Name of the file that stands in the base directory from a creation's second step to its last: what is there beside it is unfinished, and
/// ours. Locked while a creation is under way.
const MARKER: &str = ".ringvault-creating";

/// Mode of that file.
const MARKER_MODE: u32 = 0o600;

/// What ext4 has in the root of a file system.
const LOST_AND_FOUND: &str = "lost+found";

/// A creation that has begun, and holds the marker's lock.
#[derive(Debug)]
struct Begun {
    made_base: bool,
    marker: DiskFile,
}

/// Makes a datastore, or completes one whose creation was cut off. `is_stopped` is asked between two steps; then what was made goes again.
pub(super) async fn create(
    path: &Path,
    owner: Option<(u32, u32)>,
    engine: &Engine,
    is_stopped: impl Fn() -> bool,
) -> Result<()> {
    create_dirs(path, owner, engine, is_stopped, CHUNK_DIR_COUNT).await
}

/// As [`create`], with as many chunk directories as a test wants.
async fn create_dirs(
    path: &Path,
    owner: Option<(u32, u32)>,
    engine: &Engine,
    is_stopped: impl Fn() -> bool,
    count: u32,
) -> Result<()> {
    let layout = Layout::new(path);
    let begun = engine.run({
        let layout = layout.clone();
        move |disk| begin(disk, &layout, owner)
    });
    let Begun { made_base, marker } = begun.await??;
    let made = make_all_chunk_dirs(&layout, owner, engine, is_stopped, count).await;
    if made.is_err() {
        undo(&layout, made_base, marker, engine).await?;
        return made;
    }
    engine.run(move |disk| finish(disk, &layout, marker)).await?
}

async fn make_all_chunk_dirs(
    layout: &Layout,
    owner: Option<(u32, u32)>,
    engine: &Engine,
    is_stopped: impl Fn() -> bool,
    count: u32,
) -> Result<()> {
    for first in (0..count).step_by(STEP as usize) {
        if is_stopped() {
            return Err(Error::closed(TASK_ABORTED));
        }
        let (chunks, last) = (layout.chunks(), (first + STEP).min(count));
        engine.run(move |disk| make_chunk_dirs(disk, &chunks, first..last, owner)).await??;
    }
    if is_stopped() { Err(Error::closed(TASK_ABORTED)) } else { Ok(()) }
}

/// A directory of exactly this mode and owner, or none.
fn make_dir(disk: &Disk, path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    disk.mkdir(path, mode)?;
    let set = disk.chmod(path, mode).and_then(|()| give(disk, path, owner));
    set.inspect_err(|_| drop(disk.rmdir(path)))
}

/// The same where an earlier try may have left one, whose mode and owner it may not have come to.
fn make_or_set_dir(disk: &Disk, path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    match make_dir(disk, path, mode, owner) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists && disk.lstat(path)?.kind == FileKind::Dir => {
            disk.chmod(path, mode).and_then(|()| give(disk, path, owner))
        }
        made => made,
    }
}

/// Base directory, marker, `.chunks`, `.lock`.
fn begin(disk: &Disk, layout: &Layout, owner: Option<(u32, u32)>) -> Result<Begun> {
    let base = layout.base();
    let made_base = match make_dir(disk, base, BASE_MODE, owner) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(failed("unable to create datastore", base, e)),
    };
    let marker = mark(disk, layout, made_base).inspect_err(|_| {
        if made_base {
            drop(disk.rmdir(base));
        }
    })?;
    match make_top(disk, layout, owner) {
        Ok(()) => Ok(Begun { made_base, marker }),
        Err(e) => {
            remove_top(disk, layout, made_base);
            drop(marker);
            Err(failed("unable to create datastore", base, e))
        }
    }
}

/// Takes the base directory for a creation: a new or empty one, or what a creation that was cut off has left.
fn mark(disk: &Disk, layout: &Layout, made_base: bool) -> Result<DiskFile> {
    let (base, marker) = (layout.base(), layout.base().join(MARKER));
    let wrong = |e| failed("unable to create datastore", base, e);
    let refused = |text: String| Err(Error::invalid(format!("unable to create datastore in {base:?} - {text}")));
    let names = if made_base { Vec::new() } else { disk.read_dir_all(base).map_err(wrong)? };
    let is_resumed = names.iter().any(|(name, kind)| name == MARKER && *kind == FileKind::File);
    if !is_resumed {
        return match names.iter().map(|(name, _)| name).find(|name| *name != LOST_AND_FOUND) {
            // Says more than that the directory is not empty.
            Some(_) if names.iter().any(|(name, _)| layout.chunks().ends_with(name)) => {
                refused(format!("there is one already, {:?} exists", layout.chunks()))
            }
            Some(name) => refused(format!("it holds {name:?}: give a new or empty directory")),
            None => {
                let file = disk.create_new(&marker, MARKER_MODE).map_err(wrong)?;
                match file.try_flock(LockMode::Exclusive) {
                    Ok(()) => Ok(file),
                    Err(e) => {
                        drop(disk.unlink(&marker));
                        Err(wrong(e))
                    }
                }
            }
        };
    }
    let busy = || Err(Error::busy(format!("{base:?} is being made by another command: try again when it has ended")));
    let file = disk.open_rw(&marker).map_err(wrong)?;
    match file.try_flock(LockMode::Exclusive) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return busy(),
        Err(e) => return Err(wrong(e)),
    }
    // Whoever held it may have come to the end since we opened it.
    match disk.lstat(&marker) {
        Ok(named) if file.meta().map_err(wrong)?.ino == named.ino => {}
        Ok(_) => return busy(),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return busy(),
        Err(e) => return Err(wrong(e)),
    }
    match stranger(disk, layout).map_err(wrong)? {
        Some(path) => {
            refused(format!("its creation was cut off, and {path:?} is not of it: give a new or empty directory"))
        }
        None => Ok(file),
    }
}

/// The first object in a datastore under construction that a creation does not make. One look at each chunk directory.
fn stranger(disk: &Disk, layout: &Layout) -> io::Result<Option<PathBuf>> {
    let (base, chunks, lock) = (layout.base(), layout.chunks(), layout.lock_file());
    let mut has_chunks = false;
    for (name, kind) in disk.read_dir_all(base)? {
        let path = base.join(&name);
        let is_ours = match kind {
            FileKind::Dir if path == chunks => {
                has_chunks = true;
                true
            }
            FileKind::File => name == MARKER || path == lock,
            _ => name == LOST_AND_FOUND,
        };
        if !is_ours {
            return Ok(Some(path));
        }
    }
    for (name, kind) in if has_chunks { disk.read_dir_all(&chunks)? } else { Vec::new() } {
        let path = chunks.join(&name);
        let is_prefix = name.to_str().is_some_and(|name| {
            name.len() == 4 && name.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        });
        if !is_prefix || kind != FileKind::Dir {
            return Ok(Some(path));
        }
        if let Some((name, _)) = disk.read_dir_all(&path)?.into_iter().next() {
            return Ok(Some(path.join(name)));
        }
    }
    Ok(None)
}

fn make_top(disk: &Disk, layout: &Layout, owner: Option<(u32, u32)>) -> io::Result<()> {
    let lock = layout.lock_file();
    make_or_set_dir(disk, &layout.chunks(), CHUNK_DIR_MODE, owner)?;
    disk.chmod(layout.base(), BASE_MODE)?;
    give(disk, layout.base(), owner)?;
    let file = match disk.create_new(&lock, LOCK_FILE_MODE) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => disk.open_rw(&lock)?,
        made => made?,
    };
    file.chmod(LOCK_FILE_MODE)?;
    give(disk, &lock, owner)
}

fn give(disk: &Disk, path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    owner.map_or(Ok(()), |(uid, gid)| disk.chown(path, uid, gid))
}

fn make_chunk_dirs(disk: &Disk, chunks: &Path, prefixes: Range<u32>, owner: Option<(u32, u32)>) -> Result<()> {
    for prefix in prefixes.filter_map(|n| u16::try_from(n).ok()) {
        let dir = chunks.join(chunk_dir_name(prefix));
        make_or_set_dir(disk, &dir, CHUNK_DIR_MODE, owner)
            .map_err(|e| failed("unable to create chunk directory", &dir, e))?;
    }
    Ok(())
}

/// The last step: all of it is on the disk before the marker goes.
fn finish(disk: &Disk, layout: &Layout, marker: DiskFile) -> Result<()> {
    let (base, path) = (layout.base(), layout.base().join(MARKER));
    let done = disk.syncfs(base).and_then(|()| disk.unlink(&path)).and_then(|()| disk.fsync_dir(base));
    drop(marker);
    done.map_err(|e| failed("unable to finish the creation of datastore", base, e))
}

/// Removes what a creation made, a step at a time; what was there before stays, and so does whatever has come into it since.
async fn undo(layout: &Layout, made_base: bool, marker: DiskFile, engine: &Engine) -> Result<()> {
    let chunks = layout.chunks();
    let listed = engine.run({
        let chunks = chunks.clone();
        move |disk| disk.read_dir_all(&chunks)
    });
    let names: Vec<PathBuf> =
        listed.await?.unwrap_or_default().into_iter().map(|(name, _)| chunks.join(name)).collect();
    for step in names.chunks(STEP as usize) {
        let step = step.to_vec();
        // One that stays keeps `.chunks`, and that is told below.
        engine.run(move |disk| step.iter().for_each(|dir| drop(disk.rmdir(dir)))).await?;
    }
    let layout = layout.clone();
    engine
        .run(move |disk| {
            remove_top(disk, &layout, made_base);
            drop(marker);
        })
        .await
}

/// The reverse of [`begin`]: the marker goes when nothing is left that it stands for.
fn remove_top(disk: &Disk, layout: &Layout, made_base: bool) {
    let gone = |removed: io::Result<()>| match removed {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    };
    let removed = gone(disk.rmdir(&layout.chunks()))
        .and_then(|()| gone(disk.unlink(&layout.lock_file())))
        .and_then(|()| gone(disk.unlink(&layout.base().join(MARKER))))
        .and_then(|()| if made_base { disk.rmdir(layout.base()) } else { Ok(()) });
    if let Err(e) = removed {
        let base = layout.base();
        tracing::warn!(?base, error = %e, "a datastore that could not be made leaves something behind: make it again to complete it");
    }
}

/// What an object of a datastore has to be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Demand {
    kind: FileKind,
    mode: u32,
    /// Who has to own it, if that matters.
    owner: Option<(u32, u32)>,
}

/// Says what is wrong with an object, and which command puts it right. Pure.
fn judge(path: &Path, meta: &FileMeta, demand: &Demand, exact: bool) -> Result<()> {
    if meta.kind != demand.kind {
        let what = if demand.kind == FileKind::Dir { "a directory" } else { "a regular file" };
        return Err(Error::invalid(format!("{path:?} is not {what}: this is not a datastore")));
    }
    let mode = demand.mode;
    // Not exact: whatever the owner needs, and nothing that lets others write (or, in .chunks, read).
    let fits = if exact { meta.mode == mode } else { meta.mode & 0o700 == mode & 0o700 && meta.mode & 0o022 == 0 };
    if !fits {
        return Err(Error::invalid(format!(
            "{path:?} has mode {:04o}; put it right with: chmod {mode:04o} {path:?}",
            meta.mode
        )));
    }
    match demand.owner {
        Some((uid, gid)) if (meta.uid, meta.gid) != (uid, gid) => Err(Error::invalid(format!(
            "{path:?} belongs to {}:{}; put it right with: chown {uid}:{gid} {path:?}",
            meta.uid, meta.gid
        ))),
        _ => Ok(()),
    }
}

fn stat(disk: &Disk, path: &Path) -> Result<FileMeta> {
    disk.stat(path).map_err(|e| match e.kind() {
        io::ErrorKind::NotFound => {
            Error::invalid(format!("{path:?} does not exist: this is not a datastore, or its disk is not mounted"))
        }
        _ => failed("unable to stat", path, e),
    })
}

/// Refuses what is not a datastore yet: its directories may be missing, or not be on the disk.
fn check_finished(disk: &Disk, layout: &Layout) -> Result<()> {
    let marker = layout.base().join(MARKER);
    match disk.lstat(&marker) {
        Ok(_) => Err(Error::invalid(format!(
            "{marker:?} exists: the creation of this datastore was cut off, or goes on; complete it with the command that began it, \
            `ringvault datastore create` or `ringvault datastore init`, or remove {:?}",
            layout.base()
        ))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(failed("unable to stat", &marker, e)),
    }
}

/// Looks at base, the creation's marker, `.chunks` and `.lock`, and says who owns new objects: `owner` or, when we run as root (`user` 0),
/// the base's owner. `None` if that is us.
pub(super) fn check_top(
    disk: &Disk,
    layout: &Layout,
    owner: Option<(u32, u32)>,
    user: u32,
    exact: bool,
) -> Result<Option<(u32, u32)>> {
    let base = stat(disk, layout.base())?;
    check_finished(disk, layout)?;
    let owner = owner.unwrap_or((base.uid, base.gid));
    if user != 0 && base.uid != user {
        return Err(Error::invalid(format!(
            "{:?} belongs to user {}, and this daemon runs as user {user}; run it as that user, or: chown -R {user} {:?}",
            layout.base(),
            base.uid,
            layout.base()
        )));
    }
    let demand = |kind, mode| Demand { kind, mode, owner: (user == 0).then_some(owner) };
    judge(layout.base(), &base, &demand(FileKind::Dir, BASE_MODE), exact)?;
    let chunks = layout.chunks();
    judge(&chunks, &stat(disk, &chunks)?, &demand(FileKind::Dir, CHUNK_DIR_MODE), exact)?;
    let lock = layout.lock_file();
    match disk.lstat(&lock) {
        Ok(meta) => judge(&lock, &meta, &demand(FileKind::File, LOCK_FILE_MODE), exact)?,
        // Made when the first backup locks it.
        Err(e) if e.kind() == io::ErrorKind::NotFound && !exact => {}
        Err(e) => return Err(failed("unable to stat", &lock, e)),
    }
    Ok((user == 0 && owner != (0, 0)).then_some(owner))
}

/// Looks at everything that adoption asks for; names the first that is wrong.
pub(super) async fn verify(path: &Path, owner: Option<(u32, u32)>, user: u32, engine: &Engine) -> Result<()> {
    let layout = Layout::new(path);
    let owner = engine.run({
        let layout = layout.clone();
        move |disk| check_top(disk, &layout, owner, user, true)
    });
    let owner = owner.await??;
    for first in (0..CHUNK_DIR_COUNT).step_by(STEP as usize) {
        let chunks = layout.chunks();
        engine.run(move |disk| verify_chunk_dirs(disk, &chunks, first, owner)).await??;
    }
    Ok(())
}

fn verify_chunk_dirs(disk: &Disk, chunks: &Path, first: u32, owner: Option<(u32, u32)>) -> Result<()> {
    let demand = Demand { kind: FileKind::Dir, mode: CHUNK_DIR_MODE, owner };
    for prefix in (first..(first + STEP).min(CHUNK_DIR_COUNT)).filter_map(|n| u16::try_from(n).ok()) {
        let dir: PathBuf = chunks.join(chunk_dir_name(prefix));
        let meta = disk.lstat(&dir).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => {
                let chown = owner.map_or_else(String::new, |(uid, gid)| format!(" && chown {uid}:{gid} {dir:?}"));
                Error::invalid(format!("{dir:?} does not exist; put it right with: mkdir -m 0750 {dir:?}{chown}"))
            }
            _ => failed("unable to stat", &dir, e),
        })?;
        judge(&dir, &meta, &demand, true)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::EpochSecs;
    use crate::engine::{EngineConfig, FileTime};
    use crate::store::test_support::Countdown;

    #[test]
    fn a_directory_with_something_in_it_is_left_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = || std::fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::create_dir(dir.path().join("secrets")).unwrap();
        let layout = Layout::new(dir.path());
        let refusal = || begin(&Disk::real(), &layout, None).unwrap_err().to_string();
        assert!(refusal().contains("it holds \"secrets\": give a new or empty directory"), "{}", refusal());
        assert_eq!((mode(), dir.path().join(".chunks").exists()), (0o700, false));
        std::fs::create_dir(dir.path().join(".chunks")).unwrap();
        assert!(refusal().contains("there is one already"), "{}", refusal());
        std::fs::remove_dir(dir.path().join("secrets")).unwrap();
        std::fs::remove_dir(dir.path().join(".chunks")).unwrap();
        std::fs::create_dir(dir.path().join("lost+found")).unwrap();
        let begun = begin(&Disk::real(), &layout, None).unwrap();
        assert!(!begun.made_base, "the base was there");
        assert_eq!(mode(), 0o755);
        let text = refusal();
        assert!(text.contains("is being made by another command"), "{text}");
    }

    /// Directories of a test's datastore: enough for a first, a last, and one between.
    const DIRS: u32 = 3;

    async fn make(base: &Path, disk: Disk) -> Result<()> {
        let engine = Engine::start_on("test", &EngineConfig::default(), disk).unwrap();
        create_dirs(base, None, &engine, || false, DIRS).await
    }

    /// Everything below `base`, with modes; without what was there before.
    fn tree(base: &Path) -> Vec<(String, u32)> {
        use std::os::unix::fs::PermissionsExt;
        let mut found = Vec::new();
        let mut dirs = vec![base.to_owned()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
                let meta = entry.symlink_metadata().unwrap();
                found.push((
                    entry.strip_prefix(base).unwrap().display().to_string(),
                    meta.permissions().mode() & 0o7777,
                ));
                dirs.extend(meta.is_dir().then_some(entry));
            }
        }
        found.sort();
        found
    }

    #[tokio::test]
    async fn a_creation_that_is_cut_off_anywhere_is_completed_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let whole = dir.path().join("whole");
        let all = Countdown::new(u64::MAX >> 8, libc::EIO, true);
        all.arm();
        make(&whole, Disk::with_fault(all.clone())).await.unwrap();
        let (want, operations) = (tree(&whole), all.count());
        assert_eq!(
            want.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
            [".chunks", ".chunks/0000", ".chunks/0001", ".chunks/0002", ".lock"]
        );
        assert!(operations >= 20, "{operations}");
        for is_there in [false, true] {
            let mut left_something = 0;
            for at in 0..operations {
                let base = dir.path().join(format!("{is_there}-{at}"));
                if is_there {
                    std::fs::create_dir(&base).unwrap();
                }
                let crash = Countdown::new(at, libc::EIO, true);
                crash.arm();
                // A base that is there costs another look, so the last operations may not be reached.
                let cut_off = make(&base, Disk::with_fault(crash)).await.is_err();
                left_something += u32::from(cut_off && base.join(MARKER).exists());
                match make(&base, Disk::real()).await {
                    Ok(()) => assert_eq!(tree(&base), want, "operation {at}"),
                    // All was done but for the word that the marker's absence is on the disk.
                    Err(e) => {
                        assert!(e.to_string().contains("there is one already"), "operation {at}: {e}");
                        assert_eq!(tree(&base), want, "operation {at}");
                    }
                }
            }
            assert!(left_something > 12, "{left_something}");
        }
    }

    #[tokio::test]
    async fn what_a_cut_off_creation_did_not_make_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let base = dir.path().join("new");
        // In the middle of the chunk directories.
        let crash = Countdown::new(15, libc::EIO, true);
        crash.arm();
        make(&base, Disk::with_fault(crash)).await.unwrap_err();
        let before = tree(&base);
        assert!(base.join(".chunks/0000").is_dir() && base.join(MARKER).is_file(), "{before:?}");
        for exact in [false, true] {
            let text = check_top(&Disk::real(), &Layout::new(&base), None, 0, exact).unwrap_err().to_string();
            assert!(text.contains("the creation of this datastore was cut off"), "{text}");
        }
        for name in ["host", "x", ".chunks/x", ".chunks/0000/chunk", ".chunks/FFFF", ".chunks/0001x"] {
            let path = base.join(name);
            std::fs::File::create_new(&path)
                .and_then(|mut file| std::io::Write::write_all(&mut file, b"data"))
                .unwrap();
            let held = tree(&base);
            let text = make(&base, Disk::real()).await.unwrap_err().to_string();
            assert!(text.contains(&format!("{path:?} is not of it")), "{text}");
            assert_eq!(tree(&base), held);
            std::fs::remove_file(&path).unwrap();
        }
        std::os::unix::fs::symlink(dir.path(), base.join(".chunks/0003")).unwrap();
        make(&base, Disk::real()).await.unwrap_err();
        std::fs::remove_file(base.join(".chunks/0003")).unwrap();
        make(&base, Disk::real()).await.unwrap();
        assert!(!base.join(MARKER).exists());
    }

    #[tokio::test]
    async fn a_creation_that_is_stopped_takes_away_what_it_made() {
        let dir = tempfile::tempdir().unwrap();
        let engine = Engine::start("test", &EngineConfig::default()).unwrap();
        for (is_there, steps) in [(false, 0), (false, 1), (false, 2), (true, 2)] {
            let base = dir.path().join("new");
            if is_there {
                std::fs::create_dir(&base).unwrap();
            }
            let asked = std::sync::atomic::AtomicU32::new(0);
            let stop = || asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst) == steps;
            let error = create_dirs(&base, None, &engine, stop, 2 * STEP).await.unwrap_err();
            assert_eq!(error.to_string(), "task aborted");
            assert_eq!(base.exists(), is_there, "{steps}");
            assert!(!is_there || tree(&base).is_empty(), "{:?}", tree(&base));
            assert_eq!(asked.into_inner(), steps + 1, "it goes on after it was asked to stop");
        }
    }

    #[test]
    fn what_is_wrong_is_named_with_its_remedy() {
        let meta = |kind, mode, uid| FileMeta {
            kind,
            size_bytes: 0,
            mode,
            uid,
            gid: uid,
            dev: 1,
            ino: 1,
            nlink: 1,
            mtime: FileTime::default(),
            ctime: FileTime::default(),
            accessed: EpochSecs(0),
        };
        let dir = |mode, owner| Demand { kind: FileKind::Dir, mode, owner };
        let path = Path::new("/d/.chunks");
        for (meta, demand, exact, expected) in [
            (meta(FileKind::Dir, 0o750, 34), dir(0o750, Some((34, 34))), true, ""),
            (meta(FileKind::Dir, 0o700, 34), dir(0o750, None), false, ""),
            (meta(FileKind::Dir, 0o700, 34), dir(0o750, None), true, "chmod 0750 \"/d/.chunks\""),
            (meta(FileKind::Dir, 0o770, 34), dir(0o750, None), false, "has mode 0770"),
            (meta(FileKind::Dir, 0o550, 34), dir(0o750, None), false, "has mode 0550"),
            (meta(FileKind::Dir, 0o750, 33), dir(0o750, Some((34, 34))), false, "chown 34:34 \"/d/.chunks\""),
            (meta(FileKind::File, 0o750, 34), dir(0o750, None), false, "is not a directory"),
        ] {
            let text = judge(path, &meta, &demand, exact).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(
                if expected.is_empty() { text.is_empty() } else { text.contains(expected) },
                "{text:?} {expected:?}"
            );
        }
    }
}
