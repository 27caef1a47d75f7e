//! A small real file system of its own, on a loop device: to be filled up, or made read-only.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// File systems that are made here: how, and the smallest that its `mkfs` makes with some room.
pub const KINDS: [(&str, &[&str], u64); 3] = [
    // Inodes for 65,536 chunk directories would fill a small disk: 1 KiB blocks, an inode for every 4 KiB.
    ("ext4", &["-q", "-F", "-b", "1024", "-i", "4096", "-m", "0"], 24 << 20),
    ("xfs", &["-q", "-f"], 320 << 20),
    ("btrfs", &["-q", "-f"], 160 << 20),
];

/// A mounted image. Dropping it unmounts; the image's directory belongs to the caller.
#[derive(Debug)]
pub struct LoopFs {
    mount: PathBuf,
}

impl LoopFs {
    /// Makes an image of `size_bytes` in `dir` and mounts it there. The error says why this machine does not permit it.
    pub fn mount(dir: &Path, size_bytes: u64) -> io::Result<Self> {
        let (kind, options, _) = KINDS[0];
        Self::mount_as(dir, kind, options, size_bytes)
    }

    /// The same with another file system.
    pub fn mount_as(dir: &Path, kind: &str, options: &[&str], size_bytes: u64) -> io::Result<Self> {
        let image = dir.join(format!("loop.{kind}"));
        make(&image, kind, options, size_bytes)?;
        Self::attach(&image, &dir.join(format!("loop-{kind}")), &[])
    }

    /// Mounts an image that is there already, with more options of mount.
    pub fn attach(image: &Path, mount: &Path, more: &[&str]) -> io::Result<Self> {
        std::fs::create_dir_all(mount)?;
        let options = [&["loop"], more].concat().join(",");
        run(Command::new("mount").args(["-o", &options]).arg(image).arg(mount))?;
        Ok(Self { mount: mount.to_owned() })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// Does what ext4 does when it meets an error: from now on nothing can be written.
    pub fn abort(&self) -> io::Result<()> {
        run(Command::new("mount").args(["-o", "remount,abort"]).arg(&self.mount))
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        if run(Command::new("umount").arg(&self.mount)).is_err() {
            let _ = Command::new("umount").arg("--lazy").arg(&self.mount).status();
        }
    }
}

/// Makes a file system of this kind in a new file of `size_bytes`.
pub fn make(image: &Path, kind: &str, options: &[&str], size_bytes: u64) -> io::Result<()> {
    std::fs::File::create(image)?.set_len(size_bytes)?;
    run(Command::new(format!("mkfs.{kind}")).args(options).arg(image))
}

fn run(command: &mut Command) -> io::Result<()> {
    let out = command.stdin(Stdio::null()).output()?;
    if out.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim())))
}
