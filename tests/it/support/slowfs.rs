//! A file system that stands for a slow, faulty or distant one: everything passes through to a directory, but each request waits,
//! is counted, and can be made to fail by the name of the file. For tests and for benchmarks.
//!
//! It is complete enough for a datastore: files, directories, renames, modes, owners, times, sizes, free space. Locks (`flock`) are the
//! kernel's own. There are no links and no extended attributes. The kernel does not tell it of `syncfs`: what was written is in the
//! hands of the file system below, which is not synced.

// Beside it under this name, from wherever this file is included.
#[path = "slowfs/counts.rs"]
mod counts;
#[path = "slowfs/service.rs"]
mod service;
#[path = "slowfs/tree.rs"]
mod tree;

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt, DirEntryExt, FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt,
};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

pub use counts::{Class, Op};
use fuser::{
    BackgroundSession, BsdFileFlags, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, Session,
    SessionACL, TimeOrNow, WriteFlags,
};
use service::Service;
use tree::{ROOT, Tree};

/// Requests of the background (read ahead, direct I/O) that the kernel has under way: as good as no limit, so that only
/// the width limits.
const BACKGROUND_MAX: u16 = 4096;

/// How the file system behaves; each field may change while it is mounted.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// How long each metadata request takes, see [`Op::class`].
    pub delay: Duration,
    /// How long each data request takes.
    pub data_delay: Duration,
    /// How long the kernel may believe what it was told; 0 makes each question a request.
    pub ttl: Duration,
    /// File name and operation → error number.
    pub faults: HashMap<(OsString, Op), i32>,
}

/// What is decided when it is mounted.
#[derive(Clone, Debug)]
pub struct Mounting {
    /// Whether a listing brings the attributes of its entries with it, as NFS does where it can.
    pub lists_attributes: bool,
    /// How many requests are served at the same time; 0 is any number.
    pub width: usize,
    /// Whether requests are counted by the names of files too, which costs memory for each name.
    pub counts_names: bool,
}

impl Default for Mounting {
    fn default() -> Self {
        Self { lists_attributes: false, width: 0, counts_names: true }
    }
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
    mounting: Mounting,
    behaviour: Mutex<Behaviour>,
    tree: Mutex<Tree>,
    handles: Mutex<HashMap<u64, Handle>>,
    next_handle: AtomicU64,
    counts: counts::Counts,
    service: Service,
}

#[derive(Debug)]
enum Handle {
    File(u64, Arc<File>),
    /// What the directory had when its listing began.
    Listing(Arc<Vec<Entry>>),
}

#[derive(Debug)]
struct Entry {
    ino: u64,
    kind: FileType,
    name: OsString,
}

struct Passthrough(Arc<Shared>);

impl SlowFs {
    /// Mounts `backing` at `mount`. The error says why this machine does not permit it.
    pub fn mount(backing: &Path, mount: &Path, behaviour: Behaviour) -> io::Result<Self> {
        Self::mount_as(backing, mount, behaviour, Mounting::default())
    }

