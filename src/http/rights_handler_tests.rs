//! Rules that handlers enforce themselves, tried from what their rows declare; and that an account which has ended reaches no row.

use std::collections::BTreeSet;

use super::api;
use super::rights::{HandlerRule, Where};
use super::rights_tests::{TOKEN, USER, World, given, samples, target, wired_with};
use super::router::{Access, Reply, Route};
use super::test_support;
use crate::auth::{AclPath, Privileges, Role};
use crate::clock::EpochSecs;
use crate::error::Kind;

/// The user whom the samples of a request name, and who began the task that they name.
const NAMED: &str = "x@pbs";
const NAMED_TOKEN: &str = "x@pbs!t";

/// Places beside everything that the samples name: siblings whose names begin alike, and the levels below.
const ELSEWHERE: [&str; 11] = [
    "/datastore/main2",
    "/datastore/mai",
    "/datastore/other/a/b",
    "/datastore/main/a2",
    "/datastore/main/a/b2",
    "/datastore/main/b",
    "/access/acl/x",
    "/access/users/u",
    "/system/tasks/main",
    "/system/log",
    "/remote",
];

fn place(at: Where) -> Option<AclPath> {
    let path = match at {
        Where::At(path) => path,
        Where::Namespace | Where::JobNamespace => "/datastore/main/a/b",
        Where::EachNamespace => "/datastore/main/a",
        Where::EachDatastore => "/datastore/main",
        // Samples name a garbage collection.
        Where::TaskDatastore(types) => {
            return types.contains(&"garbage_collection").then(|| "/datastore/main".parse().unwrap());
        }
    };
    Some(path.parse().unwrap())
}

/// Rows with a rule of the handler's.
fn rules() -> Vec<(&'static Route, HandlerRule)> {
    let rule = |route: &'static Route| match route.access {
        Access::Handler(rule) => Some((route, rule)),
        _ => None,
    };
    api::router().routes().filter_map(rule).collect()
}

/// What an answer looks like to somebody who may not: nothing in it, or a refusal.
async fn passes(world: &World, route: &Route, auth: &str) -> bool {
    // Both jobs are there, whatever calls before this one did to them.
    for path in ["config/prune", "config/verify"] {
        let row = api::router().routes().find(|row| format!("{row:?}") == format!("POST {path}")).unwrap();
        let _ = (row.handler)(world.context("root@pam"), samples(row)).await;
    }
    match (route.handler)(world.context(auth), samples(route)).await {
        Ok(Reply::Data(outcome)) => outcome.data.as_array().is_none_or(|rows| !rows.is_empty()),
        Ok(Reply::Rows(_) | Reply::Raw(_)) => true,
        // Recorded: two refusals are 400.
        Err(e) if e.kind() == Kind::Denied => false,
        Err(e) => {
            !["task access not allowed", "no permissions on"].iter().any(|words| e.to_string().starts_with(words))
        }
    }
}

#[tokio::test]
async fn handlers_let_in_whom_their_row_names_and_nobody_else() {
    let world = World::new().await;
    world.own(&USER.parse().unwrap()).await;
    let rules = rules();
    assert!(rules.len() >= 20, "{}", rules.len());
    for (route, HandlerRule { grants, .. }) in rules {
        let places: Vec<(Privileges, AclPath)> =
            grants.iter().filter_map(|(wanted, at)| Some((*wanted, place(*at)?))).collect();
        world.give(&[]);
        assert!(!passes(&world, route, USER).await, "{route:?}: owns the group, no privilege");
        for role in Role::ALL {
            let held = role.privileges();
            let told = format!("{route:?}, {role}");
            let any = places.iter().any(|(wanted, _)| held.has_any(*wanted));
            world.give(&[(&AclPath::root(), USER, role, true)]);
            assert_eq!(passes(&world, route, USER).await, any, "{told} everywhere");
            world.give(&[(&AclPath::root(), USER, role, false)]);
            assert!(!passes(&world, route, USER).await, "{told} at the root alone");
            for elsewhere in ELSEWHERE {
                world.give(&[(&elsewhere.parse().unwrap(), USER, role, true)]);
                assert!(!passes(&world, route, USER).await, "{told} at {elsewhere}");
            }
            for (_, place) in &places {
                let here = places.iter().any(|(wanted, at)| at == place && held.has_any(*wanted));
                for propagate in [true, false] {
                    world.give(&[(place, USER, role, propagate)]);
                    assert_eq!(passes(&world, route, USER).await, here, "{told} at {place}, propagate {propagate}");
                }
                assert!(!passes(&world, route, TOKEN).await, "{told} at {place}, token without any");
                world.give(&[(place, TOKEN, Role::Admin, true)]);
                assert!(!passes(&world, route, TOKEN).await, "{told} at {place}, token without its user");
                world.give(&[(place, USER, role, true), (place, TOKEN, Role::Admin, true)]);
                assert_eq!(passes(&world, route, TOKEN).await, here, "{told} at {place}, token of such a user");
                world.give(&[(place, USER, Role::Admin, true), (place, TOKEN, role, true)]);
                assert_eq!(passes(&world, route, TOKEN).await, here, "{told} at {place}, token with less");
            }
        }
    }
}

