//! What a client may ask of a session: request line → endpoint, and endpoint with checked parameters → action. Pure.

use std::fmt;

use crate::types::{ArchiveName, ChunkSize, Digest};

/// Most chunks of one append. Clients send up to 128; what fits into a JSON body of 512 KiB is fewer than this too,
/// since a digest takes 67 bytes of it and an offset two.
pub const APPEND_ENTRIES_MAX: usize = 8192;

/// Fixed or dynamic: which index a call is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WriterKind {
    /// Chunks of one size, slots in any order.
    Fixed,
    /// Chunks of any size, one after another.
    Dynamic,
}

impl fmt::Display for WriterKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fixed => "fixed",
            Self::Dynamic => "dynamic",
        })
    }
}

/// Number of an index writer: 1 to 256, given in order, never given twice in a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriterId(u16);

impl WriterId {
    /// Highest number, and so the most indexes of one session.
    pub const MAX: u16 = 256;

    /// `None` outside of 1 to 256.
    pub fn new(number: u64) -> Option<Self> {
        u16::try_from(number).ok().filter(|n| (1..=Self::MAX).contains(n)).map(Self)
    }

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl fmt::Display for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A call of the backup protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BackupEndpoint {
    /// `GET /`
    Root,
    /// `POST blob`
    Blob,
    /// `POST fixed_index`, `POST dynamic_index`
    CreateIndex(WriterKind),
    /// `POST fixed_chunk`, `POST dynamic_chunk`
    Chunk(WriterKind),
    /// `PUT fixed_index`, `PUT dynamic_index`
    Append(WriterKind),
    /// `POST fixed_close`, `POST dynamic_close`
    Close(WriterKind),
    /// `GET previous_backup_time`
    PreviousBackupTime,
    /// `GET previous`
    Previous,
    /// `POST finish`
    Finish,
    /// `POST speedtest`
    Speedtest,
}

impl BackupEndpoint {
    /// What `GET /` lists, sorted.
    pub const SUBDIRS: [&str; 11] = [
        "blob",
        "dynamic_chunk",
        "dynamic_close",
        "dynamic_index",
        "finish",
        "fixed_chunk",
        "fixed_close",
        "fixed_index",
        "previous",
        "previous_backup_time",
        "speedtest",
    ];

    /// The call that a request line names; `None` for an unknown path, or a method that it does not take.
    pub fn of(method: &str, path: &str) -> Option<Self> {
        use WriterKind::{Dynamic, Fixed};
        Some(match (method, only_component(path)?) {
            ("GET", "") => Self::Root,
            ("POST", "blob") => Self::Blob,
            ("POST", "fixed_index") => Self::CreateIndex(Fixed),
            ("POST", "dynamic_index") => Self::CreateIndex(Dynamic),
            ("POST", "fixed_chunk") => Self::Chunk(Fixed),
            ("POST", "dynamic_chunk") => Self::Chunk(Dynamic),
            ("PUT", "fixed_index") => Self::Append(Fixed),
            ("PUT", "dynamic_index") => Self::Append(Dynamic),
            ("POST", "fixed_close") => Self::Close(Fixed),
            ("POST", "dynamic_close") => Self::Close(Dynamic),
            ("GET", "previous_backup_time") => Self::PreviousBackupTime,
            ("GET", "previous") => Self::Previous,
            ("POST", "finish") => Self::Finish,
            ("POST", "speedtest") => Self::Speedtest,
            _ => return None,
        })
    }
}

/// A call of the reader protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReaderEndpoint {
    /// `GET /`
    Root,
    /// `GET chunk`
    Chunk,
    /// `GET download`
    Download,
    /// `GET speedtest`
    Speedtest,
}

impl ReaderEndpoint {
    /// What `GET /` lists, sorted.
    pub const SUBDIRS: [&str; 3] = ["chunk", "download", "speedtest"];

    /// The call that a request line names.
    pub fn of(method: &str, path: &str) -> Option<Self> {
        Some(match (method, only_component(path)?) {
            ("GET", "") => Self::Root,
            ("GET", "chunk") => Self::Chunk,
            ("GET", "download") => Self::Download,
            ("GET", "speedtest") => Self::Speedtest,
            _ => return None,
        })
    }
}

