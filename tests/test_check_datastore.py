#!/usr/bin/env python3
"""The checker of datastores finds what was done to a datastore, and nothing else.

Run with `python3 -m unittest tests/test_check_datastore.py`. The datastore is the published one of data/vectors.
"""

import contextlib
import io
import json
import os
import pathlib
import struct
import sys
import tarfile
import tempfile
import unittest
import unittest.mock
import zlib

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import check_datastore  # noqa: E402

VECTORS = pathlib.Path(__file__).parent / "data" / "vectors"
SNAPSHOT = "host/example/2024-06-05T14:23:38Z"
ZERO = "bb9f8df61474d25e71fa00722318cd387396ca1736605e1248821cc0de3d3af8"
LAST = "c2e686823489ced2017f6059b8b239318b6364f6dcd835d0a519105a1eadd6e4"


def check(base, *flags):
    """Exit code, and the code and path of each finding."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
        code = check_datastore.main([str(base), "--json", *flags])
    report = json.loads(out.getvalue())
    return code, [(finding["code"], finding["path"]) for finding in report["findings"]]


def plain_blob(payload):
    return check_datastore.MAGIC["plain"] + struct.pack("<I", zlib.crc32(payload)) + payload


class Checker(unittest.TestCase):
    all_directories = check_datastore.CHUNK_DIRS

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(cls.folder.cleanup)
        cls.base = pathlib.Path(cls.folder.name) / "store"
        cls.base.mkdir()
        owner = {"uid": os.getuid(), "gid": os.getgid(), "uname": "", "gname": ""}
        with tarfile.open(VECTORS / "mini-datastore.tar") as tar:
            tar.extractall(cls.base, filter=lambda member, _: member.replace(**owner, deep=False))
        cls.base.chmod(0o755)
        # All 65536 would take most of the time of these tests.
        cls.enterClassContext(
            unittest.mock.patch.object(check_datastore, "CHUNK_DIRS", ["0000", "1234", ZERO[:4], LAST[:4]])
        )
        for name in check_datastore.CHUNK_DIRS:
            directory = cls.base / ".chunks" / name
            directory.mkdir(exist_ok=True)
            directory.chmod(0o750)

    @contextlib.contextmanager
    def changed(self, path, change):
        """The file with its bytes changed by a function, and afterwards as it was."""
        path = self.base / path
        before = path.read_bytes()
        path.write_bytes(change(before))
        try:
            yield
        finally:
            path.write_bytes(before)

    @contextlib.contextmanager
    def added(self, path, mode=0o644, directory=False):
        path = self.base / path
        path.mkdir() if directory else path.touch()
        path.chmod(mode)
        try:
            yield
        finally:
            path.rmdir() if directory else path.unlink()

    @contextlib.contextmanager
    def moved(self, path):
        (self.base / path).rename(self.base.parent / "away")
        try:
            yield
        finally:
            (self.base.parent / "away").rename(self.base / path)

    def manifest_with(self, **keys):
        manifest = json.loads((VECTORS / "manifest-unsigned.json").read_text()) | keys
        return self.changed(
            f"{SNAPSHOT}/index.json.blob", lambda _: plain_blob(json.dumps(manifest).encode())
        )

    def assert_found(self, *findings, flags=()):
        self.assertEqual(check(self.base, *flags), (1, list(findings)))

    def test_the_published_datastore_is_clean_by_every_decompressor(self):
        for way, find in [
            ("library", check_datastore.zstd_by_library),
            ("command", check_datastore.zstd_by_command),
            ("package", check_datastore.zstd_by_package),
        ]:
            if find() is not None:
                with self.subTest(way):
                    self.assertEqual(check(self.base, "--zstd", way), (0, []))

    def test_every_flipped_byte_of_a_chunk_is_found(self):
        path = f".chunks/{LAST[:4]}/{LAST}"
        for at in range((self.base / path).stat().st_size):
            encoded = bytearray((self.base / path).read_bytes())
            encoded[at] ^= 1
            with self.assertRaises(check_datastore.Wrong):
                check_datastore.read_blob(bytes(encoded), check_datastore.find_zstd("any")[1])
        with self.changed(path, lambda old: old[:-1]):
            self.assert_found(("chunk", path))
        with self.changed(path, lambda _: plain_blob(b"A" * 1001)):
            self.assert_found(("chunk", path))

    def test_missing_chunks(self):
        index = f"{SNAPSHOT}/test.img.fidx"
        with self.moved(f".chunks/{ZERO[:4]}/{ZERO}"):
            self.assert_found(("chunk-missing", index))
            self.assertEqual(check(self.base, "--allow-missing-chunk", ZERO), (0, []))
            self.assert_found(("chunk-missing", index), flags=["--allow-missing-chunk", LAST])

    def test_index_that_was_tampered_with(self):
        path = f"{SNAPSHOT}/test.img.fidx"
        for change in [
            lambda old: old[:-1],
            lambda old: old[:4096],
            lambda old: bytes(8) + old[8:],
            lambda old: old[:32] + bytes(32) + old[64:],
            lambda old: old[:72] + struct.pack("<Q", 0) + old[80:],
            lambda old: old[:72] + struct.pack("<Q", 4194303) + old[80:],
            lambda old: old[:100] + b"x" + old[101:],
            lambda old: old[:4096] + old[4128:] + old[4096:4128],
        ]:
            with self.changed(path, change):
                self.assert_found(("index", path))
        # Still a good index, of an image that is one byte longer.
        with self.changed(path, lambda old: old[:64] + struct.pack("<Q", 4195305) + old[72:]):
            self.assert_found(("manifest", f"{SNAPSHOT}/index.json.blob"), ("chunk-length", path))

    def test_manifest_against_its_files_and_its_directory(self):
        path = f"{SNAPSHOT}/index.json.blob"
        files = json.loads((VECTORS / "manifest-unsigned.json").read_text())["files"]
        for keys in [
            {"backup-id": "other"},
            {"backup-time": 1},
            {"signature": "short"},
            {"files": 7},
            {"files": [files[0] | {"size": 1}, files[1]]},
            {"files": [files[0], files[1] | {"csum": "0" * 64}]},
            {"files": [*files, files[0] | {"filename": "none.fidx"}]},
        ]:
            with self.subTest(keys), self.manifest_with(**keys):
                self.assert_found(("manifest", path))
        with self.manifest_with(files=files[:1]):
            self.assert_found(("unlisted", f"{SNAPSHOT}/data.conf.blob"))
        with self.manifest_with(files=[files[0] | {"crypt-mode": "encrypt"}, files[1]]):
            self.assert_found(("chunk-crypt", f"{SNAPSHOT}/test.img.fidx"))
        with self.changed(path, lambda old: old[:-1]):
            self.assert_found(("blob", path))

    def test_what_servers_add(self):
        path = f"{SNAPSHOT}/index.json.blob"
        stats = {"count": 2, "size": 4, "compressed_size": 1, "duplicates": 0}
        upid = "UPID:pbs1:00001A2B:0012C3D4:00000005:66607C8A:backup:store1\\x3ahost-example:backup@pbs:"
        good = {"chunk_upload_stats": stats, "verify_state": {"state": "ok", "upid": upid}, "notes": "a\nb", "x": 1}
        with self.manifest_with(unprotected=good):
            self.assertEqual(check(self.base, "--require-stats"), (0, []))
        self.assert_found(("unprotected", path), flags=["--require-stats"])
        for bad in [
            {"chunk_upload_stats": {"count": 2}},
            {"chunk_upload_stats": stats | {"size": -1}},
            {"chunk_upload_stats": stats | {"duplicates": 3}},
            {"verify_state": {"state": "maybe", "upid": upid}},
            {"verify_state": {"state": "failed", "upid": "x"}},
            {"notes": 1},
            {"key-fingerprint": "aa"},
            [],
        ]:
            with self.subTest(bad), self.manifest_with(unprotected=bad):
                self.assert_found(("unprotected", path))

    def test_unfinished_snapshots_and_what_they_leave(self):
        with self.added(f"{SNAPSHOT}/new.tmp_didx"):
            self.assert_found(("temp", f"{SNAPSHOT}/new.tmp_didx"), flags=["--allow-unfinished"])
            with self.moved(f"{SNAPSHOT}/index.json.blob"):
                self.assert_found(("unfinished", SNAPSHOT), ("temp", f"{SNAPSHOT}/new.tmp_didx"))
                self.assertEqual(check(self.base, "--allow-unfinished"), (0, []))

    def test_things_out_of_place(self):
        for path, directory, code in [
            ("lost", True, "stray"),
            ("host/.hidden", True, "name"),
            ("host/example/yesterday", True, "stray"),
            ("host/example/2024-02-30T00:00:00Z", True, "stray"),
            (f"{SNAPSHOT}/x.img", False, "stray"),
            ("ns/team/x", False, "stray"),
            ("ns/team/ns/a b", True, "name"),
            (f".chunks/0000/{ZERO}", False, "name"),
            (f".chunks/bb9f/{ZERO}.tmp_AbC123", False, "temp"),
            (".chunks/bb9f/x", False, "stray"),
            (".chunks/10000", True, "stray"),
            ("host/example/owner.tmp_AbC123", False, "temp"),
            ("ct", False, "kind"),
            (".ringvault-temps-AbC123", False, "temp"),
        ]:
            with self.subTest(path), self.added(path, 0o755 if directory else 0o644, directory):
                self.assert_found((code, path))
                self.assertEqual(check(self.base, "--allow", f"{code}:{path}"), (0, []))
        with self.added(f".chunks/bb9f/{ZERO}.0.bad"):
            self.assertEqual(check(self.base), (0, []))

    def test_modes_and_owner_files(self):
        for path, mode in [(".chunks/0000", 0o755), ("host", 0o700), (f"{SNAPSHOT}/test.img.fidx", 0o600)]:
            before = (self.base / path).stat().st_mode & 0o7777
            (self.base / path).chmod(mode)
            self.assert_found(("mode", path))
            (self.base / path).chmod(before)
        for content in [b"", b"backup\n", b"backup@pbs", b"backup@pbs\nx", b"a b@pbs\n"]:
            with self.subTest(content), self.changed("host/example/owner", lambda _, content=content: content):
                self.assert_found(("owner", "host/example/owner"))
        with self.moved("host/example/owner"):
            self.assert_found(("absent", "host/example/owner"))
        with self.moved(".chunks/1234"):
            self.assert_found(("absent", ".chunks"))

    def test_all_directories_for_chunks_are_called_for(self):
        self.assertEqual(len({int(name, 16) for name in self.all_directories if len(name) == 4}), 65536)

    def test_no_datastore_is_not_a_clean_one(self):
        with contextlib.redirect_stderr(io.StringIO()):
            self.assertEqual(check_datastore.main([self.folder.name]), 2)
            with self.assertRaises(SystemExit) as exit:
                check_datastore.main([])
        self.assertEqual(exit.exception.code, 2)


if __name__ == "__main__":
    unittest.main()
