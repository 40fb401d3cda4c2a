# SPDX-License-Identifier: GPL-3.0-or-later
"""The preloaded library (src/fault.c): build it, and arm it from the process that it is loaded into.

library = build(folder)         then start Python with LD_PRELOAD=library
faults = Faults()               before any fork: its counters are shared with all processes forked later
faults.arm(Fault(mode=KILL_ALL, at=17));  faults.on();  faults.count()
"""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path
from typing import NamedTuple

COUNT, KILL_ALL, KILL_SELF, ERRNO, POWER, HALF_KILL, HALF_POWER, COMPANY = range(8)
ENGINE, STEP = 1, 2
FILES, TALK = 1, 2
SYNCED_LOG, SYNCED_FILE, MADE_COPY, WROTE_HEAD, SYNCED_HEAD, ANSWERED = range(1, 7)
EVENTS, NAMES = 65536, 8192


class Fault(NamedTuple):
    """What happens at the `at`-th counted call, and at the `length - 1` after it; `at` 0: nothing."""

    mode: int = COUNT
    at: int = 0
    length: int = 1
    error: int = 0
    roles: int = ENGINE | STEP
    classes: int = FILES | TALK


class Event(NamedTuple):
    """kind; the descriptor; how many bytes of the undo log were filled then; the file's inode number."""

    kind: int
    fd: int
    log: int
    inode: int


class _Event(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int32), ("fd", ctypes.c_int32), ("log", ctypes.c_int64), ("inode", ctypes.c_int64)]


class _Shared(ctypes.Structure):
    _fields_ = (
        [(name, ctypes.c_int64) for name in ("count", "at", "length", "fired", "on")]
        + [(name, ctypes.c_int32) for name in ("mode", "error", "roles", "classes", "recording", "asked", "answered", "pad")]
        + [("last", ctypes.c_char * 64), ("events", ctypes.c_int64), ("event", _Event * EVENTS)]
        + [("names", (ctypes.c_char * 16) * NAMES)]
    )


def build(folder: Path) -> Path:
    source, library = Path(__file__).resolve().parent / "src" / "fault.c", folder / "fault.so"
    command = ["gcc", "-O1", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", str(library), str(source), "-ldl"]
    subprocess.run(command, check=True)
    return library


class Faults:
    """Raises AttributeError where the library is not loaded."""

    def __init__(self) -> None:
        self._library = ctypes.CDLL(None)
        self._library.fault_size.restype = ctypes.c_long
        if self._library.fault_size() != ctypes.sizeof(_Shared):
            raise ValueError("faults.py and src/fault.c disagree")
        self._library.fault_memory.restype = ctypes.POINTER(_Shared)
        self._shared = self._library.fault_memory().contents

    def role(self, role: int) -> None:
        """This process's calls are counted from now on, those of its later children too; 0: no more."""
        self._library.fault_role(role)

    def arm(self, fault: Fault) -> None:
        """Not yet: `on` lets the counting begin."""
        shared = self._shared
        shared.on = shared.count = shared.fired = shared.events = shared.recording = 0
        shared.mode, shared.at, shared.length, shared.error = fault.mode, fault.at, fault.length, fault.error
        shared.roles, shared.classes, shared.last = fault.roles, fault.classes, b""
        shared.asked = shared.answered = 0

    def on(self) -> None:
        self._shared.on = 1

    def off(self) -> None:
        self._shared.on = 0

    def asked(self) -> bool:
        """Of the mode COMPANY: whether the call has come. It waits for `answer`."""
        return bool(self._shared.asked)

    def answer(self) -> None:
        self._shared.answered = 1

    def disarm(self) -> None:
        self._shared.at = 0

    def record(self) -> None:
        """Note the engine's order of writes and answers, for `events`."""
        self._shared.recording = 1

    def events(self) -> list[Event]:
        if self._shared.events > EVENTS:
            raise ValueError(f"{self._shared.events} events, and room for {EVENTS}")
        return [Event(e.kind, e.fd, e.log, e.inode) for e in self._shared.event[: self._shared.events]]

    @property
    def count(self) -> int:
        return int(self._shared.count)

    def names(self) -> list[str]:
        """What the calls counted since `arm` were; the first one is number 1."""
        return [bytes(name.value).decode() for name in self._shared.names[1 : min(self.count + 1, NAMES)]]

    @property
    def fired(self) -> int:
        return int(self._shared.fired)

    @property
    def last(self) -> str:
        """The call at which it fired first."""
        return bytes(self._shared.last).decode()
