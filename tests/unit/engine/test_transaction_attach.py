# SPDX-License-Identifier: GPL-3.0-or-later
"""A step's processes come one after the other: what a tracer that comes does, and what the log says of the step's end meanwhile."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from engine import transaction as module
from engine.errors import JournalUnwritable, WrongState
from engine.journal import Journal
from engine.model import Step
from engine.store import Store
from engine.tracer import CAPTURE, REFUSE
from engine.transaction import OpenTransaction
from engine.undolog import Writer
from engine.wanted import read


class PlayedTracer:
    """A thread that serves nothing."""

    def __init__(self, **known: object) -> None:
        self.step, self.mode, self.name, self.threads = known["step"], known["mode"], known["name"], set[int]()
        self.resolver = None

    def start(self) -> None:
        pass


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "Tracer", PlayedTracer)
    monkeypatch.setattr(module, "directory_of", lambda tx: str(tmp_path / tx))
    monkeypatch.setattr(module.reserve, "release_host", lambda state: None)
    journal = Journal(str(tmp_path / "journal.db"))
    value = journal.begin(name="n", owner="o", options={"probes": []}, boot_id="b", engine="e")
    os.mkdir(tmp_path / value.id)
    log = Writer.create(str(tmp_path / value.id))
    made = OpenTransaction(journal, value, log, Store(value.id, state=str(tmp_path)), next_directory=1)
    made.capture.epoch(0, 0)
    monkeypatch.setattr(made.processes, "join", lambda *_process: None)
    yield made, str(tmp_path / value.id)
    for pidfd in list(made.processes.mains):
        made.main_ended(pidfd)
    journal.close()


def begin(opened: OpenTransaction, name: str = "one") -> Step:
    return opened.start_step({"id": name}, os.getpid())


def attach(opened: OpenTransaction, step: Step) -> PlayedTracer:
    return opened.attach(step, os.getpid(), -1, lambda _tracer: None)  # type: ignore[return-value]


def end(opened: OpenTransaction, tracer: PlayedTracer) -> None:
    opened.processes.tracers.remove(tracer)  # type: ignore[arg-type]
    opened.tracer_ended(tracer)  # type: ignore[arg-type]


def test_the_end_that_was_noted_holds_no_more_when_another_process_comes(opened) -> None:
    made, log = opened
    step = begin(made)
    end(made, attach(made, step))
    assert read(log).after.sealed[step.n].ended_ns > 0
    second = attach(made, step)
    assert read(log).after.sealed[step.n].ended_ns == 0
    end(made, second)
    assert read(log).after.sealed[step.n].ended_ns > 0


def test_a_step_that_began_before_the_transaction_was_doomed_may_do_nothing(opened) -> None:
    made, _log = opened
    step = begin(made)
    assert attach(made, step).mode == CAPTURE
    made.doom("a test says so")
    assert attach(made, step).mode == REFUSE


def test_a_step_whose_process_comes_after_the_commit_is_refused(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it did would be of a committed transaction, and unseen."""
    made, _log = opened
    step = begin(made)
    monkeypatch.setattr(made, "capture_probes", lambda _epoch: None)
    monkeypatch.setattr(made, "summary", lambda *_state: None)
    made.commit([step.id])
    with pytest.raises(WrongState, match="at its end"):
        attach(made, step)


def test_a_doom_that_the_disk_does_not_take_refuses_all_the_same(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not end the thread that found it, which would look like the end of the step."""
    made, _log = opened
    tracer = attach(made, begin(made))

    def full(*_state: object, **_more: object) -> None:
        raise JournalUnwritable("a test says so")

    monkeypatch.setattr(made.journal, "set_state", full)
    made._lost("the disk does not take it")
    assert made.doomed and tracer.mode == REFUSE
