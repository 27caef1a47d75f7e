//! A client of a daemon that may die at any moment: every call is an `io::Result`, and a refusal is an error too.

use std::collections::BTreeSet;
use std::io;

use bytes::Bytes;
use serde_json::json;

use super::daemon::{Daemon, STORE};
use super::upload::{BACKUP_PROTOCOL, Chunk, Place, READER_PROTOCOL, decode_blob, encode_blob, sha256};
use super::wire::{Conn, Peer, Reply, Session, Upgraded};

/// The one index of every snapshot that it makes.
pub const ARCHIVE: &str = "a.pxar.didx";

const FORM: [(&str, &str); 1] = [("content-type", "application/x-www-form-urlencoded")];
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
const OCTETS: [(&str, &str); 1] = [("content-type", "application/octet-stream")];

/// Where a daemon is to be found, for as long as it lives.
#[derive(Clone, Debug)]
pub struct Door {
    peer: Peer,
    authorization: String,
}

/// The answer if it was 200.
fn accepted(reply: Reply) -> io::Result<Reply> {
    if reply.status == 200 {
        return Ok(reply);
    }
    Err(io::Error::other(format!("refused: {} {}", reply.status, reply.text())))
}

fn number(reply: &Reply) -> io::Result<u64> {
    let value: serde_json::Value = serde_json::from_slice(&reply.body)?;
    value["data"].as_u64().ok_or_else(|| io::Error::other(format!("no number: {value}")))
}

/// Ends and digests of a dynamic index that names these chunks.
fn entries(chunks: &[Chunk]) -> Vec<(u64, &str)> {
    let mut end = 0;
    let entry = |chunk: &'_ Chunk| {
        end += chunk.size;
        end
    };
    let ends: Vec<u64> = chunks.iter().map(entry).collect();
    ends.into_iter().zip(chunks.iter().map(|chunk| chunk.digest.as_str())).collect()
}

impl Door {
    /// The door of this daemon, until it is started again.
    pub fn of(daemon: &Daemon) -> Self {
        Self { peer: daemon.peer().clone(), authorization: daemon.authorization() }
    }

    /// A call below the datastore: `POST gc`, `DELETE snapshots?...`. Parameters of a body are JSON.
    pub async fn ask(&self, method: &str, call: &str, body: &str) -> io::Result<Reply> {
        let target = format!("/api2/json/admin/datastore/{STORE}/{call}");
        let mut conn = Conn::open(&self.peer).await?;
        let kind = if body.is_empty() { FORM[0] } else { JSON[0] };
        let headers = [("authorization", self.authorization.as_str()), kind];
        let reply = conn.call(method, &target, &headers, body.as_bytes()).await?;
        conn.close().await;
        accepted(reply)
    }

    async fn upgrade(&self, of: &str, place: &Place, protocol: &str) -> io::Result<Session> {
        let target = format!("/api2/json/{of}?store={STORE}&{}", place.query());
        let conn = Conn::open(&self.peer).await?;
        match conn.upgrade(&target, protocol, &[("authorization", &self.authorization)]).await? {
            Upgraded::Session(_, session) => Ok(session),
            Upgraded::Refused(reply) => accepted(reply).and(Err(io::ErrorKind::InvalidData.into())),
        }
    }

    /// Makes a snapshot of these chunks. Those that are `known` are taken from the snapshot before it; where `known` is empty, it is not asked
    /// for. `on_finished` is called as soon as the daemon has said that it is finished.
    pub async fn back_up(
        &self,
        place: &Place,
        chunks: &[Chunk],
        known: &BTreeSet<String>,
        on_finished: impl FnOnce(),
    ) -> io::Result<()> {
        let session = self.upgrade("backup", place, BACKUP_PROTOCOL).await?;
        self.fill(&session, place, chunks, known).await?;
        accepted(session.call("POST", "/finish", &FORM, Bytes::new()).await?)?;
        on_finished();
        session.close().await;
        Ok(())
    }

