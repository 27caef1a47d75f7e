//! Every option of `ringvault bench` in one table: name, grammar, default, help, and which workloads use it. Pure.

use super::draft::{Eta, Format, Settings};
use super::value;
use crate::bench::job::{IoEngine, SyncLevel, Workload};
use crate::store::GcMethod;

/// One option: `--name=value` on the command line, `name=value` in a job file.
#[derive(Debug)]
pub struct Opt {
    /// As fio writes it; on the command line and in files `-` and `_` are the same.
    pub name: &'static str,
    /// Other names that fio has for it.
    pub aliases: &'static [&'static str],
    /// How its value is written, and where it goes.
    pub grammar: Grammar,
    /// What holds without it, in words.
    pub default: &'static str,
    /// What it does, for a reader who has never seen it.
    pub help: &'static str,
    /// Workloads that use it; a job of another one may not name it.
    pub used_by: &'static [Workload],
    /// Whether it speaks about the run, not about a job: command line only.
    pub of_run: bool,
}

/// How a value is written, and where it goes.
#[derive(Clone, Copy, Debug)]
pub enum Grammar {
    /// Anything but nothing.
    Text(fn(&mut Settings, &str)),
    /// One of these words, by position.
    Word(&'static [&'static str], fn(&mut Settings, usize)),
    /// Some of these words with commas between them, by position.
    Words(&'static [&'static str], fn(&mut Settings, Vec<usize>)),
    /// A whole number between two.
    Number(u64, u64, fn(&mut Settings, u64)),
    /// Bytes.
    Size(fn(&mut Settings, u64)),
    /// A time.
    Time(fn(&mut Settings, std::time::Duration)),
    /// On or off; without a value on.
    Switch(fn(&mut Settings, bool)),
    /// Percentiles.
    Percentiles(fn(&mut Settings, Vec<f64>)),
}

impl Opt {
    /// Takes `text` as the value. `None` is an option without one.
    ///
    /// Errors: what is wrong with it, without the option's name.
    pub fn set(&self, settings: &mut Settings, text: Option<&str>) -> Result<(), String> {
        let text = match (text, self.grammar) {
            (Some(text), _) => text,
            (None, Grammar::Switch(_)) => "1",
            (None, _) => return Err(format!("needs a value, as in {}={}", self.name, self.value_name())),
        };
        let word = |words: &[&str], text: &str| {
            let known = || format!("{text:.80?} is none of {}", words.join(", "));
            words.iter().position(|word| *word == text).ok_or_else(known)
        };
        match self.grammar {
            Grammar::Text(_) if text.is_empty() => return Err("needs a value".to_owned()),
            Grammar::Text(set) => set(settings, text),
            Grammar::Word(words, set) => set(settings, word(words, text)?),
            Grammar::Words(words, set) => {
                let chosen: Result<_, _> = text.split(',').map(|part| word(words, part.trim())).collect();
                set(settings, chosen?);
            }
            Grammar::Number(min, max, set) => set(settings, value::number(text, min, max)?),
            Grammar::Size(set) => set(settings, value::size(text)?),
            Grammar::Time(set) => set(settings, value::time(text)?),
            Grammar::Switch(set) => set(settings, value::switch(text)?),
            Grammar::Percentiles(set) => set(settings, value::percentiles(text)?),
        }
        Ok(())
    }

    /// How to write the value, in short.
    pub fn value_name(&self) -> &'static str {
        match self.grammar {
            Grammar::Text(_) => "TEXT",
            Grammar::Word(..) => "WORD",
            Grammar::Words(..) => "WORD,…",
            Grammar::Number(..) => "N",
            Grammar::Size(_) => "SIZE",
            Grammar::Time(_) => "TIME",
            Grammar::Switch(_) => "0|1",
            Grammar::Percentiles(_) => "P:P:…",
        }
    }

    /// The words to choose from, if its value is one.
    pub fn words(&self) -> &'static [&'static str] {
        match self.grammar {
            Grammar::Word(words, _) | Grammar::Words(words, _) => words,
            _ => &[],
        }
    }

    /// Whether a job of `workload` may name it.
    pub fn is_used_by(&self, workload: Workload) -> bool {
        self.used_by.contains(&workload)
    }

    /// The workloads that use it, with commas; `None` when all do.
    pub fn users(&self) -> Option<String> {
        let names: Vec<_> = self.used_by.iter().map(|workload| workload_name(*workload)).collect();
        (self.used_by.len() < ALL.len()).then(|| names.join(", "))
    }
}

/// The option of that name, however its words are joined.
pub fn find(name: &str) -> Option<&'static Opt> {
    let name = name.replace('-', "_");
    let is_it = |known: &&str| known.replace('-', "_") == name;
    OPTIONS.iter().find(|opt| is_it(&opt.name) || opt.aliases.iter().any(is_it))
}

