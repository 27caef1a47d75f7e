//! A file system that stands for a slow, faulty or distant one: everything passes through to a directory, but each metadata
//! request waits, can be counted, and can be made to fail by the name of the file. For tests and for benchmarks.
//!
//! The delay does not occupy a thread: any number of requests wait at the same time, as on a network.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session, SessionACL, TimeOrNow, WriteFlags,
};

/// What a request asks for, as far as faults and counters tell requests apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// A name is looked up.
    Lookup,
    /// An inode's attributes are read.
    Getattr,
    /// A file or directory is opened.
    Open,
    /// Data is read.
    Read,
    /// Data is written, or a file is made.
    Write,
    /// A name is given, changed or removed.
    Name,
}

/// How the file system behaves; each field may change while it is mounted.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// How long each lookup and getattr takes.
    pub delay: Duration,
    /// How long the kernel may believe what it was told.
    pub ttl: Duration,
    /// File name and operation → error number.
    pub faults: HashMap<(OsString, Op), i32>,
}

/// A mounted slow file system. Dropping it unmounts.
#[derive(Debug)]
pub struct SlowFs {
    shared: Arc<Shared>,
    mount: PathBuf,
    session: Option<BackgroundSession>,
}

#[derive(Debug)]
struct Shared {
    root: PathBuf,
    behaviour: Mutex<Behaviour>,
    tree: Mutex<Tree>,
    handles: Mutex<HashMap<u64, Arc<File>>>,
    next_handle: AtomicU64,
    counts: Mutex<HashMap<(OsString, Op), u64>>,
    /// Most lookups and getattrs that waited at the same time.
    waiting_max: AtomicU64,
    delays: Delays,
}

#[derive(Debug, Default)]
struct Tree {
    paths: HashMap<u64, PathBuf>,
    inos: HashMap<PathBuf, u64>,
    next: u64,
}

struct Passthrough(Arc<Shared>);

impl SlowFs {
    /// Mounts `backing` at `mount`. The error says why this machine does not permit it.
    pub fn mount(backing: &Path, mount: &Path, behaviour: Behaviour) -> io::Result<Self> {
        let mut tree = Tree { next: 2, ..Tree::default() };
        tree.paths.insert(1, PathBuf::new());
        tree.inos.insert(PathBuf::new(), 1);
        let shared = Arc::new(Shared {
            root: backing.to_owned(),
            behaviour: Mutex::new(behaviour),
            tree: Mutex::new(tree),
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
            counts: Mutex::default(),
            waiting_max: AtomicU64::new(0),
            delays: Delays::start(),
        });
        let mut config = Config::default();
        config.mount_options =
            vec![fuser::MountOption::FSName("slowfs".into()), fuser::MountOption::DefaultPermissions];
        config.acl = SessionACL::All;
        config.n_threads = Some(4);
        let session = Session::new(Passthrough(Arc::clone(&shared)), mount, &config)?.spawn()?;
        Ok(Self { shared, mount: mount.to_owned(), session: Some(session) })
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// The directory below it.
    pub fn backing(&self) -> &Path {
        &self.shared.root
    }

    /// Changes how it behaves from the next request on.
    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut held(&self.shared.behaviour));
    }

    /// Makes `op` on files of this name fail with `errno`.
    pub fn fail(&self, name: &str, op: Op, errno: i32) {
        self.set(|b| {
            b.faults.insert((name.into(), op), errno);
        });
    }

    /// Ends all faults.
    pub fn heal(&self) {
        self.set(|b| b.faults.clear());
    }

    /// How many requests of this kind named `name` since the last [`Self::reset_counts`].
    pub fn count(&self, name: &str, op: Op) -> u64 {
        held(&self.shared.counts).get(&(name.into(), op)).copied().unwrap_or(0)
    }

    /// How many requests of this kind there were.
    pub fn total(&self, op: Op) -> u64 {
        held(&self.shared.counts).iter().filter(|((_, o), _)| *o == op).map(|(_, n)| n).sum()
    }

    /// Most metadata requests that waited at the same time since the last [`Self::reset_counts`].
    pub fn waiting_max(&self) -> u64 {
        self.shared.waiting_max.load(Ordering::Relaxed)
    }

    /// Starts counting again from zero.
    pub fn reset_counts(&self) {
        held(&self.shared.counts).clear();
        self.shared.waiting_max.store(0, Ordering::Relaxed);
    }
}

