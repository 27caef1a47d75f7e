//! The test of access times, on file systems that keep them more or less.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::error::Kind;
use crate::store::GcMethod;

/// The chunk of 4 MiB of zeros.
const ZEROS: &str = "bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8";

/// What a file system does with the access time of the chunk of zeros.
#[derive(Debug)]
enum Kept {
    Always,
    /// Lets nobody set another one than now.
    OnlyNow,
    /// Shows the same one ever.
    Never,
}

#[derive(Debug)]
struct Keeping {
    kept: Kept,
    set: AtomicU64,
}

impl Fault for Keeping {
    fn before(&self, op: &'static str, path: Option<&Path>) -> std::io::Result<()> {
        let Some(path) = path.filter(|path| path.ends_with(ZEROS)) else { return Ok(()) };
        match (op, &self.kept) {
            ("utimensat", kept) => {
                let before = self.set.fetch_add(1, Ordering::SeqCst);
                match kept {
                    Kept::OnlyNow if before == 1 => Err(std::io::Error::from_raw_os_error(libc::EPERM)),
                    _ => Ok(()),
                }
            }
            ("lstat", Kept::Never) => {
                set_accessed(path, T0);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// How a collection ended, and how many times an access time was set for the test.
async fn collect(kept: Kept) -> (Result<GcReport>, u64) {
    let fault = Arc::new(Keeping { kept, set: AtomicU64::new(0) });
    let machine = Machine::faulty(fault.clone());
    let scene = Scene::with(&machine, |config| config.gc.method = GcMethod::AccessTime).await;
    scene.insert(9).await;
    scene.pass_time(30 * DAY);
    let result = scene.try_collect().await.0;
    assert_eq!(scene.has(9), result.is_err(), "without the test nothing is removed");
    (result, fault.set.load(Ordering::SeqCst))
}

#[tokio::test]
async fn access_times_are_tested_without_a_wait_where_they_go_back_and_forth() {
    let (keeps, only_now, forgets) = tokio::join!(collect(Kept::Always), collect(Kept::OnlyNow), collect(Kept::Never));
    // Now, back, now; and where that tells nothing, once more a second later.
    assert_eq!((keeps.0.unwrap().status.removed_chunks, keeps.1), (1, 3));
    assert_eq!((only_now.0.unwrap().status.removed_chunks, only_now.1), (1, 3));
    let (error, set) = (forgets.0.unwrap_err(), forgets.1);
    assert_eq!((error.kind(), set), (Kind::Invalid, 4));
    assert!(error.to_string().contains(r#"use gc-method = "memory""#), "{error}");
}
