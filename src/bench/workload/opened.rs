//! A datastore and an engine of the bench's own.

use std::path::{Path, PathBuf};

use tokio::runtime::Handle;

use super::Ground;
use crate::bench::job::SyncLevel;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::store::{self, Datastore, DatastoreConfig, Share};
use crate::types::Digest;

/// Name of the datastore in messages and tasks.
const NAME: &str = "bench";

/// An open datastore. Dropped, its engine has ended.
#[derive(Debug)]
pub struct Opened {
    /// The datastore.
    pub store: Datastore,
    /// Its engine.
    pub engine: Engine,
    /// The runtime.
    pub runtime: Handle,
    /// Its directory.
    pub path: PathBuf,
    /// Of an existing datastore: nobody else collects garbage in it meanwhile.
    share: Option<Share>,
}

/// Starts the engine that the job asks for.
///
/// Errors: those of [`Engine::start_on`], which say why a ring is not to be had.
pub fn engine(ground: &Ground) -> Result<Engine> {
    Engine::start_on(NAME, &ground.engine_config(), ground.disk.clone())
}

/// Makes an empty datastore with all its directories.
pub fn make(ground: &Ground, path: &Path, engine: &Engine) -> Result<()> {
    ground.go_on()?;
    ground.runtime.block_on(Datastore::create(path, None, engine))
}

/// Opens the scratch datastore, or the one that the job names as existing.
pub fn open(ground: &Ground, engine: Engine) -> Result<Opened> {
    let job = &ground.job;
    let path = match &ground.scratch {
        Some(scratch) => scratch.store(),
        None => job.directory.clone(),
    };
    let mut config = DatastoreConfig::new(NAME.parse()?, &path);
    config.sync_level = match job.sync {
        SyncLevel::None => store::SyncLevel::None,
        SyncLevel::File => store::SyncLevel::File,
        SyncLevel::Filesystem => store::SyncLevel::Filesystem,
    };
    config.gc.method = job.gc_method;
    let open = async {
        let own = engine.clone();
        if ground.scratch.is_some() {
            return Ok((Datastore::open(config, own, Clock::system()).await?, None));
        }
        let store = Datastore::open_to_look(config, own, Clock::system()).await?;
        let share = store.share_with_other_processes().await?;
        Ok::<_, Error>((store, share))
    };
    let (store, share) = ground.runtime.block_on(open)?;
    Ok(Opened { store, engine, runtime: ground.runtime.clone(), path, share })
}

impl Opened {
    /// The path of a chunk.
    pub fn chunk(&self, digest: &Digest) -> PathBuf {
        store::layout::Layout::new(&self.path).chunk(digest)
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        if let Some(share) = self.share.take() {
            self.runtime.block_on(share.release());
        }
        self.engine.shutdown();
    }
}
