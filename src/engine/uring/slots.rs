//! The memory that the kernel reads and writes while checks are in flight: allocated once, never moved.
//!
//! A slot is *home* (free, ours alone) or *away* (its check is with the kernel). [`Slots::send`] takes one away,
//! [`Slots::receive`] brings it home; in between nothing here touches its memory. A slot also holds its directory open:
//! the kernel looks the number up only when a worker begins.

use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::Arc;

use io_uring::{opcode, squeue, types};
use rustix::io::Errno;

use crate::engine::dir_fd::DirFd;
use crate::engine::driver::{Check, Ended, Ticket};
use crate::engine::plain;
use crate::engine::stat::{Stamp, StatName};

/// What the kernel sees of a slot.
struct Shared {
    name: StatName,
    answer: libc::statx,
}

/// What only we see of a slot that is away.
#[derive(Debug)]
struct Away {
    ticket: Ticket,
    stamps: bool,
    _dir: Arc<DirFd>,
}

/// A fixed number of slots.
#[derive(Debug)]
pub(super) struct Slots {
    /// `away.len()` of them, from a boxed slice. A pointer and not the box, since a box claims that nobody else writes.
    shared: NonNull<Shared>,
    away: Box<[Option<Away>]>,
    home: Vec<usize>,
}

impl Slots {
    pub(super) fn new(count: usize) -> Self {
        // SAFETY: `libc::statx` is a C struct of integers, for which all bits zero is a value.
        let answer = unsafe { std::mem::zeroed::<libc::statx>() };
        let empty = StatName::new("").expect("an empty name is short enough");
        let shared: Box<[Shared]> = (0..count).map(|_| Shared { name: empty, answer }).collect();
        Self {
            // Into a thin pointer to the first; `drop` puts the slice together again.
            shared: NonNull::new(Box::into_raw(shared).cast::<Shared>()).expect("a box is never null"),
            away: (0..count).map(|_| None).collect(),
            home: (0..count).rev().collect(),
        }
    }

    /// Takes a slot away for `check` and makes the ring operation that uses its memory; its user data is the slot's
    /// number.
    ///
    /// The operation must be pushed to the ring, and [`Self::receive`] be called when it completes. Whoever drops the
    /// operation instead leaves the slot away for good, which is safe and is seen at the drop.
    pub(super) fn send(&mut self, check: Check<'_>) -> squeue::Entry {
        let slot = self.home.pop().expect("the schedule hands over no more checks than there are slots");
        debug_assert!(self.away[slot].is_none(), "a slot at home belongs to nobody");
        let shared = self.at(slot);
        // SAFETY: `shared` points into our allocation; the slot was home, so the kernel has no operation that uses it,
        // and we are the only thread that has `self`.
        unsafe { (*shared).name = *check.name };
        // SAFETY: as above; these only compute addresses inside of the slot.
        let (name, answer) = unsafe { (&raw const (*shared).name, &raw mut (*shared).answer) };
        self.away[slot] = Some(Away { ticket: check.ticket, stamps: check.stamps, _dir: Arc::clone(check.dir) });
        // `StatName` is its bytes alone (checked by a test), NUL-terminated.
        opcode::Statx::new(types::Fd(check.dir.as_fd().as_raw_fd()), name.cast(), answer.cast())
            .flags(plain::sync_flag(check.force_sync).bits().cast_signed())
            .mask(plain::mask(check.stamps).bits())
            .build()
            .user_data(slot as u64)
    }

    /// Brings the slot of a completed operation home. `user_data` and `result` are the completion's.
    pub(super) fn receive(&mut self, user_data: u64, result: i32) -> Ended {
        let slot = usize::try_from(user_data).expect("user data is a slot's number");
        let Away { ticket, stamps, _dir } = self.away[slot].take().expect("an operation completes once");
        self.home.push(slot);
        if result < 0 {
            return Ended { ticket, result: Err(Errno::from_raw_os_error(-result)) };
        }
        // SAFETY: inside our allocation, initialised since `new`; the operation has completed, so the kernel writes no
        // more.
        let answer = unsafe { &(*self.at(slot)).answer };
        let stamp = || {
            let (mtime, ctime) = (answer.stx_mtime, answer.stx_ctime);
            let dev = (answer.stx_dev_major, answer.stx_dev_minor);
            plain::stamp_of(dev, answer.stx_ino, (mtime.tv_sec, mtime.tv_nsec), (ctime.tv_sec, ctime.tv_nsec))
        };
        let stamp = if stamps { stamp() } else { Stamp::default() };
        let stat = plain::file_stat(answer.stx_mode, answer.stx_size, answer.stx_atime.tv_sec, stamp);
        Ended { ticket, result: Ok(stat) }
    }

