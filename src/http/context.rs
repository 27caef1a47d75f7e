//! What a handler gets: the daemon's parts, and who asks.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;

use super::lifecycle::Lifecycle;
use super::login::Logins;
use super::metrics::MetricsPage;
use super::reports::Reports;
use super::rights::Reach;
use super::tls::TlsBook;
use super::user_book::UserBook;
use crate::auth::{AclPath, Privileges, ServerKeys};
use crate::clock::Clock;
use crate::config::{LiveConfig, StoreBook};
use crate::engine::ComputePool;
use crate::error::{Error, Result};
use crate::jobs::state::JobStates;
use crate::metrics::ServerMetrics;
use crate::store::Datastore;
use crate::task;
use crate::types::{AuthId, DatastoreName, Namespace};

/// The parts of a running daemon.
#[derive(Debug)]
pub struct App {
    /// What time it is.
    pub clock: Clock,
    /// What is counted about clients.
    pub metrics: Arc<ServerMetrics>,
    /// What `GET /metrics` needs beside it.
    pub metrics_page: MetricsPage,
    /// What inspections found.
    pub reports: Reports,
    /// Certificate and key.
    pub tls: TlsBook,
    /// Running and ended tasks.
    pub tasks: task::Registry,
    /// Threads for hashing and compression.
    pub compute: ComputePool,
    /// Whether the daemon is on its way down.
    pub lifecycle: Lifecycle,
    /// Who is known, and what they may do.
    pub users: UserBook,
    /// What tickets are signed and token secrets hashed with.
    pub keys: ServerKeys,
    /// Places for checks of passwords, and what they said.
    pub logins: Logins,
    /// The configuration, and how it is changed.
    pub config: LiveConfig,
    /// The open datastores, as the configuration has them.
    pub datastores: StoreBook,
    /// When jobs ran.
    pub jobs: JobStates,
}

impl App {
    /// The datastore of that name; the recorded words if there is none.
    pub fn datastore(&self, name: &DatastoreName) -> Result<Datastore> {
        self.datastores.get(name).ok_or_else(|| Error::invalid(format!("no such datastore '{name}'")))
    }

    /// How long refusals wait.
    pub fn delays(&self) -> Delays {
        let server = &self.config.get().config.server;
        Delays { unauthenticated: server.unauthenticated_delay, denied: server.denied_delay }
    }
}

/// How long the body of a REST call may take altogether; the official client gives up after as long (spec 06 §1).
const BODY_TIMEOUT: Duration = Duration::from_secs(120);

/// How long a refusal waits before it is sent, so that guessing is slow.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    /// 401.
    pub unauthenticated: Duration,
    /// 403 of a call's own privilege rule.
    pub denied: Duration,
}

/// One authenticated request, its parameters aside.
#[derive(Debug)]
pub struct RequestContext {
    /// The daemon's parts.
    pub app: Arc<App>,
    /// Who asks.
    pub auth: AuthId,
    /// From where.
    pub peer: SocketAddr,
    /// With which headers.
    pub headers: HeaderMap,
    /// In which version of HTTP.
    pub version: http::Version,
    /// The connection after a 101, if the client asked for one.
    pub upgrade: Option<OnUpgrade>,
    /// The raw body; only calls that stream find it here.
    pub body: Option<Incoming>,
    /// How far the asker's privileges go, if the call is about groups.
    pub reach: Reach,
}

impl RequestContext {
    /// What the asker may do at a place.
    pub fn privileges(&self, path: &AclPath) -> Privileges {
        self.app.users.get().acl.privileges(&self.auth, path)
    }

    /// What the asker may do in a namespace of a datastore.
    pub fn datastore_privileges(&self, store: &DatastoreName, ns: &Namespace) -> Privileges {
        self.privileges(&AclPath::datastore(store, ns))
    }

    /// Whether the asker may use a group of that owner in a call whose rule tells own groups from others.
    pub fn may_use(&self, owner: &AuthId) -> bool {
        self.reach == Reach::All || self.auth.owns(owner)
    }

    /// As [`Self::may_use`], to be taken along by a listing.
    pub fn may_use_owner(&self) -> impl Fn(&AuthId) -> bool + Send + Sync + 'static {
        let (reach, auth) = (self.reach, self.auth.clone());
        move |owner| reach == Reach::All || auth.owns(owner)
    }

    /// The whole raw body of a streaming call, at most `bytes_max` long.
    pub async fn read_body(&mut self, bytes_max: usize) -> Result<Bytes> {
        match self.body.take() {
            Some(body) => read_body(body, bytes_max).await,
            None => Ok(Bytes::new()),
        }
    }
}

/// Reads a body to its end; a longer one than `bytes_max` is refused as soon as that is seen, one that does not end after
/// two minutes then.
pub async fn read_body(body: Incoming, bytes_max: usize) -> Result<Bytes> {
    let late = |_| Error::closed("the request body did not arrive in time");
    tokio::time::timeout(BODY_TIMEOUT, collect(body, bytes_max)).await.map_err(late)?
}

async fn collect(mut body: Incoming, bytes_max: usize) -> Result<Bytes> {
    let too_long = || Error::invalid(format!("the request body is longer than {bytes_max} bytes"));
    let announced = usize::try_from(hyper::body::Body::size_hint(&body).lower()).unwrap_or(usize::MAX);
    if announced > bytes_max {
        discard(&mut body).await;
        return Err(too_long());
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|e| Error::closed("the request body ended early").with_source(e))?;
        if let Ok(data) = frame.into_data() {
            if bytes.len() + data.len() > bytes_max {
                discard(&mut body).await;
                return Err(too_long());
            }
            bytes.extend_from_slice(&data);
        }
    }
    Ok(bytes.freeze())
}

/// Most of an unwanted body that is received all the same.
const DISCARD_BYTES_MAX: usize = 64 << 20;

/// How long an unwanted body is received.
const DISCARD_TIMEOUT: Duration = Duration::from_secs(10);

/// Receives the rest of a body that nobody wants, within limits: a client that is still sending when the connection closes does not
/// see the answer.
pub(super) async fn discard(body: &mut Incoming) {
    let receive = async {
        let mut left = DISCARD_BYTES_MAX;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    // Past the limit the connection closes in its face.
    let _ = tokio::time::timeout(DISCARD_TIMEOUT, receive).await;
}
