//! The name of a file in a snapshot, and what its extension says about it. Pure.

use std::fmt;
use std::str::FromStr;

use super::safe_id::{NAME_BYTES_MAX, is_safe_id};
use crate::error::{Error, Result};

/// File name of the manifest; its presence means that the snapshot is finished.
pub const MANIFEST_BLOB: &str = "index.json.blob";

/// File name of the client's log; never listed in a manifest.
pub const CLIENT_LOG_BLOB: &str = "client.log.blob";

/// What an archive is, decided by the last extension alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ArchiveKind {
    /// `.fidx`, spec 02 §3.
    FixedIndex,
    /// `.didx`, spec 02 §4.
    DynamicIndex,
    /// `.blob`, spec 02 §1.
    Blob,
}

/// Name of a file in a snapshot: a safe id that ends in `.fidx`, `.didx` or `.blob`, at most 255 bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ArchiveName(String);

impl ArchiveName {
    /// The name itself, extension included.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What the extension says.
    pub fn kind(&self) -> ArchiveKind {
        kind_of(&self.0).expect("checked when parsed")
    }

    /// Whether this is the manifest.
    pub fn is_manifest(&self) -> bool {
        self.0 == MANIFEST_BLOB
    }
}

fn kind_of(name: &str) -> Option<ArchiveKind> {
    match name.rsplit_once('.')? {
        ("", _) => None,
        (_, "fidx") => Some(ArchiveKind::FixedIndex),
        (_, "didx") => Some(ArchiveKind::DynamicIndex),
        (_, "blob") => Some(ArchiveKind::Blob),
        _ => None,
    }
}

impl FromStr for ArchiveName {
    type Err = Error;

    /// The error text for a good name with another extension is the original's.
    fn from_str(s: &str) -> Result<Self> {
        if !is_safe_id(s) || s.len() > NAME_BYTES_MAX {
            return Err(Error::invalid(format!("{s:.80?} is not an archive name")));
        }
        match kind_of(s) {
            Some(_) => Ok(Self(s.to_owned())),
            None => Err(Error::invalid(format!("unknown archive type: {s:?}"))),
        }
    }
}

impl fmt::Display for ArchiveName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_extension_decides() {
        let kind = |s: &str| s.parse::<ArchiveName>().map(|a| a.kind()).ok();
        assert_eq!(kind("drive-scsi0.img.fidx"), Some(ArchiveKind::FixedIndex));
        assert_eq!(kind("x.fidx.didx"), Some(ArchiveKind::DynamicIndex));
        assert_eq!(kind(MANIFEST_BLOB), Some(ArchiveKind::Blob));
        for bad in ["x.img", "blob", ".blob", "../x.blob", "x.blob/", "x.BLOB", "x.tmp_fidx", ""] {
            assert_eq!(kind(bad), None, "{bad}");
        }
        assert_eq!(kind(&format!("{}.blob", "a".repeat(251))), None, "longer than a file name may be");
    }
}
