//! What the client's subcommands share: where to connect, how to print, what an interrupt does.

use std::fmt::Display;
use std::io::Write;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

use crate::client::Client;
use crate::error::{IoContext, Result};
use crate::types::Namespace;

/// Options that say which server and namespace.
#[derive(clap::Args, Debug)]
pub struct Connection {
    /// Server and datastore, as [[USER@REALM[!TOKEN]@]HOST[:PORT]:]DATASTORE; PBS_REPOSITORY unless given
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<String>,

    /// The namespace, for example production/web; the root unless given
    #[arg(long, value_name = "NAMESPACE")]
    ns: Option<Namespace>,
}

impl Connection {
    /// A client for that server with the environment's secret.
    pub(super) fn client(&self) -> Result<Client> {
        Client::from_environment(self.repository.as_deref())
    }

    /// The namespace asked for.
    pub(super) fn namespace(&self) -> Namespace {
        self.ns.clone().unwrap_or_default()
    }
}

/// For whom the result is printed.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

impl Output {
    fn show<R: Display + serde::Serialize>(self, report: &R) -> String {
        match self {
            Self::Text => format!("{report}\n"),
            Self::Json => format!("{:#}\n", serde_json::json!(report)),
        }
    }
}

/// Prints a report on standard output.
pub(super) fn print<R: Display + serde::Serialize>(output: Output, report: &R) -> Result<ExitCode> {
    print_text(&output.show(report))
}

/// Prints a report where it does not mix with the data.
pub(super) fn print_to_stderr<R: Display + serde::Serialize>(output: Output, report: &R) -> Result<ExitCode> {
    eprint!("{}", output.show(report));
    Ok(ExitCode::SUCCESS)
}

/// Prints on standard output; a closed pipe is an error, not a panic.
pub(super) fn print_text(text: &str) -> Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).io_context(|| "cannot write to standard output")?;
    Ok(ExitCode::SUCCESS)
}

/// What came of work that a signal may cut off.
pub(super) enum UntilInterrupted<T> {
    /// Its result.
    Done(T),
    /// The exit status that tells of the signal, 128 and its number.
    Interrupted(ExitCode),
}

impl<T> UntilInterrupted<T> {
    /// Runs `work` on a runtime of its own. SIGINT and SIGTERM drop it, and with it its connection.
    pub(super) fn run(work: impl Future<Output = Result<T>>) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
        let runtime = runtime.io_context(|| "cannot start the threads of the client")?;
        let done = runtime.block_on(async {
            let mut interrupt = signal(SignalKind::interrupt()).io_context(|| "cannot listen for SIGINT")?;
            let mut terminate = signal(SignalKind::terminate()).io_context(|| "cannot listen for SIGTERM")?;
            tokio::select! {
                done = work => done.map(Self::Done),
                _ = interrupt.recv() => Ok(Self::Interrupted(ExitCode::from(130))),
                _ = terminate.recv() => Ok(Self::Interrupted(ExitCode::from(143))),
            }
        });
        // A read that hangs must not keep the program alive.
        runtime.shutdown_background();
        done
    }
}
