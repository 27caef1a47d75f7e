//! An incoming chunk meets a file of that name: keep, replace or refuse. Pure.
//!
//! The table of spec 01 §6.1, with the repairs of 03 §13: what cannot be a blob, what is shorter than the upload and fails its CRC, and
//! what a check or a verification has called suspect is replaced. An equal length is not read: that is the common case, and a
//! content that went bad at the same length is for verification to find.
//!
//! | existing file | incoming | verdict |
//! |---|---|---|
//! | not a regular file | any | refuse |
//! | suspect | any | replace |
//! | same length | any | keep |
//! | shorter than a blob header, or no known magic | any | replace |
//! | plain | encrypted | refuse: a digest that anybody can check must not be taken over by one that nobody can |
//! | encrypted, not compressed | the same | refuse if it is whole, else replace: the length follows from the content |
//! | otherwise encrypted, longer | encrypted | keep |
//! | otherwise encrypted, shorter | encrypted | keep if it is whole, else replace |
//! | shorter | plain | keep if it is whole, else replace |
//! | longer | plain | replace: the smaller one wins |

use crate::format::blob::{BLOB_BYTES_MIN, BlobKind};

/// The file that has the chunk's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Existing {
    /// Whether it is a regular file, symbolic links followed.
    pub regular: bool,
    /// Its length.
    pub size_bytes: u64,
    /// Whether a check or a verification has doubted it.
    pub suspect: bool,
}

/// What was uploaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Plain or encrypted, compressed or not.
    pub kind: BlobKind,
    /// Length of the encoded blob.
    pub size_bytes: u64,
}

/// What to do, as far as length and magic tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The file stays; its access time is renewed.
    Keep,
    /// The upload takes its place.
    Replace,
    /// The upload is an error.
    Refuse(Reason),
    /// The file has to be read: what to do if its CRC is right. If not, replace.
    Check(IfWhole),
}

/// What becomes of a file that turned out whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IfWhole {
    /// It stays.
    Keep,
    /// It stays, and the upload is an error.
    Refuse(Reason),
}

/// Why an upload is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// A directory or the like lies in the chunk's place.
    NotRegular,
    /// An encrypted chunk would replace a plain one.
    EncryptedOverPlain,
    /// An encrypted chunk would replace another of the same kind and other length.
    EncryptedOverEncrypted,
}

/// Whether length alone decides; else the first bytes of the file are needed for [`by_magic`].
pub fn by_size(existing: Existing, incoming: Incoming) -> Option<Verdict> {
    if !existing.regular {
        Some(Verdict::Refuse(Reason::NotRegular))
    } else if existing.suspect || existing.size_bytes < BLOB_BYTES_MIN {
        Some(Verdict::Replace)
    } else if existing.size_bytes == incoming.size_bytes {
        Some(Verdict::Keep)
    } else if !incoming.kind.is_encrypted() && existing.size_bytes > incoming.size_bytes {
        Some(Verdict::Replace)
    } else {
        None
    }
}

/// What to do when [`by_size`] did not decide. `magic` is what the first eight bytes of the file say it is.
pub fn by_magic(existing: Existing, magic: Option<BlobKind>, incoming: Incoming) -> Verdict {
    let Some(magic) = magic else { return Verdict::Replace };
    let shorter = existing.size_bytes < incoming.size_bytes;
    match (incoming.kind.is_encrypted(), magic.is_encrypted()) {
        (true, false) => Verdict::Refuse(Reason::EncryptedOverPlain),
        (true, true) if incoming.kind == BlobKind::Encrypted && magic == BlobKind::Encrypted => {
            Verdict::Check(IfWhole::Refuse(Reason::EncryptedOverEncrypted))
        }
        _ if shorter => Verdict::Check(IfWhole::Keep),
        (true, true) => Verdict::Keep,
        (false, _) => Verdict::Replace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Both stages, with a file whose content is `magic`.
    fn decide(old: u64, suspect: bool, magic: Option<BlobKind>, kind: BlobKind, new: u64) -> Verdict {
        let existing = Existing { regular: true, size_bytes: old, suspect };
        let incoming = Incoming { kind, size_bytes: new };
        by_size(existing, incoming).unwrap_or_else(|| by_magic(existing, magic, incoming))
    }

    #[test]
    fn the_decision_table() {
        use BlobKind::{Encrypted, EncryptedZstd, Plain, PlainZstd};
        let (keep, replace) = (Verdict::Keep, Verdict::Replace);
        let check = Verdict::Check(IfWhole::Keep);
        let check_refuse = Verdict::Check(IfWhole::Refuse(Reason::EncryptedOverEncrypted));
        let refuse = Verdict::Refuse(Reason::EncryptedOverPlain);
        for (old, magic, kind, new, verdict) in [
            // Length alone.
            (0, None, Plain, 100, replace),
            (0, None, Encrypted, 100, replace),
            (11, None, EncryptedZstd, 100, replace),
            (100, None, Plain, 100, keep),
            (100, Some(Plain), Encrypted, 100, keep),
            (200, Some(Plain), PlainZstd, 100, replace),
            (200, None, PlainZstd, 100, replace),
            (200, Some(Encrypted), PlainZstd, 100, replace),
            // Plain upload, shorter file.
            (50, Some(PlainZstd), Plain, 100, check),
            (50, Some(Plain), Plain, 100, check),
            (50, None, Plain, 100, replace),
            (50, Some(Encrypted), Plain, 100, check),
            // Encrypted upload.
            (50, Some(Plain), Encrypted, 100, refuse),
            (200, Some(PlainZstd), EncryptedZstd, 100, refuse),
            (50, Some(Encrypted), Encrypted, 100, check_refuse),
            (200, Some(Encrypted), Encrypted, 100, check_refuse),
            (200, Some(Encrypted), EncryptedZstd, 100, keep),
            (50, Some(EncryptedZstd), Encrypted, 100, check),
            (200, Some(EncryptedZstd), EncryptedZstd, 100, keep),
            (50, Some(EncryptedZstd), EncryptedZstd, 100, check),
            (200, None, EncryptedZstd, 100, replace),
        ] {
            assert_eq!(decide(old, false, magic, kind, new), verdict, "{old} {magic:?} <- {kind:?} {new}");
            assert_eq!(decide(old, true, magic, kind, new), replace, "suspect {old} {magic:?} <- {kind:?} {new}");
        }
        let directory = Existing { regular: false, size_bytes: 4096, suspect: true };
        let verdict = by_size(directory, Incoming { kind: Plain, size_bytes: 4096 });
        assert_eq!(verdict, Some(Verdict::Refuse(Reason::NotRegular)));
    }
}
