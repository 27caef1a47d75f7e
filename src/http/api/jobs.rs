//! `config/prune` and `config/verify`: jobs of the configuration (spec 05 §5, 07 §5).

use http::Method;
use serde_json::{Map, Value, json};

use super::keep::{DAILY, HOURLY, LAST, MONTHLY, WEEKLY, YEARLY};
use super::{CONFIG_DIGEST, RequestContext, reply};
use crate::auth::{AclPath, Privileges};
use crate::config::{Draft, JOB_ID_CHARS, JobSection, KEEP_KEYS, Loaded, PruneJobSection, VerifyJobSection};
use crate::error::{Error, Result};
use crate::http::listed::{About, Own, RowFilter};
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::reply::Outcome;
use crate::http::rights::{HandlerRule, Ownership, Where};
use crate::http::router::{Access, Answer, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::http::scheduled::no_such;
use crate::jobs::state::JobKey;
use crate::jobs::verify::PARTS_MAX;
use crate::types::{DatastoreName, Namespace, Schedule, is_safe_id};

/// One kind of job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Prune,
    Verify,
}

impl Kind {
    fn section(self) -> &'static str {
        match self {
            Self::Prune => "prune-job",
            Self::Verify => "verify-job",
        }
    }

    /// Who sees jobs.
    fn seen(self) -> RowFilter {
        match self {
            Self::Prune => PRUNE_SEEN,
            Self::Verify => VERIFY_SEEN,
        }
    }

    /// Who may change and start jobs.
    fn privilege(self) -> Privileges {
        match self {
            Self::Prune => Privileges::DATASTORE_MODIFY,
            Self::Verify => Privileges::DATASTORE_VERIFY,
        }
    }

    pub(super) fn key(self, id: &str) -> JobKey {
        match self {
            Self::Prune => JobKey::Prune(id.to_owned()),
            Self::Verify => JobKey::Verify(id.to_owned()),
        }
    }

    /// The keys that a call sets, besides `store`.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Prune => PRUNE_KEYS,
            Self::Verify => VERIFY_KEYS,
        }
    }

    /// All jobs of the kind: what they have in common, and how they are shown.
    pub(super) fn all(self, loaded: &Loaded) -> Vec<(&JobSection, Value)> {
        match self {
            Self::Prune => loaded.config.prune_jobs.iter().map(|prune| (&prune.job, prune_item(prune))).collect(),
            Self::Verify => loaded.config.verify_jobs.iter().map(|verify| (&verify.job, verify_item(verify))).collect(),
        }
    }

    fn may_see(self, context: &RequestContext, job: &JobSection) -> bool {
        self.seen().shows(context, About::Namespace(&job.store, &job.ns))
    }

    /// What the asker may see of all jobs of the kind.
    pub(super) fn visible(self, context: &RequestContext, loaded: &Loaded) -> Vec<(JobSection, Value)> {
        let all = self.all(loaded).into_iter().filter(|(job, _)| self.may_see(context, job));
        all.map(|(job, item)| (job.clone(), item)).collect()
    }

    /// The job of that id, if the asker may change it.
    pub(super) fn changeable(self, context: &RequestContext, loaded: &Loaded, id: &str) -> Result<JobSection> {
        let found = self.all(loaded).into_iter().find(|(job, _)| job.id == id);
        let (job, _) = found.ok_or_else(|| no_such(self.section(), id))?;
        self.demand(context, &job.store, &job.ns)?;
        Ok(job.clone())
    }

    fn demand(self, context: &RequestContext, store: &DatastoreName, ns: &Namespace) -> Result<()> {
        let path = AclPath::datastore(store, ns);
        crate::http::rights::demand(context, &path, self.privilege())
    }
}

const PRUNE_KEYS: &[&str] = &[
    "ns",
    "max-depth",
    "schedule",
    "comment",
    "disable",
    "keep-last",
    "keep-hourly",
    "keep-daily",
    "keep-weekly",
    "keep-monthly",
    "keep-yearly",
];

