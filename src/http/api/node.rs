//! `version`, `ping`, and what the one node says of itself: `nodes`, `nodes/{node}/status`, `…/subscription`, `…/identity`.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::tasks::NODE;
use super::{RequestContext, reply};
use crate::auth::Privileges;
use crate::error::{Error, Kind, Result};
use crate::http::host::{CpuTicks, Host, instance_id};
use crate::http::params::Params;
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};

/// The version that we say we are: the one whose protocol this is. Clients compare it before they use newer calls, so it is
/// not Ringvault's own; that one is in `repoid`'s place, which has to be a hex string.
const VERSION: &str = "3.2";
const RELEASE: &str = "4";

/// How long processors are watched for `cpu` and `wait`: long enough for 100 ticks a second to say something.
const CPU_SAMPLE: Duration = Duration::from_millis(200);

const MEMORY: Shape = Shape::Object(&[
    Field::new("total", Shape::Integer, "Bytes."),
    Field::new("used", Shape::Integer, "Bytes."),
    Field::new("free", Shape::Integer, "Bytes; what the kernel gives back at once counts as free."),
]);

const STATUS: Shape = Shape::Object(&[
    Field::new("cpu", Shape::Number, "Part of the time that processors work, 0 to 1, over the last moment."),
    Field::new("wait", Shape::Number, "Part of the time that they wait for disks."),
    Field::new("loadavg", Shape::Array(&Shape::Number), "Over 1, 5 and 15 minutes."),
    Field::new("memory", MEMORY, ""),
    Field::new("swap", MEMORY, ""),
    Field::new(
        "root",
        Shape::Object(&[
            Field::new("total", Shape::Integer, "Bytes."),
            Field::new("used", Shape::Integer, "Bytes."),
            Field::new("avail", Shape::Integer, "Bytes for ordinary users."),
        ]),
        "The root file system.",
    ),
    Field::new("uptime", Shape::Integer, "Seconds since the machine started."),
    Field::new("kversion", Shape::Text, "Kernel, in one line."),
    Field::new(
        "current-kernel",
        Shape::Object(&[
            Field::new("sysname", Shape::Text, ""),
            Field::new("release", Shape::Text, ""),
            Field::new("version", Shape::Text, ""),
            Field::new("machine", Shape::Text, ""),
        ]),
        "Kernel, in its parts.",
    ),
    Field::new(
        "boot-info",
        Shape::Object(&[Field::new("mode", Shape::Enum(&["efi", "legacy-bios"]), "By which firmware.")]),
        "How the machine started.",
    ),
    Field::new(
        "cpuinfo",
        Shape::Object(&[
            Field::new("model", Shape::Text, ""),
            Field::new("sockets", Shape::Integer, ""),
            Field::new("cpus", Shape::Integer, ""),
        ]),
        "Processors.",
    ),
    Field::new("info", Shape::Object(&[Field::new("fingerprint", Shape::Text, "Of the certificate.")]), ""),
]);

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
    Route {
        method: Method::GET,
        path: "nodes",
        access: Access::Authenticated,
        body: BodyUse::Parameters,
        params: &[],
        returns: Returns::Data(Shape::Array(&Shape::Object(&[Field::new("node", Shape::Text, "`localhost`.")]))),
        handler: |context, params| Box::pin(nodes(context, params)),
        about: "Nodes, of which there is one.",
    },
    Route {
        method: Method::GET,
        path: "nodes/{node}/status",
        access: Access::At("/system/status", Privileges::SYS_AUDIT),
        body: BodyUse::Parameters,
        params: &[NODE],
        returns: Returns::Data(STATUS),
        handler: |context, params| Box::pin(status(context, params)),
        about: "Load of the machine.",
    },
    Route {
        method: Method::GET,
        path: "nodes/{node}/subscription",
        access: Access::Authenticated,
        body: BodyUse::Parameters,
        params: &[NODE],
        returns: Returns::Data(Shape::Object(&[
            Field::new("status", Shape::Enum(&["notfound"]), "There is nothing to subscribe to."),
            Field::new("message", Shape::Text, "The same in words."),
            Field::optional("serverid", Shape::Text, "Id of this machine, if it has one."),
        ])),
        handler: |context, params| Box::pin(subscription(context, params)),
        about: "Says that there is no subscription.",
    },
    Route {
        method: Method::GET,
        path: "nodes/{node}/identity",
        access: Access::Authenticated,
        body: BodyUse::Parameters,
        params: &[NODE],
        returns: Returns::Data(Shape::Object(&[Field::new(
            "pbs-instance-id",
            Shape::Text,
            "Stays as long as the machine id does, and does not tell it.",
        )])),
        handler: |context, params| Box::pin(identity(context, params)),
        about: "Id of this machine.",
    },
];

async fn version(_: RequestContext, _: Params) -> Result<Reply> {
    reply(json!({ "version": VERSION, "release": RELEASE, "repoid": hex::encode(env!("CARGO_PKG_VERSION")) }))
}

async fn ping(_: RequestContext, _: Params) -> Result<Reply> {
    reply(json!({ "pong": true }))
}

async fn nodes(_: RequestContext, _: Params) -> Result<Reply> {
    reply(json!([{ "node": "localhost" }]))
}

async fn status(context: RequestContext, _: Params) -> Result<Reply> {
    let compute = &context.app.compute;
    let before = compute.run(CpuTicks::read).await??;
    tokio::time::sleep(CPU_SAMPLE).await;
    let (after, host) = compute.run(|| (CpuTicks::read(), Host::look())).await?;
    let (cpu, wait) = after?.since(before);
    let mut status = serde_json::to_value(host?)
        .map_err(|e| Error::new(Kind::Io, "the status cannot be written as JSON").with_source(e))?;
    status["cpu"] = cpu.into();
    status["wait"] = wait.into();
    status["info"] = json!({ "fingerprint": context.app.tls.get().fingerprint() });
    reply(status)
}

async fn subscription(context: RequestContext, _: Params) -> Result<Reply> {
    let mut answer = json!({ "status": "notfound", "message": "there is no subscription key" });
    if let Ok(id) = context.app.compute.run(instance_id).await? {
        answer["serverid"] = id.into();
    }
    reply(answer)
}

async fn identity(context: RequestContext, _: Params) -> Result<Reply> {
    reply(json!({ "pbs-instance-id": context.app.compute.run(instance_id).await?? }))
}
