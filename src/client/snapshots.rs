//! What the server holds.

use serde_json::Value;

use super::rest::Client;
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::types::{Group, MANIFEST_BLOB, Namespace, Snapshot};

/// A snapshot as the server lists it.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its name.
    pub snapshot: Snapshot,
    /// Everything that the server said about it.
    pub value: Value,
}

impl Listed {
    /// Sum of its files, unless it is unfinished or cannot be read.
    pub fn size_bytes(&self) -> Option<u64> {
        self.value["size"].as_u64()
    }

    /// Names of its files.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let files = self.value["files"].as_array().map(Vec::as_slice).unwrap_or_default();
        files.iter().filter_map(|file| file["filename"].as_str())
    }

    /// Whether its manifest is there.
    pub fn is_finished(&self) -> bool {
        self.files().any(|name| name == MANIFEST_BLOB)
    }

    /// What the last verification, or a check of known chunks, found: `ok` or `failed`.
    pub fn verification(&self) -> Option<&str> {
        self.value["verification"]["state"].as_str()
    }

    /// Whether it must not be removed.
    pub fn is_protected(&self) -> bool {
        self.value["protected"].as_bool().unwrap_or(false)
    }
}

/// The snapshots of a namespace, or of one group in it; by group, then by time.
pub async fn list(client: &Client, namespace: &Namespace, group: Option<&Group>) -> Result<Vec<Listed>> {
    let namespace = namespace.to_string();
    let mut query = Vec::new();
    if let Some(group) = group {
        query.extend([("backup-id", group.id()), ("backup-type", group.ty().as_str())]);
    }
    if !namespace.is_empty() {
        query.push(("ns", namespace.as_str()));
    }
    let path = format!("admin/datastore/{}/snapshots", client.repository().store());
    parse(client.get(&path, &query).await?)
}

fn parse(data: Value) -> Result<Vec<Listed>> {
    let wrong = || Error::invalid("the server's list of snapshots has entries that are none");
    let Value::Array(items) = data else { return Err(wrong()) };
    let one = |value: Value| -> Result<Listed> {
        let group = format!(
            "{}/{}",
            value["backup-type"].as_str().ok_or_else(wrong)?,
            value["backup-id"].as_str().ok_or_else(wrong)?
        );
        let time = EpochSecs(value["backup-time"].as_i64().ok_or_else(wrong)?);
        Ok(Listed { snapshot: Snapshot::new(group.parse()?, time)?, value })
    };
    let mut listed = items.into_iter().map(one).collect::<Result<Vec<_>>>()?;
    listed.sort_by(|a, b| a.snapshot.cmp(&b.snapshot));
    Ok(listed)
}

/// The newest finished snapshot of a group, chosen here as the official client does (spec 06 §3).
pub async fn newest(client: &Client, namespace: &Namespace, group: &Group) -> Result<Snapshot> {
    let listed = list(client, namespace, Some(group)).await?;
    let newest = listed.into_iter().rfind(Listed::is_finished);
    newest.map(|listed| listed.snapshot).ok_or_else(|| {
        Error::not_found(format!("there is no finished snapshot of {group}: `ringvault snapshots` shows what there is"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn sorted_by_group_and_time() {
        let item =
            |id: &str, time: i64| json!({"backup-type": "vm", "backup-id": id, "backup-time": time, "files": []});
        let listed = parse(json!([item("100", 7), item("9", 5), item("100", 3)])).unwrap();
        let shown: Vec<String> =
            listed.iter().map(|l| format!("{} {}", l.snapshot.group(), l.snapshot.time())).collect();
        assert_eq!(shown, ["vm/9 5", "vm/100 3", "vm/100 7"]);
        assert!(!listed[0].is_finished());
    }

    #[test]
    fn odd_answers_are_errors() {
        for bad in [json!(null), json!([3]), json!([{"backup-type": "vm", "backup-id": "../x", "backup-time": 5}])] {
            assert!(parse(bad).is_err());
        }
    }
}
