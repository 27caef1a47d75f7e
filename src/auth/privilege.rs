//! What somebody may do, and the roles that bundle it (spec 05 §2.3). Pure.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, Result};

/// A set of privileges.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Privileges(u32);

macro_rules! privileges {
    ($($bit:literal $constant:ident $name:literal,)*) => {
        impl Privileges {
            $(
                #[doc = concat!("`", $name, "`.")]
                pub const $constant: Self = Self(1 << $bit);
            )*

            /// Every privilege there is.
            pub const ALL: Self = Self(0 $(| 1 << $bit)*);

            const NAMES: &'static [(Self, &'static str)] = &[$((Self::$constant, $name),)*];
        }
    };
}

privileges! {
    0 SYS_AUDIT "Sys.Audit",
    1 SYS_MODIFY "Sys.Modify",
    2 SYS_POWER_MANAGEMENT "Sys.PowerManagement",
    3 DATASTORE_AUDIT "Datastore.Audit",
    4 DATASTORE_ALLOCATE "Datastore.Allocate",
    5 DATASTORE_MODIFY "Datastore.Modify",
    6 DATASTORE_READ "Datastore.Read",
    7 DATASTORE_VERIFY "Datastore.Verify",
    8 DATASTORE_BACKUP "Datastore.Backup",
    9 DATASTORE_PRUNE "Datastore.Prune",
    10 PERMISSIONS_MODIFY "Permissions.Modify",
    11 REMOTE_AUDIT "Remote.Audit",
    12 REMOTE_MODIFY "Remote.Modify",
    13 REMOTE_READ "Remote.Read",
    14 SYS_CONSOLE "Sys.Console",
    15 TAPE_AUDIT "Tape.Audit",
    16 TAPE_MODIFY "Tape.Modify",
    17 TAPE_WRITE "Tape.Write",
    18 TAPE_READ "Tape.Read",
    19 REALM_ALLOCATE "Realm.Allocate",
}

impl Privileges {
    /// No privilege.
    pub const NONE: Self = Self(0);

    /// Both sets together.
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// What is in both sets.
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Whether at least one privilege of `other` is here.
    pub const fn has_any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether there is no privilege at all.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The privileges' names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(bit, _)| self.has_any(*bit)).map(|(_, name)| *name)
    }
}

impl fmt::Display for Privileges {
    /// `Datastore.Audit|Datastore.Backup`, in the order in which they are declared.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, name) in self.names().enumerate() {
            write!(f, "{}{name}", if i > 0 { "|" } else { "" })?;
        }
        Ok(())
    }
}

/// A named bundle of privileges.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Everything.
    Admin,
    /// Look at everything.
    Audit,
    /// Nothing; also takes away what is inherited.
    NoAccess,
    /// Everything in a datastore.
    DatastoreAdmin,
    /// Look at, verify and restore everything in a datastore.
    DatastoreReader,
    /// Back up, and restore one's own.
    DatastoreBackup,
    /// Back up, restore and prune one's own.
    DatastorePowerUser,
    /// Look at a datastore's settings and contents.
    DatastoreAudit,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 8] = [
        Self::Admin,
        Self::Audit,
        Self::NoAccess,
        Self::DatastoreAdmin,
        Self::DatastoreReader,
        Self::DatastoreBackup,
        Self::DatastorePowerUser,
        Self::DatastoreAudit,
    ];

    /// As written in the users file and on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Admin => "Admin",
            Self::Audit => "Audit",
            Self::NoAccess => "NoAccess",
            Self::DatastoreAdmin => "DatastoreAdmin",
            Self::DatastoreReader => "DatastoreReader",
            Self::DatastoreBackup => "DatastoreBackup",
            Self::DatastorePowerUser => "DatastorePowerUser",
            Self::DatastoreAudit => "DatastoreAudit",
        }
    }

    /// What the role allows.
    pub const fn privileges(self) -> Privileges {
        const AUDIT: Privileges = Privileges::DATASTORE_AUDIT;
        const BACKUP: Privileges = Privileges::DATASTORE_BACKUP;
        match self {
            Self::Admin => Privileges::ALL,
            Self::Audit => Privileges::SYS_AUDIT.union(AUDIT),
            Self::NoAccess => Privileges::NONE,
            Self::DatastoreAdmin => AUDIT
                .union(BACKUP)
                .union(Privileges::DATASTORE_MODIFY)
                .union(Privileges::DATASTORE_READ)
                .union(Privileges::DATASTORE_VERIFY)
                .union(Privileges::DATASTORE_PRUNE),
            Self::DatastoreReader => AUDIT.union(Privileges::DATASTORE_VERIFY).union(Privileges::DATASTORE_READ),
            Self::DatastoreBackup => BACKUP,
            Self::DatastorePowerUser => BACKUP.union(Privileges::DATASTORE_PRUNE),
            Self::DatastoreAudit => AUDIT,
        }
    }
}

impl FromStr for Role {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|role| role.as_str() == s)
            .ok_or_else(|| Error::invalid(format!("{s:.80?} is not a role")))
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_read_as_in_the_recorded_refusals() {
        let both = Privileges::DATASTORE_BACKUP.union(Privileges::DATASTORE_AUDIT);
        assert_eq!(both.to_string(), "Datastore.Audit|Datastore.Backup");
        assert_eq!(
            Privileges::DATASTORE_PRUNE.union(Privileges::DATASTORE_MODIFY).to_string(),
            "Datastore.Modify|Datastore.Prune"
        );
        assert_eq!(Privileges::NONE.to_string(), "");
    }

    #[test]
    fn roles_round_trip() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
        }
        assert!("admin".parse::<Role>().is_err());
        assert!(!Role::DatastoreAdmin.privileges().has_any(Privileges::DATASTORE_ALLOCATE));
    }
}
