//! The wire of the backup and reader protocols without a socket. Pure.
pub mod presence;
