//! A real daemon of a test's own: started from the binary in a fresh folder, watched, ended, and its datastore examined.

use std::collections::BTreeMap;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use super::users;
use super::wire::{PATIENCE, Peer};

/// Name of the datastore that recordings speak of.
pub const STORE: &str = "golden";

/// What the recordings' placeholders stand for.
#[derive(Clone, Debug, Default)]
pub struct Secrets {
    known: BTreeMap<&'static str, String>,
}

impl Secrets {
    /// Puts values in the place of placeholders.
    pub fn fill(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.known {
            text = text.replace(&format!("{{{{{name}}}}}"), value);
        }
        text
    }

    /// Remembers ticket and CSRF token of a login's answer.
    pub fn learn(&mut self, data: &Value) {
        if let (Some(ticket), Some(csrf)) = (data["ticket"].as_str(), data["CSRFPreventionToken"].as_str()) {
            let encoded = percent_encoding::utf8_percent_encode(ticket, percent_encoding::NON_ALPHANUMERIC).to_string();
            self.known.insert("TICKET", ticket.to_owned());
            self.known.insert("TICKET_PERCENT_ENCODED", encoded);
            self.known.insert("CSRF", csrf.to_owned());
        }
    }
}

/// How a daemon is set up; every field has a default.
#[derive(Debug)]
pub struct Setup {
    /// `auto`, `uring`, `threads` or `sync`; the default comes from `RINGVAULT_TEST_ENGINE`.
    pub engine: String,
    /// Whether the kernel refuses io_uring to it; the default comes from `RINGVAULT_TEST_SECCOMP`.
    pub without_ring: bool,
    /// Known-chunk checks: append, finish, preflight.
    pub checks: [bool; 3],
    /// More lines of the section `[server]`.
    pub server: String,
    /// Sync level of the datastore.
    pub sync_level: &'static str,
    /// Where the datastore lies; the default is a fresh one in the daemon's folder.
    pub store: Option<PathBuf>,
    /// Whether the independent checker reads the datastore at the end.
    pub is_checked: bool,
    /// The folder that all temporary folders are made in.
    pub root: PathBuf,
    /// Added to the configuration as it is.
    pub more: String,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            engine: std::env::var("RINGVAULT_TEST_ENGINE").unwrap_or_else(|_| "auto".into()),
            without_ring: std::env::var("RINGVAULT_TEST_SECCOMP").is_ok_and(|v| v == "1"),
            checks: [true; 3],
            server: String::new(),
            sync_level: "none",
            store: None,
            is_checked: true,
            root: temp_root(),
            more: String::new(),
        }
    }
}

/// A folder in memory where there is one: a test's datastore of many small files is made and removed ten times as fast.
pub fn temp_root() -> PathBuf {
    let memory = Path::new("/dev/shm");
    let free = rustix::fs::statvfs(memory).map_or(0, |s| s.f_bavail * s.f_frsize);
    if free > 2 << 30 { memory.to_owned() } else { std::env::temp_dir() }
}

/// A fresh folder below [`temp_root`], removed when dropped.
pub fn temp_dir() -> TempDir {
    temp_dir_in(&temp_root())
}

fn temp_dir_in(root: &Path) -> TempDir {
    tempfile::Builder::new().prefix("ringvault-it-").tempdir_in(root).expect("a temporary folder")
}

/// A datastore as spec 01 §1.2 has it, except that the chunk directories appear when they are needed (03 §13).
pub fn make_store(path: &Path) {
    let dir = |path: &Path, mode: u32| {
        std::fs::DirBuilder::new().recursive(true).mode(mode).create(path).expect("a directory");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("its mode");
    };
    dir(path, 0o755);
    dir(&path.join(".chunks"), 0o750);
    let mut lock = std::fs::OpenOptions::new();
    lock.write(true).create_new(true).mode(0o644).open(path.join(".lock")).expect("a lock file");
}

/// A running daemon. Dropping it ends it and examines what it left, unless the test has failed already.
#[derive(Debug)]
pub struct Daemon {
    child: Mutex<Option<Child>>,
    peer: Peer,
    store: PathBuf,
    data: PathBuf,
    environment: BTreeMap<String, String>,
    setup: Setup,
    secrets: Secrets,
    /// What the checker is told to expect.
    expected: Mutex<Vec<String>>,
    /// After the child, so that it is removed last.
    _folder: Option<TempDir>,
}

