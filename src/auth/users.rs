//! Users, their tokens, and what each may do: the contents of the users file. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::acl::{Acl, AclEntry};
use super::privilege::Role;
use super::secret::{self, TokenKey};
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::types::{AuthId, Userid};

/// The only version of the file so far.
const VERSION: u32 = 1;

/// Everybody whom this server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    accounts: BTreeMap<AuthId, Account>,
    is_set_up: bool,
    /// Who may do what where.
    pub acl: Acl,
}

/// A user, or a user's token.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    enabled: bool,
    expire: EpochSecs,
    comment: Option<String>,
    /// A password's argon2id string, a token's keyed hash; `None` if nothing lets this account in.
    hash: Option<String>,
}

impl Users {
    /// Reads the users file.
    pub fn parse(json: &[u8]) -> Result<Self> {
        let file: File = serde_json::from_slice(json).map_err(|e| Error::corrupt("not a users file").with_source(e))?;
        if file.version != VERSION {
            let text = format!("version {} of the users file is not known, {VERSION} is", file.version);
            return Err(Error::corrupt(text));
        }
        let mut users = Self { is_set_up: file.set_up, ..Self::default() };
        for row in file.accounts {
            let account =
                Account { enabled: row.enabled, expire: EpochSecs(row.expire), comment: row.comment, hash: row.hash };
            if users.accounts.insert(row.id.parse()?, account).is_some() {
                return Err(Error::corrupt(format!("{:?} is there twice", row.id)));
            }
        }
        for row in file.acl {
            users.acl.entries.push(AclEntry {
                path: row.path.parse()?,
                auth_id: row.auth_id.parse()?,
                role: row.role.parse()?,
                propagate: row.propagate,
            });
        }
        Ok(users)
    }

    /// The users file's text.
    pub fn to_json(&self) -> String {
        let accounts = self.accounts.iter().map(|(id, account)| AccountRow {
            id: id.to_string(),
            enabled: account.enabled,
            expire: account.expire.0,
            comment: account.comment.clone(),
            hash: account.hash.clone(),
        });
        let acl = self.acl.entries.iter().map(|entry| AclRow {
            path: entry.path.to_string(),
            auth_id: entry.auth_id.to_string(),
            role: entry.role.to_string(),
            propagate: entry.propagate,
        });
        let file = File { version: VERSION, set_up: self.is_set_up, accounts: accounts.collect(), acl: acl.collect() };
        let mut text = serde_json::to_string_pretty(&file).expect("texts and numbers are JSON");
        text.push('\n');
        text
    }

    /// Makes a user who cannot log in until there is a password; leaves one who exists as is.
    pub fn add_user(&mut self, user: &Userid, comment: Option<String>) {
        let account = Account { enabled: true, expire: EpochSecs(0), comment, hash: None };
        self.accounts.entry(user.clone().into()).or_insert(account);
    }

    /// Sets a user's password from its hash ([`secret::hash_password`]).
    pub fn set_password_hash(&mut self, user: &Userid, hash: String) -> Result<()> {
        if user.realm() != "pbs" {
            return Err(Error::invalid(format!("{user} is not of the realm pbs: its password is not kept here")));
        }
        self.account_mut(&user.clone().into())?.hash = Some(hash);
        Ok(())
    }

    /// Makes a token of an existing user, or gives it a new secret.
    pub fn set_token(&mut self, token: &AuthId, secret: &str, key: &TokenKey, comment: Option<String>) -> Result<()> {
        if token.token().is_none() {
            return Err(Error::invalid(format!("{token} is not a token")));
        }
        self.account_mut(&token.user().clone().into())?;
        let hash = Some(key.hash(token, secret));
        let account = Account { enabled: true, expire: EpochSecs(0), comment, hash };
        self.accounts.insert(token.clone(), account);
        Ok(())
    }

    /// Enables or disables, and sets when it ends (0: never).
    pub fn set_validity(&mut self, auth: &AuthId, enabled: bool, expire: EpochSecs) -> Result<()> {
        let account = self.account_mut(auth)?;
        (account.enabled, account.expire) = (enabled, expire);
        Ok(())
    }

    /// Gives a role to somebody at a place, if it is not given already.
    pub fn allow(&mut self, entry: AclEntry) {
        if !self.acl.entries.contains(&entry) {
            self.acl.entries.push(entry);
        }
    }

    /// Whether somebody may act now. A token may if its user may too.
    pub fn is_active(&self, auth: &AuthId, now: EpochSecs) -> bool {
        let active =
            |id: &AuthId| self.accounts.get(id).is_some_and(|a| a.enabled && (a.expire.0 == 0 || now < a.expire));
        active(auth) && (auth.token().is_none() || active(&auth.user().clone().into()))
    }

