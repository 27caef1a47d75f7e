//! `ringvault gc`: garbage collection.

use std::process::ExitCode;

use http::Method;
use serde_json::Value;

use super::admin::{Admin, Call, Shown, plain};
use super::client::print_text;
use super::job::{self, Paced, Waiting};
use crate::error::{Error, Result};
use crate::types::DatastoreName;

const EXAMPLES: &str = "\
Examples:
  Free the space of chunks that no backup uses any more, and watch:
    ringvault gc start main

  By day, on a disk that others need too:
    ringvault gc start main --rate 500/s

  From a script, with the figures of the run as JSON:
    ringvault gc start main --output json

  What past runs freed:
    ringvault history main --kind gc";

/// Remove the chunks that no backup uses any more
///
/// Backups go on meanwhile. Chunks that were used in the last day stay until the next run. A schedule is set with
/// `ringvault datastore update STORE --gc-schedule daily`.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    admin: Admin,

    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Collect garbage now, and show how far it is; Ctrl-C stops it
    Start {
        /// Which datastore
        store: DatastoreName,
        /// Begin anew, even if the last run was cut off and could be gone on with, and read what has not changed too
        #[arg(long)]
        fresh: bool,
        #[command(flatten)]
        paced: Paced,
        #[command(flatten)]
        waiting: Waiting,
    },
    /// Show what the last complete run found, and when the next one is due
    Status {
        /// Which datastore
        store: DatastoreName,
    },
    /// Stop the run that is under way; what it has removed stays removed, and the next run does the rest
    Stop {
        /// Which datastore
        store: DatastoreName,
    },
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    const PATH: &str = "admin/datastore/{}/gc";
    match args.action {
        Action::Start { store, fresh, paced, waiting } => {
            let call = Call::new(Method::POST, PATH, &[store.as_str()]).flag("fresh", fresh);
            job::run(&args.admin, &store, paced.apply(call), &waiting)
        }
        Action::Status { store } => {
            let call = Call::new(Method::GET, PATH, &[store.as_str()]);
            args.admin.run(Some(&store), vec![call], Shown::Fields)
        }
        Action::Stop { store } => {
            let stopped = args.admin.with(None, async |administration| {
                let call = Call::new(Method::GET, "nodes/localhost/tasks", &[]).flag("running", true);
                let call = call.with("typefilter", Some("garbage_collection")).with("store", Some(store.as_str()));
                let running = call.make(administration).await?;
                let upid = running["data"].as_array().and_then(|tasks| tasks.first()).map(|task| plain(&task["upid"]));
                let none = || Error::not_found(format!("no garbage collection runs on datastore '{store}'"));
                let upid = upid.ok_or_else(none)?;
                Call::new(Method::DELETE, "nodes/localhost/tasks/{}", &[&upid]).make(administration).await?;
                Ok(upid)
            })?;
            print_text(&args.admin.show(&Value::from(stopped), Shown::Text))
        }
    }
}
