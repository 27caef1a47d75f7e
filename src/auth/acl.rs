//! Who may do what where (spec 05 §2.3). Pure.

use std::fmt;
use std::str::FromStr;

use super::privilege::{Privileges, Role};
use crate::error::{Error, Result};
use crate::types::{AuthId, DatastoreName, Namespace};

/// Most components of a path: `datastore`, a name, seven namespaces.
const COMPONENTS_MAX: usize = 9;

/// A place that privileges are given on: `/`, `/datastore/main/prod`, …
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AclPath {
    components: Vec<String>,
}

impl AclPath {
    /// `/`.
    pub fn root() -> Self {
        Self::default()
    }

    /// `/datastore`.
    pub fn datastores() -> Self {
        Self { components: vec!["datastore".to_owned()] }
    }

    /// `/datastore/{store}/{ns…}`.
    pub fn datastore(store: &DatastoreName, ns: &Namespace) -> Self {
        let mut components = vec!["datastore".to_owned(), store.to_string()];
        components.extend(ns.components().iter().cloned());
        Self { components }
    }

    /// `/system/tasks`.
    pub fn system_tasks() -> Self {
        Self { components: vec!["system".to_owned(), "tasks".to_owned()] }
    }

    fn is_below(&self, above: &Self) -> bool {
        self.components.len() > above.components.len() && self.components.starts_with(&above.components)
    }
}

impl FromStr for AclPath {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{s:.80?} is not a path of permissions: /, /datastore/NAME, … expected"));
        let tail = s.strip_prefix('/').ok_or_else(wrong)?;
        let components: Vec<String> = tail.split('/').filter(|c| !c.is_empty()).map(ToOwned::to_owned).collect();
        let known = ["access", "datastore", "remote", "system"];
        let good = components.len() <= COMPONENTS_MAX
            && components.first().is_none_or(|first| known.contains(&first.as_str()))
            && components.iter().all(|c| c.bytes().all(|b| b.is_ascii_graphic()) && !c.starts_with('.'));
        if good { Ok(Self { components }) } else { Err(wrong()) }
    }
}

impl fmt::Display for AclPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.components.is_empty() {
            return f.write_str("/");
        }
        self.components.iter().try_for_each(|c| write!(f, "/{c}"))
    }
}

/// One permission: a role for somebody at a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AclEntry {
    /// Where.
    pub path: AclPath,
    /// For whom.
    pub auth_id: AuthId,
    /// What.
    pub role: Role,
    /// Whether it also holds below the place.
    pub propagate: bool,
}

/// All permissions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    /// In the order of the file.
    pub entries: Vec<AclEntry>,
}

impl Acl {
    /// What `auth` may do at `path`. A token may do what both it and its user may.
    pub fn privileges(&self, auth: &AuthId, path: &AclPath) -> Privileges {
        let own = self.own_privileges(auth, path);
        match auth.token() {
            None => own,
            Some(_) => own.intersection(self.own_privileges(&auth.user().clone().into(), path)),
        }
    }

    /// What `auth` may do somewhere below `path`, `path` itself left out.
    pub fn privileges_below(&self, auth: &AuthId, path: &AclPath) -> Privileges {
        self.entries
            .iter()
            .filter(|entry| entry.path.is_below(path))
            .fold(Privileges::NONE, |sum, entry| sum.union(self.privileges(auth, &entry.path)))
    }

