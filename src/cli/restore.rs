//! `ringvault restore`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::Arc;

use super::client::{Connection, Output, UntilInterrupted, print, print_to_stderr};
use crate::client::{Progress, TargetPath, restore, snapshots};
use crate::error::{Error, Result};
use crate::types::{Group, Snapshot};

const EXAMPLES: &str = "\
Examples:
  Restore a disk image of a certain time into a new file:
    ringvault restore vm/100/2024-06-05T14:23:38Z drive-scsi0.img disk.raw

  Restore the newest one onto a block device:
    ringvault restore vm/100 drive-scsi0.img /dev/vg0/vm-100

  Show a configuration file:
    ringvault restore vm/100 qemu-server.conf -

  Unpack a stream:
    ringvault restore host/alpha data.tar.stream - | tar -x";

/// Restore one archive of a snapshot
///
/// Every chunk is checked against its name, its checksum and its length before it is written. A new file gets its name only
/// when it is complete; a device is written in place.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// TYPE/ID/TIME as `ringvault snapshots` lists it, or TYPE/ID for the newest finished snapshot of the group
    snapshot: Wanted,

    /// The archive's name as it was given to backup (disk.img), or as the server lists it (disk.img.fidx); index.json is the
    /// manifest
    archive: String,

    /// The file to make, the block device to write over, or - for standard output
    target: PathBuf,

    /// Replace TARGET if it is a file that exists
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    connection: Connection,

    /// How to print the summary; with TARGET - it goes to standard error
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// A snapshot, or the newest of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Wanted {
    Exactly(Snapshot),
    NewestOf(Group),
}

impl FromStr for Wanted {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        match s.matches('/').count() {
            1 => s.parse().map(Self::NewestOf),
            _ => s.parse().map(Self::Exactly),
        }
    }
}

/// Runs the restore and prints its summary.
pub fn run(args: Args) -> Result<ExitCode> {
    let client = args.connection.client()?;
    let namespace = args.connection.namespace();
    let target = TargetPath::from_argument(&args.target);
    let work = async {
        let snapshot = match args.snapshot {
            Wanted::Exactly(snapshot) => snapshot,
            Wanted::NewestOf(group) => snapshots::newest(&client, &namespace, &group).await?,
        };
        let options = restore::Options {
            snapshot,
            namespace,
            archive: args.archive,
            target: target.clone(),
            force: args.force,
            chunks_in_flight: restore::CHUNKS_IN_FLIGHT,
        };
        restore::run(&client, &options, Arc::new(Progress::to_stderr())).await
    };
    match UntilInterrupted::run(work)? {
        UntilInterrupted::Done(report) if target == TargetPath::Stdout => print_to_stderr(args.output, &report),
        UntilInterrupted::Done(report) => print(args.output, &report),
        UntilInterrupted::Interrupted(code) => {
            eprintln!("error: interrupted; {target} is not complete");
            Ok(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_means_its_newest_snapshot() {
        assert!(matches!("vm/100".parse(), Ok(Wanted::NewestOf(_))));
        assert!(matches!("vm/100/2024-06-05T14:23:38Z".parse(), Ok(Wanted::Exactly(_))));
        for bad in ["vm", "", "x/100", "vm/100/now", "vm/100/2024-06-05T14:23:38Z/x"] {
            assert!(bad.parse::<Wanted>().is_err(), "{bad}");
        }
    }
}
