//! The manifest `index.json.blob`: what a snapshot consists of (spec 02 §5). Pure.
//!
//! A manifest is kept as the JSON it came as, so that keys that nobody here knows survive a rewrite. Signed is
//! everything but `unprotected` and `signature`, and only `unprotected` is ever changed once a manifest exists.

use std::collections::HashSet;

use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value, json};
use sha2::Sha256;

use super::blob::{self, Compression, CrcPolicy};
use super::canonical_json;
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::types::{ArchiveName, CLIENT_LOG_BLOB, Digest, Group, Snapshot};

/// Longest manifest, as JSON. A file entry takes 180 bytes, so this is room for 23,000 archives; parsed, the worst JSON
/// of this length takes 64 MiB.
pub const MANIFEST_BYTES_MAX: u64 = 4 << 20;

/// How the chunks of an archive, or a blob, are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CryptMode {
    /// Plain.
    #[default]
    None,
    /// Encrypted, and the manifest is signed.
    Encrypt,
    /// Plain, and the manifest is signed.
    SignOnly,
}

impl CryptMode {
    const ALL: [Self; 3] = [Self::None, Self::Encrypt, Self::SignOnly];

    /// Spelling in a manifest and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Encrypt => "encrypt",
            Self::SignOnly => "sign-only",
        }
    }
}

impl serde::Serialize for CryptMode {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// One archive of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Name of its file.
    pub filename: ArchiveName,
    /// How it is stored.
    pub crypt_mode: CryptMode,
    /// Length in bytes of what an index describes; of a blob, of the encoded file.
    pub size: u64,
    /// Checksum of the index; of a blob, SHA-256 of the encoded file.
    pub csum: Digest,
}

/// What one backup uploaded, written by the server when it finishes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkUploadStats {
    /// Chunks.
    pub count: u64,
    /// Their plaintext, in bytes.
    pub size: u64,
    /// What they take on disk, in bytes.
    pub compressed_size: u64,
    /// How many of them were there already.
    pub duplicates: u64,
}

/// What the last verification, or a known-chunk check, found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VerifyOutcome {
    /// Every chunk was read and is right.
    Ok,
    /// A chunk is missing or wrong: no backup may build on this snapshot.
    Failed,
}

impl VerifyOutcome {
    /// Spelling in a manifest and on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
        }
    }
}

impl serde::Serialize for VerifyOutcome {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

/// `unprotected.verify_state`.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct VerifyState {
    /// What was found.
    pub state: VerifyOutcome,
    /// The task that found it; empty when the manifest does not say.
    pub upid: String,
}

/// A manifest that has passed [`Manifest::parse`], or was built here.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// Everything but `unprotected`, as it came.
    fixed: Map<String, Value>,
    unprotected: Map<String, Value>,
    snapshot: Snapshot,
    files: Vec<ManifestFile>,
}

impl Manifest {
    /// The manifest of a snapshot without files.
    pub fn new(snapshot: &Snapshot) -> Self {
        let fixed = Map::from_iter([
            ("backup-type".to_owned(), snapshot.group().ty().as_str().into()),
            ("backup-id".to_owned(), snapshot.group().id().into()),
            ("backup-time".to_owned(), snapshot.time().0.into()),
            ("files".to_owned(), json!([])),
            ("signature".to_owned(), Value::Null),
        ]);
        Self { fixed, unprotected: Map::new(), snapshot: snapshot.clone(), files: Vec::new() }
    }

