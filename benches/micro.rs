//! The small loops under everything: blobs, digests, index entries, the presence map, what a batch costs beside its system calls.
//!
//! `cargo bench --bench micro`, or a part of it: `cargo bench --bench micro -- blob`. No disk is touched but for the engine's
//! batches, whose 128 names are warm on `BENCH_DIR` (`/dev/shm` if not set). These tell one version from another on one machine;
//! what users get is measured by the other benches and by `ringvault bench`.

use std::hint::black_box;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ringvault::engine::{Class, DirFd, Engine, EngineChoice, EngineConfig, StatBatch, StatName};
use ringvault::format::blob::{self, Compression, CrcPolicy};
use ringvault::format::dynamic_index::{self, DynamicEntry, DynamicScan};
use ringvault::format::fixed_index;
use ringvault::format::index::IndexCsum;
use ringvault::protocol::presence::{Origin, PresenceMap};
use ringvault::types::{ChunkSize, Digest};

/// A fixed index's chunk.
const CHUNK_BYTES: usize = 4 << 20;
/// What clients append at a time, at most.
const BATCH: usize = 128;
/// Entries of a scan: an image of 256 GiB.
const ENTRIES: usize = 65_536;
/// Chunks that a session knows: an image of 4 TiB.
const KNOWN: u64 = 1_000_000;

/// Bytes without a pattern, the same in every run.
fn noise(size_bytes: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let next = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    });
    next.take(size_bytes).collect()
}

/// Bytes that zstd halves or better: words in a random order.
fn text(size_bytes: usize) -> Vec<u8> {
    let words = ["chunk ", "index ", "backup ", "snapshot ", "datastore ", "verify ", "restore ", "namespace\n"];
    let mut bytes: Vec<u8> =
        noise(size_bytes / 6 + 1).iter().flat_map(|n| words[usize::from(*n) % 8].bytes()).collect();
    bytes.truncate(size_bytes);
    bytes
}

/// The `n`th of many digests: scattered as digests are, but cheap to make.
fn digest(n: u64) -> Digest {
    let mut bytes = [0; 32];
    for (lane, place) in (1_u64..).zip(bytes.chunks_exact_mut(8)) {
        let mixed = n.wrapping_add(lane).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        place.copy_from_slice(&(mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9).to_be_bytes());
    }
    Digest(bytes)
}

fn blobs(c: &mut Criterion) {
    let mut group = c.benchmark_group("blob");
    group.throughput(Throughput::Bytes(CHUNK_BYTES as u64)).sample_size(20);
    let cases = [
        ("raw", noise(CHUNK_BYTES), Compression::None),
        ("zstd, incompressible", noise(CHUNK_BYTES), Compression::Try),
        ("zstd, compressible", text(CHUNK_BYTES), Compression::Try),
    ];
    for (name, plain, compression) in cases {
        group.bench_function(format!("encode {name}"), |b| b.iter(|| blob::encode(black_box(&plain), compression)));
        let encoded = blob::encode(&plain, compression);
        group.bench_function(format!("decode {name}"), |b| {
            b.iter(|| blob::decode(black_box(&encoded), CHUNK_BYTES as u64, CrcPolicy::Check).expect("a blob"));
        });
    }
    group.finish();
}

fn digests(c: &mut Criterion) {
    let mut group = c.benchmark_group("sha256");
    let plain = noise(CHUNK_BYTES);
    group.throughput(Throughput::Bytes(CHUNK_BYTES as u64)).sample_size(20);
    group.bench_function("4 MiB", |b| b.iter(|| Digest::of(black_box(&plain))));
    group.finish();
}

