//! `nodes/{node}/tasks`: what runs and ran, its logs, and how to stop it (spec 05 §6).

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use http_body::Frame;
use http_body_util::BodyExt;
use serde::Serialize;
use serde_json::{Value, json};

use super::{RequestContext, reply};
use crate::auth::{AclPath, Privileges};
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::http::listed::{About, Own, RowFilter};
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::reply::{Format, Response, set_header, with_body};
use crate::http::rights::{HandlerRule, Ownership, Where};
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::http::rows::Rows;
use crate::task::{Download, Filter, Listed, StatusClass, TaskState};
use crate::types::Upid;

pub(super) const NODE: ParamSpec = ParamSpec::required(
    "node",
    ParamKind::Text {
        pattern: r"^[^/\x00-\x1f\x7f-\x9f]*$",
        min: 1,
        max: 255,
        matches: |text| !text.chars().any(|c| c == '/' || c.is_control()),
    },
    "Any name: there is one node.",
);

const UPID: ParamSpec = ParamSpec::required("upid", ParamKind::UPID, "Name of the task.");

/// Whoever may see a task: also those who may give such work to the datastore themselves.
const SEEN: RowFilter = RowFilter {
    grants: &[
        (Privileges::SYS_AUDIT, Where::At("/system/tasks")),
        (Privileges::DATASTORE_MODIFY, Where::TaskDatastore(&["garbage_collection", "prunejob"])),
        (Privileges::DATASTORE_VERIFY, Where::TaskDatastore(&["verificationjob"])),
    ],
    own: Own::Tasks,
    is_refused_if_empty: false,
};

const MAY_SEE: Access = Access::Handler(HandlerRule {
    grants: SEEN.grants,
    groups: Ownership::Any,
    also: "who started the task, or the user of the token that did",
});

const MAY_STOP: Access = Access::Handler(HandlerRule {
    grants: &[(Privileges::SYS_MODIFY, Where::At("/system/tasks"))],
    groups: Ownership::Any,
    also: "who started the task, or the user of the token that did",
});

const ITEM: Shape = Shape::Object(&[
    Field::new("upid", Shape::Text, "Its name."),
    Field::new("node", Shape::Text, ""),
    Field::new("pid", Shape::Integer, "Of the daemon."),
    Field::new("pstart", Shape::Integer, "When the daemon began, in ticks since boot."),
    Field::new("starttime", Shape::Integer, "Seconds since the epoch."),
    Field::new("worker_type", Shape::Text, ""),
    Field::new("worker_id", Shape::Nullable(&Shape::Text), "What it works on."),
    Field::new("user", Shape::Text, "Who started it."),
    Field::optional("endtime", Shape::Integer, "Absent while it runs."),
    Field::optional("status", Shape::Text, "`OK`, `WARNINGS: n`, `unknown`, or the error; absent while it runs."),
]);

const STATE: Shape = Shape::Object(&[
    Field::new("upid", Shape::Text, "Its name."),
    Field::new("node", Shape::Text, ""),
    Field::new("pid", Shape::Integer, "Of the daemon."),
    Field::new("pstart", Shape::Integer, "When the daemon began, in ticks since boot."),
    Field::new("starttime", Shape::Integer, "Seconds since the epoch."),
    Field::new("type", Shape::Text, ""),
    Field::new("id", Shape::Nullable(&Shape::Text), "What it works on."),
    Field::new("user", Shape::Text, "Who started it, the token's name left out."),
    Field::optional("tokenid", Shape::Text, "The token's name."),
    Field::new("status", Shape::Enum(&["running", "stopped"]), ""),
    Field::optional("exitstatus", Shape::Text, "As `status` of the list; absent while it runs."),
]);

