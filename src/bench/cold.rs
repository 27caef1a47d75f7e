//! Empties the kernel's caches, for `--cold`.
//!
//! Dropping alone does not forget what was made just before: what a journal has not yet put in its place stays in memory. Freezing a file
//! system puts it there, so that is done first, where it may be.

use std::collections::BTreeSet;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::error::{Error, Result};

const DROP_CACHES: &str = "/proc/sys/vm/drop_caches";

/// Whether it is permitted. Drops nothing.
///
/// Errors: `Denied`, with what to do.
pub fn check() -> Result<()> {
    open().map(drop)
}

/// Writes what is dirty, freezes and thaws the file systems of `directories`, and drops pages, names and inodes of the whole machine. Takes
/// up to seconds. What comes back says why one of them was not frozen; then files made just before may be in memory still.
pub fn drop_caches<'a>(directories: impl IntoIterator<Item = &'a Path>) -> Result<Option<&'static str>> {
    // What is dirty is not dropped.
    rustix::fs::sync();
    let mut frozen = BTreeSet::new();
    let mut refused_because = None;
    for directory in directories {
        if directory.metadata().is_ok_and(|meta| frozen.insert(meta.dev())) {
            refused_because = freeze(directory).err().or(refused_because);
        }
    }
    open()?.write_all(b"3").map_err(refused)?;
    Ok(refused_because)
}

/// Freezes the file system that `directory` lies on, and thaws it again.
fn freeze(directory: &Path) -> std::result::Result<(), &'static str> {
    let device = |path: &Path| path.metadata().map(|meta| meta.dev()).ok();
    let at = device(directory);
    // Whoever writes to it waits meanwhile, and of these everybody may be one.
    if ["/", "/tmp", "/var", "/usr"].into_iter().any(|path| device(Path::new(path)) == at) {
        return Err("a file system of the whole machine is not frozen");
    }
    let said = |what: &str| {
        let mut command = Command::new("fsfreeze");
        command.arg(what).arg(directory).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        // Ctrl-C is for us: one that is frozen has to thaw.
        command.process_group(0).status()
    };
    match said("--freeze") {
        Err(_) => Err("there is no fsfreeze (util-linux)"),
        Ok(status) if status.success() => {
            let thawed = said("--unfreeze").is_ok_and(|status| status.success());
            if thawed { Ok(()) } else { Err("it was frozen and did not thaw: say fsfreeze --unfreeze") }
        }
        Ok(_) => Err("the file system cannot be frozen"),
    }
}

fn open() -> Result<std::fs::File> {
    std::fs::OpenOptions::new().write(true).open(DROP_CACHES).map_err(refused)
}

fn refused(e: std::io::Error) -> Error {
    Error::denied(format!(
        "cold: the caches cannot be dropped, {DROP_CACHES}: {e}; run as root outside of a container, or leave out cold"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_system_of_the_machine_is_not_frozen() {
        assert_eq!(freeze(Path::new("/")), Err("a file system of the whole machine is not frozen"));
    }
}
