//! Which tasks a listing shows. Pure.

use super::book::Listed;
use super::entry::TaskStatus;
use crate::clock::EpochSecs;
use crate::types::Upid;

/// How a task ended, without the words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusClass {
    /// Well.
    Ok,
    /// Well, with warnings.
    Warning,
    /// With an error.
    Error,
    /// Nobody knows: the daemon died.
    Unknown,
}

impl StatusClass {
    /// The words of the API, in the order of `ALL`.
    pub const WORDS: &'static [&'static str] = &["ok", "warning", "error", "unknown"];

    const ALL: [Self; 4] = [Self::Ok, Self::Warning, Self::Error, Self::Unknown];

    /// From one of [`Self::WORDS`].
    pub fn from_word(word: &str) -> Option<Self> {
        Self::WORDS.iter().position(|known| *known == word).map(|i| Self::ALL[i])
    }

    /// Of a result.
    pub fn of(status: &TaskStatus) -> Self {
        match status {
            TaskStatus::Ok => Self::Ok,
            TaskStatus::Warnings(_) => Self::Warning,
            TaskStatus::Error(_) => Self::Error,
            TaskStatus::Unknown => Self::Unknown,
        }
    }
}

/// What a listing is narrowed to; the default shows everything.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Only running ones.
    pub running: bool,
    /// Only those that ended with an error, or unknown.
    pub errors: bool,
    /// A part of who started it.
    pub user: Option<String>,
    /// A part of its type.
    pub worker_type: Option<String>,
    /// The datastore that its worker id names.
    pub store: Option<String>,
    /// Not begun before.
    pub since: Option<EpochSecs>,
    /// Not begun after.
    pub until: Option<EpochSecs>,
    /// Ended in one of these ways; empty for any, and for running ones.
    pub statuses: Vec<StatusClass>,
}

impl Filter {
    /// Whether a task passes.
    pub fn admits(&self, task: &Listed) -> bool {
        let upid = &task.upid;
        let class = task.ended.as_ref().map(|(_, status)| StatusClass::of(status));
        let named = |part: &Option<String>, whole: &str| part.as_ref().is_none_or(|part| whole.contains(part.as_str()));
        (!self.running || class.is_none())
            && (!self.errors || matches!(class, Some(StatusClass::Error | StatusClass::Unknown)))
            && (self.statuses.is_empty() || class.is_some_and(|class| self.statuses.contains(&class)))
            && named(&self.worker_type, &upid.worker_type)
            && self.user.as_ref().is_none_or(|part| upid.auth_id.to_string().contains(part.as_str()))
            && self.store.as_ref().is_none_or(|store| store_of(upid) == Some(store.as_str()))
            && self.since.is_none_or(|since| upid.start >= since)
            && self.until.is_none_or(|until| upid.start <= until)
    }
}

/// What stands before the first colon of a worker id: for tasks that work on a datastore, its name.
pub fn store_of(upid: &Upid) -> Option<&str> {
    upid.worker_id.as_deref()?.split(':').next()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(worker_type: &str, id: Option<&str>, user: &str, start: i64, status: Option<TaskStatus>) -> Listed {
        let upid = Upid {
            node: "a".into(),
            pid: 1,
            pstart: 1,
            task_id: 1,
            start: EpochSecs(start),
            worker_type: worker_type.into(),
            worker_id: id.map(ToOwned::to_owned),
            auth_id: user.parse().unwrap(),
        };
        Listed { upid, ended: status.map(|status| (EpochSecs(start + 1), status)) }
    }

    #[test]
    fn every_filter_alone() {
        let tasks = [
            listed("backup", Some("main:vm/1"), "a@pbs!t", 10, None),
            listed("backup", Some("main2:vm/1"), "a@pbs", 20, Some(TaskStatus::Ok)),
            listed("garbage_collection", Some("main"), "root@pam", 30, Some(TaskStatus::Warnings(1))),
            listed("prune", Some("main::host/x"), "b@pbs", 40, Some(TaskStatus::Error("no".into()))),
            listed("reader", None, "b@pbs", 50, Some(TaskStatus::Unknown)),
        ];
        let all = Filter::default;
        let rows: [(Filter, &[usize]); 15] = [
            (all(), &[0, 1, 2, 3, 4]),
            (Filter { running: true, ..all() }, &[0]),
            (Filter { errors: true, ..all() }, &[3, 4]),
            (Filter { user: Some("a@pbs".into()), ..all() }, &[0, 1]),
            (Filter { user: Some("!t".into()), ..all() }, &[0]),
            (Filter { worker_type: Some("b".into()), ..all() }, &[0, 1, 2]),
            (Filter { worker_type: Some("prune".into()), ..all() }, &[3]),
            (Filter { store: Some("main".into()), ..all() }, &[0, 2, 3]),
            (Filter { store: Some("mai".into()), ..all() }, &[]),
            (Filter { since: Some(EpochSecs(30)), ..all() }, &[2, 3, 4]),
            (Filter { until: Some(EpochSecs(30)), ..all() }, &[0, 1, 2]),
            (Filter { since: Some(EpochSecs(20)), until: Some(EpochSecs(40)), ..all() }, &[1, 2, 3]),
            (Filter { statuses: vec![StatusClass::Ok, StatusClass::Unknown], ..all() }, &[1, 4]),
            (Filter { statuses: vec![StatusClass::Warning], ..all() }, &[2]),
            (Filter { running: true, errors: true, ..all() }, &[]),
        ];
        for (filter, want) in rows {
            let shown: Vec<usize> = (0..tasks.len()).filter(|i| filter.admits(&tasks[*i])).collect();
            assert_eq!(shown, want, "{filter:?}");
        }
    }

    #[test]
    fn words_and_classes() {
        for (word, class) in StatusClass::WORDS.iter().zip(StatusClass::ALL) {
            assert_eq!(StatusClass::from_word(word), Some(class));
        }
        assert_eq!(StatusClass::from_word("OK"), None);
    }
}
