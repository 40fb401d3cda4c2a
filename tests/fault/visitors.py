# SPDX-License-Identifier: GPL-3.0-or-later
"""Somebody else on the host while a transaction is open: what he does there, and what of it must still be there at the end.

    visit = act("append", chosen, base, mark)       does it; what was done, for the judgement (company.py)
    end(visit)                                      what he did for a while is over: the disk has room again, is writable, uncovered, back

No process of a step and no engine: whatever is done here is a person's, and stays his (I5).
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import random
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tree
from small import SmallHost

#: changes of his own, which stay; and what he does to the disk for a while
CHANGES = ("append", "sed", "new", "mv", "ln", "rm", "chmod", "rewrite")
CONDITIONS = ("fill", "read-only", "cover", "away", "exchange", "map", "run")
_REMOUNT, _RDONLY, _DETACH = 32, 1, 2
_libc = ctypes.CDLL(None, use_errno=True)

Visit = dict[str, Any]


def act(kind: str, chosen: random.Random, base: str, mark: str, host: SmallHost) -> Visit:
    """`base`: the root of the host's second disk, in which the tree is `t`. Keys: kind, mark, paths (below base, all that he touched)."""
    visit: Visit = {"kind": kind, "mark": mark, "paths": [], "at": time.time_ns()}
    try:
        if kind == "exchange":
            _exchange(visit, base, host)
        else:
            _ACTS[kind](visit, chosen, base)
    except OSError as error:  # there is nothing of the kind, or the disk is full: he has done nothing
        visit["failed"] = str(error)
    return visit


def end(visit: Visit, base: str, host: SmallHost) -> None:
    """Of a disk that lay in the other's stead: what has become of it."""
    kind = visit["kind"]
    if kind == "fill":
        with contextlib.suppress(FileNotFoundError):
            os.unlink(base + "/filler")
    elif kind == "read-only":
        _mount(b"none", base, _REMOUNT)
    elif kind == "cover" and not visit.get("failed"):
        _libc.umount2(os.fsencode(f"{base}/{visit['paths'][0]}"), _DETACH)
    elif kind == "away":
        host.mount_second()
    elif kind == "exchange" and not visit.get("failed"):
        spoilt = tree.differences(visit.pop("disk"), tree.look(base))
        visit["spoilt"] = [line for line in spoilt if "<" not in line and not line.startswith(("t: mtime", "t/d: mtime"))][:5]
        _libc.umount2(os.fsencode(base), _DETACH)
        if host.second_fs != "tmpfs":
            host.mount_second()


def _files(base: str) -> list[str]:
    found = []
    for folder, folders, files in os.walk(base + "/t"):
        folders.sort()
        found += [os.path.join(folder, name) for name in sorted(files)]
    return [path for path in found if stat.S_ISREG(os.lstat(path).st_mode)]


def _folders(base: str) -> list[str]:
    return sorted(folder for folder, _folders, _files in os.walk(base + "/t"))


def _pick(chosen: random.Random, found: list[str]) -> str:
    if not found:
        raise FileNotFoundError("there is nothing to choose from")
    return chosen.choice(found)


def _touched(visit: Visit, base: str, *paths: str) -> None:
    visit["paths"] += [os.path.relpath(path, base) for path in paths]


def _append(visit: Visit, chosen: random.Random, base: str) -> None:
    path = _pick(chosen, _files(base))
    with open(path, "ab") as f:
        f.write(visit["mark"].encode())
    _touched(visit, base, path)


def _sed(visit: Visit, chosen: random.Random, base: str) -> None:
    """As `sed -i` and vim do: a new file of the same mode and owner takes the name."""
    path = _pick(chosen, _files(base))
    info, temporary = os.stat(path), os.path.dirname(path) + "/sed" + visit["mark"]
    with open(path, "rb") as old, open(temporary, "xb") as new:
        new.write(old.read() + visit["mark"].encode())
    os.chown(temporary, info.st_uid, info.st_gid)
    os.chmod(temporary, stat.S_IMODE(info.st_mode))
    os.rename(temporary, path)
    _touched(visit, base, path)


def _new(visit: Visit, chosen: random.Random, base: str) -> None:
    path = _pick(chosen, _folders(base)) + "/new" + visit["mark"]
    with open(path, "xb") as f:
        f.write(visit["mark"].encode())
    _touched(visit, base, path)


