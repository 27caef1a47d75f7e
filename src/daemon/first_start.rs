//! What the first start puts into a data directory, and what later ones complete.
//!
//! Every step looks whether its work is done already, so a start after a crash goes on where that one stopped. The users file comes
//! last and then says that all is done: from then on nothing that is missing is made again, for an operator may have removed it.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::connection_file::{CONNECTION_FILE, Connection};
use super::users_file;
use crate::auth::{ServerKeys, Users, new_token_secret};
use crate::config::{self, Config, DataDir, Loaded, PUBLIC_MODE, SECRET_MODE, ServerSection};
use crate::engine::{Engine, EngineConfig};
use crate::error::{Error, Result};
use crate::http::{TlsIdentity, self_signed};
use crate::store::Datastore;
use crate::types::AuthId;

/// Name of the configuration file in a data directory.
pub const CONFIG_FILE: &str = "ringvault.toml";

/// Who may do everything after the first start.
pub const ADMIN_TOKEN: &str = "admin@pbs!default";

/// Name of the first datastore and of its directory.
const MAIN: &str = "main";

/// Where the first datastore is made before it gets its name.
const MAIN_NEW: &str = ".main.new";

/// What may lie in a directory that has no configuration yet: locks, what a crash left of a file, what `ringvault user` makes before the
/// first start, and what a mount point has.
const MAY_COME_FIRST: [&str; 8] = [
    ".lock",
    ".users.lock",
    ".ringvault.toml.tmp",
    ".auth.key.tmp",
    ".users.json.tmp",
    "auth.key",
    "users.json",
    "lost+found",
];

/// Refuses a directory with somebody else's files in it before anything is made there. Whoever names a configuration file knows what
/// they do.
pub(super) fn check_ours(dir: &DataDir, file: Option<&Path>) -> Result<()> {
    if file.is_some() || dir.has(CONFIG_FILE)? {
        return Ok(());
    }
    match dir.names()?.into_iter().find(|name| !MAY_COME_FIRST.contains(&name.as_str())) {
        Some(stranger) => Err(Error::invalid(format!(
            "{:?} is not a data directory: it holds {stranger:?} and no {CONFIG_FILE}; give --data-dir an empty or new directory",
            dir.path()
        ))),
        None => Ok(()),
    }
}

/// Where the configuration lies: at `file`, or in the data directory.
pub(super) fn configuration_path(dir: &DataDir, file: Option<&Path>) -> Result<PathBuf> {
    match file {
        Some(file) => std::path::absolute(file).map_err(|e| Error::io(format!("find {file:?}"), e)),
        None => Ok(dir.path().join(CONFIG_FILE)),
    }
}

/// Reads the configuration, from `file` or from the data directory; an empty data directory gets one.
pub(super) fn configuration(dir: &DataDir, file: Option<&Path>) -> Result<Loaded> {
    check_ours(dir, file)?;
    let path = configuration_path(dir, file)?;
    if file.is_none() && !dir.has(&path)? {
        dir.put(CONFIG_FILE, config::first_file().as_bytes(), PUBLIC_MODE)?;
        tracing::info!(?path, "first start: configuration made");
    }
    Loaded::parse(config::read_text(dir, &path)?, &path.to_string_lossy(), dir.path())
}

/// The certificate, made if neither it nor its key is there, or if the first start was cut off between the two.
pub(super) fn identity(dir: &DataDir, server: &ServerSection, host: &str) -> Result<TlsIdentity> {
    let (cert_path, key_path) = (&server.tls_cert, &server.tls_key);
    let (chain, key) = (dir.read(cert_path)?, dir.read_secret(key_path)?);
    let (chain, key) = match (chain, key) {
        (Some(chain), Some(key)) => (chain, key),
        (Some(_), None) => return Err(Error::not_found(format!("there is no key {key_path:?} for {cert_path:?}"))),
        (None, Some(_)) if users_file::load(dir)?.is_set_up() => {
            return Err(Error::not_found(format!("there is no certificate {cert_path:?} for {key_path:?}")));
        }
        (None, _) => {
            let new = self_signed(host)?;
            for path in [key_path, cert_path] {
                dir.make_dir(path.parent().unwrap_or(dir.path()))?;
            }
            dir.put(key_path, new.key_pem.as_bytes(), SECRET_MODE)?;
            dir.put(cert_path, new.chain_pem.as_bytes(), PUBLIC_MODE)?;
            tracing::info!(path = ?cert_path, "certificate made");
            (new.chain_pem.into_bytes(), new.key_pem.into_bytes())
        }
    };
    TlsIdentity::from_pem(&chain, &key).map_err(|e| e.context(format!("{cert_path:?}, {key_path:?}")))
}

/// Makes the datastore `main`, if the first start is not done and the configuration names it.
pub(super) async fn main_datastore(dir: &DataDir, config: &Config, users: &Users) -> Result<()> {
    let (path, new): (PathBuf, PathBuf) = (dir.path().join(MAIN), dir.path().join(MAIN_NEW));
    let named = config.datastores.iter().find(|store| store.path == path);
    let Some(store) = named.filter(|_| !users.is_set_up()) else { return Ok(()) };
    if dir.has(&path)? {
        return Ok(());
    }
    tracing::info!(?path, "making the first datastore with its 65536 directories");
    let engine = Engine::start("first start", &EngineConfig::default())?;
    // On the engine, as all that takes seconds: a signal is heard meanwhile.
    let (owned, leftover) = (dir.clone(), new.clone());
    engine.run(move |_| owned.remove_tree(&leftover)).await??;
    Datastore::create(&new, store.owner, &engine).await?;
    dir.publish(&new, &path)?;
    tracing::info!(?path, "datastore made");
    Ok(())
}

