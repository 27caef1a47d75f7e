//! Which checks come next when several batches are under way. Pure.
//!
//! Three lanes, interactive before sweep before background. Batches of one lane take turns, a *piece* of at most [`PIECE_NAMES`] names
//! each, so a sweep of a million names holds nobody up for longer than a piece. A batch is examined only when the names
//! of its last piece that need a worker have been handed over: that keeps the list of waiting names short. Sweeps and
//! background work together never have more than `workers` checks in flight, so an interactive check that is handed over finds only running work
//! before it, never a queue of a sweep.

use std::collections::VecDeque;
use std::ops::Range;

use super::priority::Urgency;
use super::stat::Class;

/// Names looked at in one go. The usual append of a client; 0.3 ms when warm.
pub(super) const PIECE_NAMES: usize = 128;

/// How many checks may be with the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Checks that are really made at the same time; sweeps get no more.
    pub(super) workers: usize,
    /// Checks in flight altogether: some wait behind the workers, so that none of these idles while we sleep.
    pub(super) slots: usize,
}

/// Names a batch for as long as it is in the schedule; used again afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(usize);

/// The batches under way, each with a `T` of the caller's.
#[derive(Debug)]
pub(super) struct Schedule<T> {
    limits: Limits,
    entries: Vec<Option<Entry<T>>>,
    free: Vec<Key>,
    /// Batches with names that are not examined or not handed over, next first; one lane per class.
    lanes: [VecDeque<Key>; 3],
    in_flight: [usize; 3],
}

#[derive(Debug)]
struct Entry<T> {
    payload: T,
    class: Class,
    names: usize,
    /// Names before this one have been examined.
    examined: usize,
    /// Positions of examined names that need a worker and have none yet.
    waiting: VecDeque<u32>,
    in_flight: usize,
}

const CLASSES: [Class; 3] = [Class::Interactive, Class::Sweep, Class::Background];

