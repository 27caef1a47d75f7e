//! What tests of the server share: an [`App`] with one user who may do everything, a small datastore, and the server over a real socket.

use std::io::Write;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::user_book::tests::InMemory;
use super::{
    App, Lifecycle, Logins, MetricsPage, NewCertificate, Reports, Running, Server, ServerConfig, TlsBook, TlsIdentity,
    self_signed,
};
use crate::auth::{ServerKeys, TicketKeys, TokenKey, Users};
use crate::clock::{Clock, EpochSecs};
use crate::config::{DataDir, LiveConfig, Loaded, StoreBook};
use crate::engine::{ComputePool, Engine, EngineConfig};
use crate::jobs::state::JobStates;
use crate::metrics::ServerMetrics;
use crate::store::{Datastore, DatastoreConfig, SyncLevel};
use crate::task;

/// Secret of the token `admin@pbs!default`.
pub(super) const SECRET: &str = "s3cret";

/// Keys that are the same in every test.
pub(super) fn keys() -> ServerKeys {
    ServerKeys { tickets: TicketKeys::new(vec![1; 32], vec![2; 32]), tokens: TokenKey::new(vec![3; 32]) }
}

/// Users as the first start makes them.
pub(super) fn first_users() -> Users {
    let mut users = Users::default();
    users.set_up(&"admin@pbs!default".parse().unwrap(), SECRET, &keys().tokens).unwrap();
    users
}

/// A daemon's parts, task logs in `dir`.
pub(super) fn app(dir: &Path, users: Users, stores: impl IntoIterator<Item = Datastore>) -> App {
    app_with(dir, users, stores, Duration::ZERO)
}

/// The same, with a wait before each 401.
pub(super) fn app_with(
    dir: &Path,
    users: Users,
    stores: impl IntoIterator<Item = Datastore>,
    unauthenticated: Duration,
) -> App {
    let stores: Vec<Datastore> = stores.into_iter().collect();
    let mut text = format!(
        "[server]\nunauthenticated-delay-ms = {}\ndenied-delay-ms = 0\nshutdown-timeout-secs = 5\n",
        unauthenticated.as_millis()
    );
    for store in &stores {
        text += &format!(
            "[[datastore]]\nname = \"{}\"\npath = {:?}\nsync-level = \"none\"\n",
            store.name(),
            store.base_path()
        );
    }
    let path = dir.join("ringvault.toml");
    std::fs::OpenOptions::new().create_new(true).write(true).open(&path).unwrap().write_all(text.as_bytes()).unwrap();
    let config = Loaded::parse(text, "ringvault.toml", dir).unwrap();
    let (compute, datastores) = (ComputePool::new(1).unwrap(), StoreBook::new(Clock::system()));
    for (store, section) in stores.into_iter().zip(&config.config.datastores) {
        datastores.adopt(store, section.clone());
    }
    App {
        clock: Clock::system(),
        metrics: Arc::new(ServerMetrics::new(EpochSecs(0))),
        metrics_page: MetricsPage::default(),
        reports: Reports::default(),
        tls: TlsBook::new(identity(&self_signed("").unwrap())),
        tasks: task::Registry::open(&dir.join("tasks"), Clock::system()).unwrap(),
        config: LiveConfig::new(DataDir::open(dir).unwrap(), path, config, compute.clone(), datastores.clone()),
        jobs: JobStates::open(&dir.join("jobs"), compute.clone()).unwrap(),
        compute,
        lifecycle: Lifecycle::new(4),
        users: InMemory::book(users),
        keys: keys(),
        logins: Logins::new().unwrap(),
        datastores,
    }
}

/// A datastore `main` in `dir` without its 65,536 chunk directories, which are made as chunks come.
pub(super) async fn datastore(dir: &Path) -> Datastore {
    datastore_named(dir, "main").await
}

/// The same under another name.
pub(super) async fn datastore_named(dir: &Path, name: &str) -> Datastore {
    use std::os::unix::fs::PermissionsExt;
    let base = dir.join(name);
    for (path, mode) in [(base.clone(), 0o755), (base.join(".chunks"), 0o750)] {
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let config = DatastoreConfig { sync_level: SyncLevel::None, ..DatastoreConfig::new(name.parse().unwrap(), base) };
    let engine = Engine::start("test", &EngineConfig::default()).unwrap();
    Datastore::open(config, engine, Clock::system()).await.unwrap()
}

/// The header line of who may do everything.
pub(super) const ADMIN: &str = "authorization: PBSAPIToken admin@pbs!default:s3cret\r\n";

/// A server on a loopback port, and what a client needs to know of it.
pub(super) struct Tested {
    pub(super) running: Running,
    pub(super) connector: TlsConnector,
    dir: tempfile::TempDir,
}

fn identity(certificate: &NewCertificate) -> TlsIdentity {
    TlsIdentity::from_pem(certificate.chain_pem.as_bytes(), certificate.key_pem.as_bytes()).unwrap()
}

/// Serves `app`; `dir` lives as long as the server.
pub(super) fn serve(app: App, dir: tempfile::TempDir, connections_max: usize) -> Tested {
    let certificate = self_signed("").unwrap();
    app.tls.replace(identity(&certificate));
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(certificate.chain_pem.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let running = Server::start(ServerConfig { socket, connections_max, app }).unwrap();
    Tested { running, connector: TlsConnector::from(Arc::new(client)), dir }
}

impl Tested {
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(super) async fn connect(&self) -> TlsStream<TcpStream> {
        let stream = TcpStream::connect(self.running.local_addr).await.unwrap();
        self.connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap()
    }

    /// What comes back for these bytes until the server closes.
    pub(super) async fn ask(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        let (mut from, mut to) = tokio::io::split(&mut stream);
        let mut answer = Vec::new();
        // The server may close before all is sent.
        let send = async {
            let _ = to.write_all(bytes).await;
            let _ = to.flush().await;
        };
        let (_, read) = tokio::join!(send, from.read_to_end(&mut answer));
        // Whether it says goodbye in TLS when it closes does not matter here.
        let _ = read;
        String::from_utf8_lossy(&answer).into_owned()
    }

    pub(super) async fn get(&self, path: &str) -> String {
        self.request("GET", path, ADMIN, None).await
    }

    /// One request, its parameters in the path's query or as JSON.
    pub(super) async fn request(&self, method: &str, path: &str, login: &str, json: Option<&str>) -> String {
        let body = json.unwrap_or("");
        let about = json.map_or(String::new(), |text| {
            format!("content-type: application/json\r\ncontent-length: {}\r\n", text.len())
        });
        let text = format!("{method} {path} HTTP/1.1\r\nhost: x\r\n{login}{about}connection: close\r\n\r\n{body}");
        self.ask(text.as_bytes()).await
    }
}
