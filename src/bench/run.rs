//! Runs a plan: wave after wave, in each all jobs at once and each of them `numjobs` times. Whatever was made is gone afterwards.
//!
//! ```text
//! check everything ─▶ space ─▶ wave: lay out, one job after another ─▶ drop caches ─▶ all runs at once ─▶ report, clean up ─▶ next wave
//! ```

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::gauge::{self, Gauge};
use super::host::Host;
use super::job::Job;
use super::live::{Live, Phase};
use super::log::{self, Logs};
use super::outcome::{JobOutcome, Usage};
use super::scratch::{self, Scratch};
use super::space::{self, Need};
use super::stats::Stats;
use super::turn::Turn;
use super::workload::{self, Ground, Stage, Told};
use super::{cold, workload::prepare};
use crate::engine::{Disk, Engine, EngineChoice, EngineConfig};
use crate::error::{Error, IoContext, Kind, Result};
use crate::sync::Mutex;

/// What a shell shows for a program that SIGINT has ended.
const EXIT_INTERRUPTED: i32 = 130;

/// Threads of the runtime at least: a daemon and its clients live on it.
const RUNTIME_THREADS_MIN: usize = 2;

/// How often to look whether all ramps are over.
const RAMP_LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// One of the runs of a wave, as the status line sees it.
#[derive(Clone, Debug)]
pub struct Watched {
    /// What it does.
    pub job: Arc<Job>,
    /// Which of the `numjobs` it is, from 0.
    pub number: u32,
    /// Where it is.
    pub live: Live,
}

/// Is told which runs there are to look at.
pub trait Watch: Sync {
    /// These begin to lay out their data, and then to run.
    fn wave_begins(&self, runs: &[Watched]);
    /// They have ended.
    fn wave_ends(&self, runs: &[Watched]);
}

/// Looks at nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn wave_begins(&self, _: &[Watched]) {}
    fn wave_ends(&self, _: &[Watched]) {}
}

/// Runs all jobs of `plan`. The first SIGINT or SIGTERM stops them, and what was measured so far comes back; the second ends the process.
///
/// Errors: what makes a job of the plan impossible, before anything is written. What goes wrong later is in the outcome of its job.
pub fn run(plan: &[Job], watch: &dyn Watch) -> Result<Vec<JobOutcome>> {
    run_on(plan, watch, Disk::real())
}

/// The same, with `disk` for the engines: tests inject faults with it.
pub(super) fn run_on(plan: &[Job], watch: &dyn Watch, disk: Disk) -> Result<Vec<JobOutcome>> {
    check(plan)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from).max(RUNTIME_THREADS_MIN);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build();
    let runtime = runtime.io_context(|| "cannot start a runtime")?;
    let interrupt = Interrupt::default();
    runtime.block_on(interrupt.listen())?;
    let mut runner = Runner { runtime: &runtime, disk, watch, interrupt, scratches: HashMap::new() };
    let mut waves: Vec<usize> = plan.iter().map(|job| job.wave).collect();
    waves.sort_unstable();
    waves.dedup();
    let mut outcomes = Vec::new();
    for wave in waves {
        let jobs: Vec<Arc<Job>> = plan.iter().filter(|job| job.wave == wave).cloned().map(Arc::new).collect();
        if runner.interrupt.is_set() {
            outcomes.extend(jobs.iter().flat_map(not_run));
            continue;
        }
        outcomes.extend(runner.wave(&jobs));
        let places = |job: &Job| [scratch::path_of(job), scratch::work_path_of(job)];
        let later: Vec<PathBuf> = plan.iter().filter(|job| job.wave > wave).flat_map(places).collect();
        runner.scratches.retain(|path, _| later.contains(path));
    }
    drop(runner);
    Ok(outcomes)
}

