# SPDX-License-Identifier: GPL-3.0-or-later
"""Three-way merges of rows and of lines, and the judging of times: pure parts of drift."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from engine.drift import lines, rows
from engine.drift.ends import DURING, LATER, OURS, Ends, Now, StepTimes
from engine.drift.groups import of_changed_packages, parse_dpkg, parse_pacman
from engine.drift.mergeable import LINES, ROWS, SUDOERS, kind_of
from engine.records import Sealed, UndoRun
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

PATIENT = settings(database=None, deadline=None, suppress_health_check=[HealthCheck.too_slow])
TEXT = st.lists(st.sampled_from([b"a", b"b", b"c", b"d", b"e"]), max_size=6).map(lambda found: b"".join(line + b"\n" for line in found))
UNIQUE = st.dictionaries(st.sampled_from([b"a", b"b", b"c", b"d"]), st.sampled_from([b"1", b"2", b"3"]))
ROW_TEXT = UNIQUE.map(lambda found: b"".join(b"%s:%s\n" % pair for pair in found.items()))


@PATIENT
@given(TEXT, TEXT)
def test_lines_without_a_change_by_others_are_as_before(left: bytes, before: bytes) -> None:
    assert lines.merge(left, before, left) == before


@PATIENT
@given(TEXT, TEXT)
def test_lines_that_the_step_did_not_change_are_the_others(left: bytes, present: bytes) -> None:
    assert lines.merge(left, left, present) == present


@PATIENT
@given(TEXT, TEXT, TEXT)
def test_lines_merged_again_stay(left: bytes, before: bytes, present: bytes) -> None:
    """Only what is there in all cases: no line comes from nowhere."""
    merged = lines.merge(left, before, present)
    assert merged is None or set(merged.splitlines()) <= {*before.splitlines(), *present.splitlines()}


def test_lines_of_both_side_by_side() -> None:
    assert lines.merge(b"a\nstep\n", b"a\n", b"a\nstep\nadmin\n") == b"a\nadmin\n"
    assert lines.merge(b"a\nb\n", b"a\nold\nb\n", b"a\nadmin\nb\n") == b"a\nold\nadmin\nb\n"
    assert lines.merge(b"a\nstep\nb\n", b"a\nold\nb\n", b"a\nadmin\nb\n") is None
    assert lines.merge(b"a\nx\ny\nb\n", b"a\nb\n", b"a\nx\nadmin\ny\nb\n") is None
    assert lines.merge(b"a\nstep", b"a", b"a\nstep\nadmin") == b"a\nadmin\n"


@PATIENT
@given(ROW_TEXT, ROW_TEXT)
def test_rows_without_a_change_by_others_are_as_before(left: bytes, before: bytes) -> None:
    merged = rows.merge(left, before, left)
    assert not merged.conflicts
    assert sorted(merged.data.splitlines()) == sorted(before.splitlines())


@PATIENT
@given(ROW_TEXT, ROW_TEXT, ROW_TEXT)
def test_rows_each_by_itself(left: bytes, before: bytes, present: bytes) -> None:
    merged = rows.merge(left, before, present)
    mine, old, now, result = (dict(line.split(b":") for line in text.splitlines()) for text in (left, before, present, merged.data))
    for name in {*mine, *old, *now}:
        if now.get(name) == mine.get(name) or name in merged.conflicts:
            assert result.get(name) == old.get(name)
        elif mine.get(name) == old.get(name):
            assert result.get(name) == now.get(name)
    again = rows.merge(left, before, merged.data)
    assert again.data == merged.data


def test_rows_of_groups_and_their_members() -> None:
    left, before = b"audio:x:29:root,player\nplayer:x:1001:\n", b"audio:x:29:root\n"
    assert rows.merge(left, before, left.replace(b"root,player", b"root,player,later"), sets=1).data == b"audio:x:29:root,later\n"
    assert rows.merge(left, before, b"audio:x:30:root,player\n", sets=1).data == b"audio:x:30:root\n"
    assert rows.merge(b"a:1:x\n", b"a:2:x\n", b"a:3:x\n", sets=1).conflicts == (b"a",)
    assert rows.merge(b"u:1:9\nu:2:9\n", b"u:1:9\n", b"v:7:9\nu:1:9\nu:2:9\n").data == b"v:7:9\nu:1:9\n"


def test_kinds_of_files() -> None:
    assert [kind_of(path) for path in (b"/etc/shadow-", b"/etc/hosts", b"/etc/sudoers.d/x", b"/home/a/.ssh/authorized_keys")] == [
        ROWS,
        LINES,
        SUDOERS,
        LINES,
    ]
    assert {kind_of(path) for path in (b"/etc/hosts.allow", b"/home/a/.ssh/id_rsa", b"/etc/passwd/x", b"/x/etc/hosts")} == {None}


SECOND = 1_000_000_000


def ends(*, offset: int = 0, booted: int = 0, killed: tuple[int, ...] = ()) -> Ends:
    """Steps 1 (10 to 20 s), 2 (30 to 40 s, the log knows that it ended at 35) and 3 (from 50 s on, torn); now it is 100 s."""
    steps = (StepTimes(1, 10 * SECOND, 20 * SECOND), StepTimes(2, 30 * SECOND, 40 * SECOND), StepTimes(3, 50 * SECOND, None))
    sealed = {2: Sealed(2, 35 * SECOND, 5 * SECOND)}
    runs = [UndoRun(1, 60 * SECOND, 62 * SECOND, 0)]
    return Ends(steps, sealed, runs, Now(100 * SECOND, 5 * SECOND - offset, booted), killed=killed, undos=[(80 * SECOND, 81 * SECOND)])


@pytest.mark.parametrize(
    ("seconds", "step", "what"),
    [
        (20, 1, OURS),
        (21, 1, LATER),
        (33, 1, DURING),
        (35, 2, OURS),
        (37, 2, LATER),  # after its last process, though before the next step sealed it
        (55, 2, DURING),
        (57, 3, OURS),
        (90, 3, LATER),
        (61, 1, DURING),
        (80.5, 1, OURS),
    ],
)
def test_what_a_change_is(seconds: float, step: int, what: str) -> None:
    found = ends(booted=58 * SECOND)
    assert found.when(int(seconds * SECOND), found.of(1 << step)) == what


def test_a_torn_step_ended_with_its_boot() -> None:
    assert ends().of(1 << 3) == 100 * SECOND
    assert ends(booted=70 * SECOND).of(1 << 3) == 70 * SECOND
    assert ends(killed=(1,)).of(1 << 1 | 1 << 2) == 100 * SECOND


def test_a_clock_that_was_set_back() -> None:
    """What a step left while the clock was ahead cannot be told from what came after."""
    assert ends().clock_set_back_ns() == 0
    assert ends(offset=-3600 * SECOND).clock_set_back_ns() == 0
    assert ends(offset=SECOND // 100).clock_set_back_ns() == 0
    assert ends(offset=10 * SECOND).clock_set_back_ns() == 10 * SECOND
    assert ends(offset=10 * SECOND).undecided_since(1 << 2) == 25 * SECOND
    assert ends().undecided_since(1 << 2) > 100 * SECOND


def test_a_clock_that_was_set_back_under_a_step_that_lives_on() -> None:
    alive = {1: Sealed(1, 0, 5 * SECOND)}
    found = Ends([StepTimes(1, 10 * SECOND, 20 * SECOND)], alive, [], Now(100 * SECOND, -5 * SECOND))
    assert found.clock_set_back_ns() == 10 * SECOND


def test_lists_of_packages() -> None:
    assert parse_dpkg(b"/.\n/usr\n/usr/bin/x\n") == {b"/usr", b"/usr/bin/x"}
    assert parse_pacman(b"%FILES%\nusr/\nusr/bin/x\n\n%BACKUP%\netc/y\tabc\n") == {b"/usr", b"/usr/bin/x"}


def test_packages_that_anybody_has_changed_since(tmp_path: Path) -> None:
    dpkg, pacman = tmp_path / "info", tmp_path / "local"
    (pacman / "b-1-1").mkdir(parents=True)
    dpkg.mkdir()
    (dpkg / "old.list").write_text("/.\n/etc/old.conf\n")
    (dpkg / "old.md5sums").write_text("/etc/no.list\n")
    time.sleep(0.05)
    since = time.time_ns() - 20_000_000
    (dpkg / "a.list").write_text("/.\n/etc\n/etc/a.conf\n")
    (pacman / "ALPM_DB_VERSION").write_text("9\n")
    (pacman / "b-1-1" / "files").write_text("%FILES%\netc/b.conf\n\n")
    where = {"dpkg": os.fsencode(dpkg), "pacman": os.fsencode(pacman)}
    assert of_changed_packages(since, **where) == {b"/etc", b"/etc/a.conf", b"/etc/b.conf"}
    assert of_changed_packages(0, **where) == {b"/etc", b"/etc/a.conf", b"/etc/b.conf", b"/etc/old.conf"}
    assert of_changed_packages(0, dpkg=b"/none", pacman=b"/none") == frozenset()
