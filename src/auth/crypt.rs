//! Secrets kept as crypt(3) hashes, as imported shadow files hold them: checked here, never made. Pure.
//!
//! Such a hash lives until the first successful login, which puts one of our own in its place ([`super::secret`]). Any of them may be
//! dear, for what it costs is written in it: so there are limits, and callers check off the runtime's threads.

use sha_crypt::{PasswordHash, PasswordVerifier, ShaCrypt};
use yescrypt::Yescrypt;

use crate::error::{Error, Result};

/// Most memory that a yescrypt hash may ask for; distributions ask for 16 MiB.
const YESCRYPT_BYTES_MAX: u64 = 256 << 20;

/// Most rounds of SHA-crypt: two seconds. 5000 is the default, 656,000 the most that common tools set.
const SHA_ROUNDS_MAX: u32 = 1_000_000;

/// Highest cost of bcrypt: two seconds. Tools set 10 to 12.
const BCRYPT_COST_MAX: u32 = 15;

/// What a hash says it is.
enum Scheme {
    /// `$y$`.
    Yescrypt,
    /// `$5$`, `$6$`.
    Sha,
    /// `$2a$`, `$2b$`, `$2y$`.
    Bcrypt,
}

/// Whether a stored text is a crypt(3) hash at all, of whatever scheme.
pub fn is_crypt(hash: &str) -> bool {
    hash.starts_with('$') && !hash.starts_with("$argon2")
}

/// Refuses what `verify` could never say yes to, naming the remedy: for whoever stores a hash.
pub fn check(hash: &str) -> Result<()> {
    scheme(hash).map(|_| ())
}

/// Whether `secret` is the one of a crypt(3) hash. One that [`check`] refuses is nobody's.
pub fn verify(secret: &str, hash: &str) -> bool {
    let secret = secret.as_bytes();
    match scheme(hash) {
        Ok(Scheme::Yescrypt) => Yescrypt::default().verify_password(secret, hash).is_ok(),
        Ok(Scheme::Sha) => ShaCrypt::default().verify_password(secret, hash).is_ok(),
        // crypt(3) looks at the first 72 bytes, and takes no secret with a NUL.
        Ok(Scheme::Bcrypt) => bcrypt::verify(secret, hash).unwrap_or(false),
        Err(_) => false,
    }
}

/// The scheme of a well-formed hash whose costs are within bounds.
fn scheme(hash: &str) -> Result<Scheme> {
    const REMEDY: &str = "set a new password or secret instead";
    let fields: Vec<&str> = hash.split('$').skip(1).collect();
    let damaged = || Error::invalid(format!("the stored hash is damaged; {REMEDY}"));
    let dear = || Error::invalid(format!("the stored hash is dearer to check than this server allows; {REMEDY}"));
    let ends_in = |len: usize| fields.last().is_some_and(|sum| sum.len() == len && sum.bytes().all(is_crypt64));
    match fields.as_slice() {
        ["y", params, _, _] => {
            let params: yescrypt::Params = params.parse().map_err(|_| damaged())?;
            let bytes = params.n().checked_mul(128 * u64::from(params.r()));
            match bytes {
                _ if !ends_in(43) => Err(damaged()),
                Some(bytes) if bytes <= YESCRYPT_BYTES_MAX && params.p() <= 4 => Ok(Scheme::Yescrypt),
                _ => Err(dear()),
            }
        }
        [id @ ("5" | "6"), .., salt, _] => {
            let rounds = match &fields[1..fields.len() - 2] {
                [] => Some(5000),
                [rounds] => rounds.strip_prefix("rounds=").and_then(|n| n.parse().ok()),
                _ => None,
            };
            let rounds: u32 = rounds.ok_or_else(damaged)?;
            if !ends_in(if *id == "5" { 43 } else { 86 }) || salt.len() > 16 || PasswordHash::new(hash).is_err() {
                Err(damaged())
            } else if rounds > SHA_ROUNDS_MAX {
                Err(dear())
            } else {
                Ok(Scheme::Sha)
            }
        }
        ["2a" | "2b" | "2y", cost, _] => {
            let parts: bcrypt::HashParts = hash.parse().map_err(|_| damaged())?;
            // The crate takes `$2b$5$…`; crypt(3) wants two digits.
            match parts.get_cost() {
                _ if cost.len() != 2 || !ends_in(53) => Err(damaged()),
                cost if cost <= BCRYPT_COST_MAX => Ok(Scheme::Bcrypt),
                _ => Err(dear()),
            }
        }
        [id, ..] => {
            let text = format!(
                "hashes of the kind ${id:.16}$ cannot be checked here, only $y$ (yescrypt), $5$ and $6$ (SHA-crypt) and $2b$ \
                 (bcrypt); {REMEDY}"
            );
            Err(Error::invalid(text))
        }
        [] => Err(damaged()),
    }
}