/// What can be known before anything is made.
fn check(plan: &[Job]) -> Result<()> {
    for job in plan {
        let in_job = |e: Error| e.context(format_args!("job '{}'", job.name));
        workload::check(job).map_err(in_job)?;
        check_directory(job).map_err(in_job)?;
        if let Some(workdir) = &job.workdir {
            check_own(workdir).map_err(in_job)?;
        }
        if job.cold {
            cold::check().map_err(in_job)?;
        }
    }
    // What has to be there at the same time: that of a wave, and what a later one uses again.
    let waves: std::collections::BTreeSet<usize> = plan.iter().map(|job| job.wave).collect();
    for wave in waves {
        let mut needs: HashMap<u64, (Need, &Path)> = HashMap::new();
        let mut counted: Vec<PathBuf> = Vec::new();
        let here = plan.iter().filter(|job| !job.existing).flat_map(|job| {
            let work = job.workdir.as_deref().map(|workdir| (scratch::work_path_of(job), workdir));
            [Some((scratch::path_of(job), &*job.directory)), work].into_iter().flatten()
        });
        for (path, directory) in here {
            let lives = |job: &&Job| scratch::path_of(job) == path || scratch::work_path_of(job) == path;
            let first = plan.iter().filter(lives).map(|other| other.wave).min().unwrap_or(wave);
            let last = plan.iter().filter(lives).map(|other| other.wave).max().unwrap_or(wave);
            // Kept by an earlier run, it has its space already.
            if !(first..=last).contains(&wave) || counted.contains(&path) || path.exists() {
                continue;
            }
            let need = |job: &Job| {
                let own = if scratch::path_of(job) == path { Need::of_store(job) } else { Need::default() };
                if scratch::work_path_of(job) == path { own.and(Need::of_work(job)) } else { own }
            };
            let most = plan.iter().filter(lives).map(need).max_by_key(|need| need.bytes).unwrap_or_default();
            counted.push(path);
            let device = std::os::unix::fs::MetadataExt::dev(&metadata(directory)?);
            let entry = needs.entry(device).or_insert((Need::default(), directory));
            entry.0 = entry.0.and(most);
        }
        for (need, directory) in needs.values() {
            space::check(directory, *need)?;
        }
    }
    Ok(())
}

/// What there is to say of a path that is to be a directory.
fn metadata(directory: &Path) -> Result<std::fs::Metadata> {
    let found = std::fs::metadata(directory).io_context(|| format!("directory {directory:?} cannot be used"))?;
    if found.is_dir() { Ok(found) } else { Err(Error::invalid(format!("{directory:?} is no directory"))) }
}

fn check_directory(job: &Job) -> Result<()> {
    let directory = &job.directory;
    if job.existing {
        metadata(directory)?;
        let chunks = directory.join(crate::store::layout::CHUNKS_DIR);
        return if chunks.is_dir() {
            Ok(())
        } else {
            Err(Error::invalid(format!("existing: {directory:?} is no datastore, it has no {chunks:?}")))
        };
    }
    check_own(directory)
}

/// A directory where something may be made.
fn check_own(directory: &Path) -> Result<()> {
    metadata(directory)?;
    // Somebody else's datastore is no place for scratch data: its owner would find it there.
    if directory.join(crate::store::layout::CHUNKS_DIR).exists() {
        return Err(Error::invalid(format!(
            "{directory:?} is a datastore: name a directory beside it, or say existing to measure it as it is"
        )));
    }
    rustix::fs::access(directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
        .map_err(std::io::Error::from)
        .io_context(|| format!("directory {directory:?} is not writable"))
}

/// Whether somebody pressed Ctrl-C, and whom that concerns.
#[derive(Clone, Debug, Default)]
struct Interrupt {
    set: Arc<AtomicBool>,
    /// The order to stop of the wave that runs.
    wave: Arc<Mutex<Option<Live>>>,
}

impl Interrupt {
    async fn listen(&self) -> Result<()> {
        let mut interrupt = signal(SignalKind::interrupt()).io_context(|| "listen for SIGINT")?;
        let mut terminate = signal(SignalKind::terminate()).io_context(|| "listen for SIGTERM")?;
        let own = self.clone();
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    _ = interrupt.recv() => {}
                    _ = terminate.recv() => {}
                }
                if own.trip() {
                    // Asked twice: now, whatever stays behind.
                    std::process::exit(EXIT_INTERRUPTED);
                }
            }
        });
        Ok(())
    }

    /// Stops what runs; true if that had been asked for before.
    fn trip(&self) -> bool {
        let before = self.set.swap(true, Ordering::SeqCst);
        if let Some(live) = &*self.wave.lock() {
            live.stop();
        }
        before
    }

    fn is_set(&self) -> bool {
        self.set.load(Ordering::SeqCst)
    }

    /// What a signal stops from now on.
    fn guard(&self, live: &Live) {
        *self.wave.lock() = Some(live.clone());
        if self.is_set() {
            live.stop();
        }
    }
}

/// A job of a wave.
struct Staged {
    job: Arc<Job>,
    lives: Vec<Live>,
    stage: Option<Box<dyn Stage>>,
    /// By run.
    errors: Vec<Option<Error>>,
    host: Host,
    before: Option<Gauge>,
    /// Why its file system was not frozen before caches were dropped.
    unfrozen: Option<&'static str>,
}

