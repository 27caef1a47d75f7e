//! The chunks that a session knows: digest → size and where it was heard of, in at most 48 bytes each. Pure.
//!
//! ```text
//! hash(digest) ─ 8 bits ─→ shard 0..256 ─ 32 bits ─→ home slot ─ probe onwards ─→ slot, 36 bytes
//!
//! slot  0        32            35      36
//!       | digest | size − 1    | meta  |     meta = flags (2 bits) | 1 + distance from the home slot (6 bits, 0 = empty)
//! ```
//!
//! Each shard is an open-addressing table with robin-hood probing whose capacity is any number, not a power of two: it
//! grows by an eighth at 7/8 load, so that at least 7/9 of the slots are in use (36 / (7/9) = 46.3 bytes a chunk), and
//! only 1/256 of the map is copied at a time. The distance in the slot lets a search stop early without hashing what it
//! passes. Figures: docs/performance.md, "Presence map".
//!
//! Digests of encrypted chunks are whatever the client says, so the hash has a random key (SipHash of the standard
//! library): nobody can aim at one shard or one slot.

use std::hash::{BuildHasher, RandomState};

use crate::types::{ChunkSize, DIGEST_BYTES, Digest};

/// Shards of a map. Enough that copying one when it grows is neither a pause nor a second map in memory.
const SHARDS: usize = 256;

const SLOT_BYTES: usize = SIZE_AT + 4;
const SIZE_AT: usize = DIGEST_BYTES;
const META_AT: usize = SIZE_AT + 3;

/// Farthest that a chunk may lie from its home slot; the six bits of `meta` hold one more than it. At 7/8 load
/// about one chunk in 10^7 is farther away, and a shard to which that happens grows early.
const DISTANCE_MAX: u8 = 62;
const FLAG_BITS: u32 = 2;
const FLAGS_MASK: u8 = 0b11;
const FROM_BASE: u8 = 0b01;
const UPLOADED: u8 = 0b10;

/// Slots of a shard's first table.
const SLOTS_MIN: usize = 8;

/// Where a session heard of a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An index of the base snapshot names it.
    Base,
    /// The client sent it in this session.
    Upload,
}

/// What a session knows about a chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Length of the plaintext.
    pub size: ChunkSize,
    /// An index of the base snapshot names it.
    pub from_base: bool,
    /// The client sent it in this session.
    pub uploaded: bool,
}

type Slot = [u8; SLOT_BYTES];

/// digest → [`Known`]. A fixed 8 KiB, and 41 to 47 bytes for each chunk once there are some ten thousand.
#[derive(Debug)]
pub struct PresenceMap {
    shards: Vec<Shard>,
    key: RandomState,
    count: u64,
}

#[derive(Debug, Default)]
struct Shard {
    slots: Vec<Slot>,
    used: usize,
}

impl Default for PresenceMap {
    fn default() -> Self {
        Self::new()
    }
}

impl PresenceMap {
    /// An empty map with a hash key of its own.
    pub fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect(), key: RandomState::new(), count: 0 }
    }

    /// How many chunks are known.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Bytes that the tables occupy now.
    pub fn memory_bytes(&self) -> u64 {
        let slots: usize = self.shards.iter().map(|shard| shard.slots.capacity()).sum();
        let bytes = slots * SLOT_BYTES + self.shards.capacity() * size_of::<Shard>() + size_of::<Self>();
        u64::try_from(bytes).unwrap_or(u64::MAX)
    }

    /// Adds a chunk, or adds an origin to a known one. The size told last counts, as in the original.
    pub fn insert(&mut self, digest: &Digest, size: ChunkSize, origin: Origin) {
        let flag = match origin {
            Origin::Base => FROM_BASE,
            Origin::Upload => UPLOADED,
        };
        let hash = self.key.hash_one(digest);
        let shard = &mut self.shards[shard_of(hash)];
        if let Some(at) = shard.find(digest, hash) {
            let slot = &mut shard.slots[at];
            slot[SIZE_AT..META_AT].copy_from_slice(&encode_size(size));
            slot[META_AT] |= flag;
            return;
        }
        let mut slot = [0; SLOT_BYTES];
        slot[..SIZE_AT].copy_from_slice(&digest.0);
        slot[SIZE_AT..META_AT].copy_from_slice(&encode_size(size));
        slot[META_AT] = flag;
        shard.add(slot, hash, &self.key);
        self.count += 1;
    }

    /// What is known about a chunk.
    pub fn get(&self, digest: &Digest) -> Option<Known> {
        let hash = self.key.hash_one(digest);
        let shard = &self.shards[shard_of(hash)];
        let slot = &shard.slots[shard.find(digest, hash)?];
        let size = u64::from(u32::from_le_bytes([slot[SIZE_AT], slot[SIZE_AT + 1], slot[SIZE_AT + 2], 0])) + 1;
        let size = ChunkSize::new(size).expect("24 bits and one are at most 16 MiB");
        Some(Known { size, from_base: slot[META_AT] & FROM_BASE != 0, uploaded: slot[META_AT] & UPLOADED != 0 })
    }

    /// Whether a chunk is known.
    pub fn contains(&self, digest: &Digest) -> bool {
        let hash = self.key.hash_one(digest);
        self.shards[shard_of(hash)].find(digest, hash).is_some()
    }
}

