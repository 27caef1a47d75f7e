//! `ringvault datastore`: which there are, and their settings; and two that work on a directory alone, without any server.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use http::Method;

use super::admin::{Admin, Call, Shown};
use crate::engine::{Engine, EngineChoice, EngineConfig};
use crate::error::{IoContext, Result};
use crate::store::Datastore;
use crate::types::DatastoreName;

/// List, make, change and remove datastores
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    admin: Admin,

    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// List datastores
    List,
    /// Show the settings of a datastore
    Show {
        /// Which
        name: DatastoreName,
    },
    /// Make a datastore in a new or empty directory, and name it in the configuration
    Create {
        /// What clients call it
        name: DatastoreName,
        /// Its directory
        path: PathBuf,
        /// The directory is a datastore already: examine it and use it
        #[arg(long)]
        reuse: bool,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change settings of a datastore
    Update {
        /// Which
        name: DatastoreName,
        #[command(flatten)]
        settings: Settings,
        /// A setting that goes back to its default; may be repeated
        #[arg(long, value_name = "SETTING")]
        delete: Vec<String>,
    },
    /// Remove a datastore from the configuration; its directory stays unless --destroy-data is given
    Delete {
        /// Which
        name: DatastoreName,
        /// Remove its directory with all backups too
        #[arg(long)]
        destroy_data: bool,
        /// Keep its prune and verification jobs
        #[arg(long)]
        keep_job_configs: bool,
    },
    /// Only make the directories of a datastore, for a configuration that names it later
    Init {
        /// The directory
        path: PathBuf,
        /// Owner and group of everything in it, as numbers; needs root
        #[arg(long, value_name = "UID:GID", value_parser = owner)]
        owner: Option<(u32, u32)>,
    },
    /// Check every directory and mode of a datastore that another server made
    Check {
        /// The directory
        path: PathBuf,
        /// Owner and group that everything should have, as numbers
        #[arg(long, value_name = "UID:GID", value_parser = owner)]
        owner: Option<(u32, u32)>,
    },
}

/// Settings, each explained in docs/configuration.md.
#[derive(clap::Args, Debug)]
struct Settings {
    /// A line for listings
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// When garbage collection runs, for example daily
    #[arg(long, value_name = "EVENT")]
    gc_schedule: Option<String>,
    /// Verify every backup when it has finished: true or false
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    verify_new: Option<bool>,
    /// read-only or offline; type=offline,message="new disk" tells why
    #[arg(long, value_name = "MODE")]
    maintenance_mode: Option<String>,
    /// What is made durable, and when: none, file or filesystem. Without --gc-atime-cutoff beside it, that goes back to its default
    #[arg(long, value_name = "LEVEL")]
    sync_level: Option<String>,
    /// Garbage collection keeps what was used in so many minutes before it. Without --sync-level beside it, that goes back to its default
    #[arg(long, value_name = "MINUTES")]
    gc_atime_cutoff: Option<u32>,
    /// Check known chunks when a backup refers to them: true or false
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    check_append: Option<bool>,
    /// Check them again when it finishes: true or false
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    check_finish: Option<bool>,
    /// Check them while the previous index is read: true or false
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    check_preflight: Option<bool>,
    /// How presence is checked: auto, uring, threads or sync
    #[arg(long, value_name = "ENGINE")]
    engine: Option<String>,
    /// Presence checks in flight
    #[arg(long, value_name = "COUNT")]
    workers: Option<u32>,
    /// Threads for file work
    #[arg(long, value_name = "COUNT")]
    io_threads: Option<u32>,
    /// How garbage collection tells what is in use: memory or atime
    #[arg(long, value_name = "METHOD")]
    gc_method: Option<String>,
    /// Memory for the set of chunks in use, in MiB
    #[arg(long, value_name = "MIB")]
    gc_memory_mib: Option<u32>,
    /// Chunks that jobs read, look at or remove in a second at most
    #[arg(long, value_name = "COUNT")]
    background_chunks_per_second: Option<u64>,
    /// MiB that jobs read in a second at most
    #[arg(long, value_name = "MIB")]
    background_mib_per_second: Option<u32>,
    /// Jobs make way for sessions: true or false
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    background_back_off: Option<bool>,
    /// What jobs read has the I/O priority idle: true or false
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    background_idle_priority: Option<bool>,
    /// Space that is kept for garbage collection on a full disk, in MiB
    #[arg(long, value_name = "MIB")]
    gc_reserve_mib: Option<u32>,
    /// Owner and group of new files, as UID:GID, when the daemon runs as root
    #[arg(long, value_name = "UID:GID")]
    owner: Option<String>,
    /// Where an older server of the original kind has its locks, if it works on the same datastore
    #[arg(long, value_name = "DIR")]
    manifest_lock_dir: Option<String>,
}

