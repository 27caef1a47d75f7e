//! Sends a recorded scenario to a daemon, with the concurrency of the recording, and compares every answer.
//!
//! A difference that we chose is named in a list with what we do instead and why; one that is named and does not occur
//! fails as well, so the list cannot grow old.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bytes::Bytes;
use serde_json::Value;

use super::compare;
use super::daemon::{Daemon, Secrets};
use super::trace::{Answer, Body, Proto, Recorded, Trace};
use super::wire::{Conn, OpenStream, Reply, Session};

/// Where we answer otherwise than the recorded server, on purpose.
#[derive(Clone, Copy, Debug)]
pub struct Difference {
    /// Which request.
    pub seq: u64,
    /// Our status.
    pub status: u16,
    /// A part of our text or body; empty for any.
    pub part: &'static str,
    /// Why.
    pub why: &'static str,
}

/// What is done between requests, as the recording's `steps` tell.
pub enum Step {
    /// Ends a connection that would be kept.
    Close(u64),
    /// Anything else, with the datastore's directory at hand.
    Do(Box<dyn Fn(&Daemon) + Send + Sync>),
}

/// How a scenario is played.
#[derive(Default)]
pub struct Script {
    /// Chosen differences.
    pub differences: Vec<Difference>,
    /// Steps before the request of this number.
    pub steps: Vec<(u64, Step)>,
    /// Connections that stay open after their last request until a [`Step::Close`] or the end.
    pub keep: Vec<u64>,
}

impl Script {
    /// Names a difference.
    #[must_use]
    pub fn differs(mut self, seq: u64, status: u16, part: &'static str, why: &'static str) -> Self {
        self.differences.push(Difference { seq, status, part, why });
        self
    }

    /// Does something before a request.
    #[must_use]
    pub fn before(mut self, seq: u64, work: impl Fn(&Daemon) + Send + Sync + 'static) -> Self {
        self.steps.push((seq, Step::Do(Box::new(work))));
        self
    }

    /// Removes a chunk file before a request.
    #[must_use]
    pub fn removes(self, seq: u64, digest: &'static str) -> Self {
        self.before(seq, move |daemon| daemon.remove_chunk(digest))
    }

    /// Keeps a connection open until before the request `until`.
    #[must_use]
    pub fn keeps(mut self, conn: u64, until: u64) -> Self {
        self.keep.push(conn);
        self.steps.push((until, Step::Close(conn)));
        self
    }
}

enum Line {
    H1(Box<Conn>),
    H2(Session),
}

enum Sent {
    H1(tokio::task::JoinHandle<(io::Result<Reply>, Option<Conn>)>),
    H2(tokio::task::JoinHandle<io::Result<Reply>>),
}

struct Player<'a> {
    daemon: &'a Daemon,
    script: &'a Script,
    secrets: Secrets,
    requests: BTreeMap<u64, Recorded>,
    lines: BTreeMap<u64, Line>,
    pending: Vec<(u64, Sent)>,
    unanswered: Vec<(u64, OpenStream)>,
    seen_differences: BTreeSet<u64>,
    /// Connection and recorded writer id → our writer id: of two indexes created at the same time, either may be the first.
    writers: BTreeMap<(u64, u64), u64>,
    /// Recorded name of a task → ours.
    tasks: BTreeMap<String, String>,
    faults: Vec<String>,
}

/// Plays a scenario; panics with a list of every answer that is not as recorded.
pub async fn play(daemon: &Daemon, name: &str, script: &Script) {
    let trace = Trace::load(name);
    let order: Vec<u64> = trace.requests.iter().map(|r| r.seq).collect();
    let mut player = Player {
        daemon,
        script,
        secrets: daemon.secrets(),
        requests: trace.requests.into_iter().map(|r| (r.seq, r)).collect(),
        lines: BTreeMap::new(),
        pending: Vec::new(),
        unanswered: Vec::new(),
        seen_differences: BTreeSet::new(),
        writers: BTreeMap::new(),
        tasks: BTreeMap::new(),
        faults: Vec::new(),
    };
    for seq in order {
        player.prepare(seq).await;
        player.send(seq).await;
    }
    player.collect(|_| true).await;
    player.close_idle(u64::MAX).await;
    let open: Vec<u64> = player.lines.keys().copied().collect();
    for conn in open {
        player.close(conn).await;
    }
    daemon.idle().await;
    for difference in &script.differences {
        if !player.seen_differences.contains(&difference.seq) {
            player.faults.push(format!("{}: the difference did not occur: {}", difference.seq, difference.why));
        }
    }
    assert!(player.faults.is_empty(), "{name}:\n{}", player.faults.join("\n"));
}

