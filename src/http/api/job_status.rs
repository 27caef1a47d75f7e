//! `admin/prune`, `admin/verify` and `admin/gc`: when jobs ran, how that went, when they run next; and how to start one.

use http::Method;
use jiff::tz::TimeZone;
use serde_json::{Value, json};

use super::gc::collection_fields;
use super::jobs::{
    CHANGE_PRUNE, CHANGE_VERIFY, ID, Kind, LIST_PRUNE, LIST_VERIFY, job_fields, prune_job_fields, verify_job_fields,
};
use super::{RequestContext, reply};
use crate::auth::Privileges;
use crate::error::Result;
use crate::http::App;
use crate::http::listed::{About, Own, RowFilter};
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::rights::Where;
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::http::scheduled;
use crate::jobs::due::{Planned, next_run, planned};
use crate::jobs::state::{JobKey, JobState};
use crate::task::TaskState;
use crate::types::{DatastoreName, Upid};

const STORE: ParamSpec = ParamSpec::optional("store", ParamKind::DATASTORE, "Only jobs of this datastore.");

pub(super) const SCHEDULE: Field = Field::optional("schedule", Shape::Text, "Calendar event.");
pub(super) const NEXT: Field = Field::optional("next-run", Shape::Integer, "Seconds since the epoch.");
pub(super) const UPID: Field = Field::optional("last-run-upid", Shape::Text, "Task of the last run, finished or not.");
pub(super) const END: Field = Field::optional("last-run-endtime", Shape::Integer, "Absent while it runs.");
pub(super) const STATE: Field =
    Field::optional("last-run-state", Shape::Text, "`OK`, `WARNINGS: n`, `unknown`, or the error.");

const PRUNE: Shape = Shape::Object(prune_job_fields![NEXT, UPID, END, STATE]);

const VERIFY: Shape = Shape::Object(verify_job_fields![NEXT, UPID, END, STATE]);

const GC_SEEN: RowFilter = RowFilter {
    grants: &[(Privileges::DATASTORE_AUDIT, Where::EachDatastore)],
    own: Own::Nothing,
    is_refused_if_empty: false,
};

/// What the last collection found is absent while the datastore cannot be read.
const GC: Shape = Shape::Object(collection_fields!(Field::optional));

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "admin/prune",
        access: LIST_PRUNE,
        body: BodyUse::Parameters,
        params: &[STORE],
        returns: Returns::Data(Shape::Array(&PRUNE)),
        handler: |context, params| Box::pin(list(context, params, Kind::Prune)),
        about: "Prune jobs with their runs.",
    },
    Route {
        method: Method::GET,
        path: "admin/verify",
        access: LIST_VERIFY,
        body: BodyUse::Parameters,
        params: &[STORE],
        returns: Returns::Data(Shape::Array(&VERIFY)),
        handler: |context, params| Box::pin(list(context, params, Kind::Verify)),
        about: "Verify jobs with their runs.",
    },
    Route {
        method: Method::GET,
        path: "admin/gc",
        access: Access::Listed(GC_SEEN),
        body: BodyUse::Parameters,
        params: &[STORE],
        returns: Returns::Data(Shape::Array(&GC)),
        handler: |context, params| Box::pin(collections(context, params)),
        about: "Garbage collections of the datastores, with their runs.",
    },
    Route {
        method: Method::POST,
        path: "admin/prune/{id}/run",
        access: CHANGE_PRUNE,
        body: BodyUse::Parameters,
        params: &[ID],
        returns: Returns::UPID,
        handler: |context, params| Box::pin(run(context, params, Kind::Prune)),
        about: "Starts a prune job now.",
    },
    Route {
        method: Method::POST,
        path: "admin/verify/{id}/run",
        access: CHANGE_VERIFY,
        body: BodyUse::Parameters,
        params: &[ID],
        returns: Returns::UPID,
        handler: |context, params| Box::pin(run(context, params, Kind::Verify)),
        about: "Starts a verify job now.",
    },
];

