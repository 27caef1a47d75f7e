//! `…/download` and `…/download-decoded`: a file of a snapshot as it lies there, and what is in it.

use bytes::Bytes;
use http::Method;

use super::{BACKUP_ID, BACKUP_TIME, BACKUP_TYPE, NS, Place, RequestContext, STORE, snapshot_of};
use crate::auth::Privileges;
use crate::error::{Error, Result};
use crate::format::blob::{self, BLOB_ENCODED_BYTES_MAX, BlobHeader, CrcPolicy};
use crate::format::manifest::{CryptMode, Manifest};
use crate::http::decoded::{self, Source};
use crate::http::params::{ParamKind, ParamSpec, Params};
use crate::http::reply::{self, OCTET_STREAM};
use crate::http::router::{Access, BodyUse, Reply, Returns, Route};
use crate::http::session::file_body;
use crate::store::IndexReader;
use crate::types::{ArchiveKind, ArchiveName};

const ACCESS: Access = Access::Group { full: Privileges::DATASTORE_READ, own: Privileges::DATASTORE_BACKUP };

const PARAMS: &[ParamSpec] = &[
    STORE,
    NS,
    BACKUP_TYPE,
    BACKUP_ID,
    BACKUP_TIME,
    ParamSpec::required("file-name", ParamKind::SAFE_ID, "A file of the snapshot: `.fidx`, `.didx` or `.blob`."),
];

pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::GET,
        path: "admin/datastore/{store}/download",
        access: ACCESS,
        body: BodyUse::Raw,
        params: PARAMS,
        returns: Returns::Stream(OCTET_STREAM),
        handler: |context, params| Box::pin(download(context, params)),
        about: "A file of a snapshot, as it is stored.",
    },
    Route {
        method: Method::GET,
        path: "admin/datastore/{store}/download-decoded",
        access: ACCESS,
        body: BodyUse::Raw,
        params: PARAMS,
        returns: Returns::Stream(OCTET_STREAM),
        handler: |context, params| Box::pin(download_decoded(context, params)),
        about: "The content of an archive or blob, which must not be encrypted. A chunk that is missing or wrong cuts it off.",
    },
];

async fn download(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, snapshot) = (Place::of(&params)?, snapshot_of(&params)?);
    let name: ArchiveName = params.parsed("file-name")?;
    let file = place.open(&context)?.open_file(&place.ns, &snapshot, &name).await?;
    Ok(Reply::Raw(reply::octet_stream(file_body(file))))
}

async fn download_decoded(context: RequestContext, params: Params) -> Result<Reply> {
    let (place, snapshot) = (Place::of(&params)?, snapshot_of(&params)?);
    let name: ArchiveName = params.parsed("file-name")?;
    let store = place.open(&context)?;
    let manifest = store.load_manifest(&place.ns, &snapshot).await?.manifest;
    if manifest.file(&name).is_some_and(|file| file.crypt_mode == CryptMode::Encrypt) {
        return Err(is_encrypted(&name));
    }
    if name.kind() == ArchiveKind::Blob {
        let file = store.open_file(&place.ns, &snapshot, &name).await?;
        let encoded = file.read_all(BLOB_ENCODED_BYTES_MAX).await?;
        let plain = context.app.compute.run(move || decode_blob(&name, &encoded)).await??;
        return Ok(Reply::Raw(reply::octet_stream(reply::full(plain))));
    }
    let index = store.open_index(&place.ns, &snapshot, &name).await?;
    check_index(&manifest, &name, &index).await?;
    let lifecycle = context.app.lifecycle.clone();
    let guard = lifecycle.enter()?;
    let compute = context.app.compute.clone();
    let mut content = decoded::begin(Source { store, compute, index, lifecycle, guard });
    content.first().await?;
    Ok(Reply::Raw(reply::octet_stream(content.body("download", b"", |()| Bytes::new()))))
}

fn is_encrypted(name: &ArchiveName) -> Error {
    Error::invalid(format!("cannot decode '{name}' - is encrypted"))
}

/// A blob need not be in the manifest, which lists neither itself nor the client's log; so its own header is asked too.
fn decode_blob(name: &ArchiveName, encoded: &[u8]) -> Result<Vec<u8>> {
    let header = BlobHeader::parse(encoded).map_err(|e| e.context(format_args!("cannot decode '{name}'")))?;
    if header.kind.is_encrypted() {
        return Err(is_encrypted(name));
    }
    let plain = blob::decode(encoded, BLOB_ENCODED_BYTES_MAX, CrcPolicy::Check);
    plain.map_err(|e| e.context(format_args!("cannot decode '{name}'")))
}

/// Whether an index is the one that its manifest lists. Reads all of it.
async fn check_index(manifest: &Manifest, name: &ArchiveName, index: &IndexReader) -> Result<()> {
    let listed = manifest.file(name);
    let listed = listed.ok_or_else(|| Error::corrupt(format!("manifest does not contain file '{name}'")))?;
    if listed.size != index.size_bytes() {
        let (wanted, found) = (listed.size, index.size_bytes());
        return Err(Error::corrupt(format!("wrong size for file '{name}' ({wanted} != {found})")));
    }
    let mut scan = index.scan();
    while scan.next_block().await?.is_some() {}
    if scan.csum() != Some(listed.csum) {
        return Err(Error::corrupt(format!("wrong checksum for file '{name}'")));
    }
    Ok(())
}
