//! `ringvault history`: past runs of a datastore's jobs.

use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use super::admin::{Admin, Call, Shown, plain};
use super::client::{Output, print_text};
use super::job::{duration, summary};
use crate::clock::EpochSecs;
use crate::error::Result;
use crate::task::RunKind;
use crate::types::DatastoreName;

const EXAMPLES: &str = "\
Examples:
  What was collected, verified and pruned lately, the last run first:
    ringvault history main

  All verifications that are remembered, for a program:
    ringvault history main --kind verify --limit 0 --output json

The last 100 runs of each kind are kept. The log of a run: ringvault task log UPID";

/// Show past garbage collections, verifications and prunes with what they came to
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    admin: Admin,

    /// Which datastore
    store: DatastoreName,

    /// Only runs of this kind; may be repeated. verify-new: of new backups; prune-group: of one group
    #[arg(long, value_name = "KIND", value_parser = clap::builder::PossibleValuesParser::new(RunKind::WORDS))]
    kind: Vec<String>,

    /// How many; 0 for all that are kept
    #[arg(long, value_name = "COUNT", default_value_t = 50)]
    limit: u32,
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let call = Call::new(Method::GET, "admin/datastore/{}/history", &[args.store.as_str()]);
    let call = call.with("limit", Some(args.limit)).with("kind", (!args.kind.is_empty()).then_some(args.kind));
    let store = Some(&args.store);
    let mut runs = args.admin.with(store, async |administration| call.make(administration).await)?["data"].take();
    if args.admin.output() == Output::Text {
        runs.as_array_mut().into_iter().flatten().for_each(for_people);
    }
    print_text(&args.admin.show(&runs, Shown::Table(&["kind", "start", "duration", "status", "result"])))
}

fn for_people(run: &mut Value) {
    let start = run["starttime"].as_i64().and_then(|time| EpochSecs(time).to_utc_name());
    let lasted = run["duration"].as_u64().map(duration);
    let result = summary(run);
    // The rest of an error is in the task's log.
    let status: String = plain(&run["status"]).chars().take(40).collect();
    *run = json!({ "kind": run["kind"], "start": start, "duration": lasted, "status": status, "result": result });
}
