//! File data: `tokio-uring` against the engine's pool, in one run, turn by turn.
//!
//! `cargo bench --bench file_data`. Root for the cold cells; `BENCH_DIR` says where.
//!
//! Both are asked from a tokio runtime, as the daemon asks: the pool by `Engine::run`, the ring by a channel to the
//! thread that owns it.

#[allow(dead_code, reason = "shared with other benchmarks, of which this needs a part")]
mod support;

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use ringvault::engine::{Engine, EngineChoice, EngineConfig, SyncScope};
use support::{Series, drop_caches, measure};
use tokio::sync::{mpsc, oneshot};

/// A usual encoded chunk: 1 MiB and a bit.
const CHUNK_BYTES: usize = (1 << 20) + 12;
const ROUNDS: usize = 7;
const WIDTHS: [usize; 3] = [1, 4, 8];

type Bytes = &'static [u8];
/// The bytes read, for the asker as in the daemon; none of an insert.
type Answer = Pin<Box<dyn Future<Output = Vec<u8>> + Send>>;

#[derive(Clone, Copy)]
enum Job {
    Insert { fsync: bool },
    Read,
}

/// Either rival.
#[derive(Clone)]
enum Rival {
    Pool(Engine),
    Ring(mpsc::UnboundedSender<(PathBuf, Bytes, Job, oneshot::Sender<Vec<u8>>)>),
}

impl Rival {
    fn start_pool() -> Self {
        let config = EngineConfig { choice: EngineChoice::Sync, ..EngineConfig::default() };
        Self::Pool(Engine::start("bench", &config).expect("a pool"))
    }

    fn start_ring() -> Self {
        let (sender, mut jobs) = mpsc::unbounded_channel::<(PathBuf, Bytes, Job, oneshot::Sender<Vec<u8>>)>();
        let serve = async move {
            while let Some((path, bytes, job, answer)) = jobs.recv().await {
                tokio_uring::spawn(async move {
                    let read = match job {
                        Job::Insert { fsync } => insert_by_ring(&path, bytes, fsync).await,
                        Job::Read => read_by_ring(&path, bytes.len()).await,
                    };
                    let _ = answer.send(read);
                });
            }
        };
        std::thread::spawn(move || tokio_uring::start(serve));
        Self::Ring(sender)
    }

    fn ask(&self, path: PathBuf, bytes: Bytes, job: Job) -> Answer {
        match self {
            Self::Pool(engine) => {
                let engine = engine.clone();
                Box::pin(async move {
                    let work = move |disk: &ringvault::engine::Disk| match job {
                        Job::Insert { fsync } => {
                            let temporary = path.with_extension("tmp");
                            let file = disk.create_new(&temporary, 0o644).unwrap();
                            file.write_all_at(bytes, 0).unwrap();
                            file.chmod(0o644).unwrap();
                            if fsync {
                                file.sync(SyncScope::Data).unwrap();
                            }
                            drop(file);
                            disk.rename(&temporary, &path).unwrap();
                            Vec::new()
                        }
                        Job::Read => {
                            let mut buffer = vec![0; bytes.len()];
                            disk.open(&path).unwrap().read_exact_at(&mut buffer, 0).unwrap();
                            buffer
                        }
                    };
                    engine.run(work).await.unwrap()
                })
            }
            Self::Ring(jobs) => {
                let (answer, answered) = oneshot::channel();
                assert!(jobs.send((path, bytes, job, answer)).is_ok(), "the ring's thread is there");
                Box::pin(async move { answered.await.unwrap() })
            }
        }
    }
}

async fn insert_by_ring(path: &Path, bytes: Bytes, fsync: bool) -> Vec<u8> {
    let temporary = path.with_extension("tmp");
    let file = tokio_uring::fs::OpenOptions::new().write(true).create_new(true).open(&temporary).await.unwrap();
    file.write_all_at(bytes, 0).await.0.unwrap();
    // The ring has no chmod; it does not wait for a disk.
    rustix::fs::chmod(&temporary, rustix::fs::Mode::from_raw_mode(0o644)).unwrap();
    if fsync {
        file.sync_data().await.unwrap();
    }
    file.close().await.unwrap();
    tokio_uring::fs::rename(&temporary, path).await.unwrap();
    Vec::new()
}

