//! The I/O priority of a thread: the one system call beside the ring's for which no wrapper has a safe function.

use std::io;

/// `IOPRIO_WHO_PROCESS`: a thread, in spite of its name.
const WHO_THREAD: libc::c_int = 1;

/// `IOPRIO_CLASS_IDLE`, with the level 0, in the upper bits where a class stands.
pub(in crate::engine) const IDLE: libc::c_int = 3 << 13;

/// The I/O priority of this thread, as the kernel keeps it: 0 if nobody has set one.
pub(in crate::engine) fn get() -> io::Result<libc::c_int> {
    of_thread(0)
}

/// The same of a thread of this process by its number; 0 is the one that asks.
pub(in crate::engine) fn of_thread(number: libc::c_int) -> io::Result<libc::c_int> {
    // SAFETY: two numbers go in and a number comes out; no memory of ours is involved.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_get, WHO_THREAD, number) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(libc::c_int::try_from(answer).unwrap_or(0)) }
}

/// Sets the I/O priority of this thread, and of the ring's workers that it has. An ordinary user may do so for `IDLE` and back.
pub(in crate::engine) fn set(priority: libc::c_int) -> io::Result<()> {
    // SAFETY: three numbers go in and a number comes out; no memory of ours is involved.
    let answer = unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_THREAD, 0, priority) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