    /// From the root down: roles at a deeper place replace those inherited, `NoAccess` silences its place.
    fn own_privileges(&self, auth: &AuthId, path: &AclPath) -> Privileges {
        if auth.token().is_none() && auth.user().is_superuser() {
            return Privileges::ALL;
        }
        let mut held = Privileges::NONE;
        for depth in 0..=path.components.len() {
            let last = depth == path.components.len();
            let here = || {
                self.entries.iter().filter(|entry| {
                    entry.auth_id == *auth
                        && entry.path.components == path.components[..depth]
                        && (last || entry.propagate)
                })
            };
            if here().any(|entry| entry.role == Role::NoAccess) {
                held = Privileges::NONE;
            } else if here().next().is_some() {
                held = here().fold(Privileges::NONE, |sum, entry| sum.union(entry.role.privileges()));
            }
        }
        held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(rows: &[(&str, &str, Role, bool)]) -> Acl {
        let entries = rows
            .iter()
            .map(|(path, auth_id, role, propagate)| AclEntry {
                path: path.parse().unwrap(),
                auth_id: auth_id.parse().unwrap(),
                role: *role,
                propagate: *propagate,
            })
            .collect();
        Acl { entries }
    }

    fn held(acl: &Acl, auth: &str, path: &str) -> Privileges {
        acl.privileges(&auth.parse().unwrap(), &path.parse().unwrap())
    }

    #[test]
    fn deeper_roles_replace_inherited_ones() {
        let acl = acl(&[
            ("/", "u@pbs", Role::Audit, true),
            ("/datastore", "u@pbs", Role::DatastoreAdmin, false),
            ("/datastore/a", "u@pbs", Role::DatastoreBackup, true),
            ("/datastore/a", "u@pbs", Role::DatastoreAudit, true),
            ("/datastore/a/x", "u@pbs", Role::NoAccess, true),
            ("/datastore/a/x/y", "u@pbs", Role::DatastoreReader, true),
            ("/datastore/b", "u@pbs", Role::NoAccess, false),
        ]);
        let both = Role::DatastoreBackup.privileges().union(Role::DatastoreAudit.privileges());
        for (path, want) in [
            ("/", Role::Audit.privileges()),
            ("/datastore", Role::DatastoreAdmin.privileges()),
            ("/datastore/other", Role::Audit.privileges()),
            ("/datastore/a", both),
            ("/datastore/a/z", both),
            ("/datastore/a/x", Privileges::NONE),
            ("/datastore/a/x/q", Privileges::NONE),
            ("/datastore/a/x/y/z", Role::DatastoreReader.privileges()),
            ("/datastore/b", Privileges::NONE),
            ("/datastore/b/n", Role::Audit.privileges()),
        ] {
            assert_eq!(held(&acl, "u@pbs", path), want, "{path}");
            assert_eq!(held(&acl, "v@pbs", path), Privileges::NONE);
        }
    }

    #[test]
    fn a_token_has_no_more_than_its_user() {
        let acl = acl(&[
            ("/datastore/a", "u@pbs", Role::DatastorePowerUser, true),
            ("/", "u@pbs!t", Role::DatastoreAdmin, true),
        ]);
        assert_eq!(held(&acl, "u@pbs!t", "/datastore/a"), Role::DatastorePowerUser.privileges());
        assert_eq!(held(&acl, "u@pbs!t", "/datastore/b"), Privileges::NONE);
        assert_eq!(held(&acl, "u@pbs!s", "/datastore/a"), Privileges::NONE);
    }

    #[test]
    fn the_superuser_may_everything_but_not_its_tokens() {
        let acl = acl(&[("/", "root@pam!t", Role::Audit, true)]);
        assert_eq!(held(&acl, "root@pam", "/datastore/a"), Privileges::ALL);
        assert_eq!(held(&acl, "root@pam!t", "/datastore/a"), Role::Audit.privileges());
        assert_eq!(held(&acl, "root@pam!u", "/datastore/a"), Privileges::NONE);
    }

    #[test]
    fn what_lies_below_counts() {
        let acl = acl(&[("/datastore/a/x", "u@pbs", Role::DatastoreBackup, false)]);
        let below = |path: &str| acl.privileges_below(&"u@pbs".parse().unwrap(), &path.parse().unwrap());
        assert_eq!(below("/datastore/a"), Privileges::DATASTORE_BACKUP);
        assert_eq!(below("/datastore/a/x"), Privileges::NONE);
        assert_eq!(below("/datastore/b"), Privileges::NONE);
    }

    #[test]
    fn paths() {
        for good in ["/", "/datastore", "/datastore/main/a/b", "/system/tasks"] {
            assert_eq!(good.parse::<AclPath>().unwrap().to_string(), good);
        }
        for bad in ["", "datastore", "/nope", "/datastore/..", "/datastore/a\nb", "/datastore/1/2/3/4/5/6/7/8/9"] {
            assert!(bad.parse::<AclPath>().is_err(), "{bad}");
        }
        let ns: Namespace = "a/b".parse().unwrap();
        assert_eq!(AclPath::datastore(&"main".parse().unwrap(), &ns).to_string(), "/datastore/main/a/b");
    }
}
