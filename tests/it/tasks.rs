//! Tasks over REST: what is listed to whom, logs that are read while they grow, and tasks that are stopped.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, Setup};
use crate::support::upload::{self, Backup, Chunk, FIXED_CHUNK_BYTES, Place};
use crate::support::wire::{Conn, Reply};

const NODE: &str = "/api2/json/nodes/any-name/tasks";
const ARCHIVE: &str = "disk.img.fidx";

fn escaped(upid: &str) -> String {
    percent_encoding::utf8_percent_encode(upid, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// Who the recordings' tokens belong to.
fn header(daemon: &Daemon, who: &str) -> String {
    let placeholder = match who {
        "tester@pbs!bench" => "TOKEN_SECRET",
        "tester@pbs!second" => "TOKEN_SECRET_SECOND",
        _ => "TOKEN_SECRET_OTHER",
    };
    daemon.secrets().fill(&format!("PBSAPIToken {who}:{{{{{placeholder}}}}}"))
}

async fn call(daemon: &Daemon, who: &str, method: &str, target: &str) -> Reply {
    let mut conn = Conn::open(daemon.peer()).await.expect("connect");
    let reply = conn.call(method, target, &[("authorization", &header(daemon, who))], b"").await.expect("an answer");
    conn.close().await;
    reply
}

async fn get(daemon: &Daemon, target: &str) -> Value {
    let reply = call(daemon, "tester@pbs!bench", "GET", target).await;
    reply.expect(200, "");
    serde_json::from_slice(&reply.body).expect("JSON")
}

/// One backup session by somebody, of a group of its own, not finished.
async fn session(daemon: &Daemon, who: &str, id: &str) -> Backup {
    let place = Place::host(id, 0);
    let target = format!("/api2/json/backup?store={}&{}", daemon.store_name(), place.query());
    let conn = Conn::open(daemon.peer()).await.expect("connect");
    let headers = [("authorization", header(daemon, who))];
    let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (*n, v.as_str())).collect();
    let asked = conn.upgrade(&target, upload::BACKUP_PROTOCOL, &headers).await.expect("an answer");
    Backup::from_session(asked.session(), place)
}

fn upids(list: &Value) -> Vec<&str> {
    list["data"].as_array().expect("a list").iter().map(|item| item["upid"].as_str().expect("a UPID")).collect()
}

#[tokio::test]
async fn lists_are_narrowed_paged_and_the_newest_first() {
    let daemon = Daemon::start();
    for (who, id) in [("tester@pbs!bench", "a"), ("tester@pbs!bench", "b"), ("tester@pbs!bench", "c")] {
        session(&daemon, who, id).await.leave(&daemon).await;
    }
    let open = session(&daemon, "tester@pbs!bench", "d").await;
    let all = get(&daemon, NODE).await;
    assert_eq!(all["total"], 4, "{all}");
    let ids: Vec<&Value> = all["data"].as_array().unwrap().iter().map(|item| &item["worker_id"]).collect();
    assert_eq!(ids, ["golden:host/d", "golden:host/c", "golden:host/b", "golden:host/a"]);
    let item = &all["data"][1];
    let upid = upids(&all)[1].to_owned();
    let fields: Vec<&str> = upid.split(':').collect();
    let number = |i: usize| u64::from_str_radix(fields[i], 16).unwrap();
    assert_eq!(
        *item,
        json!({
            "upid": upid, "node": "localhost", "pid": daemon.pid(), "pstart": number(3), "starttime": number(5),
            "worker_type": "backup", "worker_id": "golden:host/c", "user": "tester@pbs!bench",
            "endtime": item["endtime"], "status": daemon.ended().pop().expect("ended tasks").1,
        })
    );
    assert_eq!(daemon.ended().len(), 3);
    assert!(item["endtime"].as_u64().unwrap() >= number(5));
    let running = &all["data"][0];
    assert!(running.get("endtime").is_none() && running.get("status").is_none(), "{running}");

    let now = number(5);
    for (query, count, total) in [
        ("limit=2".to_owned(), 2, 3),
        ("limit=4".to_owned(), 4, 5),
        ("limit=5".to_owned(), 4, 4),
        ("limit=0".to_owned(), 4, 4),
        ("limit=2&start=2".to_owned(), 2, 5),
        ("limit=2&start=3".to_owned(), 1, 4),
        ("start=9".to_owned(), 0, 4),
        ("running=true".to_owned(), 1, 1),
        ("running=1&limit=1".to_owned(), 1, 2),
        ("running=false".to_owned(), 4, 4),
        ("errors=true".to_owned(), 3, 3),
        ("statusfilter=error".to_owned(), 3, 3),
        ("statusfilter=ok&statusfilter=warning".to_owned(), 0, 0),
        ("store=golden".to_owned(), 4, 4),
        ("store=gold".to_owned(), 0, 0),
        ("userfilter=tester".to_owned(), 4, 4),
        ("userfilter=root".to_owned(), 0, 0),
        ("typefilter=back".to_owned(), 4, 4),
        ("typefilter=reader".to_owned(), 0, 0),
        (format!("since={}", now + 3600), 0, 0),
        (format!("until={}", now - 3600), 0, 0),
        (format!("since={}&until={}", now - 3600, now + 3600), 4, 4),
    ] {
        let list = get(&daemon, &format!("{NODE}?{query}")).await;
        assert_eq!((upids(&list).len(), list["total"].as_u64()), (count, Some(total)), "{query}");
    }
    for (query, reason) in [
        ("limit=-1", "'limit': value must have a minimum value of 0 (got -1)"),
        ("statusfilter=good", "'statusfilter/[0]': value 'good' is not defined in the enumeration."),
        ("nosuch=1", "'nosuch': schema does not allow additional properties."),
    ] {
        call(&daemon, "tester@pbs!bench", "GET", &format!("{NODE}?{query}")).await.expect(400, reason);
    }
    let dressed = get(&daemon, "/api2/extjs/nodes/localhost/tasks?limit=1").await;
    assert_eq!((&dressed["success"], &dressed["total"]), (&json!(true), &json!(2)));
    open.leave(&daemon).await;
}

/// Spec 05 §6, "Client log polling", while lines are added.
#[tokio::test]
async fn a_log_is_polled_as_the_official_client_does() {
    let daemon = Daemon::start();
    let mut open = Some(session(&daemon, "tester@pbs!bench", "polled").await);
    let upid = daemon.running().pop().expect("a running task");
    let log = format!("{NODE}/{}/log", escaped(&upid));
    let mut lines: Vec<String> = Vec::new();
    let mut round = 0;
    loop {
        let start = lines.len() + 1;
        let page = get(&daemon, &format!("{log}?start={start}&limit=500&test-status=true")).await;
        assert_eq!(page["success"], 1);
        for line in page["data"].as_array().expect("lines") {
            assert_eq!(line["n"], lines.len() + 1, "ascending without a gap");
            lines.push(line["t"].as_str().expect("a line").to_owned());
        }
        assert_eq!(page["total"], lines.len(), "fewer than 500 lines come only at the end of the log");
        if page["active"] == json!(false) {
            break;
        }
        round += 1;
        match (round, open.take()) {
            (1, Some(mut backup)) => {
                backup.blob("a.conf.blob", b"a").await.expect(200, "");
                open = Some(backup);
            }
            (2, Some(backup)) => {
                backup.manifest().await.expect(200, "");
                backup.finish().await.expect(200, "");
                open = Some(backup);
            }
            (_, Some(backup)) => backup.session.close().await,
            (_, None) => tokio::time::sleep(std::time::Duration::from_millis(5)).await,
        }
    }
    assert_eq!(lines.iter().map(|line| line[27..].to_owned()).collect::<Vec<_>>(), daemon.task_log(&upid));
    assert!(lines.iter().all(|line| &line[25..27] == ": "));
    assert_eq!(lines.last().unwrap()[27..], *"TASK OK");

    let page = get(&daemon, &format!("{log}?start=2&limit=1")).await;
    assert_eq!(page, json!({"data": [{"n": 2, "t": lines[1]}], "total": lines.len(), "success": 1}));
    let whole = get(&daemon, &format!("{log}?limit=0")).await;
    assert_eq!(whole["data"].as_array().unwrap().len(), lines.len());
    let past = get(&daemon, &format!("{log}?start={}&test-status=1", lines.len() + 1)).await;
    assert_eq!(past, json!({"data": [], "total": lines.len(), "success": 1, "active": false}));

    let file = call(&daemon, "tester@pbs!bench", "GET", &format!("{log}?download=1")).await;
    assert_eq!(file.header("content-type"), Some("text/plain"));
    let attachment = file.header("content-disposition").expect("a file name");
    assert!(attachment.starts_with("attachment; filename=\"task-backup-20"), "{attachment}");
    assert_eq!(file.text(), lines.join("\n") + "\n");
    daemon.idle().await;
}

#[tokio::test]
async fn a_task_is_shown_to_its_owner_and_the_user_of_a_token() {
    let daemon = Daemon::start();
    let other = session(&daemon, "other@pbs!tok", "x").await;
    let upid = daemon.running().pop().expect("a running task");
    let (log, status) = (format!("{NODE}/{}/log", escaped(&upid)), format!("{NODE}/{}/status", escaped(&upid)));
    let state = call(&daemon, "other@pbs!tok", "GET", &status).await.data();
    assert_eq!(
        (&state["status"], &state["user"], &state["tokenid"], &state["type"], &state["id"]),
        (&json!("running"), &json!("other@pbs"), &json!("tok"), &json!("backup"), &json!("golden:host/x"))
    );
    for target in [&log, &status] {
        call(&daemon, "tester@pbs!bench", "GET", target).await.expect(400, "task access not allowed");
    }
    let stop = format!("{NODE}/{}", escaped(&upid));
    call(&daemon, "tester@pbs!bench", "DELETE", &stop).await.expect(403, "permission check failed");
    assert_eq!(upids(&get(&daemon, NODE).await), [""; 0]);
    // What its name says is all that is needed to look at a job on a datastore that one may give such jobs to.
    let job = |kind: &str| format!("UPID:h:00000001:00000001:00000001:66607C8A:{kind}:golden\\x3ax:root@pam:");
    for (who, kind, text) in [
        ("tester@pbs!bench", "prunejob", "there is no log"),
        ("tester@pbs!bench", "verificationjob", "there is no log"),
        ("tester@pbs!bench", "garbage_collection", "there is no log"),
        ("tester@pbs!bench", "backup", "task access not allowed"),
        ("tester@pbs!second", "prunejob", "task access not allowed"),
        ("tester@pbs!second", "verificationjob", "task access not allowed"),
    ] {
        let target = format!("{NODE}/{}/log", escaped(&job(kind)));
        call(&daemon, who, "GET", &target).await.expect(400, text);
    }
    let short = format!("{NODE}/UPID%3Alocalhost%3Aabc/status");
    let reason = "parameter verification failed - 'upid': value must be at least 36 characters long";
    call(&daemon, "tester@pbs!bench", "GET", &short).await.expect(400, reason);
    other.leave(&daemon).await;
}

/// What a client may be doing when its task is stopped.
#[tokio::test]
async fn a_stopped_session_ends_and_frees_its_group() {
    let daemon = Daemon::start();
    let who = "tester@pbs!bench";
    for doing in ["nothing", "sending a chunk", "sending a manifest", "restoring"] {
        let place = Place::host("s", 0);
        let mut streams = Vec::new();
        let session = if doing == "restoring" {
            let asked = upload::ask_reader(&daemon, &place).await.session();
            // Asked for and never read.
            streams.push(asked.start("GET", "/speedtest", &[], bytes::Bytes::new()).await.expect("a stream"));
            asked
        } else {
            let mut backup = session(&daemon, who, "s").await;
            if doing == "sending a chunk" {
                let writer = backup.create(ARCHIVE, FIXED_CHUNK_BYTES, "").await;
                let target = Backup::chunk_target(&writer, &Chunk::made(1, FIXED_CHUNK_BYTES));
                let mut stream = backup.session.open("POST", &target, &[], false).await.expect("a stream");
                stream.send(vec![0; 1000].into(), false).expect("sent");
                streams.push(stream);
            }
            if doing == "sending a manifest" {
                backup.blob("a.conf.blob", b"a").await.expect(200, "");
                backup.manifest().await.expect(200, "");
            }
            backup.session
        };
        let upid = daemon.running().pop().expect("a running task");
        let target = format!("{NODE}/{}", escaped(&upid));
        let stopped = call(&daemon, who, "DELETE", &target).await;
        stopped.expect(200, "");
        assert_eq!(stopped.text(), r#"{"data":null}"#);
        // The client does nothing about it: its connection stays open until the server ends the task.
        daemon.idle().await;
        assert_eq!(daemon.ended().pop(), Some((upid.clone(), "task aborted".to_owned())), "{doing}");
        let state = get(&daemon, &format!("{target}/status")).await;
        assert_eq!(
            (&state["data"]["status"], &state["data"]["exitstatus"]),
            (&json!("stopped"), &json!("task aborted"))
        );
        call(&daemon, who, "DELETE", &target).await.expect(200, "");
        if doing != "restoring" {
            assert!(!daemon.has(place.dir()), "{doing}: the unfinished snapshot is still there");
        }
        drop((streams, session));
        if doing == "sending a manifest" {
            upload::full_backup(&daemon, place, ARCHIVE, &[Chunk::made(2, FIXED_CHUNK_BYTES)]).await;
        }
    }
}

#[tokio::test]
async fn a_killed_daemon_leaves_unknown_tasks_not_running_ones() {
    let mut daemon = Daemon::with(Setup::default());
    let backup = session(&daemon, "tester@pbs!bench", "k").await;
    let upid = daemon.running().pop().expect("a running task");
    while daemon.task_log(&upid).is_empty() {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    daemon.kill();
    daemon.expect(&["--allow", "unfinished:host/k/*"]);
    drop(backup);
    daemon.launch();
    assert_eq!(upids(&get(&daemon, &format!("{NODE}?running=1")).await), [""; 0]);
    let list = get(&daemon, &format!("{NODE}?errors=1")).await;
    assert_eq!((&list["data"][0]["upid"], &list["data"][0]["status"]), (&json!(upid), &json!("unknown")));
    let state = get(&daemon, &format!("{NODE}/{}/status", escaped(&upid))).await;
    assert_eq!((&state["data"]["status"], &state["data"]["exitstatus"]), (&json!("stopped"), &json!("unknown")));
    let log = get(&daemon, &format!("{NODE}/{}/log?test-status=1", escaped(&upid))).await;
    assert_eq!(log["active"], false);
    assert!(!log["data"].as_array().unwrap().is_empty());
}
