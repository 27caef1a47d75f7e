//! Runs that are cut off, and those that go on with them.
#![expect(clippy::disallowed_methods, reason = "a test makes and breaks files behind the store's back")]

use super::*;

/// Starts a verification of everything as the task of a job.
async fn start(world: &World, filter: Filter) -> Started {
    let scope = Scope::Namespace { ns: Namespace::root(), max_depth: None };
    let job = world.verification(scope, filter);
    let worker = Verification::worker_of_job(&world.store, "weekly");
    job.start(&world.tasks, worker, &auth(), std::future::pending(), ()).await.unwrap()
}

fn journals(world: &World) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(world.store.base_path()).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.display().to_string().contains(".ringvault-verify-")).collect()
}

/// Lets a run read so many chunks, and aborts it.
async fn cut_off(world: &World, chunks: usize) -> Upid {
    world.watcher.hold_behind.store(chunks, Ordering::SeqCst);
    let started = start(world, Filter::NONE).await;
    while !world.watcher.hold.load(Ordering::SeqCst) {
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    }
    // The reads that wait before it are over, and what was read is judged, when nothing moves any more.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    assert!(world.tasks.abort(&started.upid));
    assert_eq!(started.outcome.await.unwrap(), Err("task aborted".to_owned()));
    world.watcher.hold_behind.store(usize::MAX, Ordering::SeqCst);
    world.watcher.hold.store(false, Ordering::SeqCst);
    // Openings that were held up count for the run that made them.
    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    world.watcher.chunks_opened();
    started.upid
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verification_that_was_cut_off_reads_nothing_twice() {
    let world = World::new().await;
    let small: Vec<u64> = (1000..1010).collect();
    let big: Vec<u64> = (0..700).collect();
    // The newest is verified first: one that is damaged, a small one, and one that takes long and has chunks of the others.
    world.backup("host/a", 0, &[&big[..], &small[..]].concat()).await;
    world.backup("host/a", 1, &small).await;
    let damaged = world.backup("host/a", 2, &[2000, 2001]).await;
    std::fs::write(world.chunk_path(&digest(2001)), "broken").unwrap();
    world.watcher.chunks_opened();

    let first = cut_off(&world, 400).await;
    assert_eq!(journals(&world).len(), 1);
    assert_eq!(world.state(&damaged).await, Some(VerifyOutcome::Failed));
    let second = cut_off(&world, 200).await;
    let log = world.log(&second);
    assert!(log[0].starts_with(&format!("resuming the verification {first}: ")), "{log:?}");

    let started = start(&world, Filter::NONE).await;
    assert_eq!(started.outcome.await.unwrap().unwrap_err(), "verification failed - please check the log for details");
    let log = world.log(&started.upid);
    assert!(log[0].starts_with(&format!("resuming the verification {second}: ")), "{log:?}");
    let has = |part: &str| log.iter().any(|line| line.contains(part));
    assert!(has("host/a/2024-06-05T15:23:38Z (verified by the run that was cut off)"), "{log:?}");
    assert!(
        has("(failed in the run that was cut off, see its log)") && has("\thost/a/2024-06-05T16:23:38Z"),
        "{log:?}"
    );
    // 400 and 200 were opened before; the last few of each were not judged yet.
    let opened = world.watcher.chunks_opened().len();
    assert!((712 - 600..=712 - 600 + 2 * 40).contains(&opened), "{opened}");
    assert_eq!(journals(&world).len(), 0);

    // It has come to its end: the next one reads all there is.
    let started = start(&world, Filter::NONE).await;
    assert!(started.outcome.await.unwrap().is_err());
    let log = world.log(&started.upid);
    assert!(!log.iter().any(|line| line.contains("resuming") || line.contains("cut off")), "{log:?}");
    assert!(world.watcher.chunks_opened().len() >= 711);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_journal_that_is_nonsense_or_in_use_costs_nothing_but_its_use() {
    let world = World::new().await;
    world.backup("host/a", 0, &(0..300).collect::<Vec<_>>()).await;
    cut_off(&world, 290).await;
    let path = journals(&world).remove(0);
    std::fs::write(&path, [7; 1000]).unwrap();
    let started = start(&world, Filter::NONE).await;
    assert_eq!(started.outcome.await.unwrap(), Ok(()));
    let log = world.log(&started.upid);
    assert!(log[0].starts_with("not resuming a verification that was cut off"), "{log:?}");
    assert_eq!((world.watcher.chunks_opened().len(), journals(&world).len()), (300, 0));

    let held = std::fs::File::create_new(&path).unwrap();
    crate::engine::try_flock(&held, crate::engine::LockMode::Exclusive).unwrap();
    let started = start(&world, Filter::NONE).await;
    assert_eq!(started.outcome.await.unwrap(), Ok(()));
    let log = world.log(&started.upid);
    assert!(log[0].contains("will not be kept") && path.exists(), "{log:?}");
}
