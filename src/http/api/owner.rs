//! `…/change-owner`.

use http::Method;
use serde_json::Value;

use super::access::AUTH_ID;
use super::{BACKUP_ID, BACKUP_TYPE, NS, Place, RequestContext, STORE, reply};
use crate::auth::Privileges;
use crate::error::{Error, Result};
use crate::http::params::{ParamSpec, Params};
use crate::http::rights::{Reach, group_of};
use crate::http::router::{Access, BodyUse, Reply, Returns, Route};
use crate::types::AuthId;

pub(super) const ROUTES: &[Route] = &[Route {
    method: Method::POST,
    path: "admin/datastore/{store}/change-owner",
    access: Access::Groups { full: Privileges::DATASTORE_MODIFY, own: Privileges::DATASTORE_BACKUP },
    body: BodyUse::Parameters,
    params: &[
        STORE,
        NS,
        BACKUP_TYPE,
        BACKUP_ID,
        ParamSpec::required("new-owner", AUTH_ID, "A user or an API token, which has to be active."),
    ],
    returns: Returns::NULL,
    handler: |context, params| Box::pin(change(context, params)),
    about: "Gives a group to another owner. Without Datastore.Modify only between a user and that user's own tokens.",
}];

async fn change(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, group) = (Place::of(&params)?, group_of(&params)?);
    let new: AuthId = params.parsed("new-owner")?;
    let store = place.open(&context)?;
    let allowed = {
        let (asker, new, group, reach) = (context.auth.clone(), new.clone(), group.clone(), context.reach);
        move |now: Result<AuthId>| match reach {
            // Whatever the owner file says, or whether it can be read: this is how it is put right.
            Reach::All => Ok(()),
            Reach::Own if may_hand_over(&asker, &now?, &new) => Ok(()),
            Reach::Own => Err(Error::unauthenticated(format!(
                "{asker} does not have permission to change owner of backup group '{group}' to {new}"
            ))),
        }
    };
    if context.reach == Reach::Own {
        // Before anything is said about the new owner: who exists is not told to everybody.
        allowed.clone()(store.owner(&place.ns, &group).await)?;
    }
    if !context.app.users.get().is_active(&new, context.app.clock.now()) {
        let kind = if new.token().is_some() { "token" } else { "user" };
        return Err(Error::invalid(format!("{kind} '{new}' is inactive or non-existent")));
    }
    store.change_owner(&place.ns, &group, &new, allowed).await?;
    tracing::info!(store = %place.store, ns = %place.ns, %group, owner = %new, by = %context.auth, "owner changed");
    reply(Value::Null)
}

/// Whether somebody without rights over all groups may give a group away: one's own, within one's own user, and a token to nobody but that
/// user.
fn may_hand_over(asker: &AuthId, now: &AuthId, new: &AuthId) -> bool {
    let among_own = asker.owns(now) && now.user() == new.user();
    among_own && (asker.token().is_none() || new.token().is_none() || new == now)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_stays_in_the_family() {
        for (asker, now, new, want) in [
            ("a@pbs", "a@pbs", "a@pbs!t", true),
            ("a@pbs", "a@pbs!t", "a@pbs", true),
            ("a@pbs", "a@pbs!t", "a@pbs!s", true),
            ("a@pbs!t", "a@pbs!t", "a@pbs", true),
            ("a@pbs!t", "a@pbs!t", "a@pbs!t", true),
            ("a@pbs!t", "a@pbs!t", "a@pbs!s", false),
            ("a@pbs!t", "a@pbs", "a@pbs!t", false),
            ("a@pbs!s", "a@pbs!t", "a@pbs", false),
            ("a@pbs", "a@pbs", "b@pbs", false),
            ("a@pbs", "a@pbs!t", "b@pbs!t", false),
            ("a@pbs", "b@pbs", "a@pbs", false),
            ("a@pbs", "b@pbs!t", "a@pbs", false),
        ] {
            let id = |text: &str| text.parse::<AuthId>().unwrap();
            assert_eq!(may_hand_over(&id(asker), &id(now), &id(new)), want, "{asker}: {now} to {new}");
        }
    }
}
