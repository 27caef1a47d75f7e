//! The configuration of a running daemon: read, edited in its file, read again.
//!
//! ```text
//!  edit   ─▶ text of the file ─▶ Draft ─▶ whole text checked ─▶ datastores opened ─▶ file replaced ─▶ in force
//!  reload ─▶ text of the file ──────────▶ whole text checked ─▶ datastores opened ─────────────────▶ in force
//! ```
//!
//! Each arrow may fail, and then nothing has changed, neither in the file nor in memory. Changes come one at a time. A file that an operator
//! has changed and not had read yet is not edited: what he means to put into force, and when, is his affair.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use tokio::sync::{OwnedMutexGuard, watch};

use super::Config;
use super::data_dir::DataDir;
use super::edit::Draft;
use super::raw::restart_needed;
use super::stores::StoreBook;
use crate::engine::ComputePool;
use crate::error::{Error, Result};
use crate::sync::Mutex;

/// A configuration with the text that it was read from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the text says.
    pub config: Config,
    /// The file.
    pub text: String,
    /// SHA-256 of the text in lower-case hex: names this version for optimistic locking.
    pub digest: String,
}

impl Loaded {
    /// Reads a file's text. `name` is how errors call the file; relative paths start at `data_dir`.
    pub fn parse(text: String, name: &str, data_dir: &Path) -> Result<Self> {
        let config = Config::parse(&text, name, data_dir)?;
        let digest = hex::encode(Sha256::digest(&text));
        Ok(Self { config, text, digest })
    }

    /// Refuses a caller who has seen another version; `None` does not care.
    pub fn check_digest(&self, seen: Option<&str>) -> Result<()> {
        match seen {
            Some(seen) if seen != self.digest => {
                Err(Error::invalid("detected modified configuration - file changed by other user? Try again."))
            }
            _ => Ok(()),
        }
    }
}

/// The configuration of a running daemon. A cheap clone.
#[derive(Clone, Debug)]
pub struct LiveConfig {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    dir: DataDir,
    path: PathBuf,
    compute: ComputePool,
    stores: StoreBook,
    current: Mutex<Arc<Loaded>>,
    /// The text that the daemon was started with: what cannot change while it runs is still as it says.
    started_with: String,
    /// Held while a change is made; goes along with its work, so that an abandoned change still ends before the next begins.
    change: Arc<tokio::sync::Mutex<()>>,
    changed: watch::Sender<u64>,
}

impl LiveConfig {
    /// Over the file at `path`, which says `loaded`, and the datastores that were opened for it.
    pub fn new(dir: DataDir, path: PathBuf, loaded: Loaded, compute: ComputePool, stores: StoreBook) -> Self {
        let started_with = loaded.text.clone();
        let current = Mutex::new(Arc::new(loaded));
        let (change, changed) = (Arc::default(), watch::Sender::new(0));
        Self { inner: Arc::new(Inner { dir, path, compute, stores, current, started_with, change, changed }) }
    }

    /// What is in force.
    pub fn get(&self) -> Arc<Loaded> {
        self.inner.current.lock().clone()
    }

    /// Where the file lies.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Wakes whenever another configuration has come into force.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.inner.changed.subscribe()
    }

    /// Changes the file, and puts it into force. `digest` is that of the version that the caller has seen; `change` works on the file's
    /// text as it is now. Once begun, the change is made even if nobody waits for it any more.
    ///
    /// Errors: those of `change`; `Invalid` with file, line and column if the result is no valid configuration, or if the caller has seen
    /// another version; why a datastore cannot be opened; `Io`. Nothing has changed then.
    pub async fn edit<T>(&self, digest: Option<&str>, change: impl FnOnce(&mut Draft) -> Result<T>) -> Result<T> {
        let turn = Arc::clone(&self.inner.change).lock_owned().await;
        let now = self.get();
        if self.inner.read().await? != now.text {
            let text = format!("{:?} was changed by hand and is not in force yet: reload it first", self.inner.path);
            return Err(Error::invalid(text));
        }
        now.check_digest(digest)?;
        let mut draft = Draft::new(&now.text)?;
        let value = change(&mut draft)?;
        let new = self.inner.parse(draft.text())?;
        let write = new.text != now.text;
        self.inner.clone().apply(turn, new, write).await?;
        Ok(value)
    }

    /// What [`Self::edit`] would put into force, as far as the text goes; nothing is written or opened.
    pub fn preview<T>(&self, digest: Option<&str>, change: impl FnOnce(&mut Draft) -> Result<T>) -> Result<Loaded> {
        let now = self.get();
        now.check_digest(digest)?;
        let mut draft = Draft::new(&now.text)?;
        change(&mut draft)?;
        self.inner.parse(draft.text())
    }

    /// Reads the file again and puts it into force. What cannot change while the daemon runs is logged. `check` sees the new
    /// configuration before anything changes, and fetches what else it needs (a certificate).
    ///
    /// Errors: those of `check`, and as those of [`Self::edit`]; everything is as it was then.
    pub async fn reload<T>(&self, check: impl AsyncFnOnce(&Loaded) -> Result<T>) -> Result<T> {
        let turn = Arc::clone(&self.inner.change).lock_owned().await;
        let new = self.inner.parse(self.inner.read().await?)?;
        let value = check(&new).await?;
        self.inner.clone().apply(turn, new, false).await?;
        Ok(value)
    }
}

impl Inner {
    async fn read(self: &Arc<Self>) -> Result<String> {
        let inner = Arc::clone(self);
        self.compute.run(move || read_text(&inner.dir, &inner.path)).await?
    }

    fn parse(&self, text: String) -> Result<Loaded> {
        Loaded::parse(text, &self.path.to_string_lossy(), self.dir.path())
    }

    /// Opens, writes, puts into force; in a task of its own, so that it is done whole.
    async fn apply(self: Arc<Self>, turn: OwnedMutexGuard<()>, new: Loaded, write: bool) -> Result<()> {
        let work = async move {
            let prepared = self.stores.prepare(&new.config.datastores).await?;
            if write {
                let (inner, text) = (Arc::clone(&self), new.text.clone());
                self.compute.run(move || inner.dir.replace(&inner.path, text.as_bytes())).await??;
                tracing::info!(path = ?self.path, "the configuration file was changed");
            }
            for note in restart_needed(&self.started_with, &new.text).into_iter().chain(self.stores.commit(prepared)) {
                tracing::warn!("configuration: {note}");
            }
            *self.current.lock() = Arc::new(new);
            self.changed.send_modify(|version| *version += 1);
            drop(turn);
            Ok(())
        };
        tokio::spawn(work).await.unwrap_or_else(|e| Err(Error::closed("the change was cut off").with_source(e)))
    }
}

/// The text of a configuration file.
pub fn read_text(dir: &DataDir, path: &Path) -> Result<String> {
    let bytes = dir.read(path)?.ok_or_else(|| Error::not_found(format!("there is no configuration file {path:?}")))?;
    String::from_utf8(bytes).map_err(|_| Error::invalid(format!("{path:?} is not UTF-8")))
}
