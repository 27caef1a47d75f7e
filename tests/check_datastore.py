#!/usr/bin/env python3
"""Reads a datastore and reports everything that is not as the format says.

An independent reader: it was written from the description of the formats, shares no code with the program, and needs
Python 3.11 and its standard library. For zstd it takes the first of: the system's libzstd, the `zstd` command, the
package `zstandard`. It only reads, and may run beside a daemon, though a backup in progress will show as unfinished.

What is checked: names, kinds, modes and owners of everything in the tree; every chunk and blob (header, CRC, content,
digest); every index (header, length, checksum, order, chunks there and of the right length); every manifest against
its directory and its files; what a server adds to it; nothing left over.

Exit code: 0 nothing found, 1 something found, 2 not run (wrong arguments, no datastore, no zstd).
"""

import argparse
import calendar
import concurrent.futures
import ctypes
import ctypes.util
import fnmatch
import hashlib
import json
import os
import re
import shutil
import stat
import struct
import subprocess
import sys
import threading
import time
import zlib

MAGIC = {
    name: hashlib.sha256(sentence.encode()).digest()[:8]
    for name, sentence in {
        "plain": "Proxmox Backup uncompressed blob v1.0",
        "plain-zstd": "Proxmox Backup zstd compressed blob v1.0",
        "encrypted": "Proxmox Backup encrypted blob v1.0",
        "encrypted-zstd": "Proxmox Backup zstd compressed encrypted blob v1.0",
        "fidx": "Proxmox Backup fixed sized chunk index v1.0",
        "didx": "Proxmox Backup dynamic sized chunk index v1.0",
    }.items()
}
BLOB_KINDS = {MAGIC[kind]: kind for kind in ("plain", "plain-zstd", "encrypted", "encrypted-zstd")}

CHUNK_DIRS = [f"{prefix:04x}" for prefix in range(65536)]
CHUNK_MAX = 16 << 20
BLOB_MAX = CHUNK_MAX + 44
HEADER = 4096

SAFE_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._\-]*\Z")
HEX64 = re.compile(r"[0-9a-f]{64}\Z")
SNAPSHOT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z\Z")
ARCHIVE = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._\-]*\.([fd]idx|blob)\Z")
TEMPORARY = re.compile(r".*\.tmp(_.*)?\Z")
AUTH_ID = re.compile(r"[^\s:/\x00-\x1f]+@[A-Za-z0-9_][A-Za-z0-9._\-]*(![A-Za-z0-9_][A-Za-z0-9._\-]*)?\Z")
FINGERPRINT = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){31}\Z")
UPID = re.compile(
    r"UPID:[A-Za-z0-9]([A-Za-z0-9\-]*[A-Za-z0-9])?:[0-9A-F]{8}:[0-9A-F]{8,9}:[0-9A-F]{8,16}:[0-9A-F]{8}:"
    r"[^:\s]+:[^:\s]*:[^:\s]+:\Z"
)

GC_KEYS = (
    "index-file-count index-data-bytes disk-bytes disk-chunks removed-bytes removed-chunks pending-bytes pending-chunks"
    " removed-bad still-bad"
).split()

CODES = {
    "kind": "a file where a directory should be, or the like",
    "mode": "permission bits differ from what they should be",
    "uid": "owned by another user or group than the datastore itself",
    "name": "a name that breaks the rules of its place",
    "absent": "something that should be there is not",
    "stray": "something that has no business there",
    "temp": "a temporary file of a write that never ended",
    "unfinished": "a snapshot without manifest",
    "owner": "an owner file that does not name a user or token",
    "gc-status": "a .gc-status that is not one",
    "blob": "a blob with wrong length, header, CRC or content",
    "chunk": "a chunk with wrong length, header, CRC, content or digest",
    "chunk-missing": "an index names a chunk that is not there",
    "chunk-length": "a chunk whose plaintext is longer or shorter than its index says",
    "chunk-crypt": "an encrypted chunk in a plain archive, or a plain one in an encrypted archive",
    "index": "an index with wrong length, header, order or checksum",
    "manifest": "a manifest that is none, or contradicts the files beside it",
    "unlisted": "an archive that the manifest does not list",
    "unprotected": "malformed notes, statistics, fingerprint or verification state",
    "read": "the file could not be read",
}


class Wrong(Exception):
    """What is wrong with some bytes."""