const LINES: Shape = Shape::Object(&[
    Field::new(
        "data",
        Shape::Array(&Shape::Object(&[
            Field::new("n", Shape::Integer, "Its number; the first is 1."),
            Field::new("t", Shape::Text, "The line."),
        ])),
        "",
    ),
    Field::new("total", Shape::Integer, "Lines of the log so far."),
    Field::new("success", Shape::Integer, "1"),
    Field::optional("active", Shape::Boolean, "Whether the task ran before the log was read; with `test-status`."),
]);

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "nodes/{node}/tasks",
        access: Access::Listed(SEEN),
        body: BodyUse::Parameters,
        params: &[
            NODE,
            ParamSpec::optional("start", NUMBER, "How many of the tasks that match are skipped.").or("0"),
            ParamSpec::optional("limit", NUMBER, "How many are listed; 0 for all.").or("50"),
            ParamSpec::optional("running", ParamKind::Boolean, "Only those that run.").or("false"),
            ParamSpec::optional("errors", ParamKind::Boolean, "Only those that failed or whose end is unknown.")
                .or("false"),
            ParamSpec::optional("userfilter", ParamKind::ANY_TEXT, "A part of who started it."),
            ParamSpec::optional("store", ParamKind::DATASTORE, "Only those that work on this datastore."),
            ParamSpec::optional("since", TIME, "Only those that began at or after this time."),
            ParamSpec::optional("until", TIME, "Only those that began at or before this time."),
            ParamSpec::optional("typefilter", ParamKind::ANY_TEXT, "A part of the type."),
            ParamSpec::optional(
                "statusfilter",
                ParamKind::List(&ParamKind::Enum(StatusClass::WORDS)),
                "Only those that ended in one of these ways.",
            ),
        ],
        returns: Returns::With(
            Shape::Array(&ITEM),
            &[Field::new(
                "total",
                Shape::Integer,
                "What matches up to the end of the page, and one more if it is full.",
            )],
        ),
        handler: |context, params| Box::pin(list(context, params)),
        about: "Tasks: running ones, then the one that ended last.",
    },
    Route {
        method: Method::GET,
        path: "nodes/{node}/tasks/{upid}/log",
        access: MAY_SEE,
        body: BodyUse::Raw,
        params: &[
            NODE,
            UPID,
            ParamSpec::optional("start", NUMBER, "Number of the first line, which is 1 for the log's first.").or("0"),
            ParamSpec::optional("limit", NUMBER, "How many lines; 0 for all.").or("50"),
            ParamSpec::optional("test-status", ParamKind::Boolean, "Also tell whether the task runs.").or("false"),
            ParamSpec::optional("download", ParamKind::Boolean, "The whole log as a text file.").or("false"),
        ],
        returns: Returns::OwnOr(LINES, "text/plain"),
        handler: |context, params| Box::pin(log(context, params)),
        about: "Lines of a task's log.",
    },
    Route {
        method: Method::GET,
        path: "nodes/{node}/tasks/{upid}/status",
        access: MAY_SEE,
        body: BodyUse::Parameters,
        params: &[NODE, UPID],
        returns: Returns::Data(STATE),
        handler: |context, params| Box::pin(status(context, params)),
        about: "Whether a task runs, or how it ended.",
    },
    Route {
        method: Method::DELETE,
        path: "nodes/{node}/tasks/{upid}",
        access: MAY_STOP,
        body: BodyUse::Parameters,
        params: &[NODE, UPID],
        returns: Returns::NULL,
        handler: |context, params| Box::pin(stop(context, params)),
        about: "Asks a task to stop. One that has ended is left as it is.",
    },
];

const NUMBER: ParamKind = ParamKind::Integer { min: 0, max: i64::MAX };

const TIME: ParamKind = ParamKind::Integer { min: i64::MIN, max: i64::MAX };

/// What a page shows without a `limit`.
const LIMIT_DEFAULT: u64 = 50;

/// The asker's word about how many, as a number that can be counted down.
fn limit(params: &Params) -> u64 {
    match params.uint("limit") {
        None => LIMIT_DEFAULT,
        Some(0) => u64::MAX,
        Some(count) => count,
    }
}

async fn list(context: RequestContext, params: Params) -> Result<Reply> {
    let text = |name: &str| params.text(name).map(ToOwned::to_owned);
    let filter = Filter {
        running: params.bool("running") == Some(true),
        errors: params.bool("errors") == Some(true),
        user: text("userfilter"),
        worker_type: text("typefilter"),
        store: text("store"),
        since: params.int("since").map(EpochSecs),
        until: params.int("until").map(EpochSecs),
        statuses: params.texts("statusfilter").filter_map(StatusClass::from_word).collect(),
    };
    let (start, limit) = (params.uint("start").unwrap_or(0), limit(&params));
    let walk = context.app.tasks.walk();
    let mut walk = if filter.running { walk.only_running() } else { walk };
    Ok(Reply::Rows(Rows::new(|mut rows| async move {
        let (mut matching, mut shown) = (0_u64, 0_u64);
        'page: while let Some(batch) = walk.batch() {
            for task in batch.iter().filter(|task| filter.admits(task) && may_see(&context, &task.upid)) {
                matching += 1;
                if matching <= start {
                    continue;
                }
                rows.send(&Item::of(task)).await?;
                shown += 1;
                if shown == limit {
                    break 'page;
                }
            }
            // A search through many tasks takes milliseconds: others get their turn.
            tokio::task::yield_now().await;
        }
        // Recorded: not how many there are, which would have to be counted, but whether there may be more.
        rows.attribute("total", (matching + u64::from(shown == limit)).into());
        Ok(rows)
    })))
}

/// One row of the list.
#[derive(Serialize)]
struct Item<'a> {
    upid: String,
    node: &'static str,
    pid: u32,
    pstart: u64,
    starttime: EpochSecs,
    worker_type: &'a str,
    worker_id: Option<&'a str>,
    user: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    endtime: Option<EpochSecs>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<String>,
}

impl<'a> Item<'a> {
    fn of(task: &'a Listed) -> Self {
        let upid = &task.upid;
        Self {
            upid: upid.to_string(),
            node: "localhost",
            pid: upid.pid,
            pstart: upid.pstart,
            starttime: upid.start,
            worker_type: &upid.worker_type,
            worker_id: upid.worker_id.as_deref(),
            user: upid.auth_id.to_string(),
            endtime: task.ended.as_ref().map(|(end, _)| *end),
            status: task.ended.as_ref().map(|(_, status)| status.to_string()),
        }
    }
}

