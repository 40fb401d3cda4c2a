# SPDX-License-Identifier: GPL-3.0-or-later
"""An open transaction whose steps are played: no shim, no cgroup, and a tracer that serves nothing."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace

import pytest
from engine import transaction as module
from engine.journal import Journal
from engine.model import Step
from engine.store import Store
from engine.transaction import OpenTransaction
from engine.undolog import Writer


class PlayedTracer:
    """A thread that serves nothing."""

    def __init__(self, **known: object) -> None:
        self.step, self.mode, self.name, self.threads = known["step"], known["mode"], known["name"], set[int]()
        self.resolver, self.slots = SimpleNamespace(careful=False), known["slots"]

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
