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

from .errors import JournalDamaged, JournalUnwritable
from .window import Window

_FRAME = struct.Struct("<IQB")
_HEAD = struct.Struct("<8sQ16s")
_NOTHING_YET = bytes(_FRAME.size)
_MAGIC = b"acidlog1"
_CHAIN = 16
_LENGTH = struct.Struct("<I")
_UNFINISHED = 1 << 31

# How a KEEP or CONTENT image is stored
LINK, INLINE, COPY, NOTHING = 1, 2, 3, 4


class FileSystemSeen(t.NamedTuple):
    """Number `fs` stands for this file system from here on. dev: (major << 32) | minor, for display; mount_point: where, in PID 1's
    namespace."""

    fs: int
    dev: int
    fstype: bytes
    mount_point: bytes


class DirectorySeen(t.NamedTuple):
    """Number `directory` stands for the directory with this handle; path for display and as a hint only."""

    directory: int
    fs: int
    handle: bytes
    path: bytes


class EpochStarted(t.NamedTuple):
    """Images from here on belong to `epoch`, begun by step number `step` (0: a savepoint or the transaction's begin)."""

    epoch: int
    step: int


class Entry(t.NamedTuple):
    """Place (directory, name) held the inode (fs, handle) of this mode; mode 0: it held nothing."""

    step: int
    directory: int
    mode: int
    fs: int
    handle: bytes
    name: bytes


class Keep(t.NamedTuple):
    """The inode is about to lose a name. LINK: store name `number`; INLINE: `data` is all of it (or a symlink's target);
    COPY: copy `number`; NOTHING: directories and special files, whose metadata is all."""

    step: int
    fs: int
    handle: bytes
    how: int
    number: int
    data: bytes


class Basic(t.NamedTuple):
    """Owner, mode, times (ns), size and device number of an inode before they change."""

    step: int
    fs: int
    handle: bytes
    mode: int
    uid: int
    gid: int
    rdev: int
    size: int
    atime: int
    mtime: int
    path: bytes


class Xattrs(t.NamedTuple):
    """All extended attributes (ACLs and capabilities are such) before one changes."""

    step: int
    fs: int
    handle: bytes
    pairs: tuple[tuple[bytes, bytes], ...]


class Flags(t.NamedTuple):
    """Inode flags (chattr) before they change."""

    step: int
    fs: int
    handle: bytes
    flags: int


class Content(t.NamedTuple):
    """A regular file's data before an in-place write: INLINE in `data`, or COPY number `number`; size in bytes."""

    step: int
    fs: int
    handle: bytes
    how: int
    number: int
    size: int
    data: bytes


class Value(t.NamedTuple):
    """What a file under /proc/sys or /sys said before it was written."""

    step: int
    path: bytes
    value: bytes


class Dropped(t.NamedTuple):
    """The call that KEEP number `number` was for has failed: the image is void."""

    fs: int
    handle: bytes
    number: int


class Alias(t.NamedTuple):
    """Undo had to make inode (fs, handle) anew; it lives on as `now`."""

    fs: int
    handle: bytes
    now: bytes


class Undone(t.NamedTuple):
    """All images of `epoch` and later have been made true: they are void. But for those of what was held back (I5): `places` as (directory,
    name), `inodes` as (file system, handle)."""

    epoch: int
    places: tuple[tuple[int, bytes], ...] = ()
    inodes: tuple[tuple[int, bytes], ...] = ()


class LeftPlace(t.NamedTuple):
    """Who stood at place (directory, name): inode number and birth time (0 where the file system knows none); number 0: nobody."""

    directory: int
    ino: int
    btime: int
    name: bytes


class Left(t.NamedTuple):
    """The after-digest of the places that `step` had touched when it ended (I5). Of inodes it is the time of the step's end."""

    step: int
    places: tuple[LeftPlace, ...]


class LeftContent(t.NamedTuple):
    """What `step` left in a small file that can be merged (drift/mergeable.py)."""

    step: int
    path: bytes
    data: bytes


class Sealed(t.NamedTuple):
    """The last process of `step` ended at `ended_ns` (CLOCK_REALTIME; 0: some live on). `offset_ns`: CLOCK_REALTIME less CLOCK_BOOTTIME,
    which tells whether the clock was set since."""

    step: int
    ended_ns: int
    offset_ns: int


class UndoRun(t.NamedTuple):
    """An undo to the start of `epoch` of a transaction that goes on, in these times (CLOCK_REALTIME); `ended_ns` 0: it has begun."""

    epoch: int
    began_ns: int
    ended_ns: int
    offset_ns: int