    /// The same with a say in what is decided once.
    pub fn mount_as(backing: &Path, mount: &Path, behaviour: Behaviour, mounting: Mounting) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            root: backing.to_owned(),
            service: Service::start(mounting.width),
            mounting,
            behaviour: Mutex::new(behaviour),
            tree: Mutex::default(),
            handles: Mutex::default(),
            next_handle: AtomicU64::new(1),
            counts: counts::Counts::default(),
        });
        let mut config = Config::default();
        config.mount_options =
            vec![fuser::MountOption::FSName("slowfs".into()), fuser::MountOption::DefaultPermissions];
        config.acl = SessionACL::All;
        config.n_threads = Some(4);
        let session = Session::new(Passthrough(Arc::clone(&shared)), mount, &config).and_then(Session::spawn);
        match session {
            Ok(session) => Ok(Self { shared, mount: mount.to_owned(), session: Some(session) }),
            Err(e) => {
                shared.service.end();
                Err(e)
            }
        }
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        &self.mount
    }

    /// The directory below it.
    pub fn backing(&self) -> &Path {
        &self.shared.root
    }

    /// Whether somebody else has unmounted it.
    pub fn has_ended(&self) -> bool {
        self.session.as_ref().is_none_or(|session| session.guard.is_finished())
    }

    /// Changes how it behaves from the next request on.
    pub fn set(&self, change: impl FnOnce(&mut Behaviour)) {
        change(&mut held(&self.shared.behaviour));
    }

    /// How many requests are served at the same time from now on; 0 is any number.
    pub fn set_width(&self, width: usize) {
        self.shared.service.set_width(width);
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
        self.shared.counts.of_name(OsStr::new(name), op)
    }

    /// How many requests of this kind there were.
    pub fn total(&self, op: Op) -> u64 {
        self.shared.counts.total(op)
    }

    /// How many bytes were read and written.
    pub fn bytes(&self) -> (u64, u64) {
        let counts = &self.shared.counts;
        (counts.read_bytes.load(Ordering::Relaxed), counts.written_bytes.load(Ordering::Relaxed))
    }

    /// Most requests that were served at the same time since the last [`Self::reset_counts`]; those without a delay do
    /// not count where there is no width.
    pub fn waiting_max(&self) -> u64 {
        self.shared.service.most().0 as u64
    }

    /// Most requests that waited for their service to begin, because the width was used up.
    pub fn in_line_max(&self) -> u64 {
        self.shared.service.most().1 as u64
    }

    /// Starts counting again from zero.
    pub fn reset_counts(&self) {
        self.shared.counts.reset();
        self.shared.service.reset();
    }
}

impl Drop for SlowFs {
    fn drop(&mut self) {
        if self.session.take().is_some_and(|session| session.umount_and_join().is_err()) {
            // Somebody still has a file open: take the name away now, the rest follows when it is closed.
            let _ = Command::new("umount").arg("--lazy").arg(&self.mount).status();
        }
        self.shared.service.end();
    }
}

fn held<T>(lock: &Mutex<T>) -> MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn code(e: &io::Error) -> Errno {
    Errno::from_i32(e.raw_os_error().unwrap_or(libc::EIO))
}

impl Shared {
    fn path(&self, ino: INodeNo) -> io::Result<PathBuf> {
        Ok(self.full(&held(&self.tree).path(ino.0)?))
    }

    fn child(&self, parent: INodeNo, name: &OsStr) -> io::Result<PathBuf> {
        Ok(self.path(parent)?.join(name))
    }

    fn full(&self, path: &Path) -> PathBuf {
        if path.as_os_str().is_empty() { self.root.clone() } else { self.root.join(path) }
    }

    /// Whether a request for this file is to fail. Counts it under the file's name.
    fn note_name(&self, name: &OsStr, op: Op) -> io::Result<()> {
        if self.mounting.counts_names {
            self.counts.add_name(name, op);
        }
        let faults = &held(&self.behaviour).faults;
        if faults.is_empty() {
            return Ok(());
        }
        faults.get(&(name.to_owned(), op)).map_or(Ok(()), |errno| Err(io::Error::from_raw_os_error(*errno)))
    }

    /// Counts a request and says whether it is to fail.
    fn note(&self, name: &OsStr, op: Op) -> io::Result<()> {
        self.counts.add(op);
        self.note_name(name, op)
    }

    fn note_ino(&self, ino: INodeNo, op: Op) -> io::Result<()> {
        let name = held(&self.tree).name(ino.0);
        self.note(&name, op)
    }

    fn ttl(&self) -> Duration {
        held(&self.behaviour).ttl
    }

    /// Tells the kernel of a file that is there.
    fn entry(&self, parent: INodeNo, name: &OsStr, meta: &Metadata) -> FileAttr {
        held(&self.tree).tell(meta.ino(), parent.0, name);
        attr_of(meta.ino(), meta)
    }

    /// Attributes by name; where the name is gone or another file's, by a handle that is open.
    fn meta(&self, ino: INodeNo) -> io::Result<Metadata> {
        let by_name = self.path(ino).and_then(std::fs::symlink_metadata);
        match by_name {
            Ok(meta) if ino.0 == ROOT || meta.ino() == ino.0 => Ok(meta),
            other => match self.open_file(ino) {
                Some(file) => file.metadata(),
                None => other.and(Err(io::Error::from_raw_os_error(libc::ESTALE))),
            },
        }
    }

