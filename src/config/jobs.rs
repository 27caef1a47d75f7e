//! Sections of scheduled jobs. Pure.

use super::raw::{Problem, RawSection, Source};
use crate::error::Error;
use crate::types::{DatastoreName, NAMESPACE_DEPTH_MAX, Namespace, Schedule};

/// What all jobs have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSection {
    /// Unique among jobs of its kind.
    pub id: String,
    /// Which datastore it works on. There may be none of that name any more.
    pub store: DatastoreName,
    /// Where it begins.
    pub ns: Namespace,
    /// How many levels below that; `None` for all.
    pub max_depth: Option<usize>,
    /// When; never by itself without one.
    pub schedule: Option<Schedule>,
    /// The schedule as it was written.
    pub schedule_text: Option<String>,
    /// A line for listings.
    pub comment: Option<String>,
}

/// `[[prune-job]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PruneJobSection {
    /// When and where.
    pub job: JobSection,
    /// How many to keep: last, hourly, daily, weekly, monthly, yearly; 0 for none of that kind.
    pub keep: [u64; 6],
    /// Not started by its schedule.
    pub disable: bool,
}

/// `[[verify-job]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VerifyJobSection {
    /// When and where.
    pub job: JobSection,
    /// Leave out what has been verified.
    pub ignore_verified: bool,
    /// But not what was verified more than so many days ago.
    pub outdated_after: Option<u64>,
    /// One of so many parts of the chunks, another one each day, of all snapshots.
    pub parts: Option<u32>,
}

/// The keys of [`PruneJobSection::keep`], in its order.
pub const KEEP_KEYS: [&str; 6] =
    ["keep-last", "keep-hourly", "keep-daily", "keep-weekly", "keep-monthly", "keep-yearly"];

/// Fewest and most characters of a job's id.
pub const JOB_ID_CHARS: std::ops::RangeInclusive<usize> = 3..=32;

pub(super) fn prune_job(section: &RawSection, source: Source<'_>) -> Result<PruneJobSection, Problem> {
    let keep = KEEP_KEYS.map(|key| section.integer_opt(key).unwrap_or(0));
    Ok(PruneJobSection { job: job(section, source)?, keep, disable: section.boolean("disable") })
}

pub(super) fn verify_job(section: &RawSection, source: Source<'_>) -> Result<VerifyJobSection, Problem> {
    Ok(VerifyJobSection {
        job: job(section, source)?,
        ignore_verified: section.boolean("ignore-verified"),
        outdated_after: section.integer_opt("outdated-after"),
        parts: section.integer_opt("parts"),
    })
}

fn job(section: &RawSection, source: Source<'_>) -> Result<JobSection, Problem> {
    let id = section.text("id").unwrap_or_default().to_owned();
    if !JOB_ID_CHARS.contains(&id.len()) || !crate::types::is_safe_id(&id) {
        let text = format!("{id:.80?} is not the id of a job: 3 to 32 of A-Z a-z 0-9 _ . -");
        return Err(source.problem(&section.span("id"), text));
    }
    let max_depth = section.integer_opt("max-depth").filter(|depth| *depth < NAMESPACE_DEPTH_MAX);
    let (schedule, schedule_text) = schedule(section, "schedule", source)?;
    Ok(JobSection {
        id,
        store: parsed(section, "store", source)?,
        ns: parsed(section, "ns", source)?,
        max_depth,
        schedule,
        schedule_text,
        comment: section.text("comment").filter(|text| !text.is_empty()).map(ToOwned::to_owned),
    })
}

/// A calendar event, with the text that it was read from.
pub(super) fn schedule(
    section: &RawSection,
    key: &str,
    source: Source<'_>,
) -> Result<(Option<Schedule>, Option<String>), Problem> {
    let Some(text) = section.text(key).filter(|text| !text.is_empty()) else { return Ok((None, None)) };
    let schedule = text.parse().map_err(|e: Error| source.problem(&section.span(key), e))?;
    Ok((Some(schedule), Some(text.to_owned())))
}

fn parsed<T: std::str::FromStr<Err = Error>>(
    section: &RawSection,
    key: &str,
    source: Source<'_>,
) -> Result<T, Problem> {
    section.text(key).unwrap_or_default().parse().map_err(|e: Error| source.problem(&section.span(key), e))
}

#[cfg(test)]
mod tests {
    use crate::config::Config;
    use std::path::Path;

    fn read(text: &str) -> Result<Config, String> {
        Config::parse(text, "f", Path::new("/data")).map_err(|e| e.to_string())
    }

    #[test]
    fn sections_of_jobs() {
        let text = "[[prune-job]]\nid = \"nightly\"\nstore = \"main\"\nns = \"a/b\"\nmax-depth = 1\nkeep-last = 3\nkeep-yearly = 1\n\
                    schedule = \"mon 02:30\"\ncomment = \"c\"\ndisable = true\n[[prune-job]]\nid = \"all\"\nstore = \"main\"\n\
                    [[verify-job]]\nid = \"nightly\"\nstore = \"main\"\noutdated-after = 30\nparts = 31\n";
        let config = read(text).unwrap();
        let [first, second] = &config.prune_jobs[..] else { panic!() };
        assert_eq!((first.keep, first.disable), ([3, 0, 0, 0, 0, 1], true));
        assert_eq!((first.job.max_depth, first.job.ns.to_string()), (Some(1), "a/b".to_owned()));
        assert_eq!(first.job.schedule_text.as_deref(), Some("mon 02:30"));
        assert_eq!((second.job.max_depth, second.job.schedule.is_some(), second.disable), (None, false, false));
        let verify = &config.verify_jobs[0];
        assert_eq!((verify.ignore_verified, verify.outdated_after, verify.parts), (true, Some(30), Some(31)));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_place() {
        for (lines, want) in [
            ("id = \"x\"\nstore = \"main\"", "f:2:6: \"x\" is not the id of a job: 3 to 32 of A-Z a-z 0-9 _ . -"),
            ("id = \"abc\"\nstore = \"main\"\nschedule = \"moon\"", "f:4:12: \"moon\" is not a calendar event"),
            ("id = \"abc\"\nstore = \"main\"\nns = \"/\"", "f:4:6: "),
            ("id = \"abc\"\nstore = \"main\"\nkeep-last = 0", "f:4:13: \"keep-last\" is 0"),
            ("id = \"abc\"", "lacks the key \"store\""),
        ] {
            let error = read(&format!("[[prune-job]]\n{lines}\n")).unwrap_err();
            assert!(error.contains(want), "{lines}: {error}");
        }
        let twice = "[[verify-job]]\nid = \"abc\"\nstore = \"main\"\n".repeat(2);
        assert!(read(&twice).unwrap_err().contains("there are two verify-jobs \"abc\""));
    }
}
