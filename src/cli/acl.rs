//! `ringvault acl`: who may do what, and where.

use std::process::ExitCode;

use http::Method;

use super::admin::{Admin, Call, Shown};
use crate::auth::{AclPath, Role};
use crate::error::Result;
use crate::types::AuthId;

/// List, give and take away permissions
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    admin: Admin,

    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// List permissions
    List {
        /// Only those there and below, for example /datastore/main
        #[arg(long, value_name = "PATH")]
        path: Option<AclPath>,
    },
    /// Give a role to a user or token
    Create {
        #[command(flatten)]
        entry: Entry,
        /// Only there, not below
        #[arg(long)]
        no_propagate: bool,
    },
    /// Take a role away
    Delete {
        #[command(flatten)]
        entry: Entry,
    },
    /// List the roles and what they allow
    Roles,
}

#[derive(clap::Args, Debug)]
struct Entry {
    /// Where: /, /datastore/STORE, /datastore/STORE/NAMESPACE, /access, /system
    path: AclPath,
    /// Whom: NAME@REALM or NAME@REALM!TOKEN
    auth_id: AuthId,
    /// What: a role such as DatastoreBackup
    role: Role,
}

impl Entry {
    fn call(self) -> Call {
        let call = Call::new(Method::PUT, "access/acl", &[]).with("path", Some(self.path.to_string()));
        call.with("auth-id", Some(self.auth_id.to_string())).with("role", Some(self.role.to_string()))
    }
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    let (call, shown) = match args.action {
        Action::List { path } => (
            Call::new(Method::GET, "access/acl", &[]).with("path", path.map(|path| path.to_string())),
            Shown::Table(&["path", "ugid", "roleid", "propagate"]),
        ),
        Action::Create { entry, no_propagate } => {
            (entry.call().with("propagate", no_propagate.then_some(false)), Shown::Nothing)
        }
        Action::Delete { entry } => (entry.call().flag("delete", true), Shown::Nothing),
        Action::Roles => (Call::new(Method::GET, "access/roles", &[]), Shown::Table(&["roleid", "comment"])),
    };
    args.admin.run(None, vec![call], shown)
}
