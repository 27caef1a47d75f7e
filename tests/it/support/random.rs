//! Choices that can be made again: numbers that follow from a seed.

/// `xorshift64*`.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`, which is not 0.
    pub fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// An index below `len`, which is not 0.
    pub fn index(&mut self, len: usize) -> usize {
        usize::try_from(self.below(len as u64)).expect("below a usize")
    }

    /// Bytes that do not compress.
    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.number().to_le_bytes()).take(len).collect()
    }
}

/// The seed that a variable of the environment names; 1 where it names none.
pub fn seed_from(variable: &str) -> u64 {
    std::env::var(variable).ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}
