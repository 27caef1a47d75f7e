//! `ringvault config`: examine the configuration, or take over that of another server.

use std::path::PathBuf;
use std::process::ExitCode;

use super::client::{Output, print};
use crate::daemon;
use crate::error::Result;

/// Check the configuration, or import that of another server
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The server's data directory
    #[arg(long, value_name = "DIR", default_value = "ringvault-data", env = "RINGVAULT_DATA_DIR", global = true)]
    data_dir: PathBuf,

    /// Configuration file instead of DIR/ringvault.toml
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// How to print the result
    #[arg(long, value_enum, default_value_t, global = true)]
    output: Output,

    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Say everything that is wrong with the configuration, each with its line; status 1 if there is something
    ///
    /// Also looks whether datastores and certificates are where the configuration says. A running server is not disturbed.
    Check,
    /// Take over datastores, users, tokens and permissions of an existing server
    ///
    /// Reads datastore.cfg, user.cfg, acl.cfg, shadow.json and token.shadow. Passwords and token secrets stay as they are. What has no
    /// counterpart is named. Nothing that is there is overwritten, and without --write nothing is changed at all.
    Import {
        /// Directory of the files, for example /etc/proxmox-backup or a copy of it
        from: PathBuf,
        /// Do it; the daemon must not run
        #[arg(long)]
        write: bool,
    },
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let (data_dir, config) = (&args.data_dir, args.config.as_deref());
    match args.action {
        Action::Check => {
            let checked = daemon::check_configuration(data_dir, config)?;
            print(args.output, &checked)?;
            Ok(if checked.problems.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Action::Import { from, write } => print(args.output, &daemon::import(data_dir, config, &from, write)?),
    }
}
