//! What should not be there, what is not there any more, and what may not be looked at.

use std::os::unix::ffi::OsStrExt;

use super::*;

fn has(log: &[String], text: &str) -> bool {
    log.iter().any(|line| line.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn foreign_names_are_no_concern_of_a_verification() {
    let world = World::new().await;
    let snapshot = world.backup("host/a", 0, &[1, 2, 3]).await;
    let base = world.store.base_path().to_owned();
    let chunks = world.chunk_path(&digest(1)).parent().unwrap().to_owned();
    let odd = std::ffi::OsStr::from_bytes(b"odd \xff\n");
    for place in [base.clone(), base.join("host"), base.join("host/a"), base.join(".chunks"), chunks] {
        for name in [std::ffi::OsStr::new("lost+found"), odd, "0".repeat(64).as_ref(), "zzzz".as_ref()] {
            std::fs::create_dir(place.join(name)).unwrap();
        }
        let file = |name: &str| std::fs::File::create_new(place.join(name)).map(drop);
        file("stray file").and_then(|()| file("1.0.bad.bad")).and_then(|()| file(&"é".repeat(100))).unwrap();
        std::os::unix::fs::symlink("/nowhere", place.join("link")).unwrap();
    }
    world.watcher.denied.set("lost+found".to_owned()).unwrap();
    let (result, log) = world.verify(Filter::NONE).await;
    assert_eq!(result, Ok(()), "{log:#?}");
    assert_eq!(world.state(&snapshot).await, Some(VerifyOutcome::Ok));
    // Also where the directories of chunks are read for the order of inodes.
    let task = world.task().await;
    let mut bench = Bench { inode_order_min: 0, ..Bench::new(&world.store, &world.compute, &task) };
    let outcome = bench.verify_snapshot(&Namespace::root(), &snapshot, &Filter::NONE).await.unwrap();
    assert_eq!(outcome, super::super::snapshot::Outcome::Ok);
    drop(bench);
    task.end(Ok(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_names_one_chunk_a_million_times_costs_one_reading() {
    const TIMES: usize = 1 << 20;
    let world = World::new().await;
    let seeds: Vec<u64> = [1, 2].into_iter().chain(std::iter::repeat_n(3, TIMES)).collect();
    let snapshot = world.backup("host/a", 0, &seeds).await;
    world.watcher.chunks_opened();
    let (result, log) = world.verify(Filter::NONE).await;
    assert_eq!(result, Ok(()), "{log:#?}");
    let mut wanted: Vec<(String, u64)> = [1, 2, 3].map(|seed| (digest(seed).to_string(), 1)).to_vec();
    wanted.sort();
    assert_eq!(world.watcher.chunks_opened(), wanted);
    assert_eq!(world.state(&snapshot).await, Some(VerifyOutcome::Ok));
    // A bad one is read again before it is set aside, and told once for each batch that names it, not a million times.
    flip(&world.chunk_path(&digest(3)));
    let (result, log) = world.verify(Filter::NONE).await;
    assert_eq!(result, Err(FAILED.to_owned()));
    assert!(log.len() < 30, "{log:#?}");
    assert_eq!(world.beside(&digest(3)), [format!("{}.0.bad", digest(3))]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_may_not_be_read_is_named_and_the_rest_is_verified() {
    for denied in [format!("/{ARCHIVE}"), "/vm.conf.blob".to_owned(), "/index.json.blob".to_owned()] {
        let world = World::new().await;
        let (a, b) = (world.backup("host/a", 0, &[1]).await, world.backup("host/b", 0, &[2]).await);
        let place = format!("host/b/{}{denied}", b.time().to_utc_name().unwrap());
        world.watcher.denied.set(place).unwrap();
        let (result, log) = world.verify(Filter::NONE).await;
        assert_eq!(result, Err(FAILED.to_owned()), "{denied}: {log:#?}");
        assert!(log.iter().any(|line| line.contains(&denied[1..]) && line.contains("Permission denied")), "{log:#?}");
        assert!(log.contains(&format!("\t{b}")) && !log.contains(&format!("\t{a}")), "{log:#?}");
        assert_eq!(world.state(&a).await, Some(VerifyOutcome::Ok), "{denied}");
        assert_eq!(world.beside(&digest(2)), [digest(2).to_string()]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_that_may_not_be_listed_is_named_and_the_others_are_verified() {
    for denied in ["host/b", "host/b/2024"] {
        let world = World::new().await;
        let (a, b) = (world.backup("host/a", 0, &[1]).await, world.backup("host/b", 0, &[2]).await);
        let c = world.backup("host/c", 0, &[3]).await;
        world.watcher.denied.set(denied.to_owned()).unwrap();
        let (result, log) = world.verify(Filter::NONE).await;
        assert_eq!(result, Err(FAILED.to_owned()), "{denied}: {log:#?}");
        assert!(has(&log, "unable to list group store1:host/b - ") && has(&log, "Permission denied"), "{log:#?}");
        let end = log.iter().position(|line| line.starts_with("Failed to verify")).unwrap();
        assert_eq!(log[end + 1], format!("\t{}", b.group()), "{log:#?}");
        for snapshot in [&a, &c] {
            assert_eq!(world.state(snapshot).await, Some(VerifyOutcome::Ok), "{denied}");
        }
        // Neither does it matter to a verification of another group.
        let task = world.task().await;
        let one = world.verification(Scope::Group(Namespace::root(), a.group().clone()), Filter::NONE);
        assert_eq!(one.run(&task).await, Ok(()));
        task.end(Ok(())).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_datastore_that_turned_read_only_is_told_and_nothing_is_renamed() {
    let world = World::new().await;
    let (good, bad) = (world.backup("host/a", 0, &[1]).await, world.backup("host/b", 0, &[2]).await);
    flip(&world.chunk_path(&digest(2)));
    world.watcher.read_only.store(true, Ordering::SeqCst);
    let (result, log) = world.verify(Filter::NONE).await;
    assert_eq!(result, Err(FAILED.to_owned()), "{log:#?}");
    assert!(has(&log, "Data blob has wrong CRC checksum"), "{log:#?}");
    for snapshot in [&good, &bad] {
        let told = |line: &&String| line.contains(&snapshot.to_string()) && line.contains("Read-only file system");
        assert!(log.iter().find(told).is_some(), "{log:#?}");
    }
    assert_eq!(world.beside(&digest(2)), [digest(2).to_string()]);
    world.watcher.read_only.store(false, Ordering::SeqCst);
    assert_eq!((world.state(&good).await, world.state(&bad).await), (None, None));
    assert_eq!(world.verify(Filter::NONE).await.0, Err(FAILED.to_owned()));
    assert_eq!(world.state(&bad).await, Some(VerifyOutcome::Failed));
}

/// The disk is pulled out between two snapshots: those that are not there are not called removed, and nothing is marked.
#[tokio::test(flavor = "multi_thread")]
#[expect(clippy::disallowed_methods, reason = "a test takes a datastore away")]
async fn a_datastore_that_vanishes_ends_the_task_with_an_error() {
    let world = World::new().await;
    let (a, b) = (world.backup("host/a", 0, &[1]).await, world.backup("host/b", 0, &[2]).await);
    let (base, away) = (world.store.base_path().to_owned(), world.store.base_path().with_extension("away"));
    let (from, to) = (base.clone(), away.clone());
    let act = move || drop(std::fs::rename(&from, &to));
    assert!(world.watcher.when.set(("host/b".to_owned(), Box::new(act))).is_ok());
    let (result, log) = world.verify(Filter::NONE).await;
    let error = result.unwrap_err();
    assert!(error.contains("the datastore is not at its place"), "{error}: {log:#?}");
    assert!(!has(&log, "SKIPPED"), "{log:#?}");
    world.watcher.chunk_seen.store(false, Ordering::SeqCst);
    std::fs::rename(&away, &base).unwrap();
    assert_eq!((world.state(&a).await, world.state(&b).await), (Some(VerifyOutcome::Ok), None));
    assert_eq!(world.beside(&digest(2)), [digest(2).to_string()]);
}
