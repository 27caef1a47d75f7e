//! The reports in words: what a task log says, and sentences that the command line shares. Pure.

use std::ops::Range;

use super::places::merged;
use super::report::{AffectedSnapshot, ChunkFate, ChunkState, ChunksReport, Named, Place, Remedy, SnapshotReport};

/// Stretches of an archive that a line names.
const RANGES_SHOWN_MAX: usize = 8;

/// `vm/100/2024-06-05T14:23:38Z`, with its namespace before it where that is not the root.
pub fn snapshot(named: &Named) -> String {
    let Named { ns, backup_type, backup_id, backup_time } = named;
    let time = backup_time.to_utc_name().unwrap_or_else(|| backup_time.0.to_string());
    match ns.as_str() {
        "" => format!("{backup_type}/{backup_id}/{time}"),
        ns => format!("{ns}:{backup_type}/{backup_id}/{time}"),
    }
}

/// `vm/100`, with its namespace before it where that is not the root.
pub fn group(ns: &str, group: &str) -> String {
    if ns.is_empty() { group.to_owned() } else { format!("{ns}:{group}") }
}

/// `1 chunk`, `2 chunks`.
pub fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// The bytes of an archive that are affected: `0..4194304, 8388608..12582912, 3 more`.
pub fn ranges(places: &[Place], more: u64) -> String {
    let merged = merged(places);
    let shown = merged.iter().take(RANGES_SHOWN_MAX).map(|Range { start, end }| format!("{start}..{end}"));
    let more = more + merged.len().saturating_sub(RANGES_SHOWN_MAX) as u64;
    let more = (more > 0).then(|| format!("{more} more"));
    shown.chain(more).collect::<Vec<_>>().join(", ")
}

/// What lies in the place of a chunk, and how many need it.
pub fn fate(chunk: &ChunkFate) -> String {
    let ChunkFate { digest, state, reason, snapshots, .. } = chunk;
    let named = format!("named by {}", counted(*snapshots, "snapshot"));
    match state {
        ChunkState::Present => format!("chunk {digest} is there, {named}"),
        ChunkState::Missing => format!("chunk {digest} is missing ({reason}), {named}"),
        ChunkState::Unknown => format!("chunk {digest} could not be asked for ({reason}), {named}"),
    }
}

/// What would bring a chunk back, a sentence each; at least one.
pub fn remedies(chunk: &ChunkFate) -> Vec<String> {
    if chunk.remedies.is_empty() {
        return vec![
            "nothing here would bring it back: another copy of this datastore, or removing the snapshots".into(),
        ];
    }
    let dir = chunk.digest.get(..4).unwrap_or_default();
    let digest = &chunk.digest;
    let sentence = |remedy: &Remedy| match remedy {
        Remedy::Copy { store } => {
            format!("datastore '{store}' has it: copy its .chunks/{dir}/{digest}, then verify")
        }
        Remedy::Backup { ns, group: name, full: true } => {
            format!("the next backup of {} is a full one and sends it again, if the data is unchanged", group(ns, name))
        }
        Remedy::Backup { ns, group: name, full: false } => format!(
            "a full backup of {} sends it again, if the data is unchanged; the next one is full once its newest snapshot is marked",
            group(ns, name)
        ),
        Remedy::SetAside { file } => {
            format!(
                ".chunks/{dir}/{file} was set aside as bad: if memory or cable were at fault, rename it back and verify"
            )
        }
    };
    chunk.remedies.iter().map(sentence).collect()
}

/// One line about a snapshot that names some of the chunks.
pub fn affected(found: &AffectedSnapshot) -> String {
    let AffectedSnapshot { snapshot: named, finished, newest, loses_data, verification, archives } = found;
    let what = if *loses_data { "loses data" } else { "names them" };
    let state = match (finished, verification.as_deref()) {
        (false, _) => ", unfinished",
        (true, Some("failed")) => ", marked as failed",
        (true, _) => "",
    };
    let newest = if *newest { ", newest of its group" } else { "" };
    let archives: Vec<String> =
        archives.iter().map(|a| format!("{} bytes {}", a.archive, ranges(&a.places, a.more_places))).collect();
    format!("{} {what}{newest}{state}: {}", snapshot(named), archives.join("; "))
}

