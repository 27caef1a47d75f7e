//! The grammar that most names share, and the name of a datastore. Pure.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// Longest file name that common file systems take.
pub const NAME_BYTES_MAX: usize = 255;

/// `^[A-Za-z0-9_][A-Za-z0-9._\-]*$` (spec 01 §1): no slash, no leading dot, never empty.
pub fn is_safe_id(s: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let mut bytes = s.bytes();
    bytes.next().is_some_and(word) && bytes.all(|b| word(b) || b == b'.' || b == b'-')
}

/// Name of a datastore: a safe id of 3 to 32 characters.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DatastoreName(String);

impl DatastoreName {
    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for DatastoreName {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        if is_safe_id(s) && (3..=32).contains(&s.len()) {
            Ok(Self(s.to_owned()))
        } else {
            Err(Error::invalid(format!(
                "{s:.80?} is not a datastore name: 3 to 32 of A-Z a-z 0-9 _ . - expected, the first a letter, digit or _"
            )))
        }
    }
}

impl fmt::Display for DatastoreName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn safe_ids() {
        for good in ["a", "_", "0", "A.b-c_d", "a..b", "x-"] {
            assert!(is_safe_id(good), "{good}");
        }
        for bad in ["", ".", "..", ".a", "-a", "a/b", "a b", "a\0", "ä", "a\n", "a:b"] {
            assert!(!is_safe_id(bad), "{bad:?}");
        }
    }

    #[test]
    fn datastore_names_have_three_to_thirty_two_characters() {
        assert!("abc".parse::<DatastoreName>().is_ok());
        assert!("a".repeat(32).parse::<DatastoreName>().is_ok());
        for bad in ["ab".to_string(), "a".repeat(33), "../x".into(), "a/b".into()] {
            assert!(bad.parse::<DatastoreName>().is_err(), "{bad}");
        }
    }
}
