//! What the last garbage collection left behind: `.gc-status` (spec 01 §8).

use std::io;

use serde_json::{Value, json};

use super::Datastore;
use super::layout::GC_STATUS_FILE;
use crate::error::{Error, Result};

/// Longest status file that is read; real ones have 300 bytes.
const STATUS_BYTES_MAX: u64 = 64 << 10;

impl Datastore {
    /// The status of the last garbage collection as its file says; zeros if there was none, or if the file is none (spec 01 §8).
    pub async fn gc_status(&self) -> Result<Value> {
        let path = self.base_path().join(GC_STATUS_FILE);
        let shown = path.clone();
        let read = self.engine().run(move |disk| disk.read(&path, STATUS_BYTES_MAX)).await?;
        match read {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok().filter(Value::is_object).unwrap_or_else(|| {
                tracing::warn!(path = ?shown, "not a status file; the next garbage collection writes it anew");
                none_yet()
            })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(none_yet()),
            Err(e) => Err(Error::io(format!("read {shown:?}"), e)),
        }
    }
}

fn none_yet() -> Value {
    json!({
        "upid": null,
        "index-file-count": 0,
        "index-data-bytes": 0,
        "disk-bytes": 0,
        "disk-chunks": 0,
        "removed-bytes": 0,
        "removed-chunks": 0,
        "pending-bytes": 0,
        "pending-chunks": 0,
        "removed-bad": 0,
        "still-bad": 0,
    })
}
