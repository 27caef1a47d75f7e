//! The parameters of each call of both protocols: a table, and checked values → action. Pure.

use crate::error::Result;
use crate::http::params::{self, ParamErrors, ParamKind, ParamSpec, Params, Received};
use crate::protocol::action::{
    Action, Append, BackupEndpoint, ChunkUpload, Close, CreateIndex, ReaderEndpoint, WriterId, WriterKind,
};
use crate::types::{ArchiveName, CHUNK_BYTES_MAX, ChunkSize, DatastoreName, Digest, Group, Namespace, Snapshot};

use crate::clock::EpochSecs;
use crate::format::blob::{BLOB_BYTES_MIN, BLOB_ENCODED_BYTES_MAX};

/// Longest encoded body of a chunk or blob, as the schema says it.
const ENCODED_MAX: i64 = BLOB_ENCODED_BYTES_MAX.cast_signed();
const NAME: ParamKind = ParamKind::SAFE_ID;
const WID: ParamSpec = ParamSpec::required(
    "wid",
    ParamKind::Integer { min: 1, max: WriterId::MAX.cast_signed() as i64 },
    "Number of an index writer.",
);
const ARCHIVE: ParamSpec = ParamSpec::required("archive-name", NAME, "Name of an index.");
const POSITIVE: ParamKind = ParamKind::Integer { min: 1, max: i64::MAX };
const NOT_NEGATIVE: ParamKind = ParamKind::Integer { min: 0, max: i64::MAX };

const NONE: &[ParamSpec] = &[];
const BLOB: &[ParamSpec] = &[
    ParamSpec::required("file-name", NAME, "Name of the blob."),
    ParamSpec::required(
        "encoded-size",
        ParamKind::Integer { min: BLOB_BYTES_MIN.cast_signed(), max: ENCODED_MAX },
        "Length of the body.",
    ),
];
const CREATE_DYNAMIC: &[ParamSpec] = &[ARCHIVE];
const CREATE_FIXED: &[ParamSpec] = &[
    ARCHIVE,
    ParamSpec::required("size", POSITIVE, "Length of the image."),
    ParamSpec::optional("reuse-csum", ParamKind::ANY_TEXT, "Copy the previous index if it has this checksum."),
];
const CHUNK: &[ParamSpec] = &[
    WID,
    ParamSpec::required("digest", ParamKind::DIGEST, "Name of the chunk."),
    ParamSpec::required(
        "size",
        ParamKind::Integer { min: 1, max: CHUNK_BYTES_MAX.cast_signed() as i64 },
        "Length of the plaintext.",
    ),
    ParamSpec::required(
        "encoded-size",
        ParamKind::Integer { min: BLOB_BYTES_MIN.cast_signed() + 1, max: ENCODED_MAX },
        "Length of the body.",
    ),
];
const APPEND: &[ParamSpec] = &[
    WID,
    ParamSpec::required("digest-list", ParamKind::List(&ParamKind::DIGEST), "Names of chunks."),
    ParamSpec::required("offset-list", ParamKind::List(&NOT_NEGATIVE), "Where each chunk starts."),
];
/// The checksum is not part of the schema: what is wrong with it is said in the words of the hex decoder (recorded).
const fn close(smallest: ParamKind) -> [ParamSpec; 4] {
    [
        WID,
        ParamSpec::required("chunk-count", smallest, "How many chunks were appended."),
        ParamSpec::required("size", smallest, "Length of the image or stream."),
        ParamSpec::required("csum", ParamKind::ANY_TEXT, "Checksum over the index entries."),
    ]
}
const CLOSE_FIXED: &[ParamSpec] = &close(NOT_NEGATIVE);
const CLOSE_DYNAMIC: &[ParamSpec] = &close(POSITIVE);
const PREVIOUS: &[ParamSpec] = &[ParamSpec::required("archive-name", NAME, "A file of the previous snapshot.")];
const DOWNLOAD: &[ParamSpec] = &[ParamSpec::required("file-name", NAME, "A file of the snapshot.")];
const FETCH: &[ParamSpec] = &[ParamSpec::required("digest", ParamKind::DIGEST, "Name of the chunk.")];

