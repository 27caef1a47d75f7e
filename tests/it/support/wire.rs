//! A test client that speaks to the socket itself: TLS with a pinned fingerprint, HTTP/1.1 written by hand (so that it can be
//! malformed), the upgrade, and HTTP/2 whose streams can be held open, reset or cut.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use sha2::{Digest, Sha256};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls;

/// No answer of a healthy daemon takes longer than this on a loaded machine; a test that waits longer has found a hang.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// What the official client announces (spec 03 §3).
const CLIENT_WINDOW: u32 = 2_147_483_646;
const CLIENT_FRAME: u32 = 4_194_304;

/// Where a daemon listens and what its certificate's digest is.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub addr: SocketAddr,
    /// SHA-256 of the leaf certificate.
    pub fingerprint: [u8; 32],
}

/// An answer with its whole body.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Names as the wire had them, in lower case.
    pub headers: Vec<(String, String)>,
    /// Body without transfer encoding.
    pub body: Bytes,
}

impl Reply {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// `data` of a JSON answer; panics with the answer if it was none.
    #[track_caller]
    pub fn data(&self) -> serde_json::Value {
        assert_eq!(self.status, 200, "{}", self.text());
        let mut value: serde_json::Value =
            serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()));
        value["data"].take()
    }

    /// Panics unless the status is `status` and the text contains `part`.
    #[track_caller]
    pub fn expect(&self, status: u16, part: &str) {
        let text = self.text();
        assert!(
            self.status == status && text.contains(part),
            "wanted {status} with {part:?}, got {} {text:?}",
            self.status
        );
    }
}

#[derive(Debug)]
struct Pinned([u8; 32]);

