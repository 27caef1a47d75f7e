//! The chunks that must stay, as fingerprints: 12 bytes each at most. Pure.
//!
//! ```text
//! digest  0    2                 9.75         32
//!         | XX | fingerprint, 62 bits | left out |        XX names the directory and the bucket
//!
//! bucket  a hash table of 8-byte slots:  fingerprint << 2 | met << 1 | 1          0 = empty
//! ```
//!
//! A digest that was added is always found again. One that was not is taken for one that was with a probability of 2⁻⁶² times the chunks in
//! its directory; that keeps a dead chunk until the next run, whose table has another key but the same fingerprints, so until the chunk that
//! it resembles is gone. Nobody loses anything by it.
//!
//! The table of a directory grows by a fifth at 7/8 load, so at least 7/8 · 5/6 of its slots are in use: 8 / 0.729 = 11 bytes a chunk, and a
//! fixed 2 MiB for the 65,536 tables. Where a ceiling is given and reached, the upper half of the directories is dropped from the set, and
//! the caller comes back for them in another pass.
//!
//! Digests of encrypted chunks are whatever a client says, so the place in a table depends on a random key: nobody can aim at one slot.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use crate::types::Digest;

/// Slots of a directory's first table.
const SLOTS_MIN: usize = 4;

const SLOT_BYTES: usize = size_of::<u64>();
const IN_USE: u64 = 0b01;
const MET: u64 = 0b10;
const FLAG_BITS: u32 = 2;

/// Where a digest comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// An index names it; whether it is there, the sweep will see.
    Named,
    /// It was put into the store, or seen there, while the collection ran.
    There,
}

/// The set for the directories of one pass.
#[derive(Debug)]
pub struct LiveSet {
    prefixes: Range<u32>,
    tables: Vec<Table>,
    memory_max: u64,
    slots: usize,
    count: u64,
    key: u64,
}

#[derive(Clone, Debug, Default)]
struct Table {
    slots: Box<[u64]>,
    used: u32,
}

/// Even one directory does not fit below the ceiling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CeilingTooLow;

impl LiveSet {
    /// An empty set for the chunk directories `prefixes` that is to take at most `memory_max` bytes.
    pub fn new(prefixes: Range<u32>, memory_max: u64) -> Self {
        let count = prefixes.len();
        // Odd, so that the multiplication loses nothing.
        let key = RandomState::new().hash_one(0_u8) | 1;
        Self { prefixes, tables: vec![Table::default(); count], memory_max, slots: 0, count: 0, key }
    }

    /// The chunk directories that it is about.
    pub fn prefixes(&self) -> Range<u32> {
        self.prefixes.clone()
    }

