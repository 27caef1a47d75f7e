//! A session from its first request to its end, whichever way it ends.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn a_first_backup_then_one_that_sends_only_what_changed() {
    let world = World::new().await;
    let base = full_backup(&world, "host/a", 0, &[1, 2, 3]).await;
    let session = world.backup("host/a", 1).await;
    let client = &session.client;
    assert_eq!(client.ok("GET", "/previous_backup_time").await, json!(T0));
    let (status, kind, manifest) = client.call("GET", "/previous?archive-name=index.json.blob", b"").await;
    assert_eq!((status, kind.as_str()), (200, "application/octet-stream"));
    assert_eq!(manifest, std::fs::read(world.snapshot_dir(&base).join("index.json.blob")).unwrap());
    let (status, _, index) = client.call("GET", &format!("/previous?archive-name={ARCHIVE}"), b"").await;
    assert_eq!(status, 200);
    assert_eq!(index, std::fs::read(world.snapshot_dir(&base).join(ARCHIVE)).unwrap());
    let (size, csum) = write_archive(client, &[1, 9, 3], &[1, 3]).await.unwrap();
    let (conf_size, conf_csum) = client.blob("x.conf.blob", b"key = value\n").await;
    client.manifest(&session.snapshot, &[(ARCHIVE, size, csum), ("x.conf.blob", conf_size, conf_csum)]).await;
    let dir = world.snapshot_dir(&session.snapshot);
    assert!(!dir.join("index.json.blob").exists(), "held back until finish");
    client.ok("POST", "/finish").await;
    assert!(dir.join("index.json.blob").exists());
    // The locks are free as soon as finish has answered, before the connection ends.
    world.backup("host/a", 2).await.vanish().await;
    assert_eq!(client.ask("POST", "/finish").await, (400, "backup already marked as finished.".into()));
    let (upid, _) = session.vanish().await;
    assert!(dir.exists());
    let log = world.log(&upid).await;
    let has = |text: &str| assert!(log.iter().any(|line| line.contains(text)), "{text}: {log:#?}");
    has("register chunks in 'root.pxar.didx' from previous backup.");
    has("preflight of 'root.pxar.didx': 3 chunks are there");
    has("append check: 3 chunks in 1 batches");
    has("finish check: 3 chunks of 1 indexes are there");
    has("Duplicates: 2+0 (66%)");
    assert_eq!(log.last().unwrap(), "TASK OK");
    let loaded = world.store.load_manifest(&Namespace::root(), &snapshot("host/a", 1)).await.unwrap();
    let stats = loaded.manifest.chunk_upload_stats().unwrap();
    assert_eq!((stats.count, stats.duplicates), (1, 0));
    assert_eq!(world.lifecycle.session_count(), 0);
}

