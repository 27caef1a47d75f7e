//! fio's log files: bandwidth, I/Os and latencies over the time of a run, for `fio2gnuplot`, `fiologparser.py` and spreadsheets.
//!
//! ```text
//! NAME_bw.N.log  NAME_iops.N.log  NAME_slat.N.log  NAME_clat.N.log  NAME_lat.N.log      N: the number of the run in the plan, from 1
//! ms since it began to count, value, 0 read | 1 write | 2 trim, bytes of an I/O
//! ```
//!
//! Values are KiB a second, I/Os, and nanoseconds. Four columns, as those scripts want them; `fio` itself has since added more. Lines go to a thread that
//! writes them, so whoever measures waits for no disk.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use super::stats::Io;
use crate::error::{Error, IoContext, Result};

/// Which logs a job writes, and how dense.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// `write_bw_log`: what the name of the file begins with.
    pub bw: Option<String>,
    /// `write_iops_log`.
    pub iops: Option<String>,
    /// `write_lat_log`.
    pub lat: Option<String>,
    /// `log_avg_msec`: a line for each such time, instead of one for each call.
    pub average: Option<Duration>,
}

/// A kind of file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Bandwidth,
    Iops,
    Submission,
    Completion,
    Latency,
}

/// A line of one of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Line {
    kind: Kind,
    ms: u64,
    value: u64,
    direction: u8,
    bytes: u64,
}

/// The logs of a run.
#[derive(Debug)]
pub struct Logs {
    windows: Windows,
    lines: Sender<Line>,
    kinds: Vec<Kind>,
}

/// Who writes them.
#[derive(Debug)]
pub struct Writer(JoinHandle<std::io::Result<()>>);

impl Writer {
    /// Waits until all is written: when the [`Logs`] are gone.
    pub fn end(self) -> Result<()> {
        let ended = self.0.join().unwrap_or_else(|_| Err(std::io::Error::other("its thread has failed")));
        ended.io_context(|| "cannot write the logs")
    }
}

impl Logs {
    /// Makes the files of the run `number`. `None` if none are wanted.
    pub fn open(options: &LogOptions, number: u32) -> Result<Option<(Self, Writer)>> {
        let wanted = [
            (Kind::Bandwidth, "bw", &options.bw),
            (Kind::Iops, "iops", &options.iops),
            (Kind::Submission, "slat", &options.lat),
            (Kind::Completion, "clat", &options.lat),
            (Kind::Latency, "lat", &options.lat),
        ];
        let mut files = Vec::new();
        for (kind, suffix, name) in wanted {
            let Some(name) = name else { continue };
            files.push((kind, BufWriter::new(make(&PathBuf::from(format!("{name}_{suffix}.{number}.log")))?)));
        }
        if files.is_empty() {
            return Ok(None);
        }
        let kinds = files.iter().map(|(kind, _)| *kind).collect();
        let (lines, told) = channel();
        let writer = std::thread::Builder::new().name("bench-logs".to_owned()).spawn(move || write(files, &told));
        let writer = Writer(writer.map_err(|e| Error::io("cannot start a thread", e))?);
        Ok(Some((Self { windows: Windows::new(options.average), lines, kinds }, writer)))
    }

    /// Takes in what came back at `at`.
    pub fn add(&mut self, io: &Io, at: Duration) {
        let lines = self.windows.add(io, at);
        self.tell(&lines);
    }

    /// Ends at `at` the time that is being averaged over.
    pub fn end(&mut self, at: Duration) {
        let lines = self.windows.end(at);
        self.tell(&lines);
    }

    fn tell(&self, lines: &[Line]) {
        for line in lines.iter().filter(|line| self.kinds.contains(&line.kind)) {
            // A writer that has failed says so at the end.
            let _ = self.lines.send(*line);
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "a log of the bench is no file of a datastore")]
fn make(path: &std::path::Path) -> Result<File> {
    File::create(path).io_context(|| format!("cannot write the log {path:?}"))
}

fn write(mut files: Vec<(Kind, BufWriter<File>)>, lines: &Receiver<Line>) -> std::io::Result<()> {
    for Line { kind, ms, value, direction, bytes } in lines {
        if let Some((_, file)) = files.iter_mut().find(|(other, _)| *other == kind) {
            writeln!(file, "{ms}, {value}, {direction}, {bytes}")?;
        }
    }
    files.iter_mut().try_for_each(|(_, file)| file.flush())
}

/// Turns answers into lines: each its own, or the mean of those of a time. Pure.
#[derive(Debug)]
struct Windows {
    /// ms; 0 for lines of their own.
    average_ms: u64,
    begun_ms: u64,
    directions: [Window; 3],
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    ios: u64,
    bytes: u64,
    slat_ns: u128,
    clat_ns: u128,
}

impl Windows {
    fn new(average: Option<Duration>) -> Self {
        let average_ms = average.map_or(0, |time| millis(time).max(1));
        Self { average_ms, begun_ms: 0, directions: Default::default() }
    }

    fn add(&mut self, io: &Io, at: Duration) -> Vec<Line> {
        let (ios, at_ms) = (u64::from(io.count), millis(at));
        let each = Window {
            ios,
            bytes: io.bytes,
            slat_ns: io.slat.as_nanos() * u128::from(ios),
            clat_ns: io.clat.as_nanos() * u128::from(ios),
        };
        if self.average_ms == 0 {
            let took = (io.slat + io.clat).as_micros();
            return each.lines(io.direction as u8, at_ms, took, io.bytes / ios.max(1));
        }
        let mut lines = Vec::new();
        if at_ms >= self.begun_ms + self.average_ms {
            lines = self.end(at);
        }
        let own = &mut self.directions[io.direction as usize];
        own.ios += each.ios;
        own.bytes += each.bytes;
        own.slat_ns += each.slat_ns;
        own.clat_ns += each.clat_ns;
        lines
    }