impl Shard {
    /// The slot of `digest`. Ends at the first slot whose chunk is nearer to its home than `digest` would be here.
    fn find(&self, digest: &Digest, hash: u64) -> Option<usize> {
        if self.slots.is_empty() {
            return None;
        }
        let mut at = home(hash, self.slots.len());
        for distance in 0..=DISTANCE_MAX {
            let slot = &self.slots[at];
            match held_distance(slot) {
                Some(held) if held > distance => {}
                Some(held) if held == distance => {
                    if slot[..SIZE_AT] == digest.0 {
                        return Some(at);
                    }
                }
                _ => return None,
            }
            at = next(at, self.slots.len());
        }
        None
    }

    /// Adds what is known to be absent, growing as often as it takes.
    fn add(&mut self, slot: Slot, hash: u64, key: &RandomState) {
        if (self.used + 1) * 8 > self.slots.len() * 7 {
            self.grow(key);
        }
        let mut left_over = place(&mut self.slots, slot, hash);
        while let Some(slot) = left_over {
            self.grow(key);
            left_over = place(&mut self.slots, slot, hash_of(&slot, key));
        }
        self.used += 1;
    }

    fn grow(&mut self, key: &RandomState) {
        let mut count = (self.slots.len() + self.slots.len() / 8).max(SLOTS_MIN);
        'larger: loop {
            let mut slots = vec![[0; SLOT_BYTES]; count];
            for slot in self.slots.iter().filter(|slot| held_distance(slot).is_some()) {
                if place(&mut slots, *slot, hash_of(slot, key)).is_some() {
                    count += count / 8 + 1;
                    continue 'larger;
                }
            }
            self.slots = slots;
            return;
        }
    }
}

/// Puts a chunk into the first slot from its home on whose chunk is nearer to its own home, and that one further on, and
/// so forth. Gives back the chunk for which that would be too far: then the table has to grow.
fn place(slots: &mut [Slot], mut slot: Slot, hash: u64) -> Option<Slot> {
    let mut at = home(hash, slots.len());
    let mut distance = 0;
    while distance <= DISTANCE_MAX {
        match held_distance(&slots[at]) {
            None => {
                set_distance(&mut slot, distance);
                slots[at] = slot;
                return None;
            }
            Some(held) if held < distance => {
                set_distance(&mut slot, distance);
                std::mem::swap(&mut slots[at], &mut slot);
                distance = held;
            }
            Some(_) => {}
        }
        at = next(at, slots.len());
        distance += 1;
    }
    Some(slot)
}

/// Distance from home of the chunk in a slot; `None` when the slot is empty.
fn held_distance(slot: &Slot) -> Option<u8> {
    (slot[META_AT] >> FLAG_BITS).checked_sub(1)
}

fn set_distance(slot: &mut Slot, distance: u8) {
    slot[META_AT] = (slot[META_AT] & FLAGS_MASK) | ((distance + 1) << FLAG_BITS);
}

fn hash_of(slot: &Slot, key: &RandomState) -> u64 {
    let digest: [u8; DIGEST_BYTES] = slot[..SIZE_AT].try_into().expect("a slot begins with a digest");
    key.hash_one(Digest(digest))
}

fn shard_of(hash: u64) -> usize {
    usize::from(hash.to_be_bytes()[0])
}

/// Maps the low 32 bits of the hash onto `0..slots` without a division.
fn home(hash: u64, slots: usize) -> usize {
    let slots = u64::try_from(slots).unwrap_or(u64::MAX);
    usize::try_from(((hash & 0xffff_ffff) * slots) >> 32).unwrap_or(0)
}

fn next(at: usize, slots: usize) -> usize {
    if at + 1 == slots { 0 } else { at + 1 }
}