impl Daemon {
    /// Starts one with everything at its default.
    pub fn start() -> Self {
        Self::with(Setup::default())
    }

    /// Starts one.
    pub fn with(setup: Setup) -> Self {
        let folder = temp_dir_in(&setup.root);
        let data = folder.path().join("data");
        std::fs::DirBuilder::new().mode(0o700).create(&data).expect("a data directory");
        let store = setup.store.clone().unwrap_or_else(|| {
            let store = folder.path().join(STORE);
            make_store(&store);
            store
        });
        let secrets = Secrets { known: users::prepare(&data).into_iter().collect() };
        let mut daemon = Self {
            child: Mutex::new(None),
            peer: Peer { addr: ([127, 0, 0, 1], 0).into(), fingerprint: [0; 32] },
            store,
            data,
            environment: BTreeMap::new(),
            setup,
            secrets,
            expected: Mutex::new(vec!["--allow".into(), "absent:.chunks".into()]),
            _folder: Some(folder),
        };
        daemon.launch();
        daemon
    }

    /// Starts the process again over the same data directory.
    pub fn launch(&mut self) {
        let [append, finish, preflight] = self.setup.checks;
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\nunauthenticated-delay-ms = 0\ndenied-delay-ms = 0\nshutdown-timeout-secs = 5\n{}\n\
             [[datastore]]\nname = \"{STORE}\"\npath = {:?}\nsync-level = \"{}\"\nengine = \"{}\"\n\
             checks = {{ append = {append}, finish = {finish}, preflight = {preflight} }}\n{}",
            self.setup.server, self.store, self.setup.sync_level, self.setup.engine, self.setup.more
        );
        let config = self.data.join("config.toml");
        std::fs::write(&config, text).expect("write the configuration");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.log_path()).expect("a log file");
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringvault"));
        command.arg("serve").arg("--data-dir").arg(&self.data).arg("--config").arg(&config);
        // One level down from the default says what a session does; the checks below read it.
        command.env("RUST_LOG", "info").env("NO_COLOR", "1").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = spawn(command, self.setup.without_ring);
        let said = first_line(&mut child);
        let Some(line) = said else {
            let ended = child.wait().expect("the daemon's end");
            panic!("the daemon did not start: {ended}: {}", self.log());
        };
        *self.child.lock().expect("the child") = Some(child);
        self.environment = read_environment(&self.data.join("connection.env"));
        let repository = &self.environment["PBS_REPOSITORY"];
        let port = repository.rsplit(':').nth(1).and_then(|p| p.parse().ok());
        let port: u16 = port.unwrap_or_else(|| panic!("no port in {repository}; it said {line:?}"));
        let fingerprint = hex::decode(self.environment["PBS_FINGERPRINT"].replace(':', "")).expect("a fingerprint");
        self.peer =
            Peer { addr: ([127, 0, 0, 1], port).into(), fingerprint: fingerprint.try_into().expect("32 bytes") };
    }

    /// Where it listens.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Name of its datastore.
    pub fn store_name(&self) -> &'static str {
        STORE
    }

    /// Directory of its datastore.
    pub fn store(&self) -> &Path {
        &self.store
    }

    /// Its data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What placeholders of the recordings stand for here.
    pub fn secrets(&self) -> Secrets {
        self.secrets.clone()
    }

    /// The header of the token that may do everything with the datastore, `tester@pbs!bench`.
    pub fn authorization(&self) -> String {
        self.secrets.fill("PBSAPIToken tester@pbs!bench:{{TOKEN_SECRET}}")
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.lock().expect("the child").as_ref().expect("it runs").id()
    }

    /// Everything it wrote to stderr.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.data.join("stderr.log")
    }

    /// A run of the same binary as a client of this daemon.
    pub fn client(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringvault"));
        command.envs(&self.environment).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// Whether a file lies in the datastore.
    pub fn has(&self, path: impl AsRef<Path>) -> bool {
        std::fs::symlink_metadata(self.store.join(path)).is_ok()
    }

    /// Removes a chunk's file behind the daemon's back.
    pub fn remove_chunk(&self, digest: &str) {
        let path = self.store.join(super::upload::chunk_path(digest));
        std::fs::remove_file(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        self.expect(&["--allow-missing-chunk", digest]);
    }

    /// Tells the checker, which reads the datastore at the end, what the story damages on purpose.
    pub fn expect(&self, arguments: &[&str]) {
        self.expected.lock().expect("what is expected").extend(arguments.iter().map(|&a| a.to_owned()));
    }

    /// UPIDs of running tasks.
    pub fn running(&self) -> Vec<String> {
        let active = std::fs::read_to_string(self.data.join("tasks/active")).unwrap_or_default();
        active.lines().map(str::to_owned).collect()
    }

    /// Waits until no task runs: all sessions are over and cleaned up.
    pub async fn idle(&self) {
        self.running_at_most(0).await;
    }

    /// Waits until at most `count` tasks run.
    pub async fn running_at_most(&self, count: usize) {
        let started = Instant::now();
        while self.running().len() > count {
            assert!(started.elapsed() < PATIENCE, "tasks do not end: {:?}\n{}", self.running(), self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Ended tasks: UPID and result, oldest first.
    pub fn ended(&self) -> Vec<(String, String)> {
        let archive = std::fs::read_to_string(self.data.join("tasks/archive")).unwrap_or_default();
        let lines = archive.lines().filter_map(|l| {
            let mut parts = l.splitn(3, ' ');
            let upid = parts.next()?.to_owned();
            Some((upid, parts.nth(1)?.to_owned()))
        });
        lines.collect()
    }

    /// The log of a task, without time stamps.
    pub fn task_log(&self, upid: &str) -> Vec<String> {
        let pstart = upid.split(':').nth(3).and_then(|p| u64::from_str_radix(p, 16).ok()).expect("a UPID");
        let path = self.data.join(format!("tasks/{:02X}/{upid}", pstart & 255));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        text.lines().map(|l| l.get(27..).unwrap_or(l).to_owned()).collect()
    }

    /// The log of the task that ended last.
    pub fn last_task_log(&self) -> String {
        let (upid, _) = self.ended().pop().expect("a task has ended");
        self.task_log(&upid).join("\n")
    }

    /// Kills it as a power cut would.
    pub fn kill(&self) {
        if let Some(mut child) = self.child.lock().expect("the child").take() {
            child.kill().expect("kill");
            child.wait().expect("its end");
        }
    }

    /// Asks it to end (SIGTERM).
    pub fn ask_to_end(&self) {
        let child = self.child.lock().expect("the child");
        let pid = rustix::process::Pid::from_child(child.as_ref().expect("it runs"));
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
    }

    /// Asks it to end and waits for that.
    pub fn terminate(&self) -> ExitStatus {
        self.ask_to_end();
        self.wait()
    }

    /// Waits until it has ended.
    pub fn wait(&self) -> ExitStatus {
        let mut child = self.child.lock().expect("the child").take().expect("it runs");
        let started = Instant::now();
        loop {
            if let Some(status) = child.try_wait().expect("its state") {
                return status;
            }
            if started.elapsed() > PATIENCE {
                child.kill().expect("kill");
                panic!("the daemon does not end on SIGTERM: {}", self.log());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What must hold at the end of every story.
    fn examine(&self) {
        let log = self.log();
        for bad in ["panicked at", "a lock is held while the disk works", "RUST_BACKTRACE"] {
            assert!(!log.contains(bad), "the log says {bad:?}:\n{log}");
        }
        if self.setup.is_checked && self.has(".chunks") {
            let expected = self.expected.lock().expect("what is expected");
            check_datastore(&self.store, &expected.iter().map(String::as_str).collect::<Vec<_>>());
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Enough of the log to see what went wrong, and no second panic.
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(40).collect();
            eprintln!("--- the daemon's last words\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"));
            self.kill();
            return;
        }
        if self.child.lock().is_ok_and(|c| c.is_some()) {
            let status = self.terminate();
            assert!(status.success(), "the daemon ended with {status}: {}", self.log());
        }
        self.examine();
    }
}

/// Runs the independent checker over a datastore; panics with what it found.
pub fn check_datastore(store: &Path, more: &[&str]) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/check_datastore.py");
    let out = match Command::new("python3").arg(script).args(more).arg(store).stdin(Stdio::null()).output() {
        Ok(out) => out,
        Err(e) => return println!("skipped: the independent checker: python3: {e}"),
    };
    let said = [out.stdout, out.stderr].concat();
    assert!(out.status.success(), "the independent checker says:\n{}", String::from_utf8_lossy(&said));
}

/// Starts a process; with `without_ring` the kernel answers EPERM to io_uring for it and all it starts.
fn spawn(mut command: Command, without_ring: bool) -> Child {
    if !without_ring {
        return command.spawn().expect("start the daemon");
    }
    // A filter belongs to a thread and is inherited by what that starts: so a thread of its own.
    let work = move || {
        refuse_ring();
        command.spawn().expect("start the daemon")
    };
    std::thread::spawn(work).join().expect("the thread that starts the daemon")
}

fn refuse_ring() {
    use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};
    let calls = [libc::SYS_io_uring_setup, libc::SYS_io_uring_enter, libc::SYS_io_uring_register];
    let rules = calls.into_iter().map(|call| (call, Vec::new())).collect();
    let refuse = SeccompAction::Errno(u32::try_from(libc::EPERM).expect("a small number"));
    let arch = std::env::consts::ARCH.try_into().expect("an architecture that seccomp knows");
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch).expect("a filter");
    let program: BpfProgram = filter.try_into().expect("a program");
    seccompiler::apply_filter(&program).expect("the kernel takes the filter");
}

/// The line that says it is ready; none if it ends first. The rest of its output is read and forgotten.
fn first_line(child: &mut Child) -> Option<String> {
    use std::io::BufRead;
    let mut out = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        while out.read_line(&mut line).is_ok_and(|n| n > 0) {
            if line.contains("listening on https://") {
                let _ = send.send(line.clone());
            }
            line.clear();
        }
    });
    match receive.recv_timeout(PATIENCE) {
        Ok(line) => Some(line),
        Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
        Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
            let _ = child.kill();
            None
        }
    }
}

