//! A file in the base directory to which a long job appends what it has done, for the one after a crash. Of no use to anybody else.
//!
//! It is locked while its job runs, so there is one writer. Nothing is synced: a power cut costs its end, which costs work that is done again; so
//! whoever reads it has to tell what is whole.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use super::Datastore;
use super::datastore::Inner;
use super::explain::failed;
use crate::engine::{Disk, DiskFile, LockMode};
use crate::error::{Error, Result};

/// Mode of journals: nobody else reads them.
const MODE: u32 = 0o600;

/// An open journal.
#[derive(Debug)]
pub struct Journal {
    store: Arc<Inner>,
    path: PathBuf,
    file: Arc<DiskFile>,
    end: u64,
}

impl Datastore {
    /// Opens a journal of this name, with what is in it; `None` if there is none.
    ///
    /// Errors: `Busy` while another job writes it; `Invalid` if it is longer than `max_bytes`.
    pub async fn open_journal(&self, name: &str, max_bytes: u64) -> Result<Option<(Journal, Vec<u8>)>> {
        let (store, path) = (Arc::clone(&self.inner), self.base_path().join(name));
        let opened = self.engine().run(move |disk| {
            let error = |e| failed("unable to read", &path, e);
            let file = match disk.open_rw(&path) {
                Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
                file => file.map_err(error)?,
            };
            lock(&file)?;
            if file.meta().map_err(error)?.size_bytes > max_bytes {
                return Err(Error::invalid(format!("{path:?} has more than {max_bytes} bytes")));
            }
            let bytes = file.read_all(max_bytes).map_err(error)?;
            let end = bytes.len() as u64;
            Ok(Some((Journal { store, path, file: Arc::new(file), end }, bytes)))
        });
        opened.await?
    }

    /// Makes an empty journal of this name.
    ///
    /// Errors: `Io` if there is one.
    pub async fn create_journal(&self, name: &str) -> Result<Journal> {
        let (store, path) = (Arc::clone(&self.inner), self.base_path().join(name));
        let made = self.engine().run(move |disk| {
            let error = |e| failed("unable to make", &path, e);
            let file = disk.create_new(&path, MODE).map_err(error)?;
            lock(&file)?;
            store.durable.give(disk, &path).map_err(error)?;
            Ok(Journal { store, path, file: Arc::new(file), end: 0 })
        });
        made.await?
    }

    /// Bytes of a journal; 0 if there is none.
    pub async fn journal_bytes(&self, name: &str) -> u64 {
        let path = self.base_path().join(name);
        let looked = self.engine().run(move |disk| disk.lstat(&path)).await;
        looked.ok().and_then(io::Result::ok).map_or(0, |meta| meta.size_bytes)
    }

    /// Removes journals whose names begin so, which nobody writes and nobody has written to for so many seconds.
    pub async fn remove_old_journals(&self, prefix: &'static str, age_secs: i64) -> Result<()> {
        let (base, now) = (self.base_path().to_owned(), self.clock().now().0);
        let removed = self.engine().run(move |disk| -> io::Result<()> {
            for entry in disk.read_dir(&base)?.into_iter().filter(|entry| entry.name.starts_with(prefix)) {
                let path = base.join(entry.name);
                let file = disk.open_rw(&path)?;
                if now.saturating_sub(file.meta()?.mtime.secs) > age_secs && file.try_flock(LockMode::Exclusive).is_ok()
                {
                    disk.unlink(&path)?;
                }
            }
            Ok(())
        });
        removed.await?.map_err(|e| Error::io("unable to remove old journals", e))
    }
}

fn lock(file: &DiskFile) -> Result<()> {
    file.try_flock(LockMode::Exclusive).map_err(|_| Error::busy("another job writes the journal"))
}

impl Journal {
    /// Cuts off what is not whole.
    pub async fn cut_to(&mut self, bytes: u64) -> Result<()> {
        self.end = bytes;
        self.on_disk("unable to cut", move |_, file, _| file.set_len(bytes)).await
    }

    /// Appends.
    pub async fn append(&mut self, bytes: Vec<u8>) -> Result<()> {
        let at = self.end;
        self.end += bytes.len() as u64;
        self.on_disk("unable to write", move |_, file, _| file.write_all_at(&bytes, at)).await
    }

    /// The job has ended.
    pub async fn remove(self) -> Result<()> {
        self.on_disk("unable to remove", |disk, _, path| disk.unlink(path)).await
    }

    async fn on_disk(
        &self,
        what: &'static str,
        work: impl FnOnce(&Disk, &DiskFile, &std::path::Path) -> io::Result<()> + Send + 'static,
    ) -> Result<()> {
        let (file, path) = (Arc::clone(&self.file), self.path.clone());
        let done = self.store.engine.run(move |disk| work(disk, &file, &path).map_err(|e| failed(what, &path, e)));
        done.await?
    }
}

#[cfg(test)]
mod tests {
    use crate::error::Kind;
    use crate::store::test_support::*;

    #[tokio::test]
    async fn one_writes_and_the_next_one_reads() {
        let dir = tempfile::tempdir().unwrap();
        let store = open(&make_base(dir.path())).await;
        assert!(store.open_journal(".x", 100).await.unwrap().is_none());
        let mut journal = store.create_journal(".x").await.unwrap();
        journal.append(b"abc".to_vec()).await.unwrap();
        journal.append(b"def".to_vec()).await.unwrap();
        assert_eq!(store.open_journal(".x", 100).await.unwrap_err().kind(), Kind::Busy);
        assert!(store.create_journal(".x").await.is_err());
        store.remove_old_journals(".x", -1 << 40).await.unwrap();
        assert_eq!(store.journal_bytes(".x").await, 6, "it is written");
        drop(journal);
        assert_eq!(store.open_journal(".x", 5).await.unwrap_err().kind(), Kind::Invalid);
        let (mut journal, bytes) = store.open_journal(".x", 6).await.unwrap().unwrap();
        assert_eq!(bytes, b"abcdef");
        journal.cut_to(2).await.unwrap();
        journal.append(b"!".to_vec()).await.unwrap();
        drop(journal);
        let (journal, bytes) = store.open_journal(".x", 6).await.unwrap().unwrap();
        assert_eq!(bytes, b"ab!");
        journal.remove().await.unwrap();
        assert_eq!(store.journal_bytes(".x").await, 0);
        drop(store.create_journal(".x").await.unwrap());
        store.remove_old_journals(".x", 1 << 40).await.unwrap();
        assert!(store.open_journal(".x", 6).await.unwrap().is_some(), "it is young");
        store.remove_old_journals(".x", -1 << 40).await.unwrap();
        assert!(store.open_journal(".x", 6).await.unwrap().is_none());
    }
}
