//! A queue between threads that can be closed: what was taken in before is still handed out, then comes the end.
//! It has no bound of its own; whoever pushes holds a permit or a slot that bounds it.

use std::collections::VecDeque;

use crate::sync::{Condvar, Mutex};

/// First in, first out, for any number of threads at both ends.
#[derive(Debug)]
pub(super) struct WorkQueue<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

/// What an attempt to take something found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken<T> {
    /// The oldest item.
    Item(T),
    /// Nothing at present.
    Empty,
    /// Nothing, and never again.
    Closed,
}

impl<T> WorkQueue<T> {
    pub(super) fn new() -> Self {
        Self { state: Mutex::new(State { items: VecDeque::new(), closed: false }), changed: Condvar::new() }
    }

    /// Gives the item back when the queue is closed.
    pub(super) fn push(&self, item: T) -> Result<(), T> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(item);
        }
        state.items.push_back(item);
        drop(state);
        self.changed.notify_one();
        Ok(())
    }

    /// Sleeps until there is an item; `None` when the queue is closed and empty.
    pub(super) fn pop(&self) -> Option<T> {
        let mut state = self.state.lock();
        loop {
            if let Some(item) = state.items.pop_front() {
                return Some(item);
            }
            if state.closed {
                return None;
            }
            state = self.changed.wait(state);
        }
    }

    /// Takes an item if there is one.
    pub(super) fn try_pop(&self) -> Taken<T> {
        let mut state = self.state.lock();
        match state.items.pop_front() {
            Some(item) => Taken::Item(item),
            None if state.closed => Taken::Closed,
            None => Taken::Empty,
        }
    }

    /// Whether there is nothing inside at present and something may still come.
    pub(super) fn would_wait(&self) -> bool {
        let state = self.state.lock();
        state.items.is_empty() && !state.closed
    }

    /// Refuses further items. Those inside are still handed out.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    /// Refuses further items and throws away those inside.
    pub(super) fn close_and_clear(&self) {
        let mut state = self.state.lock();
        state.closed = true;
        let thrown_away = std::mem::take(&mut state.items);
        drop(state);
        self.changed.notify_all();
        // Only now: dropping an item may run code of others.
        drop(thrown_away);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_inside_at_the_close_still_comes_out() {
        let queue = WorkQueue::new();
        assert_eq!(queue.try_pop(), Taken::Empty);
        queue.push(1).unwrap();
        queue.push(2).unwrap();
        queue.close();
        assert_eq!(queue.push(3), Err(3));
        assert_eq!(queue.pop(), Some(1));
        assert_eq!(queue.try_pop(), Taken::Item(2));
        assert_eq!(queue.try_pop(), Taken::Closed);
        assert_eq!(queue.pop(), None);
    }

    #[test]
    fn the_close_wakes_every_sleeper() {
        let queue = WorkQueue::<u8>::new();
        std::thread::scope(|scope| {
            let sleepers: Vec<_> = (0..4).map(|_| scope.spawn(|| queue.pop())).collect();
            queue.close_and_clear();
            assert!(sleepers.into_iter().all(|sleeper| sleeper.join().unwrap().is_none()));
        });
    }
}
