# SPDX-License-Identifier: GPL-3.0-or-later
"""What the next agent does with an open transaction (I8)."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from engine import deadman, lease, recovery, shutdown, states
from engine.boot import boot_id
from engine.journal import Journal
from engine.model import Transaction


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return Journal(str(tmp_path / "acid" / "journal.db"))


def test_between_steps_it_goes_on(journal: Journal) -> None:
    value = journal.begin(name="x", owner="x", options={}, boot_id=boot_id(), engine="x")
    assert recovery.after_death(journal, value, step_was_running=False) == recovery.RESUME


def test_a_torn_step_dooms(journal: Journal) -> None:
    value = journal.begin(name="x", owner="x", options={}, boot_id=boot_id(), engine="x")
    journal.add_step(value.id, id="s", task="t", module="m", position="p")
    assert recovery.after_death(journal, value, step_was_running=False) == recovery.UNDO
    assert journal.get(value.id).state == states.DOOMED


def test_another_boot_undoes(journal: Journal) -> None:
    value = journal.begin(name="x", owner="x", options={}, boot_id="another", engine="x")
    assert recovery.after_death(journal, value, step_was_running=False) == recovery.UNDO


@pytest.fixture
def armed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Seconds for which the timer behind the agent was set."""
    set_for: list[float] = []
    monkeypatch.setattr(recovery.deadman, "arm", set_for.append)
    monkeypatch.setattr(recovery, "directory_of", lambda tx: str(tmp_path / tx))
    return set_for


def waits_for_its_reboot(journal: Journal, folder: Path, *, boot: str, deadline: float | None) -> Transaction:
    value = journal.begin(name="x", owner="x", options={"durability": "power"}, boot_id=boot, engine="x", deadline=deadline)
    (folder / value.id).mkdir()
    shutdown.plan(str(folder / value.id), 300)
    return journal.set_state(value.id, states.WAITING_REBOOT)


def test_a_soft_reboot_sets_the_timer_again(journal: Journal, tmp_path: Path, armed: list[float]) -> None:
    """The kernel, and with it the boot, is the same; the agent and its timer are gone."""
    value = waits_for_its_reboot(journal, tmp_path, boot=boot_id(), deadline=lease.now() + 50)
    assert recovery.at_boot(journal) is None
    (seconds,) = armed
    assert 45 < seconds < 50 + deadman.GRACE + 1
    assert journal.get(value.id) == value


def test_a_planned_reboot_has_its_time_again(journal: Journal, tmp_path: Path, armed: list[float]) -> None:
    value = waits_for_its_reboot(journal, tmp_path, boot="another", deadline=lease.now() - 5)
    assert recovery.at_boot(journal) is None
    (seconds,) = armed
    assert 290 < seconds <= 300 + deadman.GRACE
    assert journal.get(value.id).boot_id == boot_id()


@pytest.mark.parametrize("boot", ["the same", "another"])
def test_a_lease_that_was_cancelled_stays_so_over_a_planned_reboot(journal: Journal, tmp_path: Path, armed: list[float], boot: str) -> None:
    """A person has taken over the watch."""
    value = waits_for_its_reboot(journal, tmp_path, boot=boot_id() if boot == "the same" else boot, deadline=None)
    assert recovery.at_boot(journal) is None
    assert armed == []
    assert journal.get(value.id).deadline is None


@pytest.mark.parametrize(
    ("free", "available", "given"),
    [(1 << 30, 1 << 30, False), (16 << 20, 1 << 30, True), (1 << 30, 0, True)],  # the last: btrfs without metadata
)
def test_the_reserve_is_given_before_the_journal_is_opened(monkeypatch: pytest.MonkeyPatch, free: int, available: int, given: bool) -> None:
    """SQLite would be ended by SIGBUS on a disk that has no room for its shared memory."""
    room = os.statvfs_result((4096, 1, 1 << 40, free, available, 0, 0, 0, 0, 255))
    order: list[str] = []
    monkeypatch.setattr(recovery.os, "statvfs", lambda _path: room)
    monkeypatch.setattr(recovery.reserve, "release_host", lambda _state: order.append("reserve"))
    monkeypatch.setattr(recovery, "Journal", lambda: order.append("journal"))
    recovery.open_journal()
    assert order == ["reserve"] * given + ["journal"]


def test_a_death_on_the_way_to_the_next_boot_makes_it_no_crash(journal: Journal, tmp_path: Path, armed: list[float], monkeypatch) -> None:
    """Between the mark of the new boot and the journal's word (I2)."""
    value = journal.begin(name="x", owner="x", options={}, boot_id="another", engine="x", deadline=lease.now() + 50)
    directory = tmp_path / value.id
    directory.mkdir()
    shutdown.plan(str(directory), 300)
    shutdown.mark(str(directory), "another")
    journal.set_state(value.id, states.WAITING_REBOOT)

    def dies(*_arguments: object, **_more: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as now:
        now.setattr(journal, "go_on", dies)
        with pytest.raises(KeyboardInterrupt):
            recovery.at_boot(journal)
    assert recovery.at_boot(journal) is None
    assert journal.get(value.id).boot_id == boot_id()
    assert shutdown.was_clean(str(directory), boot_id()) and armed
