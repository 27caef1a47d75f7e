//! Pruning, as a client and as an operator sees it: what a dry run says, what a real one does, and what the task tells.

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::daemon::{Daemon, STORE};
use crate::support::upload::{Backup, FIRST_TIME, Place, ask_reader};
use crate::support::wire::PATIENCE;
use crate::upkeep::{ask, backup, group, is_whole, snapshot, with};

const BENCH: &str = "tester@pbs!bench:{{TOKEN_SECRET}}";
const SECOND: &str = "tester@pbs!second:{{TOKEN_SECRET_SECOND}}";

/// `POST prune` for the group of `place` with more parameters.
async fn prune(daemon: &Daemon, place: &Place, more: Value) -> crate::support::wire::Reply {
    let mut params = group(place);
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ask(daemon, BENCH, "POST", "prune", params).await
}

/// Time, keep and protected of each row.
fn rows(answer: &Value) -> Vec<(i64, bool, bool)> {
    let row = |row: &Value| {
        let hours = (row["backup-time"].as_i64().unwrap() - FIRST_TIME) / 3600;
        (hours, row["keep"].as_bool().unwrap(), row["protected"].as_bool().unwrap())
    };
    answer.as_array().unwrap().iter().map(row).collect()
}

fn there(daemon: &Daemon, places: &[Place]) -> Vec<bool> {
    places.iter().map(|place| daemon.has(place.dir())).collect()
}

