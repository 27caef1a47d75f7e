"""proxmoxer (service PBS): what administrators' scripts do, by password and by token."""

import time
import unittest

from proxmoxer import AuthenticationError, ProxmoxAPI, ResourceException

from daemon import Daemon, needs

TIMES = [f"2024-06-{day:02}T12:00:00Z" for day in range(1, 6)]
FIRST = 1717243200


class Scripts(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.daemon = cls.enterClassContext(Daemon())
        cls.daemon.back_up("host/web", TIMES)
        cls.daemon.back_up("vm/100", TIMES[:2])
        cls.daemon.add_password("operator@pbs", "correct horse", "Admin")

    def by_token(self):
        name = self.daemon.token_id.split("!")
        return ProxmoxAPI(
            "127.0.0.1", port=self.daemon.port, service="PBS", verify_ssl=self.daemon.certificate,
            user=name[0], token_name=name[1], token_value=self.daemon.token,
        )

    def by_password(self, password="correct horse"):
        return ProxmoxAPI(
            "127.0.0.1", port=self.daemon.port, service="PBS", verify_ssl=self.daemon.certificate,
            user="operator@pbs", password=password,
        )

    def test_a_wrong_password_is_refused(self):
        with self.assertRaises(AuthenticationError):
            self.by_password("wrong horse")

    def test_listing_and_reading(self):
        for login in (self.by_token, self.by_password):
            with self.subTest(login=login.__name__):
                api = login()
                self.assertEqual(api.version.get()["version"].split(".")[0], "3")
                self.assertEqual([store["store"] for store in api.admin.datastore.get()], ["main"])
                store = api.admin.datastore("main")
                status = store.status.get()
                self.assertGreater(status["total"], 0)
                self.assertLessEqual(status["used"] + status["avail"], status["total"])
                self.assertEqual(store.status.get(verbose=1)["counts"]["vm"], {"groups": 1, "snapshots": 2})
                groups = {(g["backup-type"], g["backup-id"]): g["backup-count"] for g in store.groups.get()}
                self.assertEqual(groups, {("host", "web"): 5, ("vm", "100"): 2})
                times = sorted(s["backup-time"] for s in store.snapshots.get(**{"backup-type": "host", "backup-id": "web"}))
                self.assertEqual(times, [FIRST + 86400 * day for day in range(5)])
                one = {"backup-type": "host", "backup-id": "web", "backup-time": FIRST}
                names = sorted(f["filename"] for f in store.files.get(**one))
                self.assertEqual(names, ["data.img.fidx", "index.json.blob", "notes.conf.blob"])
                self.assertEqual(store.namespace.get(), [{"ns": ""}])

    @needs(("POST", "/admin/datastore/{store}/prune"))
    def test_a_prune_that_is_only_tried(self):
        for login in (self.by_token, self.by_password):
            with self.subTest(login=login.__name__):
                store = login().admin.datastore("main")
                group = {"backup-type": "host", "backup-id": "web"}
                plan = store.prune.post(**group, **{"keep-last": 2, "dry-run": 1})
                self.assertEqual([row["keep"] for row in plan], [False, False, False, True, True])
                self.assertEqual(len(store.snapshots.get(**group)), 5)

    @needs(("PUT", "/admin/datastore/{store}/notes"), ("PUT", "/admin/datastore/{store}/protected"), ("DELETE", "/admin/datastore/{store}/snapshots"))
    def test_notes_and_protection(self):
        store = self.by_password().admin.datastore("main")
        one = {"backup-type": "vm", "backup-id": "100", "backup-time": FIRST}
        store.notes.put(**one, notes="before the upgrade\nall well: 100 %")
        self.assertEqual(store.notes.get(**one), "before the upgrade\nall well: 100 %")
        store.protected.put(**one, protected=1)
        self.assertIs(store.protected.get(**one), True)
        with self.assertRaises(ResourceException):
            store.snapshots.delete(**one)
        store.protected.put(**one, protected=0)
        listed = store.snapshots.get(**{"backup-type": "vm", "backup-id": "100"})
        first = next(row for row in listed if row["backup-time"] == FIRST)
        self.assertEqual((first["comment"], first["protected"]), ("before the upgrade", False))

    def test_tasks(self):
        for login in (self.by_token, self.by_password):
            with self.subTest(login=login.__name__):
                api = login()
                tasks = api.nodes("localhost").tasks
                listed = tasks.get(typefilter="backup", limit=50)
                backups = [task for task in listed if task["worker_type"] == "backup"]
                self.assertEqual(len(backups), 7)
                self.assertEqual({task["status"] for task in backups}, {"OK"})
                upid = backups[0]["upid"]
                status = tasks(upid).status.get()
                self.assertEqual((status["status"], status["exitstatus"], status["type"]), ("stopped", "OK", "backup"))
                log = tasks(upid).log.get(limit=0)
                self.assertEqual([line["n"] for line in log], list(range(1, len(log) + 1)))
                self.assertTrue(log[-1]["t"].endswith("TASK OK"), log[-1])

    @needs(("POST", "/admin/datastore/{store}/gc"), ("GET", "/admin/datastore/{store}/gc"), ("POST", "/admin/datastore/{store}/verify"))
    def test_a_garbage_collection_and_a_verification_run_to_their_end(self):
        api = self.by_token()
        store = api.admin.datastore("main")
        for upid in (store.gc.post(), store.verify.post()):
            task = api.nodes("localhost").tasks(upid)
            deadline = time.monotonic() + 60
            while task.status.get()["status"] == "running":
                self.assertLess(time.monotonic(), deadline, upid)
                time.sleep(0.1)
            self.assertEqual(task.status.get()["exitstatus"], "OK", task.log.get(limit=0))
        self.assertGreater(store.gc.get()["disk-chunks"], 0)

    def test_what_is_not_there_is_an_error(self):
        api = self.by_password()
        with self.assertRaises(ResourceException) as refused:
            api.admin.datastore("main").snapshots.get(ns="nowhere")
        self.assertEqual(refused.exception.status_code, 400)
        with self.assertRaises(ResourceException) as refused:
            api.nonsense.get()
        self.assertEqual(refused.exception.status_code, 404)


if __name__ == "__main__":
    unittest.main()