async fn read_by_ring(path: &Path, size_bytes: usize) -> Vec<u8> {
    let file = tokio_uring::fs::File::open(path).await.unwrap();
    let (done, buffer) = file.read_exact_at(Vec::with_capacity(size_bytes), 0).await;
    done.unwrap();
    file.close().await.unwrap();
    buffer
}

/// `count` jobs, `width` at a time.
async fn round(rival: &Rival, paths: &Arc<Vec<PathBuf>>, bytes: Bytes, job: Job, width: usize) {
    let tasks: Vec<_> = (0..width)
        .map(|first| {
            let (rival, paths) = (rival.clone(), Arc::clone(paths));
            tokio::spawn(async move {
                for path in paths.iter().skip(first).step_by(width) {
                    let read = rival.ask(path.clone(), bytes, job).await;
                    assert!(matches!(job, Job::Insert { .. }) || read == bytes);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
}

fn main() {
    if !support::asked_for() {
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let folder = support::folder();
    let mut noise = 0x9e37_79b9_7f4a_7c15u64;
    let fill = std::iter::repeat_with(|| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise.to_le_bytes()[0]
    });
    let bytes: Bytes = fill.take(CHUNK_BYTES).collect::<Vec<u8>>().leak();
    let rivals = [("pool", Rival::start_pool()), ("ring", Rival::start_ring())];
    let can_be_cold = drop_caches().is_ok();
    println!("chunk {CHUNK_BYTES} bytes, {ROUNDS} rounds each in turn; µs per chunk: median (least–most)\n");
    println!("| job | wide | pool, wall | ring, wall | pool, CPU | ring, CPU | ring / pool, wall | CPU |");
    println!("|---|---|---|---|---|---|---|---|");
    let cells = [
        ("insert", Job::Insert { fsync: false }, 96, false),
        ("insert, fdatasync", Job::Insert { fsync: true }, 48, false),
        ("read, warm", Job::Read, 192, false),
        ("read, cold", Job::Read, 192, true),
    ];
    for (name, job, count, cold) in cells {
        if cold && !can_be_cold {
            println!("| {name} | not measured: only root may drop caches |");
            continue;
        }
        for width in WIDTHS {
            let paths: Arc<Vec<PathBuf>> = Arc::new((0..count).map(|i| folder.path().join(format!("c{i}"))).collect());
            let mut series = [Series::default(), Series::default()];
            // One round more than is kept: the first one warms up threads and allocator.
            for kept in (0..=ROUNDS).map(|n| n > 0) {
                for ((_, rival), series) in rivals.iter().zip(&mut series) {
                    if matches!(job, Job::Insert { .. }) {
                        paths.iter().for_each(|path| drop(std::fs::remove_file(path)));
                        rustix::fs::sync();
                    } else {
                        if !paths.iter().all(|path| path.exists()) {
                            runtime.block_on(round(rival, &paths, bytes, Job::Insert { fsync: false }, 4));
                        }
                        if cold {
                            drop_caches().expect("it worked before");
                        } else {
                            runtime.block_on(round(rival, &paths, bytes, job, 4));
                        }
                    }
                    let cost = measure(|| runtime.block_on(round(rival, &paths, bytes, job, width)));
                    if kept {
                        series.push(cost);
                    }
                }
            }
            let [pool, ring] = series;
            let (wall, cpu) = ([pool.wall_us(count), ring.wall_us(count)], [pool.cpu_us(count), ring.cpu_us(count)]);
            println!(
                "| {name} | {width} | {} | {} | {} | {} | {:.2} | {:.2} |",
                wall[0],
                wall[1],
                cpu[0],
                cpu[1],
                wall[1].median / wall[0].median,
                cpu[1].median / cpu[0].median,
            );
        }
    }
}
