//! A small real file system of its own, on a loop device: to be filled up, or made read-only.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// A mounted ext4 image. Dropping it unmounts; the image's directory belongs to the caller.
#[derive(Debug)]
pub struct LoopFs {
    mount: PathBuf,
}

impl LoopFs {
    /// Makes an image of `size_bytes` in `dir` and mounts it there. The error says why this machine does not permit it.
    pub fn mount(dir: &Path, size_bytes: u64) -> io::Result<Self> {
        let image = dir.join("loop.ext4");
        let mount = dir.join("loop");
        std::fs::create_dir_all(&mount)?;
        std::fs::File::create(&image)?.set_len(size_bytes)?;
        // Inodes for 65,536 chunk directories would fill a small disk: 1 KiB blocks, an inode for every 4 KiB.
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-b", "1024", "-i", "4096", "-m", "0"]).arg(&image))?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&mount))?;
        Ok(Self { mount })
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

fn run(command: &mut Command) -> io::Result<()> {
    let out = command.stdin(Stdio::null()).output()?;
    if out.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{command:?}: {}", String::from_utf8_lossy(&out.stderr).trim())))
}
