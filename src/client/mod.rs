//! A small client of the protocol: backs up images, configuration and streams, and brings them back.
//!
//! It sends what the official client sends (spec 06), so it works with any server of the protocol; only `.stream` archives are
//! Ringvault's own. Tests and benchmarks drive it through [`backup::run`] and [`restore::run`], or request by request through
//! [`BackupSession`] and [`ReaderSession`].
//!
//! ```text
//! repository, environment ─► Client (rest) ─► Session ─► BackupSession ◄─ pipeline ◄─ source   ◄─ backup::run
//!                                             (HTTP/2)   ReaderSession ─► restore ─► target    ◄─ restore::run
//! ```

pub mod archive_spec;
pub mod backup;
pub mod environment;
#[cfg(test)]
mod fake_server;
mod index;
mod known;
mod observer;
mod pipeline;
mod plan;
mod progress;
mod reader;
mod report;
mod repository;
mod rest;
pub mod restore;
#[cfg(test)]
mod round_trip_tests;
mod session;
pub mod snapshots;
mod source;
mod spawned;
mod target;
mod tls;
mod writer;

pub use archive_spec::{ArchiveSpec, SourceKind, SourcePath};
pub use environment::Secret;
pub use index::{INDEX_BYTES_MAX, Index, Slot};
pub use known::Known;
pub use observer::{Observer, Silent};
pub use pipeline::IN_FLIGHT_BYTES_MAX;
pub use plan::{APPEND_ENTRIES_MAX, AppendBatch};
pub use progress::Progress;
pub use reader::ReaderSession;
pub use report::{ArchiveReport, BackupReport, RestoreReport};
pub use repository::{DEFAULT_PORT, Repository};
pub use rest::{Client, Query};
pub use session::Session;
pub use target::TargetPath;
pub use tls::{Connector, Fingerprint, Trust};
pub use writer::{BackupSession, Writer};
