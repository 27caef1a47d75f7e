//! What a verification has seen, kept beside the datastore, so that one that was cut off is gone on with.
//!
//! ```text
//! BASE/.ringvault-verify-<hash of the task's type and id>      blocks, one behind the other
//! block: kind u8 │ bytes u32 │ content │ 8 bytes of its SHA-256
//!   1  a run: {"version":1,"upid":"UPID:…","keys":[…],"time":…}     the first one, and one for each run that goes on with it
//!   2  time i64 │ 16 bytes a chunk that is right (seen.rs)
//! ```
//!
//! Snapshots that are done are not in it: their manifests name the run. 16 bytes a chunk are 4 millionths of what was read. Only what was right is
//! kept; what was not is looked at again.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::seen::Seen;
use crate::clock::EpochSecs;
use crate::store::layout::VERIFY_PROGRESS_PREFIX;
use crate::store::{Datastore, Journal};
use crate::types::{Digest, Upid};

/// Form of what is kept; another one is not understood.
const VERSION: u32 = 1;

const RUN: u8 = 1;
const CHUNKS: u8 = 2;

/// Kind and length of a block.
const HEAD_BYTES: usize = 5;

/// Bytes of a block's hash that are kept.
const CHECK_BYTES: usize = 8;

/// Chunks between two writings: a small append for each GiB of an image.
const CHUNKS_BETWEEN: usize = 256;

/// On slow disks it is written as often as this.
const TIME_BETWEEN: Duration = Duration::from_secs(5);

/// Longest journal that is read: as much as [`Seen`] remembers, and the blocks around it.
const JOURNAL_BYTES_MAX: u64 = 160 << 20;

/// What was cut off longer ago than this begins anew.
const AGE_MAX_SECS: i64 = 86_400;

/// The first run of a row may have begun so long ago: what it has read counts no longer then.
const ROW_MAX_SECS: i64 = 30 * 86_400;

/// How long a run that is asked to stop takes to write down what it has seen.
const LAST_WORD_MAX: Duration = Duration::from_millis(500);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Run {
    version: u32,
    upid: String,
    keys: [u64; 4],
    time: EpochSecs,
}

/// What a journal says.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    runs: Vec<Run>,
    right: Vec<u128>,
    last: EpochSecs,
    /// Bytes of whole blocks.
    whole: usize,
}

fn block(kind: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(u32::try_from(content.len()).expect("blocks are small").to_le_bytes());
    bytes.extend_from_slice(content);
    let check = Digest::of(&bytes);
    bytes.extend_from_slice(&check.0[..CHECK_BYTES]);
    bytes
}

fn chunks_block(now: EpochSecs, right: &[u128]) -> Vec<u8> {
    let mut content = now.0.to_le_bytes().to_vec();
    content.extend(right.iter().flat_map(|print| print.to_le_bytes()));
    block(CHUNKS, &content)
}

/// The block at the beginning of `bytes`: kind, content, and its length. `None` for one that is not whole.
fn first_block(bytes: &[u8]) -> Option<(u8, &[u8], usize)> {
    let head: [u8; HEAD_BYTES] = *bytes.first_chunk()?;
    let length = usize::try_from(u32::from_le_bytes([head[1], head[2], head[3], head[4]])).ok()?;
    let end = HEAD_BYTES.checked_add(length)?;
    let check = bytes.get(end..end.checked_add(CHECK_BYTES)?)?;
    (Digest::of(&bytes[..end]).0[..CHECK_BYTES] == *check)
        .then(|| (head[0], &bytes[HEAD_BYTES..end], end + CHECK_BYTES))
}

/// Reads whole blocks up to the first that is none. The error says why there is nothing to go on with.
fn read(bytes: &[u8]) -> Result<Read, &'static str> {
    let mut read = Read { runs: Vec::new(), right: Vec::new(), last: EpochSecs(i64::MIN), whole: 0 };
    while let Some((kind, content, length)) = first_block(&bytes[read.whole..]) {
        match kind {
            RUN => {
                let run: Run = serde_json::from_slice(content).map_err(|_| "it is of another version")?;
                if run.version != VERSION || read.runs.first().is_some_and(|first| first.keys != run.keys) {
                    return Err("it is of another version");
                }
                read.last = run.time;
                read.runs.push(run);
            }
            CHUNKS => {
                let (time, prints) = content.split_first_chunk().ok_or("it makes no sense")?;
                read.last = EpochSecs(i64::from_le_bytes(*time));
                read.right.extend(prints.as_chunks().0.iter().map(|print| u128::from_le_bytes(*print)));
            }
            _ => return Err("it is of another version"),
        }
        read.whole += length;
    }
    if read.runs.is_empty() { Err("it makes no sense") } else { Ok(read) }
}

