# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture's name is a test's argument)
"""What may run is decided by a row that is written before the act: an agent may die at any moment, and the next one reads it."""

from __future__ import annotations

import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from engine import doommark, recovery, rollback, situation
from engine import transaction as module
from engine.boot import boot_id
from engine.errors import AcidError, Doomed, JournalUnwritable, NoTransaction, WrongState
from engine.journal import Journal
from engine.model import Savepoint, Transaction
from engine.requests import Requests
from engine.rollback import Manner, roll_back_to
from engine.situation import Situation
from engine.store import Store
from engine.transaction import OpenTransaction
from engine.undolog import Writer
from engine.work import Work

sys.path.insert(0, str(Path(__file__).resolve().parent))

from played import attach, begin, end, opened  # noqa: F401


class Died(BaseException):
    """The agent, at this point."""


def dies(*_arguments: object, **_more: object) -> None:
    raise Died


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No probes, which would look at this machine, and nothing of it written."""
    for one in (module, rollback):
        monkeypatch.setattr(one, "Probes", lambda _names: types.SimpleNamespace(before_files=lambda: (), after_files=lambda: ()))
    for one in (module, rollback, situation, recovery):
        monkeypatch.setattr(one, "directory_of", lambda tx: str(tmp_path / tx))
    monkeypatch.setattr(module.reserve, "take_host", lambda _state: None)
    monkeypatch.setattr(doommark, "FOLDER", str(tmp_path))


def state(made: OpenTransaction) -> str:
    return made.journal.get(made.id).state


def point_with_a_step_behind(made: OpenTransaction) -> Savepoint:
    end(made, attach(made, begin(made)))
    point = made.savepoint("here")
    end(made, attach(made, begin(made, "two")))
    return point


def next_agents(made: OpenTransaction, log: str) -> OpenTransaction:
    """The agent has died, and nothing that it knew is left but what it wrote."""
    value = made.journal.get(made.id)
    return OpenTransaction(made.journal, value, Writer.resume(log), Store(value.id, state=str(Path(log).parent)), next_directory=9)


def of_this_boot(made: OpenTransaction) -> Transaction:
    made.journal.go_on(made.id, boot_id=boot_id(), deadline=None)
    return made.journal.get(made.id)


DEATHS: dict[str, Callable[[pytest.MonkeyPatch, OpenTransaction], None]] = {
    "before anything is killed": lambda patch, made: patch.setattr(made, "kill_processes", dies),
    "before it is judged": lambda patch, _made: patch.setattr(rollback.Settled, "reach", dies),
    "before the files": lambda patch, _made: patch.setattr(rollback, "undo", dies),
    "behind the files": lambda patch, _made: patch.setattr(rollback, "_note_drift", dies),
    "before the last row": lambda patch, made: patch.setattr(made.journal, "end_rewind", dies),
}


@pytest.mark.parametrize("where", list(DEATHS))
def test_no_step_and_no_commit_before_an_undo_to_a_savepoint_has_ended(opened, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Whoever asked for it is gone too. The next agent finishes it, and then all goes on."""
    made, log = opened
    point = point_with_a_step_behind(made)
    with monkeypatch.context() as now:
        DEATHS[where](now, made)
        with pytest.raises(Died):
            roll_back_to(made, point, Manner("asked for"))
    assert (state(made), made.journal.get(made.id).rewinding_to) == ("REWINDING", point.epoch)
    assert recovery.after_death(made.journal, of_this_boot(made), step_was_running=False) == recovery.RESUME
    resumed = next_agents(made, log)
    monkeypatch.setattr(resumed.processes, "join", lambda *_process: None)
    for late in (
        lambda: begin(resumed, "late"),
        lambda: resumed.commit([]),
        lambda: resumed.savepoint("x"),
        lambda: resumed.wait_for_reboot(9),
    ):
        with pytest.raises(WrongState, match="on its way back"):
            late()
    cared = Situation(resumed.journal, Work())
    cared.open = resumed
    cared.rewind_again(resumed)
    assert (state(made), made.journal.get(made.id).rewinding_to) == ("ACTIVE", None)
    assert [step.state for step in made.journal.steps(made.id)] == ["SEALED", "UNDONE"]
    begin(resumed, "late")


