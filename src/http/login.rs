//! Logins: dear checks of secrets a few at a time and away from the runtime's threads, each address in its turn, and the one log line
//! of a refusal.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::context::App;
use crate::auth::{AuthFailure, Doubt, Proof, ServerKeys, Verdicts, authenticate, login};
use crate::engine::ComputePool;
use crate::error::{Error, Result, SHUTTING_DOWN};
use crate::sync::Mutex;
use crate::types::{AuthId, Userid};

/// Dear checks at a time: guessing must not take the CPUs away from running backups, and each needs up to 19 MiB (imported hashes up to
/// 256 MiB).
const CHECKS_MAX: usize = 2;

/// The same for the machine's own users: PAM hardly computes, but a wrong password takes it seconds, and a directory server that does not
/// answer takes it minutes. Apart from the others, so that these do not wait for it.
const MACHINE_CHECKS_MAX: usize = 4;

/// How long a login waits for PAM, for its turn and its answer together. Longer than `pam_faildelay` and one try of a directory server; whoever waits has given up by
/// then.
const MACHINE_PATIENCE: Duration = Duration::from_secs(60);

/// Longest user name in the log line of a refusal, in characters.
const LOGGED_CHARS_MAX: usize = 128;

/// What dear checks need: places, and the memory of what they said.
#[derive(Debug)]
pub struct Logins {
    ours: Checks,
    /// Only where there is a PAM to ask.
    machine: Option<Checks>,
    verdicts: Verdicts,
    lines: Arc<Lines>,
}

impl Logins {
    /// Starts the threads.
    pub fn new() -> Result<Self> {
        Ok(Self {
            ours: Checks::new("login", CHECKS_MAX)?,
            machine: cfg!(feature = "pam").then(|| Checks::new("pam", MACHINE_CHECKS_MAX)).transpose()?,
            verdicts: Verdicts::default(),
            lines: Arc::default(),
        })
    }

    /// Whether the secret is right. A check that has begun goes on when nobody waits for it any more, and keeps its place until then.
    async fn check(&self, doubt: &Doubt, keys: &ServerKeys) -> Result<bool> {
        let Some(machine) = self.machine.as_ref().filter(|_| doubt.asks_machine()) else {
            return self.ours.run(doubt, keys).await;
        };
        let asked = tokio::time::timeout(MACHINE_PATIENCE, machine.run(doubt, keys)).await;
        asked.unwrap_or_else(|_| {
            let seconds = MACHINE_PATIENCE.as_secs();
            tracing::warn!(user = %doubt.auth_id, "PAM has not answered for {seconds} s: the login is refused");
            Ok(false)
        })
    }
}

/// Threads of their own for one kind of checks: backups must not wait for logins, nor logins for backups.
#[derive(Debug)]
struct Checks {
    places: Arc<Semaphore>,
    pool: ComputePool,
}

impl Checks {
    fn new(name: &str, at_a_time: usize) -> Result<Self> {
        Ok(Self { places: Arc::new(Semaphore::new(at_a_time)), pool: ComputePool::named(name, at_a_time)? })
    }

    async fn run(&self, doubt: &Doubt, keys: &ServerKeys) -> Result<bool> {
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.map_err(|_| Error::closed(SHUTTING_DOWN))?;
        let (asked, keys) = (doubt.clone(), keys.clone());
        self.pool.run(move || (asked.is_settled(&keys), drop(place)).0).await
    }
}

#[cfg(test)]
impl Logins {
    /// Whether no check is under way or waits for one.
    pub(super) fn is_idle(&self) -> bool {
        self.ours.places.available_permits() == CHECKS_MAX && self.lines.waiting.lock().is_empty()
    }
}

/// One queue per address: however many wait in it, the address has one check under way or next for a place. So whoever guesses from a
/// thousand connections delays others by one check. Bounded by the number of connections.
#[derive(Debug, Default)]
struct Lines {
    waiting: Mutex<HashMap<IpAddr, (Arc<Semaphore>, usize)>>,
}

