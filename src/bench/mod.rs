//! `ringvault bench`: how fast a datastore is, in the words of fio.
//!
//! ```text
//!  options, job files ─▶ job (what to do)  ─▶ run (threads, groups, clean-up) ─▶ workload/* ─▶ store, client, jobs
//!                                                  │
//!                                                  ▼
//!                            live, Stats (what was measured) ─▶ report: fio's text, JSON, status line
//! ```
//!
//! An *I/O* is what fio means by it: one check of one chunk, one chunk written or read. I/Os that are submitted as one batch
//! and answered together share their latency, as in fio with `iodepth_batch_submit` and `iodepth_batch_complete`.

mod cold;
pub mod disk_use;
mod gauge;
pub mod histogram;
pub mod host;
pub mod job;
pub mod live;
pub mod log;
pub mod options;
pub mod outcome;
pub mod report;
pub mod run;
#[cfg(test)]
mod run_tests;
mod scratch;
mod seed;
mod space;
pub mod spread;
pub mod stats;
pub mod status;
mod turn;
mod workload;
