//! `…/gc`: garbage collection, and what the last one found.

use http::Method;
use serde_json::Value;

use super::{Place, RequestContext, STORE, reply};
use crate::auth::Privileges;
use crate::clock::EpochSecs;
use crate::error::Result;
use crate::http::params::Params;
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::jobs::gc;
use crate::task::{Listed, Registry, TaskStatus};

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
    Field::new("still-bad", Shape::Integer, "Corrupt chunk files that are too young to go."),
    Field::optional("last-run-endtime", Shape::Integer, "When the last run ended, complete or not."),
    Field::optional("last-run-state", Shape::Text, "How it ended."),
    Field::optional("duration", Shape::Integer, "How many seconds it took."),
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
    if let Some((began, ended, result)) = last_run(&context.app.tasks, place.store.as_str()).await {
        status["last-run-endtime"] = Value::from(ended.0);
        status["last-run-state"] = Value::from(result.to_string());
        status["duration"] = Value::from(ended.0.saturating_sub(began.0).max(0));
    }
    reply(status)
}

/// Begin, end and result of the garbage collection of a datastore that ended last.
async fn last_run(tasks: &Registry, store: &str) -> Option<(EpochSecs, EpochSecs, TaskStatus)> {
    let mut walk = tasks.walk();
    while let Some(batch) = walk.batch() {
        let ours =
            |task: &Listed| task.upid.worker_type == gc::WORKER_TYPE && task.upid.worker_id.as_deref() == Some(store);
        let ended = |task: Listed| Some((task.upid.start, task.ended?));
        if let Some((began, (end, result))) = batch.into_iter().filter(ours).find_map(ended) {
            return Some((began, end, result));
        }
        // Twenty thousand tasks are some milliseconds.
        tokio::task::yield_now().await;
    }
    None
}

async fn start(context: RequestContext, params: Params) -> Result<Reply> {
    let store = Place::of(&params)?.open(&context)?;
    // The daemon waits for the guard before it ends, and a collection ends as soon as it is asked to.
    let lifecycle = context.app.lifecycle.clone();
    let guard = lifecycle.enter()?;
    let closing = async move { lifecycle.draining().await };
    let upid = gc::start(store, &context.app.tasks, &context.auth, closing, guard).await?;
    reply(upid.to_string())
}
