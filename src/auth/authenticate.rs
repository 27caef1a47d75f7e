//! From credentials to an id, with the recorded words for every refusal. Pure; users, keys and time are arguments, and dear checks are
//! left to the caller.

use std::fmt;

use http::{HeaderMap, Method};

use super::credentials::{self, Credentials};
use super::secret::{self, TokenKey, verify_password};
use super::ticket::TicketKeys;
use super::users::{REALM_PAM, Users};
use super::verdicts::Verdicts;
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

impl AuthFailure {
    /// The secret is not the one of this id; in the same words whatever was wrong with it.
    pub fn wrong_secret(claimed: &AuthId) -> Self {
        Self { reason: "invalid credentials".to_owned(), claimed: Some(claimed.to_string()) }
    }

    /// The account, or the user of the token, may not act now.
    pub fn inactive(claimed: &AuthId) -> Self {
        let reason = "user account or token disabled or expired.".to_owned();
        Self { reason, claimed: Some(claimed.to_string()) }
    }
}

impl fmt::Display for AuthFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "authentication failed - {}", self.reason)
    }
}

/// What somebody has shown, as far as it is known without dear work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Proof {
    /// They are who they say.
    Given(AuthId),
    /// They are if [`Doubt::is_settled`].
    Doubtful(Doubt),
}

/// A secret whose check takes milliseconds of a CPU or more: to be done away from the runtime's threads, and not twice.
#[derive(Clone, PartialEq, Eq)]
pub struct Doubt {
    /// Who they say they are; active when this was asked.
    pub auth_id: AuthId,
    /// What they show.
    secret: String,
    /// What is kept of the true one; `None` where there is none, which the time that the answer takes does not tell.
    hash: Option<String>,
}

impl fmt::Debug for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Doubt({})", self.auth_id)
    }
}

impl Doubt {
    /// Whether this is a user's password; a ticket is not.
    pub fn of_password(users: &Users, user: &Userid, password: &str) -> Self {
        let hash = users.password_hash(user).map(ToOwned::to_owned);
        Self { auth_id: user.clone().into(), secret: password.to_owned(), hash }
    }

    /// Does the check. Dear: see [`super::hash_password`].
    pub fn is_settled(&self, keys: &ServerKeys) -> bool {
        #[cfg(feature = "pam")]
        if self.is_of_machine() {
            return super::pam::verify(self.auth_id.user().name(), &self.secret);
        }
        match (&self.hash, self.auth_id.token()) {
            (Some(hash), Some(_)) => keys.tokens.verify(&self.auth_id, &self.secret, hash),
            (hash, _) => verify_password(&self.secret, hash.as_deref()),
        }
    }

    /// Whether [`Self::is_settled`] asks the machine's PAM, which may take as long as it likes.
    pub fn asks_machine(&self) -> bool {
        cfg!(feature = "pam") && self.is_of_machine()
    }

    /// A user of the machine: nothing that would let them in is kept here.
    fn is_of_machine(&self) -> bool {
        self.auth_id.token().is_none() && self.auth_id.user().realm() == REALM_PAM
    }

    /// What to say when the check has failed.
    pub fn refusal(&self) -> AuthFailure {
        let failure = AuthFailure::wrong_secret(&self.auth_id);
        if self.is_of_machine() && cfg!(not(feature = "pam")) {
            let reason = "this server was built without PAM, so no user of the realm pam can log in".to_owned();
            return AuthFailure { reason, ..failure };
        }
        failure
    }

    /// Whether what is kept was imported, and [`Self::rehashed`] should take its place.
    pub fn is_imported(&self) -> bool {
        self.hash.as_deref().is_some_and(|hash| !secret::is_ours(hash))
    }

    /// Whether the same secret was right a short time ago.
    pub fn is_known(&self, keys: &ServerKeys, verdicts: &Verdicts, now: EpochSecs) -> bool {
        let hash = self.hash.as_deref();
        hash.is_some_and(|hash| verdicts.knows(&keys.tokens, &self.auth_id, &self.secret, hash, now))
    }

