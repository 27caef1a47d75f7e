//! Ringvault.
pub mod clock;
pub mod engine;
pub mod error;
pub mod protocol;
pub mod sync;
pub mod types;
