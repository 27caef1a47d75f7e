//! `ringvault backup`.

use std::process::ExitCode;
use std::sync::Arc;

use super::client::{Connection, Output, UntilInterrupted, print};
use crate::client::{ArchiveSpec, Progress, backup};
use crate::clock::{Clock, EpochSecs};
use crate::error::{Error, Result};
use crate::types::{BackupType, Group, Snapshot};

const EXAMPLES: &str = "\
Examples:
  Back up a disk and a configuration file as the group host/HOSTNAME:
    ringvault backup root.img:/dev/vg0/root-snapshot fstab.conf:/etc/fstab

  Back up a stopped virtual machine's disk as the group vm/100:
    ringvault backup drive-scsi0.img:/var/lib/vm/100.raw \\
        --backup-type vm --backup-id 100

  Back up a directory through tar:
    tar -C /srv -c data | ringvault backup data.tar.stream:-

The server, the user and the secret come from PBS_REPOSITORY, PBS_PASSWORD (or
PBS_PASSWORD_FILE, PBS_PASSWORD_CMD, PBS_PASSWORD_FD) and PBS_FINGERPRINT.
`ringvault serve` writes them into connection.env of its data directory.";

/// Back up images, configuration files and streams as one snapshot
///
/// Only chunks that the previous snapshot of the group does not hold are sent. If anything fails, or the program is
/// interrupted, the server removes the unfinished snapshot, and earlier ones stay as they are.
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// What to back up, as NAME.EXT:PATH
    ///
    /// NAME.img:PATH is a file or a block device, cut every 4 MiB. Nothing may write to it meanwhile: use a snapshot of
    /// a mounted disk. NAME.conf:PATH and NAME.log:PATH are small files, up to 16 MiB. NAME.stream:PATH, or NAME.stream:-
    /// for standard input, is data of any length, cut by its content so that insertions do not shift all that follows;
    /// streams are Ringvault's own, the official client cannot restore them.
    #[arg(required = true, value_name = "NAME.EXT:PATH")]
    archives: Vec<ArchiveSpec>,

    #[command(flatten)]
    connection: Connection,

    /// What is backed up: host for a machine or its files, vm for a virtual machine, ct for a container
    #[arg(long, value_name = "TYPE", default_value = "host")]
    backup_type: BackupType,

    /// The group's name below its type; the machine's host name unless given
    #[arg(long, value_name = "ID")]
    backup_id: Option<String>,

    /// Time of the snapshot, in seconds since 1970 or as 2024-06-05T14:23:38Z; now unless given. It must be later than that
    /// of the group's last snapshot
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    backup_time: Option<EpochSecs>,

    /// How to print the summary
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the backup and prints its summary.
pub fn run(args: Args) -> Result<ExitCode> {
    let client = args.connection.client()?;
    let id = match args.backup_id {
        Some(id) => id,
        None => host_name()?,
    };
    let time = args.backup_time.unwrap_or_else(|| Clock::system().now());
    let snapshot = Snapshot::new(Group::new(args.backup_type, &id)?, time)?;
    let mut options = backup::Options::new(snapshot, args.archives);
    options.namespace = args.connection.namespace();
    let work = async { backup::run(&client, &options, Arc::new(Progress::to_stderr())).await };
    match UntilInterrupted::run(work)? {
        UntilInterrupted::Done(report) => print(args.output, &report),
        UntilInterrupted::Interrupted(code) => {
            eprintln!("error: interrupted; the server removes the unfinished snapshot {}", options.snapshot);
            Ok(code)
        }
    }
}

fn host_name() -> Result<String> {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    Group::new(BackupType::Host, &name)
        .map(|_| name)
        .map_err(|e| Error::invalid("the host name cannot name a group: use --backup-id").with_source(e))
}

fn parse_time(text: &str) -> Result<EpochSecs> {
    let time = text.parse().ok().map(EpochSecs).or_else(|| EpochSecs::from_utc_name(text));
    time.ok_or_else(|| Error::invalid("seconds since 1970 or YYYY-MM-DDTHH:MM:SSZ expected"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_in_both_spellings() {
        for text in ["1717597418", "2024-06-05T14:23:38Z"] {
            assert_eq!(parse_time(text).unwrap(), EpochSecs(1_717_597_418));
        }
        for bad in ["", "yesterday", "2024-06-05", "1717597418.5"] {
            assert!(parse_time(bad).is_err(), "{bad}");
        }
    }
}
