//! Listings over the wire: streamed, in both dresses, and without a look at what has not changed.

use std::time::Duration;

use ringvault::format::manifest::Manifest;
use ringvault::types::Snapshot;

use crate::support::daemon::{Daemon, STORE, Setup, make_store, temp_dir};
use crate::support::slowfs::{Behaviour, Op, SlowFs};
use crate::support::upload::rest;

const GROUPS: usize = 12;
const EACH: usize = 10;
const MANIFEST: &str = "index.json.blob";

/// Snapshots without an archive, written directly.
fn fill(store: &std::path::Path) {
    for group in 0..GROUPS {
        let dir = store.join(format!("vm/{group}"));
        std::fs::create_dir_all(&dir).expect("a group");
        std::fs::write(dir.join("owner"), "tester@pbs!bench\n").expect("an owner");
        for day in 0..EACH {
            let snapshot: Snapshot =
                format!("vm/{group}/2024-06-{:02}T00:00:00Z", day + 1).parse().expect("a snapshot");
            let path = dir.join(snapshot.dir_name());
            std::fs::create_dir(&path).expect("a snapshot");
            std::fs::write(path.join(MANIFEST), Manifest::new(&snapshot).to_blob()).expect("a manifest");
        }
    }
}

#[tokio::test]
async fn a_list_is_sent_in_chunks_and_dressed_as_asked() {
    let daemon = Daemon::with(Setup { is_checked: false, ..Setup::default() });
    fill(daemon.store());
    for (call, count) in [("snapshots", GROUPS * EACH), ("groups", GROUPS)] {
        let plain = rest(&daemon, "GET", &format!("/api2/json/admin/datastore/{STORE}/{call}"), b"").await;
        assert_eq!(plain.header("transfer-encoding"), Some("chunked"), "recorded");
        assert_eq!(plain.header("content-length"), None);
        let rows = plain.data();
        assert_eq!(rows.as_array().expect("rows").len(), count);
        let dressed = rest(&daemon, "GET", &format!("/api2/extjs/admin/datastore/{STORE}/{call}"), b"").await;
        let value: serde_json::Value = serde_json::from_slice(&dressed.body).expect("JSON");
        assert_eq!(value, serde_json::json!({"data": rows, "success": true, "status": 200}));
        let nowhere = rest(&daemon, "GET", &format!("/api2/extjs/admin/datastore/{STORE}/{call}?ns=nope"), b"").await;
        let value: serde_json::Value = serde_json::from_slice(&nowhere.body).expect("JSON");
        assert_eq!((value["status"].as_u64(), value["success"].as_bool()), (Some(400), Some(false)), "{value}");
    }
    let target = |query: &str| format!("/api2/json/admin/datastore/{STORE}/snapshots?{query}");
    for (query, count) in [("backup-id=3", EACH), ("backup-type=vm", GROUPS * EACH), ("backup-id=nope", 0)] {
        let rows = rest(&daemon, "GET", &target(query), b"").await.data();
        assert_eq!(rows.as_array().expect("rows").len(), count, "{query}");
    }
}

/// On a file system that is asked for everything, as a network's is.
#[tokio::test]
async fn a_second_listing_opens_no_manifest() {
    let folder = temp_dir();
    let (backing, mount) = (folder.path().join("backing"), folder.path().join("mount"));
    make_store(&backing.join("golden"));
    fill(&backing.join("golden"));
    std::fs::create_dir(&mount).expect("a mount point");
    let fs = match SlowFs::mount(&backing, &mount, Behaviour::default()) {
        Ok(fs) => fs,
        Err(e) => return println!("skipped: no FUSE here: {e}"),
    };
    let daemon = Daemon::with(Setup { store: Some(mount.join("golden")), is_checked: false, ..Setup::default() });
    let all = u64::try_from(GROUPS * EACH).expect("a small number");
    // What is younger than two seconds is not believed.
    tokio::time::sleep(Duration::from_secs(4)).await;
    let target = format!("/api2/json/admin/datastore/{STORE}/snapshots");
    for (opened, asked) in [(all, all), (0, all), (0, all)] {
        fs.reset_counts();
        assert_eq!(rest(&daemon, "GET", &target, b"").await.data().as_array().expect("rows").len() as u64, all);
        assert_eq!(fs.count(MANIFEST, Op::Open), opened);
        assert_eq!(fs.count(MANIFEST, Op::Lookup), asked, "each is asked for once");
    }
    let changed = mount.join("golden/vm/3/2024-06-01T00:00:00Z").join(MANIFEST);
    let snapshot: Snapshot = "vm/3/2024-06-01T00:00:00Z".parse().expect("a snapshot");
    let mut manifest = Manifest::new(&snapshot);
    manifest.set_notes("changed by another program");
    std::fs::write(&changed, manifest.to_blob()).expect("write a manifest");
    fs.reset_counts();
    let rows = rest(&daemon, "GET", &format!("{target}?backup-id=3"), b"").await.data();
    assert_eq!(rows[0]["comment"], "changed by another program");
    assert_eq!(fs.count(MANIFEST, Op::Open), 1);
}
