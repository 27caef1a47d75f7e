//! Which of the chunks a verification reads: all, one part of several, or a sample (the index files and blobs are checked in any case). Pure.
//!
//! ```text
//! first 8 bytes of the digest ─┬─ × N / 2^64, rounded down ───────→ part 1…N: one range of .chunks directories each
//!                              └─ mixed with the seed < P % of 2^64 → in the sample: the same chunks in every archive
//! ```

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::types::Digest;

/// Most parts: one for each directory of chunks.
pub const PARTS_MAX: u32 = 1 << 16;

/// A percentage is kept in so many parts of a percent: four decimals, one chunk of a million.
const PER_PERCENT: u32 = 10_000;

/// Which chunks are read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Part {
    /// All of them.
    #[default]
    All,
    /// Those whose digest falls into one of several equal ranges. Each chunk is in exactly one of them, whatever names it.
    Nth(NthPart),
    /// A sample.
    Sample {
        /// How large.
        share: Percent,
        /// Which chunks are in it; the same seed chooses the same ones.
        seed: u64,
    },
}

/// `3/30`: the third of thirty parts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NthPart {
    n: u32,
    of: u32,
}

/// More than nothing, up to 100 %, with up to four decimals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percent(u32);

impl Part {
    /// One of `of` parts, the next one each day; `day` is any count of days.
    pub fn of_day(day: i64, of: u32) -> Self {
        let of = of.clamp(1, PARTS_MAX);
        let n = u32::try_from(day.rem_euclid(i64::from(of))).unwrap_or(0) + 1;
        Self::Nth(NthPart { n, of })
    }

    /// Whether every chunk is read, so that a snapshot may be called verified.
    pub fn is_all(&self) -> bool {
        match self {
            Self::All => true,
            Self::Nth(nth) => nth.of == 1,
            Self::Sample { share, .. } => share.0 == 100 * PER_PERCENT,
        }
    }

    /// Whether this chunk is read.
    pub fn takes(&self, digest: &Digest) -> bool {
        match self {
            Self::All => true,
            Self::Nth(NthPart { n, of }) => part_of(digest, *of) == *n,
            Self::Sample { share, seed } => {
                u128::from(draw(digest, *seed)) * u128::from(100 * PER_PERCENT) < u128::from(share.0) << 64
            }
        }
    }

    /// For an archive none of whose chunks is in the sample: the chunk with the lowest rank is read in their stead, so that a sample, however
    /// small, reads something of every archive. `None`: nothing is read instead.
    pub fn rank(&self, digest: &Digest) -> Option<u64> {
        match self {
            Self::Sample { seed, .. } if !self.is_all() => Some(draw(digest, *seed)),
            _ => None,
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all chunks"),
            Self::Nth(NthPart { n, of }) => write!(f, "part {n} of {of} of the chunks"),
            Self::Sample { share, seed } => write!(f, "a sample of {share} % of the chunks (seed {seed})"),
        }
    }
}

/// 1 to `of`.
fn part_of(digest: &Digest, of: u32) -> u32 {
    let part = (u128::from(leading(digest)) * u128::from(of)) >> 64;
    u32::try_from(part).map_or(of, |part| part + 1)
}

fn leading(digest: &Digest) -> u64 {
    let mut first = [0; 8];
    first.copy_from_slice(&digest.0[..8]);
    u64::from_be_bytes(first)
}

/// A number that looks drawn at random, one for each digest and seed: the finaliser of splitmix64 (Steele, Lea, Flood 2014). Digests are
/// spread evenly, so it need not resist anybody.
fn draw(digest: &Digest, seed: u64) -> u64 {
    // The seed goes through it first, or neighbouring seeds would choose alike.
    mix(leading(digest) ^ mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15)))
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl FromStr for NthPart {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u32>().ok()).flatten();
        let parts = text.split_once('/').and_then(|(n, of)| Some((number(n)?, number(of)?)));
        match parts {
            Some((n, of)) if (1..=of).contains(&n) && of <= PARTS_MAX => Ok(Self { n, of }),
            _ => {
                let text =
                    format!("{text:.40?} is no part: N/M is expected, with N from 1 to M and M up to {PARTS_MAX}");
                Err(Error::invalid(text))
            }
        }
    }
}

