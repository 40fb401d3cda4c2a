# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Small files as values: read with all their metadata, compared, and put back in one rename. For probes, whose images are JSON.

Order of putting back: data, owner, mode, xattrs, times, fsync, rename, fsync of the directory. chown drops capabilities, so xattrs
come after it; a default ACL of the directory adds one, so xattrs that were not there are removed.
"""

from __future__ import annotations

import base64
import contextlib
import os
import stat
from dataclasses import dataclass
from typing import Any

# Above, only metadata is kept: configuration is small, and images lie in the journal.
LARGEST = 1 << 20
# Short: a name of 255 bytes is never extended.
_FRESH = b".acid-fresh-"


@dataclass(frozen=True)
class Entry:
    """`data` is the content of a file (None when larger than LARGEST) or the target of a symlink; `names` those in a directory."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    data: bytes | None = None
    names: tuple[bytes, ...] = ()
    xattrs: tuple[tuple[str, bytes], ...] = ()

    def to_json(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "uid": self.uid,
            "gid": self.gid,
            "mtime_ns": self.mtime_ns,
            "ctime_ns": self.ctime_ns,
            "data": None if self.data is None else base64.b64encode(self.data).decode(),
            "names": [os.fsdecode(name) for name in self.names],
            "xattrs": [[name, base64.b64encode(value).decode()] for name, value in self.xattrs],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Entry:
        return cls(
            data["mode"],
            data["uid"],
            data["gid"],
            data["mtime_ns"],
            data["ctime_ns"],
            None if data["data"] is None else base64.b64decode(data["data"]),
            tuple(os.fsencode(name) for name in data["names"]),
            tuple((name, base64.b64decode(value)) for name, value in data["xattrs"]),
        )


def read(path: bytes) -> Entry | None:
    """None when there is nothing."""
    try:
        found = os.lstat(path)
        data: bytes | None = None
        names: tuple[bytes, ...] = ()
        if stat.S_ISLNK(found.st_mode):
            data = os.readlink(path)
        elif stat.S_ISREG(found.st_mode) and found.st_size <= LARGEST:
            data = _content(path)
        elif stat.S_ISDIR(found.st_mode):
            names = tuple(sorted(os.listdir(path)))
        xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(_xattr_names(path)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    return Entry(found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_ctime_ns, data, names, xattrs)


def _content(path: bytes) -> bytes:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        return file.read()


def _xattr_names(path: bytes) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        # A file system without them.
        return []


def read_tree(top: bytes) -> dict[bytes, Entry]:
    """`top` and all below it, by path; symlinks are not followed."""
    entry = read(top)
    if entry is None:
        return {}
    found = {top: entry}
    if stat.S_ISDIR(entry.mode):
        for name in entry.names:
            found.update(read_tree(os.path.join(top, name)))
    return found


def compare_entries(old: Entry | None, new: Entry | None) -> str:
    """What of `new` is not as in `old`, as the end of a sentence; empty when nothing is."""
    if old is None:
        return "" if new is None else "is there, and was not"
    if new is None:
        return "is gone"
    parts = []
    if stat.S_IFMT(old.mode) != stat.S_IFMT(new.mode):
        return "is of another type"
    for what, was, is_now in (
        ("mode", oct(stat.S_IMODE(old.mode)), oct(stat.S_IMODE(new.mode))),
        ("owner", f"{old.uid}:{old.gid}", f"{new.uid}:{new.gid}"),
        ("time", old.mtime_ns, new.mtime_ns),
    ):
        if was != is_now:
            parts.append(f"{what} {is_now} instead of {was}")
    if old.data != new.data:
        parts.append("another target" if stat.S_ISLNK(old.mode) else "another content")
    if old.xattrs != new.xattrs:
        parts.append("other xattrs")
    return f"has {', '.join(parts)}" if parts else ""


def put_back(path: bytes, entry: Entry) -> None:
    """Makes `path` what `entry` says, atomically; a directory is only made (see settle_directory). Raises OSError."""
    kind = stat.S_IFMT(entry.mode)
    if kind == stat.S_IFDIR:
        _make_way(path)
        os.mkdir(path, 0o700)
        return
    if kind not in (stat.S_IFREG, stat.S_IFLNK) or entry.data is None:
        raise OSError(0, "it is too large, or neither a file nor a symlink")
    fresh = os.path.join(os.path.dirname(path), _FRESH + os.urandom(6).hex().encode())
    try:
        if kind == stat.S_IFLNK:
            os.symlink(entry.data, fresh)
            _dress_link(fresh, entry)
        else:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(entry.data)
                file.flush()
                _dress(file.fileno(), entry)
                os.fsync(file.fileno())
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        os.rename(fresh, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
    _sync(os.path.dirname(path))


def sweep(folder: bytes) -> None:
    """Removes what a put_back that died has left in a directory."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        for name in os.listdir(folder):
            if name.startswith(_FRESH):
                os.unlink(os.path.join(folder, name))


def remove(path: bytes) -> None:
    """A directory only when it is empty. Raises OSError; nothing there is no error."""
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            os.unlink(path)
    with contextlib.suppress(FileNotFoundError):
        _sync(os.path.dirname(path))


def settle_directory(path: bytes, entry: Entry) -> None:
    """Owner, mode, xattrs and times of a directory, when nothing in it will change any more."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _dress(descriptor, entry)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _dress(descriptor: int, entry: Entry) -> None:
    os.fchown(descriptor, entry.uid, entry.gid)
    os.fchmod(descriptor, stat.S_IMODE(entry.mode))
    wanted = dict(entry.xattrs)
    with contextlib.suppress(OSError):
        for name in os.listxattr(descriptor):
            if name not in wanted:
                os.removexattr(descriptor, name)
    for name, value in wanted.items():
        os.setxattr(descriptor, name, value)
    _set_mtime(descriptor, os.fstat(descriptor), entry)


def _dress_link(path: bytes, entry: Entry) -> None:
    os.chown(path, entry.uid, entry.gid, follow_symlinks=False)
    for name, value in entry.xattrs:
        os.setxattr(path, name, value, follow_symlinks=False)
    os.utime(path, ns=(os.lstat(path).st_atime_ns, entry.mtime_ns), follow_symlinks=False)


def _set_mtime(descriptor: int, found: os.stat_result, entry: Entry) -> None:
    os.utime(descriptor, ns=(found.st_atime_ns, entry.mtime_ns))


def _make_way(path: bytes) -> None:
    if os.path.lexists(path):
        os.unlink(path)


def _sync(folder: bytes) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