const VERIFY_KEYS: &[&str] = &["ns", "max-depth", "schedule", "comment", "ignore-verified", "outdated-after", "parts"];

/// A changed one of these starts the counting anew.
const TIMING_KEYS: [&str; 2] = ["schedule", "disable"];

const ID_KIND: ParamKind = ParamKind::Text {
    pattern: crate::http::params::SAFE_ID_PATTERN,
    min: *JOB_ID_CHARS.start(),
    max: *JOB_ID_CHARS.end(),
    matches: is_safe_id,
};

pub(super) const ID: ParamSpec = ParamSpec::required("id", ID_KIND, "Id of the job.");
const STORE: ParamSpec = ParamSpec::required("store", ParamKind::DATASTORE, "Datastore that it works on.");
const NEW_STORE: ParamSpec = ParamSpec::optional("store", ParamKind::DATASTORE, "Datastore that it works on.");
const NS: ParamSpec = ParamSpec::optional("ns", ParamKind::NAMESPACE, "Namespace where it begins.");
const DEPTH: ParamSpec =
    ParamSpec::optional("max-depth", ParamKind::Integer { min: 0, max: 7 }, "How many levels of namespaces below.")
        .or("7");
const SCHEDULE: ParamSpec = ParamSpec::optional(
    "schedule",
    ParamKind::Text { pattern: "", min: 1, max: 255, matches: |text| text.parse::<Schedule>().is_ok() },
    "Calendar event; without one it runs only when it is started.",
);
const COMMENT: ParamSpec = ParamSpec::optional("comment", ParamKind::line(0, 128), "A line for listings.");
const DISABLE: ParamSpec =
    ParamSpec::optional("disable", ParamKind::Boolean, "Not started by its schedule.").or("false");
const IGNORE: ParamSpec =
    ParamSpec::optional("ignore-verified", ParamKind::Boolean, "Leave out what has been verified.").or("true");
const OUTDATED: ParamSpec = ParamSpec::optional(
    "outdated-after",
    ParamKind::Integer { min: 0, max: 1_000_000 },
    "But not what was verified more than so many days ago.",
);
const PARTS: ParamSpec = ParamSpec::optional(
    "parts",
    ParamKind::Integer { min: 2, max: PARTS_MAX as i64 },
    "Read one of so many parts of the chunks, another one each day, of all snapshots.",
);
const DELETE_PRUNE: ParamSpec = ParamSpec::optional(
    "delete",
    ParamKind::List(&ParamKind::Enum(PRUNE_KEYS)),
    "Properties that get their defaults again.",
);
const DELETE_VERIFY: ParamSpec = ParamSpec::optional(
    "delete",
    ParamKind::List(&ParamKind::Enum(VERIFY_KEYS)),
    "Properties that get their defaults again.",
);

/// The fields of every job.
macro_rules! job_fields {
    ($($more:expr),* $(,)?) => {
        &[
            Field::new("id", Shape::Text, "Id of the job."),
            Field::new("store", Shape::Text, "Datastore that it works on."),
            Field::optional("ns", Shape::Text, "Namespace; absent for the root."),
            Field::optional("max-depth", Shape::Integer, "Levels of namespaces below; absent for all."),
            Field::optional("schedule", Shape::Text, "Calendar event."),
            Field::optional("comment", Shape::Text, ""),
            $($more,)*
        ]
    };
}

/// The fields of a prune job.
macro_rules! prune_job_fields {
    ($($more:expr),* $(,)?) => {
        job_fields![
            Field::optional("disable", Shape::Boolean, "Not started by its schedule."),
            Field::optional("keep-last", Shape::Integer, ""),
            Field::optional("keep-hourly", Shape::Integer, ""),
            Field::optional("keep-daily", Shape::Integer, ""),
            Field::optional("keep-weekly", Shape::Integer, ""),
            Field::optional("keep-monthly", Shape::Integer, ""),
            Field::optional("keep-yearly", Shape::Integer, ""),
            $($more,)*
        ]
    };
}

