//! Data blob: the format of a chunk file and of every `*.blob` (spec 02 §1). Pure.
//!
//! ```text
//!  0        8      12                    28                    44
//!  ┌────────┬──────┬─────────────────────┬─────────────────────┬──────────
//!  │ magic  │ CRC  │ payload …           in plain kinds
//!  │        │      │ IV                  │ AES-GCM tag         │ payload …    in encrypted kinds
//!  └────────┴──────┴─────────────────────┴─────────────────────┴──────────
//! ```
//!
//! The CRC-32 (IEEE, little-endian) covers the payload alone, neither IV nor tag: it tells whether the file is the one
//! that was written, not whether the content is right.

use super::magic::{self, MAGIC_BYTES};
use super::zstd_frames;
use crate::error::{Error, Result};

/// Longest encoded chunk or blob: 16 MiB of payload behind the longer header.
pub const BLOB_ENCODED_BYTES_MAX: u64 = 16_777_260;

/// Shortest encoded blob: a plain header with nothing behind it. A shorter chunk file counts as missing.
pub const BLOB_BYTES_MIN: u64 = 12;

const CRC_AT: usize = MAGIC_BYTES;
const PLAIN_HEADER_BYTES: usize = CRC_AT + 4;
const ENCRYPTED_HEADER_BYTES: usize = PLAIN_HEADER_BYTES + 16 + 16;

const _: () = assert!(PLAIN_HEADER_BYTES as u64 == BLOB_BYTES_MIN);
const _: () = assert!((16 << 20) + ENCRYPTED_HEADER_BYTES as u64 == BLOB_ENCODED_BYTES_MAX);

/// What the payload is; said by the magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BlobKind {
    /// The plaintext itself.
    Plain,
    /// zstd frames of the plaintext.
    PlainZstd,
    /// Ciphertext.
    Encrypted,
    /// Ciphertext of zstd frames.
    EncryptedZstd,
}

impl BlobKind {
    /// All kinds.
    pub const ALL: [Self; 4] = [Self::Plain, Self::PlainZstd, Self::Encrypted, Self::EncryptedZstd];

    /// What a file that begins with `bytes` says it is; looks at the first 8 bytes only.
    pub fn from_magic(bytes: &[u8]) -> Option<Self> {
        let magic = bytes.get(..MAGIC_BYTES)?;
        Self::ALL.into_iter().find(|kind| kind.magic() == *magic)
    }

    /// The first 8 bytes of such a blob.
    pub fn magic(self) -> [u8; MAGIC_BYTES] {
        match self {
            Self::Plain => magic::BLOB_PLAIN,
            Self::PlainZstd => magic::BLOB_PLAIN_ZSTD,
            Self::Encrypted => magic::BLOB_ENCRYPTED,
            Self::EncryptedZstd => magic::BLOB_ENCRYPTED_ZSTD,
        }
    }

    /// Whether only the holder of a key can read it.
    pub fn is_encrypted(self) -> bool {
        matches!(self, Self::Encrypted | Self::EncryptedZstd)
    }

    /// Whether the plaintext was compressed.
    pub fn is_compressed(self) -> bool {
        matches!(self, Self::PlainZstd | Self::EncryptedZstd)
    }

    /// Bytes before the payload: 12, or 44 with IV and tag.
    pub fn header_bytes(self) -> usize {
        if self.is_encrypted() { ENCRYPTED_HEADER_BYTES } else { PLAIN_HEADER_BYTES }
    }
}

/// Kind and checksum of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobHeader {
    /// What the payload is.
    pub kind: BlobKind,
    /// What the header says the CRC-32 of the payload is.
    pub crc: u32,
}

impl BlobHeader {
    /// Reads the header of `encoded`, which must be long enough for its kind. The error texts are the original's.
    pub fn parse(encoded: &[u8]) -> Result<Self> {
        let too_small = |what| Error::corrupt(format!("{what} too small ({} bytes).", encoded.len()));
        let crc = encoded.get(CRC_AT..PLAIN_HEADER_BYTES).ok_or_else(|| too_small("blob"))?;
        let crc = u32::from_le_bytes(crc.try_into().expect("four bytes"));
        let kind =
            BlobKind::from_magic(encoded).ok_or_else(|| Error::corrupt("unable to parse raw blob - wrong magic"))?;
        if encoded.len() < kind.header_bytes() {
            return Err(too_small("encrypted blob"));
        }
        Ok(Self { kind, crc })
    }

    /// Bytes before the payload: 12, or 44 with IV and tag.
    pub fn header_bytes(&self) -> usize {
        self.kind.header_bytes()
    }
}