async fn list(context: RequestContext, params: Params, kind: Kind) -> Result<Reply> {
    let loaded = context.app.config.get();
    let zone = scheduled::local_zone(&context.app).await;
    let plan = planned(&loaded.config);
    let wanted = params.parsed_opt::<DatastoreName>("store")?;
    let mut rows = Vec::new();
    for (job, mut row) in kind.visible(&context, &loaded) {
        if wanted.as_ref().is_none_or(|store| *store == job.store) {
            add_runs(&mut row, &context.app, &kind.key(&job.id), &plan, &zone);
            rows.push(row);
        }
    }
    reply(rows)
}

async fn collections(context: RequestContext, params: Params) -> Result<Reply> {
    let loaded = context.app.config.get();
    let zone = scheduled::local_zone(&context.app).await;
    let wanted = params.parsed_opt::<DatastoreName>("store")?;
    let mut rows = Vec::new();
    for section in &loaded.config.datastores {
        let is_seen = GC_SEEN.shows(&context, About::Datastore(&section.name));
        if is_seen && wanted.as_ref().is_none_or(|store| *store == section.name) {
            let mut row = last_collection(&context.app, &section.name).await.unwrap_or_else(|error| {
                // One datastore that is away does not hide the others.
                tracing::debug!(store = %section.name, %error, "the last collection's numbers are not to be had");
                json!({})
            });
            row["store"] = json!(section.name.as_str());
            add_collection_runs(&mut row, &context.app, &section.name, &zone);
            rows.push(row);
        }
    }
    reply(rows)
}

/// What the last collection of a datastore left behind.
async fn last_collection(app: &App, store: &DatastoreName) -> Result<Value> {
    app.datastore(store)?.gc_status().await
}

async fn run(context: RequestContext, params: Params, kind: Kind) -> Result<Reply> {
    let id = params.text("id").unwrap_or_default();
    kind.changeable(&context, &context.app.config.get(), id)?;
    let upid = scheduled::start(&context.app, &kind.key(id), &context.auth).await?;
    reply(upid.to_string())
}

/// The garbage collection of a datastore: its schedule, and what [`add_runs`] adds.
pub(super) fn add_collection_runs(row: &mut Value, app: &App, store: &DatastoreName, zone: &TimeZone) {
    let loaded = app.config.get();
    let plan = planned(&loaded.config);
    let key = JobKey::Gc(store.clone());
    if let Some(text) = plan.iter().find(|job| job.key == key).and_then(|job| job.text) {
        row["schedule"] = json!(text);
    }
    add_runs(row, app, &key, &plan, zone);
    let begun = row["last-run-upid"].as_str().and_then(|upid| upid.parse::<Upid>().ok()).map(|upid| upid.start);
    if let (Some(begun), Some(end)) = (begun, row["last-run-endtime"].as_i64()) {
        row["duration"] = json!((end - begun.0).max(0));
    }
}

/// When it ran, how that went, and when it runs next.
fn add_runs(row: &mut Value, app: &App, key: &JobKey, plan: &[Planned<'_>], zone: &TimeZone) {
    let state = app.jobs.get(key);
    // A job that was not seen by the scheduler yet counts from now.
    let counted = state.clone().unwrap_or(JobState::Created { time: app.clock.now() });
    let schedule = plan.iter().find(|job| job.key == *key).and_then(|job| job.schedule);
    if let Some(next) = schedule.and_then(|schedule| next_run(schedule, &counted, zone)) {
        row["next-run"] = json!(next);
    }
    match state {
        Some(JobState::Started { upid, .. }) => {
            let known = upid.parse::<Upid>().ok().and_then(|upid| app.tasks.state(&upid));
            match known {
                Some(TaskState::Ended(end, status)) => {
                    row["last-run-endtime"] = json!(end);
                    row["last-run-state"] = json!(status.to_string());
                }
                Some(TaskState::Running) => {}
                None => row["last-run-state"] = json!("unknown"),
            }
            row["last-run-upid"] = json!(upid);
        }
        Some(JobState::Finished { upid, endtime, status, .. }) => {
            row["last-run-upid"] = json!(upid);
            row["last-run-endtime"] = json!(endtime);
            row["last-run-state"] = json!(status);
        }
        Some(JobState::Created { .. }) | None => {}
    }
}
