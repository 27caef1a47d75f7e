//! What a garbage collection counts, and how that is told: the status of spec 01 §8 and the lines of the task log. Pure.

use serde::{Deserialize, Serialize};

/// The status that is kept and shown; its fields and their order are the original's (spec 01 §8).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct GcStatus {
    /// The task.
    pub upid: Option<String>,
    /// Index files.
    pub index_file_count: u64,
    /// Bytes that they describe.
    pub index_data_bytes: u64,
    /// Bytes of the chunks that stay.
    pub disk_bytes: u64,
    /// Chunks that stay.
    pub disk_chunks: u64,
    /// Bytes that are free now.
    pub removed_bytes: u64,
    /// Chunks that are gone.
    pub removed_chunks: u64,
    /// Bytes of chunks that are too young to go.
    pub pending_bytes: u64,
    /// Chunks that are too young to go.
    pub pending_chunks: u64,
    /// Files set aside by verifications that are gone.
    pub removed_bad: u64,
    /// Such files that are too young to go.
    pub still_bad: u64,
}

/// What the sweep of some directories found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Swept {
    /// Files with the name of a chunk, live ones that were not looked at included.
    pub chunks: u64,
    /// Live chunks whose inode was not touched.
    pub unasked_chunks: u64,
    /// Live chunks that were looked at for their sizes.
    pub sampled_chunks: u64,
    /// Their bytes.
    pub sampled_bytes: u64,
    /// Other chunks that stay: as young as a running backup, or wanted by one.
    pub used_chunks: u64,
    /// Bytes of these, and of files that are kept as evidence.
    pub used_bytes: u64,
    /// Chunks that are too young to go.
    pub pending_chunks: u64,
    /// Their bytes.
    pub pending_bytes: u64,
    /// Chunks that are gone.
    pub removed_chunks: u64,
    /// Bytes that are free now.
    pub removed_bytes: u64,
    /// Files set aside that are gone.
    pub removed_bad: u64,
    /// Files set aside that are too young to go.
    pub still_bad: u64,
    /// Chunks that an index names and that no directory has.
    pub unmet: u64,
    /// Inodes looked at because nobody named their chunk.
    pub stats: u64,
    /// Directories whose names were read.
    #[serde(default)]
    pub dirs_read: u64,
    /// Directories that were as an earlier run had read them, and held nothing that is not live.
    #[serde(default)]
    pub dirs_unchanged: u64,
}

/// What the marking found, and what it took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marked {
    /// Index files read.
    pub files: u64,
    /// Bytes that they describe.
    pub bytes: u64,
    /// Distinct chunks that they name.
    pub chunks: u64,
    /// Access times written.
    pub touches: u64,
    /// Most memory that the set of live chunks took.
    pub memory_bytes: u64,
    /// How often the index files were read because the set did not fit.
    pub passes: u64,
}

impl Swept {
    /// Adds what another directory had.
    pub fn add(&mut self, other: &Self) {
        let Self {
            chunks,
            unasked_chunks,
            sampled_chunks,
            sampled_bytes,
            used_chunks,
            used_bytes,
            pending_chunks,
            pending_bytes,
            removed_chunks,
            removed_bytes,
            removed_bad,
            still_bad,
            unmet,
            stats,
            dirs_read,
            dirs_unchanged,
        } = other;
        self.chunks += chunks;
        self.unasked_chunks += unasked_chunks;
        self.sampled_chunks += sampled_chunks;
        self.sampled_bytes += sampled_bytes;
        self.used_chunks += used_chunks;
        self.used_bytes += used_bytes;
        self.pending_chunks += pending_chunks;
        self.pending_bytes += pending_bytes;
        self.removed_chunks += removed_chunks;
        self.removed_bytes += removed_bytes;
        self.removed_bad += removed_bad;
        self.still_bad += still_bad;
        self.unmet += unmet;
        self.stats += stats;
        self.dirs_read += dirs_read;
        self.dirs_unchanged += dirs_unchanged;
    }

