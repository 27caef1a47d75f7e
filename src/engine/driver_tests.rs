//! The loop with workers of a test's own, so that the order of events is the test's and not the machine's.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::*;
use crate::clock::EpochSecs;
use crate::engine::stat::{Class, FileStat, Stamp};
use crate::engine::{FileKind, FileTime};

struct NoWake;

impl Wake for NoWake {
    fn wake(&self) {}
}

type Instead = Box<dyn FnMut() -> io::Result<()>>;

/// Ends checks one at a time, in the order they were begun, with answers from a list; then says that each file has one
/// byte.
struct Scripted {
    limits: Limits,
    begun: VecDeque<Ticket>,
    /// Names in the order they were begun.
    names: Vec<String>,
    answers: VecDeque<StatResult>,
    /// What the nth turn, counted from 0, does instead of working.
    at_turn: Option<(usize, Instead)>,
    turns: usize,
    log: std::sync::mpsc::Sender<Vec<String>>,
}

const NEVER: FileTime = FileTime { secs: 0, nanos: 0 };

const ONE_BYTE: StatResult = Ok(FileStat {
    kind: FileKind::File,
    size_bytes: 1,
    accessed: EpochSecs(0),
    stamp: Stamp { device: 0, ino: 0, mtime: NEVER, ctime: NEVER },
});

impl Workers for Scripted {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn way(&self) -> Way {
        Way::Pool
    }

    fn begin(&mut self, check: Check<'_>) {
        self.begun.push_back(check.ticket);
        assert!(self.begun.len() <= self.limits.slots);
        self.names.push(check.name.as_c_str().to_str().unwrap().to_owned());
    }

    fn turn(&mut self, sleep: bool, ended: &mut Vec<Ended>) -> io::Result<()> {
        let turn = self.turns;
        self.turns += 1;
        if let Some((at, instead)) = &mut self.at_turn
            && *at == turn
        {
            return instead();
        }
        match self.begun.pop_front() {
            Some(ticket) => ended.push(Ended { ticket, result: self.answers.pop_front().unwrap_or(ONE_BYTE) }),
            None => assert!(!sleep, "nobody would ever wake us"),
        }
        Ok(())
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        let _ = self.log.send(std::mem::take(&mut self.names));
    }
}

/// A closed intake with these batches inside, and the ends where their answers come out.
fn intake(batches: Vec<(Class, Vec<&str>)>) -> (Arc<Intake>, Vec<oneshot::Receiver<Vec<StatResult>>>) {
    let folder = tempfile::tempdir().unwrap();
    let dir = Arc::new(DirFd::from(std::os::fd::OwnedFd::from(std::fs::File::open(folder.path()).unwrap())));
    intake_at(&dir, batches)
}

fn intake_at(
    dir: &Arc<DirFd>,
    batches: Vec<(Class, Vec<&str>)>,
) -> (Arc<Intake>, Vec<oneshot::Receiver<Vec<StatResult>>>) {
    let intake = Arc::new(Intake::new(Box::new(NoWake)));
    let places = Arc::new(Semaphore::new(100));
    let push = |(class, names): (Class, Vec<&str>)| {
        let names = names.into_iter().map(|name| StatName::new(name).unwrap()).collect();
        let batch = StatBatch { dir: Arc::clone(dir), names, class, force_sync: false, stamps: false };
        let (reply, answer) = oneshot::channel();
        let place = Arc::clone(&places).try_acquire_owned().unwrap();
        intake.push(Request { batch, reply, place }).unwrap();
        answer
    };
    let answers = batches.into_iter().map(push).collect();
    intake.close();
    (intake, answers)
}

fn scripted(workers: usize, slots: usize) -> (Scripted, std::sync::mpsc::Receiver<Vec<String>>) {
    let (log, names) = std::sync::mpsc::channel();
    let limits = Limits { workers, slots };
    let workers = Scripted {
        limits,
        begun: VecDeque::new(),
        names: Vec::new(),
        answers: VecDeque::new(),
        at_turn: None,
        turns: 0,
        log,
    };
    (workers, names)
}

#[test]
fn an_interactive_batch_is_begun_before_the_rest_of_a_sweep() {
    let (workers, begun) = scripted(2, 4);
    let sweep = vec!["s"; 300];
    let batches = vec![(Class::Sweep, sweep), (Class::Interactive, vec!["i"; 5])];
    let (intake, mut answers) = intake(batches);
    Driver::new(workers, Policy::WorkersOnly, intake, Arc::default(), &Arc::default()).run().unwrap();
    assert_eq!(answers[0].try_recv().unwrap().len(), 300);
    assert_eq!(answers[1].try_recv().unwrap(), [ONE_BYTE; 5]);
    let begun = begun.recv().unwrap();
    assert_eq!(begun.len(), 305);
    assert_eq!(begun[..5], ["i"; 5]);
}

