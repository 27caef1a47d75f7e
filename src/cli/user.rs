//! `ringvault user`: users with passwords and their tokens, in the data directory of a daemon that runs or does not.

use std::io::Read;
use std::path::PathBuf;
use std::process::ExitCode;

use crate::auth::{AclEntry, AclPath, Role, Users, hash_password, new_token_secret};
use crate::daemon::{DataDir, edit_users, load_or_make_keys};
use crate::error::{Error, IoContext, Result};
use crate::types::{AuthId, Userid};

/// Longest password that is read: the API takes no longer one.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Make users and tokens; a running server sees them within seconds
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The server's data directory
    #[arg(long, value_name = "DIR", default_value = "ringvault-data", env = "RINGVAULT_DATA_DIR", global = true)]
    data_dir: PathBuf,

    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// Make a user, or give one another password
    Create {
        /// Who: NAME@pbs
        user: Userid,
        /// Read the password from standard input; without this the user can only have tokens
        #[arg(long)]
        password_stdin: bool,
        #[command(flatten)]
        grant: Grant,
    },
    /// Make a token of a user, or give it another secret, which is printed
    Token {
        /// Which: NAME@pbs!TOKEN
        token: AuthId,
        #[command(flatten)]
        grant: Grant,
    },
}

#[derive(clap::Args, Debug)]
struct Grant {
    /// A role to give, for example DatastoreBackup
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,
    /// Where the role holds, and below
    #[arg(long, value_name = "PATH", default_value = "/")]
    path: AclPath,
}

impl Grant {
    fn apply(self, users: &mut Users, auth_id: &AuthId) {
        if let Some(role) = self.role {
            users.allow(AclEntry { path: self.path, auth_id: auth_id.clone(), role, propagate: true });
        }
    }
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let dir = DataDir::open(&args.data_dir)?;
    let keys = load_or_make_keys(&dir)?;
    match args.action {
        Action::Create { user, password_stdin, grant } => {
            let hash = if password_stdin { Some(hash_password(&read_password()?)?) } else { None };
            edit_users(&dir, |users| {
                users.add_user(&user, None);
                if let Some(hash) = hash {
                    users.set_password_hash(&user, hash)?;
                }
                grant.apply(users, &user.clone().into());
                Ok(())
            })?;
        }
        Action::Token { token, grant } => {
            let secret = new_token_secret();
            edit_users(&dir, |users| {
                users.set_token(&token, &secret, &keys.tokens, None)?;
                grant.apply(users, &token);
                Ok(())
            })?;
            println!("{secret}");
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The first line of standard input.
fn read_password() -> Result<String> {
    let mut text = String::new();
    let mut input = std::io::stdin().lock().take(PASSWORD_BYTES_MAX);
    input.read_to_string(&mut text).io_context(|| "read the password from standard input")?;
    let password = text.lines().next().unwrap_or_default();
    if password.chars().any(char::is_control) {
        return Err(Error::invalid("a password has no control characters"));
    }
    Ok(password.to_owned())
}
