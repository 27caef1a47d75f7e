//! `ringvault snapshots`.

use std::process::ExitCode;

use indicatif::HumanBytes;

use super::client::{Connection, Output, UntilInterrupted, print_text};
use crate::client::snapshots::{self, Listed};
use crate::error::Result;
use crate::types::Group;

const EXAMPLES: &str = "\
Examples:
  All snapshots of the datastore's root namespace:
    ringvault snapshots

  Those of one group, for a program:
    ringvault snapshots vm/100 --output json";

/// List the snapshots of a datastore
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    /// Only those of this group, as TYPE/ID
    group: Option<Group>,

    #[command(flatten)]
    connection: Connection,

    /// How to print the list; json gives the server's own words
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Asks for the list and prints it.
pub fn run(args: Args) -> Result<ExitCode> {
    let client = args.connection.client()?;
    let namespace = args.connection.namespace();
    let work = async { snapshots::list(&client, &namespace, args.group.as_ref()).await };
    match UntilInterrupted::run(work)? {
        UntilInterrupted::Done(listed) => {
            let text = match args.output {
                Output::Text => table(&listed),
                Output::Json => {
                    let values: Vec<_> = listed.into_iter().map(|listed| listed.value).collect();
                    format!("{:#}\n", serde_json::Value::Array(values))
                }
            };
            print_text(&text)
        }
        UntilInterrupted::Interrupted(code) => Ok(code),
    }
}

fn table(listed: &[Listed]) -> String {
    let rows = listed.iter().map(|item| {
        let state = match (item.is_finished(), item.verification()) {
            (false, _) => "unfinished",
            (true, Some("failed")) => "FAILED",
            (true, Some("ok")) => "verified",
            (true, _) => "finished",
        };
        let protected = if item.is_protected() { ", protected" } else { "" };
        let size = item.size_bytes().map_or("?".to_owned(), |size| HumanBytes(size).to_string());
        let files: Vec<&str> = item.files().filter(|name| *name != crate::types::MANIFEST_BLOB).collect();
        [item.snapshot.to_string(), size, format!("{state}{protected}"), files.join(" ")]
    });
    let head = ["SNAPSHOT", "SIZE", "STATE", "FILES"].map(str::to_owned);
    let rows: Vec<[String; 4]> = std::iter::once(head).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].len()).max().unwrap_or(0);
    let (snapshot, size, state) = (width(0), width(1), width(2));
    rows.iter()
        .map(|[a, b, c, d]| format!("{a:snapshot$}  {b:>size$}  {c:state$}  {d}").trim_end().to_owned() + "\n")
        .collect()
}
