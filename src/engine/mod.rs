//! The one door to the disk.
//!
//! Store code asks an [`Engine`]: a batch of presence checks ([`Engine::stat`]), or a piece of blocking file work
//! ([`Engine::run`]) that sees the disk as a [`Disk`] of plain operations. Which engine answers the batches is chosen
//! once, at start. Nothing else in the crate makes a system call about files of a datastore.
//!
//! ```text
//!  Engine::stat ──▶ intake ──▶ driver, a thread per datastore          Engine::run ──▶ pool of io_threads
//!                                │ schedule  which names next (pure)
//!                                │ adaptive  inline or workers (pure)
//!                                ├─▶ plain     warm: a system call here
//!                                └─▶ workers   cold: uring (the kernel's) or threads (ours)
//! ```

mod adaptive;
mod buffers;
mod counters;
mod dir;
mod dir_fd;
mod disk;
mod driver;
mod fault;
mod file;
mod handle;
mod mount;
mod names;
mod plain;
mod pool;
mod pressure;
mod priority;
mod probe;
mod schedule;
pub mod sim;
mod stat;
#[cfg(test)]
mod suite;
mod threads;
#[expect(unsafe_code, reason = "the ring shares memory with the kernel; each block says who keeps it alive")]
mod uring;
mod work_queue;

pub use buffers::{Buffer, BufferPool};
pub use counters::{DiskCounts, EngineCounters};
pub use dir::DiskDir;
pub use dir_fd::DirFd;
pub use disk::{DirEntry, Disk, FileKind, FileMeta, FileTime, FsUsage};
pub use fault::Fault;
pub use file::{DiskFile, LockMode, RecordLock, SyncScope, try_flock};
pub use handle::{Engine, WORKERS_MAX};
pub use mount::Mount;
pub use names::NamesBuffer;
pub use pool::ComputePool;
pub use pressure::io_pressure;
pub use stat::{Class, EngineChoice, EngineConfig, FileStat, Stamp, StatBatch, StatName, StatReply, StatResult};
