# SPDX-License-Identifier: GPL-3.0-or-later
"""Every pair of states is allowed, ignored or forbidden; the table is written out here a second time, from DESIGN."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import pytest
from engine import states
from engine.errors import WrongState

TRANSACTION = {
    "ACTIVE": {"PREPARED", "COMMITTED", "WAITING_REBOOT", "REWINDING", "COMMITTING", "DOOMED", "ABORTING"},
    "WAITING_REBOOT": {"ACTIVE", "DOOMED", "ABORTING"},
    "REWINDING": {"ACTIVE", "DOOMED", "ABORTING"},
    "COMMITTING": {"ACTIVE", "COMMITTED", "DOOMED", "ABORTING"},
    "DOOMED": {"ABORTING"},
    "PREPARED": {"COMMITTED", "ABORTING"},
    "COMMITTED": {"ABORTING"},
    "ABORTING": {"ABORTED", "UNDO_FAILED"},
    "ABORTED": set(),
    "UNDO_FAILED": {"ABORTED", "RESOLVED"},
    "RESOLVED": set(),
}
STEP = {
    "STARTED": {"SEALED", "UNDONE", "UNDO_FAILED"},
    "SEALED": {"UNDONE", "UNDO_FAILED"},
    "UNDONE": set(),
    "UNDO_FAILED": {"UNDONE"},
}


@pytest.mark.parametrize(("check", "table"), [(states.check, TRANSACTION), (states.check_step, STEP)])
def test_every_pair_is_allowed_ignored_or_forbidden(check, table) -> None:
    for old, new in product(table, table):
        if old == new:
            assert check(old, new) is False
        elif new in table[old]:
            assert check(old, new) is True
        else:
            with pytest.raises(WrongState, match=f"from {old} to {new}") as raised:
                check(old, new)
            assert all(state in raised.value.hint for state in table[old])


@pytest.mark.parametrize(("old", "new"), [("ACTIVE", "active"), ("", "ACTIVE"), ("SEALED", "SEALED")])
def test_a_word_that_is_no_state_is_refused(old: str, new: str) -> None:
    with pytest.raises(WrongState, match="is not a state of a transaction"):
        states.check(old, new)


def test_doomed_never_commits() -> None:
    reachable, todo = set(), ["DOOMED"]
    while todo:
        for state in states.targets(todo.pop()):
            if state not in reachable:
                reachable.add(state)
                todo.append(state)
    assert "COMMITTED" not in reachable
    assert {"ABORTED", "UNDO_FAILED"} <= reachable


def test_every_state_has_a_meaning_and_open_ones_do_not_end() -> None:
    assert {*states.TRANSACTION_STATES, *states.STEP_STATES, *states.COMPENSATION_STATES} == set(states.MEANING)
    assert all(states.targets(state) for state in states.OPEN)


def test_the_documentation_is_up_to_date() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "states.md"
    assert page.read_text(encoding="utf-8") == states.markdown(), "its second line says how it is made"
