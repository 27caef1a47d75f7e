//! `config/datastore`: which datastores there are, and their settings. What is changed here is in the configuration file and in force.

use std::path::{Path, PathBuf};

use http::Method;
use serde_json::{Map, Value};
use toml_edit::Value as TomlValue;

use super::{CONFIG_DIGEST, RequestContext, STORE};
use crate::auth::{AclPath, Privileges};
use crate::config::{DatastoreSection, Draft};
use crate::engine::{Engine, EngineChoice, EngineConfig};
use crate::error::{Error, Result, SHUTTING_DOWN, TASK_ABORTED};
use crate::http::context::App;
use crate::http::listed::{About, Own, RowFilter};
use crate::http::params::{ParamErrors, ParamKind, ParamSpec, Params};
use crate::http::reply::Outcome;
use crate::http::rights::{Where, demand};
use crate::http::router::{Access, BodyUse, Field, Reply, Returns, Route, Shape};
use crate::store::{Datastore, GC_CUTOFF_MINUTES, GC_RESERVE_BYTES, LeftBehind, MaintenanceKind, MaintenanceMode};
use crate::task::Task;
use crate::types::{AuthId, DatastoreName, Namespace, Schedule};

const LIST: &str = "config/datastore";
const ONE: &str = "config/datastore/{store}";

/// What `gc-memory-mib` is where it is not given.
const GC_MEMORY_MIB: u64 = 256;

/// What `gc-reserve-mib` is where it is not given.
const GC_RESERVE_MIB: u64 = GC_RESERVE_BYTES >> 20;

/// A line of text.
const LINE: ParamKind = ParamKind::line(1, 1024);

const ABSOLUTE_PATH: ParamKind = ParamKind::Text {
    pattern: r"^/[^\u0000-\u001f\u007f]*$",
    min: 2,
    max: 4096,
    matches: |text| text.starts_with('/') && !text.chars().any(char::is_control),
};

const UID_GID: ParamKind = ParamKind::Text {
    pattern: "^[0-9]+:[0-9]+$",
    min: 3,
    max: 21,
    matches: |text| {
        let number =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && text.parse::<u32>().is_ok();
        text.split_once(':').is_some_and(|(uid, gid)| number(uid) && number(gid))
    },
};

/// What can be set, in the words of the API; [`KEYS`] has those of the file.
macro_rules! with_settings {
    ($($more:expr),* $(,)?) => {
        &[
            $($more,)*
            ParamSpec::optional("comment", LINE, "A line for listings."),
            ParamSpec::optional("gc-schedule", LINE, "When garbage collection runs, as a calendar event."),
            ParamSpec::optional("verify-new", ParamKind::Boolean, "Verify every backup when it has finished."),
            ParamSpec::optional("maintenance-mode", LINE, "[type=]read-only or offline, and message=TEXT."),
            ParamSpec::optional("tuning", LINE, "sync-level=none, file or filesystem, and gc-atime-cutoff=MINUTES, separated by commas; what is not named goes back to its default."),
            ParamSpec::optional("check-append", ParamKind::Boolean, "Check known chunks when a backup refers to them."),
            ParamSpec::optional("check-finish", ParamKind::Boolean, "Check them again when it finishes."),
            ParamSpec::optional("check-preflight", ParamKind::Boolean, "Check them while the previous index is read."),
            ParamSpec::optional("engine", ParamKind::Enum(&["auto", "uring", "threads", "sync"]), "How presence is checked."),
            ParamSpec::optional("workers", ParamKind::Integer { min: 1, max: 256 }, "Presence checks in flight."),
            ParamSpec::optional("io-threads", ParamKind::Integer { min: 1, max: 256 }, "Threads for file work."),
            ParamSpec::optional(
                "gc-method",
                ParamKind::Enum(&["memory", "atime"]),
                "How garbage collection tells what is in use."
            ),
            ParamSpec::optional(
                "gc-memory-mib",
                ParamKind::Integer { min: 4, max: 1_048_576 },
                "Memory for the set of chunks in use."
            ),
            ParamSpec::optional(
                "gc-reserve-mib",
                ParamKind::Integer { min: 0, max: 1024 },
                "Space that is kept for garbage collection on a full disk."
            ),
            ParamSpec::optional("background-chunks-per-second", ParamKind::Integer { min: 1, max: 1_000_000_000 }, "Chunks that jobs read, look at or remove in a second at most."),
            ParamSpec::optional("background-mib-per-second", ParamKind::Integer { min: 1, max: 1_048_576 }, "MiB that jobs read in a second at most."),
            ParamSpec::optional("background-back-off", ParamKind::Boolean, "Jobs make way for sessions."),
            ParamSpec::optional("background-idle-priority", ParamKind::Boolean, "What jobs read has the I/O priority idle."),
            ParamSpec::optional("owner", UID_GID, "UID:GID of new files, when the daemon runs as root."),
            ParamSpec::optional("manifest-lock-dir", ABSOLUTE_PATH, "Where an older server of the original kind has its locks."),
        ]
    };
}

