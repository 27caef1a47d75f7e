//! From credentials to an id, with the recorded words for every refusal. Pure; users, keys and time are arguments.

use std::fmt;

use http::{HeaderMap, Method};

use super::credentials::{self, Credentials};
use super::secret::{TokenKey, verify_password};
use super::ticket::TicketKeys;
use super::users::Users;
use crate::clock::EpochSecs;
use crate::types::{AuthId, Userid};

/// The server's own secrets.
#[derive(Clone, Debug)]
pub struct ServerKeys {
    /// Signs tickets.
    pub tickets: TicketKeys,
    /// Hashes token secrets.
    pub tokens: TokenKey,
}

/// A refused authentication: what the client is told, and whom it claimed to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthFailure {
    /// Without the words `authentication failed`.
    pub reason: String,
    /// For the log; from the client, so not to be believed.
    pub claimed: Option<String>,
}

impl fmt::Display for AuthFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "authentication failed - {}", self.reason)
    }
}

/// Who sends a request. A ticket needs its token against forged requests for everything but GET.
pub fn authenticate(
    users: &Users,
    keys: &ServerKeys,
    headers: &HeaderMap,
    method: &Method,
    now: EpochSecs,
) -> Result<AuthId, AuthFailure> {
    let fail = |reason: &str, claimed: Option<&AuthId>| AuthFailure {
        reason: reason.to_owned(),
        claimed: claimed.map(AuthId::to_string),
    };
    const INACTIVE: &str = "user account or token disabled or expired.";
    match credentials::find(headers) {
        None => Err(fail("no authentication credentials provided.", None)),
        Some(Credentials::Token { auth_id, secret }) => {
            if !users.is_active(&auth_id, now) {
                Err(fail(INACTIVE, Some(&auth_id)))
            } else if !users.verify_token(&auth_id, &secret, &keys.tokens) {
                Err(fail("invalid credentials", Some(&auth_id)))
            } else {
                Ok(auth_id)
            }
        }
        Some(Credentials::Ticket { ticket, csrf }) => {
            let user = keys.tickets.check_ticket(&ticket, now);
            let user = user.map_err(|refused| fail(&format!("invalid ticket - {refused}"), None))?;
            let auth_id = AuthId::from(user);
            if !users.is_active(&auth_id, now) {
                return Err(fail(INACTIVE, Some(&auth_id)));
            }
            if method != Method::GET {
                let csrf = csrf.ok_or_else(|| fail("missing CSRF prevention token", Some(&auth_id)))?;
                let checked = keys.tickets.check_csrf(&csrf, auth_id.user(), now);
                checked.map_err(|refused| fail(&format!("invalid csrf token - {refused}"), Some(&auth_id)))?;
            }
            Ok(auth_id)
        }
    }
}

/// Whether a user may have a new ticket: with a password, or with a ticket that is still good. Dear: see
/// [`super::hash_password`].
pub fn login(users: &Users, keys: &ServerKeys, user: &Userid, password: &str, now: EpochSecs) -> bool {
    let by_ticket = password.starts_with("PBS:") && keys.tickets.check_ticket(password, now).as_ref() == Ok(user);
    let known = by_ticket || verify_password(password, users.password_hash(user));
    known && users.is_active(&user.clone().into(), now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::users::set_password;

    const NOW: EpochSecs = EpochSecs(1_717_597_418);

    fn server() -> (Users, ServerKeys) {
        let keys =
            ServerKeys { tickets: TicketKeys::new(vec![1; 32], vec![2; 32]), tokens: TokenKey::new(vec![3; 32]) };
        let mut users = Users::default();
        users.set_up(&"admin@pbs!default".parse().unwrap(), "s3cret", &keys.tokens).unwrap();
        set_password(&mut users, &"u@pbs".parse().unwrap(), "12345").unwrap();
        (users, keys)
    }

    fn ask(method: Method, headers: &[(&'static str, String)]) -> Result<String, String> {
        let (users, keys) = server();
        let headers = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        authenticate(&users, &keys, &headers, &method, NOW).map(|a| a.to_string()).map_err(|e| e.to_string())
    }

    #[test]
    fn the_recorded_answers() {
        let keys = server().1;
        let user: Userid = "u@pbs".parse().unwrap();
        let cookie = ("cookie", format!("PBSAuthCookie={}", keys.tickets.issue_ticket(&user, NOW)));
        let csrf = ("csrfpreventiontoken", keys.tickets.issue_csrf(&user, NOW));
        let failed = |text: &str| Err(format!("authentication failed - {text}"));
        let token = |text: &str| ("authorization", format!("PBSAPIToken {text}"));
        let get = |h: &[(&'static str, String)]| ask(Method::GET, h);
        assert_eq!(get(&[token("admin@pbs!default:s3cret")]), Ok("admin@pbs!default".into()));
        assert_eq!(get(&[token("admin@pbs!default:wrong")]), failed("invalid credentials"));
        let inactive = failed("user account or token disabled or expired.");
        assert_eq!(get(&[token("admin@pbs!nosuch:s3cret")]), inactive);
        assert_eq!(get(&[]), failed("no authentication credentials provided."));
        assert_eq!(get(&[("authorization", "Basic abc".into())]), failed("no authentication credentials provided."));
        assert_eq!(
            get(&[("cookie", "PBSAuthCookie=PBS%3Au@pbs%3A00000000%3A%3Axxxx".into())]),
            failed("invalid ticket - expired")
        );
        assert_eq!(get(std::slice::from_ref(&cookie)), Ok("u@pbs".into()));
        let stranger = keys.tickets.issue_ticket(&"nobody@pbs".parse().unwrap(), NOW);
        assert_eq!(get(&[("cookie", format!("PBSAuthCookie={stranger}"))]), inactive);
        let post = |h: &[(&'static str, String)]| ask(Method::POST, h);
        assert_eq!(post(std::slice::from_ref(&cookie)), failed("missing CSRF prevention token"));
        assert_eq!(
            post(&[cookie.clone(), ("csrfpreventiontoken", "00000000:AAAA".into())]),
            failed("invalid csrf token - invalid signature.")
        );
        assert_eq!(post(&[cookie, csrf]), Ok("u@pbs".into()));
        assert_eq!(post(&[token("admin@pbs!default:s3cret")]), Ok("admin@pbs!default".into()));
    }

    #[test]
    fn logins() {
        let (mut users, keys) = server();
        let user: Userid = "u@pbs".parse().unwrap();
        let ticket = keys.tickets.issue_ticket(&user, NOW);
        let try_it =
            |users: &Users, name: &str, password: &str| login(users, &keys, &name.parse().unwrap(), password, NOW);
        assert!(try_it(&users, "u@pbs", "12345"));
        assert!(try_it(&users, "u@pbs", &ticket));
        assert!(!try_it(&users, "u@pbs", "wrong"));
        assert!(!try_it(&users, "nosuch@pbs", "12345"));
        assert!(!try_it(&users, "admin@pbs", &ticket), "a ticket is for its own user");
        assert!(!try_it(&users, "admin@pbs", ""), "no password is set");
        users.set_validity(&user.into(), false, EpochSecs(0)).unwrap();
        assert!(!try_it(&users, "u@pbs", "12345"));
    }
}
