//! An existing server's configuration into a data directory, before its first start or while no daemon runs.

use std::collections::BTreeMap;
use std::path::Path;

use super::run::DAEMON_LOCK;
use super::{first_start, keys, users_file};
use crate::config::{self, DataDir, Draft, IMPORTED_FILES, Import, Loaded, Note, PUBLIC_MODE};
use crate::error::{Error, Result};

/// The head of a configuration that begins with an import.
const HEAD: &str =
    "# Ringvault. Every key is explained in docs/configuration.md; what is not given here has its default.\n";

/// What was, or would be, carried over.
#[derive(Debug, serde::Serialize)]
pub struct Imported {
    /// Names and paths.
    pub datastores: Vec<(String, String)>,
    /// Prune and verification jobs.
    pub jobs: Vec<String>,
    /// Users and tokens.
    pub accounts: Vec<String>,
    /// How many permissions.
    pub permissions: usize,
    /// What has no counterpart.
    pub notes: Vec<Note>,
    /// Whether it was done.
    pub written: bool,
}

impl std::fmt::Display for Imported {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let done = if self.written { "imported" } else { "would import" };
        for (name, path) in &self.datastores {
            writeln!(f, "{done} datastore {name} at {path}")?;
        }
        for job in &self.jobs {
            writeln!(f, "{done} {job}")?;
        }
        for account in &self.accounts {
            writeln!(f, "{done} {} {account}", if account.contains('!') { "token" } else { "user" })?;
        }
        writeln!(f, "{done} {} permissions", self.permissions)?;
        for Note { file, line, text } in &self.notes {
            let place = if *line == 0 { file.clone() } else { format!("{file}:{line}") };
            writeln!(f, "note: {place}: {text}")?;
        }
        f.write_str(if self.written { "done" } else { "nothing was changed: --write does it" })
    }
}

/// Reads the files in `from` and adds what they say to the configuration and the users of a data directory; with `write` for good. All of
/// it, or nothing if a datastore or an account is there already.
///
/// Errors: `Busy` while a daemon runs; `NotFound` if `from` holds none of the files; `Invalid` for what is there already, and for what is
/// no valid configuration in the end.
pub fn import(data_dir: &Path, file: Option<&Path>, from: &Path, write: bool) -> Result<Imported> {
    let dir = if write { DataDir::open(data_dir)? } else { DataDir::existing(data_dir)? };
    let files = read_files(&dir, from)?;
    let import = Import::read(&files)?;
    let lock = if write { Some(dir.lock(DAEMON_LOCK)?) } else { None };
    first_start::check_ours(&dir, file)?;
    let path = first_start::configuration_path(&dir, file)?;
    let is_new = !dir.has(&path)?;
    let text = if is_new { HEAD.to_owned() } else { config::read_text(&dir, &path)? };
    let mut draft = Draft::new(&text)?;
    import.add_sections(&mut draft)?;
    let new = Loaded::parse(draft.text(), &path.to_string_lossy(), dir.path())?;
    let mut users = users_file::load(&dir)?;
    if write {
        // The keys come before the users, as at a first start.
        keys::load_or_make(&dir)?;
        import.add_accounts(&mut users)?;
        // Users first: if a crash comes between the two, the second attempt says that they are there, and nobody has lost anything.
        users_file::edit(&dir, |users| import.add_accounts(users))?;
        if is_new {
            dir.put(&path, new.text.as_bytes(), PUBLIC_MODE)?;
        } else {
            dir.replace(&path, new.text.as_bytes())?;
        }
    } else {
        import.add_accounts(&mut users)?;
    }
    drop(lock);
    let stores =
        new.config.datastores.iter().filter(|store| import.datastores.iter().any(|(name, _)| *name == store.name));
    Ok(Imported {
        datastores: stores.map(|store| (store.name.to_string(), store.path.to_string_lossy().into_owned())).collect(),
        jobs: import.jobs.iter().map(|(section, id, _)| format!("{section} {id}")).collect(),
        accounts: import.accounts.iter().map(|(auth, ..)| auth.to_string()).collect(),
        permissions: import.acl.len(),
        notes: import.notes,
        written: write,
    })
}

fn read_files(dir: &DataDir, from: &Path) -> Result<BTreeMap<String, String>> {
    let from = std::path::absolute(from).map_err(|e| Error::io(format!("find {from:?}"), e))?;
    let mut files = BTreeMap::new();
    for name in IMPORTED_FILES {
        if let Some(bytes) = dir.read(from.join(name))? {
            let text =
                String::from_utf8(bytes).map_err(|_| Error::invalid(format!("{:?} is not UTF-8", from.join(name))))?;
            files.insert(name.to_owned(), text);
        }
    }
    if files.is_empty() {
        let text = format!("{from:?} holds none of {}", IMPORTED_FILES.join(", "));
        return Err(Error::not_found(text));
    }
    Ok(files)
}
