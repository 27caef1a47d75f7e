//! Who may make a call: the rule of its row, enforced before its handler runs (spec 05 §2.3, §4).

use super::context::RequestContext;
use super::listed::RowFilter;
use super::params::Params;
use crate::auth::{AclPath, Privileges};
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::store::Operation;
use crate::types::{AuthId, DatastoreName, Group, Namespace, Snapshot};

/// Who may make a call.
#[derive(Clone, Copy, Debug)]
pub enum Access {
    /// Nobody needs to log in.
    Anybody,
    /// Whoever is logged in; the answer is the same for all of them.
    Authenticated,
    /// Whoever is logged in; of the list they see what the filter shows them.
    Listed(RowFilter),
    /// Whoever has one of these privileges at a fixed place of the ACL.
    At(&'static str, Privileges),
    /// Whoever has one of these privileges on `/datastore/{store}`.
    Store(Privileges),
    /// Whoever has one of these privileges on `/datastore/{store}`, or any privilege on something below it.
    StoreOrBelow(Privileges),
    /// Groups of the namespace: `full` reaches all of them, `own` the asker's. The handler heeds [`RequestContext::may_use`].
    Groups {
        /// On all groups.
        full: Privileges,
        /// On one's own.
        own: Privileges,
    },
    /// The group that `backup-type` and `backup-id` name: `full` reaches any, with `own` it has to be the asker's.
    Group {
        /// On any group.
        full: Privileges,
        /// On one's own.
        own: Privileges,
    },
    /// Whoever has one of these privileges on the parent namespace: `parent`, or the parent of `ns`.
    ParentNamespace(Privileges),
    /// A rule that needs what only the handler knows; as data, so that documentation and tests are made from it.
    Handler(HandlerRule),
}

/// Who may make a call whose handler looks itself.
#[derive(Clone, Copy, Debug)]
pub struct HandlerRule {
    /// Any of these is enough: one of the privileges, at that place.
    pub grants: &'static [(Privileges, Where)],
    /// Whether it matters whose the group is.
    pub groups: Ownership,
    /// What else the handler allows, in words; empty for nothing.
    pub also: &'static str,
}

/// Whether the group that a call names has to be the asker's. One that does not exist yet is nobody's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ownership {
    /// No, or the call names none.
    Any,
    /// For whoever has none but these privileges.
    With(Privileges),
    /// For everybody.
    Always,
}

/// Where a handler looks for a privilege.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// A fixed place of the ACL.
    At(&'static str),
    /// The namespace that `ns` names, the root without it.
    Namespace,
    /// The namespace that `parent` names, and each below it on its own.
    EachNamespace,
    /// The namespace of the job that `id` names, or of each job on its own.
    JobNamespace,
    /// Each datastore on its own.
    EachDatastore,
    /// Anything below each datastore on its own.
    BelowDatastore,
    /// The datastore that a task of one of these types works on.
    TaskDatastore(&'static [&'static str]),
}

impl Where {
    pub(super) fn describe(self) -> String {
        match self {
            Self::At(path) => path.to_owned(),
            Self::Namespace => "the namespace".to_owned(),
            Self::EachNamespace => "the namespace".to_owned(),
            Self::JobNamespace => "the job's namespace".to_owned(),
            Self::EachDatastore => "the datastore".to_owned(),
            Self::BelowDatastore => "something below the datastore".to_owned(),
            Self::TaskDatastore(types) => format!("the datastore of a task of type {}", types.join(" or ")),
        }
    }
}

impl Ownership {
    fn describe(self) -> Option<String> {
        match self {
            Self::Any => None,
            Self::With(privileges) => Some(format!("with {privileges} own groups only")),
            Self::Always => Some("an existing group has to be one's own".to_owned()),
        }
    }
}

/// How far the asker's privileges go in a call about groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// All groups.
    All,
    /// The asker's own groups.
    Own,
}

/// Why a call is refused.
#[derive(Debug)]
pub(super) enum Refused {
    /// By its row; answered after a wait, in the same words for all.
    Plainly,
    /// With words of its own.
    With(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self::With(error)
    }
}

