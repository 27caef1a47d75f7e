//! `connection.env`: three lines that a shell can source, so that a client gets in (design §7). Pure.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::types::AuthId;

pub(super) const CONNECTION_FILE: &str = "connection.env";

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub repository: String,
    pub password: String,
    pub fingerprint: String,
}

impl Connection {
    /// `AUTH@HOST:PORT:DATASTORE`; an address that means all interfaces is reached over the loopback.
    pub(super) fn new(auth: &AuthId, password: String, listen: SocketAddr, datastore: &str, fingerprint: &str) -> Self {
        let ip = if listen.ip().is_unspecified() { IpAddr::V4(Ipv4Addr::LOCALHOST) } else { listen.ip() };
        let repository = format!("{auth}@{}:{datastore}", SocketAddr::new(ip, listen.port()));
        Self { repository, password, fingerprint: fingerprint.to_owned() }
    }

    /// The file's text. None of the values can hold a quote.
    pub(super) fn to_text(&self) -> String {
        let Self { repository, password, fingerprint } = self;
        format!("PBS_REPOSITORY='{repository}'\nPBS_PASSWORD='{password}'\nPBS_FINGERPRINT='{fingerprint}'\n")
    }

    /// The password of a file that this wrote.
    pub(super) fn password_of(text: &str) -> Option<String> {
        let value = text.lines().find_map(|line| line.strip_prefix("PBS_PASSWORD='"))?.strip_suffix('\'')?;
        (!value.is_empty()).then(|| value.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_lines() {
        let text = |listen: &str| {
            let auth = "admin@pbs!default".parse().unwrap();
            Connection::new(&auth, "s-1".into(), listen.parse().unwrap(), "main", "aa:bb").to_text()
        };
        assert_eq!(
            text("127.0.0.1:8007"),
            "PBS_REPOSITORY='admin@pbs!default@127.0.0.1:8007:main'\nPBS_PASSWORD='s-1'\nPBS_FINGERPRINT='aa:bb'\n"
        );
        assert!(text("0.0.0.0:1").contains("@127.0.0.1:1:main"));
        assert!(text("[::]:1").contains("@127.0.0.1:1:main"));
        assert!(text("[fd00::1]:1").contains("@[fd00::1]:1:main"));
        assert_eq!(Connection::password_of(&text("127.0.0.1:1")).as_deref(), Some("s-1"));
        assert_eq!(Connection::password_of("PBS_PASSWORD=''"), None);
        assert_eq!(Connection::password_of("rubbish"), None);
    }
}
