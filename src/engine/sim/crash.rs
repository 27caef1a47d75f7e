//! What is left of unsynced effects when the power goes. Pure, and the same for the same seed.

use std::collections::HashSet;

use super::effect::{Effect, Record};
use super::random::Random;
use super::tree::{Body, Ino, Tree};

/// How much of what nobody synced reaches the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Survival {
    /// Nothing.
    Nothing,
    /// All of it: what a killed process leaves.
    Everything,
    /// The tree as it was at some moment since the last sync, as journals keep it; of what files hold, any pages, and the lengths
    /// whose pages are all there.
    Journal,
    /// Of the tree too any of the effects, in order.
    Anything,
}

/// The disk after the crash: `durable`, and those of `pending` that made it.
pub(super) fn crash(durable: &Tree, pending: &[Record], survival: Survival, seed: u64) -> Tree {
    let mut random = Random::new(seed);
    let mut disk = durable.clone();
    // Rates apart from one half find what needs nearly all to be lost, or nearly none.
    let percent = [3, 25, 50, 75, 97][random.below(5)];
    let tree_end = random.below(pending.len() + 1);
    let unborn = match survival {
        Survival::Anything => lost_inodes(pending, &mut random),
        _ => HashSet::new(),
    };
    let mut holed = HashSet::new();
    for (n, record) in pending.iter().enumerate() {
        let is_lucky = random.below(100) < percent && !is_ahead_of_bytes(&record.effect, &holed);
        let survives = match survival {
            Survival::Nothing => false,
            Survival::Everything => true,
            Survival::Journal if record.effect.is_content() => is_lucky,
            Survival::Journal => n < tree_end,
            Survival::Anything => match &record.effect {
                // With its names, not by itself.
                Effect::Born { ino, .. } => !unborn.contains(ino),
                _ => is_lucky,
            },
        };
        if let (Effect::Page { ino, .. }, false) = (&record.effect, survives) {
            holed.insert(*ino);
        }
        if survives {
            disk.apply(&record.effect, record.at);
        }
    }
    disk
}

/// A new length reaches the disk behind the bytes that it covers: ext4 (`data=ordered`), xfs and btrfs see to that.
fn is_ahead_of_bytes(effect: &Effect, holed: &HashSet<Ino>) -> bool {
    matches!(effect, Effect::Size { ino, .. } if holed.contains(ino))
}

/// One new file in ten does not reach the disk, though names of it may.
fn lost_inodes(pending: &[Record], random: &mut Random) -> HashSet<Ino> {
    let born = pending.iter().filter_map(|record| match record.effect {
        Effect::Born { ino, body: Body::File { .. }, .. } => Some(ino),
        _ => None,
    });
    born.filter(|_| random.below(10) == 0).collect()
}
