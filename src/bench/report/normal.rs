//! fio's text report, line by line. Pure.

use std::fmt::Write;

use super::json::{CALLS, DEPTHS, MILLIS, UNITS};
use super::{DIRECTIONS, Entry, Frame, Group, Part, ctime, entries, groups, shares, version};
use crate::bench::job::Job;
use crate::bench::options::{engine_name, workload_name};
use crate::bench::spread::{Spread, as_f64};
use crate::bench::stats::{Direction, Timing};

/// What is said before the jobs begin.
pub fn announce(jobs: &[Job]) -> String {
    let mut out = String::new();
    for job in jobs {
        let bs = |way: char| format!("({way}) {0}-{0}", quantity(job.bs, 1024, "B"));
        let _ = writeln!(
            out,
            "{}: (g={}): rw={}, bs={}, {}, {}, ioengine={}, iodepth={}",
            job.name,
            job.group_id,
            workload_name(job.workload),
            bs('R'),
            bs('W'),
            bs('T'),
            engine_name(job.ioengine),
            job.iodepth
        );
        if job.numjobs > 1 {
            out.push_str("...\n");
        }
    }
    let threads: u64 = jobs.iter().map(|job| u64::from(job.numjobs)).sum();
    let plural = if threads == 1 { "" } else { "s" };
    let _ = writeln!(out, "{}\nStarting {threads} thread{plural}", version());
    out
}

/// The whole report.
pub fn render(frame: &Frame, parts: &[Part<'_>]) -> String {
    let mut out = String::from("\n");
    let groups = groups(parts);
    for entry in entries(parts) {
        let group = groups.iter().find(|group| group.id == entry.job.group_id).cloned().unwrap_or_default();
        write_entry(&mut out, frame, &entry, &group);
    }
    for group in &groups {
        write_group(&mut out, group);
    }
    if !frame.disks.is_empty() {
        out.push_str("\nDisk stats (read/write):\n");
    }
    for disk in &frame.disks {
        let _ = writeln!(
            out,
            "  {}: ios={}/{}, merge={}/{}, ticks={}/{}, in_queue={}, util={:.2}%",
            disk.name,
            disk.read_ios,
            disk.write_ios,
            disk.read_merges,
            disk.write_merges,
            disk.read_ticks,
            disk.write_ticks,
            disk.in_queue,
            disk.util
        );
    }
    out
}

fn write_entry(out: &mut String, frame: &Frame, entry: &Entry<'_>, group: &Group) {
    let error = match &entry.error {
        None => " 0".to_owned(),
        Some((number, text)) => format!("{number:2} ({text})"),
    };
    let _ = writeln!(
        out,
        "{}: (groupid={}, jobs={}): err={error}: pid={}: {}",
        entry.job.name,
        entry.job.group_id,
        entry.jobs,
        std::process::id(),
        ctime(frame.now_ms)
    );
    for direction in DIRECTIONS {
        if entry.stats.ios[direction as usize] > 0 {
            write_way(out, entry, group, direction);
        }
    }
    let stats = &entry.stats;
    if stats.syncs.spread.count() > 0 {
        out.push_str("  fsync/fdatasync/sync_file_range:\n");
        write_latency(out, "sync", &stats.syncs.spread);
        write_percentiles(out, "sync", &stats.syncs, &entry.job.percentiles);
    }
    let latencies = shares(&stats.latencies, stats.ios.iter().sum(), 0.01);
    write_distribution(out, "nsec", &UNITS, &latencies[..10]);
    write_distribution(out, "usec", &UNITS, &latencies[10..20]);
    write_distribution(out, "msec", &MILLIS, &latencies[20..]);
    let (user, system) = entry.processor();
    let usage = &entry.usage;
    let _ = writeln!(
        out,
        "  cpu          : usr={user:.2}%, sys={system:.2}%, ctx={}, majf={}, minf={}",
        usage.switches, usage.major_faults, usage.minor_faults
    );
    for (title, names, counts) in [
        ("  IO depths    :", &DEPTHS, &stats.depths),
        ("     submit    :", &CALLS, &stats.submits),
        ("     complete  :", &CALLS, &stats.completes),
    ] {
        let shares = shares(counts, counts.iter().sum(), 0.1);
        let list: Vec<_> = names.iter().zip(shares).map(|(name, share)| format!("{name}={share:.1}%")).collect();
        let _ = writeln!(out, "{title} {}", list.join(", "));
    }
    let [read, write, trim] = stats.ios;
    let syncs = stats.syncs.spread.count();
    let _ = writeln!(out, "     issued rwts: total={read},{write},{trim},{syncs} short=0,0,0,0 dropped=0,0,0,0");
    let _ = writeln!(out, "     latency   : target=0, window=0, percentile=100.00%, depth={}", entry.job.iodepth);
    for note in &entry.notes {
        let _ = writeln!(out, "  {note}");
    }
}

fn write_way(out: &mut String, entry: &Entry<'_>, group: &Group, direction: Direction) {
    let way = &entry.stats.ways[direction as usize];
    let (name, after) = match direction {
        Direction::Read => ("read", ""),
        Direction::Write => ("write", "; 0 zone resets"),
        Direction::Trim => ("trim", ""),
    };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate that is shown without its fraction"
    )]
    let iops = entry.iops(direction) as u64;
    let bandwidth = entry.bandwidth(direction);
    let _ = writeln!(
        out,
        "  {name}: IOPS={}, BW={} ({})({}/{}msec){after}",
        quantity(iops, 1000, ""),
        quantity(bandwidth, 1024, "B/s"),
        quantity(bandwidth, 1000, "B/s"),
        quantity(entry.stats.bytes[direction as usize], 1024, "B"),
        entry.runtime_ms(direction)
    );
    if way.slat.max() > 0 {
        write_latency(out, "slat", &way.slat);
    }
    write_latency(out, "clat", &way.clat.spread);
    write_latency(out, "lat", &way.lat);
    write_percentiles(out, "clat", &way.clat, &entry.job.percentiles);
    if way.bw.count() > 0 {
        // KiB a second, beyond a million MiB.
        let (unit, scale) = if way.bw.mean() > 1_048_576.0 { ("MiB/s", 1024) } else { ("KiB/s", 1) };
        let _ = writeln!(
            out,
            "   bw (  {unit}): min={:5}, max={:5}, per={:.2}%, avg={:5.2}, stdev={:5.2}, samples={}",
            way.bw.min() / scale,
            way.bw.max() / scale,
            entry.share_of(group, direction),
            way.bw.mean() / as_f64(scale),
            way.bw.deviation() / as_f64(scale),
            way.bw.count()
        );
        let _ = writeln!(
            out,
            "   iops        : min={:5}, max={:5}, avg={:5.2}, stdev={:5.2}, samples={}",
            way.iops.min(),
            way.iops.max(),
            way.iops.mean(),
            way.iops.deviation(),
            way.iops.count()
        );
    }
}