impl Player<'_> {
    /// Waits for what the recorded client had waited for, and does the steps before this request.
    async fn prepare(&mut self, seq: u64) {
        let start = self.requests[&seq].order.req_start;
        self.collect(|r| r.order.resp_end.is_some_and(|end| end < start) && !is_slow(r)).await;
        self.close_idle(seq).await;
        let script = self.script;
        for (_, step) in script.steps.iter().filter(|(before, _)| *before == seq) {
            match step {
                Step::Close(conn) => self.close(*conn).await,
                Step::Do(work) => work(self.daemon),
            }
        }
    }

    async fn send(&mut self, seq: u64) {
        let request = self.requests[&seq].clone();
        let sent = match request.proto {
            Proto::H1 => self.send_h1(&request).await,
            Proto::H2 => self.send_h2(&request).await,
        };
        match sent {
            Ok(Some(sent)) => self.pending.push((seq, sent)),
            Ok(None) => {}
            Err(e) => self.faults.push(format!("{}: not sent: {e}", show(&request))),
        }
    }

    async fn send_h1(&mut self, request: &Recorded) -> io::Result<Option<Sent>> {
        let mut conn = match self.lines.remove(&request.conn) {
            Some(Line::H1(conn)) => *conn,
            Some(line) => {
                self.lines.insert(request.conn, line);
                return Err(io::Error::other("the connection was upgraded"));
            }
            None => Conn::open(self.daemon.peer()).await?,
        };
        let secrets = &self.secrets;
        let dropped = ["host", "content-length", "transfer-encoding"];
        let headers: Vec<(String, String)> = request
            .headers
            .iter()
            .filter(|(n, _)| !dropped.contains(&n.as_str()))
            .map(|(n, v)| (n.clone(), secrets.fill(v)))
            .collect();
        let target = self.with_our_tasks(secrets.fill(&request.target));
        let body = fill_body(&request.body, secrets);
        let method = request.method.clone();
        Ok(Some(Sent::H1(tokio::spawn(async move {
            let headers: Vec<(&str, &str)> = headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
            let reply = conn.call(&method, &target, &headers, &body).await;
            let closes = |r: &Reply| r.header("connection").is_some_and(|v| v.eq_ignore_ascii_case("close"));
            let usable = reply.as_ref().is_ok_and(|r| !closes(r));
            (reply, usable.then_some(conn))
        }))))
    }

    async fn send_h2(&mut self, request: &Recorded) -> io::Result<Option<Sent>> {
        let Some(Line::H2(session)) = self.lines.get(&request.conn) else {
            return Err(io::Error::other("there is no session"));
        };
        let headers: Vec<(&str, &str)> = request.headers.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        let target = self.with_our_writer(request.conn, &request.target);
        let body = self.body_with_our_writer(request.conn, fill_body(&request.body, &self.secrets));
        if request.answer.is_none() {
            let mut stream = session.open(&request.method, &target, &headers, false).await?;
            let part = if body.is_empty() { Bytes::from(vec![0; 70_000]) } else { body };
            stream.send(part, false)?;
            self.unanswered.push((request.conn, stream));
            return Ok(None);
        }
        let stream = session.start(&request.method, &target, &headers, body).await?;
        Ok(Some(Sent::H2(tokio::spawn(stream.answer()))))
    }

    /// The target with our names of tasks.
    fn with_our_tasks(&self, target: String) -> String {
        // As the recorded client does it, and as those that were written by hand.
        const BY_HAND: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC.remove(b'-').remove(b'_');
        let encoded = |upid: &str, set| percent_encoding::utf8_percent_encode(upid, set).to_string();
        self.tasks.iter().fold(target, |target, (recorded, ours)| {
            let target = target.replace(&encoded(recorded, BY_HAND), &encoded(ours, BY_HAND));
            let all = percent_encoding::NON_ALPHANUMERIC;
            target.replace(&encoded(recorded, all), &encoded(ours, all))
        })
    }

    /// The target with the writer id that we gave for the recorded one.
    fn with_our_writer(&self, conn: u64, target: &str) -> String {
        let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
        let pairs = query.split('&').map(|pair| match pair.strip_prefix("wid=").and_then(|n| n.parse().ok()) {
            Some(wid) => format!("wid={}", self.writers.get(&(conn, wid)).unwrap_or(&wid)),
            None => pair.to_owned(),
        });
        format!("{path}?{}", pairs.collect::<Vec<_>>().join("&"))
    }

    fn body_with_our_writer(&self, conn: u64, body: Bytes) -> Bytes {
        let changed = self.writers.iter().any(|((c, recorded), ours)| *c == conn && recorded != ours);
        match serde_json::from_slice::<Value>(&body) {
            Ok(mut value) if changed => match value["wid"].as_u64().and_then(|wid| self.writers.get(&(conn, wid))) {
                Some(ours) => {
                    value["wid"] = (*ours).into();
                    value.to_string().into()
                }
                None => body,
            },
            _ => body,
        }
    }

    /// Remembers which writer of ours stands for a recorded one; whether this was such an answer.
    fn learn_writer(&mut self, request: &Recorded, want: &Value, got: &Value) -> bool {
        let creates =
            request.method == "POST" && request.target.split('?').next().is_some_and(|p| p.ends_with("_index"));
        match (want["data"].as_u64(), got["data"].as_u64()) {
            (Some(recorded), Some(ours)) if creates => {
                self.writers.insert((request.conn, recorded), ours);
                true
            }
            _ => false,
        }
    }

    /// Takes in the answers to the requests that `which` names.
    async fn collect(&mut self, which: impl Fn(&Recorded) -> bool) {
        let all = std::mem::take(&mut self.pending);
        let (due, later) = all.into_iter().partition(|(seq, _)| which(&self.requests[seq]));
        self.pending = later;
        let due: Vec<(u64, Sent)> = due;
        for (seq, sent) in due {
            let request = self.requests[&seq].clone();
            let reply = match sent {
                Sent::H2(task) => task.await.expect("the task ran"),
                Sent::H1(task) => {
                    let (reply, conn) = task.await.expect("the task ran");
                    self.keep_line(&request, &reply, conn).await;
                    reply
                }
            };
            match reply {
                Ok(reply) => self.judge(&request, &reply),
                Err(e) => self.faults.push(format!("{}: no answer: {e}", show(&request))),
            }
        }
    }

    async fn keep_line(&mut self, request: &Recorded, reply: &io::Result<Reply>, conn: Option<Conn>) {
        let Some(conn) = conn else { return };
        if reply.as_ref().is_ok_and(|r| r.status == 101) {
            match conn.into_h2().await {
                Ok(session) => drop(self.lines.insert(request.conn, Line::H2(session))),
                Err(e) => self.faults.push(format!("{}: no HTTP/2: {e}", show(request))),
            }
        } else {
            self.lines.insert(request.conn, Line::H1(Box::new(conn)));
        }
    }

    fn judge(&mut self, request: &Recorded, reply: &Reply) {
        if let Ok(value) = serde_json::from_slice::<Value>(&reply.body) {
            self.secrets.learn(&value["data"]);
        }
        let Some(want) = &request.answer else { return };
        let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
        if self.learn_writer(request, &parsed(&want.body.bytes()), &parsed(&reply.body)) {
            return;
        }
        if let (Some(recorded), Some(ours)) = (upid_of(&want.body.bytes()), upid_of(&reply.body)) {
            self.tasks.insert(recorded, ours);
        }
        let found = if is_not_yet(&request.target) && !is_slow(request) {
            // The next issue brings it. Until then nothing must answer there, so that this list is not forgotten.
            let absent = reply.status == 404 && reply.text().contains("not found.");
            if absent { Vec::new() } else { vec![format!("it exists now ({}): take it off the list", reply.status)] }
        } else if is_task_log(&request.target) && want.status == 200 {
            task_log(want, reply)
        } else {
            compare::answers(request, want, reply, self.daemon)
        };
        let chosen = self.script.differences.iter().find(|d| d.seq == request.seq);
        match chosen {
            Some(d) if !found.is_empty() => {
                self.seen_differences.insert(d.seq);
                if reply.status != d.status || !reply.text().contains(d.part) {
                    let (status, text) = (reply.status, reply.text());
                    self.faults.push(format!(
                        "{}: we chose {} {:?}, got {status} {text:?}",
                        show(request),
                        d.status,
                        d.part
                    ));
                }
            }
            _ => self.faults.extend(found.into_iter().map(|f| format!("{}: {f}", show(request)))),
        }
    }

    /// Ends connections whose last request is over, unless the script keeps them.
    async fn close_idle(&mut self, next: u64) {
        let open: Vec<u64> = self.lines.keys().copied().collect();
        for conn in open {
            let over = |r: &&Recorded| r.conn == conn && r.seq >= next;
            let waiting = self.pending.iter().any(|(seq, _)| self.requests[seq].conn == conn);
            if !waiting && !self.script.keep.contains(&conn) && !self.requests.values().any(|r| over(&r)) {
                self.close(conn).await;
            }
        }
    }

    async fn close(&mut self, conn: u64) {
        let torn = self.unanswered.iter().any(|(c, _)| *c == conn);
        match self.lines.remove(&conn) {
            Some(Line::H1(line)) => line.close().await,
            Some(Line::H2(session)) if torn => session.cut(),
            Some(Line::H2(session)) => session.close().await,
            None => {}
        }
        self.unanswered.retain(|(c, _)| *c != conn);
        let sessions = self.lines.values().filter(|l| matches!(l, Line::H2(_))).count();
        self.daemon.running_at_most(sessions).await;
    }
}