/// The variables of a file of `NAME='value'` lines.
pub fn read_environment(path: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let pairs = text.lines().filter_map(|l| l.split_once('='));
    pairs.map(|(n, v)| (n.to_owned(), v.trim_matches('\'').to_owned())).collect()
}

/// A daemon started as an operator does it the first time: an empty data directory, no configuration.
#[derive(Debug)]
pub struct FirstStart {
    child: Option<Child>,
    data: PathBuf,
}

impl FirstStart {
    /// Starts `ringvault serve --data-dir DATA --listen 127.0.0.1:0`.
    pub fn new(data: &Path) -> Self {
        Self::under(Command::new(env!("CARGO_BIN_EXE_ringvault")), data)
    }

    /// The same with the daemon started by `command`, to which the daemon's arguments are added.
    pub fn under(mut command: Command, data: &Path) -> Self {
        let parent = data.parent().expect("a folder");
        let log = std::fs::File::create(parent.join("stderr.log")).expect("a log file");
        command.args(["serve", "--listen", "127.0.0.1:0", "--data-dir"]).arg(data);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = spawn(command, Setup::default().without_ring);
        let ready = first_line(&mut child);
        let log = std::fs::read_to_string(parent.join("stderr.log")).unwrap_or_default();
        assert!(ready.is_some(), "the daemon did not start: {log}");
        Self { child: Some(child), data: data.to_owned() }
    }

    /// A run of the same binary as a client, with the environment of `connection.env`.
    pub fn client(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringvault"));
        command.envs(read_environment(&self.data.join("connection.env"))).env("NO_COLOR", "1").stdin(Stdio::null());
        command
    }

    /// One of the lines of `connection.env`.
    pub fn environment(&self, name: &str) -> String {
        read_environment(&self.data.join("connection.env")).remove(name).expect("it is there")
    }

    /// Asks it to read its configuration again (SIGHUP).
    pub fn hang_up(&self) {
        let pid = rustix::process::Pid::from_child(self.child.as_ref().expect("it runs"));
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("a signal");
    }

    /// Ends it and lets the independent checker read its datastore, if it made one.
    pub fn end(mut self) {
        let mut child = self.child.take().expect("it runs");
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a signal");
        assert!(child.wait().expect("its end").success());
        let main = self.data.join("main");
        if main.exists() {
            check_datastore(&main, &[]);
        }
    }
}

impl Drop for FirstStart {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
