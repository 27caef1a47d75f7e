//! A snapshot: one backup of a group, named by its time. Pure.

use std::fmt;
use std::str::FromStr;

use super::group::Group;
use crate::clock::EpochSecs;
use crate::error::{Error, Result};

/// Group and backup time, shown as `type/id/2024-06-05T14:23:38Z`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Snapshot {
    group: Group,
    time: EpochSecs,
}

impl Snapshot {
    /// A snapshot whose time can be a directory's name: from 1 s after the epoch to the year 9999.
    pub fn new(group: Group, time: EpochSecs) -> Result<Self> {
        if time.0 >= 1 && time.to_utc_name().is_some() {
            Ok(Self { group, time })
        } else {
            Err(Error::invalid(format!("backup time {time} is out of range")))
        }
    }

    /// The group that it belongs to.
    pub fn group(&self) -> &Group {
        &self.group
    }

    /// When the client says the backup was taken.
    pub fn time(&self) -> EpochSecs {
        self.time
    }

    /// The directory's name: the time in UTC.
    pub fn dir_name(&self) -> String {
        self.time.to_utc_name().expect("checked when made")
    }
}

impl FromStr for Snapshot {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        let wrong = || Error::invalid(format!("{s:.80?} is not a snapshot: TYPE/ID/YYYY-MM-DDTHH:MM:SSZ expected"));
        let (group, time) = s.rsplit_once('/').ok_or_else(wrong)?;
        Self::new(group.parse()?, EpochSecs::from_utc_name(time).ok_or_else(wrong)?)
    }
}

impl fmt::Display for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.group, self.dir_name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_and_parsed_alike() {
        let s: Snapshot = "vm/100/2024-06-05T14:23:38Z".parse().unwrap();
        assert_eq!(s.time(), EpochSecs(1_717_597_418));
        assert_eq!(s.to_string(), "vm/100/2024-06-05T14:23:38Z");
        for bad in ["vm/100", "vm/100/", "vm/100/1717597418", "vm/100/1970-01-01T00:00:00Z"] {
            assert!(bad.parse::<Snapshot>().is_err(), "{bad}");
        }
        assert!(Snapshot::new(s.group().clone(), EpochSecs(i64::MAX)).is_err());
    }
}