/// Refused credentials are answered late on purpose; nothing that follows depends on them.
fn is_slow(request: &Recorded) -> bool {
    let text = |a: &Answer| String::from_utf8_lossy(&a.body.bytes()).into_owned();
    let refused = |a: &Answer| a.status == 401 && !text(a).contains("permission to change owner");
    request.proto == Proto::H1 && request.answer.as_ref().is_some_and(refused)
}

fn fill_body(body: &Body, secrets: &Secrets) -> Bytes {
    // What was not kept of a request was data to throw away: any of that length will do.
    let bytes = match body {
        Body::Omitted { len } => Bytes::from(vec![0; usize::try_from(*len).expect("a length")]),
        kept => kept.bytes(),
    };
    match std::str::from_utf8(&bytes) {
        Ok(text) if text.contains("{{") => secrets.fill(text).into(),
        _ => bytes,
    }
}

/// Whether a request asks for a page of a task's log.
fn is_task_log(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    path.contains("/tasks/UPID") && path.ends_with("/log")
}

/// The task that an answer names, or that is the only row of its list.
fn upid_of(body: &[u8]) -> Option<String> {
    let value: Value = serde_json::from_slice(body).ok()?;
    let listed = || value["data"].as_array().filter(|rows| rows.len() == 1)?[0]["upid"].as_str();
    let named = value["data"].as_str().filter(|text| text.starts_with("UPID:")).or_else(listed);
    named.map(ToOwned::to_owned)
}