/// Parameter, and the key of the file that it sets; `tuning` sets several ([`TUNING`]).
const KEYS: &[(&str, &str)] = &[
    ("comment", "comment"),
    ("gc-schedule", "gc-schedule"),
    ("verify-new", "verify-new"),
    ("maintenance-mode", "maintenance-mode"),
    ("check-append", "checks.append"),
    ("check-finish", "checks.finish"),
    ("check-preflight", "checks.preflight"),
    ("engine", "engine"),
    ("workers", "workers"),
    ("io-threads", "io-threads"),
    ("gc-method", "gc-method"),
    ("gc-memory-mib", "gc-memory-mib"),
    ("gc-reserve-mib", "gc-reserve-mib"),
    ("background-chunks-per-second", "background.chunks-per-second"),
    ("background-mib-per-second", "background.mib-per-second"),
    ("background-back-off", "background.back-off"),
    ("background-idle-priority", "background.idle-priority"),
    ("owner", "owner"),
    ("manifest-lock-dir", "manifest-lock-dir"),
];

/// Least and most of `gc-atime-cutoff`, in minutes, as in the file.
const GC_CUTOFF_MIN: i64 = 1;
const GC_CUTOFF_MAX: i64 = 2880;

const DELETABLE: ParamKind = ParamKind::Enum(&[
    "comment",
    "gc-schedule",
    "verify-new",
    "maintenance-mode",
    "tuning",
    "check-append",
    "check-finish",
    "check-preflight",
    "engine",
    "workers",
    "io-threads",
    "gc-method",
    "gc-memory-mib",
    "gc-reserve-mib",
    "background-chunks-per-second",
    "background-mib-per-second",
    "background-back-off",
    "background-idle-priority",
    "owner",
    "manifest-lock-dir",
]);

const SECTION: Shape = Shape::Object(&[
    Field::new("name", Shape::Text, ""),
    Field::new("path", Shape::Text, "Its directory."),
    Field::optional("comment", Shape::Text, ""),
    Field::optional("gc-schedule", Shape::Text, "Calendar event."),
    Field::optional("verify-new", Shape::Boolean, ""),
    Field::optional("maintenance-mode", Shape::Text, "type=…,message=…"),
    Field::optional("tuning", Shape::Text, "sync-level=…,gc-atime-cutoff=…; only what is not at its default."),
    Field::optional("check-append", Shape::Boolean, "Only where it is switched off, as the next two."),
    Field::optional("check-finish", Shape::Boolean, ""),
    Field::optional("check-preflight", Shape::Boolean, ""),
    Field::optional("engine", Shape::Text, "Only where it is not auto."),
    Field::optional("workers", Shape::Integer, "Only where it is not the default, as the next."),
    Field::optional("io-threads", Shape::Integer, ""),
    Field::optional("gc-method", Shape::Text, "Only where it is not memory."),
    Field::optional("gc-memory-mib", Shape::Integer, "Only where it is not the default, as the next."),
    Field::optional("gc-reserve-mib", Shape::Integer, ""),
    Field::optional("background-chunks-per-second", Shape::Integer, "Only where there is a limit, as the next."),
    Field::optional("background-mib-per-second", Shape::Integer, ""),
    Field::optional("background-back-off", Shape::Boolean, "Only where it is switched off, as the next."),
    Field::optional("background-idle-priority", Shape::Boolean, ""),
    Field::optional("owner", Shape::Text, "UID:GID"),
    Field::optional("manifest-lock-dir", Shape::Text, ""),
]);

const VERSION: &[Field] = &[Field::new("digest", Shape::Text, "Of the configuration file.")];

