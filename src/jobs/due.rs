//! Which jobs there are, and when each is due (spec 07 §5). Pure.

use jiff::tz::TimeZone;

use super::state::{JobKey, JobState};
use crate::clock::EpochSecs;
use crate::config::Config;
use crate::types::{DatastoreName, Schedule};

/// Seconds of a day.
const SECS_PER_DAY: i64 = 86_400;

/// A job that the configuration has.
#[derive(Clone, Debug)]
pub struct Planned<'a> {
    /// Which one.
    pub key: JobKey,
    /// Where it works.
    pub store: &'a DatastoreName,
    /// When; `None` if it is never started by itself.
    pub schedule: Option<&'a Schedule>,
    /// The schedule as it was written.
    pub text: Option<&'a str>,
}

/// All jobs of a configuration. Those that are switched off, and prunes that would keep everything, have no schedule.
pub fn planned(config: &Config) -> Vec<Planned<'_>> {
    let prunes = config.prune_jobs.iter().map(|prune| Planned {
        key: JobKey::Prune(prune.job.id.clone()),
        store: &prune.job.store,
        schedule: prune.job.schedule.as_ref().filter(|_| !prune.disable && prune.keep.iter().any(|count| *count > 0)),
        text: prune.job.schedule_text.as_deref(),
    });
    let verifications = config.verify_jobs.iter().map(|verify| Planned {
        key: JobKey::Verify(verify.job.id.clone()),
        store: &verify.job.store,
        schedule: verify.job.schedule.as_ref(),
        text: verify.job.schedule_text.as_deref(),
    });
    let collections = config.datastores.iter().map(|store| Planned {
        key: JobKey::Gc(store.name.clone()),
        store: &store.name,
        schedule: store.gc_event.as_ref(),
        text: store.gc_schedule.as_deref(),
    });
    prunes.chain(verifications).chain(collections).collect()
}

/// When a job runs next: the first time of its schedule after its last run, which may be over.
pub fn next_run(schedule: &Schedule, state: &JobState, zone: &TimeZone) -> Option<EpochSecs> {
    schedule.next_after(state.last_run(), zone)
}

/// Number of the day on the wall clock, counted from 1970.
pub fn local_day(now: EpochSecs, zone: &TimeZone) -> i64 {
    let offset = jiff::Timestamp::from_second(now.0).map_or(0, |time| zone.to_offset(time).seconds());
    now.0.saturating_add(i64::from(offset)).div_euclid(SECS_PER_DAY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn what_has_a_schedule() {
        let text = "[[datastore]]\nname = \"main\"\npath = \"m\"\ngc-schedule = \"daily\"\n\
                    [[datastore]]\nname = \"two\"\npath = \"t\"\n\
                    [[prune-job]]\nid = \"one\"\nstore = \"main\"\nschedule = \"daily\"\nkeep-last = 1\n\
                    [[prune-job]]\nid = \"two\"\nstore = \"main\"\nschedule = \"daily\"\n\
                    [[prune-job]]\nid = \"three\"\nstore = \"main\"\nschedule = \"daily\"\nkeep-last = 1\ndisable = true\n\
                    [[verify-job]]\nid = \"one\"\nstore = \"main\"\nschedule = \"sat\"\n\
                    [[verify-job]]\nid = \"two\"\nstore = \"main\"\n";
        let config = Config::parse(text, "f", Path::new("/data")).unwrap();
        let found: Vec<(String, bool)> =
            planned(&config).iter().map(|job| (job.key.to_string(), job.schedule.is_some())).collect();
        let want = [
            ("prunejob-one", true),
            ("prunejob-two", false),
            ("prunejob-three", false),
            ("verificationjob-one", true),
            ("verificationjob-two", false),
            ("garbage_collection-main", true),
            ("garbage_collection-two", false),
        ];
        assert_eq!(found, want.map(|(key, scheduled)| (key.to_owned(), scheduled)));
    }

    #[test]
    fn days_are_those_of_the_wall_clock() {
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        let days = [0, 79_199, 79_200, -7_201].map(|now| local_day(EpochSecs(now), &zone));
        assert_eq!(days, [0, 0, 1, -1]);
    }

    #[test]
    fn a_run_is_counted_from_the_last() {
        let hourly: Schedule = "hourly".parse().unwrap();
        let upid = "UPID:a:00000001:00000001:00000001:00000E10:prunejob:main:root@pam:".to_owned();
        for (state, next) in [
            (JobState::Created { time: EpochSecs(10) }, 3600),
            (JobState::Created { time: EpochSecs(3600) }, 7200),
            (JobState::Started { upid: upid.clone(), again: None }, 7200),
            (
                JobState::Finished { upid: upid.clone(), endtime: EpochSecs(9000), status: "OK".into(), updated: None },
                7200,
            ),
            (
                JobState::Finished {
                    upid,
                    endtime: EpochSecs(9000),
                    status: "OK".into(),
                    updated: Some(EpochSecs(9100)),
                },
                10_800,
            ),
        ] {
            assert_eq!(next_run(&hourly, &state, &TimeZone::UTC), Some(EpochSecs(next)), "{state:?}");
        }
    }
}