impl Drop for SlowFs {
    fn drop(&mut self) {
        if self.session.take().is_some_and(|session| session.umount_and_join().is_err()) {
            // Somebody still has a file open: take the name away now, the rest follows when it is closed.
            let _ = Command::new("umount").arg("--lazy").arg(&self.mount).status();
        }
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

type Later = Box<dyn FnOnce() + Send>;

/// Runs things when their time has come, in order of time.
#[derive(Clone)]
struct Delays(Arc<(Mutex<Queue>, Condvar)>);

#[derive(Default)]
struct Queue {
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    work: HashMap<u64, Later>,
    next: u64,
}

impl std::fmt::Debug for Delays {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Delays")
    }
}

impl Delays {
    fn start() -> Self {
        let shared: Arc<(Mutex<Queue>, Condvar)> = Arc::default();
        let weak = Arc::downgrade(&shared);
        std::thread::spawn(move || {
            // Ends when the file system is gone; looks for that ten times a second.
            while let Some(shared) = weak.upgrade() {
                let mut queue = held(&shared.0);
                let now = Instant::now();
                let mut ready = Vec::new();
                while let Some(Reverse((when, id))) = queue.due.peek().copied() {
                    if when > now {
                        break;
                    }
                    queue.due.pop();
                    ready.extend(queue.work.remove(&id));
                }
                if ready.is_empty() {
                    let wait = queue.due.peek().map_or(Duration::from_millis(100), |Reverse((when, _))| *when - now);
                    drop(shared.1.wait_timeout(queue, wait.min(Duration::from_millis(100))));
                } else {
                    drop(queue);
                    ready.into_iter().for_each(|work| work());
                }
            }
        });
        Self(shared)
    }

    /// Runs `work` after `delay`; returns how many are waiting now.
    fn after(&self, delay: Duration, work: Later) -> u64 {
        if delay.is_zero() {
            work();
            return 0;
        }
        let mut queue = held(&self.0.0);
        let id = queue.next;
        queue.next += 1;
        queue.due.push(Reverse((Instant::now() + delay, id)));
        queue.work.insert(id, work);
        let waiting = queue.work.len();
        drop(queue);
        self.0.1.notify_one();
        u64::try_from(waiting).unwrap_or(u64::MAX)
    }
}

fn code(e: &io::Error) -> Errno {
    Errno::from_i32(e.raw_os_error().unwrap_or(libc::EIO))
}

impl Tree {
    fn ino(&mut self, path: &Path) -> u64 {
        if let Some(ino) = self.inos.get(path) {
            return *ino;
        }
        let ino = self.next;
        self.next += 1;
        self.paths.insert(ino, path.to_owned());
        self.inos.insert(path.to_owned(), ino);
        ino
    }

