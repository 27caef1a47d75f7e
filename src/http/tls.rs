//! The server's identity: made at first start and kept, or given by path. TLS 1.2 and 1.3, no ALPN.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};

use crate::error::{Error, Kind, Result};
use crate::sync::Mutex;

/// A certificate chain and its key, ready to serve.
#[derive(Clone)]
pub struct TlsIdentity {
    config: Arc<rustls::ServerConfig>,
    fingerprint: String,
}

impl std::fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TlsIdentity({})", self.fingerprint)
    }
}

impl TlsIdentity {
    /// From PEM texts: a chain with the server's own certificate first, and a private key.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self> {
        let unreadable = |what: &str, e: String| Error::invalid(format!("{what} - {e}"));
        let chain = CertificateDer::pem_slice_iter(chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| unreadable("the certificate is not PEM", e.to_string()))?;
        let leaf = chain.first().ok_or_else(|| Error::invalid("the certificate file holds no certificate"))?;
        let fingerprint = fingerprint(leaf);
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| unreadable("the key is not PEM", e.to_string()))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // No ALPN: the protocols of a session begin by an upgrade of HTTP/1.1 (spec 03 §1).
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|e| unreadable("certificate and key cannot be used", e.to_string()))?;
        Ok(Self { config: Arc::new(config), fingerprint })
    }

    /// What the TLS library needs.
    pub fn config(&self) -> Arc<rustls::ServerConfig> {
        self.config.clone()
    }

    /// SHA-256 of the leaf certificate, `aa:bb:…`.
    pub fn fingerprint(&self) -> &str {
        &self.fingerprint
    }
}

/// The identity as it is now; connections that are open keep the one that they began with. A cheap clone.
#[derive(Clone, Debug)]
pub struct TlsBook {
    current: Arc<Mutex<TlsIdentity>>,
}

impl TlsBook {
    /// A book with this identity.
    pub fn new(identity: TlsIdentity) -> Self {
        Self { current: Arc::new(Mutex::new(identity)) }
    }

    /// The identity as it is now.
    pub fn get(&self) -> TlsIdentity {
        self.current.lock().clone()
    }

    /// Another one for connections from now on.
    pub fn replace(&self, identity: TlsIdentity) {
        *self.current.lock() = identity;
    }
}

/// SHA-256 of a certificate in DER, as lower-case hex pairs joined by `:`.
pub fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let pairs: Vec<String> = Sha256::digest(certificate).iter().map(|byte| format!("{byte:02x}")).collect();
    pairs.join(":")
}

/// A self-signed certificate and its key, both in PEM.
pub struct NewCertificate {
    /// The certificate.
    pub chain_pem: String,
    /// The key: a secret.
    pub key_pem: String,
}

impl std::fmt::Debug for NewCertificate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NewCertificate")
    }
}

/// Makes a certificate for this host, good until the year 2120: clients pin its fingerprint, so an end of validity would only
/// stop backups one night.
pub fn self_signed(host: &str) -> Result<NewCertificate> {
    let failed = |e: rcgen::Error| Error::new(Kind::Io, format!("the certificate cannot be made - {e}"));
    let key = rcgen::KeyPair::generate().map_err(failed)?;
    let mut names = vec!["localhost".to_owned()];
    if !host.is_empty() && host != "localhost" {
        names.push(host.to_owned());
    }
    let mut params = rcgen::CertificateParams::new(names).map_err(failed)?;
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    params.subject_alt_names.extend(loopback.map(rcgen::SanType::IpAddress));
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(2120, 1, 1);
    params.distinguished_name = rcgen::DistinguishedName::new();
    let name = if host.is_empty() { "localhost" } else { host };
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.distinguished_name.push(rcgen::DnType::OrganizationName, "Ringvault");
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(NewCertificate { chain_pem: certificate.pem(), key_pem: key.serialize_pem() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_certificate_serves() {
        let new = self_signed("host.example").unwrap();
        let identity = TlsIdentity::from_pem(new.chain_pem.as_bytes(), new.key_pem.as_bytes()).unwrap();
        assert_eq!(identity.fingerprint().len(), 95);
        assert!(identity.config().alpn_protocols.is_empty());
        let other = self_signed("").unwrap();
        assert!(TlsIdentity::from_pem(new.chain_pem.as_bytes(), other.key_pem.as_bytes()).is_err(), "foreign key");
        for (chain, key) in [("", new.key_pem.as_str()), (new.chain_pem.as_str(), ""), ("rubbish", "rubbish")] {
            assert!(TlsIdentity::from_pem(chain.as_bytes(), key.as_bytes()).is_err());
        }
    }
}
