//! Where in an archive chunks are named: stretches of bytes, a bounded number of them. Pure.

use std::ops::Range;

use super::report::Place;
use crate::store::IndexEntry;
use crate::types::Digest;

/// Stretches kept of one archive; the rest is counted. Whoever has more than this needs another backup and no list.
pub(super) const PLACES_MAX: usize = 1000;

/// The stretches of one archive, from its beginning to its end.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// The first of them.
    pub(super) kept: Vec<Place>,
    /// How many more there are.
    pub(super) more: u64,
    /// Entries of the index in all of them.
    pub(super) entries: u64,
    /// Bytes of the archive in all of them.
    pub(super) bytes: u64,
    /// End and chunk of the last one, kept or not.
    last: Option<(u64, Digest)>,
}

impl Places {
    /// The next entry that names one of the chunks.
    pub(super) fn add(&mut self, entry: &IndexEntry) {
        let IndexEntry { pos, digest, size_bytes } = *entry;
        let bytes = u64::from(size_bytes);
        self.entries += 1;
        self.bytes += bytes;
        let goes_on = self.last.replace((pos + bytes, digest)) == Some((pos, digest));
        if goes_on {
            if let (0, Some(place)) = (self.more, self.kept.last_mut()) {
                place.bytes += bytes;
            }
        } else if self.kept.len() < PLACES_MAX {
            self.kept.push(Place { offset: pos, bytes, digest: digest.to_string() });
        } else {
            self.more += 1;
        }
    }
}

/// The bytes that `places`, sorted, cover: what touches is one stretch, whichever chunks it is of.
pub(super) fn merged(places: &[Place]) -> Vec<Range<u64>> {
    let mut merged: Vec<Range<u64>> = Vec::new();
    for place in places {
        match merged.last_mut() {
            Some(last) if last.end == place.offset => last.end += place.bytes,
            _ => merged.push(place.offset..place.offset + place.bytes),
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(slot: u64, chunk: u8) -> IndexEntry {
        IndexEntry { pos: slot * 10, digest: Digest([chunk; 32]), size_bytes: 10 }
    }

    fn shown(places: &Places) -> Vec<(u64, u64, &str)> {
        places.kept.iter().map(|place| (place.offset, place.bytes, &place.digest[..2])).collect()
    }

    #[test]
    fn a_chunk_in_a_row_is_one_stretch() {
        let mut places = Places::default();
        for (slot, chunk) in [(0, 1), (1, 1), (3, 1), (4, 2), (5, 1), (6, 1)] {
            places.add(&entry(slot, chunk));
        }
        assert_eq!(shown(&places), [(0, 20, "01"), (30, 10, "01"), (40, 10, "02"), (50, 20, "01")]);
        assert_eq!((places.entries, places.bytes, places.more), (6, 60, 0));
        assert_eq!(merged(&places.kept), [0..20, 30..70]);
        assert_eq!(merged(&[]), []);
    }

    #[test]
    fn past_the_bound_they_are_counted() {
        let mut places = Places::default();
        for at in 0..PLACES_MAX as u64 + 3 {
            places.add(&entry(3 * at, 1));
            places.add(&entry(3 * at + 1, 1));
        }
        assert_eq!((places.kept.len(), places.more), (PLACES_MAX, 3));
        assert!(places.kept.iter().all(|place| place.bytes == 20), "what goes on behind the bound is of no kept one");
        assert_eq!(places.entries, 2 * (PLACES_MAX as u64 + 3));
    }
}
