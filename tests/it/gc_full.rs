//! Garbage collection on real file systems that have no byte left.

use std::io::Write;
use std::path::Path;

use crate::gc::{age, collect};
use crate::support::daemon::{Daemon, STORE, Setup, make_store, temp_dir};
use crate::support::loopfs::{KINDS, LoopFs};
use crate::support::upload::{self, Chunk, Place, rest};

const RESERVE: &str = ".ringvault-gc-reserve";

/// Files of garbage.
const GARBAGE: u64 = 200;

/// Takes all space: by one large file, then by as many small ones as there is room for, or for as long as it makes sense.
fn fill(dir: &Path) {
    std::fs::create_dir_all(dir).expect("a directory");
    let mut file = std::fs::File::create_new(dir.join("large")).expect("a file");
    for block in [1 << 20, 4096, 512] {
        let zeros = vec![0; block];
        while file.write_all(&zeros).is_ok() {}
    }
    let _ = file.sync_all();
    while file.write_all(&[0; 512]).is_ok() {}
    for n in 0..20_000 {
        if std::fs::write(dir.join(format!("small-{n}")), [1; 700]).is_err() {
            break;
        }
    }
    drop(file);
}

#[tokio::test]
async fn a_disk_without_a_byte_left_is_freed() {
    for (kind, options, size_bytes) in KINDS {
        for method in ["memory", "atime"] {
            let folder = temp_dir();
            let fs = match LoopFs::mount_as(folder.path(), kind, options, size_bytes) {
                Ok(fs) => fs,
                Err(e) => {
                    println!("skipped: no {kind} on a loop device here: {e}");
                    continue;
                }
            };
            let store = fs.path().join("golden");
            make_store(&store);
            let more = format!("gc-method = \"{method}\"\ngc-reserve-mib = 1\n");
            let setup = Setup { store: Some(store.clone()), sync_level: "filesystem", more, ..Setup::default() };
            let daemon = Daemon::with(setup);
            let (kept, gone) = (Place::host("m", 0), Place::host("n", 0));
            let garbage: Vec<Chunk> = (100..100 + GARBAGE).map(|seed| Chunk::made(seed, 9000)).collect();
            upload::full_backup(&daemon, kept.clone(), "a.pxar.didx", &[Chunk::made(1, 3000)]).await;
            upload::full_backup(&daemon, gone.clone(), "a.pxar.didx", &garbage).await;
            let (result, log) = collect(&daemon).await;
            assert_eq!(result, "OK", "{kind} {method}: {log:?}");
            assert_eq!(store.join(RESERVE).metadata().expect("the reserve").len(), 1 << 20);
            let target = format!("/api2/json/admin/datastore/{STORE}/snapshots?{}", gone.query());
            rest(&daemon, "DELETE", &target, b"").await.expect(200, "");
            age(&store.join(".chunks"), 30 * 86_400);
            fill(&fs.path().join("filler"));
            let (result, log) = collect(&daemon).await;
            let used = log.iter().any(|line| line.contains("the reserve of 1 MiB was given up"));
            println!("{kind}, {method}: {result}, the reserve was {}", if used { "used" } else { "not needed" });
            assert_eq!(result, "OK", "{kind} {method}: {log:?}");
            assert!(log.contains(&format!("Removed chunks: {GARBAGE}")), "{kind} {method}: {log:?}");
            std::fs::remove_dir_all(fs.path().join("filler")).expect("remove");
            assert!(upload::read_archive(&daemon, &kept, "a.pxar.didx").await == upload::made_bytes(1, 3000));
            assert_eq!(collect(&daemon).await.0, "OK");
            assert!(store.join(RESERVE).exists(), "{kind} {method}: there is room again");
            drop(daemon);
        }
    }
}
