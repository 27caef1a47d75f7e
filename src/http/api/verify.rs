//! `…/verify`.

use std::sync::Arc;

use http::Method;

use super::{NS, Place, RATE, RequestContext, STORE, rate_of, reply};
use crate::auth::{AclPath, Privileges};
use crate::error::{Error, Kind, Result};
use crate::http::params::{ParamErrors, ParamKind, ParamSpec, Params};
use crate::http::rights::{Reach, group_of, owned_by, snapshot_of};
use crate::http::router::{Access, BodyUse, Reply, Returns, Route};
use crate::jobs::verify::{Filter, NthPart, Part, Percent, Permit, Scope, Verification};
use crate::types::{AuthId, NAMESPACE_DEPTH_MAX, Namespace};

const ANY: Privileges = Privileges::DATASTORE_VERIFY;
const OWN: Privileges = Privileges::DATASTORE_BACKUP;

#[expect(clippy::cast_possible_wrap, reason = "7")]
const DEPTH: ParamKind = ParamKind::Integer { min: 0, max: NAMESPACE_DEPTH_MAX as i64 };

const PERCENT: ParamKind = ParamKind::Text {
    pattern: r"^[0-9]{1,3}(\.[0-9]{1,4})?$",
    min: 1,
    max: 8,
    matches: |text| text.parse::<Percent>().is_ok(),
};

const N_OF_M: ParamKind = ParamKind::Text {
    pattern: r"^[0-9]{1,5}/[0-9]{1,5}$",
    min: 3,
    max: 11,
    matches: |text| text.parse::<NthPart>().is_ok(),
};

const SEED: ParamKind = ParamKind::Integer { min: 0, max: i64::MAX };

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
        ParamSpec::optional(
            "ignore-verified",
            ParamKind::Boolean,
            "Leave out what has been verified; with `percent` or `n-of-m` false if left out.",
        )
        .or("true"),
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
        ParamSpec::optional("percent", PERCENT, "Read only a random sample of the chunks, so many percent of them."),
        ParamSpec::optional("seed", SEED, "Choose the sample as the run did that told this seed."),
        ParamSpec::optional("n-of-m", N_OF_M, "Read only part N of M of the chunks: `N/M`, the same part each time."),
        RATE,
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
    let part = part(&params)?;
    let filter = Filter {
        // A part is about chunks, not about snapshots that nobody has looked at.
        ignore_verified: params.bool("ignore-verified").unwrap_or(part == Part::All),
        outdated_after_days: params.int("outdated-after").and_then(|days| u64::try_from(days).ok()),
        recheck_marked: params.bool("recheck-marked").unwrap_or(true),
    };
    let compute = context.app.compute.clone();
    let (rate, permit) = (rate_of(&params)?, permit(&context, &place));
    let job = Verification { store, compute, scope, filter, part, rate, permit };
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

/// Which chunks are read.
fn part(params: &Params) -> Result<Part> {
    let wrong = |name: &str, text: &str| -> Error { ParamErrors::one(name, text).into() };
    let part = match (params.parsed_opt::<Percent>("percent")?, params.parsed_opt::<NthPart>("n-of-m")?) {
        (Some(_), Some(_)) => return Err(wrong("n-of-m", "either this or percent.")),
        (Some(share), None) => Part::Sample { share, seed: params.uint("seed").map_or_else(any_seed, Ok)? },
        (None, _) if params.is_given("seed") => return Err(wrong("seed", "only a sample has one: give percent too.")),
        (None, Some(nth)) => Part::Nth(nth),
        (None, None) => Part::All,
    };
    Ok(part)
}

/// A number that the parameter takes.
fn any_seed() -> Result<u64> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|e| Error::new(Kind::Io, format!("no random bytes - {e}")))?;
    // Short enough to be typed again.
    Ok(u64::from_le_bytes(bytes) >> 32)
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
