//! The daemon as a whole: a data directory, what the first start puts into it, and what runs over it.
//!
//! ```text
//! DATA/ringvault.toml    configuration                      DATA/tls/          certificate and key
//! DATA/auth.key          the server's own secrets, 0600     DATA/main/         the first datastore
//! DATA/users.json        users, tokens, permissions, 0600   DATA/tasks/        task logs
//! DATA/connection.env    how a client gets in, 0600         DATA/.lock         held while a daemon runs
//! ```

mod administration;
mod check;
mod connection_file;
mod first_start;
mod import;
mod inside;
mod keys;
mod reload;
mod run;
mod users_file;
mod watch;

pub use crate::config::DataDir;
pub use administration::{Administration, administer};
pub use check::{Checked, check_configuration};
pub use first_start::{ADMIN_TOKEN, CONFIG_FILE};
pub use import::{Imported, import};
pub use inside::Inside;
pub use keys::load_or_make as load_or_make_keys;
pub use run::{Options, run};
pub use users_file::edit as edit_users;
