//! `…/history`: what the jobs of a datastore came to. Not a call of the original.

use http::Method;
use serde_json::{Value, json};

use super::{Place, RequestContext, STORE, reply};
use crate::auth::Privileges;
use crate::error::Result;
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::task::{Run, RunKind};
use crate::types::Upid;

const LIMIT: ParamKind = ParamKind::Integer { min: 0, max: i64::MAX };

/// Runs without a `limit`.
const LIMIT_DEFAULT: usize = 50;

const ROW: Shape = Shape::Object(&[
    Field::new("kind", Shape::Enum(RunKind::WORDS), ""),
    Field::new("upid", Shape::Text, "Its task."),
    Field::new("user", Shape::Text, "Who started it."),
    Field::new("starttime", Shape::Integer, "Seconds since the epoch."),
    Field::new("endtime", Shape::Integer, "Seconds since the epoch."),
    Field::new("duration", Shape::Integer, "Seconds."),
    Field::new("status", Shape::Text, "`OK`, `WARNINGS: n`, or the error."),
    Field::new("figures", Shape::Map(&Shape::Integer), "What it came to; empty if it ended before it knew."),
]);

pub(super) const ROUTES: &[Route] = &[Route {
    method: Method::GET,
    path: "admin/datastore/{store}/history",
    access: Access::Store(Privileges::DATASTORE_AUDIT),
    body: BodyUse::Parameters,
    params: &[
        STORE,
        ParamSpec::optional("kind", ParamKind::List(&ParamKind::Enum(RunKind::WORDS)), "Only runs of these kinds."),
        ParamSpec::optional("limit", LIMIT, "How many; 0 for all that are kept.").or("50"),
    ],
    returns: Returns::Data(Shape::Array(&ROW)),
    handler: |context, params| Box::pin(list(context, params)),
    about: "Past garbage collections, verifications and prunes with their figures, the one that ended last first.",
}];

async fn list(context: RequestContext, params: Params) -> Result<Reply> {
    let place = Place::of(&params)?;
    place.open(&context)?;
    let kinds: Vec<&str> = params.texts("kind").collect();
    let limit = match params.uint("limit").map(usize::try_from) {
        None => LIMIT_DEFAULT,
        Some(Ok(limit @ 1..)) => limit,
        Some(_) => usize::MAX,
    };
    let runs = context.app.tasks.history(&place.store).await?;
    let wanted = runs.iter().rev().filter(|run| kinds.is_empty() || kinds.contains(&run.kind.word()));
    reply(wanted.take(limit).filter_map(row).collect::<Vec<Value>>())
}

/// `None` for a line that somebody else wrote.
fn row(run: &Run) -> Option<Value> {
    let upid: Upid = run.upid.parse().ok()?;
    let figures = run.figures.as_object().into_iter().flatten().filter(|(_, value)| value.is_i64() || value.is_u64());
    let figures: serde_json::Map<String, Value> = figures.map(|(name, value)| (name.clone(), value.clone())).collect();
    Some(json!({
        "kind": run.kind,
        "upid": run.upid,
        "user": upid.auth_id.to_string(),
        "starttime": upid.start,
        "endtime": run.endtime,
        "duration": run.endtime.0.saturating_sub(upid.start.0).max(0),
        "status": run.status,
        "figures": figures,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::EpochSecs;

    #[test]
    fn rows_are_as_described() {
        let upid = "UPID:a:00000001:00000001:00000001:66607C8A:garbage_collection:main:root@pam:".to_owned();
        let figures = json!({ "upid": null, "removed-chunks": 3 });
        let run = Run { kind: RunKind::Gc, upid, endtime: EpochSecs(0x6660_7C8A + 9), status: "OK".into(), figures };
        let told = row(&run).unwrap();
        ROW.check(&told).unwrap();
        assert_eq!((&told["figures"], &told["duration"]), (&json!({ "removed-chunks": 3 }), &json!(9)));
        let cut_off = Run { figures: Value::Null, ..run };
        ROW.check(&row(&cut_off).unwrap()).unwrap();
        assert_eq!(row(&Run { upid: "nonsense".into(), ..cut_off }), None);
    }
}