def _mv(visit: Visit, chosen: random.Random, base: str) -> None:
    path = _pick(chosen, _files(base) + _folders(base)[1:])
    to = os.path.dirname(path) + "/mv" + visit["mark"]
    os.rename(path, to)
    _touched(visit, base, path, to)


def _ln(visit: Visit, chosen: random.Random, base: str) -> None:
    path = _pick(chosen, _files(base))
    to = os.path.dirname(path) + "/ln" + visit["mark"]
    os.link(path, to)
    _touched(visit, base, path, to)


def _rm(visit: Visit, chosen: random.Random, base: str) -> None:
    path = _pick(chosen, _files(base))
    os.unlink(path)
    _touched(visit, base, path)


def _chmod(visit: Visit, chosen: random.Random, base: str) -> None:
    path = _pick(chosen, _files(base))
    os.chmod(path, 0o711)
    _touched(visit, base, path)


def _rewrite(visit: Visit, chosen: random.Random, base: str) -> None:
    path = _pick(chosen, _files(base))
    with open(path, "r+b") as f:
        f.write(visit["mark"].encode())
    _touched(visit, base, path)


def _fill(visit: Visit, chosen: random.Random, base: str) -> None:
    """All but some KiB."""
    fd = os.open(base + "/filler", os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        info = os.fstatvfs(fd)
        size = max(0, info.f_bavail * info.f_frsize - chosen.choice((0, 8, 60, 200)) * 1024)
        while size > 4096:
            try:
                os.posix_fallocate(fd, os.fstat(fd).st_size, size)
            except OSError:
                size //= 2
            else:
                break
    finally:
        os.close(fd)


def _read_only(visit: Visit, chosen: random.Random, base: str) -> None:
    _mount(b"none", base, _REMOUNT | _RDONLY)


def _cover(visit: Visit, chosen: random.Random, base: str) -> None:
    path = _pick(chosen, _folders(base))
    _mount(b"tmpfs", path, 0, b"tmpfs")
    Path(path, "his" + visit["mark"]).write_text(visit["mark"])
    _touched(visit, base, path)


def _away(visit: Visit, chosen: random.Random, base: str) -> None:
    if _libc.umount2(os.fsencode(base), _DETACH):
        raise OSError(ctypes.get_errno(), "umount")


def _exchange(visit: Visit, base: str, host: SmallHost) -> None:
    """Another disk of the same type takes its place; one in memory, which would be gone, it covers."""
    if host.second_fs != "tmpfs":
        _away(visit, random.Random(0), base)
    host.mount_third()
    os.makedirs(base + "/t/d", exist_ok=True)
    Path(base, "t", "d", "other").write_text(visit["mark"])
    visit["disk"] = tree.look(base)


def _map(visit: Visit, chosen: random.Random, base: str) -> None:
    """A process has the file in its memory, and reads it again and again."""
    path = _pick(chosen, [path for path in _files(base) if os.path.getsize(path)])
    if os.fork() == 0:
        try:
            fd = os.open(path, os.O_RDONLY)
            with mmap.mmap(fd, 0, prot=mmap.PROT_READ) as memory:
                for _time in range(300):
                    bytes(memory[:: mmap.PAGESIZE])
                    time.sleep(0.01)
        finally:
            os._exit(0)


def _run(visit: Visit, chosen: random.Random, base: str) -> None:
    """The program that lies in the tree is started."""
    if os.fork() == 0:
        try:
            os.execv(base + "/t/tool", ["tool", "3"])
        finally:
            os._exit(0)
    time.sleep(0.01)


def _mount(source: bytes, target: str, flags: int, fstype: bytes | None = None) -> None:
    if _libc.mount(source, os.fsencode(target), fstype, flags, None):
        raise OSError(ctypes.get_errno(), f"mount {target}")


_ACTS: dict[str, Callable[[Visit, random.Random, str], None]] = {
    "append": _append,
    "sed": _sed,
    "new": _new,
    "mv": _mv,
    "ln": _ln,
    "rm": _rm,
    "chmod": _chmod,
    "rewrite": _rewrite,
    "fill": _fill,
    "read-only": _read_only,
    "cover": _cover,
    "away": _away,
    "map": _map,
    "run": _run,
}