/// The largest unit in which the least is still told apart, and how many ns it has.
fn unit(min: u64, max: u64) -> (&'static str, u64) {
    if min > 2_000_000 && max > 99_999_999 {
        ("msec", 1_000_000)
    } else if min > 2_000 && max > 99_999 {
        ("usec", 1_000)
    } else {
        ("nsec", 1)
    }
}

fn write_latency(out: &mut String, name: &str, spread: &Spread) {
    let (unit, scale) = unit(spread.min(), spread.max());
    let _ = writeln!(
        out,
        "{name:>8} ({unit}): min={}, max={}, avg={:5.2}, stdev={:5.2}",
        shortened(spread.min() / scale, 6, 1000, ""),
        shortened(spread.max() / scale, 6, 1000, ""),
        spread.mean() / as_f64(scale),
        spread.deviation() / as_f64(scale)
    );
}

/// Columns of a line of percentiles.
const PERCENTILE_COLUMNS: usize = 73;

fn write_percentiles(out: &mut String, name: &str, timing: &Timing, percentiles: &[f64]) {
    let (unit, scale) = unit(timing.spread.min(), timing.spread.max());
    let _ = writeln!(out, "    {name} percentiles ({unit}):");
    let values: Vec<u64> = percentiles.iter().map(|percent| timing.histogram.percentile(*percent) / scale).collect();
    // As many digits as the longest of them needs.
    let decimals_of = |percent: &f64| percent.to_string().split_once('.').map_or(0, |(_, decimals)| decimals.len());
    let decimals = percentiles.iter().map(decimals_of).max().unwrap_or(0);
    let width = values.iter().map(|value| value.to_string().len()).max().unwrap_or(0).max(5);
    let per_line = (PERCENTILE_COLUMNS / (decimals + width + 10)).max(1);
    let columns = decimals + 3;
    let one = |(percent, value): (&f64, &u64)| format!(" {percent:columns$.decimals$}th=[{value:width$}]");
    let list: Vec<String> = percentiles.iter().zip(&values).map(one).collect();
    let lines: Vec<String> = list.chunks(per_line).map(|line| line.join(",")).collect();
    let _ = writeln!(out, "     |{}", lines.join(",\n     |"));
}

