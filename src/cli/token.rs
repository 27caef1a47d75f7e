//! `ringvault token`: secrets with which programs log in.

use std::process::ExitCode;

use http::Method;

use super::admin::{Admin, Call, Shown};
use super::user::Grant;
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::types::{AuthId, Userid};

/// List, make, change and delete API tokens
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    admin: Admin,

    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// List the tokens of a user
    List {
        /// Whose: NAME@REALM
        user: Userid,
    },
    /// Make a token and print its secret, which is not shown again
    Create {
        /// Which: NAME@REALM!TOKEN
        token: AuthId,
        #[command(flatten)]
        grant: Grant,
    },
    /// Change a token
    Update {
        /// Which: NAME@REALM!TOKEN
        token: AuthId,
        /// What it is for; an empty text removes it
        #[arg(long, value_name = "TEXT")]
        comment: Option<String>,
        #[command(flatten)]
        validity: Validity,
    },
    /// Give a token another secret, and print it
    Regenerate {
        /// Which: NAME@REALM!TOKEN
        token: AuthId,
    },
    /// Delete a token with its permissions; groups keep their owner
    Delete {
        /// Which: NAME@REALM!TOKEN
        token: AuthId,
    },
}

/// Whether and until when somebody may act.
#[derive(clap::Args, Debug)]
pub struct Validity {
    /// Whether it may act: true or false
    #[arg(long, value_name = "BOOL", action = clap::ArgAction::Set)]
    enable: Option<bool>,
    /// When it ends, as 2027-01-31T00:00:00Z or in seconds since 1970; never with 0
    #[arg(long, value_name = "TIME", value_parser = time)]
    expire: Option<i64>,
}

impl Validity {
    pub(super) fn onto(self, call: Call) -> Call {
        call.with("enable", self.enable).with("expire", self.expire)
    }
}

fn time(text: &str) -> Result<i64> {
    let time = text.parse().ok().or_else(|| EpochSecs::from_utc_name(text).map(|time| time.0));
    time.ok_or_else(|| Error::invalid("seconds since 1970 or YYYY-MM-DDTHH:MM:SSZ expected"))
}

const ONE: &str = "access/users/{}/token/{}";

fn of(method: Method, token: &AuthId) -> Result<Call> {
    let name =
        token.token().ok_or_else(|| Error::invalid(format!("{token} is a user: a token is NAME@REALM!TOKEN")))?;
    Ok(Call::new(method, ONE, &[token.user().as_str(), name]))
}

/// Makes a token, gives it a role, and prints its secret. If the role cannot be given, the token is there with a secret that nobody has
/// seen: it is deleted, or regenerated.
pub(super) fn create(admin: Admin, token: &AuthId, grant: Grant) -> Result<ExitCode> {
    let calls = std::iter::once(of(Method::POST, token)?).chain(grant.call(token)).collect();
    admin.run_picking(None, calls, Shown::Text, secret)
}

/// The secret in the first answer.
fn secret(mut answers: Vec<serde_json::Value>) -> Option<serde_json::Value> {
    answers.first_mut().map(|answer| answer["value"].take())
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let (call, shown) = match args.action {
        Action::List { user } => (
            Call::new(Method::GET, "access/users/{}/token", &[user.as_str()]),
            Shown::Table(&["tokenid", "enable", "expire", "comment"]),
        ),
        Action::Create { token, grant } => return create(args.admin, &token, grant),
        Action::Update { token, comment, validity } => {
            (validity.onto(of(Method::PUT, &token)?.with("comment", comment)), Shown::Nothing)
        }
        Action::Regenerate { token } => {
            let calls = vec![of(Method::PUT, &token)?.flag("regenerate", true)];
            return args.admin.run_picking(None, calls, Shown::Text, secret);
        }
        Action::Delete { token } => (of(Method::DELETE, &token)?, Shown::Nothing),
    };
    args.admin.run(None, vec![call], shown)
}
