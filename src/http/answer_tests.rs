//! What rows answer when all is well, in both formats: of the shape that the row says, and the same in each (spec 05 §1.3).
#![expect(clippy::disallowed_methods, reason = "a test writes a snapshot behind the store's back")]

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use http::Method;
use serde_json::{Map, Value, json};

use super::api;
use super::rights_tests::{target, unchunked, wired_with};
use super::router::{BodyUse, Route};
use super::shape::{Field, Returns};
use super::test_support::{ADMIN, Tested};
use crate::format::blob::{Compression, encode};

const FORMATS: [&str; 2] = ["json", "extjs"];

/// A server with a finished snapshot where the samples of requests point to, owned by who asks.
async fn with_snapshot() -> Tested {
    let server = wired_with(|_| {}).await;
    let group = server.dir().join("main/ns/a/ns/b/vm/100");
    let snapshot = group.join("2024-06-05T14:23:38Z");
    std::fs::create_dir_all(&snapshot).unwrap();
    std::fs::write(group.join("owner"), "admin@pbs!default\n").unwrap();
    let manifest = json!({
        "backup-type": "vm", "backup-id": "100", "backup-time": 1_717_597_418, "files": [], "unprotected": {},
    });
    std::fs::write(snapshot.join("index.json.blob"), encode(manifest.to_string().as_bytes(), Compression::None))
        .unwrap();
    server
}

/// The row's request, some parameters of its query replaced or added.
fn request(route: &Route, format: &str, overrides: &[(&str, &str)]) -> String {
    let whole = target(route, format);
    let (path, query) = whole.split_once('?').unwrap();
    let kept = form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| overrides.iter().all(|(o, _)| o != name));
    let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(kept).extend_pairs(overrides).finish();
    format!("{path}?{query}")
}

async fn ask(server: &Tested, route: &Route, target: &str) -> (String, String) {
    let answer = match route.body {
        BodyUse::Parameters => server.request(route.method.as_str(), target, ADMIN, None).await,
        BodyUse::Raw => {
            let body = encode(b"a log", Compression::None);
            let head = format!(
                "{} {target} HTTP/1.1\r\nhost: x\r\n{ADMIN}content-length: {}\r\nconnection: close\r\n\r\n",
                route.method,
                body.len()
            );
            server.ask(&[head.into_bytes(), body].concat()).await
        }
    };
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{route:?}: {answer:?}"));
    (head.to_ascii_lowercase(), unchunked(head, body))
}

/// The data of a good answer, which has the row's shape and what the format says stands beside it.
fn data(route: &Route, format: &str, head: &str, body: &str) -> Value {
    assert!(head.starts_with("http/1.1 200 "), "{route:?} {format}: {head} {body:.300}");
    assert!(head.contains("content-type: application/json;charset=utf-8"), "{route:?} {format}: {head}");
    let mut object: Map<String, Value> = serde_json::from_str(body).unwrap();
    if format == "extjs" {
        let dress = (object.remove("success"), object.remove("status"));
        assert_eq!(dress, (Some(true.into()), Some(200.into())), "{route:?}: {body:.300}");
    }
    let (shape, beside): (_, &[Field]) = match route.returns {
        Returns::Data(shape) => (shape, &[]),
        Returns::With(shape, beside) => (shape, beside),
        other => panic!("{route:?} answers {other:?}"),
    };
    let data = object.remove("data").unwrap_or_else(|| panic!("{route:?}: {body:.300}"));
    shape.check(&data).unwrap_or_else(|e| panic!("{route:?} {format}: {e}"));
    let names: BTreeSet<&str> = object.keys().map(String::as_str).collect();
    assert_eq!(names, beside.iter().map(|field| field.name).collect(), "{route:?} {format}");
    data
}

fn row(name: &str) -> &'static Route {
    api::router().routes().find(|row| format!("{row:?}") == name).unwrap_or_else(|| panic!("no row {name}"))
}

fn is_dressed(route: &Route) -> bool {
    matches!(route.returns, Returns::Data(_) | Returns::With(..))
}

/// Values that two requests after each other need not have in common.
fn steady(mut data: Value) -> Value {
    for name in ["cpu", "wait", "loadavg", "memory", "swap", "root", "uptime", "used", "avail"] {
        for object in data.as_array_mut().map_or(vec![], |rows| rows.iter_mut().collect()) {
            object.as_object_mut().map(|object| object.remove(name));
        }
        data.as_object_mut().map(|object| object.remove(name));
    }
    data
}

