//! One snapshot: its files against its manifest, its chunks against the disk and against all other snapshots.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::MaySee;
use super::lookup::{Bits, Lookup};
use super::report::{
    ArchiveRow, ChunkTotals, FileRow, Named, SharingGroup, SharingSnapshot, SnapshotReport, Verification,
};
use super::trace::{CHUNKS_MAX, Wanted, trace};
use super::walk::{self, Listed, Next, Site, Tenths, UNREADABLE_MAX, Walk, in_order};
use crate::engine::{Class, ComputePool};
use crate::error::{Error, Kind, Result};
use crate::format::blob::BLOB_ENCODED_BYTES_MAX;
use crate::format::manifest::{Manifest, ManifestFile};
use crate::protocol::passes::{PASS_DIGESTS_MAX, Pass};
use crate::store::{Datastore, Found, Freshness, IndexEntry, IndexReader, ReaderLease};
use crate::task::Task;
use crate::types::{ArchiveKind, ArchiveName, Digest, Group, MANIFEST_BLOB, Namespace, Snapshot, Upid};

/// Snapshots that share chunks and are named one by one; all count, and all groups are named.
const SNAPSHOTS_NAMED_MAX: usize = 100;

/// What is to be inspected.
pub struct Inspection {
    /// In which datastore.
    pub store: Datastore,
    /// Who searches.
    pub compute: ComputePool,
    /// Where the snapshot lies.
    pub ns: Namespace,
    /// Which.
    pub snapshot: Snapshot,
    /// Only the chunks of this archive.
    pub archive: Option<ArchiveName>,
    /// Which namespaces are named.
    pub may_see: MaySee,
    /// Where missing chunks are looked for too.
    pub others: Vec<Datastore>,
}

impl std::fmt::Debug for Inspection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { store, ns, snapshot, .. } = self;
        write!(f, "inspection of {snapshot} in namespace '{ns}' of {}", store.name())
    }
}

/// An index of the snapshot, open.
struct Own {
    index: IndexReader,
    row: ArchiveRow,
    zero: Option<Digest>,
}

/// What other snapshots share, added up over all passes.
#[derive(Default)]
struct Shared {
    /// For each listed snapshot, chunks and bytes of their files.
    snapshots: Vec<(u64, u64)>,
    groups: BTreeMap<(Namespace, Group), SharingGroup>,
    unreadable: Vec<String>,
}

impl Inspection {
    /// Worker type and id of its task.
    pub fn worker(&self) -> (&'static str, String) {
        ("inspect", format!("{}:{}:{}", self.store.name(), self.ns, self.snapshot))
    }

    /// Does it, with the snapshot locked as a reader does. Errors: there is no such snapshot or archive, it is being written or removed, or the
    /// machine failed. Drop the future to stop it.
    pub async fn run(&self, task: &Task) -> Result<SnapshotReport> {
        self.run_keeping(task, PASS_DIGESTS_MAX).await
    }

    /// The same with at most so many digests in memory.
    pub(super) async fn run_keeping(&self, task: &Task, digests_max: usize) -> Result<SnapshotReport> {
        let lease = self.store.begin_reader(&self.ns, &self.snapshot).await?;
        let report = self.look(&lease, task, digests_max).await;
        lease.release().await;
        report
    }

