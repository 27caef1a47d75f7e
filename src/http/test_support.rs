//! What tests of the server share: an [`App`] with one user who may do everything, and a small datastore.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::{App, Delays, LOGINS_MAX, Lifecycle, UserBook};
use crate::auth::{ServerKeys, TicketKeys, TokenKey, Users};
use crate::clock::Clock;
use crate::engine::{ComputePool, Engine, EngineConfig};
use crate::store::{Datastore, DatastoreConfig, SyncLevel};
use crate::task;

/// Secret of the token `admin@pbs!default`.
pub(super) const SECRET: &str = "s3cret";

/// Keys that are the same in every test.
pub(super) fn keys() -> ServerKeys {
    ServerKeys { tickets: TicketKeys::new(vec![1; 32], vec![2; 32]), tokens: TokenKey::new(vec![3; 32]) }
}

/// Users as the first start makes them.
pub(super) fn first_users() -> Users {
    let mut users = Users::default();
    users.set_up(&"admin@pbs!default".parse().unwrap(), SECRET, &keys().tokens).unwrap();
    users
}

/// A daemon's parts, task logs in `dir`.
pub(super) fn app(dir: &Path, users: Users, stores: impl IntoIterator<Item = Datastore>) -> App {
    App {
        clock: Clock::system(),
        tasks: task::Registry::open(&dir.join("tasks"), Clock::system()).unwrap(),
        compute: ComputePool::new(1).unwrap(),
        lifecycle: Lifecycle::new(4),
        users: UserBook::new(users),
        keys: keys(),
        delays: Delays { unauthenticated: Duration::ZERO, denied: Duration::ZERO },
        logins: Semaphore::new(LOGINS_MAX),
        datastores: stores.into_iter().map(|store| (store.name().clone(), store)).collect::<BTreeMap<_, _>>(),
    }
}

/// A datastore `main` in `dir` without its 65,536 chunk directories, which are made as chunks come.
pub(super) async fn datastore(dir: &Path) -> Datastore {
    use std::os::unix::fs::PermissionsExt;
    let base = dir.join("main");
    for (path, mode) in [(base.clone(), 0o755), (base.join(".chunks"), 0o750)] {
        std::fs::create_dir(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }
    let config = DatastoreConfig { sync_level: SyncLevel::None, ..DatastoreConfig::new("main".parse().unwrap(), base) };
    let engine = Engine::start("test", &EngineConfig::default()).unwrap();
    Datastore::open(config, engine, Clock::system()).await.unwrap()
}
