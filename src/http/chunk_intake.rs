//! An incoming chunk: is it what it says it is? Pure, and CPU work of milliseconds: for the compute pool.

use bytes::Bytes;

use crate::engine::Buffer;
use crate::error::{Error, Result};
use crate::format::blob::{self, BlobHeader, BlobKind, CrcPolicy};
use crate::format::blob_plain::with_plain;
use crate::protocol::action::ChunkUpload;
use crate::types::Digest;

/// Checks an encoded chunk against its announcement and gives it the right CRC (spec 03 §6.4).
///
/// Of an encrypted chunk only the header can be checked: digest and size are taken on trust. Never decodes more than one byte
/// above the announced size.
pub fn check(mut encoded: Buffer, upload: &ChunkUpload) -> Result<Bytes> {
    let header = BlobHeader::parse(&encoded).map_err(client_fault)?;
    let announced = u64::from(upload.size.bytes());
    let wrong_length = |is: u64| Error::invalid(format!("detected chunk with wrong length ({announced} != {is})"));
    let plain_bytes = |plain: &[u8]| u64::try_from(plain.len()).unwrap_or(u64::MAX);
    let judge = |plain: &[u8]| match plain_bytes(plain) {
        is if is != announced => Err(wrong_length(is)),
        _ if Digest::of(plain) != upload.digest => Err(Error::invalid("detected chunk with wrong digest.")),
        _ => Ok(()),
    };
    match header.kind {
        BlobKind::Plain => judge(&encoded[header.header_bytes()..])?,
        BlobKind::PlainZstd => {
            if let Some(claimed) = blob::claimed_plain_bytes(&encoded).filter(|claimed| *claimed > announced) {
                return Err(wrong_length(claimed));
            }
            with_plain(&encoded, announced + 1, CrcPolicy::Ignore, judge).map_err(client_fault)??;
        }
        BlobKind::Encrypted | BlobKind::EncryptedZstd if encoded.len() == header.header_bytes() => {
            return Err(Error::invalid(format!("encrypted blob too small ({} bytes).", encoded.len())));
        }
        BlobKind::Encrypted | BlobKind::EncryptedZstd => {}
    }
    blob::set_crc(&mut encoded).map_err(client_fault)?;
    Ok(encoded.freeze())
}

/// What is corrupt in a body is the client's fault, not the disk's.
fn client_fault(error: Error) -> Error {
    error.with_kind(crate::error::Kind::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::blob::Compression;
    use crate::protocol::action::{WriterId, WriterKind};
    use crate::types::ChunkSize;

    fn upload(plain: &[u8], size: u64) -> ChunkUpload {
        ChunkUpload {
            kind: WriterKind::Dynamic,
            wid: WriterId::new(1).unwrap(),
            digest: Digest::of(plain),
            size: ChunkSize::new(size).unwrap(),
            encoded_bytes: 0,
        }
    }

    fn refusal(encoded: &[u8], upload: &ChunkUpload) -> String {
        check(Buffer::from(encoded), upload).unwrap_err().to_string()
    }

    #[test]
    fn digest_and_length_of_plain_chunks_are_checked_and_the_crc_is_set() {
        let plain = vec![7; 70_000];
        for compression in [Compression::None, Compression::Try] {
            let good = blob::encode(&plain, compression);
            let mut encoded = good.clone();
            encoded[8..12].copy_from_slice(&[1, 2, 3, 4]);
            assert_eq!(check(Buffer::from(&encoded[..]), &upload(&plain, 70_000)).unwrap(), good);
            assert_eq!(refusal(&encoded, &upload(b"other", 70_000)), "detected chunk with wrong digest.");
            for size in [70_001, 69_999, 1] {
                let want = format!("detected chunk with wrong length ({size} != 70000)");
                assert_eq!(refusal(&encoded, &upload(&plain, size)), want);
            }
        }
        let mut encoded = blob::encode(&plain, Compression::None);
        encoded[0] ^= 1;
        assert_eq!(refusal(&encoded, &upload(&plain, 70_000)), "unable to parse raw blob - wrong magic");
        assert!(check(Buffer::default(), &upload(&plain, 70_000)).is_err());
    }

    #[test]
    fn a_bomb_is_not_decoded() {
        let bomb = blob::encode(&vec![0; 16 << 20], Compression::Try);
        assert!(bomb.len() < 4096);
        assert!(refusal(&bomb, &upload(b"x", 1)).contains("wrong length (1 != 16777216)"));
    }

    #[test]
    fn encrypted_chunks_are_taken_on_trust() {
        let mut encoded = BlobKind::Encrypted.magic().to_vec();
        encoded.resize(44, 0);
        encoded.extend_from_slice(b"ciphertext");
        let stored = check(Buffer::from(&encoded[..]), &upload(b"x", 5)).unwrap();
        assert_eq!(stored[12..], encoded[12..]);
        assert!(blob::check_crc(&stored).is_ok());
        assert_eq!(refusal(&encoded[..28], &upload(b"x", 5)), "encrypted blob too small (28 bytes).");
    }
}
