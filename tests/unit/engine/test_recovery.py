# SPDX-License-Identifier: GPL-3.0-or-later
"""What the next agent does with an open transaction (I8)."""

from __future__ import annotations

from pathlib import Path

import pytest
from engine import recovery, states
from engine.boot import boot_id
from engine.journal import Journal


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
