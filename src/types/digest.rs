//! The name of a chunk: 32 bytes, shown as 64 lower-case hex digits. Pure.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest as _, Sha256};

use crate::error::{Error, Result};

/// Bytes of a digest.
pub const DIGEST_BYTES: usize = 32;

/// SHA-256 of a chunk's plaintext, or of plaintext and id key when encrypted (spec 02 §2).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Digest(pub [u8; DIGEST_BYTES]);

impl Digest {
    /// An unfilled slot of a fixed index.
    pub const ZERO: Self = Self([0; DIGEST_BYTES]);

    /// SHA-256 of `data`. About 1.4 GB/s a core where the CPU has SHA instructions.
    pub fn of(data: &[u8]) -> Self {
        Self(Sha256::digest(data).into())
    }

    /// Number of the `.chunks/XXXX` directory that holds this chunk: the first two bytes, big-endian.
    pub fn prefix(&self) -> u16 {
        u16::from_be_bytes([self.0[0], self.0[1]])
    }

    /// The 64 ASCII hex digits, without allocating.
    pub fn to_hex(&self) -> [u8; 2 * DIGEST_BYTES] {
        let mut out = [0; 2 * DIGEST_BYTES];
        hex::encode_to_slice(self.0, &mut out).expect("output is twice the input");
        out
    }
}

impl FromStr for Digest {
    type Err = Error;

    /// Exactly 64 digits `0-9a-f`; upper case is refused, as the protocol does.
    fn from_str(s: &str) -> Result<Self> {
        let mut out = [0; DIGEST_BYTES];
        let lower = s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if !lower || hex::decode_to_slice(s, &mut out).is_err() {
            return Err(Error::invalid(format!("{:.80?} is not a digest: 64 lower-case hex digits expected", s)));
        }
        Ok(Self(out))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(std::str::from_utf8(&self.to_hex()).expect("hex is ASCII"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_digest_of_four_mebibytes_of_zeros() {
        let zero = Digest::of(&vec![0; 4 << 20]);
        assert_eq!(zero.to_string(), "bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8");
        assert_eq!(zero.prefix(), 0xbb9f);
        assert_eq!(zero.to_string().parse::<Digest>().unwrap(), zero);
    }

    #[test]
    fn only_sixty_four_lower_case_digits() {
        let good = "ab".repeat(32);
        assert!(good.parse::<Digest>().is_ok());
        for bad in [good.to_uppercase(), good[1..].to_string(), format!("{good}a"), String::new(), "zz".repeat(32)] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
