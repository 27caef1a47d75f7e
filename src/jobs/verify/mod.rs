//! Verification: every chunk that a snapshot names is read, and is what its name says (spec 07 §3).
//!
//! ```text
//! scope ● ─ which snapshots, in which order ─→ run ─ one after another ─→ snapshot ─ its files ─→ chunks ─ 8 reads ahead ─→ verdict ●
//! ```
//!
//! Where we differ from the original, on purpose (docs/compatibility.md): a chunk that looks bad is read again before it is called bad; an
//! error of the disk is not corruption; a chunk that is right and of another length than an index says is not renamed, for the index is
//! wrong then; and a snapshot that a backup's known-chunk check has marked is looked at again though it has a state.

mod chunks;
mod figures;
mod part;
mod resume;
mod run;
mod scope;
mod seen;
mod snapshot;
mod verdict;

#[cfg(test)]
mod tests;

pub use figures::Figures;
pub use part::{NthPart, PARTS_MAX, Part, Percent};
pub use resume::progress_made;
pub use run::{JOB_WORKER_TYPE, Permit, Started, Verification, everybody};
pub use scope::{Filter, Scope};
