//! Every call of REST and of both protocols with each of its parameters unknown, missing, twice, and wrong in every way.

use bytes::Bytes;

use super::{ZEROS, assert_still_serves};
use crate::support::daemon::{Daemon, STORE};
use crate::support::upload::{Backup, Place, ask_reader};
use crate::support::wire::Conn;

/// Names that no file, group or archive may have.
fn bad_names() -> Vec<String> {
    let mut names: Vec<String> =
        ["..", ".", ".hidden", "a/b", "../../etc/passwd", "a\0b", "", " ", "a b", "é", "a\nb", "%2e%2e", "-a", "a\\b"]
            .map(str::to_owned)
            .to_vec();
    names.push("n".repeat(10_240) + "/");
    names
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

/// A call with its parameters.
struct Call {
    method: &'static str,
    path: &'static str,
    /// Name and a value that would do.
    params: &'static [(&'static str, &'static str)],
    /// Those that may be left out.
    optional: &'static [&'static str],
}

const SNAPSHOT: [(&str, &str); 3] = [("backup-type", "host"), ("backup-id", "x"), ("backup-time", "1717597418")];

const REST_CALLS: &[Call] = &[
    Call { method: "GET", path: "version", params: &[], optional: &[] },
    Call { method: "GET", path: "admin/datastore", params: &[], optional: &[] },
    Call {
        method: "GET",
        path: "admin/datastore/golden/status",
        params: &[("verbose", "true")],
        optional: &["verbose"],
    },
    Call { method: "GET", path: "admin/datastore/golden/groups", params: &[("ns", "")], optional: &["ns"] },
    Call {
        method: "GET",
        path: "admin/datastore/golden/snapshots",
        params: &[("ns", ""), ("backup-type", "host"), ("backup-id", "x")],
        optional: &["ns", "backup-type", "backup-id"],
    },
    Call { method: "DELETE", path: "admin/datastore/golden/snapshots", params: &SNAPSHOT, optional: &[] },
    Call { method: "GET", path: "admin/datastore/golden/files", params: &SNAPSHOT, optional: &[] },
    Call {
        method: "GET",
        path: "admin/datastore/golden/namespace",
        params: &[("parent", ""), ("max-depth", "3")],
        optional: &["parent", "max-depth"],
    },
    Call { method: "POST", path: "admin/datastore/golden/namespace", params: &[("name", "new")], optional: &[] },
    Call { method: "DELETE", path: "admin/datastore/golden/namespace", params: &[("ns", "new")], optional: &[] },
    Call { method: "POST", path: "admin/datastore/golden/upload-backup-log", params: &SNAPSHOT, optional: &[] },
    Call {
        method: "GET",
        path: "backup",
        params: &[("store", STORE), SNAPSHOT[0], SNAPSHOT[1], SNAPSHOT[2], ("benchmark", "false"), ("debug", "true")],
        optional: &["benchmark", "debug"],
    },
    Call {
        method: "GET",
        path: "reader",
        params: &[("store", STORE), SNAPSHOT[0], SNAPSHOT[1], SNAPSHOT[2], ("debug", "true")],
        optional: &["debug"],
    },
];

fn query(params: &[(&str, &str)]) -> String {
    let pairs = params.iter().map(|(n, v)| format!("{n}={}", encoded(v)));
    pairs.collect::<Vec<_>>().join("&")
}

/// The ways in which a parameter list can be wrong: what is wrong, and the query.
fn wrong_queries(call: &Call) -> Vec<(String, String)> {
    let mut all = vec![("unknown".to_owned(), format!("{}&no-such=1", query(call.params)))];
    for (i, (name, value)) in call.params.iter().enumerate() {
        let without: Vec<_> = call.params.iter().filter(|(n, _)| n != name).copied().collect();
        if !call.optional.contains(name) {
            all.push((format!("{name} missing"), query(&without)));
        }
        all.push((format!("{name} twice"), format!("{}&{name}={}", query(call.params), encoded(value))));
        let mut bad: Vec<String> = match *name {
            "verbose" | "debug" | "benchmark" => ["maybe", "2", "", "truetrue"].map(str::to_owned).to_vec(),
            "backup-time" => ["0", "-1", "1.5", "abc", "", "99999999999999999999", "0x10"].map(str::to_owned).to_vec(),
            "max-depth" => ["8", "-1", "x"].map(str::to_owned).to_vec(),
            "size" | "encoded-size" | "wid" | "chunk-count" => {
                ["-1", "x", "", "1e3", "18446744073709551616"].map(str::to_owned).to_vec()
            }
            "backup-type" => ["VM", "qemu", "", "../host"].map(str::to_owned).to_vec(),
            "digest" => vec!["xyz".into(), "A".repeat(64), "0".repeat(63), "0".repeat(65), String::new()],
            "csum" => vec!["xyz".into(), "0".repeat(62)],
            "ns" | "parent" => {
                ["..", "a//b", "a/../b", "/a", "a/", "a b", "a/b/c/d/e/f/g/h"].map(str::to_owned).to_vec()
            }
            _ => bad_names(),
        };
        bad.retain(|v| v != value);
        for value in bad {
            let mut params: Vec<(&str, &str)> = call.params.to_vec();
            params[i].1 = &value;
            let shown: String = value.chars().take(30).collect();
            all.push((format!("{name} = {shown:?}"), query(&params)));
        }
    }
    all
}

