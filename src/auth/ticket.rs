//! Tickets and the tokens against forged requests (spec 05 §2.2): issue and check. Pure; time and keys are arguments.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use hmac::{Hmac, KeyInit, Mac, SimpleHmac};
use percent_encoding::percent_decode_str;
use sha2::Sha256;
use sha3::Sha3_256;

use super::Users;
use crate::clock::EpochSecs;
use crate::types::Userid;

/// How long a ticket is good for, in seconds.
const LIFETIME_SECS: i64 = 7200;

/// How far in the future a ticket's time may lie, in seconds: clocks differ.
const SKEW_SECS: i64 = 300;

/// What tickets are signed with.
#[derive(Clone)]
pub struct TicketKeys {
    ticket: Vec<u8>,
    csrf: Vec<u8>,
}

impl std::fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TicketKeys")
    }
}

/// Why a ticket or token was refused; the texts are the recorded ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Too old.
    Expired,
    /// From the future.
    NotYetValid,
    /// Not signed with our key.
    Signature,
    /// Not of the form.
    Form,
}

impl std::fmt::Display for Refused {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Expired => "expired",
            Self::NotYetValid => "timestamp is in the future",
            Self::Signature => "invalid signature.",
            Self::Form => "malformed",
        })
    }
}

impl TicketKeys {
    /// Keys from random bytes, at least 32 each.
    pub fn new(ticket: Vec<u8>, csrf: Vec<u8>) -> Self {
        Self { ticket, csrf }
    }

    /// `PBS:user@realm:TIME::SIGNATURE`. The signature is over `stamp` too, see [`super::Users::ticket_stamp`].
    pub fn issue_ticket(&self, user: &Userid, now: EpochSecs, stamp: &str) -> String {
        let signed = format!("PBS:{}:{:08X}", escaped(user.as_str()), now.0);
        let signature = STANDARD_NO_PAD.encode(self.ticket_mac(&signed, stamp).finalize().into_bytes());
        format!("{signed}::{signature}")
    }

    /// The user of a good ticket; `users` know what it should be signed with.
    pub fn check_ticket(&self, ticket: &str, now: EpochSecs, users: &Users) -> Result<Userid, Refused> {
        let (signed, signature) = ticket.rsplit_once("::").ok_or(Refused::Form)?;
        let (head, time) = signed.rsplit_once(':').ok_or(Refused::Form)?;
        let user = head.strip_prefix("PBS:").ok_or(Refused::Form)?;
        check_time(time, now)?;
        let signature = STANDARD_NO_PAD.decode(signature).map_err(|_| Refused::Signature)?;
        let user: Option<Userid> = percent_decode_str(user).decode_utf8().ok().and_then(|user| user.parse().ok());
        let stamp = user.as_ref().map_or("", |user| users.ticket_stamp(user));
        // Compares in constant time.
        self.ticket_mac(signed, stamp).verify_slice(&signature).map_err(|_| Refused::Signature)?;
        user.ok_or(Refused::Form)
    }

    /// `TIME:HMAC`, bound to the user.
    pub fn issue_csrf(&self, user: &Userid, now: EpochSecs) -> String {
        let time = format!("{:08X}", now.0);
        let mac = self.csrf_mac(&time, user).finalize().into_bytes();
        format!("{time}:{}", STANDARD_NO_PAD.encode(mac))
    }

    /// Checks a token against forged requests.
    pub fn check_csrf(&self, token: &str, user: &Userid, now: EpochSecs) -> Result<(), Refused> {
        let (time, mac) = token.split_once(':').ok_or(Refused::Form)?;
        let mac = STANDARD_NO_PAD.decode(mac).map_err(|_| Refused::Signature)?;
        self.csrf_mac(time, user).verify_slice(&mac).map_err(|_| Refused::Signature)?;
        check_time(time, now)
    }

    fn ticket_mac(&self, signed: &str, stamp: &str) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.ticket).expect("any length is a key").chain_update(signed);
        // What is signed ends with eight digits, so the two parts cannot be shifted against each other.
        if stamp.is_empty() { mac } else { mac.chain_update(format!(":{stamp}")) }
    }

    fn csrf_mac(&self, time: &str, user: &Userid) -> SimpleHmac<Sha3_256> {
        SimpleHmac::<Sha3_256>::new_from_slice(&self.csrf)
            .expect("any length is a key")
            .chain_update(format!("{time}:{user}:"))
    }
}

fn check_time(hex: &str, now: EpochSecs) -> Result<(), Refused> {
    let digits = hex.len() == 8 && hex.bytes().all(|b| b.is_ascii_hexdigit());
    let time = i64::from_str_radix(hex, 16).ok().filter(|_| digits).ok_or(Refused::Form)?;
    let age = now.0 - time;
    if age > LIFETIME_SECS {
        Err(Refused::Expired)
    } else if age < -SKEW_SECS {
        Err(Refused::NotYetValid)
    } else {
        Ok(())
    }
}

