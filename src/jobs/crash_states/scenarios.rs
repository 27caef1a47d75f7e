//! What goes on while the power goes. Each says which of its promises it has kept as it goes.

use jiff::tz::TimeZone;

use super::*;
use crate::jobs::prune::{self, KeepOptions};

/// The ones that every run plays.
pub(super) const ALL: [&str; 11] = [
    "first backup",
    "incremental backup",
    "reused index",
    "two backups at once",
    "marked base",
    "abandoned backup",
    "removal",
    "prune",
    "garbage collection",
    "notes and protection",
    "change of owner",
];

/// What is there before, and is not crashed.
pub(super) async fn prepare(world: &World) -> Result<()> {
    world.back_up(&World::snapshot("host/a", 0), &[1, 2, 3]).await?;
    world.back_up(&World::snapshot("host/a", 1), &[2, 3, 4]).await?;
    world.back_up(&World::snapshot("host/b", 1), &[4, 5]).await
}

pub(super) async fn play(world: &World, scenario: &str) -> Result<()> {
    let next = World::snapshot("host/a", 2);
    match scenario {
        "first backup" => world.back_up(&World::snapshot("host/new", 2), &[1, 10, 11]).await,
        "incremental backup" => world.back_up(&next, &[2, 4, 10]).await,
        "reused index" => {
            let lease = world.begin(&next).await?;
            world.write(&lease, &[2, 3, 4]).await?;
            world.insert(20).await?;
            world.finish(&lease, &[2, 3, 4]).await
        }
        "two backups at once" => {
            let other = World::snapshot("host/c", 2);
            let (one, two) = tokio::join!(world.back_up(&next, &[2, 10, 11, 12]), world.back_up(&other, &[10, 11, 13]));
            one.and(two)
        }
        "marked base" => {
            let lease = world.begin(&next).await?;
            lease.mark_base_failed("UPID:x").await?;
            let changes = world.changes();
            let base = lease.base().expect("it has one").snapshot.to_string();
            world.promises.lock().marked.insert(base, changes);
            lease.abandon().await
        }
        "abandoned backup" => {
            let lease = world.begin(&next).await?;
            world.write(&lease, &[2, 30]).await?;
            lease.abandon().await
        }
        "removal" => {
            world.remove(&World::snapshot("host/a", 0)).await?;
            world.remove(&World::snapshot("host/b", 1)).await
        }
        "prune" => {
            let keep = KeepOptions { last: 1, ..KeepOptions::default() };
            let scope = prune::Scope { ns: root(), max_depth: 7, keep, dry_run: false, rate: crate::store::Rate::NONE };
            world.give_up(&World::snapshot("host/a", 0));
            let task = world.task().await;
            let report = prune::prune_datastore(&world.store, &scope, &TimeZone::UTC, |_, _| true, &task).await?;
            assert_eq!(report.removed, 1);
            task.end(Ok(())).await;
            Ok(())
        }
        "garbage collection" => {
            world.remove(&World::snapshot("host/a", 0)).await?;
            world.pass_time(3 * DAY);
            world.collect().await?;
            world.back_up(&World::snapshot("host/a", 100), &[1, 2, 40]).await?;
            world.remove(&World::snapshot("host/b", 1)).await?;
            world.pass_time(3 * DAY);
            // Leaves out what has not changed.
            world.collect().await
        }
        "notes and protection" => {
            let snapshot = World::snapshot("host/a", 1);
            world.store.set_notes(&root(), &snapshot, "of use".to_owned()).await?;
            world.store.set_protected(&root(), &snapshot, true).await?;
            world.store.set_group_notes(&root(), snapshot.group(), "of more use".to_owned()).await?;
            world.store.set_protected(&root(), &snapshot, false).await
        }
        "change of owner" => {
            let group = World::snapshot("host/a", 1).group().clone();
            let owner = "other@pbs".parse().expect("a user");
            world.store.change_owner(&root(), &group, &owner, |_| Ok(())).await.map(drop)
        }
        other => unreachable!("no scenario {other}"),
    }
}
