//! Lists that show what the asker may see, tried from what their rows declare: each entry that an administrator is shown is asked for by
//! others, and this test says by itself which of them a caller has to see.

use std::collections::BTreeSet;

use http_body_util::BodyExt;
use serde_json::Value;

use super::api;
use super::context::RequestContext;
use super::listed::{Own, RowFilter};
use super::reply::Format;
use super::rights::Where;
use super::rights_tests::{TOKEN, USER, World, samples};
use super::router::{Access, Reply, Route};
use crate::auth::{AclPath, Privileges, Role};
use crate::error::Kind;
use crate::types::Upid;

/// Places of what the lists show, and places beside them whose names begin alike.
const PLACES: [&str; 16] = [
    "/",
    "/datastore",
    "/datastore/main",
    "/datastore/main/a",
    "/datastore/main/a/b",
    "/datastore/main/a/b2",
    "/datastore/main2",
    "/datastore/other",
    "/datastore/other/a/b",
    "/system",
    "/system/tasks",
    "/system/log",
    "/access",
    "/access/acl",
    "/access/users",
    "/remote",
];

fn lists() -> Vec<(&'static Route, RowFilter)> {
    let list = |route: &'static Route| match route.access {
        Access::Listed(filter) => Some((route, filter)),
        _ => None,
    };
    api::router().routes().filter_map(list).collect()
}

/// Both datastores with namespaces, a job of each kind in both, and tasks of several types and people.
async fn world() -> World {
    let world = World::with_other().await;
    let admin = || world.context("root@pam");
    for (id, store) in [("of-main", "main"), ("of-other", "other")] {
        for list in ["config/prune", "config/verify"] {
            let row = row("POST", list);
            let given = [("id", id), ("store", store), ("ns", "a/b"), ("schedule", "daily")];
            let given: Vec<_> =
                given.into_iter().chain((list == "config/prune").then_some(("keep-last", "1"))).collect();
            let params = super::params::Received::from_query(&given, "").unwrap();
            let params = super::params::check(row.params, params).unwrap_or_else(|e| panic!("{list}: {e}"));
            (row.handler)(admin(), params).await.unwrap();
        }
        for by in [USER, TOKEN, "x@pbs", "x@pbs!t"] {
            for worker_type in ["garbage_collection", "prunejob", "verificationjob", "backup"] {
                let id = if worker_type == "garbage_collection" { store.to_owned() } else { format!("{store}:x") };
                let task = admin().app.tasks.start(worker_type, Some(id), &by.parse().unwrap()).await.unwrap();
                task.end(Ok(())).await;
            }
        }
    }
    world
}

fn row(method: &str, path: &str) -> &'static Route {
    api::router().routes().find(|route| format!("{route:?}") == format!("{method} {path}")).unwrap()
}

/// What a list shows; `None` for a refusal, which has to be the recorded 403.
async fn shown(route: &Route, context: RequestContext) -> Option<Vec<Value>> {
    let wanted: Vec<(&str, &str)> = match route.path {
        "admin/datastore/{store}/namespace" => vec![("store", "main"), ("parent", "a")],
        "nodes/{node}/tasks" => vec![("node", "localhost"), ("limit", "0")],
        _ => Vec::new(),
    };
    let params = match wanted.is_empty() {
        true => samples(route),
        false => super::params::check(route.params, super::params::Received::from_query(&wanted, "").unwrap()).unwrap(),
    };
    let data = match (route.handler)(context, params).await {
        Ok(Reply::Data(outcome)) => outcome.data,
        Ok(Reply::Rows(rows)) => {
            let body = rows.into_response(Format::Json).await.unwrap().into_body().collect().await.unwrap().to_bytes();
            serde_json::from_slice::<Value>(&body).unwrap()["data"].take()
        }
        Ok(Reply::Raw(_)) => panic!("{route:?} is no list"),
        Err(e) => {
            assert_eq!((e.kind(), e.to_string().as_str()), (Kind::Denied, "permission check failed"), "{route:?}");
            return None;
        }
    };
    Some(data.as_array().unwrap().clone())
}

/// What tells entries of a list apart; numbers about the disk do not.
fn names<'a>(entries: impl IntoIterator<Item = &'a Value>) -> Vec<Vec<&'a Value>> {
    let keys = ["name", "store", "id", "ns", "upid", "userid", "path", "ugid", "roleid"];
    entries.into_iter().map(|entry| keys.iter().filter_map(|key| entry.get(key)).collect()).collect()
}

/// Permissions in this test's own words: `role` for `auth` at `place`, alone in the world or with one that says the same for a token.
#[derive(Clone, Copy, Debug)]
struct Given<'a> {
    auth: &'a str,
    place: &'a str,
    role: Role,
    propagate: bool,
}

impl Given<'_> {
    fn at(&self, path: &str) -> Privileges {
        let reaches = self.place == "/" || path == self.place || path.starts_with(&format!("{}/", self.place));
        let holds = path == self.place || self.propagate && reaches;
        if holds { self.role.privileges() } else { Privileges::NONE }
    }

    /// Whether anything is held below a path because something was given there.
    fn is_below(&self, path: &str) -> bool {
        self.place.starts_with(&format!("{path}/")) && !self.role.privileges().is_empty()
    }
}