impl Access {
    /// For documentation: who may, in one line.
    pub fn describe(&self) -> String {
        let groups = |full: &Privileges, own: &Privileges| match (full.is_empty(), own.is_empty()) {
            (true, _) => format!("{own} on the namespace, own groups only"),
            (_, true) => format!("{full} on the namespace"),
            _ => format!("{full} on the namespace; or {own}, own groups only"),
        };
        match self {
            Self::Anybody => "anybody, without login".to_owned(),
            Self::Authenticated => "any login".to_owned(),
            Self::Listed(filter) => filter.describe(),
            Self::At(path, wanted) => format!("{wanted} on {path}"),
            Self::Store(wanted) => format!("{wanted} on the datastore"),
            Self::StoreOrBelow(wanted) => format!("{wanted} on the datastore, or anything below it"),
            Self::Groups { full, own } | Self::Group { full, own } => groups(full, own),
            Self::ParentNamespace(wanted) => format!("{wanted} on the parent namespace"),
            Self::Handler(HandlerRule { grants, groups, also }) => {
                let grants = grants.iter().map(|(wanted, place)| format!("{wanted} on {}", place.describe()));
                let parts = grants.chain(groups.describe()).chain((!also.is_empty()).then(|| (*also).to_owned()));
                parts.collect::<Vec<_>>().join("; ")
            }
        }
    }
}

/// Enforces the rule of a row. Costs no disk access but for the owner of a group.
pub(super) async fn enforce(access: Access, context: &RequestContext, params: &Params) -> Result<Reach, Refused> {
    let allow = |yes: bool| if yes { Ok(Reach::All) } else { Err(Refused::Plainly) };
    match access {
        Access::Anybody | Access::Authenticated | Access::Listed(_) | Access::Handler(_) => Ok(Reach::All),
        Access::At(path, wanted) => allow(context.privileges(&path.parse()?).has_any(wanted)),
        Access::Store(wanted) => allow(context.privileges(&store_path(params)?).has_any(wanted)),
        Access::StoreOrBelow(wanted) => {
            let path = store_path(params)?;
            let below = || context.app.users.get().acl.privileges_below(&context.auth, &path);
            allow(context.privileges(&path).has_any(wanted) || !below().is_empty())
        }
        Access::Groups { full, own } => Ok(reach(context, params, full, own)?),
        Access::Group { full, own } => {
            let reach = reach(context, params, full, own)?;
            if reach == Reach::Own {
                check_owner(context, params).await?;
            }
            Ok(reach)
        }
        Access::ParentNamespace(wanted) => {
            let store: DatastoreName = params.parsed("store")?;
            let parent = match params.parsed_opt::<Namespace>("ns")? {
                Some(ns) => ns.parent().ok_or_else(|| Error::invalid("cannot delete root namespace!"))?,
                None => params.parsed_opt("parent")?.unwrap_or_default(),
            };
            demand(context, &AclPath::datastore(&store, &parent), wanted)?;
            Ok(Reach::All)
        }
    }
}

/// Refuses whoever has none of these privileges at a place, in the recorded words.
pub(super) fn demand(context: &RequestContext, path: &AclPath, wanted: Privileges) -> Result<()> {
    if context.privileges(path).has_any(wanted) {
        return Ok(());
    }
    Err(Error::denied(format!("permission check failed - missing {wanted} on {path}")))
}

/// `/datastore/{store}`.
fn store_path(params: &Params) -> Result<AclPath> {
    Ok(AclPath::datastore(&params.parsed("store")?, &Namespace::root()))
}

/// A privilege of `full` reaches all groups, one of `own` one's own; neither is refused in the recorded words.
fn reach(context: &RequestContext, params: &Params, full: Privileges, own: Privileges) -> Result<Reach> {
    let ns = params.parsed_opt("ns")?.unwrap_or_default();
    let path = AclPath::datastore(&params.parsed("store")?, &ns);
    if context.privileges(&path).has_any(full) {
        return Ok(Reach::All);
    }
    // Names both in what is missing.
    demand(context, &path, full.union(own)).map(|()| Reach::Own)
}

async fn check_owner(context: &RequestContext, params: &Params) -> Result<()> {
    let ns: Namespace = params.parsed_opt("ns")?.unwrap_or_default();
    let store = context.app.datastore(&params.parsed("store")?)?;
    let _reading = store.begin_operation(Operation::Read)?;
    let owner = store.owner(&ns, &group_of(params)?).await?;
    owned_by(&context.auth, &owner)
}

/// Refuses somebody else's group in the recorded words.
pub(super) fn owned_by(auth: &AuthId, owner: &AuthId) -> Result<()> {
    if auth.owns(owner) {
        return Ok(());
    }
    Err(Error::invalid(format!("backup owner check failed ({auth} != {owner})")))
}

/// The group that `backup-type` and `backup-id` name.
pub(super) fn group_of(params: &Params) -> Result<Group> {
    Group::new(params.parsed("backup-type")?, params.text("backup-id").unwrap_or_default())
}

/// The snapshot that `backup-type`, `backup-id` and `backup-time` name.
pub(super) fn snapshot_of(params: &Params) -> Result<Snapshot> {
    Snapshot::new(group_of(params)?, EpochSecs(params.int("backup-time").unwrap_or_default()))
}
