//! The rights of every row of the table, tried with every role at every place that matters.
#![expect(clippy::disallowed_methods, reason = "a test writes an owner file behind the store's back")]

use std::collections::BTreeSet;
use std::sync::Arc;

use super::context::RequestContext;
use super::params::{self, ParamKind, ParamSpec, Params, Received};
use super::reply::Format;
use super::rights::{Reach, Refused, enforce};
use super::router::{Access, BodyUse, Route};
use super::shape::Returns;
use super::{api, reply, test_support};
use crate::auth::{AclEntry, AclPath, Privileges, Role, Users};
use crate::clock::EpochSecs;
use crate::error::Error;
use crate::store::Datastore;
use crate::types::{AuthId, Group, Namespace};

pub(super) const USER: &str = "u@pbs";
pub(super) const TOKEN: &str = "u@pbs!t";

/// Rows whose rule the dispatcher does not know: each is here with what somebody without any privilege gets.
pub(super) const OWN_RULES: &[(&str, &str)] = &[
    ("DELETE access/users/{userid}/token/{token-name}", "its own, for a user; else 403"),
    ("GET access/acl", "an empty list"),
    ("GET access/permissions", "its own, for a user or a token; else 403"),
    ("GET access/roles", "the roles, which are no secret"),
    ("GET access/users", "itself, for a user"),
    ("GET access/users/{userid}", "itself, for a user; else 403"),
    ("GET access/users/{userid}/token", "its own, for a user; else 403"),
    ("GET access/users/{userid}/token/{token-name}", "its own, for a user; else 403"),
    ("POST access/users/{userid}/token/{token-name}", "its own, for a user; else 403"),
    ("PUT access/acl", "those of its own tokens, for a user; else 403"),
    ("PUT access/password", "its own, for a user who knows the present one; else 403"),
    ("PUT access/users/{userid}", "its own texts, for a user; else 403"),
    ("PUT access/users/{userid}/token/{token-name}", "its own, for a user; else 403"),
    ("DELETE config/prune/{id}", "404; 403 of a job that is there"),
    ("DELETE config/verify/{id}", "404; 403 of a job that is there"),
    ("GET admin/datastore", "an empty list"),
    ("GET admin/gc", "an empty list"),
    ("GET admin/prune", "an empty list"),
    ("GET admin/verify", "an empty list"),
    ("GET config/prune", "an empty list"),
    ("GET config/prune/{id}", "404; 403 of a job that is there"),
    ("GET config/verify", "an empty list"),
    ("GET config/verify/{id}", "404; 403 of a job that is there"),
    ("POST admin/prune/{id}/run", "404; 403 of a job that is there"),
    ("POST admin/verify/{id}/run", "404; 403 of a job that is there"),
    ("POST config/prune", "403"),
    ("POST config/verify", "403"),
    ("PUT config/prune/{id}", "404; 403 of a job that is there"),
    ("PUT config/verify/{id}", "404; 403 of a job that is there"),
    ("GET admin/datastore/{store}/namespace", "403"),
    ("DELETE nodes/{node}/tasks/{upid}", "403"),
    ("GET backup", "403 missing permissions 'Datastore.Backup' on '/datastore/main/a/b'"),
    ("GET nodes", "the one node's name"),
    ("GET nodes/{node}/identity", "an id that is no secret"),
    ("GET nodes/{node}/subscription", "that there is none"),
    ("GET nodes/{node}/tasks", "an empty list"),
    ("GET nodes/{node}/tasks/{upid}/log", "400 task access not allowed"),
    ("GET nodes/{node}/tasks/{upid}/status", "400 task access not allowed"),
    ("GET config/datastore", "an empty list"),
    ("GET reader", "400 no permissions on /datastore/main/a/b"),
    ("GET status/datastore-usage", "an empty list"),
    ("GET version", "the version, which every client has to know"),
];

