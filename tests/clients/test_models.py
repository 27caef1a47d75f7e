"""The generated client of the original's API: every call that it and our description both know is made, and every answer parses in its models.

Nothing is chosen by hand but the values: a call that is neither made nor left out with a reason fails the test.
"""

import enum
import inspect
import json
import re
import time
import typing
import unittest
from unittest import mock

import clientapi_pbs.api
from clientapi_pbs import ApiClient, Configuration

from daemon import Daemon, calls, needs

TIMES = [f"2024-06-{day:02}T12:00:00Z" for day in range(1, 4)]
FIRST = 1717243200
PASSWORD = "correct horse"

# Calls whose answer is no JSON, or that need a connection of their own kind; other tests make them.
LEFT_OUT = {
    ("GET", "/admin/datastore/{store}/download"): "answers a file",
    ("GET", "/admin/datastore/{store}/download-decoded"): "answers a file",
    ("POST", "/admin/datastore/{store}/upload-backup-log"): "takes a file as its body, which the generated client cannot send",
    ("GET", "/backup"): "becomes a backup session",
    ("GET", "/reader"): "becomes a reader session",
}


def files_by_name(rows):
    """Snapshots with their files as names."""
    return [{**row, "files": [file["filename"] for file in row["files"]]} for row in rows]


# Where the models contradict what the original really answers, or ask for what came after the version that we are: what is done to `data` before it is parsed.
ADAPTED = {
    # Recorded: objects with name, size and mode. The models have strings.
    ("GET", "/admin/datastore/{store}/snapshots"): files_by_name,
    # Of version 4.1.
    ("GET", "/admin/datastore/{store}/status"): lambda status: {"backend-type": "filesystem", **status},
    # Of a later version.
    ("GET", "/nodes/{node}/status"): lambda status: {**status, "boot-info": {"secureboot": False, **status["boot-info"]}},
    # Of a version that can make a token's secret anew.
    ("PUT", "/access/users/{userid}/token/{token-name}"): lambda answer: answer or {},
    # Of version 4.1.
    ("GET", "/admin/datastore"): lambda rows: [{"backend-type": "filesystem", "mount-status": "nonremovable", **row} for row in rows],
    ("GET", "/status/datastore-usage"): lambda rows: [{"backend-type": "filesystem", "mount-status": "nonremovable", **row} for row in rows],
}


def match_posix(pattern, *arguments, real=re.match):
    """`re.match`, for patterns with the class of control characters, which Python reads as other characters."""
    if isinstance(pattern, str):
        control = r"\x00-\x1f\x7f"
        pattern = pattern.replace("[[:^cntrl:]]", f"[^{control}]").replace("[:cntrl:]", control)
    return real(pattern, *arguments)


# What required parameters of reading calls are. Calls that change something say theirs in `SCRIPT`.
VALUES = {
    "store": "main",
    "name": "main",
    "backup_type": "host",
    "backup_id": "web",
    "backup_time": FIRST,
    "node": "localhost",
    "userid": "operator@pbs",
    "token_name": "script",
    "cf": "MAX",
    "timeframe": "hour",
}

GROUP = {"backup-type": "host", "backup-id": "web"}
ONE = {**GROUP, "backup-time": FIRST}
VM = {"backup-type": "vm", "backup-id": "100"}
PATH_STORE = {"store": "main"}
JOB = {"id": "nightly"}
USER = {"userid": "reader@pbs"}
TOKEN = {"userid": "reader@pbs", "token-name": "script"}

# The generated client sends defaults of parameters that came later, unless it is told not to.
LATER = {"read-threads": None, "verify-threads": None}