/// A turn of an address; the queue goes with its last one.
#[derive(Debug)]
struct Turn {
    lines: Arc<Lines>,
    address: IpAddr,
    permit: Option<OwnedSemaphorePermit>,
}

impl Lines {
    async fn turn(self: &Arc<Self>, address: IpAddr) -> Result<Turn> {
        let queue = {
            let mut waiting = self.waiting.lock();
            let (queue, count) = waiting.entry(address).or_insert_with(|| (Arc::new(Semaphore::new(1)), 0));
            *count += 1;
            Arc::clone(queue)
        };
        // Made before the wait, so that whoever goes away in the middle of it is counted out.
        let mut turn = Turn { lines: Arc::clone(self), address, permit: None };
        turn.permit = Some(queue.acquire_owned().await.map_err(|_| Error::closed(SHUTTING_DOWN))?);
        Ok(turn)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut waiting = self.lines.waiting.lock();
        if let Some((_, count)) = waiting.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                waiting.remove(&self.address);
            }
        }
    }
}

/// Who sends a request. A refusal is of kind `Unauthenticated` and has been logged.
pub(super) async fn of_request(app: &Arc<App>, peer: SocketAddr, head: &Parts) -> Result<AuthId> {
    // The users are not kept across the wait for a place: they are replaced when they change.
    let proof = authenticate(&app.users.get(), &app.keys, &head.headers, &head.method, app.clock.now());
    match proof {
        Ok(Proof::Given(auth_id)) => Ok(auth_id),
        Ok(Proof::Doubtful(doubt)) => settle(app, peer, doubt).await,
        Err(failure) => Err(refuse(peer, &failure)),
    }
}

/// Checks a user's password, or a ticket that is still good in its place. A refusal is of kind `Unauthenticated` and has been logged.
pub(super) async fn of_user(app: &Arc<App>, peer: SocketAddr, user: &Userid, password: &str) -> Result<()> {
    let proof = login(&app.users.get(), &app.keys, user, password, app.clock.now());
    match proof {
        Proof::Given(auth_id) => check_active(app, peer, auth_id).map(drop),
        Proof::Doubtful(doubt) => settle(app, peer, doubt).await.map(drop),
    }
}

/// Checks a user's password, for which no ticket stands in. A refusal is of kind `Unauthenticated` and has been logged.
pub(super) async fn confirm(app: &Arc<App>, peer: SocketAddr, user: &Userid, password: &str) -> Result<()> {
    let doubt = Doubt::of_password(&app.users.get(), user, password);
    settle(app, peer, doubt).await.map(drop)
}

/// Does a dear check, unless its outcome is known. Nothing is held while a refusal waits for its time.
async fn settle(app: &Arc<App>, peer: SocketAddr, doubt: Doubt) -> Result<AuthId> {
    let logins = &app.logins;
    let is_known = |doubt: &Doubt| doubt.is_known(&app.keys, &logins.verdicts, app.clock.now());
    if !is_known(&doubt) {
        let _turn = logins.lines.turn(peer.ip()).await?;
        // Of many with the same secret the first one has learnt it for all.
        if !is_known(&doubt) {
            if !logins.check(&doubt, &app.keys).await? {
                return Err(refuse(peer, &doubt.refusal()));
            }
            doubt.learn(&app.keys, &logins.verdicts, app.clock.now());
            keep_our_way(app, doubt.clone());
        }
    }
    check_active(app, peer, doubt.auth_id)
}

fn check_active(app: &App, peer: SocketAddr, auth_id: AuthId) -> Result<AuthId> {
    if app.users.get().is_active(&auth_id, app.clock.now()) {
        return Ok(auth_id);
    }
    Err(refuse(peer, &AuthFailure::inactive(&auth_id)))
}

