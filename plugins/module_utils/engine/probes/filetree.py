# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Files as values: read with all their metadata, compared, and put back in one rename. For the probe `etc`.

Order of putting back: data, owner, mode, xattrs, times, fsync, rename, fsync of the directory. chown drops capabilities, so xattrs
come after it; a default ACL of the directory adds one, so xattrs that were not there are removed.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ..kernel import FS_APPEND_FL, FS_IMMUTABLE_FL, get_flags, set_flags, sync_directory

# Above, only metadata is kept: configuration is small.
LARGEST = 16 << 20
# The kernel's clock for files moves in ticks of up to 10 ms: what changed so shortly before it was read may change again unseen.
_TICKS_NS = 50_000_000
# Short: a name of 255 bytes is never extended.
_FRESH = b".acid-fresh-"


@dataclass(frozen=True)
class Entry:
    """`digest` is the sha256 of a file's content (empty when it is larger than LARGEST), `target` that of a symlink. `inode` is (device,
    number), `flags` those of chattr(1). `settled`: its ctime was old enough when it was read that an unchanged ctime means unchanged
    content."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    ctime_ns: int
    inode: tuple[int, int] = (0, 0)
    digest: str = ""
    target: bytes = b""
    xattrs: tuple[tuple[str, bytes], ...] = ()
    settled: bool = False
    flags: int = 0

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)

    def to_json(self) -> list[Any]:
        xattrs = [[name, base64.b64encode(value).decode()] for name, value in self.xattrs]
        own = [self.mode, self.uid, self.gid, self.mtime_ns, self.ctime_ns, *self.inode]
        return [*own, self.digest, os.fsdecode(self.target), xattrs, int(self.settled), self.flags]

    @classmethod
    def from_json(cls, data: list[Any]) -> Entry:
        mode, uid, gid, mtime_ns, ctime_ns, device, number, digest, target, xattrs, settled, flags = data
        pairs = tuple((name, base64.b64decode(value)) for name, value in xattrs)
        return cls(mode, uid, gid, mtime_ns, ctime_ns, (device, number), digest, os.fsencode(target), pairs, bool(settled), flags)


Tree = dict[bytes, Entry]
Keep = Callable[[str, bytes], None]


def _forget(digest: str, content: bytes) -> None:
    return None


def read(path: bytes, known: Entry | None = None, *, keep: Keep = _forget, now_ns: int = 0) -> Entry | None:
    """None when there is nothing. `known` is returned when its inode has not changed since; `keep` gets what had to be read."""
    try:
        found = os.lstat(path)
        inode = (found.st_dev, found.st_ino)
        if known is not None and known.settled and known.inode == inode and known.ctime_ns == found.st_ctime_ns:
            return known
        digest, target, flags = "", b"", 0
        if stat.S_ISLNK(found.st_mode):
            target = os.readlink(path)
        elif stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
            content, flags = _look_inside(path, found)
            if content is not None:
                digest = hashlib.sha256(content).hexdigest()
                keep(digest, content)
        xattrs = tuple((name, os.getxattr(path, name, follow_symlinks=False)) for name in sorted(_xattr_names(path)))
    except (FileNotFoundError, NotADirectoryError):
        return None
    settled = found.st_ctime_ns < now_ns - _TICKS_NS
    return Entry(
        found.st_mode, found.st_uid, found.st_gid, found.st_mtime_ns, found.st_ctime_ns, inode, digest, target, xattrs, settled, flags
    )


def _look_inside(path: bytes, found: os.stat_result) -> tuple[bytes | None, int]:
    """Content of a file that is not too large, and inode flags."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME | os.O_NONBLOCK | os.O_CLOEXEC)
    if stat.S_ISDIR(found.st_mode) or found.st_size > LARGEST:
        try:
            return None, get_flags(descriptor)
        finally:
            os.close(descriptor)
    with open(descriptor, "rb") as file:
        return file.read(), get_flags(descriptor)


def _xattr_names(path: bytes) -> list[str]:
    try:
        return os.listxattr(path, follow_symlinks=False)
    except OSError:
        # A file system without them.
        return []


def read_tree(
    top: bytes,
    known: Mapping[bytes, Entry] | None = None,
    *,
    keep: Keep = _forget,
    now_ns: int = 0,
    without: frozenset[bytes] = frozenset(),
) -> Tree:
    """`top` and all below it on its file system, by path; symlinks are not followed. `without`: paths that are left out."""
    known = known or {}
    entry = read(top, known.get(top), keep=keep, now_ns=now_ns)
    if entry is None:
        return {}
    found, folders = {top: entry}, [top] if entry.is_directory else []
    while folders:
        folder = folders.pop()
        try:
            names = os.listdir(folder)
        except (FileNotFoundError, NotADirectoryError):
            continue
        for name in names:
            path = folder + b"/" + name
            below = None if path in without else read(path, known.get(path), keep=keep, now_ns=now_ns)
            if below is not None:
                found[path] = below
                if below.is_directory and below.inode[0] == entry.inode[0]:
                    folders.append(path)
    return found


