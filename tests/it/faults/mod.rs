//! Bad input and faults: whatever a client sends or a disk does, the daemon answers in words, holds no lock, loses no
//! finished snapshot, and serves the next one.

use crate::support::daemon::Daemon;
use crate::support::upload::{self, Chunk, Place};

mod bodies;
mod disks;
mod malformed;
mod parameters;
mod start;
mod vanishing;

const ARCHIVE: &str = "disk.img.fidx";
/// A digest that no bytes have.
const ZEROS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// It still does its work: a whole backup and a restore.
async fn assert_still_serves(daemon: &Daemon, id: &str) {
    let place = Place::host(id, 0);
    let chunk = Chunk::made(77, 5000);
    upload::full_backup(daemon, place.clone(), "a.pxar.didx", std::slice::from_ref(&chunk)).await;
    assert!(upload::read_archive(daemon, &place, "a.pxar.didx").await == upload::made_bytes(77, 5000));
}