/// How many latencies stand on a line.
const STEPS_PER_LINE: usize = 5;

fn write_distribution(out: &mut String, unit: &str, names: &[&str], shares: &[f64]) {
    let list: Vec<_> = names.iter().zip(shares).filter(|(_, share)| **share > 0.0).collect();
    for line in list.chunks(STEPS_PER_LINE) {
        let list: Vec<_> = line.iter().map(|(name, share)| format!("{name}={share:.2}%")).collect();
        let _ = writeln!(out, "  lat ({unit})   : {}", list.join(", "));
    }
}

fn write_group(out: &mut String, group: &Group) {
    let _ = writeln!(out, "\nRun status group {} (all jobs):", group.id);
    for (name, way) in ["READ", "WRITE", "TRIM"].iter().zip(&group.ways) {
        if way.ios == 0 {
            continue;
        }
        let both = |bytes: u64, unit: &str| (quantity(bytes, 1024, unit), quantity(bytes, 1000, unit));
        let (all, all_10) = both(way.aggregate(), "B/s");
        let (min, min_10) = both(way.bw.0, "B/s");
        let (max, max_10) = both(way.bw.1, "B/s");
        let (io, io_10) = both(way.bytes, "B");
        let (short, long) = way.runtime;
        let _ = writeln!(
            out,
            "{name:>7}: bw={all} ({all_10}), {min}-{max} ({min_10}-{max_10}), io={io} ({io_10}), run={short}-{long}msec"
        );
    }
}

/// With four digits at most.
pub fn quantity(number: u64, base: u64, unit: &str) -> String {
    shortened(number, 4, base, unit)
}

/// With `width` characters at most before the unit; decimals only if something was left out.
fn shortened(number: u64, width: usize, base: u64, unit: &str) -> String {
    let digits = |n: u64| n.checked_ilog10().unwrap_or(0) as usize + 1;
    let mut step = 0;
    let mut scale = 1_u64;
    while digits(number / scale) > width {
        scale *= base;
        step += 1;
    }
    let prefix = match (base, step) {
        (_, 0) => "",
        (1024, _) => ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"][step - 1],
        _ => ["k", "M", "G", "T", "P", "E"][step - 1],
    };
    let decimals = if step == 0 { 0 } else { width.saturating_sub(digits(number / scale) + 1) };
    if decimals == 0 {
        format!("{}{prefix}{unit}", number / scale)
    } else {
        format!("{:.decimals$}{prefix}{unit}", as_f64(number) / as_f64(scale))
    }
}

#[cfg(test)]
mod tests {
    use super::super::test_support::{frame, job, outcome};
    use super::*;

    #[test]
    fn quantities_are_written_as_by_fio() {
        for (number, base, unit, text) in [
            (4096, 1024, "B", "4096B"),
            (8 << 20, 1024, "B", "8192KiB"),
            (200 << 20, 1024, "B", "200MiB"),
            (10 << 20, 1024, "B", "10.0MiB"),
            (12_300_288, 1024, "B", "11.7MiB"),
            (10_244_096, 1024, "B", "9.77MiB"),
            (6_464_471_040, 1000, "B", "6464MB"),
            (2_049_024, 1000, "B/s", "2049kB/s"),
            (789_000, 1000, "", "789k"),
            (500, 1000, "", "500"),
            (0, 1024, "B", "0B"),
        ] {
            assert_eq!(quantity(number, base, unit), text);
        }
        assert_eq!(shortened(4_018_100, 6, 1000, ""), "4018.1k");
        assert_eq!(shortened(u64::MAX, 4, 1000, ""), "18.4E");
    }

