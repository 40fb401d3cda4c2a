# SPDX-License-Identifier: GPL-3.0-or-later
"""What cannot be looked at, or of which no copy can be kept, is held back by itself: the rest is judged and undone."""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from engine.afterdigest import clock_offset_ns, now_ns
from engine.drift import aside, judge, merging
from engine.drift.ends import StepTimes
from engine.drift.mergeable import ROWS
from engine.drift.settle import About, Settled
from engine.drift.verdict import FORCE, MergePlan
from engine.records import Left, LeftPlace, Sealed
from engine.undo import undo
from engine.wanted import read

_spec = importlib.util.spec_from_file_location("traced_calls", Path(__file__).with_name("traced_calls.py"))
assert _spec is not None
assert _spec.loader is not None
traced_calls = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(traced_calls)


@pytest.fixture
def place(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    place = sandbox / "place"
    place.mkdir()
    monkeypatch.setattr(judge, "COMMON_GROUND", ())  # wherever these tests run
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    for name in ("one", "two"):
        (place / name).write_bytes(b"old")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def rolled_back(step: Any, began: int, policy: str) -> list[str]:
    step.capture.settle()
    wanted, end = read(str(step.folder)), began
    about = About(str(step.folder), 0, policy, (StepTimes(1, began - 10**9, end),))
    settled = Settled.reach(about, step.store, step.log, wanted)
    settled.restrict(wanted)
    outcome = undo(step.store, step.log, wanted, epoch=0, held=settled.held())
    return settled.differs() + outcome.differs


def changed(sandbox: Path, place: Path) -> tuple[Any, int]:
    """A step has changed both; when it ended."""
    step = traced_calls.Traced(sandbox, place)
    for name in ("one", "two"):
        step.write(place / name, b"new")
    time.sleep(0.03)
    end = now_ns()
    step.log.append(Sealed(1, end, clock_offset_ns()))
    time.sleep(0.03)
    return step, end


def test_a_copy_that_cannot_be_kept_holds_its_path_back(sandbox: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, end = changed(sandbox, place)
    (place / "one").write_bytes(b"admin")

    def full(*_arguments: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(aside, "keep", full)
    lines = rolled_back(step, end, FORCE)
    assert len(lines) == 1
    assert lines[0].startswith(f"{place}/one: drift: changed (no copy of it could be kept: No space left on device)")
    assert ((place / "one").read_bytes(), (place / "two").read_bytes()) == (b"admin", b"old")
    step.close()


def test_what_cannot_be_looked_at_is_held_back(sandbox: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, end = changed(sandbox, place)
    fs = next(fs for fs in step.store.by_number.values() if fs.mount_point == os.fsencode(place))
    bad, real = (place / "one").stat().st_ino, type(fs).open

    def open_it(self: Any, handle: bytes, *flags: int) -> int:
        fd = int(real(self, handle, *flags))
        if os.fstat(fd).st_ino == bad:
            os.close(fd)
            raise OSError(errno.EIO, os.strerror(errno.EIO), "file handle")
        return fd

    with monkeypatch.context() as patch:
        patch.setattr(type(fs), "open", open_it)
        lines = rolled_back(step, end, "stop")
    assert lines == [f"{place}/one: drift: cannot be looked at (Input/output error); left as it is"]
    assert ((place / "one").read_bytes(), (place / "two").read_bytes()) == (b"new", b"old")
    step.close()


def test_a_merge_that_fails_is_told(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = sandbox / "passwd"
    path.write_bytes(b"a:x\nb:x\nadmin:x\n")
    plan = MergePlan(os.fsencode(path), ROWS, b"a:x\nb:x\n", b"a:x\n", (0o644, 0, 0))

    def read_only(*_arguments: object, **_named: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "rename", read_only)
    assert merging.apply(plan) == "could not be merged (Read-only file system)"
    assert path.read_bytes() == b"a:x\nb:x\nadmin:x\n"


def test_what_the_verdict_tells_is_not_told_again(sandbox: Path, place: Path) -> None:
    """A step removed a directory, and somebody made it and its file anew."""
    (place / "d").mkdir()
    (place / "d" / "three").write_bytes(b"old")
    step, _end = changed(sandbox, place)
    step.unlink(place / "d" / "three")
    step.call("unlinkat", -100, str(place / "d"), 0x200)
    step.capture.settle()
    gone = tuple(LeftPlace(number, 0, 0, name) for number, name in read(str(step.folder)).entries)
    end = now_ns()
    step.log.append(Left(1, gone))
    step.log.append(Sealed(1, end, clock_offset_ns()))
    time.sleep(0.03)
    (place / "d").mkdir()
    (place / "d" / "three").write_bytes(b"admin")
    lines = rolled_back(step, end, "stop")
    assert lines[0].startswith(f"{place}/d: drift: ")
    assert all(": drift: " in line or line.startswith("drift: ") for line in lines), lines
    assert (place / "one").read_bytes() == b"old"
    step.close()
