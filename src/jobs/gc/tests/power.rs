//! What a power cut leaves of what a collection writes.

use super::*;
use crate::engine::EngineChoice;
use crate::engine::sim::{Sim, Survival};

/// Found by a power cut on btrfs: the status was renamed into place without a sync, and an empty file came out of it.
#[tokio::test]
async fn the_status_outlives_the_power() {
    for level in [SyncLevel::Filesystem, SyncLevel::File] {
        let sim = Sim::new(T0);
        let base = Path::new("/store");
        let disk = Disk::simulated(&sim, None);
        disk.mkdir(base, 0o755).unwrap();
        disk.mkdir(&base.join(".chunks"), 0o750).unwrap();
        disk.syncfs(Path::new("/")).unwrap();
        let open = async |sim: &Sim| {
            let config = EngineConfig { choice: EngineChoice::Sync, io_threads: 2, ..EngineConfig::default() };
            let engine = Engine::start_on("sim", &config, Disk::simulated(sim, None)).unwrap();
            let config = DatastoreConfig { sync_level: level, ..DatastoreConfig::new("store1".parse().unwrap(), base) };
            Datastore::open(config, engine, Clock::manual(EpochSecs(T0))).await.unwrap()
        };
        let (store, dir) = (open(&sim).await, tempfile::tempdir().unwrap());
        let tasks = Registry::open(dir.path(), Clock::system()).unwrap();
        let task = tasks.start(super::super::WORKER_TYPE, Some("store1".to_owned()), &auth()).await.unwrap();
        let collection = begin(&store).await.unwrap();
        run(&store, Manner::Fresh, collection, &task, std::future::pending()).await.unwrap();
        task.end(Ok(())).await;
        let after = open(&sim.crash(Survival::Nothing, 0)).await;
        let status = after.gc_status().await.unwrap();
        assert!(status["upid"].is_string(), "{level:?}: {status}");
    }
}
