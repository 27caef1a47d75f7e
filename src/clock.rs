//! Seconds since the epoch, and the one place that asks what time it is.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::SystemTime;

/// Seconds since 1970-01-01T00:00:00Z. Negative before it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct EpochSecs(pub i64);

impl EpochSecs {
    /// `%Y-%m-%dT%H:%M:%SZ` in UTC, 20 characters; `None` before the year 0 and after
    /// 9999-12-30T22:00:00Z, where the calendar of `jiff` ends (spec 01 §1 allows two hours and a day more).
    pub fn to_utc_name(self) -> Option<String> {
        let stamp = jiff::Timestamp::from_second(self.0).ok()?;
        let civil = stamp.to_zoned(jiff::tz::TimeZone::UTC);
        (0..=9999).contains(&civil.year()).then(|| civil.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
    }

    /// RFC 3339 in the server's local time zone with a numeric offset, 25 characters (spec 05 §6).
    pub fn to_local_rfc3339(self) -> String {
        let stamp = jiff::Timestamp::from_second(self.0).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        stamp.to_zoned(jiff::tz::TimeZone::system()).strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
    }

    /// Parses exactly what [`Self::to_utc_name`] prints.
    pub fn from_utc_name(name: &str) -> Option<Self> {
        let shape = name.len() == 20
            && name.bytes().enumerate().all(|(i, b)| match i {
                4 | 7 => b == b'-',
                10 => b == b'T',
                13 | 16 => b == b':',
                19 => b == b'Z',
                _ => b.is_ascii_digit(),
            });
        if !shape {
            return None;
        }
        let secs = Self(name.parse::<jiff::Timestamp>().ok()?.as_second());
        // A leap second or a day that does not exist would come back as another name.
        (secs.to_utc_name().as_deref() == Some(name)).then_some(secs)
    }
}

impl fmt::Display for EpochSecs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where the time comes from: the system, or a test's hand.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    manual: Option<Arc<AtomicI64>>,
}

impl Clock {
    /// The machine's clock.
    pub fn system() -> Self {
        Self { manual: None }
    }

    /// A clock that stands still until [`Self::set`] moves it.
    pub fn manual(start: EpochSecs) -> Self {
        Self { manual: Some(Arc::new(AtomicI64::new(start.0))) }
    }

    /// Moves a manual clock; does nothing to the system's.
    pub fn set(&self, now: EpochSecs) {
        if let Some(cell) = &self.manual {
            cell.store(now.0, Ordering::SeqCst);
        }
    }

    /// What time it is.
    #[expect(clippy::disallowed_methods, reason = "the one place that asks the system")]
    pub fn now(&self) -> EpochSecs {
        match &self.manual {
            Some(cell) => EpochSecs(cell.load(Ordering::SeqCst)),
            None => EpochSecs(match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
                Ok(d) => i64::try_from(d.as_secs()).unwrap_or(i64::MAX),
                Err(e) => i64::try_from(e.duration().as_secs()).map_or(i64::MIN, |s| -s),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_names_round_trip() {
        for (secs, name) in [
            (1_717_597_418, "2024-06-05T14:23:38Z"),
            (1, "1970-01-01T00:00:01Z"),
            (253_402_207_200, "9999-12-30T22:00:00Z"),
        ] {
            assert_eq!(EpochSecs(secs).to_utc_name().as_deref(), Some(name));
            assert_eq!(EpochSecs::from_utc_name(name), Some(EpochSecs(secs)));
        }
        assert_eq!(EpochSecs(253_402_300_800).to_utc_name(), None);
        assert_eq!(EpochSecs(i64::MAX).to_utc_name(), None);
    }

    #[test]
    fn other_spellings_are_refused() {
        for name in [
            "2024-06-05T14:23:38",
            "2024-6-05T14:23:38Z",
            "2024-06-05 14:23:38Z",
            "2024-02-30T00:00:00Z",
            "2024-06-05T14:23:60Z",
            "2024-06-05T24:00:00Z",
            "2024-06-05t14:23:38z",
            "",
            "٢٠24-06-05T14:23:3Z",
        ] {
            assert_eq!(EpochSecs::from_utc_name(name), None, "{name}");
        }
    }

    #[test]
    fn log_times_are_25_characters() {
        assert_eq!(EpochSecs(1_717_597_418).to_local_rfc3339().len(), 25);
    }
}
