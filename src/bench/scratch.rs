//! The directory that a run makes below the one it was given, and removes again.
//!
//! ```text
//! DIRECTORY/NAME.ringvault-bench/.ringvault-bench   says that the rest is ours, and what it is once it is complete; locked while it is used
//! DIRECTORY/NAME.ringvault-bench/store              a datastore
//! DIRECTORY/NAME.ringvault-bench/…                  images, a daemon's data directory, task logs
//! ```

use std::fs::File;
use std::io::{ErrorKind, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::job::Job;
use crate::engine::{LockMode, try_flock};
use crate::error::{Error, IoContext, Result};
use crate::sync::{Condvar, Mutex};

/// What the directory's name ends in.
const EXTENSION: &str = "ringvault-bench";

/// The file that says whose it is.
const STAMP: &str = ".ringvault-bench";

/// Longest stamp that is read; ours have some hundred bytes.
const STAMP_BYTES_MAX: u64 = 4096;

/// Where `job` puts its data.
pub fn path_of(job: &Job) -> PathBuf {
    below(&job.directory, job)
}

/// Where `job` puts what is not the datastore: the same, unless `workdir` says otherwise.
pub fn work_path_of(job: &Job) -> PathBuf {
    below(job.workdir.as_ref().unwrap_or(&job.directory), job)
}

fn below(directory: &Path, job: &Job) -> PathBuf {
    let name = job.filename.as_deref().unwrap_or(&job.name);
    let plain = |c: char| if c.is_alphanumeric() || "-_.".contains(c) { c } else { '_' };
    directory.join(format!("{}.{EXTENSION}", name.chars().map(plain).collect::<String>()))
}

/// The directory of one or several jobs. Dropped, it is gone, unless it is to be kept and complete.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
    keep: bool,
    /// Open and locked as long as this lives.
    stamp: File,
    laid_out: Mutex<LaidOut>,
    /// Whoever changes it has ended.
    settled: Condvar,
}

/// What is there by now.
#[derive(Debug, Default)]
struct LaidOut {
    stamp: Option<String>,
    /// A job is at it; others wait.
    changing: bool,
}

/// The right to change what is there, without a lock held meanwhile. Dropped, it says that nothing is complete.
struct Change<'a> {
    scratch: &'a Scratch,
    stamp: Option<String>,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        *self.scratch.laid_out.lock() = LaidOut { stamp: self.stamp.take(), changing: false };
        self.scratch.settled.notify_all();
    }
}

impl Scratch {
    /// Makes the directory at `path` for `job` ([`path_of`], [`work_path_of`]), or takes that of an earlier run.
    ///
    /// Errors: `Invalid` for one that is not ours, `Busy` for one that another run uses.
    pub fn open(job: &Job, path: PathBuf) -> Result<Arc<Self>> {
        let context = || format!("cannot make {path:?}");
        let made = match std::fs::create_dir(&path) {
            Ok(()) => true,
            Err(e) if e.kind() == ErrorKind::AlreadyExists => false,
            Err(e) => return Err(e).io_context(context),
        };
        let stamp = File::options().read(true).write(true).create(made).truncate(false).open(path.join(STAMP));
        let mut stamp = match stamp {
            Err(e) if e.kind() == ErrorKind::NotFound => {
                return Err(Error::invalid(format!(
                    "{path:?} is there and was not made by a bench: remove it, or give the job another name"
                )));
            }
            stamp => stamp.io_context(context)?,
        };
        try_flock(&stamp, LockMode::Exclusive).map_err(|e| match e.kind() {
            ErrorKind::WouldBlock => Error::busy(format!("{path:?} is used by another bench that runs")),
            _ => Error::io(format!("cannot lock {path:?}"), e),
        })?;
        let mut text = String::new();
        (&mut stamp).take(STAMP_BYTES_MAX).read_to_string(&mut text).io_context(context)?;
        let found = (!text.is_empty()).then_some(text);
        let is_complete = found.is_some();
        let laid_out = Mutex::new(LaidOut { stamp: found, changing: false });
        let scratch = Self { path, keep: job.keep, stamp, laid_out, settled: Condvar::new() };
        if !is_complete {
            // What a run left behind that was killed.
            scratch.clear()?;
        }
        Ok(Arc::new(scratch))
    }

    /// Its directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its datastore.
    pub fn store(&self) -> PathBuf {
        self.path.join("store")
    }

    /// Sees that what `stamp` describes is there: by `work`, unless an earlier job or run made the same. True if it was there.
    ///
    /// Errors: those of `work`; `Invalid` if a job beside this one needs something else under the same name.
    pub fn lay_out(self: &Arc<Self>, stamp: &str, work: impl FnOnce() -> Result<()>) -> Result<bool> {
        let mut change = {
            let mut laid_out = self.laid_out.lock();
            while laid_out.changing {
                laid_out = self.settled.wait(laid_out);
            }
            if laid_out.stamp.as_deref() == Some(stamp) {
                return Ok(true);
            }
            // The runner has one share, and this job another.
            if laid_out.stamp.is_some() && Arc::strong_count(self) > 2 {
                return Err(Error::invalid(format!(
                    "two jobs that run at the same time need different data in {:?}: give one of them another name or filename",
                    self.path
                )));
            }
            laid_out.changing = true;
            Change { scratch: self, stamp: None }
        };
        self.forget()?;
        self.clear()?;
        work()?;
        let mut file = &self.stamp;
        file.write_all(stamp.as_bytes()).io_context(|| format!("cannot write to {:?}", self.path))?;
        change.stamp = Some(stamp.to_owned());
        Ok(false)
    }