const SEEN: RowFilter = RowFilter {
    grants: &[(Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_ALLOCATE), Where::EachDatastore)],
    own: Own::Nothing,
    is_refused_if_empty: false,
};

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: LIST,
        access: Access::Listed(SEEN),
        body: BodyUse::Parameters,
        params: &[],
        returns: Returns::With(Shape::Array(&SECTION), VERSION),
        handler: |context, params| Box::pin(list(context, params)),
        about: "Settings of all datastores.",
    },
    Route {
        method: Method::POST,
        path: LIST,
        access: Access::At("/datastore", Privileges::DATASTORE_ALLOCATE),
        body: BodyUse::Parameters,
        params: with_settings![
            ParamSpec::required("name", ParamKind::DATASTORE, "Name of the new datastore."),
            ParamSpec::required("path", ABSOLUTE_PATH, "Its directory, which is made if it is missing."),
            ParamSpec::optional("reuse-datastore", ParamKind::Boolean, "The directory is a datastore already.")
                .or("false"),
        ],
        returns: Returns::UPID,
        handler: |context, params| Box::pin(create(context, params)),
        about: "Makes a datastore, in a task.",
    },
    Route {
        method: Method::GET,
        path: ONE,
        access: Access::Store(Privileges::DATASTORE_AUDIT.union(Privileges::DATASTORE_ALLOCATE)),
        body: BodyUse::Parameters,
        params: &[STORE],
        returns: Returns::With(SECTION, VERSION),
        handler: |context, params| Box::pin(show(context, params)),
        about: "Settings of a datastore.",
    },
    Route {
        method: Method::PUT,
        path: ONE,
        access: Access::Store(Privileges::DATASTORE_MODIFY.union(Privileges::DATASTORE_ALLOCATE)),
        body: BodyUse::Parameters,
        params: with_settings![
            STORE,
            ParamSpec::optional("delete", ParamKind::List(&DELETABLE), "Settings that go back to their defaults."),
            CONFIG_DIGEST,
        ],
        returns: Returns::NULL,
        handler: |context, params| Box::pin(update(context, params)),
        about: "Changes settings of a datastore; those that are not named stay. Owner, lock directory, engine, workers, io-threads, gc-memory-mib and gc-reserve-mib need Datastore.Allocate.",
    },
    Route {
        method: Method::DELETE,
        path: ONE,
        access: Access::Store(Privileges::DATASTORE_ALLOCATE),
        body: BodyUse::Parameters,
        params: &[
            STORE,
            ParamSpec::optional("keep-job-configs", ParamKind::Boolean, "Keep the jobs of the datastore.").or("false"),
            ParamSpec::optional("destroy-data", ParamKind::Boolean, "Remove its directory with all backups too.")
                .or("false"),
            CONFIG_DIGEST,
        ],
        returns: Returns::UPID,
        handler: |context, params| Box::pin(remove(context, params)),
        about: "Removes a datastore from the configuration, in a task; refused while it is used.",
    },
];

/// A section in the words of the API: what the original has too, and of our own settings those that are not at their defaults.
fn section_json(section: &DatastoreSection) -> Value {
    let mut row = Map::new();
    row.insert("name".into(), section.name.as_str().into());
    row.insert("path".into(), section.path.to_string_lossy().into());
    let mut put = |key: &str, value: Option<Value>| drop(value.map(|value| row.insert(key.into(), value)));
    put("comment", section.comment.clone().map(Value::from));
    put("gc-schedule", section.gc_schedule.clone().map(Value::from));
    put("verify-new", section.verify_new.then_some(true.into()));
    put("maintenance-mode", section.maintenance.as_ref().map(|mode| mode.to_string().into()));
    let level = (section.sync_level != "filesystem").then(|| format!("sync-level={}", section.sync_level));
    let cutoff = section.gc_atime_cutoff;
    let cutoff = (cutoff != GC_CUTOFF_MINUTES).then(|| format!("gc-atime-cutoff={cutoff}"));
    let tuning: Vec<String> = [level, cutoff].into_iter().flatten().collect();
    put("tuning", (!tuning.is_empty()).then(|| tuning.join(",").into()));
    let (append, finish, preflight) = section.checks;
    for (key, on) in [("check-append", append), ("check-finish", finish), ("check-preflight", preflight)] {
        put(key, (!on).then_some(false.into()));
    }
    let defaults = EngineConfig::default();
    put("engine", (section.engine != "auto").then(|| section.engine.clone().into()));
    put("workers", (section.workers != defaults.workers).then(|| section.workers.into()));
    put("io-threads", (section.io_threads != defaults.io_threads).then(|| section.io_threads.into()));
    put("gc-method", (section.gc_method != "memory").then(|| section.gc_method.clone().into()));
    put("gc-memory-mib", (section.gc_memory_mib != GC_MEMORY_MIB).then(|| section.gc_memory_mib.into()));
    put("gc-reserve-mib", (section.gc_reserve_mib != GC_RESERVE_MIB).then(|| section.gc_reserve_mib.into()));
    put("background-chunks-per-second", section.background_chunks.map(|rate| rate.get().into()));
    put("background-mib-per-second", section.background_mib.map(|rate| rate.get().into()));
    put("background-back-off", (!section.background_back_off).then_some(false.into()));
    put("background-idle-priority", (!section.background_idle).then_some(false.into()));
    put("owner", section.owner.map(|(uid, gid)| format!("{uid}:{gid}").into()));
    put("manifest-lock-dir", section.manifest_lock_dir.as_ref().map(|dir| dir.to_string_lossy().into()));
    Value::Object(row)
}

