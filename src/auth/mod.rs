//! Who is this, and may they: credentials, tickets, tokens, users, permissions. Pure but for the clock that callers pass.

mod acl;
mod authenticate;
mod credentials;
mod privilege;
mod secret;
mod ticket;
mod users;

pub use acl::{Acl, AclEntry, AclPath};
pub use authenticate::{AuthFailure, ServerKeys, authenticate, login};
pub use credentials::{Credentials, find as find_credentials};
pub use privilege::{Privileges, Role};
pub use secret::{PASSWORD_CHARS_MIN, TokenKey, hash_password, new_token_secret, verify_password};
pub use ticket::{Refused, TicketKeys};
pub use users::{Users, set_password};
