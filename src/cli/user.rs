//! `ringvault user`: who may log in.

use std::process::ExitCode;

use http::Method;

use super::admin::{Admin, Call, Shown, read_password};
use super::token;
use crate::auth::{AclPath, Role};
use crate::error::Result;
use crate::types::{AuthId, Userid};

const EXAMPLES: &str = "\
Examples:
  A user who has only tokens, and a token that may back up into main:
    ringvault user create backup@pbs
    ringvault token create 'backup@pbs!host1' --role DatastoreBackup --path /datastore/main

  A user with a password who may look:
    ringvault user create alice@pbs --password --role DatastoreAudit --path /datastore/main";

/// List, make, change and delete users
#[derive(clap::Args, Debug)]
#[command(after_help = EXAMPLES)]
pub struct Args {
    #[command(flatten)]
    admin: Admin,

    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// List users
    List,
    /// Show a user
    Show {
        /// Who: NAME@REALM
        user: Userid,
    },
    /// Make a user
    Create {
        /// Who: NAME@pbs
        user: Userid,
        #[command(flatten)]
        password: Password,
        #[command(flatten)]
        about: About,
        #[command(flatten)]
        grant: Grant,
    },
    /// Change a user
    Update {
        /// Who: NAME@REALM
        user: Userid,
        #[command(flatten)]
        about: About,
    },
    /// Give a user another password
    Password {
        /// Who: NAME@pbs
        user: Userid,
        /// Read it from the first line of standard input instead of asking for it
        #[arg(long)]
        password_stdin: bool,
    },
    /// Delete a user with all tokens and permissions; groups keep their owner
    Delete {
        /// Who: NAME@REALM
        user: Userid,
    },
    /// The same as `ringvault token create`
    #[command(hide = true)]
    Token {
        /// Which: NAME@pbs!TOKEN
        token: AuthId,
        #[command(flatten)]
        grant: Grant,
    },
}

#[derive(clap::Args, Debug)]
struct Password {
    /// Ask for a password; without one the user can only have tokens
    #[arg(long)]
    password: bool,
    /// Read the password from the first line of standard input
    #[arg(long, conflicts_with = "password")]
    password_stdin: bool,
}

/// What is known of a user.
#[derive(clap::Args, Debug)]
struct About {
    /// What it is for; an empty text removes it, as with the next three
    #[arg(long, value_name = "TEXT")]
    comment: Option<String>,
    /// An address
    #[arg(long, value_name = "TEXT")]
    email: Option<String>,
    /// Given name
    #[arg(long, value_name = "TEXT")]
    firstname: Option<String>,
    /// Family name
    #[arg(long, value_name = "TEXT")]
    lastname: Option<String>,
    #[command(flatten)]
    validity: token::Validity,
}

/// A role to begin with.
#[derive(clap::Args, Debug)]
pub struct Grant {
    /// A role to give, for example DatastoreBackup
    #[arg(long, value_name = "ROLE")]
    role: Option<Role>,
    /// Where the role holds, and below
    #[arg(long, value_name = "PATH", default_value = "/", requires = "role")]
    path: AclPath,
}

impl Grant {
    /// The call that gives it, if it was asked for.
    pub(super) fn call(self, auth_id: &AuthId) -> Option<Call> {
        let role = self.role?.to_string();
        let call = Call::new(Method::PUT, "access/acl", &[]).with("path", Some(self.path.to_string()));
        Some(call.with("role", Some(role)).with("auth-id", Some(auth_id.to_string())))
    }
}

impl About {
    fn onto(self, call: Call) -> Call {
        let call = call.with("comment", self.comment).with("email", self.email);
        self.validity.onto(call.with("firstname", self.firstname).with("lastname", self.lastname))
    }
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    const ONE: &str = "access/users/{}";
    let (calls, shown) = match args.action {
        Action::List => (
            vec![Call::new(Method::GET, "access/users", &[])],
            Shown::Table(&["userid", "enable", "expire", "comment"]),
        ),
        Action::Show { user } => (vec![Call::new(Method::GET, ONE, &[user.as_str()])], Shown::Fields),
        Action::Create { user, password, about, grant } => {
            let wanted = password.password || password.password_stdin;
            let secret = wanted.then(|| read_password(password.password_stdin)).transpose()?;
            let create = Call::new(Method::POST, "access/users", &[]).with("userid", Some(user.as_str()));
            let create = about.onto(create.with("password", secret));
            let grant = grant.call(&user.clone().into());
            (std::iter::once(create).chain(grant).collect(), Shown::Nothing)
        }
        Action::Update { user, about } => {
            (vec![about.onto(Call::new(Method::PUT, ONE, &[user.as_str()]))], Shown::Nothing)
        }
        Action::Password { user, password_stdin } => {
            let password = read_password(password_stdin)?;
            let call = Call::new(Method::PUT, "access/password", &[]).with("userid", Some(user.as_str()));
            (vec![call.with("password", Some(password))], Shown::Nothing)
        }
        Action::Delete { user } => (vec![Call::new(Method::DELETE, ONE, &[user.as_str()])], Shown::Nothing),
        Action::Token { token, grant } => return token::create(args.admin, &token, grant),
    };
    args.admin.run(None, calls, shown)
}
