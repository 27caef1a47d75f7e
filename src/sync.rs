//! A mutex that knows when somebody would wait for a disk while holding it.
//!
//! Every in-memory lock of this crate is a [`Mutex`] of this module. It counts, per thread, how many are held;
//! the engine asks [`note_disk_work`] at each operation. A lock held there is a defect: it is counted
//! and logged, and the tests fail when the count is not zero. The count costs about a nanosecond a lock.

use std::cell::Cell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU64, Ordering};

thread_local! {
    static HELD: Cell<u32> = const { Cell::new(0) };
}

static VIOLATIONS: AtomicU64 = AtomicU64::new(0);

/// A mutual exclusion lock for values in memory. A panic of a holder does not poison it: every critical section
/// of this crate leaves its value whole at each step.
#[derive(Debug, Default)]
pub struct Mutex<T> {
    inner: std::sync::Mutex<T>,
}

/// Gives the value back when dropped.
#[derive(Debug)]
pub struct MutexGuard<'a, T> {
    inner: std::sync::MutexGuard<'a, T>,
    _held: Held,
}

/// Counts one lock of this thread for as long as it lives.
#[derive(Debug)]
struct Held;

impl Held {
    fn begin() -> Self {
        HELD.with(|held| held.set(held.get() + 1));
        Self
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        HELD.with(|held| held.set(held.get() - 1));
    }
}

/// Lets a thread of the crate's own sleep until another one has changed what a [`Mutex`] guards.
#[derive(Debug, Default)]
pub struct Condvar {
    inner: std::sync::Condvar,
}

impl Condvar {
    /// One that nobody waits for yet.
    pub const fn new() -> Self {
        Self { inner: std::sync::Condvar::new() }
    }

    /// Gives the lock back, sleeps until woken, and takes it again. May wake for nothing: check in a loop.
    pub fn wait<'a, T>(&self, guard: MutexGuard<'a, T>) -> MutexGuard<'a, T> {
        let MutexGuard { inner, _held } = guard;
        let inner = self.inner.wait(inner).unwrap_or_else(std::sync::PoisonError::into_inner);
        MutexGuard { inner, _held }
    }

    /// Wakes one sleeper.
    pub fn notify_one(&self) {
        self.inner.notify_one();
    }

    /// Wakes all sleepers.
    pub fn notify_all(&self) {
        self.inner.notify_all();
    }
}

impl<T> Mutex<T> {
    /// A lock around `value`.
    pub const fn new(value: T) -> Self {
        Self { inner: std::sync::Mutex::new(value) }
    }

    /// Waits for the lock. Hold it for memory work only.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        MutexGuard { inner, _held: Held::begin() }
    }

    /// The value, when nobody else can hold the lock.
    pub fn into_inner(self) -> T {
        self.inner.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// Called by the engine before it touches a disk: counts and logs a lock that this thread holds.
pub fn note_disk_work(what: &str) {
    let held = HELD.with(Cell::get);
    if held > 0 {
        VIOLATIONS.fetch_add(1, Ordering::Relaxed);
        tracing::error!(what, held, "a lock is held while the disk works; please report this");
    }
}

/// How often [`note_disk_work`] found a lock held, since the process began.
pub fn violations() -> u64 {
    VIOLATIONS.load(Ordering::Relaxed)
}

/// How many locks this thread holds.
pub fn held_by_this_thread() -> u32 {
    HELD.with(Cell::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_lock_is_seen_and_a_dropped_one_is_not() {
        let lock = Mutex::new(1);
        let guard = lock.lock();
        assert_eq!(held_by_this_thread(), 1);
        let nested = Mutex::new(2);
        assert_eq!(*nested.lock() + *guard, 3);
        drop(guard);
        assert_eq!(held_by_this_thread(), 0);
    }
}
