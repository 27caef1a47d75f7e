//! Ringvault.
pub mod clock;
pub mod engine;
pub mod error;
pub mod format;
pub mod sync;
pub mod types;