def test_one_with_a_compensation_on_its_way_waits_for_who_can_run_it(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    made, log = opened
    end(made, attach(made, begin(made)))
    point = made.savepoint("here")
    made.compensate({"id": "c", "name": "c", "step": "two", "body": "b"})
    end(made, attach(made, begin(made, "two")))
    with monkeypatch.context() as now:
        now.setattr(rollback, "_in_order", dies)
        with pytest.raises(Died):
            roll_back_to(made, point, Manner("asked for"))
    resumed = next_agents(made, log)
    cared = Situation(resumed.journal, Work())
    cared.open = resumed
    cared.rewind_again(resumed)
    assert state(made) == "REWINDING"
    with pytest.raises(WrongState, match="on its way back"):
        begin(resumed, "late")


def test_what_lives_of_the_steps_to_undo_does_not_doom(opened) -> None:
    """It is killed by the undo that the next agent goes on with; what lives of earlier steps had calls that failed."""
    made, _log = opened
    point = point_with_a_step_behind(made)
    made.journal.begin_rewind(made.id, point.epoch)
    value = of_this_boot(made)
    assert not recovery.goes_on_with(made.journal, value, {2})
    assert recovery.goes_on_with(made.journal, value, {1, 2})
    assert recovery.after_death(made.journal, value, step_was_running=True) == recovery.UNDO
    assert state(made) == "DOOMED"


def test_an_undo_that_is_not_exact_is_never_active_again(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """One row says both: no death can come between the end of the undo and the doom."""
    made, _log = opened
    point = point_with_a_step_behind(made)
    monkeypatch.setattr(rollback, "_note_unpaid", lambda journal, tx, **_epoch: journal.note(tx, "differs", "/x: a test says so"))
    seen: list[str] = []
    written = made.journal.end_rewind

    def end_rewind(*arguments: object, **more: object) -> object:
        seen.append(state(made))
        done = written(*arguments, **more)
        seen.append(state(made))
        return done

    monkeypatch.setattr(made.journal, "end_rewind", end_rewind)
    roll_back_to(made, point, Manner("asked for"))
    assert seen == ["REWINDING", "DOOMED"]
    with pytest.raises(Doomed, match="was not exact"):
        begin(made, "late")


# A late `acidctl exec`


def test_no_step_starts_while_processes_are_killed_for_an_undo(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """An async wrapper: it would not be killed, and run within the undo."""
    made, _log = opened
    point = point_with_a_step_behind(made)
    begun = begin(made, "three")  # its shim has not handed over its listener yet
    late: list[str] = []

    def kill(_chosen: object, *, first_step: int) -> None:
        assert first_step == 2
        for way in (lambda: begin(made, "four"), lambda: begin(made, "three"), lambda: attach(made, begun)):
            with pytest.raises(WrongState):
                way()
            late.append("refused")

    monkeypatch.setattr(made.processes, "kill", kill)
    roll_back_to(made, point, Manner("asked for"))
    assert len(late) == 3


def test_a_shim_whose_step_was_undone_meanwhile_is_refused(opened) -> None:
    made, _log = opened
    point = point_with_a_step_behind(made)
    begun = begin(made, "three")
    roll_back_to(made, point, Manner("asked for"))
    assert state(made) == "ACTIVE"
    with pytest.raises(WrongState, match="has been undone"):
        attach(made, begun)


# The other flags


def test_a_death_in_the_commit_is_no_second_chance(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel tells an error of the disk once, and that agent may have heard it."""
    made, log = opened
    end(made, attach(made, begin(made)))
    with monkeypatch.context() as now:
        now.setattr(made, "sync", dies)
        now.setattr(made, "_go_on", lambda: None)  # it is dead
        with pytest.raises(Died):
            made.commit([])
    assert state(made) == "COMMITTING"
    with pytest.raises(WrongState, match="at its end"):
        begin(next_agents(made, log), "late")
    assert recovery.after_death(made.journal, of_this_boot(made), step_was_running=False) == recovery.UNDO
    assert state(made) == "DOOMED"


def test_a_doom_that_the_journal_does_not_take_is_told_the_next_agent(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between steps: no step is torn that would tell it."""
    made, _log = opened
    end(made, attach(made, begin(made)))
    made.seal()

    def full(*_state: object, **_more: object) -> None:
        raise JournalUnwritable("a test says so")

    with monkeypatch.context() as now:
        now.setattr(made.journal, "set_state", full)
        made._lost("the disk does not take it")
    assert state(made) == "ACTIVE"
    assert recovery.after_death(made.journal, of_this_boot(made), step_was_running=False) == recovery.UNDO
    assert (state(made), made.journal.get(made.id).reason) == ("DOOMED", "the disk does not take it")


def test_the_row_of_a_planned_reboot_comes_before_its_sync(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _log = opened
    seen: list[str] = []
    monkeypatch.setattr(made, "sync", lambda: seen.append(state(made)))
    made.wait_for_reboot(60)
    assert seen == ["WAITING_REBOOT"]
    made.doom("a controller says so")
    assert state(made) == "DOOMED"


def test_nothing_is_killed_for_an_undo_before_a_row_says_that_it_comes(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A survivor that is killed, and a transaction that goes on as if it were there, would be half an undo."""
    made, _log = opened
    cared = Situation(made.journal, Work())
    cared.open = made
    seen: list[str] = []

    def kill() -> None:
        seen.append(state(made))
        raise Died

    monkeypatch.setattr(made, "kill_processes", kill)
    with pytest.raises(Died):
        cared.end(made.id, Manner("asked for"))
    assert seen == ["DOOMED"]


# Undos that cannot be, and savepoints of transactions that are not open


def test_an_undo_that_the_journal_does_not_take_is_tried_again(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _log = opened
    cared = Situation(made.journal, Work())
    cared.open = made

    def full(*_arguments: object) -> None:
        raise JournalUnwritable("a test says so")

    monkeypatch.setattr(situation, "roll_back", full)
    monkeypatch.setattr(situation, "kill_leftovers", lambda *_of: None)
    with pytest.raises(JournalUnwritable):
        cared.end(made.id, Manner("asked for"))
    assert cared.open is None
    assert cared.handed is not None
    assert cared.handed[0].id == made.id


def test_a_savepoint_of_what_is_not_open_is_no_wish_to_undo_all(tmp_path: Path) -> None:
    journal, work = Journal(str(tmp_path / "journal.db")), Work()
    value = journal.begin(name="n", owner="o", options={}, boot_id="b", engine="e")
    with pytest.raises(NoTransaction) as raised:
        Requests(Situation(journal, work), work)._rollback({"tx": value.id, "to": "here"})
    assert isinstance(raised.value, AcidError)
    assert journal.get(value.id).state == "ACTIVE"
    journal.close()


# An agent that is told to end


@pytest.mark.parametrize("what", ["an undo to a savepoint", "a commit"])
def test_what_an_agent_that_is_told_to_end_leaves_is_not_doomed(opened, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """All that has happened is on the disk, and the next one goes on with it."""
    made, _log = opened
    point = point_with_a_step_behind(made)
    monkeypatch.setattr(module.shutdown, "mark", lambda *_of: None)
    if what == "a commit":
        monkeypatch.setattr(made, "_prepare", lambda _armed: made.shut_down())
        with pytest.raises(Doomed, match="told to end"):
            made.commit([])
    else:
        monkeypatch.setattr(rollback, "_note_unpaid", lambda *_of, **_more: made.shut_down())
        with pytest.raises(WrongState, match="told to end"):
            roll_back_to(made, point, Manner("asked for"))
    assert state(made) == ("ACTIVE" if what == "a commit" else "REWINDING")
    value = of_this_boot(made)
    if what == "a commit":
        made.journal.seal_step(made.id, 2)
    assert recovery.after_death(made.journal, value, step_was_running=False) == recovery.RESUME
