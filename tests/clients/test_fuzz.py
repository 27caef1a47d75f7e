"""schemathesis over our own description, for a bounded time: whatever is sent, no answer is a 5xx, and every answer is as the description says."""

import json
import os
import pathlib
import subprocess
import sys
import unittest

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
            with_known_values(described, daemon.upids())
            schema = daemon.folder / "openapi.json"
            schema.write_text(json.dumps(described))
            command = [
                str(pathlib.Path(sys.executable).parent / "schemathesis"), "run", str(schema),
                "--origin", f"https://127.0.0.1:{daemon.port}",
                "--tls-verify", daemon.certificate,
                "--header", f"Authorization: PBSAPIToken={daemon.token_id}:{daemon.token}",
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
            # It went through the calls, rather than nowhere.
            self.assertIn("Test cases:", report)
            self.assertEqual(daemon.child.poll(), None, "the daemon ended")
            print("\n".join(report.splitlines()[-20:]))


if __name__ == "__main__":
    unittest.main()