class NoZstd(Exception):
    """Nothing here can decompress."""


# ---------------------------------------------------------------------------------------------------------------------
# zstd: three ways to the same function, decompress(frames, limit) -> bytes


def zstd_by_library():
    name = ctypes.util.find_library("zstd")
    if name is None:
        return None
    try:
        lib = ctypes.CDLL(name)
        decompress, is_error, error_name = lib.ZSTD_decompress, lib.ZSTD_isError, lib.ZSTD_getErrorName
    except (OSError, AttributeError):
        return None
    decompress.restype = ctypes.c_size_t
    decompress.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t]
    is_error.restype, is_error.argtypes = ctypes.c_uint, [ctypes.c_size_t]
    error_name.restype, error_name.argtypes = ctypes.c_char_p, [ctypes.c_size_t]
    local = threading.local()

    def run(frames, limit):
        if getattr(local, "size", 0) < limit:
            local.buffer, local.size = ctypes.create_string_buffer(limit), limit
        length = decompress(local.buffer, limit, frames, len(frames))
        if is_error(length):
            raise Wrong(f"zstd: {error_name(length).decode()}")
        return ctypes.string_at(local.buffer, length)

    return run


def zstd_by_command():
    if shutil.which("zstd") is None:
        return None

    def run(frames, limit):
        with subprocess.Popen(
            ["zstd", "-d", "-c", "-q", "--memory=128MB"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        ) as process:
            feeder = threading.Thread(target=feed, args=(process.stdin, frames))
            feeder.start()
            plain = process.stdout.read(limit + 1)
            if len(plain) > limit:
                process.kill()
            feeder.join()
            error = process.stderr.read().decode(errors="replace").strip()
        if len(plain) > limit:
            raise Wrong(f"zstd: more than {limit} bytes")
        if process.returncode != 0:
            raise Wrong(f"zstd: {error}")
        return plain

    def feed(pipe, data):
        try:
            pipe.write(data)
            pipe.close()
        except BrokenPipeError:
            pass

    return run


def zstd_by_package():
    try:
        import zstandard
    except ImportError:
        return None

    def run(frames, limit):
        plain, rest = bytearray(), memoryview(frames)
        while rest:
            frame, at = zstandard.ZstdDecompressor().decompressobj(), 0
            while not frame.eof:
                # In small steps, so that a bomb is noticed before it fills the memory.
                if at >= len(rest):
                    raise Wrong("zstd: incomplete frame")
                try:
                    plain += frame.decompress(rest[at : at + 1024])
                except zstandard.ZstdError as error:
                    raise Wrong(f"zstd: {error}") from None
                at += 1024
                if len(plain) > limit:
                    raise Wrong(f"zstd: more than {limit} bytes")
            rest = rest[min(at, len(rest)) - len(frame.unused_data) :]
        return bytes(plain)

    return run


def find_zstd(which):
    ways = {"library": zstd_by_library, "command": zstd_by_command, "package": zstd_by_package}
    for name, way in ways.items():
        if which in ("any", name) and (run := way()) is not None:
            return name, run
    raise NoZstd("no way to decompress zstd: neither libzstd, nor the zstd command, nor the package zstandard is here")


# ---------------------------------------------------------------------------------------------------------------------
# Bytes


def read_blob(encoded, decompress, limit=CHUNK_MAX):
    """Kind and plaintext of a blob; the plaintext of an encrypted one is None."""
    if not 12 <= len(encoded) <= BLOB_MAX:
        raise Wrong(f"{len(encoded)} bytes: 12 to {BLOB_MAX} expected")
    kind = BLOB_KINDS.get(encoded[:8])
    if kind is None:
        raise Wrong(f"magic {encoded[:8].hex()} is not that of a blob")
    header = 44 if kind.startswith("encrypted") else 12
    if len(encoded) < header:
        raise Wrong(f"encrypted, but only {len(encoded)} bytes")
    payload = encoded[header:]
    crc, found = struct.unpack_from("<I", encoded, 8)[0], zlib.crc32(payload)
    if crc != found:
        raise Wrong(f"CRC of the payload is {found:08x}, the header says {crc:08x}")
    if header == 44:
        return kind, None
    if kind == "plain-zstd":
        if not payload:
            raise Wrong("zstd: no frame")
        payload = decompress(payload, limit)
    if len(payload) > limit:
        raise Wrong(f"{len(payload)} bytes of content, more than {limit}")
    return kind, payload


def read_index(data, kind):
    """Checksum, length of the content, and (digest, length of the chunk) of each chunk."""
    if len(data) < HEADER:
        raise Wrong(f"{len(data)} bytes, shorter than a header")
    if data[:8] != MAGIC[kind]:
        raise Wrong(f"magic {data[:8].hex()} is not that of a .{kind}")
    ctime = struct.unpack_from("<q", data, 24)[0]
    if not 0 < ctime < 1 << 40:
        raise Wrong(f"ctime {ctime}")
    if not any(data[8:24]):
        raise Wrong("the uuid is zero")
    csum, area = data[32:64], data[HEADER:]
    if csum != hashlib.sha256(area).digest():
        raise Wrong(f"checksum of the entries is not {csum.hex()}, as the header says")
    if kind == "fidx":
        size, chunk_size = struct.unpack_from("<QQ", data, 64)
        zeros = data[80:HEADER]
        if chunk_size not in [1 << bits for bits in range(12, 25)]:
            raise Wrong(f"chunk_size {chunk_size} is not a power of two from 4096 to {CHUNK_MAX}")
        count = -(-size // chunk_size)
        if size == 0 or len(area) != 32 * count:
            raise Wrong(f"size {size} and chunk_size {chunk_size} call for {count} slots, there are {len(area) / 32}")
        ends = [min((i + 1) * chunk_size, size) for i in range(count)]
        digests = [area[i : i + 32] for i in range(0, len(area), 32)]
    else:
        zeros = data[64:HEADER]
        if not area or len(area) % 40:
            raise Wrong(f"{len(area)} bytes of entries are not a number of entries")
        entries = list(struct.iter_unpack("<Q32s", area))
        ends, digests = [end for end, _ in entries], [digest for _, digest in entries]
    if any(zeros):
        raise Wrong("the unused part of the header is not zero")
    lengths = [end - start for start, end in zip([0] + ends, ends)]
    for i, length in enumerate(lengths):
        if not 1 <= length <= CHUNK_MAX:
            raise Wrong(f"entry {i} covers {length} bytes")
    return csum.hex(), ends[-1], list(zip((digest.hex() for digest in digests), lengths))


def no_duplicates(pairs):
    if len(dict(pairs)) != len(pairs):
        raise Wrong("a key stands twice in one object")
    return dict(pairs)


def read_json(text):
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=no_duplicates)
    except (ValueError, RecursionError) as error:
        raise Wrong(f"not JSON: {error}") from None
    if not isinstance(value, dict):
        raise Wrong("not a JSON object")
    return value


def is_count(value):
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def snapshot_time(name):
    """Epoch of a snapshot directory's name, None if it is none."""
    try:
        epoch = calendar.timegm(time.strptime(name, "%Y-%m-%dT%H:%M:%SZ")) if SNAPSHOT.match(name) else None
    except ValueError:
        return None
    return epoch if epoch and time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch)) == name else None


