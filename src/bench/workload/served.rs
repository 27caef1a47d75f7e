//! A whole daemon over the scratch datastore, in this process, on a port of the loopback; its clients come over TLS.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::runtime::Handle;

use super::counting::Counting;
use super::{Ground, Told, opened};
use crate::bench::job::{IoEngine, SyncLevel};
use crate::bench::scratch::Scratch;
use crate::bench::seed::{Numbers, fill};
use crate::bench::turn::Turn;
use crate::client::{ArchiveSpec, BackupReport, Client, backup, environment};
use crate::clock::EpochSecs;
use crate::daemon::Inside;
use crate::engine::Engine;
use crate::error::{Error, IoContext, Result};
use crate::store::CheckSwitches;
use crate::types::{FIXED_CHUNK_BYTES, Snapshot};

/// Name of its datastore.
const NAME: &str = "bench";

/// Time of the first backup of a group: 2024-06-05T14:23:38Z.
const FIRST_SECS: i64 = 1_717_597_418;

/// Length of the files in the stream: most are short, as in a directory of a system.
const FILE_BYTES_MAX: u64 = 256 << 10;

/// What `tar` puts before a file, and rounds its length up to.
const TAR_BLOCK_BYTES: usize = 512;

/// Daemons of this process so far.
static STARTED: AtomicU64 = AtomicU64::new(0);

/// All checks, or none.
pub fn switches(on: bool) -> CheckSwitches {
    CheckSwitches { append: on, finish: on, preflight: on }
}

/// A daemon, dropped when it is not needed any more.
pub struct Served {
    inside: Option<Inside>,
    dir: PathBuf,
    engine: Engine,
    variables: Vec<(String, String)>,
    runtime: Handle,
}

