//! The keep options of a prune: the same in the call for a group, in that for a namespace, and in jobs.

use crate::http::params::{ParamKind, ParamSpec};

/// Zero is no number of snapshots to keep: who wants none leaves the option out (recorded).
const COUNT: ParamKind = ParamKind::Integer { min: 1, max: i64::MAX };

pub(super) const LAST: ParamSpec = ParamSpec::optional("keep-last", COUNT, "How many of the newest stay.");
pub(super) const HOURLY: ParamSpec = ParamSpec::optional("keep-hourly", COUNT, "In how many hours the newest stays.");
pub(super) const DAILY: ParamSpec = ParamSpec::optional("keep-daily", COUNT, "On how many days the newest stays.");
pub(super) const WEEKLY: ParamSpec = ParamSpec::optional("keep-weekly", COUNT, "In how many weeks the newest stays.");
pub(super) const MONTHLY: ParamSpec =
    ParamSpec::optional("keep-monthly", COUNT, "In how many months the newest stays.");
pub(super) const YEARLY: ParamSpec = ParamSpec::optional("keep-yearly", COUNT, "In how many years the newest stays.");
