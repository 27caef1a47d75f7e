//! fio's JSON: its keys, its units, its value types, its order. Pure.
//!
//! `bw` is in KiB a second, `runtime` in ms, what ends in `_ns` in nanoseconds. What is ours stands under `datastore` in a job.

use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};
use serde_json::{Map, Value};

use super::{DIRECTIONS, DiskUse, Entry, Frame, Group, Part, ctime, entries, groups, millis, shares, version};
use crate::bench::spread::Spread;
use crate::bench::stats::{Direction, Timing};

/// The whole report; `bins` adds all buckets of the completion latency (`json+`).
pub fn render(frame: &Frame, parts: &[Part<'_>], bins: bool) -> String {
    let groups = groups(parts);
    let entries = entries(parts);
    let elapsed = frame.elapsed.as_secs() + 1;
    let group = |entry: &Entry<'_>| groups.iter().find(|group| group.id == entry.job.group_id).cloned();
    let jobs = entries.iter().map(|entry| job(entry, &group(entry).unwrap_or_default(), elapsed, bins)).collect();
    let whole = Whole {
        version: version(),
        timestamp: frame.now_ms / 1000,
        timestamp_ms: frame.now_ms,
        time: ctime(frame.now_ms),
        globals: (!frame.globals.is_empty()).then(|| Ordered(text_pairs(&frame.globals))),
        jobs,
        disk_util: (!frame.disks.is_empty()).then_some(&frame.disks),
    };
    let mut text = serde_json::to_string_pretty(&whole).expect("text keys and finite numbers");
    text.push('\n');
    text
}

/// An object with its keys in this order.
#[derive(Debug)]
struct Ordered<V>(Vec<(String, V)>);

impl<V: Serialize> Serialize for Ordered<V> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (key, value) in &self.0 {
            map.serialize_entry(key, value)?;
        }
        map.end()
    }
}

fn text_pairs(list: &[(String, String)]) -> Vec<(String, String)> {
    list.to_vec()
}

#[derive(Serialize)]
struct Whole<'a> {
    #[serde(rename = "fio version")]
    version: String,
    timestamp: u64,
    timestamp_ms: u64,
    time: String,
    #[serde(rename = "global options", skip_serializing_if = "Option::is_none")]
    globals: Option<Ordered<String>>,
    jobs: Vec<JobJson>,
    #[serde(skip_serializing_if = "Option::is_none")]
    disk_util: Option<&'a Vec<DiskUse>>,
}

#[derive(Serialize)]
struct JobJson {
    jobname: String,
    groupid: u32,
    error: i32,
    eta: u64,
    elapsed: u64,
    #[serde(rename = "job options")]
    options: Ordered<String>,
    read: WayJson,
    write: WayJson,
    trim: WayJson,
    sync: SyncJson,
    job_runtime: u64,
    usr_cpu: f64,
    sys_cpu: f64,
    ctx: u64,
    majf: u64,
    minf: u64,
    iodepth_level: Ordered<f64>,
    iodepth_submit: Ordered<f64>,
    iodepth_complete: Ordered<f64>,
    latency_ns: Ordered<f64>,
    latency_us: Ordered<f64>,
    latency_ms: Ordered<f64>,
    latency_depth: u32,
    latency_target: u64,
    latency_percentile: f64,
    latency_window: u64,
    #[serde(skip_serializing_if = "Map::is_empty")]
    datastore: Map<String, Value>,
}

#[derive(Serialize)]
struct WayJson {
    io_bytes: u64,
    io_kbytes: u64,
    bw_bytes: u64,
    bw: u64,
    iops: f64,
    runtime: u64,
    total_ios: u64,
    short_ios: u64,
    drop_ios: u64,
    slat_ns: SpreadJson,
    clat_ns: SpreadJson,
    lat_ns: SpreadJson,
    bw_min: u64,
    bw_max: u64,
    bw_agg: f64,
    bw_mean: f64,
    bw_dev: f64,
    bw_samples: u64,
    iops_min: u64,
    iops_max: u64,
    iops_mean: f64,
    iops_stddev: f64,
    iops_samples: u64,
}

