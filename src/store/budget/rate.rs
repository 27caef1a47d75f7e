//! How fast background work may be, and how people write it. Pure.

use std::fmt;
use std::num::NonZeroU64;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

/// Most MiB a second: more than any machine reads, and no number of bytes that overflows.
const MIB_MAX: u64 = 1 << 20;

/// Most chunks a second.
const CHUNKS_MAX: u64 = 1_000_000_000;

/// How fast background work may be at most. `500/s` are chunks, `20M/s` are MiB, `500/s,20M/s` both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rate {
    /// Chunks read, looked at or removed a second; a directory, and a block of an index, count as one too. `None`: no limit.
    pub chunks: Option<NonZeroU64>,
    /// Bytes read a second, of chunks and indexes. `None`: no limit.
    pub bytes: Option<NonZeroU64>,
}

impl Rate {
    /// Without limits.
    pub const NONE: Self = Self { chunks: None, bytes: None };

    /// The grammar as a regular expression of ECMA 262, a little wider than what is understood.
    pub const PATTERN: &str = r"^[0-9]{1,10}(M|MiB)?/s(,[0-9]{1,10}(M|MiB)?/s)?$";

    /// What it says to people; `None` without limits.
    pub fn words(&self) -> Option<String> {
        let chunks = self.chunks.map(|chunks| format!("{chunks} chunks"));
        let mib = self.bytes.map(|bytes| format!("{} MiB", bytes.get() / MIB));
        let limits: Vec<String> = [chunks, mib].into_iter().flatten().collect();
        (!limits.is_empty()).then(|| limits.join(" and "))
    }
}

impl FromStr for Rate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::invalid(format!(
                "{text:.40?} is no rate: chunks a second as '500/s' (1 to {CHUNKS_MAX}), MiB a second as '20M/s' (1 to {MIB_MAX}), or both as '500/s,20M/s'"
            ))
        };
        let mut rate = Self::NONE;
        for limit in text.split(',') {
            let amount = limit.strip_suffix("/s").ok_or_else(wrong)?;
            let mib = amount.strip_suffix("MiB").or_else(|| amount.strip_suffix('M'));
            let (digits, max, unit, of) = match mib {
                Some(digits) => (digits, MIB_MAX, MIB, &mut rate.bytes),
                None => (amount, CHUNKS_MAX, 1, &mut rate.chunks),
            };
            let number = digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse::<u64>().ok()).flatten();
            let number = number.filter(|number| *number <= max).ok_or_else(wrong)?;
            if of.replace(NonZeroU64::new(number * unit).ok_or_else(wrong)?).is_some() {
                return Err(wrong());
            }
        }
        Ok(rate)
    }
}

impl fmt::Display for Rate {
    /// As it is parsed; nothing without limits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chunks = self.chunks.map(|chunks| format!("{chunks}/s"));
        let mib = self.bytes.map(|bytes| format!("{}M/s", bytes.get() / MIB));
        f.write_str(&[chunks, mib].into_iter().flatten().collect::<Vec<_>>().join(","))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_and_shown() {
        for (text, chunks, mib, words) in [
            ("500/s", 500, 0, "500 chunks"),
            ("20M/s", 0, 20, "20 MiB"),
            ("500/s,20M/s", 500, 20, "500 chunks and 20 MiB"),
            ("1000000000/s,1048576M/s", CHUNKS_MAX, MIB_MAX, "1000000000 chunks and 1048576 MiB"),
        ] {
            let rate: Rate = text.parse().unwrap();
            assert_eq!(rate, Rate { chunks: NonZeroU64::new(chunks), bytes: NonZeroU64::new(mib * MIB) }, "{text}");
            assert_eq!((rate.to_string(), rate.words().unwrap()), (text.to_owned(), words.to_owned()));
        }
        assert_eq!("20MiB/s,7/s".parse::<Rate>().unwrap().to_string(), "7/s,20M/s");
        assert_eq!((Rate::NONE.to_string(), Rate::NONE.words()), (String::new(), None));
    }

    #[test]
    fn what_is_no_rate_is_told_what_is_one() {
        for text in [
            "",
            "500",
            "500/m",
            "/s",
            "M/s",
            "0/s",
            "0M/s",
            "-1/s",
            "+1/s",
            "1.5/s",
            "5 /s",
            "5K/s",
            "5m/s",
            "5/s,",
            "5/s,6/s",
            "5M/s,6MiB/s",
            "5/s,6M/s,7/s",
            "1000000001/s",
            "1048577M/s",
            "99999999999999999999/s",
            "٣/s",
        ] {
            let error = text.parse::<Rate>().unwrap_err().to_string();
            assert!(error.contains("is no rate: chunks a second as '500/s'"), "{text}: {error}");
        }
    }
}