    /// How many fingerprints are in it.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Bytes that it takes now.
    pub fn memory_bytes(&self) -> u64 {
        let bytes = self.slots * SLOT_BYTES + self.tables.capacity() * size_of::<Table>() + size_of::<Self>();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Whether it takes more than it may.
    pub fn is_over(&self) -> bool {
        self.memory_bytes() > self.memory_max
    }

    /// Drops the upper half of the directories with all that is known about them.
    pub fn halve(&mut self) -> Result<(), CeilingTooLow> {
        let kept = self.tables.len() / 2;
        if kept == 0 {
            return Err(CeilingTooLow);
        }
        for table in self.tables.drain(kept..) {
            self.slots -= table.slots.len();
            self.count -= u64::from(table.used);
        }
        self.tables.shrink_to_fit();
        self.prefixes.end = self.prefixes.start + u32::try_from(kept).unwrap_or(u32::MAX);
        Ok(())
    }

    fn table_of(&self, digest: &Digest) -> Option<usize> {
        let prefix = u32::from(digest.prefix());
        self.prefixes.contains(&prefix).then(|| (prefix - self.prefixes.start) as usize)
    }

    /// Adds a digest, if it belongs to a directory of this set. Whether it was not in it yet.
    pub fn add(&mut self, digest: &Digest, mark: Mark) -> bool {
        let Some(at) = self.table_of(digest) else { return false };
        let (table, print) = (&mut self.tables[at], print_of(digest));
        let met = if mark == Mark::There { MET } else { 0 };
        if let Some(slot) = table.find(print, self.key) {
            table.slots[slot] |= met;
            return false;
        }
        let before = table.slots.len();
        table.add(print | IN_USE | met, self.key);
        self.slots += table.slots.len() - before;
        self.count += 1;
        true
    }

    /// Whether a digest is in it, or looks like one that is.
    pub fn contains(&self, digest: &Digest) -> bool {
        self.slot_of(digest).is_some()
    }

    /// Whether it is in it; notes that its file was met.
    pub fn meet(&mut self, digest: &Digest) -> bool {
        let Some((at, slot)) = self.slot_of(digest) else { return false };
        self.tables[at].slots[slot] |= MET;
        true
    }

    /// Notes that the files of a whole directory were met, given by their [`print_of`], if all of them are in it. Returns how many of the directory were not
    /// met then; `None`, and nothing is noted, if one is not in it.
    pub fn meet_all(&mut self, prefix: u16, prints: &[u64]) -> Option<u64> {
        let at = u32::from(prefix).checked_sub(self.prefixes.start)? as usize;
        let (table, key) = (self.tables.get_mut(at)?, self.key);
        if !prints.iter().all(|print| table.find(*print, key).is_some()) {
            return None;
        }
        for print in prints {
            if let Some(slot) = table.find(*print, key) {
                table.slots[slot] |= MET;
            }
        }
        Some(self.unmet_count(prefix))
    }

    /// Whether an index names it and its file was not met.
    pub fn is_unmet(&self, digest: &Digest) -> bool {
        self.slot_of(digest).is_some_and(|(at, slot)| self.tables[at].slots[slot] & MET == 0)
    }

    /// How many of a directory were not met.
    pub fn unmet_count(&self, prefix: u16) -> u64 {
        let prefix = u32::from(prefix);
        if !self.prefixes.contains(&prefix) {
            return 0;
        }
        let slots = &self.tables[(prefix - self.prefixes.start) as usize].slots;
        slots.iter().filter(|slot| **slot & (IN_USE | MET) == IN_USE).count() as u64
    }

    fn slot_of(&self, digest: &Digest) -> Option<(usize, usize)> {
        let at = self.table_of(digest)?;
        Some((at, self.tables[at].find(print_of(digest), self.key)?))
    }
}

/// The fingerprint in its place within a slot: all of a digest that is compared, its directory aside.
pub fn print_of(digest: &Digest) -> u64 {
    let bytes: [u8; 8] = digest.0[2..10].try_into().expect("eight of them");
    u64::from_be_bytes(bytes) >> FLAG_BITS << FLAG_BITS
}

/// Maps a fingerprint onto `0..slots`.
fn home(print: u64, key: u64, slots: usize) -> usize {
    let mixed = u128::from(print.wrapping_mul(key));
    usize::try_from((mixed * slots as u128) >> 64).unwrap_or(0)
}

impl Table {
    fn find(&self, print: u64, key: u64) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = home(print, key, self.slots.len());
        // There is an empty slot, so this ends.
        while self.slots[at] != 0 {
            if self.slots[at] & !(IN_USE | MET) == print {
                return Some(at);
            }
            at = if at + 1 == self.slots.len() { 0 } else { at + 1 };
        }
        None
    }

    /// Adds what is known to be absent.
    fn add(&mut self, slot: u64, key: u64) {
        if (self.used as usize + 1) * 8 > self.slots.len() * 7 {
            let count = (self.slots.len() + self.slots.len() / 5 + 1).max(SLOTS_MIN);
            let old = std::mem::replace(&mut self.slots, vec![0; count].into());
            for slot in old.iter().filter(|slot| **slot != 0) {
                place(&mut self.slots, *slot, key);
            }
        }
        place(&mut self.slots, slot, key);
        self.used += 1;
    }
}

