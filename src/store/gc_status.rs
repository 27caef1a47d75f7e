//! What the last garbage collection left behind: `.gc-status` (spec 01 §8).

use std::io;

use super::Datastore;
use crate::error::{Error, Result};

/// Longest status file that is read; real ones have 300 bytes.
const STATUS_BYTES_MAX: u64 = 64 << 10;

impl Datastore {
    /// The status of the last garbage collection as its file says; zeros if there was none.
    pub async fn gc_status(&self) -> Result<serde_json::Value> {
        let path = self.base_path().join(".gc-status");
        let shown = path.clone();
        let read = self.engine().run(move |disk| disk.read(&path, STATUS_BYTES_MAX)).await?;
        match read {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map_err(|e| Error::corrupt(format!("{shown:?} is not a status file")).with_source(e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(serde_json::json!({
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
            })),
            Err(e) => Err(Error::io(format!("read {shown:?}"), e)),
        }
    }
}