#[tokio::test]
async fn rest_calls_with_wrong_parameters() {
    let daemon = Daemon::start();
    let auth = daemon.authorization();
    let mut faults = Vec::new();
    for call in REST_CALLS {
        for (what, query) in wrong_queries(call) {
            let target = format!("/api2/json/{}?{query}", call.path);
            let mut conn = Conn::open(daemon.peer()).await.unwrap();
            let reply = conn.call(call.method, &target, &[("authorization", &auth)], b"").await;
            match reply {
                Ok(r) if (400..=414).contains(&r.status) && (!r.body.is_empty() || r.status == 414) => {}
                Ok(r) => faults.push(format!("{} {} {what}: {} {:?}", call.method, call.path, r.status, r.text())),
                Err(e) => faults.push(format!("{} {} {what}: {e}", call.method, call.path)),
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_still_serves(&daemon, "after").await;
}

const SESSION_CALLS: &[Call] = &[
    Call { method: "POST", path: "blob", params: &[("file-name", "x.blob"), ("encoded-size", "13")], optional: &[] },
    Call { method: "POST", path: "dynamic_index", params: &[("archive-name", "x.didx")], optional: &[] },
    Call { method: "POST", path: "fixed_index", params: &[("archive-name", "x.fidx"), ("size", "5")], optional: &[] },
    Call {
        method: "POST",
        path: "fixed_chunk",
        params: &[("wid", "1"), ("digest", ZEROS), ("size", "5"), ("encoded-size", "17")],
        optional: &[],
    },
    Call {
        method: "POST",
        path: "dynamic_chunk",
        params: &[("wid", "1"), ("digest", ZEROS), ("size", "5"), ("encoded-size", "17")],
        optional: &[],
    },
    Call {
        method: "POST",
        path: "fixed_close",
        params: &[("wid", "1"), ("chunk-count", "1"), ("size", "5"), ("csum", ZEROS)],
        optional: &[],
    },
    Call {
        method: "POST",
        path: "dynamic_close",
        params: &[("wid", "1"), ("chunk-count", "1"), ("size", "5"), ("csum", ZEROS)],
        optional: &[],
    },
    Call { method: "GET", path: "previous", params: &[("archive-name", "x.fidx")], optional: &[] },
    Call { method: "GET", path: "previous_backup_time", params: &[], optional: &[] },
    Call { method: "POST", path: "finish", params: &[], optional: &[] },
];

const READER_CALLS: &[Call] = &[
    Call { method: "GET", path: "download", params: &[("file-name", "x.blob")], optional: &[] },
    Call { method: "GET", path: "chunk", params: &[("digest", ZEROS)], optional: &[] },
    Call { method: "GET", path: "speedtest", params: &[], optional: &[] },
];

#[tokio::test]
async fn session_calls_with_wrong_parameters() {
    let daemon = Daemon::start();
    assert_still_serves(&daemon, "base").await;
    let backup = Backup::start(&daemon, Place::host("m", 0)).await;
    let reader = ask_reader(&daemon, &Place::host("base", 0)).await.session();
    let mut faults = Vec::new();
    for (session, calls) in [(&backup.session, SESSION_CALLS), (&reader, READER_CALLS)] {
        for call in calls {
            for (what, query) in wrong_queries(call) {
                let target = format!("/{}?{query}", call.path);
                match session.call(call.method, &target, &[], Bytes::new()).await {
                    Ok(r) if (400..=414).contains(&r.status) && (!r.body.is_empty() || r.status == 414) => {}
                    Ok(r) => faults.push(format!("{} {what}: {} {:?}", call.path, r.status, r.text())),
                    Err(e) => faults.push(format!("{} {what}: {e}", call.path)),
                }
            }
        }
        for (method, target) in
            [("GET", "/nosuch"), ("PATCH", "/finish"), ("DELETE", "/"), ("GET", "/../x"), ("POST", "//")]
        {
            let reply = session.call(method, target, &[], Bytes::new()).await.expect("an answer");
            assert!((400..=404).contains(&reply.status), "{method} {target}: {}", reply.status);
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    // After all that the session still works.
    backup.create("b.pxar.didx", 0, "").await;
    reader.close().await;
    backup.leave(&daemon).await;
    assert_still_serves(&daemon, "after").await;
}
