# SPDX-License-Identifier: GPL-3.0-or-later
"""The whole jobs hold what is said of them. Reads the plays; needs no host."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

SCENARIOS = Path(__file__).resolve().parents[2] / "scenarios"
sys.path.insert(0, str(SCENARIOS))

from scenario import catalog, jobs

JOBS = jobs.load()
IDS = [job.name for job in JOBS]
# The collection from the registries that a job is about.
REGISTRY = {
    "web-tls": "community.crypto.",
    "postgresql": "community.postgresql.",
    "hardening": "ansible.posix.",
    "python-app": "community.general.",
}


def real_tasks(job: jobs.Job) -> list[dict[str, Any]]:
    return [task for task in job.play["tasks"] if "ansible.builtin.meta" not in task]


def modules(job: jobs.Job) -> set[str]:
    tasks = [*job.play["tasks"], *job.play["handlers"]]
    return {key for task in tasks for key in task if key.count(".") == 2}


def test_there_are_four_jobs_and_each_has_its_folder() -> None:
    assert len(JOBS) == 4
    assert sorted(IDS) == sorted(path.name for path in jobs.FOLDER.iterdir())


@pytest.mark.parametrize("job", JOBS, ids=IDS)
def test_each_has_twenty_five_tasks_with_ten_modules_and_handlers(job: jobs.Job) -> None:
    assert len(real_tasks(job)) >= 25
    assert len(modules(job)) >= 10
    assert any("notify" in task for task in job.play["tasks"])
    assert any(name.startswith(REGISTRY[job.name]) for name in modules(job))
    assert "ansible.builtin.apt" in modules(job)


@pytest.mark.parametrize("job", JOBS, ids=IDS)
def test_each_breaks_at_five_places_all_along(job: jobs.Job) -> None:
    tasks = [task["name"] for task in job.play["tasks"]]
    handlers = [task["name"] for task in job.play["handlers"]]
    assert len(tasks) == len(set(tasks))
    assert len(job.places) == 5
    for place in job.places:
        assert place.after in tasks if place.after else place.fails in [*tasks, *handlers]
        assert bool(place.fails) == bool(place.vars)
        assert {name for name, _value in place.vars} <= set(job.play["vars"])
    assert sum(place.fails in handlers for place in job.places) == 1, "one in a handler"
    shares = [(tasks.index(place.after or place.fails) + 1) / len(tasks) for place in job.places if place.fails not in handlers]
    assert shares == sorted(shares)
    assert shares[0] <= 0.35
    assert shares[-1] == 1


def test_one_place_is_in_the_quick_selection() -> None:
    assert sum(place.quick for job in JOBS for place in job.places) == 1


@pytest.mark.parametrize("job", JOBS, ids=IDS)
def test_a_broken_copy_differs_in_the_failing_task_alone(job: jobs.Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "BUILD", tmp_path)
    for place in job.places:
        broken = job.broken(place)
        (play,) = yaml.safe_load(broken.path.read_text(encoding="utf-8"))
        added = [task for task in play["tasks"] if task["name"] == jobs.BREAKS]
        assert len(added) == (1 if place.after else 0)
        play["tasks"] = [task for task in play["tasks"] if task not in added]
        assert play == job.play
        assert {path.name for path in (broken.path.parent / "templates").iterdir()} == {
            path.name for path in (job.folder / "templates").iterdir()
        }


def test_the_first_failure_counts() -> None:
    broken = jobs.Broken(name="x", path=Path("x"), failing="second")
    told = "TASK [first] ***\nok: [h]\n\nRUNNING HANDLER [second] ***\nfatal: [h]: FAILED! => {}\n"
    assert broken.failed_in_its_task(told)
    assert not broken.failed_in_its_task(told.replace("ok: ", "fatal: "))
    assert not broken.failed_in_its_task("TASK [second] ***\nok: [h]\n")
    assert isinstance(broken, catalog.Scenario)
