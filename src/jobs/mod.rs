//! Long work on a datastore: decided by pure rules, done in steps, told in a task log.

pub mod budget;
pub mod due;
pub mod gc;
pub mod inspect;
pub mod prune;
pub mod state;
pub mod verify;

#[cfg(test)]
mod crash_states;
