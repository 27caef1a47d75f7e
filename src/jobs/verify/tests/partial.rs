//! Verifications that read only some of the chunks.

use super::*;

fn nth(n: u32, of: u32) -> Part {
    Part::Nth(format!("{n}/{of}").parse().unwrap())
}

fn sample(percent: &str, seed: u64) -> Part {
    Part::Sample { share: percent.parse().unwrap(), seed }
}

fn has(log: &[String], text: &str) -> bool {
    log.iter().any(|line| line.contains(text))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parts_together_read_each_chunk_once_whatever_shares_it() {
    let world = World::new().await;
    let all: Vec<u64> = (0..60).collect();
    let first = world.backup("host/a", 0, &all).await;
    let second = world.backup("vm/1", 0, &all[20..]).await;
    world.watcher.chunks_opened();
    let mut opened = Vec::new();
    for n in 1..=5 {
        let (result, log) = world.verify_part(Filter::NONE, nth(n, 5)).await;
        assert_eq!(result, Ok(()), "{log:#?}");
        let part = format!("part {n} of 5 of the chunks");
        assert_eq!(log[0], format!("only {part} will be read: no snapshot is called verified for that"));
        let now = world.watcher.chunks_opened();
        let chosen = (0..60).filter(|seed| nth(n, 5).takes(&digest(*seed))).count();
        assert_eq!(now.len(), chosen);
        assert!(has(&log, &format!("  {chosen} of 60 chunks are in {part}, {chosen} had to be read")), "{log:#?}");
        let shared = (20..60).filter(|seed| nth(n, 5).takes(&digest(*seed))).count();
        assert!(has(&log, &format!("  {shared} of 40 chunks are in {part}, 0 had to be read")), "{log:#?}");
        let end = format!("{part}: {} of 100 named chunks, {chosen} files read, 0 errors", chosen + shared);
        assert!(log.contains(&end), "{log:#?}");
        opened.extend(now);
    }
    opened.sort();
    let mut wanted: Vec<(String, u64)> = all.iter().map(|seed| (digest(*seed).to_string(), 1)).collect();
    wanted.sort();
    assert_eq!(opened, wanted);
    // All parts were right, and still nobody has seen all of a snapshot in one run.
    assert_eq!((world.state(&first).await, world.state(&second).await), (None, None));
    assert_eq!(world.verify(Filter::default()).await.0, Ok(()));
    assert_eq!(world.state(&first).await, Some(VerifyOutcome::Ok));
    // One part of one is everything.
    let third = world.backup("vm/2", 0, &all[..3]).await;
    assert_eq!(world.verify_part(Filter::default(), nth(1, 1)).await.0, Ok(()));
    assert_eq!(world.state(&third).await, Some(VerifyOutcome::Ok));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_chunk_is_found_by_the_one_part_that_it_is_in() {
    let world = World::new().await;
    let all: Vec<u64> = (0..40).collect();
    let (a, b) = (world.backup("host/a", 0, &all).await, world.backup("host/b", 0, &all[..20]).await);
    let other = world.backup("host/c", 0, &all[20..]).await;
    assert_eq!(world.verify(Filter::default()).await.0, Ok(()));
    flip(&world.chunk_path(&digest(7)));
    let mut found = 0;
    for n in 1..=4 {
        let is_there = nth(n, 4).takes(&digest(7));
        let (result, log) = world.verify_part(Filter::NONE, nth(n, 4)).await;
        assert_eq!(result.is_err(), is_there, "{log:#?}");
        if is_there {
            found += 1;
            assert_eq!(world.beside(&digest(7)), [format!("{}.0.bad", digest(7))]);
            assert!(has(&log, &format!("unable to load chunk '{}'", digest(7))), "{log:#?}");
            assert!(has(&log, "named chunks") && has(&log, " 2 errors"), "{log:#?}");
        }
        let wanted = if found > 0 { VerifyOutcome::Failed } else { VerifyOutcome::Ok };
        assert_eq!((world.state(&a).await, world.state(&b).await), (Some(wanted), Some(wanted)));
        assert_eq!(world.state(&other).await, Some(VerifyOutcome::Ok), "as it was");
    }
    assert_eq!(found, 1);
    // A failed state that is out of date is not taken back by a part either.
    world.insert(7).await;
    for n in 1..=4 {
        assert_eq!(world.verify_part(Filter::NONE, nth(n, 4)).await.0, Ok(()));
    }
    assert_eq!(world.state(&a).await, Some(VerifyOutcome::Failed));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_is_told_by_its_seed_and_reads_something_of_every_archive() {
    let world = World::new().await;
    let all: Vec<u64> = (0..200).collect();
    let large = world.backup("host/large", 0, &all).await;
    world.backup("host/small", 0, &[300, 301]).await;
    world.watcher.chunks_opened();
    let mut runs = Vec::new();
    for seed in [1, 1, 2] {
        let (result, log) = world.verify_part(Filter::NONE, sample("10", seed)).await;
        assert_eq!(result, Ok(()), "{log:#?}");
        assert!(
            log[0].starts_with(&format!("only a sample of 10 % of the chunks (seed {seed}) will be read")),
            "{log:#?}"
        );
        let opened = world.watcher.chunks_opened();
        let small = opened.iter().filter(|(name, _)| [300, 301].map(|s| digest(s).to_string()).contains(name)).count();
        assert!(small >= 1, "{opened:?}");
        assert!((6..45).contains(&(opened.len() - small)), "{}", opened.len());
        runs.push(opened);
    }
    assert!(runs[0] == runs[1] && runs[0] != runs[2]);
    let (_, log) = world.verify_part(Filter::NONE, sample("0.0001", 5)).await;
    assert_eq!(world.watcher.chunks_opened().len(), 2, "one of each archive: {log:#?}");
    assert!(
        has(&log, "  1 of 200 chunks are in a sample of 0.0001 % of the chunks (seed 5), 1 had to be read"),
        "{log:#?}"
    );
    assert_eq!(world.state(&large).await, None);
    assert_eq!(world.verify_part(Filter::NONE, sample("100", 5)).await.0, Ok(()));
    assert_eq!(world.state(&large).await, Some(VerifyOutcome::Ok), "all were read");
}

#[tokio::test(flavor = "multi_thread")]
async fn index_files_and_blobs_are_checked_whatever_part_is_read() {
    let world = World::new().await;
    let a = world.backup("host/a", 0, &[1, 2]).await;
    let b = world.backup("host/b", 0, &[1, 2]).await;
    let c = world.backup("host/c", 0, &[1, 2]).await;
    let file = |snapshot: &Snapshot, name: &str| {
        Layout::new(world.store.base_path()).snapshot(&Namespace::root(), snapshot).join(name)
    };
    std::fs::remove_file(file(&b, "vm.conf.blob")).unwrap();
    let index = std::fs::OpenOptions::new().write(true).open(file(&c, ARCHIVE)).unwrap();
    index.set_len(4096 + 40).unwrap();
    // The part in which neither chunk is.
    let n = (1..=50).find(|n| [1, 2].iter().all(|seed| !nth(*n, 50).takes(&digest(*seed)))).unwrap();
    let (result, log) = world.verify_part(Filter::NONE, nth(n, 50)).await;
    assert_eq!(result, Err(FAILED.to_owned()), "{log:#?}");
    assert!(has(&log, "vm.conf.blob failed: ") && has(&log, "root.pxar.didx failed: "), "{log:#?}");
    assert_eq!(world.state(&a).await, None);
    assert_eq!(
        (world.state(&b).await, world.state(&c).await),
        (Some(VerifyOutcome::Failed), Some(VerifyOutcome::Failed))
    );
    assert_eq!(world.watcher.chunks_opened().len(), 0);
}
