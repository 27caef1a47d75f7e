//! The public face of a datastore.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use tokio::sync::Semaphore;

use super::attributes::owner_of;
use super::backup::BackupLease;
use super::begin::Begin;
use super::budget::Budget;
use super::check::{Checker, Freshness};
use super::chunk_store::{ChunkStore, Inserted};
use super::claims::Claims;
use super::config::DatastoreConfig;
use super::create;
use super::custody::Custody;
use super::durable::Durable;
use super::explain::{failed, no_entry};
use super::file_reader::{FileReader, OpenFile};
use super::index_read::IndexReader;
use super::layout::Layout;
use super::listing;
use super::lock::{DirLock, Refusal, refuse_links};
use super::manifest_cache::ManifestCache;
use super::manifest_lock::ManifestLocks;
use super::marks::Marks;
use super::network_fs::is_network_fs;
use super::operations::{ActiveOperations, MaintenanceMode, Operation, OperationGuard, Operations};
use super::presence::CheckReport;
use super::process_lock::{self, Exclusion, ProcessLock, Share};
use super::reader::ReaderLease;
use super::removal;
use super::set_aside::{self, Doubt, Stored};
use super::snapshot::{FileInfo, GroupFilter, LoadedManifest, ManifestSummary, SnapshotDir};
use super::snapshot::{list_files, load_manifest, store_client_log, store_manifest};
use super::taken::{TakenWatch, Taking};
use super::temps::{self, Temps};
use super::tree::{self, GroupInfo};
use crate::clock::{Clock, EpochSecs};
use crate::engine::{Buffer, Class, Disk, Engine, FsUsage, LockMode, io_pressure};
use crate::error::{Error, Kind, Result};
use crate::format::manifest::{Manifest, VerifyOutcome};
use crate::metrics::StoreMetrics;
use crate::sync::Mutex;
use crate::types::{ArchiveKind, ArchiveName, AuthId, ChunkSize, DatastoreName, Digest, Group, Namespace, Snapshot};

/// An open datastore; cheap to clone.
#[derive(Clone, Debug)]
pub struct Datastore {
    pub(super) inner: Arc<Inner>,
}

/// A datastore that may be gone.
#[derive(Clone, Debug)]
pub struct WeakDatastore {
    inner: Weak<Inner>,
}

impl WeakDatastore {
    /// The datastore, if anybody still has it.
    pub fn upgrade(&self) -> Option<Datastore> {
        self.inner.upgrade().map(|inner| Datastore { inner })
    }
}

/// What the parts of an open datastore share.
#[derive(Debug)]
pub(super) struct Inner {
    pub(super) name: DatastoreName,
    /// Replaced as a whole by [`Datastore::set_config`].
    config: Mutex<Arc<DatastoreConfig>>,
    /// Device and inode of the base directory, which may be reached by several paths.
    directory: (u64, u64),
    pub(super) layout: Layout,
    pub(super) engine: Engine,
    pub(super) clock: Clock,
    pub(super) durable: Durable,
    pub(super) process_lock: Arc<ProcessLock>,
    pub(super) custody: Arc<Custody>,
    pub(super) manifest_locks: ManifestLocks,
    /// Changes of one owner file, one after the other.
    pub(super) owner_turns: Claims<PathBuf>,
    pub(super) chunks: Arc<ChunkStore>,
    pub(super) checker: Arc<Checker>,
    pub(super) operations: Arc<Operations>,
    /// What listings have read of snapshots.
    pub(super) manifests: ManifestCache,
    /// Which snapshots are marked as failed.
    pub(super) marks: Marks,
    /// Pieces of listings that are under way at a time.
    pub(super) listing_places: Arc<Semaphore>,
    /// Whether groups and snapshots lie where the times of directories cannot be trusted.
    pub(super) tree_is_remote: bool,
    pub(super) network_fs: bool,
    /// Whether `.chunks` lies on another file system than the base.
    pub(super) chunks_elsewhere: bool,
    pub(super) metrics: StoreMetrics,
    pub(super) budget: Budget,
}

