//! Users, their tokens, and what each may do: the contents of the users file. Pure.

use std::collections::BTreeMap;

use super::account::{Account, AccountChange};
use super::acl::{Acl, AclEntry, AclPath};
use super::crypt;
use super::privilege::{Privileges, Role};
use super::secret::{self, TokenKey};
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::types::{AuthId, Userid};

/// The realm whose passwords are kept here.
pub const REALM_PBS: &str = "pbs";

/// The realm of the machine's own users.
pub const REALM_PAM: &str = "pam";

/// Most users and tokens; with their permissions they stay far below what a users file may hold.
pub const ACCOUNTS_MAX: usize = 10_000;

/// Most permissions.
pub const ACL_ENTRIES_MAX: usize = 20_000;

/// Everybody whom this server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    pub(super) accounts: BTreeMap<AuthId, Account>,
    pub(super) is_set_up: bool,
    /// Who may do what where.
    pub acl: Acl,
}

impl Users {
    /// Makes a user who cannot log in until there is a password.
    pub fn create_user(&mut self, user: &Userid, change: &AccountChange) -> Result<()> {
        Self::check_realm(user)?;
        self.create(user.clone().into(), change, None)
    }

    /// Refuses a user whose realm is not known here.
    pub fn check_realm(user: &Userid) -> Result<()> {
        if [REALM_PBS, REALM_PAM].contains(&user.realm()) {
            return Ok(());
        }
        Err(Error::invalid(format!("{user} is of an unknown realm: {REALM_PBS} and {REALM_PAM} are known")))
    }

    /// Makes a token of an existing user.
    pub fn create_token(&mut self, token: &AuthId, secret: &str, key: &TokenKey, change: &AccountChange) -> Result<()> {
        check_token(token)?;
        self.account(&token.user().clone().into())?;
        self.create(token.clone(), change, Some(key.hash(token, secret)))
    }

    fn create(&mut self, auth: AuthId, change: &AccountChange, hash: Option<String>) -> Result<()> {
        if self.accounts.contains_key(&auth) {
            let what = if auth.token().is_some() { "token" } else { "user" };
            return Err(Error::invalid(format!("{what} '{auth}' already exists.")));
        }
        let stamp = auth.token().is_none().then(secret::new_ticket_stamp);
        let mut account = Account { hash, stamp, ..Account::default() };
        account.apply(change)?;
        self.accounts.insert(auth, account);
        Ok(())
    }

    /// Makes a user who cannot log in until there is a password; leaves one who exists as is.
    pub fn add_user(&mut self, user: &Userid, comment: Option<String>) {
        self.accounts.entry(user.clone().into()).or_insert_with(|| {
            let mut account = Account { stamp: Some(secret::new_ticket_stamp()), ..Account::default() };
            // One that cannot be shown is not worth refusing a user for.
            let _ = account.apply(&AccountChange::comment(comment.unwrap_or_default()));
            account
        });
    }

    /// Changes what is known about a user or token. A user who is enabled again has to log in again.
    pub fn change(&mut self, auth: &AuthId, change: &AccountChange) -> Result<()> {
        let account = self.account_mut(auth)?;
        let was_enabled = account.enabled;
        account.apply(change)?;
        if auth.token().is_none() && !was_enabled && account.enabled {
            account.stamp = Some(secret::new_ticket_stamp());
        }
        Ok(())
    }

    /// Sets a user's password from its hash: ours ([`secret::hash_password`]) or an imported crypt(3) one. Tickets of before end with it.
    pub fn set_password_hash(&mut self, user: &Userid, hash: String) -> Result<()> {
        if user.realm() != REALM_PBS {
            return Err(Error::invalid(format!("{user} is not of the realm pbs: its password is not kept here")));
        }
        if !secret::is_ours(&hash) {
            crypt::check(&hash).map_err(|e| e.context(user))?;
        }
        let account = self.account_mut(&user.clone().into())?;
        account.hash = Some(hash);
        account.stamp = Some(secret::new_ticket_stamp());
        Ok(())
    }

    /// What the tickets of a user are signed with beside the server's key; empty for one who is not known.
    pub fn ticket_stamp(&self, user: &Userid) -> &str {
        self.accounts.get(&user.clone().into()).and_then(|account| account.stamp.as_deref()).unwrap_or("")
    }

