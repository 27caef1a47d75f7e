//! Presence checks of chunks.

/// How fresh an answer has to be. On a local file system both are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// What a network file system's cache says will do (append).
    Cached,
    /// A network file system has to ask its server: another host may have deleted the file (finish).
    Server,
}