fn versioned(data: Value, digest: &str) -> Reply {
    Reply::Data(Outcome { data, attributes: vec![("digest", digest.into())] })
}

fn no_such(name: &DatastoreName) -> Error {
    Error::not_found(format!("no such datastore '{name}'"))
}

async fn list(context: RequestContext, _: Params) -> Result<Reply> {
    let now = context.app.config.get();
    let visible = |section: &&DatastoreSection| SEEN.shows(&context, About::Datastore(&section.name));
    let rows: Vec<Value> = now.config.datastores.iter().filter(visible).map(section_json).collect();
    Ok(versioned(rows.into(), &now.digest))
}

async fn show(context: RequestContext, params: Params) -> Result<Reply> {
    let name: DatastoreName = params.parsed("store")?;
    let now = context.app.config.get();
    let section = now.config.datastores.iter().find(|section| section.name == name).ok_or_else(|| no_such(&name))?;
    Ok(versioned(section_json(section), &now.digest))
}

/// The value of a setting in the file, if the request has it.
fn setting(params: &Params, name: &str) -> Result<Option<TomlValue>> {
    let text = params.text(name).map(TomlValue::from);
    Ok(text.or_else(|| params.int(name).map(TomlValue::from)).or_else(|| params.bool(name).map(TomlValue::from)))
}

/// Those of the original's tuning options that there are here, each a key of the file.
const TUNING: [&str; 2] = ["sync-level", "gc-atime-cutoff"];

/// Keys and values of tuning options.
fn tuning(text: &str) -> Result<Vec<(&'static str, TomlValue)>> {
    let wrong = |why: String| Error::from(ParamErrors::one("tuning", why));
    let mut options: Vec<(&'static str, TomlValue)> = Vec::new();
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let option = match part.split_once('=') {
            Some(("sync-level", word @ ("none" | "file" | "filesystem"))) => ("sync-level", word.into()),
            Some(("sync-level", other)) => {
                return Err(wrong(format!("{other:.40?} is no sync level: none, file or filesystem expected")));
            }
            Some(("gc-atime-cutoff", minutes)) => match minutes.parse::<i64>() {
                Ok(minutes @ GC_CUTOFF_MIN..=GC_CUTOFF_MAX) => ("gc-atime-cutoff", minutes.into()),
                _ => {
                    let limits = format!("{GC_CUTOFF_MIN} to {GC_CUTOFF_MAX} minutes expected");
                    return Err(wrong(format!("gc-atime-cutoff {minutes:.40?}: {limits}")));
                }
            },
            _ => return Err(wrong(format!("{part:.80?} is not known here: {} are", TUNING.join(" and ")))),
        };
        if options.iter().any(|(key, _)| *key == option.0) {
            return Err(wrong(format!("{} is there twice", option.0)));
        }
        options.push(option);
    }
    if options.is_empty() { Err(wrong(format!("{} expected", TUNING.join(" or ")))) } else { Ok(options) }
}

fn set_all(draft: &mut Draft, name: &DatastoreName, params: &Params) -> Result<()> {
    // What the file's own check would refuse too, but not as a parameter of that name.
    params.parsed_opt::<Schedule>("gc-schedule")?;
    params.parsed_opt::<MaintenanceMode>("maintenance-mode")?;
    if let Some(text) = params.text("tuning") {
        let options = tuning(text)?;
        TUNING.iter().try_for_each(|key| draft.unset("datastore", name.as_str(), key))?;
        for (key, value) in options {
            draft.set("datastore", name.as_str(), key, value)?;
        }
    }
    for (param, key) in KEYS {
        if let Some(value) = setting(params, param)? {
            draft.set("datastore", name.as_str(), key, value)?;
        }
    }
    Ok(())
}

