//! What people change about groups and snapshots from day to day: notes, protection, owners, and what they remove.

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, STORE};
use crate::support::upload::{self, Backup, Chunk, FIXED_CHUNK_BYTES, Place, ask_backup, ask_reader};
use crate::support::wire::{Conn, Reply};

const ARCHIVE: &str = "disk.img.fidx";

/// `tester@pbs!bench` may do everything with the datastore.
const BENCH: &str = "tester@pbs!bench:{{TOKEN_SECRET}}";
/// May back up, and that only.
const SECOND: &str = "tester@pbs!second:{{TOKEN_SECRET_SECOND}}";
/// As `SECOND`, of another user.
const OTHER: &str = "other@pbs!tok:{{TOKEN_SECRET_OTHER}}";

/// A call of somebody: GET and DELETE with a query, the rest with a JSON body.
pub(super) async fn ask(daemon: &Daemon, who: &str, method: &str, call: &str, params: Value) -> Reply {
    let auth = daemon.secrets().fill(&format!("PBSAPIToken {who}"));
    let target = format!("/api2/json/admin/datastore/{STORE}/{call}");
    let mut conn = Conn::open(daemon.peer()).await.expect("connect");
    let authorization = ("authorization", auth.as_str());
    let reply = if matches!(method, "GET" | "DELETE") {
        let mut query = form_urlencoded::Serializer::new(String::new());
        for (name, value) in params.as_object().expect("an object") {
            query.append_pair(name, &value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        }
        conn.call(method, &format!("{target}?{}", query.finish()), &[authorization], b"").await
    } else {
        let headers = [authorization, ("content-type", "application/json")];
        conn.call(method, &target, &headers, params.to_string().as_bytes()).await
    };
    conn.close().await;
    reply.expect("an answer")
}

/// The parameters that name a group.
pub(super) fn group(place: &Place) -> Value {
    let mut params = json!({"backup-type": place.kind, "backup-id": place.id});
    if !place.ns.is_empty() {
        params["ns"] = json!(place.ns);
    }
    params
}

/// The parameters that name a snapshot.
pub(super) fn snapshot(place: &Place) -> Value {
    with(group(place), "backup-time", json!(place.time))
}

pub(super) fn with(mut params: Value, name: &str, value: Value) -> Value {
    params[name] = value;
    params
}

/// A small snapshot.
pub(super) async fn backup(daemon: &Daemon, place: &Place) {
    let seed = u64::try_from(place.time).expect("after the epoch");
    upload::full_backup(daemon, place.clone(), ARCHIVE, &[Chunk::made(seed, FIXED_CHUNK_BYTES)]).await;
}

/// That a snapshot is there, with every byte of its archive.
pub(super) async fn is_whole(daemon: &Daemon, place: &Place) {
    let seed = u64::try_from(place.time).expect("after the epoch");
    let read = upload::read_archive(daemon, place, ARCHIVE).await;
    assert!(read == upload::made_bytes(seed, FIXED_CHUNK_BYTES), "{}", place.dir());
}

#[tokio::test]
async fn notes_are_kept_as_they_were_written() {
    let daemon = Daemon::start();
    let place = Place::host("n", 0);
    backup(&daemon, &place).await;
    let text = "Größe: 5 µm, «quoted» \"double\" 100% + & = ?\n\tzweite Zeile\r\n\n日本語 🙂";
    for (call, params) in [("notes", snapshot(&place)), ("group-notes", group(&place))] {
        let get = async || ask(&daemon, BENCH, "GET", call, params.clone()).await.data();
        let set = async |notes: &str| {
            let params = with(params.clone(), "notes", json!(notes));
            ask(&daemon, BENCH, "PUT", call, params).await.expect(200, r#"{"data":null}"#);
        };
        assert_eq!(get().await, "");
        set(text).await;
        assert_eq!(get().await, text);
        let list = if call == "notes" { "snapshots" } else { "groups" };
        let listed = ask(&daemon, BENCH, "GET", list, json!({})).await.data();
        assert_eq!(listed[0]["comment"], "Größe: 5 µm, «quoted» \"double\" 100% + & = ?", "{listed}");
        set("").await;
        assert_eq!(get().await, "");
        set("kept").await;
    }
    // A backup later they are still there, and a form says the same as JSON.
    backup(&daemon, &Place::host("n", 1)).await;
    assert_eq!(ask(&daemon, BENCH, "GET", "notes", snapshot(&place)).await.data(), "kept");
    assert_eq!(ask(&daemon, BENCH, "GET", "group-notes", group(&place)).await.data(), "kept");
    let target = format!("/api2/json/admin/datastore/{STORE}/notes");
    let form = format!("{}&notes=%C3%A4%0Ab+c", place.query());
    upload::rest(&daemon, "PUT", &target, form.as_bytes()).await.expect(200, "");
    assert_eq!(ask(&daemon, BENCH, "GET", "notes", snapshot(&place)).await.data(), "ä\nb c");
    is_whole(&daemon, &place).await;

    let missing = Place::host("nope", 0);
    ask(&daemon, BENCH, "GET", "notes", snapshot(&missing)).await.expect(400, "unable to load blob");
    let noted = with(group(&missing), "notes", json!("x"));
    ask(&daemon, BENCH, "PUT", "group-notes", noted).await.expect(400, "ENOENT: No such file or directory");
    assert!(!daemon.has("host/nope"));
}

#[tokio::test]
async fn a_protected_snapshot_is_not_forgotten() {
    let daemon = Daemon::start();
    let place = Place::host("p", 0);
    backup(&daemon, &place).await;
    let protect = async |protected: bool| {
        let params = with(snapshot(&place), "protected", json!(protected));
        ask(&daemon, BENCH, "PUT", "protected", params).await
    };
    let is_protected = async || ask(&daemon, BENCH, "GET", "protected", snapshot(&place)).await.data();
    assert_eq!(is_protected().await, json!(false));
    protect(true).await.expect(200, r#"{"data":null}"#);
    assert_eq!(is_protected().await, json!(true));
    assert_eq!(ask(&daemon, BENCH, "GET", "snapshots", json!({})).await.data()[0]["protected"], json!(true));
    ask(&daemon, BENCH, "DELETE", "snapshots", snapshot(&place)).await.expect(400, "cannot remove protected snapshot");
    is_whole(&daemon, &place).await;
    // While somebody restores from it nothing about it changes.
    let reader = ask_reader(&daemon, &place).await.session();
    protect(false).await.expect(400, "possibly running or in use");
    reader.close().await;
    daemon.idle().await;
    protect(false).await.expect(200, "");
    ask(&daemon, BENCH, "DELETE", "snapshots", snapshot(&place)).await.expect(200, r#"{"data":null}"#);
    assert!(!daemon.has("host/p"), "the group goes with its last snapshot");
    assert_eq!(is_protected().await, json!(false));
    protect(true).await.expect(400, "ENOENT: No such file or directory");
}

#[tokio::test]
async fn owners_change_between_a_user_and_its_tokens() {
    let daemon = Daemon::start();
    let place = Place::host("o", 0);
    backup(&daemon, &place).await;
    let give = async |who: &str, to: &str| {
        let params = with(group(&place), "new-owner", json!(to));
        ask(&daemon, who, "POST", "change-owner", params).await
    };
    let owner = async || ask(&daemon, BENCH, "GET", "groups", json!({})).await.data()[0]["owner"].clone();
    let refusal = "does not have permission to change owner of backup group 'host/o' to";
    for (who, to) in
        [(SECOND, "tester@pbs"), (SECOND, "tester@pbs!second"), (OTHER, "other@pbs!tok"), (OTHER, "nobody@pbs")]
    {
        give(who, to).await.expect(401, refusal);
        assert_eq!(owner().await, "tester@pbs!bench", "{who} to {to}");
    }
    // Who may do everything may give it to anybody who exists.
    give(BENCH, "nobody@pbs").await.expect(400, "user 'nobody@pbs' is inactive or non-existent");
    give(BENCH, "tester@pbs!nope").await.expect(400, "token 'tester@pbs!nope' is inactive or non-existent");
    give(BENCH, "tester@pbs!second").await.expect(200, r#"{"data":null}"#);
    assert_eq!(owner().await, "tester@pbs!second");
    // A token gives what it owns to its user, and to nobody else; then it is out.
    give(SECOND, "tester@pbs!bench").await.expect(401, refusal);
    give(SECOND, "other@pbs").await.expect(401, refusal);
    give(SECOND, "tester@pbs").await.expect(200, "");
    assert_eq!(owner().await, "tester@pbs");
    give(SECOND, "tester@pbs!second").await.expect(401, refusal);
    assert_eq!(std::fs::read(daemon.store().join("host/o/owner")).unwrap(), b"tester@pbs\n");
    // The group is the new owner's for backups too.
    ask_backup(&daemon, &Place::host("o", 1), "").await.refused().expect(400, "backup owner check failed");
    give(BENCH, "tester@pbs!bench").await.expect(200, "");
    Backup::start(&daemon, Place::host("o", 1)).await.leave(&daemon).await;
    let missing = with(json!({"backup-type": "host", "backup-id": "none"}), "new-owner", json!("tester@pbs"));
    let says = "unable to create owner file";
    ask(&daemon, BENCH, "POST", "change-owner", missing.clone()).await.expect(400, says);
    ask(&daemon, SECOND, "POST", "change-owner", missing).await.expect(400, "ENOENT: No such file or directory");
    assert!(!daemon.has("host/none"));
}

#[tokio::test]
async fn a_group_goes_but_for_what_is_protected() {
    let daemon = Daemon::start();
    let places: Vec<Place> = (0..3).map(|hours| Place::host("g", hours)).collect();
    for place in &places {
        backup(&daemon, place).await;
    }
    ask(&daemon, BENCH, "PUT", "group-notes", with(group(&places[0]), "notes", json!("mine"))).await.expect(200, "");
    let protect = async |protected: bool| {
        let params = with(snapshot(&places[1]), "protected", json!(protected));
        ask(&daemon, BENCH, "PUT", "protected", params).await.expect(200, "");
    };
    let remove = async |who: &str, more: Value| {
        let mut params = group(&places[0]);
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        ask(&daemon, who, "DELETE", "groups", params).await
    };
    let may_not = "permission check failed - missing Datastore.Modify|Datastore.Prune on /datastore/golden";
    remove(SECOND, json!({})).await.expect(403, may_not);
    // A running backup keeps all of it.
    let running = Backup::start(&daemon, Place::host("g", 5)).await;
    remove(BENCH, json!({})).await.expect(400, "possible running backup");
    running.leave(&daemon).await;
    for place in &places {
        is_whole(&daemon, place).await;
    }
    protect(true).await;
    remove(BENCH, json!({})).await.expect(400, "only partially deleted due to protected snapshots");
    is_whole(&daemon, &places[1]).await;
    let groups = ask(&daemon, BENCH, "GET", "groups", json!({})).await.data();
    assert_eq!(groups[0]["backup-count"], 1, "{groups}");
    assert_eq!((&groups[0]["owner"], &groups[0]["comment"]), (&json!("tester@pbs!bench"), &json!("mine")));
    let counts = |groups: u64, protected: u64, snapshots: u64| json!({"removed-groups": groups, "protected-snapshots": protected, "removed-snapshots": snapshots});
    let lenient = json!({"error-on-protected": false});
    assert_eq!(remove(BENCH, lenient).await.data(), counts(0, 1, 0));
    protect(false).await;
    assert_eq!(remove(BENCH, json!({})).await.data(), counts(1, 0, 1));
    assert!(!daemon.has("host/g"));
    remove(BENCH, json!({})).await.expect(400, "ENOENT: No such file or directory");
    // The id is free for anybody.
    backup(&daemon, &places[0]).await;
}

#[tokio::test]
async fn a_namespace_goes_with_or_without_its_groups() {
    let daemon = Daemon::start();
    for (parent, name) in [("", "a"), ("a", "b"), ("a", "c")] {
        ask(&daemon, BENCH, "POST", "namespace", json!({"parent": parent, "name": name})).await.expect(200, "");
    }
    let place = |ns: &str, hours| Place { ns: ns.into(), ..Place::host("x", hours) };
    let [kept, gone, outside] = [place("a/b", 0), place("a/b", 1), place("", 0)];
    for place in [&kept, &gone, &outside, &place("a/c", 0)] {
        backup(&daemon, place).await;
    }
    let remove = async |ns: &str, groups: bool, more: &str| {
        let mut params = json!({"ns": ns, "delete-groups": groups});
        if !more.is_empty() {
            params[more] = json!(false);
        }
        ask(&daemon, BENCH, "DELETE", "namespace", params).await
    };
    remove("a", false, "")
        .await
        .expect(400, "only partially deleted due to existing groups but `delete-groups` not true ");
    for place in [&kept, &gone] {
        is_whole(&daemon, place).await;
    }
    remove("", true, "").await.expect(400, "cannot delete root namespace!");
    ask(&daemon, SECOND, "DELETE", "namespace", json!({"ns": "a"})).await.expect(403, "missing Datastore.Modify on");
    let protect = async |protected: bool| {
        let params = with(snapshot(&kept), "protected", json!(protected));
        ask(&daemon, BENCH, "PUT", "protected", params).await.expect(200, "");
    };
    protect(true).await;
    remove("a", true, "").await.expect(400, "only partially deleted due to existing protected snapshots ");
    is_whole(&daemon, &kept).await;
    assert!(!daemon.has(gone.dir()) && !daemon.has("ns/a/ns/c"), "the rest is gone");
    let counts = |groups: u64, protected: u64, snapshots: u64| json!({"removed-groups": groups, "protected-snapshots": protected, "removed-snapshots": snapshots});
    assert_eq!(remove("a", true, "error-on-protected").await.data(), counts(0, 1, 0));
    protect(false).await;
    assert_eq!(remove("a", true, "").await.data(), counts(1, 0, 1));
    assert!(!daemon.has("ns/a"));
    assert_eq!(remove("a", true, "").await.data(), counts(0, 0, 0), "what is not there is removed already");
    is_whole(&daemon, &outside).await;
}