    /// Whether `secret` lets the token in, however active it is.
    pub fn verify_token(&self, token: &AuthId, secret: &str, key: &TokenKey) -> bool {
        let hash = self.accounts.get(token).and_then(|account| account.hash.as_deref());
        token.token().is_some() && hash.is_some_and(|hash| key.verify(token, secret, hash))
    }

    /// The password's hash of a user, for [`secret::verify_password`].
    pub fn password_hash(&self, user: &Userid) -> Option<&str> {
        self.accounts.get(&user.clone().into())?.hash.as_deref()
    }

    /// All users and tokens.
    pub fn ids(&self) -> impl Iterator<Item = &AuthId> {
        self.accounts.keys()
    }

    fn account_mut(&mut self, auth: &AuthId) -> Result<&mut Account> {
        self.accounts.get_mut(auth).ok_or_else(|| Error::not_found(format!("no such user or token: {auth}")))
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
            self.allow(AclEntry { path: super::AclPath::root(), auth_id, role: Role::Admin, propagate: true });
        }
        self.is_set_up = true;
        Ok(())
    }
}

/// Hashes and sets a user's password, making the user if needed. Dear: see [`secret::hash_password`].
pub fn set_password(users: &mut Users, user: &Userid, password: &str) -> Result<()> {
    users.add_user(user, None);
    users.set_password_hash(user, secret::hash_password(password)?)
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    version: u32,
    set_up: bool,
    accounts: Vec<AccountRow>,
    acl: Vec<AclRow>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct AccountRow {
    id: String,
    #[serde(default = "yes")]
    enabled: bool,
    #[serde(default)]
    expire: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
}

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct AclRow {
    path: String,
    auth_id: String,
    role: String,
    #[serde(default = "yes")]
    propagate: bool,
}

fn yes() -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{AclPath, Privileges};

    const NOW: EpochSecs = EpochSecs(1000);

    fn first() -> (Users, TokenKey) {
        let key = TokenKey::new(vec![1; 32]);
        let mut users = Users::default();
        users.set_up(&"admin@pbs!default".parse().unwrap(), "secret", &key).unwrap();
        (users, key)
    }

    #[test]
    fn the_first_token_may_everything_and_its_user_cannot_log_in_yet() {
        let (users, key) = first();
        let token: AuthId = "admin@pbs!default".parse().unwrap();
        assert!(users.verify_token(&token, "secret", &key) && users.is_active(&token, NOW));
        assert!(!users.verify_token(&token, "other", &key));
        assert_eq!(users.acl.privileges(&token, &AclPath::root()), Privileges::ALL);
        assert_eq!(users.password_hash(token.user()), None);
        assert!(!users.to_json().contains("secret\""), "the file must not hold the secret");
    }

    #[test]
    fn the_file_round_trips() {
        let (mut users, _) = first();
        set_password(&mut users, &"u@pbs".parse().unwrap(), "12345").unwrap();
        users.set_validity(&"u@pbs".parse().unwrap(), false, EpochSecs(7)).unwrap();
        assert_eq!(Users::parse(users.to_json().as_bytes()).unwrap(), users);
    }

    #[test]
    fn damaged_files_are_refused() {
        let (users, _) = first();
        let json = users.to_json();
        for bad in [
            json.replace("\"version\": 1", "\"version\": 2"),
            json.replace("Admin", "Emperor"),
            json.replace("admin@pbs!default", "admin"),
            json.replace("\"enabled\"", "\"enable\""),
            json.replace("admin@pbs!default", "admin@pbs"),
            json[..json.len() / 2].to_owned(),
            String::new(),
        ] {
            assert!(Users::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_active_while_its_user_is() {
        let (mut users, _) = first();
        let token: AuthId = "admin@pbs!default".parse().unwrap();
        let user: AuthId = token.user().clone().into();
        for (enabled, expire, want) in [(true, 0, true), (true, 1001, true), (true, 1000, false), (false, 0, false)] {
            users.set_validity(&user, enabled, EpochSecs(expire)).unwrap();
            assert_eq!(users.is_active(&token, NOW), want, "{enabled} {expire}");
        }
        assert!(!users.is_active(&"nobody@pbs".parse().unwrap(), NOW));
        assert!(users.set_validity(&"nobody@pbs".parse().unwrap(), true, NOW).is_err());
        assert!(set_password(&mut users, &"root@pam".parse().unwrap(), "12345").is_err());
    }
}
