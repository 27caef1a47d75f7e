//! Ringvault.
pub mod auth;
pub mod clock;
pub mod engine;
pub mod error;
pub mod http;
pub mod sync;
pub mod task;
pub mod types;