/// Settings that are the machine's affair: where the daemon writes, as whom, and with how much of the machine.
const OF_THE_MACHINE: [&str; 7] =
    ["owner", "manifest-lock-dir", "engine", "workers", "io-threads", "gc-memory-mib", "gc-reserve-mib"];

async fn update(context: RequestContext, params: Params) -> Result<Reply> {
    let name: DatastoreName = params.parsed("store")?;
    if OF_THE_MACHINE.iter().any(|key| params.is_given(key) || params.texts("delete").any(|unset| unset == *key)) {
        let place = AclPath::datastore(&name, &Namespace::root());
        demand(&context, &place, Privileges::DATASTORE_ALLOCATE)?;
    }
    let change = |draft: &mut Draft| {
        if !draft.has("datastore", name.as_str()) {
            return Err(no_such(&name));
        }
        for param in params.texts("delete") {
            if param == "tuning" {
                TUNING.iter().try_for_each(|key| draft.unset("datastore", name.as_str(), key))?;
                continue;
            }
            let key = KEYS.iter().find(|(known, _)| *known == param).map(|(_, key)| key);
            draft.unset("datastore", name.as_str(), key.unwrap_or(&param))?;
        }
        set_all(draft, &name, &params)
    };
    context.app.config.edit(params.text("digest"), change).await?;
    Ok(Reply::Data(Outcome::null()))
}

/// Starts a task for long work of this file; the daemon's end waits for it as for a session.
async fn start_task(
    context: &RequestContext,
    worker_type: &str,
    name: &DatastoreName,
) -> Result<(Task, crate::http::SessionGuard)> {
    let guard = context.app.lifecycle.enter()?;
    let auth: &AuthId = &context.auth;
    let task = context.app.tasks.start(worker_type, Some(name.to_string()), auth).await?;
    Ok((task, guard))
}

async fn create(context: RequestContext, params: Params) -> Result<Reply> {
    let name: DatastoreName = params.parsed("name")?;
    let path = PathBuf::from(params.text("path").unwrap_or_default());
    let add = {
        let (name, params, path) = (name.clone(), params.clone(), params.text("path").unwrap_or_default().to_owned());
        move |draft: &mut Draft| {
            draft.add("datastore", name.as_str())?;
            draft.set("datastore", name.as_str(), "path", path.clone())?;
            set_all(draft, &name, &params)
        }
    };
    // All that is wrong with the request is told before there is a task.
    let wanted = context.app.config.preview(None, &add)?;
    let section = wanted.config.datastores.iter().find(|section| section.name == name).ok_or_else(|| no_such(&name))?;
    let owner = section.owner;
    let (app, wanted_path) = (context.app.clone(), path.clone());
    context.app.compute.run(move || check_apart(&app, &wanted_path)).await??;
    let reuse = params.bool("reuse-datastore") == Some(true);
    let (task, guard) = start_task(&context, "create-datastore", &name).await?;
    let upid = task.upid().to_string();
    let app = context.app.clone();
    tokio::spawn(async move {
        let made = async {
            make(&task, &path, owner, reuse).await?;
            app.config
                .edit(None, add)
                .await
                .map_err(|e| e.context("the directory is a datastore now, but is not in the configuration"))
        };
        let done = tokio::select! {
            done = made => done,
            () = app.lifecycle.closing() => Err(Error::closed(SHUTTING_DOWN)),
        };
        task.end(done.map_err(|e| e.to_string())).await;
        drop(guard);
    });
    Ok(Reply::Data(Outcome::of(upid)?))
}

/// Refuses a directory inside that of a datastore, or around it: one would be part of the other. Links and `..` on the way count for
/// what they lead to. Blocks for a few looks at the disk.
fn check_apart(app: &App, path: &Path) -> Result<()> {
    let config = app.config.get();
    let real = true_path(path);
    let inside = |other: &&DatastoreSection| {
        let other = true_path(&other.path);
        real.starts_with(&other) || other.starts_with(&real)
    };
    match config.config.datastores.iter().find(inside) {
        Some(other) => {
            let text = format!("the path overlaps with {:?} of datastore '{}'", other.path, other.name);
            Err(ParamErrors::one("path", text).into())
        }
        None => Ok(()),
    }
}