/// With what [`OWN_RULES`] has a handler refuse whom it may not let in: the status, and how the text begins.
pub(super) fn refusal(row: &str) -> Option<(u16, &'static str)> {
    let (_, said) = OWN_RULES.iter().find(|(own, _)| *own == row)?;
    match said.split_once(' ').unwrap_or((said, "")) {
        ("400", words) => Some((400, words)),
        ("403", "") => Some((403, "permission check failed")),
        ("403", words) => Some((403, words)),
        _ if said.contains("403") => Some((403, "permission check failed")),
        _ => None,
    }
}

/// A value that a parameter takes.
fn sample(spec: &ParamSpec) -> String {
    let known = [
        ("store", "main"),
        ("ns", "a/b"),
        ("parent", "a"),
        ("backup-type", "vm"),
        ("backup-id", "100"),
        ("backup-time", "1717597418"),
    ];
    match known.iter().find(|(name, _)| *name == spec.name) {
        Some((_, value)) => (*value).to_owned(),
        None => sample_of(spec.name, &spec.kind),
    }
}

fn sample_of(name: &str, kind: &ParamKind) -> String {
    match kind {
        ParamKind::Text { min, max, matches, .. } => {
            let upid = "UPID:localhost:0000138E:0008DD54:00000018:6B033371:garbage_collection:main:x@pbs:";
            let tries = ["main", "x@pbs", "x@pbs!t", "/datastore/main", upid, "daily", "a.blob", "", "12345678", "1:2"];
            let fits = |text: &&str| (*min..=*max).contains(&text.chars().count()) && matches(text);
            let found = tries.into_iter().find(fits);
            found.unwrap_or_else(|| panic!("no sample for the parameter {name}: add one to this test")).to_owned()
        }
        ParamKind::Integer { min, .. } => (*min).max(1).to_string(),
        ParamKind::Boolean => "true".to_owned(),
        ParamKind::Enum(words) => words[0].to_owned(),
        ParamKind::List(of) => sample_of(name, of),
    }
}

/// Names and values with which the row's rule can be decided.
pub(super) fn given(route: &Route) -> Vec<(&'static str, String)> {
    let about_whom = ["ns", "parent", "backup-type", "backup-id", "auth-id"];
    let wanted = |spec: &&ParamSpec| spec.required || about_whom.contains(&spec.name);
    route.params.iter().filter(wanted).map(|spec| (spec.name, sample(spec))).collect()
}

pub(super) fn samples(route: &Route) -> Params {
    let given = given(route);
    let path: Vec<(&str, &str)> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
    params::check(route.params, Received::from_query(&path, "").unwrap()).unwrap_or_else(|e| panic!("{route:?}: {e}"))
}

/// What the rule of a row says in this test's own words: where, what reaches everything, what reaches one's own.
fn rule(access: Access) -> Option<(AclPath, Privileges, Privileges)> {
    let store = || "/datastore/main".parse().unwrap();
    let below = || "/datastore/main/a/b".parse().unwrap();
    match access {
        Access::Anybody | Access::Authenticated | Access::Listed(_) | Access::Handler(_) => None,
        Access::At(path, wanted) => Some((path.parse().unwrap(), wanted, Privileges::NONE)),
        Access::Store(wanted) | Access::StoreOrBelow(wanted) => Some((store(), wanted, Privileges::NONE)),
        Access::Groups { full, own } | Access::Group { full, own } => Some((below(), full, own)),
        Access::ParentNamespace(wanted) => Some(("/datastore/main/a".parse().unwrap(), wanted, Privileges::NONE)),
    }
}

/// Places that are no ancestors of `place`: another datastore, siblings whose names begin alike, another namespace.
fn elsewhere(place: &AclPath) -> Vec<AclPath> {
    let place = place.to_string();
    let mut found = vec!["/datastore/other".to_owned(), "/remote".to_owned()];
    if place != "/" {
        found.extend([format!("{place}2"), place[..place.len() - 1].to_owned()]);
    }
    if place.starts_with("/datastore/main/") {
        found.extend([format!("{place}/c"), "/datastore/main/z".to_owned(), "/datastore/main2/a/b".to_owned()]);
    }
    // Cut short, a path may be that of an ancestor.
    let above = |path: &String| place.starts_with(&format!("{}/", path.trim_end_matches('/')));
    found.into_iter().filter(|path| !above(path)).filter_map(|path| path.parse().ok()).collect()
}