fn place(slots: &mut [u64], slot: u64, key: u64) {
    let mut at = home(slot & !(IN_USE | MET), key, slots.len());
    while slots[at] != 0 {
        at = if at + 1 == slots.len() { 0 } else { at + 1 };
    }
    slots[at] = slot;
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    const ALL: Range<u32> = 0..65_536;

    /// Spread over all directories.
    fn digest(n: u64) -> Digest {
        Digest::of(&n.to_le_bytes())
    }

    /// In one of few directories, with fingerprints that differ in few bits.
    fn crowded(n: u8) -> Digest {
        let mut bytes = [0; 32];
        (bytes[1], bytes[9]) = (n % 3, n & 0xfc);
        Digest(bytes)
    }

    #[test]
    fn a_chunk_costs_at_most_12_bytes() {
        let mut set = LiveSet::new(ALL, u64::MAX);
        let empty = set.memory_bytes();
        let mut worst: u64 = 0;
        for n in 0..1_000_000 {
            set.add(&digest(n), Mark::Named);
            if n > 500_000 && n % 1024 == 0 {
                worst = worst.max((set.memory_bytes() - empty) * 1000 / set.count());
            }
        }
        assert!(worst <= 12_000, "{worst} thousandths of a byte");
        assert!(empty <= 2 << 20, "{empty} bytes fixed");
        assert!((0..1_000_000).all(|n| set.contains(&digest(n))));
        assert!(!(1_000_000..1_100_000).any(|n| set.contains(&digest(n))));
    }

    #[test]
    fn what_the_first_ten_bytes_do_not_tell_apart_is_kept_together() {
        let (mut one, mut other) = (digest(1), digest(1));
        (one.0[31], other.0[31]) = (1, 2);
        let mut set = LiveSet::new(ALL, u64::MAX);
        assert!(set.add(&one, Mark::Named));
        assert!(!set.add(&other, Mark::Named) && set.contains(&other));
        other.0[8] ^= 1;
        assert!(!set.contains(&other));
        assert!(set.add(&Digest::ZERO, Mark::Named) && set.contains(&Digest::ZERO), "a fingerprint of zeros is one");
    }

    #[test]
    fn a_directory_is_met_as_a_whole_or_not_at_all() {
        let mut set = LiveSet::new(1..3, u64::MAX);
        let digests: Vec<Digest> = (0..64).map(|n| crowded(n << 2)).filter(|digest| digest.prefix() == 1).collect();
        for digest in &digests {
            set.add(digest, Mark::Named);
        }
        let prints: Vec<u64> = digests.iter().map(print_of).collect();
        let strange = [prints.as_slice(), &[print_of(&digest(7))]].concat();
        assert_eq!((set.meet_all(1, &strange), set.unmet_count(1)), (None, prints.len() as u64));
        assert_eq!(
            (set.meet_all(1, &prints[2..]), set.is_unmet(&digests[0]), set.is_unmet(&digests[2])),
            (Some(2), true, false)
        );
        assert_eq!(set.meet_all(1, &prints), Some(0));
        assert_eq!((set.meet_all(2, &[]), set.meet_all(0, &[]), set.meet_all(3, &[])), (Some(0), None, None));
    }

    #[test]
    fn past_the_ceiling_the_upper_half_is_for_another_pass() {
        let mut set = LiveSet::new(ALL, 3 << 20);
        let mut dropped = 0;
        for n in 0..300_000 {
            set.add(&digest(n), Mark::Named);
            while set.is_over() {
                set.halve().unwrap();
                dropped += 1;
            }
        }
        assert!(dropped > 0 && set.memory_bytes() <= 3 << 20);
        let end = set.prefixes().end;
        assert_eq!(end, 65_536 >> dropped);
        for n in 0..300_000 {
            assert_eq!(set.contains(&digest(n)), u32::from(digest(n).prefix()) < end);
        }
        let mut one = LiveSet::new(7..8, 1);
        assert_eq!(one.halve(), Err(CeilingTooLow));
    }

    #[test]
    fn a_digest_that_no_file_was_met_for_is_told() {
        let mut set = LiveSet::new(ALL, u64::MAX);
        let digests: Vec<Digest> = (0..90).map(|n| crowded(n << 2)).collect();
        for digest in &digests {
            set.add(digest, Mark::Named);
        }
        assert!(set.meet(&digests[0]) && !set.is_unmet(&digests[0]) && set.is_unmet(&digests[1]));
        // Put into the store meanwhile: it is there, whoever else names it.
        set.add(&digests[1], Mark::There);
        set.add(&digests[1], Mark::Named);
        assert!(!set.is_unmet(&digests[1]));
        assert!(!set.meet(&digest(1)) && !set.is_unmet(&digest(1)));
        let unmet: u64 = (0..3).map(|prefix| set.unmet_count(prefix)).sum();
        assert_eq!(unmet, set.count() - 2);
        assert_eq!(LiveSet::new(7..8, 1).unmet_count(9), 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_as_a_map(steps in prop::collection::vec((any::<u8>(), 0..3_u8), 0..600), range in (0..3_u32, 0..4_u32)) {
            let prefixes = range.0..range.0 + range.1;
            let mut set = LiveSet::new(prefixes.clone(), u64::MAX);
            let mut model: HashMap<Digest, bool> = HashMap::new();
            for (n, what) in steps {
                let digest = crowded(n);
                let covered = prefixes.contains(&u32::from(digest.prefix()));
                match what {
                    0 | 1 => {
                        let new = covered && !model.contains_key(&digest);
                        prop_assert_eq!(set.add(&digest, if what == 0 { Mark::Named } else { Mark::There }), new);
                        if covered {
                            *model.entry(digest).or_default() |= what == 1;
                        }
                    }
                    _ => {
                        prop_assert_eq!(set.meet(&digest), model.contains_key(&digest));
                        model.entry(digest).and_modify(|met| *met = true);
                    }
                }
            }
            prop_assert_eq!(set.count(), model.len() as u64);
            for n in 0..=255 {
                let digest = crowded(n);
                prop_assert_eq!(set.contains(&digest), model.contains_key(&digest));
                prop_assert_eq!(set.is_unmet(&digest), model.get(&digest) == Some(&false));
            }
        }
    }
}