/// Where a path leads: the part that is there with its links resolved, then the rest as it stands.
fn true_path(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        plain.push(part);
        // Step by step, for `..` behind a link is not where the text says.
        plain.canonicalize().unwrap_or(plain)
    })
}

/// Makes the directory, or sees that it is a datastore.
async fn make(task: &Task, path: &Path, owner: Option<(u32, u32)>, reuse: bool) -> Result<()> {
    let engine = Engine::start("create", &EngineConfig { choice: EngineChoice::Threads, ..EngineConfig::default() })?;
    if reuse {
        task.log(format!("checking the owners and modes of all directories of {path:?}"));
        tokio::select! {
            verified = Datastore::verify_layout(path, owner, &engine) => verified,
            // It only looks.
            () = task.aborted() => Err(Error::closed(TASK_ABORTED)),
        }
    } else {
        task.log(format!("making the datastore {path:?} with its 65536 directories"));
        Datastore::create_unless(path, owner, &engine, || task.is_aborted()).await
    }
}

async fn remove(context: RequestContext, params: Params) -> Result<Reply> {
    let name: DatastoreName = params.parsed("store")?;
    let digest = params.text("digest").map(ToOwned::to_owned);
    let store = context.app.datastores.get(&name).ok_or_else(|| no_such(&name))?;
    context.app.config.get().check_digest(digest.as_deref())?;
    let (keep_jobs, destroy) =
        (params.bool("keep-job-configs") == Some(true), params.bool("destroy-data") == Some(true));
    // From here on nothing begins; whatever runs already is the reason to refuse.
    let going = MaintenanceMode::new(MaintenanceKind::Offline, Some("the datastore is being removed"))?;
    let running = store.set_maintenance(Some(going));
    let back = store.config().maintenance.clone();
    if running.read + running.write > 0 {
        store.set_maintenance(back);
        return Err(Error::busy(format!(
            "datastore '{name}' is in use: {} operations read and {} write; try again when they have ended",
            running.read, running.write
        )));
    }
    let started = start_task(&context, "delete-datastore", &name).await;
    let (task, guard) = match started {
        Ok(started) => started,
        Err(e) => {
            store.set_maintenance(back);
            return Err(e);
        }
    };
    let upid = task.upid().to_string();
    let app = context.app.clone();
    tokio::spawn(async move {
        let done = leave(&app, &task, &name, digest.as_deref(), keep_jobs).await;
        let done = match done {
            Err(e) => {
                store.set_maintenance(back);
                Err(e)
            }
            Ok(()) if destroy => destroy_data(&app, &task, &store).await,
            Ok(()) => Ok(()),
        };
        drop(store);
        task.end(done.map_err(|e| e.to_string())).await;
        drop(guard);
    });
    Ok(Reply::Data(Outcome::of(upid)?))
}

/// Takes the datastore, and its jobs, out of the configuration.
async fn leave(app: &App, task: &Task, name: &DatastoreName, digest: Option<&str>, keep_jobs: bool) -> Result<()> {
    let change = |draft: &mut Draft| {
        draft.remove("datastore", name.as_str())?;
        Ok(if keep_jobs { Vec::new() } else { draft.remove_where("store", name.as_str()) })
    };
    let jobs = app.config.edit(digest, change).await?;
    task.log(format!("datastore '{name}' is out of the configuration"));
    for (section, id) in jobs {
        task.log(format!("{section} '{id}' too"));
    }
    Ok(())
}