    async fn look(&self, lease: &ReaderLease, task: &Task, digests_max: usize) -> Result<SnapshotReport> {
        let listed = walk::list(&self.store).await?;
        let here = listed.iter().find(|listed| listed.ns == self.ns && listed.snapshot == self.snapshot);
        let here = Arc::clone(here.ok_or_else(|| Error::invalid(format!("snapshot {} is gone", self.snapshot)))?);
        let (manifest, manifest_fault) = match self.store.load_manifest(&self.ns, &self.snapshot).await {
            Ok(loaded) => (Some(loaded.manifest), None),
            Err(e) if e.kind() == Kind::Closed => return Err(e),
            Err(_) if !here.finished => (None, Some("there is none: the backup was not finished".to_owned())),
            Err(e) => (None, Some(e.to_string())),
        };
        let mut report = SnapshotReport {
            store: self.store.name().to_string(),
            snapshot: Named::of(&self.ns, &self.snapshot),
            archive: self.archive.as_ref().map(ToString::to_string),
            sound: false,
            verification: manifest.as_ref().and_then(verification),
            manifest_fault,
            newest: here.newest,
            files: Vec::new(),
            archives: Vec::new(),
            chunks: ChunkTotals::default(),
            groups: Vec::new(),
            snapshots: Vec::new(),
            more_snapshots: 0,
            hidden_snapshots: 0,
            unreadable: Vec::new(),
            missing: Vec::new(),
        };
        let mut own = self.files(lease, manifest.as_ref(), &mut report).await?;
        let missing = self.chunks(&mut own, &listed, &here, task, digests_max, &mut report).await?;
        report.archives = own.into_iter().map(|own| own.row).collect();
        self.fates(missing, &listed, &here, task, &mut report).await?;
        let no_fault = report.manifest_fault.is_none() && report.files.iter().all(|file| file.fault.is_none());
        report.sound = no_fault && report.chunks.missing == 0 && report.chunks.unknown == 0;
        Ok(report)
    }

    /// Looks at each file; the indexes that can be read come back.
    async fn files(
        &self,
        lease: &ReaderLease,
        manifest: Option<&Manifest>,
        report: &mut SnapshotReport,
    ) -> Result<Vec<Own>> {
        let mut own = Vec::new();
        let there = self.store.stored_files(&self.ns, &self.snapshot).await?;
        let listed = manifest.map_or(&[] as &[ManifestFile], Manifest::files);
        let mut names: Vec<(ArchiveName, Option<&ManifestFile>)> =
            listed.iter().map(|file| (file.filename.clone(), Some(file))).collect();
        // What no manifest lists is there all the same, and garbage collection keeps what it names.
        let strays = there.iter().filter(|name| listed.iter().all(|file| file.filename != **name));
        names.extend(strays.map(|name| (name.clone(), None)));
        for (name, file) in names {
            let mut row = FileRow {
                filename: name.to_string(),
                kind: kind_of(&name).to_owned(),
                size: file.map(|file| file.size),
                crypt_mode: file.map(|file| file.crypt_mode.as_str().to_owned()),
                fault: None,
            };
            let wanted = self.archive.as_ref().is_none_or(|only| *only == name);
            let seen = match name.kind() {
                ArchiveKind::Blob => blob(&self.compute, lease, &name).await,
                ArchiveKind::FixedIndex | ArchiveKind::DynamicIndex => match open(&self.compute, lease, &name).await {
                    Ok((index, size, csum)) => {
                        if wanted {
                            own.push(index);
                        }
                        Ok((size, csum))
                    }
                    Err(e) => Err(e),
                },
            };
            match seen {
                Ok((size, csum)) => {
                    row.size = Some(size);
                    row.fault = file.and_then(|file| fault_of(file, size, &csum));
                }
                Err(e) if e.kind() == Kind::Closed => return Err(e),
                Err(e) => row.fault = Some(e.to_string()),
            }
            report.files.push(row);
        }
        if let Some(only) = &self.archive
            && report.files.iter().all(|file| file.filename != only.as_str())
        {
            return Err(Error::invalid(format!("snapshot {} has no file '{only}'", self.snapshot)));
        }
        Ok(own)
    }

