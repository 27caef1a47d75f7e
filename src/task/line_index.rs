//! Where the lines of a growing log begin, remembered for every thousandth: a page of a long log is found without reading all
//! that is before it. Pure.

/// Lines from one remembered place to the next: what a page reads too much, some 60 KiB.
const STRIDE_LINES: u64 = 1024;

/// What is known of the part of a log that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LineIndex {
    /// Everything before this byte was looked at, and a line ends there.
    scanned_bytes: u64,
    lines: u64,
    /// Where lines 0, 1024, 2048, … begin.
    marks: Vec<u64>,
}

impl LineIndex {
    /// Up to where the log is known; the next part to [`Self::feed`] begins here.
    pub(super) fn scanned_bytes(&self) -> u64 {
        self.scanned_bytes
    }

    /// Whole lines up to there.
    pub(super) fn lines(&self) -> u64 {
        self.lines
    }

    /// Takes in what follows; a line that is not yet whole waits for the next call. How many bytes were taken.
    pub(super) fn feed(&mut self, bytes: &[u8]) -> usize {
        let mut taken = 0;
        for (at, _) in bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n') {
            if self.lines.is_multiple_of(STRIDE_LINES) {
                self.marks.push(self.scanned_bytes + taken as u64);
            }
            self.lines += 1;
            taken = at + 1;
        }
        self.scanned_bytes += taken as u64;
        taken
    }

    /// Where to begin to read for a line, counted from 0, and how many lines are to be skipped there. The end for a line that
    /// is not there.
    pub(super) fn seek(&self, line: u64) -> (u64, u64) {
        if line >= self.lines {
            return (self.scanned_bytes, 0);
        }
        let mark = usize::try_from(line / STRIDE_LINES).unwrap_or(usize::MAX);
        (self.marks[mark], line % STRIDE_LINES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed_all(index: &mut LineIndex, text: &[u8], block: usize) {
        loop {
            let start = usize::try_from(index.scanned_bytes()).unwrap();
            let end = text.len().min(start + block);
            if index.feed(&text[start..end]) == 0 {
                return;
            }
        }
    }

    #[test]
    fn every_line_is_found_however_it_was_read() {
        let text: String = (0..5000).map(|n| format!("line {n} {}\n", "x".repeat(n % 7))).collect();
        let mut whole = LineIndex::default();
        feed_all(&mut whole, text.as_bytes(), text.len());
        for block in [30, 64, 4096] {
            let mut index = LineIndex::default();
            feed_all(&mut index, text.as_bytes(), block);
            assert_eq!(index, whole);
        }
        assert_eq!((whole.lines(), whole.scanned_bytes()), (5000, text.len() as u64));
        for line in [0, 1, 1023, 1024, 1025, 4999] {
            let (start, skip) = whole.seek(line);
            let found = text[usize::try_from(start).unwrap()..].lines().nth(usize::try_from(skip).unwrap());
            assert!(found.unwrap().starts_with(&format!("line {line} ")), "{line}: {found:?}");
            assert!(skip < STRIDE_LINES);
        }
        assert_eq!(whole.seek(5000), (text.len() as u64, 0));
    }

    #[test]
    fn a_line_that_is_being_written_waits() {
        let mut index = LineIndex::default();
        assert_eq!(index.feed(b"one\ntw"), 4);
        assert_eq!((index.lines(), index.scanned_bytes()), (1, 4));
        assert_eq!(index.feed(b"tw"), 0);
        assert_eq!(index.feed(b"two\n"), 4);
        assert_eq!((index.lines(), index.scanned_bytes()), (2, 8));
        assert_eq!(index.feed(b""), 0);
    }
}
