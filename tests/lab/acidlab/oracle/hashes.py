# SPDX-License-Identifier: GPL-3.0-or-later
"""Content hashes, remembered by what the kernel says of a file.

Safe because the file systems are synced first: a clean page faults at the next write, and a write changes ctime, which nobody can set.
A file that changed within two seconds before its hash is not remembered (two writes may share one clock tick).
Clones of one image share inode numbers and times, so that a new host's files are known already. What a clone has written since is its own:
two that do the same at the same time have got the same inode number, size and times before, for other contents.
"""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import time
from pathlib import Path

CHUNK = 1 << 20
LARGE = 64 << 20
SETTLED = 2_000_000_000
LIMIT = 120_000  # a load of so many takes 60 ms, and each state begins with one

Token = tuple[str, int, int, int, int]


class Hashes:
    def __init__(self, file: Path) -> None:
        self._file = file
        self._known: dict[Token, bytes] = {}
        self.fresh: dict[Token, bytes] = {}
        self._clone, self._since = "", 0
        try:
            self._known = pickle.loads(file.read_bytes())
        except (OSError, pickle.UnpicklingError, EOFError):
            self._known = {}

    def of_clone(self, name: str, since_ns: int) -> None:
        """Whose files are asked for from now on, and when that one was made."""
        self._clone, self._since = name, since_ns

    def sha256(self, descriptor: int, found: os.stat_result, place: str) -> str:
        """place: which family of file systems the inode number belongs to; empty where nothing may be remembered."""
        if place and found.st_ctime_ns >= self._since:
            place = f"{place} of {self._clone}"
        token = (place, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)
        known = self._known.get(token)
        if known is not None:
            return known.hex()
        digest = _digest(descriptor, found.st_size)
        if place and abs(time.time_ns() - found.st_ctime_ns) > SETTLED:
            self.fresh[token] = digest
        return digest.hex()

    def learn(self, fresh: dict[Token, bytes]) -> None:
        """Kept for the next time if it is worth a write; another lab's write at the same time costs hashes, never truth."""
        self._known.update(fresh)
        if len(fresh) < 50:
            return
        if len(self._known) > LIMIT:
            self._known = dict(list(self._known.items())[-LIMIT // 2 :])
        written = self._file.with_suffix(f".{os.getpid()}.new")
        written.write_bytes(pickle.dumps(self._known))
        written.rename(self._file)


def _digest(descriptor: int, size: int) -> bytes:
    """sha256 of the content. Of a large file: of its size and its chunks that are not all zeros, each with its offset, so that a sparse
    file of 300 GB (lastlog is one) takes no longer than its data. Where the holes are is told by the blocks, not by this."""
    state = hashlib.sha256()
    if size < LARGE:
        while True:
            chunk = os.read(descriptor, CHUNK)
            if not chunk:
                return state.digest()
            state.update(chunk)
    state.update(size.to_bytes(8, "big"))
    offset = 0
    while offset < size:
        try:
            offset = os.lseek(descriptor, offset, os.SEEK_DATA) // CHUNK * CHUNK
        except OSError as error:
            if error.errno == errno.ENXIO:
                break
            raise
        chunk = os.pread(descriptor, CHUNK, offset)
        if chunk.strip(b"\0"):
            state.update(offset.to_bytes(8, "big") + chunk)
        offset += CHUNK
    return state.digest()