/// The users; at the first start with the token that may do everything, whose secret goes into `connection.env`.
///
/// The secret is written there before its hash is written to the users file, and taken from there again if a crash came between. Later
/// starts only keep address and fingerprint in `connection.env` right, as long as that is there.
pub(super) fn users(
    dir: &DataDir,
    keys: &ServerKeys,
    config: &Config,
    listen: SocketAddr,
    fingerprint: &str,
) -> Result<Users> {
    let users = users_file::load(dir)?;
    let old = dir.read_secret(CONNECTION_FILE)?.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let kept = old.as_deref().and_then(Connection::password_of);
    let password = match kept {
        Some(password) => password,
        None if users.is_set_up() => return Ok(users),
        None => new_token_secret(),
    };
    let token: AuthId = ADMIN_TOKEN.parse()?;
    let names: Vec<&str> = config.datastores.iter().map(|store| store.name.as_str()).collect();
    let datastore = names.iter().find(|name| **name == MAIN).or(names.first()).unwrap_or(&MAIN);
    let text = Connection::new(&token, password.clone(), listen, datastore, fingerprint).to_text();
    if old.as_deref() != Some(text.as_str()) {
        dir.put(CONNECTION_FILE, text.as_bytes(), SECRET_MODE)?;
    }
    if users.is_set_up() {
        return Ok(users);
    }
    users_file::edit(dir, |users| users.set_up(&token, &password, &keys.tokens))?;
    tracing::info!(path = ?dir.path().join(CONNECTION_FILE), "first start: a token that may do everything is in this file");
    users_file::load(dir)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::keys;
    use crate::daemon::users_file::USERS_FILE;

    fn start(dir: &DataDir, port: u16) -> Result<(Config, Users, TlsIdentity)> {
        let config = configuration(dir, None)?.config;
        let keys = keys::load_or_make(dir)?;
        let tls = identity(dir, &config.server, "host")?;
        let users = users(dir, &keys, &config, SocketAddr::from(([127, 0, 0, 1], port)), tls.fingerprint())?;
        Ok((config, users, tls))
    }

    fn text(dir: &DataDir, name: &str) -> String {
        String::from_utf8(dir.read(name).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn a_second_start_changes_nothing_but_the_address() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        let (_, users, tls) = start(&dir, 8007).unwrap();
        let env = text(&dir, CONNECTION_FILE);
        let secret = Connection::password_of(&env).unwrap();
        let keys = keys::load_or_make(&dir).unwrap();
        assert!(users.verify_token(&ADMIN_TOKEN.parse().unwrap(), &secret, &keys.tokens));
        let (_, again, same) = start(&dir, 9000).unwrap();
        assert_eq!(again, users);
        assert_eq!(same.fingerprint(), tls.fingerprint());
        assert_eq!(text(&dir, CONNECTION_FILE), env.replace("8007", "9000"));
        // An operator who removes the secret does not get another one made.
        crate::engine::Disk::real().unlink(&folder.path().join(CONNECTION_FILE)).unwrap();
        assert_eq!(start(&dir, 9000).unwrap().1, users);
        assert!(!dir.has(CONNECTION_FILE).unwrap());
    }

    #[test]
    fn a_crash_between_any_two_files_is_repaired() {
        let whole = tempfile::tempdir().unwrap();
        let dir = DataDir::open(whole.path()).unwrap();
        start(&dir, 1).unwrap();
        // In the order in which they are made; the crash comes after the first n.
        let files = [CONFIG_FILE, "auth.key", "tls/key.pem", "tls/cert.pem", CONNECTION_FILE, USERS_FILE];
        for done in 0..=files.len() {
            let folder = tempfile::tempdir().unwrap();
            let cut = DataDir::open(folder.path()).unwrap();
            for name in &files[..done] {
                cut.make_dir(cut.path().join(name).parent().unwrap()).unwrap();
                cut.put(name, &dir.read(name).unwrap().unwrap(), SECRET_MODE).unwrap();
            }
            let (_, users, _) = start(&cut, 1).unwrap();
            let secret = Connection::password_of(&text(&cut, CONNECTION_FILE)).unwrap();
            let keys = keys::load_or_make(&cut).unwrap();
            assert!(users.verify_token(&ADMIN_TOKEN.parse().unwrap(), &secret, &keys.tokens), "{done}");
        }
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        dir.put("photo.jpg", b"x", PUBLIC_MODE).unwrap();
        let said = configuration(&dir, None).unwrap_err().to_string();
        assert!(said.contains("photo.jpg") && said.contains("not a data directory"), "{said}");
        assert_eq!(dir.names().unwrap(), ["photo.jpg"]);
        assert!(configuration(&dir, Some(Path::new("/nonexistent/x.toml"))).is_err());
    }

    #[test]
    fn users_made_before_the_first_start_stay() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        dir.put(CONFIG_FILE, config::first_file().as_bytes(), PUBLIC_MODE).unwrap();
        keys::load_or_make(&dir).unwrap();
        users_file::edit(&dir, |users| {
            users.add_user(&"u@pbs".parse()?, None);
            Ok(())
        })
        .unwrap();
        let (_, users, _) = start(&dir, 1).unwrap();
        let shown: Vec<String> = users.ids().map(ToString::to_string).collect();
        assert_eq!(shown, ["admin@pbs", "admin@pbs!default", "u@pbs"]);
    }
}
