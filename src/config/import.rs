//! Files of an existing server of the original kind → what we make of them, and what we cannot (spec 05 §8, 01 §10). Pure.
//!
//! Nothing is left out in silence: every line without a counterpart becomes a [`Note`] with its place.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

use super::edit::Draft;
use super::jobs::{JOB_ID_CHARS, KEEP_KEYS};
use crate::auth::{AccountChange, AclEntry, Detail, REALM_PAM, REALM_PBS, Users, check_crypt_hash};
use crate::clock::EpochSecs;
use crate::error::{Error, Result};
use crate::store::MaintenanceMode;
use crate::types::{AuthId, DatastoreName, NAMESPACE_DEPTH_MAX, Namespace, Schedule, is_safe_id};

/// The files that are read, by their names in the other server's configuration directory.
pub const IMPORTED_FILES: [&str; 7] =
    ["datastore.cfg", "user.cfg", "acl.cfg", "shadow.json", "token.shadow", "prune.cfg", "verification.cfg"];

/// Keys and values of a section of our file.
type Keys = Vec<(&'static str, toml_edit::Value)>;

/// A line that has no counterpart here, or not quite.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Note {
    /// Name of the file.
    pub file: String,
    /// Line, from 1; 0 for the file as a whole.
    pub line: usize,
    /// What it says, and what becomes of it.
    pub text: String,
}

/// What the files say, as far as it has a counterpart here.
#[derive(Clone, Debug, Default)]
pub struct Import {
    /// Datastores, each with keys and values of our file.
    pub datastores: Vec<(DatastoreName, Keys)>,
    /// Jobs: section of our file, id, keys and values.
    pub jobs: Vec<(&'static str, String, Keys)>,
    /// Users before tokens, with their hashes as they are.
    pub accounts: Vec<(AuthId, AccountChange, Option<String>)>,
    /// Permissions.
    pub acl: Vec<AclEntry>,
    /// Everything else.
    pub notes: Vec<Note>,
}

impl Import {
    /// Reads the files' texts, by name.
    ///
    /// Errors: `Invalid` if a file of secrets is not the JSON that it should be: a guess there would lock somebody out.
    pub fn read(files: &BTreeMap<String, String>) -> Result<Self> {
        let text = |name: &str| files.get(name).map_or("", String::as_str);
        let mut import = Self::default();
        import.read_datastores(text("datastore.cfg"));
        import.read_jobs("prune.cfg", "prune", "prune-job", text("prune.cfg"));
        import.read_jobs("verification.cfg", "verification", "verify-job", text("verification.cfg"));
        let hashes = import.read_secrets(text("shadow.json"), text("token.shadow"))?;
        import.read_accounts(text("user.cfg"), hashes);
        import.read_acl(text("acl.cfg"));
        Ok(import)
    }

    fn note(&mut self, file: &str, line: usize, text: impl Into<String>) {
        self.notes.push(Note { file: file.to_owned(), line, text: text.into() });
    }

    fn read_datastores(&mut self, text: &str) {
        const FILE: &str = "datastore.cfg";
        for section in self.sections(FILE, text) {
            let name = match (section.kind.as_str(), section.id.parse::<DatastoreName>()) {
                ("datastore", Ok(name)) => name,
                ("datastore", Err(e)) => {
                    self.note(FILE, section.line, format!("{e}: left out"));
                    continue;
                }
                (kind, _) => {
                    self.note(FILE, section.line, format!("a section {kind:?} has no counterpart: left out"));
                    continue;
                }
            };
            let mut keys = Vec::new();
            let mut prune: Keys = Vec::new();
            for (line, key, value) in section.lines {
                // Before there were prune jobs, a datastore had one of its own.
                if key == "prune-schedule" || KEEP_KEYS.contains(&key.as_str()) {
                    match job_key("prune-job", if key == "prune-schedule" { "schedule" } else { &key }, &value) {
                        Ok(set) => prune.push(set),
                        Err(text) => self.note(FILE, line, format!("datastore {name}: {text}")),
                    }
                    continue;
                }
                if key == "tuning" {
                    for option in value.split(',').filter(|option| !option.is_empty()) {
                        match tuning_option(option) {
                            Some(set) => keys.push(set),
                            None => {
                                let text =
                                    format!("datastore {name}: tuning {option:.80} has no counterpart: left out");
                                self.note(FILE, line, text);
                            }
                        }
                    }
                    continue;
                }
                match datastore_key(&key, &value) {
                    Ok(Some(set)) => keys.push(set),
                    Ok(None) => {}
                    Err(text) => self.note(FILE, line, format!("datastore {name}: {text}")),
                }
            }
            if keys.iter().any(|(key, _)| *key == "path") {
                if !prune.is_empty() {
                    prune.push(("store", name.as_str().into()));
                    self.jobs.push(("prune-job", job_id_of(name.as_str()), prune));
                }
                self.datastores.push((name, keys));
            } else {
                self.note(FILE, section.line, format!("datastore {name} has no path: left out"));
            }
        }
    }