#[tokio::test]
async fn what_is_read_is_the_same_in_both_formats() {
    let server = with_snapshot().await;
    // Things that the samples name.
    for (name, overrides) in
        [("POST access/users", &[] as &[_]), ("POST config/prune", &[("keep-last", "1")]), ("POST config/verify", &[])]
    {
        let route = row(name);
        let (head, body) = ask(&server, route, &request(route, "json", overrides)).await;
        data(route, "json", &head, &body);
    }
    let route = row("POST access/users/{userid}/token/{token-name}");
    let (head, body) = ask(&server, route, &request(route, "json", &[])).await;
    data(route, "json", &head, &body);
    let mut unknown = BTreeSet::new();
    for route in api::router().routes().filter(|route| route.method == Method::GET && is_dressed(route)) {
        let (head, body) = ask(&server, route, &request(route, "json", &[])).await;
        let (dressed_head, dressed) = ask(&server, route, &request(route, "extjs", &[])).await;
        if head.starts_with("http/1.1 200 ") {
            let plain = data(route, "json", &head, &body);
            assert_eq!(steady(plain), steady(data(route, "extjs", &dressed_head, &dressed)), "{route:?}");
            continue;
        }
        unknown.insert(format!("{route:?}"));
        let status: u16 = head["http/1.1 ".len()..][..3].parse().unwrap();
        let want = json!({ "success": false, "status": status, "message": body, "errors": {} });
        assert_eq!(serde_json::from_str::<Value>(&dressed).unwrap(), want, "{route:?}");
    }
    // A machine without an id has none to tell, and nobody began the task.
    unknown.remove("GET nodes/{node}/identity");
    let of_no_task = ["GET admin/datastore/{store}/report", "GET nodes/{node}/tasks/{upid}/status"];
    assert_eq!(unknown, of_no_task.map(ToOwned::to_owned).into());
}

/// Every row that changes something, in an order in which each finds what it needs.
const CHANGES: &[(&str, &[(&str, &str)])] = &[
    ("POST access/users", &[]),
    ("PUT access/password", &[("password", "correct horse")]),
    ("POST access/ticket", &[("password", "correct horse")]),
    ("PUT access/users/{userid}", &[("comment", "c"), ("delete", "email")]),
    ("POST access/users/{userid}/token/{token-name}", &[]),
    ("PUT access/users/{userid}/token/{token-name}", &[("regenerate", "yes")]),
    ("PUT access/acl", &[]),
    ("PUT admin/datastore/{store}/notes", &[("notes", "a\nb")]),
    ("PUT admin/datastore/{store}/group-notes", &[("notes", "a\nb")]),
    ("PUT admin/datastore/{store}/protected", &[("protected", "0")]),
    ("POST admin/datastore/{store}/upload-backup-log", &[]),
    ("POST admin/datastore/{store}/prune", &[("keep-last", "1")]),
    ("POST admin/datastore/{store}/prune", &[("use-task", "on")]),
    ("POST admin/datastore/{store}/prune-datastore", &[]),
    ("POST admin/datastore/{store}/verify", &[]),
    ("POST admin/datastore/{store}/gc", &[]),
    ("POST admin/datastore/{store}/inspect", &[]),
    ("POST admin/datastore/{store}/chunk-report", &[("bad", "1")]),
    ("DELETE nodes/{node}/tasks/{upid}", &[]),
    ("POST admin/datastore/{store}/change-owner", &[]),
    ("POST admin/datastore/{store}/namespace", &[("name", "new")]),
    ("POST config/prune", &[("keep-last", "1")]),
    ("PUT config/prune/{id}", &[("keep-daily", "2"), ("delete", "keep-last")]),
    ("POST admin/prune/{id}/run", &[]),
    ("DELETE config/prune/{id}", &[]),
    ("POST config/verify", &[]),
    ("PUT config/verify/{id}", &[("outdated-after", "2")]),
    ("POST admin/verify/{id}/run", &[]),
    ("DELETE config/verify/{id}", &[]),
    ("DELETE admin/datastore/{store}/snapshots", &[]),
    ("DELETE admin/datastore/{store}/groups", &[]),
    ("DELETE admin/datastore/{store}/namespace", &[("delete-groups", "1")]),
    ("PUT config/datastore/{store}", &[("comment", "c"), ("delete", "verify-new")]),
    // Its task fails, for there is no datastore; making one takes a test's time.
    ("POST config/datastore", &[("name", "fresh"), ("path", "/nowhere/at/all"), ("reuse-datastore", "1")]),
    ("DELETE config/datastore/{store}", &[]),
    ("DELETE access/users/{userid}/token/{token-name}", &[]),
    ("DELETE access/users/{userid}", &[]),
];