async fn log(context: RequestContext, params: Params) -> Result<Reply> {
    let upid = visible(&context, &params)?;
    let log = context.app.tasks.log(&upid).await?;
    if params.bool("download") == Some(true) {
        return download(&upid, log.download()).map(Reply::Raw);
    }
    let (total, active) = (log.lines(), log.is_active());
    let mut page = log.page(params.uint("start").unwrap_or(0), limit(&params));
    let rows = Rows::new(|mut rows| async move {
        while let Some(lines) = page.next().await? {
            for (n, t) in lines {
                rows.send(&Line { n, t: &t }).await?;
            }
        }
        Ok(rows)
    });
    let rows = rows.with("total", total.into()).with("success", 1.into());
    let rows = if params.bool("test-status") == Some(true) { rows.with("active", active.into()) } else { rows };
    // One dress for both formats, and without the character set: recorded.
    let mut response = rows.into_response(Format::Json).await?;
    set_header(&mut response, header::CONTENT_TYPE, "application/json");
    Ok(Reply::Raw(response))
}

#[derive(Serialize)]
struct Line<'a> {
    n: u64,
    t: &'a str,
}

/// The log as a file; its name says what it is the log of, in characters that need no quoting anywhere.
fn download(upid: &Upid, log: Download) -> Result<Response> {
    let plain = |text: &str| text.replace(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-', "-");
    let start = upid.start.to_utc_name().unwrap_or_default();
    let name = format!("attachment; filename=\"task-{}-{}.log\"", plain(&upid.worker_type), plain(&start));
    let name = HeaderValue::try_from(name).map_err(|e| Error::invalid(format!("no file name of {upid} - {e}")))?;
    let mut response = with_body(StatusCode::OK, Some("text/plain"), LogBody::of(log).boxed_unsync());
    response.headers_mut().insert(header::CONTENT_DISPOSITION, name);
    Ok(response)
}

type Block = Pin<Box<dyn Future<Output = (Result<Option<Bytes>>, Download)> + Send>>;

/// A log on its way, a block at a time. One that cannot be read any more cuts the body off.
struct LogBody {
    block: Option<Block>,
}

impl LogBody {
    fn of(mut log: Download) -> Self {
        Self { block: Some(Box::pin(async move { (log.next().await, log) })) }
    }
}

impl http_body::Body for LogBody {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>>>> {
        let Some(block) = self.block.as_mut() else { return Poll::Ready(None) };
        let (read, log) = ready!(block.as_mut().poll(cx));
        *self = match &read {
            Ok(Some(_)) => Self::of(log),
            Ok(None) | Err(_) => Self { block: None },
        };
        Poll::Ready(read.map(|block| block.map(Frame::data)).transpose())
    }
}

async fn status(context: RequestContext, params: Params) -> Result<Reply> {
    let upid = visible(&context, &params)?;
    let mut shown = json!({
        "upid": upid.to_string(),
        "node": upid.node,
        "pid": upid.pid,
        "pstart": upid.pstart,
        "starttime": upid.start,
        "type": upid.worker_type,
        "id": upid.worker_id,
        "user": upid.auth_id.user().as_str(),
    });
    if let Some(token) = upid.auth_id.token() {
        shown["tokenid"] = json!(token);
    }
    match context.app.tasks.state(&upid).ok_or_else(|| unknown(&upid))? {
        TaskState::Running => shown["status"] = json!("running"),
        TaskState::Ended(_, result) => {
            shown["status"] = json!("stopped");
            shown["exitstatus"] = json!(result.to_string());
        }
    }
    reply(shown)
}

async fn stop(context: RequestContext, params: Params) -> Result<Reply> {
    let upid: Upid = params.parsed("upid")?;
    let may = context.auth.owns(&upid.auth_id)
        || context.privileges(&AclPath::system_tasks()).has_any(Privileges::SYS_MODIFY);
    if !may {
        return Err(Error::denied("permission check failed"));
    }
    let tasks = &context.app.tasks;
    if tasks.abort(&upid) {
        tracing::info!(%upid, by = %context.auth, "task asked to stop");
    } else if tasks.state(&upid).is_none() {
        return Err(unknown(&upid));
    }
    reply(Value::Null)
}

fn unknown(upid: &Upid) -> Error {
    Error::invalid(format!("no such task '{upid}'"))
}

/// The task that is asked for, if the asker may see it. Whether there is one is not told to others.
fn visible(context: &RequestContext, params: &Params) -> Result<Upid> {
    let upid = params.parsed("upid")?;
    if may_see(context, &upid) { Ok(upid) } else { Err(Error::invalid("task access not allowed")) }
}

fn may_see(context: &RequestContext, upid: &Upid) -> bool {
    SEEN.shows(context, About::Task(upid))
}