    /// Reads the JSON text. An error names the key that is wrong.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let fail = |e: serde_json::Error| Error::corrupt("unable to parse backup manifest json").with_source(e);
        if json.len() as u64 > MANIFEST_BYTES_MAX {
            return Err(wrong("", format!("has {} bytes, more than {MANIFEST_BYTES_MAX}", json.len())));
        }
        let Value::Object(mut fixed) = serde_json::from_slice(json).map_err(fail)? else {
            return Err(wrong("", "is not a JSON object"));
        };
        let unprotected = match fixed.remove("unprotected") {
            Some(Value::Object(map)) => map,
            // Manifests of old servers have none.
            None | Some(Value::Null) => Map::new(),
            Some(_) => return Err(wrong("unprotected", "is not an object")),
        };
        if !matches!(fixed.get("signature"), None | Some(Value::Null | Value::String(_))) {
            return Err(wrong("signature", "is neither a string nor null"));
        }
        let snapshot = parse_snapshot(&fixed)?;
        let files = parse_files(&fixed)?;
        Ok(Self { fixed, unprotected, snapshot, files })
    }

    /// Reads the encoded blob, CRC included.
    pub fn from_blob(encoded: &[u8]) -> Result<Self> {
        Self::parse(&blob::decode(encoded, MANIFEST_BYTES_MAX, CrcPolicy::Check)?)
    }

    /// The encoded blob: compressed if that makes it shorter.
    pub fn to_blob(&self) -> Vec<u8> {
        blob::encode(self.to_json_pretty().as_bytes(), Compression::Try)
    }

    /// The JSON text as it goes into the file: indented by two, keys sorted.
    pub fn to_json_pretty(&self) -> String {
        let mut value = self.to_value();
        value.sort_all_objects();
        format!("{value:#}")
    }

    /// The whole manifest as a JSON value, unknown keys included.
    pub fn to_value(&self) -> Value {
        let mut value = self.fixed.clone();
        value.insert("unprotected".to_owned(), Value::Object(self.unprotected.clone()));
        Value::Object(value)
    }

    /// The snapshot that the manifest says it belongs to.
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The archives, in the order of their upload. No name twice, neither manifest nor client log.
    pub fn files(&self) -> &[ManifestFile] {
        &self.files
    }

    /// The archive of that name.
    pub fn file(&self, filename: &ArchiveName) -> Option<&ManifestFile> {
        self.files.iter().find(|file| file.filename == *filename)
    }

    /// Adds an archive. Error if the name is taken, or reserved for manifest or client log.
    pub fn add_file(&mut self, file: ManifestFile) -> Result<()> {
        check_filename(&file.filename, |name| self.file(name).is_none())?;
        let entry = json!({
            "filename": file.filename.as_str(),
            "crypt-mode": file.crypt_mode,
            "size": file.size,
            "csum": file.csum,
        });
        let entries = self.fixed.entry("files").or_insert_with(|| json!([]));
        if let Value::Array(entries) = entries {
            entries.push(entry);
        }
        self.files.push(file);
        Ok(())
    }

    /// The signature, if there is one; whether it is right, only the key can tell.
    pub fn signature(&self) -> Option<&str> {
        self.fixed.get("signature")?.as_str()
    }

    /// Whether a client has signed it.
    pub fn is_signed(&self) -> bool {
        self.signature().is_some()
    }

    /// What is signed: everything but `unprotected` and `signature`. Error if a null is in it.
    pub fn canonical_json(&self) -> Result<String> {
        let mut signed = self.fixed.clone();
        signed.remove("signature");
        canonical_json::to_string(&Value::Object(signed))
    }

    /// Signs the manifest as a client does that holds the key of `id_key`.
    pub fn sign(&mut self, id_key: &[u8; 32]) -> Result<()> {
        let mut mac = Hmac::<Sha256>::new_from_slice(id_key).expect("any length will do");
        mac.update(self.canonical_json()?.as_bytes());
        self.fixed.insert("signature".to_owned(), hex::encode(mac.finalize().into_bytes()).into());
        Ok(())
    }

    /// Fingerprint of the key that the client used, 32 hex pairs joined by `:`.
    pub fn key_fingerprint(&self) -> Option<&str> {
        self.unprotected.get("key-fingerprint")?.as_str()
    }

    /// Says which key the client used.
    pub fn set_key_fingerprint(&mut self, fingerprint: &str) {
        self.unprotected.insert("key-fingerprint".to_owned(), fingerprint.into());
    }

    /// What the backup uploaded; `None` if the manifest does not say or says nonsense.
    pub fn chunk_upload_stats(&self) -> Option<ChunkUploadStats> {
        let stats = self.unprotected.get("chunk_upload_stats")?;
        let number = |key: &str| stats.get(key)?.as_u64();
        Some(ChunkUploadStats {
            count: number("count")?,
            size: number("size")?,
            compressed_size: number("compressed_size")?,
            duplicates: number("duplicates")?,
        })
    }

    /// Says what the backup uploaded.
    pub fn set_chunk_upload_stats(&mut self, stats: ChunkUploadStats) {
        let ChunkUploadStats { count, size, compressed_size, duplicates } = stats;
        let value = json!({"count": count, "size": size, "compressed_size": compressed_size, "duplicates": duplicates});
        self.unprotected.insert("chunk_upload_stats".to_owned(), value);
    }

    /// What the last verification found; `None` if the manifest does not say or says nonsense.
    ///
    /// A failure counts even where its task is not named: better one full backup too many than one on missing chunks.
    pub fn verify_state(&self) -> Option<VerifyState> {
        let value = self.unprotected.get("verify_state")?;
        let state = match value.get("state")?.as_str()? {
            "ok" => VerifyOutcome::Ok,
            "failed" => VerifyOutcome::Failed,
            _ => return None,
        };
        let upid = value.get("upid").and_then(Value::as_str).unwrap_or_default().to_owned();
        Some(VerifyState { state, upid })
    }

    /// Says what a verification or a check found.
    pub fn set_verify_state(&mut self, found: VerifyState) {
        let value = json!({"state": found.state, "upid": found.upid});
        self.unprotected.insert("verify_state".to_owned(), value);
    }

    /// The notes, possibly of many lines; empty if there are none.
    pub fn notes(&self) -> &str {
        self.unprotected.get("notes").and_then(Value::as_str).unwrap_or_default()
    }

    /// The first line of the notes, as listings show it; `None` if there are none.
    pub fn comment(&self) -> Option<&str> {
        self.notes().lines().next()
    }

    /// Replaces the notes.
    pub fn set_notes(&mut self, notes: &str) {
        self.unprotected.insert("notes".to_owned(), notes.into());
    }
}

