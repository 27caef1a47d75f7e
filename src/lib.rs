//! Ringvault.
pub mod auth;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod daemon;
pub mod engine;
pub mod error;
pub mod format;
pub mod http;
pub mod jobs;
pub mod protocol;
pub mod store;
pub mod sync;
pub mod systemd;
pub mod task;
pub mod types;
