//! `GET /metrics`: who may see it, and what is put together for it.

mod access;
mod census;

use http::{HeaderMap, StatusCode, header};

use self::census::{Censuses, Look};
use super::context::App;
use super::reply::{self, Response};
use crate::error::{Error, Result};
use crate::metrics::{self, Exposition};
use crate::store::{Census, Datastore, GroupCensus};

/// The type of the exposition format.
const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Groups of a datastore that have series of their own; the rest is summed. Two series each: 1000 groups are 2000 lines of about 120 bytes, which a scrape
/// every 15 s carries easily, and twice the groups of the largest installation that this daemon is measured with.
const GROUPS_SHOWN_MAX: usize = 1000;

/// What the page needs beside the counters.
#[derive(Debug, Default)]
pub struct MetricsPage {
    censuses: Censuses,
}

/// Answers a scrape; an error is one of access.
pub(super) async fn serve(app: &App, peer: std::net::IpAddr, headers: &HeaderMap) -> Result<Response> {
    access::check(&app.config.get().config.metrics.access, peer, headers)?;
    let mut page = Exposition::default();
    app.metrics.show(&mut page);
    app.tasks.metrics().show(&mut page);
    let stores: Vec<Datastore> = app.datastores.all();
    let looks = app.metrics_page.censuses.looks(&stores, &app.clock).await;
    for (store, look) in stores.iter().zip(looks) {
        let name = store.name().as_str();
        store.metrics().show(name, store.engine().kind(), &mut page);
        page.sample(&metrics::DOUBTED_CHUNKS, &[name], store.suspects());
        show_engine(store, &mut page);
        show_background(store, &mut page);
        show_look(name, look.as_deref(), &mut page);
    }
    Ok(reply::text(StatusCode::OK, Some(CONTENT_TYPE), page.into_text()))
}

/// The answer to whoever may not see the page.
pub(super) fn refusal(error: &Error) -> Response {
    let mut response = reply::untyped_error(error);
    if response.status() == StatusCode::UNAUTHORIZED {
        reply::set_header(&mut response, header::WWW_AUTHENTICATE, "Bearer realm=\"metrics\"");
    }
    response
}

fn show_engine(store: &Datastore, page: &mut Exposition) {
    let (name, engine) = (store.name().as_str(), store.engine());
    let counted = engine.counters();
    page.sample(&metrics::ENGINE_INFO, &[name, engine.kind()], 1);
    page.sample(&metrics::ENGINE_WORKERS, &[name], engine.workers());
    page.sample(&metrics::ENGINE_IN_FLIGHT, &[name], counted.in_flight);
    page.sample(&metrics::ENGINE_IN_FLIGHT_MAX, &[name], counted.in_flight_max);
    let ways = [
        ("inline", counted.statx_inline),
        ("cached", counted.statx_cached),
        ("ring", counted.statx_ring),
        ("pool", counted.statx_pool),
        ("name", counted.disk.checks_by_name),
    ];
    for (way, count) in ways {
        page.sample(&metrics::ENGINE_CHECKS, &[name, way], count);
    }
    page.sample(&metrics::ENGINE_BATCHES, &[name, "interactive"], counted.batches_interactive);
    page.sample(&metrics::ENGINE_BATCHES, &[name, "sweep"], counted.batches_sweep);
    page.sample(&metrics::ENGINE_BATCHES, &[name, "background"], counted.batches_background);
    page.sample(&metrics::ENGINE_RING_SUBMISSIONS, &[name], counted.ring_submissions);
    page.sample(&metrics::ENGINE_FILE_JOBS, &[name], counted.jobs);
}

fn show_background(store: &Datastore, page: &mut Exposition) {
    let (name, waited) = (store.name().as_str(), store.budget().waited());
    page.sample(&metrics::BACKGROUND_LEVEL, &[name], store.budget().level());
    page.sample(&metrics::BACKGROUND_WAITED, &[name, "backups"], waited.backups.as_secs_f64());
    page.sample(&metrics::BACKGROUND_WAITED, &[name, "rate"], waited.rate.as_secs_f64());
}

fn show_look(name: &str, look: Option<&Look>, page: &mut Exposition) {
    page.sample(&metrics::DATASTORE_READABLE, &[name], u8::from(look.is_some_and(|look| look.readable)));
    let Some(seen) = look.and_then(|look| look.seen.as_ref()) else { return };
    page.sample(&metrics::CENSUS_TIME, &[name], seen.at);
    page.sample(&metrics::CENSUS_DURATION, &[name], seen.took.as_secs_f64());
    show_census(name, &seen.census, page);
}

