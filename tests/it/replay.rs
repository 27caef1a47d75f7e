//! The recorded conversations, played against a daemon of ours: same statuses, headers, shapes and texts, and a list of
//! what we do otherwise on purpose.
//!
//! Calls of a later issue (`replay::is_not_yet`) must be absent until then; what they changed is done by hand.

use crate::support::daemon::{Daemon, Setup};
use crate::support::golden;
use crate::support::replay::{Script, play};
use crate::support::trace::Trace;
use crate::support::upload::{self, Place};
use crate::support::wire::plain_call;

/// Why our answers differ, where more than one request has the same reason.
mod why {
    pub const HELD_BACK: &str = "the manifest appears at finish only (design §3)";
    pub const NOT_USED: &str = "a chunk that the new backup does not use cannot fail it (03 §12 row 3)";
    pub const COPIED: &str = "copied slots are checked without `previous` too (03 §12 row 5)";
    pub const CLOSED_ONLY: &str = "finish checks the closed indexes, so open writers are told first";
    pub const TOO_SHORT: &str = "shorter than a blob's header counts as missing (03 §12 row 11)";
    pub const MANIFEST_CHECKED: &str = "a manifest that lists what was not stored cannot finish a backup (design §3)";
    pub const LISTED: &str = "a directory lists the calls that there are";
    pub const WORDS: &str = "other words for what neither specification names";
    pub const COUNTED: &str =
        "a removal says what it removed, as releases from 3.3 on; older clients do not look (spec 05 §4)";
    pub const HEALED: &str =
        "a shorter file that is corrupt is replaced, so that upload is no duplicate (docs/compatibility.md)";
    pub const ALL_OR_NOTHING: &str = "a refused append applies nothing (design §3)";
}

/// The recorded store was checked at append and finish only; the preflight would find the holes before.
fn without_preflight() -> Setup {
    Setup { checks: [true, true, false], ..Setup::default() }
}

fn remove_snapshot(daemon: &Daemon, place: &Place) {
    std::fs::remove_dir_all(daemon.store().join(place.dir())).expect("remove a snapshot");
}

fn forget_encrypted_with_other_key(daemon: &Daemon) {
    let place = Place { ns: String::new(), kind: "ct".into(), id: "200".into(), time: 1_717_604_618 };
    remove_snapshot(daemon, &place);
}

/// A daemon in the state after trace 11, which all traces from 12 on begin with.
async fn after_11(setup: Setup) -> Daemon {
    let daemon = Daemon::with(setup);
    for name in ["02-backup-pxar-first", "03-backup-pxar-second", "04-backup-img-first", "05-backup-img-second"] {
        play(&daemon, name, &Script::default()).await;
    }
    play(&daemon, "06-backup-img-encrypted", &Script::default()).await;
    forget_encrypted_with_other_key(&daemon);
    play(&daemon, "10-backup-namespace", &Script::default()).await;
    play(&daemon, "11-upload-log", &log_script()).await;
    daemon
}

fn log_script() -> Script {
    Script::default().differs(10, 400, "No such file or directory (os error 2)", why::WORDS)
}

#[tokio::test]
async fn t01_version_login() {
    if golden::is_absent() {
        return;
    }
    let daemon = Daemon::start();
    play(&daemon, "01-version-login", &Script::default()).await;
    let counted = Script::default().differs(15, 200, NOTHING_REMOVED, why::COUNTED);
    play(&daemon, "01b-ticket-cache", &counted).await;
}

#[tokio::test]
async fn t02_to_11_backups_and_restores() {
    if golden::is_absent() {
        return;
    }
    let daemon = Daemon::start();
    for name in ["02-backup-pxar-first", "03-backup-pxar-second", "04-backup-img-first", "05-backup-img-second"] {
        play(&daemon, name, &Script::default()).await;
    }
    play(&daemon, "06-backup-img-encrypted", &Script::default()).await;
    play(&daemon, "07-restore", &Script::default()).await;
    play(&daemon, "08-management", &management_script()).await;
    play(&daemon, "10-backup-namespace", &Script::default()).await;
    play(&daemon, "11-upload-log", &log_script()).await;
}

