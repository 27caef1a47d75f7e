//! `admin/datastore` and `…/status`.

use http::Method;
use serde_json::{Value, json};

use super::{Place, RequestContext, STORE, reply};
use crate::auth::Privileges;
use crate::error::{Error, Result};
use crate::http::listed::{About, Own, RowFilter};
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::rights::Where;
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::store::{Datastore, Operation, TypeCounts};

const AUDIT_OR_BACKUP: Privileges = Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_BACKUP);

const SEEN: RowFilter = RowFilter {
    grants: &[(AUDIT_OR_BACKUP, Where::EachDatastore), (Privileges::ALL, Where::BelowDatastore)],
    own: Own::Nothing,
    is_refused_if_empty: false,
};

const USAGE_SEEN: RowFilter =
    RowFilter { grants: &[(AUDIT_OR_BACKUP, Where::EachDatastore)], own: Own::Nothing, is_refused_if_empty: false };

const COUNTS: Shape = Shape::Nullable(&Shape::Object(&[
    Field::new("groups", Shape::Integer, ""),
    Field::new("snapshots", Shape::Integer, ""),
]));

const STATUS: Shape = Shape::Object(&[
    Field::new("total", Shape::Integer, "Bytes of the file system."),
    Field::new("used", Shape::Integer, "Bytes in use."),
    Field::new("avail", Shape::Integer, "Bytes that the daemon may still use."),
    Field::optional("gc-status", Shape::Any, "What the last garbage collection found; only if verbose."),
    Field::optional(
        "counts",
        Shape::Object(&[
            Field::new("ct", COUNTS, "Containers."),
            Field::new("host", COUNTS, "Hosts."),
            Field::new("vm", COUNTS, "Virtual machines."),
            Field::new("other", COUNTS, "Always null."),
        ]),
        "Groups and snapshots of all namespaces; only if verbose.",
    ),
]);

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "admin/datastore",
        access: Access::Listed(SEEN),
        body: BodyUse::Parameters,
        params: &[],
        returns: Returns::Data(Shape::Array(&Shape::Object(&[
            Field::new("store", Shape::Text, "Its name."),
            Field::new("comment", Shape::Nullable(&Shape::Text), "From the configuration."),
            Field::optional("maintenance", Shape::Text, "The maintenance mode that is on: `type=…,message=…`."),
        ]))),
        handler: |context, params| Box::pin(list(context, params)),
        about: "Datastores.",
    },
    Route {
        method: Method::GET,
        path: "admin/datastore/{store}/status",
        access: Access::StoreOrBelow(AUDIT_OR_BACKUP.union(Privileges::DATASTORE_READ)),
        body: BodyUse::Parameters,
        params: &[
            STORE,
            ParamSpec::optional(
                "verbose",
                ParamKind::Boolean,
                "Also count groups and show the last garbage collection.",
            )
            .or("false"),
        ],
        returns: Returns::Data(STATUS),
        handler: |context, params| Box::pin(status(context, params)),
        about: "Space of a datastore.",
    },
    Route {
        method: Method::GET,
        path: "admin/datastore/{store}/active-operations",
        access: Access::Store(Privileges::DATASTORE_AUDIT),
        body: BodyUse::Parameters,
        params: &[STORE],
        returns: Returns::Data(Shape::Object(&[
            Field::new("read", Shape::Integer, "That only read, verifications among them."),
            Field::new("write", Shape::Integer, "That change the datastore."),
        ])),
        handler: |context, params| Box::pin(active_operations(context, params)),
        about: "Operations that run, which a maintenance mode lets end.",
    },
    Route {
        method: Method::GET,
        path: "status/datastore-usage",
        access: Access::Listed(USAGE_SEEN),
        body: BodyUse::Parameters,
        params: &[],
        returns: Returns::Data(Shape::Array(&USAGE)),
        handler: |context, params| Box::pin(usage(context, params)),
        about: "Space of all datastores.",
    },
];

/// Without history, of which none is kept, and without the date at which a store is full, which nobody knows then.
const USAGE: Shape = Shape::Object(&[
    Field::new("store", Shape::Text, "Its name."),
    Field::optional("total", Shape::Integer, "Bytes of the file system."),
    Field::optional("used", Shape::Integer, "Bytes in use."),
    Field::optional("avail", Shape::Integer, "Bytes that the daemon may still use."),
    Field::optional("gc-status", Shape::Any, "What the last garbage collection found."),
    Field::optional("error", Shape::Text, "Why the others are not known."),
]);

async fn list(context: RequestContext, _: Params) -> Result<Reply> {
    let row = |store: &Datastore| {
        let mut row = json!({ "store": store.name().as_str(), "comment": store.config().comment });
        if let Some(mode) = store.maintenance() {
            row["maintenance"] = json!(mode.to_string());
        }
        row
    };
    let stores = context.app.datastores.all();
    reply(
        stores
            .iter()
            .filter(|store| SEEN.shows(&context, About::Datastore(store.name())))
            .map(row)
            .collect::<Vec<Value>>(),
    )
}

async fn active_operations(context: RequestContext, params: Params) -> Result<Reply> {
    reply(Place::of(&params)?.open(&context)?.active_operations())
}

async fn usage(context: RequestContext, _: Params) -> Result<Reply> {
    let mut rows = Vec::new();
    for store in context.app.datastores.all() {
        if USAGE_SEEN.shows(&context, About::Datastore(store.name())) {
            rows.push(usage_row(&store).await);
        }
    }
    reply(rows)
}

/// A datastore that cannot be asked is no reason to say nothing of the others.
async fn usage_row(store: &Datastore) -> Value {
    let name = store.name().as_str();
    let asked = async {
        let _reading = store.begin_operation(Operation::Read)?;
        Ok::<_, Error>((store.usage().await?, store.gc_status().await?))
    };
    match asked.await {
        Ok((usage, gc_status)) => json!({
            "store": name, "total": usage.total, "used": usage.used, "avail": usage.avail, "gc-status": gc_status,
        }),
        Err(error) => json!({ "store": name, "error": error.to_string() }),
    }
}

async fn status(context: RequestContext, params: Params) -> Result<Reply> {
    let place = Place::of(&params)?;
    let store = place.open(&context)?;
    if !context.datastore_privileges(&place.store, &place.ns).has_any(AUDIT_OR_BACKUP) {
        // Whoever may only restore, or only use a namespace, learns that the datastore is there, and no more.
        return reply(json!({ "total": 0, "used": 0, "avail": 0 }));
    }
    let usage = store.usage().await?;
    let mut status = json!({ "total": usage.total, "used": usage.used, "avail": usage.avail });
    if params.bool("verbose") == Some(true) {
        let counts = store.counts().await?;
        status["gc-status"] = store.gc_status().await?;
        status["counts"] = json!({
            "ct": counted(counts.ct),
            "host": counted(counts.host),
            "vm": counted(counts.vm),
            "other": null,
        });
    }
    reply(status)
}

fn counted(counts: TypeCounts) -> Option<TypeCounts> {
    (counts.groups > 0).then_some(counts)
}
