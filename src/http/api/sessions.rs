//! `backup` and `reader`: GET requests that become sessions.

use http::Method;

use crate::auth::Privileges;
use crate::http::rights::{HandlerRule, Ownership, Where};
use crate::http::router::{Access, BodyUse, Reply, Returns, Route};
use crate::http::upgrade;

/// Rights are checked by the handlers, in the recorded order and words.
const BACKUP: Access = Access::Handler(HandlerRule {
    grants: &[(Privileges::DATASTORE_BACKUP, Where::Namespace)],
    groups: Ownership::Always,
    also: "",
});
const READER: Access = Access::Handler(HandlerRule {
    grants: &[(Privileges::DATASTORE_READ, Where::Namespace), (Privileges::DATASTORE_BACKUP, Where::Namespace)],
    groups: Ownership::With(Privileges::DATASTORE_BACKUP),
    also: "",
});

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "backup",
        access: BACKUP,
        body: BodyUse::Raw,
        params: upgrade::BACKUP_PARAMS,
        returns: Returns::Upgrade,
        handler: |context, params| Box::pin(async { upgrade::backup(context, params).await.map(Reply::Raw) }),
        about: "Begins a backup: the connection becomes the backup protocol.",
    },
    Route {
        method: Method::GET,
        path: "reader",
        access: READER,
        body: BodyUse::Raw,
        params: upgrade::READER_PARAMS,
        returns: Returns::Upgrade,
        handler: |context, params| Box::pin(async { upgrade::reader(context, params).await.map(Reply::Raw) }),
        about: "Begins a restore: the connection becomes the reader protocol.",
    },
];
