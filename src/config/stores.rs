//! The open datastores by name, as the configuration has them now.
//!
//! A datastore that somebody uses is never opened a second time: its locks against itself, its claims on chunks and what garbage
//! collection tells running backups live in memory, once per open directory. So a change comes in two steps. [`StoreBook::prepare`] opens
//! what is new, and may fail; [`StoreBook::commit`] puts it in place in one moment. A datastore that left the configuration while it is used
//! stays open for those who have it, is remembered, and is taken up again if it comes back.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::DatastoreSection;
use crate::clock::Clock;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::store::{Datastore, WeakDatastore};
use crate::sync::Mutex;
use crate::types::DatastoreName;

/// The open datastores. A cheap clone.
#[derive(Clone, Debug)]
pub struct StoreBook {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Clock,
    /// Whether all datastores of the configuration are open, or only those that were asked for.
    is_complete: bool,
    shelf: Mutex<Shelf>,
}

#[derive(Debug, Default)]
struct Shelf {
    open: BTreeMap<DatastoreName, Open>,
    /// Gone from the configuration, and perhaps still in use.
    retired: Vec<(DatastoreSection, WeakDatastore)>,
}

#[derive(Clone, Debug)]
struct Open {
    /// As it was opened, but for what an open datastore takes over.
    section: DatastoreSection,
    store: Datastore,
}

/// What a new configuration wants, as far as it can fail.
#[derive(Debug)]
pub struct Prepared {
    wanted: Vec<(DatastoreSection, Source)>,
}

#[derive(Debug)]
enum Source {
    /// It is open, and takes the settings.
    Keep,
    /// Opened for this, in place of one of the same name or of none.
    Opened(Datastore),
    /// It had left, and its sessions still have it.
    Returned(Datastore),
}

impl StoreBook {
    /// An empty book, to hold every datastore of the configuration.
    pub fn new(clock: Clock) -> Self {
        Self { inner: Arc::new(Inner { clock, is_complete: true, shelf: Mutex::default() }) }
    }

    /// An empty book, to hold those alone that [`Self::open`] opens: a command about one datastore has no use for the others, whose disks
    /// may be away.
    pub fn on_request(clock: Clock) -> Self {
        Self { inner: Arc::new(Inner { clock, is_complete: false, shelf: Mutex::default() }) }
    }

    /// Opens a datastore of the configuration in a book that holds those on request.
    pub async fn open(&self, section: &DatastoreSection) -> Result<()> {
        let store = open(section, &self.inner.clock).await?;
        let open = Open { section: section.clone(), store };
        self.inner.shelf.lock().open.insert(section.name.clone(), open);
        Ok(())
    }

    /// Takes in a datastore that a test has opened.
    #[cfg(test)]
    pub(crate) fn adopt(&self, store: Datastore, section: DatastoreSection) {
        self.inner.shelf.lock().open.insert(section.name.clone(), Open { section, store });
    }

    /// The datastore of that name.
    pub fn get(&self, name: &DatastoreName) -> Option<Datastore> {
        self.inner.shelf.lock().open.get(name).map(|open| open.store.clone())
    }

    /// All datastores, by name.
    pub fn all(&self) -> Vec<Datastore> {
        self.inner.shelf.lock().open.values().map(|open| open.store.clone()).collect()
    }

    /// The engines of all datastores, those included that have left and are still in use: to be shut down at the end.
    pub fn engines(&self) -> Vec<Engine> {
        let shelf = self.inner.shelf.lock();
        let retired = shelf.retired.iter().filter_map(|(_, store)| store.upgrade());
        let stores = shelf.open.values().map(|open| open.store.clone()).chain(retired);
        stores.map(|store| store.engine().clone()).collect()
    }

    /// Opens what these sections want and is not open. Nothing changes yet; an error says which datastore cannot be had and why.
    pub async fn prepare(&self, sections: &[DatastoreSection]) -> Result<Prepared> {
        let mut wanted: Vec<(DatastoreSection, Source)> = Vec::new();
        for section in sections {
            let source = match self.find(section) {
                Some(source) => source,
                None if !self.inner.is_complete => continue,
                None => Source::Opened(open(section, &self.inner.clock).await?),
            };
            wanted.push((section.clone(), source));
        }
        let shelf = self.inner.shelf.lock();
        for (at, (section, source)) in wanted.iter().enumerate() {
            if let Source::Opened(store) = source {
                shelf.check_directory(section, store, &wanted[..at], &wanted[at + 1..])?;
            }
        }
        drop(shelf);
        Ok(Prepared { wanted })
    }

    /// The datastore for a section, if it need not be opened.
    fn find(&self, section: &DatastoreSection) -> Option<Source> {
        let shelf = self.inner.shelf.lock();
        if let Some(open) = shelf.open.get(&section.name) {
            return open.section.is_built_like(section).then_some(Source::Keep);
        }
        let returned = |(old, store): &(DatastoreSection, WeakDatastore)| {
            let same = old.name == section.name && old.is_built_like(section);
            same.then(|| store.upgrade()).flatten().map(Source::Returned)
        };
        shelf.retired.iter().find_map(returned)
    }

