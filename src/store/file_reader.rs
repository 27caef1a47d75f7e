//! A file of a snapshot, read in bounded blocks.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;

use super::explain::failed;
use crate::engine::{Disk, DiskFile, Engine, FileKind};
use crate::error::{Error, Result};

/// How much is read at a time when a file is streamed: large enough that a disk is not seek-bound, small enough that a hundred
/// downloads fit in memory. 1 MiB.
pub const STREAM_BLOCK_BYTES: usize = 1 << 20;

/// An open file of a snapshot; cheap to clone.
#[derive(Clone)]
pub struct FileReader {
    engine: Engine,
    open: Arc<OpenFile>,
}

/// A regular file and its length when it was opened.
#[derive(Debug)]
pub(super) struct OpenFile {
    file: DiskFile,
    path: PathBuf,
    size_bytes: u64,
}

impl OpenFile {
    pub(super) fn open(disk: &Disk, path: &Path) -> std::io::Result<Self> {
        let file = disk.open(path)?;
        let meta = file.meta()?;
        if meta.kind != FileKind::File {
            return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, "not a regular file"));
        }
        Ok(Self { file, path: path.to_owned(), size_bytes: meta.size_bytes })
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Up to `bytes_max` bytes at `offset`, fewer only at the end of the file.
    pub(super) fn read_at(&self, offset: u64, bytes_max: usize) -> Result<Vec<u8>> {
        let left = usize::try_from(self.size_bytes.saturating_sub(offset)).unwrap_or(usize::MAX);
        let mut block = vec![0; left.min(bytes_max)];
        self.file.read_exact_at(&mut block, offset).map_err(|e| failed("unable to read", &self.path, e))?;
        Ok(block)
    }
}

impl FileReader {
    pub(super) fn in_background(self) -> Self {
        Self { engine: self.engine.in_background(), ..self }
    }

    pub(super) fn new(engine: Engine, open: OpenFile) -> Self {
        Self { engine, open: Arc::new(open) }
    }

    pub(super) fn open(&self) -> &Arc<OpenFile> {
        &self.open
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Its length when it was opened.
    pub fn size_bytes(&self) -> u64 {
        self.open.size_bytes
    }

    /// The block at `offset`, at most [`STREAM_BLOCK_BYTES`] long; empty at the end of the file. A file that became shorter
    /// since it was opened is an error.
    pub async fn read_block(&self, offset: u64) -> Result<Bytes> {
        let open = Arc::clone(&self.open);
        Ok(self.engine.run(move |_| open.read_at(offset, STREAM_BLOCK_BYTES)).await??.into())
    }

    /// All of it, if it is at most `max_bytes` long.
    pub async fn read_all(&self, max_bytes: u64) -> Result<Bytes> {
        if self.size_bytes() > max_bytes {
            let (path, size) = (&self.open.path, self.size_bytes());
            return Err(Error::corrupt(format!("{path:?} has {size} bytes, more than the {max_bytes} it may have")));
        }
        let open = Arc::clone(&self.open);
        Ok(self.engine.run(move |_| open.read_at(0, usize::MAX)).await??.into())
    }
}

impl fmt::Debug for FileReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FileReader").field(&self.open).finish()
    }
}
