//! One user or token, and what may be changed about it. Pure.

use std::collections::BTreeMap;

use crate::clock::EpochSecs;
use crate::error::{Error, Result};

/// Longest text of a [`Detail`], in characters.
pub const DETAIL_CHARS_MAX: usize = 1024;

/// A text about a user that says something to people only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Detail {
    /// Whatever helps to remember what the account is for.
    Comment,
    /// An address.
    Email,
    /// Given name.
    Firstname,
    /// Family name.
    Lastname,
}

impl Detail {
    /// Every detail; tokens have only the first.
    pub const ALL: [Self; 4] = [Self::Comment, Self::Email, Self::Firstname, Self::Lastname];

    /// As on the wire and in files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Comment => "comment",
            Self::Email => "email",
            Self::Firstname => "firstname",
            Self::Lastname => "lastname",
        }
    }

    /// Refuses what could not be shown in one line.
    pub fn check(self, text: &str) -> Result<()> {
        if text.chars().count() > DETAIL_CHARS_MAX || text.chars().any(char::is_control) {
            let name = self.name();
            return Err(Error::invalid(format!(
                "{name}: one line of at most {DETAIL_CHARS_MAX} characters is expected"
            )));
        }
        Ok(())
    }
}

/// A user, or a user's token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    /// Whether it may act.
    pub enabled: bool,
    /// When it ends; 0 for never.
    pub expire: EpochSecs,
    /// Texts for people.
    pub details: BTreeMap<Detail, String>,
    /// What lets it in: a password's argon2id string, a token's keyed hash, or an imported crypt(3) hash of either; `None` if nothing
    /// kept here does.
    pub(super) hash: Option<String>,
    /// What a user's tickets are signed with beside the server's key: another one, and those of before are worth nothing. Random, so that it
    /// does not come back. `None` for tokens, and for users since before this was kept.
    pub(super) stamp: Option<String>,
}

impl Default for Account {
    fn default() -> Self {
        Self { enabled: true, expire: EpochSecs(0), details: BTreeMap::new(), hash: None, stamp: None }
    }
}

impl Account {
    /// Whether it may act now, by its own settings.
    pub fn is_active(&self, now: EpochSecs) -> bool {
        self.enabled && (self.expire.0 == 0 || now < self.expire)
    }

    /// Whether a secret is kept here that lets it in.
    pub fn has_secret(&self) -> bool {
        self.hash.is_some()
    }

    /// Makes a change.
    pub fn apply(&mut self, change: &AccountChange) -> Result<()> {
        for (detail, text) in &change.details {
            match text.as_deref() {
                None | Some("") => drop(self.details.remove(detail)),
                Some(text) => {
                    detail.check(text)?;
                    self.details.insert(*detail, text.to_owned());
                }
            }
        }
        if let Some(expire) = change.expire {
            if expire.0 < 0 {
                return Err(Error::invalid("expire: seconds since 1970 are expected, 0 for never"));
            }
            self.expire = expire;
        }
        self.enabled = change.enabled.unwrap_or(self.enabled);
        Ok(())
    }
}

/// What to change about an account; what is not named stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AccountChange {
    /// See [`Account::enabled`].
    pub enabled: Option<bool>,
    /// See [`Account::expire`].
    pub expire: Option<EpochSecs>,
    /// New texts; `None` removes one.
    pub details: BTreeMap<Detail, Option<String>>,
}

impl AccountChange {
    /// Nothing but a comment.
    pub fn comment(text: impl Into<String>) -> Self {
        Self { details: BTreeMap::from([(Detail::Comment, Some(text.into()))]), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_named_stays() {
        let mut account = Account::default();
        account.apply(&AccountChange::comment("a")).unwrap();
        let change = AccountChange {
            enabled: Some(false),
            expire: Some(EpochSecs(7)),
            details: BTreeMap::from([(Detail::Email, Some("u@example.org".into()))]),
        };
        account.apply(&change).unwrap();
        let want = Account {
            enabled: false,
            expire: EpochSecs(7),
            details: BTreeMap::from([(Detail::Comment, "a".into()), (Detail::Email, "u@example.org".into())]),
            ..Account::default()
        };
        assert_eq!(account, want);
        let remove = AccountChange { details: BTreeMap::from([(Detail::Email, None)]), ..AccountChange::default() };
        account.apply(&remove).unwrap();
        account.apply(&AccountChange::comment("")).unwrap();
        assert_eq!(account, Account { details: BTreeMap::new(), ..want });
    }

    #[test]
    fn what_cannot_be_shown_is_refused() {
        for bad in ["a\nb", "\u{1b}[31m", &"x".repeat(DETAIL_CHARS_MAX + 1)] {
            let said = Account::default().apply(&AccountChange::comment(bad)).unwrap_err();
            assert!(said.to_string().starts_with("comment: "), "{said}");
        }
        let past = AccountChange { expire: Some(EpochSecs(-1)), ..AccountChange::default() };
        assert!(Account::default().apply(&past).is_err());
    }

    #[test]
    fn the_end_is_not_part_of_the_time() {
        for (enabled, expire, want) in [(true, 0, true), (true, 1001, true), (true, 1000, false), (false, 0, false)] {
            let account = Account { enabled, expire: EpochSecs(expire), ..Account::default() };
            assert_eq!(account.is_active(EpochSecs(1000)), want, "{enabled} {expire}");
        }
    }
}
