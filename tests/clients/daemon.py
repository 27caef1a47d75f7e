"""A daemon of a test's own: a fresh data directory, a free loopback port, ended with the test."""

import json
import os
import pathlib
import signal
import subprocess
import tempfile
import time
import unittest

import requests

ROOT = pathlib.Path(__file__).resolve().parents[2]

# No start takes this long on a loaded machine: 65,536 directories are made.
START_SECONDS = 120

CONFIG = """
[server]
listen = "127.0.0.1:0"
unauthenticated-delay-ms = 0
denied-delay-ms = 0
shutdown-timeout-secs = 5
[[datastore]]
name = "main"
path = "main"
sync-level = "none"
"""


def binary():
    """The program under test: RINGVAULT_BINARY, else the release build, else the debug build."""
    named = os.environ.get("RINGVAULT_BINARY")
    if named:
        return named
    for build in ("release", "debug"):
        path = ROOT / "target" / build / "ringvault"
        if path.exists():
            return str(path)
    raise FileNotFoundError("no ringvault: build it, or set RINGVAULT_BINARY")


def temp_root():
    """Memory where there is enough: a datastore has 65,536 directories."""
    try:
        free = os.statvfs("/dev/shm")
    except OSError:
        return None
    return "/dev/shm" if free.f_bavail * free.f_frsize > 1 << 30 else None


class Daemon:
    """Started by entering it as a context."""

    def __init__(self):
        self._folder = tempfile.TemporaryDirectory(prefix="ringvault-clients-", dir=temp_root())
        self.folder = pathlib.Path(self._folder.name)
        self.data = self.folder / "data"
        self.data.mkdir(mode=0o700)

    def __enter__(self):
        config = self.data / "ringvault.toml"
        config.write_text(CONFIG)
        environment = {**os.environ, "RUST_LOG": "info", "NO_COLOR": "1"}
        self._log = open(self.folder / "stderr.log", "ab")
        self.child = subprocess.Popen(
            [binary(), "serve", "--data-dir", str(self.data)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=environment,
        )
        line = self.child.stdout.readline().decode()
        if "listening on https://" not in line:
            self.child.wait()
            raise RuntimeError(f"the daemon did not start: {self.log()}")
        self.environment = dict(
            text.split("=", 1) for text in (self.data / "connection.env").read_text().replace("'", "").splitlines()
        )
        self.port = int(self.environment["PBS_REPOSITORY"].split(":")[-2])
        self.token_id, self.token = "admin@pbs!default", self.environment["PBS_PASSWORD"]
        self.certificate = str(self.data / "tls" / "cert.pem")
        self.url = f"https://127.0.0.1:{self.port}/api2/json"
        return self

    def __exit__(self, failure, *_):
        self.child.send_signal(signal.SIGTERM)
        try:
            ended = self.child.wait(60)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait()
            ended = "no end on SIGTERM"
        self.child.stdout.close()
        self._log.close()
        log = self.log()
        self._folder.cleanup()
        if failure:
            print(f"--- the daemon's last words\n{log[-4000:]}")
            return
        for bad in ("panicked at", "a lock is held while the disk works"):
            if bad in log:
                raise AssertionError(f"the daemon's log says {bad!r}:\n{log[-8000:]}")
        if ended != 0:
            raise AssertionError(f"the daemon ended with {ended}:\n{log[-4000:]}")

    def log(self):
        """What it wrote to stderr."""
        return (self.folder / "stderr.log").read_text(errors="replace")

    def client(self, *arguments, input=None):
        """Runs our own client as a user would; its standard output."""
        environment = {**os.environ, **self.environment, "NO_COLOR": "1"}
        done = subprocess.run([binary(), *arguments], input=input, capture_output=True, env=environment)
        if done.returncode != 0:
            raise RuntimeError(f"ringvault {arguments}: {done.stderr.decode()}")
        return done.stdout

    def add_password(self, user, password, role, path="/"):
        """Makes a user with a password and a role, and waits until the daemon knows it."""
        self.client(
            "user", "create", user, "--password-stdin", "--role", role, "--path", path, "--data-dir", str(self.data),
            input=password.encode(),
        )
        deadline = time.monotonic() + 20
        while not self.may_log_in(user, password):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{user} may not log in: {self.log()}")
            time.sleep(0.1)

    def may_log_in(self, user, password):
        """Whether a password is taken."""
        login = {"username": user, "password": password}
        return requests.post(f"{self.url}/access/ticket", data=login, verify=self.certificate, timeout=30).status_code == 200

    def upids(self):
        """Names of all tasks that have ended."""
        archive = (self.data / "tasks" / "archive").read_text()
        return [line.split(" ")[0] for line in archive.splitlines()]

    def back_up(self, group, times):
        """Makes snapshots of a small file at these times (RFC 3339)."""
        source = self.folder / "notes.conf"
        kind, name = group.split("/")
        for number, time in enumerate(times):
            source.write_text(f"note {number}\n" * 1000)
            self.client(
                "backup", "--backup-type", kind, "--backup-id", name, "--backup-time", time,
                f"notes.conf:{source}", f"data.img:{source}",
            )


def openapi():
    """Our description of our API."""
    made = subprocess.run([binary(), "api", "--format", "openapi"], capture_output=True, check=True)
    return json.loads(made.stdout)


def calls():
    """Our calls as (method, path below the format)."""
    methods = ("get", "put", "post", "delete")
    paths = openapi()["paths"].items()
    return {(m.upper(), path.removeprefix("/api2/json")) for path, item in paths for m in item if m in methods}


def needs(*wanted):
    """Skips a test whose calls the description does not have, and names them."""
    missing = [f"{method} {path}" for method, path in wanted if (method, path) not in calls()]
    return unittest.skipIf(missing, f"not among our calls: {', '.join(missing)}")
