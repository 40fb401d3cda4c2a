# SPDX-License-Identifier: GPL-3.0-or-later
"""Every step is asked about at commit; the heartbeat's descriptor is closed when nobody writes to it any more."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.acid.host.plugins.plugin_utils import heartbeat, lifecycle
from ansible_collections.acid.host.plugins.plugin_utils import ledger as notes
from ansible_collections.acid.host.plugins.plugin_utils.ledger import STEP, Ledger, OpenTransaction

OPEN = OpenTransaction("h1", "tx-1", 7, "0" * 16, "play", "play", "root", True, "local", "h1", 300, "warn")


def sleeping(_self: object, _ticks: int) -> None:
    """A child that does nothing, and ends without a word."""
    time.sleep(60)
    os.kill(os.getpid(), 9)


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
def test_all_steps_are_asked_about(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    ledger = Ledger(tmp_path)
    monkeypatch.setattr(notes, "_seen_to_begin", {})
    ledger.begun(OPEN)
    for number in range(count):
        ledger.append("h1", STEP, id=f"step-{number}", task="", by="h1")
    monkeypatch.setattr(Ledger, "of_this_run", classmethod(lambda cls: ledger))
    monkeypatch.setattr(lifecycle, "MOST_STEPS", 3)
    asked: list[tuple[str, list[str]]] = []

    def call(_action: Any, _task_vars: Any, _transaction: Any, verb: str, request: dict[str, Any]) -> dict[str, Any]:
        asked.append((verb, request["steps"]))
        return {"tx": OPEN.tx}

    monkeypatch.setattr(lifecycle, "call", call)
    lifecycle.end(None, {}, OPEN, outcome=lifecycle.COMMITTED)
    assert [step for _verb, steps in asked for step in steps] == [f"step-{number}" for number in range(count)]
    assert [verb for verb, _steps in asked] == ["armed"] * max(0, (count - 1) // 3) + ["commit"]
    assert all(len(steps) <= 3 for _verb, steps in asked)


def test_no_tick_is_written_to_a_closed_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its number may be another file's by then."""
    wrong: list[OSError] = []

    def slow_write(descriptor: int, _data: bytes) -> int:
        time.sleep(0.5)
        try:
            os.fstat(descriptor)
        except OSError as error:
            wrong.append(error)
        written.append(descriptor)
        return 1

    written: list[int] = []
    monkeypatch.setattr(heartbeat.Heartbeat, "_live", sleeping)
    monkeypatch.setattr(heartbeat.os, "write", slow_write)
    with heartbeat.Heartbeat({"h1": 1}, beat=lambda hosts: None):
        time.sleep(0.2)
    time.sleep(0.7)
    monkeypatch.undo()
    assert written, "nothing was ticking"
    assert wrong == []
