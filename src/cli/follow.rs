//! A task followed from the command line: its log, a line of progress on a terminal, and what Ctrl-C does.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use http::Method;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::admin::{Call, plain};
use crate::daemon::Administration;
use crate::error::{Error, IoContext, Result};

/// How often a task that is waited for is looked at.
const TASK_LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// Lines of a task's log fetched at a time, as clients do.
const LOG_LINES: usize = 500;

/// How often the clock of the status line moves.
const TICK: Duration = Duration::from_millis(500);

/// Of the time that a line of a log begins with.
const STAMP_CHARS: usize = 27;

/// The status line is so many steps long: two decimals of a percent.
const STEPS: u64 = 10_000;

/// What the first Ctrl-C or SIGTERM does. The second leaves in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Interrupt {
    /// Asks the task to stop, and waits until it has.
    Stops,
    /// Leaves it running.
    Leaves,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Followed {
    /// It ended: `OK`, `WARNINGS: n`, or the error.
    Ended(String),
    /// Nobody waited for its end.
    Left,
}

impl Followed {
    /// Its failure is ours.
    pub(super) fn check(&self, upid: &str) -> Result<()> {
        match self {
            Self::Ended(text) if text == "OK" || text.starts_with("WARNINGS") => Ok(()),
            Self::Ended(text) => Err(Error::invalid(format!("the task {upid} failed: {text}"))),
            Self::Left => Err(Error::invalid(format!(
                "the task {upid} goes on in the server: `ringvault task log` shows how far it is"
            ))),
        }
    }
}

/// Waits for a task and repeats on standard error those lines of its log that `shows` is for.
pub(super) async fn follow(
    administration: &Administration,
    upid: &str,
    interrupt: Interrupt,
    shows: fn(&str) -> bool,
) -> Result<Followed> {
    let mut screen = Screen::new();
    let mut interrupts = Interrupts::listen()?;
    let (mut start, mut was_asked) = (1, false);
    loop {
        let call = Call::new(Method::GET, "nodes/localhost/tasks/{}/log", &[upid]).with("start", Some(start));
        let log = call.with("limit", Some(LOG_LINES)).with("test-status", Some(true)).make(administration).await?;
        let lines = log["data"].as_array().map_or(&[] as &[Value], Vec::as_slice);
        for line in lines {
            start = line["n"].as_u64().unwrap_or(0) + 1;
            let text = line["t"].as_str().unwrap_or_default();
            if shows(text) {
                screen.show(text);
            }
        }
        if log["active"] != json!(true) && start > log["total"].as_u64().unwrap_or(0) {
            break;
        }
        let pause = if lines.is_empty() { TASK_LOOK_INTERVAL } else { Duration::ZERO };
        tokio::select! {
            biased;
            () = interrupts.next() => {
                if was_asked || interrupt == Interrupt::Leaves {
                    return Ok(Followed::Left);
                }
                was_asked = true;
                screen.say("stopping the task; once more to leave without waiting for its end");
                Call::new(Method::DELETE, "nodes/localhost/tasks/{}", &[upid]).make(administration).await?;
            }
            () = tokio::time::sleep(pause) => {}
        }
    }
    drop(screen);
    let status = Call::new(Method::GET, "nodes/localhost/tasks/{}/status", &[upid]).make(administration).await?;
    let status = status["data"]["exitstatus"].as_str().filter(|text| !text.is_empty()).map(ToOwned::to_owned);
    Ok(Followed::Ended(status.unwrap_or_else(|| plain(&json!("its end is unknown")))))
}

