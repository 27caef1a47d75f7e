//! `…/gc`: garbage collection, and what the last one found.

use http::Method;
use serde_json::Value;

use super::job_status::add_collection_runs;
use super::{Place, RATE, RequestContext, STORE, rate_of, reply};
use crate::auth::Privileges;
use crate::error::Result;
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::http::scheduled;
use crate::jobs::gc::Manner;

const PATH: &str = "admin/datastore/{store}/gc";

/// What is told of the collections of a datastore (spec 05 §4 and 01 §8); `$found` says whether what the last one found is always there.
macro_rules! collection_fields {
    ($found:path) => {
        &[
            Field::new("store", Shape::Text, "Name of the datastore."),
            Field::optional("upid", Shape::Nullable(&Shape::Text), "The task that collected last."),
            $found("index-file-count", Shape::Integer, "Index files."),
            $found("index-data-bytes", Shape::Integer, "Bytes that they describe."),
            $found("disk-bytes", Shape::Integer, "Bytes of the chunks in use; on large datastores an estimate."),
            $found("disk-chunks", Shape::Integer, "Chunks in use."),
            $found("removed-bytes", Shape::Integer, "Bytes that the run freed."),
            $found("removed-chunks", Shape::Integer, "Chunks that it removed."),
            $found("pending-bytes", Shape::Integer, "Bytes of unused chunks that are too young to go."),
            $found("pending-chunks", Shape::Integer, "Unused chunks that are too young to go."),
            $found("removed-bad", Shape::Integer, "Corrupt chunk files that it removed."),
            $found("still-bad", Shape::Integer, "Corrupt chunk files that are too young to go."),
            $crate::http::api::job_status::SCHEDULE,
            $crate::http::api::job_status::NEXT,
            $crate::http::api::job_status::UPID,
            $crate::http::api::job_status::END,
            $crate::http::api::job_status::STATE,
            Field::optional("duration", Shape::Integer, "Seconds that the last run took."),
        ]
    };
}
pub(super) use collection_fields;

const STATUS: Shape = Shape::Object(collection_fields!(Field::new));

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
        params: &[
            STORE,
            ParamSpec::optional(
                "fresh",
                ParamKind::Boolean,
                "Read and sweep all directories, even those that have not changed since the last run, or that a run had swept which was cut off.",
            ),
            RATE,
        ],
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
    let manner = if params.bool("fresh").unwrap_or(false) { Manner::Fresh } else { Manner::Resume };
    // As the schedule starts it, so that both know of each other.
    let upid =
        scheduled::start_gc_by_hand(&context.app, place.store, (manner, rate_of(&params)?), &context.auth).await?;
    reply(upid.to_string())
}