    /// Everything about the chunks that is a number. Those that are missing come back, at most [`CHUNKS_MAX`].
    async fn chunks(
        &self,
        own: &mut [Own],
        listed: &[Arc<Listed>],
        here: &Arc<Listed>,
        task: &Task,
        digests_max: usize,
        report: &mut SnapshotReport,
    ) -> Result<Vec<Digest>> {
        let site = self.site();
        let others: Vec<Arc<Listed>> = listed.iter().filter(|listed| *listed != here).cloned().collect();
        let mut shared = Shared { snapshots: vec![(0, 0); others.len()], ..Shared::default() };
        let mut missing = Vec::new();
        let mut pass = Some(Pass::first(digests_max));
        let mut is_first = true;
        while let Some(now) = pass {
            let (digests, next) = self.collect(own, now).await?;
            let lookup = Arc::new(Lookup::of(digests));
            let mut progress = Tenths::new(task, "asking for its chunks", lookup.digests().len());
            let found = Arc::new(self.store.measure_chunks(lookup.digests(), |done| progress.tell(done)).await?);
            for own in own.iter_mut() {
                self.count(own, &lookup, &found, is_first).await?;
            }
            let in_others = self.share(&site, &others, &lookup, &found, task, &mut shared).await?;
            let totals = &mut report.chunks;
            totals.distinct += found.len() as u64;
            let mut is_shared = vec![false; found.len()];
            in_others.ones().for_each(|at| is_shared[at] = true);
            for ((digest, found), is_shared) in lookup.digests().iter().zip(found.iter()).zip(is_shared) {
                let bytes = bytes_of(*found);
                totals.disk_bytes += bytes;
                match found {
                    Found::Missing(_) => {
                        totals.missing += 1;
                        if missing.len() < CHUNKS_MAX {
                            missing.push(*digest);
                        }
                    }
                    Found::Unknown(_) => totals.unknown += 1,
                    Found::Present { .. } => {}
                }
                let (chunks, disk_bytes) = match is_shared {
                    true => (&mut totals.shared, &mut totals.shared_disk_bytes),
                    false => (&mut totals.own, &mut totals.own_disk_bytes),
                };
                *chunks += 1;
                *disk_bytes += bytes;
            }
            (pass, is_first) = (next, false);
        }
        report.chunks.entries = own.iter().map(|own| own.row.entries).sum();
        report.chunks.bytes = own.iter().map(|own| own.row.bytes).sum();
        self.tell_shared(shared, &others, report);
        Ok(missing)
    }

    async fn collect(&self, own: &[Own], mut pass: Pass) -> Result<(Vec<Digest>, Option<Pass>)> {
        for own in own {
            let mut scan = own.index.scan();
            while let Some(block) = scan.next_block().await? {
                for entry in &block {
                    if pass.add(&entry.digest) {
                        pass = self.compute.run(move || (pass.compact(), pass).1).await?;
                    }
                }
            }
        }
        self.compute.run(move || pass.end()).await
    }

    /// Counts what an index of the snapshot names of one pass.
    async fn count(&self, own: &mut Own, lookup: &Arc<Lookup>, found: &Arc<Vec<Found>>, is_first: bool) -> Result<()> {
        let mut bits = Bits::none(found.len());
        let mut scan = own.index.scan();
        while let Some(block) = scan.next_block().await? {
            let (lookup, found, zero) = (Arc::clone(lookup), Arc::clone(found), own.zero);
            let work = move || {
                let (mut zeros, mut lost, mut lost_bytes) = (0, 0, 0);
                for IndexEntry { digest, size_bytes, .. } in &block {
                    zeros += u64::from(zero == Some(*digest));
                    let Some(at) = lookup.find(digest) else { continue };
                    bits.set(at);
                    if matches!(found[at], Found::Missing(_)) {
                        lost += 1;
                        lost_bytes += u64::from(*size_bytes);
                    }
                }
                (bits, zeros, lost, lost_bytes)
            };
            let (zeros, lost, lost_bytes);
            (bits, zeros, lost, lost_bytes) = self.compute.run(work).await?;
            own.row.lost_entries += lost;
            own.row.lost_bytes += lost_bytes;
            if is_first {
                own.row.zero_entries += zeros;
            }
        }
        own.row.distinct += bits.ones().count() as u64;
        Ok(())
    }

