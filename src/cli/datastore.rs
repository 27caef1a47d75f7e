//! `ringvault datastore`: make a datastore for the configuration to name, or examine one that is to be adopted.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use crate::engine::{Engine, EngineChoice, EngineConfig};
use crate::error::{IoContext, Result};
use crate::store::Datastore;

/// Make or examine a datastore directory
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Make a datastore in a new or empty directory; name it in a [[datastore]] section afterwards
    Create {
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

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.io_context(|| "start the runtime")?;
    let engine =
        Engine::start("datastore", &EngineConfig { choice: EngineChoice::Threads, ..EngineConfig::default() })?;
    match args.action {
        Action::Create { path, owner } => {
            let path = absolute(&path)?;
            runtime.block_on(Datastore::create(&path, owner, &engine))?;
            println!("made the datastore {}", path.display());
        }
        Action::Check { path, owner } => {
            let path = absolute(&path)?;
            runtime.block_on(Datastore::verify_layout(&path, owner, &engine))?;
            println!("{} is a datastore with the right owners and modes", path.display());
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).io_context(|| format!("find {path:?}"))
}

fn owner(text: &str) -> Result<(u32, u32), String> {
    let numbers = text.split_once(':').and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    numbers.ok_or_else(|| "UID:GID in numbers is expected".to_owned())
}