    fn read_jobs(&mut self, file: &str, kind: &str, ours: &'static str, text: &str) {
        for section in self.sections(file, text) {
            if section.kind != kind {
                let text = format!("a section {:?} has no counterpart: left out", section.kind);
                self.note(file, section.line, text);
                continue;
            }
            let id = section.id;
            if !is_job_id(&id) {
                self.note(file, section.line, format!("{id:.80?} is not the id of a job: left out"));
                continue;
            }
            let mut keys: Keys = Vec::new();
            for (line, key, value) in section.lines {
                match job_key(ours, &key, &value) {
                    Ok(set) => keys.push(set),
                    Err(text) => self.note(file, line, format!("job {id}: {text}")),
                }
            }
            if keys.iter().any(|(key, _)| *key == "store") {
                self.jobs.push((ours, id, keys));
            } else {
                self.note(file, section.line, format!("job {id} names no datastore: left out"));
            }
        }
    }

    /// Hashes by the id that they let in.
    fn read_secrets(&mut self, shadow: &str, tokens: &str) -> Result<BTreeMap<AuthId, (&'static str, String)>> {
        let mut hashes = BTreeMap::new();
        for (file, text, suffix) in [("shadow.json", shadow, "@pbs"), ("token.shadow", tokens, "")] {
            if text.trim().is_empty() {
                continue;
            }
            let wrong = |e: serde_json::Error| Error::invalid(format!("{file}:{}:{}: {e}", e.line(), e.column()));
            for (name, hash) in serde_json::from_str::<Map<String, Value>>(text).map_err(wrong)? {
                match (format!("{name}{suffix}").parse::<AuthId>(), hash) {
                    (Ok(id), Value::String(hash)) => drop(hashes.insert(id, (file, hash))),
                    _ => self.note(file, 0, format!("{name:.80?} has no hash, or is nobody's name: left out")),
                }
            }
        }
        Ok(hashes)
    }

