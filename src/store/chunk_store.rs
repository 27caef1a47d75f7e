//! Chunks: insert, load.

/// What an upload did to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inserted {
    /// A file was written, or replaced.
    New {
        /// Length of the file now on the disk.
        bytes: u64,
    },
    /// The chunk was there already, and stays as it is.
    Known {
        /// Length of the file that stays.
        bytes: u64,
    },
}
