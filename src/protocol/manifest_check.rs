//! Whether a manifest may become the snapshot's: it lists what this session stored, and nothing else. Pure.

use std::collections::BTreeMap;

use super::writers::UploadStats;
use crate::error::{Error, Result};
use crate::format::manifest::{ChunkUploadStats, Manifest};
use crate::types::{ArchiveName, CLIENT_LOG_BLOB, Digest, Snapshot};

/// A file that this session closed or stored, as a manifest has to describe it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoredFile {
    /// Index checksum; of a blob, SHA-256 of the encoded file.
    pub csum: Digest,
    /// Length of the image or stream; of a blob, of the encoded file.
    pub size_bytes: u64,
    /// Slots of a fixed index that no chunk was ever put into.
    pub unfilled_slots: u64,
}

/// The manifest as it goes to the disk, and what an operator should know.
#[derive(Debug)]
pub struct CheckedManifest {
    /// The encoded blob.
    pub blob: Vec<u8>,
    /// Files of the snapshot that the manifest does not list: kept, since nothing but waste comes of them.
    pub unlisted: Vec<ArchiveName>,
}

/// What finish makes of the manifest that the client sent (spec 03 §8, design §3 "Manifest last").
///
/// It must belong to this snapshot; every file that it lists must have been closed or stored in this session with the same checksum
/// and size, and be whole. Only `unprotected.chunk_upload_stats` is added. CPU work of up to 16 MiB of JSON: not for a lock.
pub fn check(
    encoded: &[u8],
    snapshot: &Snapshot,
    stored: &BTreeMap<ArchiveName, StoredFile>,
    stats: &UploadStats,
) -> Result<CheckedManifest> {
    let refused = |text: String| Error::invalid(format!("unable to update manifest blob - {text}"));
    let mut manifest = Manifest::from_blob(encoded).map_err(|e| refused(e.to_string()))?;
    if manifest.snapshot() != snapshot {
        let other = manifest.snapshot();
        return Err(refused(format!("the manifest is that of {other}, this snapshot is {snapshot}")));
    }
    for file in manifest.files() {
        let name = &file.filename;
        let Some(ours) = stored.get(name) else {
            return Err(refused(format!("it lists '{name}', which this session has not stored")));
        };
        if file.csum != ours.csum {
            let (said, is) = (file.csum, ours.csum);
            return Err(refused(format!("it lists '{name}' with checksum {said}, the stored file has {is}")));
        }
        if file.size != ours.size_bytes {
            let (said, is) = (file.size, ours.size_bytes);
            return Err(refused(format!("it lists '{name}' with {said} bytes, the stored file has {is}")));
        }
    }
    if let Some((name, file)) = stored.iter().find(|(_, file)| file.unfilled_slots > 0) {
        return Err(refused(format!("{} slots of '{name}' were never filled", file.unfilled_slots)));
    }
    manifest.set_chunk_upload_stats(ChunkUploadStats {
        count: stats.count,
        size: stats.size_bytes,
        compressed_size: stats.compressed_bytes,
        duplicates: stats.duplicates,
    });
    let listed = |name: &ArchiveName| manifest.file(name).is_some() || name.as_str() == CLIENT_LOG_BLOB;
    let unlisted = stored.keys().filter(|name| !listed(name)).cloned().collect();
    Ok(CheckedManifest { blob: manifest.to_blob(), unlisted })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::format::blob::{self, Compression, CrcPolicy};

    const SNAPSHOT: &str = "host/a/2024-06-05T14:23:38Z";

    fn stored() -> BTreeMap<ArchiveName, StoredFile> {
        let file = |byte: u8, unfilled_slots| StoredFile { csum: Digest([byte; 32]), size_bytes: 9, unfilled_slots };
        BTreeMap::from([
            ("a.img.fidx".parse().unwrap(), file(1, 0)),
            ("b.conf.blob".parse().unwrap(), file(2, 0)),
            ("client.log.blob".parse().unwrap(), file(3, 0)),
        ])
    }

    fn run(change: impl FnOnce(&mut Value)) -> Result<CheckedManifest> {
        run_over(&stored(), change)
    }

    fn run_over(
        stored: &BTreeMap<ArchiveName, StoredFile>,
        change: impl FnOnce(&mut Value),
    ) -> Result<CheckedManifest> {
        let mut manifest = json!({
            "backup-type": "host", "backup-id": "a", "backup-time": 1_717_597_418,
            "files": [{"filename": "a.img.fidx", "crypt-mode": "none", "size": 9, "csum": "01".repeat(32)}],
            "signature": null, "unprotected": {"notes": "n", "x": [1]}, "future": {"k": 1.5},
        });
        change(&mut manifest);
        let encoded = blob::encode(manifest.to_string().as_bytes(), Compression::Try);
        let stats = UploadStats { count: 3, size_bytes: 4, compressed_bytes: 5, duplicates: 1 };
        check(&encoded, &SNAPSHOT.parse().unwrap(), stored, &stats)
    }

    fn refusal(change: impl FnOnce(&mut Value)) -> String {
        let text = run(change).unwrap_err().to_string();
        text.strip_prefix("unable to update manifest blob - ").unwrap().to_owned()
    }

    #[test]
    fn statistics_are_added_and_nothing_else_changes() {
        let checked = run(|_| {}).unwrap();
        let json = blob::decode(&checked.blob, 1 << 20, CrcPolicy::Check).unwrap();
        let manifest: Value = serde_json::from_slice(&json).unwrap();
        assert_eq!(
            manifest["unprotected"],
            json!({"notes": "n", "x": [1],
                "chunk_upload_stats": {"count": 3, "size": 4, "compressed_size": 5, "duplicates": 1}})
        );
        assert_eq!(manifest["future"], json!({"k": 1.5}));
        let unlisted: Vec<&str> = checked.unlisted.iter().map(ArchiveName::as_str).collect();
        assert_eq!(unlisted, ["b.conf.blob"]);
    }

    #[test]
    fn a_manifest_that_tells_another_story_is_refused() {
        assert_eq!(
            refusal(|m| m["backup-id"] = "b".into()),
            format!("the manifest is that of {}, this snapshot is {SNAPSHOT}", SNAPSHOT.replace("/a/", "/b/"))
        );
        assert_eq!(
            refusal(|m| m["files"][0]["filename"] = "nosuch.img.fidx".into()),
            "it lists 'nosuch.img.fidx', which this session has not stored"
        );
        assert!(
            refusal(|m| m["files"][0]["csum"] = "02".repeat(32).into()).contains("'a.img.fidx' with checksum 0202")
        );
        assert_eq!(
            refusal(|m| m["files"][0]["size"] = 8.into()),
            "it lists 'a.img.fidx' with 8 bytes, the stored file has 9"
        );
        let mut holes = stored();
        holes.get_mut(&"a.img.fidx".parse().unwrap()).unwrap().unfilled_slots = 2;
        let error = run_over(&holes, |_| {}).unwrap_err();
        assert!(error.to_string().ends_with(" - 2 slots of 'a.img.fidx' were never filled"), "{error}");
        assert!(refusal(|m| *m = json!([])).contains("is not a JSON object"));
    }

    #[test]
    fn text_that_is_not_json_has_the_recorded_answer() {
        let encoded = blob::encode(b"not json", Compression::None);
        let stats = UploadStats::default();
        let error = check(&encoded, &SNAPSHOT.parse().unwrap(), &stored(), &stats).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unable to update manifest blob - unable to parse backup manifest json - expected ident at line 1 column 2"
        );
    }
}
