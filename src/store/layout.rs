//! Every path of a datastore, both ways. Pure, but for the random suffix of a temporary name.
//!
//! ```text
//! BASE/.lock
//! BASE/.chunks/bb9f/bb9f8df6…                     a chunk: its first four hex digits name the directory
//! BASE/host/alpha/owner
//! BASE/host/alpha/2024-06-05T14:23:38Z/…          a snapshot of the root namespace
//! BASE/ns/prod/ns/db/vm/101/2024-06-05T14:23:38Z  an "ns" before every component of a namespace
//! ```
//!
//! Source: spec 01 §1.

use std::path::{Path, PathBuf};

use crate::engine::StatName;
use crate::types::{ArchiveName, BackupType, DIGEST_BYTES, Digest, Group, MANIFEST_BLOB, Namespace, Snapshot};

/// Name of the directory of all chunks.
pub const CHUNKS_DIR: &str = ".chunks";

/// Name of the file that carries the process lock.
pub const LOCK_FILE: &str = ".lock";

/// Name of the file with the status of the last garbage collection.
pub const GC_STATUS_FILE: &str = ".gc-status";

/// Name of the file that says how far a garbage collection was that has not ended. A name that begins with a dot is passed over by everybody
/// who lists a datastore.
pub const GC_PROGRESS_FILE: &str = ".ringvault-gc-progress";

/// Name of the file with the names that garbage collection has met, by directory.
pub const GC_NAMES_FILE: &str = ".ringvault-gc-names";

/// Name of the file whose space garbage collection may use when there is no other.
pub const GC_RESERVE_FILE: &str = ".ringvault-gc-reserve";

/// What the names of files begin with that say what a verification has seen which has not ended.
pub const VERIFY_PROGRESS_PREFIX: &str = ".ringvault-verify-";

/// Whether a file in the base directory is one of those above: of use to this program alone, and to nobody when the datastore goes.
pub fn is_own_state(name: &str) -> bool {
    [GC_PROGRESS_FILE, GC_NAMES_FILE, GC_RESERVE_FILE].contains(&name) || name.starts_with(VERIFY_PROGRESS_PREFIX)
}

/// Name of the file in a group that says who owns it.
pub const OWNER_FILE: &str = "owner";

/// Name of the file in a group with its notes.
pub const NOTES_FILE: &str = "notes";

/// Name of the marker file in a protected snapshot.
pub const PROTECTED_FILE: &str = ".protected";

/// Directory that stands before every component of a namespace.
pub const NAMESPACE_DIR: &str = "ns";

/// How many directories the chunks are spread over: one for each value of a digest's first two bytes.
pub const CHUNK_DIR_COUNT: u32 = 1 << 16;

/// Bytes of `XXXX/<64 hex>`.
const CHUNK_NAME_BYTES: usize = 5 + 2 * DIGEST_BYTES;

/// The paths of one datastore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    base: PathBuf,
}

impl Layout {
    /// The paths below `base`.
    pub fn new(base: impl Into<PathBuf>) -> Self {
        Self { base: base.into() }
    }

    /// The datastore's own directory.
    pub fn base(&self) -> &Path {
        &self.base
    }

    /// `.lock`.
    pub fn lock_file(&self) -> PathBuf {
        self.base.join(LOCK_FILE)
    }

    /// `.chunks`.
    pub fn chunks(&self) -> PathBuf {
        self.base.join(CHUNKS_DIR)
    }

    /// `.chunks/XXXX`.
    pub fn chunk_dir(&self, prefix: u16) -> PathBuf {
        self.chunks().join(chunk_dir_name(prefix))
    }

    /// `.chunks/XXXX/<64 hex>`.
    pub fn chunk(&self, digest: &Digest) -> PathBuf {
        let mut path = self.chunk_dir(digest.prefix());
        path.push(digest.to_string());
        path
    }

    /// Directory of a namespace.
    pub fn namespace(&self, ns: &Namespace) -> PathBuf {
        let mut path = self.base.clone();
        for name in ns.components() {
            path.push(NAMESPACE_DIR);
            path.push(name);
        }
        path
    }

    /// Directory of all groups of one type.
    pub fn type_dir(&self, ns: &Namespace, ty: BackupType) -> PathBuf {
        self.namespace(ns).join(ty.as_str())
    }

    /// Directory of a group.
    pub fn group(&self, ns: &Namespace, group: &Group) -> PathBuf {
        self.type_dir(ns, group.ty()).join(group.id())
    }

    /// A group's owner file.
    pub fn owner(&self, ns: &Namespace, group: &Group) -> PathBuf {
        self.group(ns, group).join(OWNER_FILE)
    }

    /// Directory of a snapshot.
    pub fn snapshot(&self, ns: &Namespace, snapshot: &Snapshot) -> PathBuf {
        self.group(ns, snapshot.group()).join(snapshot.dir_name())
    }

    /// A snapshot's manifest.
    pub fn manifest(&self, ns: &Namespace, snapshot: &Snapshot) -> PathBuf {
        self.snapshot(ns, snapshot).join(MANIFEST_BLOB)
    }
}