    /// Begins a snapshot and breaks off before it says that it is finished.
    pub async fn break_off(&self, place: &Place, chunks: &[Chunk]) -> io::Result<()> {
        let session = self.upgrade("backup", place, BACKUP_PROTOCOL).await?;
        let filled = self.fill(&session, place, chunks, &BTreeSet::new()).await;
        session.cut();
        filled
    }

    async fn fill(
        &self,
        session: &Session,
        place: &Place,
        chunks: &[Chunk],
        known: &BTreeSet<String>,
    ) -> io::Result<()> {
        let get = async |target: &str| accepted(session.call("GET", target, &FORM, Bytes::new()).await?);
        let post = async |target: &str, body: Bytes| {
            let kind = if body.is_empty() { &FORM } else { &OCTETS };
            accepted(session.call("POST", target, kind, body).await?)
        };
        if !known.is_empty() {
            get(&format!("/previous?archive-name={ARCHIVE}")).await?;
        }
        let wid = number(&post(&format!("/dynamic_index?archive-name={ARCHIVE}"), Bytes::new()).await?)?;
        for chunk in chunks.iter().filter(|chunk| !known.contains(&chunk.digest)) {
            let Chunk { digest, size, encoded } = chunk;
            let target = format!("/dynamic_chunk?wid={wid}&digest={digest}&size={size}&encoded-size={}", encoded.len());
            post(&target, encoded.clone()).await?;
        }
        let (mut offset, mut bytes) = (0, Vec::new());
        for part in entries(chunks).chunks(64) {
            let digests: Vec<&str> = part.iter().map(|(_, digest)| *digest).collect();
            let starts: Vec<u64> = part.iter().map(|(end, _)| std::mem::replace(&mut offset, *end)).collect();
            for (end, digest) in part {
                bytes.extend_from_slice(&end.to_le_bytes());
                bytes.extend_from_slice(&hex::decode(digest).expect("hex"));
            }
            let body = json!({"wid": wid, "digest-list": digests, "offset-list": starts}).to_string();
            accepted(session.call("PUT", "/dynamic_index", &JSON, body.into()).await?)?;
        }
        let (count, csum) = (chunks.len(), sha256(&bytes));
        let close = format!("/dynamic_close?wid={wid}&chunk-count={count}&size={offset}&csum={csum}");
        post(&close, Bytes::new()).await?;
        let files = json!([{"filename": ARCHIVE, "crypt-mode": "none", "size": offset, "csum": csum}]);
        let Place { kind, id, time, .. } = place;
        let manifest = json!({
            "backup-type": kind, "backup-id": id, "backup-time": time,
            "files": files, "signature": null, "unprotected": {}
        });
        let blob = encode_blob(manifest.to_string().as_bytes());
        post(&format!("/blob?file-name=index.json.blob&encoded-size={}", blob.len()), blob).await?;
        Ok(())
    }

    /// Reads a snapshot as a client that restores: the digests that its index names, each of whose chunks has come with the content that it
    /// promises.
    pub async fn restore(&self, place: &Place) -> io::Result<Vec<String>> {
        let session = self.upgrade("reader", place, READER_PROTOCOL).await?;
        let get = async |target: String| accepted(session.call("GET", &target, &FORM, Bytes::new()).await?);
        let index = get(format!("/download?file-name={ARCHIVE}")).await?;
        let digests = digests_of(&index.body);
        for digest in &digests {
            let chunk = get(format!("/chunk?digest={digest}")).await?;
            if sha256(&decode_blob(&chunk.body)) != *digest {
                return Err(io::Error::other(format!("other content than that of chunk {digest}")));
            }
        }
        session.close().await;
        Ok(digests)
    }
}

/// What a dynamic index names, in order; a part of an entry at its end is left out.
pub fn digests_of(index: &[u8]) -> Vec<String> {
    let area = index.get(4096..).unwrap_or_default();
    area.as_chunks::<40>().0.iter().map(|entry| hex::encode(&entry[8..])).collect()
}
