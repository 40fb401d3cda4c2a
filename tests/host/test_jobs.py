# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole jobs as people write them, each broken at five places: one place in `make test`, all of them and the controls in `make exact`.

Longer programmes, resumable: tests/scenarios/run.py jobs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"
sys.path.insert(0, str(SCENARIOS))

from scenario import built, jobs, modes
from scenario.outcome import table
from scenario.player import BUILD, Player
from scenario.stage import JOBS, Stage

LAB = "jobs"
ALL = [(job, place) for job in jobs.load() for place in job.places]


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    stage = Stage(LAB)
    stage.close()
    address = stage.open(JOBS)
    jobs.serve_packages()
    with built.mirror(address) as url:
        yield Player(stage, url, BUILD / "scenarios" / "logs" / LAB)
    stage.close()


def places(*, quick: bool) -> list[object]:
    return [pytest.param(job, place, id=f"{job.name}-{place.number}") for job, place in ALL if place.quick is quick]


def check(player: Player, mode: str, job: jobs.Job, place: jobs.Place) -> None:
    outcome = modes.MODES[mode](player, job.broken(place), 0)
    assert outcome.good, table([outcome])


@pytest.mark.parametrize(("job", "place"), places(quick=True))
def test_a_broken_job_leaves_the_host_as_it_was(player: Player, job: jobs.Job, place: jobs.Place) -> None:
    check(player, "exact", job, place)


@pytest.mark.exact
@pytest.mark.parametrize(("job", "place"), places(quick=False))
def test_every_broken_job_leaves_its_host_as_it_was(player: Player, job: jobs.Job, place: jobs.Place) -> None:
    check(player, "exact", job, place)


@pytest.mark.exact
@pytest.mark.parametrize("job", jobs.load(), ids=lambda job: job.name)
def test_every_job_leaves_fifty_changed_paths_without_the_collection(player: Player, job: jobs.Job) -> None:
    check(player, "control", job, job.places[-1])
