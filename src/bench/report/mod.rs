//! What was measured, in fio's words: entries and groups first, then text or JSON. Pure.

use std::time::Duration;

use serde_json::{Map, Value};

use super::job::Job;
use super::outcome::{JobOutcome, Usage};
use super::spread::as_f64;
use super::stats::{Direction, Stats};
use crate::error::Kind;

pub mod json;
pub mod normal;
#[cfg(test)]
pub(crate) mod test_support;

/// All directions, in fio's order.
pub const DIRECTIONS: [Direction; 3] = [Direction::Read, Direction::Write, Direction::Trim];

/// One run of a job as the report sees it: at its end, or while it runs.
#[derive(Clone, Debug)]
pub struct Part<'a> {
    /// What was asked for.
    pub job: &'a Job,
    /// How long it counted.
    pub runtime: Duration,
    /// What it measured.
    pub stats: &'a Stats,
    /// Processor time and faults.
    pub usage: Usage,
    /// The kernel's number, and the text.
    pub error: Option<(i32, String)>,
    /// How long it still takes, if it is under way.
    pub eta: Duration,
    /// What only a datastore has to tell.
    pub datastore: Map<String, Value>,
    /// The same for people.
    pub notes: &'a [String],
}

impl<'a> From<&'a JobOutcome> for Part<'a> {
    fn from(outcome: &'a JobOutcome) -> Self {
        // errno(3): EINVAL and EIO stand for what the kernel had no part in.
        let number = |e: &crate::error::Error| e.errno().unwrap_or(if e.kind() == Kind::Invalid { 22 } else { 5 });
        let mut datastore = outcome.datastore.clone();
        if outcome.interrupted {
            datastore.insert("interrupted".to_owned(), Value::Bool(true));
        }
        Self {
            job: &outcome.job,
            runtime: outcome.runtime,
            stats: &outcome.stats,
            usage: outcome.usage,
            error: outcome.error.as_ref().map(|e| (number(e), e.to_string())),
            eta: Duration::ZERO,
            datastore,
            notes: &outcome.notes,
        }
    }
}

/// I/Os of a disk while the jobs ran, from `/sys/block/*/stat`.
#[derive(Clone, Debug, Default, serde::Serialize)]
#[expect(missing_docs, reason = "the fields are those of the kernel's Documentation/block/stat.rst; ticks are ms")]
pub struct DiskUse {
    pub name: String,
    pub read_ios: u64,
    pub write_ios: u64,
    pub read_merges: u64,
    pub write_merges: u64,
    pub read_ticks: u64,
    pub write_ticks: u64,
    pub in_queue: u64,
    /// Percent of the time.
    pub util: f64,
}

/// What stands above all entries.
#[derive(Clone, Debug, Default)]
pub struct Frame {
    /// ms since 1970.
    pub now_ms: u64,
    /// Since the run began.
    pub elapsed: Duration,
    /// Options that hold for all jobs.
    pub globals: Vec<(String, String)>,
    /// Empty when nobody looked.
    pub disks: Vec<DiskUse>,
}

/// One entry of the report: a run of a job, or all of a group with `group_reporting`.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// The first one's.
    pub job: &'a Job,
    /// How many runs it sums up.
    pub jobs: u32,
    /// The longest of them.
    pub runtime: Duration,
    /// Of all of them together.
    pub total_runtime: Duration,
    /// Merged.
    pub stats: Stats,
    /// Summed up.
    pub usage: Usage,
    /// The first one's that has one.
    pub error: Option<(i32, String)>,
    /// The longest.
    pub eta: Duration,
    /// What only a datastore has to tell; what the runs tell differently is a list under `members`.
    pub datastore: Map<String, Value>,
    /// Lines for people.
    pub notes: Vec<String>,
}

/// Jobs with the same `groupid`, by direction.
#[derive(Clone, Debug, Default)]
pub struct Group {
    /// Its number.
    pub id: u32,
    /// By direction.
    pub ways: [GroupWay; 3],
}

/// One direction of a group.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupWay {
    /// Of all jobs.
    pub bytes: u64,
    /// I/Os of all jobs.
    pub ios: u64,
    /// Bytes a second of the slowest and of the fastest job.
    pub bw: (u64, u64),
    /// ms of the shortest and of the longest job.
    pub runtime: (u64, u64),
}

impl GroupWay {
    /// Bytes a second of all jobs together.
    pub fn aggregate(&self) -> u64 {
        per_second(self.bytes, self.runtime.1)
    }
}