/// As `rw` writes it.
pub fn workload_name(workload: Workload) -> &'static str {
    ALL.iter().position(|other| *other == workload).map_or("", |at| WORKLOADS[at])
}

/// As `ioengine` writes it.
pub fn engine_name(engine: IoEngine) -> &'static str {
    ENGINE_VALUES.iter().position(|other| *other == engine).map_or("", |at| ENGINES[at])
}

use Workload::{Backup, ChunkInsert, ChunkRead, Gc, KnownAppend, KnownFinish, Restore, Verify};

/// Words of `rw`, in the order of [`ALL`].
pub const WORKLOADS: [&str; 8] =
    ["known-append", "known-finish", "chunk-insert", "chunk-read", "verify", "gc", "backup", "restore"];
/// All workloads.
pub const ALL: &[Workload] = &[KnownAppend, KnownFinish, ChunkInsert, ChunkRead, Verify, Gc, Backup, Restore];
const ENGINES: [&str; 5] = ["serial-std", "sync", "threads", "uring", "auto"];
const ENGINE_VALUES: [IoEngine; 5] =
    [IoEngine::SerialStd, IoEngine::Sync, IoEngine::Threads, IoEngine::Uring, IoEngine::Auto];
const STEPWISE: &[Workload] = &[KnownAppend, KnownFinish, ChunkInsert, ChunkRead];
const WITH_DATA: &[Workload] = &[ChunkInsert, ChunkRead, Verify, Backup, Restore];
/// Workloads that leave a datastore as it is.
pub const READ_ONLY: &[Workload] = &[KnownAppend, KnownFinish, ChunkRead];

/// Most checks of one batch, most chunks in flight: an append may not name more chunks.
const MAX_IODEPTH: u64 = 65_536;
/// As many as a daemon's datastore may have (`workers`).
const MAX_WORKERS: u64 = 256;
/// Threads and connections of one process.
const MAX_NUMJOBS: u64 = 1024;

const fn opt(name: &'static str, grammar: Grammar, default: &'static str, help: &'static str) -> Opt {
    Opt { name, aliases: &[], grammar, default, help, used_by: ALL, of_run: false }
}

impl Opt {
    const fn only(mut self, used_by: &'static [Workload]) -> Self {
        self.used_by = used_by;
        self
    }

    const fn alias(mut self, aliases: &'static [&'static str]) -> Self {
        self.aliases = aliases;
        self
    }

    const fn of_run(mut self) -> Self {
        self.of_run = true;
        self
    }
}