/// Four lower-case hex digits.
pub fn chunk_dir_name(prefix: u16) -> String {
    format!("{prefix:04x}")
}

/// `XXXX/<64 hex>`, relative to `.chunks`: what a presence check asks for.
pub fn chunk_stat_name(digest: &Digest) -> StatName {
    let hex = digest.to_hex();
    let mut text = [0; CHUNK_NAME_BYTES];
    text[..4].copy_from_slice(&hex[..4]);
    text[4] = b'/';
    text[5..].copy_from_slice(&hex);
    let text = std::str::from_utf8(&text).expect("hex and a slash are ASCII");
    StatName::new(text).expect("69 bytes without NUL")
}

/// The chunk that a file name in a prefix directory stands for; `None` for anything but 64 lower-case hex digits.
pub fn chunk_of_name(name: &str) -> Option<Digest> {
    name.parse().ok()
}

/// The name of the bad version `n` of a chunk (spec 01 §6.4).
pub fn bad_chunk_name(digest: &Digest, n: u8) -> String {
    format!("{digest}.{n}.bad")
}

/// Whether a file name belongs to the file list of a snapshot: `^.*\.([fd]idx|blob)$` (spec 01 §1.1).
pub fn is_snapshot_file(name: &str) -> bool {
    [".fidx", ".didx", ".blob"].iter().any(|ext| name.ends_with(ext))
}

/// The name under which an index is written until it is closed: its last extension becomes `tmp_fidx` or `tmp_didx`.
pub fn temp_index_name(name: &ArchiveName) -> String {
    let (stem, ext) = name.as_str().rsplit_once('.').expect("an archive name has an extension");
    format!("{stem}.tmp_{ext}")
}

/// The name under which a file is written until it is renamed: `tmp_` and `suffix` instead of its last extension, or behind a name
/// without one.
pub fn temp_name(name: &str, suffix: &str) -> String {
    let stem = match name.rsplit_once('.') {
        Some((stem, _)) if !stem.is_empty() => stem,
        _ => name,
    };
    format!("{stem}.tmp_{suffix}")
}

/// Six random letters and digits, as `mkstemp` takes.
pub fn random_suffix() -> std::io::Result<String> {
    const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(|e| std::io::Error::other(e.to_string()))?;
    Ok(random.iter().map(|b| char::from(ALPHABET[usize::from(*b) % ALPHABET.len()])).collect())
}

/// Whether a name is one that [`temp_name`] or [`temp_index_name`] makes.
pub fn is_temp_name(name: &str) -> bool {
    match name.rsplit_once(".tmp_") {
        Some((_, "fidx" | "didx")) => true,
        Some((_, suffix)) => suffix.len() == 6 && suffix.bytes().all(|b| b.is_ascii_alphanumeric()),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot() -> Snapshot {
        "vm/101/2024-06-05T14:23:38Z".parse().unwrap()
    }

    #[test]
    fn paths_are_those_of_the_specification() {
        let layout = Layout::new("/d");
        let ns: Namespace = "prod/db".parse().unwrap();
        let shown = |p: PathBuf| p.to_str().unwrap().to_owned();
        assert_eq!(
            shown(layout.manifest(&ns, &snapshot())),
            "/d/ns/prod/ns/db/vm/101/2024-06-05T14:23:38Z/index.json.blob"
        );
        assert_eq!(shown(layout.owner(&Namespace::root(), snapshot().group())), "/d/vm/101/owner");
        let digest = Digest::of(b"");
        let hex = digest.to_string();
        assert_eq!(shown(layout.chunk(&digest)), format!("/d/.chunks/e3b0/{hex}"));
        assert_eq!(chunk_stat_name(&digest).as_c_str().to_str().unwrap(), format!("e3b0/{hex}"));
        assert_eq!(chunk_of_name(&hex), Some(digest));
        assert_eq!(chunk_of_name(&format!("{hex}.0.bad")), None);
    }

    #[test]
    fn temporary_names_replace_the_last_extension() {
        let index = |s: &str| temp_index_name(&s.parse().unwrap());
        assert_eq!(index("x.img.fidx"), "x.img.tmp_fidx");
        assert_eq!(index("root.pxar.didx"), "root.pxar.tmp_didx");
        assert_eq!(temp_name("index.json.blob", "AbC123"), "index.json.tmp_AbC123");
        assert_eq!(temp_name("bb9f", "AbC123"), "bb9f.tmp_AbC123");
        assert_eq!(temp_name(".lock", "AbC123"), ".lock.tmp_AbC123");
        assert!(is_temp_name(&temp_name("bb9f", &random_suffix().unwrap())));
        for name in ["x.img.tmp_fidx", "a.tmp_didx", "index.json.tmp_AbC123"] {
            assert!(is_temp_name(name) && !is_snapshot_file(name), "{name}");
        }
        for name in ["index.json.blob", "x.tmp_", "x.tmp_AbC12", "x.tmp_AbC12/", "x.tmp_AbC1234", "tmp_fidx"] {
            assert!(!is_temp_name(name), "{name}");
        }
    }
}
