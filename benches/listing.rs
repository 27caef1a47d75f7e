//! Listings of 20,000 snapshots: the daemon's calls against reading all manifests one after another, in one run, turn by turn.
//!
//! `cargo bench --bench listing`. Root for the cold and the slow cells; `BENCH_DIR` says where the disk is. `BENCH_SNAPSHOTS` sets
//! the number of snapshots per group (40), for a trial; `BENCH_STORES=memory,slow,disk` which stores are measured.
//!
//! The store is made directly: 500 groups, once all in the root namespace, once ten in each of 50 namespaces. Calls are measured at the
//! client, from the connection to the last byte. "Unknown" is a daemon that has just started, "known" its next listing.

#[path = "../tests/it/support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::disallowed_methods,
    reason = "a tool of the tests, of which this needs a part"
)]
mod it;
#[allow(dead_code, reason = "shared by all benches, of which this does not measure processor time")]
mod support;

use std::path::{Path, PathBuf};
use std::time::Duration;

use it::daemon::{Daemon, Setup, make_store};
use it::slowfs::{Behaviour, SlowFs};
use it::upload::rest;
use ringvault::format::manifest::{CryptMode, Manifest, ManifestFile};
use ringvault::types::{Digest, Snapshot};
use support::{Series, drop_caches, measure};

const GROUPS: usize = 500;
const NAMESPACES: usize = 50;
/// Of the serial reading over the slow store every twentieth snapshot, times twenty: all of it takes an hour.
const SLOW_SHARE: usize = 20;

/// How groups lie in a store.
#[derive(Clone, Copy)]
enum Shape {
    OneNamespace,
    ManyNamespaces,
}

impl Shape {
    fn namespaces(self) -> Vec<String> {
        match self {
            Self::OneNamespace => vec![String::new()],
            Self::ManyNamespaces => (0..NAMESPACES).map(|n| format!("customer-{n:02}")).collect(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::OneNamespace => "1 namespace",
            Self::ManyNamespaces => "50 namespaces, one call each",
        }
    }
}

/// A store made for the measurement.
struct Store {
    path: PathBuf,
    shape: Shape,
    /// Relative to `path`.
    manifests: Vec<PathBuf>,
}

#[allow(clippy::disallowed_methods, reason = "a bench makes its files itself")]
fn write(path: &Path, bytes: &[u8]) {
    std::fs::write(path, bytes).expect("write a file");
}

impl Store {
    /// Each snapshot with a manifest of usual length, and three more files that nobody opens.
    fn make(path: PathBuf, shape: Shape, each: usize) -> Self {
        make_store(&path);
        let mut manifests = Vec::new();
        let namespaces = shape.namespaces();
        for (n, ns) in namespaces.iter().enumerate() {
            let base = if ns.is_empty() { PathBuf::new() } else { Path::new("ns").join(ns) };
            for group in (0..GROUPS).filter(|group| group % namespaces.len() == n) {
                let dir = base.join(format!("vm/{}", 100 + group));
                std::fs::create_dir_all(path.join(&dir)).expect("a group");
                write(&path.join(&dir).join("owner"), b"tester@pbs!bench\n");
                for i in 0..each {
                    let name = format!("2024-{:02}-{:02}T03:00:00Z", 1 + i / 28, 1 + i % 28);
                    let snapshot: Snapshot = format!("vm/{}/{name}", 100 + group).parse().expect("a snapshot");
                    let at = dir.join(&name);
                    std::fs::create_dir(path.join(&at)).expect("a snapshot");
                    for file in ["drive-scsi0.img.fidx", "qemu-server.conf.blob", "client.log.blob"] {
                        write(&path.join(&at).join(file), b"");
                    }
                    write(&path.join(&at).join("index.json.blob"), &manifest(&snapshot));
                    manifests.push(at.join("index.json.blob"));
                }
            }
        }
        Self { path, shape, manifests }
    }
}

fn manifest(snapshot: &Snapshot) -> Vec<u8> {
    let mut manifest = Manifest::new(snapshot);
    for (name, size) in [("drive-scsi0.img.fidx", 32 << 30), ("qemu-server.conf.blob", 400)] {
        let csum = Digest::of(format!("{snapshot}{name}").as_bytes());
        let filename = name.parse().expect("a name");
        manifest.add_file(ManifestFile { filename, crypt_mode: CryptMode::Encrypt, size, csum }).expect("a new name");
    }
    manifest.set_key_fingerprint(&["ab"; 32].join(":"));
    manifest.set_notes("web server, before the upgrade");
    manifest.to_blob()
}

/// A daemon that knows nothing yet.
fn daemon(store: &Path) -> Daemon {
    Daemon::with(Setup { store: Some(store.to_owned()), is_checked: false, ..Setup::default() })
}

/// All rows of a call in all namespaces, one call after another; how many there were.
async fn list(daemon: &Daemon, shape: Shape, call: &str) -> usize {
    let mut rows = 0;
    for ns in shape.namespaces() {
        let target = format!("/api2/json/admin/datastore/{}/{call}?ns={ns}", daemon.store_name());
        let reply = rest(daemon, "GET", &target, b"").await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        // Not parsed: that would be the client's time.
        rows += reply.body.windows(13).filter(|w| w == b"\"backup-type\"").count();
    }
    rows
}

/// What a server does that lists by reading: every manifest, one after another.
fn read_all<'a>(root: &Path, manifests: impl Iterator<Item = &'a PathBuf>) {
    for path in manifests {
        let bytes = std::fs::read(root.join(path)).expect("a manifest");
        Manifest::from_blob(&bytes).expect("a good one");
    }
}

