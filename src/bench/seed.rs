//! Data and digests that follow from a number, the same on every machine. Pure.

use crate::types::Digest;

/// Bytes of which a share compresses away; smaller than a block of any compressor, so that each block looks alike.
const PAGE_BYTES: usize = 4096;

/// A sequence of numbers (splitmix64: Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// The sequence of `seed`; `stream` tells several of one seed apart.
    pub fn new(seed: u64, stream: u64) -> Self {
        Self(mix(seed) ^ mix(stream.wrapping_add(0x5851_f42d_4c95_7f2d)))
    }

    /// The next one.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// One below `end`, which is not 0.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_u64() % end
    }

    /// Puts a list into another order.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for last in (1..list.len()).rev() {
            let other = usize::try_from(self.below(last as u64 + 1)).expect("below a length");
            list.swap(last, other);
        }
    }
}

fn mix(n: u64) -> u64 {
    let n = (n ^ (n >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let n = (n ^ (n >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    n ^ (n >> 31)
}

/// The digest of the made-up chunk `number`.
pub fn digest(seed: u64, number: u64) -> Digest {
    let mut numbers = Numbers::new(seed, number);
    let mut bytes = [0; 32];
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&numbers.next_u64().to_le_bytes());
    }
    Digest(bytes)
}

/// `count` of them, in the order of their numbers: that of an index.
pub fn digests(seed: u64, count: u64) -> Vec<Digest> {
    (0..count).map(|number| digest(seed, number)).collect()
}

/// Fills `out`; of each 4 KiB the last `compress_percentage` percent are zeros.
pub fn fill(out: &mut [u8], numbers: &mut Numbers, compress_percentage: u8) {
    let kept = usize::from(100 - compress_percentage.min(100));
    for page in out.chunks_mut(PAGE_BYTES) {
        let noise = page.len() * kept / 100;
        let (noise, zeros) = page.split_at_mut(noise);
        for word in noise.chunks_mut(8) {
            let bytes = numbers.next_u64().to_le_bytes();
            word.copy_from_slice(&bytes[..word.len()]);
        }
        zeros.fill(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_and_another_something_else() {
        assert_eq!(digests(7, 3), digests(7, 3));
        assert_ne!(digest(7, 0), digest(7, 1));
        assert_ne!(digest(7, 0), digest(8, 0));
        let (mut a, mut b) = (vec![1; 10_000], vec![2; 10_000]);
        fill(&mut a, &mut Numbers::new(1, 2), 30);
        fill(&mut b, &mut Numbers::new(1, 2), 30);
        assert_eq!(a, b);
    }

    #[test]
    fn as_much_compresses_away_as_was_asked_for() {
        for percentage in [0_u8, 50, 100] {
            let mut bytes = vec![1; 1 << 20];
            fill(&mut bytes, &mut Numbers::new(1, 0), percentage);
            let zeros = bytes.iter().filter(|b| **b == 0).count() * 100 / bytes.len();
            assert!(zeros.abs_diff(usize::from(percentage)) <= 1, "{percentage}: {zeros}");
        }
    }

    #[test]
    fn a_shuffled_list_has_the_same_members() {
        let mut list: Vec<u32> = (0..1000).collect();
        Numbers::new(1, 1).shuffle(&mut list);
        assert_ne!(list[..10], [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
        list.sort_unstable();
        assert_eq!(list, (0..1000).collect::<Vec<u32>>());
    }

    #[test]
    fn digests_are_spread_over_the_directories() {
        let mut prefixes: Vec<u16> = digests(1, 65_536).iter().map(Digest::prefix).collect();
        prefixes.sort_unstable();
        prefixes.dedup();
        // 1 - 1/e of them.
        assert!((40_000..43_000).contains(&prefixes.len()), "{}", prefixes.len());
    }
}
