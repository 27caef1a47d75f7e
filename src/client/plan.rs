//! Which blocks of an image are read, and how entries become append requests. Pure.

use std::collections::BTreeSet;
use std::ops::Range;

use crate::types::{Digest, FIXED_CHUNK_BYTES};

/// Entries of one append request (spec 06 §2.2: a PUT has 1 to 128).
pub const APPEND_ENTRIES_MAX: usize = 128;

const BLOCK: u64 = FIXED_CHUNK_BYTES as u64;

/// The byte ranges of an image that are read, in order, each one slot of the fixed index: all of them, or those that a
/// `dirty` range touches. Dirty ranges may overlap, be empty and reach behind the end.
pub fn blocks(size_bytes: u64, dirty: Option<&[Range<u64>]>) -> Box<dyn Iterator<Item = Range<u64>> + Send> {
    let range = move |slot: u64| slot * BLOCK..((slot + 1) * BLOCK).min(size_bytes);
    match dirty {
        None => Box::new((0..size_bytes.div_ceil(BLOCK)).map(range)),
        Some(dirty) => {
            let touched = dirty.iter().map(|r| r.start..r.end.min(size_bytes)).filter(|r| !r.is_empty());
            let slots: BTreeSet<u64> = touched.flat_map(|r| r.start / BLOCK..r.end.div_ceil(BLOCK)).collect();
            Box::new(slots.into_iter().map(range))
        }
    }
}

/// Entries that wait for their append request, in the order of the archive.
#[derive(Debug, Default)]
pub struct AppendBatch {
    digests: Vec<Digest>,
    offsets: Vec<u64>,
}

#[derive(serde::Serialize)]
#[serde(rename_all = "kebab-case")]
struct Body<'a> {
    wid: u64,
    digest_list: &'a [Digest],
    offset_list: &'a [u64],
}

impl AppendBatch {
    /// Adds the chunk that begins at `offset`; true when the batch is full and has to go.
    pub fn push(&mut self, offset: u64, digest: Digest) -> bool {
        self.digests.push(digest);
        self.offsets.push(offset);
        self.digests.len() >= APPEND_ENTRIES_MAX
    }

    /// Whether nothing waits.
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// The digests that wait.
    pub fn digests(&self) -> &[Digest] {
        &self.digests
    }

    /// The request's JSON body for the writer `wid`, 10.5 KiB at most; empties the batch.
    pub fn take_body(&mut self, wid: u64) -> Vec<u8> {
        let body = Body { wid, digest_list: &self.digests, offset_list: &self.offsets };
        let json = serde_json::to_vec(&body).expect("numbers and text always become JSON");
        self.digests.clear();
        self.offsets.clear();
        json
    }
}

#[cfg(test)]
#[expect(clippy::single_range_in_vec_init, reason = "lists of ranges are meant")]
mod tests {
    use super::*;

    fn starts(size_bytes: u64, dirty: Option<&[Range<u64>]>) -> Vec<Range<u64>> {
        blocks(size_bytes, dirty).collect()
    }

    #[test]
    fn blocks_cover_the_image_once() {
        assert_eq!(starts(0, None), []);
        assert_eq!(starts(1, None), [0..1]);
        assert_eq!(starts(BLOCK, None), [0..BLOCK]);
        assert_eq!(starts(2 * BLOCK + 5, None), [0..BLOCK, BLOCK..2 * BLOCK, 2 * BLOCK..2 * BLOCK + 5]);
    }

    #[test]
    fn dirty_ranges_become_whole_blocks() {
        let size = 3 * BLOCK + 7;
        for (dirty, expected) in [
            (vec![], vec![]),
            (vec![5..5, size..size + 9], vec![]),
            (vec![0..1], vec![0..BLOCK]),
            (vec![BLOCK - 1..BLOCK + 1], vec![0..BLOCK, BLOCK..2 * BLOCK]),
            (vec![BLOCK..2 * BLOCK, BLOCK + 3..BLOCK + 4], vec![BLOCK..2 * BLOCK]),
            (vec![3 * BLOCK..u64::MAX], vec![3 * BLOCK..size]),
        ] {
            assert_eq!(starts(size, Some(&dirty)), expected, "{dirty:?}");
        }
    }

    #[test]
    fn a_batch_is_full_at_128_and_keeps_its_order() {
        let mut batch = AppendBatch::default();
        for i in 0..127 {
            assert!(!batch.push(i * BLOCK, Digest::ZERO));
        }
        assert!(batch.push(127 * BLOCK, Digest([0xff; 32])));
        let body: serde_json::Value = serde_json::from_slice(&batch.take_body(3)).unwrap();
        assert!(batch.is_empty());
        assert_eq!(body["wid"], 3);
        assert_eq!(body["offset-list"][127], 127 * BLOCK);
        assert_eq!(body["digest-list"][127], "ff".repeat(32));
        assert_eq!(body["digest-list"].as_array().unwrap().len(), 128);
    }
}
