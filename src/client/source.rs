//! What is read for a backup: files, devices and standard input, opened before the session begins and then cut into
//! pieces by a thread of their own.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileExt, FileTypeExt};
use std::path::Path;

use fastcdc::v2020::StreamCDC;
use tokio::sync::mpsc;

use super::archive_spec::{ArchiveSpec, SourceKind, SourcePath};
use super::plan;
use crate::error::{Error, IoContext, Result};
use crate::types::{CHUNK_BYTES_MAX, FIXED_CHUNK_BYTES};

/// Chunk lengths of a `.stream`: those of the official client's directory archives (spec 02 §9), so that a datastore
/// sees chunks of one kind only.
const STREAM_CHUNK_BYTES_MIN: usize = 1 << 20;
const STREAM_CHUNK_BYTES_AVERAGE: usize = 4 << 20;
const STREAM_CHUNK_BYTES_MAX: usize = 16 << 20;

/// Longest `.conf` or `.log`, in bytes: what fits into a blob on the wire.
const BLOB_PLAIN_BYTES_MAX: u64 = CHUNK_BYTES_MAX as u64;

/// Pieces that wait between the reading thread and the pipeline. One is enough for the disk to be read while the
/// piece before it is handed over; more would only cost memory, up to 16 MiB each.
const PIECES_AHEAD: usize = 1;

/// An opened source.
pub(super) enum Source {
    /// A file or block device, with the length that it had when it was opened.
    Image { file: File, size_bytes: u64 },
    /// The whole content.
    Blob(Vec<u8>),
    /// Bytes up to their end.
    Stream(Box<dyn Read + Send>),
}

/// A part of an archive that becomes one chunk.
#[derive(Debug)]
pub(super) struct Piece {
    /// Where it begins in the archive.
    pub(super) offset: u64,
    pub(super) content: Content,
}

#[derive(Debug)]
pub(super) enum Content {
    /// A whole block of an image, 4 MiB, all of it zero.
    ZeroBlock,
    /// 1 byte to 16 MiB.
    Bytes(Vec<u8>),
}

impl Piece {
    /// Length in bytes, at most 16 MiB.
    pub(super) fn size_bytes(&self) -> u32 {
        match &self.content {
            Content::ZeroBlock => FIXED_CHUNK_BYTES,
            Content::Bytes(bytes) => u32::try_from(bytes.len()).expect("a piece is bounded"),
        }
    }
}

/// Opens what `spec` names; reads it, if it is a blob. Blocks.
pub(super) fn open(spec: &ArchiveSpec) -> Result<Source> {
    let path = match &spec.source {
        SourcePath::Stdin => return Ok(Source::Stream(Box::new(std::io::stdin()))),
        SourcePath::Path(path) => path,
    };
    let file = File::open(path).io_context(|| format!("cannot open {path:?} for {}", spec.name))?;
    let meta = file.metadata().io_context(|| format!("cannot look at {path:?}"))?;
    if meta.is_dir() {
        return Err(Error::invalid(format!(
            "{path:?} is a directory: pack it, for example `tar -c DIR | ringvault backup NAME.stream:-`"
        )));
    }
    match spec.kind {
        SourceKind::Image if meta.is_file() || meta.file_type().is_block_device() => open_image(file, path),
        SourceKind::Image => Err(Error::invalid(format!(
            "{path:?} is neither a file nor a block device: use NAME.stream for what has no size"
        ))),
        SourceKind::Blob => read_blob(file, path),
        SourceKind::Stream => Ok(Source::Stream(Box::new(file))),
    }
}

fn open_image(mut file: File, path: &Path) -> Result<Source> {
    // The end of a block device is its size as well; metadata would say 0.
    let size_bytes = file.seek(SeekFrom::End(0)).io_context(|| format!("cannot find the size of {path:?}"))?;
    match size_bytes {
        0 => Err(Error::invalid(format!("{path:?} is empty: an image needs at least one byte"))),
        _ => Ok(Source::Image { file, size_bytes }),
    }
}

fn read_blob(file: File, path: &Path) -> Result<Source> {
    let mut content = Vec::new();
    file.take(BLOB_PLAIN_BYTES_MAX + 1).read_to_end(&mut content).io_context(|| format!("cannot read {path:?}"))?;
    match u64::try_from(content.len()) {
        Ok(0..=BLOB_PLAIN_BYTES_MAX) => Ok(Source::Blob(content)),
        _ => Err(Error::invalid(format!(
            "{path:?} is longer than {} MiB, too long for a .conf or .log: use NAME.stream",
            BLOB_PLAIN_BYTES_MAX >> 20
        ))),
    }
}

/// Reads the blocks of an image that `dirty` touches, or all of them.
pub(super) fn read_image(
    file: File,
    size_bytes: u64,
    dirty: Option<&[Range<u64>]>,
) -> Result<mpsc::Receiver<Result<Piece>>> {
    let blocks = plan::blocks(size_bytes, dirty);
    start_reading(move || blocks.map(move |block| read_block(&file, block)))
}

fn read_block(file: &File, block: Range<u64>) -> Result<Piece> {
    let length = usize::try_from(block.end - block.start).expect("a block has 4 MiB at most");
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, block.start).map_err(|e| match e.kind() {
        std::io::ErrorKind::UnexpectedEof => Error::invalid(format!(
            "the image ends before byte {}: it was made shorter while it was read; back up a snapshot of it",
            block.end
        )),
        _ => Error::io(format!("cannot read the image at byte {}", block.start), e),
    })?;
    let content = if bytes.len() == FIXED_CHUNK_BYTES as usize && is_zero(&bytes) {
        Content::ZeroBlock
    } else {
        Content::Bytes(bytes)
    };
    Ok(Piece { offset: block.start, content })
}

