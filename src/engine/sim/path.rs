//! What a path leads to in a tree (path_resolution(7)). Pure.

use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::tree::{Body, Ino, ROOT, Tree};

/// Links that are followed in one path before it counts as a loop.
const LINKS_MAX: usize = 40;

/// Where a path ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The directory of its last name, and the name; `None` for a directory that was reached without one, such as `.`.
    pub(super) name: Option<(Ino, OsString)>,
    /// What is there.
    pub(super) ino: Option<Ino>,
}

/// Whether a link at the end of a path stands for what it leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastLink {
    Follow,
    Keep,
}

/// Walks `path` from `start`, or from the root if it is absolute.
pub(super) fn resolve(tree: &Tree, start: Ino, path: &Path, last: LastLink) -> Result<Place, Errno> {
    if path.as_os_str().is_empty() {
        return Err(Errno::NOENT);
    }
    let mut walk = Walk { tree, above: vec![start], links: 0 };
    walk.go(path, last)
}

struct Walk<'a> {
    tree: &'a Tree,
    /// The directories from the start to where the walk is.
    above: Vec<Ino>,
    links: usize,
}

impl Walk<'_> {
    fn here(&self) -> Ino {
        *self.above.last().unwrap_or(&ROOT)
    }

    fn go(&mut self, path: &Path, last: LastLink) -> Result<Place, Errno> {
        let mut parts = path.components().peekable();
        let mut place = Place { name: None, ino: Some(self.here()) };
        while let Some(part) = parts.next() {
            let is_last = parts.peek().is_none();
            place = match part {
                Component::RootDir => {
                    self.above = vec![ROOT];
                    Place { name: None, ino: Some(ROOT) }
                }
                Component::CurDir => {
                    self.must_be_dir(self.here())?;
                    Place { name: None, ino: Some(self.here()) }
                }
                Component::ParentDir => {
                    if self.above.len() > 1 {
                        self.above.pop();
                    }
                    Place { name: None, ino: Some(self.here()) }
                }
                Component::Normal(name) => self.step(name, is_last, last)?,
                Component::Prefix(_) => return Err(Errno::INVAL),
            };
            if is_last {
                break;
            }
        }
        Ok(place)
    }

    fn must_be_dir(&self, ino: Ino) -> Result<(), Errno> {
        match self.tree.get(ino).map(|inode| &inode.body) {
            Some(Body::Dir(_)) => Ok(()),
            Some(_) => Err(Errno::NOTDIR),
            None => Err(Errno::NOENT),
        }
    }

    fn step(&mut self, name: &OsStr, is_last: bool, last: LastLink) -> Result<Place, Errno> {
        let dir = self.here();
        self.must_be_dir(dir)?;
        if name.len() > 255 {
            return Err(Errno::NAMETOOLONG);
        }
        let ino = self.tree.entry(dir, name);
        let place = Place { name: Some((dir, name.to_owned())), ino };
        let Some(inode) = ino.and_then(|ino| self.tree.get(ino)) else {
            return if is_last { Ok(place) } else { Err(Errno::NOENT) };
        };
        match &inode.body {
            Body::Link(to) if !is_last || last == LastLink::Follow => {
                self.links += 1;
                if self.links > LINKS_MAX {
                    return Err(Errno::LOOP);
                }
                let to: PathBuf = to.clone();
                let end = self.go(&to, LastLink::Follow)?;
                if !is_last {
                    self.must_be_dir(end.ino.ok_or(Errno::NOENT)?)?;
                }
                Ok(end)
            }
            Body::Dir(_) => {
                self.above.push(ino.expect("it has an inode"));
                Ok(place)
            }
            _ if is_last => Ok(place),
            _ => Err(Errno::NOTDIR),
        }
    }
}