    fn open_file(&self, ino: INodeNo) -> Option<Arc<File>> {
        held(&self.handles).values().find_map(|handle| match handle {
            Handle::File(of, file) if *of == ino.0 => Some(Arc::clone(file)),
            _ => None,
        })
    }

    fn keep(&self, handle: Handle) -> FileHandle {
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        held(&self.handles).insert(number, handle);
        FileHandle(number)
    }

    fn file(&self, handle: FileHandle) -> io::Result<Arc<File>> {
        match held(&self.handles).get(&handle.0) {
            Some(Handle::File(_, file)) => Ok(Arc::clone(file)),
            _ => Err(io::Error::from_raw_os_error(libc::EBADF)),
        }
    }

    /// The listing of an open directory: read once, and again when it is asked for from its start.
    fn listing(&self, ino: INodeNo, handle: FileHandle, offset: u64) -> io::Result<Arc<Vec<Entry>>> {
        if offset > 0
            && let Some(Handle::Listing(entries)) = held(&self.handles).get(&handle.0)
        {
            return Ok(Arc::clone(entries));
        }
        let entries = Arc::new(list(&self.path(ino)?)?);
        held(&self.handles).insert(handle.0, Handle::Listing(Arc::clone(&entries)));
        Ok(entries)
    }
}

fn list(dir: &Path) -> io::Result<Vec<Entry>> {
    let dots = [".", ".."].map(|name| Entry { ino: ROOT, kind: FileType::Directory, name: name.into() });
    let mut entries = Vec::from(dots);
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        entries.push(Entry { ino: entry.ino(), kind: kind_of(entry.file_type()?), name: entry.file_name() });
    }
    Ok(entries)
}

fn kind_of(kind: std::fs::FileType) -> FileType {
    if kind.is_dir() {
        FileType::Directory
    } else if kind.is_symlink() {
        FileType::Symlink
    } else if kind.is_fifo() {
        FileType::NamedPipe
    } else {
        FileType::RegularFile
    }
}

/// What was made belongs to whom it was made for, where this process may give it away.
fn hand_over(path: &Path, owner: (u32, u32)) -> io::Result<()> {
    let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    if owner == own || own.0 != 0 {
        return Ok(());
    }
    std::os::unix::fs::lchown(path, Some(owner.0), Some(owner.1))
}

