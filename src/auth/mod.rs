//! Who is this, and may they: credentials, tickets, tokens, users, permissions. Pure but for the
//! clock that callers pass and, where it is built in, PAM.

mod account;
mod acl;
mod authenticate;
mod credentials;
mod crypt;
#[cfg(feature = "pam")]
mod pam;
mod privilege;
mod secret;
mod ticket;
mod users;
mod users_file;
mod verdicts;

pub use account::{Account, AccountChange, DETAIL_CHARS_MAX, Detail};
pub use acl::{ACL_PATH_PATTERN, Acl, AclEntry, AclPath, Held};
pub use authenticate::{AuthFailure, Doubt, Proof, ServerKeys, authenticate, login};
pub use credentials::{Credentials, find as find_credentials};
pub use crypt::check as check_crypt_hash;
pub use privilege::{Privileges, Role};
pub use secret::{PASSWORD_CHARS_MIN, TokenKey, hash_password, new_token_secret, verify_password};
pub use ticket::{Refused, TicketKeys};
pub use users::{ACCOUNTS_MAX, ACL_ENTRIES_MAX, REALM_PAM, REALM_PBS, Users, set_password};
pub use verdicts::Verdicts;
