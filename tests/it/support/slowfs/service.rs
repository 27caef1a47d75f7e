//! A server that takes its time: each request is in service for its delay and its work, so many at the same time, the rest
//! wait in line. A delay occupies no thread: any number of requests wait at the same time, as on a network.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::time::{Duration, Instant};

use super::held;

/// Threads for the work itself, once its delay is over: more than a disk below is likely to do at the same time.
const WORKERS: usize = 16;

/// What is done for a request; it answers the kernel.
pub type Work = Box<dyn FnOnce() + Send>;

#[derive(Clone)]
pub struct Service(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    /// How many may be in service; 0 is any number.
    width: usize,
    line: VecDeque<(Duration, Work)>,
    due: BinaryHeap<Reverse<(Instant, u64)>>,
    delayed: HashMap<u64, Work>,
    next: u64,
    in_service: usize,
    in_service_max: usize,
    in_line_max: usize,
    ended: bool,
}

impl std::fmt::Debug for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Service")
    }
}

impl State {
    fn may_start(&self) -> bool {
        self.width == 0 || self.in_service < self.width
    }

    fn start(&mut self, delay: Duration, work: Work) {
        self.in_service += 1;
        self.in_service_max = self.in_service_max.max(self.in_service);
        self.due.push(Reverse((Instant::now() + delay, self.next)));
        self.delayed.insert(self.next, work);
        self.next += 1;
    }

    fn take_due(&mut self, now: Instant) -> Option<Work> {
        match self.due.peek() {
            Some(Reverse((when, id))) if *when <= now => {
                let work = self.delayed.remove(id);
                self.due.pop();
                work
            }
            _ => None,
        }
    }
}

impl Service {
    /// Starts its threads; they end by [`Self::end`].
    pub fn start(width: usize) -> Self {
        let service = Self(Arc::default());
        service.set_width(width);
        let (sender, receiver) = mpsc::channel::<Work>();
        let receiver = Arc::new(Mutex::new(receiver));
        for _ in 0..WORKERS {
            let (service, receiver) = (service.clone(), Arc::clone(&receiver));
            std::thread::spawn(move || {
                loop {
                    let work = held(&receiver).recv();
                    let Ok(work) = work else { break };
                    work();
                    service.done();
                }
            });
        }
        let clock = service.clone();
        std::thread::spawn(move || clock.keep_time(&sender));
        service
    }

    fn keep_time(&self, workers: &mpsc::Sender<Work>) {
        let (state, changed) = &*self.0;
        let mut state = held(state);
        while !state.ended {
            let now = Instant::now();
            while let Some(work) = state.take_due(now) {
                let _ = workers.send(work);
            }
            let wait = state.due.peek().map(|Reverse((when, _))| when.saturating_duration_since(Instant::now()));
            state = match wait {
                Some(wait) => changed.wait_timeout(state, wait).map_or_else(|e| e.into_inner().0, |(state, _)| state),
                None => changed.wait(state).unwrap_or_else(std::sync::PoisonError::into_inner),
            };
        }
    }

    /// Serves a request after its delay. What costs nothing is served at once, by the caller's thread.
    pub fn serve(&self, delay: Duration, work: Work) {
        let (state, changed) = &*self.0;
        let mut state = held(state);
        if delay.is_zero() && state.width == 0 {
            drop(state);
            return work();
        }
        if state.may_start() {
            state.start(delay, work);
            changed.notify_one();
        } else {
            state.line.push_back((delay, work));
            state.in_line_max = state.in_line_max.max(state.line.len());
        }
    }

    fn done(&self) {
        let (state, changed) = &*self.0;
        let mut state = held(state);
        state.in_service -= 1;
        if state.may_start()
            && let Some((delay, work)) = state.line.pop_front()
        {
            state.start(delay, work);
            changed.notify_one();
        }
    }

    /// How many may be in service from now on; 0 is any number.
    pub fn set_width(&self, width: usize) {
        let (state, changed) = &*self.0;
        let mut state = held(state);
        state.width = width;
        while state.may_start()
            && let Some((delay, work)) = state.line.pop_front()
        {
            state.start(delay, work);
        }
        changed.notify_one();
    }

    /// Most requests in service and most in line at the same time, since [`Self::reset`].
    pub fn most(&self) -> (usize, usize) {
        let state = held(&self.0.0);
        (state.in_service_max, state.in_line_max)
    }

    /// Forgets what [`Self::most`] says.
    pub fn reset(&self) {
        let mut state = held(&self.0.0);
        (state.in_service_max, state.in_line_max) = (state.in_service, state.line.len());
    }

    /// Ends its threads. What is still waiting is not served.
    pub fn end(&self) {
        let (state, changed) = &*self.0;
        let mut state = held(state);
        state.ended = true;
        state.delayed.clear();
        state.line.clear();
        changed.notify_one();
    }
}
