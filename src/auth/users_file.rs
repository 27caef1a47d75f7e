//! The text of the users file: version 1 of its JSON, both ways. Pure.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::account::{Account, Detail};
use super::acl::AclEntry;
use super::users::Users;
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::types::AuthId;

/// The only version of the file so far.
const VERSION: u32 = 1;

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
            let id = row.id.parse()?;
            if users.accounts.insert(id, row.account()).is_some() {
                return Err(Error::corrupt("an id is there twice"));
            }
        }
        for row in file.acl {
            users.acl.allow(AclEntry {
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
        let accounts = self.accounts.iter().map(|(id, account)| AccountRow::of(id.to_string(), account)).collect();
        let file = File { version: VERSION, set_up: self.is_set_up, accounts, acl: self.acl_rows() };
        let mut text = serde_json::to_string_pretty(&file).expect("texts and numbers are JSON");
        text.push('\n');
        text
    }

    /// Changes when anything about users and tokens does but their secrets, which a login may rewrite.
    pub fn accounts_digest(&self) -> String {
        let public = |(id, account): (&AuthId, &Account)| AccountRow {
            hash: None,
            ticket_stamp: None,
            ..AccountRow::of(id.to_string(), account)
        };
        digest(self.accounts.iter().map(public))
    }

    /// Changes when any permission does.
    pub fn acl_digest(&self) -> String {
        digest(self.acl_rows())
    }

    fn acl_rows(&self) -> Vec<AclRow> {
        let row = |entry: AclEntry| AclRow {
            path: entry.path.to_string(),
            auth_id: entry.auth_id.to_string(),
            role: entry.role.to_string(),
            propagate: entry.propagate,
        };
        self.acl.entries().into_iter().map(row).collect()
    }
}

/// SHA-256 of rows, in hex.
fn digest(rows: impl IntoIterator<Item: Serialize>) -> String {
    let mut hash = Sha256::new();
    for row in rows {
        hash.update(serde_json::to_vec(&row).expect("texts and numbers are JSON"));
    }
    hex::encode(hash.finalize())
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
    email: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    firstname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lastname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hash: Option<String>,
    #[serde(default, rename = "ticket-stamp", skip_serializing_if = "Option::is_none")]
    ticket_stamp: Option<String>,
}

impl AccountRow {
    fn of(id: String, account: &Account) -> Self {
        let detail = |detail: Detail| account.details.get(&detail).cloned();
        Self {
            id,
            enabled: account.enabled,
            expire: account.expire.0,
            comment: detail(Detail::Comment),
            email: detail(Detail::Email),
            firstname: detail(Detail::Firstname),
            lastname: detail(Detail::Lastname),
            hash: account.hash.clone(),
            ticket_stamp: account.stamp.clone(),
        }
    }

    fn account(self) -> Account {
        let details = [
            (Detail::Comment, self.comment),
            (Detail::Email, self.email),
            (Detail::Firstname, self.firstname),
            (Detail::Lastname, self.lastname),
        ];
        let details: BTreeMap<_, _> = details.into_iter().filter_map(|(detail, text)| Some((detail, text?))).collect();
        Account {
            enabled: self.enabled,
            expire: EpochSecs(self.expire),
            details,
            hash: self.hash,
            stamp: self.ticket_stamp,
        }
    }
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
    use crate::auth::{AccountChange, TokenKey, hash_password};
    use crate::types::Userid;

    fn first() -> Users {
        let mut users = Users::default();
        users.set_up(&"admin@pbs!default".parse().unwrap(), "secret", &TokenKey::new(vec![1; 32])).unwrap();
        users
    }

    #[test]
    fn the_file_round_trips() {
        let mut users = first();
        let user: Userid = "u@pbs".parse().unwrap();
        let change = AccountChange {
            enabled: Some(false),
            expire: Some(EpochSecs(7)),
            details: Detail::ALL.into_iter().map(|d| (d, Some(d.name().to_owned()))).collect(),
        };
        users.create_user(&user, &change).unwrap();
        users.set_password_hash(&user, hash_password("12345").unwrap()).unwrap();
        assert_eq!(Users::parse(users.to_json().as_bytes()).unwrap(), users);
        assert!(!users.to_json().contains("secret\""), "the file must not hold the secret");
    }

    #[test]
    fn damaged_files_are_refused() {
        let json = first().to_json();
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
    fn a_digest_changes_with_what_it_is_of() {
        let (mut users, user) = (first(), "u@pbs".parse::<Userid>().unwrap());
        let (accounts, acl) = (users.accounts_digest(), users.acl_digest());
        users.create_user(&user, &AccountChange::default()).unwrap();
        let with_user = users.accounts_digest();
        assert!(with_user != accounts && users.acl_digest() == acl);
        users.set_password_hash(&user, hash_password("12345").unwrap()).unwrap();
        assert_eq!(users.accounts_digest(), with_user);
        users.acl.forget(&"admin@pbs".parse().unwrap());
        assert!(users.acl_digest() != acl && users.accounts_digest() == with_user);
    }
}