#[test]
fn a_check_without_an_answer_is_asked_again_but_not_for_ever() {
    let (mut workers, begun) = scripted(2, 4);
    workers.answers = VecDeque::from([Err(Errno::INTR), Err(Errno::AGAIN), Err(Errno::CANCELED), Err(Errno::IO)]);
    let (patient, mut answers) = intake(vec![(Class::Interactive, vec!["a"])]);
    Driver::new(workers, Policy::WorkersOnly, patient, Arc::default(), &Arc::default()).run().unwrap();
    assert_eq!(answers[0].try_recv().unwrap(), [Err(Errno::IO)]);
    assert_eq!(begun.recv().unwrap().len(), 4);

    let (mut workers, begun) = scripted(2, 4);
    workers.answers = VecDeque::from(vec![Err(Errno::AGAIN); 5000]);
    let (hopeless, mut answers) = intake(vec![(Class::Interactive, vec!["a"])]);
    Driver::new(workers, Policy::WorkersOnly, hopeless, Arc::default(), &Arc::default()).run().unwrap();
    assert_eq!(answers[0].try_recv().unwrap(), [Err(Errno::AGAIN)]);
    assert_eq!(begun.recv().unwrap().len(), 1025);
}

#[test]
fn askers_hear_of_workers_that_fail_and_of_a_panic() {
    let ends: [Instead; 2] =
        [Box::new(|| Err(io::Error::from_raw_os_error(libc::EBADF))), Box::new(|| panic!("on purpose"))];
    for end in ends {
        let (mut workers, _begun) = scripted(2, 4);
        workers.at_turn = Some((3, end));
        let batches = vec![(Class::Interactive, vec!["a"; 10]), (Class::Sweep, vec!["b"; 10])];
        let (intake, mut answers) = intake(batches);
        let driver = Driver::new(workers, Policy::WorkersOnly, Arc::clone(&intake), Arc::default(), &Arc::default());
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| driver.run()));
        assert!(!matches!(outcome, Ok(Ok(()))));
        for answer in &mut answers {
            assert_eq!(answer.try_recv().unwrap_err(), oneshot::error::TryRecvError::Closed);
        }
        assert!(!intake.requests.would_wait());
    }
}

#[test]
fn a_cold_disk_is_asked_through_the_workers_until_two_batches_were_warm() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    let dir = Arc::new(DirFd::from(std::os::fd::OwnedFd::from(std::fs::File::open(folder.path()).unwrap())));
    let name = StatName::new("a").unwrap();
    if !matches!(plain::stat_cached(dir.as_fd(), &name, false), Cached::Hit(_)) {
        println!("skipped: this file system or kernel does not answer from its name cache");
        return;
    }
    let (workers, begun) = scripted(2, 4);
    let batches = [vec!["a", "missing", "b"], vec!["a", "b"], vec!["b"], vec!["a"]];
    let (intake, mut answers) = intake_at(&dir, batches.map(|names| (Class::Interactive, names)).into());
    let counters = Arc::new(Counters::default());
    let mut driver = Driver::new(workers, Policy::Adaptive, intake, Arc::clone(&counters), &Arc::default());
    // As if a check of an append had just been slow.
    driver.adaptive[Class::Interactive as usize].inline_took(Duration::from_secs(1));
    driver.run().unwrap();
    assert_eq!(begun.recv().unwrap(), ["missing"], "all else was in the cache or inline");
    assert_eq!(answers[0].try_recv().unwrap().len(), 3);
    let c = counters.snapshot(0, 0, Default::default());
    assert_eq!((c.statx, c.statx_pool, c.batches_interactive), (7, 1, 4));
    // The third batch in a row without a miss was made inline.
    assert_eq!((c.statx_cached, c.statx_inline), (5, 1));
}

#[test]
fn a_check_that_wants_the_servers_word_is_never_answered_here() {
    let (workers, begun) = scripted(2, 4);
    let (intake, _answers) = intake(vec![]);
    let mut driver = Driver::new(workers, Policy::Adaptive, intake, Arc::default(), &Arc::default());
    let dir = Arc::new(DirFd::from(std::os::fd::OwnedFd::from(std::fs::File::open("/").unwrap())));
    let names = vec![StatName::new("etc").unwrap()];
    let batch = StatBatch { dir, names, class: Class::Sweep, force_sync: true, stamps: false };
    let (reply, mut answer) = oneshot::channel();
    let place = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
    let job = Job { request: Request { batch, reply, place }, results: vec![Err(Errno::CANCELED)], retries: 0 };
    driver.schedule.add(Class::Sweep, 1, job);
    driver.run().unwrap();
    assert_eq!(begun.recv().unwrap(), ["etc"]);
    assert_eq!(answer.try_recv().unwrap(), [ONE_BYTE]);
}
