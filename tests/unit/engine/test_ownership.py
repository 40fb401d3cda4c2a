# SPDX-License-Identifier: GPL-3.0-or-later
"""One owner of an undo log at any time (I6), with pauses put between look and act: an agent that comes up slowly, the timer, recovery."""

from __future__ import annotations

import os
import signal
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine import deadman, lease, opening, ownership, recovery, rollback, states
from engine.boot import boot_id
from engine.commands import Output
from engine.errors import JournalUnwritable, ProbeFailed
from engine.journal import Journal
from engine.model import Transaction
from engine.requests import Requests
from engine.rollback import Manner
from engine.situation import Situation
from engine.store import Store
from engine.transaction import OpenTransaction
from engine.work import Work


@pytest.fixture
def journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Journal]:
    for module in (recovery, rollback, opening):
        monkeypatch.setattr(module, "directory_of", lambda tx: str(tmp_path / tx))
    monkeypatch.setattr(recovery, "kill_leftovers", lambda *_of: None)
    monkeypatch.setattr(rollback.reserve, "release_host", lambda _state: None)
    monkeypatch.setattr(rollback, "keep_reserve", lambda _journal: None)
    made = Journal(str(tmp_path / "journal.db"))
    yield made
    made.close()


def begin(journal: Journal, folder: Path) -> Transaction:
    """One of which the lease has ended."""
    value = journal.begin(name="n", owner="o", options={"probes": []}, boot_id=boot_id(), engine="e", deadline=lease.now() - 9)
    (folder / value.id).mkdir()
    return value


class Other:
    """Another process of the engine that has the log; `then` is what it does before it ends."""

    def __init__(self, directory: Path, then: Callable[[], None] = lambda: None, *, seconds: float = 60) -> None:
        ready, told = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(ready)
                ownership.take(str(directory))
                os.write(told, b"1")
                os.close(told)
                time.sleep(seconds)
                then()
                code = 0
            finally:
                os._exit(code)
        os.close(told)
        assert os.read(ready, 1) == b"1"
        os.close(ready)

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)


