//! Jobs over REST, with a clock that is moved by hand.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::scheduled::{go_on_with_cut_off, tick};
use super::test_support::{self, ADMIN, Tested};
use super::{App, api};
use crate::clock::{Clock, EpochSecs};
use crate::engine::ComputePool;
use crate::jobs::state::{Again, JobKey, JobStates};
use crate::task::{Listed, Registry};

fn at(name: &str) -> EpochSecs {
    EpochSecs::from_utc_name(name).unwrap()
}

/// A server whose clock stands at 2024-06-05T00:00:30Z, a Wednesday.
async fn server() -> (Tested, Arc<App>) {
    let dir = tempfile::tempdir().unwrap();
    let store = test_support::datastore(dir.path()).await;
    let mut app = test_support::app(dir.path(), test_support::first_users(), [store]);
    app.clock = Clock::manual(at("2024-06-05T00:00:30Z"));
    app.tasks = Registry::open(&dir.path().join("jobs-tasks"), app.clock.clone()).unwrap();
    let server = test_support::serve(app, dir, 16);
    let app = server.running.app.clone();
    (server, app)
}

struct Answer {
    status: u16,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|e| panic!("{e}: {} {}", self.status, self.text))
    }

    fn expect(self, status: u16, part: &str) -> Self {
        assert!(self.status == status && self.text.contains(part), "{} {}", self.status, self.text);
        self
    }
}

async fn call(server: &Tested, method: &str, path: &str, json: Option<Value>) -> Answer {
    let json = json.map(|value| value.to_string());
    let answer = server.request(method, &format!("/api2/json/{path}"), ADMIN, json.as_deref()).await;
    let (head, text) = answer.split_once("\r\n\r\n").expect("a whole answer");
    Answer { status: head[9..12].parse().unwrap(), text: text.to_owned() }
}