    /// Says that what is there changes from now on, so that no later run takes it for what was laid out.
    pub fn spoil(&self) -> Result<()> {
        self.laid_out.lock().stamp = None;
        self.forget()
    }

    fn forget(&self) -> Result<()> {
        let mut file = &self.stamp;
        let emptied = file.set_len(0).and_then(|()| file.rewind());
        emptied.io_context(|| format!("cannot write to {:?}", self.path))
    }

    /// Removes all but the stamp.
    fn clear(&self) -> Result<()> {
        let context = || format!("cannot clear {:?}", self.path);
        for entry in std::fs::read_dir(&self.path).io_context(context)? {
            let entry = entry.io_context(context)?;
            if entry.file_name() != STAMP {
                remove(&entry.path()).io_context(context)?;
            }
        }
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if self.keep && self.laid_out.lock().stamp.is_some() {
            return;
        }
        let removed = self
            .clear()
            .and_then(|()| std::fs::remove_dir_all(&self.path).io_context(|| format!("cannot remove {:?}", self.path)));
        if let Err(e) = removed {
            tracing::warn!(error = %e, "the bench leaves something behind: remove it by hand");
        }
    }
}

/// Removes a file, or a directory with all that is in it; the directories in `.chunks` on all processors.
fn remove(path: &Path) -> std::io::Result<()> {
    if !path.symlink_metadata()?.is_dir() {
        return std::fs::remove_file(path);
    }
    let chunks = path.join(crate::store::layout::CHUNKS_DIR);
    if chunks.is_dir() {
        let dirs: Vec<PathBuf> =
            std::fs::read_dir(&chunks)?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
        in_parallel(&dirs, |dirs| dirs.iter().try_for_each(std::fs::remove_dir_all))?;
    }
    std::fs::remove_dir_all(path)
}

/// Does `work` on as many parts of a list as there are processors, each on a thread of its own. The first error counts, and the others go on.
pub fn in_parallel<T: Sync, E: Send>(
    list: &[T],
    work: impl Fn(&[T]) -> std::result::Result<(), E> + Sync,
) -> std::result::Result<(), E> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    in_parts(list, list.len().div_ceil(threads), work)
}

/// The same on parts of `part` items.
pub fn in_parts<T: Sync, E: Send>(
    list: &[T],
    part: usize,
    work: impl Fn(&[T]) -> std::result::Result<(), E> + Sync,
) -> std::result::Result<(), E> {
    std::thread::scope(|scope| {
        let parts: Vec<_> = list.chunks(part.max(1)).map(|part| scope.spawn(|| work(part))).collect();
        let mut result = Ok(());
        for part in parts {
            let done = part.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            result = result.and(done);
        }
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::job::Workload;
    use crate::bench::run_tests::job;

    fn put(scratch: &Scratch) -> Result<()> {
        File::options().create_new(true).write(true).open(scratch.path().join("x")).unwrap();
        Ok(())
    }

    #[test]
    fn what_is_kept_is_used_again_and_the_rest_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let mut job = job(dir.path(), Workload::KnownAppend);
        for (keep, was_there) in [(false, false), (true, false), (true, true), (false, true), (false, false)] {
            job.keep = keep;
            let scratch = Scratch::open(&job, path_of(&job)).unwrap();
            assert_eq!(scratch.lay_out("one", || put(&scratch)).unwrap(), was_there);
            assert!(scratch.path().join("x").exists());
            drop(scratch);
            assert_eq!(path_of(&job).exists(), keep);
        }
        // Something else is wanted, or the last run did not complete it.
        job.keep = true;
        let scratch = Scratch::open(&job, path_of(&job)).unwrap();
        scratch.lay_out("one", || put(&scratch)).unwrap();
        drop(scratch);
        let scratch = Scratch::open(&job, path_of(&job)).unwrap();
        assert!(!scratch.lay_out("two", || put(&scratch)).unwrap());
        scratch.spoil().unwrap();
        drop(scratch);
        assert!(!path_of(&job).exists());
    }

    #[test]
    fn what_others_made_or_use_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let job = job(dir.path(), Workload::KnownAppend);
        std::fs::create_dir(path_of(&job)).unwrap();
        let said = Scratch::open(&job, path_of(&job)).unwrap_err().to_string();
        assert!(said.contains("not made by a bench"), "{said}");
        std::fs::remove_dir(path_of(&job)).unwrap();
        let first = Scratch::open(&job, path_of(&job)).unwrap();
        assert!(Scratch::open(&job, path_of(&job)).unwrap_err().to_string().contains("another bench"));
        let (second, _third) = (Arc::clone(&first), Arc::clone(&first));
        assert!(!first.lay_out("one", || Ok(())).unwrap());
        assert!(second.lay_out("one", || Ok(())).unwrap());
        assert!(second.lay_out("two", || Ok(())).unwrap_err().to_string().contains("two jobs"));
    }

    #[test]
    fn names_become_one_file_name() {
        let mut job = job(Path::new("/d"), Workload::KnownAppend);
        for (name, filename, path) in
            [("a b/../c", None, "/d/a_b_.._c.ringvault-bench"), ("x", Some("y"), "/d/y.ringvault-bench")]
        {
            (job.name, job.filename) = (name.to_owned(), filename.map(str::to_owned));
            assert_eq!(path_of(&job), Path::new(path));
        }
    }
}
