//! `…/gc`: garbage collection, and what the last one found.

use http::Method;
use serde_json::Value;

use super::{Place, RequestContext, STORE, reply};
use crate::auth::Privileges;
use crate::error::Result;
use crate::http::params::Params;
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::jobs::gc;

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
    reply(status)
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
