//! The one door to the disk.
//!
//! Store code asks an [`Engine`]: a batch of presence checks ([`Engine::stat`]), or a piece of blocking file work
//! ([`Engine::run`]) that sees the disk as a [`Disk`] of plain operations. Which engine answers the batches is chosen once, at
//! start. Nothing else in the crate makes a system call about files of a datastore.

mod disk;
mod fault;
mod stat;

pub use disk::{DirEntry, Disk, DiskFile, FileKind, FileMeta, FsUsage, LockMode, RecordLock, SyncScope, try_flock};
pub use fault::Fault;
pub use stat::{Class, Engine, EngineChoice, EngineConfig, EngineCounters, FileStat, StatBatch, StatName, StatReply};