fn attr_of(ino: u64, meta: &Metadata) -> FileAttr {
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
        kind: kind_of(meta.file_type()),
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

impl Passthrough {
    /// Serves a request when its time has come.
    fn serve(&self, op: Op, work: impl FnOnce(&Shared) + Send + 'static) {
        let delay = {
            let behaviour = held(&self.0.behaviour);
            match op.class() {
                Class::Metadata => behaviour.delay,
                Class::Data => behaviour.data_delay,
                Class::Free => return work(&self.0),
            }
        };
        let shared = Arc::clone(&self.0);
        self.0.service.serve(delay, Box::new(move || work(&shared)));
    }
}

impl Filesystem for Passthrough {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        let _ = config.set_max_background(BACKGROUND_MAX);
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        if self.0.mounting.lists_attributes {
            let _ = config.add_capabilities(InitFlags::FUSE_DO_READDIRPLUS);
            let _ = config.add_capabilities(InitFlags::FUSE_READDIRPLUS_AUTO);
        }
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let name = name.to_owned();
        self.serve(Op::Lookup, move |shared| {
            or_fail!(reply, shared.note(&name, Op::Lookup));
            let meta = or_fail!(reply, shared.child(parent, &name).and_then(std::fs::symlink_metadata));
            reply.entry(&shared.ttl(), &shared.entry(parent, &name, &meta), Generation(0));
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, lookups: u64) {
        held(&self.0.tree).forget(ino.0, lookups);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, fh: Option<FileHandle>, reply: ReplyAttr) {
        self.serve(Op::Getattr, move |shared| {
            or_fail!(reply, shared.note_ino(ino, Op::Getattr));
            let meta = match fh.map(|fh| shared.file(fh)) {
                Some(Ok(file)) => file.metadata(),
                _ => shared.meta(ino),
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
        self.serve(Op::Setattr, move |shared| {
            or_fail!(reply, shared.note_ino(ino, Op::Setattr));
            let full = or_fail!(reply, shared.path(ino));
            let open = fh.and_then(|fh| shared.file(fh).ok()).or_else(|| shared.open_file(ino));
            or_fail!(reply, change(&full, open.as_deref(), Changes { mode, uid, gid, size, atime, mtime }));
            let meta = open.map_or_else(|| std::fs::symlink_metadata(&full), |file| file.metadata());
            let meta = or_fail!(reply, meta);
            reply.attr(&shared.ttl(), &attr_of(ino.0, &meta));
        });
    }

    fn mkdir(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        let (name, owner) = (name.to_owned(), (req.uid(), req.gid()));
        self.serve(Op::Mkdir, move |shared| {
            or_fail!(reply, shared.note(&name, Op::Mkdir));
            let full = or_fail!(reply, shared.child(parent, &name));
            or_fail!(reply, std::fs::DirBuilder::new().mode(mode).create(&full));
            or_fail!(reply, std::fs::set_permissions(&full, std::fs::Permissions::from_mode(mode & 0o7777)));
            or_fail!(reply, hand_over(&full, owner));
            let meta = or_fail!(reply, std::fs::symlink_metadata(&full));
            reply.entry(&shared.ttl(), &shared.entry(parent, &name, &meta), Generation(0));
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.serve(Op::Unlink, move |shared| {
            or_fail!(reply, shared.note(&name, Op::Unlink));
            or_fail!(reply, shared.child(parent, &name).and_then(std::fs::remove_file));
            reply.ok();
        });
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = name.to_owned();
        self.serve(Op::Rmdir, move |shared| {
            or_fail!(reply, shared.note(&name, Op::Rmdir));
            or_fail!(reply, shared.child(parent, &name).and_then(std::fs::remove_dir));
            reply.ok();
        });
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
        let (name, new_name) = (name.to_owned(), new_name.to_owned());
        self.serve(Op::Rename, move |shared| {
            or_fail!(reply, shared.note(&name, Op::Rename));
            or_fail!(reply, shared.note_name(&new_name, Op::Rename));
            let from = or_fail!(reply, shared.child(parent, &name));
            let to = or_fail!(reply, shared.child(new_parent, &new_name));
            if flags.contains(RenameFlags::RENAME_EXCHANGE) {
                return reply.error(Errno::EINVAL);
            }
            if flags.contains(RenameFlags::RENAME_NOREPLACE) && std::fs::symlink_metadata(&to).is_ok() {
                return reply.error(Errno::EEXIST);
            }
            let ino = or_fail!(reply, std::fs::symlink_metadata(&from)).ino();
            or_fail!(reply, std::fs::rename(from, to));
            held(&shared.tree).rename(ino, new_parent.0, &new_name);
            reply.ok();
        });
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.serve(Op::Open, move |shared| {
            or_fail!(reply, shared.note_ino(ino, Op::Open));
            let mut options = std::fs::OpenOptions::new();
            let access = flags.0 & libc::O_ACCMODE;
            options
                .read(access != libc::O_WRONLY)
                .write(access != libc::O_RDONLY)
                .custom_flags(flags.0 & libc::O_TRUNC);
            let file = or_fail!(reply, shared.path(ino).and_then(|path| options.open(path)));
            reply.opened(shared.keep(Handle::File(ino.0, Arc::new(file))), FopenFlags::empty());
        });
    }

    fn create(&self, req: &Request, parent: INodeNo, name: &OsStr, mode: u32, _: u32, flags: i32, reply: ReplyCreate) {
        let (name, owner) = (name.to_owned(), (req.uid(), req.gid()));
        self.serve(Op::Create, move |shared| {
            or_fail!(reply, shared.note(&name, Op::Create));
            let full = or_fail!(reply, shared.child(parent, &name));
            let mut options = std::fs::OpenOptions::new();
            options.read(true).write(true).create(true).truncate(flags & libc::O_TRUNC != 0).mode(mode);
            if flags & libc::O_EXCL != 0 {
                options.create_new(true);
            }
            let file = or_fail!(reply, options.open(&full));
            or_fail!(reply, file.set_permissions(std::fs::Permissions::from_mode(mode & 0o7777)));
            or_fail!(reply, hand_over(&full, owner));
            let meta = or_fail!(reply, file.metadata());
            let attr = shared.entry(parent, &name, &meta);
            let handle = shared.keep(Handle::File(meta.ino(), Arc::new(file)));
            reply.created(&shared.ttl(), &attr, Generation(0), handle, FopenFlags::empty());
        });
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
        self.serve(Op::Read, move |shared| {
            or_fail!(reply, shared.note_ino(ino, Op::Read));
            let file = or_fail!(reply, shared.file(fh));
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
            let mut done = 0;
            while done < bytes.len() {
                let at = offset + u64::try_from(done).unwrap_or(0);
                match or_fail!(reply, file.read_at(&mut bytes[done..], at)) {
                    0 => break,
                    n => done += n,
                }
            }
            shared.counts.read_bytes.fetch_add(done as u64, Ordering::Relaxed);
            reply.data(&bytes[..done]);
        });
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
        let data = data.to_vec();
        self.serve(Op::Write, move |shared| {
            or_fail!(reply, shared.note_ino(ino, Op::Write));
            let file = or_fail!(reply, shared.file(fh));
            or_fail!(reply, file.write_all_at(&data, offset));
            shared.counts.written_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
            reply.written(u32::try_from(data.len()).unwrap_or(0));
        });
    }

    fn flush(&self, _: &Request, ino: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        or_fail!(reply, self.0.note_ino(ino, Op::Flush));
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        fh: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        held(&self.0.handles).remove(&fh.0);
        or_fail!(reply, self.0.note_ino(ino, Op::Release));
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, fh: FileHandle, datasync: bool, reply: ReplyEmpty) {
        self.serve(Op::Fsync, move |shared| {
            or_fail!(reply, shared.note_ino(ino, Op::Fsync));
            let file = or_fail!(reply, shared.file(fh));
            or_fail!(reply, if datasync { file.sync_data() } else { file.sync_all() });
            reply.ok();
        });
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        self.serve(Op::Opendir, move |shared| {
            or_fail!(reply, shared.note_ino(ino, Op::Opendir));
            reply.opened(shared.keep(Handle::Listing(Arc::default())), FopenFlags::empty());
        });
    }

    fn readdir(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        self.serve(Op::Readdir, move |shared| {
            or_fail!(reply, shared.note_ino(ino, Op::Readdir));
            let entries = or_fail!(reply, shared.listing(ino, fh, offset));
            let skip = usize::try_from(offset).unwrap_or(usize::MAX);
            for (place, entry) in (1_u64..).zip(entries.iter()).skip(skip) {
                if reply.add(INodeNo(entry.ino), place, entry.kind, &entry.name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(&self, _: &Request, ino: INodeNo, fh: FileHandle, offset: u64, mut reply: ReplyDirectoryPlus) {
        self.serve(Op::Readdir, move |shared| {
            or_fail!(reply, shared.note_ino(ino, Op::Readdir));
            let entries = or_fail!(reply, shared.listing(ino, fh, offset));
            let dir = or_fail!(reply, shared.path(ino));
            let skip = usize::try_from(offset).unwrap_or(usize::MAX);
            for (place, entry) in (1_u64..).zip(entries.iter()).skip(skip) {
                let is_dots = entry.name == "." || entry.name == "..";
                let path = if is_dots { dir.clone() } else { dir.join(&entry.name) };
                // What has vanished since is left out, as a directory may.
                let Ok(meta) = std::fs::symlink_metadata(path) else { continue };
                let of = if is_dots { entry.ino } else { meta.ino() };
                let attr = attr_of(of, &meta);
                if reply.add(INodeNo(of), place, &entry.name, &shared.ttl(), &attr, Generation(0)) {
                    break;
                }
                if !is_dots {
                    held(&shared.tree).tell(of, ino.0, &entry.name);
                }
            }
            reply.ok();
        });
    }

    fn releasedir(&self, _: &Request, _: INodeNo, fh: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        held(&self.0.handles).remove(&fh.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.serve(Op::Fsync, move |shared| {
            or_fail!(reply, shared.note_ino(ino, Op::Fsync));
            or_fail!(reply, shared.path(ino).and_then(File::open).and_then(|dir| dir.sync_all()));
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        self.serve(Op::Statfs, move |shared| {
            or_fail!(reply, shared.note_ino(ino, Op::Statfs));
            let s = or_fail!(reply, rustix::fs::statvfs(&shared.root).map_err(io::Error::from));
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
        });
    }
}
