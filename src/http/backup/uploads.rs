//! Blobs and chunks on their way in.

use bytes::Bytes;
use hyper::body::Incoming;

use super::Driver;
use crate::error::{Error, Kind, Result};
use crate::format::blob;
use crate::http::chunk_intake;
use crate::http::session::{BodyFault, HeldBody};
use crate::metrics::Arrival;
use crate::protocol::action::ChunkUpload;
use crate::protocol::backup::check_blob_length;
use crate::protocol::reply::Reply;
use crate::store::Inserted;
use crate::types::{ArchiveName, Digest};

impl Driver {
    pub(super) async fn store_blob(&self, name: ArchiveName, announced: u64, body: Option<Incoming>) -> Result<Reply> {
        let stored = async {
            let mut held = self.read_blob(announced, body).await?;
            let encoded = held.take().freeze();
            let (digest, encoded) = self.compute.run(move || check_blob(encoded)).await??;
            // The manifest stays in the session, so that no crash leaves a snapshot that looks finished.
            if !name.is_manifest() {
                self.lease.store_blob(&name, encoded.clone()).await?;
            }
            Ok((digest, encoded))
        };
        let result = stored.await;
        if result.is_ok() {
            let metrics = self.store.metrics();
            metrics.received_blobs.inc();
            metrics.received_blob_bytes.add(announced);
        }
        let mut session = self.session.lock();
        match result {
            Ok((_, encoded)) if name.is_manifest() => Ok(session.hold_manifest(&name, encoded)),
            Ok((digest, _)) => {
                self.task.log(format!("add blob '{name}' ({announced} bytes)"));
                Ok(session.stored_blob(name, announced, digest))
            }
            Err(error) => {
                session.blob_failed(&name);
                Err(error)
            }
        }
    }

    async fn read_blob(&self, announced: u64, body: Option<Incoming>) -> Result<HeldBody<'_>> {
        let read = self.budget.read(body.ok_or_else(no_body)?, announced).await;
        read.map_err(|fault| match fault {
            BodyFault::Longer(received) | BodyFault::Shorter(received) => {
                check_blob_length(announced, received).err().unwrap_or_else(|| Error::invalid("unexpected length"))
            }
            BodyFault::Broken(error) => error,
        })
    }

    pub(super) async fn store_chunk(&self, upload: &ChunkUpload, body: Option<Incoming>) -> Result<Reply> {
        let read = self.budget.read(body.ok_or_else(no_body)?, upload.encoded_bytes).await;
        let mut held = read.map_err(|fault| match fault {
            BodyFault::Longer(_) => Error::invalid("uploaded chunk is larger than announced."),
            BodyFault::Shorter(_) => Error::invalid("uploaded chunk has unexpected size."),
            BodyFault::Broken(error) => error,
        })?;
        let (bytes, announced) = (held.take(), *upload);
        let encoded = self.compute.run(move || chunk_intake::check(bytes, &announced)).await??;
        // Until the session knows it, so that no garbage collection begins between the two.
        let _change = self.store.begin_change();
        let received_bytes = upload.encoded_bytes;
        let (disk_bytes, arrival) = match self.store.insert_chunk(upload.digest, encoded, upload.size).await? {
            Inserted::New { bytes } => (bytes, Arrival::New),
            Inserted::Known { bytes } => (bytes, Arrival::Duplicate),
        };
        let metrics = self.store.metrics();
        metrics.received_chunks.at(arrival).inc();
        metrics.received_chunk_bytes.at(arrival).add(received_bytes);
        self.session.lock().registered(upload, disk_bytes, arrival == Arrival::Duplicate)
    }
}

fn no_body() -> Error {
    Error::invalid("the request has no body")
}

/// Checks a blob's header and CRC, and computes the checksum that the manifest has to name.
fn check_blob(encoded: Bytes) -> Result<(Digest, Bytes)> {
    blob::check_crc(&encoded).map_err(|e| e.with_kind(Kind::Invalid))?;
    Ok((Digest::of(&encoded), encoded))
}
