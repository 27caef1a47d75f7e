//! Pruning: which snapshots of a group go, and their removal (spec 07 §2).
//!
//! [`retention`] decides, from values alone. [`run`] asks a datastore, lets it decide, and removes oldest first. Chunks stay;
//! garbage collection frees their space.

pub mod retention;
pub mod run;

pub use retention::{Candidate, KeepOptions, Mark, marks};
pub use run::{Decision, Report, Scope, local_zone, plan_group, prune_datastore, prune_group};

#[cfg(test)]
mod retention_tests;
#[cfg(test)]
mod run_tests;
