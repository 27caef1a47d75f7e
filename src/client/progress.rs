//! Progress for people: bars on a terminal, a line now and then elsewhere. On standard error, so that standard output
//! stays free for data and reports.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::observer::Observer;
use crate::sync::Mutex;
use crate::types::ArchiveName;

/// How often a line is written when nobody looks at a terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

const KNOWN_LENGTH: &str = "{prefix} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} ETA {eta}";
const UNKNOWN_LENGTH: &str = "{prefix} {spinner} {bytes} {bytes_per_sec} {elapsed}";

/// Shows one archive at a time.
#[derive(Debug)]
pub struct Progress {
    bars: bool,
    current: Mutex<Option<Current>>,
}

#[derive(Debug)]
struct Current {
    name: String,
    bar: ProgressBar,
    size_bytes: Option<u64>,
    done_bytes: u64,
    told: Instant,
}

impl Progress {
    /// Bars when standard error is a terminal.
    pub fn to_stderr() -> Self {
        Self { bars: std::io::stderr().is_terminal(), current: Mutex::new(None) }
    }
}

impl Current {
    fn line(&self) -> String {
        let done = HumanBytes(self.done_bytes);
        match self.size_bytes {
            Some(size) if size > 0 => {
                let percent = u128::from(self.done_bytes) * 100 / u128::from(size);
                format!("{}: {done} of {} ({percent} %)", self.name, HumanBytes(size))
            }
            _ => format!("{}: {done}", self.name),
        }
    }
}

impl Observer for Progress {
    fn begins(&self, archive: &ArchiveName, size_bytes: Option<u64>) {
        let target = if self.bars { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(size_bytes, target);
        let template = if size_bytes.is_some() { KNOWN_LENGTH } else { UNKNOWN_LENGTH };
        bar.set_style(ProgressStyle::with_template(template).expect("a constant"));
        bar.set_prefix(archive.to_string());
        let current = Current { name: archive.to_string(), bar, size_bytes, done_bytes: 0, told: Instant::now() };
        *self.current.lock() = Some(current);
    }

    fn advances(&self, bytes: u64) {
        let mut current = self.current.lock();
        let Some(current) = current.as_mut() else { return };
        current.done_bytes += bytes;
        current.bar.inc(bytes);
        if !self.bars && current.told.elapsed() >= LINE_INTERVAL {
            current.told = Instant::now();
            eprintln!("{}", current.line());
        }
    }

    fn ends(&self, _: &ArchiveName) {
        if let Some(current) = self.current.lock().take() {
            current.bar.finish_and_clear();
            eprintln!("{}", current.line());
        }
    }

    fn warns(&self, text: &str) {
        let current = self.current.lock();
        match current.as_ref().filter(|_| self.bars) {
            Some(current) => current.bar.suspend(|| eprintln!("warning: {text}")),
            None => eprintln!("warning: {text}"),
        }
    }
}