/// Log and result of the task of this name, once it has ended.
async fn task(daemon: &Daemon, upid: &str) -> (Vec<String>, String) {
    let started = Instant::now();
    loop {
        if let Some((_, result)) = daemon.ended().into_iter().find(|(name, _)| name == upid) {
            return (daemon.task_log(upid), result);
        }
        assert!(started.elapsed() < PATIENCE, "{upid} does not end");
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_dry_run_says_what_a_real_one_does() {
    let daemon = Daemon::start();
    let places: Vec<Place> = [0, 12, 24, 36, 48].map(|hours| Place::host("p", hours)).to_vec();
    for place in &places {
        backup(&daemon, place).await;
    }
    ask(&daemon, BENCH, "PUT", "protected", with(snapshot(&places[0]), "protected", json!(true))).await.expect(200, "");
    // 14:23 and 02:23 UTC; a server in another zone may see other days, so the newest and the day before it are asked for by number.
    let keep = json!({"keep-last": 2});
    let want = [(0, true, true), (12, false, false), (24, false, false), (36, true, false), (48, true, false)];
    let tasks = daemon.ended().len();
    let dry = prune(&daemon, &places[0], with(keep.clone(), "dry-run", json!(true))).await.data();
    assert_eq!(rows(&dry), want);
    assert_eq!(
        dry[1],
        with(
            with(with(snapshot(&places[1]), "keep", json!(false)), "protected", json!(false)),
            "backup-time",
            json!(places[1].time)
        )
    );
    assert_eq!(there(&daemon, &places), [true; 5], "nothing is removed");
    assert_eq!(daemon.ended().len(), tasks, "and no task was needed");
    // Without an option everything stays, in a real run too.
    let all = prune(&daemon, &places[0], json!({})).await.data();
    assert!(rows(&all).iter().all(|(_, keep, _)| *keep), "{all}");
    assert_eq!(there(&daemon, &places), [true; 5]);
    assert!(daemon.last_task_log().contains("no keep option is given, so all snapshots stay"));

    let real = prune(&daemon, &places[0], keep).await.data();
    assert_eq!(real, dry);
    assert_eq!(there(&daemon, &places), [true, false, false, true, true]);
    for place in [&places[0], &places[3], &places[4]] {
        is_whole(&daemon, place).await;
    }
    let prunes: Vec<_> = daemon.ended().into_iter().filter(|(upid, _)| upid.contains(":prune:")).collect();
    let (upid, result) = prunes.last().unwrap();
    assert!(upid.ends_with(":prune:golden\\x3a\\x3ahost-p:tester@pbs!bench:"), "{upid}");
    assert_eq!(result, "OK");
    let name = |place: &Place| place.dir();
    assert_eq!(
        daemon.task_log(upid),
        [
            format!("pruning group host/p of datastore '{STORE}'"),
            "retention: keep-last=2".to_owned(),
            format!("protected    {}", name(&places[0])),
            format!("remove       {}", name(&places[1])),
            format!("remove       {}", name(&places[2])),
            format!("keep         {}", name(&places[3])),
            format!("keep         {}", name(&places[4])),
            format!("removed {}", name(&places[1])),
            format!("removed {}", name(&places[2])),
            "1 groups: 3 snapshots kept, 2 removed".to_owned(),
            "TASK OK".to_owned(),
        ]
    );
}

#[tokio::test]
async fn what_is_in_use_stays_and_is_a_warning() {
    let daemon = Daemon::start();
    let places: Vec<Place> = (0..4).map(|hours| Place::host("u", hours)).collect();
    for place in &places[..3] {
        backup(&daemon, place).await;
    }
    // A crash left it; retention sees no running backup in it, for it is not the newest.
    std::fs::create_dir(daemon.store().join(Place::host("u", -1).dir())).unwrap();
    let reader = ask_reader(&daemon, &places[0]).await.session();
    let running = Backup::start(&daemon, places[3].clone()).await;
    let answer = prune(&daemon, &places[0], json!({"keep-last": 1, "use-task": true})).await.data();
    let (log, result) = task(&daemon, answer.as_str().unwrap()).await;
    assert_eq!(result, "WARNINGS: 1", "{log:#?}");
    let has = |text: &str| assert!(log.iter().any(|line| line.contains(text)), "{text}: {log:#?}");
    has(&format!("keep-partial {}", places[3].dir()));
    has(&format!("WARN: {} is not removed: unable to acquire lock on snapshot directory", places[0].dir()));
    has(&format!("removed {}", Place::host("u", -1).dir()));
    has("1 groups: 2 snapshots kept, 2 removed, 1 not removed because they are in use or protected");
    assert_eq!(there(&daemon, &places), [true, false, true, true]);
    reader.close().await;
    running.leave(&daemon).await;
    is_whole(&daemon, &places[0]).await;
    // Nobody uses it now; the last snapshots of a group take the group along.
    prune(&daemon, &places[0], json!({"keep-yearly": 1})).await.expect(200, "");
    assert_eq!(there(&daemon, &places), [false, false, true, false]);
}

#[tokio::test]
async fn a_datastore_is_pruned_as_far_as_the_asker_may() {
    let daemon = Daemon::start();
    for (parent, name) in [("", "a"), ("a", "b")] {
        ask(&daemon, BENCH, "POST", "namespace", json!({"parent": parent, "name": name})).await.expect(200, "");
    }
    let place = |ns: &str, id: &str, hours| Place { ns: ns.into(), ..Place::host(id, hours) };
    let old: Vec<Place> = [("", "x"), ("", "y"), ("a", "x"), ("a/b", "x")].map(|(ns, id)| place(ns, id, 0)).to_vec();
    for (ns, id) in [("", "x"), ("", "y"), ("a", "x"), ("a/b", "x")] {
        for hours in 0..2 {
            backup(&daemon, &place(ns, id, hours)).await;
        }
    }
    let run = async |params: Value| {
        let upid = ask(&daemon, BENCH, "POST", "prune-datastore", params).await.data();
        let upid = upid.as_str().expect("a UPID").to_owned();
        assert!(upid.contains(":prune:golden:tester@pbs!bench:"), "{upid}");
        task(&daemon, &upid).await
    };
    ask(&daemon, SECOND, "POST", "prune-datastore", json!({"keep-last": 1}))
        .await
        .expect(403, "missing Datastore.Modify|");
    let (log, result) = run(json!({"keep-last": 1, "dry-run": true})).await;
    assert_eq!((result.as_str(), there(&daemon, &old)), ("OK", vec![true; 4]));
    assert_eq!(log[log.len() - 2], "4 groups: 4 snapshots kept, 4 would be removed");
    let (log, _) = run(json!({})).await;
    assert_eq!(log[log.len() - 2], "4 groups: 8 snapshots kept, 0 removed");
    assert_eq!(there(&daemon, &old), [true; 4]);
    let (log, _) = run(json!({"keep-last": 1, "max-depth": 0, "ns": "a"})).await;
    assert_eq!(there(&daemon, &old), [true, true, false, true], "{log:#?}");
    // A group without an owner is not pruned, and that is told.
    std::fs::remove_file(daemon.store().join("host/y/owner")).unwrap();
    let (log, result) = run(json!({"keep-last": 1, "max-depth": 1})).await;
    assert_eq!(there(&daemon, &old), [false, true, false, true], "{log:#?}");
    let warning = log.iter().find(|line| line.contains("group host/y is left out")).expect("a warning");
    assert!(warning.contains("host/y/owner") && warning.contains("change-owner"), "{warning}");
    assert_eq!(result, "WARNINGS: 1", "{log:#?}");
    std::fs::write(daemon.store().join("host/y/owner"), "tester@pbs!bench\n").unwrap();
    run(json!({"keep-last": 1})).await;
    assert_eq!(there(&daemon, &old), [false; 4]);
    for (ns, id) in [("", "x"), ("", "y"), ("a", "x"), ("a/b", "x")] {
        is_whole(&daemon, &place(ns, id, 1)).await;
    }
    let (_, result) = run(json!({"ns": "nope", "keep-last": 1})).await;
    assert_eq!(result, "namespace 'nope' not found");
    prune(&daemon, &place("", "none", 0), json!({"keep-last": 1}))
        .await
        .expect(400, "ENOENT: No such file or directory");
    let zero = prune(&daemon, &place("", "x", 0), json!({"keep-last": 0})).await;
    zero.expect(400, "parameter verification failed - 'keep-last': value must have a minimum value of 1 (got 0)");
    // Rows of a dry run say where they are; those of a real one did not when clients learned them.
    let dry = prune(&daemon, &place("a/b", "x", 0), json!({"keep-last": 1, "dry-run": true})).await.data();
    assert_eq!(dry[0]["ns"], "a/b");
    let real = prune(&daemon, &place("a/b", "x", 0), json!({"keep-last": 1})).await.data();
    assert_eq!(real[0].get("ns"), None);
}

/// A rate for one run, in every call that starts one.
#[tokio::test]
async fn a_run_is_given_a_rate_over_rest() {
    let daemon = Daemon::start();
    for hours in 0..3 {
        backup(&daemon, &Place::host("r", hours)).await;
    }
    let with_rate = |params: Value, rate: &str| with(params, "rate", json!(rate));
    let first = Place::host("r", 0);
    let group = with(with(group(&first), "keep-last", json!(2)), "use-task", json!(true));
    for (call, params, rate, words) in [
        ("verify", json!({}), "500/s,20M/s", "500 chunks and 20 MiB"),
        ("prune", group.clone(), "50/s", "50 chunks"),
        ("prune-datastore", json!({"keep-last": 1}), "7MiB/s", "7 MiB"),
        ("gc", json!({}), "1000000/s", "1000000 chunks"),
    ] {
        let upid = ask(&daemon, BENCH, "POST", call, with_rate(params, rate)).await.data();
        let (log, result) = task(&daemon, upid.as_str().expect("a UPID")).await;
        assert_eq!(result, "OK", "{call}: {log:#?}");
        let line = format!("at most {words} a second, as was asked for");
        assert_eq!(log.iter().filter(|found| **found == line).count(), 1, "{call}: {log:#?}");
        for wrong in ["500", "0/s", "5/s,6/s", "1048577M/s", "fast", ""] {
            let refused = ask(&daemon, BENCH, "POST", call, with_rate(json!({}), wrong)).await;
            refused.expect(400, "'rate'");
        }
    }
    assert_eq!(there(&daemon, &[0, 1, 2].map(|hours| Place::host("r", hours))), [false, false, true]);
}