# ---------------------------------------------------------------------------------------------------------------------
# The walk


class Chunk:
    """What a chunk file turned out to be; `size` is None if encrypted, bad, or not read."""

    def __init__(self, encrypted, size):
        self.encrypted, self.size, self.referenced = encrypted, size, False


class Checker:
    def __init__(self, base, decompress, options):
        self.base, self.decompress, self.options = base, decompress, options
        self.findings, self.allowed, self.chunks = [], [], {}
        self.counts = dict.fromkeys(
            "namespaces groups snapshots unfinished archives blobs chunks chunk_bytes bad_chunks".split(), 0
        )

    # Findings

    def found(self, code, path, text):
        finding = {"code": code, "path": os.path.relpath(path, self.base), "text": text}
        allowed = any(
            code == want and fnmatch.fnmatchcase(finding["path"], glob) for want, glob in self.options.allow
        )
        (self.allowed if allowed else self.findings).append(finding)

    def read(self, path):
        try:
            with open(path, "rb") as file:
                return file.read()
        except OSError as error:
            self.found("read", path, error.strerror)
            return None

    def object(self, path, kind, mode):
        """Whether `path` is of that kind; a wrong mode or owner is noted."""
        try:
            meta = os.lstat(path)
        except OSError as error:
            self.found("absent" if isinstance(error, FileNotFoundError) else "read", path, error.strerror)
            return False
        is_kind = {"file": stat.S_ISREG, "directory": stat.S_ISDIR}[kind]
        if not is_kind(meta.st_mode):
            self.found("kind", path, f"is not a {kind}")
            return False
        if stat.S_IMODE(meta.st_mode) != mode:
            self.found("mode", path, f"{stat.S_IMODE(meta.st_mode):04o}: {mode:04o} expected")
        if (meta.st_uid, meta.st_gid) != self.owner:
            self.found("uid", path, f"{meta.st_uid}:{meta.st_gid}: {self.owner[0]}:{self.owner[1]} expected")
        return True

    def list(self, path):
        try:
            return sorted(os.listdir(path))
        except OSError as error:
            self.found("read", path, error.strerror)
            return []

    # From the top

    def run(self):
        meta = os.stat(self.base)
        self.owner = (meta.st_uid, meta.st_gid)
        self.object(self.base, "directory", 0o755)
        lock = os.path.join(self.base, ".lock")
        if self.object(lock, "file", 0o644) and os.lstat(lock).st_size:
            self.found("stray", lock, "is not empty")
        if os.path.lexists(status := os.path.join(self.base, ".gc-status")):
            self.gc_status(status)
        self.chunk_store(os.path.join(self.base, ".chunks"))
        self.namespace(self.base, [], {".lock", ".gc-status", ".chunks", "lost+found"})
        self.counts["unreferenced_chunks"] = sum(not chunk.referenced for chunk in self.chunks.values())

    def gc_status(self, path):
        if not self.object(path, "file", 0o644) or (data := self.read(path)) is None:
            return
        try:
            status = read_json(data)
            for key in GC_KEYS:
                if not is_count(status.get(key)):
                    raise Wrong(f"{key} is {status.get(key)!r}")
            if (upid := status.get("upid")) is not None and not UPID.match(str(upid)):
                raise Wrong(f"upid is {upid!r}")
        except Wrong as wrong:
            self.found("gc-status", path, str(wrong))

    # Chunks

    def chunk_store(self, path):
        if not self.object(path, "directory", 0o750):
            return
        names = set(self.list(path))
        prefixes = set(CHUNK_DIRS)
        for name in sorted(names - prefixes):
            self.found("stray", os.path.join(path, name), "is not a directory for chunks")
        if absent := sorted(prefixes - names):
            self.found("absent", path, f"{len(absent)} of {len(prefixes)} directories, the first of them {absent[0]}")
        files = []
        for prefix in sorted(names & prefixes):
            directory = os.path.join(path, prefix)
            if self.object(directory, "directory", 0o750):
                for name in self.list(directory):
                    self.chunk_entry(prefix, os.path.join(directory, name), name, files)
        with concurrent.futures.ThreadPoolExecutor(max_workers=os.cpu_count()) as pool:
            for (file, digest), result in zip(files, pool.map(self.chunk_file, files)):
                self.chunks[digest], wrong = result
                if wrong:
                    self.found("chunk", file, wrong)

    def chunk_entry(self, prefix, path, name, files):
        digest, suffix = name[:64], name[64:]
        if not HEX64.match(digest):
            self.found("stray", path, "is not named like a chunk")
        elif not digest.startswith(prefix):
            self.found("name", path, "is in the wrong directory")
        elif not suffix:
            if self.object(path, "file", 0o644):
                self.counts["chunks"] += 1
                self.counts["chunk_bytes"] += os.lstat(path).st_size
                files.append((path, digest))
        elif re.match(r"\.[0-9]\.bad\Z", suffix):
            self.counts["bad_chunks"] += self.object(path, "file", 0o644)
        else:
            self.found("temp" if TEMPORARY.match(suffix) else "stray", path, "is not named like a chunk")

    def chunk_file(self, item):
        """A chunk, and what is wrong with it."""
        path, digest = item
        if self.options.quick:
            return Chunk(None, None), None
        try:
            with open(path, "rb") as file:
                encoded = file.read(BLOB_MAX + 1)
            kind, plain = read_blob(encoded, self.decompress)
        except (OSError, Wrong) as error:
            return Chunk(None, None), str(error)
        if plain is None:
            return Chunk(True, None), None
        if not plain:
            return Chunk(False, None), "is empty"
        if (real := hashlib.sha256(plain).hexdigest()) != digest:
            return Chunk(False, None), f"its content has the digest {real}"
        return Chunk(False, len(plain)), None

    # Namespaces, groups, snapshots

    def namespace(self, path, components, expected):
        self.counts["namespaces"] += 1
        text = "/".join(components)
        if len(components) > 7 or len(text) > 256:
            self.found("name", path, f"{text!r} is too deep or too long for a namespace")
            return
        for name in self.list(path):
            child = os.path.join(path, name)
            if name in ("vm", "ct", "host"):
                if self.object(child, "directory", 0o755):
                    self.groups(child, name)
            elif name == "ns":
                if self.object(child, "directory", 0o755):
                    for part in self.list(child):
                        below = os.path.join(child, part)
                        if not SAFE_ID.match(part):
                            self.found("name", below, "is not a name for a namespace")
                        elif self.object(below, "directory", 0o755):
                            self.namespace(below, components + [part], set())
            elif not components and name.startswith((".ringvault-gc-", ".ringvault-verify-")):
                # What the next garbage collection or verification needs to go on with one that was cut off, what the last one found, and the space kept for a full disk.
                pass
            elif name not in expected:
                # A running daemon of ours keeps such a file; one that has ended in good order does not.
                is_record = not components and name.startswith(".ringvault-temps-")
                self.found("temp" if is_record else "stray", child, "is neither a backup type nor ns")

    def groups(self, path, backup_type):
        for name in self.list(path):
            group = os.path.join(path, name)
            if not SAFE_ID.match(name):
                self.found("name", group, "is not a backup id")
            elif self.object(group, "directory", 0o755):
                self.counts["groups"] += 1
                self.group(group, backup_type, name)

    def group(self, path, backup_type, backup_id):
        names = self.list(path)
        if "owner" not in names:
            self.found("absent", os.path.join(path, "owner"), "the group has no owner")
        for name in names:
            child = os.path.join(path, name)
            if name == "owner":
                if self.object(child, "file", 0o644) and (data := self.read(child)) is not None:
                    line, end, rest = data.decode(errors="replace").partition("\n")
                    if not AUTH_ID.match(line) or not end or rest:
                        self.found("owner", child, f"{data[:80]!r} is not a user or token and a line end")
            elif name == "notes":
                self.object(child, "file", 0o644)
            elif TEMPORARY.match(name):
                self.found("temp", child, "is left over")
            elif (epoch := snapshot_time(name)) is None:
                self.found("stray", child, "is not the name of a snapshot")
            elif self.object(child, "directory", 0o755):
                self.snapshot(child, {"backup-type": backup_type, "backup-id": backup_id, "backup-time": epoch})

    def snapshot(self, path, identity):
        files = {}
        names = self.list(path)
        finished = "index.json.blob" in names
        self.counts["snapshots" if finished else "unfinished"] += 1
        for name in names:
            child = os.path.join(path, name)
            if ARCHIVE.match(name):
                if self.object(child, "file", 0o644):
                    files[name] = self.archive(child, name)
            elif name == ".protected":
                if self.object(child, "file", 0o644) and os.lstat(child).st_size:
                    self.found("stray", child, "is not empty")
            elif TEMPORARY.match(name):
                self.found("temp", child, "is left over")
            else:
                self.found("stray", child, "is not the name of an archive")
        if not finished:
            self.found("unfinished", path, "has no manifest")
        elif "index.json.blob" in files:
            self.manifest(path, identity, files)

    def archive(self, path, name):
        """What a manifest should say of a file: kinds are the extension, or of a blob what its magic says."""
        if (data := self.read(path)) is None:
            return None
        extension = name.rpartition(".")[2]
        if extension == "blob":
            self.counts["blobs"] += 1
            try:
                kind, plain = read_blob(data, self.decompress)
            except Wrong as wrong:
                self.found("blob", path, str(wrong))
                return None
            return {"kind": kind, "size": len(data), "csum": hashlib.sha256(data).hexdigest(), "plain": plain}
        self.counts["archives"] += 1
        try:
            csum, size, chunks = read_index(data, extension)
        except Wrong as wrong:
            self.found("index", path, str(wrong))
            return None
        for pos, (digest, length) in enumerate(chunks):
            if (chunk := self.chunks.get(digest)) is None:
                if digest not in self.options.allow_missing_chunk:
                    self.found("chunk-missing", path, f"chunk {pos}, {digest}, is not there")
                else:
                    self.allowed.append(
                        {"code": "chunk-missing", "path": os.path.relpath(path, self.base), "text": digest}
                    )
                continue
            chunk.referenced = True
            if chunk.size not in (None, length):
                self.found(
                    "chunk-length", path, f"chunk {pos}, {digest}, has {chunk.size} bytes: {length} expected"
                )
        return {"kind": extension, "size": size, "csum": csum, "digests": {digest for digest, _ in chunks}}

    # Manifests

    def manifest(self, path, identity, files):
        own = os.path.join(path, "index.json.blob")
        if (facts := files.pop("index.json.blob")) is None:
            return
        try:
            if facts["plain"] is None:
                raise Wrong("is encrypted")
            manifest = read_json(facts["plain"])
            for key, value in identity.items():
                if manifest.get(key) != value:
                    raise Wrong(f"{key} is {manifest.get(key)!r}, the directory says {value!r}")
            if not isinstance(manifest.get("files"), list):
                raise Wrong("files is not an array")
            signature = manifest.get("signature")
            if signature is not None and not (isinstance(signature, str) and HEX64.match(signature)):
                raise Wrong(f"signature is {signature!r}")
        except Wrong as wrong:
            self.found("manifest", own, str(wrong))
            return
        self.manifest_files(path, own, manifest["files"], files)
        try:
            self.unprotected(manifest.get("unprotected", {}), signature is not None)
        except Wrong as wrong:
            self.found("unprotected", own, str(wrong))

    def manifest_files(self, path, own, entries, files):
        listed = set()
        for i, entry in enumerate(entries):
            try:
                name = entry.get("filename") if isinstance(entry, dict) else None
                if not isinstance(name, str) or not ARCHIVE.match(name):
                    raise Wrong(f"filename is {name!r}")
                if name in ("index.json.blob", "client.log.blob") or name in listed:
                    raise Wrong(f"{name} does not belong here, or stands twice")
                listed.add(name)
                mode = entry.get("crypt-mode", "none")
                if mode not in ("none", "encrypt", "sign-only"):
                    raise Wrong(f"crypt-mode is {mode!r}")
                if not is_count(entry.get("size")) or not HEX64.match(str(entry.get("csum"))):
                    raise Wrong(f"size is {entry.get('size')!r}, csum is {entry.get('csum')!r}")
                if name not in files:
                    raise Wrong(f"there is no file {name}")
                if (facts := files[name]) is None:
                    continue  # what is wrong with that file has been said
                for key in ("size", "csum"):
                    if entry[key] != facts[key]:
                        raise Wrong(f"{key} of {name} is {entry[key]}, the file says {facts[key]}")
                self.crypt_mode(os.path.join(path, name), mode == "encrypt", facts)
            except Wrong as wrong:
                self.found("manifest", own, f"files[{i}]: {wrong}")
        for name in sorted(set(files) - listed - {"client.log.blob"}):
            self.found("unlisted", os.path.join(path, name), "is not in the manifest")

    def crypt_mode(self, path, encrypted, facts):
        if "digests" in facts:
            chunks = [self.chunks[digest] for digest in facts["digests"] if digest in self.chunks]
            wrong = sum(chunk.encrypted not in (None, encrypted) for chunk in chunks)
            if wrong:
                is_not = "not encrypted" if encrypted else "encrypted"
                self.found("chunk-crypt", path, f"{wrong} of {len(chunks)} chunks are {is_not}")
        elif facts["kind"].startswith("encrypted") != encrypted:
            # A client never encrypts the key blob with the key that is in it.
            if not (encrypted and os.path.basename(path) == "rsa-encrypted.key.blob"):
                self.found("chunk-crypt", path, f"is {facts['kind']}, and the manifest says otherwise")

    def unprotected(self, unprotected, signed):
        if not isinstance(unprotected, dict):
            raise Wrong("unprotected is not an object")
        stats = unprotected.get("chunk_upload_stats")
        keys = {"count", "size", "compressed_size", "duplicates"}
        if stats is None:
            if self.options.require_stats:
                raise Wrong("chunk_upload_stats is missing")
        elif not isinstance(stats, dict) or set(stats) != keys or not all(map(is_count, stats.values())):
            raise Wrong(f"chunk_upload_stats is {stats!r}")
        elif stats["duplicates"] > stats["count"]:
            raise Wrong("chunk_upload_stats counts more duplicates than chunks")
        state = unprotected.get("verify_state")
        if "verify_state" in unprotected and not (
            isinstance(state, dict)
            and set(state) == {"state", "upid"}
            and state["state"] in ("ok", "failed")
            and UPID.match(str(state["upid"]))
        ):
            raise Wrong(f"verify_state is {state!r}")
        if not isinstance(unprotected.get("notes", ""), str):
            raise Wrong(f"notes is {unprotected['notes']!r}")
        fingerprint = unprotected.get("key-fingerprint")
        if (signed or fingerprint is not None) and not FINGERPRINT.match(str(fingerprint)):
            raise Wrong(f"key-fingerprint is {fingerprint!r}")


