//! Bodies that are made while they are sent: by a task of their own behind a channel of a few blocks, so that a slow client slows the task
//! down and one that is gone ends it.
//!
//! A failure before the first block is still an answer ([`Produced::first`]); a later one cuts the body off, so that nobody takes half of
//! something for the whole.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;
use tokio::sync::mpsc;

use super::reply::Body;
use crate::error::{Error, Result};

/// Where the blocks go.
#[derive(Clone, Debug)]
pub(super) struct Producer<E = ()> {
    blocks: mpsc::Sender<Part<E>>,
}

/// A body in the making; `E` is what is known when all of it is made.
#[derive(Debug)]
pub(super) struct Produced<E = ()> {
    blocks: mpsc::Receiver<Part<E>>,
    next: Option<Part<E>>,
}

#[derive(Debug)]
enum Part<E> {
    Block(Bytes),
    /// All was sent: a channel that closes without it means that the task died.
    End(E),
    Failed(Error),
}

impl<E> Producer<E> {
    /// Sends a block. Waits while the client is behind; `Closed` when it is gone.
    pub(super) async fn send(&self, block: Bytes) -> Result<()> {
        self.blocks.send(Part::Block(block)).await.map_err(|_| Error::closed("nobody wants the rest"))
    }
}

impl<E: Send + Unpin + 'static> Produced<E> {
    /// Begins `make`, at most `ahead` blocks ahead of the client.
    pub(super) fn begin<F>(ahead: usize, make: impl FnOnce(Producer<E>) -> F) -> Self
    where
        F: Future<Output = Result<E>> + Send + 'static,
    {
        let (blocks, taken) = mpsc::channel(ahead);
        let made = make(Producer { blocks: blocks.clone() });
        tokio::spawn(async move {
            let last = match made.await {
                Ok(end) => Part::End(end),
                Err(error) => Part::Failed(error),
            };
            // Nobody there is no fault.
            let _ = blocks.send(last).await;
        });
        Self { blocks: taken, next: None }
    }

    /// Waits for the first block, or the error in its place.
    pub(super) async fn first(&mut self) -> Result<()> {
        match self.blocks.recv().await {
            Some(Part::Failed(error)) => Err(error),
            None => Err(died()),
            first => {
                self.next = first;
                Ok(())
            }
        }
    }

    /// The body, between `head` and what `tail` makes of the end; `what` it is, the log says if it is cut off.
    pub(super) fn body(
        self,
        what: &'static str,
        head: &'static [u8],
        tail: impl FnOnce(E) -> Bytes + Send + 'static,
    ) -> Body {
        let head = Some(Bytes::from_static(head));
        ProducedBody { produced: self, what, head, tail: Some(Box::new(tail)) }.boxed_unsync()
    }
}

fn died() -> Error {
    Error::io("the answer ended early", std::io::Error::other("its maker died, the log says why"))
}

struct ProducedBody<E> {
    produced: Produced<E>,
    what: &'static str,
    head: Option<Bytes>,
    /// `None` once it was sent.
    tail: Option<Tail<E>>,
}

type Tail<E> = Box<dyn FnOnce(E) -> Bytes + Send>;

impl<E: Send + Unpin + 'static> http_body::Body for ProducedBody<E> {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        if self.tail.is_none() {
            return Poll::Ready(None);
        }
        if let Some(head) = self.head.take().filter(|head| !head.is_empty()) {
            return Poll::Ready(Some(Ok(Frame::data(head))));
        }
        let part = match self.produced.next.take() {
            Some(part) => Some(part),
            None => ready!(self.produced.blocks.poll_recv(cx)),
        };
        Poll::Ready(match part {
            Some(Part::Block(block)) => Some(Ok(Frame::data(block))),
            Some(Part::End(end)) => {
                let tail = self.tail.take().map(|tail| tail(end));
                tail.filter(|tail| !tail.is_empty()).map(|tail| Ok(Frame::data(tail)))
            }
            failed => {
                self.tail = None;
                let error = if let Some(Part::Failed(error)) = failed { error } else { died() };
                tracing::warn!(what = self.what, %error, "an answer was cut off");
                Some(Err(error))
            }
        })
    }

    fn is_end_stream(&self) -> bool {
        self.tail.is_none()
    }
}
