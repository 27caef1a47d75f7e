//! Empties the kernel's caches, for `--cold`.

use std::io::Write;

use crate::error::{Error, Result};

const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// Whether it is permitted. Drops nothing.
///
/// Errors: `Denied`, with what to do.
pub fn check() -> Result<()> {
    open().map(drop)
}

/// Writes what is dirty and drops pages, names and inodes of the whole machine. Takes up to seconds.
pub fn drop_caches() -> Result<()> {
    // What is dirty is not dropped.
    rustix::fs::sync();
    open()?.write_all(b"3").map_err(refused)
}

fn open() -> Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).open(DROP_CACHES).map_err(refused)
}

fn refused(e: std::io::Error) -> Error {
    Error::denied(format!(
        "cold: the caches cannot be dropped, {DROP_CACHES}: {e}; run as root outside of a container, or leave out cold"
    ))
}