    /// Ends the time that is averaged over. It may have been longer than asked for, if nothing came; what came then stands at its end.
    fn end(&mut self, at: Duration) -> Vec<Line> {
        let ms = millis(at);
        let took = u128::from(ms - self.begun_ms.min(ms)) * 1000;
        self.begun_ms = ms;
        let windows = std::mem::take(&mut self.directions);
        let each = (0..).zip(windows).filter(|(_, window)| window.ios > 0);
        each.flat_map(|(direction, window)| window.lines(direction, ms, took, 0)).collect()
    }
}

impl Window {
    /// All five kinds; `bytes` of an I/O, which a mean has none of.
    fn lines(&self, direction: u8, ms: u64, took_us: u128, bytes: u64) -> Vec<Line> {
        let whole = |number: u128| u64::try_from(number).unwrap_or(u64::MAX);
        let of_time = u128::from(self.bytes) * 1_000_000 / 1024 / took_us.max(1);
        let mean = |sum: u128| whole(sum / u128::from(self.ios.max(1)));
        let values = [
            (Kind::Bandwidth, whole(of_time)),
            (Kind::Iops, self.ios),
            (Kind::Submission, mean(self.slat_ns)),
            (Kind::Completion, mean(self.clat_ns)),
            (Kind::Latency, mean(self.slat_ns + self.clat_ns)),
        ];
        // Where submission is not told apart, fio's file is empty too.
        let known = values.into_iter().filter(|(kind, _)| *kind != Kind::Submission || self.slat_ns > 0);
        known.map(|(kind, value)| Line { kind, ms, value, direction, bytes }).collect()
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::stats::Direction;

    fn io(direction: Direction, count: u32, clat_ms: u64) -> Io {
        let (bytes, clat) = (u64::from(count) * 4096, Duration::from_millis(clat_ms));
        Io { direction, count, bytes, slat: Duration::ZERO, clat, depth: count }
    }

    fn of(lines: &[Line], kind: Kind) -> Vec<(u64, u64, u8, u64)> {
        lines.iter().filter(|l| l.kind == kind).map(|l| (l.ms, l.value, l.direction, l.bytes)).collect()
    }

    #[test]
    fn each_call_is_a_line() {
        let lines = Windows::new(None).add(&io(Direction::Write, 2, 4), Duration::from_millis(7));
        assert_eq!(of(&lines, Kind::Bandwidth), [(7, 2000, 1, 4096)], "8 KiB in 4 ms");
        assert_eq!(of(&lines, Kind::Iops), [(7, 2, 1, 4096)]);
        assert_eq!(of(&lines, Kind::Completion), [(7, 4_000_000, 1, 4096)]);
        assert_eq!(of(&lines, Kind::Submission), [], "as of fio's synchronous engines");
    }

    #[test]
    fn a_mean_is_of_its_time_and_of_each_io() {
        let mut windows = Windows::new(Some(Duration::from_millis(100)));
        assert_eq!(windows.add(&io(Direction::Read, 1, 10), Duration::from_millis(10)), []);
        assert_eq!(windows.add(&io(Direction::Read, 3, 30), Duration::from_millis(99)), []);
        let lines = windows.add(&io(Direction::Trim, 1, 1), Duration::from_millis(100));
        assert_eq!(of(&lines, Kind::Iops), [(100, 4, 0, 0)]);
        assert_eq!(of(&lines, Kind::Bandwidth), [(100, 160, 0, 0)], "16 KiB in 100 ms");
        assert_eq!(of(&lines, Kind::Latency), [(100, 25_000_000, 0, 0)]);
        let rest = windows.end(Duration::from_millis(150));
        assert_eq!(of(&rest, Kind::Iops), [(150, 1, 2, 0)]);
        assert_eq!(windows.end(Duration::from_millis(150)), []);
    }

    #[test]
    fn the_scripts_of_fio_read_them() {
        let dir = tempfile::tempdir().unwrap();
        let name = dir.path().join("x").display().to_string();
        let options = LogOptions { bw: Some(name.clone()), iops: Some(name.clone()), lat: Some(name), average: None };
        let (mut logs, writer) = Logs::open(&options, 1).unwrap().unwrap();
        for n in 0..200 {
            logs.add(&io(Direction::Read, 1, 2), Duration::from_millis(n * 20));
        }
        logs.end(Duration::from_secs(4));
        drop(logs);
        writer.end().unwrap();
        let clat = dir.path().join("x_clat.1.log");
        assert!(std::fs::read_to_string(&clat).unwrap().starts_with("0, 2000000, 0, 4096\n20, "));
        let script = "import gzip,runpy,sys,tempfile\n\
                      source=gzip.open('/usr/share/doc/fio/fiologparser.py.gz').read()\n\
                      file=tempfile.NamedTemporaryFile(suffix='.py')\n\
                      file.write(source); file.flush()\n\
                      runpy.run_path(file.name,run_name='__main__')";
        if !std::path::Path::new("/usr/share/doc/fio/fiologparser.py.gz").exists() {
            eprintln!("skipped: no fiologparser.py (package fio)");
            return;
        }
        let said = std::process::Command::new("python3").args(["-c", script, "-a"]).arg(&clat).output().unwrap();
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let said = String::from_utf8(said.stdout).unwrap();
        assert!(said.lines().count() == 4 && said.starts_with("1000, 2000000.000\n"), "{said}");
    }
}
