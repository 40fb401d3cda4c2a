# SPDX-License-Identifier: GPL-3.0-or-later
"""Whole jobs as people write them, and the places at which each of them breaks.

A job is a play that ends well. It breaks either by a command that fails, put in after one of its tasks, or by a variable with which
one of its own tasks (or handlers) fails. The play itself knows nothing of it: what runs is a copy of its folder.
"""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from . import debs
from .built import BUILT, build
from .catalog import PLAYS, Scenario
from .player import BUILD
from .stage import HERE, JOBS, World

FOLDER = PLAYS / "jobs"
BREAKS = "The job breaks here"
# What the jobs install by apt.
PACKAGES = (
    "libpam-pwquality",
    "nginx",
    "postgresql",
    "python3-cryptography",
    "python3-packaging",
    "python3-psycopg2",
    "unattended-upgrades",
)
HEADING = re.compile(r"^(?:TASK|RUNNING HANDLER) \[(.*)\] \*+$")


@dataclass(frozen=True)
class Place:
    """after: a task behind which a command fails; or fails: a task or handler that does so itself with these variables."""

    number: int
    after: str = ""
    fails: str = ""
    vars: tuple[tuple[str, Any], ...] = ()
    quick: bool = False

    @property
    def text(self) -> str:
        return f"after {self.after}" if self.after else f"in {self.fails}"


@dataclass(frozen=True)
class Broken(Scenario):
    """A job that breaks at one place."""

    failing: str = ""

    @property
    def world(self) -> World:
        return JOBS

    @property
    def failing_task(self) -> str:
        return self.failing

    @property
    def enough(self) -> int:
        return 50

    def failed_in_its_task(self, text: str) -> bool:
        """The first task that failed is the one that was meant to."""
        heading = ""
        for line in text.splitlines():
            found = HEADING.match(line)
            heading = found[1] if found else heading
            if line.startswith("fatal: "):
                return heading == self.failing
        return False


@dataclass(frozen=True)
class Job:
    name: str
    places: tuple[Place, ...]

    @property
    def folder(self) -> Path:
        return FOLDER / self.name

    @property
    def quick(self) -> bool:
        return any(place.quick for place in self.places)

    @property
    def play(self) -> dict[str, Any]:
        (play,) = yaml.safe_load((self.folder / "play.yml").read_text(encoding="utf-8"))
        return play  # type: ignore[no-any-return]

    def broken(self, place: Place) -> Broken:
        """Write the copy that breaks at this place."""
        name = f"{self.name}-{place.number}"
        folder = BUILD / "scenarios/jobs" / name
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.folder, folder)
        play = self.play
        if place.after:
            behind = [task["name"] for task in play["tasks"]].index(place.after) + 1
            play["tasks"].insert(behind, {"name": BREAKS, "ansible.builtin.command": "/bin/false"})
        path = folder / "play.yml"
        path.write_text(yaml.safe_dump([play], sort_keys=False), encoding="utf-8")
        args = ("-e", json.dumps(dict(place.vars))) if place.vars else ()
        return Broken(name=name, path=path, args=args, failing=place.fails or BREAKS)


def load() -> list[Job]:
    """The jobs in the order of jobs.yml."""
    listed = yaml.safe_load((HERE / "jobs.yml").read_text(encoding="utf-8"))
    return [Job(name, tuple(_place(number, item) for number, item in enumerate(places, 1))) for name, places in listed.items()]


def _place(number: int, item: dict[str, Any]) -> Place:
    return Place(number=number, **{**item, "vars": tuple(item.get("vars", {}).items())})


def choose(names: list[str]) -> list[Job]:
    known = load()
    missing = set(names) - {job.name for job in known}
    if missing:
        raise LookupError(f"no such job: {', '.join(sorted(missing))}")
    return [job for job in known if not names or job.name in names]


def decides(job: Job) -> tuple[Path, ...]:
    """What a run of this job depends on, besides the plugins."""
    return (job.folder, HERE / "scenario", HERE / "jobs.yml", JOBS.script)


def serve_packages() -> None:
    """Have the mirror offer the Debian packages, as debs/ beside the other files."""
    place = debs.repository(PACKAGES, of_image=JOBS.image, below=BUILD / "scenarios/debs")
    build()
    link = BUILT / "debs"
    if not link.is_symlink() or link.resolve() != place:
        link.unlink(missing_ok=True)
        link.symlink_to(place)
