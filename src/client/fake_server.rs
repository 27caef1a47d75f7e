//! A server in memory for tests of the client: TLS, upgrade, HTTP/2, both protocols, and nothing that a client cannot see.
//!
//! It keeps a log of requests, checks what the protocol makes checkable, and refuses what a test tells it to refuse.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::{Value, json};

use super::rest::Client;
use super::{Fingerprint, Repository, Secret, Trust};
use crate::clock::EpochSecs;
use crate::format::blob::{self, CrcPolicy};
use crate::format::dynamic_index::DynamicEntry;
use crate::format::fixed_index::FixedHeader;
use crate::format::index::IndexCsum;
use crate::format::{dynamic_index, fixed_index};
use crate::sync::Mutex;
use crate::types::{CHUNK_BYTES_MAX, Digest, FIXED_CHUNK_BYTES};

type Files = HashMap<String, Bytes>;
type Answer = Result<Response<Full<Bytes>>, hyper::Error>;

#[derive(Default)]
pub(super) struct State {
    /// Method, path and query of each request, and the entries of an append.
    pub(super) log: Vec<String>,
    pub(super) chunks: HashMap<Digest, Bytes>,
    /// Finished snapshots: group and time, then their files.
    pub(super) snapshots: BTreeMap<(String, i64), Files>,
    /// Requests whose log line begins so are refused with 400.
    pub(super) refuse: Option<&'static str>,
}

impl State {
    pub(super) fn count(&self, begin: &str) -> usize {
        self.log.iter().filter(|line| line.starts_with(begin)).count()
    }
}

#[derive(Clone)]
pub(super) struct Fake {
    pub(super) state: Arc<Mutex<State>>,
    pub(super) client: Client,
}

/// A session: which snapshot, its base, what it may append, its open indexes.
struct Session {
    key: (String, i64),
    files: Files,
    known: HashMap<Digest, u32>,
    writers: HashMap<u64, Writer>,
    wids: u64,
}

struct Writer {
    name: String,
    size_bytes: u64,
    count: u64,
    entries: BTreeMap<u64, (u32, Digest)>,
}

impl Fake {
    pub(super) async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let certificate = made.cert.der().clone();
        let fingerprint = Fingerprint::of(&certificate);
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let repository: Repository = format!("u@pbs@127.0.0.1:{port}:main").parse().unwrap();
        let client = Client::new(repository, Secret::new("x"), Trust::Pinned(fingerprint)).unwrap();
        let state = Arc::new(Mutex::new(State::default()));
        let shared = state.clone();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), shared.clone());
                tokio::spawn(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let service = service_fn(move |request| plain(state.clone(), request));
                    let served = hyper::server::conn::http1::Builder::new();
                    let _ = served.serve_connection(TokioIo::new(tls), service).with_upgrades().await;
                });
            }
        });
        Self { state, client }
    }
}

fn answer(status: StatusCode, body: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    Ok(response)
}

fn data(value: &Value) -> Answer {
    answer(StatusCode::OK, json!({ "data": value }).to_string())
}

fn refuse(text: impl Into<Bytes>) -> Answer {
    answer(StatusCode::BAD_REQUEST, text)
}

fn query_of<B>(request: &Request<B>) -> HashMap<String, String> {
    form_urlencoded::parse(request.uri().query().unwrap_or("").as_bytes()).into_owned().collect()
}

