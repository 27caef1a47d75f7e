//! The directory that a daemon owns, and the one way a file appears in it.

use std::io;
use std::path::{Path, PathBuf};

use crate::engine::{Disk, DiskFile, LockMode, SyncScope};
use crate::error::{Error, IoContext, Result};

/// Longest file of ours that is read: a users file of thousands.
pub const FILE_BYTES_MAX: u64 = 16 << 20;

/// Mode of what only the daemon may read.
pub const SECRET_MODE: u32 = 0o600;

/// Mode of what anybody may read.
pub const PUBLIC_MODE: u32 = 0o644;

/// An existing data directory.
#[derive(Clone, Debug)]
pub struct DataDir {
    path: PathBuf,
    disk: Disk,
}

/// Held by whoever may change things in a data directory.
#[derive(Debug)]
pub struct DirLock {
    _file: DiskFile,
}

impl DataDir {
    /// Opens a data directory, making it (0755) and what is above it where it is missing.
    pub fn open(path: &Path) -> Result<Self> {
        let disk = Disk::real();
        let mut missing: Vec<&Path> = path.ancestors().filter(|p| !p.as_os_str().is_empty()).collect();
        missing.retain(|p| matches!(disk.stat(p), Err(e) if e.kind() == io::ErrorKind::NotFound));
        for dir in missing.into_iter().rev() {
            disk.mkdir(dir, 0o755).io_context(|| format!("create the directory {dir:?}"))?;
        }
        let path = path.canonicalize().io_context(|| format!("open the data directory {path:?}"))?;
        disk.open_dir(&path).io_context(|| format!("open the data directory {path:?}"))?;
        Ok(Self { path, disk })
    }

    /// A data directory that has to be there.
    pub fn existing(path: &Path) -> Result<Self> {
        let opened = path.canonicalize().and_then(|path| Disk::real().open_dir(&path).map(|_| path));
        let path = opened.io_context(|| format!("open the data directory {path:?}; name another with --data-dir"))?;
        Ok(Self { path, disk: Disk::real() })
    }

    /// Its absolute path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Names of what is in it.
    pub fn names(&self) -> Result<Vec<String>> {
        let entries = self.disk.read_dir(&self.path).io_context(|| format!("list {:?}", self.path))?;
        Ok(entries.into_iter().map(|entry| entry.name).collect())
    }