impl Settings {
    fn onto(self, call: Call) -> Call {
        let level = self.sync_level.map(|level| format!("sync-level={level}"));
        let cutoff = self.gc_atime_cutoff.map(|minutes| format!("gc-atime-cutoff={minutes}"));
        let tuning: Vec<String> = [level, cutoff].into_iter().flatten().collect();
        let tuning = (!tuning.is_empty()).then(|| tuning.join(","));
        call.with("comment", self.comment)
            .with("gc-schedule", self.gc_schedule)
            .with("verify-new", self.verify_new)
            .with("maintenance-mode", self.maintenance_mode)
            .with("tuning", tuning)
            .with("check-append", self.check_append)
            .with("check-finish", self.check_finish)
            .with("check-preflight", self.check_preflight)
            .with("engine", self.engine)
            .with("workers", self.workers)
            .with("io-threads", self.io_threads)
            .with("gc-method", self.gc_method)
            .with("gc-memory-mib", self.gc_memory_mib)
            .with("background-chunks-per-second", self.background_chunks_per_second)
            .with("background-mib-per-second", self.background_mib_per_second)
            .with("background-back-off", self.background_back_off)
            .with("background-idle-priority", self.background_idle_priority)
            .with("gc-reserve-mib", self.gc_reserve_mib)
            .with("owner", self.owner)
            .with("manifest-lock-dir", self.manifest_lock_dir)
    }
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    const ALL: &str = "config/datastore";
    const ONE: &str = "config/datastore/{}";
    let (store, call, shown) = match args.action {
        Action::List => {
            (None, Call::new(Method::GET, ALL, &[]), Shown::Table(&["name", "path", "maintenance-mode", "comment"]))
        }
        Action::Show { name } => (None, Call::new(Method::GET, ONE, &[name.as_str()]), Shown::Fields),
        Action::Create { name, path, reuse, settings } => {
            let path = absolute(&path)?.to_string_lossy().into_owned();
            let call = Call::new(Method::POST, ALL, &[]).with("name", Some(name.as_str())).with("path", Some(path));
            (None, settings.onto(call.flag("reuse-datastore", reuse)), Shown::Task)
        }
        Action::Update { name, settings, delete } => {
            let call = settings.onto(Call::new(Method::PUT, ONE, &[name.as_str()]));
            (None, call.with("delete", (!delete.is_empty()).then_some(delete)), Shown::Nothing)
        }
        Action::Delete { name, destroy_data, keep_job_configs } => {
            let call = Call::new(Method::DELETE, ONE, &[name.as_str()]).flag("destroy-data", destroy_data);
            let call = call.flag("keep-job-configs", keep_job_configs);
            (Some(name), call, Shown::Task)
        }
        Action::Init { path, owner } => return init(&path, owner),
        Action::Check { path, owner } => return check(&path, owner),
    };
    args.admin.run(store.as_ref(), vec![call], shown)
}

fn init(path: &Path, owner: Option<(u32, u32)>) -> Result<ExitCode> {
    let path = absolute(path)?;
    on_engine(async |engine| Datastore::create(&path, owner, engine).await)?;
    println!("made the datastore {}", path.display());
    Ok(ExitCode::SUCCESS)
}

fn check(path: &Path, owner: Option<(u32, u32)>) -> Result<ExitCode> {
    let path = absolute(path)?;
    on_engine(async |engine| Datastore::verify_layout(&path, owner, engine).await)?;
    println!("{} is a datastore with the right owners and modes", path.display());
    Ok(ExitCode::SUCCESS)
}

fn on_engine(work: impl AsyncFnOnce(&Engine) -> Result<()>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.io_context(|| "start the runtime")?;
    let engine =
        Engine::start("datastore", &EngineConfig { choice: EngineChoice::Threads, ..EngineConfig::default() })?;
    runtime.block_on(work(&engine))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).io_context(|| format!("find {path:?}"))
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    numbers.ok_or_else(|| "UID:GID in numbers is expected".to_owned())
}
