"""Logins of the realm pam, by way of pam_wrapper; `tests/pam/run` starts this."""

import concurrent.futures
import http.client
import json
import os
import pathlib
import signal
import ssl
import subprocess
import tempfile
import time
import unittest
import urllib.parse

BINARY = os.environ["RINGVAULT_BINARY"]
WRAPPER = os.environ["PAM_WRAPPER_LIBRARY"]
MATRIX = os.environ["PAM_MATRIX_MODULE"]
EXEC = os.environ["PAM_EXEC_MODULE"]

# 65,536 directories are made at the first start.
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


class Pam(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        memory = "/dev/shm" if os.path.isdir("/dev/shm") else None
        cls.folder = tempfile.TemporaryDirectory(prefix="ringvault-pam-", dir=memory)
        folder = pathlib.Path(cls.folder.name)
        cls.data = folder / "data"
        cls.data.mkdir(mode=0o700)
        (cls.data / "ringvault.toml").write_text(CONFIG)
        cls.services = folder / "services"
        cls.services.mkdir()
        # Who may use which service stands behind the password.
        (folder / "passwords").write_text("alice:right:ringvault\nlocked:right:another\nnobody:right:ringvault\n")
        # A module that hangs while the file `hang` is there; the wrapper reads the services once, at the start.
        cls.hang = folder / "hang"
        script = folder / "maybe-hang"
        script.write_text(f"#!/bin/sh\n[ ! -e {cls.hang} ] || sleep 4\n")
        script.chmod(0o755)
        cls.service(
            f"auth optional {EXEC} quiet {script}\n"
            f"auth required {MATRIX} passdb={folder}/passwords\n"
            f"account required {MATRIX} passdb={folder}/passwords\n"
        )
        environment = {
            **os.environ,
            "LD_PRELOAD": WRAPPER,
            "PAM_WRAPPER": "1",
            "PAM_WRAPPER_SERVICE_DIR": str(cls.services),
            "RUST_LOG": "info",
            "NO_COLOR": "1",
        }
        cls.log = folder / "stderr.log"
        with cls.log.open("ab") as log:
            cls.child = subprocess.Popen(
                [BINARY, "serve", "--data-dir", str(cls.data)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                env=environment,
            )
        line = cls.child.stdout.readline().decode()
        assert "listening on https://" in line, cls.log.read_text()
        variables = (cls.data / "connection.env").read_text().replace("'", "").splitlines()
        variables = dict(text.split("=", 1) for text in variables)
        cls.port = int(variables["PBS_REPOSITORY"].split(":")[-2])
        cls.token = f"PBSAPIToken=admin@pbs!default:{variables['PBS_PASSWORD']}"
        cls.tls = ssl.create_default_context(cafile=str(cls.data / "tls" / "cert.pem"))
        for user in ("alice@pam", "locked@pam", "stranger@pam"):
            cls.command("user", "create", user)
        cls.command("user", "create", "own@pbs", "--password-stdin", text="a-long-password\n")
        for user in ("alice@pam", "own@pbs"):
            cls.command("acl", "create", "/", user, "Admin")

    @classmethod
    def tearDownClass(cls):
        cls.child.send_signal(signal.SIGTERM)
        try:
            cls.child.wait(90)
        except subprocess.TimeoutExpired:
            cls.child.kill()
            cls.child.wait()
        cls.child.stdout.close()
        cls.folder.cleanup()

    @classmethod
    def service(cls, text):
        (cls.services / "ringvault").write_text(text)

    @classmethod
    def command(cls, *arguments, text=""):
        command = [BINARY, *arguments, "--data-dir", str(cls.data)]
        done = subprocess.run(command, capture_output=True, text=True, input=text)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"

    def call(self, method, path, body=None, headers=None, source="127.0.0.1"):
        """Status and parsed answer of one call, from an address of this host."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=100, context=self.tls, source_address=(source, 0))
        try:
            connection.request(method, f"/api2/json/{path}", body, headers or {})
            answer = connection.getresponse()
            text = answer.read()
            return answer.status, json.loads(text) if answer.status == 200 else text.decode()
        finally:
            connection.close()

    def login(self, user, password, source="127.0.0.1"):
        """The status, and the ticket if there is one."""
        body = urllib.parse.urlencode({"username": user, "password": password})
        form = {"Content-Type": "application/x-www-form-urlencoded"}
        status, answer = self.call("POST", "access/ticket", body, form, source)
        return status, answer["data"]["ticket"] if status == 200 else None

    def test_a_right_password_gives_a_ticket_that_works(self):
        status, ticket = self.login("alice@pam", "right")
        self.assertEqual(status, 200)
        cookie = {"Cookie": f"PBSAuthCookie={urllib.parse.quote(ticket)}"}
        status, answer = self.call("GET", "admin/datastore", headers=cookie)
        self.assertEqual((status, [row["store"] for row in answer["data"]]), (200, ["main"]))

    def test_what_is_wrong_is_refused(self):
        for user, password, why in [
            ("alice@pam", "wrong", "password"),
            ("stranger@pam", "right", "PAM does not know the user"),
            ("nobody@pam", "right", "we do not know the user"),
            ("locked@pam", "right", "the account may not use this service"),
        ]:
            with self.subTest(why):
                self.assertEqual(self.login(user, password)[0], 401)
        log = self.log.read_text()
        self.assertNotIn("a-long-password", log)
        for user in ("alice", "stranger", "nobody", "locked"):
            self.assertIn(f"authentication failure; rhost=127.0.0.1 user={user}@pam ", log)

    def test_a_pam_that_hangs_keeps_nobody_else_waiting(self):
        self.hang.touch()
        try:
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                # More than there are places, each from an address of its own: one address has one turn at a time.
                hanging = [pool.submit(self.login, "alice@pam", f"wrong-{n}", f"127.0.0.{10 + n}") for n in range(6)]
                time.sleep(1)
                self.assertFalse(any(one.done() for one in hanging), "it hangs")
                # The other realm and tokens are answered meanwhile.
                self.assertEqual(self.login("own@pbs", "a-long-password", "127.0.0.99")[0], 200)
                self.assertEqual(self.call("GET", "admin/datastore", headers={"Authorization": self.token})[0], 200)
                self.assertFalse(any(one.done() for one in hanging), "it still hangs")
                for one in hanging:
                    self.assertEqual(one.result()[0], 401)
        finally:
            self.hang.unlink()
        self.assertEqual(self.login("own@pbs", "a-long-password")[0], 200)
        self.assertEqual(self.login("alice@pam", "right")[0], 200)


if __name__ == "__main__":
    unittest.main()
