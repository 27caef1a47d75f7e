//! When garbage collection may remove a chunk file that no index names. Pure.
//!
//! Source: spec 07 §1.4.

use crate::clock::EpochSecs;

/// For clocks that do not agree to the second.
const SLACK_SECS: i64 = 300;

/// The two times that a file's access time is compared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cutoff {
    /// What was last used before may go: the earlier of the start less the datastore's `gc-atime-cutoff` (24 h 5 min unless it is set, for a
    /// `relatime` mount refreshes the access time only daily) and the oldest running backup less 5 minutes.
    pub min_atime: EpochSecs,
    /// What was last used since may belong to a running backup; what lies in between is pending.
    pub oldest_writer: EpochSecs,
}

/// What the sweep does with one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes.
    Remove,
    /// Nobody names it, but it is too young to go.
    Pending,
    /// As young as the oldest running backup: it counts as in use.
    InUse,
}

impl Cutoff {
    /// For a run that began at `phase1_start`, when the oldest running backup had begun at `oldest_writer`, and what was used in the last
    /// `age_secs` stays. Saturates.
    pub fn new(phase1_start: EpochSecs, oldest_writer: Option<EpochSecs>, age_secs: i64) -> Self {
        let oldest_writer = oldest_writer.unwrap_or(phase1_start);
        let by_age = phase1_start.0.saturating_sub(age_secs);
        let by_writer = oldest_writer.0.saturating_sub(SLACK_SECS);
        Self { min_atime: EpochSecs(by_age.min(by_writer)), oldest_writer }
    }

    /// Judges a file by its access time.
    pub fn judge(&self, accessed: EpochSecs) -> Verdict {
        if accessed < self.min_atime {
            Verdict::Remove
        } else if accessed < self.oldest_writer {
            Verdict::Pending
        } else {
            Verdict::InUse
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_of_the_specification() {
        const START: i64 = 1_717_600_000;
        for (writer, min_atime, oldest) in [
            (None, 1_717_513_300, START),
            (Some(1_717_400_000), 1_717_399_700, 1_717_400_000),
            // Younger than a day: the day counts.
            (Some(START - 60), 1_717_513_300, START - 60),
            // The clock was set back since it began.
            (Some(START + 1000), 1_717_513_300, START + 1000),
            (Some(i64::MIN), i64::MIN, i64::MIN),
        ] {
            let cutoff = Cutoff::new(EpochSecs(START), writer.map(EpochSecs), 1445 * 60);
            assert_eq!(cutoff, Cutoff { min_atime: EpochSecs(min_atime), oldest_writer: EpochSecs(oldest) });
            for (accessed, verdict) in [
                (min_atime.saturating_sub(1), Verdict::Remove),
                (min_atime, Verdict::Pending),
                (oldest - i64::from(oldest > i64::MIN), Verdict::Pending),
                (oldest, Verdict::InUse),
                (i64::MAX, Verdict::InUse),
            ] {
                if oldest > i64::MIN {
                    assert_eq!(cutoff.judge(EpochSecs(accessed)), verdict, "{writer:?} {accessed}");
                }
            }
        }
    }

    #[test]
    fn a_shorter_age_never_reaches_into_a_running_backup() {
        let (start, minute) = (EpochSecs(1_717_600_000), 60);
        let min_atime =
            |writer: Option<i64>, age: i64| start.0 - Cutoff::new(start, writer.map(EpochSecs), age).min_atime.0;
        for (writer, age, want) in [
            (None, minute, 300),
            (None, 10 * minute, 600),
            (None, 2880 * minute, 172_800),
            (Some(start.0 - 3600), 10 * minute, 3900),
            (Some(start.0 - 60), 10 * minute, 600),
        ] {
            assert_eq!(min_atime(writer, age), want, "{writer:?} {age}");
        }
    }
}
