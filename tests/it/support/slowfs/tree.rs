//! Which inode number is which name. The numbers are those of the directory below, so that a listing tells the same numbers
//! as that directory does; what the kernel has forgotten is forgotten here too.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::PathBuf;

/// The number of the file system's root in the kernel's protocol.
pub const ROOT: u64 = 1;

#[derive(Debug, Default)]
pub struct Tree(HashMap<u64, Node>);

#[derive(Debug)]
struct Node {
    parent: u64,
    name: OsString,
    /// How many answers told the kernel of it that the kernel has not taken back.
    lookups: u64,
}

impl Tree {
    /// The path below the root; of the root itself it is empty.
    pub fn path(&self, ino: u64) -> io::Result<PathBuf> {
        let mut names = Vec::new();
        let mut at = ino;
        while at != ROOT {
            let node = self.0.get(&at).ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))?;
            names.push(&node.name);
            at = node.parent;
        }
        Ok(names.into_iter().rev().collect())
    }

    /// Its last name; of the root and of what is unknown it is empty.
    pub fn name(&self, ino: u64) -> OsString {
        self.0.get(&ino).map(|node| node.name.clone()).unwrap_or_default()
    }

    /// The kernel is told that `name` in `parent` is `ino`.
    pub fn tell(&mut self, ino: u64, parent: u64, name: &OsStr) {
        let node = self.0.entry(ino).or_insert_with(|| Node { parent, name: name.to_owned(), lookups: 0 });
        node.lookups += 1;
        if node.parent != parent || node.name != name {
            (node.parent, node.name) = (parent, name.to_owned());
        }
    }

    /// The kernel takes `lookups` answers back.
    pub fn forget(&mut self, ino: u64, lookups: u64) {
        if let Some(node) = self.0.get_mut(&ino) {
            node.lookups = node.lookups.saturating_sub(lookups);
            if node.lookups == 0 {
                self.0.remove(&ino);
            }
        }
    }

    /// `ino` is called `name` in `parent` from now on.
    pub fn rename(&mut self, ino: u64, parent: u64, name: &OsStr) {
        if let Some(node) = self.0.get_mut(&ino) {
            (node.parent, node.name) = (parent, name.to_owned());
        }
    }
}