fn is_crypt64(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'.' || b == b'/'
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by libxcrypt 4.4 from `golden-password-1`.
    const KNOWN: [&str; 11] = [
        "$y$j9T$abcdefghijklmnop$KGIWO2espQit89XDElDvSFF3wNEOUCmaU8hnemzwdS0",
        "$y$jAT$LdJMENpBABJJ3hIHjB1Bi.$i/JNmQ0Of76Wzq3XeCvE6S2Wi7nsmFkgPBIweTMUla2",
        "$5$saltstring$5OEgah10p6LHY7VMhjHi26TvRdoxaOsd5ugEEYSNmw/",
        "$5$x$bZj3VN4wrj9MPT4pAgnmBkMg4LKXVkYPKNO6gRUHFU0",
        "$5$rounds=1400$anotherlongsalts$hHZQENGiQrbLDSIvCCivrFX3/RKLgiu9XJQV03ekqI6",
        "$6$saltstring$dttnIAOPTxW9Zz30Z0kbdAJJ9azJnh5wRoebSu.mGowjszbw.QqRuEdxxZBAiuyTr5LWdgcYDSInHSxu9LRsg.",
        "$6$./.ab$tuArJMPwQPoZ/U1UXe3T5x4lh7T.SsLVy27FF0fIWgqp.GZ/Zbcp5WSnSmr9o0QpcBhkBP3DZFX3vgudwj1hA0",
        "$6$rounds=1400$anotherlongsalts$M8QSukxruQ8u2VdrI57j.0t.rQ6GRMA3bTob439q6dQlBPlOT8dmV3u0b0i4t9yKRmHwyoIgPKh0U3U8UXNEY1",
        "$2y$05$abcdefghijklmnopqrstuuXefOUeofi5fRH5qpwx/apnI6xYlu6Xq",
        "$2b$05$abcdefghijklmnopqrstuuXefOUeofi5fRH5qpwx/apnI6xYlu6Xq",
        "$2a$05$abcdefghijklmnopqrstuuXefOUeofi5fRH5qpwx/apnI6xYlu6Xq",
    ];

    #[test]
    fn what_the_c_library_made_is_checked_as_it_would() {
        for hash in KNOWN {
            check(hash).unwrap_or_else(|e| panic!("{hash}: {e}"));
            assert!(is_crypt(hash) && verify("golden-password-1", hash), "{hash}");
            assert!(!verify("golden-password-2", hash) && !verify("", hash), "{hash}");
        }
        for hash in [
            "$y$j9T$F5Jx5fExrKuPp53xLKQ..1$ENM6yGVwsvRZHO3E0AVXjQR7uVAmAtEZOOUJPFh3DU3",
            "$5$F5Jx5fExrKuPp53x$FjPS49zB0Uc2Nighsj8kZQkKAILqL1UwFxIndVId.Z/",
        ] {
            assert!(verify("pässs wort".replace("sss", "ss").as_str(), hash), "{hash}");
        }
    }

    #[test]
    fn a_cut_or_changed_hash_lets_nobody_in() {
        for hash in KNOWN {
            // A cut that leaves the sum empty must not compare equal to nothing.
            for end in 0..hash.len() {
                assert!(check(&hash[..end]).is_err(), "{}", &hash[..end]);
                assert!(!verify("golden-password-1", &hash[..end]), "{}", &hash[..end]);
            }
            assert!(
                !verify("golden-password-1", &format!("{hash}$")) && !verify("golden-password-1", &format!("{hash}a"))
            );
        }
    }

    #[test]
    fn other_schemes_and_boundless_costs_are_refused_by_name() {
        let sum = "a".repeat(43);
        for (hash, says) in [
            ("$1$abcdefgh$FgyYYgAGD3b0yXwGUZpgS.".to_owned(), "$1$"),
            ("$gy$j9T$abcdefghijklmnop$b9FyYPTonV.TnborXa6FkzVBwqRv7VqYaebKCuX9Wn5".into(), "$gy$"),
            ("$7$CU..../....abcdefgh$f5gjhqVu8GZJmq9GCWPXyGfNiX11F16vqBaezm.w6W5".into(), "$7$"),
            (format!("$5$rounds=999999999$salt${sum}"), "dearer"),
            (format!("$5$rounds=many$salt${sum}"), "damaged"),
            (format!("$y$jZT$abcdefghijklmnop${sum}"), "dearer"),
            ("$2b$31$abcdefghijklmnopqrstuuXefOUeofi5fRH5qpwx/apnI6xYlu6Xq".into(), "dearer"),
            ("!".into(), "damaged"),
            ("*".into(), "damaged"),
            (String::new(), "damaged"),
            ("$".into(), "cannot be checked"),
        ] {
            let said = check(&hash).unwrap_err().to_string();
            assert!(said.contains(says) && said.contains("set a new password"), "{hash}: {said}");
            assert!(!verify("golden-password-1", &hash));
        }
    }
}