    fn read_accounts(&mut self, text: &str, mut hashes: BTreeMap<AuthId, (&'static str, String)>) {
        const FILE: &str = "user.cfg";
        for section in self.sections(FILE, text) {
            let Section { line, kind, id, lines } = section;
            let auth = match (kind.as_str(), id.parse::<AuthId>()) {
                ("user", Ok(auth)) if auth.token().is_none() => auth,
                ("token", Ok(auth)) if auth.token().is_some() => auth,
                _ => {
                    self.note(FILE, line, format!("{kind}: {id:.80} is neither a user nor a token: left out"));
                    continue;
                }
            };
            if ![REALM_PBS, REALM_PAM].contains(&auth.user().realm()) {
                self.note(FILE, line, format!("{auth}: the realm has no counterpart: left out"));
                continue;
            }
            let mut change = AccountChange::default();
            for (line, key, value) in lines {
                if let Err(text) = account_key(&mut change, auth.token().is_some(), &key, &value) {
                    self.note(FILE, line, format!("{auth}: {text}"));
                }
            }
            let hash = hashes.remove(&auth).and_then(|(file, hash)| match check_crypt_hash(&hash) {
                Ok(()) => Some(hash),
                Err(e) => {
                    self.note(file, 0, format!("{auth}: {e}"));
                    None
                }
            });
            if hash.is_none() && (auth.token().is_some() || auth.user().realm() == REALM_PBS) {
                let remedy = if auth.token().is_some() { "regenerate it" } else { "set one" };
                self.note(FILE, line, format!("{auth} has no usable secret: {remedy}"));
            }
            self.accounts.push((auth, change, hash));
        }
        for (auth, (file, _)) in hashes {
            self.note(file, 0, format!("{auth} is not in {FILE}: the hash is left out"));
        }
        // A token is made after its user, and only then.
        self.accounts.sort_by(|(a, ..), (b, ..)| (a.token().is_some(), a).cmp(&(b.token().is_some(), b)));
        let users: BTreeSet<_> =
            self.accounts.iter().filter(|(id, ..)| id.token().is_none()).map(|(id, ..)| id.user().clone()).collect();
        let orphans: Vec<AuthId> =
            self.accounts.iter().map(|(id, ..)| id.clone()).filter(|id| !users.contains(id.user())).collect();
        self.accounts.retain(|(auth, ..)| !orphans.contains(auth));
        for auth in orphans {
            self.note(FILE, 0, format!("{auth}: its user is not there: left out"));
        }
    }

    fn read_acl(&mut self, text: &str) {
        const FILE: &str = "acl.cfg";
        for (at, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let parts: Vec<&str> = line.split(':').collect();
            let ["acl", propagate @ ("0" | "1"), path, ids, roles] = parts[..] else {
                self.note(FILE, at + 1, format!("{line:.120?} is not acl:PROPAGATE:PATH:IDS:ROLES: left out"));
                continue;
            };
            for (id, role) in ids.split(',').flat_map(|id| roles.split(',').map(move |role| (id, role))) {
                let entry = || -> Result<AclEntry> {
                    let (path, auth_id, role) = (path.parse()?, id.parse()?, role.parse()?);
                    Ok(AclEntry { path, auth_id, role, propagate: propagate == "1" })
                };
                match entry() {
                    Ok(entry) if self.has_account(&entry.auth_id) => self.acl.push(entry),
                    Ok(entry) => self.note(
                        FILE,
                        at + 1,
                        format!("{} is not imported: its role {role} on {path} is left out", entry.auth_id),
                    ),
                    Err(e) => self.note(FILE, at + 1, format!("{id} {role} on {path}: {e}: left out")),
                }
            }
        }
    }

    fn has_account(&self, auth: &AuthId) -> bool {
        (auth.token().is_none() && auth.user().is_superuser()) || self.accounts.iter().any(|(id, ..)| id == auth)
    }

    /// Adds the datastores and the jobs to a configuration.
    ///
    /// Errors: `Invalid` if one of the name is there.
    pub fn add_sections(&self, draft: &mut Draft) -> Result<()> {
        for (name, keys) in &self.datastores {
            draft.add("datastore", name.as_str())?;
            for (key, value) in keys {
                draft.set("datastore", name.as_str(), key, value.clone())?;
            }
        }
        for (section, id, keys) in &self.jobs {
            draft.add(section, id)?;
            for (key, value) in keys {
                draft.set(section, id, key, value.clone())?;
            }
        }
        Ok(())
    }

    /// Adds users, tokens and permissions.
    ///
    /// Errors: `Invalid` if an account is there.
    pub fn add_accounts(&self, users: &mut Users) -> Result<()> {
        for (auth, change, hash) in &self.accounts {
            match (auth.token(), hash) {
                (None, hash) => {
                    users.create_user(auth.user(), change)?;
                    hash.iter().try_for_each(|hash| users.set_password_hash(auth.user(), hash.clone()))?;
                }
                (Some(_), hash) => users.import_token(auth, change, hash.clone())?,
            }
        }
        self.acl.iter().for_each(|entry| users.allow(entry.clone()));
        users.check_size()
    }

    /// Splits a section file; lines that belong nowhere are noted.
    fn sections(&mut self, file: &str, text: &str) -> Vec<Section> {
        let mut sections: Vec<Section> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let (number, body) = (at + 1, line.trim());
            if body.is_empty() || body.starts_with('#') {
                continue;
            }
            let header = body.split_once(':').filter(|_| !line.starts_with([' ', '\t']));
            match (header, sections.last_mut()) {
                (Some((kind, id)), _) => {
                    let (kind, id) = (kind.trim().to_owned(), id.trim().to_owned());
                    sections.push(Section { line: number, kind, id, lines: Vec::new() });
                }
                (None, Some(section)) if line.starts_with([' ', '\t']) => {
                    let (key, value) = body.split_once(char::is_whitespace).unwrap_or((body, ""));
                    section.lines.push((number, key.to_owned(), value.trim().to_owned()));
                }
                _ => self.note(file, number, format!("{body:.120?} belongs to no section: left out")),
            }
        }
        sections
    }
}

/// `kind: id`, and the indented lines below it: number, key, value.
struct Section {
    line: usize,
    kind: String,
    id: String,
    lines: Vec<(usize, String, String)>,
}

fn boolean(value: &str) -> Result<bool, String> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Ok(true),
        "0" | "off" | "no" | "false" => Ok(false),
        _ => Err(format!("{value:.40?} is neither true nor false: left out")),
    }
}