impl<T> Schedule<T> {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, entries: Vec::new(), free: Vec::new(), lanes: Default::default(), in_flight: [0; 3] }
    }

    /// Takes a batch of `names` names in, behind those of its class.
    pub(super) fn add(&mut self, class: Class, names: usize, payload: T) -> Key {
        let entry = Entry { payload, class, names, examined: 0, waiting: VecDeque::new(), in_flight: 0 };
        let key = self.free.pop().unwrap_or_else(|| {
            self.entries.push(None);
            Key(self.entries.len() - 1)
        });
        self.entries[key.0] = Some(entry);
        if names > 0 {
            self.lanes[class as usize].push_back(key);
        }
        key
    }

    /// The caller's part of a batch.
    pub(super) fn payload(&mut self, key: Key) -> &mut T {
        &mut self.entry(key).payload
    }

    /// The next piece to be examined, of the first batch in the order of lanes that has one; its batch goes behind the
    /// others of its lane.
    pub(super) fn next_piece(&mut self) -> Option<(Key, Range<usize>)> {
        for class in CLASSES {
            let lane = &self.lanes[class as usize];
            let found = lane.iter().position(|key| {
                let entry = self.entries[key.0].as_ref().expect("a lane names only batches that are there");
                entry.waiting.is_empty() && entry.examined < entry.names
            });
            if let Some(at) = found {
                let lane = &mut self.lanes[class as usize];
                let key = lane.remove(at).expect("the place was just found");
                lane.push_back(key);
                let entry = self.entry(key);
                let piece = entry.examined..entry.names.min(entry.examined + PIECE_NAMES);
                entry.examined = piece.end;
                return Some((key, piece));
            }
        }
        None
    }

    /// An examined name turned out to need a worker; so does one that came back without an answer.
    pub(super) fn needs_worker(&mut self, key: Key, pos: u32) {
        let entry = self.entry(key);
        entry.waiting.push_back(pos);
        let class = entry.class;
        let lane = &mut self.lanes[class as usize];
        if !lane.contains(&key) {
            lane.push_front(key);
        }
    }

    /// The next check for a worker, counted as in flight from now on; `None` when nobody waits or no more may be in
    /// flight.
    pub(super) fn next_hand_over(&mut self) -> Option<(Key, u32)> {
        if self.in_flight() >= self.limits.slots {
            return None;
        }
        for class in CLASSES {
            let patient = self.in_flight[Class::Sweep as usize] + self.in_flight[Class::Background as usize];
            if class != Class::Interactive && patient >= self.limits.workers {
                continue;
            }
            let lane = &self.lanes[class as usize];
            let entries = &mut self.entries;
            let waiting = |key: &&Key| entries[key.0].as_ref().is_some_and(|entry| !entry.waiting.is_empty());
            if let Some(&key) = lane.iter().find(waiting) {
                let entry = self.entry(key);
                let pos = entry.waiting.pop_front().expect("the batch was chosen because it has one");
                entry.in_flight += 1;
                self.in_flight[class as usize] += 1;
                self.leave_lane_if_spent(key);
                return Some((key, pos));
            }
        }
        None
    }

    /// A check that was handed over has ended, with an answer or without.
    pub(super) fn ended(&mut self, key: Key) {
        let entry = self.entry(key);
        entry.in_flight -= 1;
        let class = entry.class;
        self.in_flight[class as usize] -= 1;
    }

    /// Takes a batch out when all its names have been examined and none waits or is in flight.
    pub(super) fn take_if_done(&mut self, key: Key) -> Option<T> {
        let entry = self.entry(key);
        if entry.examined < entry.names || !entry.waiting.is_empty() || entry.in_flight > 0 {
            return None;
        }
        self.leave_lane_if_spent(key);
        self.free.push(key);
        self.entries[key.0].take().map(|entry| entry.payload)
    }

    /// Checks that are with the workers now.
    pub(super) fn in_flight(&self) -> usize {
        self.in_flight.iter().sum()
    }

    /// For whom the batches under way are: for jobs if all of them are. `None` without any.
    pub(super) fn urgency(&self) -> Option<Urgency> {
        let somebody_waits =
            |class: Class| self.in_flight[class as usize] > 0 || !self.lanes[class as usize].is_empty();
        if somebody_waits(Class::Interactive) || somebody_waits(Class::Sweep) {
            Some(Urgency::Foreground)
        } else {
            somebody_waits(Class::Background).then_some(Urgency::Background)
        }
    }

    /// Whether no batch is under way.
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.entries.len()
    }

    fn leave_lane_if_spent(&mut self, key: Key) {
        let entry = self.entry(key);
        if entry.examined == entry.names && entry.waiting.is_empty() {
            let class = entry.class;
            self.lanes[class as usize].retain(|other| *other != key);
        }
    }

    fn entry(&mut self, key: Key) -> &mut Entry<T> {
        self.entries[key.0].as_mut().expect("a key is used only while its batch is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(workers: usize, slots: usize) -> Schedule<&'static str> {
        Schedule::new(Limits { workers, slots })
    }

    /// Examines the next piece, finding that every name of it needs a worker.
    fn examine_cold(s: &mut Schedule<&'static str>) -> Option<(&'static str, Range<usize>)> {
        let (key, piece) = s.next_piece()?;
        for pos in piece.clone() {
            s.needs_worker(key, u32::try_from(pos).unwrap());
        }
        Some((*s.payload(key), piece))
    }

    #[test]
    fn an_interactive_batch_waits_for_one_piece_of_a_sweep_at_most() {
        let mut s = schedule(4, 8);
        s.add(Class::Sweep, 1000, "sweep");
        let (sweep, piece) = s.next_piece().unwrap();
        assert_eq!((*s.payload(sweep), piece), ("sweep", 0..128));
        let append = s.add(Class::Interactive, 200, "append");
        assert_eq!(s.next_piece(), Some((append, 0..128)));
        assert_eq!(s.next_piece(), Some((append, 128..200)));
        assert_eq!(s.next_piece(), Some((sweep, 128..256)));
        assert_eq!(s.take_if_done(append), Some("append"));
        assert_eq!(s.take_if_done(sweep), None);
    }

    #[test]
    fn batches_of_one_class_take_turns() {
        let mut s = schedule(4, 8);
        s.add(Class::Sweep, 256, "a");
        s.add(Class::Sweep, 256, "b");
        let order: Vec<_> = std::iter::from_fn(|| s.next_piece().map(|(key, _)| *s.payload(key))).collect();
        assert_eq!(order, ["a", "b", "a", "b"]);
    }

    #[test]
    fn a_cold_batch_is_examined_no_further_than_its_waiting_piece() {
        let mut s = schedule(4, 8);
        s.add(Class::Sweep, 1000, "sweep");
        assert_eq!(examine_cold(&mut s), Some(("sweep", 0..128)));
        assert_eq!(examine_cold(&mut s), None);
        s.add(Class::Sweep, 10, "other");
        assert_eq!(examine_cold(&mut s), Some(("other", 0..10)));
    }

    #[test]
    fn a_sweep_leaves_slots_free_and_an_interactive_check_takes_the_next_one() {
        let mut s = schedule(4, 8);
        s.add(Class::Sweep, 20, "sweep");
        examine_cold(&mut s);
        let sweeping: Vec<_> = std::iter::from_fn(|| s.next_hand_over()).collect();
        assert_eq!(sweeping.len(), 4, "as many as there are workers");
        s.add(Class::Interactive, 6, "append");
        examine_cold(&mut s);
        let mut appended = 0;
        while let Some((key, _)) = s.next_hand_over() {
            assert_eq!(*s.payload(key), "append");
            appended += 1;
        }
        assert_eq!((appended, s.in_flight()), (4, 8), "no more than there are slots");
        // A sweep's check ends: the interactive batch gets the slot although the sweep is below its own bound.
        s.ended(sweeping[0].0);
        let (key, pos) = s.next_hand_over().unwrap();
        assert_eq!((*s.payload(key), pos), ("append", 4));
    }

    #[test]
    fn background_work_comes_last_and_is_told_from_what_somebody_waits_for() {
        let mut s = schedule(4, 8);
        assert_eq!(s.urgency(), None);
        let job = s.add(Class::Background, 20, "job");
        assert_eq!(s.urgency(), Some(Urgency::Background));
        examine_cold(&mut s);
        assert_eq!(s.next_hand_over(), Some((job, 0)));
        let finish = s.add(Class::Sweep, 10, "finish");
        assert_eq!(s.urgency(), Some(Urgency::Foreground));
        examine_cold(&mut s);
        let handed: Vec<Key> = std::iter::from_fn(|| s.next_hand_over()).map(|(key, _)| key).collect();
        assert_eq!(handed, [finish; 3], "together as many as there are workers");
        s.add(Class::Interactive, 1, "append");
        assert_eq!(examine_cold(&mut s), Some(("append", 0..1)));
        let append = s.next_hand_over().unwrap().0;
        [append, finish, finish, finish].into_iter().for_each(|key| s.ended(key));
        while s.next_hand_over().is_some_and(|(key, _)| key == finish) {
            s.ended(finish);
        }
        assert_eq!(s.urgency(), Some(Urgency::Background), "only the job is left");
    }

    #[test]
    fn a_batch_is_done_when_all_its_checks_are_back() {
        let mut s = schedule(4, 8);
        let key = s.add(Class::Interactive, 2, "append");
        assert_eq!(s.take_if_done(key), None);
        examine_cold(&mut s);
        s.next_hand_over().unwrap();
        s.next_hand_over().unwrap();
        assert_eq!(s.next_hand_over(), None);
        s.ended(key);
        assert_eq!(s.take_if_done(key), None);
        // The last one came back without an answer and goes again.
        s.ended(key);
        s.needs_worker(key, 1);
        assert_eq!(s.take_if_done(key), None);
        assert_eq!(s.next_hand_over(), Some((key, 1)));
        s.ended(key);
        assert_eq!(s.take_if_done(key), Some("append"));
        assert!(s.is_empty());
    }

    #[test]
    fn an_empty_batch_is_done_at_once_and_its_key_is_used_again() {
        let mut s = schedule(4, 8);
        let key = s.add(Class::Sweep, 0, "nothing");
        assert_eq!(s.next_piece(), None);
        assert_eq!(s.take_if_done(key), Some("nothing"));
        assert_eq!(s.add(Class::Sweep, 1, "something"), key);
    }
}