/// Rows about users and their tasks: one's own without any privilege, but not by a token, which is nobody's self.
#[tokio::test]
async fn what_is_ones_own_is_not_ones_tokens() {
    let world = World::new().await;
    world.give(&[]);
    let mut tried = 0;
    for (route, rule) in rules() {
        let names = given(route).iter().any(|(name, _)| ["userid", "auth-id", "upid"].contains(name));
        if !names || !rule.also.contains("own") && !rule.also.contains("started") {
            continue;
        }
        tried += 1;
        assert!(!passes(&world, route, NAMED_TOKEN).await, "{route:?}: a token");
        assert!(!passes(&world, route, USER).await, "{route:?}: another user");
        let is_of_tokens = given(route).iter().any(|(name, value)| *name == "auth-id" && value == NAMED);
        assert_eq!(passes(&world, route, NAMED).await, !is_of_tokens, "{route:?}: oneself");
    }
    assert!(tried >= 8, "{tried}");
}

#[tokio::test]
async fn an_account_that_has_ended_reaches_no_row() {
    for (user, token) in
        [((false, 0), (true, 0)), ((true, 1), (true, 0)), ((true, 0), (false, 0)), ((true, 0), (true, 1))]
    {
        let mut stamp = String::new();
        let server = wired_with(|users| {
            users.acl = [USER, TOKEN]
                .map(|auth| crate::auth::AclEntry {
                    path: AclPath::root(),
                    auth_id: auth.parse().unwrap(),
                    role: Role::Admin,
                    propagate: true,
                })
                .into_iter()
                .collect();
            for (auth, (enabled, expire)) in [(USER, user), (TOKEN, token)] {
                users.set_validity(&auth.parse().unwrap(), enabled, EpochSecs(expire)).unwrap();
            }
            users.ticket_stamp(&USER.parse().unwrap()).clone_into(&mut stamp);
        })
        .await;
        let keys = test_support::keys();
        let ticket = keys.tickets.issue_ticket(&USER.parse().unwrap(), crate::clock::Clock::system().now(), &stamp);
        let ticket = percent_encoding::utf8_percent_encode(&ticket, percent_encoding::NON_ALPHANUMERIC).to_string();
        let csrf = keys.tickets.issue_csrf(&USER.parse().unwrap(), crate::clock::Clock::system().now());
        let by_ticket = format!("cookie: PBSAuthCookie={ticket}\r\nCSRFPreventionToken: {csrf}\r\n");
        let mut logins = vec!["authorization: PBSAPIToken u@pbs!t:x\r\n".to_owned()];
        // A token that has ended is no matter to its user's tickets.
        if user != (true, 0) {
            logins.push(by_ticket);
        }
        let mut refused = BTreeSet::new();
        for route in api::router().routes().filter(|route| !matches!(route.access, Access::Anybody)) {
            for login in &logins {
                let answer = server.request(route.method.as_str(), &target(route, "json"), login, None).await;
                let told = format!("{route:?}, user {user:?}, token {token:?}, {login}: {answer:.300}");
                assert!(answer.starts_with("HTTP/1.1 401 ") && answer.contains("disabled or expired"), "{told}");
                refused.insert(format!("{route:?}"));
            }
        }
        assert!(refused.len() >= 50, "{}", refused.len());
    }
}