impl Read {
    /// Why a run at `now` does not go on with it; `None` if it does.
    fn objection(&self, now: EpochSecs) -> Option<&'static str> {
        let since = |time: EpochSecs| now.0.saturating_sub(time.0);
        if !(-AGE_MAX_SECS..=AGE_MAX_SECS).contains(&since(self.last)) {
            return Some("that was more than a day ago");
        }
        let begun = self.runs.first().and_then(|run| run.upid.parse::<Upid>().ok());
        if begun.is_none_or(|upid| since(upid.start) > ROW_MAX_SECS) {
            return Some("it began more than 30 days ago");
        }
        None
    }
}

/// Name of the file of a worker.
fn journal_name((worker_type, worker_id): (&str, &str)) -> String {
    let hash = Digest::of(format!("{worker_type}:{worker_id}").as_bytes()).to_string();
    format!("{VERIFY_PROGRESS_PREFIX}{}", &hash[..16])
}

/// How far the verification of this worker is that was cut off, as a number that grows from try to try; 0 if there is none.
pub async fn progress_made(store: &Datastore, (worker_type, worker_id): &(&str, String)) -> u64 {
    store.journal_bytes(&journal_name((worker_type, worker_id))).await
}

/// Writes down what a run sees.
#[derive(Debug)]
pub(super) struct Trail {
    store: Datastore,
    name: String,
    run: Run,
    /// The runs that this one goes on with.
    before: Vec<String>,
    journal: Option<Journal>,
    /// It cannot be written, or another task of the same name writes it.
    is_off: bool,
    pending: Vec<u128>,
    at: Instant,
}

impl Trail {
    /// For a task that begins: what a run before it has seen, where one was cut off, and the line of the log that says so.
    pub(super) async fn begin(store: &Datastore, upid: &Upid) -> (Self, Seen, Option<String>) {
        if let Err(error) = store.remove_old_journals(VERIFY_PROGRESS_PREFIX, AGE_MAX_SECS).await {
            tracing::debug!(store = %store.name(), %error, "journals of verifications that nobody goes on with are still there");
        }
        let name = journal_name((&upid.worker_type, upid.worker_id.as_deref().unwrap_or_default()));
        let opened = store.open_journal(&name, JOURNAL_BYTES_MAX).await;
        let mut seen = Seen::default();
        let run = Run { version: VERSION, upid: upid.to_string(), keys: seen.keys(), time: store.clock().now() };
        let (store, at) = (store.clone(), Instant::now());
        let mut trail =
            Self { store, name, run, before: Vec::new(), journal: None, is_off: false, pending: Vec::new(), at };
        let line = match opened {
            Ok(None) => None,
            Ok(Some((journal, bytes))) => trail.go_on_with(journal, &bytes, &mut seen).await,
            Err(error) => {
                trail.is_off = true;
                Some(format!("how far this verification is will not be kept: {error}"))
            }
        };
        (trail, seen, line)
    }

    async fn go_on_with(&mut self, mut journal: Journal, bytes: &[u8], seen: &mut Seen) -> Option<String> {
        let now = self.run.time;
        let usable = read(bytes).and_then(|read| read.objection(now).map_or(Ok(read), Err));
        let read = match usable {
            Ok(read) => read,
            Err(why) => {
                // Torn, or old: what is in it is of no use, and this run may need the name.
                self.is_off = journal.remove().await.is_err();
                return Some(format!("not resuming a verification that was cut off: {why}"));
            }
        };
        self.run.keys = read.runs[0].keys;
        *seen = Seen::with_keys(self.run.keys);
        let count = read.right.len();
        seen.restore(read.right);
        self.before = read.runs.into_iter().map(|run| run.upid).collect();
        let cut = journal.cut_to(read.whole as u64).await;
        let told = match cut {
            Ok(()) => journal.append(self.header()).await,
            failed => failed,
        };
        self.journal = Some(journal);
        self.is_off = told.is_err();
        let last = self.before.last().map_or("", String::as_str);
        Some(format!(
            "resuming the verification {last}: {count} chunks are verified, and the snapshots that it has finished"
        ))
    }

    fn header(&self) -> Vec<u8> {
        block(RUN, &serde_json::to_vec(&self.run).unwrap_or_default())
    }

    /// Whether the run with this name is one that this one goes on with.
    pub(super) fn is_ours(&self, upid: &str) -> bool {
        self.before.iter().any(|before| before == upid)
    }

