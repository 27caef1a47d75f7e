//! Who names some given chunks: one pass over all index files.

use std::collections::HashMap;
use std::sync::Arc;

use super::heal::{Source, remedies};
use super::lookup::{Bits, Lookup};
use super::places::{PLACES_MAX, Places};
use super::report::{ChunkFate, ChunkState};
use super::walk::{Listed, Next, Site, Tenths, UNREADABLE_MAX, Walk, in_order};
use crate::error::{Kind, Result};
use crate::format::manifest::VerifyOutcome;
use crate::store::{Datastore, Found, IndexEntry};
use crate::task::Task;
use crate::types::{ArchiveName, Digest};

/// Chunks that one report is about; more are counted. A store that has lost more than this is to be restored, not read about; and at about
/// 300 bytes each their part of the report stays below 5 MB.
pub(super) const CHUNKS_MAX: usize = 1 << 14;

/// Places kept in all, about 150 bytes of report each; [`PLACES_MAX`] of one archive.
const ALL_PLACES_MAX: usize = 100_000;

/// Chunks that other datastores are asked for. A datastore that has so many of them has the rest as well.
const ELSEWHERE_MAX: usize = 1000;

/// Groups remembered for one chunk, among which those whose next backup is a full one are told first.
const SOURCES_MAX: usize = 32;

const _: () = assert!(PLACES_MAX <= ALL_PLACES_MAX);

/// The chunks that are looked for, and what lies in their places.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) lookup: Arc<Lookup>,
    pub(super) found: Vec<Found>,
}

impl Wanted {
    /// Asks the disk for each of them.
    pub(super) async fn measured(store: &Datastore, digests: Vec<Digest>) -> Result<Self> {
        let lookup = Arc::new(Lookup::of(digests));
        let found = store.measure_chunks(lookup.digests(), |_| ()).await?;
        Ok(Self { lookup, found })
    }

    pub(super) fn is_missing(&self, at: usize) -> bool {
        matches!(self.found[at], Found::Missing(_))
    }
}

/// A snapshot that names some of them.
#[derive(Debug)]
pub(super) struct Traced {
    pub(super) listed: Arc<Listed>,
    pub(super) archives: Vec<(ArchiveName, Places)>,
    /// Whether one of those that it names is missing.
    pub(super) loses_data: bool,
}

/// What the pass has found.
#[derive(Debug, Default)]
pub(super) struct Trace {
    /// In the order of the list.
    pub(super) affected: Vec<Traced>,
    /// For each chunk, how many snapshots name it.
    pub(super) named_by: Vec<u64>,
    /// For each chunk, the newest finished snapshots of groups that name it, as numbers in `affected`.
    pub(super) sources: Vec<Vec<usize>>,
    pub(super) indexes: u64,
    pub(super) unreadable: Vec<String>,
}

/// What one snapshot says.
struct Visit {
    archives: Vec<(ArchiveName, Places)>,
    chunks: Bits,
    unreadable: Vec<String>,
}

/// Reads all index files of `listed`.
pub(super) async fn trace(site: &Site, listed: &[Arc<Listed>], wanted: &Wanted, task: &Task) -> Result<Trace> {
    let count = wanted.lookup.digests().len();
    let mut trace = Trace { named_by: vec![0; count], sources: vec![Vec::new(); count], ..Trace::default() };
    let mut progress = Tenths::new(task, "looking for them in the indexes of all snapshots", listed.len());
    let mut places_left = ALL_PLACES_MAX;
    let start = |at: usize| visit(site.clone(), Arc::clone(&listed[at]), Arc::clone(&wanted.lookup));
    let take = |at: usize, mut visit: Visit| {
        let listed: &Arc<Listed> = &listed[at];
        trace.indexes += listed.indexes.len() as u64;
        trace.unreadable.extend(visit.unreadable);
        trace.unreadable.truncate(UNREADABLE_MAX);
        let mut loses_data = false;
        for chunk in visit.chunks.ones() {
            trace.named_by[chunk] += 1;
            loses_data |= wanted.is_missing(chunk);
            if listed.newest && trace.sources[chunk].len() < SOURCES_MAX {
                trace.sources[chunk].push(trace.affected.len());
            }
        }
        for (_, places) in &mut visit.archives {
            let kept = places.kept.len().min(places_left);
            places.more += (places.kept.len() - kept) as u64;
            places.kept.truncate(kept);
            places_left -= kept;
        }
        if !visit.archives.is_empty() {
            trace.affected.push(Traced { listed: Arc::clone(listed), archives: visit.archives, loses_data });
        }
        progress.tell(at + 1);
    };
    in_order(listed.len(), start, take).await?;
    Ok(trace)
}

