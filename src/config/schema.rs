//! Every key of the configuration file, with its kind, default and reason. Pure.
//!
//! One table serves the reader, the file written at first start, and `docs/configuration.md`.

/// What values a key takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text.
    Text,
    /// A path; a relative one starts at the data directory.
    Path,
    /// `"ADDRESS:PORT"`, IPv6 in brackets.
    Address,
    /// `true` or `false`.
    Boolean,
    /// A whole number in this range.
    Integer(i64, i64),
    /// One of these words.
    Words(&'static [&'static str]),
}

/// One key.
#[derive(Clone, Copy, Debug)]
pub struct Key {
    /// As written in the file; a dot stands for a table inside.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Its value when it is left out, in TOML; empty if it has none.
    pub default: &'static str,
    /// Whether a section without it is refused.
    pub required: bool,
    /// When a change of it takes effect.
    pub effect: Effect,
    /// For people: what it does, and when to change it.
    pub doc: &'static str,
}

/// When a change of a key takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// At a reload.
    Reload,
    /// At a reload while nobody uses the datastore.
    Idle,
    /// At the next start.
    Start,
}

/// One table of the file.
#[derive(Clone, Copy, Debug)]
pub struct Section {
    /// As written in the file.
    pub name: &'static str,
    /// `[[name]]`, any number of times, or `[name]`, at most once.
    pub repeated: bool,
    /// For people.
    pub doc: &'static str,
    /// Its keys.
    pub keys: &'static [Key],
}

