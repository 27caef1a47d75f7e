//! `ringvault prune`.

use std::process::ExitCode;

use http::Method;

use super::admin::{Admin, Call, Shown};
use super::client::Output;
use super::job::{self, Paced, Waiting};
use crate::error::Result;
use crate::types::{DatastoreName, Group, Namespace};

const EXAMPLES: &str = "\
Examples:
  What would go if each group kept a week of days and a year of months:
    ringvault prune main --keep-daily 7 --keep-monthly 12 --dry-run

  Keep the last three snapshots of one group, and remove the rest:
    ringvault prune main vm/100 --keep-last 3

For --rate a snapshot that is removed counts as a chunk. A snapshot stays if any of the options wants it. Protected snapshots stay in any case.
The space is free after the next garbage collection: ringvault gc start STORE";

/// Remove snapshots that no keep option wants; Ctrl-C stops it
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
#[command(group = clap::ArgGroup::new("keep").multiple(true).required(true))]
pub struct Args {
    #[command(flatten)]
    admin: Admin,

    /// Which datastore
    store: DatastoreName,

    /// Only this group, as TYPE/ID, for example vm/100; every group unless given
    group: Option<Group>,

    /// The namespace; with those below it unless a group is named
    #[arg(long, value_name = "NAMESPACE")]
    ns: Option<Namespace>,

    /// How many levels of namespaces down; all unless given
    #[arg(long, value_name = "LEVELS", value_parser = clap::value_parser!(u8).range(0..=7), conflicts_with = "group")]
    max_depth: Option<u8>,

    /// Keep the last so many snapshots
    #[arg(long, value_name = "COUNT", group = "keep", value_parser = clap::value_parser!(u32).range(1..))]
    keep_last: Option<u32>,

    /// Keep the last snapshot of each of the last so many hours that have one
    #[arg(long, value_name = "COUNT", group = "keep", value_parser = clap::value_parser!(u32).range(1..))]
    keep_hourly: Option<u32>,

    /// The same for days
    #[arg(long, value_name = "COUNT", group = "keep", value_parser = clap::value_parser!(u32).range(1..))]
    keep_daily: Option<u32>,

    /// The same for weeks
    #[arg(long, value_name = "COUNT", group = "keep", value_parser = clap::value_parser!(u32).range(1..))]
    keep_weekly: Option<u32>,

    /// The same for months
    #[arg(long, value_name = "COUNT", group = "keep", value_parser = clap::value_parser!(u32).range(1..))]
    keep_monthly: Option<u32>,

    /// The same for years
    #[arg(long, value_name = "COUNT", group = "keep", value_parser = clap::value_parser!(u32).range(1..))]
    keep_yearly: Option<u32>,

    /// Remove nothing, only say what would stay and what would go
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    paced: Paced,

    #[command(flatten)]
    waiting: Waiting,
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let call = call(&args);
    // For a program the plan itself, for people the log, which says the same.
    if args.dry_run && args.group.is_some() && args.admin.output() == Output::Json {
        return args.admin.run(Some(&args.store), vec![call], Shown::Nothing);
    }
    let call = call.flag("use-task", args.group.is_some());
    job::run(&args.admin, &args.store, call, &args.waiting)
}

fn call(args: &Args) -> Call {
    let path = match args.group {
        Some(_) => "admin/datastore/{}/prune",
        None => "admin/datastore/{}/prune-datastore",
    };
    let call = args.paced.apply(Call::new(Method::POST, path, &[args.store.as_str()]));
    call.with("backup-type", args.group.as_ref().map(|group| group.ty().as_str()))
        .with("backup-id", args.group.as_ref().map(Group::id))
        .with("ns", args.ns.as_ref().map(Namespace::to_string))
        .with("max-depth", args.max_depth)
        .with("keep-last", args.keep_last)
        .with("keep-hourly", args.keep_hourly)
        .with("keep-daily", args.keep_daily)
        .with("keep-weekly", args.keep_weekly)
        .with("keep-monthly", args.keep_monthly)
        .with("keep-yearly", args.keep_yearly)
        .flag("dry-run", args.dry_run)
}