/// `size − 1` as 24 bits, so that 16 MiB fits.
fn encode_size(size: ChunkSize) -> [u8; 3] {
    let [a, b, c, _] = (size.bytes() - 1).to_le_bytes();
    [a, b, c]
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn digest(n: u64) -> Digest {
        let mut bytes = [0; DIGEST_BYTES];
        // Spread like real digests where it matters for nothing: the map's own hash does the spreading.
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        Digest(bytes)
    }

    fn size(bytes: u64) -> ChunkSize {
        ChunkSize::new(bytes).unwrap()
    }

    /// The most bytes that a chunk took at any count from `from` on, growth included, up to `count` chunks.
    fn worst_bytes_per_chunk(count: u64, from: u64) -> f64 {
        let mut map = PresenceMap::new();
        let mut worst: f64 = 0.0;
        for n in 0..count {
            map.insert(&digest(n), size(1 + n % 16_777_216), Origin::Base);
            if n >= from && n % 1024 == 0 {
                #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
                let ratio = map.memory_bytes() as f64 / map.count() as f64;
                worst = worst.max(ratio);
            }
        }
        assert_eq!(map.count(), count);
        assert_eq!(map.get(&digest(count - 1)).unwrap().size, size(1 + (count - 1) % 16_777_216));
        assert!(!map.contains(&digest(count)));
        worst
    }

    #[test]
    fn a_million_known_chunks_cost_at_most_48_bytes_each() {
        let worst = worst_bytes_per_chunk(1_000_000, 50_000);
        assert!(worst <= 48.0, "{worst:.2} bytes a chunk");
    }

    /// `cargo test --release --lib presence -- --ignored --nocapture` prints the figures of docs/performance.md.
    #[test]
    #[ignore = "half a gigabyte and some seconds"]
    fn ten_million_known_chunks_fit_in_half_a_gigabyte() {
        let resident = || {
            let status = std::fs::read_to_string("/proc/self/status").unwrap();
            let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
            peak.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
        };
        let before = resident();
        let started = std::time::Instant::now();
        let worst = worst_bytes_per_chunk(10_000_000, 1_000_000);
        let elapsed = started.elapsed();
        let grown = resident() - before;
        println!("10,000,000 chunks: at most {worst:.2} bytes a chunk, {grown} bytes peak resident, {elapsed:.1?}");
        assert!(worst <= 48.0, "{worst:.2} bytes a chunk");
        assert!(grown < 500_000_000, "{grown} bytes resident");
    }

    #[test]
    fn sizes_from_one_byte_to_16_mib_and_both_origins_are_kept() {
        let mut map = PresenceMap::new();
        map.insert(&digest(1), size(1), Origin::Base);
        map.insert(&digest(2), size(16 << 20), Origin::Upload);
        assert_eq!(map.get(&digest(1)), Some(Known { size: size(1), from_base: true, uploaded: false }));
        assert_eq!(map.get(&digest(2)), Some(Known { size: size(16 << 20), from_base: false, uploaded: true }));
        map.insert(&digest(1), size(7), Origin::Upload);
        assert_eq!(map.get(&digest(1)), Some(Known { size: size(7), from_base: true, uploaded: true }));
        assert_eq!(map.count(), 2);
        assert_eq!(map.get(&Digest::ZERO), None);
    }

    #[test]
    fn a_shard_with_too_distant_chunks_grows_instead_of_losing_one() {
        // Chunks of one home slot fill the distances; the 64th of them makes the table grow until their homes part.
        let mut slots = vec![[0; SLOT_BYTES]; 1000];
        let mut refused = None;
        for n in 0..64_u64 {
            let mut slot = [0; SLOT_BYTES];
            slot[..8].copy_from_slice(&n.to_le_bytes());
            refused = place(&mut slots, slot, 5 << 22);
        }
        assert!(refused.is_some());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn behaves_as_a_hash_map(steps in prop::collection::vec((0..800_u64, 1..=16_777_216_u64, any::<bool>()), 0..3000)) {
            let mut map = PresenceMap::new();
            let mut model: HashMap<u64, Known> = HashMap::new();
            for (n, bytes, upload) in steps {
                let known = model.entry(n).or_insert(Known { size: size(bytes), from_base: false, uploaded: false });
                known.size = size(bytes);
                known.uploaded |= upload;
                known.from_base |= !upload;
                map.insert(&digest(n), size(bytes), if upload { Origin::Upload } else { Origin::Base });
            }
            prop_assert_eq!(map.count(), u64::try_from(model.len()).unwrap());
            for n in 0..1000 {
                prop_assert_eq!(map.get(&digest(n)), model.get(&n).copied());
            }
        }
    }
}