    /// Takes the lock `name` (`.lock` for the daemon), without waiting.
    pub fn lock(&self, name: &str) -> Result<DirLock> {
        let path = self.path.join(name);
        let file = self.disk.open_or_create(&path, SECRET_MODE).io_context(|| format!("open {path:?}"))?;
        match file.try_flock(LockMode::Exclusive) {
            Ok(()) => Ok(DirLock { _file: file }),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                Err(Error::busy(format!("{:?} is in use by another ringvault process", self.path)))
            }
            Err(e) => Err(Error::io(format!("lock {path:?}"), e)),
        }
    }

    /// A file's contents, `None` if it is not there. `path` may be absolute.
    pub fn read(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        let path = self.path.join(path);
        // Symbolic links are fine here: certificates are often given by one.
        let target = match path.canonicalize() {
            Ok(target) => target,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io(format!("read {path:?}"), e)),
        };
        self.disk.read(&target, FILE_BYTES_MAX).map(Some).io_context(|| format!("read {path:?}"))
    }

    /// Like [`Self::read`], for what only the owner may see; others who may are warned of.
    pub fn read_secret(&self, path: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        let bytes = self.read(&path)?;
        let path = self.path.join(path);
        if let Some(mode) = self.disk.stat(&path).ok().map(|meta| meta.mode).filter(|mode| mode & 0o077 != 0) {
            tracing::warn!(?path, "others may read this secret (mode {mode:o}): chmod 600 it");
        }
        Ok(bytes)
    }

    /// Whether something of that name is there.
    pub fn has(&self, path: impl AsRef<Path>) -> Result<bool> {
        let path = self.path.join(path);
        match self.disk.stat(&path) {
            Ok(_) => Ok(true),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Error::io(format!("stat {path:?}"), e)),
        }
    }

    /// Puts a file in place, whole and durable, with exactly this mode from its first byte on.
    pub fn put(&self, path: impl AsRef<Path>, bytes: &[u8], mode: u32) -> Result<()> {
        self.put_owned(&self.path.join(path), bytes, mode, None)
    }

    fn put_owned(&self, path: &Path, bytes: &[u8], mode: u32, owner: Option<(u32, u32)>) -> Result<()> {
        let dir = path.parent().unwrap_or(&self.path).to_owned();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let new = dir.join(format!(".{name}.tmp"));
        let write = || -> io::Result<()> {
            let file = self.disk.open_or_create(&new, SECRET_MODE)?;
            file.set_len(0)?;
            if let Some((uid, gid)) = owner.filter(|_| rustix::process::geteuid().is_root()) {
                self.disk.chown(&new, uid, gid)?;
            }
            file.chmod(mode)?;
            file.write_all_at(bytes, 0)?;
            file.sync(SyncScope::All)?;
            self.disk.rename(&new, path)?;
            self.disk.fsync_dir(&dir)
        };
        write().io_context(|| format!("write {path:?}"))
    }

    /// Replaces a file that is there, whole and durable. Mode and owner stay, and a symbolic link goes on to lead to it.
    pub fn replace(&self, path: impl AsRef<Path>, bytes: &[u8]) -> Result<()> {
        let path = self.path.join(path);
        let target = path.canonicalize().io_context(|| format!("find {path:?}"))?;
        let old = self.disk.stat(&target).io_context(|| format!("stat {target:?}"))?;
        self.put_owned(&target, bytes, old.mode, Some((old.uid, old.gid)))
    }

    /// Makes a directory; fine if it is there.
    pub fn make_dir(&self, path: &Path) -> Result<()> {
        match self.disk.mkdir(path, 0o755) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(Error::io(format!("create {path:?}"), e)),
            _ => Ok(()),
        }
    }

    /// Gives what was made at `new` its final name, with everything below it durable.
    pub fn publish(&self, new: &Path, path: &Path) -> Result<()> {
        let publish = || -> io::Result<()> {
            self.disk.syncfs(new)?;
            self.disk.rename(new, path)?;
            self.disk.fsync_dir(path.parent().unwrap_or(&self.path))
        };
        publish().io_context(|| format!("move {new:?} to {path:?}"))
    }

    /// Removes a directory and all below it; fine if it is not there.
    pub fn remove_tree(&self, path: &Path) -> Result<()> {
        match self.disk.remove_tree(path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(Error::io(format!("remove {path:?}"), e)),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::engine::Fault;

    /// Every system call from the `fail_at`th on fails: what a crash at that moment leaves.
    #[derive(Debug)]
    struct Crash {
        fail_at: u64,
        count: AtomicU64,
    }

    impl Fault for Crash {
        fn before(&self, _: &'static str, _: Option<&Path>) -> io::Result<()> {
            let count = self.count.fetch_add(1, Ordering::Relaxed);
            if count >= self.fail_at { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) }
        }
    }

    #[test]
    fn a_crash_between_any_two_steps_leaves_the_old_file_or_the_new_one() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        let path = dir.path().join("c.toml");
        let (old, new) = ("old = 1\n".repeat(1000), "new = 2\n".repeat(900));
        let mut seen = std::collections::BTreeSet::new();
        for fail_at in 0.. {
            dir.put(&path, old.as_bytes(), 0o640).unwrap();
            let crash = Arc::new(Crash { fail_at, count: AtomicU64::new(0) });
            let crashing = DataDir { path: dir.path.clone(), disk: Disk::with_fault(crash.clone()) };
            let replaced = crashing.replace(&path, new.as_bytes());
            let found = String::from_utf8(dir.read(&path).unwrap().unwrap()).unwrap();
            assert!(found == old || found == new, "{fail_at}: the file is torn");
            assert!(replaced.is_err() || found == new, "{fail_at}");
            assert_eq!(Disk::real().stat(&path).unwrap().mode, 0o640);
            seen.insert(found == new);
            if replaced.is_ok() {
                assert!(fail_at > 5, "each step was counted");
                break;
            }
        }
        assert_eq!(seen.len(), 2);
        // What is left of a crash is no hindrance, and a link goes on to lead to the file.
        std::os::unix::fs::symlink("c.toml", dir.path().join("link")).unwrap();
        dir.replace("link", b"x").unwrap();
        assert_eq!(dir.read("c.toml").unwrap().unwrap(), b"x");
        assert!(std::fs::symlink_metadata(dir.path().join("link")).unwrap().is_symlink());
        assert_eq!(dir.names().unwrap().len(), 2);
    }

    #[test]
    fn files_appear_whole_with_their_mode() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(&folder.path().join("a/b")).unwrap();
        assert_eq!(dir.read("x").unwrap(), None);
        dir.put("x", b"long secret", SECRET_MODE).unwrap();
        dir.put("x", b"secret", SECRET_MODE).unwrap();
        assert_eq!(dir.read_secret("x").unwrap().unwrap(), b"secret");
        assert_eq!(Disk::real().stat(&dir.path().join("x")).unwrap().mode, 0o600);
        assert_eq!(dir.names().unwrap(), ["x"]);
        assert!(dir.has("x").unwrap() && !dir.has("y").unwrap());
        // What a crash left under the temporary name does not matter.
        Disk::real().create_new(&dir.path().join(".y.tmp"), 0o644).unwrap().write_all_at(b"rubbish", 0).unwrap();
        dir.put("y", b"z", PUBLIC_MODE).unwrap();
        assert_eq!(dir.read("y").unwrap().unwrap(), b"z");
    }

    #[test]
    fn one_daemon_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        let held = dir.lock(".lock").unwrap();
        assert!(dir.lock(".lock").unwrap_err().to_string().contains("in use"));
        drop(held);
        dir.lock(".lock").unwrap();
    }
}