fn parse_snapshot(value: &Map<String, Value>) -> Result<Snapshot> {
    let text = |key| value.get(key).and_then(Value::as_str).ok_or_else(|| wrong(key, "is missing or not a string"));
    let ty = text("backup-type")?.parse().map_err(|e| wrong("backup-type", e))?;
    let group = Group::new(ty, text("backup-id")?).map_err(|e| wrong("backup-id", e))?;
    let time = value.get("backup-time").and_then(Value::as_i64);
    let time = time.ok_or_else(|| wrong("backup-time", "is missing or not an integer"))?;
    Snapshot::new(group, EpochSecs(time)).map_err(|e| wrong("backup-time", e))
}

fn parse_files(value: &Map<String, Value>) -> Result<Vec<ManifestFile>> {
    let entries = value.get("files").and_then(Value::as_array).ok_or_else(|| wrong("files", "is not an array"))?;
    let mut names = HashSet::with_capacity(entries.len());
    let mut files = Vec::with_capacity(entries.len());
    for (i, entry) in entries.iter().enumerate() {
        let file = parse_file(entry).map_err(|e| e.context(format!("{MANIFEST} files[{i}]")))?;
        check_filename(&file.filename, |name| names.insert(name.clone()))?;
        files.push(file);
    }
    Ok(files)
}

fn parse_file(entry: &Value) -> Result<ManifestFile> {
    let missing = |key, what| Error::corrupt(format!("{key:?} is missing or not {what}"));
    let text = |key| entry.get(key).and_then(Value::as_str).ok_or_else(|| missing(key, "a string"));
    let crypt_mode = match entry.get("crypt-mode") {
        None => CryptMode::None,
        Some(mode) => {
            CryptMode::ALL.into_iter().find(|known| mode.as_str() == Some(known.as_str())).ok_or_else(|| {
                Error::corrupt(format!("\"crypt-mode\" is {mode:.80}: none, encrypt or sign-only expected"))
            })?
        }
    };
    let corrupt = |e: Error| e.with_kind(crate::error::Kind::Corrupt);
    Ok(ManifestFile {
        filename: text("filename")?.parse().map_err(corrupt)?,
        crypt_mode,
        size: entry.get("size").and_then(Value::as_u64).ok_or_else(|| missing("size", "a number of bytes"))?,
        csum: text("csum")?.parse().map_err(corrupt)?,
    })
}

fn check_filename(name: &ArchiveName, is_new: impl FnOnce(&ArchiveName) -> bool) -> Result<()> {
    if name.is_manifest() || name.as_str() == CLIENT_LOG_BLOB {
        return Err(wrong("files", format!("lists {name}, which no manifest does")));
    }
    if !is_new(name) {
        return Err(wrong("files", format!("lists {name} twice")));
    }
    Ok(())
}

const MANIFEST: &str = "backup manifest";

fn wrong(key: &str, why: impl std::fmt::Display) -> Error {
    match key {
        "" => Error::corrupt(format!("{MANIFEST} {why}")),
        key => Error::corrupt(format!("{MANIFEST} {key:?}: {why}")),
    }
}

#[cfg(test)]
#[path = "manifest_tests.rs"]
mod tests;