impl rustls::client::danger::ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &rustls::pki_types::CertificateDer<'_>,
        _: &[rustls::pki_types::CertificateDer<'_>],
        _: &rustls::pki_types::ServerName<'_>,
        _: &[u8],
        _: rustls::pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        if Sha256::digest(end_entity)[..] == self.0 {
            return Ok(rustls::client::danger::ServerCertVerified::assertion());
        }
        Err(rustls::Error::General("another certificate than the pinned one".into()))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, &algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &rustls::pki_types::CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        let algorithms = rustls::crypto::ring::default_provider().signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, &algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// A TLS connection whose TCP socket can be cut from outside.
#[derive(Debug)]
pub struct Conn {
    tls: TlsStream<TcpStream>,
    buffer: BytesMut,
    cutter: Cutter,
}

/// Ends a TCP connection without asking TLS or HTTP.
#[derive(Debug)]
pub struct Cutter(socket2::Socket);

impl Cutter {
    fn of(tcp: &TcpStream) -> Self {
        Self(socket2::SockRef::from(tcp).try_clone().expect("duplicate the socket"))
    }

    /// FIN in both directions: the peer sees an end of file without a TLS goodbye.
    pub fn shut(&self) {
        let _ = self.0.shutdown(std::net::Shutdown::Both);
    }

    /// Makes the closing of the socket a reset (RST).
    pub fn reset_when_closed(&self) {
        let _ = self.0.set_linger(Some(Duration::ZERO));
    }
}

impl Conn {
    /// Connects and shakes hands; offers no ALPN, as the official client.
    pub async fn open(peer: &Peer) -> io::Result<Self> {
        Self::open_with(peer, rustls::DEFAULT_VERSIONS).await
    }

    /// Connects with these versions of TLS.
    pub async fn open_with(peer: &Peer, versions: &[&'static rustls::SupportedProtocolVersion]) -> io::Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .map_err(io::Error::other)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Pinned(peer.fingerprint)))
            .with_no_client_auth();
        let tcp = TcpStream::connect(peer.addr).await?;
        tcp.set_nodelay(true)?;
        let cutter = Cutter::of(&tcp);
        let name = rustls::pki_types::ServerName::from(peer.addr.ip());
        let tls = patiently(TlsConnector::from(Arc::new(config)).connect(name, tcp)).await?;
        Ok(Self { tls, buffer: BytesMut::new(), cutter })
    }

    /// Ends the connection with a TLS goodbye and waits for the peer's end.
    pub async fn close(mut self) {
        let _ = self.tls.shutdown().await;
        let mut sink = [0; 4096];
        let drain = async { while matches!(self.tls.read(&mut sink).await, Ok(n) if n > 0) {} };
        let _ = tokio::time::timeout(Duration::from_secs(5), drain).await;
    }

    /// Says that nothing more will be sent.
    pub async fn end_sending(&mut self) -> io::Result<()> {
        patiently(self.tls.shutdown()).await
    }

    /// Sends bytes as they are.
    pub async fn send_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        patiently(async {
            self.tls.write_all(bytes).await?;
            self.tls.flush().await
        })
        .await
    }

    /// Sends a request; `headers` are written as given, `content-length` is added when a body goes with it.
    pub async fn send(&mut self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> io::Result<()> {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        if !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("host")) {
            head.push_str("host: localhost:8007\r\n");
        }
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let body_follows = !body.is_empty() || matches!(method, "POST" | "PUT");
        if body_follows && !headers.iter().any(|(n, _)| n.eq_ignore_ascii_case("content-length")) {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(body);
        self.send_raw(&bytes).await
    }

    /// Sends a request and reads its answer.
    pub async fn call(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> io::Result<Reply> {
        self.send(method, target, headers, body).await?;
        self.receive(method == "HEAD").await
    }

    /// Reads one answer.
    pub async fn receive(&mut self, is_head: bool) -> io::Result<Reply> {
        patiently(self.read_reply(is_head)).await
    }

    async fn read_reply(&mut self, is_head: bool) -> io::Result<Reply> {
        read_reply(&mut self.tls, &mut self.buffer, is_head).await
    }

    /// Asks for an upgrade; the session on 101, else the answer that refused it.
    pub async fn upgrade(mut self, target: &str, protocol: &str, headers: &[(&str, &str)]) -> io::Result<Upgraded> {
        let mut all = vec![("connection", "upgrade"), ("upgrade", protocol)];
        all.extend_from_slice(headers);
        let reply = self.call("GET", target, &all, b"").await?;
        if reply.status != 101 {
            return Ok(Upgraded::Refused(reply));
        }
        Ok(Upgraded::Session(reply, self.into_h2().await?))
    }

    /// The version of TLS that was agreed on.
    pub fn tls_version(&self) -> Option<rustls::ProtocolVersion> {
        self.tls.get_ref().1.protocol_version()
    }

    /// The next `len` bytes as they come.
    pub async fn read_raw(&mut self, len: usize) -> io::Result<Bytes> {
        patiently(fill(&mut self.tls, &mut self.buffer, len)).await?;
        Ok(self.buffer.split_to(len).freeze())
    }

    /// Speaks HTTP/2 from here on.
    pub async fn into_h2(self) -> io::Result<Session> {
        let io = Prefixed { prefix: self.buffer, inner: self.tls };
        let handshake = h2::client::Builder::new()
            .initial_window_size(CLIENT_WINDOW)
            .initial_connection_window_size(CLIENT_WINDOW)
            .max_frame_size(CLIENT_FRAME)
            .handshake::<_, Bytes>(io);
        let (sender, connection) = patiently(async { handshake.await.map_err(io::Error::other) }).await?;
        let driver = tokio::spawn(async move { connection.await.map_err(io::Error::other) });
        Ok(Session { sender, driver, cutter: self.cutter })
    }
}

/// Sends one request without TLS and reads its answer.
pub async fn plain_call(peer: &Peer, method: &str, target: &str, host: &str) -> io::Result<Reply> {
    patiently(async {
        let mut tcp = TcpStream::connect(peer.addr).await?;
        let head = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\ncontent-length: 0\r\n\r\n");
        tcp.write_all(head.as_bytes()).await?;
        read_reply(&mut tcp, &mut BytesMut::new(), method == "HEAD").await
    })
    .await
}

/// Reads one HTTP/1.1 answer from any stream; `buffer` keeps what came behind it.
pub async fn read_reply<S: AsyncRead + Unpin>(
    stream: &mut S,
    buffer: &mut BytesMut,
    is_head: bool,
) -> io::Result<Reply> {
    let head_len = loop {
        if let Some(at) = buffer.windows(4).position(|w| w == b"\r\n\r\n") {
            break at + 4;
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    };
    let head = String::from_utf8_lossy(&buffer.split_to(head_len)).into_owned();
    let mut lines = head.split("\r\n");
    let first = lines.next().unwrap_or_default();
    let status = first.split(' ').nth(1).and_then(|s| s.parse().ok());
    let status: u16 = status.ok_or_else(|| io::Error::other(format!("not a status line: {first:?}")))?;
    let headers: Vec<(String, String)> = lines
        .filter_map(|l| l.split_once(':'))
        .map(|(n, v)| (n.trim().to_ascii_lowercase(), v.trim().to_owned()))
        .collect();
    let mut reply = Reply { status, headers, body: Bytes::new() };
    if is_head || status < 200 || status == 204 || status == 304 {
        return Ok(reply);
    }
    if reply.header("transfer-encoding").is_some_and(|v| v.eq_ignore_ascii_case("chunked")) {
        reply.body = read_chunked(stream, buffer).await?;
    } else if let Some(len) = reply.header("content-length").and_then(|v| v.parse::<usize>().ok()) {
        fill(stream, buffer, len).await?;
        reply.body = buffer.split_to(len).freeze();
    } else {
        while stream.read_buf(buffer).await? > 0 {}
        reply.body = buffer.split().freeze();
    }
    Ok(reply)
}

async fn fill<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut BytesMut, len: usize) -> io::Result<()> {
    while buffer.len() < len {
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(())
}

async fn read_chunked<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut BytesMut) -> io::Result<Bytes> {
    let mut body = BytesMut::new();
    loop {
        let line_len = loop {
            if let Some(at) = buffer.windows(2).position(|w| w == b"\r\n") {
                break at + 2;
            }
            let wanted = buffer.len() + 1;
            fill(stream, buffer, wanted).await?;
        };
        let line = buffer.split_to(line_len);
        let size = String::from_utf8_lossy(&line);
        let size = usize::from_str_radix(size.trim(), 16).map_err(io::Error::other)?;
        fill(stream, buffer, size + 2).await?;
        body.extend_from_slice(&buffer.split_to(size));
        let _ = buffer.split_to(2);
        if size == 0 {
            return Ok(body.freeze());
        }
    }
}

/// A failing future instead of a hanging one.
pub async fn patiently<T>(work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    match tokio::time::timeout(PATIENCE, work).await {
        Ok(done) => done,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the daemon did not answer in time")),
    }
}

/// What became of a request to upgrade.
#[derive(Debug)]
pub enum Upgraded {
    /// 101: HTTP/2 from here on.
    Session(Reply, Session),
    /// Any other answer.
    Refused(Reply),
}

impl Upgraded {
    /// The session; panics with the refusal.
    #[track_caller]
    pub fn session(self) -> Session {
        match self {
            Self::Session(_, session) => session,
            Self::Refused(reply) => panic!("the upgrade was refused: {} {}", reply.status, reply.text()),
        }
    }

    /// The refusal; panics if there was none.
    #[track_caller]
    pub fn refused(self) -> Reply {
        match self {
            Self::Session(..) => panic!("the upgrade was not refused"),
            Self::Refused(reply) => reply,
        }
    }
}

/// An upgraded connection.
#[derive(Debug)]
pub struct Session {
    sender: h2::client::SendRequest<Bytes>,
    driver: tokio::task::JoinHandle<io::Result<()>>,
    cutter: Cutter,
}

/// A request whose body is not complete yet. Dropping it resets the stream.
#[derive(Debug)]
pub struct OpenStream {
    body: h2::SendStream<Bytes>,
    answer: h2::client::ResponseFuture,
}

impl Session {
    /// Sends a request with its whole body, answered later.
    pub async fn start(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Bytes,
    ) -> io::Result<OpenStream> {
        let mut stream = self.open(method, target, headers, body.is_empty()).await?;
        if !body.is_empty() {
            stream.send(body, true)?;
        }
        Ok(stream)
    }

    /// Sends the head of a request; the body stays open unless `ends`.
    pub async fn open(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        ends: bool,
    ) -> io::Result<OpenStream> {
        let uri = http::Uri::builder().scheme("https").authority("localhost:8007").path_and_query(target);
        let mut request = http::Request::builder().method(method).uri(uri.build().map_err(io::Error::other)?);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).map_err(io::Error::other)?;
        let ready = async { self.sender.clone().ready().await.map_err(io::Error::other) };
        let mut sender = patiently(ready).await?;
        let (answer, body) = sender.send_request(request, ends).map_err(io::Error::other)?;
        Ok(OpenStream { body, answer })
    }

    /// Sends a request and waits for its answer.
    pub async fn call(&self, method: &str, target: &str, headers: &[(&str, &str)], body: Bytes) -> io::Result<Reply> {
        self.start(method, target, headers, body).await?.answer().await
    }

    /// Ends the session as the official client does after finish: goodbye, then closed.
    pub async fn close(self) {
        drop(self.sender);
        let _ = tokio::time::timeout(Duration::from_secs(5), self.driver).await;
    }

    /// Ends the TCP connection with a FIN, in the middle of whatever is going on.
    pub fn cut(self) {
        self.cutter.shut();
        self.driver.abort();
    }

    /// Ends the TCP connection with a reset.
    pub fn reset(self) {
        self.cutter.reset_when_closed();
        self.driver.abort();
    }
}

impl OpenStream {
    /// Queues a part of the body; it goes out as the windows allow.
    pub fn send(&mut self, part: Bytes, ends: bool) -> io::Result<()> {
        self.body.send_data(part, ends).map_err(io::Error::other)
    }

    /// Resets the stream.
    pub fn reset(mut self) {
        self.body.send_reset(h2::Reason::CANCEL);
    }

    /// Waits for the whole answer.
    pub async fn answer(self) -> io::Result<Reply> {
        let Self { body: _keep, answer } = self;
        patiently(async {
            let (head, mut stream) = answer.await.map_err(io::Error::other)?.into_parts();
            let mut body = BytesMut::new();
            while let Some(part) = stream.data().await {
                let part = part.map_err(io::Error::other)?;
                let _ = stream.flow_control().release_capacity(part.len());
                body.extend_from_slice(&part);
            }
            let pairs = head.headers.iter();
            let headers =
                pairs.map(|(n, v)| (n.to_string(), String::from_utf8_lossy(v.as_bytes()).into_owned())).collect();
            Ok(Reply { status: head.status.as_u16(), headers, body: body.freeze() })
        })
        .await
    }
}

/// A stream that gives back first what was read too far.
struct Prefixed {
    prefix: BytesMut,
    inner: TlsStream<TcpStream>,
}

impl AsyncRead for Prefixed {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.prefix.is_empty() {
            return Pin::new(&mut self.inner).poll_read(cx, buf);
        }
        let n = self.prefix.len().min(buf.remaining());
        buf.put_slice(&self.prefix.split_to(n));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Prefixed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}
