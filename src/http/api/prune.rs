//! `…/prune` and `…/prune-datastore`.

use std::sync::Arc;

use http::Method;
use serde_json::{Value, json};

use super::keep::{DAILY, HOURLY, LAST, MONTHLY, WEEKLY, YEARLY};
use super::{BACKUP_ID, BACKUP_TYPE, NS, Place, RATE, RequestContext, STORE, rate_of, reply};
use crate::auth::Privileges;
use crate::error::{Error, Result};
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::rights::group_of;
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::http::work;
use crate::jobs::prune::{self, Decision, KeepOptions, Scope};
use crate::task::Task;
use crate::types::{AuthId, Group, NAMESPACE_DEPTH_MAX, Namespace};

/// Seven levels is as deep as namespaces go, so all.
const DEPTH: ParamKind = ParamKind::Integer { min: 0, max: 7 };

/// What PVE reads, and what is shown beside it.
const ROW: Shape = Shape::Object(&[
    Field::new("backup-type", Shape::Enum(&["vm", "ct", "host"]), "Type of the group."),
    Field::new("backup-id", Shape::Text, "Id of the group."),
    Field::new("backup-time", Shape::Integer, "Seconds since the epoch."),
    Field::new("keep", Shape::Boolean, "Whether it stays."),
    Field::new("protected", Shape::Boolean, "Whether it stays because it is protected."),
    Field::optional("ns", Shape::Text, "Namespace; only in a dry run, and not for the root."),
]);

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::POST,
        path: "admin/datastore/{store}/prune",
        access: Access::Group { full: Privileges::DATASTORE_MODIFY, own: Privileges::DATASTORE_PRUNE },
        body: BodyUse::Parameters,
        params: &[
            STORE,
            NS,
            BACKUP_TYPE,
            BACKUP_ID,
            LAST,
            HOURLY,
            DAILY,
            WEEKLY,
            MONTHLY,
            YEARLY,
            ParamSpec::optional("dry-run", ParamKind::Boolean, "Removes nothing, and only says what would stay.")
                .or("false"),
            ParamSpec::optional("use-task", ParamKind::Boolean, "Answers with the UPID of the task at once.")
                .or("false"),
            ParamSpec::optional("max-depth", DEPTH, "Without meaning here: a group lies in one namespace."),
            RATE,
        ],
        returns: Returns::Data(Shape::OneOf(&[Shape::Array(&ROW), Shape::Text])),
        handler: |context, params| Box::pin(group(context, params)),
        about: "Removes the snapshots of a group that no keep option wants; without any option all stay. Oldest first.",
    },
    Route {
        method: Method::POST,
        path: "admin/datastore/{store}/prune-datastore",
        access: Access::Groups { full: Privileges::DATASTORE_MODIFY, own: Privileges::DATASTORE_PRUNE },
        body: BodyUse::Parameters,
        params: &[
            STORE,
            NS,
            LAST,
            HOURLY,
            DAILY,
            WEEKLY,
            MONTHLY,
            YEARLY,
            ParamSpec::optional("dry-run", ParamKind::Boolean, "Removes nothing, and only logs what would stay.")
                .or("false"),
            ParamSpec::optional("max-depth", DEPTH, "How many levels of namespaces below.").or("7"),
            RATE,
        ],
        returns: Returns::UPID,
        handler: |context, params| Box::pin(datastore(context, params)),
        about: "Prunes every group of a namespace and of those below it that the asker may prune.",
    },
];

async fn group(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, group) = (Place::of(&params)?, group_of(&params)?);
    let store = place.open(&context)?;
    let keep = keep_options(&params);
    let dry_run = params.bool("dry-run").unwrap_or(false);
    let use_task = params.bool("use-task").unwrap_or(false);
    let rate = rate_of(&params)?;
    let zone = prune::local_zone(&store).await?;
    let plan = prune::plan_group(&store, &place.ns, &group, &keep, &zone).await?;
    let rows: Vec<Value> = plan.iter().map(|decision| row(decision, dry_run.then_some(&place.ns))).collect();
    if dry_run && !use_task {
        return reply(rows);
    }
    let worker_id = group_worker_id(&place, &group);
    let work = move |task: Arc<Task>| async move {
        let report = prune::prune_group(&store, &place.ns, &group, &keep, &plan, (dry_run, rate), &task).await?;
        report.result().map_err(Error::invalid)
    };
    // In the background in any case: a client that goes away must not leave half of it.
    let started = work::start(&context.app, &context.auth, "prune", worker_id, work).await?;
    if use_task {
        return reply(started.upid.to_string());
    }
    started.outcome().await?;
    reply(rows)
}