    fn forget(&mut self, path: &Path) {
        if let Some(ino) = self.inos.remove(path) {
            self.paths.remove(&ino);
        }
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        self.forget(to);
        let moved: Vec<PathBuf> = self.inos.keys().filter(|p| p.starts_with(from)).cloned().collect();
        for old in moved {
            let new = match old.strip_prefix(from) {
                Ok(rest) if !rest.as_os_str().is_empty() => to.join(rest),
                _ => to.to_owned(),
            };
            if let Some(ino) = self.inos.remove(&old) {
                self.paths.insert(ino, new.clone());
                self.inos.insert(new, ino);
            }
        }
    }
}

impl Shared {
    fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        held(&self.tree).paths.get(&ino.0).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::ESTALE))
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    fn full(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    /// Counts a request and says whether it is to fail.
    fn note(&self, name: &OsStr, op: Op) -> io::Result<()> {
        let key = (name.to_owned(), op);
        let fault = held(&self.behaviour).faults.get(&key).copied();
        *held(&self.counts).entry(key).or_default() += 1;
        fault.map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(errno)))
    }

    fn note_ino(&self, ino: INodeNo, op: Op) -> io::Result<()> {
        let path = self.path(ino).unwrap_or_default();
        self.note(path.file_name().unwrap_or_default(), op)
    }

    fn later(&self, work: impl FnOnce() + Send + 'static) {
        let delay = held(&self.behaviour).delay;
        let waiting = self.delays.after(delay, Box::new(work));
        self.waiting_max.fetch_max(waiting, Ordering::Relaxed);
    }

    fn ttl(&self) -> Duration {
        held(&self.behaviour).ttl
    }

    fn attr(&self, path: &Path, meta: &Metadata) -> FileAttr {
        let ino = held(&self.tree).ino(path);
        attr_of(ino, meta)
    }

    fn entry(&self, path: &Path) -> io::Result<FileAttr> {
        let meta = std::fs::symlink_metadata(self.full(path))?;
        Ok(self.attr(path, &meta))
    }

    fn keep(&self, file: File) -> FileHandle {
        let handle = self.next_handle.fetch_add(1, Ordering::Relaxed);
        held(&self.handles).insert(handle, Arc::new(file));
        FileHandle(handle)
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        held(&self.handles).get(&handle.0).cloned().ok_or_else(|| io::Error::from_raw_os_error(libc::EBADF))
    }
}

fn attr_of(ino: u64, meta: &Metadata) -> FileAttr {
    let kind = meta.file_type();
    let kind = if kind.is_dir() {
        FileType::Directory
    } else if kind.is_symlink() {
        FileType::Symlink
    } else if kind.is_fifo() {
        FileType::NamedPipe
    } else {
        FileType::RegularFile
    };
    let time = |secs: i64, nanos: i64| {
        let nanos = u32::try_from(nanos).unwrap_or(0);
        u64::try_from(secs).map_or(SystemTime::UNIX_EPOCH, |s| SystemTime::UNIX_EPOCH + Duration::new(s, nanos))
    };
    FileAttr {
        ino: INodeNo(ino),
        size: meta.len(),
        blocks: meta.blocks(),
        atime: time(meta.atime(), meta.atime_nsec()),
        mtime: time(meta.mtime(), meta.mtime_nsec()),
        ctime: time(meta.ctime(), meta.ctime_nsec()),
        crtime: SystemTime::UNIX_EPOCH,
        kind,
        perm: u16::try_from(meta.mode() & 0o7777).unwrap_or(0),
        nlink: u32::try_from(meta.nlink()).unwrap_or(1),
        uid: meta.uid(),
        gid: meta.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn stamp(time: TimeOrNow) -> rustix::fs::Timespec {
    match time {
        TimeOrNow::Now => rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_NOW },
        TimeOrNow::SpecificTime(t) => {
            let since = t.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
            rustix::fs::Timespec {
                tv_sec: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(since.subsec_nanos()),
            }
        }
    }
}

/// What `setattr` changes.
struct Changes {
    mode: Option<u32>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    atime: Option<TimeOrNow>,
    mtime: Option<TimeOrNow>,
}

fn change(path: &Path, open: Option<&File>, changes: Changes) -> io::Result<()> {
    if let Some(mode) = changes.mode {
        let permissions = std::fs::Permissions::from_mode(mode & 0o7777);
        match open {
            Some(file) => file.set_permissions(permissions)?,
            None => std::fs::set_permissions(path, permissions)?,
        }
    }
    if changes.uid.is_some() || changes.gid.is_some() {
        match open {
            Some(file) => std::os::unix::fs::fchown(file, changes.uid, changes.gid)?,
            None => std::os::unix::fs::lchown(path, changes.uid, changes.gid)?,
        }
    }
    if let Some(size) = changes.size {
        match open {
            Some(file) => file.set_len(size)?,
            None => std::fs::OpenOptions::new().write(true).open(path)?.set_len(size)?,
        }
    }
    if changes.atime.is_some() || changes.mtime.is_some() {
        let omit = rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT };
        let times = rustix::fs::Timestamps {
            last_access: changes.atime.map_or(omit, stamp),
            last_modification: changes.mtime.map_or(omit, stamp),
        };
        match open {
            Some(file) => rustix::fs::futimens(file, &times)?,
            None => rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?,
        }
    }
    Ok(())
}

