//! Maintenance modes, and how many operations run meanwhile (spec 05 §9).
//!
//! Whoever uses a datastore begins an operation first, and holds its guard to the end. A mode refuses what begins after it was set; what
//! runs goes on, and is counted, so that an operator sees when the datastore is quiet.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::sync::Mutex;
use crate::types::DatastoreName;

/// Longest message that is shown with a mode: it goes into every refusal.
pub const MAINTENANCE_MESSAGE_BYTES_MAX: usize = 1024;

/// What a datastore is spared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaintenanceKind {
    /// Everything that changes it.
    ReadOnly,
    /// Everything: its file system may be taken away.
    Offline,
}

impl MaintenanceKind {
    const ALL: [Self; 2] = [Self::ReadOnly, Self::Offline];

    /// Spelling on the wire and in configurations.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::Offline => "offline",
        }
    }

    fn refuses(self, operation: Operation) -> bool {
        match (self, operation) {
            (_, Operation::Lookup) | (Self::ReadOnly, Operation::Read) => false,
            (_, Operation::Write) | (Self::Offline, Operation::Read) => true,
        }
    }
}

impl fmt::Display for MaintenanceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for MaintenanceKind {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|kind| kind.as_str() == text);
        found
            .ok_or_else(|| Error::invalid(format!("{text:.80?} is no maintenance mode: read-only or offline expected")))
    }
}

/// A mode and what its operator has to say.
///
/// Shown and parsed as the property string of the original, `type=read-only,message="disk is replaced"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaintenanceMode {
    /// What is refused.
    pub kind: MaintenanceKind,
    /// For those who are refused.
    pub message: Option<String>,
}

impl MaintenanceMode {
    /// A mode; refuses a message of more than [`MAINTENANCE_MESSAGE_BYTES_MAX`] or with control characters, which would break log lines.
    pub fn new(kind: MaintenanceKind, message: Option<&str>) -> Result<Self> {
        let message = message.filter(|text| !text.is_empty());
        if let Some(text) = message
            && (text.len() > MAINTENANCE_MESSAGE_BYTES_MAX || text.chars().any(char::is_control))
        {
            return Err(Error::invalid(format!(
                "a maintenance message is one line of at most {MAINTENANCE_MESSAGE_BYTES_MAX} bytes"
            )));
        }
        Ok(Self { kind, message: message.map(ToOwned::to_owned) })
    }
}

impl fmt::Display for MaintenanceMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "type={}", self.kind)?;
        match &self.message {
            Some(text) if text.chars().all(|c| c.is_ascii_alphanumeric() || "_.:-/".contains(c)) => {
                write!(f, ",message={text}")
            }
            Some(text) => write!(f, ",message=\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
            None => Ok(()),
        }
    }
}

impl FromStr for MaintenanceMode {
    type Err = Error;

    /// `[type=]KIND[,message=TEXT]` in either order; a text with commas or quotes is quoted, `"` and `\` in it escaped by `\`.
    fn from_str(text: &str) -> Result<Self> {
        let (mut kind, mut message, mut rest) = (None, None, text);
        while !rest.is_empty() {
            if let Some(quoted) = rest.strip_prefix("message=\"") {
                let (inner, after) = unquote(quoted).ok_or_else(|| wrong(text, "a quote is not closed"))?;
                message = Some(inner);
                rest = match after.strip_prefix(',') {
                    Some(next) => next,
                    None if after.is_empty() => after,
                    None => return Err(wrong(text, "a comma is missing behind the message")),
                };
                continue;
            }
            let (value, behind) = rest.split_once(',').unwrap_or((rest, ""));
            match value.split_once('=') {
                Some(("message", inner)) => message = Some(inner.to_owned()),
                Some(("type", inner)) => kind = Some(inner.parse()?),
                Some((key, _)) => return Err(wrong(text, format_args!("there is no {key:.40?}"))),
                None => kind = Some(value.parse()?),
            }
            rest = behind;
        }
        Self::new(kind.ok_or_else(|| wrong(text, "the type is missing"))?, message.as_deref())
    }
}

fn wrong(text: &str, why: impl fmt::Display) -> Error {
    Error::invalid(format!("maintenance mode {text:.200?}: {why}"))
}

/// The text up to the closing quote, and what is behind it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut inner = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((inner, &text[at + 1..])),
            '\\' => inner.push(chars.next()?.1),
            c => inner.push(c),
        }
    }
    None
}

/// What is about to be done with a datastore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Its files are read: listings, downloads, restores. Verification too, although it notes its result (spec 07 §5).
    Read,
    /// It is changed: backup, prune, removal, garbage collection.
    Write,
    /// Only what is in memory is asked for.
    Lookup,
}

/// Operations that run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct ActiveOperations {
    /// That read.
    pub read: u64,
    /// That write.
    pub write: u64,
}

