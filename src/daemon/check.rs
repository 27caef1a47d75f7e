//! Whether a configuration would do: its text, and what it names on this machine.

use std::path::{Path, PathBuf};

use super::first_start;
use crate::config::{Config, DataDir, Problem, read_text};
use crate::engine::{Disk, FileKind};
use crate::error::Result;
use crate::http::TlsIdentity;

/// A configuration file, examined.
#[derive(Debug, serde::Serialize)]
pub struct Checked {
    /// Which file.
    pub file: PathBuf,
    /// What is wrong with it, in its order.
    pub problems: Vec<Problem>,
}

impl std::fmt::Display for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let file = self.file.display();
        for Problem { line, column, message } in &self.problems {
            writeln!(f, "{file}:{line}:{column}: {message}")?;
        }
        match self.problems.len() {
            0 => write!(f, "{file} is in order"),
            1 => f.write_str("1 problem"),
            count => write!(f, "{count} problems"),
        }
    }
}

/// Examines the configuration at `file`, or that of the data directory. Changes nothing, and needs no daemon to be stopped.
///
/// Errors: `NotFound` if there is no such file; `Invalid` if it is not UTF-8.
pub fn check_configuration(data_dir: &Path, file: Option<&Path>) -> Result<Checked> {
    let dir = DataDir::existing(data_dir)?;
    let path = first_start::configuration_path(&dir, file)?;
    let text = read_text(&dir, &path)?;
    let problems = match Config::check(&text, dir.path()) {
        Err(problems) => problems,
        Ok(config) => on_this_machine(&dir, &text, &config),
    };
    Ok(Checked { file: path, problems })
}

fn on_this_machine(dir: &DataDir, text: &str, config: &Config) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut tell = |section: &str, id: Option<&str>, key: &str, message: String| {
        let (line, column) = Config::place(text, section, id, key);
        problems.push(Problem { line, column, message });
    };
    let disk = Disk::real();
    for store in &config.datastores {
        let told = match (disk.stat(&store.path), disk.stat(&store.path.join(".chunks"))) {
            (Err(e), _) => Some(format!("the directory {:?} cannot be used - {e}", store.path)),
            (Ok(base), _) if base.kind != FileKind::Dir => Some(format!("{:?} is not a directory", store.path)),
            (_, Err(_)) => Some(format!(
                "{:?} is not a datastore, or its disk is not mounted: `ringvault datastore init` makes one",
                store.path
            )),
            _ => None,
        };
        // That of the first start is made when it comes.
        let comes_first = store.path == dir.path().join("main") && !dir.has("users.json").unwrap_or(true);
        if let Some(told) = told.filter(|_| !comes_first) {
            tell("datastore", Some(store.name.as_str()), "path", told);
        }
    }
    let (cert, key) = (&config.server.tls_cert, &config.server.tls_key);
    match (dir.read(cert), dir.read(key)) {
        (Ok(Some(chain)), Ok(Some(secret))) => {
            if let Err(e) = TlsIdentity::from_pem(&chain, &secret) {
                tell("server", None, "tls-cert", format!("{cert:?} with {key:?}: {e}"));
            }
        }
        (Ok(None), Ok(None)) => {}
        (Ok(Some(_)), Ok(None)) => tell("server", None, "tls-key", format!("there is no key {key:?} for {cert:?}")),
        (Ok(None), Ok(Some(_))) => {
            tell("server", None, "tls-cert", format!("there is no certificate {cert:?} for {key:?}"))
        }
        (Err(e), _) => tell("server", None, "tls-cert", e.to_string()),
        (_, Err(e)) => tell("server", None, "tls-key", e.to_string()),
    }
    let above = config.tasks_dir.parent().unwrap_or(Path::new("/"));
    if disk.stat(&config.tasks_dir).or_else(|_| disk.stat(above)).map_or(true, |meta| meta.kind != FileKind::Dir) {
        tell("tasks", None, "dir", format!("{:?} is no directory, nor can it be made in {above:?}", config.tasks_dir));
    }
    problems.sort();
    problems
}