impl Inner {
    fn open(disk: &Disk, config: DatastoreConfig, engine: Engine, clock: Clock, clean_up: bool) -> Result<Self> {
        let layout = Layout::new(&config.path);
        let user = rustix::process::geteuid().as_raw();
        let owner = create::check_top(disk, &layout, config.owner, user, false)?;
        let opening = |e| failed("unable to open datastore", layout.base(), e);
        let network_fs = is_network_fs(disk.fs_magic(&layout.chunks()).map_err(opening)?);
        let tree_is_remote = network_fs || is_network_fs(disk.fs_magic(layout.base()).map_err(opening)?);
        let base = disk.stat(layout.base()).map_err(opening)?;
        let chunks_elsewhere = base.dev != disk.stat(&layout.chunks()).map_err(opening)?.dev;
        match if clean_up { temps::recover(disk, layout.base()).map_err(opening)? } else { 0 } {
            0 => {}
            count => tracing::info!(store = %config.name, count, "removed temporary files that a crash left behind"),
        }
        let temps = Arc::new(Temps::new(layout.base(), engine.clone()));
        let durable = Durable::new(config.sync_level, owner, temps);
        let name = config.name.as_str();
        let budget = Budget::new(name, &config.background, io_pressure);
        let listing_places = listing::places(&engine);
        let process_lock = process_lock::open(disk, &layout.lock_file()).map_err(opening)?;
        let custody = Arc::clone(&process_lock.custody);
        engine.want_idle_priority(config.background.idle_priority);
        Ok(Self {
            manifest_locks: ManifestLocks::new(layout.base(), config.lock_dir.as_deref(), name),
            owner_turns: Claims::default(),
            chunks: Arc::new(ChunkStore::new(name, layout.clone(), durable.clone(), Arc::clone(&custody))),
            operations: Arc::new(Operations::new(config.name.clone(), config.maintenance.clone())),
            checker: Arc::new(Checker::open(disk, layout.clone(), network_fs).map_err(opening)?),
            name: config.name.clone(),
            config: Mutex::new(Arc::new(config)),
            directory: (base.dev, base.ino),
            layout,
            engine,
            clock,
            durable,
            manifests: ManifestCache::default(),
            marks: Marks::default(),
            listing_places,
            tree_is_remote,
            process_lock,
            custody,
            network_fs,
            chunks_elsewhere,
            metrics: StoreMetrics::default(),
            budget,
        })
    }

    /// Does file work that needs the paths.
    pub(super) async fn run<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Disk, &Arc<Self>) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = Arc::clone(self);
        self.engine.run(move |disk| work(disk, &inner)).await?
    }

    pub(super) async fn open_index(
        self: &Arc<Self>,
        ns: &Namespace,
        snapshot: &Snapshot,
        name: &ArchiveName,
    ) -> Result<IndexReader> {
        let path = self.layout.snapshot(ns, snapshot).join(name.as_str());
        let kind = name.kind();
        self.run(move |disk, inner| IndexReader::open(disk, &inner.engine, &path, kind)).await
    }

    pub(super) async fn open_blob(
        self: &Arc<Self>,
        ns: &Namespace,
        snapshot: &Snapshot,
        name: &ArchiveName,
    ) -> Result<FileReader> {
        let path = self.layout.snapshot(ns, snapshot).join(name.as_str());
        self.run(move |disk, inner| match OpenFile::open(disk, &path) {
            Ok(open) => Ok(FileReader::new(inner.engine.clone(), open)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {
                Err(Error::not_found(format!("open file {path:?} failed - not found")))
            }
            Err(e) => Err(failed("open file failed:", &path, e)),
        })
        .await
    }

    pub(super) async fn update_manifest(
        self: &Arc<Self>,
        ns: &Namespace,
        snapshot: &Snapshot,
        edit: impl FnOnce(&mut Manifest) + Send + 'static,
    ) -> Result<()> {
        let path = self.layout.manifest(ns, snapshot);
        let lock = self.manifest_locks.take(&self.engine, &path).await?;
        let (ns, snapshot) = (ns.clone(), snapshot.clone());
        self.run(move |disk, inner| {
            refuse_links(disk, inner.layout.base(), &inner.layout.snapshot(&ns, &snapshot))?;
            let mut manifest = load_manifest(disk, &path)?.manifest;
            edit(&mut manifest);
            let stored = store_manifest(disk, &inner.durable, &path, &manifest.to_blob());
            inner.manifests.forget(&ns, &snapshot);
            if stored.is_ok() {
                let is_failed = manifest.verify_state().is_some_and(|found| found.state == VerifyOutcome::Failed);
                inner.marks.note(&ns, &snapshot, is_failed);
            }
            drop(lock);
            stored
        })
        .await
    }
}

