//! From words and job files to a plan. Pure.
//!
//! ```text
//! words, files ─▶ table (which option?) ─▶ value (what does it say?) ─▶ Draft (one job) ─▶ finish ─▶ Job
//! ```
//!
//! Options inherit as in fio: what stands before the first job, or under `global`, holds for all jobs after it.

mod draft;
mod job_file;
mod table;
#[cfg(test)]
mod tests;
mod value;

pub use draft::{Draft, Eta, Format, RunOptions, Settings};
pub use table::{Grammar, OPTIONS, Opt, engine_name, workload_name};

use self::draft::Place;
use self::job_file::Line;
use super::job::Job;
use crate::config::unknown;
use crate::error::{Error, Result};

/// A piece of the command line, in its order.
#[derive(Clone, Debug)]
pub enum Word {
    /// `--name=value`.
    Option {
        /// Without the dashes.
        name: String,
        /// `None` of an option that stands alone.
        value: Option<String>,
    },
    /// A job file.
    File {
        /// For messages.
        path: String,
        /// What it holds.
        text: String,
    },
}

/// What to do, and how to tell of it.
#[derive(Clone, Debug)]
pub struct Plan {
    /// In the order of the report.
    pub jobs: Vec<Job>,
    /// Options that hold for all jobs, as they were given.
    pub globals: Vec<(String, String)>,
    /// What concerns the run as a whole.
    pub run: RunOptions,
}

/// Job and section name that stand for all jobs.
const GLOBAL: &str = "global";

/// Reads all words.
///
/// Errors: `Invalid`, naming option, file and line, and the nearest option that there is.
pub fn plan(words: impl IntoIterator<Item = Word>) -> Result<Plan> {
    let mut reader = Reader::default();
    for word in words {
        match word {
            Word::Option { name, value } => {
                reader.option(&name, value.as_deref(), true).map_err(|text| Error::invalid(format!("--{text}")))?;
            }
            Word::File { path, text } => reader.file(&path, &text)?,
        }
    }
    reader.end_job()?;
    if reader.jobs.is_empty() {
        return Err(Error::invalid("no job: give one a name, as in --name=a --rw=known-append, or name a job file"));
    }
    Ok(Plan { jobs: reader.jobs, globals: reader.globals, run: reader.settings.run })
}

#[derive(Debug, Default)]
struct Reader {
    settings: Settings,
    /// Options of the job that is being read; `None` while it is what holds for all.
    given: Option<Vec<(String, String)>>,
    /// What holds for all jobs after it.
    base: Draft,
    globals: Vec<(String, String)>,
    jobs: Vec<Job>,
    place: Place,
}

impl Reader {
    fn file(&mut self, path: &str, text: &str) -> Result<()> {
        let at = |number: usize, text: &str| Error::invalid(format!("{path}:{number}: {text}"));
        // What it says before its first section belongs to nobody.
        let mut in_section = false;
        let mut section_line = 0;
        for line in job_file::lines(text) {
            let (number, line) = line.map_err(|(number, text)| at(number, &text))?;
            match line {
                Line::Section(name) => {
                    self.begin(name).map_err(|e| e.context(format!("{path}:{section_line}")))?;
                    (in_section, section_line) = (true, number);
                }
                Line::Option(key, _) if !in_section => {
                    return Err(at(number, &format!("{key:.80?} stands before the first [section]")));
                }
                Line::Option(key, value) => self.option(key, value, false).map_err(|text| at(number, &text))?,
            }
        }
        self.end_job().map_err(|e| e.context(format!("{path}:{section_line}")))
    }

    /// Errors begin with the option's name.
    fn option(&mut self, name: &str, value: Option<&str>, on_command_line: bool) -> Result<(), String> {
        let names = table::OPTIONS.iter().filter(|opt| on_command_line || !opt.of_run).map(|opt| opt.name);
        let place = match (on_command_line, &self.given) {
            (true, _) => String::new(),
            (false, None) => format!(" in [{GLOBAL}]"),
            (false, Some(_)) => format!(" in [{}]", self.settings.job.name),
        };
        let Some(opt) = table::find(name) else {
            return Err(match on_command_line {
                true => format!("{name:.80}: {}", unknown("option", name, &place, names)),
                false => unknown("option", name, &place, names),
            });
        };
        if opt.of_run && !on_command_line {
            return Err(format!("{name} concerns the whole run: give it on the command line, as --{}", opt.name));
        }
        if opt.name == "name" {
            let name = value.filter(|name| !name.is_empty()).ok_or("name: needs a value, as in name=first")?;
            return self.begin(name).map_err(|e| format!("name={name:.80}: {e}"));
        }
        opt.set(&mut self.settings, value).map_err(|text| format!("{name}: {text}"))?;
        if !opt.of_run {
            let list = self.given.as_mut().unwrap_or(&mut self.globals);
            list.retain(|(other, _)| *other != opt.name);
            list.push((opt.name.to_owned(), value.unwrap_or("1").to_owned()));
        }
        Ok(())
    }

    /// Begins a job, or what holds for all after it.
    fn begin(&mut self, name: &str) -> Result<()> {
        self.end_job()?;
        if name != GLOBAL {
            self.base = self.settings.job.clone();
            self.settings.job.name = name.to_owned();
            self.given = Some(vec![("name".to_owned(), name.to_owned())]);
        }
        Ok(())
    }

    /// Finishes the job that is being read, if one is.
    fn end_job(&mut self) -> Result<()> {
        let Some(given) = self.given.take() else { return Ok(()) };
        let draft = std::mem::replace(&mut self.settings.job, self.base.clone());
        if draft.stonewall && !self.jobs.is_empty() {
            self.place.wave += 1;
            self.place.group_id += 1;
        }
        self.place.first_run = self.jobs.last().map_or(1, |job| job.first_run.saturating_add(job.numjobs));
        self.jobs.push(draft.finish(given, self.place)?);
        Ok(())
    }
}