struct Runner<'a> {
    runtime: &'a Runtime,
    disk: Disk,
    watch: &'a dyn Watch,
    interrupt: Interrupt,
    /// Data that a later wave uses again, and that of this one.
    scratches: HashMap<PathBuf, Arc<Scratch>>,
}

impl Runner<'_> {
    fn wave(&mut self, jobs: &[Arc<Job>]) -> Vec<JobOutcome> {
        let order = Live::default();
        self.interrupt.guard(&order);
        let mut wave: Vec<Staged> = jobs.iter().map(|job| Staged::new(job, &order)).collect();
        let watched: Vec<Watched> = wave.iter().flat_map(Staged::watched).collect();
        self.watch.wave_begins(&watched);
        let writers = start_logs(&mut wave, &order);
        for staged in &mut wave {
            if !order.is_stopped() {
                self.lay_out(staged, &order);
            }
        }
        if !order.is_stopped() && jobs.iter().any(|job| job.cold) {
            drop_caches(&mut wave, &order);
        }
        let (memory_before, _) = gauge::memory_kib();
        gauge::forget_peak();
        let usage_before = if order.is_stopped() { gauge::usage() } else { run_all(&mut wave, &order) };
        let runs = u32::try_from(watched.len()).unwrap_or(u32::MAX);
        let usage = gauge::share(gauge::usage(), usage_before, runs);
        end_logs(&mut wave, writers);
        let memory = json!({"before_kib": memory_before, "peak_kib": gauge::memory_kib().1});
        let interrupted = order.is_stopped();
        let outcomes = wave.into_iter().flat_map(|staged| staged.end(usage, &memory, interrupted)).collect();
        for watched in &watched {
            watched.live.enter(Phase::Done);
        }
        self.watch.wave_ends(&watched);
        outcomes
    }

    /// Makes the data of a job. An error stops the wave.
    fn lay_out(&mut self, staged: &mut Staged, order: &Live) {
        staged.enter(Phase::LayingOut);
        let done = guarded(|| {
            let job = Arc::clone(&staged.job);
            let (path, work_path) = (scratch::path_of(&job), scratch::work_path_of(&job));
            let work = (path != work_path).then(|| self.scratch(&job, work_path)).transpose()?;
            let scratch = (!job.existing).then(|| self.scratch(&job, path)).transpose()?;
            let ground = Ground {
                job,
                scratch,
                work,
                runtime: self.runtime.handle().clone(),
                disk: self.disk.clone(),
                stop: order.clone(),
            };
            let stage = prepare(&ground)?;
            for (number, live) in (0..).zip(&staged.lives) {
                if order.is_stopped() {
                    return Err(Error::closed("interrupted"));
                }
                stage.before(&Turn::new(Arc::clone(&staged.job), number, live.clone()), 0)?;
            }
            let rounds = if staged.job.time_based { None } else { Some(staged.job.loops.max(1)) };
            if let Some(ios) = stage.ios().zip(rounds).map(|(ios, rounds)| ios.saturating_mul(rounds)) {
                staged.lives.iter().for_each(|live| live.expect(ios));
            }
            staged.host = Host::look(&staged.job.directory, ring(stage.engine().as_ref()));
            Ok(stage)
        });
        match done {
            Ok(stage) => staged.stage = Some(stage),
            Err(e) if is_told_to_stop(&e, order) => {}
            Err(e) => {
                staged.errors[0] = Some(e);
                order.stop();
            }
        }
    }

    fn scratch(&mut self, job: &Job, path: PathBuf) -> Result<Arc<Scratch>> {
        if let Some(scratch) = self.scratches.get(&path) {
            return Ok(Arc::clone(scratch));
        }
        let scratch = Scratch::open(job, path.clone())?;
        self.scratches.insert(path, Arc::clone(&scratch));
        Ok(scratch)
    }
}

/// Opens the logs of all runs; who writes them, with the place of their job in the wave. An error stops the wave.
fn start_logs(wave: &mut [Staged], order: &Live) -> Vec<(usize, log::Writer)> {
    let mut writers = Vec::new();
    for (at, staged) in wave.iter_mut().enumerate() {
        for (number, live) in (staged.job.first_run..).zip(&staged.lives) {
            match Logs::open(&staged.job.logs, number) {
                Ok(None) => {}
                Ok(Some((logs, writer))) => {
                    live.log_to(logs);
                    writers.push((at, writer));
                }
                Err(e) => {
                    staged.errors[0] = Some(e);
                    order.stop();
                    break;
                }
            }
        }
    }
    writers
}

