//! How many moments and seeds are tried: a few hundred states in each run of the tests, more than twenty thousand in the long form.

use super::scenarios::{ALL, play, prepare};
use super::*;

/// Crashes that a moment is put through, by seed.
fn crashes(seeds: u64) -> Vec<(Survival, u64)> {
    let drawn = (0..seeds).flat_map(|seed| [(Survival::Journal, seed), (Survival::Anything, seed)]);
    [(Survival::Nothing, 0), (Survival::Everything, 0)].into_iter().chain(drawn).collect()
}

/// Plays a scenario once and crashes every `step`-th moment of it. Returns how many states were looked at, and what was wrong.
async fn run(scenario: &'static str, level: SyncLevel, seeds: u64, step: usize) -> (usize, Vec<Found>) {
    let dir = tempfile::tempdir().unwrap();
    let tasks = registry(dir.path());
    let sim = blank();
    let world = World::open(&sim, level, T0, &tasks).await.unwrap();
    prepare(&world).await.unwrap();
    Disk::simulated(&sim, None).syncfs(Path::new("/")).unwrap();
    sim.record();
    play(&world, scenario).await.unwrap();
    let moments = sim.recorded();
    assert!(moments.len() > 3, "{scenario} changes something: {} moments", moments.len());
    let promises = world.promises.lock().clone();
    let (mut states, mut found) = (0, Vec::new());
    for moment in moments.iter().rev().step_by(step) {
        for (survival, seed) in crashes(if moment.at_risk() == 0 { 0 } else { seeds }) {
            states += 1;
            let left = moment.crash(survival, seed.wrapping_mul(1_000_003) + moment.changes);
            if let Err(why) = check(&left, moment, &promises, &world, survival).await {
                found.push(Found { scenario, level, change: moment.changes, survival, seed, why });
            }
        }
    }
    (states, found)
}

async fn run_all(seeds: u64, step: usize) -> usize {
    let (mut states, mut found) = (0, Vec::new());
    for scenario in ALL {
        for level in [SyncLevel::File, SyncLevel::Filesystem, SyncLevel::None] {
            let (looked_at, bad) = run(scenario, level, seeds, step).await;
            println!("{scenario}, {level:?}: {looked_at} states, {} bad", bad.len());
            states += looked_at;
            found.extend(bad);
        }
    }
    let shown: Vec<String> = found.iter().take(20).map(|found| format!("{found:?}")).collect();
    assert!(found.is_empty(), "{} of {states} states are bad:\n{}", found.len(), shown.join("\n"));
    states
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_few_hundred_crash_states() {
    let states = run_all(1, 9).await;
    assert!(states > 200, "{states}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the long form: more than twenty thousand states"]
async fn twenty_thousand_crash_states() {
    let states = run_all(12, 1).await;
    println!("{states} crash states");
    assert!(states > 20_000, "{states}");
}