    /// Which chunks of one pass other snapshots name.
    async fn share(
        &self,
        site: &Site,
        others: &[Arc<Listed>],
        lookup: &Arc<Lookup>,
        found: &[Found],
        task: &Task,
        shared: &mut Shared,
    ) -> Result<Bits> {
        let mut all = Bits::none(found.len());
        let mut group = Bits::none(found.len());
        if found.is_empty() {
            return Ok(all);
        }
        let measure =
            |bits: &Bits| bits.ones().fold((0, 0), |(chunks, bytes), at| (chunks + 1, bytes + bytes_of(found[at])));
        let mut progress = Tenths::new(task, "reading the indexes of the other snapshots", others.len());
        let start = |at: usize| named(site.clone(), Arc::clone(&others[at]), Arc::clone(lookup));
        let take = |at: usize, (bits, unreadable): (Bits, Vec<String>)| {
            let listed = &others[at];
            let (chunks, bytes) = measure(&bits);
            shared.snapshots[at].0 += chunks;
            shared.snapshots[at].1 += bytes;
            shared.unreadable.extend(unreadable);
            group.add(&bits);
            if others.get(at + 1).is_none_or(|next| !next.same_group(listed)) {
                let (chunks, bytes) = measure(&group);
                if chunks > 0 {
                    let key = (listed.ns.clone(), listed.snapshot.group().clone());
                    let of_group = shared.groups.entry(key).or_insert_with_key(|(ns, group)| SharingGroup {
                        ns: ns.to_string(),
                        group: group.to_string(),
                        snapshots: 0,
                        chunks: 0,
                        disk_bytes: 0,
                    });
                    of_group.chunks += chunks;
                    of_group.disk_bytes += bytes;
                }
                all.add(&group);
                group = Bits::none(found.len());
            }
            progress.tell(at + 1);
        };
        in_order(others.len(), start, take).await?;
        Ok(all)
    }

    fn tell_shared(&self, shared: Shared, others: &[Arc<Listed>], report: &mut SnapshotReport) {
        let Shared { snapshots, mut groups, mut unreadable } = shared;
        let mut rows = Vec::new();
        for (listed, (chunks, disk_bytes)) in others.iter().zip(snapshots).filter(|(_, (chunks, _))| *chunks > 0) {
            if !(self.may_see)(&listed.ns) {
                report.hidden_snapshots += 1;
                continue;
            }
            if let Some(group) = groups.get_mut(&(listed.ns.clone(), listed.snapshot.group().clone())) {
                group.snapshots += 1;
            }
            rows.push(SharingSnapshot { snapshot: Named::of(&listed.ns, &listed.snapshot), chunks, disk_bytes });
        }
        rows.sort_by_key(|row| std::cmp::Reverse(row.chunks));
        report.more_snapshots = rows.len().saturating_sub(SNAPSHOTS_NAMED_MAX) as u64;
        rows.truncate(SNAPSHOTS_NAMED_MAX);
        report.snapshots = rows;
        report.groups = groups.into_iter().filter(|((ns, _), _)| (self.may_see)(ns)).map(|(_, group)| group).collect();
        report.groups.sort_by_key(|group| std::cmp::Reverse(group.chunks));
        // Once, however many passes met it.
        unreadable.sort();
        unreadable.dedup();
        unreadable.truncate(UNREADABLE_MAX);
        report.unreadable = unreadable;
    }

    /// What is to be said of the missing chunks, and where in the archives they are missing.
    async fn fates(
        &self,
        missing: Vec<Digest>,
        listed: &[Arc<Listed>],
        here: &Arc<Listed>,
        task: &Task,
        report: &mut SnapshotReport,
    ) -> Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        let site = self.site();
        // Asked for once more as every check does: uploads, running backups and metrics know of the holes from now on.
        self.store.check_chunks(missing.clone(), Class::Sweep, Freshness::Server).await?;
        let wanted = Wanted::measured(&self.store, missing).await?;
        let trace = trace(&site, listed, &wanted, task).await?;
        let may_see = |listed: &Listed| (self.may_see)(&listed.ns);
        report.missing = trace.fates(&site, &wanted, &self.others, may_see, task).await?;
        let found = trace.affected.into_iter().find(|traced| traced.listed == *here);
        for (name, places) in found.into_iter().flat_map(|traced| traced.archives) {
            if let Some(row) = report.archives.iter_mut().find(|row| row.archive == name.as_str()) {
                row.places = places.kept;
                row.more_places = places.more;
            }
        }
        Ok(())
    }

    fn site(&self) -> Site {
        Site { store: self.store.clone(), compute: self.compute.clone() }
    }
}