def names_in(tree: Mapping[bytes, Entry]) -> dict[bytes, set[bytes]]:
    """The paths in each directory of a tree."""
    found: dict[bytes, set[bytes]] = {path: set() for path, entry in tree.items() if entry.is_directory}
    for path in tree:
        folder = os.path.dirname(path)
        if folder in found and folder != path:
            found[folder].add(path)
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
    if old.flags != new.flags:
        parts.append("other inode flags")
    if old.target != new.target:
        parts.append("another target")
    if old.digest != new.digest:
        parts.append("another content")
    if old.xattrs != new.xattrs:
        parts.append("other xattrs")
    return f"has {', '.join(parts)}" if parts else ""


def put_back(path: bytes, entry: Entry, content: bytes | None = None, *, twin: bytes = b"") -> None:
    """Makes `path` what `entry` says, atomically; a directory is only made (see settle_directory). `content` of a file. Raises OSError.

    A file with several names that is still the same inode is written in place, so that they stay names of one file. `twin`: another name
    of that file, which is as it was.
    """
    kind = stat.S_IFMT(entry.mode)
    _loosen(path)
    if kind == stat.S_IFDIR:
        _make_way(path)
        os.mkdir(path, 0o700)
        return
    if kind not in (stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO) or (kind == stat.S_IFREG and content is None):
        raise OSError(0, "its content is not kept, or it is a device or a socket")
    if kind == stat.S_IFREG and content is not None and _shared(path, entry):
        _write_over(path, entry, content)
        return
    fresh = os.path.join(os.path.dirname(path), _FRESH + os.urandom(6).hex().encode())
    try:
        if kind == stat.S_IFLNK:
            os.symlink(entry.target, fresh)
            _dress_link(fresh, entry)
        elif kind == stat.S_IFIFO:
            os.mkfifo(fresh, 0o600)
            os.chmod(fresh, stat.S_IMODE(entry.mode))
            _dress_link(fresh, entry)
        elif twin:
            os.link(twin, fresh, follow_symlinks=False)
        else:
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(content or b"")
                file.flush()
                _dress(file.fileno(), entry)
                os.fsync(file.fileno())
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        os.rename(fresh, path)
        _set_flags(path, entry)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(fresh)
        raise
    sync_directory(os.path.dirname(path))


def _shared(path: bytes, entry: Entry) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) == entry.inode and found.st_nlink > 1


def _write_over(path: bytes, entry: Entry, content: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "wb") as file:
        file.write(content)
        file.truncate()
        file.flush()
        _dress(descriptor, entry)
        set_flags(descriptor, entry.flags)
        os.fsync(descriptor)


def _loosen(path: bytes) -> None:
    """An immutable or append-only file can be neither changed nor replaced; its flags come back with the rest."""
    with contextlib.suppress(OSError):
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            flags = get_flags(descriptor)
            if flags & (FS_IMMUTABLE_FL | FS_APPEND_FL):
                set_flags(descriptor, flags & ~(FS_IMMUTABLE_FL | FS_APPEND_FL))
        finally:
            os.close(descriptor)


def _set_flags(path: bytes, entry: Entry) -> None:
    if stat.S_ISREG(entry.mode) and entry.flags:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if get_flags(descriptor) != entry.flags:
                set_flags(descriptor, entry.flags)
        finally:
            os.close(descriptor)


def sweep(folder: bytes) -> None:
    """Removes what a put_back that died has left in a directory. What stays is seen, as all that was not there."""
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            if name.startswith(_FRESH):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(folder, name))


def remove(path: bytes) -> None:
    """A directory only when it is empty. Raises OSError; nothing there is no error."""
    _loosen(path)
    with contextlib.suppress(FileNotFoundError):
        if os.path.isdir(path) and not os.path.islink(path):
            os.rmdir(path)
        else:
            os.unlink(path)
    with contextlib.suppress(FileNotFoundError):
        sync_directory(os.path.dirname(path))


def settle_directory(path: bytes, entry: Entry) -> None:
    """Owner, mode, xattrs and times of a directory, when nothing in it will change any more."""
    _loosen(path)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _dress(descriptor, entry)
        if get_flags(descriptor) != entry.flags:
            set_flags(descriptor, entry.flags)
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