Image = t.Union[
    FileSystemSeen,
    DirectorySeen,
    EpochStarted,
    Entry,
    Keep,
    Basic,
    Xattrs,
    Flags,
    Content,
    Value,
    Dropped,
    Alias,
    Undone,
    Left,
    LeftContent,
    Sealed,
    UndoRun,
]


def _strings(values: t.Sequence[bytes]) -> bytes:
    return b"".join([struct.pack("<I", len(v)) + v for v in values])


def _unstrings(data: bytes, at: int) -> tuple[bytes, ...]:
    values = []
    while at < len(data):
        (length,) = struct.unpack_from("<I", data, at)
        values.append(data[at + 4 : at + 4 + length])
        at += 4 + length
    return tuple(values)


_FS, _DIR, _EPOCH = struct.Struct("<HQB"), struct.Struct("<IHB"), struct.Struct("<II")
_ENTRY, _KEEP, _BASIC = struct.Struct("<IIIHB"), struct.Struct("<IHBBQ"), struct.Struct("<IHBIIIQQqq")
_INODE, _FLAGS, _CONTENT = struct.Struct("<IHB"), struct.Struct("<IHBI"), struct.Struct("<IHBBQQ")
_VALUE, _DROPPED, _UNDONE = struct.Struct("<IH"), struct.Struct("<HQ"), struct.Struct("<I")
_HELD, _LEFT, _STEP, _SEALED, _UNDO_RUN = (
    struct.Struct("<IH"),
    struct.Struct("<IQQH"),
    struct.Struct("<I"),
    struct.Struct("<Iqq"),
    struct.Struct("<Iqqq"),
)


def encode(r: Image) -> tuple[int, bytes]:
    """The record's kind and payload."""
    if isinstance(r, Entry):
        return 4, _ENTRY.pack(r.step, r.directory, r.mode, r.fs, len(r.handle)) + r.handle + r.name
    if isinstance(r, Basic):
        return 6, _BASIC.pack(r.step, r.fs, len(r.handle), r.mode, r.uid, r.gid, r.rdev, r.size, r.atime, r.mtime) + r.handle + r.path
    if isinstance(r, Keep):
        return 5, _KEEP.pack(r.step, r.fs, len(r.handle), r.how, r.number) + r.handle + r.data
    if isinstance(r, Content):
        return 9, _CONTENT.pack(r.step, r.fs, len(r.handle), r.how, r.number, r.size) + r.handle + r.data
    if isinstance(r, DirectorySeen):
        return 2, _DIR.pack(r.directory, r.fs, len(r.handle)) + r.handle + r.path
    if isinstance(r, Xattrs):
        flat = [part for pair in r.pairs for part in pair]
        return 7, _INODE.pack(r.step, r.fs, len(r.handle)) + r.handle + _strings(flat)
    if isinstance(r, Flags):
        return 8, _FLAGS.pack(r.step, r.fs, len(r.handle), r.flags) + r.handle
    if isinstance(r, FileSystemSeen):
        return 1, _FS.pack(r.fs, r.dev, len(r.fstype)) + r.fstype + r.mount_point
    if isinstance(r, EpochStarted):
        return 3, _EPOCH.pack(r.epoch, r.step)
    if isinstance(r, Value):
        return 10, _VALUE.pack(r.step, len(r.path)) + r.path + r.value
    if isinstance(r, Dropped):
        return 11, _DROPPED.pack(r.fs, r.number) + r.handle
    if isinstance(r, Alias):
        return 12, _INODE.pack(0, r.fs, len(r.handle)) + r.handle + r.now
    if isinstance(r, Left):
        flat = [part for directory, ino, btime, name in r.places for part in (_LEFT.pack(directory, ino, btime, len(name)), name)]
        return 14, _STEP.pack(r.step) + b"".join(flat)
    if isinstance(r, LeftContent):
        return 15, _VALUE.pack(r.step, len(r.path)) + r.path + r.data
    if isinstance(r, Sealed):
        return 16, _SEALED.pack(*r)
    if isinstance(r, UndoRun):
        return 17, _UNDO_RUN.pack(*r)
    held = [part for number, name in r.places for part in (_HELD.pack(number, len(name)), name)]
    held += [part for number, name in r.inodes for part in (_HELD.pack(number, len(name)), name)]
    return 13, _UNDONE.pack(r.epoch) + (_UNDONE.pack(len(r.places)) + b"".join(held) if held else b"")