macro_rules! or_fail {
    ($reply:expr, $work:expr) => {
        match $work {
            Ok(value) => value,
            Err(e) => return $reply.error(code(&e)),
        }
    };
}

impl Filesystem for Passthrough {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let shared = Arc::clone(&self.0);
        let name = name.to_owned();
        self.0.later(move || {
            or_fail!(reply, shared.note(&name, Op::Lookup));
            let path = or_fail!(reply, shared.child(parent, &name));
            let attr = or_fail!(reply, shared.entry(&path));
            reply.entry(&shared.ttl(), &attr, Generation(0));
        });
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        let shared = Arc::clone(&self.0);
        self.0.later(move || {
            or_fail!(reply, shared.note_ino(ino, Op::Getattr));
            let meta = match fh.map(|fh| shared.file(fh)) {
                Some(Ok(file)) => file.metadata(),
                _ => shared.path(ino).and_then(|p| std::fs::symlink_metadata(shared.full(&p))),
            };
            let meta = or_fail!(reply, meta);
            reply.attr(&shared.ttl(), &attr_of(ino.0, &meta));
        });
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        fh: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        or_fail!(reply, self.0.note_ino(ino, Op::Write));
        let path = or_fail!(reply, self.0.path(ino));
        let full = self.0.full(&path);
        let open = fh.and_then(|fh| self.0.file(fh).ok());
        or_fail!(reply, change(&full, open.as_deref(), Changes { mode, uid, gid, size, atime, mtime }));
        let meta = match &open {
            Some(file) => file.metadata(),
            None => std::fs::symlink_metadata(&full),
        };
        let meta = or_fail!(reply, meta);
        reply.attr(&self.0.ttl(), &attr_of(ino.0, &meta));
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        or_fail!(reply, self.0.note(name, Op::Name));
        let path = or_fail!(reply, self.0.child(parent, name));
        let full = self.0.full(&path);
        or_fail!(reply, std::fs::DirBuilder::new().mode(mode).create(&full));
        or_fail!(reply, std::fs::set_permissions(&full, std::fs::Permissions::from_mode(mode & 0o7777)));
        let attr = or_fail!(reply, self.0.entry(&path));
        reply.entry(&self.0.ttl(), &attr, Generation(0));
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        or_fail!(reply, self.0.note(name, Op::Name));
        let path = or_fail!(reply, self.0.child(parent, name));
        or_fail!(reply, std::fs::remove_file(self.0.full(&path)));
        held(&self.0.tree).forget(&path);
        reply.ok();
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        or_fail!(reply, self.0.note(name, Op::Name));
        let path = or_fail!(reply, self.0.child(parent, name));
        or_fail!(reply, std::fs::remove_dir(self.0.full(&path)));
        held(&self.0.tree).forget(&path);
        reply.ok();
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        or_fail!(reply, self.0.note(name, Op::Name));
        or_fail!(reply, self.0.note(new_name, Op::Name));
        let from = or_fail!(reply, self.0.child(parent, name));
        let to = or_fail!(reply, self.0.child(new_parent, new_name));
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return reply.error(Errno::EINVAL);
        }
        if flags.contains(RenameFlags::RENAME_NOREPLACE) && std::fs::symlink_metadata(self.0.full(&to)).is_ok() {
            return reply.error(Errno::EEXIST);
        }
        or_fail!(reply, std::fs::rename(self.0.full(&from), self.0.full(&to)));
        held(&self.0.tree).rename(&from, &to);
        reply.ok();
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        or_fail!(reply, self.0.note_ino(ino, Op::Open));
        let path = or_fail!(reply, self.0.path(ino));
        let mut options = std::fs::OpenOptions::new();
        let access = flags.0 & libc::O_ACCMODE;
        options.read(access != libc::O_WRONLY).write(access != libc::O_RDONLY).custom_flags(flags.0 & libc::O_TRUNC);
        let file = or_fail!(reply, options.open(self.0.full(&path)));
        reply.opened(self.0.keep(file), FopenFlags::empty());
    }

    fn create(&self, _: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, flags: i32, reply: ReplyCreate) {
        or_fail!(reply, self.0.note(name, Op::Write));
        let path = or_fail!(reply, self.0.child(parent, name));
        let mut options = std::fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(flags & libc::O_TRUNC != 0).mode(mode);
        if flags & libc::O_EXCL != 0 {
            options.create_new(true);
        }
        let file = or_fail!(reply, options.open(self.0.full(&path)));
        or_fail!(reply, file.set_permissions(std::fs::Permissions::from_mode(mode & 0o7777)));
        let meta = or_fail!(reply, file.metadata());
        let attr = self.0.attr(&path, &meta);
        reply.created(&self.0.ttl(), &attr, Generation(0), self.0.keep(file), FopenFlags::empty());
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        or_fail!(reply, self.0.note_ino(ino, Op::Read));
        let file = or_fail!(reply, self.0.file(fh));
        let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
        let mut done = 0;
        while done < bytes.len() {
            let at = offset + u64::try_from(done).unwrap_or(0);
            match or_fail!(reply, file.read_at(&mut bytes[done..], at)) {
                0 => break,
                n => done += n,
            }
        }
        reply.data(&bytes[..done]);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        or_fail!(reply, self.0.note_ino(ino, Op::Write));
        let file = or_fail!(reply, self.0.file(fh));
        or_fail!(reply, file.write_all_at(data, offset));
        reply.written(u32::try_from(data.len()).unwrap_or(0));
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        held(&self.0.handles).remove(&fh.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        or_fail!(reply, self.0.note_ino(ino, Op::Write));
        let file = or_fail!(reply, self.0.file(fh));
        or_fail!(reply, if datasync { file.sync_data() } else { file.sync_all() });
        reply.ok();
    }

    fn readdir(&self, _: &Request, ino: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let path = or_fail!(reply, self.0.path(ino));
        let mut entries =
            vec![(1, FileType::Directory, OsString::from(".")), (1, FileType::Directory, OsString::from(".."))];
        for entry in or_fail!(reply, std::fs::read_dir(self.0.full(&path))) {
            let entry = or_fail!(reply, entry);
            let kind = or_fail!(reply, entry.file_type());
            let kind = if kind.is_dir() {
                FileType::Directory
            } else if kind.is_symlink() {
                FileType::Symlink
            } else {
                FileType::RegularFile
            };
            let ino = held(&self.0.tree).ino(&path.join(entry.file_name()));
            entries.push((ino, kind, entry.file_name()));
        }
        let skip = usize::try_from(offset).unwrap_or(usize::MAX);
        for (place, (ino, kind, name)) in (1_u64..).zip(entries).skip(skip) {
            if reply.add(INodeNo(ino), place, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        let path = or_fail!(reply, self.0.path(ino));
        or_fail!(reply, File::open(self.0.full(&path)).and_then(|dir| dir.sync_all()));
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match rustix::fs::statvfs(&self.0.root) {
            Ok(s) => {
                let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
                reply.statfs(
                    s.f_blocks,
                    s.f_bfree,
                    s.f_bavail,
                    s.f_files,
                    s.f_ffree,
                    small(s.f_bsize),
                    small(s.f_namemax),
                    small(s.f_frsize),
                );
            }
            Err(e) => reply.error(Errno::from_i32(e.raw_os_error())),
        }
    }
}