/// The fields of a verify job.
macro_rules! verify_job_fields {
    ($($more:expr),* $(,)?) => {
        job_fields![
            Field::optional("ignore-verified", Shape::Boolean, "Whether what has been verified is left out."),
            Field::optional("outdated-after", Shape::Integer, "Days after which it is verified again."),
            Field::optional("parts", Shape::Integer, "One of so many parts of the chunks is read each day."),
            $($more,)*
        ]
    };
}
pub(super) use {job_fields, prune_job_fields, verify_job_fields};

const PRUNE_JOB: Shape = Shape::Object(prune_job_fields![]);

const VERIFY_JOB: Shape = Shape::Object(verify_job_fields![]);

const WITH_DIGEST: &[Field] = &[Field::new("digest", Shape::Text, "Names this version of the configuration.")];

const PRUNE_SEEN: RowFilter =
    seen_by(&[(Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_MODIFY), Where::JobNamespace)]);
const VERIFY_SEEN: RowFilter =
    seen_by(&[(Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_VERIFY), Where::JobNamespace)]);
pub(super) const LIST_PRUNE: Access = Access::Listed(PRUNE_SEEN);
pub(super) const LIST_VERIFY: Access = Access::Listed(VERIFY_SEEN);
const SEE_PRUNE: Access = handled(PRUNE_SEEN.grants);
const SEE_VERIFY: Access = handled(VERIFY_SEEN.grants);
pub(super) const CHANGE_PRUNE: Access = handled(&[(Privileges::DATASTORE_MODIFY, Where::JobNamespace)]);
pub(super) const CHANGE_VERIFY: Access = handled(&[(Privileges::DATASTORE_VERIFY, Where::JobNamespace)]);

const fn seen_by(grants: &'static [(Privileges, Where)]) -> RowFilter {
    RowFilter { grants, own: Own::Nothing, is_refused_if_empty: false }
}

const fn handled(grants: &'static [(Privileges, Where)]) -> Access {
    Access::Handler(HandlerRule { grants, groups: Ownership::Any, also: "" })
}

const fn row(
    method: Method,
    path: &'static str,
    access: Access,
    params: &'static [ParamSpec],
    returns: Returns,
    handler: fn(RequestContext, Params) -> Answer,
    about: &'static str,
) -> Route {
    Route { method, path, access, body: BodyUse::Parameters, params, returns, handler, about }
}