/// Cuts a stream by its content.
pub(super) fn read_stream(stream: Box<dyn Read + Send>) -> Result<mpsc::Receiver<Result<Piece>>> {
    start_reading(move || {
        let cuts = StreamCDC::new(stream, STREAM_CHUNK_BYTES_MIN, STREAM_CHUNK_BYTES_AVERAGE, STREAM_CHUNK_BYTES_MAX);
        cuts.map(|cut| {
            let cut = cut.map_err(|e| Error::io("cannot read the stream", e.into()))?;
            Ok(Piece { offset: cut.offset, content: Content::Bytes(cut.data) })
        })
    })
}

/// The thread ends with the pieces, with the first error, or when nobody takes them any more.
fn start_reading<I: Iterator<Item = Result<Piece>>>(
    pieces: impl FnOnce() -> I + Send + 'static,
) -> Result<mpsc::Receiver<Result<Piece>>> {
    let (tx, rx) = mpsc::channel(PIECES_AHEAD);
    let read = move || {
        for piece in pieces() {
            let failed = piece.is_err();
            if tx.blocking_send(piece).is_err() || failed {
                return;
            }
        }
    };
    std::thread::Builder::new().name("rv-read".into()).spawn(read).io_context(|| "cannot start the reading thread")?;
    Ok(rx)
}

/// Whether all bytes are zero; as fast as a `memcmp`, and done at the first that is not.
pub(super) fn is_zero(bytes: &[u8]) -> bool {
    match bytes {
        [0, rest @ ..] => bytes[..rest.len()] == *rest,
        [] => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_is_all_bytes() {
        for (bytes, expected) in
            [(&[][..], true), (&[0], true), (&[0, 0, 0], true), (&[1], false), (&[0, 0, 1], false), (&[1, 0], false)]
        {
            assert_eq!(is_zero(bytes), expected, "{bytes:?}");
        }
    }

    fn pieces(mut rx: mpsc::Receiver<Result<Piece>>) -> Vec<(u64, Option<Vec<u8>>)> {
        std::iter::from_fn(|| rx.blocking_recv())
            .map(|piece| {
                let piece = piece.unwrap();
                match piece.content {
                    Content::ZeroBlock => (piece.offset, None),
                    Content::Bytes(bytes) => (piece.offset, Some(bytes)),
                }
            })
            .collect()
    }

    #[test]
    fn an_image_is_cut_every_four_mebibytes_and_a_short_zero_end_is_data() {
        let block = u64::from(FIXED_CHUNK_BYTES);
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(b"x", 0).unwrap();
        file.set_len(2 * block + 9).unwrap();
        let read = pieces(read_image(file.try_clone().unwrap(), 2 * block + 9, None).unwrap());
        assert_eq!(read.len(), 3);
        assert_eq!(read[0].1.as_ref().unwrap().len(), FIXED_CHUNK_BYTES as usize);
        assert_eq!(read[1], (block, None));
        assert_eq!(read[2], (2 * block, Some(vec![0; 9])));
        let dirty =
            pieces(read_image(file, 2 * block + 9, Some(std::slice::from_ref(&(2 * block..2 * block + 1)))).unwrap());
        assert_eq!(dirty, [(2 * block, Some(vec![0; 9]))]);
    }

    #[test]
    fn an_image_that_shrinks_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(10).unwrap();
        let mut rx = read_image(file, 11, None).unwrap();
        assert!(rx.blocking_recv().unwrap().unwrap_err().to_string().contains("shorter"));
        assert!(rx.blocking_recv().is_none());
    }

    #[test]
    fn a_stream_is_cut_alike_behind_an_insertion() {
        let mut state = 1_u32;
        let mut noise = || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            state.to_le_bytes()[0]
        };
        let data: Vec<u8> = (0..24 << 20).map(|_| noise()).collect();
        let cut = |data: Vec<u8>| pieces(read_stream(Box::new(std::io::Cursor::new(data))).unwrap());
        let first = cut(data.clone());
        assert_eq!(first.iter().flat_map(|(_, bytes)| bytes.clone().unwrap()).collect::<Vec<u8>>(), data);
        let mut shifted = b"inserted".to_vec();
        shifted.extend_from_slice(&data);
        let second = cut(shifted);
        assert_ne!(first[0], second[0]);
        assert_eq!(first.last().unwrap().1, second.last().unwrap().1);
        assert!(cut(Vec::new()).is_empty());
    }

    #[test]
    fn what_cannot_be_backed_up_is_refused_before_the_session() {
        let dir = tempfile::tempdir().unwrap();
        let empty = dir.path().join("empty");
        std::fs::OpenOptions::new().create(true).append(true).open(&empty).unwrap();
        let empty = empty.display();
        for (text, why) in [
            ("a.img:/does/not/exist".to_owned(), "cannot open"),
            (format!("a.img:{}", dir.path().display()), "directory"),
            (format!("a.stream:{}", dir.path().display()), "directory"),
            (format!("a.img:{empty}"), "empty"),
            ("a.img:/dev/null".to_owned(), "neither"),
            ("a.conf:/dev/zero".to_owned(), "too long"),
        ] {
            let error = open(&text.parse().unwrap()).err().expect(&text).to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(matches!(open(&format!("a.conf:{empty}").parse().unwrap()), Ok(Source::Blob(b)) if b.is_empty()));
    }
}
