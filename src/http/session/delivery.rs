//! Whether a client had been sent everything that it asked for when its connection broke.
//!
//! A client that has what it wanted goes, and not every one takes its leave: without the end that TLS wants, or with an acknowledgement of ours
//! unread, which its kernel answers with a reset. Both are errors of the connection, and none of the restore. So every answer is counted from
//! its request to the last byte written, and the count is looked at in the moment when the connection first says that the client is gone.

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::error::{Error, Result};
use crate::http::reply::Body;

/// The answers of one session. A cheap clone.
#[derive(Clone, Debug, Default)]
pub struct Deliveries {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    on_the_way: AtomicU64,
    /// How many were when the connection broke; empty while it has not.
    at_break: OnceLock<u64>,
}

/// One answer that is on its way as long as this, or a part of its body, is there.
#[derive(Debug)]
struct Delivery(Arc<Inner>);

impl Drop for Delivery {
    fn drop(&mut self) {
        self.0.on_the_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts the answer to a request from here on.
#[derive(Clone, Debug)]
pub struct Counted {
    _delivery: Arc<Delivery>,
}

impl Deliveries {
    /// A request has come.
    pub fn begin(&self) -> Counted {
        self.inner.on_the_way.fetch_add(1, Ordering::Relaxed);
        Counted { _delivery: Arc::new(Delivery(self.inner.clone())) }
    }

    /// The stream, watched for its end.
    pub fn watch<S>(&self, stream: S) -> TokioIo<Watched<TokioIo<S>>> {
        TokioIo::new(Watched { stream: TokioIo::new(stream), deliveries: self.clone() })
    }

    /// How many answers were on their way when the client went away; `None` if it did not, but did something wrong for instance.
    pub fn at_break(&self) -> Option<u64> {
        self.inner.at_break.get().copied()
    }

    fn broke(&self) {
        self.inner.at_break.get_or_init(|| self.inner.on_the_way.load(Ordering::Relaxed));
    }
}

impl Counted {
    /// The answer's body, which is on its way until its last piece is written or given up.
    pub fn body(self, body: Body) -> Body {
        CountedBody { body, counted: self }.boxed_unsync()
    }
}

struct CountedBody {
    body: Body,
    counted: Counted,
}

impl http_body::Body for CountedBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let frame = std::task::ready!(Pin::new(&mut self.body).poll_frame(cx));
        let counted = &self.counted;
        Poll::Ready(frame.map(|frame| {
            frame.map(|frame| frame.map_data(|bytes| Bytes::from_owner(Piece { bytes, _counted: counted.clone() })))
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

struct Piece {
    bytes: Bytes,
    _counted: Counted,
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A stream that tells [`Deliveries`] when the other side is gone, before anybody gives up what was to be written.
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    deliveries: Deliveries,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let (room, had) = (buf.remaining(), buf.filled().len());
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if matches!(&read, Poll::Ready(Ok(())) if room > 0 && buf.filled().len() == had) {
            self.deliveries.broke();
        }
        self.look(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.look(written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.look(flushed)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.look(shut)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.look(written)
    }
}

impl<S> Watched<S> {
    fn look<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if let Poll::Ready(Err(_)) = &outcome {
            self.deliveries.broke();
        }
        outcome
    }
}
