//! Stories about the whole daemon, one module each, over the tools in `support`.
#![expect(clippy::disallowed_methods, reason = "a test makes and breaks files behind the daemon's back")]

mod abort;
mod access;
mod adopt;
mod bench;
mod bench_run;
mod commands;
mod connections;
mod counts;
mod crash;
mod creation;
mod damaged;
mod download;
mod engines;
mod faults;
mod first_backup;
mod gc;
mod gc_full;
mod limited;
mod listing;
mod live;
mod matrix;
mod metrics;
mod node;
mod prune;
mod replay;
mod sharing;
mod spread;
mod support;
mod tasks;
mod tidy;
mod tools;
mod unit;
mod upkeep;
mod upkeep_kill;
mod verify;
