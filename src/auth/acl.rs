//! Who may do what where (spec 05 §2.3). Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use super::privilege::{Privileges, Role};
use crate::error::{Error, Result};
use crate::types::{AuthId, DatastoreName, Namespace, is_safe_id};

/// Most components of a path: `datastore`, a name, seven namespaces.
const COMPONENTS_MAX: usize = 9;

/// What a path may begin with. Nothing here asks about `remote` and `tape`, but imported permissions name them.
const TOP_LEVELS: [&str; 5] = ["access", "datastore", "remote", "system", "tape"];

/// What a path looks like, as a regular expression of ECMA 262; [`AclPath::from_str`] is a little stricter.
pub const ACL_PATH_PATTERN: &str = r"^/+(([A-Za-z0-9_][A-Za-z0-9._\-]*/+){0,8}[A-Za-z0-9_][A-Za-z0-9._\-]*/*)?$";

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

    /// `/access/…`, `/system/…`: a place that the program itself names.
    pub fn fixed(path: &'static str) -> Self {
        path.parse().expect("a path of permissions")
    }

    /// Whether it lies below `above`; no place lies below itself.
    pub fn is_below(&self, above: &Self) -> bool {
        self.components.len() > above.components.len() && self.components.starts_with(&above.components)
    }
}

impl FromStr for AclPath {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{s:.80?} is not a path of permissions: /, /datastore/NAME, … expected"));
        let tail = s.strip_prefix('/').ok_or_else(wrong)?;
        let components: Vec<String> = tail.split('/').filter(|c| !c.is_empty()).map(ToOwned::to_owned).collect();
        let good = components.len() <= COMPONENTS_MAX
            && components.first().is_none_or(|first| TOP_LEVELS.contains(&first.as_str()))
            && components.iter().all(|c| is_safe_id(c));
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
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

/// What somebody holds at a place.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// At the place itself.
    pub here: Privileges,
    /// What of it is handed on to the places below, where no role of their own replaces it.
    pub below: Privileges,
}

/// All permissions, by whom they are for: a request asks about one id only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Acl {
    /// Id → place → role → whether it propagates.
    rows: BTreeMap<AuthId, BTreeMap<AclPath, BTreeMap<Role, bool>>>,
}

impl Acl {
    /// Gives a role to somebody at a place; one that is there already takes on `propagate`.
    pub fn allow(&mut self, entry: AclEntry) {
        let AclEntry { path, auth_id, role, propagate } = entry;
        self.rows.entry(auth_id).or_default().entry(path).or_default().insert(role, propagate);
    }

    /// Takes a role away from somebody at a place; `false` if it was not there.
    pub fn revoke(&mut self, auth: &AuthId, path: &AclPath, role: Role) -> bool {
        let Some(places) = self.rows.get_mut(auth) else { return false };
        let Some(roles) = places.get_mut(path) else { return false };
        let was_there = roles.remove(&role).is_some();
        places.retain(|_, roles| !roles.is_empty());
        self.rows.retain(|_, places| !places.is_empty());
        was_there
    }

    /// Takes everything away from somebody, who is about to go.
    pub fn forget(&mut self, auth: &AuthId) {
        self.rows.remove(auth);
    }

    /// All permissions, sorted by place, id and role.
    pub fn entries(&self) -> Vec<AclEntry> {
        let entry = |auth_id: &AuthId, path: &AclPath, role: Role, propagate: bool| AclEntry {
            path: path.clone(),
            auth_id: auth_id.clone(),
            role,
            propagate,
        };
        let mut entries = Vec::with_capacity(self.len());
        for (auth_id, places) in &self.rows {
            for (path, roles) in places {
                entries.extend(roles.iter().map(|(role, propagate)| entry(auth_id, path, *role, *propagate)));
            }
        }
        entries.sort();
        entries
    }

    /// How many permissions there are.
    pub fn len(&self) -> usize {
        self.rows.values().flat_map(BTreeMap::values).map(BTreeMap::len).sum()
    }

    /// Whether nobody may do anything.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The places that roles of this id, or of the user whose token it is, are given on.
    pub fn places_of(&self, auth: &AuthId) -> BTreeSet<&AclPath> {
        let user = AuthId::from(auth.user().clone());
        [auth, &user].into_iter().filter_map(|id| self.rows.get(id)).flat_map(BTreeMap::keys).collect()
    }

    /// What `auth` may do at `path`. A token may do what both it and its user may.
    pub fn privileges(&self, auth: &AuthId, path: &AclPath) -> Privileges {
        self.held(auth, path).here
    }

    /// What `auth` may do at `path`, and what of it goes on below.
    pub fn held(&self, auth: &AuthId, path: &AclPath) -> Held {
        let own = self.own(auth, path);
        if auth.token().is_none() {
            return own;
        }
        let user = self.own(&auth.user().clone().into(), path);
        Held { here: own.here.intersection(user.here), below: own.below.intersection(user.below) }
    }

    /// What `auth` may do somewhere below `path`, `path` itself left out.
    pub fn privileges_below(&self, auth: &AuthId, path: &AclPath) -> Privileges {
        let places = self.places_of(auth).into_iter().filter(|place| place.is_below(path));
        places.fold(Privileges::NONE, |sum, place| sum.union(self.privileges(auth, place)))
    }

