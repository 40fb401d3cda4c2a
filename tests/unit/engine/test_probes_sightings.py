# SPDX-License-Identifier: GPL-3.0-or-later
"""Who changed run-time state: what differs between two steps is somebody else's. An undo goes back to an image with that in it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from engine.errors import ProbeFailed
from engine.probes import sightings
from engine.probes.base import Image, Outcome, Probe
from engine.probes.hostname import Hostname
from engine.probes.modules import Modules
from engine.probes.mounts import Mounts
from engine.probes.network import Network
from engine.probes.sightings import FILE, UNDO, Sightings
from engine.probes.swap import Swap


class Facts(Probe):
    name = "facts"
    is_watched = True

    def __init__(self, **facts: str) -> None:
        self.now, self.fails = dict(facts), False

    def capture(self) -> Image:
        if self.fails:
            raise ProbeFailed("not now")
        return dict(self.now)

    def seen(self, image: Image) -> dict[str, object]:
        return dict(image)

    def adopt(self, image: Image, keys: Any, other: Image) -> Image:
        kept = {key: value for key, value in image.items() if key not in keys}
        return {**kept, **{key: other[key] for key in keys if key in other}}

    def compare(self, before: Image, now: Image, circumstances: object = None) -> list[str]:
        return []

    def converge(self) -> Outcome:
        return Outcome()


class Mountlike(Facts):
    name = "mounts"


@pytest.fixture
def clock(monkeypatch):
    now = [0]
    monkeypatch.setattr(sightings, "_now", lambda: now[0])
    return now


def goal(directory: Path, probe: Probe, image: Image, epoch: int = 0) -> Image:
    """As whoever undoes it finds it in the file."""
    return Sightings(str(directory), ()).goal(probe, image, epoch)


def begun(directory: Path, probe: Facts, *, acted: tuple[int, ...] = (), asked: tuple[int, ...] = ()) -> Sightings:
    one = Sightings(str(directory), [probe], acts=lambda step: (step in acted, step in asked))
    one.first({probe.name: probe.capture()})
    return one


def test_what_changes_in_a_step_is_the_steps_and_between_two_it_is_somebody_elses(tmp_path: Path) -> None:
    probe = Facts(a="0", b="0", c="0")
    before, one = probe.capture(), begun(tmp_path, probe)
    one.began(1, 1)
    probe.now["a"] = "step"
    one.ended(1)
    probe.now["b"] = "his"
    probe.now["new"] = "his"
    one.began(2, 2)
    del probe.now["c"]
    one.ended(2)
    one.began(UNDO, 2)
    assert goal(tmp_path, probe, before) == {"a": "0", "b": "his", "c": "0", "new": "his"}


def test_what_he_does_after_the_last_step_is_his_and_what_the_undo_does_is_not(tmp_path: Path) -> None:
    probe = Facts(a="0", b="0")
    before, one = probe.capture(), begun(tmp_path, probe)
    one.began(1, 1)
    probe.now["a"] = "step"
    one.ended(1)
    probe.now["b"] = "his"
    Sightings(str(tmp_path), [probe]).began(UNDO, 1)
    probe.now["a"] = "half undone"
    Sightings(str(tmp_path), [probe]).began(UNDO, 1)  # it died, and goes on
    assert goal(tmp_path, probe, before) == {"a": "0", "b": "his"}


def test_what_he_changed_after_a_step_had_is_left_as_he_left_it(tmp_path: Path) -> None:
    probe = Facts(a="0")
    before, one = probe.capture(), begun(tmp_path, probe)
    one.began(1, 1)
    probe.now["a"] = "step"
    one.ended(1)
    probe.now["a"] = "his"
    one.began(2, 2)
    assert goal(tmp_path, probe, before) == {"a": "his"}


def test_a_daemon_that_a_step_asked_may_act_a_little_later(tmp_path: Path, clock) -> None:
    probe = Facts(a="0", b="0")
    before, one = probe.capture(), begun(tmp_path, probe, asked=(1,))
    one.began(1, 1)
    one.ended(1)
    clock[0] += 1_000_000_000
    probe.now["a"] = "daemon"
    one.look()
    clock[0] += 2_000_000_000
    probe.now["b"] = "his"
    one.look()
    assert goal(tmp_path, probe, before) == {"a": "0", "b": "his"}


@pytest.mark.parametrize(("acted", "asked", "left"), [((), (), "his"), ((1,), (), "0"), ((), (1,), "0")])
def test_a_mount_while_a_step_ran_that_neither_mounted_nor_asked_anybody_is_somebody_elses(
    tmp_path: Path, clock, acted: tuple[int, ...], asked: tuple[int, ...], left: str
) -> None:
    probe = Mountlike(a="0")
    before, one = probe.capture(), begun(tmp_path, probe, acted=acted, asked=asked)
    one.began(1, 1)
    probe.now["a"] = "his"
    one.ended(1)
    assert goal(tmp_path, probe, before) == {"a": left}


def test_to_a_savepoint_only_what_came_after_it_counts(tmp_path: Path) -> None:
    probe = Facts(a="0", b="0")
    one = begun(tmp_path, probe)
    one.began(1, 1)
    one.ended(1)
    probe.now["a"] = "his, before"
    one.look()
    at_savepoint = probe.capture()
    one.began(2, 3)
    probe.now["a"] = "step"
    one.ended(2)
    probe.now["b"] = "his"
    one.began(UNDO, 3)
    assert goal(tmp_path, probe, at_savepoint, epoch=3) == {"a": "his, before", "b": "his"}


def test_another_agent_goes_on_where_the_first_one_died(tmp_path: Path) -> None:
    probe = Facts(a="0", b="0")
    before, one = probe.capture(), begun(tmp_path, probe)
    one.began(1, 1)
    probe.now["a"] = "step"
    one.ended(1)
    probe.now["b"] = "his"
    Sightings(str(tmp_path), [probe]).began(2, 2)
    assert goal(tmp_path, probe, before) == {"a": "0", "b": "his"}


def test_what_differs_when_a_step_was_torn_is_the_steps(tmp_path: Path) -> None:
    probe = Facts(a="0")
    before, one = probe.capture(), begun(tmp_path, probe)
    one.began(1, 1)
    probe.now["a"] = "step"
    Sightings(str(tmp_path), [probe]).began(UNDO, 1)
    assert goal(tmp_path, probe, before) == {"a": "0"}


@pytest.mark.parametrize("at", range(1, 60, 7))
def test_a_line_that_was_torn_ends_what_is_known(tmp_path: Path, at: int) -> None:
    probe = Facts(a="0")
    before, one = probe.capture(), begun(tmp_path, probe)
    one.began(1, 1)
    one.ended(1)
    path = tmp_path / FILE[1:]
    size = path.stat().st_size
    probe.now["a"] = "his"
    one.look()
    os.truncate(path, size + at)
    with path.open("ab") as file:
        file.write(b'"\n')
    probe.now["a"] = "step"
    Sightings(str(tmp_path), [probe]).began(2, 2)
    assert goal(tmp_path, probe, before) == {"a": "0"}


def test_what_was_not_seen_when_it_should_have_been_is_the_steps(tmp_path: Path) -> None:
    probe = Facts(a="0")
    before, one = probe.capture(), begun(tmp_path, probe)
    one.began(1, 1)
    probe.now["a"] = "step"
    probe.fails = True
    one.ended(1)
    probe.fails = False
    one.began(2, 2)
    assert goal(tmp_path, probe, before) == {"a": "0"}


def test_a_disk_that_takes_no_more_leaves_nothing_known(tmp_path: Path, monkeypatch) -> None:
    probe = Facts(a="0")
    before, one = probe.capture(), begun(tmp_path, probe)
    probe.now["a"] = "his"
    monkeypatch.setattr(sightings.os, "write", lambda fd, data: len(data) - 1)
    one.began(1, 1)
    assert not (tmp_path / FILE[1:]).exists()
    assert goal(tmp_path, probe, before) == {"a": "0"}


@pytest.mark.parametrize("make", [Mounts, Network, Swap, Hostname, Modules])
def test_the_watched_probes_adopt_what_others_did(make: type[Probe]) -> None:
    """An image with nothing in it, and the real one: each takes on the other's by its names."""
    probe = make()
    if probe.check():
        return
    now = json.loads(json.dumps(probe.capture()))
    names = probe.seen(now)
    assert probe.seen(probe.adopt(now, [], now)) == names
    assert probe.seen(probe.adopt(now, list(names), now)) == names
    if make is not Hostname:
        empty = {key: type(value)() for key, value in now.items()}
        assert probe.seen(empty) == {}
        assert probe.seen(probe.adopt(empty, list(names), now)) == names
        assert probe.seen(probe.adopt(now, list(names), empty)) == {}