const fn key(name: &'static str, kind: Kind, default: &'static str, doc: &'static str) -> Key {
    Key { name, kind, default, required: false, effect: Effect::Reload, doc }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Key {
    Key { name, kind, default: "", required: true, effect: Effect::Reload, doc }
}

impl Key {
    const fn at_start(self) -> Self {
        Self { effect: Effect::Start, ..self }
    }

    const fn when_idle(self) -> Self {
        Self { effect: Effect::Idle, ..self }
    }
}

/// The whole file.
pub const SECTIONS: &[Section] = &[SERVER, DATASTORE, PRUNE_JOB, VERIFY_JOB, TASKS, METRICS];

const SERVER: Section = Section {
    name: "server",
    repeated: false,
    doc: "How clients reach the daemon, and how many may at a time.",
    keys: &[
        key(
            "listen",
            Kind::Address,
            "\"127.0.0.1:8007\"",
            "Address and port of the API. `0.0.0.0:8007` and `[::]:8007` serve all interfaces. `--listen` goes before it.",
        )
        .at_start(),
        key(
            "tls-cert",
            Kind::Path,
            "\"tls/cert.pem\"",
            "Certificate chain in PEM, the server's own first. Made at the first start if neither it nor `tls-key` is there.",
        ),
        key("tls-key", Kind::Path, "\"tls/key.pem\"", "Private key of the certificate in PEM."),
        key(
            "connections-max",
            Kind::Integer(1, 65_536),
            "512",
            "Connections open at a time. More are answered with 503, and still more are closed at once.",
        )
        .at_start(),
        key(
            "sessions-max",
            Kind::Integer(1, 4096),
            "128",
            "Backup and restore sessions at a time. Each may hold some tens of megabytes.",
        ),
        key(
            "shutdown-timeout-secs",
            Kind::Integer(0, 86_400),
            "60",
            "How long running sessions may go on after SIGTERM. What is unfinished then is removed. \
             Keep systemd's `TimeoutStopSec` at least 30 s longer.",
        ),
        key(
            "unauthenticated-delay-ms",
            Kind::Integer(0, 60_000),
            "3000",
            "How long the answer to wrong credentials waits, so that guessing is slow.",
        ),
        key(
            "denied-delay-ms",
            Kind::Integer(0, 60_000),
            "500",
            "How long the answer to a call without the privilege for it waits.",
        ),
        key(
            "compute-threads",
            Kind::Integer(0, 1024),
            "0",
            "Threads for hashing and compression, shared by all datastores; 0 means one for each CPU.",
        )
        .at_start(),
    ],
};

const DATASTORE: Section = Section {
    name: "datastore",
    repeated: true,
    doc: "A datastore; the section may be repeated. The directory must be a datastore already (`ringvault datastore create NAME PATH` \
          makes one and writes the section), only `main` of a new data directory is made at the first start.",
    keys: &[
        required("name", Kind::Text, "What clients call it: 3 to 32 of `A-Z a-z 0-9 _ . -`."),
        required("path", Kind::Path, "Its directory. A relative path starts at the data directory.")
            .when_idle(),
        key("comment", Kind::Text, "", "A line for listings."),
        key(
            "maintenance-mode",
            Kind::Text,
            "",
            "`read-only` refuses what changes the datastore, `offline` everything; `type=offline,message=\"new disk\"` says why to those who \
             are refused. What runs goes on.",
        ),
        key(
            "gc-schedule",
            Kind::Text,
            "",
            "When garbage collection runs, as a calendar event: `daily`, `sat 18:15`; never unless given.",
        ),
        key(
            "sync-level",
            Kind::Words(&["none", "file", "filesystem"]),
            "\"filesystem\"",
            "`filesystem`: one sync of the whole file system when a backup finishes, before its manifest appears. \
             `file`: every file when it is written, dearer, for file systems shared with others that write much. \
             `none`: a power cut may cost the last snapshots.",
        ),
        key(
            "checks.append",
            Kind::Boolean,
            "true",
            "Check that every known chunk is on the disk when a backup refers to it.",
        ),
        key(
            "checks.finish",
            Kind::Boolean,
            "true",
            "Check it again for every chunk of a backup when that finishes. Full chunk directories are read instead of asking for each file, if the other two are on, which see to the sizes. Switch off the others first: this one is the promise.",
        ),
        key(
            "checks.preflight",
            Kind::Boolean,
            "true",
            "Check the chunks of the previous backup while a client still reads its index, so that this very backup can heal a hole.",
        ),
        key(
            "verify-new",
            Kind::Boolean,
            "false",
            "Verify each backup when it has finished: a task of its own reads all that it names.",
        ),
        key(
            "engine",
            Kind::Words(&["auto", "uring", "threads", "sync"]),
            "\"auto\"",
            "How presence is checked. `auto`: io_uring where the kernel grants it, else threads. The others force one, for measurement \
             and for containers that forbid io_uring.",
        )
        .when_idle(),
        key(
            "workers",
            Kind::Integer(1, 256),
            "64",
            "Presence checks in flight at a time. Raise it for storage with high latency (network, distributed), lower it for one slow disk.",
        )
        .when_idle(),
        key("io-threads", Kind::Integer(1, 256), "16", "Threads for reading and writing files.").when_idle(),
        key(
            "owner",
            Kind::Text,
            "",
            "`UID:GID` of new files and directories when the daemon runs as root; without it, those of the datastore's directory.",
        )
        .when_idle(),
        key(
            "gc-method",
            Kind::Words(&["memory", "atime"]),
            "\"memory\"",
            "How garbage collection tells what is in use. `memory`: by what the indexes name; live chunks are not touched. `atime`: as Proxmox \
             Backup Server does, the access time of every chunk in use is set and every chunk is looked at; far slower.",
        ),
        key(
            "gc-memory-mib",
            Kind::Integer(4, 1_048_576),
            "256",
            "Memory for the set of chunks in use, at most 12 bytes each: 256 MiB are 23 million chunks. With less the index files are read \
             several times.",
        ),
        key(
            "gc-reserve-mib",
            Kind::Integer(0, 1024),
            "4",
            "Space that garbage collection keeps for a full disk: the file `.ringvault-gc-reserve` in the datastore. A run that finds ample room makes it, a run \
             that finds none removes it first. `0`: none.",
        ),
        key(
            "gc-atime-cutoff",
            Kind::Integer(1, 2880),
            "1445",
            "Garbage collection keeps every chunk that was used in so many minutes before it, and whatever a running backup may need. Less than \
             1445 only where every use of a file sets its access time: `relatime` mounts do so once a day.",
        ),
        key(
            "background.chunks-per-second",
            Kind::Integer(1, 1_000_000_000),
            "",
            "How many chunks garbage collection, verification and prune together read, look at or remove in a second at most; a directory, and a \
             MiB of an index, count as one each. No limit unless given.",
        ),
        key(
            "background.mib-per-second",
            Kind::Integer(1, 1_048_576),
            "",
            "How many MiB of chunks and indexes they read in a second at most. No limit unless given.",
        ),
        key(
            "background.back-off",
            Kind::Boolean,
            "true",
            "They make way for sessions: by how long appends take, and by the I/O pressure that the kernel tells. Without sessions they are as \
             fast as the rates above let them.",
        ),
        key(
            "background.idle-priority",
            Kind::Boolean,
            "true",
            "Their reads have the I/O priority `idle`. That has an effect where the disk's scheduler is `bfq` or `mq-deadline`.",
        ),
        key(
            "manifest-lock-dir",
            Kind::Path,
            "",
            "Where manifest locks lie, if a Proxmox Backup Server before 3.3.5 works on the same datastore at the same time: \
             `/run/proxmox-backup/locks`.",
        )
        .when_idle(),
    ],
};

const JOB_ID: Key = required("id", Kind::Text, "Names the job: 3 to 32 of `A-Z a-z 0-9 _ . -`.");
const JOB_STORE: Key = required("store", Kind::Text, "Which datastore it works on.");
const JOB_NS: Key = key("ns", Kind::Text, "", "Which namespace, with those below it; the root if left out.");
const JOB_DEPTH: Key =
    key("max-depth", Kind::Integer(0, 7), "", "How many levels of namespaces below; all if left out.");
const JOB_SCHEDULE: Key = key(
    "schedule",
    Kind::Text,
    "",
    "When: a calendar event such as `daily`, `02:30`, `mon..fri 8..17:0/15`, `*-01 12:00`, `sat 18:15 UTC`, on the server's clock unless it \
     says `UTC`. Without one the job runs only when somebody starts it.",
);
const JOB_COMMENT: Key = key("comment", Kind::Text, "", "A line for listings.");

const fn keep(name: &'static str, doc: &'static str) -> Key {
    key(name, Kind::Integer(1, i64::MAX), "", doc)
}

const PRUNE_JOB: Section = Section {
    name: "prune-job",
    repeated: true,
    doc: "A scheduled prune of a datastore; the section may be repeated. Without any `keep` key it is never started.",
    keys: &[
        JOB_ID,
        JOB_STORE,
        JOB_NS,
        JOB_DEPTH,
        keep("keep-last", "How many of the newest snapshots of a group stay."),
        keep("keep-hourly", "In how many hours the newest stays."),
        keep("keep-daily", "On how many days the newest stays."),
        keep("keep-weekly", "In how many weeks the newest stays."),
        keep("keep-monthly", "In how many months the newest stays."),
        keep("keep-yearly", "In how many years the newest stays."),
        JOB_SCHEDULE,
        key("disable", Kind::Boolean, "false", "Do not start it by its schedule."),
        JOB_COMMENT,
    ],
};

const VERIFY_JOB: Section = Section {
    name: "verify-job",
    repeated: true,
    doc: "A scheduled verification of a datastore; the section may be repeated.",
    keys: &[
        JOB_ID,
        JOB_STORE,
        JOB_NS,
        JOB_DEPTH,
        key("ignore-verified", Kind::Boolean, "true", "Leave out what has been verified, whatever was found."),
        key(
            "outdated-after",
            Kind::Integer(0, 1_000_000),
            "",
            "But verify again what was verified more than so many days ago.",
        ),
        key(
            "parts",
            Kind::Integer(2, 65_536),
            "",
            "Read one of so many parts of the chunks, another one each day, so that a job that runs daily has read all in so many days. \
             No snapshot is called verified for that, so what has been verified is not left out.",
        ),
        JOB_SCHEDULE,
        JOB_COMMENT,
    ],
};

const TASKS: Section = Section {
    name: "tasks",
    repeated: false,
    doc: "Records of what was done for whom.",
    keys: &[
        key("dir", Kind::Path, "\"tasks\"", "Directory of the task logs.").at_start(),
        key(
            "keep",
            Kind::Integer(100, 100_000),
            "20000",
            "How many ended tasks are kept, with their logs; the oldest go first. A thousand take some 150 KiB of memory. \
             Names and results of all of them together may take 32 MiB.",
        )
        .at_start(),
    ],
};

const METRICS: Section = Section {
    name: "metrics",
    repeated: false,
    doc: "Who may see `GET /metrics`, what the daemon counts in the format of Prometheus.",
    keys: &[
        key(
            "access",
            Kind::Words(&["off", "loopback", "token"]),
            "\"loopback\"",
            "`loopback`: processes of this host, no login needed; a request that a proxy hands on is refused. \
             `token`: whoever sends the token, from anywhere. `off`: nobody.",
        ),
        key(
            "token-sha256",
            Kind::Text,
            "",
            "SHA-256 of the token in 64 hex digits, so that the token itself stays with the scraper. For `access = \"token\"`.",
        ),
    ],
};

impl Section {
    /// `[server]`, `[[datastore]]`.
    pub fn header(&self) -> String {
        if self.repeated { format!("[[{}]]", self.name) } else { format!("[{}]", self.name) }
    }

    /// The key that names a row of a repeated section: its first.
    pub fn id_key(&self) -> &'static str {
        self.keys.first().map_or("", |key| key.name)
    }

    /// The key of that name.
    pub fn key(&self, name: &str) -> Option<&'static Key> {
        self.keys.iter().find(|key| key.name == name)
    }
}

