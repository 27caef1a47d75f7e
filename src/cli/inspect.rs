//! `ringvault inspect`: one snapshot, explained.

use std::fmt::{self, Write};
use std::process::ExitCode;

use http::Method;
use indicatif::HumanBytes;
use serde_json::Value;

use super::admin::{Admin, Call};
use super::client::print_text;
use crate::error::{Error, Result};
use crate::jobs::inspect::report::{ChunkFate, SnapshotReport, Verification};
use crate::jobs::inspect::{Report, words};
use crate::types::{ArchiveName, DatastoreName, Namespace, Snapshot};

/// The status of a command that did its work, and found that something is missing. 2 says that the command line is wrong.
pub(super) const NOT_SOUND: u8 = 3;

/// Missing chunks that are printed with their remedies; `--output json` has more.
pub(super) const CHUNKS_PRINTED_MAX: usize = 20;

const EXAMPLES: &str = "\
Examples:
  ringvault inspect main vm/100/2024-06-05T14:23:38Z
  ringvault inspect main host/www/2024-06-05T14:23:38Z --ns prod --archive root.pxar.didx --output json";

/// Explain a snapshot: its files, its chunks, with whom it shares them, what is missing and what would heal it
///
/// Indexes are read and chunks asked for; what is in a chunk only a verification tells. Status 0 if all that was looked at is in order, 3 if
/// something is missing or wrong, 1 if the work could not be done.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    admin: Admin,

    /// Datastore
    store: DatastoreName,

    /// Snapshot, as TYPE/ID/TIME
    snapshot: Snapshot,

    /// Its namespace; the root unless given
    #[arg(long, value_name = "NAMESPACE")]
    ns: Option<Namespace>,

    /// Only the chunks of this archive, by its name on the server
    #[arg(long, value_name = "NAME")]
    archive: Option<ArchiveName>,
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let Args { admin, store, snapshot, ns, archive } = args;
    let call = Call::new(Method::POST, "admin/datastore/{}/inspect", &[store.as_str()])
        .with("ns", ns.map(|ns| ns.to_string()))
        .with("backup-type", Some(snapshot.group().ty().as_str()))
        .with("backup-id", Some(snapshot.group().id()))
        .with("backup-time", Some(snapshot.time().0))
        .with("archive", archive.map(|name| name.to_string()));
    let answer = admin.report(&store, call)?;
    let Report::Snapshot(report) = parse(&answer)? else { return Err(not_ours()) };
    let sound = report.sound;
    print_text(&if admin.is_json() { format!("{answer:#}\n") } else { Shown(*report).to_string() })?;
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::from(NOT_SOUND) })
}

/// The report in an answer.
pub(super) fn parse(answer: &Value) -> Result<Report> {
    serde_json::from_value(answer.clone()).map_err(|e| not_ours().with_source(e))
}

pub(super) fn not_ours() -> Error {
    Error::invalid("the daemon answers with a report that this version does not know")
}

/// A report for people.
struct Shown(SnapshotReport);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.0;
        let newest = if report.newest { ", the newest of its group" } else { "" };
        writeln!(f, "{}{newest}", words::snapshot(&report.snapshot))?;
        match &report.verification {
            None => writeln!(f, "verification: none yet")?,
            Some(Verification { state, upid, time }) => {
                let time = time.and_then(|time| time.to_utc_name()).unwrap_or_else(|| "time unknown".to_owned());
                writeln!(f, "verification: {state}, {time}, {upid}")?;
            }
        }
        if let Some(fault) = &report.manifest_fault {
            writeln!(f, "manifest: {fault}")?;
        }
        writeln!(f, "\nfiles (checksums computed anew):")?;
        for file in &report.files {
            let size = file.size.map_or_else(|| "?".to_owned(), |size| HumanBytes(size).to_string());
            let crypt = file.crypt_mode.as_deref().unwrap_or("not listed");
            let fault = file.fault.as_deref().unwrap_or("ok");
            writeln!(f, "  {:28} {:13} {size:>12}  {crypt:10}  {fault}", file.filename, file.kind)?;
        }
        let archive = report.archive.as_ref().map_or_else(String::new, |name| format!(" of {name} alone"));
        writeln!(f, "\nchunks{archive} (whether they are there; what is in them only `verify` reads):")?;
        for row in &report.archives {
            let zeros = if row.zero_entries > 0 { format!(", {} of zeros", row.zero_entries) } else { String::new() };
            let (entries, bytes) = (words::counted(row.entries, "chunk"), HumanBytes(row.bytes));
            writeln!(f, "  {:28} {entries}, {} different{zeros}, {bytes}", row.archive, row.distinct)?;
        }
        let chunks = &report.chunks;
        let mut line = |what: &str, count: u64, bytes: u64| {
            writeln!(f, "  {what:28} {}, {} on the disk", words::counted(count, "chunk"), HumanBytes(bytes))
        };
        line("all different ones", chunks.distinct, chunks.disk_bytes)?;
        line("shared with others", chunks.shared, chunks.shared_disk_bytes)?;
        line("only here (would be freed)", chunks.own, chunks.own_disk_bytes)?;
        if !report.groups.is_empty() || report.hidden_snapshots > 0 {
            writeln!(f, "\nshared with:")?;
        }
        for group in &report.groups {
            let (snapshots, count) =
                (words::counted(group.snapshots, "snapshot"), words::counted(group.chunks, "chunk"));
            let name = words::group(&group.ns, &group.group);
            writeln!(f, "  {name:28} {snapshots}, {count}, {} on the disk", HumanBytes(group.disk_bytes))?;
        }
        for row in &report.snapshots {
            let (name, bytes) = (words::snapshot(&row.snapshot), HumanBytes(row.disk_bytes));
            writeln!(f, "    {name:40} {}, {bytes}", words::counted(row.chunks, "chunk"))?;
        }
        if report.more_snapshots + report.hidden_snapshots > 0 {
            writeln!(
                f,
                "    and {}",
                words::counted(report.more_snapshots + report.hidden_snapshots, "more snapshot")
            )?;
        }
        for unreadable in &report.unreadable {
            writeln!(f, "  counts as not shared: {unreadable}")?;
        }
        if chunks.missing > 0 {
            writeln!(f, "\nmissing: {}", words::counted(chunks.missing, "chunk"))?;
            for row in report.archives.iter().filter(|row| row.lost_entries > 0) {
                let ranges = words::ranges(&row.places, row.more_places);
                writeln!(f, "  {}: {} lost, bytes {ranges}", row.archive, HumanBytes(row.lost_bytes))?;
            }
            f.write_str(&fates(&report.missing))?;
        }
        if chunks.unknown > 0 {
            writeln!(
                f,
                "\n{} could not be asked for: the disk did not answer",
                words::counted(chunks.unknown, "chunk")
            )?;
        }
        writeln!(f, "\n{}", if report.sound { "nothing is missing" } else { "this snapshot is not whole" })
    }
}

/// Chunks and what would bring them back.
pub(super) fn fates(chunks: &[ChunkFate]) -> String {
    let mut text = String::new();
    for chunk in chunks.iter().take(CHUNKS_PRINTED_MAX) {
        // Writing to a string does not fail.
        let _ = writeln!(text, "  {}", words::fate(chunk));
        for remedy in words::remedies(chunk) {
            let _ = writeln!(text, "    - {remedy}");
        }
    }
    if chunks.len() > CHUNKS_PRINTED_MAX {
        let more = chunks.len() - CHUNKS_PRINTED_MAX;
        let _ = writeln!(text, "  and {more} more: --output json has them");
    }
    text
}
