//! `ringvault task`: what the server does for somebody, and did.

use std::process::ExitCode;

use http::Method;

use super::admin::{Admin, Call, Shown};
use super::follow::{Followed, Interrupt, follow};
use crate::error::Result;
use crate::types::{DatastoreName, Upid};

/// List tasks, read their logs, stop them
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    admin: Admin,

    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// List tasks: running ones, then the one that ended last
    List {
        /// Only those that work on this datastore
        #[arg(long, value_name = "STORE")]
        store: Option<DatastoreName>,
        /// Only those that run
        #[arg(long)]
        running: bool,
        /// Only those that failed
        #[arg(long)]
        errors: bool,
        /// How many; 0 for all
        #[arg(long, value_name = "COUNT", default_value_t = 50)]
        limit: u32,
    },
    /// Print a task's log on standard error, and what it adds until the task ends; Ctrl-C leaves the task running
    Log {
        /// Its name, as listed
        upid: Upid,
    },
    /// Ask a task to stop
    Stop {
        /// Its name, as listed
        upid: Upid,
    },
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    match args.action {
        Action::List { store, running, errors, limit } => {
            let call = Call::new(Method::GET, "nodes/localhost/tasks", &[])
                .with("store", store.map(|store| store.to_string()))
                .with("limit", Some(limit))
                .flag("running", running)
                .flag("errors", errors);
            args.admin.run(None, vec![call], Shown::Table(&["upid", "user", "status"]))
        }
        Action::Log { upid } => {
            let upid = upid.to_string();
            let followed = args
                .admin
                .with(None, async |administration| follow(administration, &upid, Interrupt::Leaves, |_| true).await)?;
            match followed {
                Followed::Left => Ok(ExitCode::from(130)),
                ended @ Followed::Ended(_) => ended.check(&upid).map(|()| ExitCode::SUCCESS),
            }
        }
        Action::Stop { upid } => {
            let call = Call::new(Method::DELETE, "nodes/localhost/tasks/{}", &[&upid.to_string()]);
            args.admin.run(None, vec![call], Shown::Nothing)
        }
    }
}