impl FromStr for Percent {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong =
            || Error::invalid(format!("{text:.40?} is no percentage: more than 0, up to 100, up to 4 decimals"));
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let is_number =
            |part: &str, max: usize| (1..=max).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        if !is_number(whole, 3) || !is_number(decimals, 4) {
            return Err(wrong());
        }
        let whole: u32 = whole.parse().map_err(|_| wrong())?;
        let decimals: u32 = format!("{decimals:0<4}").parse().map_err(|_| wrong())?;
        match whole * PER_PERCENT + decimals {
            share @ 1..=1_000_000 => Ok(Self(share)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for NthPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.n, self.of)
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, decimals) = (self.0 / PER_PERCENT, self.0 % PER_PERCENT);
        match decimals {
            0 => write!(f, "{whole}"),
            _ => write!(f, "{whole}.{}", format!("{decimals:04}").trim_end_matches('0')),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digests(count: u64) -> impl Iterator<Item = Digest> {
        (0..count).map(|i| Digest::of(&i.to_le_bytes()))
    }

    fn sample(share: &str, seed: u64) -> Part {
        Part::Sample { share: share.parse().unwrap(), seed }
    }

    #[test]
    fn every_chunk_is_in_exactly_one_of_the_parts() {
        for of in [1, 2, 3, 30, 365, PARTS_MAX] {
            let mut sizes = vec![0_u64; of as usize];
            for digest in digests(3000).chain([Digest([0; 32]), Digest([0xff; 32])]) {
                let part = part_of(&digest, of);
                assert!((1..=of).contains(&part), "{digest} {part} of {of}");
                sizes[part as usize - 1] += 1;
                let takes = |n: u32| Part::Nth(format!("{n}/{of}").parse().unwrap()).takes(&digest);
                assert!(takes(part) && (part == 1 || !takes(part - 1)) && (part == of || !takes(part + 1)));
            }
            assert_eq!(sizes.iter().sum::<u64>(), 3002);
            assert!(of > 30 || sizes.iter().all(|size| *size > 3002 / u64::from(of) / 2), "{of}: {sizes:?}");
        }
        let days: Vec<String> = (-1..3).map(|day| Part::of_day(day, 3).to_string()).collect();
        assert_eq!(days, [3, 1, 2, 3].map(|n| format!("part {n} of 3 of the chunks")));
        let ends = (part_of(&Digest([0; 32]), 30), part_of(&Digest([0xff; 32]), 30));
        assert_eq!(ends, (1, 30));
    }

    #[test]
    fn a_sample_is_as_large_as_asked_and_its_seed_chooses_it() {
        for (share, about) in [("0.1", 10), ("5", 500), ("50", 5000), ("99.9", 9990), ("100", 10_000)] {
            let chosen = |seed| -> Vec<Digest> { digests(10_000).filter(|d| sample(share, seed).takes(d)).collect() };
            let (one, again, other) = (chosen(1), chosen(1), chosen(2));
            assert_eq!(one, again);
            assert_eq!(share == "100", one == other, "{share}");
            let off = one.len().abs_diff(about);
            assert!(off * off <= 25 * about.max(1), "{share} %: {} of 10000", one.len());
            if share == "50" {
                let both = one.iter().filter(|digest| other.contains(digest)).count();
                assert!((2000..3000).contains(&both), "neighbouring seeds choose alike: {both}");
            }
        }
        assert!(sample("1", 7).rank(&Digest([1; 32])).is_some() && sample("100", 7).rank(&Digest([1; 32])).is_none());
    }

    #[test]
    fn parts_and_percentages_are_read_and_shown() {
        for (text, is_all) in [("1/1", true), ("1/2", false), ("30/30", false), ("65536/65536", false)] {
            let nth: NthPart = text.parse().unwrap();
            assert_eq!((nth.to_string(), Part::Nth(nth).is_all()), (text.to_owned(), is_all));
        }
        for text in ["", "1", "/", "0/3", "4/3", "1/65537", "1/0", "-1/3", "+1/3", "1/3/5", "1 / 3", "1/99999999999"] {
            assert!(text.parse::<NthPart>().is_err(), "{text:?}");
        }
        for (text, shown) in
            [("1", "1"), ("100", "100"), ("0.5", "0.5"), ("2.50", "2.5"), ("0.0001", "0.0001"), ("007", "7")]
        {
            assert_eq!(text.parse::<Percent>().unwrap().to_string(), shown);
        }
        for text in ["", "0", "0.0", "100.0001", "101", "1000", "-1", "+1", "1e1", ".5", "1.", "0.00001", "5%", "NaN"] {
            assert!(text.parse::<Percent>().is_err(), "{text:?}");
        }
        assert_eq!(sample("2.5", 9).to_string(), "a sample of 2.5 % of the chunks (seed 9)");
        assert_eq!(Part::Nth("3/30".parse().unwrap()).to_string(), "part 3 of 30 of the chunks");
        assert!(Part::All.is_all() && Part::All.takes(&Digest([9; 32])) && sample("100", 1).takes(&Digest([9; 32])));
    }
}
