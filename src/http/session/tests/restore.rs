//! Reader sessions.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn files_and_the_chunks_of_downloaded_indexes_and_no_others() {
    let world = World::new().await;
    let backup = full_backup(&world, "host/a", 0, &[1, 2]).await;
    full_backup(&world, "host/b", 0, &[7]).await;
    let session = world.reader(&backup).await;
    let client = &session.client;
    let dir = world.snapshot_dir(&backup);
    let (one, foreign) = (Digest::of(&plain(1)), Digest::of(&plain(7)));
    let refused = (401, format!("download chunk {one} not allowed"));
    assert_eq!(client.ask("GET", &format!("/chunk?digest={one}")).await, refused, "before the index");
    for name in ["index.json.blob", ARCHIVE] {
        let (status, kind, bytes) = client.call("GET", &format!("/download?file-name={name}"), b"").await;
        assert_eq!((status, kind.as_str()), (200, "application/octet-stream"));
        assert_eq!(bytes, std::fs::read(dir.join(name)).unwrap());
    }
    let (status, kind, bytes) = client.call("GET", &format!("/chunk?digest={one}"), b"").await;
    assert_eq!((status, kind.as_str()), (200, "application/octet-stream"));
    assert_eq!(bytes, std::fs::read(world.chunk_path(&one)).unwrap());
    assert_eq!(client.ask("GET", &format!("/chunk?digest={foreign}")).await.0, 401);
    let (status, _, bytes) = client.call("GET", "/speedtest", b"").await;
    assert_eq!((status, bytes), (200, Bytes::from(vec![0x41; 1 << 20])));
    let list = json!([{"subdir": "chunk"}, {"subdir": "download"}, {"subdir": "speedtest"}]);
    assert_eq!(client.ok("GET", "/").await, list);
    assert_eq!(client.ask("POST", "/finish").await, (404, "Path '/finish' not found.".into()));
    let (status, text) = client.ask("GET", "/download?file-name=nosuch.blob").await;
    assert_eq!(status, 404, "{text}");
    assert!(text.ends_with("nosuch.blob\" failed - not found"), "{text}");
    let (status, text) = client.ask("GET", "/download?file-name=nosuch.didx").await;
    assert_eq!(status, 400, "{text}");
    assert!(text.starts_with("Unable to open dynamic index"), "{text}");
    // A chunk that is gone, or is none any more, is an error and never a short success.
    for content in [None, Some(&b""[..]), Some(b"short")] {
        std::fs::remove_file(world.chunk_path(&one)).ok();
        if let Some(content) = content {
            put(&world.chunk_path(&one), content);
        }
        assert_eq!(client.ask("GET", &format!("/chunk?digest={one}")).await.0, 400, "{content:?}");
    }
    // While it is read, nobody removes it.
    let root = Namespace::root();
    assert!(world.store.remove_snapshot(&root, &backup).await.is_err());
    let (upid, _) = session.vanish().await;
    assert_eq!(world.log(&upid).await.last().unwrap(), "TASK OK");
    world.store.remove_snapshot(&root, &backup).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_has_all_it_asked_for_ends_well_however_the_client_goes() {
    let world = World::new().await;
    let backup = full_backup(&world, "host/a", 0, &[1]).await;
    for is_rude in [false, true] {
        for asked in ["nothing", "an index and its chunk", "what is not there", "what is refused"] {
            let session = world.reader_of(&backup, is_rude).await;
            let client = &session.client;
            match asked {
                "nothing" => {}
                "what is not there" => assert_eq!(client.ask("GET", "/download?file-name=nosuch.blob").await.0, 404),
                "what is refused" => {
                    assert_eq!(client.ask("GET", &format!("/chunk?digest={}", Digest::of(&plain(7)))).await.0, 401)
                }
                _ => {
                    assert_eq!(client.call("GET", &format!("/download?file-name={ARCHIVE}"), b"").await.0, 200);
                    let target = format!("/chunk?digest={}", Digest::of(&plain(1)));
                    assert_eq!(client.call("GET", &target, b"").await.0, 200);
                }
            }
            let (upid, _) = session.vanish().await;
            let log = world.log(&upid).await;
            let end = ["reader finished successfully", "TASK OK"];
            assert_eq!(log[log.len() - 2..], end, "{asked}, rude {is_rude}: {log:#?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_breaks_off_in_a_download_fails() {
    let world = World::new().await;
    let backup = full_backup(&world, "host/a", 0, &[1]).await;
    let session = world.reader_of(&backup, true).await;
    // More than the pipe takes, and nobody reads it.
    let sender = session.client.sender.clone();
    let request = http::Request::get("https://localhost:8007/speedtest").body(()).unwrap();
    let (response, _) = sender.0.ready().await.unwrap().send_request(request, true).unwrap();
    let response = response.await.unwrap();
    assert_eq!(response.status(), 200);
    let mut body = response.into_body();
    assert!(!body.data().await.unwrap().unwrap().is_empty());
    session.client.connection.abort();
    let (upid, _) = session.over().await;
    let log = world.log(&upid).await;
    assert_eq!(log[log.len() - 2], "reader failed", "{log:#?}");
    assert!(log.last().unwrap().starts_with("TASK ERROR: "), "{log:#?}");
    drop(body);
    // It is free for whoever comes next.
    world.store.remove_snapshot(&Namespace::root(), &backup).await.unwrap();
}