/// The client goes away after each number of requests, and in the middle of a body.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_vanishes_at_any_step_leaves_chunks_and_nothing_else() {
    let world = World::new().await;
    let (chunks, size, csum) = dynamic_index(&[1, 2]);
    for steps in 0..=7 {
        let session = world.backup("host/a", 0).await;
        let client = &session.client;
        if steps > 0 {
            client.ok("POST", &format!("/dynamic_index?archive-name={ARCHIVE}")).await;
        }
        if steps > 1 {
            client.chunk("dynamic", 1, &plain(1)).await;
            client.chunk("dynamic", 1, &plain(2)).await;
        }
        if steps > 2 {
            assert_eq!(client.append("dynamic", 1, &chunks).await.0, 200);
        }
        if steps > 3 {
            client.ok("POST", &format!("/dynamic_close?chunk-count=2&csum={csum}&size={size}&wid=1")).await;
        }
        if steps > 4 {
            client.blob("x.conf.blob", b"x").await;
        }
        if steps > 5 {
            client.manifest(&session.snapshot, &[(ARCHIVE, size, csum)]).await;
        }
        if steps > 6 {
            let request = http::Request::post("https://localhost:8007/blob?encoded-size=1000&file-name=y.conf.blob");
            let mut sender = client.sender.0.clone().ready().await.unwrap();
            let (_, mut stream) = sender.send_request(request.body(()).unwrap(), false).unwrap();
            stream.send_data(Bytes::from_static(b"half a bo"), false).unwrap();
            // Answered on the same connection, so the half body is in by now.
            client.ok("GET", "/previous_backup_time").await;
        }
        let (upid, snapshot) = session.vanish().await;
        assert!(!world.snapshot_dir(&snapshot).exists(), "after {steps} steps");
        let log = world.log(&upid).await;
        // The pipe may also break before the server has said its first word.
        let ends = ["backup ended but finished flag is not set.", "connection error: broken pipe"];
        assert!(ends.map(|end| format!("TASK ERROR: {end}")).contains(log.last().unwrap()), "{log:#?}");
        assert_eq!(log[log.len() - 2], "removing failed backup");
        assert_eq!(world.chunk_path(&chunks[0].0).exists(), steps > 1);
        if steps == 0 {
            continue;
        }
        std::fs::remove_file(world.chunk_path(&chunks[0].0)).ok();
    }
    full_backup(&world, "host/a", 0, &[1, 2]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_aborted_task_ends_its_session() {
    let world = World::new().await;
    let session = world.backup("host/a", 0).await;
    session.client.ok("POST", &format!("/dynamic_index?archive-name={ARCHIVE}")).await;
    assert!(world.tasks.abort(&session.upid));
    let (upid, snapshot) = session.over().await;
    assert!(!world.snapshot_dir(&snapshot).exists());
    let log = world.log(&upid).await;
    let end = [
        "received abort request ...",
        "backup failed: task aborted",
        "removing failed backup",
        "TASK ERROR: task aborted",
    ];
    assert_eq!(log[log.len() - 4..], end);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closing_daemon_ends_its_sessions() {
    let world = World::new().await;
    let session = world.backup("host/a", 0).await;
    world.lifecycle.advance(crate::http::Phase::Closing);
    assert!(world.lifecycle.idle_within(TEST_MAX).await);
    let (upid, snapshot) = session.over().await;
    assert!(!world.snapshot_dir(&snapshot).exists());
    assert_eq!(world.log(&upid).await.last().unwrap(), "TASK ERROR: the server is shutting down");
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_have_the_recorded_status_type_and_text() {
    const TYPED: &str = "application/json;charset=UTF-8";
    let world = World::new().await;
    let session = world.backup("host/a", 0).await;
    let client = &session.client;
    client.ok("POST", &format!("/dynamic_index?archive-name={ARCHIVE}")).await;
    let blob = blob::encode(&plain(1), Compression::None);
    let (digest, size, encoded) = (Digest::of(&plain(1)), plain(1).len(), blob.len());
    let target = |encoded: usize, size: usize| {
        format!("/dynamic_chunk?digest={digest}&encoded-size={encoded}&size={size}&wid=1")
    };
    let mut wrong_magic = blob.clone();
    wrong_magic[0] ^= 1;
    for (method, target, body, status, kind, text) in [
        ("GET", "/nosuch".to_owned(), &b""[..], 404, TYPED, "Path '/nosuch' not found.".to_owned()),
        ("POST", "/nosuch".to_owned(), &b"a body"[..], 404, TYPED, "Path '/nosuch' not found.".to_owned()),
        ("GET", "/finish".to_owned(), b"", 404, TYPED, "Path '/finish' not found.".to_owned()),
        ("POST", target(encoded - 1, size), &blob, 400, TYPED, "uploaded chunk is larger than announced.".into()),
        ("POST", target(encoded + 1, size), &blob, 400, TYPED, "uploaded chunk has unexpected size.".into()),
        ("POST", target(encoded, size), &wrong_magic, 400, TYPED, "unable to parse raw blob - wrong magic".into()),
        (
            "POST",
            target(encoded, size + 1),
            &blob,
            400,
            TYPED,
            format!("detected chunk with wrong length ({} != {size})", size + 1),
        ),
        (
            "POST",
            "/dynamic_chunk?wid=1".to_owned(),
            &blob,
            400,
            "",
            "parameter verification failed:\n- 'digest': parameter is missing and it is not optional.\n\
             - 'encoded-size': parameter is missing and it is not optional.\n\
             - 'size': parameter is missing and it is not optional."
                .into(),
        ),
        (
            "POST",
            "/blob?encoded-size=18&file-name=x.blob".to_owned(),
            &blob[..17],
            400,
            TYPED,
            "got blob with unexpected length (18 != 17)".into(),
        ),
        (
            "POST",
            "/blob?encoded-size=17&file-name=x.blob".to_owned(),
            &blob[..17],
            400,
            TYPED,
            "Data blob has wrong CRC checksum.".into(),
        ),
        ("POST", "/speedtest".to_owned(), &b"abc"[..], 200, TYPED, r#"{"data":null}"#.into()),
    ] {
        let got = client.call(method, &target, body).await;
        let got = (got.0, got.1.as_str(), String::from_utf8_lossy(&got.2).into_owned());
        assert_eq!(got, (status, kind, text), "{method} {target}");
    }
    let put = |body: Vec<u8>| {
        let sender = client.sender.clone();
        async move { sender.call("PUT", "/dynamic_index", "application/json", &body).await.unwrap() }
    };
    let (status, kind, text) = put(b"{\"wid\":".to_vec()).await;
    assert_eq!((status, kind.as_str(), &text[..]), (400, "", &b"EOF while parsing a value at line 1 column 7"[..]));
    let (status, kind, text) = put(vec![b' '; 600 << 10]).await;
    assert_eq!((status, kind.as_str(), &text[..]), (400, "", &b"Request body too large"[..]));
    // And the session still works.
    client.chunk("dynamic", 1, &plain(1)).await;
    assert_eq!(client.append("dynamic", 1, &[(digest, 0)]).await.0, 200);
    session.vanish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_uploads_and_appends_at_a_time() {
    let world = World::new().await;
    let session = world.backup("host/a", 0).await;
    let client = &session.client;
    client.ok("POST", &format!("/dynamic_index?archive-name={ARCHIVE}")).await;
    // Slots of an image may be filled by requests at the same time.
    let image: Vec<Vec<u8>> = (0..8).map(|n| vec![n; 4 << 20]).collect();
    client.ok("POST", "/fixed_index?archive-name=x.img.fidx&size=33554432").await;
    // Twice each, as the QEMU library does it: a digest is known only when its upload is answered.
    let seeds: Vec<u64> = (0..60).chain(0..60).collect();
    let uploads: Vec<_> = seeds
        .iter()
        .map(|seed| {
            let (sender, data) = (client.sender.clone(), plain(*seed));
            tokio::spawn(async move {
                let (digest, blob) = (Digest::of(&data), blob::encode(&data, Compression::None));
                let (encoded, size) = (blob.len(), data.len());
                let target = format!("/dynamic_chunk?digest={digest}&encoded-size={encoded}&size={size}&wid=1");
                sender.call("POST", &target, "application/octet-stream", &blob).await.unwrap().0
            })
        })
        .collect();
    for upload in uploads {
        assert_eq!(upload.await.unwrap(), 200);
    }
    let (chunks, size, csum) = dynamic_index(&(0..60).collect::<Vec<u64>>());
    for part in chunks.chunks(10) {
        assert_eq!(client.append("dynamic", 1, part).await, (200, r#"{"data":null}"#.to_owned()));
    }
    let mut appends = Vec::new();
    let mut digests = Vec::new();
    for (n, plain) in (0..).zip(&image) {
        let digest = client.chunk("fixed", 2, plain).await;
        digests.push(digest);
        let sender = client.sender.clone();
        appends.push(tokio::spawn(async move { sender.append("fixed", 2, &[(digest, n << 22)]).await.0 }));
    }
    for append in appends {
        assert_eq!(append.await.unwrap(), 200);
    }
    let image_csum = Digest::of(&digests.iter().flat_map(|digest| digest.0).collect::<Vec<u8>>());
    client.ok("POST", &format!("/fixed_close?chunk-count=8&csum={image_csum}&size=33554432&wid=2")).await;
    client.ok("POST", &format!("/dynamic_close?chunk-count=60&csum={csum}&size={size}&wid=1")).await;
    session.vanish().await;
}