pub(super) const ROUTES: &[Route] = &[
    row(
        Method::GET,
        "config/prune",
        LIST_PRUNE,
        &[],
        Returns::With(Shape::Array(&PRUNE_JOB), WITH_DIGEST),
        |context, _| Box::pin(list(context, Kind::Prune)),
        "Prune jobs.",
    ),
    row(
        Method::POST,
        "config/prune",
        CHANGE_PRUNE,
        &[ID, STORE, NS, DEPTH, SCHEDULE, COMMENT, DISABLE, LAST, HOURLY, DAILY, WEEKLY, MONTHLY, YEARLY],
        Returns::NULL,
        |context, params| Box::pin(create(context, params, Kind::Prune)),
        "Makes a prune job.",
    ),
    row(
        Method::GET,
        "config/prune/{id}",
        SEE_PRUNE,
        &[ID],
        Returns::With(PRUNE_JOB, WITH_DIGEST),
        |context, params| Box::pin(show(context, params, Kind::Prune)),
        "One prune job.",
    ),
    row(
        Method::PUT,
        "config/prune/{id}",
        CHANGE_PRUNE,
        &[
            ID,
            NEW_STORE,
            NS,
            DEPTH,
            SCHEDULE,
            COMMENT,
            DISABLE,
            LAST,
            HOURLY,
            DAILY,
            WEEKLY,
            MONTHLY,
            YEARLY,
            DELETE_PRUNE,
            CONFIG_DIGEST,
        ],
        Returns::NULL,
        |context, params| Box::pin(update(context, params, Kind::Prune)),
        "Changes a prune job. What is not named stays.",
    ),
    row(
        Method::DELETE,
        "config/prune/{id}",
        CHANGE_PRUNE,
        &[ID, CONFIG_DIGEST],
        Returns::NULL,
        |context, params| Box::pin(remove(context, params, Kind::Prune)),
        "Removes a prune job. A run of it goes on.",
    ),
    row(
        Method::GET,
        "config/verify",
        LIST_VERIFY,
        &[],
        Returns::With(Shape::Array(&VERIFY_JOB), WITH_DIGEST),
        |context, _| Box::pin(list(context, Kind::Verify)),
        "Verify jobs.",
    ),
    row(
        Method::POST,
        "config/verify",
        CHANGE_VERIFY,
        &[ID, STORE, NS, DEPTH, SCHEDULE, COMMENT, IGNORE, OUTDATED, PARTS],
        Returns::NULL,
        |context, params| Box::pin(create(context, params, Kind::Verify)),
        "Makes a verify job.",
    ),
    row(
        Method::GET,
        "config/verify/{id}",
        SEE_VERIFY,
        &[ID],
        Returns::With(VERIFY_JOB, WITH_DIGEST),
        |context, params| Box::pin(show(context, params, Kind::Verify)),
        "One verify job.",
    ),
    row(
        Method::PUT,
        "config/verify/{id}",
        CHANGE_VERIFY,
        &[ID, NEW_STORE, NS, DEPTH, SCHEDULE, COMMENT, IGNORE, OUTDATED, PARTS, DELETE_VERIFY, CONFIG_DIGEST],
        Returns::NULL,
        |context, params| Box::pin(update(context, params, Kind::Verify)),
        "Changes a verify job. What is not named stays.",
    ),
    row(
        Method::DELETE,
        "config/verify/{id}",
        CHANGE_VERIFY,
        &[ID, CONFIG_DIGEST],
        Returns::NULL,
        |context, params| Box::pin(remove(context, params, Kind::Verify)),
        "Removes a verify job. A run of it goes on.",
    ),
];

async fn list(context: RequestContext, kind: Kind) -> Result<Reply> {
    let loaded = context.app.config.get();
    let items: Vec<Value> = kind.visible(&context, &loaded).into_iter().map(|(_, item)| item).collect();
    with_digest(items.into(), &loaded)
}

async fn show(context: RequestContext, params: Params, kind: Kind) -> Result<Reply> {
    let loaded = context.app.config.get();
    let id = params.text("id").unwrap_or_default();
    let found = kind.all(&loaded).into_iter().find(|(job, _)| job.id == id);
    let (job, item) = found.ok_or_else(|| no_such(kind.section(), id))?;
    if !kind.may_see(&context, job) {
        return Err(Error::denied("permission check failed"));
    }
    with_digest(item, &loaded)
}

fn with_digest(data: Value, loaded: &Loaded) -> Result<Reply> {
    let attributes = vec![("digest", loaded.digest.clone().into())];
    Ok(Reply::Data(Outcome { data, attributes }))
}

async fn create(context: RequestContext, params: Params, kind: Kind) -> Result<Reply> {
    let id = params.text("id").unwrap_or_default();
    let (store, ns): (DatastoreName, _) = (params.parsed("store")?, params.parsed_opt("ns")?.unwrap_or_default());
    kind.demand(&context, &store, &ns)?;
    context.app.datastore(&store)?;
    let app = &context.app;
    let edit = |draft: &mut Draft| {
        draft.add(kind.section(), id)?;
        draft.set(kind.section(), id, "store", store.as_str())?;
        set_all(draft, kind, id, &params)
    };
    app.config.edit(None, edit).await?;
    tracing::info!(job = %kind.key(id), by = %context.auth, "job made");
    // What an earlier job of that name did is not what this one did.
    app.jobs.remove(&kind.key(id)).await;
    app.jobs.touch(&kind.key(id), app.clock.now()).await;
    reply(Value::Null)
}