impl Kind {
    /// For people and error texts.
    pub fn describe(self) -> String {
        match self {
            Self::Text => "text".to_owned(),
            Self::Path => "a path".to_owned(),
            Self::Address => "\"ADDRESS:PORT\"".to_owned(),
            Self::Boolean => "true or false".to_owned(),
            Self::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Self::Words(words) => {
                let quoted: Vec<String> = words.iter().map(|word| format!("\"{word}\"")).collect();
                format!("one of {}", quoted.join(", "))
            }
        }
    }
}

/// `docs/configuration.md`.
pub fn reference() -> String {
    let mut text = "\
# Configuration

`ringvault.toml` in the data directory, written at the first start; `ringvault serve --config FILE` reads another file. It is TOML. A key that
is not in this list is refused with its line and column. A change takes effect when the file is read again (SIGHUP, `systemctl reload ringvault`), except
where the list says otherwise: `idle` is a reload while nobody uses the datastore, `start` the next start of the daemon.

This page is made from the table in `src/config/schema.rs`; a test compares them.
"
    .to_owned();
    for section in SECTIONS {
        text.push_str(&format!("\n## `{}`\n\n{}\n\n", section.header(), section.doc));
        text.push_str("| key | value | default | effect | |\n|---|---|---|---|---|\n");
        for key in section.keys {
            let default = match (key.default, key.required) {
                (_, true) => "required".to_owned(),
                ("", false) => "none".to_owned(),
                (default, false) => format!("`{default}`"),
            };
            let effect = match key.effect {
                Effect::Reload => "reload",
                Effect::Idle => "idle",
                Effect::Start => "start",
            };
            text.push_str(&format!(
                "| `{}` | {} | {default} | {effect} | {} |\n",
                key.name,
                key.kind.describe(),
                key.doc
            ));
        }
    }
    text
}

/// The file that the first start writes: every key as a comment, and the datastore `main`.
pub fn first_file() -> String {
    let mut text =
        "# Ringvault. Every key is explained in docs/configuration.md; those in comments show their defaults.\n"
            .to_owned();
    // Jobs are added when somebody wants one.
    for section in SECTIONS.iter().filter(|section| !section.repeated || section.name == "datastore") {
        text.push_str(&format!("\n{}\n", section.header()));
        for key in section.keys {
            match (section.name, key.name) {
                ("datastore", "name" | "path") => text.push_str(&format!("{} = \"main\"\n", key.name)),
                _ if key.default.is_empty() => {}
                _ => text.push_str(&format!("# {} = {}\n", key.name, key.default)),
            }
        }
    }
    text
}