    #[test]
    fn the_report_has_the_lines_of_fio() {
        let outcomes = [outcome("a", 0)];
        let parts: Vec<Part<'_>> = outcomes.iter().map(Part::from).collect();
        let text = render(&frame(), &parts);
        let tail = text.split_once(&format!("pid={}: ", std::process::id())).expect("a pid").1;
        let lines: Vec<_> = tail.lines().skip(1).collect();
        let expected = [
            "  read: IOPS=500, BW=2000KiB/s (2048kB/s)(4000KiB/2000msec)",
            "    slat (nsec): min=500, max=500, avg=500.00, stdev= 0.00",
            "    clat (nsec): min=2008, max=2008, avg=2008.00, stdev= 0.00",
            "     lat (nsec): min=2508, max=2508, avg=2508.00, stdev= 0.00",
            "    clat percentiles (nsec):",
            "     |  1.00th=[ 2008],  5.00th=[ 2008], 10.00th=[ 2008], 20.00th=[ 2008],",
            "     | 30.00th=[ 2008], 40.00th=[ 2008], 50.00th=[ 2008], 60.00th=[ 2008],",
            "     | 70.00th=[ 2008], 80.00th=[ 2008], 90.00th=[ 2008], 95.00th=[ 2008],",
            "     | 99.00th=[ 2008], 99.50th=[ 2008], 99.90th=[ 2008], 99.95th=[ 2008],",
            "     | 99.99th=[ 2008]",
            "   bw (  KiB/s): min= 1984, max= 2016, per=100.00%, avg=2005.33, stdev=18.48, samples=3",
            "   iops        : min=  496, max=  504, avg=501.33, stdev= 4.62, samples=3",
            "  lat (usec)   : 4=100.00%",
            "  cpu          : usr=25.00%, sys=50.00%, ctx=7, majf=0, minf=0",
            "  IO depths    : 1=0.0%, 2=0.0%, 4=100.0%, 8=0.0%, 16=0.0%, 32=0.0%, >=64=0.0%",
            "     submit    : 0=0.0%, 4=100.0%, 8=0.0%, 16=0.0%, 32=0.0%, 64=0.0%, >=64=0.0%",
            "     complete  : 0=0.0%, 4=100.0%, 8=0.0%, 16=0.0%, 32=0.0%, 64=0.0%, >=64=0.0%",
            "     issued rwts: total=1000,0,0,0 short=0,0,0,0 dropped=0,0,0,0",
            "     latency   : target=0, window=0, percentile=100.00%, depth=4",
            "  engine: uring",
            "",
            "Run status group 0 (all jobs):",
            "   READ: bw=2000KiB/s (2048kB/s), 2000KiB/s-2000KiB/s (2048kB/s-2048kB/s), io=4000KiB (4096kB), run=2000-2000msec",
            "",
            "Disk stats (read/write):",
            "  vda: ios=12/0, merge=0/0, ticks=0/0, in_queue=0, util=12.50%",
        ];
        assert_eq!(lines, expected);
        assert!(text.starts_with("\na: (groupid=0, jobs=1): err= 0: pid="));
    }

    #[test]
    fn percentiles_take_the_columns_that_they_need() {
        let mut timing = Timing::default();
        for nanos in [43, 4_014_080, 11_993_088] {
            timing.spread.add(nanos, 1);
            timing.histogram.add(nanos, 1);
        }
        let lines = |percentiles: &[f64]| {
            let mut out = String::new();
            write_percentiles(&mut out, "clat", &timing, percentiles);
            out
        };
        assert_eq!(lines(&[20.0, 25.0]), "    clat percentiles (nsec):\n     |  20th=[   43],  25th=[   43]\n");
        let wide = "     | 20.00000th=[      43], 60.00000th=[ 4014080], 99.99999th=[11993088],\n     | 100.00000th=[11993088]\n";
        assert_eq!(lines(&[20.0, 60.0, 99.999_99, 100.0]), format!("    clat percentiles (nsec):\n{wide}"));
    }

    #[test]
    fn jobs_are_announced() {
        let mut jobs = [job("a", 0), job("b", 1)];
        jobs[1].numjobs = 3;
        let head = "bs=(R) 4096KiB-4096KiB, (W) 4096KiB-4096KiB, (T) 4096KiB-4096KiB, ioengine=auto, iodepth=4\n";
        let expected = format!(
            "a: (g=0): rw=known-append, {head}b: (g=1): rw=known-append, {head}...\n{}\nStarting 4 threads\n",
            version()
        );
        assert_eq!(announce(&jobs), expected);
    }
}