/// Waits until what was logged is written.
fn end_logs(wave: &mut [Staged], writers: Vec<(usize, log::Writer)>) {
    // Those of runs that never began have not been closed yet.
    wave.iter().for_each(|staged| staged.lives.iter().for_each(Live::end_log));
    for (at, writer) in writers {
        if let Err(e) = writer.end() {
            wave[at].errors[0].get_or_insert(e);
        }
    }
}

/// For the whole machine, so once, before anybody runs.
fn drop_caches(wave: &mut [Staged], order: &Live) {
    let dropped = cold::drop_caches(wave.iter().filter(|staged| staged.job.cold).map(|staged| &*staged.job.directory));
    let mut cold = wave.iter_mut().filter(|staged| staged.job.cold);
    match dropped {
        Ok(unfrozen) => cold.for_each(|staged| staged.unfrozen = unfrozen),
        Err(e) => {
            if let Some(staged) = cold.next() {
                staged.errors[0] = Some(e);
            }
            order.stop();
        }
    }
}

/// All runs of a wave, each on a thread of its own. The error of one stops the others.
///
/// Counters are read as the runs begin, or once all ramps are over; what the process had used by then comes back.
fn run_all(wave: &mut [Staged], order: &Live) -> Usage {
    let ready = wave.iter().filter(|staged| staged.stage.is_some());
    let runs: usize = ready.map(|staged| staged.lives.len()).sum();
    let ramp = wave.iter().map(|staged| staged.job.ramp_time).max().unwrap_or_default();
    let lives: Vec<Live> = wave.iter().flat_map(|staged| staged.lives.clone()).collect();
    let meters: Vec<(Option<Engine>, String)> = wave.iter().map(Staged::meter).collect();
    let read = || -> (Usage, Vec<Gauge>) {
        (gauge::usage(), meters.iter().map(|(engine, device)| Gauge::read(engine.as_ref(), device)).collect())
    };
    let mut before = read();
    let start = Barrier::new(runs);
    std::thread::scope(|scope| {
        for staged in wave.iter_mut() {
            let Some(stage) = staged.stage.as_deref() else { continue };
            for ((number, live), error) in (0..).zip(&staged.lives).zip(&mut staged.errors) {
                let turn = Turn::new(Arc::clone(&staged.job), number, live.clone());
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    turn.begin();
                    if let Err(e) = guarded(|| rounds(&turn, stage)) {
                        *error = Some(e);
                        order.stop();
                    }
                    live.enter(Phase::Ending);
                });
            }
        }
        if !ramp.is_zero() {
            let in_ramp = |live: &Live| matches!(live.clock().0, Phase::LayingOut | Phase::Ramp);
            while lives.iter().any(in_ramp) {
                std::thread::sleep(RAMP_LOOK_INTERVAL);
            }
            before = read();
        }
    });
    for (staged, gauge) in wave.iter_mut().zip(before.1) {
        staged.before = Some(gauge);
    }
    before.0
}

/// The loops of one run.
fn rounds(turn: &Turn, stage: &dyn Stage) -> Result<()> {
    let mut round = 0;
    while round == 0 || (turn.job.time_based || round < turn.job.loops) && turn.go_on() {
        if round > 0 {
            match turn.aside(|| stage.before(turn, round)) {
                Err(e) if is_told_to_stop(&e, turn.live()) => break,
                made => made?,
            }
            // The first run does it for all.
            if turn.job.cold && turn.number == 0 {
                turn.aside(|| cold::drop_caches([&*turn.job.directory]))?;
            }
        }
        stage.round(turn, round)?;
        round += 1;
    }
    Ok(())
}

/// That it was told to stop is no error of its own.
fn is_told_to_stop(error: &Error, live: &Live) -> bool {
    error.kind() == Kind::Closed && live.is_stopped()
}

/// A panic is an error too: what was made has to be removed all the same.
fn guarded<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        Err(Error::closed(format!("the bench has failed: {}", text.unwrap_or("a panic"))))
    })
}

/// Whether the kernel grants a ring: as the engine of the job found out, or else as a try shows.
fn ring(engine: Option<&Engine>) -> String {
    let said = |engine: &Engine| match (engine.kind(), engine.fallback_reason()) {
        ("uring", _) => Some("granted".to_owned()),
        (_, reason) => reason.map(str::to_owned),
    };
    if let Some(said) = engine.and_then(said) {
        return said;
    }
    let config = EngineConfig { choice: EngineChoice::Uring, workers: 1, io_threads: 1 };
    match Engine::start("probe", &config) {
        Ok(engine) => {
            engine.shutdown();
            "granted".to_owned()
        }
        Err(e) => e.to_string(),
    }
}

