//! Whether what a power cut left is what had been promised: the independent checker's word, held against the promises.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::Value;

use super::record::Promise;
use crate::support::mortal::{ARCHIVE, digests_of};

/// What the checker may find of work that had not been finished, wherever no finished snapshot is touched.
const UNFINISHED: [&str; 7] = ["unfinished", "temp", "absent", "owner", "blob", "index", "chunk"];

/// What was found in a datastore that is all right.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tally {
    /// Snapshots that were promised.
    pub promised: usize,
    /// Finished ones, promised or not.
    pub finished: usize,
    /// Signs of what was cut off: unfinished snapshots, temporary files, torn chunks that nobody names.
    pub cut_off: usize,
}

/// Whether there is a Python for the checker.
pub fn has_checker() -> bool {
    let python = Command::new("python3").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    python.is_ok_and(|status| status.success())
}

/// Judges a datastore: I1, every promised snapshot is there and whole; I2, no manifest is there without all that it lists; and nothing else is
/// wrong than what unfinished work leaves.
pub fn judge<'a>(store: &Path, promised: impl Iterator<Item = &'a Promise>) -> Result<Tally, String> {
    let findings = check(store)?;
    let finished = finished(store).map_err(|e| format!("I6: the datastore cannot be read: {e}"))?;
    let named: BTreeSet<&String> = finished.values().flatten().collect();
    let mut groups = BTreeSet::new();
    let mut tally = Tally { finished: finished.len(), ..Tally::default() };
    for promise in promised {
        let dir = promise.place.dir();
        match finished.get(&dir) {
            None => return Err(format!("I1: {dir} is not there; {}", words(&findings))),
            Some(digests) if *digests != promise.digests => return Err(format!("I1: {dir} names other chunks")),
            Some(_) => tally.promised += 1,
        }
        groups.extend(dir.rsplit_once('/').map(|(group, _)| group.to_owned()));
    }
    for finding in &findings {
        let (code, path) = (finding["code"].as_str().unwrap_or_default(), finding["path"].as_str().unwrap_or_default());
        let last = path.rsplit('/').next().unwrap_or_default();
        let in_finished = finished.keys().any(|dir| path.starts_with(dir.as_str())) && code != "temp";
        let is_named_chunk = code == "chunk" && named.contains(&last.to_owned());
        let of_promised_group =
            matches!(code, "absent" | "owner") && groups.iter().any(|group| path.starts_with(group));
        if in_finished || is_named_chunk || of_promised_group || !UNFINISHED.contains(&code) {
            let rule = if in_finished || is_named_chunk { "I2" } else { "I4" };
            return Err(format!("{rule}: {}", words(&findings)));
        }
        tally.cut_off += usize::from(code != "absent" || path != ".chunks");
    }
    Ok(tally)
}

/// The findings of the independent checker.
fn check(store: &Path) -> Result<Vec<Value>, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check_datastore.py");
    let out = Command::new("python3").arg(script).arg("--json").arg(store).stdin(Stdio::null()).output();
    let out = out.map_err(|e| format!("python3: {e}"))?;
    let report: Value = serde_json::from_slice(&out.stdout)
        .map_err(|e| format!("I6: the checker does not read it: {e}: {}", String::from_utf8_lossy(&out.stderr)))?;
    Ok(report["findings"].as_array().cloned().unwrap_or_default())
}

fn words(findings: &[Value]) -> String {
    let word = |f: &Value| format!("{} {}: {}", f["code"], f["path"], f["text"]);
    format!("the checker says {:?}", findings.iter().map(word).take(12).collect::<Vec<_>>())
}

/// Snapshots with a manifest, by directory, and the digests that their index names.
fn finished(store: &Path) -> std::io::Result<BTreeMap<String, Vec<String>>> {
    let mut found = BTreeMap::new();
    let host = store.join("host");
    if !host.exists() {
        return Ok(found);
    }
    for group in std::fs::read_dir(host)? {
        let group = group?.path();
        for snapshot in std::fs::read_dir(&group)? {
            let snapshot = snapshot?.path();
            if snapshot.join("index.json.blob").exists() {
                let digests = std::fs::read(snapshot.join(ARCHIVE)).map(|bytes| digests_of(&bytes)).unwrap_or_default();
                let dir = snapshot.strip_prefix(store).map_err(std::io::Error::other)?;
                found.insert(dir.to_string_lossy().into_owned(), digests);
            }
        }
    }
    Ok(found)
}
