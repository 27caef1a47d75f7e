//! Which tasks run and which have ended, in memory: listings and states are answered without a disk.
//!
//! Ended tasks are kept as the lines of the archive and taken apart when somebody asks: 20,000 of them are some 3 MiB, and
//! a page of a listing reads only as many as it shows.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use tokio::sync::watch;

use super::entry::{TaskStatus, split_archive_line};
use crate::clock::EpochSecs;
use crate::sync::Mutex;
use crate::types::Upid;

/// Most memory for ended tasks. Reached only by lines that are ten times as long as usual; then fewer are kept.
const ENDED_BYTES_MAX: usize = 32 << 20;

/// How many ended tasks are looked at in one go: some hundred microseconds of a runtime thread.
const BATCH_TASKS: usize = 256;

/// A task and, once it has ended, when and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub upid: Upid,
    /// Its end; `None` while it runs.
    pub ended: Option<(EpochSecs, TaskStatus)>,
}

#[derive(Debug, Default)]
pub(super) struct Book {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    running: HashMap<String, Running>,
    /// Lines of the archive, oldest first.
    ended: VecDeque<Arc<str>>,
    ended_bytes: usize,
    /// Ended tasks that were forgotten so far: the number of the oldest one that is still here.
    forgotten: u64,
}

#[derive(Debug)]
struct Running {
    upid: Arc<Upid>,
    abort: watch::Sender<bool>,
}

impl Book {
    pub(super) fn begin(&self, upid: Arc<Upid>, abort: watch::Sender<bool>) {
        self.state.lock().running.insert(upid.to_string(), Running { upid, abort });
    }

    /// From running to ended, at once for whoever looks. `line` is that of the archive.
    pub(super) fn end(&self, upid: &Upid, line: &str) {
        let mut state = self.state.lock();
        state.running.remove(&upid.to_string());
        state.ended_bytes += line.len();
        state.ended.push_back(line.into());
    }

    /// Takes the oldest ended task away when there are more than `keep` or when they are too long; its line.
    pub(super) fn forget_oldest(&self, keep: usize) -> Option<Arc<str>> {
        let mut state = self.state.lock();
        if state.ended.len() <= keep && state.ended_bytes <= ENDED_BYTES_MAX {
            return None;
        }
        let line = state.ended.pop_front()?;
        state.ended_bytes -= line.len();
        state.forgotten += 1;
        Some(line)
    }

    /// The lines of all ended tasks, oldest first.
    pub(super) fn ended_lines(&self) -> Vec<Arc<str>> {
        self.state.lock().ended.iter().cloned().collect()
    }

    #[cfg(test)]
    pub(super) fn ended_count(&self) -> usize {
        self.state.lock().ended.len()
    }

    pub(super) fn abort(&self, upid: &Upid) -> bool {
        match self.state.lock().running.get(&upid.to_string()) {
            Some(running) => {
                running.abort.send_replace(true);
                true
            }
            None => false,
        }
    }

    pub(super) fn is_running(&self, upid: &Upid) -> bool {
        self.state.lock().running.contains_key(&upid.to_string())
    }

    pub(super) fn running_count(&self) -> usize {
        self.state.lock().running.len()
    }

    /// Begins a walk over what there is now: running tasks, the newest first, then ended ones, the one that ended last
    /// first.
    pub(super) fn walk(self: &Arc<Self>) -> Walk {
        let state = self.state.lock();
        let mut running: Vec<Arc<Upid>> = state.running.values().map(|running| running.upid.clone()).collect();
        let next = state.forgotten + state.ended.len() as u64;
        drop(state);
        running.sort_by_key(|upid| std::cmp::Reverse((upid.start, upid.task_id)));
        Walk { book: self.clone(), running: Some(running), next }
    }

    /// The end of a task that has ended and is not forgotten.
    pub(super) fn ended(self: &Arc<Self>, upid: &Upid) -> Option<(EpochSecs, TaskStatus)> {
        let begin = format!("{upid} ");
        let mut walk = self.walk();
        walk.running = None;
        while let Some(lines) = walk.lines() {
            if let Some(line) = lines.iter().find(|line| line.starts_with(&begin)) {
                return split_archive_line(line).and_then(|listed| listed.ended);
            }
        }
        None
    }
}