    /// Remembers that the secret is right.
    pub fn learn(&self, keys: &ServerKeys, verdicts: &Verdicts, now: EpochSecs) {
        if let Some(hash) = &self.hash {
            verdicts.learn(&keys.tokens, &self.auth_id, &self.secret, hash, now);
        }
    }

    /// What to keep in the place of an imported hash once the secret is known to be right: the old hash and the new one. As dear as the
    /// check itself.
    pub fn rehashed(&self, keys: &ServerKeys) -> Option<(String, String)> {
        let old = self.hash.clone().filter(|hash| !secret::is_ours(hash))?;
        let new = match self.auth_id.token() {
            Some(_) => keys.tokens.hash(&self.auth_id, &self.secret),
            None => secret::hash_any_password(&self.secret).ok()?,
        };
        Some((old, new))
    }
}

/// Who sends a request. A ticket needs its token against forged requests for everything but GET.
pub fn authenticate(
    users: &Users,
    keys: &ServerKeys,
    headers: &HeaderMap,
    method: &Method,
    now: EpochSecs,
) -> Result<Proof, AuthFailure> {
    let fail = |reason: &str, claimed: Option<&AuthId>| AuthFailure {
        reason: reason.to_owned(),
        claimed: claimed.map(AuthId::to_string),
    };
    match credentials::find(headers) {
        None => Err(fail("no authentication credentials provided.", None)),
        Some(Credentials::Token { auth_id, secret }) => {
            if !users.is_active(&auth_id, now) {
                return Err(AuthFailure::inactive(&auth_id));
            }
            if let Some(hash) = users.hash(&auth_id).filter(|hash| secret::is_dear(hash)) {
                return Ok(Proof::Doubtful(Doubt { hash: Some(hash.to_owned()), auth_id, secret }));
            }
            match users.verify_token(&auth_id, &secret, &keys.tokens) {
                true => Ok(Proof::Given(auth_id)),
                false => Err(AuthFailure::wrong_secret(&auth_id)),
            }
        }
        Some(Credentials::Ticket { ticket, csrf }) => {
            let user = keys.tickets.check_ticket(&ticket, now, users);
            let user = user.map_err(|refused| fail(&format!("invalid ticket - {refused}"), None))?;
            let auth_id = AuthId::from(user);
            if !users.is_active(&auth_id, now) {
                return Err(AuthFailure::inactive(&auth_id));
            }
            if method != Method::GET {
                let csrf = csrf.ok_or_else(|| fail("missing CSRF prevention token", Some(&auth_id)))?;
                let checked = keys.tickets.check_csrf(&csrf, auth_id.user(), now);
                checked.map_err(|refused| fail(&format!("invalid csrf token - {refused}"), Some(&auth_id)))?;
            }
            Ok(Proof::Given(auth_id))
        }
    }
}