    /// From the root down: roles at a deeper place replace those inherited, `NoAccess` silences its place.
    fn own(&self, auth: &AuthId, path: &AclPath) -> Held {
        if auth.token().is_none() && auth.user().is_superuser() {
            return Held { here: Privileges::ALL, below: Privileges::ALL };
        }
        let mut held = Held::default();
        let Some(places) = self.rows.get(auth) else { return held };
        for depth in 0..=path.components.len() {
            let place = AclPath { components: path.components[..depth].to_vec() };
            let Some(roles) = places.get(&place) else { continue };
            if depth == path.components.len() {
                held.here = sum_of(roles.keys()).unwrap_or(held.below);
            }
            held.below =
                sum_of(roles.iter().filter(|(_, propagate)| **propagate).map(|(role, _)| role)).unwrap_or(held.below);
            if depth == path.components.len() {
                return held;
            }
        }
        held.here = held.below;
        held
    }
}

impl FromIterator<AclEntry> for Acl {
    fn from_iter<I: IntoIterator<Item = AclEntry>>(entries: I) -> Self {
        let mut acl = Self::default();
        entries.into_iter().for_each(|entry| acl.allow(entry));
        acl
    }
}

/// What several roles at one place give together; `None` if there is no role.
fn sum_of<'a>(roles: impl Iterator<Item = &'a Role> + Clone) -> Option<Privileges> {
    if roles.clone().any(|role| *role == Role::NoAccess) {
        return Some(Privileges::NONE);
    }
    roles.map(|role| role.privileges()).reduce(Privileges::union)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acl(rows: &[(&str, &str, Role, bool)]) -> Acl {
        let mut acl = Acl::default();
        for (path, auth_id, role, propagate) in rows {
            let (path, auth_id) = (path.parse().unwrap(), auth_id.parse().unwrap());
            acl.allow(AclEntry { path, auth_id, role: *role, propagate: *propagate });
        }
        acl
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
    fn a_role_that_does_not_propagate_leaves_to_others_what_they_inherit() {
        let acl = acl(&[
            ("/", "u@pbs", Role::Audit, true),
            ("/datastore/a", "u@pbs", Role::DatastoreBackup, false),
            ("/datastore/a", "u@pbs!t", Role::Admin, true),
        ]);
        let held = |auth: &str, path: &str| acl.held(&auth.parse().unwrap(), &path.parse().unwrap());
        let (audit, backup) = (Role::Audit.privileges(), Role::DatastoreBackup.privileges());
        for (auth, path, here, below) in [
            ("u@pbs", "/datastore/a", backup, audit),
            ("u@pbs", "/datastore/a/n", audit, audit),
            ("u@pbs!t", "/datastore/a", backup, audit),
            ("u@pbs!t", "/datastore", Privileges::NONE, Privileges::NONE),
            ("root@pam", "/", Privileges::ALL, Privileges::ALL),
        ] {
            assert_eq!(held(auth, path), Held { here, below }, "{auth} {path}");
        }
    }

    #[test]
    fn roles_are_given_and_taken_one_by_one() {
        let row = |role: Role, propagate: bool| AclEntry {
            path: "/datastore".parse().unwrap(),
            auth_id: "u@pbs".parse().unwrap(),
            role,
            propagate,
        };
        let mut acl = Acl::default();
        acl.allow(row(Role::Audit, true));
        acl.allow(row(Role::Admin, true));
        acl.allow(row(Role::Audit, false));
        assert_eq!(acl.entries(), [row(Role::Admin, true), row(Role::Audit, false)]);
        let (auth, path) = ("u@pbs".parse().unwrap(), "/datastore".parse().unwrap());
        assert!(acl.revoke(&auth, &path, Role::Admin) && !acl.revoke(&auth, &path, Role::Admin));
        assert!(acl.revoke(&auth, &path, Role::Audit));
        assert_eq!((acl.len(), &acl), (0, &Acl::default()));
        acl.allow(row(Role::Audit, true));
        acl.forget(&auth);
        assert!(acl.is_empty());
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
        for (odd, plain) in [("//", "/"), ("//datastore//main/", "/datastore/main"), ("/access/acl///", "/access/acl")]
        {
            assert_eq!(odd.parse::<AclPath>().unwrap().to_string(), plain);
        }
        for bad in [
            "",
            "datastore",
            "/nope",
            "/datastore/..",
            "/datastore/../access",
            "/datastore/./a",
            "/datastore/.a",
            "/datastore/a%2Fb",
            "/datastore/%2e%2e",
            "/datastore/a\\b",
            "/datastore/a b",
            "/datastore/ä",
            "/datastore/a\nb",
            "/datastore/a\0",
            "/datastore/1/2/3/4/5/6/7/8/9",
        ] {
            assert!(bad.parse::<AclPath>().is_err(), "{bad}");
        }
        let ns: Namespace = "a/b".parse().unwrap();
        assert_eq!(AclPath::datastore(&"main".parse().unwrap(), &ns).to_string(), "/datastore/main/a/b");
    }
}
