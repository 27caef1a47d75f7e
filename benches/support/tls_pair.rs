//! Two ends of a TLS connection over loopback, with the certificate and the cipher suites of the daemon: encryption and the
//! kernel's part of a transfer alone.

use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use ringvault::http::{TlsIdentity, self_signed};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, ServerConnection, StreamOwned};

/// Both ends, after the handshake.
pub struct TlsPair {
    pub server: StreamOwned<ServerConnection, TcpStream>,
    pub client: StreamOwned<ClientConnection, TcpStream>,
}

impl TlsPair {
    /// Connects a thread's two ends to each other.
    pub fn connect() -> Self {
        let certificate = self_signed("localhost").expect("a certificate");
        let chain = certificate.chain_pem.as_bytes();
        let identity = TlsIdentity::from_pem(chain, certificate.key_pem.as_bytes()).expect("an identity");
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(chain).expect("a certificate")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let accepting = std::thread::spawn(move || {
            let (mut tcp, _) = listener.accept().expect("a connection");
            tcp.set_nodelay(true).expect("an option");
            let mut tls = ServerConnection::new(identity.config()).expect("a server");
            while tls.is_handshaking() {
                tls.complete_io(&mut tcp).expect("a handshake");
            }
            StreamOwned::new(tls, tcp)
        });
        let mut tcp = TcpStream::connect(address).expect("a connection");
        tcp.set_nodelay(true).expect("an option");
        let name = ServerName::try_from("localhost").expect("a name");
        let mut tls = ClientConnection::new(Arc::new(config), name).expect("a client");
        while tls.is_handshaking() {
            tls.complete_io(&mut tcp).expect("a handshake");
        }
        Self { server: accepting.join().expect("a server"), client: StreamOwned::new(tls, tcp) }
    }
}
