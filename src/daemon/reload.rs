//! SIGHUP: the configuration file and the certificate are read again. Nothing that runs is disturbed.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::signal::unix::Signal;

use super::first_start;
use crate::config::{Config, DataDir};
use crate::error::{Error, Result};
use crate::http::{App, TlsBook, TlsIdentity};
use crate::systemd;

/// Reloads at every SIGHUP, one after another, for as long as the daemon serves.
pub(super) async fn follow(mut hangup: Signal, app: Arc<App>, tls: TlsBook, dir: DataDir, address: SocketAddr) {
    while hangup.recv().await.is_some() {
        systemd::reloading();
        match reload(&app, &tls, &dir, address).await {
            Ok(()) => tracing::info!(path = ?app.config.path(), "configuration reloaded"),
            Err(error) => tracing::error!(%error, "the configuration was not reloaded, and everything stays as it was"),
        }
        systemd::ready(&format!("listening on https://{address}"));
    }
}

async fn reload(app: &App, tls: &TlsBook, dir: &DataDir, address: SocketAddr) -> Result<()> {
    let identity = app.config.reload(async |new| identity(app, dir, new.config.clone()).await).await?;
    let config = app.config.get().config.clone();
    app.lifecycle.set_sessions_max(config.server.sessions_max);
    let fingerprint = identity.fingerprint().to_owned();
    if tls.get().fingerprint() != fingerprint {
        tracing::info!(path = ?config.server.tls_cert, fingerprint, "another certificate is used from now on");
    }
    tls.replace(identity);
    // Address, fingerprint and datastore in connection.env; a reload that cannot write these is done all the same.
    let (dir, keys) = (dir.clone(), app.keys.clone());
    let noted =
        app.compute.run(move || first_start::users(&dir, &keys, &config, address, &fingerprint).map(drop)).await?;
    noted.or_else(|error| {
        tracing::warn!(%error, "connection.env may be out of date");
        Ok(())
    })
}

/// The certificate and key that the new configuration names.
async fn identity(app: &App, dir: &DataDir, config: Config) -> Result<TlsIdentity> {
    let dir = dir.clone();
    let read = move || {
        // One that is missing is made at the first start, and not because a path is mistyped later.
        let cert = &config.server.tls_cert;
        if !dir.has(cert)? {
            return Err(Error::not_found(format!("there is no certificate {cert:?}")));
        }
        first_start::identity(&dir, &config.server, "")
    };
    app.compute.run(read).await?
}