/// One of the options in `tuning`.
fn tuning_option(option: &str) -> Option<(&'static str, toml_edit::Value)> {
    match option.split_once('=')? {
        ("sync-level", word @ ("none" | "file" | "filesystem")) => Some(("sync-level", word.into())),
        ("gc-atime-cutoff", minutes) => {
            let minutes = minutes.parse().ok().filter(|minutes: &i64| (1..=2880).contains(minutes))?;
            Some(("gc-atime-cutoff", minutes.into()))
        }
        _ => None,
    }
}

fn is_job_id(id: &str) -> bool {
    JOB_ID_CHARS.contains(&id.len()) && is_safe_id(id)
}

/// The id of the prune job that a datastore's own prune settings become: fit for a job, whatever the datastore is called.
fn job_id_of(store: &str) -> String {
    let name = format!("prune-{store}");
    name.chars().take(*JOB_ID_CHARS.end()).collect()
}

fn schedule(value: &str) -> Result<toml_edit::Value, String> {
    value.parse::<Schedule>().map_err(|e| format!("{e}: left out"))?;
    Ok(value.into())
}

/// The key and value of a job of our file.
fn job_key(section: &str, key: &str, value: &str) -> Result<(&'static str, toml_edit::Value), String> {
    let number = |most: u64| {
        let number = value.parse::<u64>().ok().filter(|number| *number <= most);
        let number = number.and_then(|number| i64::try_from(number).ok());
        number.ok_or_else(|| format!("{key} {value:.40?} is no number that can be: left out"))
    };
    let is_prune = section == "prune-job";
    Ok(match key {
        "store" => {
            value.parse::<DatastoreName>().map_err(|e| format!("{e}: left out"))?;
            ("store", value.into())
        }
        "ns" => {
            value.parse::<Namespace>().map_err(|e| format!("{e}: left out"))?;
            ("ns", value.into())
        }
        "max-depth" => ("max-depth", number(NAMESPACE_DEPTH_MAX as u64)?.into()),
        "schedule" => ("schedule", schedule(value)?),
        "comment" => ("comment", value.into()),
        "disable" if is_prune => ("disable", boolean(value)?.into()),
        "ignore-verified" if !is_prune => ("ignore-verified", boolean(value)?.into()),
        "outdated-after" if !is_prune => ("outdated-after", number(1_000_000)?.into()),
        _ => match KEEP_KEYS.into_iter().find(|keep| is_prune && *keep == key) {
            Some(keep) if value == "0" => return Err(format!("{keep} 0 keeps nothing: left out")),
            Some(keep) => (keep, number(u64::from(u32::MAX))?.into()),
            None => return Err(format!("{key} has no counterpart: left out")),
        },
    })
}

/// The key and value of our file; `None` for what says nothing.
fn datastore_key(key: &str, value: &str) -> Result<Option<(&'static str, toml_edit::Value)>, String> {
    Ok(Some(match key {
        "path" => ("path", value.into()),
        "comment" => ("comment", value.into()),
        "gc-schedule" => ("gc-schedule", schedule(value)?),
        "verify-new" => ("verify-new", boolean(value)?.into()),
        "maintenance-mode" => {
            value.parse::<MaintenanceMode>().map_err(|e| format!("{e}: left out"))?;
            ("maintenance-mode", value.into())
        }
        other => return Err(format!("{other} has no counterpart: left out")),
    }))
}

