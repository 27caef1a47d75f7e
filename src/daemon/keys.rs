//! The server's own secrets: `auth.key`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::users_file::USERS_FILE;
use crate::auth::{ServerKeys, TicketKeys, TokenKey};
use crate::config::{DataDir, SECRET_MODE};
use crate::error::{Error, Kind, Result};

const KEYS_FILE: &str = "auth.key";

/// Random bytes of each key.
const KEY_BYTES: usize = 32;

#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    ticket: String,
    csrf: String,
    token: String,
}

/// Reads the keys, making them in a data directory without users. Where there are users, their tokens were hashed with keys
/// that nobody can make again.
pub fn load_or_make(dir: &DataDir) -> Result<ServerKeys> {
    if let Some(bytes) = dir.read_secret(KEYS_FILE)? {
        return parse(&bytes).map_err(|e| e.context(format!("{:?} is damaged", dir.path().join(KEYS_FILE))));
    }
    if dir.has(USERS_FILE)? {
        let text = format!(
            "{:?} is missing although {USERS_FILE} is there: restore it, or remove {USERS_FILE} to begin with new users and tokens",
            dir.path().join(KEYS_FILE)
        );
        return Err(Error::corrupt(text));
    }
    let file = File { version: 1, ticket: new_key()?, csrf: new_key()?, token: new_key()? };
    let bytes = serde_json::to_vec_pretty(&file).expect("texts are JSON");
    dir.put(KEYS_FILE, &bytes, SECRET_MODE)?;
    parse(&bytes)
}

fn new_key() -> Result<String> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|e| Error::new(Kind::Io, format!("no random bytes - {e}")))?;
    Ok(STANDARD.encode(bytes))
}

fn parse(bytes: &[u8]) -> Result<ServerKeys> {
    let wrong = |e: String| Error::corrupt(e);
    let file: File = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
    if file.version != 1 {
        return Err(wrong(format!("version {} is not known", file.version)));
    }
    let key = |text: &str| match STANDARD.decode(text) {
        Ok(bytes) if bytes.len() >= KEY_BYTES => Ok(bytes),
        _ => Err(wrong(format!("a key is not base64 of at least {KEY_BYTES} bytes"))),
    };
    Ok(ServerKeys {
        tickets: TicketKeys::new(key(&file.ticket)?, key(&file.csrf)?),
        tokens: TokenKey::new(key(&file.token)?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let dir = DataDir::open(folder.path()).unwrap();
        let token = "a@pbs!t".parse().unwrap();
        let hash = load_or_make(&dir).unwrap().tokens.hash(&token, "s");
        assert!(load_or_make(&dir).unwrap().tokens.verify(&token, "s", &hash));
        dir.put(KEYS_FILE, b"{}", SECRET_MODE).unwrap();
        assert!(load_or_make(&dir).is_err());
        crate::engine::Disk::real().unlink(&folder.path().join(KEYS_FILE)).unwrap();
        dir.put(USERS_FILE, b"{}", SECRET_MODE).unwrap();
        assert!(load_or_make(&dir).unwrap_err().to_string().contains("restore it"));
    }
}
