//! TLS towards the server: the system's certificate authorities, or one pinned certificate.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::repository::Repository;
use crate::error::{Error, IoContext, Kind, Result};
use crate::sync::Mutex;
use crate::types::Digest;

/// How long a connection may take to come about, TLS included (the official client's limit, spec 06 §1).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Silence after which the kernel asks whether the server is still there (spec 06 §1).
const TCP_KEEPALIVE: Duration = Duration::from_secs(120);

/// SHA-256 of a certificate in DER form, shown as 32 lower-case hex pairs joined by `:`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of a certificate.
    pub fn of(certificate: &[u8]) -> Self {
        Self(Digest::of(certificate).0)
    }
}

impl FromStr for Fingerprint {
    type Err = Error;

    /// Upper or lower case, with or without the colons.
    fn from_str(s: &str) -> Result<Self> {
        let mut out = [0; 32];
        let digits: String = s.chars().filter(|c| *c != ':').collect();
        hex::decode_to_slice(digits, &mut out).map_err(|_| {
            Error::invalid(format!("{s:.120?} is not a fingerprint: 32 hex pairs joined by ':' expected"))
        })?;
        Ok(Self(out))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if i == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Which server is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trust {
    /// One whose certificate the system's authorities vouch for, under the name that was asked for.
    SystemRoots,
    /// The one with exactly this certificate; authorities and names do not count.
    Pinned(Fingerprint),
}

/// Opens TLS connections to one server.
#[derive(Clone)]
pub struct Connector {
    tls: TlsConnector,
    trust: Trust,
    seen: Arc<Mutex<Option<Fingerprint>>>,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Connector {
    /// Reads the system's authorities when they are to decide.
    pub fn new(trust: Trust) -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let seen = Arc::new(Mutex::new(None));
        let roots = match trust {
            Trust::Pinned(_) => None,
            Trust::SystemRoots => system_roots(&provider),
        };
        let verifier = Verifier { trust, roots, provider: provider.clone(), seen: seen.clone() };
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| Error::new(Kind::Io, "TLS cannot be set up").with_source(e))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        // No ALPN: the server must stay with HTTP/1.1, since only that can be upgraded (spec 06 §1).
        Ok(Self { tls: TlsConnector::from(Arc::new(config)), trust, seen })
    }

    /// Connects within ten seconds. The error says what to do about an unknown certificate.
    pub async fn connect(&self, repository: &Repository) -> Result<TlsStream<TcpStream>> {
        let authority = repository.authority();
        tokio::time::timeout(CONNECT_TIMEOUT, self.handshake(repository)).await.unwrap_or_else(|_| {
            Err(Error::new(
                Kind::Io,
                format!(
                    "{authority} did not answer within {} s: check host, port and firewall",
                    CONNECT_TIMEOUT.as_secs()
                ),
            ))
        })
    }

    async fn handshake(&self, repository: &Repository) -> Result<TlsStream<TcpStream>> {
        let authority = repository.authority();
        let tcp = TcpStream::connect((repository.host(), repository.port()))
            .await
            .io_context(|| format!("cannot reach {authority}: check host and port, and that the server is running"))?;
        tcp.set_nodelay(true).io_context(|| "set TCP_NODELAY")?;
        let keepalive = socket2::TcpKeepalive::new().with_time(TCP_KEEPALIVE);
        socket2::SockRef::from(&tcp).set_tcp_keepalive(&keepalive).io_context(|| "set SO_KEEPALIVE")?;
        let name = ServerName::try_from(repository.host().to_owned())
            .map_err(|_| Error::invalid(format!("{:?} is not a host name", repository.host())))?;
        let stream = self.tls.connect(name, tcp).await;
        stream.map_err(|e| self.explain(&authority, e))
    }

    fn explain(&self, authority: &str, error: std::io::Error) -> Error {
        let certificate = matches!(
            error.get_ref().and_then(|e| e.downcast_ref::<rustls::Error>()),
            Some(rustls::Error::InvalidCertificate(_))
        );
        let seen = *self.seen.lock();
        match (seen, self.trust) {
            (Some(seen), Trust::Pinned(expected)) if certificate => Error::denied(format!(
                "the certificate of {authority} has the fingerprint {seen}, but PBS_FINGERPRINT demands {expected}: \
                 either this is another server, or its certificate was renewed; if you trust it, set PBS_FINGERPRINT={seen}"
            )),
            (Some(seen), Trust::SystemRoots) if certificate => Error::denied(format!(
                "the certificate of {authority} is not trusted by this system ({error}): \
                 compare its fingerprint with the one that the server printed, then set PBS_FINGERPRINT={seen}"
            )),
            _ => Error::io(format!("TLS with {authority} failed: is that a server of this protocol?"), error),
        }
    }
}

/// `None` when the system has no usable authority; then every certificate is refused.
fn system_roots(provider: &Arc<CryptoProvider>) -> Option<Arc<WebPkiServerVerifier>> {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone()).build().ok()
}

#[derive(Debug)]
struct Verifier {
    trust: Trust,
    roots: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
    seen: Arc<Mutex<Option<Fingerprint>>>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let fingerprint = Fingerprint::of(end_entity);
        *self.seen.lock() = Some(fingerprint);
        match (self.trust, &self.roots) {
            (Trust::Pinned(expected), _) if expected == fingerprint => Ok(ServerCertVerified::assertion()),
            (Trust::SystemRoots, Some(roots)) => {
                roots.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
            }
            _ => Err(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)),
        }
    }

    // The handshake's signature is checked in each case: it proves that the server holds the certificate's key.
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_in_every_spelling() {
        let shown = Fingerprint::of(b"x").to_string();
        assert_eq!(shown.len(), 95);
        for text in [shown.clone(), shown.to_uppercase(), shown.replace(':', "")] {
            assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), shown);
        }
        for bad in [&shown[3..], "", "zz"] {
            assert!(bad.parse::<Fingerprint>().is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn an_unknown_certificate_is_refused_with_its_fingerprint() {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let certificate = made.cert.der().clone();
        let shown = Fingerprint::of(&certificate);
        let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate], key)
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            loop {
                let (tcp, _) = listener.accept().await.unwrap();
                let _ = acceptor.accept(tcp).await;
            }
        });
        let repository: Repository = format!("localhost:{port}:main").parse().unwrap();
        let try_with = async |trust| Connector::new(trust).unwrap().connect(&repository).await.map(|_| ());
        try_with(Trust::Pinned(shown)).await.unwrap();
        for trust in [Trust::SystemRoots, Trust::Pinned(Fingerprint([0; 32]))] {
            let text = try_with(trust).await.unwrap_err().to_string();
            assert!(text.contains(&format!("set PBS_FINGERPRINT={shown}")), "{text}");
        }
    }
}
