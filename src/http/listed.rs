//! Which rows of a list somebody sees: data of the list's row in the table of calls, asked by its handler about each row that it would show
//! (spec 05 §2.3).

use super::context::RequestContext;
use super::rights::Where;
use crate::auth::{AclPath, Privileges};
use crate::task;
use crate::types::{AuthId, DatastoreName, Namespace, Upid};

/// Who sees a row of a list.
#[derive(Clone, Copy, Debug)]
pub struct RowFilter {
    /// Any of these is enough: one of the privileges, at that place.
    pub grants: &'static [(Privileges, Where)],
    /// What is seen without any privilege.
    pub own: Own,
    /// Whether somebody who sees nothing is refused instead of shown an empty list.
    pub is_refused_if_empty: bool,
}

/// Rows that somebody sees because they are their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Own {
    /// None.
    Nothing,
    /// About the user who asks. A token is not its user.
    Oneself,
    /// About tokens of the user who asks.
    Tokens,
    /// Tasks that the asker started, or a token of the user who asks.
    Tasks,
}

/// What a row of a list is about.
#[derive(Clone, Copy, Debug)]
pub enum About<'a> {
    /// A datastore.
    Datastore(&'a DatastoreName),
    /// A namespace, or something in it.
    Namespace(&'a DatastoreName, &'a Namespace),
    /// A task.
    Task(&'a Upid),
    /// A user or a token.
    Account(&'a AuthId),
}

impl RowFilter {
    /// Whether the asker sees a row. Costs a look at their permissions for each grant, and no disk access.
    pub fn shows(&self, context: &RequestContext, about: About<'_>) -> bool {
        let holds = |&(wanted, place): &(Privileges, Where)| held(context, place, about).has_any(wanted);
        self.own.covers(&context.auth, about) || self.grants.iter().any(holds)
    }

    /// For documentation: who sees what, in one line.
    pub(super) fn describe(&self) -> String {
        let grants = self.grants.iter().map(|(wanted, place)| match place {
            Where::BelowDatastore => format!("anything on {}", place.describe()),
            _ => format!("{wanted} on {}", place.describe()),
        });
        let mut text = format!("any login, for each entry: {}", grants.collect::<Vec<_>>().join("; or "));
        if let Some(own) = self.own.describe() {
            text.push_str(&format!("; without that, {own}"));
        }
        if self.is_refused_if_empty {
            text.push_str("; who may see none is refused");
        }
        text
    }
}

impl Own {
    fn covers(self, auth: &AuthId, about: About<'_>) -> bool {
        let is_user = |of: &AuthId| auth.token().is_none() && auth.user() == of.user();
        match (self, about) {
            (Self::Oneself, About::Account(of)) => is_user(of),
            (Self::Tokens, About::Account(of)) => of.token().is_some() && is_user(of),
            (Self::Tasks, About::Task(upid)) => auth.owns(&upid.auth_id),
            _ => false,
        }
    }

    fn describe(self) -> Option<&'static str> {
        match self {
            Self::Nothing => None,
            Self::Oneself => Some("users themselves"),
            Self::Tokens => Some("users those of their own tokens"),
            Self::Tasks => Some("who started the task, or the user of the token that did"),
        }
    }
}

/// What the asker may do at the place of what a row is about; nothing if it has no such place.
fn held(context: &RequestContext, place: Where, about: About<'_>) -> Privileges {
    let datastore = |name: &DatastoreName| AclPath::datastore(name, &Namespace::root());
    let path = match (place, about) {
        (Where::At(path), _) => AclPath::fixed(path),
        (Where::EachDatastore, About::Datastore(name)) => datastore(name),
        (Where::BelowDatastore, About::Datastore(name)) => {
            return context.app.users.get().acl.privileges_below(&context.auth, &datastore(name));
        }
        (Where::JobNamespace | Where::EachNamespace, About::Namespace(name, ns)) => AclPath::datastore(name, ns),
        (Where::TaskDatastore(types), About::Task(upid)) if types.contains(&upid.worker_type.as_str()) => {
            match task::store_of(upid).and_then(|name| name.parse().ok()) {
                Some(name) => datastore(&name),
                None => return Privileges::NONE,
            }
        }
        _ => return Privileges::NONE,
    };
    context.privileges(&path)
}
