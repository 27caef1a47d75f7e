//! Where the power is cut, and what of the writes that no flush had made safe is there afterwards. Pure.

use crate::support::blocklog::{Entry, Log, PAGE_BYTES, Pages};
use crate::support::random::Random;

/// What becomes of the writes since the last flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Survival {
    /// All are lost.
    Nothing,
    /// All are there: the machine was reset, the disk went on.
    Everything,
    /// Any of them, whole: a later one may be there without an earlier one.
    Writes,
    /// Any of their pages.
    Pages,
}

const SURVIVALS: [Survival; 4] = [Survival::Nothing, Survival::Writes, Survival::Pages, Survival::Everything];

/// A power cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cut {
    /// How many entries of the log had reached the disk's cache.
    pub point: usize,
    /// And what of them the disk.
    pub survival: Survival,
}

/// Cuts before every flush, where most is at stake, and at every promise, each in one way in turn; then at random points in any way, until
/// there are as many as `wanted`. In the order of the log.
pub fn everywhere(log: &Log, promises: &[usize], wanted: usize, random: &mut Random) -> Vec<Cut> {
    let flushes = log.entries.iter().enumerate().filter(|(_, entry)| matches!(entry, Entry::Flush)).map(|(at, _)| at);
    let mut cuts: Vec<Cut> =
        flushes.zip(SURVIVALS.into_iter().cycle()).map(|(point, survival)| Cut { point, survival }).collect();
    for point in promises {
        cuts.push(Cut { point: *point, survival: Survival::Nothing });
        cuts.push(Cut { point: *point, survival: Survival::Pages });
    }
    // A third at least at random, however many flushes there are.
    let wanted = wanted.max(cuts.len() * 3 / 2);
    while cuts.len() < wanted {
        let survival = SURVIVALS[random.index(SURVIVALS.len())];
        cuts.push(Cut { point: random.index(log.entries.len() + 1), survival });
    }
    cuts.sort_unstable();
    cuts
}

/// `wanted` of those that [`everywhere`] has; every other one at a promise that loses all that is not safe.
pub fn some(log: &Log, promises: &[usize], wanted: usize, random: &mut Random) -> Vec<Cut> {
    let all = everywhere(log, promises, 0, random);
    let mut cuts: Vec<Cut> = (0..wanted)
        .map(|n| match n % 2 {
            0 if !promises.is_empty() => {
                Cut { point: promises[random.index(promises.len())], survival: Survival::Nothing }
            }
            _ => all[random.index(all.len())],
        })
        .collect();
    cuts.sort_unstable();
    cuts
}

/// Makes what the disk holds after one cut after the other.
#[derive(Debug)]
pub struct Rebuilder<'a> {
    log: &'a Log,
    safe: Pages,
    /// Entries that are in `safe`.
    done: usize,
}

impl<'a> Rebuilder<'a> {
    /// Over a log, from its start.
    pub fn new(log: &'a Log) -> Self {
        Self { log, safe: log.base.clone(), done: 0 }
    }

    /// What the disk holds after this cut, which is not before the last one.
    pub fn after(&mut self, cut: Cut, random: &mut Random) -> Pages {
        let reached = &self.log.entries[self.done..cut.point];
        let flushed = reached.iter().rposition(|entry| matches!(entry, Entry::Flush)).map_or(0, |at| at + 1);
        for entry in &reached[..flushed] {
            apply(&mut self.safe, entry);
        }
        self.done += flushed;
        let mut pages = self.safe.clone();
        // From one that is there in four to three in four.
        let odds = 1 + random.below(3);
        let mut is_kept = || random.below(4) < odds;
        for entry in &reached[flushed..] {
            match (cut.survival, entry) {
                (Survival::Nothing, _) | (_, Entry::Flush) => {}
                (Survival::Everything, entry) => apply(&mut pages, entry),
                (Survival::Writes, entry) if is_kept() => apply(&mut pages, entry),
                (Survival::Writes, _) => {}
                (Survival::Pages, Entry::Write(offset, bytes)) => {
                    for (offset, part) in parts(*offset, bytes) {
                        if is_kept() {
                            pages.write(offset, part);
                        }
                    }
                }
            }
        }
        pages
    }
}

fn apply(pages: &mut Pages, entry: &Entry) {
    if let Entry::Write(offset, bytes) = entry {
        pages.write(*offset, bytes);
    }
}

/// The pages of a write.
fn parts(offset: u64, mut bytes: &[u8]) -> Vec<(u64, &[u8])> {
    let (mut at, mut parts) = (offset, Vec::new());
    while !bytes.is_empty() {
        let room = PAGE_BYTES - usize::try_from(at % PAGE_BYTES as u64).expect("less than a page");
        let (part, rest) = bytes.split_at(bytes.len().min(room));
        parts.push((at, part));
        at += part.len() as u64;
        bytes = rest;
    }
    parts
}

#[test]
fn what_was_flushed_is_safe_and_nothing_else() {
    let write = |page: u64, byte: u8| Entry::Write(page * PAGE_BYTES as u64, vec![byte; PAGE_BYTES].into());
    let entries = vec![write(0, 1), Entry::Flush, write(0, 2), write(1, 3), write(1, 4), Entry::Flush, write(2, 5)];
    let log = Log { base: Pages::default(), entries };
    let mut random = Random::new(1);
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..200 {
        let mut rebuilder = Rebuilder::new(&log);
        let mut at = |point, survival| rebuilder.after(Cut { point, survival }, &mut random).bytes_at_pages(3);
        assert_eq!(at(1, Survival::Nothing), [0, 0, 0]);
        assert_eq!(at(2, Survival::Nothing), [1, 0, 0]);
        assert_eq!(at(5, Survival::Nothing), [1, 0, 0]);
        assert_eq!(at(5, Survival::Everything), [2, 4, 0]);
        seen.insert(at(5, Survival::Writes));
        assert_eq!(at(7, Survival::Nothing), [2, 4, 0]);
        assert_eq!(at(7, Survival::Everything), [2, 4, 5]);
    }
    // The later of two writes of a page wins where both are there; a later write may be there without an earlier one.
    let any = [[1, 0, 0], [2, 0, 0], [1, 3, 0], [2, 3, 0], [1, 4, 0], [2, 4, 0]];
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), {
        let mut any = any;
        any.sort_unstable();
        any
    });
}
