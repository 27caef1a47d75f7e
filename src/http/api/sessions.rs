//! `backup` and `reader`: GET requests that become sessions.

use http::Method;

use crate::http::router::{Access, BodyUse, Reply, Route};
use crate::http::upgrade;

/// Rights are checked by the handlers, in the recorded order and words.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "backup",
        access: Access::Authenticated,
        body: BodyUse::Raw,
        params: upgrade::BACKUP_PARAMS,
        handler: |context, params| Box::pin(async { upgrade::backup(context, params).await.map(Reply::Raw) }),
        about: "Begins a backup: the connection becomes the backup protocol.",
    },
    Route {
        method: Method::GET,
        path: "reader",
        access: Access::Authenticated,
        body: BodyUse::Raw,
        params: upgrade::READER_PARAMS,
        handler: |context, params| Box::pin(async { upgrade::reader(context, params).await.map(Reply::Raw) }),
        about: "Begins a restore: the connection becomes the reader protocol.",
    },
];
