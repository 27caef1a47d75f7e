//! Who may see the metrics. Pure.

use std::net::IpAddr;

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use crate::config::MetricsAccess;
use crate::error::{Error, Result};

/// Headers that a proxy adds. Behind one on this very host every client looks like a local one.
const FORWARDED: [&str; 4] = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];

/// Refuses whoever `access` does not let through.
pub(super) fn check(access: &MetricsAccess, peer: IpAddr, headers: &HeaderMap) -> Result<()> {
    match access {
        MetricsAccess::Off => Err(Error::not_found("no such file: 'metrics'")),
        MetricsAccess::Loopback if !peer.is_loopback() => Err(Error::denied(
            "metrics are shown to this host alone: scrape them there, or set access = \"token\" in [metrics]",
        )),
        MetricsAccess::Loopback if FORWARDED.iter().any(|name| headers.contains_key(*name)) => Err(Error::denied(
            "metrics are shown to this host alone, and a proxy hands this request on: set access = \"token\" in [metrics]",
        )),
        MetricsAccess::Loopback => Ok(()),
        MetricsAccess::Token(wanted) => match bearer(headers) {
            Some(token) if same(&Sha256::digest(token).into(), wanted) => Ok(()),
            Some(_) => Err(Error::unauthenticated("wrong token for the metrics")),
            None => Err(Error::unauthenticated("metrics need the header 'Authorization: Bearer TOKEN'")),
        },
    }
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, token) = value.split_at_checked("Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token.trim_ascii())
}

/// Takes as long for any two; that the compared values are hashes hides their beginnings anyway.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    a.iter().zip(b).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    #[test]
    fn each_access_lets_its_own_through() {
        let token = MetricsAccess::Token(Sha256::digest("s3cret").into());
        let (local, remote) = ("127.0.0.1", "192.0.2.7");
        let proxy = "metrics are shown to this host alone, and a proxy";
        let wrong = "wrong token";
        let none = "metrics need the header";
        for (access, peer, header, want) in [
            (&MetricsAccess::Off, local, "", "no such file: 'metrics'"),
            (&MetricsAccess::Loopback, local, "", ""),
            (&MetricsAccess::Loopback, "::1", "", ""),
            (&MetricsAccess::Loopback, local, "authorization: Bearer nonsense", ""),
            (&MetricsAccess::Loopback, remote, "", "metrics are shown to this host alone: scrape"),
            (&MetricsAccess::Loopback, local, "x-forwarded-for: 192.0.2.7", proxy),
            (&MetricsAccess::Loopback, local, "forwarded: for=192.0.2.7", proxy),
            (&token, remote, "authorization: Bearer s3cret", ""),
            (&token, remote, "authorization: bearer s3cret ", ""),
            (&token, local, "", none),
            (&token, local, "authorization: Basic s3cret", none),
            (&token, local, "authorization: Bearer s3cre", wrong),
            (&token, local, "authorization: Bearer ", wrong),
            (&token, local, "authorization: Bearer", none),
        ] {
            let mut headers = HeaderMap::new();
            if let Some((name, value)) = header.split_once(": ") {
                let name: HeaderName = name.parse().unwrap();
                headers.insert(name, HeaderValue::from_str(value).unwrap());
            }
            let said = check(access, peer.parse().unwrap(), &headers).err().map(|e| e.to_string()).unwrap_or_default();
            assert!(
                said.starts_with(want) && want.is_empty() == said.is_empty(),
                "{access:?} {peer} {header}: {said:?}"
            );
        }
    }
}
