//! A reader session as a machine of values: which chunks its client may fetch (spec 04). Pure.

use super::presence::{Origin, PresenceMap};
use crate::error::{Error, Kind, Result};
use crate::types::{ChunkSize, Digest};

/// Most chunks that one reader may fetch from: 256 TiB in chunks of 4 MiB, 3 GB of memory.
pub const ALLOWED_CHUNKS_MAX: u64 = super::backup::KNOWN_CHUNKS_MAX;

/// One reader session. The chunks of every index that it has downloaded, at most 48 bytes each.
#[derive(Debug, Default)]
pub struct ReaderSession {
    allowed: PresenceMap,
}

impl ReaderSession {
    /// A session that may fetch nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Chunks of an index that is about to be sent. Never shrinks.
    pub fn allow(&mut self, chunks: &[(Digest, ChunkSize)]) -> Result<()> {
        if self.allowed.count() + u64::try_from(chunks.len()).unwrap_or(u64::MAX) > ALLOWED_CHUNKS_MAX {
            return Err(Error::invalid(format!("a session reads at most {ALLOWED_CHUNKS_MAX} chunks")));
        }
        for (digest, size) in chunks {
            self.allowed.insert(digest, *size, Origin::Base);
        }
        Ok(())
    }

    /// Refuses a chunk that no downloaded index names: whoever may read a snapshot may not read the whole store.
    pub fn may_fetch(&self, digest: &Digest) -> Result<()> {
        if self.allowed.contains(digest) {
            Ok(())
        } else {
            Err(Error::new(Kind::Unauthenticated, format!("download chunk {digest} not allowed")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_chunks_of_downloaded_indexes_may_be_fetched() {
        let mut session = ReaderSession::new();
        let digest = Digest([0xab; 32]);
        let refused = session.may_fetch(&digest).unwrap_err();
        assert_eq!(refused.kind(), Kind::Unauthenticated);
        assert_eq!(refused.to_string(), format!("download chunk {digest} not allowed"));
        session.allow(&[(digest, ChunkSize::new(1).unwrap())]).unwrap();
        session.allow(&[]).unwrap();
        assert!(session.may_fetch(&digest).is_ok());
        assert!(session.may_fetch(&Digest::ZERO).is_err());
    }
}