/// Whether an entry of a list has to be shown to `caller`, of whom (and of whose user) these permissions speak.
fn is_due(filter: &RowFilter, entry: &Value, caller: &str, given: &[Given<'_>]) -> bool {
    let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
    let is_token = caller == TOKEN;
    // A token may do what both it and its user may.
    let asked: Vec<&str> = if is_token { vec![TOKEN, USER] } else { vec![USER] };
    let all = |holds: &dyn Fn(&Given<'_>) -> bool| {
        asked.iter().all(|auth| given.iter().any(|given| given.auth == *auth && holds(given)))
    };
    let held = |wanted: Privileges, path: &str| {
        let of = |auth: &str| {
            let own = given.iter().filter(|given| given.auth == auth).map(|given| given.at(path));
            own.fold(Privileges::NONE, Privileges::union)
        };
        asked.iter().map(|auth| of(auth)).fold(Privileges::ALL, Privileges::intersection).has_any(wanted)
    };
    let store = match entry.get("name").or_else(|| entry.get("store")) {
        Some(name) => format!("/datastore/{}", name.as_str().unwrap()),
        None => "/datastore/main".to_owned(),
    };
    let grants = |&(wanted, place): &(Privileges, Where)| match place {
        Where::At(path) => held(wanted, path),
        Where::EachDatastore => held(wanted, &store),
        Where::BelowDatastore => all(&|given| given.is_below(&store)),
        Where::JobNamespace | Where::EachNamespace => {
            held(wanted, format!("{store}/{}", text("ns")).trim_end_matches('/'))
        }
        Where::TaskDatastore(types) => {
            let upid: Upid = text("upid").parse().unwrap();
            let store = upid.worker_id.unwrap().split(':').next().unwrap().to_owned();
            types.contains(&upid.worker_type.as_str()) && held(wanted, &format!("/datastore/{store}"))
        }
        Where::Namespace => panic!("a list looks at one place for all"),
    };
    let own = match filter.own {
        Own::Nothing => false,
        Own::Oneself => !is_token && text("userid") == USER,
        Own::Tokens => !is_token && text("ugid").starts_with("u@pbs!"),
        Own::Tasks => text("user") == TOKEN || !is_token && text("user") == USER,
    };
    own || filter.grants.iter().any(grants)
}

#[tokio::test]
async fn lists_show_what_their_row_says_and_no_more() {
    let world = world().await;
    let lists = lists();
    assert!(lists.len() >= 11, "{}", lists.len());
    let places: Vec<(&str, AclPath)> = PLACES.into_iter().map(|place| (place, place.parse().unwrap())).collect();
    let (mut cases, mut some, mut none, mut less) = (0, BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for (place, path) in &places {
        for role in Role::ALL {
            for propagate in [true, false] {
                let (place, auth) = (*place, USER);
                let user = Given { auth, place, role, propagate };
                let token = Given { auth: TOKEN, ..user };
                let (user_admin, token_admin) =
                    (Given { role: Role::Admin, ..user }, Given { role: Role::Admin, ..token });
                let with_tokens = [vec![token_admin], vec![user, token_admin], vec![user_admin, token]];
                // How far a permission reaches is the same for tokens.
                let with_tokens = with_tokens.into_iter().filter(|_| propagate);
                for given in std::iter::once(vec![user]).chain(with_tokens) {
                    let entries: Vec<_> = given.iter().map(|given| (path, given.auth, given.role, propagate)).collect();
                    world.give(&entries);
                    for (route, filter) in &lists {
                        let all = shown(route, world.context("root@pam")).await.unwrap();
                        assert!(!all.is_empty(), "{route:?}");
                        for caller in [USER, TOKEN] {
                            cases += 1;
                            let told = format!("{route:?}, {caller}, {given:?}");
                            let due: Vec<&Value> =
                                all.iter().filter(|entry| is_due(filter, entry, caller, &given)).collect();
                            let seen = shown(route, world.context(caller)).await;
                            assert_eq!(seen.is_none(), filter.is_refused_if_empty && due.is_empty(), "{told}");
                            let seen = seen.unwrap_or_default();
                            assert_eq!(names(&seen), names(due.iter().copied()), "{told}");
                            if !due.is_empty() {
                                some.insert((format!("{route:?}"), caller));
                            } else {
                                none.insert((format!("{route:?}"), caller));
                            }
                            if due.len() < all.len() && !due.is_empty() {
                                less.insert(format!("{route:?}"));
                            }
                        }
                    }
                }
            }
        }
    }
    // That nothing was shown where nothing was there would say little. Oneself, and one's own tasks, are shown always.
    assert!(cases >= 10_000, "{cases}");
    assert_eq!((some.len(), none.len()), (2 * lists.len(), 2 * lists.len() - 3), "{some:?} {none:?}");
    assert_eq!(less.len(), lists.len(), "each list was once shown in part: {less:?}");
}

/// Nobody learns from an answer whether a namespace is there that cannot be shown to them.
#[tokio::test]
async fn a_namespace_that_is_not_there_is_refused_like_one_that_is() {
    let world = world().await;
    let route = row("GET", "admin/datastore/{store}/namespace");
    let params = |parent: &'static str| {
        let given = [("store", "main"), ("parent", parent)];
        super::params::check(route.params, super::params::Received::from_query(&given, "").unwrap()).unwrap()
    };
    let place: AclPath = "/datastore/other".parse().unwrap();
    world.give(&[(&place, USER, Role::Admin, true)]);
    for parent in ["a", "a/b", "nowhere"] {
        let refused = (route.handler)(world.context(USER), params(parent)).await.unwrap_err();
        assert_eq!(
            (refused.kind(), refused.to_string().as_str()),
            (Kind::Denied, "permission check failed"),
            "{parent}"
        );
    }
}