    /// Makes a token of an existing user that comes from elsewhere, with the crypt(3) hash of its secret. Without one it lets nobody in
    /// until it is given another secret.
    pub fn import_token(&mut self, token: &AuthId, change: &AccountChange, hash: Option<String>) -> Result<()> {
        check_token(token)?;
        self.account(&token.user().clone().into())?;
        if let Some(hash) = &hash {
            crypt::check(hash).map_err(|e| e.context(token))?;
        }
        self.create(token.clone(), change, hash)
    }

    /// Makes a token of an existing user, or gives it a new secret.
    pub fn set_token(&mut self, token: &AuthId, secret: &str, key: &TokenKey, comment: Option<String>) -> Result<()> {
        let change = comment.map_or_else(AccountChange::default, AccountChange::comment);
        if !self.accounts.contains_key(token) {
            return self.create_token(token, secret, key, &change);
        }
        self.change(token, &change)?;
        self.regenerate_token(token, secret, key)
    }

    /// Gives a token another secret.
    pub fn regenerate_token(&mut self, token: &AuthId, secret: &str, key: &TokenKey) -> Result<()> {
        check_token(token)?;
        self.account_mut(token)?.hash = Some(key.hash(token, secret));
        Ok(())
    }

    /// Puts a hash of our own in the place of an imported one that a login has proved; `false` if it is another by now.
    pub fn replace_hash(&mut self, auth: &AuthId, old: &str, new: String) -> bool {
        match self.accounts.get_mut(auth) {
            Some(account) if account.hash.as_deref() == Some(old) => {
                account.hash = Some(new);
                true
            }
            _ => false,
        }
    }

    /// Removes a user with all tokens, or one token, and all permissions of what is removed.
    pub fn remove(&mut self, auth: &AuthId) -> Result<()> {
        self.account_mut(auth)?;
        let gone = |id: &AuthId| id == auth || (auth.token().is_none() && id.user() == auth.user());
        self.accounts.retain(|id, _| !gone(id));
        // Permissions may name tokens that were never made.
        let named: Vec<AuthId> = self.acl.entries().into_iter().map(|entry| entry.auth_id).filter(gone).collect();
        named.iter().for_each(|id| self.acl.forget(id));
        Ok(())
    }

    /// Enables or disables, and sets when it ends (0: never).
    pub fn set_validity(&mut self, auth: &AuthId, enabled: bool, expire: EpochSecs) -> Result<()> {
        self.change(auth, &AccountChange { enabled: Some(enabled), expire: Some(expire), ..AccountChange::default() })
    }

    /// Gives a role to somebody at a place.
    pub fn allow(&mut self, entry: AclEntry) {
        self.acl.allow(entry);
    }

    /// Whether somebody may act now. A token may if its user may too.
    pub fn is_active(&self, auth: &AuthId, now: EpochSecs) -> bool {
        let active = |id: &AuthId| self.accounts.get(id).is_some_and(|account| account.is_active(now));
        active(auth) && (auth.token().is_none() || active(&auth.user().clone().into()))
    }

    /// Whether somebody is left who can log in and may change users and permissions. Machine users count: their passwords are not kept
    /// here.
    pub fn has_administrator(&self, now: EpochSecs) -> bool {
        let places = ["/access/users", "/access/acl"].map(AclPath::fixed);
        let may =
            |id: &AuthId| places.iter().all(|p| self.acl.privileges(id, p).has_any(Privileges::PERMISSIONS_MODIFY));
        let enters = |id: &AuthId, account: &Account| {
            account.has_secret() || (cfg!(feature = "pam") && id.token().is_none() && id.user().realm() == REALM_PAM)
        };
        self.accounts.iter().any(|(id, account)| enters(id, account) && self.is_active(id, now) && may(id))
    }

    /// Refuses more than there is room for.
    pub fn check_size(&self) -> Result<()> {
        let full =
            |what: &str, max: usize| Error::busy(format!("there are {max} {what}, which is the limit: remove some"));
        if self.accounts.len() > ACCOUNTS_MAX {
            return Err(full("users and tokens", ACCOUNTS_MAX));
        }
        if self.acl.len() > ACL_ENTRIES_MAX {
            return Err(full("permissions", ACL_ENTRIES_MAX));
        }
        Ok(())
    }

    /// Whether `secret` lets the token in, however active it is. Dear if `secret::is_dear` says so of its hash.
    pub fn verify_token(&self, token: &AuthId, secret: &str, key: &TokenKey) -> bool {
        token.token().is_some() && self.hash(token).is_some_and(|hash| key.verify(token, secret, hash))
    }

