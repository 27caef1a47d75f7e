//! `ringvault bench`.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Arg, ArgAction, ArgMatches, Command, FromArgMatches};

use crate::bench::disk_use::DiskWatch;
use crate::bench::live::now_ms;
use crate::bench::options::{Eta, Format, OPTIONS, Opt, Plan, Word, plan};
use crate::bench::report::{Frame, Part, json, normal};
use crate::bench::run;
use crate::bench::status::{Shown, watched};
use crate::error::{IoContext, Result};

const ABOUT: &str = "Measure a datastore on your own disk, in the words of fio";

const MORE: &str = "\
Options mean what they mean to fio, and the report is fio's, so that its readers and plotters understand it. What a workload \
needs is made in --directory and removed again; an existing datastore is only touched with --existing, and then only read. \
Options before the first --name, and those of a [global] section, hold for all jobs after them.";

const EXAMPLES: &str = "\
Examples:
  How long an append of 128 known chunks takes, by the daemon's own engine and as the original does it:
    ringvault bench --directory=/mnt/disk --rw=known-append --nrfiles=100000 --iodepth=128 --runtime=10s --time_based \\
        --name=ours --name=original --stonewall --ioengine=serial-std

  What a finish with a million chunks costs, with caches dropped (as root):
    ringvault bench --name=finish --directory=/mnt/disk --rw=known-finish --nrfiles=1000000 --cold

  Jobs from a file, with fio's JSON as the result:
    ringvault bench --directory=/mnt/disk --output-format=json --output=insert.json benches/jobs/insert.fio";

/// Id of the positional arguments.
const FILES: &str = "job-files";

