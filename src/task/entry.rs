//! The lines of task files: log, result, archive. Pure.

use std::fmt;

use sha2::{Digest as _, Sha256};

use super::book::Listed;
use crate::clock::EpochSecs;
use crate::types::Upid;

/// Longest line of a log in bytes, time stamp excluded: an error with a path or two in it, not a file's contents.
pub(super) const LINE_BYTES_MAX: usize = 4096;

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TaskStatus {
    /// `OK`.
    Ok,
    /// `WARNINGS: n`.
    Warnings(u64),
    /// The error's text.
    Error(String),
    /// The daemon stopped before the task could say.
    Unknown,
}

impl TaskStatus {
    /// From the result line of a log, without its time stamp; `None` if the line is none.
    pub fn from_result_line(line: &str) -> Option<Self> {
        let result = line.strip_prefix("TASK ")?;
        if result == "OK" {
            Some(Self::Ok)
        } else if let Some(count) = result.strip_prefix("WARNINGS: ") {
            count.parse().ok().map(Self::Warnings)
        } else {
            result.strip_prefix("ERROR: ").map(|text| Self::Error(text.to_owned()))
        }
    }

    /// From the text that it is shown as; what is none of the known ones is an error's.
    pub fn from_text(text: &str) -> Self {
        match (text, text.strip_prefix("WARNINGS: ").and_then(|count| count.parse().ok())) {
            ("OK", _) => Self::Ok,
            ("unknown", _) => Self::Unknown,
            (_, Some(count)) => Self::Warnings(count),
            (text, None) => Self::Error(text.to_owned()),
        }
    }

    /// The result line of a log, without its time stamp.
    pub fn result_line(&self) -> String {
        match self {
            Self::Error(text) => format!("TASK ERROR: {}", one_line(text)),
            Self::Unknown => "TASK ERROR: unknown".to_owned(),
            Self::Ok | Self::Warnings(_) => format!("TASK {self}"),
        }
    }
}

impl fmt::Display for TaskStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("OK"),
            Self::Warnings(count) => write!(f, "WARNINGS: {count}"),
            Self::Error(text) => f.write_str(&one_line(text)),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// One log line: 25 characters of local time, `: `, the message with control characters but tabs shown as spaces.
pub fn log_line(at: EpochSecs, message: &str) -> String {
    format!("{}: {}", at.to_local_rfc3339(), one_line(message))
}

/// Splits a log line into its message; a line without a time stamp is all message.
pub(super) fn message_of(line: &str) -> &str {
    match line.get(25..27) {
        Some(": ") => &line[27..],
        _ => line,
    }
}

/// A message fit for a line of a file that is read by lines.
fn one_line(message: &str) -> String {
    let mut end = message.len().min(LINE_BYTES_MAX);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].chars().map(|c| if c.is_control() && c != '\t' { ' ' } else { c }).collect()
}

/// One line of the archive, without its end.
pub(super) fn archive_line(upid: &Upid, end: EpochSecs, status: &TaskStatus) -> String {
    format!("{upid} {:08X} {status}", end.0)
}

/// What a line of the archive says; `None` if it is none.
pub(super) fn split_archive_line(line: &str) -> Option<Listed> {
    let mut parts = line.splitn(3, ' ');
    let (upid, end, status) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
    let end = i64::from_str_radix(end, 16).ok()?;
    Some(Listed { upid, ended: Some((EpochSecs(end), TaskStatus::from_text(status))) })
}

/// Name of a task's log: the UPID, or where that is longer than a file name may be, its beginning and its hash.
pub(super) fn log_name(upid: &Upid) -> String {
    const NAME_BYTES_MAX: usize = 255;
    let name = upid.to_string();
    if name.len() <= NAME_BYTES_MAX && !name.contains('/') {
        return name;
    }
    let hash = hex::encode(Sha256::digest(&name));
    let head: String = name.chars().filter(|c| c.is_ascii() && *c != '/').take(180).collect();
    format!("{head}{hash}")
}

/// Name of the directory that a task's log lies in.
pub(super) fn log_dir(upid: &Upid) -> String {
    format!("{:02X}", upid.pstart & 255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_round_trip() {
        for (status, line) in [
            (TaskStatus::Ok, "TASK OK"),
            (TaskStatus::Warnings(3), "TASK WARNINGS: 3"),
            (TaskStatus::Error("a b".into()), "TASK ERROR: a b"),
        ] {
            assert_eq!(status.result_line(), line);
            assert_eq!(TaskStatus::from_result_line(line), Some(status));
        }
        for line in ["", "TASK", "task OK", "TASK WARNINGS: x", "found TASK OK"] {
            assert_eq!(TaskStatus::from_result_line(line), None, "{line}");
        }
    }

    #[test]
    fn archive_lines_round_trip() {
        let upid: Upid = "UPID:a:00000001:00000001:00000001:66607C8A:backup:x:root@pam:".parse().unwrap();
        for status in [
            TaskStatus::Ok,
            TaskStatus::Warnings(12),
            TaskStatus::Error("a text of several words".into()),
            TaskStatus::Unknown,
        ] {
            let line = archive_line(&upid, EpochSecs(0x6660_7C8A), &status);
            let listed = Listed { upid: upid.clone(), ended: Some((EpochSecs(0x6660_7C8A), status)) };
            assert_eq!(split_archive_line(&line), Some(listed), "{line}");
        }
        for damaged in ["", "x", "UPID:a: 66607C8A OK", &format!("{upid} 6666"), &format!("{upid} no OK")] {
            assert_eq!(split_archive_line(damaged), None, "{damaged}");
        }
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let line = log_line(EpochSecs(1_717_597_418), "a\nTASK OK\r\0b");
        assert_eq!(line.lines().count(), 1);
        assert_eq!(message_of(&line), "a TASK OK  b");
        let long = log_line(EpochSecs(1), &"ä".repeat(10_000));
        assert_eq!(message_of(&long).len(), LINE_BYTES_MAX);
        let error = TaskStatus::Error("x\ny".into());
        assert_eq!(error.result_line(), "TASK ERROR: x y");
    }

    #[test]
    fn log_names_fit_into_a_directory() {
        let upid = |id: &str| Upid {
            node: "a".into(),
            pid: 1,
            pstart: 0x1234,
            task_id: 1,
            start: EpochSecs(0x6660_7C8A),
            worker_type: "backup".into(),
            worker_id: Some(id.into()),
            auth_id: "root@pam".parse().unwrap(),
        };
        assert_eq!(log_name(&upid("s:vm/1")), upid("s:vm/1").to_string());
        assert_eq!(log_dir(&upid("x")), "34");
        let long = log_name(&upid(&"-".repeat(300)));
        assert!(long.len() <= 255);
        assert_ne!(long, log_name(&upid(&"-".repeat(301))));
    }
}