/// The one component of a path, the empty text for none; empty components between slashes are dropped (spec 05 §1.1).
fn only_component(path: &str) -> Option<&str> {
    let mut components = path.split('/').filter(|component| !component.is_empty());
    let first = components.next().unwrap_or("");
    components.next().is_none().then_some(first)
}

/// A chunk as its upload announces it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkUpload {
    /// Which map of writers `wid` is looked up in.
    pub kind: WriterKind,
    /// The writer whose statistics count it.
    pub wid: WriterId,
    /// Its name.
    pub digest: Digest,
    /// Length of its plaintext.
    pub size: ChunkSize,
    /// Length of the body.
    pub encoded_bytes: u64,
}

/// Known chunks that become part of an index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Append {
    /// Which map of writers `wid` is looked up in.
    pub kind: WriterKind,
    /// The writer.
    pub wid: WriterId,
    /// Names, in the order of `offsets`.
    pub digests: Vec<Digest>,
    /// Where each chunk starts in the image or stream, in bytes.
    pub offsets: Vec<u64>,
}

/// What the client says about an index that is complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Close {
    /// Which map of writers `wid` is looked up in.
    pub kind: WriterKind,
    /// The writer.
    pub wid: WriterId,
    /// How many chunks were appended.
    pub chunk_count: u64,
    /// Length of the image or stream, in bytes.
    pub size_bytes: u64,
    /// SHA-256 over the entries.
    pub csum: Digest,
}

/// A new index.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CreateIndex {
    /// `POST fixed_index`
    Fixed {
        /// As the client names it.
        archive: String,
        /// Length of the image, in bytes.
        size_bytes: u64,
        /// Start as a copy of the base's index, if that has this checksum; as the client spells it.
        reuse_csum: Option<String>,
    },
    /// `POST dynamic_index`
    Dynamic {
        /// As the client names it.
        archive: String,
    },
}

/// Everything that a client may ask of a backup session but the bodies: those are read on the way to the effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// What is there?
    Root,
    /// When was the base taken?
    PreviousBackupTime,
    /// Send a file of the base; the chunks of an index become known.
    Previous(ArchiveName),
    /// Store a small file.
    Blob {
        /// As the client names it.
        file_name: String,
        /// Announced length of the body.
        encoded_bytes: u64,
    },
    /// Begin an index.
    CreateIndex(CreateIndex),
    /// Store a chunk.
    Chunk(ChunkUpload),
    /// Add known chunks to an index.
    Append(Append),
    /// End an index.
    Close(Close),
    /// Make the snapshot real.
    Finish,
    /// Throw a body away.
    Speedtest,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_directory_is_a_call_and_nothing_else_is() {
        for name in BackupEndpoint::SUBDIRS {
            let path = format!("//{name}/");
            let any = ["GET", "POST", "PUT"].iter().any(|method| BackupEndpoint::of(method, &path).is_some());
            assert!(any, "{name}");
        }
        for (method, path) in [
            ("GET", "/nosuch"),
            ("GET", "/finish"),
            ("POST", "/previous"),
            ("POST", "/"),
            ("DELETE", "/blob"),
            ("POST", "/blob/x"),
            ("POST", "/Blob"),
        ] {
            assert_eq!(BackupEndpoint::of(method, path), None, "{method} {path}");
        }
        assert_eq!(BackupEndpoint::of("GET", ""), Some(BackupEndpoint::Root));
        assert_eq!(BackupEndpoint::of("PUT", "/dynamic_index"), Some(BackupEndpoint::Append(WriterKind::Dynamic)));
        for name in ReaderEndpoint::SUBDIRS {
            assert!(ReaderEndpoint::of("GET", &format!("/{name}")).is_some(), "{name}");
            assert_eq!(ReaderEndpoint::of("POST", &format!("/{name}")), None, "{name}");
        }
    }

    #[test]
    fn writer_numbers_go_from_1_to_256() {
        assert_eq!(WriterId::new(0), None);
        assert_eq!(WriterId::new(1).map(WriterId::get), Some(1));
        assert_eq!(WriterId::new(256).map(WriterId::get), Some(256));
        assert_eq!(WriterId::new(257), None);
        assert_eq!(WriterId::new(u64::MAX), None);
    }
}
