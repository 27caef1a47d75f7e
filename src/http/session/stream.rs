//! Files out: a body that reads a file of the datastore a block at a time, as fast as the client takes it.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::Frame;
use http_body_util::BodyExt;

use crate::error::{Error, Result};
use crate::http::reply::Body;
use crate::store::FileReader;

type Block = Pin<Box<dyn Future<Output = Result<Bytes>> + Send>>;

/// A body with the bytes of a file. At most one block of it is in memory, and a file that can no longer be read cuts the
/// body off: the client sees an error, never a short success.
pub fn file_body(file: FileReader) -> Body {
    FileBody { offset: 0, block: None, file }.boxed_unsync()
}

struct FileBody {
    file: FileReader,
    offset: u64,
    block: Option<Block>,
}

impl http_body::Body for FileBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let this = &mut *self;
        if this.offset >= this.file.size_bytes() {
            return Poll::Ready(None);
        }
        let block = this.block.get_or_insert_with(|| {
            let (file, offset) = (this.file.clone(), this.offset);
            Box::pin(async move { file.read_block(offset).await })
        });
        let read = std::task::ready!(block.as_mut().poll(cx));
        this.block = None;
        Poll::Ready(match read {
            Ok(bytes) if bytes.is_empty() => Some(Err(Error::corrupt("the file became shorter while it was read"))),
            Ok(bytes) => {
                this.offset += u64::try_from(bytes.len()).unwrap_or(u64::MAX);
                Some(Ok(Frame::data(bytes)))
            }
            Err(error) => {
                tracing::warn!(%error, offset = this.offset, "a download was cut off");
                Some(Err(error))
            }
        })
    }
}
