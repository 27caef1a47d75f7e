//! Bodies in: read whole, never longer than announced, with bounded memory for a session.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::params::NoAction;
use crate::engine::{Buffer, BufferPool};
use crate::error::{Error, Result};
use crate::format::blob::BLOB_ENCODED_BYTES_MAX;
use crate::http::params::{JSON_BYTES_MAX, ParamErrors};

/// Most bytes of chunk and blob bodies that a session holds: sixteen chunks of 4 MiB, which keeps a dozen inserts under way.
///
/// What does not fit waits unread in the connection's window of 32 MiB. Clients give that window to their streams in the
/// order in which they opened them, and here the permits go out in the same order, so that what waits is what comes last.
const HELD_BYTES_MAX: u64 = 64 << 20;

/// As much again, for clients that share the window out among all streams: there all bodies with a permit may starve behind
/// those without. Who waits and sees no body grow for [`STALL`] takes from here; so such a client is slow, not stuck.
const RESERVE_BYTES_MAX: u64 = 64 << 20;

/// See [`RESERVE_BYTES_MAX`]. Long against the time that a busy disk needs to free a body.
const STALL: Duration = Duration::from_secs(1);

/// How long all bodies together may stand still. A body by itself may wait longer: on a slow line those of 65 uploads before
/// it come first. One byte in this time is enough. Ends bodies that never will, of a client that is alive.
const BODIES_IDLE_MAX: Duration = Duration::from_secs(600);

/// Bodies with JSON or form parameters at a time, of at most 512 KiB each. Apart from the others: an append shall not wait
/// behind the chunks of later ones.
const PARAM_BODIES_MAX: usize = 64;

/// Permits are KiB: a semaphore counts to 2^29 at least.
const PERMIT_BYTES: u64 = 1024;

const _: () = assert!(HELD_BYTES_MAX >= 3 * BLOB_ENCODED_BYTES_MAX && RESERVE_BYTES_MAX >= 3 * BLOB_ENCODED_BYTES_MAX);

/// The memory that bodies of one session may take.
#[derive(Debug)]
pub struct BodyBudget {
    held: Semaphore,
    reserve: Semaphore,
    params: Semaphore,
    /// Bytes received for all bodies: stands still when the client is stuck.
    received: AtomicU64,
    stall: Duration,
    buffers: BufferPool,
}

/// A whole body; gives its share of the budget back when dropped.
#[derive(Debug)]
pub struct HeldBody<'a> {
    bytes: Buffer,
    _permit: SemaphorePermit<'a>,
}

impl HeldBody<'_> {
    /// The bytes, as long as announced. Keep `self` for as long as they are in memory.
    pub fn take(&mut self) -> Buffer {
        std::mem::take(&mut self.bytes)
    }
}

/// Why a body is not as announced.
#[derive(Debug)]
pub enum BodyFault {
    /// More came than was announced: this much at least.
    Longer(u64),
    /// It ended early: only this much came.
    Shorter(u64),
    /// It did not end properly, or the session did.
    Broken(Error),
}

impl Default for BodyBudget {
    fn default() -> Self {
        let permits = |bytes: u64| Semaphore::new(usize::try_from(bytes / PERMIT_BYTES).unwrap_or(0));
        Self {
            held: permits(HELD_BYTES_MAX),
            reserve: permits(RESERVE_BYTES_MAX),
            params: Semaphore::new(PARAM_BODIES_MAX),
            received: AtomicU64::new(0),
            stall: STALL,
            buffers: BufferPool::default(),
        }
    }
}

impl BodyBudget {
    /// A whole budget, spent on buffers of `pool`.
    pub fn with_buffers(pool: BufferPool) -> Self {
        Self { buffers: pool, ..Self::default() }
    }