#[derive(Serialize)]
struct SyncJson {
    total_ios: u64,
    lat_ns: SpreadJson,
}

#[derive(Serialize)]
struct SpreadJson {
    min: u64,
    max: u64,
    mean: f64,
    stddev: f64,
    #[serde(rename = "N")]
    count: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    percentile: Option<Ordered<u64>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    bins: Option<Ordered<u64>>,
}

impl From<&Spread> for SpreadJson {
    fn from(spread: &Spread) -> Self {
        Self {
            min: spread.min(),
            max: spread.max(),
            mean: spread.mean(),
            stddev: spread.deviation(),
            count: spread.count(),
            percentile: None,
            bins: None,
        }
    }
}

fn timing(timing: &Timing, percentiles: &[f64], bins: bool) -> SpreadJson {
    let mut json = SpreadJson::from(&timing.spread);
    if timing.spread.count() > 0 {
        let at = |percent: &f64| (format!("{percent:.6}"), timing.histogram.percentile(*percent));
        json.percentile = Some(Ordered(percentiles.iter().map(at).collect()));
        json.bins = bins.then(|| Ordered(timing.histogram.bins().map(|(ns, count)| (ns.to_string(), count)).collect()));
    }
    json
}

fn way(entry: &Entry<'_>, group: &Group, direction: Direction, bins: bool) -> WayJson {
    let way = &entry.stats.ways[direction as usize];
    let bytes = entry.stats.bytes[direction as usize];
    WayJson {
        io_bytes: bytes,
        io_kbytes: bytes / 1024,
        bw_bytes: entry.bandwidth(direction),
        bw: entry.bandwidth(direction) / 1024,
        iops: entry.iops(direction),
        runtime: entry.runtime_ms(direction),
        total_ios: entry.stats.ios[direction as usize],
        short_ios: 0,
        drop_ios: 0,
        slat_ns: SpreadJson::from(&way.slat),
        clat_ns: timing(&way.clat, &entry.job.percentiles, bins),
        lat_ns: SpreadJson::from(&way.lat),
        bw_min: way.bw.min(),
        bw_max: way.bw.max(),
        bw_agg: entry.share_of(group, direction),
        bw_mean: way.bw.mean(),
        bw_dev: way.bw.deviation(),
        bw_samples: way.bw.count(),
        iops_min: way.iops.min(),
        iops_max: way.iops.max(),
        iops_mean: way.iops.mean(),
        iops_stddev: way.iops.deviation(),
        iops_samples: way.iops.count(),
    }
}

/// Names of the steps, as fio has them.
pub(super) const DEPTHS: [&str; 7] = ["1", "2", "4", "8", "16", "32", ">=64"];
pub(super) const CALLS: [&str; 7] = ["0", "4", "8", "16", "32", "64", ">=64"];
pub(super) const UNITS: [&str; 10] = ["2", "4", "10", "20", "50", "100", "250", "500", "750", "1000"];
pub(super) const MILLIS: [&str; 12] =
    ["2", "4", "10", "20", "50", "100", "250", "500", "750", "1000", "2000", ">=2000"];

fn named(names: &[&str], shares: &[f64]) -> Ordered<f64> {
    Ordered(names.iter().map(|name| (*name).to_owned()).zip(shares.iter().copied()).collect())
}

