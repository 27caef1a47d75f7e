//! `users.json`: read, changed under a lock, and read again by a running daemon when it has changed.

use std::sync::Arc;
use std::time::Duration;

use crate::auth::Users;
use crate::config::{DataDir, FILE_BYTES_MAX, SECRET_MODE};
use crate::engine::{Disk, FileTime};
use crate::error::{Error, Result};
use crate::http::{App, Change, UsersFile};

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

/// Changes the users of a data directory, durably, if the change succeeds and leaves them other than they were. A running daemon sees it
/// within seconds.
pub fn edit<T>(dir: &DataDir, change: impl FnOnce(&mut Users) -> Result<T>) -> Result<T> {
    edited(dir, change).map(|(result, _)| result)
}

fn edited<T>(dir: &DataDir, change: impl FnOnce(&mut Users) -> Result<T>) -> Result<(T, Users)> {
    let _lock = dir.lock(LOCK_FILE)?;
    let before = load(dir)?;
    let mut users = before.clone();
    let result = change(&mut users)?;
    if users != before {
        let text = users.to_json();
        if text.len() as u64 > FILE_BYTES_MAX {
            // It could not be read again.
            return Err(Error::busy(format!(
                "{USERS_FILE} would grow past {} MiB: remove users",
                FILE_BYTES_MAX >> 20
            )));
        }
        dir.put(USERS_FILE, text.as_bytes(), SECRET_MODE)?;
    }
    Ok((result, users))
}

/// The users file as the daemon changes it.
#[derive(Debug)]
pub(super) struct InDataDir(pub(super) DataDir);

impl UsersFile for InDataDir {
    fn load(&self) -> Result<Users> {
        load(&self.0)
    }

    fn edit(&self, change: Change) -> Result<Users> {
        edited(&self.0, change).map(|(_, users)| users)
    }
}

/// Which version of the file this is. Every change makes a new inode, whose number may be that of the last but one.
fn version_of(dir: &DataDir) -> Option<(u64, FileTime)> {
    let meta = Disk::real().stat(&dir.path().join(USERS_FILE)).ok()?;
    Some((meta.ino, meta.ctime))
}

/// Keeps a daemon's users as the file has them. A damaged file is told of, and the users stay as they are.
pub(super) async fn follow(app: Arc<App>, dir: DataDir) {
    let look = |dir: DataDir| move || version_of(&dir);
    // The first look reads it: it may have changed since the start did.
    let mut seen = None;
    loop {
        tokio::time::sleep(LOOK_INTERVAL).await;
        let Ok(now) = app.compute.run(look(dir.clone())).await else { return };
        if now == seen || now.is_none() {
            continue;
        }
        seen = now;
        match app.users.reload(&app.compute).await {
            Ok(true) => tracing::info!("the users file has changed and was read"),
            // Our own change.
            Ok(false) => {}
            Err(error) if error.kind() == crate::error::Kind::Closed => return,
            Err(error) => {
                tracing::error!(%error, "the users file has changed and cannot be read: the users stay as they were")
            }
        }
    }
}
