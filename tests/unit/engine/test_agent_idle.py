# SPDX-License-Identifier: GPL-3.0-or-later
"""An agent that cleans up listens all the while."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from engine import agent as module
from engine import protocol
from engine.agent import Agent
from engine.journal import Journal
from engine.units import AGENT_IDLE


class Cleaning:
    """In place of retention: it takes until it is told to end."""

    def __init__(self) -> None:
        self.begun, self.let_end, self.runs = threading.Event(), threading.Event(), 0
        self.goes_on: Any = lambda: True

    def __call__(self, _journal: Journal, **more: Any) -> list[str]:
        self.runs += 1
        self.goes_on = more.get("goes_on", self.goes_on)
        self.begun.set()
        assert self.let_end.wait(20)
        return []


@pytest.fixture
def cleaning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cleaning:
    made = Cleaning()
    monkeypatch.setattr(module.retention, "gc", made)
    monkeypatch.setattr(module.recovery, "open_journal", lambda: Journal(str(tmp_path / "journal.db")))
    monkeypatch.setattr(protocol, "PATH", str(tmp_path / "agent.sock"))
    monkeypatch.setattr(module, "_IDLE_AFTER", 0.1)
    monkeypatch.setattr(module.signal, "signal", lambda *_handler: None)
    monkeypatch.setattr(module.deadman, "armed", lambda: False)
    monkeypatch.setattr(module, "keep_reserve", lambda _journal: None)
    return made


@pytest.fixture
def life(cleaning: Cleaning) -> Iterator[SimpleNamespace]:
    """An agent in its life: `ended` has its exit code when it has come to an end."""
    found = SimpleNamespace(agent=Agent(), ended=[])
    thread = threading.Thread(target=lambda: found.ended.append(found.agent.run()), daemon=True)
    thread.start()
    found.join = lambda: thread.join(20)
    yield found
    cleaning.let_end.set()
    found.agent._situation.open = None
    found.agent._told_to_end = True
    thread.join(20)
    assert not thread.is_alive()


def ping() -> dict[str, Any]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(10)
        sock.connect(protocol.PATH)
        protocol.send(sock, {"op": "ping"})
        return protocol.receive(sock)


def test_it_answers_while_it_cleans_up_and_ends_after_it(cleaning: Cleaning, life: SimpleNamespace) -> None:
    assert cleaning.begun.wait(20)
    for _once in range(3):
        assert "pid" in ping()
    assert not life.ended
    cleaning.let_end.set()
    life.join()
    assert life.ended == [AGENT_IDLE]
    assert cleaning.runs == 1
    with pytest.raises(ConnectionRefusedError):
        ping()


def test_it_stops_cleaning_for_who_begins_and_cleans_up_after_him(cleaning: Cleaning, life: SimpleNamespace) -> None:
    assert cleaning.begun.wait(20)
    assert cleaning.goes_on()
    lease = SimpleNamespace(expired=lambda **_step: False)
    life.agent._situation.open = SimpleNamespace(id="t", processes=SimpleNamespace(mains={}), lease=lease)
    assert not cleaning.goes_on()
    cleaning.let_end.set()
    time.sleep(1.2)
    assert cleaning.runs == 1 and not life.ended
    life.agent._situation.open = None
    life.join()
    assert cleaning.runs == 2 and life.ended == [AGENT_IDLE]
