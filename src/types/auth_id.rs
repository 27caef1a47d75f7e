//! Who acts: a user, or one of a user's API tokens. Pure.

use std::fmt;
use std::str::FromStr;

use super::safe_id::is_safe_id;
use crate::error::{Error, Result};

/// `name@realm`, 3 to 64 bytes (spec 05 §2.1).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Userid {
    text: String,
    at: usize,
}

impl Userid {
    /// `name@realm`.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The part before the last `@`.
    pub fn name(&self) -> &str {
        &self.text[..self.at]
    }

    /// The part after it: `pbs`, `pam`, …
    pub fn realm(&self) -> &str {
        &self.text[self.at + 1..]
    }

    /// The one user to whom nothing is denied.
    pub fn is_superuser(&self) -> bool {
        self.text == "root@pam"
    }
}

impl FromStr for Userid {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let at = s.rfind('@').unwrap_or(0);
        let name_ok = at > 0 && s[..at].chars().all(|c| !c.is_whitespace() && !c.is_control() && c != ':' && c != '/');
        let realm = s.get(at + 1..).unwrap_or("");
        if name_ok && (3..=64).contains(&s.len()) && is_safe_id(realm) && (2..=32).contains(&realm.len()) {
            Ok(Self { text: s.to_owned(), at })
        } else {
            Err(Error::invalid(format!("{s:.80?} is not a user: NAME@REALM expected")))
        }
    }
}

impl fmt::Display for Userid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A user, or `user@realm!token`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthId {
    user: Userid,
    token: Option<String>,
}

impl AuthId {
    /// The user who acts, or to whom the token belongs.
    pub fn user(&self) -> &Userid {
        &self.user
    }

    /// The token's name, if a token acts.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Whether `self` may act as the owner `owner`: the same id, or the plain user of a token that owns
    /// (spec 01 §2). A token is not accepted for its user's group.
    pub fn owns(&self, owner: &Self) -> bool {
        self == owner || (self.token.is_none() && owner.token.is_some() && self.user == owner.user)
    }
}

impl From<Userid> for AuthId {
    fn from(user: Userid) -> Self {
        Self { user, token: None }
    }
}

impl FromStr for AuthId {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        // A user name may hold '!', a realm may not: the token's '!' is the first one after the last '@'.
        let realm = s.rfind('@').unwrap_or(0);
        match s[realm..].split_once('!') {
            None => Ok(Self { user: s.parse()?, token: None }),
            Some((head, token)) if is_safe_id(token) && token.len() <= 64 => {
                Ok(Self { user: s[..realm + head.len()].parse()?, token: Some(token.to_owned()) })
            }
            Some(_) => Err(Error::invalid(format!("{s:.80?} is not an API token: NAME@REALM!TOKEN expected"))),
        }
    }
}

impl fmt::Display for AuthId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.token {
            Some(token) => write!(f, "{}!{token}", self.user),
            None => self.user.fmt(f),
        }
    }
}

impl serde::Serialize for AuthId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(s: &str) -> AuthId {
        s.parse().unwrap()
    }

    #[test]
    fn shown_and_parsed_alike() {
        for s in ["root@pam", "admin@pbs!default", "a@b@pbs", "a!b@pbs!c"] {
            assert_eq!(id(s).to_string(), s);
        }
        assert_eq!(id("a@b@pbs").user().name(), "a@b");
        for bad in
            ["root", "@pam", "a b@pbs", "a/b@pbs", "a:b@pbs", "x@p", "a@pbs!", "a@pbs!.t", "a@pbs!t/u", "", "a@pbs\n"]
        {
            assert!(bad.parse::<AuthId>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn ownership_goes_from_user_to_token_and_never_back() {
        for (who, owner, may) in [
            ("u@pbs", "u@pbs", true),
            ("u@pbs", "u@pbs!t", true),
            ("u@pbs!t", "u@pbs!t", true),
            ("u@pbs!t", "u@pbs", false),
            ("u@pbs!t", "u@pbs!s", false),
            ("v@pbs", "u@pbs", false),
            ("v@pbs", "u@pbs!t", false),
        ] {
            assert_eq!(id(who).owns(&id(owner)), may, "{who} for {owner}");
        }
    }
}
