//! `ringvault bench` beside fio: the same keys, the same types, the same lines, and fio's own tools read them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use ringvault::bench::options::{Grammar, OPTIONS, Word, plan};
use serde_json::Value;

use crate::support::daemon::temp_dir;

/// Runs it with a fresh directory in memory as `--directory`.
fn bench(words: &[&str]) -> Output {
    let place = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringvault"));
    command.arg("bench").arg(format!("--directory={}", place.path().display())).args(words);
    let out = command.stdin(Stdio::null()).output().expect("run ringvault");
    let left: Vec<_> = std::fs::read_dir(place.path()).unwrap().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
    out
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// What fio prints for jobs of the same shape; `None` where it is not installed.
fn fio(words: &[&str]) -> Option<String> {
    let place = temp_dir();
    let mut command = Command::new("fio");
    command.arg(format!("--directory={}", place.path().display())).args(words);
    command.args(["--size=1m", "--bs=4k", "--numjobs=2"]);
    match command.stdin(Stdio::null()).output() {
        Err(e) => {
            println!("skipped: fio cannot be run, so there is nothing to compare with: {e}");
            None
        }
        Ok(out) => {
            assert!(out.status.success(), "{out:?}");
            Some(text(&out.stdout).to_owned())
        }
    }
}

const KNOWN: &[&str] = &["--rw=known-append", "--nrfiles=512", "--iodepth=4", "--numjobs=2"];

/// Ours beside theirs, in the ways that may differ: how many there are, and in which bins.
fn same_shape(at: &str, ours: &Value, theirs: &Value, faults: &mut Vec<String>) {
    let kind = |value: &Value| match value {
        Value::Number(n) if n.is_f64() => "number with decimals",
        Value::Number(_) => "whole number",
        Value::String(_) => "text",
        Value::Array(_) => "list",
        Value::Object(_) => "object",
        Value::Bool(_) | Value::Null => "neither in fio",
    };
    if kind(ours) != kind(theirs) {
        return faults.push(format!("{at}: {} instead of {}", kind(ours), kind(theirs)));
    }
    match (ours, theirs) {
        (Value::Array(ours), Value::Array(theirs)) => {
            for (at_index, one) in ours.iter().enumerate() {
                same_shape(&format!("{at}[{at_index}]"), one, &theirs[0], faults);
            }
        }
        (Value::Object(ours), Value::Object(theirs)) if at.ends_with("/bins") => {
            let whole = |map: &serde_json::Map<String, Value>| {
                map.iter().all(|(key, value)| key.parse::<u64>().is_ok() && value.is_u64())
            };
            if !whole(ours) || !whole(theirs) || ours.is_empty() {
                faults.push(format!("{at}: not nanoseconds and counts"));
            }
        }
        (Value::Object(ours), Value::Object(theirs)) if at.ends_with("options") => {
            let texts = ours.values().chain(theirs.values()).all(Value::is_string);
            faults.extend((!texts).then(|| format!("{at}: an option is no text")));
        }
        (Value::Object(ours), Value::Object(theirs)) => {
            let own = |at: &str, key: &str| key == "datastore" && at.contains("/jobs[") && at.ends_with(']');
            let keys: BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
            for key in keys.into_iter().filter(|key| !own(at, key)) {
                match (ours.get(key), theirs.get(key)) {
                    (Some(ours), Some(theirs)) => same_shape(&format!("{at}/{key}"), ours, theirs, faults),
                    // Directories in memory have no disk.
                    _ if key == "disk_util" => {}
                    (ours, _) => {
                        faults.push(format!("{at}/{key}: only {}", if ours.is_some() { "ours" } else { "fio's" }))
                    }
                }
            }
        }
        _ => {}
    }
}

#[test]
fn json_has_the_keys_and_types_of_fio_and_its_tools_read_it() {
    for (format, grouped) in [("json", true), ("json+", false)] {
        let format = format!("--output-format={format}");
        let mut words = vec!["--name=global", format.as_str(), "--runtime=600ms", "--time_based"];
        if grouped {
            words.push("--group_reporting");
        }
        let out = bench(&[&words[..], KNOWN, &["--name=a"]].concat());
        assert!(out.status.success(), "{}", text(&out.stderr));
        let ours: Value = serde_json::from_slice(&out.stdout).expect("JSON alone on standard output");
        assert_eq!(ours["jobs"].as_array().map(Vec::len), Some(if grouped { 1 } else { 2 }));
        let way = &ours["jobs"][0]["read"];
        assert_eq!(way["clat_ns"]["N"], way["total_ios"]);
        assert!(way["total_ios"].as_u64() > Some(0) && ours["jobs"][0]["datastore"]["host"]["kernel"].is_string());

        words.retain(|word| *word != "--runtime=600ms");
        let Some(theirs) = fio(&[&words[..], &["--runtime=1", "--rw=read", "--ioengine=sync", "--name=a"]].concat())
        else {
            continue;
        };
        let theirs: Value = serde_json::from_str(&theirs[theirs.find('{').expect("an object")..]).expect("fio's JSON");
        let mut faults = Vec::new();
        same_shape("", &ours, &theirs, &mut faults);
        assert!(faults.is_empty(), "{}", faults.join("\n"));
        if !grouped {
            tools_read(&out.stdout);
        }
    }
}

/// fio's script makes a table of each job, and finds all bins in it again.
fn tools_read(report: &[u8]) {
    let temp = temp_dir();
    let (source, table) = (temp.path().join("a.json"), temp.path().join("a.csv"));
    std::fs::write(&source, report).unwrap();
    for check in [None, Some("--validate")] {
        let mut command = Command::new("fio_jsonplus_clat2csv");
        match command.arg(&source).arg(&table).args(check).output() {
            Err(e) => return println!("skipped: fio_jsonplus_clat2csv cannot be run: {e}"),
            Ok(out) if text(&out.stderr).contains("No module named") => {
                return println!("skipped: fio_jsonplus_clat2csv lacks a module: {}", text(&out.stderr));
            }
            Ok(out) => assert!(out.status.success(), "{}", text(&out.stderr)),
        }
    }
    for job in ["a_job0.csv", "a_job1.csv"] {
        let table = std::fs::read_to_string(temp.path().join(job)).unwrap();
        let last = table.lines().last().unwrap();
        assert!(table.lines().count() > 1 && last.contains(", 1.0, "), "the last line is the 100th percentile: {last}");
    }
}

/// What a line is about: its beginning, without figures.
fn labels(report: &str) -> BTreeSet<String> {
    let label = |line: &str| {
        let end = line.find(['=', ':', '[']).unwrap_or(line.len());
        line[..end].trim_end_matches(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').to_owned()
    };
    report.lines().map(label).collect()
}

#[test]
fn text_has_the_lines_of_fio() {
    let shape = ["--runtime=1", "--time_based", "--group_reporting", "--name=a"];
    let out = bench(&[KNOWN, &shape[..]].concat());
    assert!(out.status.success(), "{}", text(&out.stderr));
    let ours = text(&out.stdout);
    for line in
        ["\na: (groupid=0, jobs=2): err= 0: pid=", "\n  read: IOPS=", "\n    clat percentiles (", "\n   READ: bw="]
    {
        assert!(ours.contains(line), "{line:?} in {ours}");
    }
    let Some(theirs) = fio(&[&["--rw=read", "--ioengine=sync", "--disk_util=0"], &shape[..]].concat()) else { return };
    // Which units, and which notes, depends on the machine.
    let fixed = |label: &&String| {
        !label.contains("sec)")
            && !label.contains("iB/s)")
            && !label.starts_with("     | ")
            && !["ringvault-", "fio-", "Starting"].iter().any(|w| label.starts_with(w))
    };
    let (ours, theirs) = (labels(ours), labels(&theirs));
    let missing: Vec<_> = theirs.iter().filter(fixed).filter(|label| !ours.contains(*label)).collect();
    assert!(missing.is_empty(), "{missing:?} of {theirs:?} in {ours:?}");
}

#[test]
fn reports_and_a_status_line_come_while_jobs_run() {
    let shape =
        ["--runtime=3", "--time_based", "--eta=always", "--status-interval=500ms", "--output-format=json", "--name=a"];
    let out = bench(&[KNOWN, &shape[..]].concat());
    assert!(out.status.success(), "{}", text(&out.stderr));
    let reports = serde_json::Deserializer::from_slice(&out.stdout).into_iter::<Value>();
    let ios = |report: serde_json::Result<Value>| report.unwrap()["jobs"][0]["read"]["total_ios"].as_u64().unwrap();
    let counts: Vec<u64> = reports.map(ios).collect();
    assert!(counts.len() >= 2 && counts.is_sorted() && counts.last() > Some(&0), "{counts:?}");
    let lines = text(&out.stderr);
    assert!(lines.contains("Jobs: 2 (f=2): [r(2)][") && lines.contains(" IOPS][eta 00m:"), "{lines}");
}

#[test]
fn an_interrupted_run_tells_what_it_measured_and_leaves_nothing() {
    let place = tempfile::tempdir_in("/dev/shm").expect("a directory in memory");
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringvault"));
    command.arg("bench").arg(format!("--directory={}", place.path().display())).args(KNOWN);
    command.args([
        "--runtime=1h",
        "--time_based",
        "--status-interval=100ms",
        "--output-format=json",
        "--name=a",
        "--name=later",
    ]);
    command.args(["--stonewall", "--eta=never"]);
    let mut child = command.stdout(Stdio::piped()).spawn().expect("run ringvault");
    let out = std::io::BufReader::new(child.stdout.take().expect("piped"));
    let reports = serde_json::Deserializer::from_reader(out).into_iter::<Value>();
    let ios = |report: &Value| report["jobs"][0]["read"]["total_ios"].as_u64().unwrap();
    let (mut stopped, mut last) = (false, Value::Null);
    for report in reports {
        last = report.unwrap();
        if !stopped && ios(&last) > 0 {
            let pid = rustix::process::Pid::from_child(&child);
            rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
            stopped = true;
        }
    }
    child.wait().unwrap();
    assert!(stopped && ios(&last) > 0, "{last}");
    assert_eq!(last["jobs"].as_array().map(Vec::len), Some(4), "those that never ran are told of too");
    assert!(last["jobs"].as_array().unwrap().iter().all(|job| job["datastore"]["interrupted"] == true), "{last}");
    assert_eq!(std::fs::read_dir(place.path()).unwrap().count(), 0);
}

#[test]
fn what_cannot_be_run_is_refused_before_anything_is_made() {
    let temp = temp_dir();
    let file = temp.path().join("jobs.fio");
    std::fs::write(&file, "[a]\nrw=known-append\niodpth=64\n").unwrap();
    let file = file.to_str().unwrap();
    let in_file = format!("{file}:3: unknown option \"iodpth\" in [a]: did you mean \"iodepth\"?");
    let output = format!("--output={}/no/such/report", temp.path().display());
    for (words, said) in [
        (vec![file], in_file.as_str()),
        (vec!["--name=a", "--rw=gc", "--nrfile=3"], "a similar argument exists: '--nrfiles'"),
        (vec!["--name=a", "--rw=backup", "--runtime=0"], "runtime=0 measures nothing"),
        (vec!["--name=a", "--rw=gc", "--existing"], "existing writes nothing, and rw=gc has to"),
        (vec!["--name=a", "--rw=known-append", "--existing"], "is no datastore"),
        (vec!["--name=a", "--rw=gc", "--directory=/nonexistent"], "/nonexistent"),
        (vec!["--name=a", "--rw=chunk-insert", "--size=1024t"], "not enough space"),
        (vec!["--name=a", "--rw=gc", &output], "cannot write the report to"),
        (vec!["no-such.fio"], "cannot read the job file \"no-such.fio\""),
    ] {
        let out = bench(&words);
        assert!(!out.status.success(), "{words:?}");
        let stderr = text(&out.stderr);
        assert!(stderr.contains(said), "{words:?}: {stderr}");
    }
}

#[test]
fn help_explains_every_option() {
    let out = bench(&["--help"]);
    let help = text(&out.stdout);
    for opt in OPTIONS {
        assert!(help.contains(&format!("--{}", opt.name)), "{}", opt.name);
    }
    assert!(help.contains("Examples:") && help.contains("known-append, known-finish, chunk-insert"));
}

#[test]
fn every_job_file_of_the_repository_is_understood() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/jobs");
    let mut workloads = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).expect("benches/jobs") {
        let path = entry.unwrap().path();
        let file = Word::File { path: path.display().to_string(), text: std::fs::read_to_string(&path).unwrap() };
        let directory = Word::Option { name: "directory".into(), value: Some("/mnt/disk".into()) };
        let plan = plan([directory, file]).unwrap_or_else(|e| panic!("{e}"));
        workloads.extend(plan.jobs.iter().map(|job| ringvault::bench::options::workload_name(job.workload)));
    }
    assert_eq!(workloads.len(), 8, "each workload has a job: {workloads:?}");
}

/// The page's table is made from the table of the program: each row is compared.
#[test]
fn the_page_lists_every_option_as_it_is() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/bench.md")).unwrap();
    let missing: Vec<_> = OPTIONS.iter().map(row).filter(|row| !page.contains(&format!("\n{row}\n"))).collect();
    assert!(missing.is_empty(), "docs/bench.md lacks these rows:\n{}", missing.join("\n"));
}

fn row(opt: &ringvault::bench::options::Opt) -> String {
    let value = match opt.grammar {
        Grammar::Word(words, _) | Grammar::Words(words, _) => {
            words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        }
        Grammar::Number(min, max, _) if max <= 1 << 40 => format!("{min} to {max}"),
        Grammar::Number(min, ..) => format!("{min} and more"),
        _ => opt.value_name().replace('|', " or "),
    };
    let users = if opt.of_run { "the run".to_owned() } else { opt.users().unwrap_or_else(|| "all".to_owned()) };
    format!("| `{}` | {value} | {} | {users} | {} |", opt.name, opt.default, opt.help)
}
