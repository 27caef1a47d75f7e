//! Why the kernel refused a ring, in words that tell the operator what to change. The rules are pure; [`Facts::gather`]
//! reads `/proc`.

use std::fmt;
use std::io;

use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// What was being done when the kernel said no.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// `io_uring_setup`.
    Setup,
    /// `io_uring_register(IORING_REGISTER_PROBE)`.
    Probe,
    /// The probe says that this operation is not there.
    Operation(&'static str),
    /// `io_uring_register(IORING_REGISTER_IOWQ_MAX_WORKERS)`: without it eight checks are in flight on a small machine,
    /// and a ring gains nothing.
    Workers,
    /// The first `io_uring_enter`.
    Enter,
}

/// What is known about the refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) step: Step,
    /// The kernel's number, if it gave one.
    pub(super) errno: Option<Errno>,
    /// `kernel.io_uring_disabled`: 0 for all, 1 for a group and administrators, 2 for nobody; `None` before Linux 6.6.
    pub(super) disabled: Option<u32>,
    /// Whether a seccomp filter watches this thread.
    pub(super) filtered: bool,
    /// `RLIMIT_MEMLOCK`; `None` for no limit.
    pub(super) memlock_bytes: Option<u64>,
}

/// A ring that was not had. Shown as what was tried, what the kernel said, and the likely cause.
#[derive(Debug)]
pub(super) struct Refusal {
    facts: Facts,
}

impl Refusal {
    /// Asks the machine about the rest at once, while it is as it was.
    pub(super) fn new(step: Step, error: Option<&io::Error>) -> Self {
        Self { facts: Facts::gather(step, error) }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.facts.step {
            Step::Setup => f.write_str("io_uring_setup")?,
            Step::Probe => f.write_str("io_uring probe")?,
            Step::Operation(name) => write!(f, "io_uring has no {name}")?,
            Step::Workers => f.write_str("setting the number of io_uring workers")?,
            Step::Enter => f.write_str("io_uring_enter")?,
        }
        if let Some(errno) = self.facts.errno {
            write!(f, ": {}", io::Error::from(errno))?;
        }
        write!(f, "; {}", likely_cause(&self.facts))
    }
}

impl std::error::Error for Refusal {}

impl Facts {
    fn gather(step: Step, error: Option<&io::Error>) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).ok();
        // The thread's own status: a filter may be on a thread alone.
        let status = read("/proc/thread-self/status").unwrap_or_default();
        Self {
            step,
            errno: error.and_then(Errno::from_io_error),
            disabled: read("/proc/sys/kernel/io_uring_disabled").and_then(|text| text.trim().parse().ok()),
            filtered: has_seccomp_filter(&status),
            memlock_bytes: getrlimit(Resource::Memlock).current,
        }
    }
}

/// Mode 2 in the line `Seccomp:` of a thread's status (proc(5)).
fn has_seccomp_filter(status: &str) -> bool {
    status.lines().any(|line| line.strip_prefix("Seccomp:").is_some_and(|mode| mode.trim() == "2"))
}

