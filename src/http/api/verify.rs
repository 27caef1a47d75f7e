//! `…/verify`.

use std::sync::Arc;

use http::Method;

use super::{NS, Place, RequestContext, STORE, reply};
use crate::auth::{AclPath, Privileges};
use crate::error::{Error, Result};
use crate::http::params::{ParamErrors, ParamKind, ParamSpec, Params};
use crate::http::rights::{Reach, group_of, owned_by, snapshot_of};
use crate::http::router::{Access, BodyUse, Reply, Returns, Route};
use crate::jobs::verify::{Filter, Permit, Scope, Verification};
use crate::types::{AuthId, NAMESPACE_DEPTH_MAX, Namespace};

const ANY: Privileges = Privileges::DATASTORE_VERIFY;
const OWN: Privileges = Privileges::DATASTORE_BACKUP;

#[expect(clippy::cast_possible_wrap, reason = "7")]
const DEPTH: ParamKind = ParamKind::Integer { min: 0, max: NAMESPACE_DEPTH_MAX as i64 };

pub(super) const ROUTES: &[Route] = &[Route {
    method: Method::POST,
    path: "admin/datastore/{store}/verify",
    access: Access::Groups { full: ANY, own: OWN },
    body: BodyUse::Parameters,
    params: &[
        STORE,
        NS,
        ParamSpec::optional("backup-type", ParamKind::BACKUP_TYPE, "Type of the group; all groups if left out."),
        ParamSpec::optional("backup-id", ParamKind::SAFE_ID, "Id of the group."),
        ParamSpec::optional(
            "backup-time",
            ParamKind::BACKUP_TIME,
            "Time of the snapshot; all of the group if left out.",
        ),
        ParamSpec::optional("max-depth", DEPTH, "How many levels of namespaces below.").or("7"),
        ParamSpec::optional("ignore-verified", ParamKind::Boolean, "Leave out what has been verified.").or("true"),
        ParamSpec::optional(
            "outdated-after",
            ParamKind::Integer { min: 0, max: i64::MAX },
            "But not what was verified more than so many days ago.",
        ),
        ParamSpec::optional(
            "recheck-marked",
            ParamKind::Boolean,
            "And not what the known-chunk check of a backup has marked as failed.",
        )
        .or("true"),
    ],
    returns: Returns::UPID,
    handler: |context, params| Box::pin(verify(context, params)),
    about: "Starts a verification of a datastore, a namespace, a group or a snapshot.",
}];

async fn verify(context: RequestContext, params: Params) -> Result<Reply> {
    let place = Place::of(&params)?;
    let scope = scope(&place.ns, &params)?;
    let store = place.open(&context)?;
    if let Scope::Group(ns, group) = &scope {
        own(&context, &store.owner(ns, group).await?)?;
    }
    if let (Scope::Snapshot(ns, snapshot), Reach::Own) = (&scope, context.reach) {
        own(&context, &store.owner(ns, snapshot.group()).await?)?;
    }
    let filter = Filter {
        ignore_verified: params.bool("ignore-verified").unwrap_or(true),
        outdated_after_days: params.int("outdated-after").and_then(|days| u64::try_from(days).ok()),
        recheck_marked: params.bool("recheck-marked").unwrap_or(true),
    };
    let compute = context.app.compute.clone();
    let job = Verification { store, compute, scope, filter, permit: permit(&context, &place) };
    let (worker, lifecycle) = (job.worker(), context.app.lifecycle.clone());
    // The daemon waits for the guard before it ends, and a verification ends as soon as it is asked to.
    let guard = lifecycle.enter()?;
    let closing = async move { lifecycle.draining().await };
    let started = job.start(&context.app.tasks, worker, &context.auth, closing, guard).await?;
    reply(started.upid.to_string())
}

fn own(context: &RequestContext, owner: &AuthId) -> Result<()> {
    if context.may_use(owner) { Ok(()) } else { owned_by(&context.auth, owner) }
}

/// What the asker may verify in each namespace, as the rules are now.
fn permit(context: &RequestContext, place: &Place) -> Permit {
    let (users, auth, store) = (context.app.users.get(), context.auth.clone(), place.store.clone());
    Arc::new(move |ns: &Namespace, owner: &AuthId| {
        let held = users.acl.privileges(&auth, &AclPath::datastore(&store, ns));
        held.has_any(ANY) || held.has_any(OWN) && auth.owns(owner)
    })
}

fn scope(ns: &Namespace, params: &Params) -> Result<Scope> {
    let given = |name| params.text(name).is_some() || params.int(name).is_some();
    let needs = |name: &str| -> Error { ParamErrors::one(name, "a group needs its type and its id.").into() };
    match (given("backup-type"), given("backup-id"), given("backup-time")) {
        (false, false, false) => {
            let max_depth = params.int("max-depth").and_then(|depth| usize::try_from(depth).ok());
            Ok(Scope::Namespace { ns: ns.clone(), max_depth })
        }
        (true, true, false) => Ok(Scope::Group(ns.clone(), group_of(params)?)),
        (true, true, true) => Ok(Scope::Snapshot(ns.clone(), snapshot_of(params)?)),
        (false, ..) => Err(needs("backup-type")),
        (_, false, _) => Err(needs("backup-id")),
    }
}
