//! The name of a task. Pure.

use std::fmt;
use std::str::FromStr;

use super::auth_id::AuthId;
use crate::clock::EpochSecs;
use crate::error::{Error, Result};

/// `UPID:node:pid:pstart:task_id:starttime:worker_type:worker_id:auth_id:` (spec 05 §6).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upid {
    /// Host name up to its first dot.
    pub node: String,
    /// Process id of the daemon.
    pub pid: u32,
    /// The daemon's start time, field 22 of `/proc/PID/stat`.
    pub pstart: u64,
    /// Counts the tasks of one daemon.
    pub task_id: u64,
    /// When the task began.
    pub start: EpochSecs,
    /// `backup`, `reader`, …
    pub worker_type: String,
    /// What it works on, unescaped; `None` for none.
    pub worker_id: Option<String>,
    /// Who started it.
    pub auth_id: AuthId,
}

/// systemd's unit-name escape: `/` becomes `-`, everything outside `[A-Za-z0-9_.]` and a leading dot `\xNN`.
pub fn escape_unit(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for (i, b) in text.bytes().enumerate() {
        match b {
            b'/' => out.push('-'),
            b'.' if i == 0 => out.push_str("\\x2e"),
            b'_' | b'.' => out.push(char::from(b)),
            _ if b.is_ascii_alphanumeric() => out.push(char::from(b)),
            _ => out.push_str(&format!("\\x{b:02x}")),
        }
    }
    out
}

fn unescape_unit(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&b, tail)) = rest.split_first() {
        rest = tail;
        match b {
            b'-' => out.push(b'/'),
            b'\\' => {
                let digits = tail.strip_prefix(b"x")?.get(..2)?;
                let mut byte = [0];
                hex::decode_to_slice(digits, &mut byte).ok()?;
                out.push(byte[0]);
                rest = &tail[3..];
            }
            _ => out.push(b),
        }
    }
    String::from_utf8(out).ok()
}

impl fmt::Display for Upid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "UPID:{}:{:08X}:{:08X}:{:08X}:{:08X}:{}:{}:{}:",
            self.node,
            self.pid,
            self.pstart,
            self.task_id,
            self.start.0,
            self.worker_type,
            escape_unit(self.worker_id.as_deref().unwrap_or("")),
            self.auth_id
        )
    }
}

impl FromStr for Upid {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        parse(s).ok_or_else(|| Error::invalid(format!("{s:.200?} is not a UPID")))
    }
}

fn parse(s: &str) -> Option<Upid> {
    // The longest worker id is a namespace of 256 bytes and an id of 255, four bytes each when escaped.
    if s.len() > 4096 {
        return None;
    }
    let fields: Vec<&str> = s.strip_suffix(':')?.split(':').collect();
    let ["UPID", node, pid, pstart, task_id, start, worker_type, worker_id, auth_id] = fields[..] else { return None };
    let alnum = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
    let node_ok = alnum(node.as_bytes().first())
        && alnum(node.as_bytes().last())
        && node.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let hex = |text: &str, digits: std::ops::RangeInclusive<usize>| {
        let all_hex = text.bytes().all(|b| b.is_ascii_hexdigit());
        if all_hex && digits.contains(&text.len()) { u64::from_str_radix(text, 16).ok() } else { None }
    };
    if !node_ok || worker_type.is_empty() || s.contains(char::is_whitespace) {
        return None;
    }
    let worker_id = unescape_unit(worker_id)?;
    Some(Upid {
        node: node.to_owned(),
        pid: u32::try_from(hex(pid, 8..=8)?).ok()?,
        pstart: hex(pstart, 8..=9)?,
        task_id: hex(task_id, 8..=16)?,
        start: EpochSecs(i64::try_from(hex(start, 8..=8)?).ok()?),
        worker_type: worker_type.to_owned(),
        worker_id: (!worker_id.is_empty()).then_some(worker_id),
        auth_id: auth_id.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_specification() {
        let text = "UPID:pbs1:00001A2B:0012C3D4:00000005:66607C8A:backup:store1\\x3ahost-example:backup@pbs:";
        let upid: Upid = text.parse().unwrap();
        assert_eq!(upid.worker_id.as_deref(), Some("store1:host/example"));
        assert_eq!(upid.start, EpochSecs(0x6660_7C8A));
        assert_eq!(upid.to_string(), text);
    }

    #[test]
    fn no_worker_id() {
        let text = "UPID:a:00001A2B:0012C3D4:00000005:66607C8A:gc::root@pam:";
        let upid: Upid = text.parse().unwrap();
        assert_eq!(upid.worker_id, None);
        assert_eq!(upid.to_string(), text);
    }

    #[test]
    fn damaged_names_are_refused() {
        let good = "UPID:pbs1:00001A2B:0012C3D4:00000005:66607C8A:backup:store1\\x3ahost-example:backup@pbs:";
        for end in 0..good.len() {
            assert!(good[..end].parse::<Upid>().is_err(), "{}", &good[..end]);
        }
        for bad in [
            good.replace("pbs1", "-pbs"),
            good.replace("\\x3a", "\\x3"),
            good.replace("1A2B", "1A2G"),
            format!("{good}x"),
        ] {
            assert!(bad.parse::<Upid>().is_err(), "{bad}");
        }
    }
}