# ---------------------------------------------------------------------------------------------------------------------


def parse_allow(text):
    code, _, glob = text.partition(":")
    if code not in CODES:
        raise argparse.ArgumentTypeError(f"{code!r} is none of {', '.join(CODES)}")
    return code, glob or "*"


def parse_digest(text):
    if not HEX64.match(text):
        raise argparse.ArgumentTypeError("64 lower-case hex digits expected")
    return text


def main(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__,
        epilog="codes:\n" + "\n".join(f"  {code:14} {text}" for code, text in CODES.items()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("datastore", help="base directory, the one that holds .chunks")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--allow", metavar="CODE[:GLOB]", type=parse_allow, action="append", default=[],
        help="expect findings of that code, below the datastore at paths that match GLOB (may be given again)",
    )
    parser.add_argument(
        "--allow-missing-chunk", metavar="DIGEST", type=parse_digest, action="append", default=[],
        help="expect indexes to name this chunk although it is not there (may be given again)",
    )
    parser.add_argument(
        "--allow-unfinished", action="store_true",
        help="expect snapshots without manifest, and temporary files in them",
    )
    parser.add_argument("--require-stats", action="store_true", help="every manifest must have chunk_upload_stats")
    parser.add_argument("--quick", action="store_true", help="do not read the chunks: their presence alone is checked")
    parser.add_argument(
        "--zstd", choices=["any", "library", "command", "package"], default="any", help="how to decompress"
    )
    options = parser.parse_args(arguments)
    base = os.path.abspath(options.datastore)
    if not os.path.isdir(os.path.join(base, ".chunks")):
        print(f"{parser.prog}: {base} is not a datastore: it has no directory .chunks", file=sys.stderr)
        return 2
    try:
        zstd, decompress = find_zstd(options.zstd)
    except NoZstd as error:
        print(f"{parser.prog}: {error}", file=sys.stderr)
        return 2
    checker = Checker(base, decompress, options)
    checker.run()
    if options.allow_unfinished:
        settle_unfinished(checker)
    checker.findings.sort(key=lambda finding: (finding["path"], finding["code"], finding["text"]))
    report = {
        "datastore": base, "clean": not checker.findings, "zstd": zstd, "content_read": not options.quick,
        "counts": checker.counts, "findings": checker.findings, "allowed": checker.allowed,
    }
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        print_text(report)
    return 0 if report["clean"] else 1


def settle_unfinished(checker):
    """Unfinished snapshots and the temporary files in them are allowed; those elsewhere are not."""
    unfinished = {finding["path"] for finding in checker.findings if finding["code"] == "unfinished"}

    def is_settled(finding):
        return finding["code"] == "unfinished" or (
            finding["code"] == "temp" and os.path.dirname(finding["path"]) in unfinished
        )

    checker.allowed += [finding for finding in checker.findings if is_settled(finding)]
    checker.findings = [finding for finding in checker.findings if not is_settled(finding)]


def print_text(report):
    for finding in report["findings"]:
        print(f"{finding['code']:14} {finding['path']}: {finding['text']}")
    for finding in report["allowed"]:
        print(f"  (allowed)    {finding['code']} {finding['path']}: {finding['text']}")
    counts = ", ".join(f"{value} {name.replace('_', ' ')}" for name, value in report["counts"].items())
    how = "content read" if report["content_read"] else "content NOT read"
    verdict = "clean" if report["clean"] else f"{len(report['findings'])} findings"
    print(f"{verdict}: {counts}; {how}")


if __name__ == "__main__":
    sys.exit(main())