/// A walk over all tasks. What begins or ends meanwhile is not in it, what is forgotten meanwhile may be missing.
#[derive(Debug)]
pub struct Walk {
    book: Arc<Book>,
    running: Option<Vec<Arc<Upid>>>,
    /// The number after that of the next line.
    next: u64,
}

impl Walk {
    /// The next few tasks; `None` after the last.
    pub fn batch(&mut self) -> Option<Vec<Listed>> {
        if let Some(running) = self.running.take() {
            return Some(running.into_iter().map(|upid| Listed { upid: (*upid).clone(), ended: None }).collect());
        }
        Some(self.lines()?.iter().filter_map(|line| split_archive_line(line)).collect())
    }

    /// Leaves the ended tasks out.
    #[must_use]
    pub fn only_running(mut self) -> Self {
        self.next = 0;
        self
    }

    fn lines(&mut self) -> Option<Vec<Arc<str>>> {
        let state = self.book.state.lock();
        let left = usize::try_from(self.next.saturating_sub(state.forgotten)).unwrap_or(usize::MAX);
        let count = left.min(BATCH_TASKS);
        let lines: Vec<Arc<str>> = state.ended.range(left - count..left).rev().cloned().collect();
        self.next = self.next.saturating_sub(count as u64);
        (!lines.is_empty()).then_some(lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upid(n: usize) -> Upid {
        format!("UPID:a:00000001:00000001:{n:08X}:66607C8A:backup:x:root@pam:").parse().unwrap()
    }

    fn line(n: usize) -> String {
        format!("{} 66607C8A OK", upid(n))
    }

    fn numbers(mut walk: Walk) -> Vec<u64> {
        std::iter::from_fn(|| walk.batch()).flatten().map(|listed| listed.upid.task_id).collect()
    }

    #[test]
    fn running_ones_come_first_and_the_last_to_end_next() {
        let book = Arc::new(Book::default());
        for n in 1..=3 * BATCH_TASKS {
            book.end(&upid(n), &line(n));
        }
        for n in [9_001, 9_002] {
            book.begin(Arc::new(upid(n)), watch::Sender::new(false));
        }
        let all: Vec<u64> = [9_002, 9_001].into_iter().chain((1..=3 * BATCH_TASKS as u64).rev()).collect();
        assert_eq!(numbers(book.walk()), all);
        assert_eq!(numbers(book.walk().only_running()), [9_002, 9_001]);
        book.end(&upid(9_001), &format!("{} 66607C8B WARNINGS: 2", upid(9_001)));
        assert_eq!(numbers(book.walk())[..3], [9_002, 9_001, 3 * BATCH_TASKS as u64]);
        assert_eq!(book.ended(&upid(9_001)), Some((EpochSecs(0x6660_7C8B), TaskStatus::Warnings(2))));
        assert_eq!(book.ended(&upid(1)), Some((EpochSecs(0x6660_7C8A), TaskStatus::Ok)));
        assert_eq!(book.ended(&upid(9_002)), None);
    }

    #[test]
    fn what_changes_during_a_walk_does_not_disturb_it() {
        let book = Arc::new(Book::default());
        (1..=2 * BATCH_TASKS).for_each(|n| book.end(&upid(n), &line(n)));
        let mut walk = book.walk();
        assert_eq!(walk.batch(), Some(Vec::new()), "none runs");
        let first = walk.batch().unwrap();
        assert_eq!(first.len(), BATCH_TASKS);
        book.end(&upid(7_000), &line(7_000));
        // All but the newest two go: of the walk's rest only one is left.
        while book.forget_oldest(BATCH_TASKS + 2).is_some() {}
        let rest: Vec<u64> = numbers(walk);
        assert_eq!(rest, [BATCH_TASKS as u64]);
        while book.forget_oldest(0).is_some() {}
        assert_eq!(numbers(book.walk()), [0; 0]);
        assert_eq!(book.ended_count(), 0);
    }

    #[test]
    fn long_lines_are_bounded_too() {
        let book = Book::default();
        let long = format!("{} 66607C8A {}", upid(1), "x".repeat(4000));
        for _ in 0..2 * ENDED_BYTES_MAX / long.len() {
            book.end(&upid(1), &long);
            book.forget_oldest(usize::MAX);
        }
        assert!(book.state.lock().ended_bytes <= ENDED_BYTES_MAX);
    }
}