pub(super) struct World {
    app: Arc<super::App>,
    _dir: tempfile::TempDir,
}

impl World {
    pub(super) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = test_support::datastore(dir.path()).await;
        Self::of(dir, vec![store])
    }

    /// With a second datastore.
    pub(super) async fn with_other() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let main = test_support::datastore(dir.path()).await;
        let other = test_support::datastore_named(dir.path(), "other").await;
        Self::of(dir, vec![main, other])
    }

    fn of(dir: tempfile::TempDir, stores: Vec<Datastore>) -> Self {
        // Of two groups, the one beside that which the samples name is always the user's.
        for group in ["100", "101"] {
            std::fs::create_dir_all(dir.path().join("main/ns/a/ns/b/vm").join(group)).unwrap();
        }
        // The snapshot that they name is there, so that it can be read, and a backup of it gets as far as that.
        std::fs::create_dir(dir.path().join("main/ns/a/ns/b/vm/100/2024-06-05T14:23:38Z")).unwrap();
        std::fs::write(dir.path().join("main/ns/a/ns/b/vm/101/owner"), format!("{USER}\n")).unwrap();
        let app = test_support::app(dir.path(), test_support::first_users(), stores);
        Self { app: Arc::new(app), _dir: dir }
    }

    pub(super) async fn own(&self, owner: &AuthId) {
        let store = self.app.datastore(&"main".parse().unwrap()).unwrap();
        let group: Group = "vm/100".parse().unwrap();
        let path = store.base_path().join("ns/a/ns/b/vm/100/owner");
        std::fs::write(path, format!("{owner}\n")).unwrap();
        assert_eq!(store.owner(&"a/b".parse::<Namespace>().unwrap(), &group).await.unwrap(), *owner);
    }

    pub(super) fn give(&self, entries: &[(&AclPath, &str, Role, bool)]) {
        let mut users = test_support::first_users();
        for user in [USER, "x@pbs"] {
            users.add_user(&user.parse().unwrap(), None);
            let token = format!("{user}!t").parse().unwrap();
            users.set_token(&token, "x", &test_support::keys().tokens, None).unwrap();
        }
        let entry = |(path, auth, role, propagate): &(&AclPath, &str, Role, bool)| AclEntry {
            path: (*path).clone(),
            auth_id: auth.parse().unwrap(),
            role: *role,
            propagate: *propagate,
        };
        users.acl = entries.iter().map(entry).collect();
        self.app.users.replace(users);
    }

    pub(super) fn context(&self, auth: &str) -> RequestContext {
        RequestContext {
            app: self.app.clone(),
            auth: auth.parse().unwrap(),
            peer: "127.0.0.1:1".parse().unwrap(),
            headers: http::HeaderMap::new(),
            version: http::Version::HTTP_11,
            upgrade: None,
            body: None,
            reach: Reach::Own,
        }
    }

    async fn tried(&self, route: &Route, params: &Params, auth: &str) -> Verdict {
        match enforce(route.access, &self.context(auth), params).await {
            Ok(Reach::All) => Verdict::All,
            Ok(Reach::Own) => Verdict::Own,
            // The dispatcher's 403, in the words of all.
            Err(Refused::Plainly) => Verdict::Denied,
            Err(Refused::With(e)) => match status_and_words(&e) {
                (403, words) if words.starts_with("permission check failed - missing ") => Verdict::Denied,
                (400, words) if words.starts_with(&format!("backup owner check failed ({auth} != ")) => {
                    Verdict::NotOwner
                }
                other => panic!("{route:?}: {other:?}"),
            },
        }
    }
}

/// An error as clients see it.
pub(super) fn status_and_words(error: &Error) -> (u16, String) {
    (reply::error(Format::Json, error).status().as_u16(), error.to_string())
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    All,
    Own,
    Denied,
    NotOwner,
}

