# SPDX-License-Identifier: GPL-3.0-or-later
"""The ends of steps of which the journal has lost the row: a power cut takes the last ones, the undo log still knows them."""

from __future__ import annotations

from engine.drift.ends import LATER, OURS, Ends, Now

BOOTED = 2_000_000_000_000_000_000
NOW = Now(BOOTED + 50_000_000_000, 0, BOOTED)


def test_what_a_lost_step_changed_before_the_boot_is_its_own() -> None:
    ends = Ends([], {}, [], NOW)
    end = ends.of(0b10)
    assert end == BOOTED
    assert ends.when(BOOTED - 1, end) == OURS
    assert ends.when(BOOTED + 1, end) == LATER


def test_what_no_step_had_hold_of_is_nobodys() -> None:
    assert Ends([], {}, [], NOW).of(0) == 0
    assert Ends([], {}, [], NOW).of(0b1) == 0