    /// Bytes of the live chunks: those of the sample, and for each chunk that was not looked at the mean of the sample. Digests say nothing
    /// about sizes, so the chunks of the first directories are a fair sample.
    fn live_bytes(&self) -> u64 {
        let mean = |chunks: u64| {
            let sampled = u128::from(self.sampled_chunks.max(1));
            (u128::from(self.sampled_bytes) * u128::from(chunks) + sampled / 2) / sampled
        };
        self.sampled_bytes.saturating_add(u64::try_from(mean(self.unasked_chunks)).unwrap_or(u64::MAX))
    }

    /// The status of a run.
    pub fn status(&self, marked: &Marked, upid: String) -> GcStatus {
        GcStatus {
            upid: Some(upid),
            index_file_count: marked.files,
            index_data_bytes: marked.bytes,
            disk_bytes: self.live_bytes().saturating_add(self.used_bytes),
            disk_chunks: self.unasked_chunks + self.sampled_chunks + self.used_chunks,
            removed_bytes: self.removed_bytes,
            removed_chunks: self.removed_chunks,
            pending_bytes: self.pending_bytes,
            pending_chunks: self.pending_chunks,
            removed_bad: self.removed_bad,
            still_bad: self.still_bad,
        }
    }
}

impl GcStatus {
    /// The end of the task log, in the original's words as far as these were recorded.
    pub fn lines(&self) -> Vec<String> {
        let mut lines = vec![
            format!("Removed garbage: {}", shown_bytes(self.removed_bytes)),
            format!("Removed chunks: {}", self.removed_chunks),
        ];
        if self.pending_chunks > 0 {
            let bytes = shown_bytes(self.pending_bytes);
            lines.push(format!("Pending removals: {bytes} (in {} chunks)", self.pending_chunks));
        }
        if self.removed_bad > 0 {
            lines.push(format!("Removed files of corrupt chunks: {}", self.removed_bad));
        }
        if self.still_bad > 0 {
            lines.push(format!("Pending files of corrupt chunks: {}", self.still_bad));
        }
        lines.push(format!("Original data usage: {}", shown_bytes(self.index_data_bytes)));
        let percentage = hundredths(u128::from(self.disk_bytes) * 100, self.index_data_bytes);
        lines.push(format!("On-Disk usage: {} ({percentage}%)", shown_bytes(self.disk_bytes)));
        lines.push(format!("On-Disk chunks: {}", self.disk_chunks));
        lines.push(format!(
            "Deduplication factor: {}",
            if self.disk_bytes == 0 {
                "1.00".to_owned()
            } else {
                hundredths(self.index_data_bytes.into(), self.disk_bytes)
            }
        ));
        if let Some(mean) = self.disk_bytes.checked_div(self.disk_chunks) {
            lines.push(format!("Average chunk size: {}", shown_bytes(mean)));
        }
        lines
    }
}

/// What it took, for the task log: the proof that live chunks were left alone.
pub fn effort(marked: &Marked, swept: &Swept) -> String {
    format!(
        "{} chunks marked in {} ({}), inodes looked at: {} of chunks that nobody names, {} of others for their sizes; access times written: {}",
        marked.chunks,
        shown_bytes(marked.memory_bytes),
        if marked.passes == 1 { "1 pass".to_owned() } else { format!("{} passes", marked.passes) },
        swept.stats,
        swept.sampled_chunks,
        marked.touches,
    )
}

/// What the sweep has read, for the task log.
pub fn reading(swept: &Swept) -> String {
    format!("{} directories read, {} unchanged since an earlier run", swept.dirs_read, swept.dirs_unchanged)
}

/// What share of the usage is an estimate; `None` if all of it was measured.
pub fn estimate(swept: &Swept) -> Option<String> {
    (swept.unasked_chunks > 0).then(|| {
        format!(
            "On-Disk usage is estimated from the sizes of {} live chunks; their number is exact",
            swept.sampled_chunks
        )
    })
}