async fn destroy_data(app: &App, task: &Task, store: &Datastore) -> Result<()> {
    let running = store.active_operations();
    if running.read + running.write > 0 {
        return Err(Error::busy("something began to use it before it had left the configuration: its data stays"));
    }
    task.log(format!("removing everything in {:?}, snapshots first", store.base_path()));
    let mut told = 0;
    let destroying = store.destroy(|done, of| {
        // Twenty lines for any datastore.
        if done * 20 / of.max(1) > told {
            told = done * 20 / of.max(1);
            task.log(format!("{}% of the chunk directories are gone", told * 5));
        }
    });
    let remains = tokio::select! {
        remains = destroying => remains?,
        () = app.lifecycle.closing() => {
            return Err(Error::closed("the server is shutting down: the rest of the directory is still there"));
        }
        () = task.aborted() => return Err(Error::closed("stopped: the rest of the directory is still there")),
    };
    let LeftBehind { links, others, base } = remains;
    for link in links {
        task.warn(format!("{link:?} was a symbolic link: what it led to is still there"));
    }
    match (others.is_empty(), base) {
        (false, _) => task
            .warn(format!("the directory stays, for it holds what is no part of a datastore: {}", others.join(", "))),
        (true, Some(why)) => task.warn(format!("the directory itself could not be removed - {why}")),
        (true, None) => task.log("all of it is gone"),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_setting_has_its_key_and_can_be_deleted() {
        let put = ROUTES.iter().find(|route| route.method == Method::PUT).unwrap();
        let named: Vec<&str> = put.params.iter().map(|spec| spec.name).skip(3).collect();
        let mut keys: Vec<&str> = KEYS.iter().map(|(param, _)| *param).collect();
        // One parameter, several keys.
        keys.insert(4, "tuning");
        assert_eq!(named, keys);
        let ParamKind::Enum(words) = DELETABLE else { panic!("words") };
        assert_eq!(words, keys);
        let section = crate::config::SECTIONS.iter().find(|section| section.name == "datastore").unwrap();
        let mut of_file: Vec<&str> = KEYS.iter().map(|(_, key)| *key).chain(TUNING).chain(["name", "path"]).collect();
        let mut known: Vec<&str> = section.keys.iter().map(|key| key.name).collect();
        of_file.sort_unstable();
        known.sort_unstable();
        assert_eq!(of_file, known, "a key of the file that cannot be set here");
    }

    #[test]
    fn tuning_options_are_keys_of_the_file() {
        let read = |text| {
            let options = tuning(text).map_err(|e| e.to_string())?;
            Ok(options.into_iter().map(|(key, value)| format!("{key}{value}")).collect::<Vec<_>>().join(" "))
        };
        assert_eq!(read("sync-level=file"), Ok::<_, String>("sync-level\"file\"".to_owned()));
        assert_eq!(read("gc-atime-cutoff=60,sync-level=none").unwrap(), "gc-atime-cutoff60 sync-level\"none\"");
        for bad in [
            "",
            ",",
            "sync-level=never",
            "chunk-order=inode",
            "sync-level",
            "sync-level=file,x=1",
            "gc-atime-cutoff=0",
            "gc-atime-cutoff=2881",
            "gc-atime-cutoff=soon",
            "gc-atime-cutoff=5,gc-atime-cutoff=5",
        ] {
            assert!(read(bad).unwrap_err().contains("'tuning'"), "{bad}: {:?}", read(bad));
        }
    }

    #[test]
    fn what_is_set_is_shown() {
        let read = |more: &str| {
            let text = format!("[[datastore]]\nname = \"abc\"\npath = \"/p\"\n{more}");
            crate::config::Config::parse(&text, "x", Path::new("/data")).unwrap().datastores.remove(0)
        };
        assert_eq!(section_json(&read("")), json!({ "name": "abc", "path": "/p" }));
        let all = "comment = \"c\"\ngc-schedule = \"daily\"\nverify-new = true\nmaintenance-mode = \"offline\"\nsync-level = \"file\"\n\
                   checks = { append = false, finish = false, preflight = false }\nengine = \"sync\"\nworkers = 1\nio-threads = 2\ngc-method = \"atime\"\ngc-memory-mib = 8\ngc-reserve-mib = 0\ngc-atime-cutoff = 5\n\
                   background = { chunks-per-second = 7, mib-per-second = 8, back-off = false, idle-priority = false }\n\
                   owner = \"3:4\"\nmanifest-lock-dir = \"/l\"\n";
        let want = json!({
            "name": "abc", "path": "/p", "comment": "c", "gc-schedule": "daily", "verify-new": true,
            "maintenance-mode": "type=offline", "tuning": "sync-level=file,gc-atime-cutoff=5", "check-append": false, "check-finish": false,
            "check-preflight": false, "engine": "sync", "workers": 1, "io-threads": 2, "gc-method": "atime", "gc-memory-mib": 8, "gc-reserve-mib": 0,
            "background-chunks-per-second": 7, "background-mib-per-second": 8, "background-back-off": false, "background-idle-priority": false, "owner": "3:4", "manifest-lock-dir": "/l",
        });
        assert_eq!(section_json(&read(all)), want);
        assert_eq!(SECTION.check(&want), Ok(()));
    }
}
