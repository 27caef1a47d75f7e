//! The machine's own users, by its PAM. Built in with the feature `pam` only.

use std::ffi::{OsStr, OsString};

use nonstick::{AuthnFlags, ConversationAdapter, ErrorCode, Result, Transaction, TransactionBuilder};

/// The name of our file in `/etc/pam.d`; where there is none, PAM takes `other`, which refuses on most systems.
const SERVICE: &str = "ringvault";

/// Answers what PAM asks with the one secret there is.
struct OnePassword<'a> {
    name: &'a str,
    password: &'a str,
}

impl ConversationAdapter for OnePassword<'_> {
    fn prompt(&self, _: impl AsRef<OsStr>) -> Result<OsString> {
        Ok(self.name.into())
    }

    fn masked_prompt(&self, _: impl AsRef<OsStr>) -> Result<OsString> {
        Ok(self.password.into())
    }

    fn error_msg(&self, message: impl AsRef<OsStr>) {
        tracing::debug!(message = ?message.as_ref(), "PAM says");
    }

    fn info_msg(&self, message: impl AsRef<OsStr>) {
        tracing::debug!(message = ?message.as_ref(), "PAM says");
    }
}

/// Whether PAM lets this user in with this password. Blocks for as long as PAM likes, seconds for a wrong one.
pub(super) fn verify(name: &str, password: &str) -> bool {
    // Neither goes through a C string with a NUL in it.
    if name.contains('\0') || password.contains('\0') {
        return false;
    }
    match ask(name, password) {
        Ok(()) => true,
        Err(ErrorCode::AuthenticationError | ErrorCode::UserUnknown | ErrorCode::MaxTries) => false,
        Err(
            error @ (ErrorCode::AccountExpired
            | ErrorCode::CredentialsExpired
            | ErrorCode::AuthTokExpired
            | ErrorCode::NewAuthTokRequired
            | ErrorCode::PermissionDenied),
        ) => {
            tracing::info!(user = name, %error, "the machine does not let this user in, whatever the password");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "PAM refuses a login; is there a file /etc/pam.d/{SERVICE}?");
            false
        }
    }
}

fn ask(name: &str, password: &str) -> Result<()> {
    let conversation = OnePassword { name, password }.into_conversation();
    let mut transaction = TransactionBuilder::new_with_service(SERVICE).username(name).build(conversation)?;
    transaction.authenticate(AuthnFlags::SILENT | AuthnFlags::DISALLOW_NULL_AUTHTOK)?;
    // An account may be locked or ended although its password is right.
    transaction.account_management(AuthnFlags::SILENT)
}