    /// A chunk is right.
    pub(super) fn note(&mut self, print: u128) {
        if !self.is_off {
            self.pending.push(print);
        }
    }

    /// Whether it is time to write.
    pub(super) fn is_due(&self) -> bool {
        let is_late = self.at.elapsed() >= TIME_BETWEEN && (self.journal.is_none() || !self.pending.is_empty());
        !self.is_off && (is_late || self.pending.len() >= CHUNKS_BETWEEN)
    }

    /// Writes. What cannot be written is not kept, which costs no run.
    pub(super) async fn write(&mut self) {
        self.at = Instant::now();
        if self.is_off {
            return;
        }
        let block = chunks_block(self.store.clock().now(), &std::mem::take(&mut self.pending));
        let written = match &mut self.journal {
            Some(journal) => journal.append(block).await,
            None => match self.store.create_journal(&self.name).await {
                Ok(journal) => {
                    let first = [self.header(), block].concat();
                    self.journal.insert(journal).append(first).await
                }
                Err(e) => Err(e),
            },
        };
        if let Err(error) = written {
            tracing::debug!(store = %self.store.name(), %error, "how far a verification is can no longer be kept");
            self.is_off = true;
        }
    }

    /// The run ends before its end. A short one that has not written anything begins anew.
    pub(super) async fn cut_off(mut self) {
        if self.journal.is_some() && !self.pending.is_empty() {
            let _ = tokio::time::timeout(LAST_WORD_MAX, self.write()).await;
        }
    }

    /// The run has come to its end: nothing is left to go on with.
    pub(super) async fn end(self) {
        if let Some(journal) = self.journal
            && let Err(error) = journal.remove().await
        {
            tracing::warn!(store = %self.store.name(), %error, "the next verification may take this one for one that was cut off");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPID: &str = "UPID:a:00000001:00000001:00000001:66607A6A:verificationjob:main%3Aweekly:root@pam:";
    const NOW: EpochSecs = EpochSecs(0x6660_7a6a);

    fn run(upid: &str, key: u64) -> Vec<u8> {
        let run = Run { version: VERSION, upid: upid.to_owned(), keys: [key; 4], time: NOW };
        block(RUN, &serde_json::to_vec(&run).unwrap())
    }

    #[test]
    fn a_torn_journal_counts_up_to_where_it_is_torn() {
        let parts = [run(UPID, 1), chunks_block(NOW, &[7, 8]), run("UPID:y", 1), chunks_block(NOW, &[9])];
        let all = parts.concat();
        let whole = read(&all).unwrap();
        assert_eq!((&whole.right[..], whole.runs.len(), whole.whole), (&[7, 8, 9][..], 2, all.len()));
        let ends: Vec<usize> = (1..=4).map(|n| parts[..n].concat().len()).collect();
        for cut in 0..all.len() {
            let blocks = ends.iter().filter(|end| **end <= cut).count();
            for tail in [&[][..], &[0; 100], &[0xff; 100]] {
                match read(&[&all[..cut], tail].concat()) {
                    Ok(read) => assert_eq!(read.whole, ends[blocks - 1], "{cut}"),
                    Err(_) => assert_eq!(blocks, 0, "{cut}"),
                }
            }
        }
        // A bit anywhere costs that block and what is behind it.
        for at in 0..all.len() {
            let mut other = all.clone();
            other[at] ^= 4;
            let blocks = ends.iter().filter(|end| **end <= at).count();
            assert_eq!(
                read(&other).map_or(0, |read| read.whole),
                if blocks == 0 { 0 } else { ends[blocks - 1] },
                "{at}"
            );
        }
        for strange in [[run(UPID, 1), run("UPID:y", 2)].concat(), chunks_block(NOW, &[1]), block(9, b""), Vec::new()] {
            assert!(read(&strange).is_err());
        }
    }

    #[test]
    fn what_is_old_begins_anew() {
        let at = |secs: i64| EpochSecs(NOW.0 + secs);
        let day = AGE_MAX_SECS;
        for (last, now, is_resumed) in [
            (0, 0, true),
            (0, day, true),
            (0, day + 1, false),
            (0, -day - 1, false),
            (29 * day, 30 * day, true),
            (30 * day, 30 * day + 1, false),
        ] {
            let journal = read(&[run(UPID, 1), chunks_block(at(last), &[])].concat()).unwrap();
            assert_eq!(journal.objection(at(now)).is_none(), is_resumed, "{last} {now}");
        }
    }
}
