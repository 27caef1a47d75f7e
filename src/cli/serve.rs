//! `ringvault serve`: the daemon.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;

use crate::daemon;
use crate::engine::Engine;
use crate::error::{IoContext, Result};

/// Run the backup server; an empty data directory is set up first
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Where everything lies that the server keeps; made if it is missing
    #[arg(long, value_name = "DIR", default_value = "ringvault-data", env = "RINGVAULT_DATA_DIR")]
    data_dir: PathBuf,

    /// Address and port to listen on; goes before the configuration file's, which is 127.0.0.1:8007 unless it says otherwise
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,

    /// Configuration file to read instead of DIR/ringvault.toml
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    log_to_stderr();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("runtime").build();
    let runtime = runtime.io_context(|| "start the runtime")?;
    let options = daemon::Options { data_dir: args.data_dir, listen: args.listen, config: args.config };
    let engines = runtime.block_on(daemon::run(options))?;
    // Tasks that were cut off hold the last handles of datastores. What these give away to be removed is done before the engines end.
    drop(runtime);
    engines.iter().for_each(Engine::shutdown);
    Ok(ExitCode::SUCCESS)
}

/// Level `info`, or what RUST_LOG says. The journal adds the time itself.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
    if std::env::var_os("JOURNAL_STREAM").is_some() {
        lines.without_time().init();
    } else {
        lines.init();
    }
}