/// Control characters and ':' percent-encoded.
fn escaped(user: &str) -> String {
    const SET: &percent_encoding::AsciiSet = &percent_encoding::CONTROLS.add(b':');
    percent_encoding::utf8_percent_encode(user, SET).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(s: &str) -> Userid {
        s.parse().unwrap()
    }

    #[test]
    fn the_csrf_token_of_the_vectors() {
        let secret = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8gISIjJCUmJygpKissLS4vMDEyMzQ1Njc4OTo7PD0+Pw";
        let now = EpochSecs(0x6660_74EA);
        let want = "666074EA:zS8A2ex5E+BXS7IyK0b6bNtU+KDr/zMov3PoJuLxM50";
        // The key is the 64 decoded bytes.
        let keys = TicketKeys::new(vec![1; 32], STANDARD_NO_PAD.decode(secret).unwrap());
        assert_eq!(keys.issue_csrf(&user("root@pam"), now), want);
        assert_eq!(keys.check_csrf(want, &user("root@pam"), now), Ok(()));
        assert_eq!(keys.check_csrf(want, &user("admin@pbs"), now), Err(Refused::Signature));
        assert_eq!(keys.check_csrf("00000000:AAAA", &user("root@pam"), now), Err(Refused::Signature));
    }

    #[test]
    fn tickets_live_two_hours() {
        let keys = TicketKeys::new(vec![1; 32], vec![2; 32]);
        let at = |secs: i64| EpochSecs(1_717_597_418 + secs);
        let ticket = keys.issue_ticket(&user("a@pbs"), at(0), "");
        assert!(ticket.starts_with("PBS:a@pbs:666074EA::"), "{ticket}");
        for (now, want) in [
            (0, Ok(user("a@pbs"))),
            (7200, Ok(user("a@pbs"))),
            (7201, Err(Refused::Expired)),
            (-300, Ok(user("a@pbs"))),
            (-301, Err(Refused::NotYetValid)),
        ] {
            assert_eq!(keys.check_ticket(&ticket, at(now), &Users::default()), want, "{now}");
        }
        let other = TicketKeys::new(vec![3; 32], vec![2; 32]);
        assert_eq!(other.check_ticket(&ticket, at(0), &Users::default()), Err(Refused::Signature));
    }

    #[test]
    fn damaged_tickets_are_refused() {
        let keys = TicketKeys::new(vec![1; 32], vec![2; 32]);
        let now = EpochSecs(1_717_597_418);
        let ticket = keys.issue_ticket(&user("a@pbs"), now, "");
        for end in 0..ticket.len() {
            assert!(keys.check_ticket(&ticket[..end], now, &Users::default()).is_err(), "{}", &ticket[..end]);
        }
        for bad in [ticket.replace("a@pbs", "b@pbs"), ticket.replace("PBS:", "XYZ:"), ticket.replace("::", ":")] {
            assert!(keys.check_ticket(&bad, now, &Users::default()).is_err(), "{bad}");
        }
        assert_eq!(keys.check_ticket("PBS:tester@pbs:00000000::xxxx", now, &Users::default()), Err(Refused::Expired));
    }

    #[test]
    fn a_ticket_ends_with_its_password_and_with_its_user() {
        use crate::auth::{AccountChange, Detail};
        let keys = TicketKeys::new(vec![1; 32], vec![2; 32]);
        let (now, alice) = (EpochSecs(1_717_597_418), user("alice@pbs"));
        let mut users = Users::default();
        let change = |enabled, text: &str| AccountChange {
            enabled: Some(enabled),
            details: [(Detail::Comment, Some(text.to_owned()))].into(),
            ..AccountChange::default()
        };
        users.create_user(&alice, &change(true, "")).unwrap();
        let hash = crate::auth::hash_password("12345").unwrap();
        // All in one second.
        type Step<'a> = (&'a str, bool, &'a dyn Fn(&mut Users));
        let steps: [Step; 6] = [
            ("comment", true, &|users| users.change(&alice.clone().into(), &change(true, "hello")).unwrap()),
            ("password", false, &|users| users.set_password_hash(&alice, hash.clone()).unwrap()),
            ("the same again", false, &|users| users.set_password_hash(&alice, hash.clone()).unwrap()),
            ("disabled", false, &|users| {
                users.change(&alice.clone().into(), &change(false, "")).unwrap();
                users.change(&alice.clone().into(), &change(true, "")).unwrap();
            }),
            ("made again", false, &|users| {
                users.remove(&alice.clone().into()).unwrap();
                users.create_user(&alice, &change(true, "")).unwrap();
            }),
            ("a restart", true, &|users| *users = Users::parse(users.to_json().as_bytes()).unwrap()),
        ];
        for (what, stays, step) in steps {
            let ticket = keys.issue_ticket(&alice, now, users.ticket_stamp(&alice));
            assert_eq!(keys.check_ticket(&ticket, now, &users), Ok(alice.clone()), "before: {what}");
            step(&mut users);
            let want = if stays { Ok(alice.clone()) } else { Err(Refused::Signature) };
            assert_eq!(keys.check_ticket(&ticket, now, &users), want, "{what}");
            let next = keys.issue_ticket(&alice, now, users.ticket_stamp(&alice));
            assert_eq!(keys.check_ticket(&next, now, &users), Ok(alice.clone()), "at once after: {what}");
        }
    }
}