/// A page of a log is compared without the words of the lines and their number, which are those of the job and the moment.
fn task_log(want: &Answer, got: &Reply) -> Vec<String> {
    let parsed = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).unwrap_or_default();
    let (want_value, value) = (parsed(&want.body.bytes()), parsed(&got.body));
    let keys = |value: &Value| value.as_object().map(|o| o.keys().cloned().collect::<BTreeSet<_>>());
    let mut found = Vec::new();
    if got.status != want.status || got.header("content-type") != want.headers.get("content-type").map(String::as_str) {
        found.push(format!("{} {:?}: {}", got.status, got.header("content-type"), got.text()));
    }
    let lines = value["data"].as_array().cloned().unwrap_or_default();
    let numbers: Vec<u64> = lines.iter().filter_map(|line| line["n"].as_u64()).collect();
    let ascending = numbers.windows(2).all(|pair| pair[1] == pair[0] + 1);
    let stamped = lines.iter().all(|line| line["t"].as_str().and_then(|t| t.get(25..27)) == Some(": "));
    let shaped =
        keys(&want_value) == keys(&value) && value["success"] == 1 && value.get("active").is_none_or(Value::is_boolean);
    if !shaped || !ascending || !stamped || numbers.len() != lines.len() {
        found.push(format!("no page of a log: {value}"));
    }
    found
}

/// Endpoints of a later issue.
pub fn is_not_yet(target: &str) -> bool {
    let path = target.split('?').next().unwrap_or_default();
    let last = path.rsplit('/').next().unwrap_or_default();
    let below_store = path.contains("/admin/datastore/");
    let store_calls = ["catalog", "pxar-file-download", "rrd"];
    below_store && store_calls.contains(&last)
}

fn show(request: &Recorded) -> String {
    let target: String = request.target.chars().take(160).collect();
    format!("{} {} {target}", request.seq, request.method)
}
