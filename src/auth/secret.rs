//! How secrets are kept: tokens as keyed hashes, passwords as argon2id; imported ones of either as crypt(3) hashes until they are first
//! shown. Pure.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use super::crypt;
use crate::error::{Error, Kind, Result};
use crate::types::AuthId;

/// Shortest password that may be set, in characters. Shown ones may be of any length.
pub const PASSWORD_CHARS_MIN: usize = 5;

/// The key that token secrets are hashed with.
///
/// A keyed hash, not a slow one: the secrets are 122 random bits, which nobody guesses, and are checked at every
/// request. Whoever reads the users file alone cannot even try.
#[derive(Clone)]
pub struct TokenKey(Vec<u8>);

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    /// From at least 32 random bytes.
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }

    /// What the users file keeps of a token's secret.
    pub fn hash(&self, token: &AuthId, secret: &str) -> String {
        hex::encode(self.mac(token, secret).finalize().into_bytes())
    }

    /// Whether `secret` is the one that was hashed. Takes as long for a wrong one; long, if `is_dear` says so.
    pub fn verify(&self, token: &AuthId, secret: &str, hash: &str) -> bool {
        if crypt::is_crypt(hash) {
            return crypt::verify(secret, hash);
        }
        let Ok(hash) = hex::decode(hash) else { return false };
        self.mac(token, secret).verify_slice(&hash).is_ok()
    }

    /// A name for "this secret matches this hash of this id", which tells neither of them.
    pub(super) fn verdict(&self, auth: &AuthId, secret: &str, hash: &str) -> [u8; 32] {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length is a key");
        // Neither ids nor hashes hold a NUL, and no text of [`Self::mac`] begins with one.
        mac.chain_update(format!("\0{auth}\0{hash}\0{secret}")).finalize().into_bytes().into()
    }

    fn mac(&self, token: &AuthId, secret: &str) -> Hmac<Sha256> {
        let mac = Hmac::<Sha256>::new_from_slice(&self.0).expect("any length is a key");
        // An auth id has no ':', so the two parts cannot be shifted against each other.
        mac.chain_update(format!("{token}:{secret}"))
    }
}

/// Whether checking a secret against this hash takes milliseconds of a CPU or more.
pub fn is_dear(hash: &str) -> bool {
    hash.starts_with('$')
}

/// Whether a hash is of the form that [`hash_password`] makes, rather than an imported one.
pub fn is_ours(hash: &str) -> bool {
    hash.starts_with("$argon2id$") && PasswordHash::new(hash).is_ok()
}

/// A new [`super::Users::ticket_stamp`]: 122 random bits, never the same again.
pub fn new_ticket_stamp() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}

/// A new token secret: a UUID of 122 random bits.
pub fn new_token_secret() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Hashes a password; takes tens of milliseconds of CPU and 19 MiB, so not on a runtime thread.
pub fn hash_password(password: &str) -> Result<String> {
    if password.chars().count() < PASSWORD_CHARS_MIN {
        return Err(Error::invalid(format!("a password has at least {PASSWORD_CHARS_MIN} characters")));
    }
    hash_any_password(password)
}

/// The same for a password that is in use already, however short it is.
pub(super) fn hash_any_password(password: &str) -> Result<String> {
    let hash: PasswordHash = Argon2::default()
        .hash_password(password.as_bytes())
        .map_err(|e| Error::new(Kind::Io, format!("the password cannot be hashed - {e}")))?;
    Ok(hash.to_string())
}

/// Whether a password is the one of a hash; as dear as [`hash_password`]. Without a hash it takes as long and says no,
/// so that the time does not tell which users exist.
pub fn verify_password(password: &str, hash: Option<&str>) -> bool {
    // Any valid hash of the parameters in use; what it is a hash of does not matter.
    const NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$c29tZXNhbHRzb21lc2FsdA\
                          $AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    if let Some(hash) = hash.filter(|hash| crypt::is_crypt(hash)) {
        return crypt::verify(password, hash);
    }
    let Ok(parsed) = PasswordHash::new(hash.unwrap_or(NOBODY)) else { return false };
    Argon2::default().verify_password(password.as_bytes(), &parsed).is_ok() && hash.is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords() {
        let hash = hash_password("correct horse").unwrap();
        assert!(hash.starts_with("$argon2id$"), "{hash}");
        assert!(verify_password("correct horse", Some(&hash)));
        assert!(!verify_password("wrong horse", Some(&hash)));
        assert!(!verify_password("correct horse", None));
        assert!(!verify_password("correct horse", Some("rubbish")));
        assert!(hash_password("1234").is_err());
    }

    #[test]
    fn the_hash_of_nobody_costs_as_much_as_a_real_one() {
        let real = hash_password("12345").unwrap();
        assert!(real.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{real}");
        let timed = |hash: Option<&str>| {
            let start = std::time::Instant::now();
            verify_password("x", hash);
            start.elapsed()
        };
        let (nobody, somebody) = (timed(None), timed(Some(&real)));
        assert!(nobody * 4 > somebody, "{nobody:?} against {somebody:?}");
    }

    #[test]
    fn imported_hashes_let_in_and_are_told_from_ours() {
        let imported = "$5$saltstring$5OEgah10p6LHY7VMhjHi26TvRdoxaOsd5ugEEYSNmw/";
        assert!(verify_password("golden-password-1", Some(imported)) && !verify_password("other", Some(imported)));
        let (key, token) = (TokenKey::new(vec![7; 32]), "a@pbs!t".parse().unwrap());
        assert!(key.verify(&token, "golden-password-1", imported) && !key.verify(&token, "other", imported));
        let ours = hash_password("12345").unwrap();
        assert!(is_ours(&ours) && is_dear(&ours) && !is_ours(imported) && is_dear(imported));
        assert!(!is_dear(&key.hash(&token, "s")) && !is_ours("$argon2id$rubbish"));
    }

    #[test]
    fn token_secrets() {
        let key = TokenKey::new(vec![7; 32]);
        let token: AuthId = "a@pbs!t".parse().unwrap();
        let secret = new_token_secret();
        assert_eq!(secret.len(), 36);
        let hash = key.hash(&token, &secret);
        assert!(key.verify(&token, &secret, &hash));
        assert!(!key.verify(&token, "other", &hash));
        assert!(!key.verify(&"a@pbs!u".parse().unwrap(), &secret, &hash));
        assert!(!TokenKey::new(vec![8; 32]).verify(&token, &secret, &hash));
        assert!(!key.verify(&token, &secret, "zz"));
    }
}