fn indexes(c: &mut Criterion) {
    let mut group = c.benchmark_group("index");
    let count = u64::try_from(ENTRIES).expect("a small number");
    let digests: Vec<Digest> = (0..count).map(digest).collect();
    let entries: Vec<DynamicEntry> =
        (1..).zip(&digests).map(|(n, d)| DynamicEntry { end: n << 22, digest: *d }).collect();
    let fixed: Vec<u8> = digests.iter().flat_map(|digest| digest.0).collect();
    let dynamic: Vec<u8> = entries.iter().flat_map(DynamicEntry::encode).collect();

    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("append 128, dynamic", |b| {
        b.iter(|| {
            let bytes: Vec<u8> = black_box(&entries[..BATCH]).iter().flat_map(DynamicEntry::encode).collect();
            let mut csum = IndexCsum::new();
            csum.update(&bytes);
            (bytes, csum)
        });
    });
    group.bench_function("append 128, fixed", |b| {
        b.iter(|| {
            let bytes: Vec<u8> = black_box(&digests[..BATCH]).iter().flat_map(|digest| digest.0).collect();
            let mut csum = IndexCsum::new();
            csum.update(&bytes);
            (bytes, csum)
        });
    });
    group.throughput(Throughput::Elements(count));
    group.bench_function("scan, dynamic", |b| {
        b.iter(|| {
            let mut scan = DynamicScan::new();
            for entry in dynamic_index::entries(black_box(&dynamic)) {
                black_box(scan.next(&entry).expect("in order"));
            }
            scan.end()
        });
    });
    group.bench_function("scan, fixed", |b| {
        b.iter(|| fixed_index::slots(black_box(&fixed)).filter(|digest| *digest == Digest::ZERO).count());
    });
    group.finish();
}

fn presence(c: &mut Criterion) {
    let mut group = c.benchmark_group("presence");
    let size = ChunkSize::new(CHUNK_BYTES as u64).expect("a chunk's size");
    let mut full = PresenceMap::new();
    (0..KNOWN).for_each(|n| full.insert(&digest(n), size, Origin::Base));
    group.sample_size(10).throughput(Throughput::Elements(KNOWN));
    group.bench_function("insert 1M", |b| {
        let fill = |mut map: PresenceMap| {
            (0..KNOWN).for_each(|n| map.insert(&digest(n), size, Origin::Base));
            map
        };
        b.iter_batched(PresenceMap::new, fill, BatchSize::PerIteration);
    });
    group.throughput(Throughput::Elements(BATCH as u64)).sample_size(50);
    let mut at = 0;
    group.bench_function("look up 128 of 1M", |b| {
        b.iter(|| {
            // Other ones each time, or the processor's cache answers.
            at = (at + 7919) % KNOWN;
            (at..at + BATCH as u64).filter(|n| full.contains(&digest(*n % KNOWN))).count()
        });
    });
    group.finish();
}

fn batches(c: &mut Criterion) {
    let base = std::env::var_os("BENCH_DIR").map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
    let folder = tempfile::tempdir_in(base).expect("a folder to work in");
    let names = make_names(folder.path());
    let dir = Arc::new(DirFd::from(OwnedFd::from(std::fs::File::open(folder.path()).expect("the folder"))));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let mut group = c.benchmark_group("batch of 128 warm names");
    group.throughput(Throughput::Elements(BATCH as u64));
    group.bench_function("serial statx", |b| {
        b.iter(|| {
            for name in &names {
                rustix::fs::statx(&*dir, name, rustix::fs::AtFlags::empty(), rustix::fs::StatxFlags::SIZE).expect(name);
            }
        });
    });
    let engines = [
        ("sync", EngineChoice::Sync),
        ("threads", EngineChoice::Threads),
        ("uring", EngineChoice::Uring),
        ("auto", EngineChoice::Auto),
    ];
    for (name, choice) in engines {
        let engine = match Engine::start("bench", &EngineConfig { choice, ..EngineConfig::default() }) {
            Ok(engine) => engine,
            Err(e) => {
                println!("{name} is left out: {e}");
                continue;
            }
        };
        let batch = || StatBatch {
            dir: Arc::clone(&dir),
            names: names.iter().map(|name| StatName::new(name).expect("a name")).collect(),
            class: Class::Interactive,
            force_sync: false,
            stamps: false,
        };
        group.bench_function(name, |b| {
            let ask = |batch| runtime.block_on(engine.stat(batch)).expect("an answer");
            b.iter_batched(batch, ask, BatchSize::SmallInput);
        });
    }
    group.finish();
}

/// Empty files with the paths of chunks, below `store`.
fn make_names(store: &Path) -> Vec<String> {
    let names: Vec<String> = (0..BATCH as u64)
        .map(|n| {
            let hex = hex::encode(digest(n).0);
            format!("{}/{hex}", &hex[..4])
        })
        .collect();
    for name in &names {
        let path = store.join(name);
        std::fs::create_dir_all(path.parent().expect("below the store")).expect("a directory");
        std::fs::File::options().create_new(true).write(true).open(path).expect("a file");
    }
    names
}

criterion_group! {
    name = micro;
    // The defaults take a minute for each loop on two cores; the spread is printed, so a short run says how good it is.
    config = Criterion::default().warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(2));
    targets = blobs, digests, indexes, presence, batches
}
criterion_main!(micro);