# Calls that change something, in this order: method, path, parameters as the wire has them. What is made is removed again further down.
SCRIPT = [
    ("POST", "/access/ticket", {"username": "operator@pbs", "password": PASSWORD}),
    ("POST", "/access/users", {"userid": "reader@pbs", "password": "another horse", "comment": "may look"}),
    ("PUT", "/access/users/{userid}", {**USER, "comment": "may look around", "expire": 0}),
    ("PUT", "/access/password", {"userid": "reader@pbs", "password": "a third horse"}),
    ("POST", "/access/users/{userid}/token/{token-name}", {**TOKEN, "comment": "for a script"}),
    ("PUT", "/access/users/{userid}/token/{token-name}", {**TOKEN, "enable": False}),
    ("PUT", "/access/acl", {"path": "/datastore/main", "role": "DatastoreAudit", "auth-id": "reader@pbs"}),
    ("POST", "/admin/datastore/{store}/namespace", {**PATH_STORE, "name": "prod"}),
    ("PUT", "/admin/datastore/{store}/notes", {**PATH_STORE, **ONE, "notes": "first line\nsecond"}),
    ("PUT", "/admin/datastore/{store}/group-notes", {**PATH_STORE, **GROUP, "notes": "of the group"}),
    ("PUT", "/admin/datastore/{store}/protected", {**PATH_STORE, **ONE, "protected": True}),
    ("POST", "/admin/datastore/{store}/prune", {**PATH_STORE, **GROUP, "keep-last": 1, "dry-run": True}),
    ("POST", "/config/prune", {**JOB, "store": "main", "schedule": "daily", "keep-last": 2}),
    ("PUT", "/config/prune/{id}", {**JOB, "comment": "every night"}),
    ("POST", "/config/verify", {**JOB, "store": "main", "schedule": "weekly", **LATER}),
    ("PUT", "/config/verify/{id}", {**JOB, "outdated-after": 30, **LATER}),
    ("POST", "/admin/datastore/{store}/verify", {**PATH_STORE, **LATER}),
    ("POST", "/admin/datastore/{store}/gc", {**PATH_STORE}),
    ("POST", "/admin/datastore/{store}/prune-datastore", {**PATH_STORE, "keep-last": 3, "dry-run": True}),
    ("POST", "/admin/prune/{id}/run", {**JOB}),
    ("POST", "/admin/verify/{id}/run", {**JOB}),
    ("PUT", "/config/datastore/{name}", {"name": "main", "comment": "the first"}),
    ("POST", "/config/datastore", {"name": "second", "path": "second", "overwrite-in-use": None}),
    # All that reads goes here, where there is something of everything.
    "read",
    ("POST", "/admin/datastore/{store}/change-owner", {**PATH_STORE, **VM, "new-owner": "operator@pbs"}),
    ("PUT", "/admin/datastore/{store}/protected", {**PATH_STORE, **ONE, "protected": False}),
    ("DELETE", "/admin/datastore/{store}/snapshots", {**PATH_STORE, **ONE}),
    ("DELETE", "/admin/datastore/{store}/groups", {**PATH_STORE, **VM}),
    ("DELETE", "/admin/datastore/{store}/namespace", {**PATH_STORE, "ns": "prod"}),
    ("DELETE", "/config/prune/{id}", {**JOB}),
    ("DELETE", "/config/verify/{id}", {**JOB}),
    ("DELETE", "/access/users/{userid}/token/{token-name}", {**TOKEN}),
    ("DELETE", "/access/users/{userid}", {**USER}),
    ("DELETE", "/nodes/{node}/tasks/{upid}", {"node": "localhost"}),
]


class Asked(Exception):
    """What a generated method would have asked for."""


def plain(annotation):
    """The type below Optional and Annotated."""
    while typing.get_origin(annotation) in (typing.Annotated, typing.Union):
        annotation = next(a for a in typing.get_args(annotation) if a is not type(None))
    return annotation


def wire(name):
    """A Python name as the wire has it."""
    return name.replace("_", "-")


class Generated:
    """The generated client: its methods by what they ask for."""

    def __init__(self, daemon, headers):
        configuration = Configuration(host=daemon.url, ssl_ca_cert=daemon.certificate)
        self.client = ApiClient(configuration)
        for name, value in headers.items():
            self.client.set_default_header(name, value)
        self.methods = {}
        for name, api in inspect.getmembers(clientapi_pbs.api, inspect.isclass):
            api = api(self.client)
            for method_name, method in inspect.getmembers(api, inspect.ismethod):
                if not method_name.startswith("_") and hasattr(api, f"_{method_name}_serialize"):
                    self.methods[self.asks_for(api, method_name)] = method

    def asks_for(self, api, method_name):
        """HTTP method and path of a generated method, found without sending anything."""
        make = getattr(api, f"_{method_name}_serialize")
        arguments = {name: None for name in inspect.signature(make).parameters} | {"_host_index": 0}

        def note(*_, method, resource_path, **__):
            raise Asked(method, resource_path)

        real, self.client.param_serialize = self.client.param_serialize, note
        try:
            make(**arguments)
        except Asked as asked:
            return asked.args
        finally:
            self.client.param_serialize = real
        raise AssertionError(f"{method_name} asks for nothing")

    def call(self, method, path, values):
        """Makes the call with these values, by their names on the wire; the parsed answer."""
        function = self.methods[method, path]
        arguments = {}
        body_name, body_type = None, None
        for parameter in inspect.signature(function).parameters.values():
            name, kind = parameter.name, plain(parameter.annotation)
            if name.startswith("_"):
                continue
            if inspect.isclass(kind) and hasattr(kind, "from_dict"):
                body_name, body_type = name, kind
            elif wire(name) in values:
                value = values[wire(name)]
                arguments[name] = kind(value) if inspect.isclass(kind) and issubclass(kind, enum.Enum) else value
        if body_type:
            in_path = {part[1:-1] for part in path.split("/") if part.startswith("{")}
            body = {name: value for name, value in values.items() if name not in in_path and name not in map(wire, arguments)}
            arguments[body_name] = body_type.from_dict(body)
            for name in (name for name, value in body.items() if value is None):
                # Reading fills defaults in; what is None is not sent.
                setattr(arguments[body_name], name.replace("-", "_"), None)
        return self.adapted(function, arguments, ADAPTED.get((method, path)))

    def adapted(self, function, arguments, adapt):
        """The call, its answer changed by `adapt` before it is parsed."""
        if adapt is None:
            return function(**arguments)
        real = self.client.response_deserialize

        def deserialize(response_data, *more, **named):
            if response_data.status == 200:
                answer = json.loads(response_data.data)
                answer["data"] = adapt(answer["data"])
                response_data.data = json.dumps(answer).encode()
            return real(response_data, *more, **named)

        self.client.response_deserialize = deserialize
        try:
            return function(**arguments)
        finally:
            self.client.response_deserialize = real