/// Tasks of earlier requests end in their own time; until then some rows refuse.
async fn ask_until_free(server: &Tested, route: &Route, target: &str) -> (String, String) {
    let started = Instant::now();
    loop {
        let (head, body) = ask(server, route, target).await;
        let is_refused = !body.contains("\"data\":");
        let is_busy = is_refused && ["in use", "is already", "another"].iter().any(|words| body.contains(words));
        if !is_busy || started.elapsed() > Duration::from_secs(60) {
            return (head, body);
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn what_changes_something_answers_in_its_shape_in_both_formats() {
    let rows: BTreeSet<String> =
        api::router().routes().filter(|route| route.method != Method::GET).map(|route| format!("{route:?}")).collect();
    assert_eq!(CHANGES.iter().map(|(name, _)| (*name).to_owned()).collect::<BTreeSet<_>>(), rows, "rows tried here");
    for format in FORMATS {
        let server = with_snapshot().await;
        let mut task = String::new();
        for (name, overrides) in CHANGES {
            let route = row(name);
            // It has gone with its last snapshot.
            if *name == "DELETE admin/datastore/{store}/groups" {
                let group = server.dir().join("main/ns/a/ns/b/vm/100");
                std::fs::create_dir_all(&group).unwrap();
                std::fs::write(group.join("owner"), "admin@pbs!default\n").unwrap();
            }
            let sample = target(row("DELETE nodes/{node}/tasks/{upid}"), format);
            let sample = sample.split('/').next_back().unwrap().trim_end_matches('?').to_owned();
            let mut target = request(route, format, overrides);
            if name.ends_with("{upid}") {
                let escaped =
                    percent_encoding::utf8_percent_encode(&task, percent_encoding::NON_ALPHANUMERIC).to_string();
                target = target.replace(&sample, &escaped);
            }
            let (head, body) = ask_until_free(&server, route, &target).await;
            let data = data(route, format, &head, &body);
            if let Some(upid) = data.as_str().filter(|text| text.starts_with("UPID:")) {
                upid.clone_into(&mut task);
            }
        }
    }
}

#[tokio::test]
async fn every_row_that_takes_a_digest_refuses_that_of_an_older_state() {
    let server = with_snapshot().await;
    for (name, overrides) in [
        ("POST access/users", &[] as &[_]),
        ("POST access/users/{userid}/token/{token-name}", &[]),
        ("POST config/prune", &[("keep-last", "1")]),
        ("POST config/verify", &[]),
    ] {
        let (head, body) = ask(&server, row(name), &request(row(name), "json", overrides)).await;
        data(row(name), "json", &head, &body);
    }
    let states = ["access/users?include_tokens=1", "access/acl", "config/datastore", "config/prune", "config/verify"];
    let mut tried = 0;
    for route in api::router().routes().filter(|route| route.params.iter().any(|spec| spec.name == "digest")) {
        tried += 1;
        let mut before = Vec::new();
        for path in states {
            before.push(server.get(&format!("/api2/json/{path}")).await);
        }
        let old = request(route, "json", &[("digest", &"0".repeat(64))]);
        let (head, body) = ask(&server, route, &old).await;
        assert!(head.starts_with("http/1.1 400 "), "{route:?}: {head} {body:.300}");
        assert!(body.starts_with("detected modified configuration"), "{route:?}: {body:.300}");
        for (path, before) in states.iter().zip(before) {
            let body = |answer: &str| answer.split_once("\r\n\r\n").unwrap().1.to_owned();
            assert_eq!(body(&server.get(&format!("/api2/json/{path}")).await), body(&before), "{route:?}: {path}");
        }
    }
    assert_eq!(tried, 12);
}
