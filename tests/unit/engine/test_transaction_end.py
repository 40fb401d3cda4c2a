# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture's name is a test's argument)
"""The end of a transaction: what the disk does not take dooms it for good, nothing fails after the commit row, and no step slips in."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import types
from collections.abc import Callable
from pathlib import Path

import pytest
from engine import kernel
from engine import transaction as module
from engine.errors import Denied, Doomed, JournalUnwritable, ProbeFailed, WrongState
from engine.filesystems import TRACED
from engine.transaction import OpenTransaction

sys.path.insert(0, str(Path(__file__).resolve().parent))

from played import attach, begin, opened  # noqa: F401

EIO = OSError(errno.EIO, "Input/output error")


@pytest.fixture(autouse=True)
def no_probes(monkeypatch: pytest.MonkeyPatch) -> None:
    """They would look at this machine."""
    monkeypatch.setattr(module, "Probes", lambda _names: types.SimpleNamespace(before_files=lambda: ()))


def failing_once(way: Callable[..., object], error: BaseException, when: Callable[..., bool] = lambda *_all, **_more: True):
    """As a disk does: it tells its error once, and all is well after that."""
    told: list[BaseException] = []

    def fails(*arguments: object, **more: object) -> object:
        if not told and when(*arguments, **more):
            told.append(error)
            raise error
        return way(*arguments, **more)

    return fails


def state(made: OpenTransaction) -> str:
    return made.journal.get(made.id).state


# What the disk does not take


@pytest.mark.parametrize("what", ["syncfs", "fdatasync", "the commit row"])
def test_what_did_not_reach_the_disk_once_dooms(opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """The kernel tells such an error once: a second commit would find nothing wrong, and what was lost would be committed."""
    made, _log = opened
    step = begin(made)
    found = made.store.file_system(kernel.Reader().stat(kernel.AT_FDCWD, os.fsencode(tmp_path)).dev)
    assert found is not None
    assert found.policy == TRACED
    if what == "syncfs":
        monkeypatch.setattr(module.kernel, "syncfs", failing_once(kernel.syncfs, EIO))
    elif what == "fdatasync":
        monkeypatch.setattr(os, "fdatasync", failing_once(os.fdatasync, EIO))
    else:
        row = failing_once(made.journal.set_state, JournalUnwritable("a test says so"), lambda _tx, state, **_more: state == "COMMITTED")
        monkeypatch.setattr(made.journal, "set_state", row)
    for _again in range(2):
        with pytest.raises(Doomed, match="does not reach the disk"):
            made.commit([step.id])
    assert state(made) == "DOOMED"
    with pytest.raises(Doomed):
        begin(made, "two")


@pytest.mark.parametrize("what", ["summary", "release_reserves", "close"])
def test_after_the_commit_row_nothing_fails(opened, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    made, _log = opened
    step = begin(made)

    def fails(*_arguments: object) -> None:
        raise JournalUnwritable("a test says so") if what == "summary" else EIO

    monkeypatch.setattr(made.log if what == "close" else made, what, fails)
    done = made.commit([step.id])
    assert (done.tx, done.name, done.state) == (made.id, "n", "COMMITTED")
    assert state(made) == "COMMITTED"


def test_an_undo_takes_over_whatever_fails_at_the_end(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """The failing disk may be the reason for it."""
    made, _log = opened
    begin(made)
    made.store.durable = True
    monkeypatch.setattr(os, "fdatasync", failing_once(os.fdatasync, EIO))
    made.abandon()
    assert made.doomed
    assert made._closed


# What others change is imaged before they do


@pytest.mark.parametrize("durable", [True, False])
def test_probes_images_are_on_the_disk_with_durability_power(opened, tmp_path: Path, durable: bool) -> None:
    """What they are images of is changed by PID 1, whose writes wait for no record of the log. What is on the disk, the head counts."""
    made, _log = opened
    made.store.durable = durable
    before = (tmp_path / "journal.head").read_bytes()
    made.capture_probes(1)
    assert ((tmp_path / "journal.head").read_bytes() != before) == durable


# No step slips in


@pytest.mark.parametrize("way", ["commit", "kill"])
def test_no_step_starts_at_the_end(opened, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    made, _log = opened
    step = begin(made)
    refused = []

    def slip_in(*_epoch: int) -> None:
        for late in (lambda: begin(made, "late"), lambda: attach(made, step)):
            with pytest.raises(WrongState, match="at its end"):
                late()
            refused.append(late)

    if way == "commit":
        monkeypatch.setattr(made, "capture_probes", slip_in)
        made.commit([step.id])
    else:
        made.kill_processes()
        slip_in()
    assert len(refused) == 2
    assert [known.id for known in made.journal.steps(made.id)] == [step.id]


def test_an_undo_to_a_savepoint_is_no_end(opened) -> None:
    made, _log = opened
    begin(made)
    made.kill_processes(first_step=3)
    attach(made, begin(made, "two"))


def test_a_commit_that_fails_is_no_end(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _log = opened
    step = begin(made)
    capture = made.capture_probes
    monkeypatch.setattr(made, "capture_probes", failing_once(capture, ProbeFailed("a test says so")))
    with pytest.raises(ProbeFailed):
        made.commit([step.id])
    made._deny(1, "a block device")
    with pytest.raises(Denied):
        made.commit([step.id])
    made.ask_denied()  # then its task has failed
    attach(made, begin(made, "two"))
    assert made.commit([step.id, "two"]).state == "COMMITTED"


def test_a_commit_of_steps_that_were_not_seen_says_so_again(opened) -> None:
    made, _log = opened
    for _again in range(2):
        with pytest.raises(Doomed, match="without the shim"):
            made.commit(["unseen"])


def slots_open() -> int:
    """Descriptors of what tracers share with the next agent."""
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the listing's own
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return sum("acid-slots" in link for link in links)


def test_a_step_that_is_refused_at_the_end_leaves_nothing_open(opened) -> None:
    made, _log = opened
    step = begin(made)
    made.kill_processes()
    before = slots_open()
    for _each in range(3):
        with pytest.raises(WrongState):
            attach(made, step)
    assert slots_open() == before


def test_a_doom_that_could_not_be_written_down_is_no_less_one(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """A survivor's image is lost while the commit is at work, and the same disk does not take the row that says so."""
    made, _log = opened
    begin(made)
    tried = made.journal.set_state

    def refused(tx: str, to: str, **more: str) -> object:
        if to == "DOOMED":
            raise JournalUnwritable("x")
        return tried(tx, to, **more)

    monkeypatch.setattr(made.journal, "set_state", refused)
    monkeypatch.setattr(made, "_note_survivors", lambda: made._lost("the disk did not take it"))
    with pytest.raises(Doomed, match="did not take it"):
        made.commit([])
    assert state(made) == "COMMITTING"  # which the next agent dooms


def test_steps_that_were_not_seen_doom_before_the_commit_too(opened) -> None:
    made, _log = opened
    made.refuse_unseen([])
    assert state(made) == "ACTIVE"
    with pytest.raises(Doomed, match="without the shim"):
        made.refuse_unseen(["unseen"])
    assert state(made) == "DOOMED"