@pytest.fixture
def agents(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the timer does about them, and for when it sets itself again."""
    done: list[str] = []
    monkeypatch.setattr(deadman, "kill_agent", lambda: done.append("kill"))
    monkeypatch.setattr(deadman, "start_agent", lambda: done.append("start"))
    monkeypatch.setattr(deadman, "arm", lambda _seconds: done.append("arm"))
    monkeypatch.setattr(deadman, "disarm", lambda: done.append("disarm"))
    monkeypatch.setattr(recovery, "time", types.SimpleNamespace(sleep=lambda _seconds: None))
    return done


@pytest.fixture
def undos(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Undos that this process makes."""
    made: list[str] = []

    def undo(journal: Journal, tx: str, _manner: Manner) -> object:
        made.append(tx)
        journal.set_state(tx, states.ABORTING)
        return journal.set_state(tx, states.ABORTED)

    monkeypatch.setattr(rollback, "_roll_back", undo)
    return made


def test_a_lock_goes_with_its_process_and_with_nothing_else(tmp_path: Path) -> None:
    other = Other(tmp_path)
    assert not ownership.take(str(tmp_path), waits=False)
    os.close(os.open(tmp_path, os.O_RDONLY))
    assert not ownership.take(str(tmp_path), waits=False)
    other.kill()
    for _time in range(2):  # an agent's undo is part of its ownership
        assert ownership.take(str(tmp_path), waits=False)
    fd = os.open(tmp_path, os.O_RDONLY)
    os.close(fd)
    ownership.release(str(tmp_path))
    asked = Asked(tmp_path)
    assert not asked.had()
    ownership.release(str(tmp_path))
    assert asked.had()


class Asked:
    def __init__(self, directory: Path) -> None:
        self._directory = str(directory)

    def had(self) -> bool:
        """Whether another process could have it."""
        pid = os.fork()
        if pid == 0:
            ownership._held.clear()
            os._exit(0 if ownership.take(self._directory, waits=False) else 1)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_the_timer_does_nothing_beside_an_agent_that_comes_up_slowly(
    journal: Journal, tmp_path: Path, agents: list[str], undos: list[str]
) -> None:
    """It does not answer for long: it is looked at again."""
    value = begin(journal, tmp_path)
    slow = Other(tmp_path / value.id)
    try:
        assert recovery.at_lease_end(journal, agent_answers=lambda: None) is None
    finally:
        slow.kill()
    assert undos == []
    assert agents == ["start"] * 3 + ["arm"]
    recovery.at_lease_end(journal, agent_answers=lambda: None)
    assert undos == [value.id], "that one is dead"


def test_the_timer_looks_again_when_it_has_the_log(journal: Journal, tmp_path: Path, agents: list[str], undos: list[str]) -> None:
    """An agent came between look and act, heard its controller, and went."""
    value = begin(journal, tmp_path)
    asked: list[None] = []

    def answers() -> None:
        asked.append(None)
        if len(asked) == 4:
            journal.set_deadline(value.id, lease.now() + 300)

    recovery.at_lease_end(journal, agent_answers=answers)
    assert (undos, agents[-1]) == ([], "arm")


def test_an_agent_that_is_only_coming_up_is_not_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[list[str]] = []
    for known in ("activating", "active"):

        def run(words: list[str], timeout: float, known: str = known) -> Output:
            ran.append(words)
            return Output(0, known + "\n", "")

        monkeypatch.setattr(deadman, "run", run)
        deadman.kill_agent()
    assert [words[1] for words in ran] == ["show", "show", "kill"]


def test_the_next_agent_waits_for_an_undo_that_is_under_way(journal: Journal, tmp_path: Path) -> None:
    """And finds it done, where it would have begun another one."""
    value = begin(journal, tmp_path)
    path = journal.path

    def finish() -> None:
        own = Journal(path)
        own.set_state(value.id, states.ABORTING)
        own.set_state(value.id, states.ABORTED)

    timer = Other(tmp_path / value.id, finish, seconds=0.4)
    assert recovery.owned_by_us(journal) is None
    os.waitpid(timer.pid, 0)
    assert Asked(tmp_path / value.id).had()


def test_the_next_agent_owns_what_it_finds_open(journal: Journal, tmp_path: Path) -> None:
    value = begin(journal, tmp_path)
    died = Other(tmp_path / value.id)
    threading.Timer(0.3, died.kill).start()
    assert recovery.owned_by_us(journal) == value
    assert not Asked(tmp_path / value.id).had()
    ownership.release(str(tmp_path / value.id))


@pytest.mark.parametrize("listens", [True, False])
def test_recovery_at_boot_leaves_to_an_agent_what_is_its(journal: Journal, tmp_path: Path, undos: list[str], listens: bool) -> None:
    """One that listens does it itself; else it is waited for."""
    value = begin(journal, tmp_path)
    owner = Other(tmp_path / value.id, seconds=0.4)
    recovery.at_boot(journal, agent_listens=lambda: listens)
    assert undos == ([] if listens else [value.id])
    if listens:
        owner.kill()
    else:
        os.waitpid(owner.pid, 0)


def test_two_undos_are_one_after_the_other(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    value = begin(journal, tmp_path)
    owner = Other(tmp_path / value.id, seconds=0.4)
    began: list[float] = []
    monkeypatch.setattr(rollback, "_roll_back", lambda *_of: began.append(os.waitpid(owner.pid, os.WNOHANG)[0]))
    rollback.roll_back(journal, value.id, Manner("asked for"))
    assert len(began) == 1
    assert began[0] == owner.pid or os.waitpid(owner.pid, 0)[0] == owner.pid


# A begin that fails


@pytest.fixture
def beginning(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Journal:
    monkeypatch.setattr(opening.reserve, "take_host", lambda _state: None)
    monkeypatch.setattr(opening, "STATE", str(tmp_path))
    monkeypatch.setattr("engine.transaction.directory_of", lambda tx: str(tmp_path / tx))
    monkeypatch.setattr(opening, "Store", lambda tx, **more: Store(tx, state=str(tmp_path), **more))

    def fails(*_epoch: object) -> None:
        raise ProbeFailed("a test says so")

    monkeypatch.setattr(OpenTransaction, "capture_probes", fails)
    return journal


def descriptors(folder: Path) -> list[str]:
    """Of what lies in the directories of transactions, and those themselves. Of other tests some may be closed at any time."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{name}"))
        except FileNotFoundError:  # the listing's own
            continue
    return sorted(link for link in links if link.startswith(f"{folder}/") and not link.startswith(f"{folder}/journal"))


def test_a_begin_that_fails_in_a_probe_leaves_nothing_open(beginning: Journal, tmp_path: Path) -> None:
    for _time in range(3):
        with pytest.raises(ProbeFailed):
            opening.begin(beginning, name="n", owner="o", options={"probes": []})
    assert descriptors(tmp_path) == []
    assert [value.state for value in beginning.transactions()] == ["ABORTED"] * 3
    assert all(Asked(tmp_path / value.id).had() for value in beginning.transactions())


def test_a_begin_that_cannot_be_taken_back_is_undone_later(beginning: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal does not take it: nobody would own what is open, and no other transaction could begin."""

    def full(*_state: object, **_more: object) -> None:
        raise JournalUnwritable("a test says so")

    work = Work()
    cared = Situation(beginning, work)
    monkeypatch.setattr("engine.situation.directory_of", lambda _tx: "/nowhere")
    with monkeypatch.context() as now:
        now.setattr(beginning, "set_state", full)
        with pytest.raises(JournalUnwritable):
            Requests(cared, work)._begin({"options": {"probes": []}})
    (value,) = beginning.transactions()
    assert value.state == "ACTIVE"
    assert cared.handed is not None
    assert cared.handed[0].id == value.id
