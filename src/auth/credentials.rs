//! What a request shows to say who sends it: cookie or API token (spec 05 §2.2). Pure.

use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE};
use percent_encoding::percent_decode_str;

use crate::types::AuthId;

/// The name of the ticket's cookie.
const COOKIE_NAME: &str = "PBSAuthCookie";

/// The scheme of API tokens.
const TOKEN_SCHEME: &str = "PBSAPIToken";

/// The header that goes with a ticket cookie.
const CSRF_HEADER: &str = "csrfpreventiontoken";

/// What was shown. Secrets are not part of its `Debug` text.
#[derive(Clone, PartialEq, Eq)]
pub enum Credentials {
    /// A ticket, and the token against forged requests.
    Ticket {
        /// Decoded.
        ticket: String,
        /// The header's text.
        csrf: Option<String>,
    },
    /// An API token.
    Token {
        /// Who.
        auth_id: AuthId,
        /// Decoded.
        secret: String,
    },
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ticket { .. } => f.write_str("Ticket"),
            Self::Token { auth_id, .. } => write!(f, "Token({auth_id})"),
        }
    }
}

/// Finds the credentials of a request; the cookie comes first. `None` when nothing of a known form is there.
pub fn find(headers: &HeaderMap) -> Option<Credentials> {
    let cookies = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    if let Some(ticket) = cookies.flat_map(|text| text.split(';')).find_map(ticket_of_pair) {
        let csrf = headers.get(CSRF_HEADER).and_then(|value| value.to_str().ok()).map(ToOwned::to_owned);
        return Some(Credentials::Ticket { ticket, csrf });
    }
    token_of_header(headers.get(AUTHORIZATION)?.to_str().ok()?)
}

/// Lenient: a pair without `=` says nothing, wherever it stands.
fn ticket_of_pair(pair: &str) -> Option<String> {
    let (name, value) = pair.trim().split_once('=')?;
    (name.trim() == COOKIE_NAME).then(|| decoded(value.trim()))?
}

/// Both spellings: `PBSAPIToken=ID:SECRET` and `PBSAPIToken ID:SECRET`.
fn token_of_header(text: &str) -> Option<Credentials> {
    let rest = text.trim().strip_prefix(TOKEN_SCHEME)?;
    let rest = rest.strip_prefix(['=', ' '])?.trim_start();
    let (id, secret) = rest.split_once(':')?;
    let auth_id: AuthId = decoded(id)?.parse().ok()?;
    auth_id.token()?;
    Some(Credentials::Token { auth_id, secret: decoded(secret)? })
}

fn decoded(text: &str) -> Option<String> {
    percent_decode_str(text).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find_in(name: &'static str, value: &str) -> Option<Credentials> {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        find(&headers)
    }

    fn token(id: &str, secret: &str) -> Option<Credentials> {
        Some(Credentials::Token { auth_id: id.parse().unwrap(), secret: secret.to_owned() })
    }

    fn ticket(ticket: &str) -> Option<Credentials> {
        Some(Credentials::Ticket { ticket: ticket.to_owned(), csrf: None })
    }

    #[test]
    fn both_token_spellings() {
        let want = token("t@pbs!bench", "12-34");
        assert_eq!(find_in("authorization", "PBSAPIToken t@pbs!bench:12-34"), want);
        assert_eq!(find_in("authorization", "PBSAPIToken=t@pbs!bench:12-34"), want);
        assert_eq!(find_in("authorization", "PBSAPIToken=t@pbs!bench:12%2D34"), want);
        assert_eq!(find_in("authorization", "PBSAPIToken t@pbs!bench:a:b"), token("t@pbs!bench", "a:b"));
        for bad in ["Basic abc", "PBSAPIToken", "PBSAPITokent@pbs!b:x", "PBSAPIToken t@pbs:x", "PBSAPIToken x", ""] {
            assert_eq!(find_in("authorization", bad), None, "{bad}");
        }
    }

    #[test]
    fn cookies_are_read_leniently() {
        let want = ticket("PBS:t@pbs:666074EA::a+b/c=");
        for cookie in [
            "PBSAuthCookie=PBS:t@pbs:666074EA::a+b/c=",
            "PBSAuthCookie=PBS%3At@pbs%3A666074EA%3A%3Aa%2Bb%2Fc%3D; path=/; secure; SameSite=Strict;",
            "secure; lang=en; PBSAuthCookie=PBS:t@pbs:666074EA::a+b/c=",
            " ;;=; PBSAuthCookie=PBS:t@pbs:666074EA::a+b/c=; PBSAuthCookie=other",
        ] {
            assert_eq!(find_in("cookie", cookie), want, "{cookie}");
        }
        assert_eq!(find_in("cookie", "NotPBSAuthCookie=x"), None);
        assert_eq!(find_in("cookie", "PBSAuthCookie"), None);
    }

    #[test]
    fn the_cookie_comes_first_and_takes_the_csrf_header_along() {
        let mut headers = HeaderMap::new();
        headers.insert("cookie", "PBSAuthCookie=t".parse().unwrap());
        headers.insert("authorization", "PBSAPIToken t@pbs!b:x".parse().unwrap());
        headers.insert("csrfpreventiontoken", "c".parse().unwrap());
        let want = Credentials::Ticket { ticket: "t".into(), csrf: Some("c".into()) };
        assert_eq!(find(&headers), Some(want));
        assert!(!format!("{:?}", find(&headers)).contains("\"t\""));
    }
}
