//! Whether an answer is as recorded, apart from what no two servers can have in common.

use serde_json::Value;

use super::daemon::Daemon;
use super::trace::{Answer, Body, Recorded};
use super::upload;
use super::wire::Reply;

/// Values that differ from run to run: their kind must agree, not their content.
const VOLATILE: [&str; 15] = [
    "node",
    "upid",
    "ticket",
    "CSRFPreventionToken",
    "total",
    "used",
    "avail",
    "repoid",
    "starttime",
    "endtime",
    "pid",
    "pstart",
    "compressed_size",
    "csum-of-blob",
    "timestamp",
];

/// What is not as recorded, one sentence each.
pub fn answers(request: &Recorded, want: &Answer, got: &Reply, daemon: &Daemon) -> Vec<String> {
    let mut found = Vec::new();
    if want.status != got.status {
        found.push(format!(
            "status {} instead of {}: {:?} instead of {:?}",
            got.status,
            want.status,
            got.text(),
            text_of(&want.body)
        ));
        return found;
    }
    for name in ["content-type", "location", "upgrade"] {
        let recorded = want.headers.get(name).map(String::as_str);
        let recorded = recorded.map(|v| normalise(v, daemon));
        let ours = got.header(name).map(|v| normalise(v, daemon));
        if recorded != ours {
            found.push(format!("{name} is {ours:?} instead of {recorded:?}"));
        }
    }
    found.extend(bodies(request, want, got, daemon));
    found
}

fn text_of(body: &Body) -> String {
    String::from_utf8_lossy(&body.bytes()).chars().take(300).collect()
}

fn bodies(request: &Recorded, want: &Answer, got: &Reply, daemon: &Daemon) -> Option<String> {
    let wanted = want.body.bytes();
    if want.headers.get("content-type").is_some_and(|t| t.starts_with("application/octet-stream")) {
        return downloads(&request.target, &wanted, &got.body);
    }
    let (recorded, ours) = (serde_json::from_slice::<Value>(&wanted), serde_json::from_slice::<Value>(&got.body));
    match (recorded, ours) {
        (Ok(recorded), Ok(ours)) => {
            let (recorded, ours) = (steady(recorded, ""), steady(ours, ""));
            (recorded != ours).then(|| format!("{ours} instead of {recorded}"))
        }
        (Ok(_), Err(_)) => Some(format!("no JSON: {:?}", got.text())),
        _ => {
            let (recorded, ours) =
                (normalise(&String::from_utf8_lossy(&wanted), daemon), normalise(&got.text(), daemon));
            (recorded != ours).then(|| format!("text {ours:?} instead of {recorded:?}"))
        }
    }
}

fn downloads(target: &str, wanted: &[u8], got: &[u8]) -> Option<String> {
    let name = target.split(['?', '&']).find_map(|p| p.strip_prefix("archive-name=").or(p.strip_prefix("file-name=")));
    let name = name.unwrap_or_default();
    if name.ends_with(".fidx") || name.ends_with(".didx") {
        let blank = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            // uuid and ctime are of the server that made the file.
            bytes.iter_mut().skip(8).take(24).for_each(|b| *b = 0);
            bytes
        };
        return (blank(wanted) != blank(got))
            .then(|| format!("another index: {} bytes instead of {}", got.len(), wanted.len()));
    }
    if name == "index.json.blob" {
        let manifest = |blob: &[u8]| {
            // `download-decoded` sends what is in the blob.
            let decoded = target.contains("/download-decoded?");
            let json = if decoded { blob.to_vec() } else { upload::decode_blob(blob) };
            steady(serde_json::from_slice(&json).unwrap_or(Value::Null), "")
        };
        let (wanted, got) = (manifest(wanted), manifest(got));
        return (wanted != got).then(|| format!("manifest {got} instead of {wanted}"));
    }
    (wanted != got).then(|| format!("other bytes: {} of {}", got.len(), wanted.len()))
}

/// Sorts what has no order, and keeps every value.
pub fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(map.into_iter().map(|(k, v)| (k, sorted(v))).collect()),
        Value::Array(list) => {
            let mut list: Vec<Value> = list.into_iter().map(sorted).collect();
            list.sort_by_key(ToString::to_string);
            Value::Array(list)
        }
        other => other,
    }
}

/// Blanks volatile values and sorts what has no order.
pub fn steady(value: Value, key: &str) -> Value {
    match value {
        Value::Object(map) => {
            let is_manifest = map.get("filename").is_some_and(|n| n == "index.json.blob");
            let is_snapshot = map.contains_key("files") && map.contains_key("backup-time");
            let steady_one = |(k, v): (String, Value)| {
                // The manifest's stored length depends on the compressor, and with it the sum of the snapshot.
                let sized = k == "size" && (is_manifest || is_snapshot);
                let v = if sized { Value::from("<number>") } else { steady(v, &k) };
                (k, v)
            };
            Value::Object(map.into_iter().map(steady_one).collect())
        }
        Value::Array(list) => {
            let mut list: Vec<Value> = list.into_iter().map(|v| steady(v, key)).collect();
            list.sort_by_key(ToString::to_string);
            Value::Array(list)
        }
        _ if VOLATILE.contains(&key) && !value.is_null() => {
            Value::from(if value.is_string() { "<text>" } else { "<number>" })
        }
        Value::String(upid) if upid.starts_with("UPID:") => {
            // Node, process and time are the server's; what was done for whom is compared.
            let parts: Vec<&str> = upid.split(':').skip(6).collect();
            Value::from(format!("UPID:…:{}", parts.join(":")))
        }
        other => other,
    }
}

/// Blanks paths of datastores, UPIDs and temporary names in a text.
pub fn normalise(text: &str, daemon: &Daemon) -> String {
    let mut text = text.replace(daemon.store().to_str().expect("a path in UTF-8"), "{STORE}");
    text = text.replace(&daemon.peer().addr.to_string(), "{ADDR}").replace("127.0.0.1:8007", "{ADDR}");
    text = text.replace("localhost:8007", "{ADDR}");
    while let Some(at) = text.find("/mnt/datastore/") {
        let rest = &text[at + "/mnt/datastore/".len()..];
        let name = rest.chars().take_while(|c| c.is_ascii_alphanumeric() || "_-.".contains(*c)).count();
        text.replace_range(at..at + "/mnt/datastore/".len() + name, "{STORE}");
    }
    while let Some(at) = text.find("UPID:") {
        let end = text[at..].find([' ', '"', '\'']).map_or(text.len(), |n| at + n);
        text.replace_range(at..end, "{ID}");
    }
    text
}
