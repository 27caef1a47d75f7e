//! What the subcommands that administer a server share: where it is, how a call is made and its answer shown.
//!
//! Each makes calls of docs/api.md as `root@pam`, through the daemon that runs or by itself when none does.

use std::io::{IsTerminal, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::ExitCode;

use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use serde_json::{Map, Value};

use super::client::{Output, print_text};
use super::follow::{Interrupt, follow};
use crate::daemon::{Administration, administer};
use crate::engine::Engine;
use crate::error::{Error, IoContext, Result};
use crate::types::DatastoreName;

/// Longest password that is read: the API takes no longer one.
const PASSWORD_BYTES_MAX: u64 = 4096;

/// Which server, and how its answers are shown.
#[derive(clap::Args, Debug)]
pub struct Admin {
    /// The server's data directory
    #[arg(long, value_name = "DIR", default_value = "ringvault-data", env = "RINGVAULT_DATA_DIR", global = true)]
    data_dir: PathBuf,

    /// Configuration file instead of DIR/ringvault.toml, when no daemon runs
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    /// How to print the answer; json gives the server's own words
    #[arg(long, value_enum, default_value_t, global = true)]
    output: Output,
}

/// How an answer is shown to people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Nothing but success.
    Nothing,
    /// A text as it is.
    Text,
    /// A row for each object of a list, with these fields as columns.
    Table(&'static [&'static str]),
    /// A line for each field of an object.
    Fields,
    /// The name of a task, which is waited for.
    Task,
    /// The same, of one that leaves a report.
    Report,
}

/// A call: method, path below `/api2/json/`, parameters.
#[derive(Debug)]
pub(super) struct Call {
    pub method: Method,
    pub path: String,
    pub params: Map<String, Value>,
}

impl Call {
    /// A call without parameters; each `{}` of the path is replaced by the next part, escaped.
    pub(super) fn new(method: Method, path: &str, parts: &[&str]) -> Self {
        let mut parts = parts.iter();
        let filled = path.split("{}").map(ToOwned::to_owned).reduce(|left, right| {
            let part = parts.next().copied().unwrap_or_default();
            format!("{left}{}{right}", utf8_percent_encode(part, NON_ALPHANUMERIC))
        });
        Self { method, path: filled.unwrap_or_default(), params: Map::new() }
    }

    /// Makes it: `data` and what stands beside it.
    pub(super) async fn make(self, administration: &Administration) -> Result<Value> {
        administration.call(self.method, &self.path, &Value::Object(self.params)).await
    }

    /// With a parameter, if there is a value.
    pub(super) fn with(mut self, name: &str, value: Option<impl Into<Value>>) -> Self {
        if let Some(value) = value {
            self.params.insert(name.to_owned(), value.into());
        }
        self
    }

    /// With a parameter that is only sent when it is true.
    pub(super) fn flag(self, name: &str, on: bool) -> Self {
        self.with(name, on.then_some(true))
    }
}

impl Admin {
    /// Makes calls one after another, and shows the answer of the last one. `store` is the datastore that they need open.
    pub(super) fn run(self, store: Option<&DatastoreName>, calls: Vec<Call>, shown: Shown) -> Result<ExitCode> {
        self.run_picking(store, calls, shown, |mut answers| answers.pop())
    }

    /// The same, with `pick` to choose from the answers what is shown.
    pub(super) fn run_picking(
        self,
        store: Option<&DatastoreName>,
        calls: Vec<Call>,
        shown: Shown,
        pick: impl FnOnce(Vec<Value>) -> Option<Value>,
    ) -> Result<ExitCode> {
        let answers = self.with(store, async |administration| work(administration, calls, shown).await)?;
        print_text(&self.show(&pick(answers).unwrap_or_default(), shown))
    }

    /// Makes a call that starts a task, repeats its log on standard error, and returns the report that it leaves behind.
    pub(super) fn report(&self, store: &DatastoreName, call: Call) -> Result<Value> {
        self.with(Some(store), async |administration| {
            let upid = work(administration, vec![call], Shown::Report).await?.pop().unwrap_or_default();
            let call = Call::new(Method::GET, "admin/datastore/{}/report", &[store.as_str()]).with("upid", Some(upid));
            Ok(work(administration, vec![call], Shown::Fields).await?.pop().unwrap_or_default())
        })
    }

    /// Whether the answer is to be printed for programs.
    pub(super) fn is_json(&self) -> bool {
        self.output == Output::Json
    }

    /// Does something with the server, or in its place. `store` is the datastore that this needs open.
    pub(super) fn with<T>(
        &self,
        store: Option<&DatastoreName>,
        work: impl AsyncFnOnce(&Administration) -> Result<T>,
    ) -> Result<T> {
        self.become_owner()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.io_context(|| "start the runtime")?;
        let done: Result<(Result<T>, Vec<Engine>)> = runtime.block_on(async {
            let administration = administer(&self.data_dir, self.config.as_deref(), store).await?;
            let answer = work(&administration).await;
            Ok((answer, administration.close().await))
        });
        // As when a daemon ends: what is given away to be removed is done before the engines end.
        drop(runtime);
        let (answer, engines) = done?;
        engines.iter().for_each(Engine::shutdown);
        answer
    }

    /// How answers are printed.
    pub(super) fn output(&self) -> Output {
        self.output
    }

