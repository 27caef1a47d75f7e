//! The ring: what was begun goes to the kernel in one call, what has completed comes back.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode};

use super::slots::Slots;
use super::wake::WakeFd;
use crate::engine::counters::{Counters, Way};
use crate::engine::driver::{Check, Ended, Workers};
use crate::engine::probe::{Refusal, Step};
use crate::engine::schedule::Limits;

/// User data of the wake-up's poll; slots are numbered from 0.
const WAKE: u64 = u64::MAX;

/// A pause before the kernel, short of memory (`EAGAIN`, `EBUSY`, `ENOMEM`), is asked again.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(1);

/// A ring with its slots, on the thread that made it.
///
/// Dropping waits until every slot is home, whatever the reason to drop; then the fields go in this order: the ring, so
/// that the kernel holds nothing more of ours, then the memory it used.
pub(in crate::engine) struct Ring {
    ring: IoUring,
    slots: Slots,
    limits: Limits,
    wake: WakeFd,
    /// Whether the kernel watches `wake` for us.
    wake_watched: bool,
    /// Checks pushed since the kernel was last called.
    pushed: usize,
    counters: Arc<Counters>,
}

impl Ring {
    /// Asks the kernel for a ring whose checks are made by up to `workers` of its threads, and tries it out. Must run
    /// on the thread that will use it: the kernel keeps workers, and the number of them, per submitting thread.
    pub(in crate::engine) fn start(workers: u32, wake: WakeFd, counters: Arc<Counters>) -> Result<Self, Refusal> {
        let refused = |step| move |e: io::Error| Refusal::new(step, Some(&e));
        // One entry for the wake-up and the rest for checks: the submission queue can never be full. The completion
        // queue is twice as long, so it cannot overflow either. No flags: SQPOLL burns a processor, and SINGLE_ISSUER
        // with DEFER_TASKRUN made no difference beyond noise (docs/performance.md).
        let ring: IoUring = IoUring::builder().build(workers * 2).map_err(refused(Step::Setup))?;
        let entries = ring.params().sq_entries();
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe).map_err(refused(Step::Probe))?;
        for (code, name) in [(opcode::Statx::CODE, "statx"), (opcode::PollAdd::CODE, "poll")] {
            if !probe.is_supported(code) {
                return Err(Refusal::new(Step::Operation(name), None));
            }
        }
        // Checks are "bounded" work for the kernel; 0 leaves the number for the other kind as it is.
        ring.submitter().register_iowq_max_workers(&mut [workers, 0]).map_err(refused(Step::Workers))?;
        let workers = usize::try_from(workers).expect("at most 256");
        let slots = (workers * 2 - 1).min(usize::try_from(entries).unwrap_or(usize::MAX) - 1);
        let mut ring = Self {
            ring,
            slots: Slots::new(slots),
            limits: Limits { workers, slots },
            wake,
            wake_watched: false,
            pushed: 0,
            counters,
        };
        ring.watch_wake();
        // A sandbox may allow the set-up and forbid this.
        ring.ring.submit().map_err(refused(Step::Enter))?;
        Ok(ring)
    }

    fn watch_wake(&mut self) {
        if self.wake_watched {
            return;
        }
        let poll = self.wake.poll().user_data(WAKE);
        // SAFETY: a poll has no memory of ours; its descriptor is open for as long as `self.wake` is, which lives as
        // long as the ring.
        unsafe { self.ring.submission().push(&poll) }.expect("the submission queue has an entry for the wake-up");
        self.wake_watched = true;
    }

    /// Calls the kernel: submits all that was pushed, and with `sleep` waits for a completion.
    fn enter(&mut self, sleep: bool) -> io::Result<()> {
        match self.ring.submit_and_wait(usize::from(sleep)) {
            Ok(_) => {
                if self.pushed > 0 {
                    self.counters.ring_submission();
                    // Mostly none: the kernel takes fewer only when it is short of memory in the middle.
                    self.pushed = self.ring.submission().len();
                }
                Ok(())
            }
            // A signal: whoever called us looks around and comes again.
            Err(e) if e.raw_os_error() == Some(libc::EINTR) => Ok(()),
            Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EBUSY | libc::ENOMEM)) => {
                std::thread::sleep(SHORTAGE_PAUSE);
                Ok(())
            }
            Err(e) => Err(e),
        }
    }

    fn reap(&mut self, mut each: impl FnMut(Ended)) {
        for completion in self.ring.completion() {
            if completion.user_data() == WAKE {
                self.wake_watched = false;
                self.wake.reset();
            } else {
                each(self.slots.receive(completion.user_data(), completion.result()));
            }
        }
    }
}