/// Whether a user may have a new ticket: with a ticket that is still good, or with a password, which is left to be checked. That the user
/// is not active is told only after the check, for the time that it takes must not tell.
pub fn login(users: &Users, keys: &ServerKeys, user: &Userid, password: &str, now: EpochSecs) -> Proof {
    if password.starts_with("PBS:") && keys.tickets.check_ticket(password, now, users).as_ref() == Ok(user) {
        return Proof::Given(user.clone().into());
    }
    Proof::Doubtful(Doubt::of_password(users, user, password))
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
        // As in a users file of before there were stamps; and these users are made again and again.
        users.accounts.values_mut().for_each(|account| account.stamp = None);
        (users, keys)
    }

    fn ask(method: Method, headers: &[(&'static str, String)]) -> Result<String, String> {
        let (users, keys) = server();
        let headers = headers.iter().map(|(n, v)| (n.parse().unwrap(), v.parse().unwrap())).collect();
        match authenticate(&users, &keys, &headers, &method, NOW) {
            Ok(Proof::Given(auth_id)) => Ok(auth_id.to_string()),
            Ok(Proof::Doubtful(doubt)) => panic!("{doubt:?}"),
            Err(failure) => Err(failure.to_string()),
        }
    }

    fn failed(text: &str) -> Result<String, String> {
        Err(format!("authentication failed - {text}"))
    }

    #[test]
    fn the_recorded_answers() {
        let keys = server().1;
        let user: Userid = "u@pbs".parse().unwrap();
        let cookie = ("cookie", format!("PBSAuthCookie={}", keys.tickets.issue_ticket(&user, NOW, "")));
        let csrf = ("csrfpreventiontoken", keys.tickets.issue_csrf(&user, NOW));
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
        let stranger = keys.tickets.issue_ticket(&"nobody@pbs".parse().unwrap(), NOW, "");
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
    fn bad_tickets_and_bad_tokens_against_forgery() {
        let keys = server().1;
        let (user, other): (Userid, Userid) = ("u@pbs".parse().unwrap(), "admin@pbs".parse().unwrap());
        let foreign = TicketKeys::new(vec![9; 32], vec![9; 32]);
        let at = |secs: i64| EpochSecs(NOW.0 + secs);
        let good = keys.tickets.issue_ticket(&user, NOW, "");
        let with_signature_of_other = {
            let (_, signature) = keys
                .tickets
                .issue_ticket(&other, NOW, "")
                .rsplit_once("::")
                .map(|(a, b)| (a.to_owned(), b.to_owned()))
                .unwrap();
            format!("{}::{signature}", good.rsplit_once("::").unwrap().0)
        };
        for (what, ticket, why) in [
            ("expired", keys.tickets.issue_ticket(&user, at(-7201), ""), "expired"),
            ("from the future", keys.tickets.issue_ticket(&user, at(301), ""), "timestamp is in the future"),
            ("truncated signature", good[..good.len() - 1].to_owned(), "invalid signature."),
            ("truncated", good[..good.rfind("::").unwrap()].to_owned(), "malformed"),
            ("empty", String::new(), "malformed"),
            ("of another user", good.replace("u@pbs", "admin@pbs"), "invalid signature."),
            ("signature of another user", with_signature_of_other, "invalid signature."),
            ("signed by another key", foreign.issue_ticket(&user, NOW, ""), "invalid signature."),
            (
                "another time",
                good.replace(&format!("{:08X}", NOW.0), &format!("{:08X}", NOW.0 + 1)),
                "invalid signature.",
            ),
        ] {
            let got = ask(Method::GET, &[("cookie", format!("PBSAuthCookie={ticket}"))]);
            assert_eq!(got, failed(&format!("invalid ticket - {why}")), "{what}");
        }
        let csrf = keys.tickets.issue_csrf(&user, NOW);
        for (what, token, why) in [
            ("missing", None, "missing CSRF prevention token".to_owned()),
            ("empty", Some(String::new()), "invalid csrf token - malformed".into()),
            ("truncated", Some(csrf[..csrf.len() - 1].into()), "invalid csrf token - invalid signature.".into()),
            (
                "of another user",
                Some(keys.tickets.issue_csrf(&other, NOW)),
                "invalid csrf token - invalid signature.".into(),
            ),
            ("of another key", Some(foreign.issue_csrf(&user, NOW)), "invalid csrf token - invalid signature.".into()),
            ("expired", Some(keys.tickets.issue_csrf(&user, at(-7201))), "invalid csrf token - expired".into()),
            (
                "from the future",
                Some(keys.tickets.issue_csrf(&user, at(301))),
                "invalid csrf token - timestamp is in the future".into(),
            ),
        ] {
            for method in [Method::POST, Method::PUT, Method::DELETE] {
                let mut headers = vec![("cookie", format!("PBSAuthCookie={good}"))];
                headers.extend(token.clone().map(|token| ("csrfpreventiontoken", token)));
                assert_eq!(ask(method, &headers), failed(&why), "{what}");
            }
        }
    }

    /// All of a login at once.
    fn try_it(users: &Users, keys: &ServerKeys, name: &str, password: &str) -> bool {
        match login(users, keys, &name.parse().unwrap(), password, NOW) {
            Proof::Given(auth_id) => users.is_active(&auth_id, NOW),
            Proof::Doubtful(doubt) => doubt.is_settled(keys) && users.is_active(&doubt.auth_id, NOW),
        }
    }

    #[test]
    fn logins() {
        let (mut users, keys) = server();
        let user: Userid = "u@pbs".parse().unwrap();
        let ticket = keys.tickets.issue_ticket(&user, NOW, "");
        for (name, password, want) in [
            ("u@pbs", "12345", true),
            ("u@pbs", &*ticket, true),
            ("u@pbs", "wrong", false),
            ("u@pbs", "PBS:rubbish", false),
            ("nosuch@pbs", "12345", false),
            // A ticket is for its own user, its own time and its own server.
            ("admin@pbs", &*ticket, false),
            ("u@pbs", &*keys.tickets.issue_ticket(&user, EpochSecs(NOW.0 - 7201), ""), false),
            ("u@pbs", &*keys.tickets.issue_ticket(&user, EpochSecs(NOW.0 + 301), ""), false),
            ("u@pbs", &ticket[..ticket.len() - 1], false),
            ("u@pbs", &*TicketKeys::new(vec![9; 32], vec![2; 32]).issue_ticket(&user, NOW, ""), false),
            // No password is set.
            ("admin@pbs", "", false),
        ] {
            assert_eq!(try_it(&users, &keys, name, password), want, "{name} {password}");
        }
        users.set_validity(&user.into(), false, EpochSecs(0)).unwrap();
        assert!(!try_it(&users, &keys, "u@pbs", "12345") && !try_it(&users, &keys, "u@pbs", &ticket));
    }

    #[test]
    fn imported_secrets_are_checked_once_and_kept_our_way_from_then_on() {
        let (mut users, keys) = server();
        let imported = "$5$saltstring$5OEgah10p6LHY7VMhjHi26TvRdoxaOsd5ugEEYSNmw/";
        let (user, token): (AuthId, AuthId) = ("u@pbs".parse().unwrap(), "u@pbs!t".parse().unwrap());
        users.import_token(&token, &Default::default(), Some(imported.to_owned())).unwrap();
        users.set_password_hash(user.user(), imported.to_owned()).unwrap();
        let shown = |users: &Users, secret: &str| {
            let headers =
                [("authorization".parse().unwrap(), format!("PBSAPIToken u@pbs!t:{secret}").parse().unwrap())];
            authenticate(users, &keys, &headers.into_iter().collect(), &Method::GET, NOW)
        };
        let doubts =
            [shown(&users, "golden-password-1").unwrap(), login(&users, &keys, user.user(), "golden-password-1", NOW)];
        for doubt in doubts {
            let Proof::Doubtful(doubt) = doubt else { panic!("{doubt:?}") };
            let verdicts = Verdicts::default();
            assert!(doubt.is_settled(&keys) && !doubt.is_known(&keys, &verdicts, NOW));
            doubt.learn(&keys, &verdicts, NOW);
            assert!(doubt.is_known(&keys, &verdicts, NOW));
            let (old, new) = doubt.rehashed(&keys).unwrap();
            assert_eq!(old, imported);
            assert!(users.replace_hash(&doubt.auth_id, &old, new));
            assert!(!format!("{doubt:?}").contains("golden"));
        }
        assert_eq!(shown(&users, "golden-password-1"), Ok(Proof::Given(token.clone())));
        assert_eq!(shown(&users, "other"), Err(AuthFailure::wrong_secret(&token)));
        let Proof::Doubtful(again) = login(&users, &keys, user.user(), "golden-password-1", NOW) else { panic!() };
        assert!(again.is_settled(&keys) && again.rehashed(&keys).is_none());
    }
}