/// Places that are not `place` but look like it, or lie beside it: privileges there reach nothing of it.
fn beside(place: &AclPath) -> Vec<AclPath> {
    let place = place.to_string();
    let (above, last) = place.rsplit_once('/').unwrap();
    let near = [format!("{place}2"), format!("{place}-x"), format!("{above}/{}", &last[..last.len() - 1])];
    let far = ["/datastore/main/b", "/datastore/other"].map(str::to_owned);
    // Not all of them are places: nothing is called `/system2`.
    near.into_iter().chain(far).filter(|path| !path.ends_with('/')).filter_map(|path| path.parse().ok()).collect()
}

/// What privileges on something below the place of the rule give.
fn expected_below(access: Access, held: Privileges) -> Verdict {
    let counts = matches!(access, Access::StoreOrBelow(_)) && !held.is_empty();
    if counts { Verdict::All } else { Verdict::Denied }
}

/// Who owns the group that the samples name: the user, the user's token, another token of theirs, somebody else.
pub(super) const OWNERS: [&str; 4] = [USER, TOKEN, "u@pbs!other", "somebody@pbs"];

/// A token is not its user: what the user owns is not the token's. The reverse holds.
pub(super) fn owns(caller: &str, owner: &str) -> bool {
    caller == owner || caller == USER && owner.starts_with("u@pbs!")
}

/// What the rule gives to privileges that hold where it looks.
fn expected(access: Access, held: Privileges, full: Privileges, own: Privileges, owns: bool) -> Verdict {
    if held.has_any(full) {
        Verdict::All
    } else if !held.has_any(own) {
        Verdict::Denied
    } else if matches!(access, Access::Group { .. }) && !owns {
        Verdict::NotOwner
    } else {
        Verdict::Own
    }
}

#[tokio::test]
async fn every_row_lets_in_whom_it_names_and_nobody_else() {
    let world = World::new().await;
    let parent = AclPath::root();
    let mut enforced = 0;
    for route in api::router().routes() {
        let Some((place, full, own)) = rule(route.access) else { continue };
        enforced += 1;
        let params = samples(route);
        for owner in OWNERS {
            world.own(&owner.parse().unwrap()).await;
            let as_user = |held| expected(route.access, held, full, own, owns(USER, owner));
            let as_token = |held| expected(route.access, held, full, own, owns(TOKEN, owner));
            world.give(&[]);
            assert_eq!(
                world.tried(route, &params, USER).await,
                Verdict::Denied,
                "{route:?}: no privilege, owner {owner}"
            );
            for role in Role::ALL {
                let held = role.privileges();
                let told = format!("{route:?}, {role}, owner {owner}");
                for (path, propagate) in [(&place, true), (&place, false), (&parent, true)] {
                    world.give(&[(path, USER, role, propagate)]);
                    assert_eq!(world.tried(route, &params, USER).await, as_user(held), "{told} at {path}");
                }
                for other in beside(&place).iter().filter(|other| !other.is_below(&place)) {
                    world.give(&[(other, USER, role, true)]);
                    assert_eq!(world.tried(route, &params, USER).await, Verdict::Denied, "{told} at {other} only");
                }
                let below: AclPath = format!("{place}/deeper").parse().unwrap();
                world.give(&[(&below, USER, role, true)]);
                let want = expected_below(route.access, held);
                assert_eq!(world.tried(route, &params, USER).await, want, "{told} at {below} only");
                for elsewhere in elsewhere(&place) {
                    world.give(&[(&elsewhere, USER, role, true)]);
                    assert_eq!(world.tried(route, &params, USER).await, Verdict::Denied, "{told} at {elsewhere}");
                }
                if place != parent {
                    world.give(&[(&parent, USER, role, false)]);
                    assert_eq!(world.tried(route, &params, USER).await, Verdict::Denied, "{told} at the root alone");
                }
                world.give(&[(&place, USER, role, true)]);
                assert_eq!(world.tried(route, &params, TOKEN).await, Verdict::Denied, "{told}, token without any");
                world.give(&[(&place, TOKEN, Role::Admin, true)]);
                assert_eq!(world.tried(route, &params, TOKEN).await, Verdict::Denied, "{told}, token without its user");
                world.give(&[(&place, USER, role, true), (&place, TOKEN, Role::Admin, true)]);
                assert_eq!(world.tried(route, &params, TOKEN).await, as_token(held), "{told}, token of such a user");
                world.give(&[(&place, USER, Role::Admin, true), (&place, TOKEN, role, true)]);
                assert_eq!(world.tried(route, &params, TOKEN).await, as_token(held), "{told}, token with less");
                world.give(&[(&parent, USER, role, true), (&place, USER, Role::NoAccess, true)]);
                assert_eq!(world.tried(route, &params, USER).await, Verdict::Denied, "{told}, taken away");
            }
        }
    }
    assert!(enforced >= 8, "{enforced}");
}

