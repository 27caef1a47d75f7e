//! `ringvault namespace`: the folders of a datastore.

use std::process::ExitCode;

use http::Method;

use super::admin::{Admin, Call, Shown};
use crate::error::{Error, Result};
use crate::types::{DatastoreName, Namespace};

/// List, make and delete namespaces of a datastore
#[derive(clap::Args, Debug)]
pub struct Args {
    #[command(flatten)]
    admin: Admin,

    #[command(subcommand)]
    action: Action,
}

#[derive(clap::Subcommand, Debug)]
enum Action {
    /// List a namespace and those below it
    List {
        /// Which datastore
        store: DatastoreName,
        /// Where to begin; the root unless given
        #[arg(long, value_name = "NAMESPACE")]
        parent: Option<Namespace>,
    },
    /// Make a namespace; the one above it has to be there
    Create {
        /// Which datastore
        store: DatastoreName,
        /// Its path, for example production/web
        namespace: Namespace,
    },
    /// Delete a namespace and those below it
    Delete {
        /// Which datastore
        store: DatastoreName,
        /// Its path
        namespace: Namespace,
        /// With all backups in it; those that are protected stay
        #[arg(long)]
        delete_groups: bool,
    },
}

pub(super) fn run(args: Args) -> Result<ExitCode> {
    const PATH: &str = "admin/datastore/{}/namespace";
    let (store, call, shown) = match args.action {
        Action::List { store, parent } => {
            let call = Call::new(Method::GET, PATH, &[store.as_str()]).with("parent", parent.map(|ns| ns.to_string()));
            (store, call, Shown::Table(&["ns"]))
        }
        Action::Create { store, namespace } => {
            let path = namespace.to_string();
            let (parent, name) = path.rsplit_once('/').unwrap_or(("", path.as_str()));
            if name.is_empty() {
                return Err(Error::invalid("the root namespace is always there"));
            }
            let call = Call::new(Method::POST, PATH, &[store.as_str()]).with("name", Some(name));
            (store, call.with("parent", (!parent.is_empty()).then_some(parent)), Shown::Nothing)
        }
        Action::Delete { store, namespace, delete_groups } => {
            let call = Call::new(Method::DELETE, PATH, &[store.as_str()]).with("ns", Some(namespace.to_string()));
            (store, call.flag("delete-groups", delete_groups), Shown::Nothing)
        }
    };
    args.admin.run(Some(&store), vec![call], shown)
}
