//! The way of chunk data through the daemon, against its steps alone: a first backup over TLS, and chunks of a restore.
//!
//! `cargo bench --bench data_path`. `BENCH_DIR` says where the disk is, `BENCH_MIB` how long the images are (4096).
//!
//! A daemon of its own process is asked; what it takes is its processor time (`/proc/PID/stat`, the kernel's part and io_uring's
//! workers among it), because client and server share the cores. The steps alone are made one after another on one thread: receive and decrypt (rustls
//! over a loopback connection), decode (zstd), hash (SHA-256), write (temporary file, rename); for restores read a chunk file, encrypt and send.
//! Rivals take turns (A B A B).

#[path = "../tests/it/support/mod.rs"]
#[allow(
    dead_code,
    unused_imports,
    clippy::disallowed_methods,
    reason = "a tool of the tests, of which this needs a part"
)]
mod it;
#[allow(dead_code, reason = "shared by all benches")]
mod support;
#[path = "support/tls_pair.rs"]
mod tls_pair;

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use it::daemon::{Daemon, Setup, make_store};
use ringvault::client::{Client, Index, ReaderSession, snapshots};
use ringvault::format::blob::{self, Compression, CrcPolicy};
use ringvault::types::{Digest, Group, Namespace};
use support::Spread;
use tls_pair::TlsPair;

const CHUNK: usize = 4 << 20;
/// Different chunks that the steps alone are measured with. Writing has all of the image's, for a page that the kernel has just freed is
/// cheaper than a fresh one.
const SAMPLE_CHUNKS: usize = 64;
const ROUNDS: usize = 5;
/// What `/proc` counts processor time in, whatever the kernel's own clock is (`USER_HZ`).
const TICKS_PER_SECOND: u64 = 100;

/// What an image holds.
#[derive(Clone, Copy)]
enum Content {
    Incompressible,
    Compressible,
}

impl Content {
    fn name(self) -> &'static str {
        match self {
            Self::Incompressible => "incompressible",
            Self::Compressible => "compressible",
        }
    }

    /// Chunk `n`: noise, or words of a small vocabulary, which zstd makes a third of.
    fn chunk(self, n: u64) -> Vec<u8> {
        let mut state = n.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut bytes = Vec::with_capacity(CHUNK + 16);
        while bytes.len() < CHUNK {
            let word = next();
            match self {
                Self::Incompressible => bytes.extend_from_slice(&word.to_le_bytes()),
                Self::Compressible => {
                    let text = format!("{:x} ", (word % 4096) * 0x9e37 % 0xfff_ffff);
                    bytes.extend_from_slice(text.as_bytes());
                }
            }
        }
        bytes.truncate(CHUNK);
        bytes
    }
}

fn main() {
    if !support::asked_for() {
        return;
    }
    let mib = support::number("BENCH_MIB", 4096);
    let chunks = mib * (1 << 20) / CHUNK;
    let folder = support::folder();
    println!("ms of processor time per GiB of the image: median (least–most) of {ROUNDS}\n");
    println!(
        "| content | receive and decrypt | decode | hash | write | sum of the steps | the daemon | steps / daemon |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let store = folder.path().join("store");
    make_store(&store);
    for prefix in 0..=u16::MAX {
        std::fs::create_dir(store.join(format!(".chunks/{prefix:04x}"))).expect("a directory");
    }
    for content in [Content::Incompressible, Content::Compressible] {
        upload(folder.path(), &store, content, chunks);
    }
    println!("\nms of processor time and MB/s of chunk data, chunks in the cache\n");
    println!(
        "| in flight | steps alone, CPU | the daemon, CPU | steps / daemon | bare server, MB/s | the daemon, MB/s | ratio |"
    );
    println!("|---|---|---|---|---|---|---|");
    restore(folder.path(), &store, chunks.min(256));
}

/// Processor time of another process so far.
fn cpu_of(pid: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("its numbers");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: u64 = fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap();
    Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND)
}

/// Processor time of this thread for `work`.
fn thread_cpu(work: impl FnOnce()) -> Duration {
    let now = || {
        let t = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
        Duration::new(u64::try_from(t.tv_sec).unwrap(), u32::try_from(t.tv_nsec).unwrap())
    };
    let before = now();
    work();
    now() - before
}

fn ms_per_gib(time: Duration, bytes: usize) -> f64 {
    time.as_secs_f64() * 1e3 * f64::from(1 << 30) / bytes as f64
}

fn median(values: &[f64]) -> Spread {
    Spread::of(values.to_vec())
}