    pub(super) fn show(&self, answer: &Value, shown: Shown) -> String {
        match (self.output, shown) {
            (Output::Json, _) => format!("{answer:#}\n"),
            (Output::Text, Shown::Nothing | Shown::Task | Shown::Report) => String::new(),
            (Output::Text, Shown::Text) => format!("{}\n", plain(answer)),
            (Output::Text, Shown::Table(columns)) => table(answer, columns),
            (Output::Text, Shown::Fields) => {
                let fields = answer.as_object().into_iter().flatten();
                fields.map(|(name, value)| format!("{name}: {}\n", plain(value))).collect()
            }
        }
    }

    /// What root makes in the data directory of another user would be root's, and the daemon could not read it: so root does the work as
    /// that user.
    fn become_owner(&self) -> Result<()> {
        let Ok(meta) = std::fs::metadata(&self.data_dir) else { return Ok(()) };
        if !rustix::process::geteuid().is_root() || meta.uid() == 0 {
            return Ok(());
        }
        let program = std::env::current_exe().io_context(|| "find this program")?;
        let mut again = std::process::Command::new(program);
        again.args(std::env::args_os().skip(1)).uid(meta.uid()).gid(meta.gid());
        Err(Error::io(format!("become user {}, who owns {:?}", meta.uid(), self.data_dir), again.exec()))
    }
}

async fn work(administration: &Administration, calls: Vec<Call>, shown: Shown) -> Result<Vec<Value>> {
    let mut answers = Vec::new();
    for call in calls {
        let mut answer = call.make(administration).await?;
        answers.push(answer["data"].take());
    }
    let Some(upid) = answers.last().map(plain) else { return Ok(answers) };
    match shown {
        Shown::Task => {
            // Without a daemon nobody would go on with it.
            let interrupt = if administration.is_alone() { Interrupt::Stops } else { Interrupt::Leaves };
            follow(administration, &upid, interrupt, |_| true).await?.check(&upid)?;
        }
        // The list of a report is its own answer.
        Shown::Report => {
            let is_no_item = |line: &str| !line.contains(": \t");
            follow(administration, &upid, Interrupt::Stops, is_no_item).await?.check(&upid)?;
        }
        _ => {}
    }
    Ok(answers)
}

/// A value as people read it.
pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Bool(yes) => if *yes { "yes" } else { "no" }.to_owned(),
        other => other.to_string(),
    }
}

fn table(rows: &Value, columns: &[&str]) -> String {
    let head: Vec<String> = columns.iter().map(|name| name.to_uppercase()).collect();
    let body = rows.as_array().into_iter().flatten().map(|row| columns.iter().map(|name| plain(&row[*name])).collect());
    let lines: Vec<Vec<String>> = std::iter::once(head).chain(body).collect();
    let widths: Vec<usize> =
        (0..columns.len()).map(|at| lines.iter().map(|line| line[at].chars().count()).max().unwrap_or(0)).collect();
    let line = |cells: &Vec<String>| {
        let padded: Vec<String> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", padded.join("  ").trim_end())
    };
    lines.iter().map(line).collect()
}

/// A password, from standard input's first line or, on a terminal, asked for twice and not shown. Never from the command line, which
/// anybody on the machine can read.
pub(super) fn read_password(from_stdin: bool) -> Result<String> {
    let password = match (from_stdin, std::io::stdin().is_terminal()) {
        (true, _) => {
            let mut text = String::new();
            let mut input = std::io::stdin().lock().take(PASSWORD_BYTES_MAX);
            input.read_to_string(&mut text).io_context(|| "read the password from standard input")?;
            text.lines().next().unwrap_or_default().to_owned()
        }
        (false, true) => {
            let first = ask("Password: ")?;
            if ask("Again: ")? != first {
                return Err(Error::invalid("the two passwords differ"));
            }
            first
        }
        (false, false) => {
            return Err(Error::invalid("there is no terminal to ask on: give the password with --password-stdin"));
        }
    };
    if password.is_empty() {
        return Err(Error::invalid("the password is empty"));
    }
    Ok(password)
}

fn ask(prompt: &str) -> Result<String> {
    let (stdin, failed) = (std::io::stdin(), || "read from the terminal");
    eprint!("{prompt}");
    std::io::stderr().flush().io_context(failed)?;
    let shown = tcgetattr(&stdin).map_err(std::io::Error::from).io_context(failed)?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let set = |modes| tcsetattr(&stdin, OptionalActions::Flush, modes).map_err(std::io::Error::from);
    set(&hidden).io_context(failed)?;
    let mut line = String::new();
    let read = stdin.read_line(&mut line);
    let back = set(&shown);
    eprintln!();
    read.io_context(failed)?;
    back.io_context(failed)?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_are_escaped_and_lists_are_tables() {
        let call = Call::new(Method::PUT, "access/users/{}/token/{}", &["a b@pbs", "x/y"]).with("comment", Some("c"));
        assert_eq!((call.path.as_str(), call.params.len()), ("access/users/a%20b%40pbs/token/x%2Fy", 1));
        assert_eq!(Call::new(Method::GET, "version", &[]).with("x", None::<i64>).flag("y", false).params.len(), 0);
        let rows = json!([{ "a": "long value", "b": 3 }, { "a": "x", "b": true, "c": 1 }, { "b": "end" }]);
        assert_eq!(table(&rows, &["a", "b"]), "A           B\nlong value  3\nx           yes\n            end\n");
    }
}