/// `number / by` with two decimals, rounded; `0.00` without a divisor.
fn hundredths(number: u128, by: u64) -> String {
    let by = u128::from(by);
    let scaled = (number * 100 + by / 2).checked_div(by).unwrap_or(0);
    format!("{}.{:02}", scaled / 100, scaled % 100)
}

/// `66.424 KiB`: at most three decimals, as recorded.
pub(super) fn shown_bytes(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    let mut unit = 0;
    while bytes >> (10 * unit) >= 1024 {
        unit += 1;
    }
    let whole = 1_u128 << (10 * unit);
    let thousandths = (u128::from(bytes) * 1000 + whole / 2) / whole;
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    format!("{} {}", text.trim_end_matches('0').trim_end_matches('.'), UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_recorded() {
        for (bytes, shown) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (68_018, "66.424 KiB"),
            (67_850, "66.26 KiB"),
            (5_987_650, "5.71 MiB"),
            (6_523_007, "6.221 MiB"),
            (91_674_366, "87.427 MiB"),
            (6_523_007 / 47, "135.534 KiB"),
            (u64::MAX, "16 EiB"),
        ] {
            assert_eq!(shown_bytes(bytes), shown);
        }
    }

    #[test]
    fn the_recorded_run_is_told_in_the_recorded_words() {
        let status = GcStatus {
            upid: Some("UPID:x".to_owned()),
            index_file_count: 16,
            index_data_bytes: 91_674_366,
            disk_bytes: 6_523_007,
            disk_chunks: 47,
            removed_bytes: 68_018,
            removed_chunks: 1,
            pending_bytes: 67_850,
            pending_chunks: 1,
            removed_bad: 0,
            still_bad: 0,
        };
        let recorded = [
            "Removed garbage: 66.424 KiB",
            "Removed chunks: 1",
            "Pending removals: 66.26 KiB (in 1 chunks)",
            "Original data usage: 87.427 MiB",
            "On-Disk usage: 6.221 MiB (7.12%)",
            "On-Disk chunks: 47",
            "Deduplication factor: 14.05",
            "Average chunk size: 135.534 KiB",
        ];
        assert_eq!(status.lines(), recorded);
        let json = r#"{"upid":"UPID:x","index-file-count":16,"index-data-bytes":91674366,"disk-bytes":6523007,"disk-chunks":47,"removed-bytes":68018,"removed-chunks":1,"pending-bytes":67850,"pending-chunks":1,"removed-bad":0,"still-bad":0}"#;
        assert_eq!(serde_json::to_string(&status).unwrap(), json);
    }

    #[test]
    fn an_empty_store_divides_by_nothing() {
        let lines = GcStatus::default().lines();
        assert_eq!(
            lines,
            [
                "Removed garbage: 0 B",
                "Removed chunks: 0",
                "Original data usage: 0 B",
                "On-Disk usage: 0 B (0.00%)",
                "On-Disk chunks: 0",
                "Deduplication factor: 1.00",
            ]
        );
    }

    #[test]
    fn what_was_not_looked_at_counts_as_the_mean_of_the_sample() {
        let mut swept = Swept { sampled_chunks: 3, sampled_bytes: 10, ..Swept::default() };
        assert_eq!((swept.live_bytes(), estimate(&swept)), (10, None));
        swept.add(&Swept { unasked_chunks: 1000, used_chunks: 2, used_bytes: 7, ..Swept::default() });
        let status = swept.status(&Marked::default(), String::new());
        assert_eq!((status.disk_chunks, status.disk_bytes), (1005, 10 + 3333 + 7));
        assert!(estimate(&swept).unwrap().contains("sizes of 3 live chunks"));
        let huge = Swept {
            unasked_chunks: u64::MAX / (16 << 20),
            sampled_chunks: 1,
            sampled_bytes: 16 << 20,
            ..Swept::default()
        };
        assert!(huge.live_bytes() > u64::MAX / 2);
    }
}