#[test]
fn rules_of_handlers_are_known_by_name() {
    let own = |route: &&Route| matches!(route.access, Access::Authenticated | Access::Listed(_) | Access::Handler(_));
    let router = api::router();
    let found: BTreeSet<String> = router.routes().filter(own).map(|route| format!("{route:?}")).collect();
    let known: BTreeSet<String> = OWN_RULES.iter().map(|(row, _)| (*row).to_owned()).collect();
    assert_eq!(found, known, "a row with a rule of its own needs a test of it, and a line here");
    let open: Vec<String> =
        router.routes().filter(|r| matches!(r.access, Access::Anybody)).map(|route| format!("{route:?}")).collect();
    assert_eq!(
        BTreeSet::from_iter(open),
        BTreeSet::from(["GET access/domains", "GET ping", "POST access/ticket"].map(str::to_owned))
    );
}

/// The row as a request: the path below `/api2/FORMAT/`, parameters in the query.
pub(super) fn target(route: &Route, format: &str) -> String {
    let given = given(route);
    let mut path = route.path.to_owned();
    let mut query = form_urlencoded::Serializer::new(String::new());
    for (name, value) in &given {
        let slot = format!("{{{name}}}");
        if path.contains(&slot) {
            let escaped = percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC);
            path = path.replace(&slot, &escaped.to_string());
        } else {
            query.append_pair(name, value);
        }
    }
    format!("/api2/{format}/{path}?{}", query.finish())
}

async fn wired() -> test_support::Tested {
    wired_with(|_| {}).await
}

/// A server that knows [`USER`] and [`TOKEN`], and whom `more` adds.
pub(super) async fn wired_with(more: impl FnOnce(&mut Users)) -> test_support::Tested {
    let World { app, _dir } = World::new().await;
    let mut app = Arc::into_inner(app).unwrap();
    let mut users = test_support::first_users();
    add(&mut users, "u", None, None);
    more(&mut users);
    app.users = super::user_book::tests::InMemory::book(users);
    test_support::serve(app, _dir, 64)
}

/// `{name}@pbs` with the token `{name}@pbs!t` of the secret `x`; each may have all privileges at a place.
fn add(users: &mut Users, name: &str, user_at: Option<&str>, token_at: Option<&str>) {
    let (user, token) = (format!("{name}@pbs"), format!("{name}@pbs!t"));
    users.add_user(&user.parse().unwrap(), None);
    users.set_token(&token.parse().unwrap(), "x", &test_support::keys().tokens, None).unwrap();
    for (auth, path) in [(user, user_at), (token, token_at)] {
        let Some(path) = path else { continue };
        let (path, auth_id) = (path.parse().unwrap(), auth.parse().unwrap());
        users.allow(AclEntry { path, auth_id, role: Role::Admin, propagate: true });
    }
}

fn token_of(name: &str) -> String {
    format!("authorization: PBSAPIToken {name}@pbs!t:x\r\n")
}