async fn datastore(context: RequestContext, params: Params) -> Result<Reply> {
    let place = Place::of(&params)?;
    let store = place.open(&context)?;
    let max_depth = params.uint("max-depth").and_then(|depth| usize::try_from(depth).ok());
    let scope = Scope {
        ns: place.ns,
        max_depth: max_depth.unwrap_or(NAMESPACE_DEPTH_MAX),
        keep: keep_options(&params),
        dry_run: params.bool("dry-run").unwrap_or(false),
        rate: rate_of(&params)?,
    };
    let worker_id = place.store.to_string();
    let (app, auth, name) = (context.app.clone(), context.auth.clone(), place.store);
    let users = app.users.get();
    // As the rights were when it was asked for, namespace by namespace.
    let may = move |ns: &Namespace, owner: &AuthId| {
        let held = users.acl.privileges(&auth, &crate::auth::AclPath::datastore(&name, ns));
        held.has_any(Privileges::DATASTORE_MODIFY) || held.has_any(Privileges::DATASTORE_PRUNE) && auth.owns(owner)
    };
    let work = move |task: Arc<Task>| async move {
        let zone = prune::local_zone(&store).await?;
        let report = prune::prune_datastore(&store, &scope, &zone, may, &task).await?;
        report.result().map_err(Error::invalid)
    };
    let started = work::start(&app, &context.auth, "prune", worker_id, work).await?;
    reply(started.upid.to_string())
}

fn keep_options(params: &Params) -> KeepOptions {
    let count = |name| params.uint(name).unwrap_or(0);
    KeepOptions {
        last: count("keep-last"),
        hourly: count("keep-hourly"),
        daily: count("keep-daily"),
        weekly: count("keep-weekly"),
        monthly: count("keep-monthly"),
        yearly: count("keep-yearly"),
    }
}

/// `store:ns:type/id`; of the root namespace the recorded `store::type/id`.
fn group_worker_id(place: &Place, group: &Group) -> String {
    format!("{}:{}:{group}", place.store, place.ns)
}

fn row(decision: &Decision, ns: Option<&Namespace>) -> Value {
    let Decision { snapshot, mark, keep } = decision;
    let mut row = json!({
        "backup-type": snapshot.group().ty().as_str(),
        "backup-id": snapshot.group().id(),
        "backup-time": snapshot.time(),
        "keep": keep,
        "protected": *mark == prune::Mark::Protected,
    });
    if let Some(ns) = ns.filter(|ns| !ns.is_root()) {
        row["ns"] = json!(ns.to_string());
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_as_described() {
        let decision = |mark, keep| Decision { snapshot: "vm/7/1970-01-01T00:00:09Z".parse().unwrap(), mark, keep };
        let kept = row(&decision(prune::Mark::Protected, true), Some(&Namespace::root()));
        let want = json!({"backup-type": "vm", "backup-id": "7", "backup-time": 9, "keep": true, "protected": true});
        assert_eq!(kept, want);
        let removed = row(&decision(prune::Mark::Remove, false), Some(&"a/b".parse().unwrap()));
        assert_eq!(
            (&removed["keep"], &removed["protected"], &removed["ns"]),
            (&json!(false), &json!(false), &json!("a/b"))
        );
        for row in [kept, removed] {
            ROW.check(&row).unwrap();
        }
    }

    #[test]
    fn worker_ids() {
        let place = |ns: &str| Place { store: "main".parse().unwrap(), ns: ns.parse().unwrap() };
        let group: Group = "host/x".parse().unwrap();
        assert_eq!(group_worker_id(&place(""), &group), "main::host/x");
        assert_eq!(group_worker_id(&place("a/b"), &group), "main:a/b:host/x");
    }
}
