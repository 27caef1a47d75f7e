//! Recorded traffic: one JSON object a line, bodies in files of their own.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::Value;

use super::golden;

/// A recorded scenario: its head line and its requests in the order of their first bytes.
#[derive(Debug)]
pub struct Trace {
    /// File name without `.jsonl`.
    pub name: String,
    /// All requests.
    pub requests: Vec<Recorded>,
}

/// HTTP/1.1, or HTTP/2 after an upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proto {
    /// Before an upgrade.
    H1,
    /// After it.
    H2,
}

/// Bytes of a body, or what is known of bytes that were left out of the recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// No body.
    None,
    /// All of it.
    Bytes(Bytes),
    /// Left out: only its length and digest are known.
    Omitted {
        /// Length of the body.
        len: u64,
    },
}

/// Event numbers over the whole scenario.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// When the request began.
    pub req_start: u64,
    /// When its answer was complete; none if there was no whole answer.
    pub resp_end: Option<u64>,
}

/// A recorded answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Lower-case names.
    pub headers: BTreeMap<String, String>,
    /// Its body.
    pub body: Body,
}

/// One recorded request with its answer.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// Number in the scenario.
    pub seq: u64,
    /// Number of its TCP connection.
    pub conn: u64,
    /// Protocol.
    pub proto: Proto,
    /// Method.
    pub method: String,
    /// Path and query as sent.
    pub target: String,
    /// Lower-case names, without the pseudo headers of HTTP/2.
    pub headers: BTreeMap<String, String>,
    /// Request body.
    pub body: Body,
    /// The answer; none if the connection was dropped first.
    pub answer: Option<Answer>,
    /// What was sent without waiting for what.
    pub order: Order,
}

impl Body {
    fn parse(value: &Value) -> Self {
        if value.is_null() {
            return Self::None;
        }
        if let Some(text) = value["text"].as_str() {
            return Self::Bytes(Bytes::copy_from_slice(text.as_bytes()));
        }
        if let Some(file) = value["file"].as_str() {
            let path = golden::dir().join("traces").join(file);
            return Self::Bytes(std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).into());
        }
        Self::Omitted { len: value["len"].as_u64().expect("length of an omitted body") }
    }

    /// The bytes, empty if there are none.
    pub fn bytes(&self) -> Bytes {
        match self {
            Self::Bytes(b) => b.clone(),
            Self::None | Self::Omitted { .. } => Bytes::new(),
        }
    }
}

impl Trace {
    /// Loads `traces/NAME.jsonl`.
    pub fn load(name: &str) -> Self {
        let path = golden::dir().join("traces").join(format!("{name}.jsonl"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let lines = text.lines().map(|l| serde_json::from_str::<Value>(l).expect("a JSON line"));
        let requests = lines.filter(|v| v.get("seq").is_some()).map(|v| Recorded::parse(&v)).collect();
        Self { name: name.to_owned(), requests }
    }
}

fn headers(value: &Value) -> BTreeMap<String, String> {
    let pairs = value.as_object().expect("headers are an object").iter();
    let kept = pairs.filter(|(k, _)| !k.starts_with(':'));
    kept.map(|(k, v)| (k.clone(), v.as_str().unwrap_or_default().to_owned())).collect()
}

impl Recorded {
    fn parse(v: &Value) -> Self {
        let answer = (!v["response"].is_null()).then(|| Answer {
            status: u16::try_from(v["response"]["status"].as_u64().expect("status")).expect("status"),
            headers: headers(&v["response"]["headers"]),
            body: Body::parse(&v["response"]["body"]),
        });
        Self {
            seq: v["seq"].as_u64().expect("seq"),
            conn: v["conn"].as_u64().expect("conn"),
            proto: if v["proto"] == "h2" { Proto::H2 } else { Proto::H1 },
            method: v["method"].as_str().expect("method").to_owned(),
            target: v["target"].as_str().expect("target").to_owned(),
            headers: headers(&v["headers"]),
            body: Body::parse(&v["body"]),
            answer,
            order: Order {
                req_start: v["order"]["req_start"].as_u64().expect("req_start"),
                resp_end: v["order"]["resp_end"].as_u64(),
            },
        }
    }
}