impl Entry<'_> {
    /// ms that a direction counted; 0 of one that saw no I/O.
    pub fn runtime_ms(&self, direction: Direction) -> u64 {
        if self.stats.ios[direction as usize] > 0 { millis(self.runtime) } else { 0 }
    }

    /// Bytes a second.
    pub fn bandwidth(&self, direction: Direction) -> u64 {
        per_second(self.stats.bytes[direction as usize], self.runtime_ms(direction))
    }

    /// I/Os a second.
    pub fn iops(&self, direction: Direction) -> f64 {
        let ms = self.runtime_ms(direction);
        if ms == 0 { 0.0 } else { as_f64(self.stats.ios[direction as usize]) * 1000.0 / as_f64(ms) }
    }

    /// Percent of the processor's time in user mode and in the kernel, the mean of the runs.
    pub fn processor(&self) -> (f64, f64) {
        let share = |time: Duration| match self.total_runtime.as_secs_f64() {
            0.0 => 0.0,
            total => time.as_secs_f64() * 100.0 / total,
        };
        (share(self.usage.user), share(self.usage.system))
    }

    /// How much of its group's bandwidth is this one's, in percent, by the mean of its samples.
    pub fn share_of(&self, group: &Group, direction: Direction) -> f64 {
        let mean = self.stats.ways[direction as usize].bw.mean();
        match group.ways[direction as usize].aggregate() / 1024 {
            0 => 0.0,
            aggregate => (mean * 100.0 / as_f64(aggregate)).min(100.0),
        }
    }
}

/// One entry for each part; neighbours of one group that want it share theirs.
pub fn entries<'a>(parts: &[Part<'a>]) -> Vec<Entry<'a>> {
    let mut entries: Vec<Entry<'a>> = Vec::new();
    for part in parts {
        let shared = entries.last_mut().filter(|last| {
            last.job.group_reporting && part.job.group_reporting && last.job.group_id == part.job.group_id
        });
        match shared {
            Some(entry) => entry.take_in(part),
            None => entries.push(Entry {
                job: part.job,
                jobs: 1,
                runtime: part.runtime,
                total_runtime: part.runtime,
                stats: part.stats.clone(),
                usage: part.usage,
                error: part.error.clone(),
                eta: part.eta,
                datastore: part.datastore.clone(),
                notes: part.notes.to_vec(),
            }),
        }
    }
    entries
}

impl Entry<'_> {
    fn take_in(&mut self, part: &Part<'_>) {
        // Runs of one job mostly say the same; what differs stands side by side.
        let other = Value::Object(part.datastore.clone());
        let same = self.datastore == part.datastore;
        match self.datastore.get_mut("members") {
            Some(Value::Array(members)) if members.contains(&other) => {}
            Some(Value::Array(members)) => members.push(other),
            _ if same => {}
            _ => {
                let own = Value::Object(std::mem::take(&mut self.datastore));
                self.datastore.insert("members".to_owned(), Value::Array(vec![own, other]));
            }
        }
        self.jobs += 1;
        self.runtime = self.runtime.max(part.runtime);
        self.total_runtime += part.runtime;
        self.stats.merge(part.stats);
        self.usage.user += part.usage.user;
        self.usage.system += part.usage.system;
        self.usage.switches += part.usage.switches;
        self.usage.major_faults += part.usage.major_faults;
        self.usage.minor_faults += part.usage.minor_faults;
        self.error = self.error.take().or_else(|| part.error.clone());
        self.eta = self.eta.max(part.eta);
        // Several runs of one job mostly say the same.
        let new = part.notes.iter().filter(|note| !self.notes.contains(note)).cloned().collect::<Vec<_>>();
        self.notes.extend(new);
    }
}

/// The groups of all parts, by number.
pub fn groups(parts: &[Part<'_>]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for part in parts {
        let at = groups.iter().position(|group| group.id == part.job.group_id).unwrap_or_else(|| {
            groups.push(Group { id: part.job.group_id, ..Group::default() });
            groups.len() - 1
        });
        for direction in DIRECTIONS {
            let (ios, bytes) = (part.stats.ios[direction as usize], part.stats.bytes[direction as usize]);
            if ios == 0 {
                continue;
            }
            let way = &mut groups[at].ways[direction as usize];
            let (ms, first) = (millis(part.runtime), way.ios == 0);
            let bw = per_second(bytes, ms);
            way.bw = if first { (bw, bw) } else { (way.bw.0.min(bw), way.bw.1.max(bw)) };
            way.runtime = if first { (ms, ms) } else { (way.runtime.0.min(ms), way.runtime.1.max(ms)) };
            way.bytes += bytes;
            way.ios += ios;
        }
    }
    groups
}

/// Whole ms; what counted at all, at least one.
pub fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX).max(u64::from(!time.is_zero()))
}

fn per_second(amount: u64, ms: u64) -> u64 {
    let rate = u128::from(amount) * 1000 / u128::from(ms.max(1));
    if ms == 0 { 0 } else { u64::try_from(rate).unwrap_or(u64::MAX) }
}

/// Shares of counts in percent. As in fio, what is there at all is at least `least`.
pub fn shares(counts: &[u64], total: u64, least: f64) -> Vec<f64> {
    let share = |count: &u64| match (*count, total) {
        (0, _) | (_, 0) => 0.0,
        (count, total) => (as_f64(count) * 100.0 / as_f64(total)).max(least),
    };
    counts.iter().map(share).collect()
}

/// Who measured: stands where fio has its own version.
pub fn version() -> String {
    format!("ringvault-{}", env!("CARGO_PKG_VERSION"))
}

/// As `ctime(3)`, in the local time zone.
pub fn ctime(ms: u64) -> String {
    let stamp = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    let zoned = stamp.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_zoned(jiff::tz::TimeZone::system());
    zoned.strftime("%a %b %e %H:%M:%S %Y").to_string()
}