/// What the log of its task says about chunks.
pub fn summary(report: &ChunksReport) -> Vec<String> {
    let missing = report.chunks.iter().filter(|chunk| chunk.state == ChunkState::Missing).count() as u64;
    let losing = report.snapshots.iter().filter(|found| found.loses_data).count();
    let mut lines = vec![format!(
        "{} of {} missing; {} name some of them, {losing} of these lose data",
        missing + if report.about == "missing" { report.more_chunks } else { 0 },
        counted(report.chunks.len() as u64 + report.more_chunks, "chunk"),
        counted(report.snapshots.len() as u64 + report.hidden_snapshots, "snapshot"),
    )];
    lines.extend(report.snapshots.iter().map(affected));
    lines
}

/// What the log of its task says about a snapshot.
pub fn summary_of_snapshot(report: &SnapshotReport) -> Vec<String> {
    let SnapshotReport { chunks, files, archives, .. } = report;
    let mut lines = vec![format!(
        "{} of {} different ones, {} shared, {} only here",
        counted(chunks.entries, "chunk"),
        chunks.distinct,
        chunks.shared,
        chunks.own
    )];
    lines.extend(report.manifest_fault.iter().map(|fault| format!("manifest: {fault}")));
    lines.extend(files.iter().filter_map(|file| Some(format!("{}: {}", file.filename, file.fault.as_ref()?))));
    lines.extend(archives.iter().filter(|row| row.lost_entries > 0).map(|row| {
        format!(
            "{}: {} missing, bytes {}",
            row.archive,
            counted(row.lost_entries, "chunk"),
            ranges(&row.places, row.more_places)
        )
    }));
    if chunks.unknown > 0 {
        lines.push(format!("{} could not be asked for", counted(chunks.unknown, "chunk")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::EpochSecs;

    fn place(offset: u64, bytes: u64) -> Place {
        Place { offset, bytes, digest: "ab".into() }
    }

    #[test]
    fn stretches_are_merged_and_bounded() {
        assert_eq!(ranges(&[place(0, 10), place(10, 5), place(20, 5)], 0), "0..15, 20..25");
        let many: Vec<Place> = (0..10).map(|at| place(at * 10, 5)).collect();
        assert!(ranges(&many, 4).ends_with("70..75, 6 more"));
    }

    #[test]
    fn every_remedy_is_a_sentence() {
        let mut chunk = ChunkFate {
            digest: "abcdef".into(),
            state: ChunkState::Missing,
            reason: "gone".into(),
            snapshots: 1,
            remedies: Vec::new(),
        };
        assert_eq!(fate(&chunk), "chunk abcdef is missing (gone), named by 1 snapshot");
        assert!(remedies(&chunk)[0].starts_with("nothing here"));
        let backup = |full| Remedy::Backup { ns: "a".into(), group: "vm/1".into(), full };
        chunk.remedies = vec![
            Remedy::Copy { store: "usb".into() },
            backup(true),
            backup(false),
            Remedy::SetAside { file: "abcdef.0.bad".into() },
        ];
        let said = remedies(&chunk);
        for (line, part) in said.iter().zip([
            "'usb'",
            "next backup of a:vm/1 is a full one",
            "a full backup of",
            ".chunks/abcd/abcdef.0.bad",
        ]) {
            assert!(line.contains(part), "{line}");
        }
    }

    #[test]
    fn names_have_their_namespace() {
        let named = |ns: &str| Named {
            ns: ns.into(),
            backup_type: "vm".into(),
            backup_id: "7".into(),
            backup_time: EpochSecs(9),
        };
        assert_eq!(snapshot(&named("")), "vm/7/1970-01-01T00:00:09Z");
        assert_eq!(snapshot(&named("a/b")), "a/b:vm/7/1970-01-01T00:00:09Z");
        assert_eq!((group("", "vm/7"), group("a", "vm/7")), ("vm/7".to_owned(), "a:vm/7".to_owned()));
        assert_eq!((counted(1, "chunk"), counted(0, "chunk")), ("1 chunk".to_owned(), "0 chunks".to_owned()));
    }
}
