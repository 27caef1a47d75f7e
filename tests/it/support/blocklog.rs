//! A disk that remembers: a FUSE file system of one file, the image of a disk, which keeps every write and every flush in their order. What the
//! disk might hold after a power cut at any moment can be made from that.
//!
//! A loop device over the file hands down each flush of the file system as an fsync. The kernel writes through to us, so a write that the loop
//! device has reported done is in the log, and a flush stands behind all that was done before it was asked for.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    LockOwner, OpenFlags, ReplyAttr, ReplyData, ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request,
    Session, SessionACL, WriteFlags,
};

/// What a disk is kept and torn in: no write of one page is done by halves.
pub const PAGE_BYTES: usize = 4096;

const PAGE: u64 = PAGE_BYTES as u64;

/// The one file.
const NAME: &str = "disk";
const INO: u64 = 2;

/// How long the kernel may believe what it was told: nothing here changes but the bytes, which it knows.
const TTL: Duration = Duration::from_secs(3600);

/// What a disk holds: pages that are not all zeros. A copy shares them.
#[derive(Clone, Debug, Default)]
pub struct Pages(BTreeMap<u64, Arc<[u8; PAGE_BYTES]>>);

impl Pages {
    /// Those of a file.
    pub fn load(file: &File) -> io::Result<Self> {
        let mut pages = Self::default();
        let mut bytes = vec![0; PAGE_BYTES];
        // Whole pages, and data is where the file has no holes.
        let mut at = 0;
        while let Ok(data) = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(at)) {
            let end = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(data))?;
            let mut page = data / PAGE;
            while page * PAGE < end {
                file.read_exact_at(&mut bytes, page * PAGE)?;
                pages.write(page * PAGE, &bytes);
                page += 1;
            }
            at = end;
        }
        Ok(pages)
    }

    /// Makes a file of `size_bytes` of them, with holes for what is zero.
    pub fn store(&self, path: &Path, size_bytes: u64) -> io::Result<()> {
        let file = File::create_new(path)?;
        file.set_len(size_bytes)?;
        for (page, bytes) in &self.0 {
            if bytes.iter().any(|byte| *byte != 0) {
                file.write_all_at(&bytes[..], page * PAGE)?;
            }
        }
        Ok(())
    }

    /// Puts bytes at an offset.
    pub fn write(&mut self, offset: u64, mut bytes: &[u8]) {
        let mut at = offset;
        while !bytes.is_empty() {
            let (page, skip) = (at / PAGE, usize::try_from(at % PAGE).expect("less than a page"));
            let (part, rest) = bytes.split_at(bytes.len().min(PAGE_BYTES - skip));
            if self.0.contains_key(&page) || part.iter().any(|byte| *byte != 0) {
                let kept = self.0.entry(page).or_insert_with(|| Arc::new([0; PAGE_BYTES]));
                Arc::make_mut(kept)[skip..skip + part.len()].copy_from_slice(part);
            }
            at += part.len() as u64;
            bytes = rest;
        }
    }

    /// The first byte of each of the first pages.
    pub fn bytes_at_pages(&self, count: u64) -> Vec<u8> {
        (0..count).map(|page| self.read(page * PAGE, 1)[0]).collect()
    }

    fn read(&self, offset: u64, len: usize) -> Vec<u8> {
        let mut bytes = vec![0; len];
        let mut done = 0;
        while done < len {
            let at = offset + done as u64;
            let skip = usize::try_from(at % PAGE).expect("less than a page");
            let part = (len - done).min(PAGE_BYTES - skip);
            if let Some(page) = self.0.get(&(at / PAGE)) {
                bytes[done..done + part].copy_from_slice(&page[skip..skip + part]);
            }
            done += part;
        }
        bytes
    }
}

/// What reached the disk.
#[derive(Clone, Debug)]
pub enum Entry {
    /// Bytes at an offset; in the disk's cache until the next flush.
    Write(u64, Arc<[u8]>),
    /// Everything before is safe.
    Flush,
}

/// What reached the disk since it was made.
#[derive(Clone, Debug, Default)]
pub struct Log {
    /// What was there before.
    pub base: Pages,
    /// In order.
    pub entries: Vec<Entry>,
}

#[derive(Debug, Default)]
struct Disk {
    now: Pages,
    log: Log,
    size_bytes: u64,
}

/// A mounted recording disk. Dropping it unmounts; whatever is mounted from it must be gone by then.
#[derive(Debug)]
pub struct BlockLog {
    disk: Arc<Mutex<Disk>>,
    mount: PathBuf,
    session: Option<BackgroundSession>,
}

impl BlockLog {
    /// Shows a disk at `mount` that begins as the file `image`, which is not needed any more then. The error says why this machine does not
    /// permit it.
    pub fn mount(image: &Path, mount: &Path) -> io::Result<Self> {
        let image = File::open(image)?;
        let now = Pages::load(&image)?;
        let log = Log { base: now.clone(), entries: Vec::new() };
        let disk = Arc::new(Mutex::new(Disk { now, log, size_bytes: image.metadata()?.len() }));
        let mut config = Config::default();
        config.mount_options = vec![fuser::MountOption::FSName("blocklog".into())];
        config.acl = SessionACL::All;
        let session = Session::new(Recorder(Arc::clone(&disk)), mount, &config).and_then(Session::spawn)?;
        Ok(Self { disk, mount: mount.to_owned(), session: Some(session) })
    }

    /// The image of the disk.
    pub fn image(&self) -> PathBuf {
        self.mount.join(NAME)
    }

    /// How many writes and flushes have reached it.
    pub fn position(&self) -> usize {
        held(&self.disk).log.entries.len()
    }

    /// Everything so far.
    pub fn log(&self) -> Log {
        held(&self.disk).log.clone()
    }
}

impl Drop for BlockLog {
    fn drop(&mut self) {
        if self.session.take().is_some_and(|session| session.umount_and_join().is_err()) {
            let _ = Command::new("umount").arg("--lazy").arg(&self.mount).status();
        }
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Recorder(Arc<Mutex<Disk>>);

impl Recorder {
    fn attr(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size) = match ino.0 {
            1 => (FileType::Directory, 0o755, 0),
            INO => (FileType::RegularFile, 0o600, held(&self.0).size_bytes),
            _ => return None,
        };
        let time = SystemTime::UNIX_EPOCH;
        let (blocks, blksize) = (size / 512, 4096);
        Some(FileAttr {
            ino,
            size,
            blocks,
            atime: time,
            mtime: time,
            ctime: time,
            crtime: time,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize,
            flags: 0,
        })
    }
}

impl Filesystem for Recorder {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.attr(INodeNo(INO)) {
            Some(attr) if parent.0 == 1 && name == NAME => reply.entry(&TTL, &attr, Generation(0)),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino) {
            Some(attr) => reply.attr(&TTL, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn readdir(&self, _: &Request, _: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        if offset == 0 {
            let _ = reply.add(INodeNo(INO), 1, FileType::RegularFile, NAME);
        }
        reply.ok();
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let disk = held(&self.0);
        let len = disk.size_bytes.saturating_sub(offset).min(u64::from(size));
        let bytes = disk.now.read(offset, usize::try_from(len).unwrap_or(0));
        drop(disk);
        reply.data(&bytes);
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut disk = held(&self.0);
        disk.now.write(offset, data);
        disk.log.entries.push(Entry::Write(offset, data.into()));
        drop(disk);
        reply.written(u32::try_from(data.len()).unwrap_or(0));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        held(&self.0).log.entries.push(Entry::Flush);
        reply.ok();
    }
}