const STORE: ParamSpec = ParamSpec::required("store", ParamKind::DATASTORE, "Name of the datastore.");
const NS: ParamSpec = ParamSpec::optional("ns", ParamKind::NAMESPACE, "Namespace; the root by default.");
const TYPE: ParamSpec = ParamSpec::required("backup-type", ParamKind::BACKUP_TYPE, "Type of the group.");
const ID: ParamSpec = ParamSpec::required("backup-id", NAME, "Id of the group.");
const TIME: ParamSpec = ParamSpec::required("backup-time", ParamKind::BACKUP_TIME, "When the backup was taken.");
const DEBUG: ParamSpec = ParamSpec::optional("debug", ParamKind::Boolean, "Accepted; the task log is the same.");

/// Parameters of the upgrade to the reader protocol.
pub const READER_UPGRADE: &[ParamSpec] = &[STORE, NS, TYPE, ID, TIME, DEBUG];

/// Parameters of the upgrade to the backup protocol.
pub const BACKUP_UPGRADE: &[ParamSpec] = &[
    STORE,
    NS,
    TYPE,
    ID,
    TIME,
    DEBUG,
    ParamSpec::optional("benchmark", ParamKind::Boolean, "A speed test: nothing is kept.").or("false"),
    // Newer clients send it; there is no cache to keep a backup out of.
    ParamSpec::optional("no-cache", ParamKind::Boolean, "Accepted; has no effect."),
];

/// What an upgrade asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UpgradeTarget {
    /// In which datastore.
    pub store: DatastoreName,
    /// In which namespace.
    pub ns: Namespace,
    /// Which snapshot.
    pub snapshot: Snapshot,
    /// Whether nothing is to be kept.
    pub benchmark: bool,
}

impl UpgradeTarget {
    /// From checked parameters.
    pub fn of(params: &Params) -> Result<Self> {
        let id = params.text("backup-id").unwrap_or_default();
        let group = Group::new(params.parsed("backup-type")?, id)?;
        Ok(Self {
            store: params.parsed("store")?,
            ns: params.parsed_opt("ns")?.unwrap_or_default(),
            snapshot: Snapshot::new(group, EpochSecs(params.int("backup-time").unwrap_or(0)))?,
            benchmark: params.bool("benchmark").unwrap_or(false),
        })
    }
}

/// What a request brings its parameters in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carrier {
    /// The query alone; the body is raw.
    Query,
    /// JSON body, or form body and query (spec 05 §1.2).
    Any,
}

/// Where the parameters of a call of the backup protocol are.
pub fn carrier(endpoint: BackupEndpoint) -> Carrier {
    match endpoint {
        BackupEndpoint::Blob | BackupEndpoint::Chunk(_) | BackupEndpoint::Previous | BackupEndpoint::Speedtest => {
            Carrier::Query
        }
        _ => Carrier::Any,
    }
}

fn specs(endpoint: BackupEndpoint) -> &'static [ParamSpec] {
    match endpoint {
        BackupEndpoint::Root
        | BackupEndpoint::PreviousBackupTime
        | BackupEndpoint::Finish
        | BackupEndpoint::Speedtest => NONE,
        BackupEndpoint::Blob => BLOB,
        BackupEndpoint::CreateIndex(WriterKind::Fixed) => CREATE_FIXED,
        BackupEndpoint::CreateIndex(WriterKind::Dynamic) => CREATE_DYNAMIC,
        BackupEndpoint::Chunk(_) => CHUNK,
        BackupEndpoint::Append(_) => APPEND,
        BackupEndpoint::Close(WriterKind::Fixed) => CLOSE_FIXED,
        BackupEndpoint::Close(WriterKind::Dynamic) => CLOSE_DYNAMIC,
        BackupEndpoint::Previous => PREVIOUS,
    }
}

/// Why a request did not become an action: parameter errors are answered without a content type (recorded).
#[derive(Debug)]
pub enum NoAction {
    /// The parameters do not fit the call's table.
    Params(ParamErrors),
    /// They do, and yet cannot be meant.
    Refused(crate::error::Error),
}

