//! Faults on demand: what a test hangs into a [`Disk`](super::Disk) to fail one operation, or all behind it.

use std::fmt::Debug;
use std::io;
use std::path::Path;

/// Asked before every operation of a disk that carries one.
pub trait Fault: Debug + Send + Sync {
    /// `op` is the system call's name; `path` what it names, `None` for one on an open file. An error is what the
    /// operation answers, and nothing is done then.
    fn before(&self, op: &'static str, path: Option<&Path>) -> io::Result<()>;
}