/// Peak and present memory of a process, in MiB.
fn memory_mib(pid: u32) -> [f64; 2] {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("its status");
    ["VmHWM:", "VmRSS:"].map(|key| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)).expect("a line");
        line.split_whitespace().next().and_then(|kib| kib.parse::<f64>().ok()).expect("a number") / 1024.0
    })
}

/// One way to look at a store.
struct Cell<'a> {
    name: &'static str,
    root: &'a Path,
    store: &'a Store,
    rounds: usize,
    /// Before each call that shall find nothing in the kernel's caches.
    forget: Option<fn()>,
    /// Of the serial reading one in so many is read.
    share: usize,
}

fn run(runtime: &tokio::runtime::Runtime, cell: &Cell<'_>) {
    let forget = || cell.forget.iter().for_each(|forget| forget());
    let names =
        ["read one after another", "snapshots, unknown", "snapshots, known", "groups, unknown", "groups, known"];
    let mut all: [Series; 5] = Default::default();
    let mut memory = [[0.0; 2]; 2];
    for _ in 0..cell.rounds {
        forget();
        let cost = measure(|| read_all(cell.root, cell.store.manifests.iter().step_by(cell.share)));
        all[0].push(support::Cost { wall: cost.wall * u32::try_from(cell.share).expect("small"), ..cost });
        for (call, first, rows) in [("snapshots", 1, cell.store.manifests.len()), ("groups", 3, GROUPS)] {
            let daemon = daemon(cell.root);
            let before = memory_mib(daemon.pid());
            for known in 0..2 {
                if known == 0 {
                    forget();
                }
                let work = || assert_eq!(runtime.block_on(list(&daemon, cell.store.shape, call)), rows);
                all[first + known].push(measure(work));
            }
            if call == "snapshots" {
                memory = [before, memory_mib(daemon.pid())];
            }
            runtime.block_on(async { assert!(daemon.terminate().success()) });
        }
    }
    for (name, series) in names.iter().zip(&all) {
        // In milliseconds for all of it.
        let spread = series.wall_us(1000);
        println!("| {} | {} | {name} | {spread} |", cell.name, cell.store.shape.name());
    }
    let [[_, started], [peak, after]] = memory;
    println!(
        "| {} | {} | daemon, MiB: started, peak, after two lists | {started:.0}, {peak:.0}, {after:.0} |",
        cell.name,
        cell.store.shape.name()
    );
}

/// The cells of a store in memory, and of the same store behind a slow file system.
fn in_memory(runtime: &tokio::runtime::Runtime, shape: Shape, each: usize, wanted: &dyn Fn(&str) -> bool) {
    let Ok(memory) = tempfile::tempdir_in("/dev/shm") else { return };
    let store = Store::make(memory.path().join("golden"), shape, each);
    // What is younger than two seconds is not believed, and so not known.
    std::thread::sleep(Duration::from_secs(4));
    if wanted("memory") {
        run(runtime, &Cell { name: "memory", root: &store.path, store: &store, rounds: 5, forget: None, share: 1 });
    }
    if !wanted("slow") {
        return;
    }
    let mount = memory.path().join("mount");
    std::fs::create_dir(&mount).expect("a mount point");
    let behaviour = Behaviour { delay: Duration::from_millis(2), ..Behaviour::default() };
    match SlowFs::mount(&store.path, &mount, behaviour) {
        Ok(slow) => {
            let root = slow.path();
            let name = "2 ms per request";
            run(runtime, &Cell { name, root, store: &store, rounds: 3, forget: None, share: SLOW_SHARE });
        }
        Err(e) => println!("| 2 ms per request | not measured: no FUSE here: {e} | | |"),
    }
}

fn main() {
    if !support::asked_for() {
        return;
    }
    let each = support::number("BENCH_SNAPSHOTS", 40);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
    let stores = std::env::var("BENCH_STORES").unwrap_or_else(|_| "memory,slow,disk".to_owned());
    let wanted = |name: &str| stores.split(',').any(|store| store == name);
    let folder = support::folder();
    println!("{} snapshots in {GROUPS} groups; ms: median (least–most)\n", GROUPS * each);
    println!("| store | | | |\n|---|---|---|---|");
    for shape in [Shape::OneNamespace, Shape::ManyNamespaces] {
        if wanted("memory") || wanted("slow") {
            in_memory(&runtime, shape, each, &wanted);
        }
        if !wanted("disk") {
            continue;
        }
        let path = folder.path().join(if matches!(shape, Shape::OneNamespace) { "one" } else { "many" });
        let store = Store::make(path, shape, each);
        rustix::fs::sync();
        std::thread::sleep(Duration::from_secs(4));
        run(
            &runtime,
            &Cell { name: "disk, cached", root: &store.path, store: &store, rounds: 5, forget: None, share: 1 },
        );
        if drop_caches().is_ok() {
            let forget: fn() = || drop_caches().expect("it worked before");
            let cell = Cell {
                name: "disk, cold",
                root: &store.path,
                store: &store,
                rounds: 5,
                forget: Some(forget),
                share: 1,
            };
            run(&runtime, &cell);
        } else {
            println!("| disk, cold | not measured: only root may drop caches | | |");
        }
    }
}