/// Removing a namespace says what it removed.
fn management_script() -> Script {
    let mut script = Script::default()
        // The recorded client polled until the task had ended.
        .before(90, |daemon| {
            while !daemon.running().is_empty() {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
        });
    for seq in [35, 38] {
        script = script.differs(seq, 200, NOTHING_REMOVED, why::COUNTED);
    }
    script.differs(36, 200, "\"removed-groups\":1,\"removed-snapshots\":1", why::COUNTED)
}

const NOTHING_REMOVED: &str = r#"{"data":{"protected-snapshots":0,"removed-groups":0,"removed-snapshots":0}}"#;

#[tokio::test]
async fn t09_benchmark() {
    after_11_play("09-benchmark", Script::default()).await;
}

#[tokio::test]
async fn t12a_credentials() {
    after_11_play("12a-wrong-secret", Script::default()).await;
}

#[tokio::test]
async fn t12b_unknown_objects() {
    let script = Script::default()
        .differs(48, 400, "- 'backup-id': parameter is missing", "several faults are told in the order of their names")
        .differs(53, 200, "\"disk-chunks\":0", "no garbage was collected in this history")
        .differs(55, 200, "{\"subdir\":\"reader\"}", why::LISTED)
        .differs(56, 200, "{\"subdir\":\"upload-backup-log\"}", why::LISTED)
        .differs(64, 200, NOTHING_REMOVED, why::COUNTED)
        .differs(66, 200, NOTHING_REMOVED, why::COUNTED)
        .differs(68, 200, NOTHING_REMOVED, why::COUNTED);
    after_11_play("12b-unknown-objects", script).await;
}

#[tokio::test]
async fn t12c_owner_mismatch() {
    after_11_play("12c-owner-mismatch", Script::default()).await;
}

#[tokio::test]
async fn t12e_backup_time_old() {
    after_11_play("12e-backup-time-old", Script::default()).await;
}

#[tokio::test]
async fn t12f_concurrent() {
    after_11_play("12f-concurrent", Script::default().keeps(1, 10).keeps(4, 10)).await;
}

#[tokio::test]
async fn t12g_abort() {
    after_11_play("12g-abort", Script::default().differs(15, 200, "", why::HELD_BACK).keeps(11, 29)).await;
}

#[tokio::test]
async fn t12h_bad_upload() {
    let script =
        Script::default().differs(13, 400, "is already being written", "two writers would write into one file");
    after_11_play("12h-bad-upload", script).await;
}

#[tokio::test]
async fn t12i_bad_append() {
    let script = Script::default()
        .differs(32, 200, "", "a body may have 512 KiB, as in releases from 3.4 on (spec 03 §6.5)")
        .differs(11, 200, "", why::ALL_OR_NOTHING)
        .differs(12, 400, "got strange chunk offset (4194304 != 8388608)", why::ALL_OR_NOTHING);
    after_11_play("12i-bad-append", script).await;
}

#[tokio::test]
async fn t12j_bad_close_finish() {
    let script = Script::default()
        .differs(58, 400, "", why::MANIFEST_CHECKED)
        .differs(59, 400, "", why::MANIFEST_CHECKED)
        .differs(62, 200, "", why::MANIFEST_CHECKED)
        .differs(63, 200, "[]", why::MANIFEST_CHECKED)
        .differs(64, 400, "", why::MANIFEST_CHECKED)
        .differs(65, 400, "", why::MANIFEST_CHECKED);
    after_11_play("12j-bad-close-finish", script).await;
}

#[tokio::test]
async fn t12k_upgrade_errors() {
    let script =
        Script::default().differs(8, 101, "", "newer clients send no-cache: accepted and ignored (spec 03 §2)");
    after_11_play("12k-upgrade-errors", script).await;
}

#[tokio::test]
async fn t12l_reader_errors() {
    let digest = "ce48a9286dab999f736137f3343e9e0c686a1937cac4c8b30ad7312f074f83b2";
    after_11_play("12l-reader-errors", Script::default().keeps(1, 19).removes(23, digest)).await;
}

async fn after_11_play(name: &str, script: Script) {
    if golden::is_absent() {
        return;
    }
    let daemon = after_11(Setup { is_checked: false, ..Setup::default() }).await;
    play(&daemon, name, &script).await;
}

#[tokio::test]
async fn t13_missing_known_chunk_append() {
    if golden::is_absent() {
        return;
    }
    let daemon = after_11(without_preflight()).await;
    let script = Script::default()
        .removes(14, "bb320e37e7d71f55d2dbb2f4074581ed106eb0fcfe3291672701bd1c0b120812")
        .removes(87, "66d945d5d2f1de439f2d9ce4c56838dd75e56a353192781fbe55d4bb8fa607a0");
    play(&daemon, "13-missing-known-chunk-append", &script).await;
}

#[tokio::test]
async fn t14_chunk_vanishes_before_finish() {
    if golden::is_absent() {
        return;
    }
    let daemon = after_11(without_preflight()).await;
    let script = Script::default()
        .removes(20, "5b1d22b1802d6da22b76a185f1d723a5d06ca23a09602c141f297d7eac4d8e7c")
        .removes(52, "4f6bad57bf1767f7669d412ba60eb70d7490a2b49a8f33c099447fbe47d5be2b");
    play(&daemon, "14-chunk-vanishes-before-finish", &script).await;
}

#[tokio::test]
async fn t14c_vanish_by_hand() {
    if golden::is_absent() {
        return;
    }
    let daemon = Daemon::with(without_preflight());
    let cut = |digest: &'static str, len: u64| {
        move |daemon: &Daemon| {
            let path = daemon.store().join(upload::chunk_path(digest));
            std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
        }
    };
    let script = Script::default()
        // A
        .removes(14, "74b739ca5771baea1f72968a231c285903a0d0981b2ecc1e7a90b436af2ed2e1")
        .differs(21, 200, "", why::NOT_USED)
        .differs(22, 200, "", why::NOT_USED)
        .differs(23, 200, "drive-scsi0.img.fidx", why::NOT_USED)
        // B
        .removes(37, "b8d68b8afad740c7ab44119b0d95c3f96ca53072048a3f7d77d31e8debace1f6")
        // C
        .removes(55, "f7b31acecd9e205b501a6929fbb6502e01fe01a9245f82fa6a2f71ac95b7f629")
        .differs(58, 400, "stat registered chunks failed - stat failed on f7b31ace", why::COPIED)
        .differs(59, 200, "\"state\":\"failed\"", why::COPIED)
        .differs(60, 200, "\"failed\"", why::COPIED)
        // D
        .removes(74, "c8cff9842a7ed29a8e6b9963700c1a1f5cc4c3948aca6be92b5092862df707fe")
        .differs(77, 400, "found open index writer - unable to finish backup", why::CLOSED_ONLY)
        // F
        .before(99, cut("4a2e4890a2e11a2337a3969b46a1aa36d88931dde611760befdfa0160260ae73", 0))
        .before(99, cut("53b5b62d4e66150e62aa497deac3a43665c7c5182c9cada78d98451de0a35378", 10))
        .differs(100, 400, "known chunk stat failed on 4a2e4890", why::TOO_SHORT)
        .differs(101, 400, "unexpected chunk count", why::TOO_SHORT)
        .differs(103, 400, "", why::TOO_SHORT)
        .differs(104, 200, "\"state\":\"failed\"", why::TOO_SHORT)
        // H
        .removes(110, "2b8f0523b2bf79ddb16bad8690cb3eeca06d28c5d16021371ce8a64abe8aea77")
        .differs(111, 400, "found open index writer - unable to finish backup", why::CLOSED_ONLY);
    daemon.expect(&["--allow", "chunk:.chunks/4a2e/*", "--allow", "chunk:.chunks/53b5/*"]);
    play(&daemon, "14c-vanish-handmade", &script).await;
}