fn job(entry: &Entry<'_>, group: &Group, elapsed: u64, bins: bool) -> JobJson {
    let stats = &entry.stats;
    let (usr_cpu, sys_cpu) = entry.processor();
    let calls = |counts: &[u64; 7]| named(&CALLS, &shares(counts, counts.iter().sum(), 0.1));
    let latencies = shares(&stats.latencies, stats.ios.iter().sum(), 0.01);
    let [read, write, trim] = DIRECTIONS.map(|direction| way(entry, group, direction, bins));
    JobJson {
        jobname: entry.job.name.clone(),
        groupid: entry.job.group_id,
        error: entry.error.as_ref().map_or(0, |(number, _)| *number),
        eta: entry.eta.as_secs(),
        elapsed,
        options: Ordered(text_pairs(&entry.job.given)),
        read,
        write,
        trim,
        sync: SyncJson {
            total_ios: stats.syncs.spread.count(),
            lat_ns: timing(&stats.syncs, &entry.job.percentiles, bins),
        },
        job_runtime: millis(entry.total_runtime),
        usr_cpu,
        sys_cpu,
        ctx: entry.usage.switches,
        majf: entry.usage.major_faults,
        minf: entry.usage.minor_faults,
        iodepth_level: named(&DEPTHS, &shares(&stats.depths, stats.depths.iter().sum(), 0.1)),
        iodepth_submit: calls(&stats.submits),
        iodepth_complete: calls(&stats.completes),
        latency_ns: named(&UNITS, &latencies[..10]),
        latency_us: named(&UNITS, &latencies[10..20]),
        latency_ms: named(&MILLIS, &latencies[20..]),
        latency_depth: entry.job.iodepth,
        latency_target: 0,
        latency_percentile: 100.0,
        latency_window: 0,
        datastore: datastore(entry),
    }
}

fn datastore(entry: &Entry<'_>) -> Map<String, Value> {
    let mut own = entry.datastore.clone();
    if let Some((_, text)) = &entry.error {
        own.insert("error".to_owned(), Value::from(text.as_str()));
    }
    own
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{frame, outcome};
    use super::*;

    #[test]
    fn units_are_those_of_fio() {
        let outcomes = [outcome("a", 0)];
        let parts: Vec<Part<'_>> = outcomes.iter().map(Part::from).collect();
        let report: Value = serde_json::from_str(&render(&frame(), &parts, true)).unwrap();
        let read = &report["jobs"][0]["read"];
        assert_eq!((&read["io_bytes"], &read["io_kbytes"]), (&Value::from(4_096_000), &Value::from(4_000)));
        assert_eq!(
            (&read["bw_bytes"], &read["bw"], &read["runtime"]),
            (&2_048_000.into(), &2_000.into(), &2_000.into())
        );
        assert_eq!((&read["iops"], &read["total_ios"]), (&500.0.into(), &1_000.into()));
        assert_eq!(read["clat_ns"]["percentile"]["50.000000"], 2008);
        assert_eq!(read["clat_ns"]["bins"]["2008"], 1_000);
        assert_eq!(report["jobs"][0]["latency_us"]["4"], 100.0);
        assert_eq!(report["jobs"][0]["datastore"]["engine"], "uring");
    }

    #[test]
    fn a_group_that_wants_it_is_one_entry() {
        let mut outcomes = [outcome("a", 0), outcome("b", 0), outcome("c", 1)];
        for outcome in &mut outcomes {
            outcome.job.group_reporting = true;
        }
        outcomes[1].datastore.insert("engine".to_owned(), "threads".into());
        outcomes[1].error = Some(crate::error::Error::invalid("too hot"));
        let parts: Vec<Part<'_>> = outcomes.iter().map(Part::from).collect();
        let report: Value = serde_json::from_str(&render(&frame(), &parts, false)).unwrap();
        let jobs = report["jobs"].as_array().unwrap();
        assert_eq!(jobs.len(), 2);
        assert_eq!((&jobs[0]["jobname"], &jobs[0]["read"]["total_ios"]), (&"a".into(), &2_000.into()));
        assert_eq!((&jobs[0]["job_runtime"], &jobs[0]["read"]["runtime"]), (&4_000.into(), &2_000.into()));
        assert_eq!(jobs[0]["datastore"]["members"].as_array().unwrap().len(), 2);
        assert_eq!((&jobs[0]["error"], &jobs[0]["datastore"]["error"]), (&22.into(), &"too hot".into()));
        assert_eq!(jobs[1]["groupid"], 1);
    }
}
