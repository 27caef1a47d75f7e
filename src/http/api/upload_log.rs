//! `…/upload-backup-log`: what a client adds to its snapshot after it is finished.

use http::Method;
use serde_json::Value;

use super::{Place, RequestContext, SNAPSHOT_PARAMS, reply, snapshot_of};
use crate::auth::Privileges;
use crate::error::Result;
use crate::format::blob::BLOB_ENCODED_BYTES_MAX;
use crate::http::params::Params;
use crate::http::router::{Access, BodyUse, Reply, Returns, Route};

pub(super) const ROUTES: &[Route] = &[Route {
    method: Method::POST,
    path: "admin/datastore/{store}/upload-backup-log",
    // However much somebody may: the log is the backup owner's word.
    access: Access::Group { full: Privileges::NONE, own: Privileges::DATASTORE_BACKUP },
    body: BodyUse::Raw,
    params: SNAPSHOT_PARAMS,
    returns: Returns::NULL,
    handler: |context, params| Box::pin(upload(context, params)),
    about: "Stores the client's log of a backup.",
}];

async fn upload(mut context: RequestContext, params: Params) -> Result<Reply> {
    let (place, snapshot) = (Place::of(&params)?, snapshot_of(&params)?);
    let bytes_max = usize::try_from(BLOB_ENCODED_BYTES_MAX).unwrap_or(usize::MAX);
    let blob = context.read_body(bytes_max).await?;
    let store = place.open(&context)?;
    store.upload_client_log(&place.ns, &snapshot, blob.into()).await?;
    reply(Value::Null)
}
