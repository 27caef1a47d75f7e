//! `…/gc`: garbage collection, and what the last one found.

use http::Method;
use serde_json::Value;

use super::job_status::add_collection_runs;
use super::{Place, RequestContext, STORE, reply};
use crate::auth::Privileges;
use crate::error::Result;
use crate::http::params::Params;
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::http::scheduled;
use crate::jobs::state::JobKey;

const PATH: &str = "admin/datastore/{store}/gc";

/// Spec 05 §4 and 01 §8.
const STATUS: Shape = Shape::Object(&[
    Field::new("store", Shape::Text, "Name of the datastore."),
    Field::optional("upid", Shape::Nullable(&Shape::Text), "The task that collected last."),
    Field::new("index-file-count", Shape::Integer, "Index files."),
    Field::new("index-data-bytes", Shape::Integer, "Bytes that they describe."),
    Field::new("disk-bytes", Shape::Integer, "Bytes of the chunks in use; on large datastores an estimate."),
    Field::new("disk-chunks", Shape::Integer, "Chunks in use."),
    Field::new("removed-bytes", Shape::Integer, "Bytes that the run freed."),
    Field::new("removed-chunks", Shape::Integer, "Chunks that it removed."),
    Field::new("pending-bytes", Shape::Integer, "Bytes of unused chunks that are too young to go."),
    Field::new("pending-chunks", Shape::Integer, "Unused chunks that are too young to go."),
    Field::new("removed-bad", Shape::Integer, "Corrupt chunk files that it removed."),
    Field::optional("schedule", Shape::Text, "Calendar event."),
    Field::optional("next-run", Shape::Integer, "Seconds since the epoch."),
    Field::optional("last-run-upid", Shape::Text, "Task of the last run, finished or not."),
    Field::optional("last-run-endtime", Shape::Integer, "Absent while it runs."),
    Field::optional("last-run-state", Shape::Text, "`OK`, `WARNINGS: n`, `unknown`, or the error."),
    Field::optional("duration", Shape::Integer, "Seconds that the last run took."),
    Field::new("still-bad", Shape::Integer, "Corrupt chunk files that are too young to go."),
]);

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: PATH,
        access: Access::Store(Privileges::DATASTORE_AUDIT),
        body: BodyUse::Parameters,
        params: &[STORE],
        returns: Returns::Data(STATUS),
        handler: |context, params| Box::pin(status(context, params)),
        about: "What the last garbage collection found.",
    },
    Route {
        method: Method::POST,
        path: PATH,
        access: Access::Store(Privileges::DATASTORE_MODIFY),
        body: BodyUse::Parameters,
        params: &[STORE],
        returns: Returns::Data(Shape::Text),
        handler: |context, params| Box::pin(start(context, params)),
        about: "Starts a garbage collection and answers its task.",
    },
];

async fn status(context: RequestContext, params: Params) -> Result<Reply> {
    let place = Place::of(&params)?;
    let mut status = place.open(&context)?.gc_status().await?;
    status["store"] = Value::from(place.store.as_str());
    let zone = scheduled::local_zone(&context.app).await;
    add_collection_runs(&mut status, &context.app, &place.store, &zone);
    reply(status)
}

async fn start(context: RequestContext, params: Params) -> Result<Reply> {
    let place = Place::of(&params)?;
    // As the schedule starts it, so that both know of each other.
    let upid = scheduled::start(&context.app, &JobKey::Gc(place.store), &context.auth).await?;
    reply(upid.to_string())
}
