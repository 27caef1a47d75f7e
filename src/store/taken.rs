//! What jobs take out of the store while backups run, so that a check that has passed stays true.
//!
//! ```text
//! job      begin([d1, d2]) ── Taking: d1 and d2 are unlinked or renamed ── dropped: written on the board
//!             waits while a Stay lives                                          │
//! session  watch() ── its own sweep sees d1 ──────────── stay() ── taken(): d1 ─┘ asked for again ── manifest ── dropped
//!                                                        waits while a Taking lives
//! ```
//!
//! A session's sweep and a removal know nothing of each other, so a chunk may go right behind the sweep that saw it. Therefore the session
//! opens a [`TakenWatch`] before it sweeps; before its manifest appears it gets a [`Stay`], under which nothing is taken, and asks once more
//! for what was taken since. Backups come first: a new [`Taking`] also waits for those that only want to stay.
//!
//! What is announced is written on the board when the taking ends, done or not, on whatever way out: a chunk that stayed after all costs
//! one presence check. Who claims a digest (`claims`) does that after [`Board::begin`], never before: a stay claims nothing, an insert takes
//! nothing, so nobody waits in a circle.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::sync::Mutex;
use crate::types::Digest;

/// How many digests the board keeps for those that watch: 32 MiB. A garbage collection that takes more than that during one sweep costs
/// that session a second sweep, whose memory has a bound of its own.
const BOARD_DIGESTS_MAX: usize = 1 << 20;

/// The board of one datastore.
#[derive(Debug, Default)]
pub(super) struct Board {
    inner: Mutex<Inner>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    /// Jobs that are taking something.
    takings: usize,
    /// Sessions that have, or wait for, a time in which nothing is taken.
    stays: usize,
    /// What was taken; the first has the number `first`.
    log: VecDeque<Digest>,
    first: u64,
    /// For each watch its own number, and the number that the first digest taken after its beginning has.
    watches: Vec<(u64, u64)>,
    next_watch: u64,
}

/// Some chunks are being taken. Goes along with the work onto the pool.
#[derive(Debug)]
pub struct Taking {
    board: Arc<Board>,
    digests: Vec<Digest>,
}

/// Nothing is taken while this lives. Goes along with the work onto the pool.
#[derive(Debug)]
pub struct Stay {
    board: Arc<Board>,
}

/// Remembers what is taken from now on.
#[derive(Debug)]
pub struct TakenWatch {
    board: Arc<Board>,
    number: u64,
}

/// What was taken since a watch began.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taken {
    /// These, in the order of their taking; some of them may have stayed, or have come back.
    These(Vec<Digest>),
    /// More than the board keeps: anything may be gone.
    TooMany,
}

impl Board {
    /// Announces that `digests` are about to be taken, once nobody wants to stay.
    pub(super) async fn begin(self: &Arc<Self>, digests: Vec<Digest>) -> Taking {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let mut inner = self.inner.lock();
                if inner.stays == 0 {
                    inner.takings += 1;
                    return Taking { board: Arc::clone(self), digests };
                }
            }
            changed.await;
        }
    }

    /// Tells those that watch of chunks that are gone by somebody else's doing: nobody has announced it, and nobody waits for it.
    pub(super) fn note(&self, digests: impl Iterator<Item = Digest>) {
        self.inner.lock().write(digests);
    }

    /// Remembers what is taken from now on.
    pub(super) fn watch(self: &Arc<Self>) -> TakenWatch {
        let mut inner = self.inner.lock();
        let (number, end) = (inner.next_watch, inner.end());
        inner.next_watch += 1;
        inner.watches.push((number, end));
        TakenWatch { board: Arc::clone(self), number }
    }
}

impl Inner {
    fn end(&self) -> u64 {
        self.first + self.log.len() as u64
    }

    fn write(&mut self, digests: impl IntoIterator<Item = Digest>) {
        if self.watches.is_empty() {
            return;
        }
        self.log.extend(digests);
        let excess = self.log.len().saturating_sub(BOARD_DIGESTS_MAX);
        self.log.drain(..excess);
        self.first += excess as u64;
    }

    /// Forgets what was taken before every watch began.
    fn trim(&mut self) {
        let needed = self.watches.iter().map(|(_, from)| *from).min().unwrap_or(self.end());
        let unneeded = usize::try_from(needed.saturating_sub(self.first)).unwrap_or(usize::MAX);
        let unneeded = unneeded.min(self.log.len());
        self.log.drain(..unneeded);
        self.first += unneeded as u64;
        if self.log.is_empty() {
            self.log.shrink_to_fit();
        }
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        let mut inner = self.board.inner.lock();
        inner.write(std::mem::take(&mut self.digests));
        inner.takings -= 1;
        drop(inner);
        self.board.changed.notify_waiters();
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.board.inner.lock().stays -= 1;
        self.board.changed.notify_waiters();
    }
}

