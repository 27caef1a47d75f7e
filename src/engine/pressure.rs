//! How long tasks of this machine wait for I/O, as the kernel tells it.

use std::io;

/// The text of `/proc/pressure/io`. Comes out of the kernel's memory, some microseconds; `NotFound`, or another error, where the kernel does not
/// keep it (`psi=0`, before 4.20, some containers).
pub fn io_pressure() -> io::Result<String> {
    std::fs::read_to_string("/proc/pressure/io")
}
