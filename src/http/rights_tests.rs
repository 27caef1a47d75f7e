//! The rights of every row of the table, tried with every role at every place that matters.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::context::RequestContext;
use super::params::{self, ParamKind, ParamSpec, Params, Received};
use super::rights::{Reach, Refused, enforce};
use super::router::{Access, Route};
use super::{api, test_support};
use crate::auth::{Acl, AclEntry, AclPath, Privileges, Role};
use crate::error::Kind;
use crate::types::{AuthId, Group, Namespace};

const USER: &str = "u@pbs";
const TOKEN: &str = "u@pbs!t";

/// Rows whose rule the dispatcher does not know: each is here with what somebody without any privilege gets.
const OWN_RULES: &[(&str, &str)] = &[
    ("GET admin/datastore", "an empty list"),
    ("GET admin/datastore/{store}/namespace", "403"),
    ("GET backup", "403"),
    ("GET reader", "400 no permissions"),
    ("GET version", "the version, which every client has to know"),
];

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

/// Parameters with which the row's rule can be decided.
fn samples(route: &Route) -> Params {
    let about_groups = ["ns", "parent", "backup-type", "backup-id"];
    let given: Vec<(&str, String)> = route
        .params
        .iter()
        .filter(|spec| spec.required || about_groups.contains(&spec.name))
        .map(|spec| (spec.name, sample(spec)))
        .collect();
    let path: Vec<(&str, &str)> = given.iter().map(|(name, value)| (*name, value.as_str())).collect();
    params::check(route.params, Received::from_query(&path, "").unwrap()).unwrap_or_else(|e| panic!("{route:?}: {e}"))
}

/// What the rule of a row says in this test's own words: where, what reaches everything, what reaches one's own.
fn rule(access: Access) -> Option<(AclPath, Privileges, Privileges)> {
    let store = || "/datastore/main".parse().unwrap();
    let below = || "/datastore/main/a/b".parse().unwrap();
    match access {
        Access::Anybody | Access::Authenticated | Access::Handler(_) => None,
        Access::At(path, wanted) => Some((path.parse().unwrap(), wanted, Privileges::NONE)),
        Access::Store(wanted) | Access::StoreOrBelow(wanted) => Some((store(), wanted, Privileges::NONE)),
        Access::Groups { full, own } | Access::Group { full, own } => Some((below(), full, own)),
        Access::ParentNamespace(wanted) => Some(("/datastore/main/a".parse().unwrap(), wanted, Privileges::NONE)),
    }
}

struct World {
    app: Arc<super::App>,
    _dir: tempfile::TempDir,
}

impl World {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = test_support::datastore(dir.path()).await;
        let group = dir.path().join("main/ns/a/ns/b/vm/100");
        std::fs::create_dir_all(&group).unwrap();
        let app = test_support::app(dir.path(), test_support::first_users(), [store]);
        Self { app: Arc::new(app), _dir: dir }
    }

    async fn own(&self, owner: &AuthId) {
        let store = self.app.datastore(&"main".parse().unwrap()).unwrap();
        let group: Group = "vm/100".parse().unwrap();
        let path = store.base_path().join("ns/a/ns/b/vm/100/owner");
        std::fs::write(path, format!("{owner}\n")).unwrap();
        assert_eq!(store.owner(&"a/b".parse::<Namespace>().unwrap(), &group).await.unwrap(), *owner);
    }

    fn give(&self, entries: &[(&AclPath, &str, Role, bool)]) {
        let mut users = test_support::first_users();
        let entry = |(path, auth, role, propagate): &(&AclPath, &str, Role, bool)| AclEntry {
            path: (*path).clone(),
            auth_id: auth.parse().unwrap(),
            role: *role,
            propagate: *propagate,
        };
        users.acl = Acl { entries: entries.iter().map(entry).collect() };
        self.app.users.replace(users);
    }

    async fn tried(&self, route: &Route, params: &Params, auth: &str) -> Verdict {
        let context = RequestContext {
            app: self.app.clone(),
            auth: auth.parse().unwrap(),
            peer: "127.0.0.1:1".parse().unwrap(),
            headers: http::HeaderMap::new(),
            version: http::Version::HTTP_11,
            upgrade: None,
            body: None,
            reach: Reach::Own,
        };
        match enforce(route.access, &context, params).await {
            Ok(Reach::All) => Verdict::All,
            Ok(Reach::Own) => Verdict::Own,
            Err(Refused::Plainly) => Verdict::Denied,
            Err(Refused::With(e)) if e.kind() == Kind::Denied => Verdict::Denied,
            Err(Refused::With(e)) if e.to_string().starts_with("backup owner check failed") => Verdict::NotOwner,
            Err(Refused::With(e)) => panic!("{route:?}: {e}"),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    All,
    Own,
    Denied,
    NotOwner,
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
    let (other, parent): (AclPath, AclPath) = ("/datastore/other".parse().unwrap(), AclPath::root());
    let mut enforced = 0;
    for route in api::router().routes() {
        let Some((place, full, own)) = rule(route.access) else { continue };
        enforced += 1;
        let params = samples(route);
        for owner in [USER, "somebody@pbs"] {
            world.own(&owner.parse().unwrap()).await;
            let owns = owner == USER;
            // A token is not its user: what the user owns is not the token's.
            let as_user = |held| expected(route.access, held, full, own, owns);
            let as_token = |held| expected(route.access, held, full, own, false);
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
                world.give(&[(&other, USER, role, true)]);
                assert_eq!(world.tried(route, &params, USER).await, Verdict::Denied, "{told} elsewhere");
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
    let own = |route: &&Route| matches!(route.access, Access::Authenticated | Access::Handler(_));
    let router = api::router();
    let found: BTreeSet<String> = router.routes().filter(own).map(|route| format!("{route:?}")).collect();
    let known: BTreeSet<String> = OWN_RULES.iter().map(|(row, _)| (*row).to_owned()).collect();
    assert_eq!(found, known, "a row with a rule of its own needs a test of it, and a line here");
    let open: Vec<String> =
        router.routes().filter(|r| matches!(r.access, Access::Anybody)).map(|route| format!("{route:?}")).collect();
    assert_eq!(BTreeSet::from_iter(open), BTreeSet::from(["GET ping".to_owned(), "POST access/ticket".to_owned()]));
}
