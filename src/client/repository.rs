//! Where a backup goes: server, user and datastore in one string. Pure.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};
use crate::types::{AuthId, DatastoreName};

/// The port that servers of this protocol listen on.
pub const DEFAULT_PORT: u16 = 8007;

const DEFAULT_AUTH_ID: &str = "root@pam";
const DEFAULT_HOST: &str = "localhost";

/// `[[auth-id@]host[:port]:]datastore` (spec 06 §1): `root@pam`, `localhost` and 8007 where not named; an IPv6 host
/// stands in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repository {
    auth_id: AuthId,
    host: String,
    port: u16,
    store: DatastoreName,
}

impl Repository {
    /// Who logs in.
    pub fn auth_id(&self) -> &AuthId {
        &self.auth_id
    }

    /// Host name or address, an IPv6 address without its brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The datastore on that server.
    pub fn store(&self) -> &DatastoreName {
        &self.store
    }

    /// `host:port` as the `Host` header has it, an IPv6 address in brackets.
    pub fn authority(&self) -> String {
        if self.host.contains(':') {
            format!("[{}]:{}", self.host, self.port)
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Repository {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::invalid(format!(
                "{s:.200?} is not a repository ({why}): [[USER@REALM[!TOKEN]@]HOST[:PORT]:]DATASTORE expected, \
                 for example admin@pbs!default@127.0.0.1:8007:main"
            ))
        };
        // A datastore's name holds no ':', so the last one ends the server's part.
        let (server, store) = match s.rsplit_once(':') {
            Some((server, store)) => (Some(server), store),
            None => (None, s),
        };
        let store = store.parse().map_err(|e: Error| wrong(&e.to_string()))?;
        // A user name may hold '@', a host may not.
        let (auth_id, address) = match server.map(|server| server.rsplit_once('@').unwrap_or(("", server))) {
            Some(("", address)) if server.is_some_and(|server| server.starts_with('@')) => {
                return Err(wrong(&format!("no user before @{address}")));
            }
            Some((auth_id, address)) => (auth_id, address),
            None => ("", DEFAULT_HOST),
        };
        let auth_id = if auth_id.is_empty() { DEFAULT_AUTH_ID } else { auth_id };
        let auth_id = auth_id.parse().map_err(|e: Error| wrong(&e.to_string()))?;
        let (host, port) = split_address(address).map_err(wrong)?;
        Ok(Self { auth_id, host: host.to_owned(), port, store })
    }
}

/// `host`, `host:port`, `[address]`, `[address]:port`.
fn split_address(address: &str) -> Result<(&str, u16), &'static str> {
    let (host, port) = if let Some(rest) = address.strip_prefix('[') {
        let (host, tail) = rest.split_once(']').ok_or("a bracket is open")?;
        host.parse::<std::net::Ipv6Addr>().map_err(|_| "no IPv6 address in the brackets")?;
        let port = match tail {
            "" => None,
            _ => Some(tail.strip_prefix(':').ok_or("text behind the bracket")?),
        };
        (host, port)
    } else {
        let (host, port) = address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port)));
        if port.is_some_and(|port| port.contains(':')) {
            return Err("an IPv6 address needs brackets");
        }
        let name_byte = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        if host.is_empty() || host.len() > 253 || !host.bytes().all(name_byte) {
            return Err("no such host name can exist");
        }
        (host, port)
    };
    let port = match port {
        None => DEFAULT_PORT,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => match digits.parse() {
            Ok(0) | Err(_) => return Err("the port is out of range"),
            Ok(port) => port,
        },
        Some(_) => return Err("the port is not a number"),
    };
    Ok((host, port))
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}:{}", self.auth_id, self.authority(), self.store)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_but_the_datastore_has_a_default() {
        for (text, auth_id, host, port, store) in [
            ("store1", "root@pam", "localhost", 8007, "store1"),
            ("backup:store1", "root@pam", "backup", 8007, "store1"),
            ("backup.example:8008:store1", "root@pam", "backup.example", 8008, "store1"),
            ("u@pbs@backup:store1", "u@pbs", "backup", 8007, "store1"),
            ("admin@pbs!default@127.0.0.1:18007:main", "admin@pbs!default", "127.0.0.1", 18007, "main"),
            ("a@b@pbs@h:main", "a@b@pbs", "h", 8007, "main"),
            ("[::1]:main", "root@pam", "::1", 8007, "main"),
            ("u@pbs@[fe80::1]:9000:main", "u@pbs", "fe80::1", 9000, "main"),
        ] {
            let repository: Repository = text.parse().unwrap();
            assert_eq!(repository.auth_id().to_string(), auth_id, "{text}");
            assert_eq!((repository.host(), repository.port()), (host, port), "{text}");
            assert_eq!(repository.store().as_str(), store, "{text}");
            assert_eq!(repository.to_string().parse::<Repository>().unwrap(), repository, "{text}");
        }
        let v6: Repository = "[::1]:main".parse().unwrap();
        assert_eq!(v6.authority(), "[::1]:8007");
    }

    #[test]
    fn anything_else_is_refused_with_an_example() {
        for bad in [
            "",
            "ab",
            ":main",
            "::1:main",
            "h:0:main",
            "h:65536:main",
            "h:+1:main",
            "h::main",
            "h:x:main",
            "[::1:main",
            "[h]:main",
            "[::1]x:main",
            "user@h:main",
            "@h:main",
            "h h:main",
            "h/x:main",
            "u@pbs@:main",
        ] {
            let text = bad.parse::<Repository>().expect_err(bad).to_string();
            assert!(text.contains("for example"), "{text}");
        }
    }
}
