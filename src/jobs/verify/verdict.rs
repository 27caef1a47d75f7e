//! What the bytes at a chunk's place are worth (spec 07 §3.2). Pure.

use crate::error::{Error, Kind};
use crate::format::blob::{self, CrcPolicy};
use crate::format::blob_plain::with_plain;
use crate::store::Stored;
use crate::types::{CHUNK_BYTES_MAX, Digest};

/// What an index says about a chunk, and the manifest about the index.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// Its name.
    pub digest: Digest,
    /// Length of its plaintext.
    pub size_bytes: u32,
    /// Whether only the client can read it.
    pub encrypted: bool,
}

/// The chunk is not what its name says: a later upload has to replace it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bad {
    /// There is nothing.
    Absent,
    /// There is something, but no whole blob; why.
    NotLoadable(String),
    /// A whole blob of other content.
    WrongDigest,
}

/// What lies there may be right, and it is not what index and manifest say: they, or the client, are wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Encrypted though the manifest says otherwise, or the reverse.
    CryptMode {
        /// Whether it is right but for that, as far as can be checked.
        is_sound: bool,
    },
    /// The right content, and its length is another one than that of its place in the index.
    Length {
        /// Of the chunk.
        plain_bytes: usize,
    },
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    /// Length of the file, if its header and CRC are right; 0 else.
    pub loaded_bytes: u64,
    /// What it is worth.
    pub verdict: Result<Option<Mismatch>, Bad>,
}

/// Judges what lies at the place of a chunk. Of an encrypted one only the CRC can be checked.
pub fn judge(stored: &Stored, claim: &Claim) -> Judged {
    let bad = |loaded_bytes, bad| Judged { loaded_bytes, verdict: Err(bad) };
    let encoded = match stored {
        Stored::Blob(encoded) => encoded,
        Stored::Absent => return bad(0, Bad::Absent),
        Stored::NoChunk(e) => return bad(0, Bad::NotLoadable(e.to_string())),
    };
    let kind = match blob::check_crc(encoded) {
        Ok(kind) => kind,
        Err(e) => return bad(0, Bad::NotLoadable(e.to_string())),
    };
    let loaded_bytes = encoded.len() as u64;
    let sound = |mismatch| Judged { loaded_bytes, verdict: Ok(mismatch) };
    if kind.is_encrypted() != claim.encrypted {
        let opposite = Claim { encrypted: !claim.encrypted, ..*claim };
        let is_sound = judge(stored, &opposite).verdict == Ok(None);
        return sound(Some(Mismatch::CryptMode { is_sound }));
    }
    if kind.is_encrypted() {
        return sound(None);
    }
    let look = |plain: &[u8]| (Digest::of(plain), plain.len());
    match with_plain(encoded, u64::from(CHUNK_BYTES_MAX), CrcPolicy::Ignore, look) {
        Err(e) => bad(loaded_bytes, Bad::NotLoadable(e.to_string())),
        Ok((digest, _)) if digest != claim.digest => bad(loaded_bytes, Bad::WrongDigest),
        Ok((_, plain_bytes)) if plain_bytes as u64 != u64::from(claim.size_bytes) => {
            sound(Some(Mismatch::Length { plain_bytes }))
        }
        Ok(_) => sound(None),
    }
}

/// Whether an error says something about the data, so that a snapshot counts as failed: content that is wrong, a file that is missing or
/// of another kind, a medium that does not give it back (`EIO`, twice). Any other error of the machine says nothing: a network that is
/// down, a permission, a lack of memory; a mark would cost a full upload of what is perhaps all right.
pub fn speaks_of_data(error: &Error) -> bool {
    match (error.kind(), error.errno()) {
        (Kind::Closed | Kind::Busy, _) => false,
        (Kind::Io, Some(errno)) => {
            [libc::EIO, libc::ENOENT, libc::ENOTDIR, libc::EISDIR, libc::ELOOP, libc::ENXIO].contains(&errno)
        }
        _ => true,
    }
}

impl Bad {
    /// For the task log, in the words of the original; `store` is the datastore's name.
    pub fn describe(&self, store: &str, digest: &Digest) -> String {
        let unable = format!("can't verify chunk, load failed - store '{store}', unable to load chunk '{digest}'");
        match self {
            Self::Absent => format!("{unable} - No such file or directory (os error 2)"),
            Self::NotLoadable(why) => format!("{unable} - {why}"),
            Self::WrongDigest => "detected chunk with wrong digest.".to_owned(),
        }
    }
}

