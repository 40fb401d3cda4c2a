# SPDX-License-Identifier: GPL-3.0-or-later
"""What systemd's managers keep in files: unit files of systemd-run, stamps of timers. On directories of the test's own."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from engine.probes import lingering, shelf, transient


@pytest.fixture
def folders(sandbox: Path, monkeypatch) -> Path:
    state = sandbox / "systemd"
    state.mkdir()
    monkeypatch.setattr(shelf, "TIMERS", f"{state}/timers")
    monkeypatch.setattr(shelf, "FOLDERS", (f"{state}/timers", f"{state}/linger", str(state)))
    return state


def stored(shelves: shelf.Shelves) -> shelf.Shelves:
    return json.loads(json.dumps(shelves))


def test_stamps_and_times_come_back(folders: Path) -> None:
    timers = folders / "timers"
    timers.mkdir()
    (timers / "stamp-old.timer").touch()
    (timers / "stamp-gone.timer").touch()
    for path in (timers / "stamp-gone.timer", timers, folders):
        os.utime(path, ns=(5, 10**18))
    was = stored(shelf.look())
    (timers / "stamp-new.timer").touch()
    (timers / "stamp-gone.timer").unlink()
    (timers / "notes").touch()
    assert len(shelf.stamps_back(was, lambda _ns: True)) == 2
    assert sorted(os.listdir(timers)) == ["notes", "stamp-gone.timer", "stamp-old.timer"]
    assert (timers / "stamp-gone.timer").stat().st_mtime_ns == 10**18
    shelf.settle(was, None)
    assert timers.stat().st_mtime_ns != 10**18, "somebody else's file is in it"
    (timers / "notes").unlink()
    shelf.settle(was, None)
    assert timers.stat().st_mtime_ns == folders.stat().st_mtime_ns == 10**18


def test_a_stamp_that_no_step_made_stays(folders: Path) -> None:
    (folders / "timers").mkdir()
    was = stored(shelf.look())
    (folders / "timers" / "stamp-new.timer").touch()
    assert shelf.stamps_back(was, lambda _ns: False) == []
    assert os.listdir(folders / "timers") == ["stamp-new.timer"]


def test_a_directory_that_was_not_there_goes_when_it_is_empty(folders: Path) -> None:
    was = stored(shelf.look())
    (folders / "timers").mkdir()
    (folders / "linger").mkdir()
    (folders / "linger" / "somebody").touch()
    shelf.settle(was, None)
    assert os.listdir(folders) == ["linger"]


def test_after_a_commit_that_changed_nothing_there_times_are_left(folders: Path) -> None:
    (folders / "timers").mkdir()
    was = stored(shelf.look())
    os.utime(folders / "timers", ns=(7, 7))
    shelf.settle(was, was)
    assert (folders / "timers").stat().st_mtime_ns == 7


def test_unit_files_of_systemd_run(sandbox: Path) -> None:
    top = sandbox / "transient"
    (top / "a.service.d").mkdir(parents=True)
    (top / "session-3.scope.d").mkdir()
    (top / "session-3.scope.d" / "x.conf").write_text("login")
    (top / "session-3.scope").write_text("login")
    (top / "acid-agent.service").write_text("engine")
    (top / "a.service").write_text("one")
    (top / "a.service.d" / "x.conf").write_text("two")
    (top / "b.service").write_text("three")
    was = transient.read(str(top))
    assert was == {"a.service": "one", "a.service.d/x.conf": "two", "b.service": "three"}
    (top / "a.service").unlink()
    (top / "a.service.d" / "x.conf").write_text("changed")
    (top / "a.service.d" / "y.conf").write_text("new")
    (top / "b.service").write_text("not a unit of ours")
    (top / "c.service").write_text("new")
    transient.put_back(str(top), was, {"a.service"})
    now = transient.read(str(top))
    assert now == {**was, "b.service": "not a unit of ours", "c.service": "new"}
    assert transient.read(str(sandbox / "nowhere")) == {}


def test_managers_that_can_be_asked(sandbox: Path) -> None:
    for uid in ("0", "1000", "1001"):
        (sandbox / "user" / uid / "systemd").mkdir(parents=True)
    (sandbox / "user" / "0" / "systemd" / "private").touch()
    (sandbox / "user" / "1000" / "systemd" / "private").touch()
    (sandbox / "user" / "other").touch()
    (sandbox / "units").mkdir()
    (sandbox / "units" / "invocation:user@0.service").symlink_to("abc")
    assert lingering.running(run_user=str(sandbox / "user"), units=str(sandbox / "units")) == {0: "abc", 1000: ""}
    assert lingering.running(run_user=str(sandbox / "none")) == {}