/// SIGINT and SIGTERM.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn listen() -> Result<Self> {
        let listen = |kind| signal(kind).io_context(|| "listen for signals");
        Ok(Self { interrupt: listen(SignalKind::interrupt())?, terminate: listen(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Log lines, and beneath them how far it is; without a terminal the log lines alone.
struct Screen {
    bar: Option<ProgressBar>,
    phase: Option<Phase>,
}

struct Phase {
    name: &'static str,
    began: Instant,
}

impl Screen {
    fn new() -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(STEPS), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{prefix} [{bar:24}] {percent:>3} %  {elapsed}{wide_msg}");
            bar.set_style(style.expect("a constant"));
            bar.enable_steady_tick(TICK);
            bar
        });
        Self { bar, phase: None }
    }

    fn say(&self, line: &str) {
        match &self.bar {
            Some(bar) => bar.println(line),
            None => eprintln!("{line}"),
        }
    }

    fn show(&mut self, line: &str) {
        let Some(bar) = &self.bar else { return eprintln!("{line}") };
        match Told::of(line) {
            Told::Line => bar.println(line),
            Told::Detail(text) => {
                let left =
                    archive_left(text).map_or_else(String::new, |left| format!(", about {left} left in this archive"));
                bar.set_message(format!("  {text}{left}"));
            }
            Told::Share(name, share) => {
                if self.phase.as_ref().is_none_or(|phase| phase.name != name) {
                    // Those of one task are told apart by their names; each has its own pace.
                    self.phase = Some(Phase { name, began: Instant::now() });
                    bar.set_prefix(name);
                }
                let began = self.phase.as_ref().map_or_else(Instant::now, |phase| phase.began);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    clippy::cast_precision_loss,
                    reason = "0 to STEPS"
                )]
                bar.set_position((share * STEPS as f64) as u64);
                bar.set_message(
                    left(share, began.elapsed()).map_or_else(String::new, |left| format!(", about {left} left")),
                );
            }
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What a line of a log says to a status line.
#[derive(Debug, PartialEq)]
enum Told<'a> {
    /// Nothing: it is shown as it is.
    Line,
    /// How far something is, out of 1; what that is.
    Share(&'static str, f64),
    /// How far a part of it is.
    Detail(&'a str),
}

impl<'a> Told<'a> {
    /// Reads the progress lines of our own jobs. One that it does not know is a line like any other.
    fn of(line: &'a str) -> Self {
        // Without `2024-06-05T14:23:38+00:00: ` in front.
        let text = line.get(STAMP_CHARS..).filter(|_| line.as_bytes()[..STAMP_CHARS].ends_with(b": ")).unwrap_or(line);
        for (begin, name) in [("marked ", "mark  "), ("processed ", "sweep "), ("percentage done: ", "verify")] {
            let percent = text.strip_prefix(begin).and_then(|rest| rest.split_once('%')?.0.parse::<f64>().ok());
            if let Some(percent) = percent.filter(|percent| (0.0..=100.0).contains(percent)) {
                return Self::Share(name, percent / 100.0);
            }
        }
        if text.contains(" chunks so far, ") { Self::Detail(text.trim_start()) } else { Self::Line }
    }
}

/// What `3 of 9 chunks so far, … in 2.50 seconds, …` lets expect of the rest of the archive.
fn archive_left(text: &str) -> Option<indicatif::HumanDuration> {
    let (done, rest) = text.split_once(" of ")?;
    let total = rest.split_once(' ')?.0;
    let secs = rest.split_once(" in ")?.1.split_once(" seconds")?.0;
    let elapsed = Duration::try_from_secs_f64(secs.parse().ok()?).ok()?;
    left(done.parse::<f64>().ok()? / total.parse::<f64>().ok()?, elapsed)
}

/// How long it takes if it goes on like this; `None` while that is anybody's guess.
fn left(share: f64, elapsed: Duration) -> Option<indicatif::HumanDuration> {
    if !(0.01..1.0).contains(&share) || elapsed < Duration::from_secs(2) {
        return None;
    }
    Some(indicatif::HumanDuration(elapsed.mul_f64((1.0 - share) / share)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_is_read_from_the_lines_of_the_jobs() {
        let at = |text: &str| format!("2026-11-22T18:20:02+00:00: {text}");
        for (text, share) in [
            ("marked 35% (7 of 20 index files)", Some(("mark  ", 0.35))),
            ("processed 99% (1234 chunks)", Some(("sweep ", 0.99))),
            ("percentage done: 12.50% (1/8 groups)", Some(("verify", 0.125))),
            ("percentage done: nothing", None),
            ("percentage done: 300%", None),
            ("verify store1:vm/1", None),
        ] {
            let told = share.map_or(Told::Line, |(name, share)| Told::Share(name, share));
            assert_eq!(Told::of(&at(text)), told, "{text}");
            assert_eq!(Told::of(text), told, "{text}, without a time");
        }
        let line = at("  3 of 9 chunks so far, 0.58/12.31 MiB in 0.02 seconds");
        assert_eq!(Told::of(&line), Told::Detail("3 of 9 chunks so far, 0.58/12.31 MiB in 0.02 seconds"));
        let archive = archive_left("25 of 100 chunks so far, 0.58/12.31 MiB in 30.00 seconds, speed 1.00/2.00 MiB/s");
        assert_eq!(archive.unwrap().0, Duration::from_secs(90));
        assert!(
            archive_left("0 of 0 chunks so far, in 9.00 seconds").is_none() && archive_left("x of y in z").is_none()
        );
        assert_eq!(left(0.25, Duration::from_secs(30)).unwrap().0, Duration::from_secs(90));
        assert!(left(0.5, Duration::from_secs(1)).is_none() && left(1.0, Duration::from_secs(9)).is_none());
    }

    #[test]
    fn a_failure_of_the_task_is_a_failure_of_the_command() {
        let ended = |text: &str| Followed::Ended(text.to_owned()).check("UPID:x");
        assert!(ended("OK").is_ok() && ended("WARNINGS: 3").is_ok());
        assert_eq!(ended("task aborted").unwrap_err().to_string(), "the task UPID:x failed: task aborted");
        assert!(Followed::Left.check("UPID:x").is_err());
    }
}