/// Which chunks of a lookup a snapshot names, and the indexes that did not say.
async fn named(site: Site, listed: Arc<Listed>, lookup: Arc<Lookup>) -> Result<(Bits, Vec<String>)> {
    let mut bits = Bits::none(lookup.digests().len());
    let mut unreadable = Vec::new();
    for name in &listed.indexes {
        let mut walk = Walk::new(&site.store, &listed, name);
        loop {
            match walk.next().await? {
                Next::Block(block) => {
                    let lookup = Arc::clone(&lookup);
                    let work = move || {
                        block.iter().filter_map(|entry| lookup.find(&entry.digest)).for_each(|at| bits.set(at));
                        bits
                    };
                    bits = site.compute.run(work).await?;
                }
                Next::End => break,
                Next::Unreadable(why) => {
                    unreadable.push(why);
                    break;
                }
            }
        }
    }
    Ok((bits, unreadable))
}

/// Opens an index and reads it once: its size and the checksum over its entries.
async fn open(compute: &ComputePool, lease: &ReaderLease, name: &ArchiveName) -> Result<(Own, u64, Digest)> {
    let index = lease.open_index(name).await?;
    let mut scan = index.scan();
    while scan.next_block().await?.is_some() {}
    let csum = scan.csum().unwrap_or_else(|| index.stored_csum());
    let zero = match index.chunk_bytes() {
        Some(bytes) => {
            let bytes = usize::try_from(bytes).unwrap_or(0);
            Some(compute.run(move || Digest::of(&vec![0; bytes])).await?)
        }
        None => None,
    };
    let size = index.size_bytes();
    let row = ArchiveRow { archive: name.to_string(), entries: index.count(), bytes: size, ..ArchiveRow::default() };
    Ok((Own { index, row, zero }, size, csum))
}

/// Length and checksum of a blob.
async fn blob(compute: &ComputePool, lease: &ReaderLease, name: &ArchiveName) -> Result<(u64, Digest)> {
    let encoded = lease.open_blob(name).await?.read_all(BLOB_ENCODED_BYTES_MAX).await?;
    compute.run(move || (encoded.len() as u64, Digest::of(&encoded))).await
}

fn kind_of(name: &ArchiveName) -> &'static str {
    match name.kind() {
        ArchiveKind::FixedIndex => "fixed-index",
        ArchiveKind::DynamicIndex => "dynamic-index",
        ArchiveKind::Blob => "blob",
    }
}

/// What the manifest says otherwise.
fn fault_of(file: &ManifestFile, size: u64, csum: &Digest) -> Option<String> {
    debug_assert_ne!(file.filename.as_str(), MANIFEST_BLOB);
    match (file.size == size, file.csum == *csum) {
        (true, true) => None,
        (false, _) => Some(format!("wrong size: {size}, the manifest says {}", file.size)),
        (true, false) => Some(format!("wrong checksum: {csum}, the manifest says {}", file.csum)),
    }
}

fn bytes_of(found: Found) -> u64 {
    match found {
        Found::Present { size_bytes } => size_bytes,
        Found::Missing(_) | Found::Unknown(_) => 0,
    }
}

fn verification(manifest: &Manifest) -> Option<Verification> {
    let found = manifest.verify_state()?;
    let time = found.upid.parse::<Upid>().ok().map(|upid| upid.start);
    Some(Verification { state: found.state.as_str().to_owned(), upid: found.upid, time })
}