/// Whether [`decode`] looks at the CRC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrcPolicy {
    /// A wrong CRC is an error.
    Check,
    /// The CRC is somebody else's business: that of an incoming chunk is ignored and replaced by [`set_crc`].
    Ignore,
}

/// Whether [`encode`] compresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// zstd, unless that does not make the blob shorter.
    Try,
    /// Never.
    None,
}

/// Reads header and payload, and checks the CRC. All that can be said about an encrypted blob without its key.
pub fn check_crc(encoded: &[u8]) -> Result<BlobKind> {
    let header = BlobHeader::parse(encoded)?;
    if header.crc != crc32fast::hash(&encoded[header.header_bytes()..]) {
        return Err(Error::corrupt("Data blob has wrong CRC checksum."));
    }
    Ok(header.kind)
}

/// Computes the CRC of the payload and writes it into the header.
pub fn set_crc(encoded: &mut [u8]) -> Result<()> {
    let header = BlobHeader::parse(encoded)?;
    let crc = crc32fast::hash(&encoded[header.header_bytes()..]);
    encoded[CRC_AT..PLAIN_HEADER_BYTES].copy_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// The length that the plaintext of `encoded` says it has, found without decoding.
///
/// `None` for encrypted blobs, for frames that do not say it (a streaming encoder's), and for what [`decode`] will
/// refuse. It is a claim: only decoding shows that it is true.
pub fn claimed_plain_bytes(encoded: &[u8]) -> Option<u64> {
    let kind = BlobHeader::parse(encoded).ok()?.kind;
    let payload = &encoded[kind.header_bytes()..];
    let bytes = match kind {
        BlobKind::Plain => payload.len(),
        BlobKind::PlainZstd => zstd_frames::declared_bytes(payload)?,
        BlobKind::Encrypted | BlobKind::EncryptedZstd => return None,
    };
    u64::try_from(bytes).ok()
}

/// Plaintext of an unencrypted blob, at most `plain_bytes_max` bytes of it: more is an error, found before that much
/// memory is in use.
pub fn decode(encoded: &[u8], plain_bytes_max: u64, crc: CrcPolicy) -> Result<Vec<u8>> {
    let plain_bytes_max = usize::try_from(plain_bytes_max).unwrap_or(usize::MAX);
    match payload(encoded, plain_bytes_max, crc)? {
        Payload::Plain(plain) => Ok(plain.to_vec()),
        Payload::Zstd(frames) => zstd_frames::decompress(frames, plain_bytes_max),
    }
}

/// What is behind the header of a blob that can be read without a key.
pub(super) enum Payload<'a> {
    /// The plaintext, no longer than it may be.
    Plain(&'a [u8]),
    /// Frames; how long their plaintext is shows only when they are decoded.
    Zstd(&'a [u8]),
}

/// Everything about decoding that needs no memory for the plaintext.
pub(super) fn payload(encoded: &[u8], plain_bytes_max: usize, crc: CrcPolicy) -> Result<Payload<'_>> {
    let kind = match crc {
        CrcPolicy::Check => check_crc(encoded)?,
        CrcPolicy::Ignore => BlobHeader::parse(encoded)?.kind,
    };
    let payload = &encoded[kind.header_bytes()..];
    match kind {
        BlobKind::Plain if payload.len() > plain_bytes_max => {
            Err(Error::corrupt(format!("blob holds {} bytes, more than {plain_bytes_max}", payload.len())))
        }
        BlobKind::Plain => Ok(Payload::Plain(payload)),
        BlobKind::PlainZstd => Ok(Payload::Zstd(payload)),
        BlobKind::Encrypted | BlobKind::EncryptedZstd => {
            Err(Error::corrupt("unable to decode blob - it is encrypted, and there is no key"))
        }
    }
}

/// An unencrypted blob of `plain`. The caller bounds `plain`: 16 MiB for chunks and for blobs that go over the wire.
pub fn encode(plain: &[u8], compression: Compression) -> Vec<u8> {
    let compressed = match compression {
        Compression::Try => zstd_frames::compress_after(&header(BlobKind::PlainZstd), plain),
        Compression::None => None,
    };
    let mut encoded = compressed.unwrap_or_else(|| [&header(BlobKind::Plain)[..], plain].concat());
    set_crc(&mut encoded).expect("begins with a plain header");
    encoded
}

/// A plain header whose CRC is still zero.
fn header(kind: BlobKind) -> [u8; PLAIN_HEADER_BYTES] {
    let mut header = [0; PLAIN_HEADER_BYTES];
    header[..MAGIC_BYTES].copy_from_slice(&kind.magic());
    header
}

#[cfg(test)]
#[path = "blob_tests.rs"]
mod tests;