    /// The password's hash of a user, for [`secret::verify_password`].
    pub fn password_hash(&self, user: &Userid) -> Option<&str> {
        self.hash(&user.clone().into())
    }

    /// What is kept of the secret of a user or token.
    pub fn hash(&self, auth: &AuthId) -> Option<&str> {
        self.accounts.get(auth)?.hash.as_deref()
    }

    /// All users and tokens.
    pub fn ids(&self) -> impl Iterator<Item = &AuthId> {
        self.accounts.keys()
    }

    /// All users and tokens with what is known about them; a user's tokens follow it.
    pub fn accounts(&self) -> impl Iterator<Item = (&AuthId, &Account)> {
        self.accounts.iter()
    }

    /// A user's tokens.
    pub fn tokens_of(&self, user: &Userid) -> impl Iterator<Item = (&AuthId, &Account)> {
        self.accounts.iter().filter(move |(id, _)| id.token().is_some() && id.user() == user)
    }

    /// One user or token; the words of the answer if there is none.
    pub fn account(&self, auth: &AuthId) -> Result<&Account> {
        self.accounts.get(auth).ok_or_else(|| no_such(auth))
    }

    fn account_mut(&mut self, auth: &AuthId) -> Result<&mut Account> {
        self.accounts.get_mut(auth).ok_or_else(|| no_such(auth))
    }

    /// Whether [`Self::set_up`] was done: the first start is over.
    pub fn is_set_up(&self) -> bool {
        self.is_set_up
    }

    /// What the first start adds: a token and its user, who may do everything.
    pub fn set_up(&mut self, token: &AuthId, secret: &str, key: &TokenKey) -> Result<()> {
        self.add_user(token.user(), Some("made at the first start".to_owned()));
        self.set_token(token, secret, key, Some("made at the first start, see connection.env".to_owned()))?;
        for auth_id in [token.user().clone().into(), token.clone()] {
            self.allow(AclEntry { path: AclPath::root(), auth_id, role: Role::Admin, propagate: true });
        }
        self.is_set_up = true;
        Ok(())
    }
}

fn check_token(token: &AuthId) -> Result<()> {
    if token.token().is_none() {
        return Err(Error::invalid(format!("{token} is not a token")));
    }
    Ok(())
}

fn no_such(auth: &AuthId) -> Error {
    Error::not_found(format!("no such user or token: {auth}"))
}

