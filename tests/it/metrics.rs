//! `GET /metrics`: what a day's work leaves in the numbers, exactly; who may see them; and what Prometheus' own tool says of the page.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::daemon::{Daemon, Setup};
use crate::support::upload::{self, Backup, Chunk, FIRST_TIME, Place, encode_blob};
use crate::support::wire::{Conn, PATIENCE, Reply};

const ARCHIVE: &str = "a.pxar.didx";

async fn ask(daemon: &Daemon, headers: &[(&str, &str)]) -> Reply {
    let mut conn = Conn::open(daemon.peer()).await.expect("connect");
    let reply = conn.call("GET", "/metrics", headers, &[]).await.expect("an answer");
    conn.close().await;
    reply
}

/// The page with a look at the datastore in it, and how often it was asked for.
async fn page(daemon: &Daemon) -> (String, u32) {
    let started = Instant::now();
    for asked in 1.. {
        let reply = ask(daemon, &[]).await;
        assert_eq!(reply.status, 200, "{}", reply.text());
        assert_eq!(reply.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        let text = reply.text();
        if text.contains("\nringvault_datastore_failed_snapshots{") {
            return (text, asked);
        }
        // The first look takes longer than a scrape waits for it.
        assert!(started.elapsed() < PATIENCE, "no look at the datastore ends");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    unreachable!("asked without end")
}

/// Samples that are not 0, without the label that says which engine runs.
fn numbers(page: &str) -> BTreeMap<String, String> {
    let samples = page.lines().filter(|line| !line.starts_with('#'));
    let split = samples.map(|line| line.rsplit_once(' ').unwrap_or_else(|| panic!("{line:?} is no sample")));
    let nonzero = split.filter(|(_, number)| *number != "0");
    let engines = ["uring", "threads", "sync"].map(|engine| format!("engine=\"{engine}\","));
    let plain = |series: &str| engines.iter().fold(series.to_owned(), |text, engine| text.replace(engine, ""));
    nonzero.map(|(series, number)| (plain(series), number.to_owned())).collect()
}

#[tokio::test]
async fn a_days_work_is_counted_exactly() {
    let daemon = Daemon::start();
    let chunks: Vec<Chunk> = (0..3).map(|seed| Chunk::made(seed, 10_000 + seed)).collect();
    let named: Vec<&Chunk> = chunks.iter().collect();

    // New chunks, one of them sent twice.
    let mut first = Backup::start(&daemon, Place::host("m", 0)).await;
    let mut writer = first.create(ARCHIVE, 0, "").await;
    for chunk in chunks.iter().chain(&chunks[..1]) {
        first.upload(&writer, chunk).await.expect(200, "");
    }
    first.append(&mut writer, &named).await.expect(200, "");
    first.blob("note.blob", b"a note").await.expect(200, "");
    first.close(&writer).await.expect(200, "");
    let mut blob_bytes =
        encode_blob(b"a note").len() + encode_blob(first.manifest_value().to_string().as_bytes()).len();
    first.complete(&daemon).await;

    // The same again, all of it known.
    let mut second = Backup::start(&daemon, Place::host("m", 1)).await;
    second.get(&format!("/previous?archive-name={ARCHIVE}")).await.expect(200, "");
    let mut writer = second.create(ARCHIVE, 0, "").await;
    second.append(&mut writer, &named).await.expect(200, "");
    second.close(&writer).await.expect(200, "");
    blob_bytes += encode_blob(second.manifest_value().to_string().as_bytes()).len();
    second.complete(&daemon).await;

    upload::read_archive(&daemon, &Place::host("m", 0), ARCHIVE).await;

    // A known chunk vanishes while a backup builds on it.
    let third = Backup::start(&daemon, Place::host("m", 2)).await;
    third.get(&format!("/previous?archive-name={ARCHIVE}")).await.expect(200, "");
    let mut writer = third.create(ARCHIVE, 0, "").await;
    daemon.remove_chunk(&chunks[1].digest);
    third.append(&mut writer, &named).await.expect(400, "known chunk stat failed");
    third.leave(&daemon).await;

    upload::rest(&daemon, "GET", "/api2/json/nonsense", &[]).await.expect(404, "not found");
    upload::rest(&daemon, "GET", "/api2/extjs/admin/datastore/golden/status?odd=1", &[]).await.expect(200, "odd");

    let (text, asked) = page(&daemon).await;
    let new_bytes: usize = chunks.iter().map(|chunk| chunk.encoded.len()).sum();
    let first_bytes = chunks[0].encoded.len();
    let group = "datastore=\"golden\",namespace=\"\",backup_type=\"host\",backup_id=\"m\"";
    let want = [
        ("ringvault_received_chunks_total{datastore=\"golden\",result=\"new\"}", "3".to_owned()),
        ("ringvault_received_chunks_total{datastore=\"golden\",result=\"duplicate\"}", "1".to_owned()),
        ("ringvault_received_chunk_bytes_total{datastore=\"golden\",result=\"new\"}", new_bytes.to_string()),
        ("ringvault_received_chunk_bytes_total{datastore=\"golden\",result=\"duplicate\"}", first_bytes.to_string()),
        ("ringvault_received_blobs_total{datastore=\"golden\"}", "3".to_owned()),
        ("ringvault_received_blob_bytes_total{datastore=\"golden\"}", blob_bytes.to_string()),
        ("ringvault_sent_chunks_total{datastore=\"golden\"}", "3".to_owned()),
        ("ringvault_sent_chunk_bytes_total{datastore=\"golden\"}", new_bytes.to_string()),
        (
            "ringvault_known_chunk_checks_total{datastore=\"golden\",place=\"append\",outcome=\"present\"}",
            "8".to_owned(),
        ),
        (
            "ringvault_known_chunk_checks_total{datastore=\"golden\",place=\"append\",outcome=\"missing\"}",
            "1".to_owned(),
        ),
        (
            "ringvault_known_chunk_checks_total{datastore=\"golden\",place=\"finish\",outcome=\"present\"}",
            "6".to_owned(),
        ),
        (
            "ringvault_known_chunk_checks_total{datastore=\"golden\",place=\"preflight\",outcome=\"present\"}",
            "6".to_owned(),
        ),
        (
            "ringvault_known_chunk_check_batch_duration_seconds_count{datastore=\"golden\",place=\"append\"}",
            "3".to_owned(),
        ),
        (
            "ringvault_known_chunk_check_batch_duration_seconds_count{datastore=\"golden\",place=\"finish\"}",
            "2".to_owned(),
        ),
        (
            "ringvault_known_chunk_check_batch_duration_seconds_count{datastore=\"golden\",place=\"preflight\"}",
            "2".to_owned(),
        ),
        ("ringvault_engine_batches_total{datastore=\"golden\",class=\"interactive\"}", "3".to_owned()),
        ("ringvault_engine_batches_total{datastore=\"golden\",class=\"sweep\"}", "4".to_owned()),
        ("ringvault_sessions_started_total{kind=\"backup\"}", "3".to_owned()),
        ("ringvault_sessions_started_total{kind=\"reader\"}", "1".to_owned()),
        ("ringvault_http_requests_total{interface=\"rest\",code=\"1xx\"}", "4".to_owned()),
        ("ringvault_http_requests_total{interface=\"rest\",code=\"2xx\"}", asked.to_string()),
        ("ringvault_http_requests_total{interface=\"rest\",code=\"4xx\"}", "1".to_owned()),
        ("ringvault_http_requests_total{interface=\"backup\",code=\"2xx\"}", "18".to_owned()),
        ("ringvault_http_requests_total{interface=\"backup\",code=\"4xx\"}", "1".to_owned()),
        ("ringvault_http_requests_total{interface=\"reader\",code=\"2xx\"}", "4".to_owned()),
        ("ringvault_errors_total{interface=\"rest\",kind=\"not_found\"}", "1".to_owned()),
        ("ringvault_errors_total{interface=\"rest\",kind=\"invalid\"}", "1".to_owned()),
        ("ringvault_errors_total{interface=\"backup\",kind=\"invalid\"}", "1".to_owned()),
        ("ringvault_tasks_total{type=\"backup\",result=\"ok\"}", "2".to_owned()),
        ("ringvault_tasks_total{type=\"backup\",result=\"error\"}", "1".to_owned()),
        ("ringvault_tasks_total{type=\"reader\",result=\"ok\"}", "1".to_owned()),
        ("ringvault_datastore_readable{datastore=\"golden\"}", "1".to_owned()),
        ("ringvault_datastore_groups{datastore=\"golden\"}", "1".to_owned()),
        ("ringvault_datastore_snapshots{datastore=\"golden\"}", "2".to_owned()),
        // The third has marked its base.
        ("ringvault_datastore_failed_snapshots{datastore=\"golden\"}", "1".to_owned()),
        ("ringvault_datastore_doubted_chunks{datastore=\"golden\"}", "1".to_owned()),
        (&format!("ringvault_group_failed_snapshots{{{group}}}"), "1".to_owned()),
        (&format!("ringvault_group_snapshots{{{group}}}"), "2".to_owned()),
        (&format!("ringvault_group_newest_snapshot_timestamp_seconds{{{group}}}"), (FIRST_TIME + 3600).to_string()),
    ];
    let want: BTreeMap<String, String> = want.into_iter().map(|(series, number)| (series.to_owned(), number)).collect();
    // What depends on the machine and the hour: times, sizes of the disk, how the engine went about it.
    let varies = |series: &str| {
        let always = ["process_", "ringvault_build_info", "ringvault_engine_", "ringvault_task_last_end_"];
        let disk =
            ["size_bytes", "used_bytes", "available_bytes", "census_timestamp_seconds", "census_duration_seconds"];
        let duration = "ringvault_known_chunk_check_batch_duration_seconds_";
        (always.iter().any(|p| series.starts_with(p)) && !series.starts_with("ringvault_engine_batches"))
            || disk.iter().any(|s| series.starts_with(&format!("ringvault_datastore_{s}")))
            || (series.starts_with(duration) && !series.starts_with(&format!("{duration}count")))
    };
    let mut is = numbers(&text);
    is.retain(|series, _| !varies(series));
    assert_eq!(is, want, "{text}");

    let all = numbers(&text);
    let version = format!("ringvault_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"));
    assert_eq!(all.get(&version).map(String::as_str), Some("1"));
    let sum = |name: &str| -> u64 {
        all.iter().filter(|(series, _)| series.starts_with(name)).map(|(_, n)| n.parse::<u64>().unwrap()).sum()
    };
    assert_eq!(sum("ringvault_engine_checks_total{"), 9 + 6 + 6, "{text}");
    assert_eq!(sum("ringvault_engine_workers{"), 64);
}

/// The default is this host alone, and not what a proxy on it hands on.
#[tokio::test]
async fn a_proxy_does_not_make_metrics_public() {
    let daemon = Daemon::start();
    ask(&daemon, &[]).await.expect(200, "ringvault_build_info");
    ask(&daemon, &[("x-forwarded-for", "192.0.2.1")]).await.expect(403, "access = \"token\"");
}

#[tokio::test]
async fn with_a_token_only_who_has_it_sees_metrics() {
    let more = format!("[metrics]\naccess = \"token\"\ntoken-sha256 = \"{}\"\n", upload::sha256(b"s3cret"));
    let daemon = Daemon::with(Setup { more, ..Setup::default() });
    let refused = ask(&daemon, &[]).await;
    refused.expect(401, "Authorization: Bearer TOKEN");
    assert_eq!(refused.header("www-authenticate"), Some("Bearer realm=\"metrics\""));
    ask(&daemon, &[("authorization", "Bearer other")]).await.expect(401, "wrong token");
    // A login of the API is another thing.
    ask(&daemon, &[("authorization", &daemon.authorization())]).await.expect(401, "Bearer");
    ask(&daemon, &[("authorization", "Bearer s3cret"), ("x-forwarded-for", "192.0.2.1")]).await.expect(200, "# TYPE");
    let log = daemon.log();
    assert!(log.contains("authentication failure; rhost=127.0.0.1 user=metrics msg=wrong token"), "{log}");
}

#[tokio::test]
async fn metrics_that_are_off_are_not_there() {
    let daemon = Daemon::with(Setup { more: "[metrics]\naccess = \"off\"\n".to_owned(), ..Setup::default() });
    ask(&daemon, &[]).await.expect(404, "no such file: 'metrics'");
}

#[tokio::test]
async fn prometheus_own_tool_finds_nothing_to_say() {
    let daemon = Daemon::start();
    upload::full_backup(&daemon, Place::host("p", 0), ARCHIVE, &[Chunk::made(1, 1000)]).await;
    let (text, _) = page(&daemon).await;
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut tool = match command.spawn() {
        Ok(tool) => tool,
        Err(e) => return println!("skipped: promtool (Debian's package prometheus): {e}"),
    };
    tool.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("write to promtool");
    let out = tool.wait_with_output().expect("promtool's end");
    let said = [out.stdout, out.stderr].concat();
    assert!(out.status.success() && said.is_empty(), "promtool says:\n{}\n{text}", String::from_utf8_lossy(&said));
}