impl ActiveOperations {
    fn count(&mut self, operation: Operation) -> Option<&mut u64> {
        match operation {
            Operation::Read => Some(&mut self.read),
            Operation::Write => Some(&mut self.write),
            Operation::Lookup => None,
        }
    }
}

/// The door of one datastore: mode and counts change together, so whoever sets a mode knows that nothing slips in behind it.
#[derive(Debug)]
pub(super) struct Operations {
    store: DatastoreName,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    mode: Option<MaintenanceMode>,
    active: ActiveOperations,
}

/// One running operation; ends when dropped.
#[derive(Debug)]
pub struct OperationGuard {
    operations: Arc<Operations>,
    operation: Operation,
}

impl Operations {
    pub(super) fn new(store: DatastoreName, mode: Option<MaintenanceMode>) -> Self {
        Self { store, state: Mutex::new(State { mode, active: ActiveOperations::default() }) }
    }

    pub(super) fn begin(self: &Arc<Self>, operation: Operation) -> Result<OperationGuard> {
        let mut state = self.state.lock();
        if let Some(mode) = state.mode.as_ref().filter(|mode| mode.kind.refuses(operation)) {
            return Err(self.refusal(mode));
        }
        if let Some(count) = state.active.count(operation) {
            *count += 1;
        }
        Ok(OperationGuard { operations: Arc::clone(self), operation })
    }

    fn refusal(&self, mode: &MaintenanceMode) -> Error {
        let (store, kind) = (&self.store, mode.kind);
        let allowed = match kind {
            MaintenanceKind::ReadOnly => "nothing may change it",
            MaintenanceKind::Offline => "nothing may use it",
        };
        Error::invalid(match &mode.message {
            Some(message) => format!("datastore '{store}' is in maintenance mode '{kind}', {allowed}: {message}"),
            None => format!("datastore '{store}' is in maintenance mode '{kind}', {allowed}"),
        })
    }

    /// Replaces the mode; says what runs at that moment.
    pub(super) fn set_mode(&self, mode: Option<MaintenanceMode>) -> ActiveOperations {
        let mut state = self.state.lock();
        state.mode = mode;
        state.active
    }

    pub(super) fn mode(&self) -> Option<MaintenanceMode> {
        self.state.lock().mode.clone()
    }

    pub(super) fn active(&self) -> ActiveOperations {
        self.state.lock().active
    }
}

impl Drop for OperationGuard {
    fn drop(&mut self) {
        if let Some(count) = self.operations.state.lock().active.count(self.operation) {
            *count -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(text: &str) -> MaintenanceMode {
        text.parse().unwrap()
    }

    #[test]
    fn each_mode_refuses_its_operations_and_running_ones_go_on() {
        use Operation::{Lookup, Read, Write};
        let operations = Arc::new(Operations::new("main".parse().unwrap(), None));
        let running = [operations.begin(Read).unwrap(), operations.begin(Write).unwrap()];
        for (set, operation, refused) in [
            ("read-only", Read, ""),
            ("read-only", Lookup, ""),
            ("read-only", Write, "datastore 'main' is in maintenance mode 'read-only', nothing may change it"),
            (
                "offline,message=disk",
                Write,
                "datastore 'main' is in maintenance mode 'offline', nothing may use it: disk",
            ),
            ("offline", Read, "datastore 'main' is in maintenance mode 'offline', nothing may use it"),
            ("offline", Lookup, ""),
        ] {
            assert_eq!(operations.set_mode(Some(mode(set))), ActiveOperations { read: 1, write: 1 }, "{set}");
            let said = operations.begin(operation).map(drop).map_err(|e| e.to_string()).err().unwrap_or_default();
            assert_eq!(said, refused, "{set} {operation:?}");
        }
        drop(running);
        assert_eq!(operations.set_mode(None), ActiveOperations::default());
        assert!(operations.begin(Write).is_ok() && operations.mode().is_none());
    }

    #[test]
    fn property_strings_are_read_and_written() {
        for (text, shown) in [
            ("read-only", "type=read-only"),
            ("type=offline", "type=offline"),
            ("message=soon,type=offline", "type=offline,message=soon"),
            ("type=offline,message=new disk", "type=offline,message=\"new disk\""),
            (r#"type=offline,message="a, \"b\" \\""#, r#"type=offline,message="a, \"b\" \\""#),
            (r#"message="x",read-only"#, "type=read-only,message=x"),
        ] {
            assert_eq!(mode(text).to_string(), shown);
            assert_eq!(mode(shown), mode(text));
        }
        for (bad, why) in [
            ("", "the type is missing"),
            ("message=x", "the type is missing"),
            ("delete", "read-only or offline expected"),
            ("type=offline,colour=red", "there is no \"colour\""),
            ("type=offline,message=\"x", "a quote is not closed"),
            ("message=\"x\"offline", "a comma is missing"),
            ("type=offline,message=a\nb", "is one line"),
        ] {
            let error = bad.parse::<MaintenanceMode>().unwrap_err().to_string();
            assert!(error.contains(why), "{bad:?}: {error}");
        }
    }
}