impl From<ParamErrors> for NoAction {
    fn from(errors: ParamErrors) -> Self {
        Self::Params(errors)
    }
}

impl From<crate::error::Error> for NoAction {
    fn from(error: crate::error::Error) -> Self {
        Self::Refused(error)
    }
}

/// A call of the backup protocol with what it carries.
pub fn backup_action(endpoint: BackupEndpoint, received: Received) -> Result<Action, NoAction> {
    let params = params::check(specs(endpoint), received)?;
    let text = |name: &str| params.text(name).unwrap_or_default().to_owned();
    let number = |name: &str| params.uint(name).unwrap_or(0);
    let wid = || WriterId::new(number("wid")).ok_or_else(|| ParamErrors::one("wid", "value is out of range"));
    Ok(match endpoint {
        BackupEndpoint::Root => Action::Root,
        BackupEndpoint::PreviousBackupTime => Action::PreviousBackupTime,
        BackupEndpoint::Finish => Action::Finish,
        BackupEndpoint::Speedtest => Action::Speedtest,
        BackupEndpoint::Previous => Action::Previous(text("archive-name").parse()?),
        BackupEndpoint::Blob => Action::Blob { file_name: text("file-name"), encoded_bytes: number("encoded-size") },
        BackupEndpoint::CreateIndex(WriterKind::Dynamic) => {
            Action::CreateIndex(CreateIndex::Dynamic { archive: text("archive-name") })
        }
        BackupEndpoint::CreateIndex(WriterKind::Fixed) => Action::CreateIndex(CreateIndex::Fixed {
            archive: text("archive-name"),
            size_bytes: number("size"),
            reuse_csum: params.text("reuse-csum").map(str::to_owned),
        }),
        BackupEndpoint::Chunk(kind) => Action::Chunk(ChunkUpload {
            kind,
            wid: wid()?,
            digest: params.parsed("digest")?,
            size: ChunkSize::new(number("size")).ok_or_else(|| ParamErrors::one("size", "value is out of range"))?,
            encoded_bytes: number("encoded-size"),
        }),
        BackupEndpoint::Append(kind) => Action::Append(Append {
            kind,
            wid: wid()?,
            digests: params.texts("digest-list").map(str::parse).collect::<Result<_>>()?,
            offsets: params.uints("offset-list").collect(),
        }),
        BackupEndpoint::Close(kind) => {
            let mut csum = [0; 32];
            hex::decode_to_slice(params.text("csum").unwrap_or_default(), &mut csum)
                .map_err(|e| crate::error::Error::invalid(e.to_string()))?;
            Action::Close(Close {
                kind,
                wid: wid()?,
                chunk_count: number("chunk-count"),
                size_bytes: number("size"),
                csum: Digest(csum),
            })
        }
    })
}

/// A call of the reader protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ReaderAction {
    /// What is there?
    Root,
    /// Send a chunk.
    Chunk(Digest),
    /// Send a file.
    Download(ArchiveName),
    /// Send a mebibyte of nothing.
    Speedtest,
}