impl Served {
    /// Starts a daemon over the datastore of the scratch directory; the job says with which engine, and when it syncs.
    pub fn start(ground: &Ground, checks: CheckSwitches) -> Result<Self> {
        let (job, scratch, work) = (&ground.job, ground.scratch()?, ground.work()?);
        // Each has its own: the one before may not have let go of everything yet.
        let dir = work.path().join(format!("daemon-{}", STARTED.fetch_add(1, Ordering::Relaxed)));
        let engine = match job.ioengine {
            IoEngine::SerialStd | IoEngine::Sync => "sync",
            IoEngine::Threads => "threads",
            IoEngine::Uring => "uring",
            IoEngine::Auto => "auto",
        };
        let level = match job.sync {
            SyncLevel::None => "none",
            SyncLevel::File => "file",
            SyncLevel::Filesystem => "filesystem",
        };
        let text = |text: &Path| toml::Value::String(text.to_string_lossy().into_owned()).to_string();
        let CheckSwitches { append, finish, preflight } = checks;
        let config = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nshutdown-timeout-secs = 5\n\
             [[datastore]]\nname = \"{NAME}\"\npath = {}\nengine = \"{engine}\"\nworkers = {}\nsync-level = \"{level}\"\n\
             checks.append = {append}\nchecks.finish = {finish}\nchecks.preflight = {preflight}\n",
            text(&scratch.store()),
            job.workers,
        );
        let context = || format!("cannot make {dir:?}");
        if dir.exists() {
            // Of an earlier run that was killed.
            std::fs::remove_dir_all(&dir).io_context(context)?;
        }
        std::fs::create_dir(&dir).io_context(context)?;
        let path = dir.join(crate::daemon::CONFIG_FILE);
        let file = File::options().write(true).create(true).truncate(true).open(path);
        file.and_then(|mut file| file.write_all(config.as_bytes())).io_context(context)?;
        let inside = ground.runtime.block_on(Inside::start(&dir))?;
        let store = inside.datastore(&NAME.parse()?);
        let engine = store.ok_or_else(|| Error::not_found("the daemon has no datastore"))?.engine().clone();
        let variables = inside.connection()?;
        Ok(Self { inside: Some(inside), dir, engine, variables, runtime: ground.runtime.clone() })
    }

    /// A client of its own.
    pub fn client(&self) -> Result<Client> {
        let lookup = |name: &str| self.variables.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone());
        let (secret, trust) = (environment::secret(&lookup)?, environment::trust(&lookup)?);
        Client::new(environment::repository(None, &lookup)?, secret, trust)
    }

    /// The engine of its datastore.
    pub fn engine(&self) -> Engine {
        self.engine.clone()
    }

    /// Backs `source` up, as `number`-th of its group. `None` when `turn` ended before; the server removes what there is then.
    pub fn back_up(
        &self,
        turn: &Turn,
        group: &str,
        number: u64,
        spec: &str,
        observer: Counting,
    ) -> Result<Option<BackupReport>> {
        let (client, spec) = (self.client()?, spec.parse::<ArchiveSpec>()?);
        let options = backup::Options::new(snapshot(group, number)?, vec![spec]);
        self.runtime.block_on(async {
            tokio::select! {
                report = backup::run(&client, &options, Arc::new(observer)) => report.map(Some),
                () = turn.over() => Ok(None),
            }
        })
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        if let Some(inside) = self.inside.take() {
            for engine in self.runtime.block_on(inside.shutdown()) {
                engine.shutdown();
            }
        }
        // If something stays, it goes with the scratch directory.
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// The `number`-th snapshot of a group.
pub fn snapshot(group: &str, number: u64) -> Result<Snapshot> {
    let offset = i64::try_from(number).unwrap_or(i64::MAX);
    Snapshot::new(format!("host/{group}").parse()?, EpochSecs(FIRST_SECS.saturating_add(offset)))
}

/// Makes the empty datastore of a daemon.
pub fn make_store(ground: &Ground, scratch: &Scratch) -> Result<()> {
    let engine = opened::engine(ground)?;
    let made = opened::make(ground, &scratch.store(), &engine);
    engine.shutdown();
    made
}

/// Writes an image of `size` bytes to `path`; `stream` of the seed says what is in it.
pub fn write_image(ground: &Ground, path: &Path, stream: u64) -> Result<()> {
    let mut numbers = Numbers::new(ground.job.randseed, stream);
    let mut block = vec![0; FIXED_CHUNK_BYTES as usize];
    write_pieces(ground, path, |left| {
        let length = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        fill(&mut block[..length], &mut numbers, ground.job.compress_percentage);
        block[..length].to_vec()
    })
}

/// Writes what an archive of a directory looks like, of `size` bytes, to `path`: files of many lengths, each behind a header.
pub fn write_archive(ground: &Ground, path: &Path, stream: u64) -> Result<()> {
    let mut numbers = Numbers::new(ground.job.randseed, stream);
    let mut file = 0;
    write_pieces(ground, path, |left| {
        file += 1;
        // Squared, so that short ones are more.
        let share = numbers.below(1000);
        let length = usize::try_from(FILE_BYTES_MAX * share * share / 1_000_000).expect("a short file");
        let mut piece = vec![0; TAR_BLOCK_BYTES + length.next_multiple_of(TAR_BLOCK_BYTES)];
        let name = format!("usr/share/bench/{file:08}");
        piece[..name.len()].copy_from_slice(name.as_bytes());
        fill(&mut piece[TAR_BLOCK_BYTES..][..length], &mut numbers, ground.job.compress_percentage);
        piece.truncate(usize::try_from(left).unwrap_or(usize::MAX).min(piece.len()));
        piece
    })
}

/// `piece` gets how many bytes are left, and gives 1 to so many.
fn write_pieces(ground: &Ground, path: &Path, mut piece: impl FnMut(u64) -> Vec<u8>) -> Result<()> {
    let context = || format!("cannot write {path:?}");
    let file = File::options().write(true).create(true).truncate(true).open(path).io_context(context)?;
    let mut file = std::io::BufWriter::with_capacity(FIXED_CHUNK_BYTES as usize, file);
    let mut left = ground.job.size;
    while left > 0 {
        ground.go_on()?;
        let piece = piece(left);
        file.write_all(&piece).io_context(context)?;
        left -= piece.len() as u64;
    }
    file.flush().io_context(context)
}

/// What the daemon's engine is, for the report.
pub fn tell_checks(checks: CheckSwitches, told: &mut Told) {
    told.map.insert("checks".into(), serde_json::json!(checks));
}