async fn visit(site: Site, listed: Arc<Listed>, lookup: Arc<Lookup>) -> Result<Visit> {
    let mut visit = Visit { archives: Vec::new(), chunks: Bits::none(lookup.digests().len()), unreadable: Vec::new() };
    for name in &listed.indexes {
        let (mut walk, mut places) = (Walk::new(&site.store, &listed, name), Places::default());
        loop {
            match walk.next().await? {
                Next::Block(block) => {
                    let lookup = Arc::clone(&lookup);
                    for (chunk, entry) in site.compute.run(move || hits(&lookup, block)).await? {
                        visit.chunks.set(chunk);
                        places.add(&entry);
                    }
                }
                Next::End => break,
                Next::Unreadable(why) => {
                    visit.unreadable.push(why);
                    break;
                }
            }
        }
        if places.entries > 0 {
            visit.archives.push((name.clone(), places));
        }
    }
    Ok(visit)
}

fn hits(lookup: &Lookup, block: Vec<IndexEntry>) -> Vec<(usize, IndexEntry)> {
    block.into_iter().filter_map(|entry| Some((lookup.find(&entry.digest)?, entry))).collect()
}

impl Trace {
    /// What is to be said of each chunk.
    pub(super) async fn fates(
        &self,
        site: &Site,
        wanted: &Wanted,
        others: &[Datastore],
        may_see: impl Fn(&Listed) -> bool,
        task: &Task,
    ) -> Result<Vec<ChunkFate>> {
        let digests = wanted.lookup.digests();
        let aside = set_aside(site, digests).await?;
        let elsewhere = elsewhere(wanted, others, task).await;
        let mut marked: HashMap<usize, bool> = HashMap::new();
        let mut fates = Vec::with_capacity(digests.len());
        for (at, digest) in digests.iter().enumerate() {
            let mut sources = Vec::new();
            for source in &self.sources[at] {
                let listed = &self.affected[*source].listed;
                if !may_see(listed) {
                    continue;
                }
                let is_marked = match marked.get(source) {
                    Some(is_marked) => *is_marked,
                    None => {
                        let state = verify_state(&site.store, listed).await?;
                        *marked.entry(*source).or_insert(state == Some(VerifyOutcome::Failed))
                    }
                };
                let (ns, group) = (listed.ns.clone(), listed.snapshot.group().clone());
                sources.push(Source { ns, group, is_marked });
            }
            let none = Vec::new();
            let (state, reason) = state_of(wanted.found[at]);
            fates.push(ChunkFate {
                digest: digest.to_string(),
                state,
                reason,
                snapshots: self.named_by[at],
                remedies: remedies(
                    &sources,
                    elsewhere.get(digest).unwrap_or(&none),
                    aside.get(digest).unwrap_or(&none),
                ),
            });
        }
        Ok(fates)
    }
}

fn state_of(found: Found) -> (ChunkState, String) {
    match found {
        Found::Present { .. } => (ChunkState::Present, String::new()),
        Found::Missing(reason) => (ChunkState::Missing, reason.to_string()),
        Found::Unknown(errno) => (ChunkState::Unknown, std::io::Error::from(errno).to_string()),
    }
}

/// What a snapshot's manifest says of its last verification; nothing where it cannot be read.
pub(super) async fn verify_state(store: &Datastore, listed: &Listed) -> Result<Option<VerifyOutcome>> {
    match store.load_manifest(&listed.ns, &listed.snapshot).await {
        Ok(loaded) => Ok(loaded.manifest.verify_state().map(|found| found.state)),
        Err(e) if e.kind() == Kind::Closed => Err(e),
        Err(_) => Ok(None),
    }
}

/// The set-aside versions of `digests`, sorted: one reading for each of their directories.
async fn set_aside(site: &Site, digests: &[Digest]) -> Result<HashMap<Digest, Vec<String>>> {
    let mut prefixes: Vec<u16> = digests.iter().map(Digest::prefix).collect();
    prefixes.dedup();
    let mut aside: HashMap<Digest, Vec<String>> = HashMap::new();
    let start = |at: usize| {
        let (store, prefix) = (site.store.clone(), prefixes[at]);
        async move { store.set_aside(prefix).await }
    };
    in_order(prefixes.len(), start, |_, found| {
        for file in found {
            aside.entry(file.digest).or_default().push(file.file_name);
        }
    })
    .await?;
    Ok(aside)
}

/// The other datastores that have the missing ones. One that does not answer is passed over.
async fn elsewhere(wanted: &Wanted, others: &[Datastore], task: &Task) -> HashMap<Digest, Vec<String>> {
    let mut have: HashMap<Digest, Vec<String>> = HashMap::new();
    let digests = wanted.lookup.digests().iter().enumerate();
    let missing: Vec<Digest> =
        digests.filter(|(at, _)| wanted.is_missing(*at)).map(|(_, digest)| *digest).take(ELSEWHERE_MAX).collect();
    for other in others {
        match other.measure_chunks(&missing, |_| ()).await {
            Ok(found) => {
                let there = missing.iter().zip(found).filter(|(_, found)| matches!(found, Found::Present { .. }));
                there.for_each(|(digest, _)| have.entry(*digest).or_default().push(other.name().to_string()));
            }
            Err(e) => task.log(format!("datastore '{}' was not asked for missing chunks - {e}", other.name())),
        }
    }
    have
}