fn show_census(name: &str, census: &Census, page: &mut Exposition) {
    page.sample(&metrics::SIZE_BYTES, &[name], census.usage.total);
    page.sample(&metrics::USED_BYTES, &[name], census.usage.used);
    page.sample(&metrics::AVAILABLE_BYTES, &[name], census.usage.avail);
    let snapshots = |groups: &[GroupCensus]| groups.iter().map(|group| group.snapshots).sum::<u64>();
    page.sample(&metrics::DATASTORE_GROUPS, &[name], census.groups.len());
    page.sample(&metrics::DATASTORE_SNAPSHOTS, &[name], snapshots(&census.groups));
    if let Some(failed) = census.groups.iter().map(|group| group.failed).sum::<Option<u64>>() {
        page.sample(&metrics::DATASTORE_FAILED, &[name], failed);
    }
    let (shown, others) = census.groups.split_at(census.groups.len().min(GROUPS_SHOWN_MAX));
    for GroupCensus { ns, group, snapshots, failed, newest } in shown {
        let ns = ns.to_string();
        let labels = [name, &ns, group.ty().as_str(), group.id()];
        page.sample(&metrics::GROUP_SNAPSHOTS, &labels, snapshots);
        if let Some(failed) = failed {
            page.sample(&metrics::GROUP_FAILED, &labels, failed);
        }
        if let Some(newest) = newest {
            page.sample(&metrics::GROUP_NEWEST, &labels, newest);
        }
    }
    page.sample(&metrics::OTHER_GROUPS, &[name], others.len());
    page.sample(&metrics::OTHER_GROUPS_SNAPSHOTS, &[name], snapshots(others));
    if let Some(stalest) = others.iter().filter_map(|group| group.newest).min() {
        page.sample(&metrics::OTHER_GROUPS_STALEST, &[name], stalest);
    }
    if let Some(gc) = census.gc {
        page.sample(&metrics::GC_START_TIME, &[name], gc.started);
        page.sample(&metrics::GC_INDEX_DATA_BYTES, &[name], gc.index_data_bytes);
        page.sample(&metrics::GC_DISK_BYTES, &[name], gc.disk_bytes);
        page.sample(&metrics::GC_DISK_CHUNKS, &[name], gc.disk_chunks);
        page.sample(&metrics::GC_REMOVED_BYTES, &[name], gc.removed_bytes);
        page.sample(&metrics::GC_PENDING_BYTES, &[name], gc.pending_bytes);
        page.sample(&metrics::GC_BAD_CHUNKS, &[name], gc.still_bad);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::EpochSecs;
    use crate::engine::FsUsage;
    use crate::types::{Group, Namespace};

    #[test]
    fn groups_past_the_bound_are_summed() {
        let group = |n: usize| GroupCensus {
            ns: Namespace::root(),
            group: Group::new("host".parse().unwrap(), &format!("h{n:05}")).unwrap(),
            snapshots: 2,
            failed: Some(1),
            newest: n.is_multiple_of(2).then(|| EpochSecs(i64::try_from(n).unwrap())),
        };
        let groups = (0..GROUPS_SHOWN_MAX + 3).map(group).collect();
        let usage = FsUsage { total: 9, used: 4, avail: 5 };
        let mut page = Exposition::default();
        show_census("main", &Census { usage, groups, gc: None }, &mut page);
        let page = page.into_text();
        let has = |line: &str| assert!(page.lines().any(|is| is == line), "{line}");
        has("ringvault_datastore_groups{datastore=\"main\"} 1003");
        has("ringvault_datastore_snapshots{datastore=\"main\"} 2006");
        has("ringvault_datastore_failed_snapshots{datastore=\"main\"} 1003");
        has("ringvault_other_groups{datastore=\"main\"} 3");
        has("ringvault_other_groups_snapshots{datastore=\"main\"} 6");
        has("ringvault_other_groups_oldest_newest_snapshot_timestamp_seconds{datastore=\"main\"} 1000");
        let count = |name: &str| page.lines().filter(|line| line.starts_with(name)).count();
        assert_eq!(count("ringvault_group_snapshots{"), GROUPS_SHOWN_MAX);
        assert_eq!(count("ringvault_group_newest_snapshot_timestamp_seconds{"), GROUPS_SHOWN_MAX / 2);
        assert_eq!(count("ringvault_gc_"), 0);
    }
}
