# SPDX-License-Identifier: GPL-3.0-or-later
"""One step whose calls this thread makes itself: before each, its images are taken as for a process that the trace sees.

    step = Traced(sandbox)
    step.call("unlinkat", AT_FDCWD, "/a/file", 0)
    assert step.undo() == []

The file system is one of its own, since the sandbox is a bind mount: links and renames do not leave one.
"""

from __future__ import annotations

import ctypes
import os
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.afterdigest import AfterDigest, now_ns
from engine.store import Store
from engine.trace.calls import MACHINES
from engine.trace.capture import Capture
from engine.trace.images import Images
from engine.trace.notify import Note
from engine.trace.subjects import Observed
from engine.undo import undo
from engine.undoing.ground import Outcome
from engine.undolog import Writer
from engine.wanted import read

AT_FDCWD, EXCHANGE = -100, 2
_ABI = MACHINES[os.uname().machine][0]
_NUMBERS = {call.name: number for number, call in _ABI.calls.items()}
_TICK = 0.03  # what is born in the same tick as the epoch is taken for old

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


def look(root: Path) -> dict[str, tuple[object, ...]]:
    """All that is there."""
    found = {}
    for path in [root, *sorted(root.rglob("*"))]:
        if ".acid-store" in path.parts:
            continue
        info = path.lstat()
        data = path.read_bytes() if stat.S_ISREG(info.st_mode) else b""
        links = 0 if stat.S_ISDIR(info.st_mode) else info.st_nlink  # the store's own directory counts in the root's
        found[str(path)] = (info.st_mode, links, info.st_uid, info.st_gid, info.st_mtime_ns, data)
    return found


def _make(name: str, words: list[int | bytes]) -> int:
    result = int(_libc.syscall(_NUMBERS[name], *(ctypes.c_long(word) if isinstance(word, int) else word for word in words)))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), name)
    return result


class Traced:
    """What lies in `place`, a file system of its own, is old. `undo` tells what has not come back."""

    def __init__(self, sandbox: Path, place: Path, *, caller: ThreadPoolExecutor | None = None, deny: bool = False) -> None:
        """`caller`: one thread with a mount namespace of its own, which makes the calls."""
        (sandbox / "state").mkdir()
        self.folder = sandbox / "tx"
        self.folder.mkdir()
        self._place, self._before = place, look(place) if place.exists() else {}
        self.store, self.log = Store("tx", state=str(sandbox / "state")), Writer.create(str(self.folder))
        self.observed: list[Observed] = []
        self.images = Images(self.store, self.log, outside=(), next_directory=1, observe=self.observed.append, deny=deny)
        self.capture = Capture(self.images)
        self.resolver = self.capture.resolver()
        self._caller = caller
        self.resolver.careful = caller is not None
        self.step = 1
        self.capture.epoch(1, 1)
        time.sleep(_TICK)

    def next_step(self) -> tuple[int, int]:
        """The step ends: when it began, as far as anybody knows, and when it ended."""
        began, end = self.images.epoch_start, now_ns()
        self.capture.settle()
        AfterDigest(self.images, self.log).note(self.step, end)
        time.sleep(_TICK)
        self.step += 1
        return began, end

    def begins(self) -> None:
        """The next step, after whatever others have done."""
        time.sleep(_TICK)
        self.capture.epoch(self.step, self.step)
        time.sleep(_TICK)

    def sees(self, name: str, *arguments: int | str | bytes) -> list[int | bytes]:
        """Its images are taken; the call is not made. The arguments for it."""
        words = [argument.encode() if isinstance(argument, str) else argument for argument in arguments]
        self._buffers = [ctypes.create_string_buffer(word) if isinstance(word, bytes) else word for word in words]
        numbers = [word & (1 << 64) - 1 if isinstance(word, int) else ctypes.addressof(word) for word in self._buffers]
        numbers += [0] * (6 - len(numbers))
        thread = self.act(threading.get_native_id)
        self.capture.back(thread)
        note = Note(1, thread, _NUMBERS[name], _ABI.audit, tuple(numbers))
        self.capture.handle(note, _ABI.calls[_NUMBERS[name]], self.step, self.resolver)
        return words

    def act(self, what: Callable[..., int], *arguments: object) -> int:
        return what(*arguments) if self._caller is None else self._caller.submit(what, *arguments).result()

    def call(self, name: str, *arguments: int | str | bytes) -> int:
        words = self.sees(name, *arguments)
        return self.act(_make, name, words)

    # -- what programs do, each by an absolute path ------------------------------------------------------------------------

    def mkdir(self, path: Path) -> None:
        self.call("mkdirat", AT_FDCWD, str(path), 0o755)

    def write(self, path: Path, text: bytes) -> None:
        fd = self.call("openat", AT_FDCWD, str(path), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        os.write(fd, text)
        os.close(fd)

    def unlink(self, path: Path) -> None:
        self.call("unlinkat", AT_FDCWD, str(path), 0)

    def chmod(self, path: Path, mode: int) -> None:
        self.call("fchmodat", AT_FDCWD, str(path), mode)

    def rename(self, old: Path, new: Path, flags: int = 0) -> None:
        self.call("renameat2", AT_FDCWD, str(old), AT_FDCWD, str(new), flags)

    def undo_once(self) -> Outcome:
        """It can be done again, by a transaction that stays open."""
        self.capture.settle()
        return undo(self.store, self.log, read(str(self.folder)), epoch=0)

    def not_as_before(self) -> list[str]:
        after = look(self._place) if self._place.exists() else {}
        return [
            f"{path}: {self._before.get(path)} -> {after.get(path)}"
            for path in sorted({*self._before, *after})
            if self._before.get(path) != after.get(path)
        ]

    def undo(self) -> list[str]:
        outcome = self.undo_once()
        self.close()
        return outcome.differs + self.not_as_before()

    def close(self) -> None:
        self.log.close()
        self.store.close()
