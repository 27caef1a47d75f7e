//! A collection that is held back.

use std::num::NonZeroU64;
use std::time::Duration;

use super::*;
use crate::error::Kind;
use crate::store::{BackgroundConfig, Rate};

fn at(chunks: u64) -> BackgroundConfig {
    BackgroundConfig { rate: Rate { chunks: NonZeroU64::new(chunks), bytes: None }, ..BackgroundConfig::default() }
}

async fn with_garbage(machine: &Machine, background: BackgroundConfig) -> Scene {
    let scene = Scene::with(machine, |config| config.background = background).await;
    scene.back_up(&snapshot(0), &[1, 2, 3]).await;
    for n in 100..130 {
        scene.insert(n).await;
    }
    scene.pass_time(30 * DAY);
    scene
}

/// At one a second it would take a minute; somebody stops it while it waits for its second.
#[tokio::test]
async fn a_collection_that_waits_stops_when_it_is_asked_to() {
    let machine = Machine::new();
    let scene = with_garbage(&machine, at(1)).await;
    let task = scene.task().await;
    let collection = begin(&scene.store).await.unwrap();
    let closing = tokio::time::sleep(Duration::from_millis(20));
    let error = run(&scene.store, Manner::default(), collection, &task, closing).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Closed);
    task.end(Ok(())).await;
    assert_eq!(scene.chunks().len(), 33);
    // Nothing is left behind: the next one begins, and hears of another rate while it runs.
    let store = scene.store.clone();
    let faster = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        let config = (*store.config()).clone();
        store.set_config(DatastoreConfig { background: BackgroundConfig::default(), ..config });
    };
    let (report, ()) = tokio::join!(scene.collect(), faster);
    assert_eq!((report.status.removed_chunks, scene.chunks().len()), (30, 3));
}

#[tokio::test]
async fn a_collection_with_a_rate_of_its_own_keeps_it() {
    let machine = Machine::new();
    let scene = with_garbage(&machine, BackgroundConfig::default()).await;
    let how = (Manner::default(), at(40).rate);
    let (guard, over) = tokio::sync::oneshot::channel::<()>();
    let upid =
        super::super::start(scene.store.clone(), how, &scene.tasks, &auth(), std::future::pending(), guard).await;
    drop(over.await);
    let log = std::fs::read_to_string(scene.tasks.log_path(&upid.unwrap())).unwrap();
    assert!(log.contains("at most 40 chunks a second, as was asked for"), "{log}");
    assert_eq!(scene.chunks().len(), 3);
    assert!(scene.store.budget().waited().rate > Duration::ZERO);
    // The next one has none.
    let before = scene.store.budget().waited();
    scene.collect().await;
    assert_eq!(scene.store.budget().waited(), before);
}

#[tokio::test]
async fn a_collection_that_was_held_back_says_so_once_and_how_long() {
    let machine = Machine::new();
    let scene = with_garbage(&machine, at(40)).await;
    let (report, log) = scene.try_collect().await;
    assert_eq!(report.unwrap().status.removed_chunks, 30);
    let lines = |text: &str| log.iter().filter(|line| line.contains(text)).count();
    assert_eq!((lines("slowed down to the rate that is set"), lines("backups come first")), (1, 0), "{log:?}");
    assert_eq!(lines("waited 0 s for backups, "), 1, "{log:?}");
    assert!(scene.store.budget().waited().rate >= Duration::from_secs(1));
    assert!(machine.engine.counters().priority_changes > 0, "its reads were idle");
}
