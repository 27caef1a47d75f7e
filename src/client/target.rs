//! Where a restored archive goes: a new file that appears when it is whole, a device, or standard output.

use std::fs::{File, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::source::is_zero;
use crate::error::{Error, IoContext, Result};

/// What `TARGET` means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetPath {
    /// `-`.
    Stdout,
    /// A file to be made, or a device to be written over.
    Path(PathBuf),
}

impl TargetPath {
    /// `-` or a path.
    pub fn from_argument(text: &Path) -> Self {
        if text.as_os_str() == "-" { Self::Stdout } else { Self::Path(text.to_owned()) }
    }
}

impl std::fmt::Display for TargetPath {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stdout => f.write_str("-"),
            Self::Path(path) => path.display().fmt(f),
        }
    }
}

/// An open target; bytes come in order. All methods block. A new file that was not [`Self::complete`]d vanishes when this
/// is dropped.
pub(super) struct Target {
    out: Box<dyn Out>,
    /// Where holes may be left: a new regular file.
    sparse: bool,
    part: Option<Part>,
    written_bytes: u64,
}

/// What is written to.
trait Out: Write + Send {
    /// Leaves a hole; asked for in a new regular file only.
    fn skip(&mut self, bytes: u64) -> std::io::Result<()>;

    /// Makes sure that all `bytes` are there for good.
    fn settle(&mut self, bytes: u64, is_new: bool) -> std::io::Result<()>;
}

impl Out for File {
    fn skip(&mut self, bytes: u64) -> std::io::Result<()> {
        self.seek(SeekFrom::Current(i64::try_from(bytes).unwrap_or(i64::MAX))).map(|_| ())
    }

    fn settle(&mut self, bytes: u64, is_new: bool) -> std::io::Result<()> {
        if is_new {
            // A hole at the end has not made the file longer.
            self.set_len(bytes)?;
        }
        match self.sync_all() {
            // Pipes and terminals cannot be synced.
            Err(e) if matches!(Errno::from_io_error(&e), Some(Errno::INVAL | Errno::ROFS)) && !is_new => Ok(()),
            other => other,
        }
    }
}

impl Out for std::io::Stdout {
    fn skip(&mut self, _: u64) -> std::io::Result<()> {
        Err(Errno::SPIPE.into())
    }

    fn settle(&mut self, _: u64, _: bool) -> std::io::Result<()> {
        self.flush()
    }
}

/// A file under a name of its own beside the final one.
struct Part {
    name: PathBuf,
    last: PathBuf,
    force: bool,
    cleanup: Arc<Cleanup>,
}

/// Removes the unfinished file; whoever drops it first does it.
#[derive(Debug)]
pub(super) struct Cleanup {
    name: PathBuf,
    done: AtomicBool,
}

/// A share of the duty to clean up.
#[derive(Debug)]
pub(super) struct CleanupShare(Arc<Cleanup>);

impl Drop for CleanupShare {
    fn drop(&mut self) {
        self.0.remove();
    }
}

impl Cleanup {
    fn remove(&self) {
        if !self.done.swap(true, Ordering::AcqRel) {
            // Nothing more can be done about it here, and the error that led here matters more.
            let _ = std::fs::remove_file(&self.name);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.cleanup.remove();
    }
}

impl Target {
    /// Opens the target; an existing regular file is replaced only with `force`, and only when the restore is complete.
    pub(super) fn open(path: &TargetPath, force: bool) -> Result<Self> {
        let path = match path {
            TargetPath::Stdout => return Ok(Self::new(Box::new(std::io::stdout()), None)),
            TargetPath::Path(path) => path,
        };
        match std::fs::metadata(path) {
            Ok(meta) if meta.is_dir() => {
                return Err(Error::invalid(format!("{path:?} is a directory: name the file to be made in it")));
            }
            Ok(meta) if meta.is_file() && !force => {
                return Err(Error::invalid(format!(
                    "{path:?} exists: choose another name, remove it, or replace it with --force"
                )));
            }
            // A device, a pipe: written in place, nothing can be renamed over it.
            Ok(meta) if !meta.is_file() => {
                let file = OpenOptions::new().write(true).open(path).io_context(|| format!("cannot write {path:?}"))?;
                return Ok(Self::new(Box::new(file), None));
            }
            _ => {}
        }
        let Some(name) = path.file_name() else {
            return Err(Error::invalid(format!("{path:?} names no file")));
        };
        let part = path.with_file_name(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&part);
        let file =
            file.io_context(|| format!("cannot make {part:?}: does its directory exist, and may you write there?"))?;
        let cleanup = Arc::new(Cleanup { name: part.clone(), done: AtomicBool::new(false) });
        let part = Part { name: part, last: path.clone(), force, cleanup };
        Ok(Self::new(Box::new(file), Some(part)))
    }