def decode(kind: int, data: bytes) -> Image:
    """The record of a payload. JournalDamaged for a kind that this engine does not know."""
    if kind == 4:
        step, directory, mode, fs, n = _ENTRY.unpack_from(data)
        return Entry(step, directory, mode, fs, data[15 : 15 + n], data[15 + n :])
    if kind == 6:
        step, fs, n, mode, uid, gid, rdev, size, atime, mtime = _BASIC.unpack_from(data)
        return Basic(step, fs, data[51 : 51 + n], mode, uid, gid, rdev, size, atime, mtime, data[51 + n :])
    if kind == 5:
        step, fs, n, how, number = _KEEP.unpack_from(data)
        return Keep(step, fs, data[16 : 16 + n], how, number, data[16 + n :])
    if kind == 9:
        step, fs, n, how, number, size = _CONTENT.unpack_from(data)
        return Content(step, fs, data[24 : 24 + n], how, number, size, data[24 + n :])
    if kind == 2:
        directory, fs, n = _DIR.unpack_from(data)
        return DirectorySeen(directory, fs, data[7 : 7 + n], data[7 + n :])
    if kind == 7:
        step, fs, n = _INODE.unpack_from(data)
        flat = _unstrings(data, 7 + n)
        return Xattrs(step, fs, data[7 : 7 + n], tuple(zip(flat[::2], flat[1::2])))
    if kind == 8:
        step, fs, n, flags = _FLAGS.unpack_from(data)
        return Flags(step, fs, data[11 : 11 + n], flags)
    if kind == 1:
        fs, dev, n = _FS.unpack_from(data)
        return FileSystemSeen(fs, dev, data[11 : 11 + n], data[11 + n :])
    if kind == 3:
        return EpochStarted(*_EPOCH.unpack(data))
    if kind == 10:
        step, n = _VALUE.unpack_from(data)
        return Value(step, data[6 : 6 + n], data[6 + n :])
    if kind == 11:
        fs, number = _DROPPED.unpack_from(data)
        return Dropped(fs, data[10:], number)
    if kind == 12:
        _step, fs, n = _INODE.unpack_from(data)
        return Alias(fs, data[7 : 7 + n], data[7 + n :])
    if kind == 13:
        return _undone(data)
    if kind == 14:
        return Left(_STEP.unpack_from(data)[0], tuple(_left_places(data)))
    if kind == 15:
        step, n = _VALUE.unpack_from(data)
        return LeftContent(step, data[6 : 6 + n], data[6 + n :])
    if kind == 16:
        return Sealed(*_SEALED.unpack(data))
    if kind == 17:
        return UndoRun(*_UNDO_RUN.unpack(data))
    raise JournalDamaged("undo log: record of unknown kind %d" % kind, hint="A later engine wrote it: use that engine's acidctl.")


def _left_places(data: bytes) -> t.Iterator[LeftPlace]:
    at = _STEP.size
    while at < len(data):
        directory, ino, btime, n = _LEFT.unpack_from(data, at)
        at += _LEFT.size + n
        yield LeftPlace(directory, ino, btime, data[at - n : at])


def _undone(data: bytes) -> Undone:
    (epoch,), at, held = _UNDONE.unpack_from(data), _UNDONE.size * 2, []
    while at < len(data):
        number, n = _HELD.unpack_from(data, at)
        at += _HELD.size + n
        held.append((number, data[at - n : at]))
    places = _UNDONE.unpack_from(data, _UNDONE.size)[0] if held else 0
    return Undone(epoch, tuple(held[:places]), tuple(held[places:]))


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

    @classmethod
    def create(cls, directory: str) -> Writer:
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
        kind, payload = encode(record)
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
        _LENGTH.pack_into(memory, at, length | _UNFINISHED)
        memory[at + 4 : at + size] = body[4:] + chain
        _LENGTH.pack_into(memory, at, length)
        window.at += size
        self.count += 1
        self._chain = chain

    def sync(self) -> None:
        """All records are on the disk when this returns. After an error nothing can be said of them any more: do not try it again."""
        if self._synced == self.count:
            return
        try:
            os.fdatasync(self._fd)
        except OSError as error:
            raise JournalUnwritable(
                "undo log %s/log does not reach the disk: %s" % (self._directory, error.strerror), hint="See to the disk, then roll back."
            ) from error
        self._synced = self.count

    def write_head(self, *, durable: bool = False) -> None:
        """HEAD lags the log and never leads it: with `durable` the log reaches the disk first, then HEAD."""
        if durable:
            self.sync()
        fd = os.open(self._directory + "/head", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(fd, _HEAD.pack(_MAGIC, self.count, self._chain), 0)
            if durable:
                os.fsync(fd)
        finally:
            os.close(fd)

    def close(self) -> None:
        self._window.close()
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