/// The table. Its order is that of the help.
pub static OPTIONS: &[Opt] = &[
    opt(
        "name",
        Grammar::Text(|s, text| s.job.name = text.to_owned()),
        "",
        "Begins a job of this name. Options before the first name hold for all jobs; the name `global` goes back to saying \
         what holds for all jobs after it",
    ),
    opt(
        "directory",
        Grammar::Text(|s, text| s.job.directory = Some(text.into())),
        "",
        "Where to make a datastore, measure it and remove it again. It must exist. With existing: the datastore itself",
    ),
    opt(
        "filename",
        Grammar::Text(|s, text| s.job.filename = Some(text.to_owned())),
        "the job's name",
        "What the data lies under in directory. Jobs with the same filename share their data",
    ),
    opt(
        "workdir",
        Grammar::Text(|s, text| s.job.workdir = Some(text.into())),
        "that of directory",
        "Where images, streams and the files of the daemon are made instead, so that directory has the datastore alone. It must exist",
    )
    .only(&[Backup, Restore]),
    opt("rw", Grammar::Word(&WORKLOADS, |s, at| s.job.workload = Some(ALL[at])), "", "What to do: check chunks as an append or a finish does, write or read chunks, verify snapshots, collect garbage, back up or \
         restore through a whole daemon").alias(&["readwrite"]),
    opt("bs", Grammar::Size(|s, bytes| s.job.bs = bytes), "4m", "Bytes of a chunk").alias(&["blocksize"]),
    opt(
        "size",
        Grammar::Size(|s, bytes| s.job.size = Some(bytes)),
        "nrfiles × bs; 1g for backup and restore",
        "Bytes altogether: of all chunks, of an image",
    ),
    opt(
        "nrfiles",
        Grammar::Number(1, 1 << 40, |s, n| s.job.nrfiles = Some(n)),
        "size / bs; 100000 for known-append, known-finish and gc, else 256",
        "How many chunks",
    )
    .only(&[KnownAppend, KnownFinish, ChunkInsert, ChunkRead, Verify, Gc]),
    opt(
        "iodepth",
        Grammar::Number(1, MAX_IODEPTH, |s, n| s.job.iodepth = u32::try_from(n).ok()),
        "128 for known-append, 8 for restore, else 1",
        "I/Os in flight: for known-append the chunks of one append (clients send 64 or 128), elsewhere chunks at a time",
    )
    .only(&[KnownAppend, ChunkInsert, ChunkRead, Restore]),
    opt(
        "ioengine",
        Grammar::Word(&ENGINES, |s, at| s.job.ioengine = ENGINE_VALUES[at]),
        "auto",
        "How the presence of chunks is checked: serial-std asks for the metadata of one absolute path after another, as the \
         original does; sync the same relative to an open directory; threads by a pool; uring by io_uring; auto as the daemon \
         does by itself. For gc and verify serial-std is the original's way: one after another, by access times, with one reader. \
         Others than these four cannot be done so",
    ),
    opt(
        "workers",
        Grammar::Number(1, MAX_WORKERS, |s, n| s.job.workers = u32::try_from(n).unwrap_or(1)),
        "64",
        "Presence checks that the engine has in flight at most, as the key workers of a datastore",
    ),
    opt(
        "numjobs",
        Grammar::Number(1, MAX_NUMJOBS, |s, n| s.job.numjobs = u32::try_from(n).unwrap_or(1)),
        "1",
        "How many do the job at the same time: threads, or clients of a daemon",
    ),
    opt(
        "runtime",
        Grammar::Time(|s, time| s.job.runtime = Some(time)),
        "until the work is done",
        "Ends the job after this time. A number alone means seconds",
    ),
    opt(
        "time_based",
        Grammar::Switch(|s, on| s.job.time_based = on),
        "0",
        "Begins the work anew until runtime is over, even if it would be done sooner",
    ),
    opt(
        "ramp_time",
        Grammar::Time(|s, time| s.job.ramp_time = time),
        "0",
        "Runs this long before measurements count, so that caches and queues have settled",
    ),
    opt("rate", Grammar::Size(|s, bytes| s.job.rate = Some(bytes)), "no limit", "Bytes a second at most, of each job")
        .only(STEPWISE),
    opt(
        "rate_iops",
        Grammar::Number(1, u64::MAX, |s, n| s.job.rate_iops = Some(n)),
        "no limit",
        "I/Os a second at most, of each job",
    )
    .only(STEPWISE),
    opt(
        "loops",
        Grammar::Number(1, 1_000_000, |s, n| s.job.loops = n),
        "1",
        "Does the work this many times",
    ),
    opt(
        "randseed",
        Grammar::Number(0, u64::MAX, |s, n| s.job.randseed = n),
        "1",
        "Data, digests and their order follow from this number: the same number measures the same",
    ),
    opt(
        "stonewall",
        Grammar::Switch(|s, on| s.job.stonewall = on),
        "0",
        "Waits until all jobs before this one are done, and begins a new group of the report",
    )
    .alias(&["wait_for_previous"]),
    opt(
        "group_reporting",
        Grammar::Switch(|s, on| s.job.group_reporting = on),
        "0",
        "Reports the jobs of a group as one",
    ),
    opt(
        "percentile_list",
        Grammar::Percentiles(|s, list| s.job.percentiles = list),
        "1:5:10:20:30:40:50:60:70:80:90:95:99:99.5:99.9:99.95:99.99",
        "Percentiles of the completion latency to report",
    ),
    opt(
        "existing",
        Grammar::Switch(|s, on| s.job.existing = on),
        "0",
        "Measures the datastore that directory is, and writes nothing",
    )
    .only(READ_ONLY),
    opt(
        "keep",
        Grammar::Switch(|s, on| s.job.keep = on),
        "0",
        "Leaves the data behind; a later run that needs the same uses it again",
    ),
    opt(
        "cold",
        Grammar::Switch(|s, on| s.job.cold = on),
        "0",
        "Drops the caches of the whole machine before each loop. Needs root",
    ),
    opt(
        "sorted",
        Grammar::Switch(|s, on| s.job.sorted = Some(on)),
        "1 for known-finish, 0 for known-append",
        "Asks for chunks in the order of their digests, not in that of an index; a verification by serial-std reads them in that of \
         their inodes",
    )
    .only(&[KnownAppend, KnownFinish, Verify]),
    opt(
        "sync",
        Grammar::Word(&["none", "file", "filesystem"], |s, at| {
            s.job.sync = [SyncLevel::None, SyncLevel::File, SyncLevel::Filesystem][at];
        }),
        "filesystem",
        "When written chunks reach stable storage: never asked for, each as it is written, or all at the end",
    )
    .only(&[ChunkInsert, Backup]),
    opt(
        "buffer_compress_percentage",
        Grammar::Number(0, 100, |s, n| s.job.compress_percentage = u8::try_from(n).unwrap_or(0)),
        "0",
        "How much of the data compresses away, in percent",
    )
    .alias(&["compress_percentage"])
    .only(WITH_DATA),
    opt(
        "unchanged",
        Grammar::Switch(|s, on| s.job.unchanged = on),
        "0",
        "After a first backup repeats it, of an image and of a stream, with checks on and off in turn, and prints a table",
    )
    .only(&[Backup]),
    opt(
        "checks",
        Grammar::Switch(|s, on| s.job.checks = on),
        "1",
        "Whether the daemon checks that known chunks are there",
    )
    .only(&[Backup]),
    opt(
        "garbage",
        Grammar::Number(0, 100, |s, n| s.job.garbage_percent = u8::try_from(n).unwrap_or(0)),
        "10",
        "How many of the chunks no index names, in percent",
    )
    .only(&[Gc]),
    opt(
        "gc_method",
        Grammar::Word(&["memory", "atime"], |s, at| {
            s.job.gc_method = [GcMethod::Memory, GcMethod::AccessTime][at];
        }),
        "memory",
        "How a collection tells what is in use: by a set in memory, or by access times as the original does",
    )
    .only(&[Gc]),
    opt(
        "again",
        Grammar::Switch(|s, on| s.job.again = on),
        "0",
        "Leaves out directories that are as the collection before this one found them, as the daemon does; without it all are read",
    )
    .only(&[Gc]),
    opt(
        "write_bw_log",
        Grammar::Text(|s, name| s.job.logs.bw = Some(name.to_owned())),
        "",
        "Writes the bandwidth over time to NAME_bw.N.log, for fio2gnuplot and fiologparser.py; N is the number of the run, from 1",
    ),
    opt(
        "write_iops_log",
        Grammar::Text(|s, name| s.job.logs.iops = Some(name.to_owned())),
        "",
        "The same of I/Os, NAME_iops.N.log",
    ),
    opt(
        "write_lat_log",
        Grammar::Text(|s, name| s.job.logs.lat = Some(name.to_owned())),
        "",
        "The same of latencies in ns, NAME_slat.N.log, NAME_clat.N.log and NAME_lat.N.log",
    ),
    opt(
        "log_avg_msec",
        Grammar::Number(0, 3_600_000, |s, ms| {
            s.job.logs.average = (ms > 0).then(|| std::time::Duration::from_millis(ms));
        }),
        "0",
        "Writes one line of a log for each so many ms, instead of one for each call",
    ),
    opt(
        "output",
        Grammar::Text(|s, text| s.run.output = Some(text.into())),
        "standard output",
        "Writes the report to this file",
    )
    .of_run(),
    opt(
        "output-format",
        Grammar::Words(&["normal", "json", "json+"], |s, chosen| {
            s.run.formats = chosen.into_iter().map(|at| [Format::Normal, Format::Json, Format::JsonPlus][at]).collect();
        }),
        "normal",
        "How to report: fio's text, its JSON, its JSON with all latency bins; several with commas",
    )
    .of_run(),
    opt(
        "status-interval",
        Grammar::Time(|s, time| s.run.status_interval = Some(time)),
        "at the end only",
        "Writes a whole report as often as this, while the jobs run",
    )
    .of_run(),
    opt(
        "eta",
        Grammar::Word(&["auto", "always", "never"], |s, at| s.run.eta = [Eta::Auto, Eta::Always, Eta::Never][at]),
        "auto",
        "Shows on standard error how far the jobs are: auto does when that is a terminal",
    )
    .of_run(),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_single_and_explained() {
        let mut names: Vec<_> = OPTIONS.iter().flat_map(|opt| opt.aliases.iter().chain([&opt.name])).collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), all);
        assert!(OPTIONS.iter().all(|opt| opt.help.len() > 5 && !opt.used_by.is_empty()));
        for workload in ALL {
            assert!(WORKLOADS.contains(&workload_name(*workload)));
        }
    }

    #[test]
    fn defaults_in_words_are_those_that_hold() {
        for opt in OPTIONS.iter().filter(|opt| !opt.default.contains([' ', '/']) && !opt.default.is_empty()) {
            let mut given = Settings::default();
            opt.set(&mut given, Some(opt.default)).unwrap_or_else(|e| panic!("{}: {e}", opt.name));
            assert_eq!(given, Settings::default(), "{}={}", opt.name, opt.default);
        }
    }

    #[test]
    fn dashes_and_underlines_are_the_same_and_aliases_lead_there() {
        for (written, name) in [("time-based", "time_based"), ("output_format", "output-format"), ("readwrite", "rw")] {
            assert_eq!(find(written).map(|opt| opt.name), Some(name));
        }
        assert!(find("nosuch").is_none());
    }
}