    fn new(out: Box<dyn Out>, part: Option<Part>) -> Self {
        Self { out, sparse: part.is_some(), part, written_bytes: 0 }
    }

    /// Removes an unfinished file when dropped, even if the thread that writes it does not live that long.
    pub(super) fn cleanup(&self) -> Option<CleanupShare> {
        self.part.as_ref().map(|part| CleanupShare(part.cleanup.clone()))
    }

    /// Writes the next bytes; zeros become a hole where that is possible.
    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let length = bytes.len() as u64;
        if self.sparse && is_zero(bytes) { self.out.skip(length) } else { self.out.write_all(bytes) }
            .io_context(|| format!("cannot write at byte {} of the target", self.written_bytes))?;
        self.written_bytes += length;
        Ok(())
    }

    /// Syncs what was written and gives the file its name. How many bytes it has.
    pub(super) fn complete(mut self) -> Result<u64> {
        let bytes = self.written_bytes;
        let settled = self.out.flush().and_then(|()| self.out.settle(bytes, self.part.is_some()));
        settled.io_context(|| "cannot complete the target")?;
        if let Some(part) = &self.part {
            part.appear().map_err(|e| match e {
                Errno::EXIST => Error::invalid(format!(
                    "{:?} was made by somebody else meanwhile: choose another name, or replace it with --force",
                    part.last
                )),
                e => Error::io(format!("cannot give {:?} its name", part.last), e.into()),
            })?;
            part.cleanup.done.store(true, Ordering::Release);
        }
        Ok(bytes)
    }
}

impl Part {
    fn appear(&self) -> Result<(), Errno> {
        let flags = if self.force { RenameFlags::empty() } else { RenameFlags::NOREPLACE };
        match renameat_with(CWD, &self.name, CWD, &self.last, flags) {
            // Not every file system knows the flag; the target was not there when the restore began.
            Err(Errno::INVAL) if !self.force => renameat_with(CWD, &self.name, CWD, &self.last, RenameFlags::empty()),
            other => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn names(dir: &Path) -> Vec<String> {
        std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
    }

    fn open(path: &Path, force: bool) -> Result<Target> {
        Target::open(&TargetPath::from_argument(path), force)
    }

    #[test]
    fn a_file_appears_when_it_is_whole_and_zeros_are_holes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("disk");
        let mut target = open(&path, false).unwrap();
        target.write(b"begin").unwrap();
        target.write(&vec![0; 1 << 20]).unwrap();
        assert!(!path.exists());
        assert_eq!(target.complete().unwrap(), (1 << 20) + 5);
        assert_eq!(names(dir.path()), ["disk"]);
        let mut expected = b"begin".to_vec();
        expected.resize((1 << 20) + 5, 0);
        assert_eq!(std::fs::read(&path).unwrap(), expected);
        assert!(path.metadata().unwrap().blocks() * 512 < 1 << 20, "a hole takes no space");
    }

    #[test]
    fn an_unfinished_file_vanishes() {
        let dir = tempfile::tempdir().unwrap();
        let mut target = open(&dir.path().join("x"), false).unwrap();
        target.write(b"half").unwrap();
        drop(target);
        assert!(names(dir.path()).is_empty());
    }

    #[test]
    fn an_existing_file_is_replaced_by_force_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let put = |force, text: &[u8]| -> Result<u64> {
            let mut target = open(&path, force)?;
            target.write(text)?;
            target.complete()
        };
        put(false, b"one").unwrap();
        assert!(put(false, b"two").unwrap_err().to_string().contains("--force"));
        put(true, b"three").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"three");
        let late = open(&dir.path().join("y"), false).unwrap();
        std::fs::hard_link(&path, dir.path().join("y")).unwrap();
        assert!(late.complete().unwrap_err().to_string().contains("meanwhile"));
        assert_eq!(std::fs::read(dir.path().join("y")).unwrap(), b"three");
    }

    #[test]
    fn devices_are_written_in_place_and_directories_refused() {
        let mut null = open(Path::new("/dev/null"), false).unwrap();
        null.write(&[0; 10]).unwrap();
        assert_eq!(null.complete().unwrap(), 10);
        assert!(open(Path::new("/"), true).is_err());
        assert!(open(Path::new("/does/not/exist/x"), false).is_err());
    }
}
