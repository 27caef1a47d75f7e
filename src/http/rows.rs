//! Lists: rows that are serialised one after another into a chunked body, as fast as the client takes them.

use std::fmt;
use std::future::Future;

use bytes::{BufMut, Bytes, BytesMut};
use http::StatusCode;
use serde::Serialize;
use serde_json::Value;

use super::produced::{Produced, Producer};
use super::reply::{self, Format, Response};
use crate::error::{Error, Kind, Result};

/// Rows are sent when there is this much of them: 64 KiB, some hundred rows, is a few TLS records and hides the cost of a hop between tasks.
const BLOCK_BYTES: usize = 64 << 10;

/// Blocks made ahead of the client. With the one in the making, a list holds 192 KiB, however long it is.
const BLOCKS_AHEAD: usize = 2;

/// A list to be answered under `data`.
pub struct Rows {
    produced: Produced<Attributes>,
    attributes: Attributes,
}

/// What stands beside `data`.
type Attributes = Vec<(&'static str, Value)>;

/// Where the rows go.
#[derive(Debug)]
pub struct RowSender {
    block: BytesMut,
    is_first: bool,
    attributes: Attributes,
    blocks: Producer<Attributes>,
}

impl Rows {
    /// What `make` sends, begun at once; it gives its sender back at the end. It returns early when nobody wants the rest:
    /// [`RowSender::send`] fails then.
    pub fn new<F>(make: impl FnOnce(RowSender) -> F) -> Self
    where
        F: Future<Output = Result<RowSender>> + Send + 'static,
    {
        let produced = Produced::begin(BLOCKS_AHEAD, |blocks| {
            let made = make(RowSender { block: BytesMut::new(), is_first: true, attributes: Vec::new(), blocks });
            async {
                let mut rows = made.await?;
                rows.flush().await?;
                Ok(rows.attributes)
            }
        });
        Self { produced, attributes: Vec::new() }
    }

    /// What stands beside `data`, such as `total`.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: Value) -> Self {
        self.attributes.push((name, value));
        self
    }

    /// The answer in its dress, once the first rows are there; the error if there is one before them.
    pub(super) async fn into_response(mut self, format: Format) -> Result<Response> {
        self.produced.first().await?;
        let mut attributes = self.attributes;
        let body = self.produced.body("list", b"{\"data\":[", move |found| {
            attributes.extend(found);
            tail(attributes, format)
        });
        Ok(reply::with_body(StatusCode::OK, Some(reply::JSON), body))
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("attributes", &self.attributes).finish_non_exhaustive()
    }
}

impl RowSender {
    /// Appends a row. Waits while the client is behind; `Closed` when it is gone.
    pub async fn send(&mut self, row: &impl Serialize) -> Result<()> {
        if !self.is_first {
            self.block.put_u8(b',');
        }
        self.is_first = false;
        serde_json::to_writer((&mut self.block).writer(), row)
            .map_err(|e| Error::new(Kind::Io, "a row cannot be written as JSON").with_source(e))?;
        if self.block.len() < BLOCK_BYTES {
            return Ok(());
        }
        self.flush().await
    }

    /// What stands beside `data` and is known only once the rows are.
    pub fn attribute(&mut self, name: &'static str, value: Value) {
        self.attributes.push((name, value));
    }

    async fn flush(&mut self) -> Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.blocks.send(self.block.split().freeze()).await
    }
}

/// What closes the list and the object around it.
fn tail(attributes: Attributes, format: Format) -> Bytes {
    let mut around: serde_json::Map<String, Value> =
        attributes.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    if format == Format::ExtJs {
        around.insert("status".to_owned(), 200.into());
        around.insert("success".to_owned(), true.into());
    }
    let mut text = String::from("]");
    for (name, value) in around {
        text.push_str(&format!(",{}:{value}", Value::from(name)));
    }
    text.push('}');
    text.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    async fn shown(rows: Rows, format: Format) -> Result<String> {
        let response = rows.into_response(format).await?;
        let body = response.into_body().collect().await?.to_bytes();
        Ok(String::from_utf8(body.to_vec()).unwrap())
    }

    fn numbers(count: usize) -> Rows {
        Rows::new(move |mut rows| async move {
            for n in 0..count {
                rows.send(&n).await?;
            }
            Ok(rows)
        })
    }

    #[tokio::test]
    async fn both_dresses() {
        assert_eq!(shown(numbers(0), Format::Json).await.unwrap(), r#"{"data":[]}"#);
        assert_eq!(shown(numbers(3), Format::Json).await.unwrap(), r#"{"data":[0,1,2]}"#);
        let dressed = shown(numbers(1).with("total", 7.into()), Format::ExtJs).await.unwrap();
        assert_eq!(dressed, r#"{"data":[0],"status":200,"success":true,"total":7}"#);
        let late = Rows::new(|mut rows| async move {
            rows.send(&1).await?;
            rows.attribute("total", 1.into());
            Ok(rows)
        });
        assert_eq!(shown(late, Format::Json).await.unwrap(), r#"{"data":[1],"total":1}"#);
        let many: Value = serde_json::from_str(&shown(numbers(50_000), Format::Json).await.unwrap()).unwrap();
        assert_eq!(many["data"].as_array().unwrap().len(), 50_000, "several blocks");
    }

    #[tokio::test]
    async fn an_error_is_an_answer_first_and_a_cut_later() {
        let early = Rows::new(|mut rows| async move {
            rows.send(&1).await?;
            Err(Error::invalid("no such thing"))
        });
        assert_eq!(shown(early, Format::Json).await.unwrap_err().to_string(), "no such thing");
        let late = Rows::new(|mut rows| async move {
            rows.send(&"x".repeat(BLOCK_BYTES)).await?;
            Err(Error::invalid("the disk is gone"))
        });
        let response = late.into_response(Format::Json).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert!(response.into_body().collect().await.is_err(), "half a list is no list");
        let dead = Rows::new(|rows| async move {
            let never = rows.is_first;
            assert!(!never, "this panic is part of the test");
            Ok(rows)
        });
        assert_eq!(dead.into_response(Format::Json).await.unwrap_err().kind(), Kind::Io);
    }

    #[tokio::test]
    async fn a_slow_client_slows_the_maker_down_and_a_gone_one_ends_it() {
        let made = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&made);
        let (told, ended) = tokio::sync::oneshot::channel();
        let rows = Rows::new(|mut rows| async move {
            let block = "x".repeat(BLOCK_BYTES);
            while rows.send(&block).await.is_ok() {
                count.fetch_add(1, Ordering::SeqCst);
            }
            let _ = told.send(());
            Err(Error::closed("as expected"))
        });
        let mut body = rows.into_response(Format::Json).await.unwrap().into_body();
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(made.load(Ordering::SeqCst) <= BLOCKS_AHEAD + 1, "{} blocks", made.load(Ordering::SeqCst));
        for _ in 0..20 {
            body.frame().await.unwrap().unwrap();
        }
        drop(body);
        ended.await.unwrap();
        assert!(made.load(Ordering::SeqCst) <= 20 + BLOCKS_AHEAD + 1);
    }
}
