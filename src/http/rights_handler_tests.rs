//! Rules that handlers enforce themselves, tried from what their rows declare; and that an account which has ended reaches no row.

use std::collections::BTreeSet;

use super::api;
use super::context::RequestContext;
use super::rights::{HandlerRule, Ownership, Where};
use super::rights_tests::{
    OWNERS, TOKEN, USER, World, given, owns, refusal, samples, status_and_words, target, wired_with,
};
use super::router::{Access, Returns, Route};
use super::{test_support, upgrade};
use crate::auth::{AclPath, Privileges, Role};
use crate::clock::EpochSecs;

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
        Where::EachNamespace | Where::EachDatastore | Where::BelowDatastore => panic!("{at:?} is for lists"),
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

/// What came of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    /// The handler's work was begun; what became of it does not matter here.
    Passes,
    /// Refused, with the status and the words that [`super::rights_tests::OWN_RULES`] has for the row.
    Refused,
    /// Refused because the group is somebody else's, with the recorded status and words.
    NotOwner,
}

async fn tried(world: &World, route: &Route, auth: &str) -> Verdict {
    // Both jobs are there, whatever calls before this one did to them.
    for path in ["config/prune", "config/verify"] {
        let row = api::router().routes().find(|row| format!("{row:?}") == format!("POST {path}")).unwrap();
        let _ = (row.handler)(world.context("root@pam"), samples(row)).await;
    }
    let mut context = world.context(auth);
    if let Returns::Upgrade = route.returns {
        ask_for_session(&mut context, route);
    }
    let error = match (route.handler)(context, samples(route)).await {
        Ok(_) => return Verdict::Passes,
        Err(e) => e,
    };
    let (status, words) = status_and_words(&error);
    let (refused, begin) = refusal(&format!("{route:?}")).unwrap();
    if (status, words.starts_with(begin)) == (refused, true) {
        return Verdict::Refused;
    }
    if status == 400 && words.starts_with("backup owner check failed") {
        return Verdict::NotOwner;
    }
    assert!(status != 403 && !words.contains("permission"), "{route:?}, {auth}: {status} {words}");
    Verdict::Passes
}

/// Headers of a client that wants a session, on a connection that never becomes one.
fn ask_for_session(context: &mut RequestContext, route: &Route) {
    let protocol = if route.path == "backup" { upgrade::BACKUP_PROTOCOL } else { upgrade::READER_PROTOCOL };
    context.headers.insert(http::header::UPGRADE, http::HeaderValue::from_static(protocol));
    context.upgrade = Some(hyper::upgrade::on(http::Request::new(())));
}

async fn passes(world: &World, route: &Route, auth: &str) -> bool {
    tried(world, route, auth).await == Verdict::Passes
}

#[tokio::test]
async fn handlers_let_in_whom_their_row_names_and_nobody_else() {
    let world = World::new().await;
    let rules = rules();
    assert!(rules.len() >= 20, "{}", rules.len());
    let mut not_owner = 0;
    for (route, HandlerRule { grants, groups, .. }) in rules {
        let places: Vec<(Privileges, AclPath)> =
            grants.iter().filter_map(|(wanted, at)| Some((*wanted, place(*at)?))).collect();
        let owners = if groups == Ownership::Any { &OWNERS[..1] } else { &OWNERS[..] };
        for owner in owners {
            world.own(&owner.parse().unwrap()).await;
            world.give(&[]);
            assert_eq!(tried(&world, route, USER).await, Verdict::Refused, "{route:?}: no privilege, owner {owner}");
            for role in Role::ALL {
                let held = role.privileges();
                let told = format!("{route:?}, {role}, owner {owner}");
                // What these places give to a caller who holds the role there.
                let due = |places: &[&(Privileges, AclPath)], caller: &str| {
                    let given = |but: Privileges| {
                        places.iter().any(|(wanted, _)| {
                            wanted.names().any(|name| {
                                let one: Privileges = name.parse().unwrap();
                                held.has_any(one) && !but.has_any(one)
                            })
                        })
                    };
                    let whatever = match groups {
                        Ownership::Any => given(Privileges::NONE),
                        Ownership::With(own) => given(own),
                        Ownership::Always => false,
                    };
                    match (given(Privileges::NONE), whatever || owns(caller, owner)) {
                        (false, _) => Verdict::Refused,
                        (true, true) => Verdict::Passes,
                        // Recorded.
                        (true, false) if groups == Ownership::Any => Verdict::Passes,
                        (true, false) => Verdict::NotOwner,
                    }
                };
                let everywhere: Vec<_> = places.iter().collect();
                let any = due(&everywhere, USER);
                not_owner += u32::from(any == Verdict::NotOwner);
                world.give(&[(&AclPath::root(), USER, role, true)]);
                assert_eq!(tried(&world, route, USER).await, any, "{told} everywhere");
                world.give(&[(&AclPath::root(), USER, role, false)]);
                assert_eq!(tried(&world, route, USER).await, Verdict::Refused, "{told} at the root alone");
                for elsewhere in ELSEWHERE {
                    world.give(&[(&elsewhere.parse().unwrap(), USER, role, true)]);
                    assert_eq!(tried(&world, route, USER).await, Verdict::Refused, "{told} at {elsewhere}");
                }
                for (_, place) in &places {
                    let there: Vec<_> = places.iter().filter(|(_, at)| at == place).collect();
                    let (here, as_token) = (due(&there, USER), due(&there, TOKEN));
                    for propagate in [true, false] {
                        world.give(&[(place, USER, role, propagate)]);
                        let told = format!("{told} at {place}, propagate {propagate}");
                        assert_eq!(tried(&world, route, USER).await, here, "{told}");
                    }
                    let told = format!("{told} at {place}, token");
                    assert_eq!(tried(&world, route, TOKEN).await, Verdict::Refused, "{told} without any");
                    world.give(&[(place, TOKEN, Role::Admin, true)]);
                    assert_eq!(tried(&world, route, TOKEN).await, Verdict::Refused, "{told} without its user");
                    world.give(&[(place, USER, role, true), (place, TOKEN, Role::Admin, true)]);
                    assert_eq!(tried(&world, route, TOKEN).await, as_token, "{told} of such a user");
                    world.give(&[(place, USER, Role::Admin, true), (place, TOKEN, role, true)]);
                    assert_eq!(tried(&world, route, TOKEN).await, as_token, "{told} with less");
                }
            }
        }
    }
    assert!(not_owner >= 4, "{not_owner}");
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
        // Permissions are given to one's tokens, not to oneself.
        let is_of_tokens = route.method == http::Method::PUT && route.path == "access/acl";
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
