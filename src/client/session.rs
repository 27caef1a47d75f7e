//! A connection after its upgrade: HTTP/2 requests to one backup or reader session.

use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::task::JoinHandle;

use super::repository::Repository;
use super::rest::{AGENT, Client, FORM, JSON, Query, collect, data_of, error_text, lost, refused, target};
use crate::error::{Error, Kind, Result};
use crate::types::{Namespace, Snapshot};

/// Windows that the official client announces: 2³¹ − 2, so the server never waits for an update (spec 03 §3).
const WINDOW_BYTES: u32 = (1 << 31) - 2;

/// Largest frame that the official client takes (spec 03 §3).
const FRAME_BYTES_MAX: u32 = 4 << 20;

/// Longest JSON answer of a session.
const JSON_BYTES_MAX: usize = 64 << 10;

/// How long the goodbye of an ended session may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// An upgraded connection. Dropping it cuts the connection, which is how a backup is given up: the server then removes the
/// unfinished snapshot.
#[derive(Debug)]
pub struct Session {
    sender: http2::SendRequest<Full<Bytes>>,
    connection: Connection,
    repository: Repository,
}

#[derive(Debug)]
struct Connection(JoinHandle<hyper::Result<()>>);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Session {
    /// Asks for `protocol` at `path`, about one snapshot, and starts HTTP/2 on the connection that comes back.
    pub async fn open(
        client: &Client,
        path: &str,
        protocol: &'static str,
        (namespace, snapshot): (&Namespace, &Snapshot),
        more: Query<'_>,
    ) -> Result<Self> {
        let (time, namespace) = (snapshot.time().to_string(), namespace.to_string());
        let mut query = vec![
            ("backup-id", snapshot.group().id()),
            ("backup-time", &time),
            ("backup-type", snapshot.group().ty().as_str()),
            ("debug", "true"),
            ("store", client.repository().store().as_str()),
        ];
        if !namespace.is_empty() {
            query.push(("ns", &namespace));
        }
        query.extend_from_slice(more);
        // The order of the official client.
        query.sort_unstable();
        let upgraded = client.upgrade(path, &query, protocol).await?;
        let repository = client.repository().clone();
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW_BYTES)
            .initial_connection_window_size(WINDOW_BYTES)
            .max_frame_size(FRAME_BYTES_MAX)
            .handshake(upgraded)
            .await
            .map_err(|e| lost(&repository, e))?;
        Ok(Self { sender, connection: Connection(tokio::spawn(connection)), repository })
    }

    /// A request whose parameters are all in the query; the answer's `data`.
    pub async fn call(&self, method: Method, path: &str, query: Query<'_>) -> Result<Value> {
        self.data(self.request(method, path, query, FORM, Bytes::new())).await
    }

    /// A request with raw bytes as body, parameters in the query.
    pub async fn upload(&self, path: &str, query: Query<'_>, body: Bytes) -> Result<Value> {
        let octets = HeaderValue::from_static("application/octet-stream");
        self.data(self.request(Method::POST, path, query, octets, body)).await
    }

    /// A PUT with a JSON body.
    pub async fn put(&self, path: &str, body: Vec<u8>) -> Result<Value> {
        self.data(self.request(Method::PUT, path, &[], JSON, Bytes::from(body))).await
    }

    /// A raw download of at most `bytes_max`.
    pub async fn download(&self, path: &str, query: Query<'_>, bytes_max: usize) -> Result<Bytes> {
        collect(self.begin_download(path, query).await?, bytes_max).await
    }

    /// A raw download that is handed to `sink` piece by piece, in order.
    pub async fn download_into(
        &self,
        path: &str,
        query: Query<'_>,
        mut sink: impl FnMut(&[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut body = self.begin_download(path, query).await?;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|e| lost(&self.repository, e))?;
            if let Some(piece) = frame.data_ref() {
                sink(piece)?;
            }
        }
        Ok(())
    }

    /// Says goodbye properly, after the last answer. Errors do not matter any more.
    pub async fn close(self) {
        let Self { sender, mut connection, .. } = self;
        drop(sender);
        // The server may cut first: it has nothing left to say.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, &mut connection.0).await;
    }

    async fn begin_download(&self, path: &str, query: Query<'_>) -> Result<Incoming> {
        let response = self.request(Method::GET, path, query, FORM, Bytes::new()).await?;
        let status = response.status();
        if status.is_success() {
            Ok(response.into_body())
        } else {
            Err(refused(status, &error_text(response.into_body()).await))
        }
    }

    async fn data(&self, request: impl Future<Output = Result<Response<Incoming>>>) -> Result<Value> {
        let response = request.await?;
        let status = response.status();
        if !status.is_success() {
            return Err(refused(status, &error_text(response.into_body()).await));
        }
        data_of(&collect(response.into_body(), JSON_BYTES_MAX).await?)
    }

    async fn request(
        &self,
        method: Method,
        path: &str,
        query: Query<'_>,
        content_type: HeaderValue,
        body: Bytes,
    ) -> Result<Response<Incoming>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = target(&format!("https://{}/", self.repository.authority()), path, query)?;
        request.headers_mut().insert(USER_AGENT, AGENT);
        request.headers_mut().insert(CONTENT_TYPE, content_type);
        let mut sender = self.sender.clone();
        sender.ready().await.map_err(|e| lost(&self.repository, e))?;
        sender.send_request(request).await.map_err(|e| lost(&self.repository, e))
    }

    /// The error for an answer that does not have the shape the protocol gives it.
    pub(super) fn unexpected(&self, path: &str, data: &Value) -> Error {
        Error::new(Kind::Invalid, format!("the server answered {path} with {data:.200}, which is not of the protocol"))
    }
}
