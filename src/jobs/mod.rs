//! Long work on a datastore: decided by pure rules, done in steps, told in a task log.

pub mod gc;
pub mod verify;
pub mod due;
pub mod state;
pub mod prune;