#[tokio::test]
async fn no_row_is_reached_by_whom_is_disabled_or_expired() {
    let ended =
        [("a", "a@pbs", false, 0), ("b", "b@pbs", true, 1), ("c", "c@pbs!t", false, 0), ("d", "d@pbs!t", true, 1)];
    let server = wired_with(|users| {
        add(users, "fine", Some("/"), Some("/"));
        for (name, auth, is_enabled, expire) in ended {
            add(users, name, Some("/"), Some("/"));
            users.set_validity(&auth.parse().unwrap(), is_enabled, EpochSecs(expire)).unwrap();
        }
    })
    .await;
    let path = "/api2/json/admin/datastore/main/status";
    let answer = server.request("GET", path, &token_of("fine"), None).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "nothing else is in their way: {answer:.300}");
    let store = server.dir().join("main");
    let before = tree(&store);
    for route in api::router().routes().filter(|route| !matches!(route.access, Access::Anybody)) {
        for (name, auth, ..) in ended {
            let answer = server.request(route.method.as_str(), &target(route, "json"), &token_of(name), None).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{route:?}, {auth}: {answer:.300}");
            assert!(answer.contains("disabled or expired"), "{route:?}, {auth}: {answer:.300}");
        }
    }
    assert_eq!(tree(&store), before);
}

const STRANGER: &str = "authorization: PBSAPIToken u@pbs!t:x\r\n";

#[tokio::test]
async fn no_row_is_reached_without_login_or_without_its_privilege() {
    let server = wired_with(|users| {
        add(users, "user-only", Some("/"), None);
        add(users, "token-only", None, Some("/"));
        add(users, "elsewhere", Some("/datastore/other"), Some("/datastore/other"));
    })
    .await;
    let store = server.dir().join("main");
    let before = tree(&store);
    for route in api::router().routes() {
        let method = route.method.as_str();
        if !matches!(route.access, Access::Anybody) {
            for format in ["json", "extjs"] {
                let answer = server.request(method, &target(route, format), "", None).await;
                assert!(answer.starts_with("HTTP/1.1 401 "), "{route:?}: {answer:.300}");
                assert!(answer.contains("authentication failed"), "{route:?}: {answer:.300}");
            }
            let answer = server.request(method, &target(route, "json"), "cookie: PBSAuthCookie=x\r\n", None).await;
            assert!(answer.starts_with("HTTP/1.1 401 "), "{route:?}: {answer:.300}");
        }
        if rule(route.access).is_some() {
            for caller in ["u", "user-only", "token-only", "elsewhere"] {
                let answer = server.request(method, &target(route, "json"), &token_of(caller), None).await;
                assert!(answer.starts_with("HTTP/1.1 403 "), "{route:?}, {caller}: {answer:.300}");
                assert!(answer.contains("\r\n\r\npermission check failed"), "{route:?}, {caller}: {answer:.300}");
            }
            let answer = server.request(method, &target(route, "extjs"), STRANGER, None).await;
            assert!(
                answer.starts_with("HTTP/1.1 200 ") && answer.contains("\"status\":403"),
                "{route:?}: {answer:.300}"
            );
        }
    }
    assert_eq!(tree(&store), before);
}

#[tokio::test]
async fn who_may_not_audit_a_datastore_learns_nothing_of_its_space() {
    let server = wired().await;
    let path = "/api2/json/status/datastore-usage";
    let answer = server.request("GET", path, STRANGER, None).await;
    assert!(answer.ends_with("{\"data\":[]}"), "{answer}");
    let answer = server.get(path).await;
    assert!(answer.contains("\"store\":\"main\"") && answer.contains("\"avail\":"), "{answer}");
}

/// Every path in a directory.
fn tree(dir: &std::path::Path) -> BTreeSet<std::path::PathBuf> {
    let mut found = BTreeSet::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.insert(path);
    }
    found
}

#[tokio::test]
async fn answers_have_the_shape_of_their_row() {
    let server = wired().await;
    let mut answered = Vec::new();
    for route in api::router().routes().filter(|route| route.method == http::Method::GET) {
        let (shape, beside) = match route.returns {
            Returns::Data(shape) => (shape, [].as_slice()),
            Returns::With(shape, beside) => (shape, beside),
            Returns::Own(_) | Returns::OwnOr(..) | Returns::Stream(_) | Returns::Upgrade => continue,
        };
        assert_eq!(route.body, BodyUse::Parameters, "{route:?}");
        let answer = server.get(&target(route, "json")).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if !head.starts_with("HTTP/1.1 200 ") {
            assert!(head.starts_with("HTTP/1.1 4"), "{route:?}: {answer:.300}");
            continue;
        }
        let mut object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(&unchunked(head, body)).unwrap();
        let data = object.remove("data").unwrap();
        shape.check(&data).unwrap_or_else(|e| panic!("{route:?}: {e}"));
        let names: BTreeSet<&str> = object.keys().map(String::as_str).collect();
        assert_eq!(names, beside.iter().map(|field| field.name).collect(), "{route:?}");
        answered.push(format!("{route:?}"));
    }
    assert!(answered.len() >= 5, "{answered:?}");
}

