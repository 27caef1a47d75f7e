//! A namespace: a path of names that separates groups. Pure.

use std::fmt;
use std::str::FromStr;

use super::safe_id::{NAME_BYTES_MAX, is_safe_id};
use crate::error::{Error, Result};

/// Most components below the root namespace (spec 01 §1).
pub const NAMESPACE_DEPTH_MAX: usize = 7;

/// Longest shown form in bytes (spec 01 §1).
const NAMESPACE_BYTES_MAX: usize = 256;

/// Zero to seven names; the root has none. Shown as `a/b/c`, the root as the empty string.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace {
    components: Vec<String>,
}

impl Namespace {
    /// The namespace that every datastore has.
    pub fn root() -> Self {
        Self::default()
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.components.is_empty()
    }

    /// Names from the root down.
    pub fn components(&self) -> &[String] {
        &self.components
    }

    /// How many names.
    pub fn depth(&self) -> usize {
        self.components.len()
    }

    /// The namespace above; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        let (_, above) = self.components.split_last()?;
        Some(Self { components: above.to_vec() })
    }

    /// The namespace `name` below this one; refuses a bad name, more than seven levels, more than 256 bytes.
    pub fn child(&self, name: &str) -> Result<Self> {
        if !is_safe_id(name) || name.len() > NAME_BYTES_MAX {
            return Err(Error::invalid(format!("{name:.80?} is not a namespace name")));
        }
        if self.depth() == NAMESPACE_DEPTH_MAX {
            return Err(Error::invalid(format!(
                "namespace '{self}/{name}' is deeper than {NAMESPACE_DEPTH_MAX} levels"
            )));
        }
        if self.to_string().len() + name.len() + 1 > NAMESPACE_BYTES_MAX {
            return Err(Error::invalid(format!(
                "namespace '{self}/{name}' is longer than {NAMESPACE_BYTES_MAX} bytes"
            )));
        }
        let mut components = self.components.clone();
        components.push(name.to_owned());
        Ok(Self { components })
    }

    /// Whether `other` is this namespace or lies below it.
    pub fn contains(&self, other: &Self) -> bool {
        other.components.starts_with(&self.components)
    }
}

impl FromStr for Namespace {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        if s.is_empty() {
            return Ok(Self::root());
        }
        s.split('/').try_fold(Self::root(), |ns, name| ns.child(name))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.components.iter().enumerate() {
            if i > 0 {
                f.write_str("/")?;
            }
            f.write_str(name)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_and_parsed_alike() {
        for text in ["", "a", "a/b/c", "1/2/3/4/5/6/7"] {
            let ns: Namespace = text.parse().unwrap();
            assert_eq!(ns.to_string(), text);
        }
        let ns: Namespace = "a/b".parse().unwrap();
        assert_eq!(ns.parent().unwrap().to_string(), "a");
        assert!(Namespace::root().contains(&ns) && !ns.contains(&Namespace::root()));
        assert!(!"a".parse::<Namespace>().unwrap().contains(&"ab".parse().unwrap()));
    }

    #[test]
    fn bad_namespaces_are_refused() {
        let long = format!("{}/{}", "a".repeat(200), "b".repeat(60));
        for bad in ["/", "a//b", "/a", "a/", "a/../b", ".a", "1/2/3/4/5/6/7/8", &long, "a\0b"] {
            assert!(bad.parse::<Namespace>().is_err(), "{bad}");
        }
    }
}
