//! `users.json`: read, changed under a lock, and read again by a running daemon when it has changed.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::Users;
use crate::config::{DataDir, SECRET_MODE};
use crate::engine::Disk;
use crate::error::Result;
use crate::http::App;

pub(super) const USERS_FILE: &str = "users.json";

/// Held while the users file is changed.
const LOCK_FILE: &str = ".users.lock";

/// How often a daemon looks whether the file has changed.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The users of a data directory; nobody if there is no file yet.
pub(super) fn load(dir: &DataDir) -> Result<Users> {
    match dir.read_secret(USERS_FILE)? {
        Some(bytes) => Users::parse(&bytes).map_err(|e| e.context(format!("{:?}", dir.path().join(USERS_FILE)))),
        None => Ok(Users::default()),
    }
}

/// Changes the users of a data directory, durably. A running daemon sees the change within seconds.
pub fn edit<T>(dir: &DataDir, change: impl FnOnce(&mut Users) -> Result<T>) -> Result<T> {
    let _lock = dir.lock(LOCK_FILE)?;
    let mut users = load(dir)?;
    let result = change(&mut users)?;
    dir.put(USERS_FILE, users.to_json().as_bytes(), SECRET_MODE)?;
    Ok(result)
}

/// Which version of the file this is: every change makes a new inode.
fn version_of(dir: &DataDir) -> Option<(u64, u64)> {
    let meta = Disk::real().stat(&dir.path().join(USERS_FILE)).ok()?;
    Some((meta.ino, meta.size_bytes))
}

/// Keeps a daemon's users as the file has them. A damaged file is told of, and the users stay as they are.
pub(super) async fn follow(app: Arc<App>, dir: DataDir) {
    let look = |dir: DataDir| move || version_of(&dir);
    let mut seen = app.compute.run(look(dir.clone())).await.ok().flatten();
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Ok(now) = app.compute.run(look(dir.clone())).await else { return };
        if now == seen || now.is_none() {
            continue;
        }
        seen = now;
        let from = dir.clone();
        match app.compute.run(move || load(&from)).await.and_then(|users| users) {
            Ok(users) => {
                app.users.replace(users);
                tracing::info!("the users file has changed and was read");
            }
            Err(error) if error.kind() == crate::error::Kind::Closed => return,
            Err(error) => {
                tracing::error!(%error, "the users file has changed and cannot be read: the users stay as they were")
            }
        }
    }
}
