//! The plaintext of a blob, looked at where it lies: a plain one in the blob itself, a compressed one in memory that its thread uses again.
//!
//! A fresh buffer for each chunk of 4 MiB is taken from the kernel page by page and given back, which takes a third as long as hashing it
//! (docs/performance.md). Pure apart from that memory: at most [`CHUNK_BYTES_MAX`](crate::types::CHUNK_BYTES_MAX) a thread and what zstd
//! keeps of its tables, some 160 KiB.

use std::cell::RefCell;

use super::blob::{CrcPolicy, Payload, payload};
use super::zstd_frames::Decoder;
use crate::error::Result;

thread_local! {
    static DECODER: RefCell<Decoder> = RefCell::new(Decoder::default());
}

/// Lets `look` see the plaintext of an unencrypted blob of at most `plain_bytes_max` bytes; more is an error, found before that much memory
/// is in use, and so is an encrypted blob. As [`decode`](super::blob::decode), without a buffer of its own.
///
/// `look` must not itself look into a blob.
pub fn with_plain<T>(encoded: &[u8], plain_bytes_max: u64, crc: CrcPolicy, look: impl FnOnce(&[u8]) -> T) -> Result<T> {
    let plain_bytes_max = usize::try_from(plain_bytes_max).unwrap_or(usize::MAX);
    match payload(encoded, plain_bytes_max, crc)? {
        Payload::Plain(plain) => Ok(look(plain)),
        Payload::Zstd(frames) => {
            DECODER.with_borrow_mut(|decoder| decoder.decompress(frames, plain_bytes_max).map(look))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::blob::{BlobKind, Compression, decode, encode};

    fn texts(encoded: &[u8], max: u64) -> (Result<Vec<u8>, String>, Result<Vec<u8>, String>) {
        let seen = with_plain(encoded, max, CrcPolicy::Check, <[u8]>::to_vec).map_err(|e| e.to_string());
        (seen, decode(encoded, max, CrcPolicy::Check).map_err(|e| e.to_string()))
    }

    #[test]
    fn it_sees_what_decoding_gives_and_fails_as_decoding_does() {
        let long: Vec<u8> = (0_u32..400_000).flat_map(|n| (n % 1000).to_le_bytes()).collect();
        for plain in [&b""[..], b"x", &long, &long[..100], &[0; 70_000]] {
            for compression in [Compression::Try, Compression::None] {
                let encoded = encode(plain, compression);
                let size = plain.len() as u64;
                for max in [size, size + 1, size.saturating_sub(1), 16 << 20] {
                    let (seen, decoded) = texts(&encoded, max);
                    assert_eq!(seen, decoded, "{} of at most {max}", plain.len());
                    assert_eq!(seen.is_ok(), max >= size);
                }
                for end in 0..encoded.len().min(60) {
                    let (seen, decoded) = texts(&encoded[..end], 16 << 20);
                    assert_eq!(seen, decoded, "cut at {end}");
                }
            }
        }
    }

    #[test]
    fn nothing_of_an_earlier_blob_is_left() {
        let first = encode(&[7; 100_000], Compression::Try);
        let second = encode(&[9; 50], Compression::Try);
        assert_eq!(with_plain(&first, 1 << 20, CrcPolicy::Check, <[u8]>::len).unwrap(), 100_000);
        assert_eq!(with_plain(&second, 1 << 20, CrcPolicy::Check, <[u8]>::to_vec).unwrap(), [9; 50]);
    }

    #[test]
    fn a_blob_may_be_decoded_while_nobody_looks() {
        let mut encrypted = BlobKind::Encrypted.magic().to_vec();
        encrypted.resize(60, 0);
        assert!(with_plain(&encrypted, 1 << 20, CrcPolicy::Ignore, |_| ()).is_err());
    }
}
