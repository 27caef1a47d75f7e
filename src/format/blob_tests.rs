//! Blobs: the published vectors, round trips, hostile input.

use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::types::Digest;

const HELLO: &[u8] = include_bytes!("../../tests/data/vectors/blob-plain-hello.bin");
const HELLO_BAD_CRC: &[u8] = include_bytes!("../../tests/data/vectors/blob-plain-hello-badcrc.bin");
const ZSTD: &[u8] = include_bytes!("../../tests/data/vectors/blob-zstd-1024A.bin");
const ENCRYPTED: &[u8] = include_bytes!("../../tests/data/vectors/blob-enc-hello.bin");
const ENCRYPTED_ZSTD: &[u8] = include_bytes!("../../tests/data/vectors/blob-enczstd-1024A.bin");
const ZERO_CHUNK: &[u8] = include_bytes!("../../tests/data/vectors/chunk-zero-4MiB.bin");

const VECTORS: [(BlobKind, &[u8]); 5] = [
    (BlobKind::Plain, HELLO),
    (BlobKind::PlainZstd, ZSTD),
    (BlobKind::Encrypted, ENCRYPTED),
    (BlobKind::EncryptedZstd, ENCRYPTED_ZSTD),
    (BlobKind::PlainZstd, ZERO_CHUNK),
];

/// `frames` as a blob with a right CRC.
fn zstd_blob(frames: &[u8]) -> Vec<u8> {
    let mut encoded = [&header(BlobKind::PlainZstd)[..], frames].concat();
    set_crc(&mut encoded).unwrap();
    encoded
}

/// A frame as a streaming encoder makes it, which says nothing about the length.
fn streamed_frame(plain: &[u8]) -> Vec<u8> {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.include_checksum(true).unwrap();
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn error(encoded: &[u8], plain_bytes_max: u64) -> String {
    decode(encoded, plain_bytes_max, CrcPolicy::Check).unwrap_err().to_string()
}

/// Does not compress, always the same.
fn noise(len: usize) -> Vec<u8> {
    (0u64..).flat_map(|i| Digest::of(&i.to_le_bytes()).0).take(len).collect()
}

#[test]
fn the_published_vectors() {
    for (kind, encoded) in VECTORS {
        assert_eq!(check_crc(encoded).unwrap(), kind);
        assert_eq!(BlobKind::from_magic(encoded), Some(kind));
        let mut recomputed = encoded.to_vec();
        recomputed[8..12].fill(0);
        set_crc(&mut recomputed).unwrap();
        assert_eq!(recomputed, encoded);
    }
    assert_eq!(encode(b"hello", Compression::None), HELLO);
    assert_eq!(encode(b"hello", Compression::Try), HELLO, "compression would make it longer");
    assert_eq!(decode(HELLO, 5, CrcPolicy::Check).unwrap(), b"hello");
    assert_eq!(decode(ZSTD, 1024, CrcPolicy::Check).unwrap(), [b'A'; 1024]);
    let zeros = decode(ZERO_CHUNK, 4 << 20, CrcPolicy::Check).unwrap();
    let name = "bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8";
    assert_eq!((zeros.len(), Digest::of(&zeros).to_string().as_str()), (4 << 20, name));
}

#[test]
fn a_wrong_crc_is_refused_unless_it_is_to_be_ignored() {
    assert_eq!(check_crc(HELLO_BAD_CRC).unwrap_err().to_string(), "Data blob has wrong CRC checksum.");
    assert_eq!(error(HELLO_BAD_CRC, 5), "Data blob has wrong CRC checksum.");
    assert_eq!(decode(HELLO_BAD_CRC, 5, CrcPolicy::Ignore).unwrap(), b"hello");
}

#[test]
fn malformed_headers_are_refused_in_the_recorded_words() {
    let text = |bytes: &[u8]| BlobHeader::parse(bytes).unwrap_err().to_string();
    assert_eq!(text(b""), "blob too small (0 bytes).");
    assert_eq!(text(&HELLO[..10]), "blob too small (10 bytes).");
    assert_eq!(text(&[0; 12]), "unable to parse raw blob - wrong magic");
    assert_eq!(text(&ENCRYPTED[..28]), "encrypted blob too small (28 bytes).");
    assert_eq!(BlobKind::from_magic(&ENCRYPTED[..8]), Some(BlobKind::Encrypted));
    assert_eq!(BlobKind::from_magic(&ENCRYPTED[..7]), None);
}

#[test]
fn every_truncation_and_every_flipped_bit_of_a_vector_is_noticed() {
    for (kind, encoded) in VECTORS {
        for end in 0..encoded.len() {
            assert!(check_crc(&encoded[..end]).is_err(), "{kind:?} cut at {end}");
            assert!(decode(&encoded[..end], 4 << 20, CrcPolicy::Check).is_err());
            let _ = decode(&encoded[..end], 4 << 20, CrcPolicy::Ignore);
        }
        for bit in 0..encoded.len() * 8 {
            let mut hurt = encoded.to_vec();
            hurt[bit / 8] ^= 1 << (bit % 8);
            // Initialisation vector and tag are the key holder's to check.
            let covered = !(12..kind.header_bytes()).contains(&(bit / 8));
            assert_eq!(check_crc(&hurt).is_err(), covered, "{kind:?} bit {bit}");
            let _ = decode(&hurt, 4 << 20, CrcPolicy::Ignore);
        }
    }
}

#[test]
fn encrypted_blobs_are_not_decoded() {
    for encoded in [ENCRYPTED, ENCRYPTED_ZSTD] {
        assert!(error(encoded, 1 << 20).contains("encrypted"));
        assert_eq!(claimed_plain_bytes(encoded), None);
    }
}

#[test]
fn output_is_limited_whatever_the_frames_say() {
    assert_eq!(error(HELLO, 4), "blob holds 5 bytes, more than 4");
    let zeros = vec![0; 64 << 20];
    let bomb = encode(&zeros, Compression::Try);
    assert!(bomb.len() < 10_000);
    assert_eq!(error(&bomb, 1 << 20), "compressed data is longer than 1048576 bytes");
    let silent = zstd_blob(&streamed_frame(&zeros));
    assert_eq!(error(&silent, 1 << 20), "compressed data is longer than 1048576 bytes");
    assert_eq!(decode(&silent, 64 << 20, CrcPolicy::Check).unwrap(), zeros);
    // A frame header that claims 2^62 bytes: single segment, 8 bytes of content size, one raw block of 1 byte.
    let mut liar = vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0];
    liar.extend_from_slice(&(1u64 << 62).to_le_bytes());
    liar.extend_from_slice(&[0x09, 0, 0, b'x']);
    assert_eq!(claimed_plain_bytes(&zstd_blob(&liar)), Some(1 << 62));
    assert!(decode(&zstd_blob(&liar), 1 << 20, CrcPolicy::Check).is_err());
    assert!(decode(&zstd_blob(&liar.repeat(1000)), 1 << 20, CrcPolicy::Check).is_err());
}

