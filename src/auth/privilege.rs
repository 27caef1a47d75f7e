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

    /// Whether all privileges of `other` are here.
    pub const fn has_all(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The privileges' names.
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(bit, _)| self.has_any(*bit)).map(|(_, name)| *name)
    }
}

impl FromStr for Privileges {
    type Err = Error;

    /// One name, or several with commas between them.
    fn from_str(s: &str) -> Result<Self> {
        s.split(',').map(str::trim).try_fold(Self::NONE, |sum, name| {
            let found = Self::NAMES.iter().find(|(_, known)| *known == name);
            let (bit, _) = found.ok_or_else(|| Error::invalid(format!("{name:.80?} is not a privilege")))?;
            Ok(sum.union(*bit))
        })
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
    /// Look at remotes. Nothing here asks for this and the following ones; imported permissions name them.
    RemoteAudit,
    /// Everything about remotes.
    RemoteAdmin,
    /// Read from remotes.
    RemoteSyncOperator,
    /// Look at tapes.
    TapeAudit,
    /// Everything about tapes.
    TapeAdmin,
    /// Write tapes.
    TapeOperator,
    /// Read tapes.
    TapeReader,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 15] = [
        Self::Admin,
        Self::Audit,
        Self::NoAccess,
        Self::DatastoreAdmin,
        Self::DatastoreReader,
        Self::DatastoreBackup,
        Self::DatastorePowerUser,
        Self::DatastoreAudit,
        Self::RemoteAudit,
        Self::RemoteAdmin,
        Self::RemoteSyncOperator,
        Self::TapeAudit,
        Self::TapeAdmin,
        Self::TapeOperator,
        Self::TapeReader,
    ];

    /// The names of [`Self::ALL`], for parameters.
    pub const NAMES: [&'static str; Self::ALL.len()] = {
        let mut names = [""; Self::ALL.len()];
        let mut i = 0;
        while i < names.len() {
            names[i] = Self::ALL[i].as_str();
            i += 1;
        }
        names
    };

    /// One line for people.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Admin => "Everything.",
            Self::Audit => "Look at everything.",
            Self::NoAccess => "Nothing; takes away what is inherited.",
            Self::DatastoreAdmin => "Everything in a datastore.",
            Self::DatastoreReader => "Look at, verify and restore everything in a datastore.",
            Self::DatastoreBackup => "Back up, and restore one's own.",
            Self::DatastorePowerUser => "Back up, restore and prune one's own.",
            Self::DatastoreAudit => "Look at a datastore's settings and contents.",
            Self::RemoteAudit => "Look at remotes (without effect here).",
            Self::RemoteAdmin => "Everything about remotes (without effect here).",
            Self::RemoteSyncOperator => "Read from remotes (without effect here).",
            Self::TapeAudit => "Look at tapes (without effect here).",
            Self::TapeAdmin => "Everything about tapes (without effect here).",
            Self::TapeOperator => "Write tapes (without effect here).",
            Self::TapeReader => "Read tapes (without effect here).",
        }
    }

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
            Self::RemoteAudit => "RemoteAudit",
            Self::RemoteAdmin => "RemoteAdmin",
            Self::RemoteSyncOperator => "RemoteSyncOperator",
            Self::TapeAudit => "TapeAudit",
            Self::TapeAdmin => "TapeAdmin",
            Self::TapeOperator => "TapeOperator",
            Self::TapeReader => "TapeReader",
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
            Self::RemoteAudit => Privileges::REMOTE_AUDIT,
            Self::RemoteAdmin => {
                Privileges::REMOTE_AUDIT.union(Privileges::REMOTE_MODIFY).union(Privileges::REMOTE_READ)
            }
            Self::RemoteSyncOperator => Privileges::REMOTE_AUDIT.union(Privileges::REMOTE_READ),
            Self::TapeAudit => Privileges::TAPE_AUDIT,
            Self::TapeAdmin => Privileges::TAPE_AUDIT
                .union(Privileges::TAPE_MODIFY)
                .union(Privileges::TAPE_WRITE)
                .union(Privileges::TAPE_READ),
            Self::TapeOperator => Privileges::TAPE_AUDIT.union(Privileges::TAPE_WRITE).union(Privileges::TAPE_READ),
            Self::TapeReader => Privileges::TAPE_AUDIT.union(Privileges::TAPE_READ),
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
        assert_eq!("Datastore.Backup, Datastore.Audit".parse::<Privileges>().unwrap(), both);
        for bad in ["", "datastore.audit", "Datastore.Audit,", "Datastore.Audit|Datastore.Backup"] {
            assert!(bad.parse::<Privileges>().is_err(), "{bad}");
        }
    }

    #[test]
    fn roles_round_trip() {
        for role in Role::ALL {
            assert_eq!(role.as_str().parse::<Role>().unwrap(), role);
        }
        assert_eq!(Role::NAMES[3], "DatastoreAdmin");
        assert!("admin".parse::<Role>().is_err());
        assert!(!Role::DatastoreAdmin.privileges().has_any(Privileges::DATASTORE_ALLOCATE));
    }
}
