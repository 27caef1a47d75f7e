//! Presence checks by the kernel's own workers, over an io_uring. The only folder with `unsafe`, so what else needs it is here too: [`ioprio`].
//!
//! `IORING_OP_STATX` never completes inline: the kernel gives each to a worker thread of its own. What the ring gains
//! is concurrency, one system call for a batch, and no threads of ours. The number of those workers belongs to the
//! thread that submits, hence one thread and one ring per datastore (`docs/performance.md`).
//!
//! Who keeps memory alive: [`slots`] owns every path and every answer that the kernel may touch, and counts which are
//! with the kernel. [`ring`] submits and waits; when it goes, in a panic too, it first waits until all slots are home.

pub(super) mod ioprio;
mod ring;
mod slots;
mod wake;

pub(super) use ring::Ring;
pub(super) use wake::WakeFd;