/// A call of the reader protocol with what it carries; all of them take the query alone.
pub fn reader_action(endpoint: ReaderEndpoint, query: &str) -> Result<ReaderAction, NoAction> {
    let specs = match endpoint {
        ReaderEndpoint::Root | ReaderEndpoint::Speedtest => NONE,
        ReaderEndpoint::Chunk => FETCH,
        ReaderEndpoint::Download => DOWNLOAD,
    };
    let params = params::check(specs, Received::from_query(&[], query)?)?;
    Ok(match endpoint {
        ReaderEndpoint::Root => ReaderAction::Root,
        ReaderEndpoint::Speedtest => ReaderAction::Speedtest,
        ReaderEndpoint::Chunk => ReaderAction::Chunk(params.parsed("digest")?),
        ReaderEndpoint::Download => ReaderAction::Download(params.text("file-name").unwrap_or_default().parse()?),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(method: &str, path: &str, query: &str) -> String {
        let endpoint = BackupEndpoint::of(method, path).unwrap();
        match backup_action(endpoint, Received::from_query(&[], query).unwrap()).unwrap_err() {
            NoAction::Params(errors) => errors.to_string(),
            NoAction::Refused(error) => format!("typed: {error}"),
        }
    }

    /// Golden traces 12h, 12j and 12l.
    #[test]
    fn refusals_have_the_recorded_words() {
        let zero = "00".repeat(32);
        let upper = "D6".repeat(32);
        let chunk = |change: &str| format!("digest={zero}&encoded-size=70012&size=70000&wid=1&{change}");
        for (method, path, query, want) in [
            (
                "POST",
                "/fixed_index",
                "archive-name=a.img.fidx&size=0".to_owned(),
                "'size': value must have a minimum value of 1 (got 0)",
            ),
            (
                "POST",
                "/fixed_index",
                "archive-name=a.img.fidx".into(),
                "'size': parameter is missing and it is not optional.",
            ),
            (
                "POST",
                "/dynamic_index",
                "archive-name=..%2Fx.didx".into(),
                "'archive-name': value does not match the regex pattern",
            ),
            (
                "POST",
                "/fixed_chunk",
                format!("digest={upper}&encoded-size=70012&size=70000&wid=1"),
                "'digest': value does not match the regex pattern",
            ),
            (
                "POST",
                "/fixed_chunk",
                format!("digest={zero}&encoded-size=70012&size=70000&wid=257"),
                "'wid': value must have a maximum value of 256 (got 257)",
            ),
            (
                "POST",
                "/fixed_chunk",
                format!("digest={zero}&encoded-size=12&size=70000&wid=1"),
                "'encoded-size': value must have a minimum value of 13 (got 12)",
            ),
            (
                "POST",
                "/fixed_chunk",
                format!("digest={zero}&encoded-size=70012&size=16777217&wid=1"),
                "'size': value must have a maximum value of 16777216 (got 16777217)",
            ),
            ("POST", "/fixed_chunk", chunk("foo=1"), "'foo': schema does not allow additional properties."),
            (
                "POST",
                "/blob",
                "encoded-size=5&file-name=x.conf.blob".into(),
                "'encoded-size': value must have a minimum value of 12 (got 5)",
            ),
        ] {
            assert_eq!(refusal(method, path, &query), format!("parameter verification failed - {want}"));
        }
        assert_eq!(
            refusal("POST", "/dynamic_close", "chunk-count=1&csum=xyz&size=7&wid=4"),
            "typed: Odd number of digits"
        );
        assert_eq!(
            refusal("GET", "/previous", "archive-name=index.json"),
            "typed: unknown archive type: \"index.json\""
        );
        assert!(refusal("POST", "/finish", "x=1").contains("'x': schema does not allow"));
    }

    #[test]
    fn an_append_comes_as_json_or_as_a_query() {
        let digest = "ab".repeat(32);
        let want = Action::Append(Append {
            kind: WriterKind::Fixed,
            wid: WriterId::new(1).unwrap(),
            digests: vec![Digest([0xab; 32]); 2],
            offsets: vec![0, 4_194_304],
        });
        let body = format!(r#"{{"wid":1,"digest-list":["{digest}","{digest}"],"offset-list":[0,4194304]}}"#);
        let json = Received::from_request(&[], "ignored=1", Some("application/json"), body.as_bytes()).unwrap();
        let query = format!("wid=1&digest-list={digest}&offset-list=0&digest-list={digest}&offset-list=4194304");
        let form = Received::from_request(&[], &query, None, b"").unwrap();
        for received in [json, form] {
            let endpoint = BackupEndpoint::Append(WriterKind::Fixed);
            assert_eq!(backup_action(endpoint, received).unwrap(), want);
        }
    }

    #[test]
    fn an_upgrade_names_a_snapshot() {
        let query =
            "backup-id=a&backup-time=1717597418&backup-type=host&store=main&no-cache=1&debug=on&benchmark=false";
        let params = params::check(BACKUP_UPGRADE, Received::from_query(&[], query).unwrap()).unwrap();
        let target = UpgradeTarget::of(&params).unwrap();
        assert_eq!(target.snapshot.to_string(), "host/a/2024-06-05T14:23:38Z");
        assert!(target.ns.is_root() && !target.benchmark);
    }
}