fn upload(folder: &Path, store: &Path, content: Content, chunks: usize) {
    let image = folder.join("image.raw");
    {
        let mut file = std::io::BufWriter::with_capacity(CHUNK, std::fs::File::create_new(&image).expect("an image"));
        for n in 0..chunks {
            file.write_all(&content.chunk(n as u64)).expect("room for the image");
        }
    }
    let plain: Vec<Vec<u8>> = (0..SAMPLE_CHUNKS).map(|n| content.chunk(n as u64)).collect();
    let encoded: Vec<Vec<u8>> = plain.iter().map(|p| blob::encode(p, Compression::Try)).collect();
    let (bytes, sample) = (chunks * CHUNK, SAMPLE_CHUNKS * CHUNK);
    let mut columns: [Vec<f64>; 6] = Default::default();
    for _ in 0..ROUNDS {
        let steps = [
            receive(&encoded),
            decode(&encoded),
            thread_cpu(|| plain.iter().for_each(|p| _ = std::hint::black_box(Digest::of(p)))),
        ]
        .map(|step| ms_per_gib(step, sample));
        let write = ms_per_gib(write(folder, &encoded, chunks), bytes);
        for (column, step) in columns.iter_mut().zip([steps[0], steps[1], steps[2], write]) {
            column.push(step);
        }
        columns[4].push(steps.iter().sum::<f64>() + write);
        let daemon = Daemon::with(Setup {
            store: Some(store.to_owned()),
            is_checked: false,
            sync_level: "filesystem",
            ..Setup::default()
        });
        let before = cpu_of(daemon.pid());
        let output = daemon.client().args(["backup", &format!("disk.img:{}", image.display())]).output();
        let output = output.expect("a client");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        columns[5].push(ms_per_gib(cpu_of(daemon.pid()) - before, bytes));
        drop(daemon);
        for prefix in 0..=u16::MAX {
            for chunk in std::fs::read_dir(store.join(format!(".chunks/{prefix:04x}"))).expect("a directory") {
                std::fs::remove_file(chunk.expect("a chunk").path()).expect("removed");
            }
        }
        std::fs::remove_dir_all(store.join("host")).expect("removed");
    }
    std::fs::remove_file(&image).expect("removed");
    let [receive, decode, hash, write, sum, daemon] = columns.map(|c| median(&c));
    let ratio = sum.median / daemon.median;
    println!("| {} | {receive} | {decode} | {hash} | {write} | {sum} | {daemon} | {ratio:.2} |", content.name());
}

/// Over a loopback connection, in records as clients send them; this thread receives.
fn receive(encoded: &[Vec<u8>]) -> Duration {
    let bytes: usize = encoded.iter().map(Vec::len).sum();
    let TlsPair { mut server, mut client } = TlsPair::connect();
    std::thread::scope(|scope| {
        // Kept open to the end: closing with the server's session tickets unread would reset the connection.
        let _client = scope.spawn(move || {
            for blob in encoded {
                client.write_all(blob).expect("sent");
            }
            client.flush().expect("sent");
            client
        });
        thread_cpu(|| {
            let mut block = vec![0; 64 << 10];
            let mut left = bytes;
            while left > 0 {
                left -= server.read(&mut block).expect("received");
            }
        })
    })
}

fn decode(encoded: &[Vec<u8>]) -> Duration {
    thread_cpu(|| {
        for blob in encoded {
            if blob::check_crc(blob).is_ok_and(|kind| kind.is_compressed()) {
                std::hint::black_box(blob::decode(blob, CHUNK as u64, CrcPolicy::Ignore).expect("it was just encoded"));
            }
        }
    })
}

fn write(folder: &Path, encoded: &[Vec<u8>], chunks: usize) -> Duration {
    let dir = folder.join("alone");
    std::fs::create_dir(&dir).expect("a directory");
    let time = thread_cpu(|| {
        for (n, blob) in encoded.iter().cycle().take(chunks).enumerate() {
            let (temp, path) = (dir.join(format!("{n}.tmp")), dir.join(n.to_string()));
            std::fs::File::create_new(&temp).and_then(|mut file| file.write_all(blob)).expect("written");
            rename(&temp, &path);
        }
    });
    std::fs::remove_dir_all(&dir).expect("removed");
    time
}

#[allow(clippy::disallowed_methods, reason = "a bench makes its files itself")]
fn rename(from: &Path, to: &Path) {
    std::fs::rename(from, to).expect("renamed");
}