    /// How many are with the kernel.
    pub(super) fn away(&self) -> usize {
        self.away.len() - self.home.len()
    }

    fn at(&self, slot: usize) -> *mut Shared {
        assert!(slot < self.away.len());
        // SAFETY: the allocation holds `away.len()` slots, and `slot` is below it.
        unsafe { self.shared.as_ptr().add(slot) }
    }
}

impl Drop for Slots {
    #[expect(clippy::mem_forget, reason = "memory and directories that the kernel may still use")]
    fn drop(&mut self) {
        if self.away() > 0 {
            // The kernel may still write. Losing some kilobytes is better than letting it write into memory that is
            // used again.
            tracing::error!(away = self.away(), "a ring ended before its checks; their memory is given up");
            for away in &mut self.away {
                std::mem::forget(away.take());
            }
            return;
        }
        let shared = std::ptr::slice_from_raw_parts_mut(self.shared.as_ptr(), self.away.len());
        // SAFETY: pointer and length are those of the boxed slice that `new` took apart, and no operation uses it any
        // more.
        drop(unsafe { Box::from_raw(shared) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::FileKind;
    use crate::engine::schedule::{Limits, Schedule};
    use crate::engine::stat::Class;

    #[test]
    fn a_name_is_its_bytes_alone() {
        let name = StatName::new("abc").unwrap();
        assert_eq!(std::mem::size_of::<StatName>(), 72);
        assert_eq!(std::ptr::from_ref(&name).cast::<i8>(), name.as_c_str().as_ptr());
    }

    #[test]
    fn a_slot_is_away_from_send_to_receive() {
        let dir = Arc::new(DirFd::from(std::os::fd::OwnedFd::from(std::fs::File::open("/").unwrap())));
        let key = Schedule::new(Limits { workers: 1, slots: 1 }).add(Class::Sweep, 1, ());
        let name = StatName::new("etc").unwrap();
        let urgency = crate::engine::priority::Urgency::Foreground;
        let check = |pos| Check {
            ticket: Ticket { key, pos },
            dir: &dir,
            name: &name,
            force_sync: false,
            stamps: false,
            urgency,
        };
        let mut slots = Slots::new(2);
        slots.send(check(0));
        slots.send(check(1));
        assert_eq!((slots.away(), Arc::strong_count(&dir)), (2, 3));
        let ended = slots.receive(0, -libc::ENOENT);
        assert_eq!((ended.ticket, ended.result), (Ticket { key, pos: 0 }, Err(Errno::NOENT)));
        // Nobody wrote an answer: it is the zeros of the beginning, not garbage.
        let ended = slots.receive(1, 0);
        assert_eq!(ended.result.map(|s| (s.kind, s.size_bytes)), Ok((FileKind::Other, 0)));
        assert_eq!((slots.away(), Arc::strong_count(&dir)), (0, 1));
    }

    #[test]
    fn memory_of_a_slot_that_is_away_is_never_freed() {
        let dir = Arc::new(DirFd::from(std::os::fd::OwnedFd::from(std::fs::File::open("/").unwrap())));
        let key = Schedule::new(Limits { workers: 1, slots: 1 }).add(Class::Sweep, 1, ());
        let name = StatName::new("etc").unwrap();
        let mut slots = Slots::new(1);
        let urgency = crate::engine::priority::Urgency::Foreground;
        slots.send(Check {
            ticket: Ticket { key, pos: 0 },
            dir: &dir,
            name: &name,
            force_sync: false,
            stamps: false,
            urgency,
        });
        drop(slots);
        assert_eq!(Arc::strong_count(&dir), 2, "the directory stays open with it");
    }
}