impl TakenWatch {
    /// What was taken since the watch began.
    pub fn taken(&self) -> Taken {
        let inner = self.board.inner.lock();
        let watch = inner.watches.iter().find(|(number, _)| *number == self.number);
        let (_, from) = watch.expect("listed until it is dropped");
        match from.checked_sub(inner.first) {
            Some(before) => {
                let before = usize::try_from(before).unwrap_or(usize::MAX);
                Taken::These(inner.log.iter().skip(before).copied().collect())
            }
            None => Taken::TooMany,
        }
    }

    /// Waits until what is being taken is gone, and lets nothing more be taken until the guard is dropped.
    pub async fn stay(&self) -> Stay {
        let board = &self.board;
        board.inner.lock().stays += 1;
        // Made before the wait, so that a session that is given up lets the jobs go on.
        let stay = Stay { board: Arc::clone(board) };
        loop {
            let changed = board.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if board.inner.lock().takings == 0 {
                return stay;
            }
            changed.await;
        }
    }
}

impl Drop for TakenWatch {
    fn drop(&mut self) {
        let mut inner = self.board.inner.lock();
        inner.watches.retain(|(number, _)| *number != self.number);
        inner.trim();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn digest(n: usize) -> Digest {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        Digest(bytes)
    }

    async fn waits<T>(future: impl Future<Output = T>) -> bool {
        tokio::time::timeout(Duration::from_millis(20), future).await.is_err()
    }

    #[tokio::test]
    async fn a_watch_hears_of_what_ends_after_it_began() {
        let board = Arc::new(Board::default());
        drop(board.begin(vec![digest(1)]).await);
        let early = board.watch();
        drop(board.begin(vec![digest(2)]).await);
        let under_way = board.begin(vec![digest(3), digest(4)]).await;
        let late = board.watch();
        assert_eq!(early.taken(), Taken::These(vec![digest(2)]));
        drop(under_way);
        drop(board.begin(vec![digest(5)]).await);
        assert_eq!(early.taken(), Taken::These([2, 3, 4, 5].map(digest).to_vec()));
        assert_eq!(early.taken(), Taken::These([2, 3, 4, 5].map(digest).to_vec()), "asking forgets nothing");
        assert_eq!(late.taken(), Taken::These([3, 4, 5].map(digest).to_vec()), "what was under way counts");
        drop(early);
        assert_eq!(board.inner.lock().log.len(), 3, "what nobody will ask for is forgotten");
    }

    #[tokio::test]
    async fn nothing_is_kept_when_nobody_watches() {
        let board = Arc::new(Board::default());
        let watch = board.watch();
        drop(board.begin(vec![digest(1)]).await);
        assert_eq!(board.inner.lock().log.len(), 1);
        drop(watch);
        drop(board.begin(vec![digest(2)]).await);
        assert!(board.inner.lock().log.is_empty());
    }

    #[tokio::test]
    async fn a_stay_waits_for_takings_and_takings_for_stays() {
        let board = Arc::new(Board::default());
        let (watch, other) = (board.watch(), board.watch());
        let taking = board.begin(vec![digest(1)]).await;
        let second = board.begin(vec![digest(2)]).await;
        let staying = {
            let watch = board.watch();
            tokio::spawn(async move { watch.stay().await })
        };
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(!staying.is_finished());
        assert!(waits(board.begin(vec![])).await, "who wants to stay comes first");
        drop(taking);
        assert!(waits(watch.stay()).await);
        drop(second);
        let stay = staying.await.unwrap();
        assert_eq!(watch.taken(), Taken::These(vec![digest(1), digest(2)]));
        let together = other.stay().await;
        drop(stay);
        assert!(waits(board.begin(vec![])).await);
        let waiting = tokio::spawn({
            let board = Arc::clone(&board);
            async move { drop(board.begin(vec![]).await) }
        });
        drop(together);
        waiting.await.unwrap();
        let inner = board.inner.lock();
        assert_eq!((inner.takings, inner.stays), (0, 0), "who gave up left nothing behind");
    }

    #[tokio::test]
    async fn more_than_the_board_keeps_is_told_as_that() {
        let board = Arc::new(Board::default());
        let early = board.watch();
        drop(board.begin(vec![digest(0)]).await);
        let late = board.watch();
        drop(board.begin((0..BOARD_DIGESTS_MAX).map(digest).collect()).await);
        assert_eq!(board.inner.lock().log.len(), BOARD_DIGESTS_MAX);
        assert_eq!(early.taken(), Taken::TooMany);
        assert_eq!(late.taken(), Taken::These((0..BOARD_DIGESTS_MAX).map(digest).collect()));
        drop((early, late));
        assert_eq!(board.inner.lock().log.capacity(), 0);
    }
}
