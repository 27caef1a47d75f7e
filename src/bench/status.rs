//! fio's status line, and reports while the jobs run. What a line says is pure; a thread of its own prints it.
//!
//! ```text
//! Jobs: 2 (f=2): [_(1),r(2)][24.8%][r=0KiB/s][r=82.1k IOPS][eta 01m:31s]
//! ```

use std::fmt::Write as _;
use std::io::Write as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::gauge;
use super::job::{Job, Workload};
use super::live::{Glance, Live, Phase};
use super::outcome::Usage;
use super::report::normal::quantity;
use super::report::{DIRECTIONS, Part, millis};
use super::run::{Watch, Watched};
use super::spread::as_f64;
use super::stats::Direction;
use crate::sync::Mutex;

/// How often the line is renewed, as in fio.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// How often the thread looks whether something is due, or over.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// A run as a line tells of it.
#[derive(Clone, Debug)]
pub struct Look<'a> {
    /// What it does.
    pub job: &'a Job,
    /// Where it is.
    pub glance: Glance,
}

/// What came since the line before, a second: I/Os and bytes by direction.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Rates {
    /// I/Os.
    pub ios: [u64; 3],
    /// Bytes.
    pub bytes: [u64; 3],
}

/// The line. `elapsed` is the time since the first of the jobs that run began.
pub fn line(looks: &[Look<'_>], rates: &Rates, elapsed: Duration) -> String {
    let running = looks.iter().filter(|look| matches!(look.glance.phase, Phase::Ramp | Phase::Running)).count();
    let mut out = format!("Jobs: {running} (f={running}): [{}]", letters(looks));
    let eta = eta_of_all(looks);
    match eta {
        Some(eta) if elapsed + eta > Duration::ZERO => {
            let share = elapsed.as_secs_f64() * 100.0 / (elapsed + eta).as_secs_f64();
            let _ = write!(out, "[{share:.1}%]");
        }
        _ => out.push_str("[-.-%]"),
    }
    let is_seen = |way: Direction| {
        looks.iter().any(|look| look.glance.phase == Phase::Running && look.glance.stats.ios[way as usize] > 0)
    };
    let listed = |amounts: &[u64; 3], base, unit: &str| {
        let seen = DIRECTIONS.iter().filter(|way| is_seen(**way));
        let list: Vec<_> =
            seen.map(|way| format!("{}={}", letter_of(*way), quantity(amounts[*way as usize], base, unit))).collect();
        list.join(",")
    };
    let (bandwidth, iops) = (listed(&rates.bytes, 1024, "B/s"), listed(&rates.ios, 1000, ""));
    if !iops.is_empty() {
        let _ = write!(out, "[{bandwidth}][{iops} IOPS]");
    }
    if let Some(eta) = eta {
        let _ = write!(out, "[eta {}]", clock(eta));
    }
    out
}

fn letter_of(direction: Direction) -> char {
    match direction {
        Direction::Read => 'r',
        Direction::Write => 'w',
        Direction::Trim => 't',
    }
}

/// `_(1),R(3)`: fio's letters, neighbours counted together.
fn letters(looks: &[Look<'_>]) -> String {
    let mut counted: Vec<(char, usize)> = Vec::new();
    for look in looks {
        let letter = letter(look.job, look.glance.phase);
        match counted.last_mut() {
            Some((last, count)) if *last == letter => *count += 1,
            _ => counted.push((letter, 1)),
        }
    }
    counted.iter().map(|(letter, count)| format!("{letter}({count})")).collect::<Vec<_>>().join(",")
}

fn letter(job: &Job, phase: Phase) -> char {
    match phase {
        Phase::Waiting => 'P',
        Phase::LayingOut => 'I',
        Phase::Ramp => '/',
        Phase::Ending => 'f',
        Phase::Done => '_',
        Phase::Running => match job.workload {
            Workload::KnownAppend | Workload::KnownFinish if job.sorted => 'R',
            Workload::KnownAppend | Workload::KnownFinish | Workload::ChunkRead => 'r',
            Workload::ChunkInsert => 'w',
            Workload::Verify => 'V',
            Workload::Gc => 'd',
            Workload::Backup => 'W',
            Workload::Restore => 'R',
        },
    }
}

/// The longest of those under way; `None` while one of them cannot tell, or nobody is under way.
fn eta_of_all(looks: &[Look<'_>]) -> Option<Duration> {
    let under_way = looks.iter().filter(|look| !matches!(look.glance.phase, Phase::Waiting | Phase::Done));
    under_way.map(|look| eta(look.job, &look.glance)).collect::<Option<Vec<_>>>()?.into_iter().max()
}

/// How long a run still takes, if that can be told.
pub fn eta(job: &Job, glance: &Glance) -> Option<Duration> {
    let by_time = |spent: Duration| job.runtime.map(|runtime| runtime.saturating_sub(spent));
    match glance.phase {
        Phase::Ending | Phase::Done => Some(Duration::ZERO),
        Phase::Waiting | Phase::LayingOut => {
            by_time(Duration::ZERO).filter(|_| job.time_based).map(|time| time + job.ramp_time)
        }
        Phase::Ramp => by_time(Duration::ZERO)
            .filter(|_| job.time_based)
            .map(|time| time + job.ramp_time.saturating_sub(glance.elapsed)),
        Phase::Running if job.time_based => by_time(glance.elapsed),
        Phase::Running => {
            let done: u64 = glance.stats.ios.iter().sum();
            let left = glance.expected_ios.filter(|_| done > 0).map(|all| all.saturating_sub(done));
            let by_ios = left.map(|left| glance.elapsed.mul_f64(as_f64(left) / as_f64(done)));
            match (by_time(glance.elapsed), by_ios) {
                (Some(time), Some(ios)) => Some(time.min(ios)),
                (time, ios) => time.or(ios),
            }
        }
    }
}

/// `01m:31s`, `2h:03m:04s`, `1d:02h:03m:04s`: as fio writes it.
fn clock(time: Duration) -> String {
    // What is left of a second is one more on the line, not none.
    let secs = time.as_secs() + u64::from(time.subsec_millis() >= 500);
    let (days, hours, minutes, secs) = (secs / 86_400, secs / 3600 % 24, secs / 60 % 60, secs % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes:02}m:{secs:02}s"),
        (0, _) => format!("{hours:02}h:{minutes:02}m:{secs:02}s"),
        _ => format!("{days}d:{hours:02}h:{minutes:02}m:{secs:02}s"),
    }
}

/// What is shown while jobs run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// The line on standard error.
    pub line: bool,
    /// A whole report as often as this.
    pub report_interval: Option<Duration>,
}

/// Runs `work` with somebody who looks on; `report` writes a whole report of what there is so far.
pub fn watched<T>(
    jobs: &[Job],
    shown: Shown,
    report: impl Fn(&[Part<'_>]) + Sync,
    work: impl FnOnce(&dyn Watch) -> T,
) -> T {
    let board = Board::new(jobs);
    if shown == Shown::default() {
        return work(&board);
    }
    std::thread::scope(|scope| {
        scope.spawn(|| Printer::new(&board, shown).print_all(&report));
        // However it ends, the printer must.
        let _end = EndOf(&board);
        work(&board)
    })
}

struct EndOf<'a>(&'a Board);

impl Drop for EndOf<'_> {
    fn drop(&mut self) {
        self.0.state.lock().is_over = true;
    }
}

/// All runs of a plan, as far as they have begun.
#[derive(Debug)]
struct Board {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// In the order of the report.
    runs: Vec<(Arc<Job>, Option<Live>)>,
    is_over: bool,
    /// The wave under way has not been seen running yet.
    fresh: bool,
}

impl Board {
    fn new(jobs: &[Job]) -> Self {
        let runs = jobs.iter().flat_map(|job| {
            let job = Arc::new(job.clone());
            (0..job.numjobs.max(1)).map(move |_| (Arc::clone(&job), None))
        });
        let runs = runs.collect();
        Self { state: Mutex::new(State { runs, ..State::default() }) }
    }

    fn runs(&self) -> Vec<(Arc<Job>, Option<Live>)> {
        self.state.lock().runs.clone()
    }
}

impl Watch for Board {
    fn wave_begins(&self, runs: &[Watched]) {
        let Some(wave) = runs.first().map(|run| run.job.wave) else { return };
        let mut state = self.state.lock();
        state.fresh = true;
        let places = state.runs.iter_mut().filter(|(job, _)| job.wave == wave);
        for (place, run) in places.zip(runs) {
            place.1 = Some(run.live.clone());
        }
    }

    fn wave_ends(&self, _: &[Watched]) {}
}

/// Keeps what the last line said.
struct Printer<'a> {
    board: &'a Board,
    shown: Shown,
    begun: Instant,
    wave_begun: Instant,
    usage: Usage,
    last: (Instant, [u64; 3], [u64; 3]),
    width: usize,
}