fn account_key(change: &mut AccountChange, is_token: bool, key: &str, value: &str) -> Result<(), String> {
    let detail = Detail::ALL.into_iter().find(|detail| detail.name() == key);
    match (key, detail) {
        ("enable", _) => change.enabled = Some(boolean(value)?),
        ("expire", _) => {
            let time = value.parse().ok().filter(|time| *time >= 0);
            change.expire = Some(EpochSecs(time.ok_or_else(|| format!("expire {value:.40?} is no time: left out"))?));
        }
        (_, Some(detail)) if !is_token || detail == Detail::Comment => {
            detail.check(value).map_err(|e| format!("{e}: left out"))?;
            change.details.insert(detail, Some(value.to_owned()));
        }
        (other, _) => return Err(format!("{other} has no counterpart: left out")),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::AclPath;

    const HASH: &str = "$5$saltsalt$dzQ4J0XvHFgPvTlDpN9oJ9ZKM1iQ8u4sKzHzwmE6dN9";

    fn files(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    fn told(import: &Import) -> Vec<String> {
        import.notes.iter().map(|note| format!("{}:{}: {}", note.file, note.line, note.text)).collect()
    }

    #[test]
    fn a_whole_server_is_carried_over() {
        let shadow = format!("{{\"alice\":\"{HASH}\",\"ghost\":\"{HASH}\"}}");
        let tokens = format!("{{\"alice@pbs!t\":\"{HASH}\"}}");
        let import = Import::read(&files(&[
            (
                "datastore.cfg",
                "datastore: store1\n\tcomment my disk\n\tgc-schedule daily\n\tpath /mnt/store1\n\tprune-schedule daily\n\tnotify gc=never\n\
                 \ttuning sync-level=file\n\tverify-new true\n\ndatastore: old\n\tmaintenance-mode type=delete\n\tpath /mnt/old\n\
                 \ttuning chunk-order=none,sync-level=none\n\nremote: x\n\thost y\n",
            ),
            (
                "user.cfg",
                "user: root@pam\n\temail root@example.org\n\nuser: alice@pbs\n\tcomment hi there\n\tenable true\n\texpire 0\n\n\
                 token: alice@pbs!t\n\tcomment for host1\n\nuser: bob@pbs\n\tenable 0\n\nuser: eve@ldap\n\ntoken: gone@pbs!x\n",
            ),
            (
                "acl.cfg",
                "acl:1:/datastore/store1:alice@pbs,alice@pbs!t:DatastoreAdmin,Audit\nacl:0:/:eve@ldap:Admin\nacl:1:/:alice@pbs:Emperor\nnonsense\n",
            ),
            ("shadow.json", &shadow),
            ("token.shadow", &tokens),
        ]))
        .unwrap();
        assert_eq!(
            told(&import),
            [
                "datastore.cfg:6: datastore store1: notify has no counterpart: left out",
                "datastore.cfg:11: datastore old: \"delete\" is no maintenance mode: read-only or offline expected: left out",
                "datastore.cfg:13: datastore old: tuning chunk-order=none has no counterpart: left out",
                "datastore.cfg:15: a section \"remote\" has no counterpart: left out",
                "user.cfg:12: bob@pbs has no usable secret: set one",
                "user.cfg:15: eve@ldap: the realm has no counterpart: left out",
                "user.cfg:17: gone@pbs!x has no usable secret: regenerate it",
                "shadow.json:0: ghost@pbs is not in user.cfg: the hash is left out",
                "user.cfg:0: gone@pbs!x: its user is not there: left out",
                "acl.cfg:2: eve@ldap is not imported: its role Admin on / is left out",
                "acl.cfg:3: alice@pbs Emperor on /: \"Emperor\" is not a role: left out",
                "acl.cfg:4: \"nonsense\" is not acl:PROPAGATE:PATH:IDS:ROLES: left out",
            ]
        );
        let mut draft = Draft::new("# Ours.\n").unwrap();
        import.add_sections(&mut draft).unwrap();
        let config = crate::config::Config::parse(&draft.text(), "x", std::path::Path::new("/data")).unwrap();
        let shown: Vec<_> = config
            .datastores
            .iter()
            .map(|s| {
                (s.name.as_str(), s.sync_level.as_str(), s.verify_new, s.gc_schedule.as_deref(), s.comment.as_deref())
            })
            .collect();
        assert_eq!(
            shown,
            [("store1", "file", true, Some("daily"), Some("my disk")), ("old", "none", false, None, None)]
        );
        assert!(import.add_sections(&mut draft).unwrap_err().to_string().contains("already exists"));

        let mut users = Users::default();
        import.add_accounts(&mut users).unwrap();
        let ids: Vec<String> = users.ids().map(ToString::to_string).collect();
        assert_eq!(ids, ["alice@pbs", "alice@pbs!t", "bob@pbs", "root@pam"]);
        let alice: AuthId = "alice@pbs".parse().unwrap();
        assert_eq!((users.hash(&alice), users.hash(&"alice@pbs!t".parse().unwrap())), (Some(HASH), Some(HASH)));
        assert!(!users.account(&"bob@pbs".parse().unwrap()).unwrap().enabled);
        let path: AclPath = "/datastore/store1".parse().unwrap();
        let roles: Vec<String> = users
            .acl
            .entries()
            .iter()
            .filter(|e| e.path == path && e.auth_id == alice)
            .map(|e| e.role.to_string())
            .collect();
        assert_eq!(roles.len(), 2, "{roles:?}");
        assert!(import.add_accounts(&mut users).unwrap_err().to_string().contains("already exists"));
    }

    #[test]
    fn damaged_files_are_told() {
        let error = Import::read(&files(&[("shadow.json", "{\"a\": ")])).unwrap_err();
        assert!(error.to_string().starts_with("shadow.json:1:"), "{error}");
        let import = Import::read(&files(&[
            ("datastore.cfg", "\tpath /x\ndatastore: x\ndatastore: good\n\tcomment c\n"),
            ("user.cfg", "user: nobody\nuser: a@pbs\n\texpire soon\n\tenable maybe\n\tkeys x\n"),
            ("shadow.json", "{\"a\": 5}"),
        ]))
        .unwrap();
        assert!(import.datastores.is_empty());
        let told = told(&import);
        for want in [
            "datastore.cfg:1: \"path /x\" belongs to no section",
            "datastore.cfg:2: ",
            "datastore.cfg:3: datastore good has no path",
            "user.cfg:1: ",
            "expire \"soon\" is no time",
            "\"maybe\" is neither",
            "keys has no counterpart",
            "shadow.json:0: \"a\" has no hash",
        ] {
            assert!(told.iter().any(|line| line.contains(want)), "{want}: {told:#?}");
        }
    }

    #[test]
    fn jobs_and_what_was_said_of_a_datastore_before_there_were_jobs() {
        let import = Import::read(&files(&[
            (
                "datastore.cfg",
                "datastore: st1\n\tgc-schedule moon\n\tkeep-daily 7\n\tkeep-last 3\n\tpath /mnt/st1\n\tprune-schedule 02:30\n\
                 \ttuning gc-atime-cutoff=60,gc-cache-capacity=5,sync-level=file\n",
            ),
            (
                "prune.cfg",
                "prune: nightly\n\tcomment c\n\tdisable false\n\tkeep-weekly 4\n\tmax-depth 2\n\tns a/b\n\tschedule daily\n\tstore st1\n\
                 \nprune: nowhere\n\tkeep-last 1\n\nsync: x\n\tstore st1\n\nprune: odd\n\tkeep-last many\n\tmystery 1\n\tstore st1\n\
                 \nprune: no\n\tstore st1\n",
            ),
            (
                "verification.cfg",
                "verification: v-1234\n\tignore-verified true\n\tns\n\toutdated-after 30\n\tschedule sat 18:15\n\tstore st1\n",
            ),
        ]))
        .unwrap();
        assert_eq!(
            told(&import),
            [
                "datastore.cfg:2: datastore st1: \"moon\" is not a calendar event: \"moon\" is not a weekday: left out",
                "datastore.cfg:7: datastore st1: tuning gc-cache-capacity=5 has no counterpart: left out",
                "prune.cfg:10: job nowhere names no datastore: left out",
                "prune.cfg:13: a section \"sync\" has no counterpart: left out",
                "prune.cfg:17: job odd: keep-last \"many\" is no number that can be: left out",
                "prune.cfg:18: job odd: mystery has no counterpart: left out",
                "prune.cfg:21: \"no\" is not the id of a job: left out",
            ]
        );
        let mut draft = Draft::new("").unwrap();
        import.add_sections(&mut draft).unwrap();
        let config = crate::config::Config::parse(&draft.text(), "x", std::path::Path::new("/data")).unwrap();
        let store = &config.datastores[0];
        assert_eq!((store.gc_atime_cutoff, store.sync_level.as_str(), &store.gc_schedule), (60, "file", &None));
        let prunes: Vec<_> = config
            .prune_jobs
            .iter()
            .map(|p| (&*p.job.id, p.keep, p.job.schedule_text.as_deref(), p.job.ns.to_string(), p.job.max_depth))
            .collect();
        assert_eq!(
            prunes,
            [
                ("prune-st1", [3, 0, 7, 0, 0, 0], Some("02:30"), String::new(), None),
                ("nightly", [0, 0, 0, 4, 0, 0], Some("daily"), "a/b".to_owned(), Some(2)),
                ("odd", [0; 6], None, String::new(), None),
            ]
        );
        let verify = &config.verify_jobs[0];
        assert_eq!((&*verify.job.id, verify.ignore_verified, verify.outdated_after), ("v-1234", true, Some(30)));
        assert_eq!(verify.job.schedule_text.as_deref(), Some("sat 18:15"));
        assert!(import.add_sections(&mut draft).is_err(), "it is there now");
    }
}