class Models(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.enterClassContext(mock.patch("re.match", match_posix))
        cls.daemon = cls.enterClassContext(Daemon())
        cls.daemon.back_up("host/web", TIMES)
        cls.daemon.back_up("vm/100", TIMES[:2])
        cls.daemon.add_password("operator@pbs", PASSWORD, "Admin")
        # A token's header; the original's own form.
        cls.by_token = Generated(cls.daemon, {"Authorization": f"PBSAPIToken={cls.daemon.token_id}:{cls.daemon.token}"})
        cls.ours = calls()
        cls.common = sorted(cls.ours & set(cls.by_token.methods))

    @needs(("PUT", "/admin/datastore/{store}/group-notes"))
    def test_login_by_password(self):
        login = {"username": "operator@pbs", "password": PASSWORD}
        ticket = self.by_token.call("POST", "/access/ticket", login).data
        by_ticket = Generated(
            self.daemon,
            {"Cookie": f"PBSAuthCookie={ticket.ticket}", "CSRFPreventionToken": ticket.csrf_prevention_token},
        )
        stores = by_ticket.call("GET", "/admin/datastore", {}).data
        self.assertIn("main", [store.store for store in stores])
        note = {"store": "main", **GROUP, "notes": "by ticket"}
        by_ticket.call("PUT", "/admin/datastore/{store}/group-notes", note)
        group = {"store": "main", **GROUP}
        self.assertEqual(by_ticket.call("GET", "/admin/datastore/{store}/group-notes", group).data, "by ticket")

    def test_every_answer_parses(self):
        self.assertGreater(len(self.common), 20, "the descriptions have hardly a call in common")
        made, failed = set(), []

        def make(method, path, values):
            made.add((method, path))
            try:
                return self.by_token.call(method, path, values)
            except Exception as error:  # whatever it is, the others are to be seen too
                failed.append(f"{method} {path} {values}: {type(error).__name__}: {str(error)[:600]}")
                return None

        upids = []
        for step in SCRIPT:
            if step == "read":
                self.wait_for_tasks()
                for method, path in self.common:
                    if method == "GET" and (method, path) not in LEFT_OUT:
                        for values in self.readings(path):
                            make(method, path, values)
                continue
            method, path, values = step
            if path == "/config/datastore":
                values = {**values, "path": str(self.daemon.folder / values["path"])}
            if (method, path) not in self.common:
                continue
            if "{upid}" in path:
                # One that runs cannot be had for sure, and one that has ended is refused: only the reading calls need it.
                made.add((method, path))
                continue
            answer = make(method, path, values)
            data = getattr(answer, "data", None)
            if isinstance(data, str) and data.startswith("UPID:"):
                upids.append(data)
        self.wait_for_tasks()
        self.assertEqual(failed, [], "\n".join(failed))
        forgotten = sorted(set(self.common) - made - set(LEFT_OUT))
        self.assertEqual(forgotten, [], "these calls are neither made nor left out")
        print(f"{len(made)} calls of {len(self.common)} in common, {len(self.ours)} ours; {len(upids)} tasks")

    def readings(self, path):
        """The values that a reading call is made with."""
        values = {wire(name): value for name, value in VALUES.items()}
        values["id"] = "nightly"
        if "/token" in path or path == "/access/users/{userid}":
            values["userid"] = "reader@pbs"
        if "{upid}" in path:
            return [{**values, "upid": task.upid} for task in self.tasks()[:8]]
        return [values]

    def tasks(self):
        return self.by_token.call("GET", "/nodes/{node}/tasks", {"node": "localhost", "limit": 0}).data

    def wait_for_tasks(self):
        deadline = time.monotonic() + 60
        while any(task.endtime is None for task in self.tasks()):
            self.assertLess(time.monotonic(), deadline, "tasks do not end")
            time.sleep(0.1)


if __name__ == "__main__":
    unittest.main()
