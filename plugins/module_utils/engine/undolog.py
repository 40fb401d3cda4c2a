# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The undo log: an append-only file of before-images, one framed record after the other, each written before the change may happen (I1).

    log = Writer.create(path);  log.append(Entry(...));  log.head()     the agent, while steps run
    for record in read(path, head): ...                                 undo, diff, verify

Frame: length (u32) of the payload, number (u64, from 0), kind (u8), payload, chain (16 bytes): blake2b over the chain before and this
frame. Behind the last frame come the zeros of what is allocated and not yet used (window.py).

A writer that dies leaves at most one frame half copied, and its length says so by the highest bit: a reader ends there, provided that HEAD
(number and chain, kept in a file of its own, written at step boundaries) is not beyond it. Any other damage is refused before a path is
touched (I7). The next writer (`Writer.resume`) cuts the torn tail off, which no change can have followed.
"""

from __future__ import annotations

import hashlib
import os
import struct
import typing as t

from . import formats, whole
from .errors import JournalDamaged, JournalUnwritable
from .records import Image, decode, encode
from .window import Window

_FRAME = struct.Struct("<IQB")
_HEAD = struct.Struct("<8sQ16s")
_NOTHING_YET = bytes(_FRAME.size)
_MAGIC = b"acidlog1"
_CHAIN = 16
_UNFINISHED = 1 << 31


class Head(t.NamedTuple):
    """How many records the log holds at least, and the chain after the last of them."""

    records: int
    chain: bytes


class Writer:
    """Appends to one transaction's log. Not thread-safe: the caller holds the transaction's lock."""

    def __init__(self, directory: str, fd: int, head: Head) -> None:
        self._directory, self._fd = directory, fd
        self._window = Window(fd, os.fstat(fd).st_size)
        self.count, self._chain = head
        self._synced = 0
        self._lost = ""

    @classmethod
    def create(cls, directory: str) -> Writer:
        formats.write(directory)
        fd = os.open(directory + "/log", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        writer = cls(directory, fd, Head(0, bytes(_CHAIN)))
        writer.write_head()
        return writer

    @classmethod
    def resume(cls, directory: str, *, after_power_cut: bool = False, synced: bool = False) -> Writer:
        """Go on after a crash: verify, cut a torn tail, append behind it."""
        reader = Reader(directory, after_power_cut=after_power_cut, synced=synced)
        for _record in reader:
            pass
        fd = os.open(directory + "/log", os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(fd, reader.good_bytes)
        return cls(directory, fd, Head(reader.count, reader.chain))

    def append(self, record: Image) -> None:
        """One frame. While it is being copied its length says so, so that a writer's death is seen; where there is no space for it, it
        raises, and the change must not happen."""
        self.append_packed(*encode(record))

    def append_packed(self, kind: int, payload: bytes) -> None:
        """Likewise, of a record that is packed already."""
        length = len(payload)
        body = _FRAME.pack(length, self.count, kind) + payload
        chain = hashlib.blake2b(self._chain + body, digest_size=_CHAIN).digest()
        size = _FRAME.size + length + _CHAIN
        window = self._window
        try:
            memory = window.room(size)
        except OSError as error:
            raise JournalUnwritable(
                "undo log %s/log: no space for %d bytes (%s)" % (self._directory, size, error.strerror),
                hint="Free space there, then roll back.",
            ) from error
        at = window.at - window.base
        # By its highest byte alone: pack_into would clear all four first, and a death then would leave a whole frame without its length.
        memory[at + 3] = body[3] | _UNFINISHED >> 24
        memory[at : at + 3] = body[:3]
        memory[at + 4 : at + size] = body[4:] + chain
        memory[at + 3] = body[3]
        window.at += size
        self.count += 1
        self._chain = chain

    def sync(self) -> None:
        """All records are on the disk when this returns. After an error nothing can be said of them any more: each later call raises."""
        if self._synced == self.count:
            return
        try:
            if not self._lost:
                os.fdatasync(self._fd)
        except OSError as error:
            self._lost = error.strerror or str(error)
        if self._lost:
            raise JournalUnwritable(
                "undo log %s/log does not reach the disk: %s" % (self._directory, self._lost), hint="See to the disk, then roll back."
            )
        self._synced = self.count

    def write_head(self, *, durable: bool = False) -> None:
        """HEAD lags the log and never leads it: with `durable` the log reaches the disk first, then HEAD."""
        if durable:
            self.sync()
        fd = os.open(self._directory + "/head", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            whole.write_at(fd, _HEAD.pack(_MAGIC, self.count, self._chain), 0)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        try:
            self._window.close()
        finally:
            os.close(self._fd)


class Reader:
    """Iterates over a log's records, oldest first, verifying numbers and chain; at the end also HEAD.

    `after_power_cut`: end at the first frame that is not whole. `synced`: HEAD never led the disk; without (`durability: process`) it is
    not asked after a power cut.
    """

    def __init__(self, directory: str, *, after_power_cut: bool = False, synced: bool = False) -> None:
        self._directory, self._lenient = directory, after_power_cut
        self._asks_head = synced or not after_power_cut
        self.count, self.chain, self.good_bytes = 0, bytes(_CHAIN), 0

    def _head(self) -> Head:
        try:
            with open(self._directory + "/head", "rb") as f:
                magic, count, chain = _HEAD.unpack(f.read())
        except (OSError, struct.error) as error:
            raise self._damaged("head", "HEAD is missing or cut short (%s)" % error) from error
        if magic != _MAGIC:
            raise self._damaged("head", "HEAD does not start with its magic")
        return Head(count, chain)

    def _damaged(self, name: str, what: str) -> JournalDamaged:
        return JournalDamaged(
            "%s/%s: %s" % (self._directory, name, what), hint="Nothing was touched. Restore the file from a backup, or acidctl resolve."
        )

    def __iter__(self) -> t.Iterator[Image]:
        formats.check_log(self._directory)
        head = self._head() if self._asks_head else Head(0, bytes(_CHAIN))
        try:
            log = open(self._directory + "/log", "rb", buffering=1 << 20)  # noqa: SIM115  (closed by the with below)
        except OSError as error:
            raise self._damaged("log", "it cannot be read (%s)" % error.strerror) from error
        with log as f:
            while True:
                if self.count == head.records and self.chain != head.chain:
                    raise self._damaged("log", "record %d does not match HEAD" % (self.count - 1))
                prefix = f.read(_FRAME.size)
                if len(prefix) < _FRAME.size:
                    break
                length, number, kind = _FRAME.unpack(prefix)
                if length & _UNFINISHED or prefix == _NOTHING_YET:
                    self._check_tail(f.read(), (length & ~_UNFINISHED) + _CHAIN if length else 0)
                    break
                rest = f.read(length + _CHAIN)
                if len(rest) < length + _CHAIN:
                    break
                frame = prefix + rest[:length]
                chain = hashlib.blake2b(self.chain + frame, digest_size=_CHAIN).digest()
                if number != self.count or chain != rest[length:]:
                    if self._lenient:
                        break
                    raise self._damaged("log", "record %d is damaged" % self.count)
                self.chain = chain
                self.count += 1
                self.good_bytes += len(frame) + _CHAIN
                yield decode(kind, frame[_FRAME.size :])
        if self.count < head.records:
            raise self._damaged("log", "%d records, but HEAD says %d" % (self.count, head.records))

    def _check_tail(self, tail: bytes, torn: int) -> None:
        """Behind the last frame, of which `torn` bytes may be left half copied, nothing was ever written."""
        if tail[torn:].strip(b"\0") and not self._lenient:
            raise self._damaged("log", "record %d is damaged" % self.count)