/// What most probably stands in the way, and what to do about it.
pub(super) fn likely_cause(facts: &Facts) -> String {
    const FILTER: &str = "a seccomp filter (of a container or a service manager) forbids io_uring: allow io_uring_setup, \
                          io_uring_enter and io_uring_register in its profile";
    match (facts.step, facts.errno) {
        (_, Some(Errno::PERM | Errno::ACCESS)) => match facts.disabled {
            Some(2) => {
                "io_uring is switched off for everybody: sysctl kernel.io_uring_disabled is 2, set it to 0".into()
            }
            Some(1) => "sysctl kernel.io_uring_disabled is 1: set it to 0, or put the daemon's group into \
                        kernel.io_uring_group"
                .into(),
            _ if facts.filtered => FILTER.into(),
            _ => "a security module (SELinux, AppArmor) or a sandbox forbids io_uring".into(),
        },
        (_, Some(Errno::NOSYS)) if facts.filtered => {
            format!("{FILTER}; or the kernel was built without io_uring")
        }
        (_, Some(Errno::NOSYS)) => "the kernel is older than Linux 5.1 or was built without CONFIG_IO_URING".into(),
        (_, Some(Errno::NOMEM)) => match facts.memlock_bytes {
            Some(limit) => format!(
                "no memory for the ring: raise RLIMIT_MEMLOCK (it is {} KiB; kernels before 5.12 count the ring against it) or \
                 the memory limit of the service",
                limit / 1024
            ),
            None => "no memory for the ring: raise the memory limit of the service or of the machine".into(),
        },
        (_, Some(Errno::MFILE)) => "too many open files in this process: raise RLIMIT_NOFILE".into(),
        (_, Some(Errno::NFILE)) => "too many open files on this machine: raise sysctl fs.file-max".into(),
        (Step::Workers, _) => {
            "the kernel is older than Linux 5.15, where a ring is no faster than a few threads".into()
        }
        (Step::Setup | Step::Probe | Step::Operation(_), _) => {
            "the kernel is too old: Linux 5.15 or newer is needed".into()
        }
        (Step::Enter, _) => "the kernel took the ring and then refused its work".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FACTS: Facts =
        Facts { step: Step::Setup, errno: None, disabled: Some(0), filtered: false, memlock_bytes: Some(65536) };

    #[test]
    fn each_refusal_names_its_likely_cause() {
        let table = [
            (Facts { errno: Some(Errno::PERM), disabled: Some(2), ..FACTS }, "kernel.io_uring_disabled is 2"),
            (Facts { errno: Some(Errno::PERM), disabled: Some(1), ..FACTS }, "kernel.io_uring_group"),
            (Facts { errno: Some(Errno::PERM), filtered: true, ..FACTS }, "seccomp"),
            (Facts { errno: Some(Errno::PERM), disabled: None, filtered: true, ..FACTS }, "seccomp"),
            (Facts { errno: Some(Errno::PERM), disabled: Some(2), filtered: true, ..FACTS }, "io_uring_disabled"),
            (Facts { errno: Some(Errno::PERM), ..FACTS }, "security module"),
            (Facts { errno: Some(Errno::ACCESS), ..FACTS }, "security module"),
            (Facts { errno: Some(Errno::NOSYS), ..FACTS }, "CONFIG_IO_URING"),
            (Facts { errno: Some(Errno::NOSYS), filtered: true, ..FACTS }, "seccomp"),
            (Facts { errno: Some(Errno::NOMEM), ..FACTS }, "RLIMIT_MEMLOCK (it is 64 KiB"),
            (Facts { errno: Some(Errno::NOMEM), memlock_bytes: None, ..FACTS }, "memory limit"),
            (Facts { errno: Some(Errno::MFILE), ..FACTS }, "RLIMIT_NOFILE"),
            (Facts { errno: Some(Errno::NFILE), ..FACTS }, "fs.file-max"),
            (Facts { errno: Some(Errno::INVAL), ..FACTS }, "5.15"),
            (Facts { step: Step::Workers, errno: Some(Errno::INVAL), ..FACTS }, "5.15"),
            (Facts { step: Step::Operation("statx"), ..FACTS }, "too old"),
            (Facts { step: Step::Enter, errno: Some(Errno::PERM), filtered: true, ..FACTS }, "seccomp"),
            (Facts { step: Step::Enter, errno: Some(Errno::BADF), ..FACTS }, "refused its work"),
        ];
        for (facts, word) in table {
            let cause = likely_cause(&facts);
            assert!(cause.contains(word), "{facts:?}: {cause}");
        }
    }

    #[test]
    fn a_refusal_reads_as_one_sentence() {
        let refusal = Refusal { facts: Facts { errno: Some(Errno::MFILE), ..FACTS } };
        assert_eq!(
            refusal.to_string(),
            "io_uring_setup: Too many open files (os error 24); too many open files in this process: raise RLIMIT_NOFILE"
        );
    }

    #[test]
    fn the_filter_is_read_from_the_status() {
        assert!(has_seccomp_filter("Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!has_seccomp_filter("Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t2\n"));
        assert!(!has_seccomp_filter(""));
    }
}
