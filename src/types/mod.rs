//! The nouns of a datastore: parsed, shown, ordered. Pure.
//!
//! Every value here is valid by construction: a type that came out of `parse` may be put into a path or a reply.

mod archive_name;
mod auth_id;
mod chunk_size;
mod digest;
mod group;
mod namespace;
mod safe_id;
mod schedule;
mod snapshot;
mod upid;

pub use archive_name::{ArchiveKind, ArchiveName, CLIENT_LOG_BLOB, MANIFEST_BLOB};
pub use auth_id::{AuthId, Userid};
pub use chunk_size::{CHUNK_BYTES_MAX, ChunkSize, FIXED_CHUNK_BYTES};
pub use digest::{DIGEST_BYTES, Digest};
pub use group::{BackupType, Group};
pub use namespace::{NAMESPACE_DEPTH_MAX, Namespace};
pub use safe_id::{DatastoreName, NAME_BYTES_MAX, is_safe_id};
pub use schedule::Schedule;
pub use snapshot::Snapshot;
pub use upid::{Upid, escape_unit};
