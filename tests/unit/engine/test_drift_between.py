# SPDX-License-Identifier: GPL-3.0-or-later
"""What a step finds is compared with what the steps before had left (docs/adr/0025)."""

from __future__ import annotations

import errno
import importlib.util
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from engine.drift import between, judge
from engine.drift.ends import StepTimes
from engine.drift.settle import About, Settled
from engine.records import Met, MetContent, MetPlace, decode, encode
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
    for module in (judge, between):
        monkeypatch.setattr(module, "COMMON_GROUND", ())  # wherever these tests run
    subprocess.run(["mount", "-t", "tmpfs", "none", str(place)], check=True)
    (place / "one").write_bytes(b"old" * 2000)
    (place / "two").write_bytes(b"old")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def in_place(step: Any, path: Path, text: bytes) -> None:
    step.write(path, text)


def by_rename(step: Any, path: Path, text: bytes) -> None:
    step.write(path.with_name("new"), text)
    step.rename(path.with_name("new"), path)


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"admin")


def replace(path: Path) -> None:
    path.with_name("his").write_bytes(path.read_bytes() + b"admin")
    path.with_name("his").rename(path)


def played(
    sandbox: Path, place: Path, first: Callable[..., None], he: Callable[[Path], object], second: Callable[..., None]
) -> tuple[Any, list[StepTimes]]:
    step = traced_calls.Traced(sandbox, place)
    first(step, place / "one", b"one" * 2000)
    first(step, place / "two", b"one")
    times = [StepTimes(1, *step.next_step())]
    he(place / "one")
    step.begins()
    second(step, place / "one", b"two" * 2000)
    second(step, place / "two", b"two")
    times.append(StepTimes(2, *step.next_step()))
    return step, times


def rolled_back(step: Any, times: list[StepTimes], policy: str = "stop") -> tuple[list[str], Settled]:
    wanted = read(str(step.folder))
    settled = Settled.reach(About(str(step.folder), 0, policy, tuple(times)), step.store, step.log, wanted)
    settled.restrict(wanted)
    outcome = undo(step.store, step.log, wanted, epoch=0, held=settled.held())
    return settled.differs() + outcome.differs, settled


@pytest.mark.parametrize("first", [in_place, by_rename])
@pytest.mark.parametrize("he", [append, replace])
@pytest.mark.parametrize("second", [in_place, by_rename])
def test_his_change_is_named_and_his_version_kept(sandbox: Path, place: Path, first: Any, he: Any, second: Any) -> None:
    step, times = played(sandbox, place, first, he, second)
    lines, settled = rolled_back(step, times)
    assert len(lines) == 1
    assert lines[0].startswith(f"{place}/one: drift: ")
    assert "by somebody else between two steps" in lines[0]
    (drift,) = settled.verdict.drifts
    assert Path(drift.theirs_kept).read_bytes() == b"one" * 2000 + b"admin"
    assert ((place / "one").read_bytes(), (place / "two").read_bytes()) == (b"two" * 2000, b"old")
    step.close()


@pytest.mark.parametrize("first", [in_place, by_rename])
@pytest.mark.parametrize("he", [append, replace])
@pytest.mark.parametrize("second", [in_place, by_rename])
def test_by_force_the_file_is_as_before(sandbox: Path, place: Path, first: Any, he: Any, second: Any) -> None:
    before = (place / "one").stat()
    step, times = played(sandbox, place, first, he, second)
    lines, settled = rolled_back(step, times, "force")
    assert lines == []
    assert Path(settled.verdict.drifts[0].theirs_kept).read_bytes() == b"one" * 2000 + b"admin"
    after = (place / "one").stat()
    assert (place / "one").read_bytes() == b"old" * 2000
    assert (after.st_mode, after.st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    step.close()


@pytest.mark.parametrize("first", [in_place, by_rename])
@pytest.mark.parametrize("second", [in_place, by_rename])
def test_what_steps_alone_have_done_is_nobody_elses(sandbox: Path, place: Path, first: Any, second: Any) -> None:
    step, times = played(sandbox, place, first, lambda _path: None, second)
    lines, settled = rolled_back(step, times)
    assert (lines, settled.verdict.drifts, step.not_as_before()) == ([], [], [])
    step.close()


def test_what_cannot_be_looked_at_holds_back_itself_alone(sandbox: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    step, times = played(sandbox, place, by_rename, append, by_rename)
    real = between._Look.place

    def place_or_error(self: Any, where: tuple[int, bytes], met: Any) -> tuple[str, str]:
        if where[1] == b"one":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return real(self, where, met)

    monkeypatch.setattr(between._Look, "place", place_or_error)
    lines, _settled = rolled_back(step, times)
    assert lines == [f"{place}/one: drift: cannot be looked at (Input/output error); left as it is"]
    assert ((place / "one").read_bytes(), (place / "two").read_bytes()) == (b"two" * 2000, b"old")
    step.close()


def test_a_file_of_his_that_a_step_removes_is_kept(sandbox: Path, place: Path) -> None:
    """Nothing is left to undo there, and nothing of it to see."""
    step = traced_calls.Traced(sandbox, place)
    step.unlink(place / "one")
    times = [StepTimes(1, *step.next_step())]
    (place / "one").write_bytes(b"his" * 1000)
    step.begins()
    step.unlink(place / "one")
    times.append(StepTimes(2, *step.next_step()))
    lines, settled = rolled_back(step, times, "force")
    assert lines == []
    assert Path(settled.verdict.drifts[0].theirs_kept).read_bytes() == b"his" * 1000
    assert (place / "one").read_bytes() == b"old" * 2000
    step.close()


def test_a_file_replaced_since_by_rename(sandbox: Path, place: Path) -> None:
    """Finding 23: a step writes into it, and somebody edits it by rename."""
    step = traced_calls.Traced(sandbox, place)
    step.write(place / "one", b"one" * 2000)
    times = [StepTimes(1, *step.next_step())]
    replace(place / "one")
    lines, settled = rolled_back(step, times)
    settled.finish()
    assert lines == [f"{place}/one: drift: replaced by somebody else since; left as it is"]
    assert (place / "one").read_bytes() == b"one" * 2000 + b"admin"
    lines, settled = rolled_back(step, times, "force")
    assert lines == []
    assert (place / "one").read_bytes() == b"old" * 2000
    assert Path(settled.verdict.drifts[0].kept).read_bytes() == b"one" * 2000 + b"admin"
    step.close()


@pytest.mark.parametrize(
    "record",
    [Met(2, 1, b"handle", 5, 6, 7), MetPlace(2, 3, 0o100644, 1, b"handle", 5, 6, 7, b"name"), MetContent(2, b"/etc/hosts", b"a\0b")],
)
def test_records(record: Any) -> None:
    assert decode(*encode(record)) == record