    /// Puts everything in place in one moment, and says what could not be done at once because a datastore is in use.
    pub fn commit(&self, prepared: Prepared) -> Vec<String> {
        let mut notes = Vec::new();
        // Dropped after the lock is free: that ends engines.
        let mut gone: Vec<Datastore> = Vec::new();
        let mut shelf = self.inner.shelf.lock();
        let mut old = std::mem::take(&mut shelf.open);
        let mut open = BTreeMap::new();
        for (section, source) in prepared.wanted {
            let name = section.name.clone();
            let before = old.remove(&name);
            let store = match (source, before) {
                (Source::Keep | Source::Opened(_), Some(before)) if before.section.is_built_like(&section) => {
                    before.store
                }
                (Source::Opened(new), Some(before)) if before.store.is_shared() => {
                    notes.push(format!(
                        "datastore '{name}' is in use: path, owner, manifest-lock-dir, engine, workers and io-threads stay as they are \
                         until a reload when it is not, or a restart"
                    ));
                    gone.push(new);
                    before.store.set_config(section.store_config());
                    open.insert(name, Open { section: before.section, store: before.store });
                    continue;
                }
                (Source::Opened(new), before) => {
                    gone.extend(before.map(|before| before.store));
                    if let Some(user) = shelf.user_of(&new, old.values()) {
                        notes.push(format!(
                            "the directory of datastore '{name}' is still used as '{user}': '{name}' is opened by a reload when its \
                             sessions have ended"
                        ));
                        gone.push(new);
                        continue;
                    }
                    new
                }
                (Source::Returned(store), _) => store,
                // The change before this one took it away, and changes come one at a time.
                (Source::Keep, _) => continue,
            };
            store.set_config(section.store_config());
            open.insert(name, Open { section, store });
        }
        for (name, left) in old {
            if left.store.is_shared() {
                notes.push(format!(
                    "datastore '{name}' has left the configuration and stays open until its sessions have ended"
                ));
                shelf.retired.push((left.section, left.store.downgrade()));
            }
            gone.push(left.store);
        }
        let is_open = |store: &Datastore| open.values().any(|open| open.store.is(store));
        shelf.retired.retain(|(_, store)| store.upgrade().is_some_and(|store| !is_open(&store)));
        shelf.open = open;
        drop(shelf);
        drop(gone);
        notes
    }
}

impl Shelf {
    /// Refuses a directory that another section has too, by whatever path, or that is still used by those whom a datastore left behind.
    fn check_directory(
        &self,
        section: &DatastoreSection,
        store: &Datastore,
        before: &[(DatastoreSection, Source)],
        after: &[(DatastoreSection, Source)],
    ) -> Result<()> {
        let name = section.name.as_str();
        for (other, source) in before.iter().chain(after) {
            let theirs = match source {
                Source::Keep => self.open.get(&other.name).map(|open| &open.store),
                Source::Opened(store) | Source::Returned(store) => Some(store),
            };
            if theirs.is_some_and(|theirs| theirs.is_same_directory(store)) {
                let text = format!("the datastores {:?} and {name:?} have one directory", other.name.as_str());
                return Err(Error::invalid(text));
            }
        }
        match self.user_of(store, self.open.values().filter(|open| open.section.name != section.name)) {
            Some(user) => Err(Error::busy(format!(
                "the directory of {name:?} is still used as datastore {:?}: try again when its sessions have ended",
                user.as_str()
            ))),
            None => Ok(()),
        }
    }

    /// Under which name the directory of `store` is in use: by one that has left, or by one of `leaving`.
    fn user_of<'a>(&self, store: &Datastore, leaving: impl Iterator<Item = &'a Open>) -> Option<DatastoreName> {
        let same = |other: &Datastore| other.is_same_directory(store);
        let retired = self.retired.iter().find(|(_, other)| other.upgrade().is_some_and(|other| same(&other)));
        let mut leaving = leaving.filter(|open| open.store.is_shared() && same(&open.store));
        retired
            .map(|(section, _)| section.name.clone())
            .or_else(|| leaving.next().map(|open| open.section.name.clone()))
    }
}

async fn open(section: &DatastoreSection, clock: &Clock) -> Result<Datastore> {
    let config = section.store_config();
    let (name, path) = (config.name.clone(), config.path.clone());
    let engine = Engine::start(name.as_str(), &section.engine_config())?;
    if let Some(reason) = engine.fallback_reason() {
        tracing::warn!(store = %name, engine = engine.kind(), "{reason}");
    }
    let store = Datastore::open(config, engine.clone(), clock.clone()).await?;
    tracing::info!(store = %name, ?path, engine = engine.kind(), "datastore opened");
    Ok(store)
}