fn restore(folder: &Path, store: &Path, chunks: usize) {
    let image = folder.join("image.raw");
    let content: Vec<u8> = (0..chunks).flat_map(|n| Content::Incompressible.chunk(n as u64)).collect();
    std::fs::File::create_new(&image).and_then(|mut f| f.write_all(&content)).expect("an image");
    drop(content);
    let setup = Setup { store: Some(store.to_owned()), is_checked: false, ..Setup::default() };
    let daemon = Daemon::with(setup);
    let mut backup = daemon.client();
    backup.args(["backup", "--backup-id", "bench", &format!("disk.img:{}", image.display())]);
    assert!(backup.output().expect("a client").status.success());
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let bytes = chunks * CHUNK;
    for in_flight in [1, 16] {
        let mut columns: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            let client = client_of(&daemon);
            let (session, index) = runtime.block_on(open(&client));
            let digests: Vec<Digest> = index.digests().collect();
            assert_eq!(digests.len(), chunks);
            let (cpu, wall) = bare(store, &digests, in_flight);
            columns[0].push(ms_per_gib(cpu, bytes));
            columns[2].push(bytes as f64 / wall.as_secs_f64() / 1e6);
            let (before, started) = (cpu_of(daemon.pid()), Instant::now());
            runtime.block_on(fetch(&session, &digests, in_flight));
            columns[3].push(bytes as f64 / started.elapsed().as_secs_f64() / 1e6);
            columns[1].push(ms_per_gib(cpu_of(daemon.pid()) - before, bytes));
        }
        let [alone, daemon, bare, ours] = columns.map(|c| median(&c));
        println!(
            "| {in_flight} | {alone} | {daemon} | {:.2} | {bare} | {ours} | {:.2} |",
            alone.median / daemon.median,
            ours.median / bare.median
        );
    }
}

/// The daemon's own words for a client, as the command line would read them.
fn client_of(daemon: &Daemon) -> Client {
    let command = daemon.client();
    let env = |name: &str| {
        let found = command.get_envs().find(|(key, _)| *key == name);
        found.and_then(|(_, value)| value).expect("set").to_str().expect("text").to_owned()
    };
    let trust = ringvault::client::Trust::Pinned(env("PBS_FINGERPRINT").parse().expect("a fingerprint"));
    let repository = env("PBS_REPOSITORY").parse().expect("a repository");
    Client::new(repository, ringvault::client::Secret::new(env("PBS_PASSWORD")), trust).expect("a client")
}

async fn open(client: &Client) -> (Arc<ReaderSession>, Index) {
    let group: Group = "host/bench".parse().expect("a group");
    let snapshot = snapshots::newest(client, &Namespace::root(), &group).await.expect("a snapshot");
    let session = ReaderSession::open(client, &Namespace::root(), &snapshot).await.expect("a session");
    let manifest = session.manifest(&snapshot).await.expect("a manifest");
    let file = manifest.files().iter().find(|f| f.filename.as_str() == "disk.img.fidx").expect("the image");
    let index = session.index(file).await.expect("an index");
    (Arc::new(session), index)
}

async fn fetch(session: &Arc<ReaderSession>, digests: &[Digest], in_flight: usize) {
    let next = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let digests: Arc<[Digest]> = digests.into();
    let workers: Vec<_> = (0..in_flight)
        .map(|_| {
            let (session, digests, next) = (session.clone(), digests.clone(), next.clone());
            tokio::spawn(async move {
                while let Some(digest) = digests.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    assert!(session.chunk(*digest).await.expect("a chunk").len() > CHUNK / 2);
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("a worker");
    }
}

/// A server without a protocol: reads the file of each chunk, sends it over TLS. With one in flight it waits for a byte from the client before
/// each; with more it reads ahead on a thread.
fn bare(store: &Path, digests: &[Digest], in_flight: usize) -> (Duration, Duration) {
    let paths: Vec<PathBuf> = digests
        .iter()
        .map(|digest| {
            let name = digest.to_string();
            store.join(".chunks").join(&name[..4]).join(name)
        })
        .collect();
    let lengths: Vec<usize> =
        paths.iter().map(|path| std::fs::metadata(path).expect("a chunk").len().try_into().unwrap()).collect();
    let TlsPair { mut server, mut client } = TlsPair::connect();
    let started = Instant::now();
    std::thread::scope(|scope| {
        let receiver = scope.spawn(move || {
            let mut block = vec![0; 64 << 10];
            for length in lengths {
                if in_flight == 1 {
                    client.write_all(b"x").and_then(|()| client.flush()).expect("asked");
                }
                let mut left = length;
                while left > 0 {
                    let room = left.min(block.len());
                    left -= client.read(&mut block[..room]).expect("received");
                }
            }
            client
        });
        let cpu = if in_flight == 1 {
            thread_cpu(|| {
                for path in &paths {
                    server.read_exact(&mut [0]).expect("a request");
                    server.write_all(&std::fs::read(path).expect("a chunk")).expect("sent");
                    server.flush().expect("sent");
                }
            })
        } else {
            let (ahead, blobs) = std::sync::mpsc::sync_channel(in_flight);
            let reader = scope.spawn(|| {
                thread_cpu(move || {
                    for path in &paths {
                        ahead.send(std::fs::read(path).expect("a chunk")).expect("somebody listens");
                    }
                })
            });
            let sending = thread_cpu(|| {
                for blob in blobs {
                    server.write_all(&blob).expect("sent");
                }
                server.flush().expect("sent");
            });
            sending + reader.join().expect("a reader")
        };
        drop(receiver.join().expect("a receiver"));
        (cpu, started.elapsed())
    })
}