impl Datastore {
    /// Makes a new datastore: the base directory (which may exist and be empty of a `.chunks`), `.chunks`, `.lock` and the 65,536
    /// chunk directories, in this order, with the modes of spec 01 §1.2. `owner` needs root. What was made is removed again on an error. A
    /// creation that was cut off is completed, as long as there is nothing else in the directory.
    pub async fn create(path: &Path, owner: Option<(u32, u32)>, engine: &Engine) -> Result<()> {
        create::create(path, owner, engine, || false).await
    }

    /// As [`Self::create`]; `is_stopped` is asked every thousand directories, and once it says so all goes again and the answer is `Closed`.
    pub async fn create_unless(
        path: &Path,
        owner: Option<(u32, u32)>,
        engine: &Engine,
        is_stopped: impl Fn() -> bool,
    ) -> Result<()> {
        create::create(path, owner, engine, is_stopped).await
    }

    /// Checks every directory and mode of an existing datastore that is to be adopted, and names the first that is wrong together
    /// with the command that puts it right. Looks at all 65,536 chunk directories: for the day of adoption, not for every start.
    pub async fn verify_layout(path: &Path, owner: Option<(u32, u32)>, engine: &Engine) -> Result<()> {
        create::verify(path, owner, rustix::process::geteuid().as_raw(), engine).await
    }

    /// Opens a datastore, and removes the temporary files that a crashed run of this program left in it. Unfinished snapshots stay: they
    /// are shown as such, and prune removes them (spec 01 §5). Costs a few file operations, however large the datastore is.
    pub async fn open(config: DatastoreConfig, engine: Engine, clock: Clock) -> Result<Self> {
        Self::open_with(config, engine, clock, true).await
    }

    /// As [`Self::open`], and leaves even temporary files of a crashed run as they are: for who only looks.
    pub async fn open_to_look(config: DatastoreConfig, engine: Engine, clock: Clock) -> Result<Self> {
        Self::open_with(config, engine, clock, false).await
    }

    async fn open_with(config: DatastoreConfig, engine: Engine, clock: Clock, clean_up: bool) -> Result<Self> {
        let context = format!("datastore '{}'", config.name);
        let own = engine.clone();
        let inner = engine.run(move |disk| Inner::open(disk, config, own, clock, clean_up)).await?;
        Ok(Self { inner: Arc::new(inner.map_err(|e| e.context(context))?) })
    }

    /// Its name.
    pub fn name(&self) -> &DatastoreName {
        &self.inner.name
    }

    /// What it was told last.
    pub fn config(&self) -> Arc<DatastoreConfig> {
        self.inner.config.lock().clone()
    }

    /// Other settings from now on, for everybody who has this datastore. Name, path, owner and lock directory are those that it was
    /// opened with.
    pub fn set_config(&self, config: DatastoreConfig) {
        let DatastoreConfig { name, path, owner, lock_dir, .. } = (*self.config()).clone();
        self.inner.durable.set_level(config.sync_level);
        self.set_maintenance(config.maintenance.clone());
        self.inner.engine.want_idle_priority(config.background.idle_priority);
        self.inner.budget.set(&config.background);
        *self.inner.config.lock() = Arc::new(DatastoreConfig { name, path, owner, lock_dir, ..config });
    }

