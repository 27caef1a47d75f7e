//! Tasks: what the daemon does for somebody, with a name, a log and a result (spec 05 §6).
//!
//! A [`Registry`] belongs to a data directory. A [`Task`] logs lines that never block who logs them: one thread writes
//! the files of all tasks, and lines that it cannot take in time are counted and left out.
//!
//! ```text
//! tasks/XX/UPID   log lines, the last one says how it ended      XX = low byte of the daemon's start time
//! tasks/active    one UPID a line: running ones
//! tasks/archive   `UPID endtime(%08X) status`, oldest first
//! tasks/history/  what the jobs of each datastore came to, in figures
//! ```

//!
//! The thread is the only one that changes these files. What is listed comes from memory; a log is read by a thread of its own.

mod book;
mod entry;
mod filter;
mod history;
mod line_index;
mod lists;
mod log_reader;
mod registry;
mod replace;
mod writer;

pub use book::{Listed, Walk};
pub use entry::{TaskStatus, log_line};
pub use filter::{Filter, StatusClass, store_of};
pub use history::{RUNS_KEPT, Run, RunKind};
pub use log_reader::{Download, Page, TaskLog};
pub use registry::{ENDED_TASKS_KEPT, Registry, Task, TaskState};
