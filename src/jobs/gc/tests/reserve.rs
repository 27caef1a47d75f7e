//! A full disk: what garbage collection keeps for it, and that it works then.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::store::GcMethod;

const RESERVE: &str = ".ringvault-gc-reserve";

/// A disk without space, on which even a removal needs some: but that of the reserve, which gives it.
#[derive(Debug)]
struct Full {
    is_full: AtomicBool,
    errno: i32,
}

impl Fault for Full {
    fn before(&self, op: &'static str, path: Option<&Path>) -> std::io::Result<()> {
        let is_reserve = path.is_some_and(|path| path.ends_with(RESERVE));
        if is_reserve && op == "unlink" {
            self.is_full.store(false, Ordering::SeqCst);
        }
        let needs_space = matches!(op, "unlink" | "pwrite" | "utimensat" | "create" | "rename" | "mkdir");
        let fails = needs_space && self.is_full.load(Ordering::SeqCst);
        if fails { Err(std::io::Error::from_raw_os_error(self.errno)) } else { Ok(()) }
    }
}

#[tokio::test]
async fn a_full_disk_is_freed_by_what_was_kept_for_it() {
    for (errno, method) in [(libc::ENOSPC, GcMethod::Memory), (libc::EDQUOT, GcMethod::AccessTime)] {
        let fault = Arc::new(Full { is_full: AtomicBool::new(false), errno });
        let machine = Machine::faulty(fault.clone());
        let scene = Scene::with(&machine, |config| {
            config.gc.reserve_bytes = 1 << 20;
            config.gc.method = method;
        })
        .await;
        scene.back_up(&snapshot(0), &[1, 2]).await;
        for n in [9, 10, 11] {
            scene.insert(n).await;
        }
        scene.collect().await;
        assert_eq!(scene.base.join(RESERVE).metadata().unwrap().len(), 1 << 20, "a run that finds room makes it");
        scene.pass_time(30 * DAY);
        fault.is_full.store(true, Ordering::SeqCst);
        let (result, log) = scene.try_collect().await;
        assert_eq!(result.unwrap().status.removed_chunks, 3, "{log:?}");
        assert!(log.iter().any(|line| line.contains("the reserve of 1 MiB was given up")), "{log:?}");
        assert!(scene.chunks().is_superset(&[1, 2].into()));
        // There is room again, so there is a reserve again.
        assert!(scene.base.join(RESERVE).exists());
        // Without one the run says what is the matter, and has removed nothing that is named.
        scene.insert(9).await;
        set_accessed(&scene.path(&digest(9)), T0);
        std::fs::remove_file(scene.base.join(RESERVE)).unwrap();
        let mut config = (*scene.store.config()).clone();
        config.gc.reserve_bytes = 0;
        scene.store.set_config(config);
        fault.is_full.store(true, Ordering::SeqCst);
        let text = scene.try_collect().await.0.unwrap_err().to_string();
        assert!(text.contains("the file system is full") || text.contains("the quota is used up"), "{text}");
        assert!(scene.chunks().is_superset(&[1, 2, 9].into()));
    }
}

#[tokio::test]
async fn the_reserve_has_the_length_that_is_configured_and_is_not_what_fills_the_disk() {
    let machine = Machine::new();
    let scene = Scene::new(&machine).await;
    for (wanted, there) in [(100, Some(100)), (70, Some(70)), (1 << 60, None), (100, Some(100)), (0, None)] {
        let mut config = (*scene.store.config()).clone();
        config.gc.reserve_bytes = wanted;
        scene.store.set_config(config);
        scene.collect().await;
        assert_eq!(scene.base.join(RESERVE).metadata().ok().map(|meta| meta.len()), there);
    }
}
