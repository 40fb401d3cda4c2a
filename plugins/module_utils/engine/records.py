# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The records of the undo log, and how each is packed. How they are framed and chained is undolog.py's business."""

from __future__ import annotations

import struct
import typing as t

from .attributes import Attributes
from .errors import JournalDamaged
from .identity import Identity

# How a KEEP or CONTENT image is stored
LINK, INLINE, COPY, NOTHING = 1, 2, 3, 4
#: The kind of a Basic
BASIC = 6


class FileSystemSeen(t.NamedTuple):
    """Number `fs` stands for this file system from here on. dev: (major << 32) | minor; mount_point: where, in PID 1's namespace;
    identity: how it is known again, None in logs of format 1."""

    fs: int
    dev: int
    fstype: bytes
    mount_point: bytes
    identity: Identity | None = None


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
    COPY: copy `number`, `data` its digest (store.py); NOTHING: directories and special files, whose metadata is all."""

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
    """Inode flags (chattr) before they change. attributes: None where the file system has none, and in logs of engines that did not ask
    for them, which pass over them too."""

    step: int
    fs: int
    handle: bytes
    flags: int
    attributes: Attributes | None = None


class Content(t.NamedTuple):
    """A regular file's data before an in-place write: INLINE in `data`, or COPY number `number` with its digest in
    `data`; size in bytes."""

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


class Met(t.NamedTuple):
    """`step` comes to an inode that an earlier step of the transaction had hold of, and this is how it finds it: what was done to it in
    between is told by the time of its change."""

    step: int
    fs: int
    handle: bytes
    ino: int
    btime: int
    ctime: int


class MetPlace(t.NamedTuple):
    """The same of a place. ino 0: nobody stands there, and ctime is the directory's."""

    step: int
    directory: int
    mode: int
    fs: int
    handle: bytes
    ino: int
    btime: int
    ctime: int
    name: bytes


class MetContent(t.NamedTuple):
    """What `step` then found in a small file that can be merged (drift/mergeable.py)."""

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
    Met,
    MetPlace,
    MetContent,
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
_MET, _MET_PLACE = struct.Struct("<IHBQqq"), struct.Struct("<IIIHBQqq")
_ATTRIBUTES, _TIME = struct.Struct("<IIII"), struct.Struct("<q")
_VALUE, _DROPPED, _UNDONE = struct.Struct("<IH"), struct.Struct("<HQ"), struct.Struct("<I")
_HELD, _LEFT, _STEP, _SEALED, _UNDO_RUN = (
    struct.Struct("<IH"),
    struct.Struct("<IQQH"),
    struct.Struct("<I"),
    struct.Struct("<Iqq"),
    struct.Struct("<Iqqq"),
)


def basic(
    step: int, fs: int, handle: bytes, mode: int, uid: int, gid: int, rdev: int, size: int, atime: int, mtime: int, path: bytes
) -> bytes:
    """The payload of a Basic, the most frequent record, without the object."""
    return _BASIC.pack(step, fs, len(handle), mode, uid, gid, rdev, size, atime, mtime) + handle + path


def encode(r: Image) -> tuple[int, bytes]:
    """The record's kind and payload."""
    if isinstance(r, Entry):
        return 4, _ENTRY.pack(r.step, r.directory, r.mode, r.fs, len(r.handle)) + r.handle + r.name
    if isinstance(r, Basic):
        return BASIC, basic(*r)
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
        more = b"" if r.attributes is None else _ATTRIBUTES.pack(*r.attributes)
        return 8, _FLAGS.pack(r.step, r.fs, len(r.handle), r.flags) + r.handle + more
    if isinstance(r, FileSystemSeen):
        head = _FS.pack(r.fs, r.dev, len(r.fstype)) + r.fstype
        if r.identity is None:
            return 1, head + r.mount_point
        boot, own, root, handle, btime = r.identity
        return 18, head + _TIME.pack(btime) + _strings((r.mount_point, boot, own, root, handle))
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
    if isinstance(r, Met):
        return 20, _MET.pack(r.step, r.fs, len(r.handle), r.ino, r.btime, r.ctime) + r.handle
    if isinstance(r, MetPlace):
        return 21, _MET_PLACE.pack(r.step, r.directory, r.mode, r.fs, len(r.handle), r.ino, r.btime, r.ctime) + r.handle + r.name
    if isinstance(r, MetContent):
        return 22, _VALUE.pack(r.step, len(r.path)) + r.path + r.data
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
    if kind == BASIC:
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
        more = Attributes(*_ATTRIBUTES.unpack_from(data, 11 + n)) if len(data) > 11 + n else None
        return Flags(step, fs, data[11 : 11 + n], flags, more)
    if kind == 1:
        fs, dev, n = _FS.unpack_from(data)
        return FileSystemSeen(fs, dev, data[11 : 11 + n], data[11 + n :])
    if kind == 18:
        fs, dev, n = _FS.unpack_from(data)
        (btime,) = _TIME.unpack_from(data, 11 + n)
        mount_point, boot, own, root, handle = _unstrings(data, 19 + n)
        return FileSystemSeen(fs, dev, data[11 : 11 + n], mount_point, Identity(boot, own, root, handle, btime))
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
    if kind == 20:
        step, fs, _n, ino, btime, ctime = _MET.unpack_from(data)
        return Met(step, fs, data[_MET.size :], ino, btime, ctime)
    if kind == 21:
        step, directory, mode, fs, n, ino, btime, ctime = _MET_PLACE.unpack_from(data)
        at = _MET_PLACE.size + n
        return MetPlace(step, directory, mode, fs, data[_MET_PLACE.size : at], ino, btime, ctime, data[at:])
    if kind == 22:
        step, n = _VALUE.unpack_from(data)
        return MetContent(step, data[6 : 6 + n], data[6 + n :])
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