/// Hashes and sets a user's password, making the user if needed. Dear: see [`secret::hash_password`].
pub fn set_password(users: &mut Users, user: &Userid, password: &str) -> Result<()> {
    users.add_user(user, None);
    users.set_password_hash(user, secret::hash_password(password)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: EpochSecs = EpochSecs(1000);

    fn id(s: &str) -> AuthId {
        s.parse().unwrap()
    }

    fn first() -> (Users, TokenKey) {
        let key = TokenKey::new(vec![1; 32]);
        let mut users = Users::default();
        users.set_up(&id("admin@pbs!default"), "secret", &key).unwrap();
        (users, key)
    }

    #[test]
    fn the_first_token_may_everything_and_its_user_cannot_log_in_yet() {
        let (users, key) = first();
        let token = id("admin@pbs!default");
        assert!(users.verify_token(&token, "secret", &key) && users.is_active(&token, NOW));
        assert!(!users.verify_token(&token, "other", &key));
        assert_eq!(users.acl.privileges(&token, &AclPath::root()), Privileges::ALL);
        assert_eq!(users.password_hash(token.user()), None);
    }

    #[test]
    fn a_token_is_active_while_its_user_is() {
        let (mut users, _) = first();
        let (token, user) = (id("admin@pbs!default"), id("admin@pbs"));
        for (enabled, expire, want) in [(true, 0, true), (true, 1001, true), (true, 1000, false), (false, 0, false)] {
            users.set_validity(&user, enabled, EpochSecs(expire)).unwrap();
            assert_eq!(users.is_active(&token, NOW), want, "{enabled} {expire}");
        }
        assert!(!users.is_active(&id("nobody@pbs"), NOW));
        assert!(users.set_validity(&id("nobody@pbs"), true, NOW).is_err());
        assert!(set_password(&mut users, &"root@pam".parse().unwrap(), "12345").is_err());
    }

    #[test]
    fn what_is_made_twice_or_for_nobody_is_refused() {
        let (mut users, key) = first();
        let none = AccountChange::default();
        let user = |users: &mut Users, name: &str| users.create_user(&name.parse().unwrap(), &none);
        let token = |users: &mut Users, name: &str| users.create_token(&id(name), "s", &key, &none);
        user(&mut users, "u@pbs").unwrap();
        user(&mut users, "u@pam").unwrap();
        token(&mut users, "u@pbs!t").unwrap();
        for (got, says) in [
            (user(&mut users, "u@pbs"), "user 'u@pbs' already exists."),
            (user(&mut users, "u@ldap"), "unknown realm"),
            (token(&mut users, "u@pbs!t"), "token 'u@pbs!t' already exists."),
            (token(&mut users, "v@pbs!t"), "no such user or token: v@pbs"),
            (token(&mut users, "u@pbs"), "is not a token"),
            (users.regenerate_token(&id("u@pbs!s"), "s", &key), "no such user or token: u@pbs!s"),
            (users.set_password_hash(&"u@pbs".parse().unwrap(), "$1$a$b".into()), "u@pbs - hashes of the kind $1$"),
            (users.import_token(&id("u@pbs!i"), &none, Some("00".into())), "u@pbs!i - the stored hash is damaged"),
            (users.import_token(&id("u@pbs!t"), &none, None), "token 'u@pbs!t' already exists."),
            (users.import_token(&id("v@pbs!i"), &none, None), "no such user or token: v@pbs"),
            (users.remove(&id("v@pbs")), "no such user or token: v@pbs"),
        ] {
            let said = got.unwrap_err().to_string();
            assert!(said.contains(says), "{said}");
        }
    }

    #[test]
    fn whoever_goes_takes_tokens_and_permissions_along() {
        let (mut users, key) = first();
        let before = users.clone();
        users.create_user(&"u@pbs".parse().unwrap(), &AccountChange::default()).unwrap();
        for token in ["u@pbs!a", "u@pbs!b"] {
            users.create_token(&id(token), "s", &key, &AccountChange::default()).unwrap();
        }
        for name in ["u@pbs", "u@pbs!a", "u@pbs!b", "u@pbs!never-made"] {
            let path = AclPath::datastores();
            users.allow(AclEntry { path, auth_id: id(name), role: Role::Audit, propagate: true });
        }
        users.remove(&id("u@pbs!a")).unwrap();
        let left: Vec<String> = users.tokens_of(id("u@pbs").user()).map(|(id, _)| id.to_string()).collect();
        assert_eq!((left, users.acl.len()), (vec!["u@pbs!b".to_owned()], 5));
        users.remove(&id("u@pbs")).unwrap();
        assert_eq!(users, before);
    }

    #[test]
    fn an_administrator_can_enter_and_may_change_permissions() {
        let (first, key) = first();
        assert!(first.has_administrator(NOW));
        type Step = fn(&mut Users);
        let takes_away: [(&str, Step); 6] = [
            ("the token goes", |users| users.remove(&id("admin@pbs!default")).unwrap()),
            ("the user goes", |users| users.remove(&id("admin@pbs")).unwrap()),
            ("the user is disabled", |users| users.set_validity(&id("admin@pbs"), false, EpochSecs(0)).unwrap()),
            ("the token has ended", |users| users.set_validity(&id("admin@pbs!default"), true, NOW).unwrap()),
            ("the user loses the role", |users| users.acl.forget(&id("admin@pbs"))),
            ("users are out of reach", |users| {
                let (path, auth_id) = (AclPath::fixed("/access/users"), id("admin@pbs!default"));
                users.allow(AclEntry { path, auth_id, role: Role::NoAccess, propagate: true });
            }),
        ];
        for (what, step) in takes_away {
            let mut users = first.clone();
            step(&mut users);
            assert!(!users.has_administrator(NOW), "{what}");
        }
        let mut two = first.clone();
        set_password(&mut two, &"admin@pbs".parse().unwrap(), "12345").unwrap();
        two.remove(&id("admin@pbs!default")).unwrap();
        assert!(two.has_administrator(NOW), "the password is left");
        two.replace_hash(&id("admin@pbs"), "other", key.hash(&id("a@pbs!b"), "c"));
        assert!(two.password_hash(id("admin@pbs").user()).unwrap().starts_with("$argon2id$"));
    }
}
