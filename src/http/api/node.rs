//! `version` and `ping`.

use http::Method;
use serde_json::json;

use super::{RequestContext, reply};
use crate::error::Result;
use crate::http::params::Params;
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};

/// The version that we say we are: the one whose protocol this is. Clients compare it before they use newer calls, so it is
/// not Ringvault's own; that one is in `repoid`'s place, which has to be a hex string.
const VERSION: &str = "3.2";
const RELEASE: &str = "4";

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "version",
        access: Access::Authenticated,
        body: BodyUse::Parameters,
        params: &[],
        returns: Returns::Data(Shape::Object(&[
            Field::new("version", Shape::Text, "Major and minor number."),
            Field::new("release", Shape::Text, "What comes after them."),
            Field::new("repoid", Shape::Text, "Hex string: Ringvault's own version."),
        ])),
        handler: |context, params| Box::pin(version(context, params)),
        about: "Version of the API.",
    },
    Route {
        method: Method::GET,
        path: "ping",
        access: Access::Anybody,
        body: BodyUse::Parameters,
        params: &[],
        returns: Returns::Data(Shape::Object(&[Field::new("pong", Shape::Boolean, "True.")])),
        handler: |context, params| Box::pin(ping(context, params)),
        about: "Says that the server is there.",
    },
];

async fn version(_: RequestContext, _: Params) -> Result<Reply> {
    reply(json!({ "version": VERSION, "release": RELEASE, "repoid": hex::encode(env!("CARGO_PKG_VERSION")) }))
}

async fn ping(_: RequestContext, _: Params) -> Result<Reply> {
    reply(json!({ "pong": true }))
}