async fn update(context: RequestContext, params: Params, kind: Kind) -> Result<Reply> {
    let id = params.text("id").unwrap_or_default();
    let app = &context.app;
    let job = kind.changeable(&context, &app.config.get(), id)?;
    let deleted: Vec<&str> = params.texts("delete").collect();
    let moved = params.parsed_opt::<DatastoreName>("store")?;
    let ns = if deleted.contains(&"ns") { Some(Namespace::root()) } else { params.parsed_opt("ns")? };
    if moved.is_some() || ns.is_some() {
        let store = moved.as_ref().unwrap_or(&job.store);
        kind.demand(&context, store, ns.as_ref().unwrap_or(&job.ns))?;
        app.datastore(store)?;
    }
    let edit = |draft: &mut Draft| {
        for key in &deleted {
            draft.unset(kind.section(), id, key)?;
        }
        if let Some(store) = &moved {
            draft.set(kind.section(), id, "store", store.as_str())?;
        }
        set_all(draft, kind, id, &params)
    };
    app.config.edit(params.text("digest"), edit).await?;
    tracing::info!(job = %kind.key(id), by = %context.auth, "job changed");
    let is_given = |key: &str| params.text(key).is_some() || params.bool(key).is_some() || deleted.contains(&key);
    if TIMING_KEYS.iter().any(|key| is_given(key)) {
        app.jobs.touch(&kind.key(id), app.clock.now()).await;
    }
    reply(Value::Null)
}

async fn remove(context: RequestContext, params: Params, kind: Kind) -> Result<Reply> {
    let id = params.text("id").unwrap_or_default();
    let app = &context.app;
    kind.changeable(&context, &app.config.get(), id)?;
    app.config.edit(params.text("digest"), |draft| draft.remove(kind.section(), id)).await?;
    tracing::info!(job = %kind.key(id), by = %context.auth, "job removed");
    app.jobs.remove(&kind.key(id)).await;
    reply(Value::Null)
}

fn set_all(draft: &mut Draft, kind: Kind, id: &str, params: &Params) -> Result<()> {
    for key in kind.keys() {
        if let Some(text) = params.text(key) {
            draft.set(kind.section(), id, key, text)?;
        } else if let Some(number) = params.int(key) {
            draft.set(kind.section(), id, key, number)?;
        } else if let Some(yes) = params.bool(key) {
            draft.set(kind.section(), id, key, yes)?;
        }
    }
    Ok(())
}

/// What every job shows; what is absent has no key.
fn job_item(job: &JobSection) -> Map<String, Value> {
    let some = |name: &str, value: Option<Value>| value.map(|value| (name.to_owned(), value));
    [
        some("id", Some(json!(job.id))),
        some("store", Some(json!(job.store.as_str()))),
        some("ns", (!job.ns.is_root()).then(|| json!(job.ns.to_string()))),
        some("max-depth", job.max_depth.map(|depth| json!(depth))),
        some("schedule", job.schedule_text.as_ref().map(|text| json!(text))),
        some("comment", job.comment.as_ref().map(|text| json!(text))),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn prune_item(prune: &PruneJobSection) -> Value {
    let mut item = job_item(&prune.job);
    let kept = KEEP_KEYS.iter().zip(prune.keep).filter(|(_, count)| *count > 0);
    item.extend(kept.map(|(key, count)| ((*key).to_owned(), json!(count))));
    if prune.disable {
        item.insert("disable".to_owned(), json!(true));
    }
    item.into()
}

fn verify_item(verify: &VerifyJobSection) -> Value {
    let mut item = job_item(&verify.job);
    item.insert("ignore-verified".to_owned(), json!(verify.ignore_verified));
    if let Some(days) = verify.outdated_after {
        item.insert("outdated-after".to_owned(), json!(days));
    }
    if let Some(parts) = verify.parts {
        item.insert("parts".to_owned(), json!(parts));
    }
    item.into()
}