impl Workers for Ring {
    fn limits(&self) -> Limits {
        self.limits
    }

    fn way(&self) -> Way {
        Way::Ring
    }

    fn begin(&mut self, check: Check<'_>) {
        let statx = self.slots.send(check);
        // SAFETY: path, answer and directory of the operation belong to a slot that is away from now until `receive`,
        // and `slots` keeps them in place and alive until then: `Drop` waits for it, and if it cannot, `Slots` leaks
        // rather than frees.
        unsafe { self.ring.submission().push(&statx) }.expect("the submission queue has an entry for each slot");
        self.pushed += 1;
    }

    fn turn(&mut self, sleep: bool, ended: &mut Vec<Ended>) -> io::Result<()> {
        if sleep {
            self.watch_wake();
        }
        let entered = if sleep || self.pushed > 0 { self.enter(sleep) } else { Ok(()) };
        self.reap(|end| ended.push(end));
        entered
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        while self.slots.away() > 0 {
            // What was pushed and not submitted goes along now and comes home too.
            if let Err(e) = self.enter(true) {
                tracing::error!(error = %e, "cannot wait for the checks in flight");
                return;
            }
            self.reap(drop);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::DirFd;
    use crate::engine::driver::Ticket;
    use crate::engine::priority::Urgency;
    use crate::engine::schedule::Schedule;
    use crate::engine::stat::{Class, StatName};

    /// A ring, or `None` where the kernel refuses one.
    fn ring(workers: u32) -> Option<Ring> {
        match Ring::start(workers, WakeFd::new().unwrap(), Arc::default()) {
            Ok(ring) => Some(ring),
            Err(e) => {
                println!("skipped: {e}");
                None
            }
        }
    }

    fn begin_some(ring: &mut Ring, dir: &Arc<DirFd>, count: u32) {
        let key = Schedule::new(ring.limits()).add(Class::Sweep, 1, ());
        let name = StatName::new("etc").unwrap();
        for pos in 0..count {
            let urgency = Urgency::Foreground;
            ring.begin(Check {
                ticket: Ticket { key, pos },
                dir,
                name: &name,
                force_sync: false,
                stamps: false,
                urgency,
            });
        }
    }

    #[test]
    fn all_slots_fit_into_the_queue_and_come_home() {
        let Some(mut ring) = ring(64) else { return };
        let dir = Arc::new(DirFd::from(std::os::fd::OwnedFd::from(std::fs::File::open("/").unwrap())));
        assert_eq!(ring.limits(), Limits { workers: 64, slots: 127 });
        begin_some(&mut ring, &dir, 127);
        let mut ended = Vec::new();
        while ended.len() < 127 {
            ring.turn(true, &mut ended).unwrap();
        }
        assert_eq!(ring.slots.away(), 0);
        assert!(ended.iter().all(|end| end.result.is_ok()));
        assert_eq!(ring.counters.snapshot(0, 0, Default::default()).ring_submissions, 1, "one call for the batch");
        ended.sort_by_key(|end| end.ticket.pos);
        assert!(ended.iter().map(|end| end.ticket.pos).eq(0..127), "each once");
    }

    #[test]
    fn a_panic_with_checks_in_flight_and_unsubmitted_waits_for_them() {
        let dir = Arc::new(DirFd::from(std::os::fd::OwnedFd::from(std::fs::File::open("/").unwrap())));
        if ring(4).is_none() {
            return;
        }
        let held = Arc::clone(&dir);
        let thread = std::thread::spawn(move || {
            let mut ring = ring(4).expect("it was granted a moment ago");
            begin_some(&mut ring, &held, 4);
            ring.turn(false, &mut Vec::new()).unwrap();
            begin_some(&mut ring, &held, 3);
            panic!("on purpose");
        });
        thread.join().unwrap_err();
        assert_eq!(Arc::strong_count(&dir), 1, "no slot was left behind, none was leaked");
    }

    #[test]
    fn a_wake_up_ends_the_sleep_each_time() {
        let Some(mut ring) = ring(1) else { return };
        let wake = ring.wake.clone();
        for _ in 0..3 {
            std::thread::scope(|scope| {
                scope.spawn(|| crate::engine::driver::Wake::wake(&wake));
                ring.turn(true, &mut Vec::new()).unwrap();
            });
        }
    }
}
