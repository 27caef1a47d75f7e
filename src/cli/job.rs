//! What `gc start`, `verify` and `prune` share: a task is started, followed, and its run is shown with its figures.

use std::process::ExitCode;

use http::Method;
use indicatif::HumanBytes;
use serde_json::{Value, json};

use super::admin::{Admin, Call, plain};
use super::client::{Output, print_text};
use super::follow::{Followed, Interrupt, follow};
use crate::daemon::Administration;
use crate::error::{Error, Result};
use crate::store::Rate;
use crate::types::DatastoreName;

/// Seconds of an hour and of a minute.
const HOUR_SECS: u64 = 3600;
const MINUTE_SECS: u64 = 60;

/// Whether the end is waited for.
#[derive(clap::Args, Debug)]
pub struct Waiting {
    /// Only start it in the running server, print the name of its task and return at once
    #[arg(long)]
    detach: bool,
}

/// How fast the work may be.
#[derive(clap::Args, Debug)]
pub struct Paced {
    /// Take at most so many chunks (500/s), MiB (20M/s) or both (500/s,20M/s) in a second, as the settings
    /// background.chunks-per-second and background.mib-per-second of the datastore say for all its jobs together; those hold as well
    #[arg(long, value_name = "RATE")]
    rate: Option<Rate>,
}

impl Paced {
    /// With the rate, if one was given.
    pub(super) fn apply(&self, call: Call) -> Call {
        call.with("rate", self.rate.map(|rate| rate.to_string()))
    }
}

/// Starts the task that a call answers, follows it, and prints what it came to.
pub(super) fn run(admin: &Admin, store: &DatastoreName, call: Call, waiting: &Waiting) -> Result<ExitCode> {
    let done = admin.with(Some(store), async |administration| work(administration, store, call, waiting).await)?;
    match (admin.output(), &done.followed) {
        (Output::Json, _) => print_text(&format!("{:#}\n", done.row))?,
        (Output::Text, None) => print_text(&format!("{}\n", done.upid))?,
        (Output::Text, Some(_)) => match summary(&done.row) {
            Some(text) => print_text(&format!("{text}\n"))?,
            None => ExitCode::SUCCESS,
        },
    };
    match done.followed {
        None => Ok(ExitCode::SUCCESS),
        // As a shell tells of a signal.
        Some(Followed::Left) => Ok(ExitCode::from(130)),
        Some(followed) => followed.check(&done.upid).map(|()| ExitCode::SUCCESS),
    }
}

struct Done {
    upid: String,
    /// `None`: only started.
    followed: Option<Followed>,
    /// Of the history, or what is known without it.
    row: Value,
}

async fn work(administration: &Administration, store: &DatastoreName, call: Call, waiting: &Waiting) -> Result<Done> {
    if waiting.detach && administration.is_alone() {
        let text = "no server runs on this data directory, so the work would end with this command: leave out --detach";
        return Err(Error::invalid(text));
    }
    let upid = plain(&call.make(administration).await?["data"]);
    if waiting.detach {
        return Ok(Done { row: json!({ "upid": upid, "status": "running" }), upid, followed: None });
    }
    let followed = follow(administration, &upid, Interrupt::Stops, |_| true).await?;
    let status = match &followed {
        Followed::Ended(status) => status.clone(),
        Followed::Left => "running".to_owned(),
    };
    let call = Call::new(Method::GET, "admin/datastore/{}/history", &[store.as_str()]).with("limit", Some(0));
    // A dry run is none, and a datastore that is gone has none.
    let runs = call.make(administration).await.unwrap_or_default();
    let run = runs["data"].as_array().into_iter().flatten().find(|run| run["upid"] == json!(upid));
    let row = run.cloned().unwrap_or_else(|| json!({ "upid": upid, "status": status }));
    Ok(Done { upid, followed: Some(followed), row })
}

/// A run in one line for people; `None` if it has no figures.
pub(super) fn summary(run: &Value) -> Option<String> {
    let figure = |name: &str| run["figures"][name].as_u64().unwrap_or(0);
    let bytes = |name: &str| HumanBytes(figure(name));
    if run["figures"].as_object().is_none_or(serde_json::Map::is_empty) {
        return None;
    }
    let text = match run["kind"].as_str()? {
        "gc" => format!(
            "{} chunks removed ({}), {} too young to go ({}), {} in use ({})",
            figure("removed-chunks"),
            bytes("removed-bytes"),
            figure("pending-chunks"),
            bytes("pending-bytes"),
            figure("disk-chunks"),
            bytes("disk-bytes")
        ),
        "verify" | "verify-new" => {
            let part = match (figure("chunks-chosen"), figure("chunks-named")) {
                (chosen, named) if chosen < named => format!(" for {chosen} of {named} named"),
                _ => String::new(),
            };
            format!(
                "{} snapshots right, {} failed, {} skipped; {} chunks read{part} ({}), {} errors",
                figure("snapshots-ok"),
                figure("snapshots-failed"),
                figure("snapshots-skipped"),
                figure("chunks-read"),
                bytes("stored-bytes"),
                figure("chunk-errors")
            )
        }
        "prune" | "prune-group" => format!(
            "{} snapshots removed, {} kept, {} spared, {} failures in {} groups",
            figure("removed"),
            figure("kept"),
            figure("spared"),
            figure("faults"),
            figure("groups")
        ),
        _ => return None,
    };
    Some(text)
}

/// `1:02:03`.
pub(super) fn duration(secs: u64) -> String {
    format!("{}:{:02}:{:02}", secs / HOUR_SECS, secs % HOUR_SECS / MINUTE_SECS, secs % MINUTE_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_in_one_line() {
        let of = |kind: &str, figures: Value| summary(&json!({ "kind": kind, "figures": figures }));
        let gc = json!({ "removed-chunks": 3, "removed-bytes": 2048, "disk-chunks": 7, "disk-bytes": 1 });
        assert_eq!(of("gc", gc).unwrap(), "3 chunks removed (2.00 KiB), 0 too young to go (0 B), 7 in use (1 B)");
        let all =
            json!({ "snapshots-ok": 1, "chunks-named": 9, "chunks-chosen": 9, "chunks-read": 5, "stored-bytes": 1 });
        let right = "1 snapshots right, 0 failed, 0 skipped; 5 chunks read (1 B), 0 errors";
        assert_eq!(of("verify", all.clone()).unwrap(), right);
        let mut part = all;
        part["chunks-chosen"] = json!(6);
        assert!(of("verify-new", part).unwrap().contains("5 chunks read for 6 of 9 named (1 B)"));
        assert_eq!(
            of("prune", json!({ "removed": 1, "kept": 2, "spared": 0, "faults": 0, "groups": 1 })).unwrap(),
            "1 snapshots removed, 2 kept, 0 spared, 0 failures in 1 groups"
        );
        assert_eq!((of("gc", json!({})), of("other", json!({ "a": 1 })), summary(&json!({}))), (None, None, None));
        assert_eq!([duration(59), duration(3_661), duration(360_000)], ["0:00:59", "1:01:01", "100:00:00"]);
    }
}
