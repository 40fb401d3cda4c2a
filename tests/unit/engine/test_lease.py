# SPDX-License-Identifier: GPL-3.0-or-later
"""The lease goes by CLOCK_BOOTTIME: whoever sets the clock, by hand or by NTP, neither ends a lease nor lengthens it."""

from __future__ import annotations

import ast
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine import deadman, lease, states
from engine.commands import Output
from engine.deadman import Verdict
from engine.journal import Journal
from engine.lease import Lease
from engine.model import Transaction

DAYS = 86400.0
BOOT = "b1"


class Clocks:
    """This machine's, of which the test sets one, and lets time go by on all."""

    def __init__(self) -> None:
        self.gone, self.step = 0.0, 0.0
        self._clock = time.clock_gettime

    def gettime(self, which: int) -> float:
        return self._clock(which) + self.gone + (self.step if which == time.CLOCK_REALTIME else 0.0)


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Clocks:
    made = Clocks()
    monkeypatch.setattr(time, "clock_gettime", made.gettime)
    monkeypatch.setattr(time, "clock_gettime_ns", lambda which: int(made.gettime(which) * 1e9))
    monkeypatch.setattr(time, "time", lambda: made.gettime(time.CLOCK_REALTIME))
    monkeypatch.setattr(time, "time_ns", lambda: int(made.gettime(time.CLOCK_REALTIME) * 1e9))
    monkeypatch.setattr(time, "monotonic", lambda: made.gettime(time.CLOCK_MONOTONIC))
    return made


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    made = Journal(str(tmp_path / "journal.db"))
    yield made
    made.close()


def begin(journal: Journal) -> Transaction:
    options = {"confirm_timeout": 300, "heartbeat": True}
    return journal.begin(name="n", owner="o", options=options, boot_id=BOOT, engine="e", deadline=lease.first(options))


@pytest.mark.parametrize("step", [-400 * DAYS, -DAYS, DAYS, 400 * DAYS])
def test_a_clock_that_is_set_moves_no_lease(journal: Journal, clocks: Clocks, step: float) -> None:
    value = begin(journal)
    ticking = Lease(journal, value)
    clocks.gone = 290
    clocks.step = step
    assert not ticking.expired(step_runs=False)
    assert ticking.left() == pytest.approx(10, abs=1)
    look = deadman.verdict(journal.get(value.id), BOOT)
    assert not look.due
    assert look.again == pytest.approx(10 + deadman.GRACE, abs=1)
    clocks.gone = 301
    assert ticking.expired(step_runs=False)
    assert deadman.verdict(journal.get(value.id), BOOT) == Verdict(True, deadman.AGAIN)


@pytest.mark.parametrize("step", [-DAYS, DAYS])
def test_a_lease_that_is_renewed_after_that_is_as_long_as_any(journal: Journal, clocks: Clocks, step: float) -> None:
    value = begin(journal)
    ticking = Lease(journal, value)
    clocks.step = step
    clocks.gone = 100
    ticking.renew()
    assert ticking.left() == pytest.approx(300, abs=1)
    clocks.step = 0  # set right
    assert ticking.left() == pytest.approx(300, abs=1)
    assert Lease(journal, journal.get(value.id)).left() == pytest.approx(300, abs=1)  # the next agent's


def test_the_timer_behind_the_agent_counts_from_now(monkeypatch: pytest.MonkeyPatch) -> None:
    """OnCalendar would go by the clock that is set."""
    asked: list[list[str]] = []

    def note(words: list[str], timeout: float) -> Output:
        asked.append(words)
        return Output(0, "", "")

    monkeypatch.setattr(deadman, "managed", lambda: True)
    monkeypatch.setattr(deadman, "run", note)
    assert deadman.arm(12.5)
    assert [word for word in asked[0] if word.startswith("--on-")] == ["--on-active=12.500s"]


def test_an_undo_that_has_begun_is_looked_after_whatever_the_time(journal: Journal, clocks: Clocks) -> None:
    clocks.step = -400 * DAYS
    value = dataclasses.replace(begin(journal), state=states.ABORTING)
    assert deadman.verdict(value, BOOT).due


@pytest.mark.parametrize("module", [lease, deadman], ids=lambda module: module.__name__)
def test_they_read_no_clock_that_can_be_set(module: object) -> None:
    """Of `time` only these: time(), time_ns(), CLOCK_REALTIME, localtime() and the like can be set."""
    source = Path(str(module.__file__)).read_text(encoding="utf-8")  # type: ignore[attr-defined]
    nodes = list(ast.walk(ast.parse(source)))
    attributes = [node for node in nodes if isinstance(node, ast.Attribute)]
    of_time = {node.attr for node in attributes if isinstance(node.value, ast.Name) and node.value.id == "time"}
    assert of_time <= {"clock_gettime", "CLOCK_BOOTTIME", "monotonic_ns"}
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    assert "datetime" not in imported
    assert not [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module in ("time", "datetime")]
