//! `ringvault verify`.

use std::process::ExitCode;

use http::Method;

use super::admin::{Admin, Call};
use super::job::{self, Paced, Waiting};
use crate::error::Result;
use crate::jobs::verify::{NthPart, Percent};
use crate::types::{DatastoreName, Group, Namespace, Snapshot};

const EXAMPLES: &str = "\
Examples:
  Read everything and hold it against its checksums:
    ringvault verify main

  Only what was never verified, or longer ago than a month:
    ringvault verify main --outdated-after 30

  One thirtieth of all chunks, a different one each night of a month:
    ringvault verify main --n-of-m $(date +%-d)/31

  A quick look at a twentieth of one group's chunks:
    ringvault verify main --group vm/100 --percent 5

  No more than 20 MiB of reading in a second:
    ringvault verify main --rate 20M/s

What a verification finds bad is set aside, so that the next backup uploads it again, and its snapshots are marked as failed.
With --percent and --n-of-m no snapshot is marked as verified, since not all of it was read.";

/// Read backups and hold every chunk against its checksum; Ctrl-C stops it
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    admin: Admin,

    /// Which datastore
    store: DatastoreName,

    /// Only this namespace and those below it
    #[arg(long, value_name = "NAMESPACE")]
    ns: Option<Namespace>,

    /// How many levels of namespaces down; all unless given
    #[arg(long, value_name = "LEVELS", value_parser = clap::value_parser!(u8).range(0..=7), conflicts_with_all = ["group", "snapshot"])]
    max_depth: Option<u8>,

    /// Only this group, as TYPE/ID, for example vm/100
    #[arg(long, value_name = "GROUP")]
    group: Option<Group>,

    /// Only this snapshot, as TYPE/ID/TIME, for example vm/100/2024-06-05T14:23:38Z
    #[arg(long, value_name = "SNAPSHOT", conflicts_with = "group")]
    snapshot: Option<Snapshot>,

    /// Leave out snapshots that have been verified, whatever the result was
    #[arg(long)]
    ignore_verified: bool,

    /// The same, but not those verified more than so many days ago
    #[arg(long, value_name = "DAYS")]
    outdated_after: Option<u32>,

    /// Read a random sample of the chunks, so many percent of them; decimals are allowed
    #[arg(long, value_name = "P", conflicts_with = "n_of_m")]
    percent: Option<Percent>,

    /// Choose the sample again that the log of another run names by this seed
    #[arg(long, value_name = "NUMBER", requires = "percent", value_parser = clap::value_parser!(u64).range(0..=i64::MAX as u64))]
    seed: Option<u64>,

    /// Read part N of M of the chunks, for example 3/30; the same part each time, and M runs read all
    #[arg(long, value_name = "N/M")]
    n_of_m: Option<NthPart>,

    #[command(flatten)]
    paced: Paced,

    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let call = call(&args);
    job::run(&args.admin, &args.store, call, &args.waiting)
}

fn call(args: &Args) -> Call {
    let call = args.paced.apply(Call::new(Method::POST, "admin/datastore/{}/verify", &[args.store.as_str()]));
    let group = args.snapshot.as_ref().map(Snapshot::group).or(args.group.as_ref());
    call.with("ns", args.ns.as_ref().map(Namespace::to_string))
        .with("max-depth", args.max_depth)
        .with("backup-type", group.map(|group| group.ty().as_str()))
        .with("backup-id", group.map(Group::id))
        .with("backup-time", args.snapshot.as_ref().map(|snapshot| snapshot.time().0))
        // Who asks for a verification gets one; the API's default leaves out what has been verified.
        .with("ignore-verified", Some(args.ignore_verified || args.outdated_after.is_some()))
        .with("outdated-after", args.outdated_after)
        .with("percent", args.percent.map(|percent| percent.to_string()))
        .with("seed", args.seed)
        .with("n-of-m", args.n_of_m.map(|part| part.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[derive(clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn params(line: &str) -> Result<serde_json::Value, String> {
        let words = std::iter::once("verify").chain(line.split(' '));
        let parsed = <Line as clap::Parser>::try_parse_from(words).map_err(|e| e.to_string())?;
        Ok(serde_json::Value::Object(call(&parsed.args).params))
    }

    #[test]
    fn options_become_parameters() {
        assert_eq!(params("main").unwrap(), json!({ "ignore-verified": false }));
        let snapshot = params("main --ns a/b --snapshot vm/7/1970-01-01T00:00:09Z --outdated-after 3").unwrap();
        let place = json!({ "ns": "a/b", "backup-type": "vm", "backup-id": "7", "backup-time": 9,
                            "ignore-verified": true, "outdated-after": 3 });
        assert_eq!(snapshot, place);
        let sample = params("main --group ct/1 --percent 2.50 --seed 4").unwrap();
        let wanted =
            json!({ "backup-type": "ct", "backup-id": "1", "ignore-verified": false, "percent": "2.5", "seed": 4 });
        assert_eq!(sample, wanted);
        assert_eq!(params("main --rate 20MiB/s,500/s").unwrap()["rate"], json!("500/s,20M/s"));
        assert_eq!(params("main --n-of-m 3/30 --max-depth 0").unwrap()["n-of-m"], json!("3/30"));
        for (line, part) in [
            ("main --n-of-m 31/30", "N from 1 to M"),
            ("main --percent 0", "more than 0"),
            ("main --rate 500", "is no rate: chunks a second as '500/s'"),
            ("main --percent 5 --n-of-m 1/2", "cannot be used with"),
            ("main --seed 5", "--percent"),
            ("main --group vm/1 --snapshot vm/7/1970-01-01T00:00:09Z", "cannot be used with"),
        ] {
            assert!(params(line).unwrap_err().contains(part), "{line}: {:?}", params(line));
        }
    }
}
