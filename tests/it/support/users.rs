//! The users, tokens and roles that the recordings speak of, in the data directory of a daemon that does not run yet.

use std::path::Path;
use std::sync::OnceLock;

use ringvault::auth::{AclEntry, Role, hash_password};
use ringvault::daemon::{DataDir, edit_users, load_or_make_keys};
use ringvault::types::{AuthId, Userid};

use super::daemon::STORE;

/// Password of `tester@pbs`.
pub const PASSWORD: &str = "golden-password-1";

/// Placeholder, token, role. `tester@pbs` itself is DatastoreAdmin too, `other@pbs` is DatastoreBackup.
const TOKENS: [(&str, &str, &str); 3] = [
    ("TOKEN_SECRET", "tester@pbs!bench", "DatastoreAdmin"),
    ("TOKEN_SECRET_SECOND", "tester@pbs!second", "DatastoreBackup"),
    ("TOKEN_SECRET_OTHER", "other@pbs!tok", "DatastoreBackup"),
];

/// Makes them; what the placeholders stand for.
pub fn prepare(data: &Path) -> Vec<(&'static str, String)> {
    // Deliberately slow, and the same for every daemon of a test run.
    static HASH: OnceLock<String> = OnceLock::new();
    let hash = HASH.get_or_init(|| hash_password(PASSWORD).expect("a hash"));

    let dir = DataDir::open(data).expect("a data directory");
    let keys = load_or_make_keys(&dir).expect("keys");
    let mut secrets = vec![("PASSWORD", PASSWORD.to_owned())];
    edit_users(&dir, |users| {
        let allow = |users: &mut ringvault::auth::Users, auth_id: AuthId, role: Role| {
            let path = format!("/datastore/{STORE}").parse().expect("a path");
            users.allow(AclEntry { path, auth_id, role, propagate: true });
        };
        for (name, role) in [("tester@pbs", "DatastoreAdmin"), ("other@pbs", "DatastoreBackup")] {
            let user: Userid = name.parse()?;
            users.add_user(&user, None);
            allow(users, user.into(), role.parse()?);
        }
        users.set_password_hash(&"tester@pbs".parse()?, hash.clone())?;
        for (placeholder, token, role) in TOKENS {
            let token: AuthId = token.parse()?;
            let secret = uuid::Uuid::new_v4().to_string();
            users.set_token(&token, &secret, &keys.tokens, None)?;
            allow(users, token, role.parse()?);
            secrets.push((placeholder, secret));
        }
        Ok(())
    })
    .expect("users");
    secrets
}
