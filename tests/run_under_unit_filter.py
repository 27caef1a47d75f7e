#!/usr/bin/env python3
"""Runs a command under the system call filter of a systemd unit, without systemd running.

    run_under_unit_filter.py systemd/ringvault.service target/release/ringvault serve ...
    run_under_unit_filter.py --list systemd/ringvault.service          # the calls that the unit allows

The lines SystemCallFilter= and SystemCallErrorNumber= are read as systemd.exec(5) says; what a group such as
@system-service contains, `systemd-analyze syscall-filter` tells. Exit code 2 if that or libseccomp is not there.
"""

import ctypes
import ctypes.util
import errno
import os
import subprocess
import sys

SCMP_ACT_ALLOW = 0x7FFF0000
SCMP_ACT_ERRNO = 0x00050000
PR_SET_NO_NEW_PRIVS = 38


def give_up(why):
    print(f"{os.path.basename(sys.argv[0])}: {why}", file=sys.stderr)
    sys.exit(2)


def groups():
    """Every group of system calls that systemd knows, with the groups inside it still as they are."""
    try:
        text = subprocess.run(
            ["systemd-analyze", "--no-pager", "syscall-filter"], check=True, capture_output=True, text=True
        ).stdout
    except (OSError, subprocess.CalledProcessError) as error:
        give_up(f"systemd-analyze does not tell the groups: {error}")
    found, members = {}, set()
    for line in text.splitlines():
        if line.startswith("@"):
            members = found.setdefault(line.strip(), set())
        elif line.startswith("    ") and not line.strip().startswith("#"):
            members.add(line.strip())
        elif line.startswith("#"):
            members = set()
    return found


def expand(names, known):
    calls = set()
    for name in names:
        calls |= expand(known.get(name, ()), known) if name.startswith("@") else {name}
    return calls


def read_unit(path):
    """Allowed calls, and the error that the others get."""
    known, allowed, error = groups(), None, errno.EPERM
    with open(path, encoding="utf-8") as unit:
        for line in unit:
            key, _, value = line.strip().partition("=")
            if key == "SystemCallErrorNumber":
                error = getattr(errno, value)
            elif key == "SystemCallFilter" and allowed is None:
                if value.startswith("~"):
                    give_up("the first SystemCallFilter= must say what is allowed")
                allowed = expand(["@default", *value.split()], known)
            elif key == "SystemCallFilter" and value.startswith("~"):
                allowed -= expand(value[1:].split(), known)
            elif key == "SystemCallFilter":
                allowed |= expand(value.split(), known)
    if not allowed:
        give_up(f"{path} has no SystemCallFilter=")
    # What systemd itself needs to get as far as the command.
    return allowed | {"execve"}, error


def install(allowed, error):
    name = ctypes.util.find_library("seccomp")
    if name is None:
        give_up("libseccomp is not here")
    lib = ctypes.CDLL(name, use_errno=True)
    lib.seccomp_init.restype = ctypes.c_void_p
    lib.seccomp_init.argtypes = [ctypes.c_uint32]
    lib.seccomp_rule_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint]
    lib.seccomp_load.argtypes = [ctypes.c_void_p]
    context = lib.seccomp_init(SCMP_ACT_ERRNO | error)
    for call in sorted(allowed):
        number = lib.seccomp_syscall_resolve_name(call.encode())
        # Negative: not a call of this machine.
        if number >= 0 and (code := lib.seccomp_rule_add(context, SCMP_ACT_ALLOW, number, 0)) != 0:
            give_up(f"no rule for {call}: {os.strerror(-code)}")
    if ctypes.CDLL(None).prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or lib.seccomp_load(context) != 0:
        give_up("the kernel does not take the filter")


def main():
    match sys.argv[1:]:
        case ["--list", unit]:
            print("\n".join(sorted(read_unit(unit)[0])))
        case [unit, command, *arguments] if not unit.startswith("-"):
            install(*read_unit(unit))
            os.execvp(command, [command, *arguments])
        case _:
            give_up("UNIT COMMAND [ARGUMENT ...] or --list UNIT expected")


if __name__ == "__main__":
    main()
