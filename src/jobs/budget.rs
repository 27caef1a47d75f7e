//! What a job says about having been held back.

use std::future::Future;
use std::time::Duration;

use crate::store::{BudgetShare, Rate, Waited};
use crate::task::Task;

/// What is shorter is not worth a line.
const WORTH_A_LINE: Duration = Duration::from_secs(1);

/// Tells the task the rate that was asked for, if one was.
pub fn tell_rate(rate: &Rate, task: &Task) {
    if let Some(words) = rate.words() {
        task.log(format!("at most {words} a second, as was asked for"));
    }
}

/// Does `work`, which asks `share`. The task is told when it is held back for the first time, for each cause, and at the end for how long it was.
pub async fn told<T>(share: &BudgetShare, task: &Task, work: impl Future<Output = T>) -> T {
    let mut waited = share.waited();
    let mut seen = Waited::default();
    tokio::pin!(work);
    let done = loop {
        tokio::select! {
            biased;
            done = &mut work => break done,
            // The sender is in `share`, so this ends only with a change.
            Ok(()) = waited.changed() => {
                let now = *waited.borrow_and_update();
                first_lines(&seen, &now).for_each(|line| task.log(line));
                seen = now;
            }
        }
    };
    let total = *waited.borrow();
    if let Some(line) = summary(&total) {
        task.log(line);
    }
    done
}

fn first_lines(before: &Waited, now: &Waited) -> impl Iterator<Item = &'static str> {
    let first = |before: Duration, now: Duration, line| (before < WORTH_A_LINE && now >= WORTH_A_LINE).then_some(line);
    [
        first(before.backups, now.backups, "slowed down while sessions run: backups come first"),
        first(before.rate, now.rate, "slowed down to the rate that is set"),
    ]
    .into_iter()
    .flatten()
}

fn summary(total: &Waited) -> Option<String> {
    if total.backups.max(total.rate) < WORTH_A_LINE {
        return None;
    }
    let (backups, rate) = (total.backups.as_secs(), total.rate.as_secs());
    Some(format!("waited {backups} s for backups, {rate} s for the rate"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once_and_what_is_short_not_at_all() {
        let waited = |backups, rate| {
            let ms = Duration::from_millis;
            Waited { backups: ms(backups), rate: ms(rate) }
        };
        let lines = |before: (u64, u64), now: (u64, u64)| -> usize {
            first_lines(&waited(before.0, before.1), &waited(now.0, now.1)).count()
        };
        assert_eq!(lines((0, 0), (999, 999)), 0);
        assert_eq!(lines((999, 999), (1000, 999)), 1);
        assert_eq!(lines((1000, 999), (2000, 1000)), 1);
        assert_eq!(lines((2000, 1000), (3000, 3000)), 0);
        assert_eq!(summary(&waited(999, 999)), None);
        assert_eq!(summary(&waited(72_900, 0)).unwrap(), "waited 72 s for backups, 0 s for the rate");
    }
}
