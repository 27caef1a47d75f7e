//! Making a datastore, and looking at one that is to be opened or adopted.
//!
//! The modes are those of spec 01 §1.2, so that a server of the original kind can take the directory over and the reverse. Adoption
//! ([`verify`]) asks for exactly these, of every directory. A start ([`check_top`]) looks at three objects only, for 65,536 directories take
//! minutes on a slow disk, and refuses what cannot work or lets strangers write. A chunk directory that is missing is made when a chunk wants
//! to go there, one with wrong modes names itself then.

use std::io;
use std::path::{Path, PathBuf};

use super::explain::failed;
use super::layout::{CHUNK_DIR_COUNT, Layout, chunk_dir_name};
use super::process_lock::LOCK_FILE_MODE;
use crate::engine::{Disk, Engine, FileKind, FileMeta};
use crate::error::{Error, Result};

/// Mode of `.chunks` and of the directories in it.
pub(super) const CHUNK_DIR_MODE: u32 = 0o750;

/// Mode of the base directory.
const BASE_MODE: u32 = 0o755;

/// Chunk directories per piece of work: some milliseconds on a disk, so that nobody waits long behind it.
const STEP: u32 = 1024;

/// Makes a datastore.
pub(super) async fn create(path: &Path, owner: Option<(u32, u32)>, engine: &Engine) -> Result<()> {
    let layout = Layout::new(path);
    let made_base = engine.run({
        let layout = layout.clone();
        move |disk| make_top(disk, &layout, owner)
    });
    let made_base = made_base.await??;
    for first in (0..CHUNK_DIR_COUNT).step_by(STEP as usize) {
        let chunks = layout.chunks();
        let made = engine.run(move |disk| make_chunk_dirs(disk, &chunks, first, owner)).await?;
        if let Err(e) = made {
            let layout = layout.clone();
            engine.run(move |disk| undo(disk, &layout, made_base)).await?;
            return Err(e);
        }
    }
    engine.run(move |disk| disk.syncfs(layout.base()).map_err(|e| failed("unable to sync", layout.base(), e))).await?
}

/// A directory of exactly this mode and owner, or none.
fn make_dir(disk: &Disk, path: &Path, mode: u32, owner: Option<(u32, u32)>) -> io::Result<()> {
    disk.mkdir(path, mode)?;
    let set = disk.chmod(path, mode).and_then(|()| give(disk, path, owner));
    set.inspect_err(|_| drop(disk.rmdir(path)))
}

fn make_top(disk: &Disk, layout: &Layout, owner: Option<(u32, u32)>) -> Result<bool> {
    let base = layout.base();
    let made_base = match make_dir(disk, base, BASE_MODE, owner) {
        Ok(()) => true,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => false,
        Err(e) => return Err(failed("unable to create datastore", base, e)),
    };
    let chunks = layout.chunks();
    if !made_base {
        check_empty(disk, base, &chunks)?;
    }
    make_dir(disk, &chunks, CHUNK_DIR_MODE, owner)
        .inspect_err(|_| {
            if made_base {
                drop(disk.rmdir(base))
            }
        })
        .map_err(|e| match e.kind() {
            io::ErrorKind::AlreadyExists => Error::invalid(format!(
                "unable to create datastore in {base:?} - there is one already, {chunks:?} exists"
            )),
            _ => failed("unable to create chunk directory", &chunks, e),
        })?;
    let made = if made_base { Ok(()) } else { disk.chmod(base, BASE_MODE).and_then(|()| give(disk, base, owner)) };
    let lock = layout.lock_file();
    let locked = made.and_then(|()| match disk.create_new(&lock, LOCK_FILE_MODE) {
        Ok(file) => file.chmod(LOCK_FILE_MODE).and_then(|()| give(disk, &lock, owner)),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(e),
    });
    locked.map(|()| made_base).map_err(|e| {
        undo(disk, layout, made_base);
        failed("unable to create datastore", base, e)
    })
}

/// Refuses a directory with somebody else's files in it: its mode and owner would change.
fn check_empty(disk: &Disk, base: &Path, chunks: &Path) -> Result<()> {
    let names = disk.read_dir_all(base).map_err(|e| failed("unable to create datastore", base, e))?;
    let stranger = names.iter().map(|(name, _)| name).find(|name| *name != "lost+found");
    match stranger {
        // Says more than that the directory is not empty.
        Some(_) if names.iter().any(|(name, _)| chunks.ends_with(name)) => Ok(()),
        Some(name) => Err(Error::invalid(format!(
            "unable to create datastore in {base:?} - it holds {name:?}: give a new or empty directory"
        ))),
        None => Ok(()),
    }
}

fn give(disk: &Disk, path: &Path, owner: Option<(u32, u32)>) -> io::Result<()> {
    owner.map_or(Ok(()), |(uid, gid)| disk.chown(path, uid, gid))
}

fn make_chunk_dirs(disk: &Disk, chunks: &Path, first: u32, owner: Option<(u32, u32)>) -> Result<()> {
    for prefix in (first..(first + STEP).min(CHUNK_DIR_COUNT)).filter_map(|n| u16::try_from(n).ok()) {
        let dir = chunks.join(chunk_dir_name(prefix));
        make_dir(disk, &dir, CHUNK_DIR_MODE, owner).map_err(|e| failed("unable to create chunk directory", &dir, e))?;
    }
    Ok(())
}

/// Removes what a failed creation made; what was there before stays.
fn undo(disk: &Disk, layout: &Layout, made_base: bool) {
    let removed = disk.remove_tree(&layout.chunks()).and_then(|()| match disk.unlink(&layout.lock_file()) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ if made_base => disk.rmdir(layout.base()),
        _ => Ok(()),
    });
    if let Err(e) = removed {
        tracing::warn!(base = ?layout.base(), error = %e, "a datastore that could not be made leaves something behind");
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

/// Looks at base, `.chunks` and `.lock`, and says who owns new objects: `owner` or, when we run as root (`user` 0), the base's owner.
/// `None` if that is us.
pub(super) fn check_top(
    disk: &Disk,
    layout: &Layout,
    owner: Option<(u32, u32)>,
    user: u32,
    exact: bool,
) -> Result<Option<(u32, u32)>> {
    let base = stat(disk, layout.base())?;
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
    use crate::engine::FileTime;

    #[test]
    fn a_directory_with_something_in_it_is_left_alone() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let mode = || std::fs::metadata(dir.path()).unwrap().permissions().mode() & 0o777;
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        std::fs::create_dir(dir.path().join("secrets")).unwrap();
        let layout = Layout::new(dir.path());
        let text = make_top(&Disk::real(), &layout, None).unwrap_err().to_string();
        assert!(text.contains("it holds \"secrets\": give a new or empty directory"), "{text}");
        assert_eq!((mode(), dir.path().join(".chunks").exists()), (0o700, false));
        std::fs::create_dir(dir.path().join(".chunks")).unwrap();
        let text = make_top(&Disk::real(), &layout, None).unwrap_err().to_string();
        assert!(text.contains("there is one already"), "{text}");
        std::fs::remove_dir(dir.path().join("secrets")).unwrap();
        std::fs::remove_dir(dir.path().join(".chunks")).unwrap();
        std::fs::create_dir(dir.path().join("lost+found")).unwrap();
        assert!(!make_top(&Disk::real(), &layout, None).unwrap(), "the base was there");
        assert_eq!(mode(), 0o755);
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