/// A body without its transfer encoding.
pub(super) fn unchunked(head: &str, body: &str) -> String {
    if !head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
        return body.to_owned();
    }
    let (mut whole, mut rest) = (String::new(), body);
    while let Some((length, after)) = rest.split_once("\r\n") {
        let length = usize::from_str_radix(length, 16).unwrap();
        whole.push_str(&after[..length]);
        rest = after[length..].trim_start_matches("\r\n");
    }
    whole
}

#[tokio::test]
async fn every_path_above_a_row_lists_what_lies_below() {
    let server = wired().await;
    let router = api::router();
    let paths: Vec<Vec<&str>> = router.routes().map(|route| route.path.split('/').collect()).collect();
    let mut nodes: BTreeSet<Vec<&str>> = BTreeSet::new();
    for path in &paths {
        nodes.extend((0..path.len()).map(|depth| path[..depth].to_vec()));
    }
    let served = |node: &Vec<&str>| {
        router.routes().any(|r| r.method == http::Method::GET && r.path.split('/').collect::<Vec<_>>() == *node)
    };
    for node in nodes.iter().filter(|node| !served(node)) {
        let shown: Vec<&str> = node.iter().map(|part| if part.starts_with('{') { "anything" } else { part }).collect();
        let below: BTreeSet<&str> = paths
            .iter()
            .filter(|path| path.len() > node.len() && path.starts_with(node) && !path[node.len()].starts_with('{'))
            .map(|path| path[node.len()])
            .collect();
        let want: Vec<_> = below.iter().map(|name| serde_json::json!({ "subdir": name })).collect();
        let answer = server.get(&format!("/api2/json/{}", shown.join("/"))).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{node:?}: {answer:.300}");
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["data"], serde_json::Value::from(want), "{node:?}");
    }
}

/// What each row of [`OWN_RULES`] says is what a token without any privilege gets, and one that has them only by itself or only by
/// its user.
#[tokio::test]
async fn rules_of_handlers_keep_a_stranger_out_as_they_say() {
    let server = wired_with(|users| {
        add(users, "user-only", Some("/"), None);
        add(users, "token-only", None, Some("/"));
    })
    .await;
    let store = server.dir().join("main");
    let before = tree(&store);
    let callers = ["u", "user-only", "token-only"];
    // A machine without an id has none to tell.
    let has_id = std::path::Path::new("/etc/machine-id").exists();
    for (row, said) in OWN_RULES.iter().filter(|(row, _)| has_id || !row.ends_with("/identity")) {
        let route = api::router().routes().find(|route| format!("{route:?}") == *row).unwrap();
        let (status, words) = match (*said, refusal(row)) {
            // Of jobs there are none here.
            ("404; 403 of a job that is there", _) => (404, "no such"),
            (_, Some(refusal)) => refusal,
            (_, None) => (200, ""),
        };
        for caller in callers {
            let answer = server.request(route.method.as_str(), &target(route, "json"), &token_of(caller), None).await;
            let (head, body) = answer.split_once("\r\n\r\n").unwrap();
            let body = unchunked(head, body);
            assert!(
                head.starts_with(&format!("HTTP/1.1 {status} ")) && body.contains(words),
                "{row}, {caller}: {answer:.300}"
            );
            let data = || serde_json::from_str::<serde_json::Value>(&body).unwrap()["data"].clone();
            if *said == "an empty list" {
                assert_eq!(data(), serde_json::json!([]), "{row}, {caller}");
            }
        }
    }
    assert_eq!(tree(&store), before);
}
