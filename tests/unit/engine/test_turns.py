# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose turn it is: what is seen of real processes whose call was let run, and who waits for whom (docs/adr/0011)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from engine.trace import turns
from engine.trace.turns import Turns, has_ended

OPENAT = 257 if os.uname().machine == "x86_64" else 56


@contextmanager
def child(program: str, *arguments: str) -> Iterator[int]:
    """A process that runs the program, and has said that it is about to do the last thing in it."""
    code = f"import os, sys\nos.write(1, b'.')\n{program}"
    process = subprocess.Popen([sys.executable, "-c", code, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"."
        time.sleep(0.1)
        yield process.pid
    finally:
        process.kill()
        process.communicate()


def ends(thread: int) -> bool:
    """On a busy machine the child is not there yet."""
    end = time.monotonic() + 20
    while not has_ended(thread, OPENAT) and time.monotonic() < end:
        time.sleep(0.05)
    return has_ended(thread, OPENAT)


def test_a_thread_that_waits_in_another_call_has_ended_this_one() -> None:
    with child("os.read(0, 1)") as thread:
        assert ends(thread)


def test_an_open_that_waits_for_the_other_side_of_a_fifo_counts_as_ended(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with child("os.open(sys.argv[1], os.O_WRONLY)", str(tmp_path / "fifo")) as thread:
        assert ends(thread)


def test_a_thread_that_is_no_more_has_ended_its_call() -> None:
    with child("pass") as thread:
        pass
    assert has_ended(thread, OPENAT)


def test_a_running_thread_has_not_surely_ended_its_call() -> None:
    with child("while True: pass") as thread:
        assert not has_ended(thread, OPENAT)


def test_a_thread_that_runs_on_is_waited_for_as_long_as_a_call_can_take() -> None:
    taken = Turns()
    with child("while True: pass") as thread:
        assert not taken.take(thread, OPENAT)
        assert taken.take(1, OPENAT)
        before = turns.cpu_time(thread)
        assert taken.alone()
        assert turns.cpu_time(thread) - before > turns._CALL_RUNS
        assert not taken.alone()


def test_without_cpu_times_the_wait_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "cpu_time", lambda thread: 0)
    taken = Turns()
    with child("while True: pass") as thread:
        taken.take(thread, OPENAT)
        taken.take(1, OPENAT)
        start = time.monotonic()
        assert taken.alone()
        assert turns._LONGEST_UNSEEN <= time.monotonic() - start < turns._LONGEST


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The threads whose call was looked at; each has ended at the first look."""
    seen: list[int] = []

    def ended(thread: int, number: int) -> bool:
        seen.append(thread)
        return True

    monkeypatch.setattr(turns, "has_ended", ended)
    return seen


def test_one_thread_never_waits(waited: list[int]) -> None:
    taken = Turns()
    for _again in range(3):
        assert not taken.take(7, OPENAT)
        assert not taken.alone()
    assert waited == []


def test_calls_that_move_nothing_do_not_wait_for_each_other(waited: list[int]) -> None:
    taken = Turns()
    assert [taken.take(thread, OPENAT) for thread in (7, 8, 9, 7)] == [False, True, True, True]
    assert waited == []


def test_a_call_that_is_alone_waits_for_all_and_the_next_waits_for_it(waited: list[int]) -> None:
    taken = Turns()
    for thread in (7, 8, 9):
        taken.take(thread, OPENAT)
    assert taken.alone()
    assert waited == [7, 8]
    assert not taken.take(7, OPENAT)
    assert waited == [7, 8, 9]
    assert taken.take(8, OPENAT)
    assert waited == [7, 8, 9]


def test_a_thread_that_is_back_is_not_waited_for(waited: list[int]) -> None:
    taken = Turns()
    taken.take(7, OPENAT)
    taken.take(8, OPENAT)
    taken.back(7)
    assert not taken.alone()
    taken.drain()
    assert waited == [8]


def test_threads_that_have_ended_are_not_remembered_for_ever(waited: list[int]) -> None:
    taken = Turns()
    for thread in range(1, 1000):
        taken.take(thread, OPENAT)
    assert len(taken._running) <= turns._MANY + 1
