//! What an operator can do about the kernel's refusal. Pure.

use std::fmt;
use std::io;
use std::path::Path;

use crate::error::Error;

/// A sentence for an error number whose cause lies outside the program; `None` where the kernel's own words say it all.
pub(super) fn remedy(e: &io::Error) -> Option<&'static str> {
    match e.raw_os_error()? {
        libc::ENOSPC => Some("the file system is full: free space on it, or remove snapshots and collect garbage"),
        libc::EDQUOT => Some("the quota is used up: raise it, or remove snapshots and collect garbage"),
        libc::EROFS => {
            Some("the file system is mounted read-only: look for errors of the disk, then mount it read-write")
        }
        libc::EACCES | libc::EPERM => Some("the daemon may not do this: give the datastore to its user with chown -R"),
        libc::EIO => Some("the disk fails: look at the kernel's log"),
        libc::ESTALE | libc::ENOTCONN => Some("the file system went away: mount it again"),
        libc::EMFILE | libc::ENFILE => Some("too many open files: raise LimitNOFILE of the service"),
        _ => None,
    }
}

/// `what "PATH" (what to do) - cause`.
pub(super) fn failed(what: impl fmt::Display, path: &Path, e: io::Error) -> Error {
    match remedy(&e) {
        Some(remedy) => Error::io(format!("{what} {path:?} ({remedy})"), e),
        None => Error::io(format!("{what} {path:?}"), e),
    }
}

/// What the original says about a directory of the tree that is not there; clients look for these words (spec 05 §4).
pub(super) fn no_entry() -> Error {
    Error::invalid("ENOENT: No such file or directory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_says_what_to_do() {
        let e = failed("unable to write", Path::new("/d/x"), io::Error::from_raw_os_error(libc::ENOSPC));
        assert_eq!(
            e.to_string(),
            "unable to write \"/d/x\" (the file system is full: free space on it, or remove snapshots and collect garbage) \
             - No space left on device (os error 28)"
        );
        let e = failed("unable to open", Path::new("/d/x"), io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(e.to_string(), "unable to open \"/d/x\" - No such file or directory (os error 2)");
    }
}