/// Puts a hash of our own in the place of an imported one, now that the secret is known; nobody waits for it. If it fails the next login
/// does it.
fn keep_our_way(app: &Arc<App>, doubt: Doubt) {
    if !doubt.is_imported() {
        return;
    }
    let app = Arc::clone(app);
    tokio::spawn(async move {
        let (asked, keys, auth_id) = (doubt.clone(), app.keys.clone(), doubt.auth_id);
        let stored = async {
            let Some((old, new)) = app.logins.ours.pool.run(move || asked.rehashed(&keys)).await? else {
                return Ok(false);
            };
            let of = auth_id.clone();
            app.edit_users(move |users| Ok(users.replace_hash(&of, &old, new.clone()))).await
        };
        match stored.await {
            Ok(true) => {
                tracing::info!(%auth_id, "an imported secret was proved by a login and is now kept as our own are")
            }
            Ok(false) => {}
            Err(error) => tracing::warn!(%auth_id, %error, "an imported secret stays as it was imported"),
        }
    });
}

/// The error of a refused authentication, which is logged here and nowhere else.
pub(super) fn refuse(peer: SocketAddr, failure: &AuthFailure) -> Error {
    let line = failure_line(peer.ip(), failure);
    tracing::warn!(target: "ringvault::auth", "{line}");
    Error::unauthenticated(failure.to_string())
}

/// The line that watchers such as fail2ban look for (docs/operations.md). Its form does not change.
fn failure_line(address: IpAddr, failure: &AuthFailure) -> String {
    // A user name comes from whoever is refused: nothing in it may look like the rest of the line, or begin another.
    let harmless = |c: char| if c.is_control() || c.is_whitespace() { '?' } else { c };
    let user: String =
        failure.claimed.as_deref().unwrap_or("unknown").chars().take(LOGGED_CHARS_MAX).map(harmless).collect();
    format!("authentication failure; rhost={} user={user} msg={}", address.to_canonical(), failure.reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_client_sends_forges_the_line() {
        let line = |address: &str, claimed: Option<&str>, reason: &str| {
            let failure = AuthFailure { reason: reason.to_owned(), claimed: claimed.map(ToOwned::to_owned) };
            failure_line(address.parse().unwrap(), &failure)
        };
        for (address, claimed, want) in [
            ("192.0.2.7", Some("admin@pbs!default"), "rhost=192.0.2.7 user=admin@pbs!default msg=no"),
            ("::ffff:192.0.2.7", None, "rhost=192.0.2.7 user=unknown msg=no"),
            ("2001:db8::1", Some("ä@pbs"), "rhost=2001:db8::1 user=ä@pbs msg=no"),
            (
                "192.0.2.7",
                Some("x@pbs\nauthentication failure; rhost=198.51.100.1 user=y"),
                "rhost=192.0.2.7 user=x@pbs?authentication?failure;?rhost=198.51.100.1?user=y msg=no",
            ),
            ("192.0.2.7", Some("\u{1b}[31m\r\0\u{85}\u{2028}\u{a0}"), "rhost=192.0.2.7 user=?[31m????? msg=no"),
        ] {
            assert_eq!(line(address, claimed, "no"), format!("authentication failure; {want}"));
        }
        assert!(line("192.0.2.7", Some(&"x".repeat(10_000)), "no").len() < 250);
    }

    #[tokio::test]
    async fn an_address_has_one_turn_at_a_time_and_leaves_nothing_behind() {
        let lines = Arc::new(Lines::default());
        let (here, there): (IpAddr, IpAddr) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        let first = lines.turn(here).await.unwrap();
        let mut second = Box::pin(lines.turn(here));
        assert!(futures_poll(&mut second).await.is_none(), "one at a time");
        let other = lines.turn(there).await.unwrap();
        let mut gone = Box::pin(lines.turn(here));
        assert!(futures_poll(&mut gone).await.is_none());
        drop(gone);
        drop(first);
        drop(second.await.unwrap());
        drop(other);
        assert!(lines.waiting.lock().is_empty());
    }

    /// What a future gives at once, if anything.
    async fn futures_poll<F: Future + Unpin>(future: &mut F) -> Option<F::Output> {
        tokio::select! {
            biased;
            value = future => Some(value),
            () = std::future::ready(()) => None,
        }
    }
}
