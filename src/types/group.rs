//! A group: all snapshots of one machine. Pure.

use std::cmp::Ordering;
use std::fmt;
use std::str::FromStr;

use super::safe_id::{NAME_BYTES_MAX, is_safe_id};
use crate::error::{Error, Result};

/// What is backed up. Ordered as listings are: `ct`, `host`, `vm`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BackupType {
    /// A container.
    Ct,
    /// A physical host, or any file collection.
    Host,
    /// A virtual machine.
    Vm,
}

impl BackupType {
    /// All types in listing order.
    pub const ALL: [Self; 3] = [Self::Ct, Self::Host, Self::Vm];

    /// Directory name and wire spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ct => "ct",
            Self::Host => "host",
            Self::Vm => "vm",
        }
    }
}

impl FromStr for BackupType {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|t| t.as_str() == s)
            .ok_or_else(|| Error::invalid(format!("{s:.80?} is not a backup type: vm, ct or host expected")))
    }
}

impl fmt::Display for BackupType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Type and id of a group, shown as `type/id`. At most 255 bytes of id, since it is a directory's name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    ty: BackupType,
    id: String,
}

impl Group {
    /// A group with a checked id (a safe id, spec 01 §1).
    pub fn new(ty: BackupType, id: &str) -> Result<Self> {
        if is_safe_id(id) && id.len() <= NAME_BYTES_MAX {
            Ok(Self { ty, id: id.to_owned() })
        } else {
            Err(Error::invalid(format!("{id:.80?} is not a backup id")))
        }
    }

    /// `vm`, `ct` or `host`.
    pub fn ty(&self) -> BackupType {
        self.ty
    }

    /// The id, a directory name.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The group that speed tests write to and nobody keeps (spec 03 §2).
    pub fn is_benchmark(&self) -> bool {
        self.ty == BackupType::Host && self.id == "benchmark"
    }
}

impl FromStr for Group {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let (ty, id) = s
            .split_once('/')
            .ok_or_else(|| Error::invalid(format!("{s:.80?} is not a backup group: TYPE/ID expected")))?;
        Self::new(ty.parse()?, id)
    }
}

impl fmt::Display for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ty, self.id)
    }
}

impl Ord for Group {
    /// By type, then ids that are numbers in numeric order, then the others bytewise (spec 07 §3.1).
    fn cmp(&self, other: &Self) -> Ordering {
        let key = |g: &Self| (g.ty, g.id.parse::<u64>().map_or((1, 0), |n| (0, n)));
        key(self).cmp(&key(other)).then_with(|| self.id.cmp(&other.id))
    }
}

impl PartialOrd for Group {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_sort_by_type_then_number_then_name() {
        let mut groups: Vec<Group> = ["vm/9", "vm/100", "host/b", "host/10", "ct/1", "host/a", "host/9"]
            .iter()
            .map(|s| s.parse().unwrap())
            .collect();
        groups.sort();
        let shown: Vec<String> = groups.iter().map(Group::to_string).collect();
        assert_eq!(shown, ["ct/1", "host/9", "host/10", "host/a", "host/b", "vm/9", "vm/100"]);
    }

    #[test]
    fn bad_groups_are_refused() {
        for bad in ["vm", "vm/", "vm/..", "VM/1", "vm/a/b", "tape/1", "/1", &format!("vm/{}", "a".repeat(256))] {
            assert!(bad.parse::<Group>().is_err(), "{bad}");
        }
    }
}