    /// Whether both are handles of one open datastore.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.inner, &other.inner)
    }

    /// Whether both are the same directory, by whatever paths.
    pub fn is_same_directory(&self, other: &Self) -> bool {
        self.inner.directory == other.inner.directory
    }

    /// Whether somebody else has this datastore too: a session, a job, a request.
    pub fn is_shared(&self) -> bool {
        Arc::strong_count(&self.inner) > 1
    }

    /// A handle that does not keep it open.
    pub fn downgrade(&self) -> WeakDatastore {
        WeakDatastore { inner: Arc::downgrade(&self.inner) }
    }

    /// Its engine.
    pub fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    /// What it counts.
    pub fn metrics(&self) -> &StoreMetrics {
        &self.inner.metrics
    }

    /// What background work asks before each step, so that backups come first.
    pub fn budget(&self) -> &Budget {
        &self.inner.budget
    }

    /// Its clock.
    pub fn clock(&self) -> &Clock {
        &self.inner.clock
    }

    /// Its directory.
    pub fn base_path(&self) -> &Path {
        self.inner.layout.base()
    }

    /// Whether it lies on a network or user-space file system, where another host may change files behind our back.
    pub fn is_network_fs(&self) -> bool {
        self.inner.network_fs
    }

    /// Begins an operation, unless a maintenance mode refuses it: `Invalid`, naming the datastore, the mode and its message. Whoever uses
    /// the datastore holds the guard to the end. Leases of backups and readers hold one of their own.
    pub fn begin_operation(&self, operation: Operation) -> Result<OperationGuard> {
        self.inner.operations.begin(operation)
    }

    /// Sets or ends a maintenance mode for what begins from now on; returns what runs at that moment, which goes on.
    pub fn set_maintenance(&self, mode: Option<MaintenanceMode>) -> ActiveOperations {
        self.inner.operations.set_mode(mode)
    }

    /// The maintenance mode that is on.
    pub fn maintenance(&self) -> Option<MaintenanceMode> {
        self.inner.operations.mode()
    }

    /// How many operations run.
    pub fn active_operations(&self) -> ActiveOperations {
        self.inner.operations.active()
    }

    /// Space of its file system.
    pub async fn usage(&self) -> Result<FsUsage> {
        let usage = |disk: &Disk, inner: &Arc<Inner>| {
            let base = inner.layout.base();
            disk.usage(base).map_err(|e| failed("unable to get disk usage of", base, e))
        };
        self.inner.run(usage).await
    }

    /// Whether a namespace is there; the root always is.
    pub async fn namespace_exists(&self, ns: &Namespace) -> Result<bool> {
        let ns = ns.clone();
        self.inner.run(move |disk, inner| tree::namespace_exists(disk, &inner.layout, &ns)).await
    }

    /// `parent` and all namespaces below it, at most `max_depth` levels down (`None`: all), parents before children.
    pub async fn namespaces(&self, parent: &Namespace, max_depth: Option<usize>) -> Result<Vec<Namespace>> {
        let parent = parent.clone();
        let max_depth = max_depth.unwrap_or(usize::MAX);
        self.inner.run(move |disk, inner| tree::namespaces(disk, &inner.layout, &parent, max_depth)).await
    }

    /// Makes a namespace; fine if it exists already.
    pub async fn create_namespace(&self, parent: &Namespace, name: &str) -> Result<Namespace> {
        let (parent, ns) = (parent.clone(), parent.child(name)?);
        self.inner.run(move |disk, inner| removal::create_namespace(disk, inner, &parent, ns)).await
    }

    /// That the datastore is at its place: one whose disk is unmounted has no groups to show, and that is no answer.
    pub async fn confirm_place(&self) -> Result<()> {
        self.inner.checker.confirm_place(&self.inner.engine).await
    }

    pub(super) async fn group_dirs(&self, ns: &Namespace, filter: &GroupFilter) -> Result<Vec<Group>> {
        self.confirm_place().await?;
        let (ns, filter) = (ns.clone(), filter.clone());
        self.inner.run(move |disk, inner| tree::groups_of(disk, &inner.layout, &ns, &filter)).await
    }

    /// Looks at each group, some at once, and returns what was found in the order of `groups`.
    pub(super) async fn each_group<T: Send + 'static>(
        &self,
        ns: &Namespace,
        groups: Vec<Group>,
        look: fn(&Disk, &Layout, &Namespace, Group) -> Result<T>,
    ) -> Result<Vec<T>> {
        let looks = groups.into_iter().map(|group| {
            let (inner, ns) = (Arc::clone(&self.inner), ns.clone());
            async move { inner.run(move |disk, inner| look(disk, &inner.layout, &ns, group)).await }
        });
        some_at_once(looks).await
    }

    /// All groups of a namespace that have a readable owner, sorted.
    pub async fn groups(&self, ns: &Namespace) -> Result<Vec<GroupInfo>> {
        let groups = self.group_dirs(ns, &GroupFilter::default()).await?;
        Ok(self.each_group(ns, groups, tree::group_info).await?.into_iter().flatten().collect())
    }

    /// Files of a snapshot: those of the manifest, then the manifest, then the others (spec 05 §4).
    pub async fn files(&self, ns: &Namespace, snapshot: &Snapshot) -> Result<Vec<FileInfo>> {
        let (ns, snapshot) = (ns.clone(), snapshot.clone());
        let files = self.inner.run(move |disk, inner| {
            let dir = SnapshotDir::read(disk, &inner.layout.snapshot(&ns, &snapshot))?.ok_or_else(no_entry)?;
            let loaded = load_manifest(disk, &inner.layout.manifest(&ns, &snapshot))?;
            Ok(list_files(&dir, Some(&ManifestSummary::of(&loaded))).0)
        });
        files.await
    }

    /// Opens an index of a snapshot that nobody locks: it may go while it is read. The error texts are the original's.
    pub async fn open_index(&self, ns: &Namespace, snapshot: &Snapshot, name: &ArchiveName) -> Result<IndexReader> {
        let path = self.inner.layout.snapshot(ns, snapshot).join(name.as_str());
        let what = if name.kind() == ArchiveKind::FixedIndex { "fixed" } else { "dynamic" };
        let opened = self.inner.open_index(ns, snapshot, name).await;
        opened.map_err(|e| e.context(format_args!("unable to read {what} index '{path:?}'")))
    }

    /// Opens a file of a snapshot as it lies there; nobody locks it either.
    pub async fn open_file(&self, ns: &Namespace, snapshot: &Snapshot, name: &ArchiveName) -> Result<FileReader> {
        let path = self.inner.layout.snapshot(ns, snapshot).join(name.as_str());
        let opened = self.inner.run(move |disk, inner| match OpenFile::open(disk, &path) {
            Ok(open) => Ok(FileReader::new(inner.engine.clone(), open)),
            Err(e) => Err(Error::new(Kind::Io, format!("File open failed: {e}"))),
        });
        opened.await
    }

    /// Owner of a group.
    pub async fn owner(&self, ns: &Namespace, group: &Group) -> Result<AuthId> {
        let (path, group) = (self.inner.layout.owner(ns, group), group.clone());
        self.inner.run(move |disk, _| owner_of(disk, &path, &group)).await
    }

    /// Stores the client's log of a backup; refused if there is one. The CRC is checked here.
    pub async fn upload_client_log(&self, ns: &Namespace, snapshot: &Snapshot, blob: Vec<u8>) -> Result<()> {
        let turn = self.inner.manifest_locks.queue(&self.inner.layout.manifest(ns, snapshot)).await;
        let dir = self.inner.layout.snapshot(ns, snapshot);
        let stored = self.inner.run(move |disk, inner| {
            refuse_links(disk, inner.layout.base(), &dir)?;
            let stored = store_client_log(disk, &inner.durable, &dir, &blob);
            drop(turn);
            stored
        });
        stored.await
    }

    /// Reads a manifest.
    pub async fn load_manifest(&self, ns: &Namespace, snapshot: &Snapshot) -> Result<LoadedManifest> {
        let path = self.inner.layout.manifest(ns, snapshot);
        self.inner.run(move |disk, _| load_manifest(disk, &path)).await
    }

    /// Changes a manifest under its lock: waits up to 5 s for it, then load, edit, atomic and durable replacement.
    pub async fn update_manifest(
        &self,
        ns: &Namespace,
        snapshot: &Snapshot,
        edit: impl FnOnce(&mut Manifest) + Send + 'static,
    ) -> Result<()> {
        self.inner.update_manifest(ns, snapshot, edit).await
    }

    /// Puts a chunk into the store, as spec 01 §6.1 and 03 §13 decide. `encoded` is a data blob with its CRC set that belongs to
    /// `digest`; `size` is the length of its plaintext. Inserts of one digest wait for each other, different digests never do.
    pub async fn insert_chunk(&self, digest: Digest, encoded: Bytes, size: ChunkSize) -> Result<Inserted> {
        self.inner.chunks.insert(&self.inner.engine, digest, encoded, size).await
    }

    /// The stored blob of a chunk, unchanged.
    pub async fn read_chunk(&self, digest: Digest) -> Result<Buffer> {
        self.inner.chunks.read(&self.inner.engine, digest).await
    }

    /// Whether chunks are there with a plausible size (design §3). What is missing becomes suspect: its next upload is written
    /// whatever lies there by then. Before anything is called missing, the store itself is seen to be in its place.
    pub async fn check_chunks(&self, digests: Vec<Digest>, class: Class, freshness: Freshness) -> Result<CheckReport> {
        self.check_chunks_with(&digests, class, freshness, |_| {}).await
    }

    /// As [`Self::check_chunks`]; `progress` hears after each batch of at most 4096 how many were asked so far.
    pub async fn check_chunks_with(
        &self,
        digests: &[Digest],
        class: Class,
        freshness: Freshness,
        progress: impl FnMut(usize) + Send,
    ) -> Result<CheckReport> {
        let Inner { checker, chunks, engine, budget, .. } = &*self.inner;
        let _append = (class == Class::Interactive).then(|| budget.append());
        checker.check(engine, chunks, digests, class, freshness, progress).await
    }

    /// As [`Self::check_chunks_with`] for a sweep of `digests`, sorted and each once, that asks servers: where many of one directory are
    /// asked for, it reads that directory instead, unless [`CheckSwitches::finish_by_name`](super::CheckSwitches::finish_by_name) says no, or an
    /// engine is forced. Then presence is seen, and no size.
    pub async fn check_sorted_chunks_with(
        &self,
        digests: &[Digest],
        progress: impl FnMut(usize) + Send,
    ) -> Result<CheckReport> {
        let Inner { checker, chunks, engine, .. } = &*self.inner;
        if self.config().checks.finish_by_name() && engine.may_choose() {
            checker.check_sorted(engine, chunks, digests, progress).await
        } else {
            checker.check(engine, chunks, digests, Class::Sweep, Freshness::Server, progress).await
        }
    }

    /// Remembers chunks as doubtful (a bounded number; the oldest are forgotten first): their next upload is written in any case.
    pub fn mark_suspect(&self, digests: &[Digest]) {
        self.inner.chunks.suspects.mark(digests.iter().copied());
    }

    /// How many chunks are doubtful now.
    pub fn suspects(&self) -> usize {
        self.inner.chunks.suspects.count()
    }

    /// A chunk has been seen to be whole: it is doubtful no longer.
    pub fn trust(&self, digest: &Digest) {
        self.inner.chunks.suspects.clear(digest);
    }

    /// What lies at the place of a chunk, read in the background. An error is the machine's: then nothing is known.
    pub async fn load_chunk(&self, digest: &Digest) -> Result<Stored> {
        self.inner.chunks.load(&self.inner.engine.in_background(), digest).await
    }

    /// Reads a chunk again that was found to be bad, from the disk itself if that can be had. If `judge` says the same of it, it becomes
    /// suspect and is renamed to `DIGEST.N.bad` (spec 01 §6.4). Uploads of the digest wait meanwhile, and running backups are told.
    pub async fn settle_doubt<G: Send + 'static, F: Send + 'static>(
        &self,
        digest: Digest,
        judge: impl FnOnce(Stored) -> Result<G, F> + Send + 'static,
    ) -> Result<Doubt<G, F>> {
        let taking = self.taking(vec![digest]).await;
        let doubt = self.inner.chunks.settle(&self.inner.engine, digest, taking, judge).await?;
        if matches!(doubt, Doubt::Absent(_)) {
            self.confirm_place().await?;
        }
        Ok(doubt)
    }

    /// The chunks of one prefix directory with their inode numbers, without a look at any inode; in the background.
    pub async fn chunk_inodes(&self, prefix: u16) -> Result<Vec<(Digest, u64)>> {
        let dir = self.inner.layout.chunk_dir(prefix);
        self.inner.engine.in_background().run(move |disk| set_aside::chunk_inodes(disk, &dir)).await?
    }

    /// Announces that chunks are about to be removed or renamed. Whoever takes a chunk out of the store holds this around it, the claim of
    /// its digest within, so that a backup that finishes just then asks for the chunk once more. Waits for manifests that are about to appear.
    pub async fn taking(&self, digests: Vec<Digest>) -> Taking {
        self.inner.custody.taken.begin(digests).await
    }

    /// Remembers what is taken out of the store from now on.
    pub fn watch_taken(&self) -> TakenWatch {
        self.inner.custody.taken.watch()
    }

    /// Starts a backup: namespace, group and owner checked, base chosen, directory made, locks taken (spec 03 §2 steps 5, 7–12).
    /// With `benchmark` the owner is not checked.
    pub async fn begin_backup(
        &self,
        ns: &Namespace,
        snapshot: &Snapshot,
        auth: &AuthId,
        benchmark: bool,
    ) -> Result<BackupLease> {
        let operation = self.begin_operation(Operation::Write)?;
        // What is made on the empty mount point of a disk that is not there would be hidden when it comes back.
        self.inner.checker.confirm_place(&self.inner.engine).await?;
        if !self.namespace_exists(ns).await? {
            return Err(tree::namespace_not_found());
        }
        let share = self.inner.process_lock.share(&self.inner.engine, self.inner.clock.now()).await?;
        let begin = Begin {
            store: Arc::clone(&self.inner),
            namespace: ns.clone(),
            snapshot: snapshot.clone(),
            auth: auth.clone(),
            benchmark,
            share,
            operation,
        };
        self.inner.engine.run(move |disk| begin.run(disk)).await?
    }

    /// Starts reading a snapshot, which is locked against removal meanwhile. An unfinished one that nobody writes may be read.
    pub async fn begin_reader(&self, ns: &Namespace, snapshot: &Snapshot) -> Result<ReaderLease> {
        let operation = self.begin_operation(Operation::Read)?;
        let (ns, snapshot) = (ns.clone(), snapshot.clone());
        let begun = self.inner.run(move |disk, inner| {
            let dir = inner.layout.snapshot(&ns, &snapshot);
            match DirLock::take(disk, inner.layout.base(), &dir, LockMode::Shared) {
                Ok(lock) => Ok(ReaderLease::new(Arc::clone(inner), (ns, snapshot), lock, operation)),
                Err(Refusal::Absent) => Err(Error::invalid(format!("snapshot {snapshot} does not exist."))),
                Err(refusal) => Err(refusal.of_snapshot(&dir, "locked by another operation")),
            }
        });
        begun.await
    }

    /// Keeps other processes from working on this datastore (garbage collection): backups of this process go on.
    pub async fn exclude_other_processes(&self) -> Result<Exclusion> {
        self.inner.process_lock.exclude(&self.inner.engine).await
    }

    /// Shares the process lock, as a backup does: other processes collect no garbage meanwhile. Nothing is written, so `None` where the
    /// lock file is not there: no backup has been made yet. Busy if another process collects garbage.
    pub async fn share_with_other_processes(&self) -> Result<Option<Share>> {
        let there = self.inner.run(|disk, inner| Ok(disk.lstat(&inner.layout.lock_file()).is_ok())).await?;
        if !there {
            return Ok(None);
        }
        self.inner.process_lock.share(&self.inner.engine, self.inner.clock.now()).await.map(Some)
    }

    /// When the oldest backup that runs in this process began.
    pub fn oldest_writer(&self) -> Option<EpochSecs> {
        self.inner.process_lock.oldest_share()
    }
}

/// How many directories are read at once when a namespace is listed: enough to keep a slow disk or a network busy, half of the pool at most,
/// so that backups are served in between.
const LISTINGS_AT_ONCE: usize = 8;

/// Runs futures, a bounded number at once, and returns their values in order, or the first error.
async fn some_at_once<T: Send + 'static>(
    futures: impl Iterator<Item = impl Future<Output = Result<T>> + Send + 'static>,
) -> Result<Vec<T>> {
    let mut running = tokio::task::JoinSet::new();
    let mut done: Vec<Option<T>> = Vec::new();
    let mut futures = futures.enumerate();
    loop {
        while running.len() < LISTINGS_AT_ONCE {
            let Some((at, future)) = futures.next() else { break };
            done.push(None);
            running.spawn(async move { (at, future.await) });
        }
        match running.join_next().await {
            Some(Ok((at, value))) => done[at] = Some(value?),
            Some(Err(e)) => return Err(Error::io("listing was cut off", std::io::Error::other(e))),
            None => return Ok(done.into_iter().flatten().collect()),
        }
    }
}
