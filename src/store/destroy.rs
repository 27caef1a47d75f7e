//! The end of a datastore: everything of it is removed, the snapshots first (spec 01 §9).
//!
//! Symbolic links are removed, never followed: what they lead to is not ours to take. Whatever else lies in the directory stays.

use std::io;
use std::path::PathBuf;

use super::datastore::Datastore;
use super::explain::failed;
use super::layout::{CHUNKS_DIR, NAMESPACE_DIR, is_own_state};
use super::temps::RECORD_PREFIX;
use crate::engine::{Disk, FileKind};
use crate::error::Result;
use crate::types::BackupType;

/// Chunk directories removed in one piece of work: some thousands of files, seconds on a slow disk.
const STEP: usize = 64;

/// What was left behind, for the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LeftBehind {
    /// Symbolic links that were removed, and what they led to was not.
    pub links: Vec<PathBuf>,
    /// Names of what else lies in the directory, which is therefore still there; at most `NAMES_MAX`.
    pub others: Vec<String>,
    /// Why the empty directory could not be removed: a mount point, or no right to the directory above.
    pub base: Option<String>,
}

/// Names of other people's files that are told.
const NAMES_MAX: usize = 10;

impl Datastore {
    /// Removes everything that the datastore consists of. It must be out of the configuration, and nobody else may use it any more.
    /// `progress` hears how many of how many chunk directories are gone.
    ///
    /// Errors: `Busy` if another process works on it; `Io`. What is gone by then is gone; a second attempt goes on from there.
    pub async fn destroy(&self, mut progress: impl FnMut(usize, usize) + Send) -> Result<LeftBehind> {
        let alone = self.exclude_other_processes().await?;
        let mut remains = LeftBehind::default();
        let tops = [NAMESPACE_DIR.to_owned()].into_iter().chain(BackupType::ALL.map(|ty| ty.to_string()));
        for name in tops {
            let path = self.base_path().join(name);
            remains.links.extend(self.on_disk(move |disk| remove_top(disk, path)).await?);
        }
        let status = self.base_path().join(".gc-status");
        self.on_disk(move |disk| gone(disk.unlink(&status)).map_err(|e| failed("unable to remove", &status, e)))
            .await?;
        let chunks = self.base_path().join(CHUNKS_DIR);
        let path = chunks.clone();
        let dirs = self.on_disk(move |disk| match disk.lstat(&path) {
            Ok(meta) if meta.kind == FileKind::Dir => {
                disk.read_dir(&path).map_err(|e| failed("unable to read", &path, e))
            }
            Ok(_) => Ok(Vec::new()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(failed("unable to stat", &path, e)),
        });
        let dirs: Vec<PathBuf> = dirs.await?.into_iter().map(|entry| chunks.join(entry.name)).collect();
        for (step, some) in dirs.chunks(STEP).enumerate() {
            let some = some.to_vec();
            self.on_disk(move |disk| some.into_iter().try_for_each(|dir| remove_top(disk, dir).map(drop))).await?;
            progress((step * STEP + STEP).min(dirs.len()), dirs.len());
        }
        remains.links.extend(self.on_disk(move |disk| remove_top(disk, chunks)).await?);
        let base = self.base_path().to_owned();
        let (others, kept) = self.on_disk(move |disk| remove_base(disk, &base)).await?;
        (remains.others, remains.base) = (others, kept);
        alone.release().await;
        Ok(remains)
    }

    async fn on_disk<T: Send + 'static>(&self, work: impl FnOnce(&Disk) -> Result<T> + Send + 'static) -> Result<T> {
        self.engine().run(work).await?
    }
}

/// Removes a directory with all below it; of a symbolic link only itself, which is then returned.
fn remove_top(disk: &Disk, path: PathBuf) -> Result<Option<PathBuf>> {
    let error = |e| failed("unable to remove", &path, e);
    match disk.lstat(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(error(e)),
        Ok(meta) if meta.kind == FileKind::Dir => gone(disk.remove_tree(&path)).map_err(error).map(|()| None),
        Ok(meta) => {
            gone(disk.unlink(&path)).map_err(error)?;
            Ok((meta.kind == FileKind::Other).then_some(path))
        }
    }
}

/// The lock file, our records of temporary files and of jobs that were cut off, and the directory, if nothing else is in it.
fn remove_base(disk: &Disk, base: &std::path::Path) -> Result<(Vec<String>, Option<String>)> {
    let error = |e| failed("unable to remove", base, e);
    let mut others = Vec::new();
    for entry in disk.read_dir(base).map_err(error)? {
        if entry.name == ".lock" || entry.name.starts_with(RECORD_PREFIX) || is_own_state(&entry.name) {
            gone(disk.unlink(&base.join(&entry.name))).map_err(error)?;
        } else if others.len() < NAMES_MAX {
            others.push(entry.name);
        }
    }
    let kept = if others.is_empty() { disk.rmdir(base).err().map(|e| e.to_string()) } else { None };
    Ok((others, kept))
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::test_support::*;

    #[tokio::test]
    async fn all_of_it_goes_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let (base, elsewhere) = (dir.path().join("store"), dir.path().join("elsewhere"));
        std::fs::create_dir_all(elsewhere.join("precious")).unwrap();
        let store = open(&make_base(dir.path())).await;
        for path in ["vm/100", "ns/a/vm/1", ".chunks/0000", ".chunks/ffff"] {
            std::fs::create_dir_all(base.join(path)).unwrap();
        }
        std::fs::File::create_new(base.join(".chunks/ffff/chunk")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, base.join("host")).unwrap();
        std::os::unix::fs::symlink(&elsewhere, base.join("vm/100/link")).unwrap();
        std::fs::create_dir(base.join("lost+found")).unwrap();
        std::fs::File::create_new(base.join(".ringvault-gc-reserve")).unwrap();
        let mut told = Vec::new();
        let remains = store.destroy(|done, of| told.push((done, of))).await.unwrap();
        assert_eq!(told, [(2, 2)]);
        let want = LeftBehind { links: vec![base.join("host")], others: vec!["lost+found".into()], base: None };
        assert_eq!(remains, want);
        let left: Vec<_> = std::fs::read_dir(&base).unwrap().map(|e| e.unwrap().file_name()).collect();
        assert_eq!(left, ["lost+found"]);
        assert!(elsewhere.join("precious").exists());
        // The second attempt finds nothing to do but the rest.
        std::fs::remove_dir(base.join("lost+found")).unwrap();
        assert_eq!(store.destroy(|_, _| {}).await.unwrap(), LeftBehind::default());
        assert!(!base.exists());
    }
}
