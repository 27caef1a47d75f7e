//! What the kernel says about tasks that wait for I/O: `/proc/pressure/io`. Pure.

use std::time::Duration;

/// The line of time in which at least one task of the machine waited for I/O.
const SOME: &str = "some ";

/// The total of the line `some`: for how long, since the machine started, at least one task waited for I/O. `None` for another text.
pub(super) fn some_total(text: &str) -> Option<Duration> {
    let line = text.lines().find_map(|line| line.strip_prefix(SOME))?;
    let total = line.split_ascii_whitespace().find_map(|word| word.strip_prefix("total="))?;
    total.parse().ok().map(Duration::from_micros)
}

/// What two readings say about the time between them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pressure {
    /// Nobody waits, or hardly.
    Low,
    /// Some waiting, as of any machine that works.
    Middling,
    /// Somebody waited in more than half of the time.
    High,
}

/// How much waiting there was within `passed`.
pub(super) fn between(before: Duration, after: Duration, passed: Duration) -> Pressure {
    let waited = after.saturating_sub(before);
    if waited * 2 > passed {
        Pressure::High
    } else if waited * 4 > passed {
        Pressure::Middling
    } else {
        Pressure::Low
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_text() {
        let text = "some avg10=1.06 avg60=9.19 avg300=9.90 total=1773292832\nfull avg10=0.00 avg60=0.57 avg300=3.40 total=493635915\n";
        assert_eq!(some_total(text), Some(Duration::from_micros(1_773_292_832)));
        for other in ["", "full avg10=0.00 total=1\n", "some avg10=0.00\n", "some total=\n", "some total=x\n"] {
            assert_eq!(some_total(other), None, "{other:?}");
        }
    }

    #[test]
    fn half_of_the_time_is_high() {
        let (second, ms) = (Duration::from_secs(1), Duration::from_millis);
        for (waited, verdict) in [
            (0, Pressure::Low),
            (250, Pressure::Low),
            (251, Pressure::Middling),
            (500, Pressure::Middling),
            (501, Pressure::High),
            (1000, Pressure::High),
        ] {
            assert_eq!(between(ms(7), ms(7 + waited), second), verdict, "{waited}");
        }
        assert_eq!(between(ms(7), ms(3), second), Pressure::Low, "a counter that went back");
    }
}