impl Mismatch {
    /// For the task log: the words of the original, and which chunk they are about.
    pub fn describe(self, claim: &Claim) -> String {
        let mode = |encrypted: bool| if encrypted { "Encrypt" } else { "None" };
        let digest = claim.digest;
        match self {
            Self::CryptMode { .. } => format!(
                "chunk CryptMode {} does not match index CryptMode {} - chunk {digest}",
                mode(!claim.encrypted),
                mode(claim.encrypted)
            ),
            Self::Length { plain_bytes } => format!(
                "detected chunk with wrong length ({} != {plain_bytes}) - chunk {digest} is right, the index is not",
                claim.size_bytes
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::blob::{Compression, encode, set_crc};

    #[test]
    fn errors_of_the_machine_say_nothing_about_the_data() {
        let kernel = |errno| Error::io("read", std::io::Error::from_raw_os_error(errno));
        for errno in [libc::EIO, libc::ENOENT, libc::EISDIR] {
            assert!(speaks_of_data(&kernel(errno)), "{errno}");
        }
        for errno in [libc::ESTALE, libc::ENOTCONN, libc::EACCES, libc::ETIMEDOUT, libc::EMFILE, libc::ENOMEM] {
            assert!(!speaks_of_data(&kernel(errno)), "{errno}");
        }
        assert!(speaks_of_data(&Error::corrupt("x")) && !speaks_of_data(&Error::closed("x")));
    }

    #[test]
    fn every_way_to_be_right_or_wrong() {
        let plain = b"hello, hello, hello, hello, hello, hello, hello, hello".to_vec();
        let claim = |size_bytes, encrypted| Claim { digest: Digest::of(&plain), size_bytes, encrypted };
        let here = claim(54, false);
        let encrypted = {
            let mut blob = vec![0; 100];
            blob[..8].copy_from_slice(&blob::BlobKind::Encrypted.magic());
            set_crc(&mut blob).unwrap();
            blob
        };
        let broken = |at: usize, blob: &[u8]| {
            let mut blob = blob.to_vec();
            blob[at] ^= 1;
            blob
        };
        let (raw, zstd) = (encode(&plain, Compression::None), encode(&plain, Compression::Try));
        assert_ne!(raw.len(), zstd.len());
        // A whole zstd frame cut short under a right CRC: only decoding tells.
        let cut = {
            let mut blob = zstd[..zstd.len() - 3].to_vec();
            set_crc(&mut blob).unwrap();
            blob
        };
        let is = |stored: Vec<u8>, claim: &Claim| judge(&Stored::Blob(stored[..].into()), claim).verdict;
        let sound = Ok(None);
        assert_eq!(is(raw.clone(), &here), sound);
        assert_eq!(is(zstd.clone(), &here), sound);
        assert_eq!(is(zstd.clone(), &claim(53, false)), Ok(Some(Mismatch::Length { plain_bytes: 54 })));
        assert_eq!(is(zstd.clone(), &claim(54, true)), Ok(Some(Mismatch::CryptMode { is_sound: true })));
        assert_eq!(is(encrypted.clone(), &here), Ok(Some(Mismatch::CryptMode { is_sound: true })));
        // And wrong beside.
        assert_eq!(is(zstd.clone(), &claim(53, true)), Ok(Some(Mismatch::CryptMode { is_sound: false })));
        assert_eq!(is(encrypted.clone(), &claim(1, true)), sound, "nothing but the CRC can be seen");
        assert_eq!(is(encode(b"other", Compression::None), &here), Err(Bad::WrongDigest));
        for (stored, why) in [
            (broken(20, &raw), "wrong CRC"),
            (broken(20, &zstd), "wrong CRC"),
            (broken(60, &encrypted), "wrong CRC"),
            (broken(0, &raw), "wrong magic"),
            (raw[..11].to_vec(), "too small (11 bytes)"),
            (vec![], "too small (0 bytes)"),
            (cut, ""),
        ] {
            match is(stored, &here) {
                Err(Bad::NotLoadable(text)) => assert!(text.contains(why), "{text}"),
                other => panic!("{why}: {other:?}"),
            }
        }
        assert_eq!(judge(&Stored::Absent, &here).verdict, Err(Bad::Absent));
        let no_chunk = Stored::NoChunk(std::io::Error::from_raw_os_error(21));
        assert_eq!(judge(&no_chunk, &here).verdict, Err(Bad::NotLoadable("Is a directory (os error 21)".into())));
        assert_eq!(judge(&Stored::Blob(raw[..].into()), &here).loaded_bytes, raw.len() as u64);
    }
}
