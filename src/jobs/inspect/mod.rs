//! What is known about snapshots and chunks without reading a chunk: who shares what with whom, what is missing, what would heal it.
//!
//! Two reports, both from index files and presence checks alone, both read only (but for the marks that [`Tracing`] may set):
//!
//! | report | question | passes over all index files |
//! |---|---|---|
//! | [`Inspection`] | one snapshot: its files, its chunks, with whom it shares them, what it has lost | one for each 1 to 2 Mi different chunks of it, and one more if chunks are missing |
//! | [`Tracing`] | which snapshots lose data when these chunks are gone | one; for all missing ones one more for each 1 to 2 Mi different chunks of the store |
//!
//! `lookup`, `places`, `heal` and `words` are the rules, `walk` and `trace` the way through the datastore. Memory: 64 MiB for a pass, a few
//! index blocks, and the report, whose lists have bounds.

mod chunks;
mod heal;
mod lookup;
mod places;
pub mod report;
mod snapshot;
mod trace;
mod walk;
pub mod words;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use self::chunks::{About, Tracing, WORKER_TYPE as TRACING_WORKER_TYPE};
pub use self::report::Report;
pub use self::snapshot::Inspection;
use crate::types::Namespace;

/// Whether whoever asked may see the names of a namespace's snapshots; the others are counted.
pub type MaySee = Arc<dyn Fn(&Namespace) -> bool + Send + Sync>;
