"""schemathesis over our own description, for a bounded time: whatever is sent, no answer is a 5xx, and every answer is as the description says."""

import json
import os
import pathlib
import re
import subprocess
import sys
import unittest

import requests

from daemon import Daemon, openapi

SECONDS = int(os.environ.get("RINGVAULT_FUZZ_SECONDS", "60"))

# Operations that make no sense here: method and path.
LEFT_OUT = {
    # Answers 101 and becomes another protocol, which the fuzzer does not speak; other tests do, with malformed requests too.
    "GET": ["/backup", "/reader"],
    # Makes directories anywhere on this machine.
    "POST": ["/config/datastore"],
    # Names a directory for locks, anywhere too.
    "PUT": ["/config/datastore/{store}"],
    # Would end the test early: everything else is about the datastore.
    "DELETE": ["/config/datastore/{store}"],
}

CHECKS = ["not_a_server_error", "content_type_conformance", "response_schema_conformance"]


# Values that exist, and one that does not: with random ones alone hardly a request would come further than "no such datastore".
KNOWN = {
    "store": ["main", "nowhere"],
    "backup-type": ["host", "vm"],
    "backup-id": ["web", "nobody"],
    "backup-time": [1717243200, 1717329600, 1],
    "file-name": ["notes.conf.blob", "data.img.fidx", "index.json.blob", "none.blob"],
}


def left_out(schema):
    """Removes what is left out; fails if the description does not know it."""
    for method, paths in LEFT_OUT.items():
        for path in paths:
            del schema["paths"]["/api2/json" + path][method.lower()]


def without_logins(schema):
    """Removes what the description says about logging in: the fuzzer would make up cookies, which come before the token."""
    del schema["components"]["securitySchemes"]
    del schema["security"]
    for item in schema["paths"].values():
        for operation in item.values():
            operation.pop("security", None)


def fuzzers_token(daemon):
    """A token that may do everything with backups and look at the rest, but can neither make directories on this machine nor lock itself out:
    the fuzzer also sends methods that the description does not have."""
    session = requests.Session()
    session.headers["Authorization"] = f"PBSAPIToken={daemon.token_id}:{daemon.token}"

    def call(method, path, params):
        answer = session.request(method, daemon.url + path, json=params, verify=daemon.certificate, timeout=30)
        answer.raise_for_status()
        return answer.json()["data"]

    call("POST", "/access/users", {"userid": "fuzz@pbs"})
    secret = call("POST", "/access/users/fuzz@pbs/token/fuzz", {})["value"]
    for who in ("fuzz@pbs", "fuzz@pbs!fuzz"):
        for path, role in (("/", "Audit"), ("/datastore", "DatastoreAdmin")):
            call("PUT", "/access/acl", {"path": path, "role": role, "auth-id": who})
    return f"PBSAPIToken=fuzz@pbs!fuzz:{secret}"


def answers(daemon):
    """REST requests by status class, as the daemon counted them."""
    page = requests.get(f"https://127.0.0.1:{daemon.port}/metrics", verify=daemon.certificate, timeout=30).text
    found = re.findall(r'^ringvault_http_requests_total\{interface="rest",code="(\dxx)"\} (\d+)$', page, re.MULTILINE)
    return {code: int(count) for code, count in found}


def with_known_values(schema, upids):
    """Puts `KNOWN` values into parameters and bodies."""
    known = {**KNOWN, "upid": upids}
    for item in schema["paths"].values():
        for operation in item.values():
            for parameter in operation.get("parameters", []):
                if parameter["name"] in known:
                    parameter["schema"] = {"type": parameter["schema"]["type"], "enum": known[parameter["name"]]}
            for content in operation.get("requestBody", {}).get("content", {}).values():
                properties = content["schema"].get("properties", {})
                for name in properties.keys() & known.keys():
                    properties[name] = {"type": properties[name]["type"], "enum": known[name]}


class Fuzz(unittest.TestCase):
    def test_no_server_error_and_no_violation_of_the_description(self):
        with Daemon() as daemon:
            daemon.back_up("host/web", ["2024-06-01T12:00:00Z", "2024-06-02T12:00:00Z"])
            described = openapi()
            left_out(described)
            without_logins(described)
            token = fuzzers_token(daemon)
            with_known_values(described, daemon.upids())
            schema = daemon.folder / "openapi.json"
            schema.write_text(json.dumps(described))
            command = [
                str(pathlib.Path(sys.executable).parent / "schemathesis"), "run", str(schema),
                "--origin", f"https://127.0.0.1:{daemon.port}",
                "--tls-verify", daemon.certificate,
                "--header", f"Authorization: {token}",
                "--phases", "examples,coverage,fuzzing",
                "--checks", ",".join(CHECKS),
                "--seed", "1",
                "--max-time", str(SECONDS),
                "--request-timeout", "30",
                "--continue-on-failure",
                "--no-color",
                "--generation-database", "none",
                "--suppress-health-check", "all",
                "--warnings", "off",
            ]
            done = subprocess.run(command, cwd=daemon.folder, capture_output=True, text=True, timeout=SECONDS * 3 + 120)
            report = done.stdout + done.stderr
            self.assertEqual(done.returncode, 0, report[-20_000:])
            # It went through the calls, rather than nowhere: a login that fails, or a datastore that is gone, would leave next to none.
            counted = answers(daemon)
            self.assertGreater(counted.get("2xx", 0), sum(counted.values()) // 10, counted)
            print(counted)
            self.assertEqual(daemon.child.poll(), None, "the daemon ended")
            print("\n".join(report.splitlines()[-20:]))


if __name__ == "__main__":
    unittest.main()
