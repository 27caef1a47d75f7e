//! The first eight bytes of every file, each the start of the SHA-256 of a sentence. Pure.

/// Bytes of a magic number.
pub const MAGIC_BYTES: usize = 8;

/// Blob, neither compressed nor encrypted.
pub const BLOB_PLAIN: [u8; MAGIC_BYTES] = [0x42, 0xab, 0x38, 0x07, 0xbe, 0x83, 0x70, 0xa1];

/// Blob, compressed.
pub const BLOB_PLAIN_ZSTD: [u8; MAGIC_BYTES] = [0x31, 0xb9, 0x58, 0x42, 0x6f, 0xb6, 0xa3, 0x7f];

/// Blob, encrypted.
pub const BLOB_ENCRYPTED: [u8; MAGIC_BYTES] = [0x7b, 0x67, 0x85, 0xbe, 0x22, 0x2d, 0x4c, 0xf0];

/// Blob, first compressed, then encrypted.
pub const BLOB_ENCRYPTED_ZSTD: [u8; MAGIC_BYTES] = [0xe6, 0x59, 0x1b, 0xbf, 0x0b, 0xbf, 0xd8, 0x0b];

/// Fixed index.
pub const FIXED_INDEX: [u8; MAGIC_BYTES] = [0x2f, 0x7f, 0x41, 0xed, 0x91, 0xfd, 0x0f, 0xcd];

/// Dynamic index.
pub const DYNAMIC_INDEX: [u8; MAGIC_BYTES] = [0x1c, 0x91, 0x4e, 0xa5, 0x19, 0xba, 0xb3, 0xcd];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Digest;

    #[test]
    fn every_magic_is_the_start_of_the_hash_of_its_sentence() {
        for (magic, sentence) in [
            (BLOB_PLAIN, "Proxmox Backup uncompressed blob v1.0"),
            (BLOB_PLAIN_ZSTD, "Proxmox Backup zstd compressed blob v1.0"),
            (BLOB_ENCRYPTED, "Proxmox Backup encrypted blob v1.0"),
            (BLOB_ENCRYPTED_ZSTD, "Proxmox Backup zstd compressed encrypted blob v1.0"),
            (FIXED_INDEX, "Proxmox Backup fixed sized chunk index v1.0"),
            (DYNAMIC_INDEX, "Proxmox Backup dynamic sized chunk index v1.0"),
        ] {
            assert_eq!(magic, Digest::of(sentence.as_bytes()).0[..MAGIC_BYTES], "{sentence}");
        }
    }
}