#[test]
fn what_a_blob_claims_to_hold() {
    assert_eq!(claimed_plain_bytes(HELLO), Some(5));
    assert_eq!(claimed_plain_bytes(ZERO_CHUNK), Some(4 << 20));
    assert_eq!(claimed_plain_bytes(&zstd_blob(&streamed_frame(b"abc"))), None);
    assert_eq!(claimed_plain_bytes(b"short"), None);
    assert_eq!(claimed_plain_bytes(&zstd_blob(b"no frame")), None);
}

#[test]
fn any_valid_sequence_of_frames_is_decoded() {
    let known = encode(&[b'A'; 1000], Compression::Try)[12..].to_vec();
    let streamed = streamed_frame(&[b'B'; 1000]);
    let skippable = [&0x184d_2a50u32.to_le_bytes()[..], &4u32.to_le_bytes(), b"skip"].concat();
    let all = [&b"A".repeat(1000)[..], &b"B".repeat(1000)].concat();
    for frames in [
        [&known[..], &streamed].concat(),
        [&skippable[..], &known, &streamed].concat(),
        [&known[..], &skippable, &streamed, &skippable].concat(),
    ] {
        assert_eq!(decode(&zstd_blob(&frames), 2000, CrcPolicy::Check).unwrap(), all);
        assert!(decode(&zstd_blob(&frames), 1999, CrcPolicy::Check).is_err());
    }
    // The empty plaintext has a frame too.
    assert_eq!(decode(&zstd_blob(&streamed_frame(b"")), 0, CrcPolicy::Check).unwrap(), b"");
}

#[test]
fn what_is_not_a_whole_number_of_frames_is_refused_in_the_recorded_words() {
    let frame = streamed_frame(&noise(70_000));
    for end in [0, 1, 3, 4, 5, 100, frame.len() / 2, frame.len() - 5, frame.len() - 1] {
        assert_eq!(error(&zstd_blob(&frame[..end]), 70_000), "incomplete frame", "cut at {end}");
    }
    assert_eq!(error(&zstd_blob(b"not a zstd frame"), 70_000), "Unknown frame descriptor");
    assert_eq!(error(&zstd_blob(&[&frame[..], b"garbage"].concat()), 70_000), "Unknown frame descriptor");
    assert_eq!(error(&zstd_blob(&[&frame[..], &frame[..9]].concat()), 140_000), "incomplete frame");
    let mut hurt = frame.clone();
    *hurt.last_mut().unwrap() ^= 1;
    assert_eq!(error(&zstd_blob(&hurt), 70_000), "Restored data doesn't match checksum");
}

#[test]
fn compression_is_kept_only_where_it_helps() {
    for (plain, kind) in [
        (Vec::new(), BlobKind::Plain),
        (vec![7], BlobKind::Plain),
        (noise(100_000), BlobKind::Plain),
        (vec![0; 100_000], BlobKind::PlainZstd),
    ] {
        let encoded = encode(&plain, Compression::Try);
        assert_eq!(check_crc(&encoded).unwrap(), kind, "{} bytes", plain.len());
        assert!(encoded.len() <= plain.len() + 12);
        assert_eq!(decode(&encoded, plain.len() as u64, CrcPolicy::Check).unwrap(), plain);
    }
}

proptest! {
    #[test]
    fn what_is_encoded_decodes(plain in prop::collection::vec(0u8..4, 0..5000), try_it: bool) {
        let encoded = encode(&plain, if try_it { Compression::Try } else { Compression::None });
        prop_assert_eq!(decode(&encoded, plain.len() as u64, CrcPolicy::Check).unwrap(), &plain[..]);
        prop_assert_eq!(claimed_plain_bytes(&encoded), Some(plain.len() as u64));
    }

    #[test]
    fn no_bytes_make_it_panic(kind in 0usize..4, rest in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut encoded = [&BlobKind::ALL[kind].magic()[..], &rest].concat();
        let _ = (check_crc(&encoded), set_crc(&mut encoded), claimed_plain_bytes(&encoded));
        let _ = decode(&encoded, 1000, CrcPolicy::Check);
        let _ = decode(&rest, 1000, CrcPolicy::Ignore);
        let frame = [&[0x28, 0xb5, 0x2f, 0xfd][..], &rest].concat();
        if let Ok(plain) = decode(&zstd_blob(&frame), 1000, CrcPolicy::Check) {
            prop_assert!(plain.len() <= 1000);
        }
    }
}
