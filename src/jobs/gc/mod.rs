//! Garbage collection: removes the chunks that no index names (spec 07 §1), without touching those that one does (design §5).
//!
//! ```text
//! run ─▶ begin: nobody else works on this datastore, and what comes from now on is watched; a run that was cut off is gone on with
//!     ─▶ mark   every index file once ─▶ the set of live chunks, 12 bytes each
//!     ─▶ sweep  every chunk directory that has changed: a name in the set is done; the others are looked at, judged by cutoff, removed
//!     ─▶ report status, log
//! ```
//!
//! Why no chunk is removed that somebody needs, race by race: `docs/garbage-collection.md`. The removal itself, and what it asks before, is
//! [`Pass::remove`](crate::store::Pass::remove).

pub mod cutoff;
mod look;
mod mark;
mod report;
mod resume;
mod run;
mod sweep;

#[cfg(test)]
mod tests;

pub use report::{GcStatus, Marked, Swept};
pub use resume::{Manner, progress_made};
pub use run::{GcReport, WORKER_TYPE, begin, run, start};