async fn ended(app: &App, count: usize) -> Vec<Listed> {
    let all = || -> Vec<Listed> {
        let mut walk = app.tasks.walk();
        std::iter::from_fn(|| walk.batch()).flatten().collect()
    };
    for _ in 0..2000 {
        let tasks = all();
        if tasks.len() == count && tasks.iter().all(|task| task.ended.is_some()) {
            return tasks;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("not {count} ended tasks: {:?}", all());
}

/// Waits until the run of a job is noted, after its task has ended.
async fn noted(app: &App, key: &JobKey) {
    while app.jobs.is_running(key) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_runs_when_it_is_due_and_not_before_and_not_twice() {
    let (server, app) = server().await;
    let key = JobKey::Prune("nightly".to_owned());
    let job = json!({ "id": "nightly", "store": "main", "schedule": "02:30 UTC", "keep-last": 1 });
    call(&server, "POST", "config/prune", Some(job.clone())).await.expect(200, r#"{"data":null}"#);
    let go_to = async |time: &str| {
        app.clock.set(at(time));
        tick(&app, app.clock.now()).await;
    };
    go_to("2024-06-05T00:01:00Z").await;
    go_to("2024-06-05T02:29:59Z").await;
    assert_eq!(ended(&app, 0).await, []);
    let status = call(&server, "GET", "admin/prune", None).await.json();
    let mut row = job.clone();
    row["next-run"] = json!(at("2024-06-05T02:30:00Z"));
    assert_eq!(status["data"], json!([row]));

    go_to("2024-06-05T02:30:05Z").await;
    let task = ended(&app, 1).await.remove(0);
    noted(&app, &key).await;
    assert_eq!((task.upid.worker_type.as_str(), task.upid.worker_id.as_deref()), ("prunejob", Some("main")));
    assert_eq!(task.upid.auth_id.to_string(), "root@pam");
    go_to("2024-06-05T02:31:05Z").await;
    go_to("2024-06-06T02:29:00Z").await;
    ended(&app, 1).await;
    let status = call(&server, "GET", "admin/prune?store=main", None).await.json();
    row["next-run"] = json!(at("2024-06-06T02:30:00Z"));
    row["last-run-upid"] = json!(task.upid.to_string());
    row["last-run-endtime"] = json!(at("2024-06-05T02:30:05Z"));
    row["last-run-state"] = json!("OK");
    assert_eq!(status["data"], json!([row]));
    assert_eq!(call(&server, "GET", "admin/prune?store=other", None).await.json()["data"], json!([]));

    // A daemon that starts again knows when the job ran.
    let again = JobStates::open(&server.dir().join("jobs"), ComputePool::new(1).unwrap()).unwrap();
    assert_eq!(again.get(&key), app.jobs.get(&key));

    // While it runs it is not started again; after that what was missed is made up for, once.
    let running = app.jobs.claim(&key).unwrap();
    go_to("2024-06-06T02:30:05Z").await;
    go_to("2024-06-08T03:00:00Z").await;
    ended(&app, 1).await;
    drop(running);
    go_to("2024-06-08T03:01:00Z").await;
    ended(&app, 2).await;
    noted(&app, &key).await;
    go_to("2024-06-08T03:02:00Z").await;
    ended(&app, 2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_schedule_does_not_start_a_job() {
    let (server, app) = server().await;
    let job = json!({ "id": "hourly", "store": "main", "schedule": "*:00 UTC" });
    call(&server, "POST", "config/verify", Some(job)).await.expect(200, "");
    app.clock.set(at("2024-06-05T12:30:00Z"));
    // Half a day was missed, and is due no more.
    let change = json!({ "schedule": "*:15 UTC" });
    call(&server, "PUT", "config/verify/hourly", Some(change)).await.expect(200, "");
    tick(&app, app.clock.now()).await;
    assert_eq!(ended(&app, 0).await, []);
    let status = call(&server, "GET", "admin/verify", None).await.json();
    assert_eq!(status["data"][0]["next-run"], json!(at("2024-06-05T13:15:00Z")));
    // A file that was edited by hand counts as much.
    app.clock.set(at("2024-06-05T13:00:00Z"));
    app.config.edit(None, |draft| draft.set("verify-job", "hourly", "schedule", "*:20 UTC")).await.unwrap();
    app.clock.set(at("2024-06-05T13:16:00Z"));
    tick(&app, app.clock.now()).await;
    assert_eq!(ended(&app, 0).await, []);
    app.clock.set(at("2024-06-05T13:20:00Z"));
    tick(&app, app.clock.now()).await;
    let task = ended(&app, 1).await.remove(0);
    assert_eq!(
        (task.upid.worker_type.as_str(), task.upid.worker_id.as_deref()),
        ("verificationjob", Some("main:hourly"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_collected_by_schedule() {
    let (server, app) = server().await;
    app.config.edit(None, |draft| draft.set("datastore", "main", "gc-schedule", "wed 04:00 UTC")).await.unwrap();
    tick(&app, app.clock.now()).await;
    let row = json!({
        "store": "main", "schedule": "wed 04:00 UTC", "next-run": at("2024-06-05T04:00:00Z"),
        "upid": null, "index-file-count": 0, "index-data-bytes": 0, "disk-bytes": 0, "disk-chunks": 0,
        "removed-bytes": 0, "removed-chunks": 0, "pending-bytes": 0, "pending-chunks": 0, "removed-bad": 0, "still-bad": 0,
    });
    assert_eq!(call(&server, "GET", "admin/gc", None).await.json()["data"], json!([row]));
    app.clock.set(at("2024-06-05T04:00:00Z"));
    tick(&app, app.clock.now()).await;
    let task = ended(&app, 1).await.remove(0);
    assert_eq!((task.upid.worker_type.as_str(), task.upid.worker_id.as_deref()), ("garbage_collection", Some("main")));
    noted(&app, &JobKey::Gc("main".parse().unwrap())).await;
    let status = call(&server, "GET", "admin/gc", None).await.json();
    assert_eq!(status["data"][0]["next-run"], json!(at("2024-06-12T04:00:00Z")));
    assert_eq!(status["data"][0]["last-run-upid"], json!(task.upid.to_string()));
    // One that somebody starts counts as well.
    app.clock.set(at("2024-06-05T09:00:00Z"));
    let upid = call(&server, "POST", "admin/datastore/main/gc", None).await.expect(200, "UPID").json();
    ended(&app, 2).await;
    noted(&app, &JobKey::Gc("main".parse().unwrap())).await;
    let shown = call(&server, "GET", "admin/datastore/main/gc", None).await.json();
    assert_eq!(shown["data"]["last-run-upid"], upid["data"]);
    assert_eq!((&shown["data"]["last-run-state"], &shown["data"]["duration"]), (&json!("OK"), &json!(0)));
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_made_changed_shown_and_removed() {
    let (server, app) = server().await;
    let job = json!({
        "id": "abc", "store": "main", "ns": "a", "max-depth": 1, "keep-daily": 7, "comment": "c", "disable": true,
        "schedule": "daily",
    });
    call(&server, "POST", "config/prune", Some(job.clone())).await.expect(200, "");
    call(&server, "POST", "config/prune", Some(job.clone())).await.expect(400, "prune-job 'abc' already exists.");
    let shown = call(&server, "GET", "config/prune/abc", None).await.json();
    assert_eq!(shown["data"], job);
    let digest = shown["digest"].as_str().unwrap().to_owned();
    let list = call(&server, "GET", "config/prune", None).await.json();
    assert_eq!(list, json!({ "data": [job], "digest": digest }));
    // Switched off: it has no next run, and does not run.
    assert!(call(&server, "GET", "admin/prune", None).await.json()["data"][0].get("next-run").is_none());

    let change = json!({ "delete": ["ns", "disable", "keep-daily"], "comment": "d", "keep-last": 3, "digest": digest });
    call(&server, "PUT", "config/prune/abc", Some(change.clone())).await.expect(200, "");
    let shown = call(&server, "GET", "config/prune/abc", None).await.json();
    let want = json!({
        "id": "abc", "store": "main", "max-depth": 1, "keep-last": 3, "comment": "d", "schedule": "daily",
    });
    assert_eq!(shown["data"], want);
    call(&server, "PUT", "config/prune/abc", Some(change)).await.expect(400, "detected modified configuration");
    for (change, part) in [
        (json!({ "delete": ["store"] }), "'delete/[0]': value 'store' is not defined in the enumeration."),
        (json!({ "keep-last": 0 }), "'keep-last': value must have a minimum value of 1 (got 0)"),
        (json!({ "schedule": "moon" }), "'schedule': value does not match the regex pattern"),
        (json!({ "store": "other" }), "no such datastore 'other'"),
    ] {
        call(&server, "PUT", "config/prune/abc", Some(change)).await.expect(400, part);
    }
    call(&server, "PUT", "config/prune/other", Some(json!({}))).await.expect(404, "no such prune-job 'other'");

    let upid = call(&server, "POST", "admin/prune/abc/run", None).await.expect(200, "prunejob").json();
    ended(&app, 1).await;
    noted(&app, &JobKey::Prune("abc".to_owned())).await;
    let status = call(&server, "GET", "admin/prune", None).await.json();
    assert_eq!(status["data"][0]["last-run-upid"], upid["data"]);
    call(&server, "PUT", "config/prune/abc", Some(json!({ "delete": ["keep-last"] }))).await.expect(200, "");
    call(&server, "POST", "admin/prune/abc/run", None).await.expect(400, "has no keep option");

    call(&server, "DELETE", "config/prune/abc", None).await.expect(200, "");
    call(&server, "DELETE", "config/prune/abc", None).await.expect(404, "no such prune-job 'abc'");
    assert_eq!(app.jobs.get(&JobKey::Prune("abc".to_owned())), None);
    let text = std::fs::read_to_string(server.dir().join("ringvault.toml")).unwrap();
    assert!(!text.contains("prune-job"), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_are_for_those_who_may_do_such_work_themselves() {
    let (server, app) = server().await;
    for (kind, more) in [("prune", json!({ "keep-last": 1 })), ("verify", json!({}))] {
        let mut job = json!({ "id": "abc", "store": "main", "ns": "a" });
        job.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        call(&server, "POST", &format!("config/{kind}"), Some(job)).await.expect(200, "");
    }
    let key = test_support::keys().tokens;
    let rows = [
        ("DatastoreAudit", "/datastore/main", true, false, false),
        ("DatastoreReader", "/datastore/main", true, false, true),
        ("DatastorePowerUser", "/datastore/main", false, false, false),
        ("DatastoreAdmin", "/datastore/main/a", true, true, true),
        ("DatastoreAdmin", "/datastore/main/b", false, false, false),
    ];
    for (role, path, sees, prunes, verifies) in rows {
        let mut users = test_support::first_users();
        users.add_user(&"u@pbs".parse().unwrap(), None);
        users.set_token(&"u@pbs!t".parse().unwrap(), "x", &key, None).unwrap();
        for auth_id in ["u@pbs", "u@pbs!t"] {
            users.allow(crate::auth::AclEntry {
                path: path.parse().unwrap(),
                auth_id: auth_id.parse().unwrap(),
                role: role.parse().unwrap(),
                propagate: true,
            });
        }
        app.users.replace(users);
        let login = "authorization: PBSAPIToken u@pbs!t:x\r\n";
        let ask = async |method: &str, path: &str| {
            let answer = server.request(method, &format!("/api2/json/{path}"), login, None).await;
            answer[9..12].parse::<u16>().unwrap()
        };
        for (kind, changes) in [("prune", prunes), ("verify", verifies)] {
            let list = server.request("GET", &format!("/api2/json/config/{kind}"), login, None).await;
            assert_eq!(list.contains("\"abc\""), sees, "{role} on {path}: {list}");
            assert_eq!(ask("GET", &format!("config/{kind}/abc")).await == 200, sees, "{role} on {path}");
            let put = ask("PUT", &format!("config/{kind}/abc?comment=x")).await;
            assert_eq!(put == 200, changes, "{role} on {path}: {put}");
            let moved = ask("PUT", &format!("config/{kind}/abc?delete=ns")).await;
            assert_eq!(moved == 200, changes && path == "/datastore/main", "{role} on {path}: {moved}");
            app.config.edit(None, |draft| draft.set(&format!("{kind}-job"), "abc", "ns", "a")).await.unwrap();
            if !changes {
                assert_eq!(ask("POST", &format!("admin/{kind}/abc/run")).await, 403, "{role} on {path}");
                assert_eq!(ask("DELETE", &format!("config/{kind}/abc")).await, 403, "{role} on {path}");
            }
        }
    }
    assert!(api::router().routes().any(|route| route.path == "admin/gc"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_in_parts_reads_another_part_each_day() {
    let (server, app) = server().await;
    let job = json!({ "id": "parts", "store": "main", "schedule": "02:30 UTC", "parts": 30 });
    call(&server, "POST", "config/verify", Some(job)).await.expect(200, "");
    let shown = call(&server, "GET", "config/verify/parts", None).await.json();
    assert_eq!(shown["data"]["parts"], json!(30));
    call(&server, "PUT", "config/verify/parts", Some(json!({ "parts": 1 }))).await.expect(400, "parts");
    let mut told = Vec::new();
    for (count, day) in [(1, "05"), (2, "06"), (3, "07")] {
        app.clock.set(at(&format!("2024-06-{day}T12:00:00Z")));
        let upid = call(&server, "POST", "admin/verify/parts/run", Some(json!({}))).await.json()["data"].clone();
        ended(&app, count).await;
        noted(&app, &JobKey::Verify("parts".to_owned())).await;
        let path = app.tasks.log_path(&upid.as_str().unwrap().parse().unwrap());
        let log = std::fs::read_to_string(path).unwrap();
        let part = log.split("only part ").nth(1).and_then(|rest| rest.split(' ').next()?.parse::<u32>().ok());
        told.push(part.expect("a part"));
    }
    assert!(told[1] == told[0] % 30 + 1 && told[2] == told[1] % 30 + 1, "{told:?}");
}

/// A server on whose disk a prune job is noted as running, as the last daemon left it; that one is returned as well, for its files.
async fn server_behind_a_crash(again: Option<Again>) -> ((Tested, Tested), Arc<App>, JobKey) {
    let key = JobKey::Prune("nightly".to_owned());
    let (before, died) = server().await;
    let job = json!({ "id": "nightly", "store": "main", "schedule": "02:30 UTC", "keep-last": 1 });
    call(&before, "POST", "config/prune", Some(job)).await.expect(200, "");
    let upid = "UPID:a:00000001:00000001:00000001:665FA6B2:prunejob:main:root@pam:".parse().unwrap();
    died.jobs.claim(&key).unwrap().started(&upid, again).await;
    let dir = tempfile::tempdir().unwrap();
    let mut app = test_support::app(dir.path(), test_support::first_users(), []);
    app.clock = died.clock.clone();
    app.tasks = Registry::open(&dir.path().join("jobs-tasks"), app.clock.clone()).unwrap();
    (app.config, app.datastores) = (died.config.clone(), died.datastores.clone());
    app.jobs = JobStates::open(&before.dir().join("jobs"), ComputePool::new(1).unwrap()).unwrap();
    let server = test_support::serve(app, dir, 16);
    let app = server.running.app.clone();
    ((before, server), app, key)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_end_of_a_daemon_cut_off_is_gone_on_with_and_not_for_ever() {
    let again = |tries| Some(Again { tries, progress: 0 });
    for (before, is_started) in [(None, false), (again(0), true), (again(2), true), (again(3), false)] {
        let (_servers, app, key) = server_behind_a_crash(before).await;
        assert_eq!(app.jobs.cut_off(&key), before);
        go_on_with_cut_off(&app, app.clock.now()).await;
        let tasks = ended(&app, usize::from(is_started)).await;
        noted(&app, &key).await;
        assert!(tasks.iter().all(|task| task.upid.auth_id.to_string() == "root@pam"));
        assert_eq!(app.jobs.cut_off(&key), None);
        go_on_with_cut_off(&app, app.clock.now()).await;
        assert_eq!(ended(&app, tasks.len()).await, tasks, "once a start");
    }
}