/// Requests before an upgrade: login, listing, the upgrade itself.
async fn plain(state: Arc<Mutex<State>>, mut request: Request<Incoming>) -> Answer {
    let line = format!("{} {}", request.method(), request.uri());
    state.lock().log.push(line);
    let query = query_of(&request);
    if request.uri().path() == "/api2/json/access/ticket" {
        return data(&json!({"username": "u@pbs", "ticket": "PBS:u@pbs:0::x", "CSRFPreventionToken": "0:x"}));
    }
    let cookie = request.headers().get("cookie").and_then(|v| v.to_str().ok());
    if cookie != Some("PBSAuthCookie=PBS:u@pbs:0::x") || !request.headers().contains_key("csrfpreventiontoken") {
        return answer(StatusCode::UNAUTHORIZED, "authentication failed - no ticket");
    }
    if request.uri().path().ends_with("/snapshots") {
        let snapshots = &state.lock().snapshots;
        let item = |((group, time), files): (&(String, i64), &Files)| {
            let (ty, id) = group.split_once('/').unwrap();
            let files: Vec<Value> = files.keys().map(|name| json!({ "filename": name })).collect();
            json!({"backup-type": ty, "backup-id": id, "backup-time": time, "files": files})
        };
        return data(&snapshots.iter().map(item).collect());
    }
    let key = (format!("{}/{}", query["backup-type"], query["backup-id"]), query["backup-time"].parse().unwrap());
    let upgrade = request.headers().get("upgrade").cloned().unwrap();
    let session = Session { key, files: Files::new(), known: HashMap::new(), writers: HashMap::new(), wids: 0 };
    let session = Arc::new(Mutex::new(session));
    tokio::spawn(async move {
        let Ok(upgraded) = hyper::upgrade::on(&mut request).await else { return };
        let service = service_fn(move |request| stream(state.clone(), session.clone(), request));
        let mut builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.max_frame_size(4 << 20).serve_connection(upgraded, service).await;
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", "upgrade".parse().unwrap());
    response.headers_mut().insert("upgrade", upgrade);
    Ok(response)
}

/// Requests of a session.
async fn stream(state: Arc<Mutex<State>>, session: Arc<Mutex<Session>>, request: Request<Incoming>) -> Answer {
    let (query, method) = (query_of(&request), request.method().clone());
    let path = request.uri().path().trim_start_matches('/').to_owned();
    let target = request.uri().path_and_query().unwrap().to_string();
    let body = request.into_body().collect().await?.to_bytes();
    let shown = if method == Method::PUT { String::from_utf8_lossy(&body).into_owned() } else { String::new() };
    let line = format!("{method} {target} {shown}").trim_end().to_owned();
    state.lock().log.push(line.clone());
    if state.lock().refuse.is_some_and(|begin| line.starts_with(begin)) {
        return refuse("refused by the test");
    }
    let (mut state, mut session) = (state.lock(), session.lock());
    match (method.as_str(), path.as_str()) {
        ("GET", "previous_backup_time") => data(&json!(base(&state, &session).map(|(time, _)| time))),
        ("GET", "previous") => {
            let Some((_, files)) = base(&state, &session) else { return refuse("no valid previous backup") };
            let Some(file) = files.get(&query["archive-name"]).cloned() else { return refuse("no such file") };
            register(&mut session, &query["archive-name"], &file);
            answer(StatusCode::OK, file)
        }
        ("POST", "fixed_index" | "dynamic_index") => open(&state, &mut session, &query),
        ("POST", "fixed_chunk" | "dynamic_chunk") => {
            let digest: Digest = query["digest"].parse().unwrap();
            let plain = blob::decode(&body, u64::from(CHUNK_BYTES_MAX), CrcPolicy::Check).unwrap();
            assert_eq!(Digest::of(&plain), digest);
            assert_eq!(
                (query["size"].clone(), query["encoded-size"].clone()),
                (plain.len().to_string(), body.len().to_string())
            );
            assert!(session.writers.contains_key(&query["wid"].parse().unwrap()));
            session.known.insert(digest, u32::try_from(plain.len()).unwrap());
            state.chunks.insert(digest, body);
            data(&json!(digest))
        }
        ("PUT", "fixed_index" | "dynamic_index") => append(&mut session, &body),
        ("POST", "fixed_close" | "dynamic_close") => close(&mut session, &query),
        ("POST", "blob") => {
            assert_eq!(query["encoded-size"], body.len().to_string());
            blob::check_crc(&body).unwrap();
            session.files.insert(query["file-name"].clone(), body);
            data(&Value::Null)
        }
        ("POST", "finish") => {
            assert!(session.writers.is_empty());
            let files = std::mem::take(&mut session.files);
            state.snapshots.insert(session.key.clone(), files);
            data(&Value::Null)
        }
        ("GET", "download") => match state.snapshots.get(&session.key).and_then(|f| f.get(&query["file-name"])) {
            Some(file) => answer(StatusCode::OK, file.clone()),
            None => answer(StatusCode::NOT_FOUND, "no such file"),
        },
        ("GET", "chunk") => match state.chunks.get(&query["digest"].parse().unwrap()) {
            Some(chunk) => answer(StatusCode::OK, chunk.clone()),
            None => refuse("reading the chunk failed - not found"),
        },
        _ => answer(StatusCode::NOT_FOUND, "no such path"),
    }
}

fn base<'a>(state: &'a State, session: &Session) -> Option<(i64, &'a Files)> {
    let of_group = state.snapshots.range((session.key.0.clone(), i64::MIN)..session.key.clone());
    of_group.last().map(|((_, time), files)| (*time, files))
}

fn chunks_of(name: &str, file: &Bytes) -> Vec<(u64, u32, Digest)> {
    let short = |n: u64| u32::try_from(n).unwrap();
    if name.ends_with(".fidx") {
        let header = FixedHeader::parse(file, file.len() as u64).unwrap();
        let slots = fixed_index::slots(&file[4096..]).zip(0..);
        slots.map(|(d, i)| header.chunk_range(i).map(|r| (r.start, short(r.end - r.start), d)).unwrap()).collect()
    } else {
        let mut start = 0;
        let entries = dynamic_index::entries(&file[4096..]);
        let one = |e: DynamicEntry| {
            let begin = std::mem::replace(&mut start, e.end);
            (begin, short(e.end - begin), e.digest)
        };
        entries.map(one).collect()
    }
}

fn register(session: &mut Session, name: &str, file: &Bytes) {
    if !name.ends_with(".blob") {
        session.known.extend(chunks_of(name, file).into_iter().map(|(_, size, digest)| (digest, size)));
    }
}

fn open(state: &State, session: &mut Session, query: &HashMap<String, String>) -> Answer {
    let name = query["archive-name"].clone();
    let size_bytes = query.get("size").map_or(0, |size| size.parse().unwrap());
    let mut entries = BTreeMap::new();
    if let Some(csum) = query.get("reuse-csum") {
        let Some(file) = base(state, session).and_then(|(_, files)| files.get(&name)) else {
            return refuse("cannot reuse index - no valid previous backup exists");
        };
        let header = FixedHeader::parse(file, file.len() as u64).unwrap();
        assert_eq!((header.csum.to_string(), header.size_bytes), (csum.clone(), size_bytes));
        entries = chunks_of(&name, file).into_iter().map(|(offset, size, digest)| (offset, (size, digest))).collect();
    }
    session.wids += 1;
    session.writers.insert(session.wids, Writer { name, size_bytes, count: 0, entries });
    data(&json!(session.wids))
}

fn append(session: &mut Session, body: &[u8]) -> Answer {
    let body: Value = serde_json::from_slice(body).unwrap();
    let (digests, offsets) = (body["digest-list"].as_array().unwrap(), body["offset-list"].as_array().unwrap());
    assert_eq!(digests.len(), offsets.len());
    assert!((1..=128).contains(&digests.len()));
    let writer = session.writers.get_mut(&body["wid"].as_u64().unwrap()).unwrap();
    for (digest, offset) in digests.iter().zip(offsets) {
        let digest: Digest = digest.as_str().unwrap().parse().unwrap();
        let Some(size) = session.known.get(&digest) else { return refuse(format!("no such chunk {digest}")) };
        writer.count += 1;
        writer.entries.insert(offset.as_u64().unwrap(), (*size, digest));
    }
    data(&Value::Null)
}

fn close(session: &mut Session, query: &HashMap<String, String>) -> Answer {
    let writer = session.writers.remove(&query["wid"].parse().unwrap()).unwrap();
    assert_eq!(query["chunk-count"], writer.count.to_string());
    let mut area = Vec::new();
    let mut end = 0;
    for (offset, (size, digest)) in &writer.entries {
        assert_eq!(*offset, end, "{} has a gap", writer.name);
        end = offset + u64::from(*size);
        match writer.name.ends_with(".fidx") {
            true => area.extend(digest.0),
            false => area.extend(DynamicEntry { end, digest: *digest }.encode()),
        }
    }
    let mut csum = IndexCsum::new();
    csum.update(&area);
    let csum = csum.finish();
    assert_eq!(query["csum"], csum.to_string());
    let header = if writer.name.ends_with(".fidx") {
        assert_eq!(end, writer.size_bytes);
        let header = FixedHeader::new([7; 16], EpochSecs(1), end, u64::from(FIXED_CHUNK_BYTES)).unwrap();
        FixedHeader { csum, ..header }.encode()
    } else {
        dynamic_index::DynamicHeader { uuid: [7; 16], ctime: EpochSecs(1), csum }.encode()
    };
    session.files.insert(writer.name, [&header[..], &area].concat().into());
    data(&Value::Null)
}
