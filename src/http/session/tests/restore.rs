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
