//! `ringvault repair`: what is lost with some chunks, from all indexes.

use std::process::ExitCode;

use http::Method;
use serde_json::Value;

use super::admin::{Admin, Call};
use super::client::print_text;
use super::inspect::{NOT_SOUND, fates, not_ours, parse};
use crate::error::Result;
use crate::jobs::inspect::report::ChunksReport;
use crate::jobs::inspect::{Report, words};
use crate::types::{DatastoreName, Digest};

/// Snapshots that are printed; `--output json` has all.
const SNAPSHOTS_PRINTED_MAX: usize = 200;

/// Find out what is lost with missing chunks, and what would bring them back
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    admin: Admin,

    #[command(subcommand)]
    action: Action,
}

const EXAMPLES: &str = "\
Examples:
  ringvault repair report main --missing
  ringvault repair report main --chunk 5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef
  ringvault repair report main --missing --mark";

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Tell which snapshots name some chunks, where, and which lose data
    ///
    /// Reads all indexes once (with --missing once more for each one to two million different chunks) and changes nothing, unless --mark
    /// is given. Status 0 if no snapshot loses data, 3 if one does, 1 if the work could not be done.
    #[command(after_help = EXAMPLES)]
    Report {
        /// Datastore
        store: DatastoreName,
        #[command(flatten)]
        about: About,
        /// Mark finished snapshots that name a missing chunk as failed, so that the next backup of their group is a full one
        #[arg(long)]
        mark: bool,
    },
}

#[derive(clap::Args, Debug)]
#[group(required = true, multiple = false)]
struct About {
    /// About this chunk, there or not; may be repeated
    #[arg(long, value_name = "DIGEST")]
    chunk: Vec<Digest>,
    /// About all chunks that an index names and that are not there
    #[arg(long)]
    missing: bool,
    /// About all chunks of which a verification has set a bad version aside
    #[arg(long)]
    bad: bool,
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let Action::Report { store, about: About { chunk, missing, bad }, mark } = args.action;
    let digests: Vec<Value> = chunk.iter().map(|digest| digest.to_string().into()).collect();
    let call = Call::new(Method::POST, "admin/datastore/{}/chunk-report", &[store.as_str()])
        .with("chunk", (!digests.is_empty()).then_some(digests))
        .flag("missing", missing)
        .flag("bad", bad)
        .flag("mark", mark);
    let answer = args.admin.report(&store, call)?;
    let Report::Chunks(report) = parse(&answer)? else { return Err(not_ours()) };
    print_text(&if args.admin.is_json() { format!("{answer:#}\n") } else { text(&report) })?;
    Ok(if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::from(NOT_SOUND) })
}

fn text(report: &ChunksReport) -> String {
    let mut lines = words::summary(report);
    let head = lines.remove(0);
    let mut text = format!("{} index files read: {head}\n", report.indexes);
    for line in lines.iter().take(SNAPSHOTS_PRINTED_MAX) {
        text.push_str(&format!("  {line}\n"));
    }
    let more = lines.len().saturating_sub(SNAPSHOTS_PRINTED_MAX) as u64 + report.hidden_snapshots;
    if more > 0 {
        text.push_str(&format!("  and {}\n", words::counted(more, "more snapshot")));
    }
    if !report.chunks.is_empty() {
        text.push_str("chunks:\n");
        text.push_str(&fates(&report.chunks));
    }
    if report.more_chunks > 0 {
        text.push_str(&format!("  {} beyond these were not looked for\n", words::counted(report.more_chunks, "chunk")));
    }
    for unreadable in &report.unreadable {
        text.push_str(&format!("what it names is not in this report: {unreadable}\n"));
    }
    if report.marked > 0 {
        text.push_str(&format!("{} marked as failed\n", words::counted(report.marked, "snapshot")));
    }
    text
}
