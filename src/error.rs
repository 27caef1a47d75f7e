//! The one error type, sorted by what its reader can do about it. Pure.

use std::fmt;
use std::io;

/// What went wrong, from the point of view of whoever has to act.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The named thing does not exist. HTTP 404.
    NotFound,
    /// The caller is known and may not do this. HTTP 403.
    Denied,
    /// The caller is not known, or showed wrong credentials. HTTP 401.
    Unauthenticated,
    /// Somebody else holds the lock, or a limit is reached: try again later. HTTP 400 (503 for limits of the listener).
    Busy,
    /// The request is wrong: the client's fault. HTTP 400.
    Invalid,
    /// Data on disk contradicts itself. HTTP 400.
    Corrupt,
    /// The machine failed: disk, network, kernel. HTTP 400, as the original answers.
    Io,
    /// The session or the daemon is shutting down. HTTP 400.
    Closed,
}

/// An error with its kind, a sentence for the reader and, where there is one, the cause below it.
pub struct Error {
    kind: Kind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// What fallible functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// How work ends that somebody has asked to stop, in a task's log and in answers: the original's words, which clients know.
pub const TASK_ABORTED: &str = "task aborted";

/// How work ends that the end of the daemon cuts off.
pub const SHUTTING_DOWN: &str = "the server is shutting down";

impl Error {
    /// An error of `kind` whose text is `message`.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None }
    }

    /// The client's fault; answered with 400.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(Kind::Invalid, message)
    }

    /// Nothing of that name; answered with 404.
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, message)
    }

    /// Data on disk is wrong.
    pub fn corrupt(message: impl Into<String>) -> Self {
        Self::new(Kind::Corrupt, message)
    }

    /// Held by somebody else.
    pub fn busy(message: impl Into<String>) -> Self {
        Self::new(Kind::Busy, message)
    }

    /// Not allowed; answered with 403.
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(Kind::Denied, message)
    }

    /// Not logged in; answered with 401.
    pub fn unauthenticated(message: impl Into<String>) -> Self {
        Self::new(Kind::Unauthenticated, message)
    }

    /// Session or daemon is closing.
    pub fn closed(message: impl Into<String>) -> Self {
        Self::new(Kind::Closed, message)
    }

    /// The machine's fault, told by the kernel. Shown as `message - cause`.
    pub fn io(message: impl Into<String>, source: io::Error) -> Self {
        Self { kind: Kind::Io, message: message.into(), source: Some(Box::new(source)) }
    }

    /// Keeps `source` below this error. Shown as `message - source`.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error with another kind.
    #[must_use]
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// Puts `context - ` before the text, keeping kind and cause.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        self.message =
            if self.message.is_empty() { context.to_string() } else { format!("{context} - {}", self.message) };
        self
    }

    /// What the reader can do about it.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The kernel's error number below this error, if the kernel caused it.
    pub fn errno(&self) -> Option<i32> {
        self.cause::<io::Error>()?.raw_os_error()
    }

    /// The cause right below this error, if it is of that type.
    pub fn cause<T: std::error::Error + 'static>(&self) -> Option<&T> {
        self.source.as_ref()?.downcast_ref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.source {
            // The cause says it all.
            Some(source) if self.message.is_empty() => source.fmt(f),
            Some(source) => write!(f, "{} - {source}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {self}", self.kind)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|e| e as &(dyn std::error::Error + 'static))
    }
}

/// Adds a sentence to the kernel's word on the way up.
pub trait IoContext<T> {
    /// Lifts an `io::Error` to [`Error`] of kind `Io`, shown as `message() - cause`.
    fn io_context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T>;
}

impl<T> IoContext<T> for io::Result<T> {
    fn io_context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|e| Error::io(message(), e))
    }
}

impl<T> IoContext<T> for std::result::Result<T, rustix::io::Errno> {
    fn io_context<M: Into<String>>(self, message: impl FnOnce() -> M) -> Result<T> {
        self.map_err(|e| Error::io(message(), e.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_carries_context_and_cause_in_order() {
        let e = Error::io("open \"x\"", io::Error::from_raw_os_error(2)).context("append failed");
        assert_eq!(e.to_string(), "append failed - open \"x\" - No such file or directory (os error 2)");
        assert_eq!(e.kind(), Kind::Io);
        assert_eq!(e.errno(), Some(2));
    }

    #[test]
    fn a_cause_that_says_it_all_is_found_again_and_said_once() {
        let e = Error::invalid("").with_source(fmt::Error);
        assert_eq!(e.to_string(), fmt::Error.to_string());
        assert!(e.cause::<fmt::Error>().is_some() && e.cause::<io::Error>().is_none());
        assert_eq!(e.context("answer").to_string(), format!("answer - {}", fmt::Error));
    }
}
