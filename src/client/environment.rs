//! What the environment says about repository, secret and trust: the variables of the official client.

use std::fmt;
use std::io::Read;
use std::process::{Command, Stdio};

use super::repository::Repository;
use super::tls::{Fingerprint, Trust};
use crate::error::{Error, IoContext, Result};

/// Longest secret that is read from a file, a descriptor or a command; the server takes 1024 bytes.
const SECRET_BYTES_MAX: u64 = 4096;

/// A password or a token's secret; never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the wire only.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Reads variables; a test gives its own.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<String>;

/// The process's own environment. A value that is not UTF-8 counts as not set.
pub fn process(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// `given`, or else `PBS_REPOSITORY`.
pub fn repository(given: Option<&str>, lookup: Lookup) -> Result<Repository> {
    match (given, lookup("PBS_REPOSITORY")) {
        (Some(text), _) => text.parse(),
        (None, Some(text)) => text.parse().map_err(|e: Error| e.context("PBS_REPOSITORY")),
        (None, None) => Err(Error::invalid(
            "no repository given: use --repository or set PBS_REPOSITORY, for example to \
             admin@pbs!default@127.0.0.1:8007:main (the server wrote one into its connection.env)",
        )),
    }
}

/// The first of `PBS_PASSWORD`, `PBS_PASSWORD_FD`, `PBS_PASSWORD_FILE`, `PBS_PASSWORD_CMD` that is set; of the last three
/// the first line counts, as the official client has it.
pub fn secret(lookup: Lookup) -> Result<Secret> {
    if let Some(text) = lookup("PBS_PASSWORD") {
        return Ok(Secret(text));
    }
    let text = if let Some(fd) = lookup("PBS_PASSWORD_FD") {
        let fd: u32 = fd.parse().map_err(|_| Error::invalid("PBS_PASSWORD_FD is not a file descriptor's number"))?;
        read_file(&format!("/proc/self/fd/{fd}"), "PBS_PASSWORD_FD")?
    } else if let Some(path) = lookup("PBS_PASSWORD_FILE") {
        read_file(&path, "PBS_PASSWORD_FILE")?
    } else if let Some(command) = lookup("PBS_PASSWORD_CMD") {
        run(&command)?
    } else {
        return Err(Error::invalid(
            "no secret given: set PBS_PASSWORD (or PBS_PASSWORD_FILE, PBS_PASSWORD_CMD, PBS_PASSWORD_FD) to the user's \
             password or the token's secret",
        ));
    };
    Ok(Secret(text.lines().next().unwrap_or("").to_owned()))
}

/// Pins the certificate of `PBS_FINGERPRINT`; without it the system's certificate authorities decide.
pub fn trust(lookup: Lookup) -> Result<Trust> {
    match lookup("PBS_FINGERPRINT").filter(|text| !text.is_empty()) {
        None => Ok(Trust::SystemRoots),
        Some(text) => text.parse::<Fingerprint>().map(Trust::Pinned).map_err(|e: Error| e.context("PBS_FINGERPRINT")),
    }
}

fn read_file(path: &str, variable: &str) -> Result<String> {
    let file = std::fs::File::open(path).io_context(|| format!("{variable}: open {path:?}"))?;
    read_text(file, variable)
}

fn read_text(from: impl Read, variable: &str) -> Result<String> {
    let mut text = String::new();
    from.take(SECRET_BYTES_MAX).read_to_string(&mut text).io_context(|| format!("{variable}: read"))?;
    Ok(text)
}

fn run(command: &str) -> Result<String> {
    let context = || "PBS_PASSWORD_CMD: run";
    let mut child =
        Command::new("/bin/sh").arg("-c").arg(command).stdout(Stdio::piped()).spawn().io_context(context)?;
    let text = match child.stdout.take() {
        Some(stdout) => read_text(stdout, "PBS_PASSWORD_CMD")?,
        None => String::new(),
    };
    let status = child.wait().io_context(context)?;
    if status.success() { Ok(text) } else { Err(Error::invalid(format!("PBS_PASSWORD_CMD failed: {status}"))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vars<'a>(pairs: &'a [(&'a str, &'a str)]) -> impl Fn(&str) -> Option<String> + 'a {
        |name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned())
    }

    #[test]
    fn the_option_goes_before_the_variable() {
        let env = vars(&[("PBS_REPOSITORY", "store1")]);
        assert_eq!(repository(Some("store2"), &env).unwrap().store().as_str(), "store2");
        assert_eq!(repository(None, &env).unwrap().store().as_str(), "store1");
        assert!(repository(None, &vars(&[])).unwrap_err().to_string().contains("PBS_REPOSITORY"));
    }

    #[test]
    fn a_secret_comes_from_the_first_variable_that_is_set() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file.as_file(), b"from file\nsecond line\n").unwrap();
        let path = file.path().to_str().unwrap();
        for (env, expected) in [
            (vec![("PBS_PASSWORD", "plain"), ("PBS_PASSWORD_FILE", path)], "plain"),
            (vec![("PBS_PASSWORD_FILE", path), ("PBS_PASSWORD_CMD", "echo no")], "from file"),
            (vec![("PBS_PASSWORD_CMD", "echo from command; echo more")], "from command"),
        ] {
            assert_eq!(secret(&vars(&env)).unwrap().expose(), expected);
        }
        for env in [
            vec![],
            vec![("PBS_PASSWORD_FILE", "/does/not/exist")],
            vec![("PBS_PASSWORD_CMD", "false")],
            vec![("PBS_PASSWORD_FD", "x")],
        ] {
            assert!(secret(&vars(&env)).is_err(), "{env:?}");
        }
        assert_eq!(format!("{:?}", Secret::new("x")), "Secret(…)");
    }

    #[test]
    fn an_empty_fingerprint_is_none() {
        assert!(matches!(trust(&vars(&[("PBS_FINGERPRINT", "")])).unwrap(), Trust::SystemRoots));
        assert!(trust(&vars(&[("PBS_FINGERPRINT", "aa:bb")])).is_err());
    }
}
