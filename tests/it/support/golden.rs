//! The recordings of the original server that the stories compare with, and how to unpack its datastore.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use super::daemon::temp_dir;

/// Where the recordings lie: `RINGVAULT_GOLDEN`, else `../shared/golden` beside the package.
pub fn dir() -> PathBuf {
    match std::env::var_os("RINGVAULT_GOLDEN") {
        Some(named) => named.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/golden"),
    }
}

/// Whether a story has to be left out because the recordings are not there; says so.
pub fn is_absent() -> bool {
    let absent = !dir().join("expected.json").is_file();
    if absent {
        println!("skipped: no golden data in {}; RINGVAULT_GOLDEN may name another place", dir().display());
    }
    absent
}

/// `expected.json`: the full description of the recorded datastore.
pub fn expected() -> Value {
    json("expected.json")
}

/// One JSON file of the recordings.
pub fn json(name: &str) -> Value {
    let path = dir().join(name);
    let text = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The recorded ways to damage the datastore, and what they are done to.
pub struct Damage {
    folder: TempDir,
    /// What is to be done, and what the original's tools said then.
    pub mutations: Vec<Value>,
}

impl Damage {
    /// Unpacks the whole datastore. `None`, which it says, where there are no recordings.
    pub fn unpack() -> Option<Self> {
        if is_absent() {
            return None;
        }
        let (folder, mut all) = (temp_dir(), json("damaged/damaged.json"));
        let Value::Array(mutations) = all["mutations"].take() else { panic!("no mutations") };
        let damage = Self { folder, mutations };
        unpack_datastore(&damage.pristine());
        Some(damage)
    }

    /// The datastore that nothing was done to.
    pub fn pristine(&self) -> PathBuf {
        self.folder.path().join("pristine")
    }

    /// A copy at `store` that `mutation` was done to.
    pub fn copy(&self, mutation: &Value, store: &Path) {
        let copied = Command::new("cp").arg("-a").arg(self.pristine()).arg(store).status().expect("run cp");
        assert!(copied.success());
        apply(store, &mutation["operations"]);
    }
}

/// The 32 bytes of the key in `keys/NAME`.
pub fn enc_key(name: &str) -> [u8; 32] {
    use base64::Engine;
    let file = json(&format!("keys/{name}"));
    let text = file["data"].as_str().expect("a key file has data");
    let bytes = base64::engine::general_purpose::STANDARD.decode(text).expect("base64");
    bytes.try_into().expect("32 bytes")
}

/// Unpacks the recorded datastore so that its base directory is `base`, with the modes of spec 01 §1.2.
pub fn unpack_datastore(base: &Path) {
    std::fs::create_dir_all(base).expect("make the base directory");
    let packed = std::fs::File::open(dir().join("pbs-datastore.tar.zst")).expect("open the recorded datastore");
    let tar = base.with_extension("tar");
    let mut plain = std::io::BufWriter::new(std::fs::File::create(&tar).expect("make the tar file"));
    zstd::stream::copy_decode(packed, &mut plain).expect("decompress the recorded datastore");
    drop(plain);
    let done = Command::new("tar")
        .args(["--extract", "--no-same-owner", "--preserve-permissions", "--strip-components=1", "--file"])
        .arg(&tar)
        .arg("--directory")
        .arg(base)
        .status()
        .expect("run tar");
    assert!(done.success(), "tar failed");
    std::fs::remove_file(&tar).expect("remove the tar file");
    std::fs::set_permissions(base, std::fs::Permissions::from_mode(0o755)).expect("mode of the base");
}

/// Applies the operations of a mutation of `damaged.json` to an unpacked datastore.
pub fn apply(base: &Path, operations: &Value) {
    for op in operations.as_array().expect("operations are a list") {
        let path = base.join(op["path"].as_str().expect("path"));
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("make the folder");
        match op["op"].as_str().expect("op") {
            "delete" => std::fs::remove_file(&path).expect("delete"),
            "mkdir" => std::fs::create_dir_all(&path).expect("mkdir"),
            "rmtree" => std::fs::remove_dir_all(&path).expect("rmtree"),
            "truncate" => {
                let file = std::fs::OpenOptions::new().write(true).open(&path).expect("open to truncate");
                file.set_len(op["len"].as_u64().expect("len")).expect("truncate");
            }
            "copy" => {
                std::fs::copy(base.join(op["from"].as_str().expect("from")), &path).expect("copy");
            }
            "replace" => {
                let bytes = match op["file"].as_str() {
                    Some(file) => std::fs::read(dir().join("damaged").join(file)).expect("replacement"),
                    None => hex::decode(op["hex"].as_str().expect("hex")).expect("hex"),
                };
                std::fs::write(&path, bytes).expect("replace");
            }
            kind @ ("xor" | "write") => {
                let mut bytes = std::fs::read(&path).expect("read to change");
                let change = hex::decode(op["hex"].as_str().expect("hex")).expect("hex");
                let at = usize::try_from(op["offset"].as_u64().expect("offset")).expect("offset fits");
                for (i, b) in change.iter().enumerate() {
                    bytes[at + i] = if kind == "xor" { bytes[at + i] ^ b } else { *b };
                }
                std::fs::write(&path, bytes).expect("write back");
            }
            other => panic!("unknown operation {other}"),
        }
    }
}