impl<'a> Printer<'a> {
    fn new(board: &'a Board, shown: Shown) -> Self {
        let now = Instant::now();
        let last = (now, [0; 3], [0; 3]);
        Self { board, shown, begun: now, wave_begun: now, usage: gauge::usage(), last, width: 0 }
    }

    fn print_all(mut self, report: &impl Fn(&[Part<'_>])) {
        let (mut line_due, mut report_due) = (LINE_INTERVAL, self.shown.report_interval);
        while !self.board.state.lock().is_over {
            std::thread::sleep(LOOK_INTERVAL);
            self.look_for_a_wave();
            let elapsed = self.begun.elapsed();
            if let (Some(due), Some(interval)) = (report_due, self.shown.report_interval)
                && elapsed >= due
            {
                self.clear();
                self.report(report);
                report_due = Some(elapsed + interval.max(LOOK_INTERVAL));
            }
            if self.shown.line && elapsed >= line_due {
                self.renew();
                line_due = elapsed + LINE_INTERVAL;
            }
        }
        if self.width > 0 {
            eprintln!();
        }
    }

    /// Processor time counts from the first look at a wave that runs.
    fn look_for_a_wave(&mut self) {
        let mut state = self.board.state.lock();
        let runs = |phase| matches!(phase, Phase::Ramp | Phase::Running);
        let begins = state.fresh && state.runs.iter().any(|(_, live)| live.as_ref().is_some_and(|l| runs(l.clock().0)));
        if begins {
            state.fresh = false;
            drop(state);
            (self.wave_begun, self.usage) = (Instant::now(), gauge::usage());
        }
    }

    fn report(&self, report: &impl Fn(&[Part<'_>])) {
        let runs = self.board.runs();
        let glances: Vec<Glance> =
            runs.iter().map(|(_, live)| live.as_ref().map(Live::glance).unwrap_or_default()).collect();
        let counts = |glance: &Glance| glance.phase == Phase::Running;
        let running = glances.iter().filter(|glance| counts(glance)).count();
        let usage = gauge::share(gauge::usage(), self.usage, u32::try_from(running).unwrap_or(u32::MAX).max(1));
        let parts: Vec<Part<'_>> = runs
            .iter()
            .zip(&glances)
            .map(|((job, _), glance)| Part {
                job,
                runtime: glance.elapsed,
                stats: &glance.stats,
                usage: if counts(glance) { usage } else { Usage::default() },
                error: None,
                eta: eta(job, glance).unwrap_or_default(),
                datastore: about(job),
                notes: &[],
            })
            .collect();
        report(&parts);
    }

    fn renew(&mut self) {
        let runs = self.board.runs();
        let looks: Vec<Look<'_>> = runs
            .iter()
            .map(|(job, live)| Look { job, glance: live.as_ref().map(Live::glance).unwrap_or_default() })
            .collect();
        let rates = self.rates(&looks);
        let line = line(&looks, &rates, self.wave_begun.elapsed());
        let width = self.width.max(line.len());
        eprint!("\r{line:width$}");
        let _ = std::io::stderr().flush();
        self.width = line.len();
    }

    fn rates(&mut self, looks: &[Look<'_>]) -> Rates {
        let (mut ios, mut bytes) = ([0; 3], [0; 3]);
        for look in looks {
            for at in 0..3 {
                ios[at] += look.glance.stats.ios[at];
                bytes[at] += look.glance.stats.bytes[at];
            }
        }
        let now = Instant::now();
        let (before, ios_before, bytes_before) = std::mem::replace(&mut self.last, (now, ios, bytes));
        let ms = millis(now - before).max(1);
        // After a ramp counts begin anew.
        let rate = |now: u64, before: u64| if now < before { now } else { now - before }.saturating_mul(1000) / ms;
        let each = |now: [u64; 3], before: [u64; 3]| [0, 1, 2].map(|at: usize| rate(now[at], before[at]));
        Rates { ios: each(ios, ios_before), bytes: each(bytes, bytes_before) }
    }

    fn clear(&mut self) {
        if self.width > 0 {
            eprint!("\r{:1$}\r", "", self.width);
            self.width = 0;
        }
    }
}

/// What a report under way says under `datastore`: what is known before the end.
fn about(job: &Job) -> serde_json::Map<String, serde_json::Value> {
    let mut about = serde_json::Map::new();
    about.insert("workload".to_owned(), serde_json::json!(job.workload));
    about.insert("ioengine".to_owned(), serde_json::json!(job.ioengine));
    about.insert("interim".to_owned(), true.into());
    about
}

#[cfg(test)]
mod tests {
    use super::super::report::test_support::{job, stats};
    use super::*;

    fn glance(phase: Phase, elapsed_secs: u64) -> Glance {
        let elapsed = Duration::from_secs(elapsed_secs);
        let stats = if phase == Phase::Running { stats() } else { Default::default() };
        Glance { phase, elapsed, expected_ios: Some(4000), stats }
    }

    #[test]
    fn the_line_is_that_of_fio() {
        let job = job("a", 0);
        let look = |phase| Look { job: &job, glance: glance(phase, 10) };
        let looks = [look(Phase::Done), look(Phase::Running), look(Phase::Running), look(Phase::Waiting)];
        let rates = Rates { ios: [82_100, 0, 0], bytes: [21 << 20, 0, 0] };
        assert_eq!(
            line(&looks, &rates, Duration::from_secs(10)),
            "Jobs: 2 (f=2): [_(1),r(2),P(1)][25.0%][r=21.0MiB/s][r=82.1k IOPS][eta 00m:30s]"
        );
        assert_eq!(line(&looks[3..], &rates, Duration::ZERO), "Jobs: 0 (f=0): [P(1)][-.-%]");
        let laying_out = [look(Phase::LayingOut), look(Phase::Ramp)];
        assert_eq!(line(&laying_out, &rates, Duration::ZERO), "Jobs: 1 (f=1): [I(1),/(1)][-.-%]");
    }

    #[test]
    fn time_or_ios_say_when_it_ends() {
        let mut job = job("a", 0);
        let secs = |job: &Job, phase, elapsed| eta(job, &glance(phase, elapsed)).map(|eta| eta.as_secs());
        assert_eq!(secs(&job, Phase::Running, 10), Some(30), "a quarter is done");
        job.runtime = Some(Duration::from_secs(15));
        assert_eq!(secs(&job, Phase::Running, 10), Some(5), "the time ends it before");
        assert_eq!(secs(&job, Phase::LayingOut, 0), None);
        (job.time_based, job.ramp_time) = (true, Duration::from_secs(3));
        assert_eq!(secs(&job, Phase::LayingOut, 0), Some(18));
        assert_eq!((secs(&job, Phase::Ramp, 1), secs(&job, Phase::Running, 20)), (Some(17), Some(0)));
        assert_eq!(secs(&job, Phase::Done, 0), Some(0));
        let unknown = Glance { phase: Phase::Running, ..Glance::default() };
        assert_eq!(eta(&super::super::report::test_support::job("b", 0), &unknown), None);
    }

    #[test]
    fn a_clock_shows_hours_and_days_when_there_are_some() {
        let shown = [0, 91, 3600, 93_784].map(|secs| clock(Duration::from_secs(secs)));
        assert_eq!(shown, ["00m:00s", "01m:31s", "01h:00m:00s", "1d:02h:03m:04s"]);
    }

    #[test]
    fn reports_come_while_work_runs_and_the_printer_ends_with_it() {
        let jobs = [job("a", 0)];
        let seen = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counter = Arc::clone(&seen);
        let shown = Shown { line: false, report_interval: Some(Duration::from_millis(1)) };
        let report = move |parts: &[Part<'_>]| {
            assert_eq!(parts.len(), 1);
            assert_eq!(parts[0].datastore["workload"], "known-append");
            counter.fetch_add(parts[0].stats.ios[0], std::sync::atomic::Ordering::SeqCst);
        };
        let live = Live::default();
        let done = watched(&jobs, shown, report, |watch| {
            watch.wave_begins(&[Watched { job: Arc::new(jobs[0].clone()), number: 0, live: live.clone() }]);
            live.enter(Phase::Running);
            let io = super::super::stats::Io {
                direction: Direction::Read,
                count: 1,
                bytes: 0,
                slat: Duration::ZERO,
                clat: Duration::from_micros(1),
                depth: 1,
            };
            live.record(&io);
            while seen.load(std::sync::atomic::Ordering::SeqCst) == 0 {
                std::thread::yield_now();
            }
            7
        });
        assert_eq!(done, 7);
    }
}