    /// Reads a body that is announced to be `announced` long, at most [`BLOB_ENCODED_BYTES_MAX`], once there is room for it.
    pub async fn read(&self, body: Incoming, announced: u64) -> Result<HeldBody<'_>, BodyFault> {
        let permit = self.room_for(announced).await.map_err(BodyFault::Broken)?;
        let bytes = self.read_whole(body, announced).await?;
        Ok(HeldBody { bytes, _permit: permit })
    }

    async fn read_whole(&self, mut body: Incoming, announced: u64) -> Result<Buffer, BodyFault> {
        let mut bytes = self.buffers.take(usize::try_from(announced).unwrap_or(0));
        let mut received = 0;
        while let Some(data) = self.next(&mut body).await.map_err(BodyFault::Broken)? {
            received += length(&data);
            if received > announced {
                self.drain(body).await;
                return Err(BodyFault::Longer(received));
            }
            bytes.extend_from_slice(&data);
        }
        if received < announced { Err(BodyFault::Shorter(received)) } else { Ok(bytes) }
    }

    async fn next(&self, body: &mut Incoming) -> Result<Option<Bytes>> {
        loop {
            let before = self.received.load(Ordering::Relaxed);
            match tokio::time::timeout(BODIES_IDLE_MAX, body.frame()).await {
                Err(_) if self.received.load(Ordering::Relaxed) != before => {}
                Err(_) => {
                    let seconds = BODIES_IDLE_MAX.as_secs();
                    return Err(Error::invalid(format!("no more of the request body came for {seconds} s")));
                }
                Ok(None) => return Ok(None),
                Ok(Some(Err(e))) => return Err(Error::closed("the request body ended early").with_source(e)),
                Ok(Some(Ok(frame))) => {
                    if let Ok(data) = frame.into_data() {
                        self.received.fetch_add(length(&data), Ordering::Relaxed);
                        return Ok(Some(data));
                    }
                }
            }
        }
    }

    /// Throws away what is left of a body, as long as a chunk may be: so that a refused request is answered rather than reset,
    /// and one that never ends is reset.
    pub async fn drain(&self, body: Incoming) {
        self.drain_at_most(body, BLOB_ENCODED_BYTES_MAX).await;
    }

    /// Reads a body and forgets it, however long it is: the speed test.
    pub async fn discard(&self, body: Incoming) {
        self.drain_at_most(body, u64::MAX).await;
    }

    async fn drain_at_most(&self, mut body: Incoming, bytes_max: u64) {
        let mut left = bytes_max;
        while let Ok(Some(data)) = self.next(&mut body).await {
            match left.checked_sub(length(&data)) {
                Some(rest) => left = rest,
                None => return,
            }
        }
    }

    async fn room_for(&self, bytes: u64) -> Result<SemaphorePermit<'_>> {
        let permits = u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX);
        let ended = |_| Error::closed("the session has ended");
        let turn = self.held.acquire_many(permits);
        tokio::pin!(turn);
        loop {
            let before = self.received.load(Ordering::Relaxed);
            match tokio::time::timeout(self.stall, &mut turn).await {
                Ok(permit) => return permit.map_err(ended),
                Err(_) if self.received.load(Ordering::Relaxed) != before => {}
                // Nothing to take there either: then the inserts under way are what is slow, and they end.
                Err(_) => {
                    if let Ok(permit) = self.reserve.try_acquire_many(permits) {
                        return Ok(permit);
                    }
                }
            }
        }
    }

    /// Reads the body of a call with JSON or form parameters.
    pub async fn read_params(&self, mut body: Incoming) -> Result<Bytes, NoAction> {
        if hyper::body::Body::is_end_stream(&body) {
            return Ok(Bytes::new());
        }
        let _permit = self.params.acquire().await.map_err(|_| Error::closed("the session has ended"))?;
        let mut bytes = BytesMut::new();
        while let Some(data) = self.next(&mut body).await? {
            if bytes.len() + data.len() > JSON_BYTES_MAX {
                self.drain(body).await;
                return Err(ParamErrors::Unreadable("Request body too large".to_owned()).into());
            }
            bytes.extend_from_slice(&data);
        }
        Ok(bytes.freeze())
    }

    /// Nobody gets room any more; who waits for it is told that the session has ended.
    pub fn close(&self) {
        self.held.close();
        self.params.close();
    }
}

fn length(data: &Bytes) -> u64 {
    u64::try_from(data.len()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn impatient() -> BodyBudget {
        BodyBudget { stall: Duration::from_millis(20), ..BodyBudget::default() }
    }

    #[tokio::test]
    async fn who_waits_takes_from_the_reserve_when_nothing_moves() {
        let budget = impatient();
        let whole = budget.room_for(HELD_BYTES_MAX).await.unwrap();
        let from_reserve = budget.room_for(BLOB_ENCODED_BYTES_MAX).await.unwrap();
        drop(whole);
        // With room again nobody takes from the reserve.
        let before = budget.reserve.available_permits();
        let _held = budget.room_for(HELD_BYTES_MAX).await.unwrap();
        assert_eq!(budget.reserve.available_permits(), before);
        drop(from_reserve);
    }

    #[tokio::test]
    async fn who_waits_while_bodies_grow_goes_on_waiting() {
        let budget = impatient();
        let whole = budget.room_for(HELD_BYTES_MAX).await.unwrap();
        let growth = async {
            for _ in 0..50 {
                tokio::time::sleep(Duration::from_millis(2)).await;
                budget.received.fetch_add(1, Ordering::Relaxed);
            }
            drop(whole);
        };
        let (permit, ()) = tokio::join!(budget.room_for(1), growth);
        drop(permit.unwrap());
        assert_eq!(u64::try_from(budget.reserve.available_permits()).unwrap(), RESERVE_BYTES_MAX / PERMIT_BYTES);
    }

    #[tokio::test]
    async fn a_closed_budget_gives_nothing() {
        let budget = BodyBudget::default();
        budget.close();
        assert_eq!(budget.room_for(1).await.unwrap_err().kind(), crate::error::Kind::Closed);
    }
}
