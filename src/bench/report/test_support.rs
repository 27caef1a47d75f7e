//! Outcomes that no run made.

use std::time::Duration;

use super::{DiskUse, Frame};
use crate::bench::job::Job;
use crate::bench::options::{Word, plan};
use crate::bench::outcome::{JobOutcome, Usage};
use crate::bench::stats::{Direction, Io, Stats};

/// A job of that name and group.
pub(crate) fn job(name: &str, group_id: u32) -> Job {
    let option = |name: &str, value: &str| Word::Option { name: name.to_owned(), value: Some(value.to_owned()) };
    let words = [option("name", name), option("directory", "/d"), option("rw", "known-append"), option("iodepth", "4")];
    let mut job = plan(words).expect("a good job").jobs.remove(0);
    job.group_id = group_id;
    job
}

/// 1000 reads of 4 KiB in batches of 4, 2 µs each, in two seconds.
pub(crate) fn stats() -> Stats {
    let mut stats = Stats::default();
    for n in 0..250 {
        let clat = Duration::from_nanos(2008);
        let io = Io {
            direction: Direction::Read,
            count: 4,
            bytes: 4 * 4096,
            slat: Duration::from_nanos(500),
            clat,
            depth: 4,
        };
        stats.add(&io, Duration::from_millis(8 * n));
    }
    stats
}

/// A run of it.
pub(crate) fn outcome(name: &str, group_id: u32) -> JobOutcome {
    let mut datastore = serde_json::Map::new();
    datastore.insert("engine".to_owned(), "uring".into());
    let usage =
        Usage { user: Duration::from_millis(500), system: Duration::from_secs(1), switches: 7, ..Usage::default() };
    JobOutcome {
        job: job(name, group_id),
        number: 0,
        started_ms: 1_717_597_418_000,
        runtime: Duration::from_secs(2),
        stats: stats(),
        usage,
        error: None,
        interrupted: false,
        datastore,
        notes: vec!["engine: uring".to_owned()],
    }
}

/// With a disk.
pub(crate) fn frame() -> Frame {
    let disk = DiskUse { name: "vda".to_owned(), read_ios: 12, util: 12.5, ..DiskUse::default() };
    Frame { now_ms: 1_717_597_420_000, elapsed: Duration::from_secs(2), globals: Vec::new(), disks: vec![disk] }
}