fn not_run(job: &Arc<Job>) -> impl Iterator<Item = JobOutcome> + use<> {
    let job = Arc::clone(job);
    (0..job.numjobs.max(1)).map(move |number| JobOutcome {
        job: (*job).clone(),
        number,
        started_ms: 0,
        runtime: Duration::ZERO,
        stats: Stats::default(),
        usage: Usage::default(),
        error: None,
        interrupted: true,
        datastore: Map::new(),
        notes: Vec::new(),
    })
}

impl Staged {
    fn new(job: &Arc<Job>, order: &Live) -> Self {
        let count = job.numjobs.max(1);
        Self {
            job: Arc::clone(job),
            lives: (0..count).map(|_| Live::beside(order)).collect(),
            stage: None,
            errors: (0..count).map(|_| None).collect(),
            host: Host::default(),
            before: None,
            unfrozen: None,
        }
    }

    fn watched(&self) -> impl Iterator<Item = Watched> {
        (0..).zip(&self.lives).map(|(number, live)| Watched { job: Arc::clone(&self.job), number, live: live.clone() })
    }

    fn enter(&self, phase: Phase) {
        self.lives.iter().for_each(|live| live.enter(phase));
    }

    /// Whose counters belong to this job: an engine, and the number of a device.
    fn meter(&self) -> (Option<Engine>, String) {
        (self.stage.as_ref().and_then(|stage| stage.engine()), self.host.device_number.clone())
    }

    /// What came of it; the data that it needed alone is gone afterwards.
    fn end(mut self, usage: Usage, memory: &Value, interrupted: bool) -> Vec<JobOutcome> {
        let glances: Vec<_> = self.lives.iter().map(Live::glance).collect();
        let mut told = Told::default();
        if let Some(stage) = self.stage.take() {
            let cache = match (self.job.cold, self.unfrozen, stage.found()) {
                (true, None, _) => "cold: frozen and dropped before each loop".to_owned(),
                (true, Some(why), _) => {
                    format!(
                        "cold: dropped before each loop, but {why}: what was made just before may be in memory still"
                    )
                }
                (false, _, true) => "as it was found".to_owned(),
                (false, _, false) => "warm: made just before".to_owned(),
            };
            let engine = stage.engine();
            let ios = glances.iter().flat_map(|glance| glance.stats.ios).sum();
            let about = engine.as_ref().map(|engine| {
                json!({"kind": engine.kind(), "workers": engine.workers(), "fallback": engine.fallback_reason()})
            });
            if let Some(before) = &self.before {
                told.map = Gauge::read(engine.as_ref(), &self.host.device_number).since(before, ios);
            }
            told.notes = self.host.lines();
            told.notes.push(format!("caches: {cache}"));
            told.map.insert("workload".into(), json!(self.job.workload));
            told.map.insert("ioengine".into(), json!(self.job.ioengine));
            told.map.insert("engine".into(), json!(about));
            told.map.insert("host".into(), json!(self.host));
            told.map.insert("cache".into(), json!(cache));
            told.map.insert("memory".into(), memory.clone());
            stage.tell(&mut told);
            drop(stage);
        }
        let mut outcomes = Vec::new();
        for (((number, live), glance), error) in (0..).zip(&self.lives).zip(glances).zip(self.errors) {
            // Those of the ramp do not count, and a run that ended within it has nothing else.
            let counted = live.counted();
            outcomes.push(JobOutcome {
                job: (*self.job).clone(),
                number,
                started_ms: live.started_ms(),
                runtime: if counted { glance.elapsed } else { Duration::ZERO },
                stats: if counted { glance.stats } else { Stats::default() },
                usage,
                interrupted: interrupted && error.is_none(),
                error,
                datastore: told.map.clone(),
                notes: if number == 0 { std::mem::take(&mut told.notes) } else { Vec::new() },
            });
        }
        outcomes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_interrupt_stops_what_runs_and_what_comes_and_the_second_is_told_apart() {
        let interrupt = Interrupt::default();
        let [running, next] = [Live::default(), Live::default()];
        interrupt.guard(&running);
        assert!(!running.is_stopped() && !interrupt.is_set());
        assert!(!interrupt.trip());
        assert!(running.is_stopped() && interrupt.is_set());
        interrupt.guard(&next);
        assert!(next.is_stopped());
        assert!(interrupt.trip());
    }

    #[test]
    fn a_panic_becomes_an_error() {
        let said = guarded::<()>(|| panic!("so {}", "what")).unwrap_err().to_string();
        assert!(said.contains("so what"), "{said}");
    }
}