#[tokio::test]
async fn t15_reuse_csum() {
    after_11_play("15-reuse-csum", Script::default()).await;
}

#[tokio::test]
async fn t16_chunk_insert() {
    let chunk = "7a651d8c61a20a96ca1536e1aea9719d6ad47347aa7f44c0386a1ab3136023d9";
    let makes = |len: usize| {
        move |daemon: &Daemon| {
            let path = daemon.store().join(upload::chunk_path(chunk));
            let mut bytes = std::fs::read(&path).unwrap();
            bytes.resize(len, 0);
            std::fs::write(path, bytes).unwrap();
        }
    };
    let script = Script::default().before(7, makes(0)).before(8, makes(500)).before(10, makes(3000)).differs(
        24,
        200,
        "\"duplicates\": 6",
        why::HEALED,
    );
    after_11_play("16-chunk-insert", script).await;
}

/// The server without the checks loses data silently; ours with all checks off does as it did.
#[tokio::test]
async fn t17_without_checks() {
    if golden::is_absent() {
        return;
    }
    let daemon = after_11(Setup { checks: [false; 3], ..Setup::default() }).await;
    let script = Script::default().removes(14, "23bf32552a52546b2a053a7088b398b86cf53c55c0b1fd7d99c740c27988d486");
    play(&daemon, "17-missing-known-chunk-unpatched", &script).await;
}

#[tokio::test]
async fn t18_plain_http() {
    if golden::is_absent() {
        return;
    }
    let daemon = Daemon::start();
    for request in Trace::load("18-plain-http").requests {
        let want = request.answer.expect("an answer");
        let host = &request.headers["host"];
        let got = plain_call(daemon.peer(), &request.method, &request.target, host).await.expect("an answer");
        assert_eq!(got.status, want.status, "{} {}", request.method, request.target);
        assert_eq!(got.header("location"), want.headers.get("location").map(String::as_str));
    }
}