/// What the command line says, in its order.
#[derive(Debug)]
pub struct Args {
    words: Vec<Spoken>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Spoken {
    Option(&'static str, String),
    File(PathBuf),
}

impl clap::Args for Args {
    fn augment_args(command: Command) -> Command {
        let command = command
            .about(ABOUT)
            .long_about(format!("{ABOUT}\n\n{MORE}"))
            .after_help(EXAMPLES)
            .args(OPTIONS.iter().map(arg));
        command.arg(
            Arg::new(FILES)
                .value_name("JOB_FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .action(ArgAction::Append)
                .num_args(0..)
                .help("Files with jobs, written as for fio: [name] begins a job, key=value or key are its options"),
        )
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// An option of the table as clap knows it. What the value says is for the table to read: files say the same.
fn arg(opt: &'static Opt) -> Arg {
    let other = if opt.name.contains('_') { opt.name.replace('_', "-") } else { opt.name.replace('-', "_") };
    let others = opt.aliases.iter().map(|alias| (*alias).to_owned()).chain((other != opt.name).then_some(other));
    let arg = Arg::new(opt.name)
        .long(opt.name)
        .aliases(others)
        .value_name(opt.value_name())
        .action(ArgAction::Append)
        .help(help(opt));
    if opt.value_name() == "0|1" { arg.num_args(0..=1).require_equals(true).default_missing_value("1") } else { arg }
}

fn help(opt: &Opt) -> String {
    let mut text = opt.help.to_owned();
    if !opt.words().is_empty() {
        text += &format!(" [one of: {}]", opt.words().join(", "));
    }
    if let Some(users) = opt.users() {
        text += &format!(". Only for {users}");
    }
    if !opt.default.is_empty() {
        text += &format!(" [default: {}]", opt.default);
    }
    text
}

impl FromArgMatches for Args {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut words: Vec<(usize, Spoken)> = Vec::new();
        for opt in OPTIONS {
            let values = matches.get_many::<String>(opt.name).into_iter().flatten();
            let places = matches.indices_of(opt.name).into_iter().flatten();
            words.extend(places.zip(values).map(|(at, value)| (at, Spoken::Option(opt.name, value.clone()))));
        }
        let files = matches.get_many::<PathBuf>(FILES).into_iter().flatten();
        let places = matches.indices_of(FILES).into_iter().flatten();
        words.extend(places.zip(files).map(|(at, path)| (at, Spoken::File(path.clone()))));
        words.sort_by_key(|(at, _)| *at);
        Ok(Self { words: words.into_iter().map(|(_, word)| word).collect() })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// Runs the jobs and reports. Fails when one of them did not end well.
pub fn run(args: Args) -> Result<ExitCode> {
    let plan = plan(read(args.words)?)?;
    let sink = Sink::open(&plan)?;
    let begun = Instant::now();
    if plan.run.formats.contains(&Format::Normal) {
        sink.write(&normal::announce(&plan.jobs))?;
    }
    let disks = DiskWatch::begin(plan.jobs.iter().map(|job| job.directory.as_path()));
    let report = |parts: &[Part<'_>]| sink.write(&rendered(&plan, parts, begun.elapsed(), &disks));
    let shown = Shown {
        line: match plan.run.eta {
            Eta::Always => true,
            Eta::Never => false,
            Eta::Auto => std::io::stderr().is_terminal(),
        },
        report_interval: plan.run.status_interval,
    };
    // A reader that went away is told at the end.
    let meanwhile = |parts: &[Part<'_>]| drop(report(parts));
    let outcomes = watched(&plan.jobs, shown, meanwhile, |watch| run::run(&plan.jobs, watch))?;
    let parts: Vec<Part<'_>> = outcomes.iter().map(Part::from).collect();
    report(&parts)?;
    for outcome in &outcomes {
        if let Some(e) = &outcome.error {
            eprintln!("error: job '{}': {e}", outcome.job.name);
        }
    }
    let failed = outcomes.iter().any(|outcome| outcome.error.is_some());
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// Reads the job files.
fn read(words: Vec<Spoken>) -> Result<Vec<Word>> {
    let read = |word| match word {
        Spoken::Option(name, value) => Ok(Word::Option { name: name.to_owned(), value: Some(value) }),
        Spoken::File(path) => {
            let text = std::fs::read_to_string(&path).io_context(|| format!("cannot read the job file {path:?}"))?;
            Ok(Word::File { path: path.display().to_string(), text })
        }
    };
    words.into_iter().map(read).collect()
}

fn rendered(plan: &Plan, parts: &[Part<'_>], elapsed: Duration, disks: &DiskWatch) -> String {
    let frame = Frame { now_ms: now_ms(), elapsed, globals: plan.globals.clone(), disks: disks.since() };
    let one = |format: &Format| match format {
        Format::Normal => normal::render(&frame, parts),
        Format::Json => json::render(&frame, parts, false),
        Format::JsonPlus => json::render(&frame, parts, true),
    };
    plan.run.formats.iter().map(one).collect()
}

/// Where reports go.
#[derive(Debug)]
enum Sink {
    Stdout,
    File(PathBuf, File),
}

impl Sink {
    /// Opened before anything runs: hours of measuring shall not end at a folder that is not there.
    #[expect(clippy::disallowed_methods, reason = "a report is no file of a datastore; it grows while jobs run")]
    fn open(plan: &Plan) -> Result<Self> {
        let Some(path) = &plan.run.output else { return Ok(Self::Stdout) };
        let file = File::create(path).io_context(|| format!("cannot write the report to {path:?}"))?;
        Ok(Self::File(path.clone(), file))
    }

    fn write(&self, text: &str) -> Result<()> {
        match self {
            Self::Stdout => {
                let mut out = std::io::stdout().lock();
                out.write_all(text.as_bytes()).and_then(|()| out.flush()).io_context(|| "cannot write the report")
            }
            Self::File(path, file) => {
                let mut file: &File = file;
                file.write_all(text.as_bytes()).io_context(|| format!("cannot write the report to {path:?}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoken(line: &str) -> Result<Vec<Spoken>, clap::Error> {
        let command = <Args as clap::Args>::augment_args(Command::new("bench").no_binary_name(true));
        let matches = command.try_get_matches_from(line.split_whitespace())?;
        Args::from_arg_matches(&matches).map(|args| args.words)
    }

    #[test]
    fn words_keep_their_order_and_switches_stand_alone() {
        let words =
            spoken("--rw=gc --name a --time-based --cold=0 a.fio --name=b --rw=verify b.fio --output_format json")
                .unwrap();
        let option = |name, value: &str| Spoken::Option(name, value.to_owned());
        let expected = [
            option("rw", "gc"),
            option("name", "a"),
            option("time_based", "1"),
            option("cold", "0"),
            Spoken::File("a.fio".into()),
            option("name", "b"),
            option("rw", "verify"),
            Spoken::File("b.fio".into()),
            option("output-format", "json"),
        ];
        assert_eq!(words, expected);
    }

    #[test]
    fn an_unknown_option_is_named_with_the_nearest() {
        let text = spoken("--nrfile=4").unwrap_err().to_string();
        assert!(text.contains("'--nrfile'") && text.contains("'--nrfiles'"), "{text}");
    }
}
