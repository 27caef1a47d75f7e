//! What a session answers: values → JSON shapes (spec 03 §6). Pure.

use serde_json::{Value, json};

use super::action::WriterId;
use crate::clock::EpochSecs;
use crate::types::Digest;

/// An answer that fits in a JSON object; downloads are streams and come from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Done; nothing more to say.
    Null,
    /// The base's backup time, if there is a base.
    PreviousBackupTime(Option<EpochSecs>),
    /// The number of a new writer.
    Writer(WriterId),
    /// A stored chunk.
    Stored(Digest),
    /// What `GET /` lists.
    Subdirs(&'static [&'static str]),
}

impl Reply {
    /// The value of the key `data`.
    pub fn data(&self) -> Value {
        match self {
            Self::Null => Value::Null,
            Self::PreviousBackupTime(time) => json!(time),
            Self::Writer(wid) => json!(wid.get()),
            Self::Stored(digest) => json!(digest),
            Self::Subdirs(names) => names.iter().map(|name| json!({ "subdir": name })).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_are_those_of_the_recordings() {
        let shown = |reply: Reply| json!({ "data": reply.data() }).to_string();
        assert_eq!(shown(Reply::Null), r#"{"data":null}"#);
        assert_eq!(shown(Reply::PreviousBackupTime(None)), r#"{"data":null}"#);
        assert_eq!(shown(Reply::PreviousBackupTime(Some(EpochSecs(1_717_597_418)))), r#"{"data":1717597418}"#);
        assert_eq!(shown(Reply::Writer(WriterId::new(1).unwrap())), r#"{"data":1}"#);
        let digest = format!("{{\"data\":\"{}\"}}", "00".repeat(32));
        assert_eq!(shown(Reply::Stored(Digest::ZERO)), digest);
        assert_eq!(
            shown(Reply::Subdirs(&["chunk", "download"])),
            r#"{"data":[{"subdir":"chunk"},{"subdir":"download"}]}"#
        );
    }
}
