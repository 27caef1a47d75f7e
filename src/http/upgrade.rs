//! From a request to a session: who may, which snapshot, then 101 and HTTP/2 (spec 03 §2, 04 §1).

use http::{HeaderMap, StatusCode, Version, header};

use super::params::{ParamSpec, Params};
use super::reply::{self, Response};
use super::session::params::{BACKUP_UPGRADE, READER_UPGRADE, UpgradeTarget};
use super::{RequestContext, backup as backup_session, reader as reader_session};
use crate::auth::{AclPath, Privileges};
use crate::error::{Error, Result};
use crate::metrics::SessionKind;
use crate::store::Operation;
use crate::store::layout::Layout;

/// What a client names in its `Upgrade` header to write a snapshot.
pub const BACKUP_PROTOCOL: &str = "proxmox-backup-protocol-v1";

/// What a client names in its `Upgrade` header to read a snapshot.
pub const READER_PROTOCOL: &str = "proxmox-backup-reader-protocol-v1";

/// Parameters of `GET backup`.
pub const BACKUP_PARAMS: &[ParamSpec] = BACKUP_UPGRADE;

/// Parameters of `GET reader`.
pub const READER_PARAMS: &[ParamSpec] = READER_UPGRADE;

/// `GET backup`: takes the locks, makes the snapshot's directory, and answers 101; the session runs on behind it.
pub async fn backup(ctx: RequestContext, params: Params) -> Result<Response> {
    let target = UpgradeTarget::of(&params)?;
    let place = AclPath::datastore(&target.store, &target.ns);
    if !ctx.privileges(&place).has_any(Privileges::DATASTORE_BACKUP) {
        return Err(Error::denied(format!("missing permissions '{}' on '{place}'", Privileges::DATASTORE_BACKUP)));
    }
    let store = ctx.app.datastore(&target.store)?;
    let RequestContext { app, auth, peer, headers, version, upgrade, .. } = ctx;
    check_protocol(&headers, version, BACKUP_PROTOCOL)?;
    let upgrade = upgrade.ok_or_else(|| Error::invalid("missing Upgrade header"))?;
    // Before the first look at the disk; the lease begins one of its own.
    let _asking = store.begin_operation(Operation::Write)?;
    let UpgradeTarget { ns, snapshot, benchmark, .. } = target;
    if !store.namespace_exists(&ns).await? {
        return Err(Error::not_found("namespace not found"));
    }
    let group = snapshot.group().clone();
    match (group.is_benchmark(), benchmark) {
        (true, false) => return Err(Error::invalid("unable to run benchmark without --benchmark flags")),
        (false, true) => return Err(Error::invalid("benchmark flags is only allowed on 'host/benchmark'")),
        (true, true) | (false, false) => {}
    }
    let guard = app.lifecycle.enter()?;
    let lease = store.begin_backup(&ns, &snapshot, &auth, benchmark).await?;
    let worker_type = if benchmark { "benchmark" } else { "backup" };
    let task = match app.tasks.start(worker_type, Some(format!("{}:{group}", store.name())), &auth).await {
        Ok(task) => task,
        Err(e) => {
            lease.abandon().await?;
            return Err(e);
        }
    };
    task.log(format!("starting new {worker_type} on datastore '{}' from {}: \"{snapshot}\"", store.name(), peer.ip()));
    if let Some(base) = lease.base() {
        task.log(format!("previous snapshot is \"{}\"", base.snapshot));
    }
    let snapshot_path = Layout::new(store.base_path()).snapshot(&ns, &snapshot).display().to_string();
    let counted = app.metrics.begin_session(SessionKind::Backup);
    let compute = app.compute.clone();
    let lifecycle = app.lifecycle.clone();
    let tasks = app.tasks.clone();
    let parts = backup_session::Parts { store, lease, task, tasks, compute, benchmark, snapshot_path, counted, guard };
    tokio::spawn(async move { backup_session::run(parts, upgrade.await, lifecycle).await });
    Ok(switching_protocols(BACKUP_PROTOCOL))
}

/// `GET reader`: locks the snapshot against removal and answers 101.
pub async fn reader(ctx: RequestContext, params: Params) -> Result<Response> {
    let target = UpgradeTarget::of(&params)?;
    let place = AclPath::datastore(&target.store, &target.ns);
    let privileges = ctx.privileges(&place);
    if !privileges.has_any(Privileges::DATASTORE_READ.union(Privileges::DATASTORE_BACKUP)) {
        // Not 403: recorded.
        return Err(Error::invalid(format!("no permissions on {place}")));
    }
    let store = ctx.app.datastore(&target.store)?;
    let RequestContext { app, auth, peer, headers, version, upgrade, .. } = ctx;
    check_protocol(&headers, version, READER_PROTOCOL)?;
    let upgrade = upgrade.ok_or_else(|| Error::invalid("missing Upgrade header"))?;
    let _asking = store.begin_operation(Operation::Read)?;
    let UpgradeTarget { ns, snapshot, .. } = target;
    if !privileges.has_any(Privileges::DATASTORE_READ) {
        let owner = store.owner(&ns, snapshot.group()).await?;
        if !auth.owns(&owner) {
            return Err(Error::invalid("backup owner check failed!"));
        }
    }
    let guard = app.lifecycle.enter()?;
    let lease = store.begin_reader(&ns, &snapshot).await?;
    let worker_id = format!("{}:{}/{:08X}", store.name(), snapshot.group(), snapshot.time().0);
    let task = app.tasks.start("reader", Some(worker_id), &auth).await?;
    task.log(format!("starting new backup reader on datastore '{}' from {}: \"{snapshot}\"", store.name(), peer.ip()));
    let counted = app.metrics.begin_session(SessionKind::Reader);
    let (compute, delays, lifecycle) = (app.compute.clone(), app.delays(), app.lifecycle.clone());
    let parts = reader_session::Parts { store, lease, task, compute, delays, counted, guard };
    tokio::spawn(async move { reader_session::run(parts, upgrade.await, lifecycle).await });
    Ok(switching_protocols(READER_PROTOCOL))
}

/// The words are the original's; clients compare the protocol's name as it stands.
fn check_protocol(headers: &HeaderMap, version: Version, protocol: &str) -> Result<()> {
    let Some(wanted) = headers.get(header::UPGRADE) else { return Err(Error::invalid("missing Upgrade header")) };
    if wanted.as_bytes() != protocol.as_bytes() {
        return Err(Error::invalid("invalid protocol name"));
    }
    if version >= Version::HTTP_2 {
        return Err(Error::invalid(format!("unexpected http version '{version:?}' (expected version < 2)")));
    }
    Ok(())
}

fn switching_protocols(protocol: &'static str) -> Response {
    let mut response = reply::empty(StatusCode::SWITCHING_PROTOCOLS);
    reply::set_header(&mut response, header::CONNECTION, "upgrade");
    reply::set_header(&mut response, header::UPGRADE, protocol);
    response
}
