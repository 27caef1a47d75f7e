//! The users as a running daemon knows them, and the one way they change: on disk first, then here.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::context::App;
use crate::auth::Users;
use crate::engine::ComputePool;
use crate::error::{Error, Kind, Result};
use crate::sync::Mutex;

/// How often to ask for the file's lock, which a command line may hold for milliseconds, and how long to wait in between.
const LOCK_TRIES: u32 = 60;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A change to the users that is made or refused as a whole.
pub type Change<'a> = &'a dyn Fn(&mut Users) -> Result<()>;

/// The same, handed on to a pool.
type SharedChange = Arc<dyn Fn(&mut Users) -> Result<()> + Send + Sync>;

/// Where the users are kept for good. Blocking: called on a pool.
pub trait UsersFile: fmt::Debug + Send + Sync {
    /// Reads them.
    fn load(&self) -> Result<Users>;

    /// Reads them, changes them and makes that durable, all under the file's lock; the users as they are then. Errors of kind `Busy`
    /// before the change was tried: somebody else holds the lock.
    fn edit(&self, change: Change) -> Result<Users>;
}

/// The users as they are now; replaced as a whole.
#[derive(Debug)]
pub struct UserBook {
    current: Mutex<Arc<Users>>,
    file: Arc<dyn UsersFile>,
    /// Held from reading the file until what was read stands in `current`, so that an older state never follows a newer one.
    in_turn: tokio::sync::Mutex<()>,
}

impl UserBook {
    /// A book with these users, which `file` holds.
    pub fn new(users: Users, file: Arc<dyn UsersFile>) -> Self {
        Self { current: Mutex::new(Arc::new(users)), file, in_turn: tokio::sync::Mutex::new(()) }
    }

    /// The users as they are now.
    pub fn get(&self) -> Arc<Users> {
        self.current.lock().clone()
    }

    /// Other users from now on, whatever the file holds.
    #[cfg(test)]
    pub(super) fn replace(&self, users: Users) {
        *self.current.lock() = Arc::new(users);
    }

    /// Takes over what somebody else has put into the file; whether that is anything new.
    pub async fn reload(&self, pool: &ComputePool) -> Result<bool> {
        let _turn = self.in_turn.lock().await;
        let file = Arc::clone(&self.file);
        let users = pool.run(move || file.load()).await??;
        let is_new = *self.get() != users;
        if is_new {
            *self.current.lock() = Arc::new(users);
        }
        Ok(is_new)
    }

    async fn edit(&self, pool: &ComputePool, change: SharedChange) -> Result<()> {
        let _turn = self.in_turn.lock().await;
        let mut tries = 0;
        let users = loop {
            let (file, change) = (Arc::clone(&self.file), Arc::clone(&change));
            match pool.run(move || file.edit(&*change)).await? {
                Err(error) if error.kind() == Kind::Busy && tries < LOCK_TRIES => {
                    tries += 1;
                    tokio::time::sleep(LOCK_PAUSE).await;
                }
                edited => break edited?,
            }
        };
        *self.current.lock() = Arc::new(users);
        Ok(())
    }
}

impl App {
    /// Changes the users, durably; the next request sees it. Goes on to its end when the asker goes away. `change` may be tried more than
    /// once, each time on what the file holds then.
    ///
    /// Errors: those of `change`; `Invalid` if nobody would be left who may administer users.
    pub async fn edit_users<T: Send + 'static>(
        self: &Arc<Self>,
        change: impl Fn(&mut Users) -> Result<T> + Send + Sync + 'static,
    ) -> Result<T> {
        let app = Arc::clone(self);
        let result = Arc::new(Mutex::new(None));
        let (written, clock) = (Arc::clone(&result), self.clock.clone());
        let guarded = move |users: &mut Users| {
            let now = clock.now();
            let was_governed = users.has_administrator(now);
            let value = change(users)?;
            users.check_size()?;
            if was_governed && !users.has_administrator(now) {
                return Err(Error::invalid(
                    "this would leave nobody who can log in and may change users and permissions: give somebody else the role Admin \
                     on / first (on the server itself, `ringvault user` can do without)",
                ));
            }
            *written.lock() = Some(value);
            Ok(())
        };
        let work = tokio::spawn(async move { app.users.edit(&app.compute, Arc::new(guarded)).await });
        work.await.map_err(|e| Error::closed("the change of users was cut off").with_source(e))??;
        let value = result.lock().take();
        value.ok_or_else(|| Error::closed("the change of users gave no result"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A users file that needs no disk.
    #[derive(Debug, Default)]
    pub struct InMemory {
        users: Mutex<Users>,
        /// So many times the lock is somebody else's.
        busy: AtomicU32,
    }

    impl InMemory {
        pub fn book(users: Users) -> UserBook {
            UserBook::new(users.clone(), Arc::new(Self { users: Mutex::new(users), busy: AtomicU32::new(0) }))
        }
    }

    impl UsersFile for InMemory {
        fn load(&self) -> Result<Users> {
            Ok(self.users.lock().clone())
        }

        fn edit(&self, change: Change) -> Result<Users> {
            if self.busy.load(Ordering::Relaxed) > 0 {
                self.busy.fetch_sub(1, Ordering::Relaxed);
                return Err(Error::busy("held"));
            }
            let mut users = self.load()?;
            change(&mut users)?;
            *self.users.lock() = users.clone();
            Ok(users)
        }
    }

    #[tokio::test]
    async fn a_change_waits_for_the_lock_and_a_refused_one_leaves_no_trace() {
        let file = Arc::new(InMemory { busy: AtomicU32::new(3), ..InMemory::default() });
        let book = UserBook::new(Users::default(), file.clone());
        let pool = ComputePool::new(1).unwrap();
        let add = |users: &mut Users| {
            users.add_user(&"u@pbs".parse()?, None);
            Ok(())
        };
        book.edit(&pool, Arc::new(add)).await.unwrap();
        assert_eq!(book.get().ids().count(), 1);
        let refuse = |users: &mut Users| {
            users.add_user(&"v@pbs".parse()?, None);
            Err(Error::invalid("no"))
        };
        assert_eq!(book.edit(&pool, Arc::new(refuse)).await.unwrap_err().to_string(), "no");
        assert_eq!((book.get().ids().count(), file.load().unwrap().ids().count()), (1, 1));
    }
}
