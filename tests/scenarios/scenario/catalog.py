# SPDX-License-Identifier: GPL-3.0-or-later
"""Which plays there are, and what each one needs of the stage."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from .stage import BIG, HERE, ORDINARY, World

PLAYS = HERE / "plays"
BLOCKS = ("block", "rescue", "always")
PLAY_TASKS = ("pre_tasks", "tasks", "post_tasks", "handlers")


@dataclass(frozen=True)
class Scenario:
    name: str
    path: Path
    hosts: int = 1
    big: bool = False
    quick: bool = False
    settle: float = 0.0
    args: tuple[str, ...] = ()
    vars: dict[str, str] = field(default_factory=dict)
    beyond: tuple[str, ...] = ()

    @property
    def world(self) -> World:
        return BIG if self.big else ORDINARY

    @property
    def user(self) -> str:
        """Who logs in."""
        return self.vars.get("ansible_user", "root")

    @property
    def failing_task(self) -> str:
        """Name of the task that fails unless scenario_fail is false."""
        (play,) = yaml.safe_load(self.path.read_text(encoding="utf-8"))
        (name,) = [str(task["name"]) for task in tasks(play) if "scenario_fail" in str(task)]
        return name

    @property
    def enough(self) -> int:
        """How many changed paths it must leave without the collection."""
        return 20

    def failed_in_its_task(self, text: str) -> bool:
        """Whether the output of a run shows that the task was reached which is there to fail."""
        return f"TASK [{self.failing_task}]" in text

    @property
    def number(self) -> str:
        return self.name.partition("-")[0]


def load() -> list[Scenario]:
    """All plays in the order of their numbers."""
    needs = yaml.safe_load((HERE / "catalog.yml").read_text(encoding="utf-8"))
    paths = sorted(PLAYS.glob("[0-9]*.yml"))
    unknown = set(needs) - {path.stem for path in paths}
    if unknown:
        raise LookupError(f"catalog.yml names plays that there are not: {', '.join(sorted(unknown))}")
    return [_scenario(path, needs.get(path.stem, {})) for path in paths]


def _scenario(path: Path, needs: dict[str, Any]) -> Scenario:
    return Scenario(name=path.stem, path=path, **{**needs, **{key: tuple(needs.get(key, ())) for key in ("args", "beyond")}})


def choose(names: list[str]) -> list[Scenario]:
    """Scenarios by number or name; all of them without names."""
    known = load()
    if not names:
        return known
    found = [item for item in known if item.number in names or item.name in names]
    missing = [name for name in names if not any(name in (item.number, item.name) for item in found)]
    if missing:
        raise LookupError(f"no such play: {', '.join(missing)}")
    return found


def tasks(play: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every task of a play: in blocks, handlers, roles and included files too."""
    for role in play.get("roles", []):
        yield {"roles": role}
        yield from role_tasks(role if isinstance(role, str) else role["role"])
    for section in PLAY_TASKS:
        yield from _walk(play.get(section, []))


def role_tasks(name: str, *, start: str = "main") -> Iterator[dict[str, Any]]:
    folder = PLAYS / "roles" / name
    for dependency in _read(folder / "meta/main.yml") and _read(folder / "meta/main.yml")["dependencies"]:
        yield from role_tasks(dependency["role"])
    yield from _walk(_read(folder / f"tasks/{start}.yml"))
    yield from _walk(_read(folder / "handlers/main.yml"))


def _read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8")) if path.exists() else []


def _walk(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for item in items:
        if "block" in item:
            yield {
                "block": True,
                **({"rescue": True} if "rescue" in item else {}),
                **({"always": True} if "always" in item else {}),
                **{key: value for key, value in item.items() if key not in BLOCKS},
            }
            for part in BLOCKS:
                yield from _walk(item.get(part, []))
            continue
        yield item
        short = {key.rpartition(".")[2]: value for key, value in item.items()}
        for verb in ("include_tasks", "import_tasks"):
            if verb in short:
                file = short[verb] if isinstance(short[verb], str) else short[verb]["file"]
                yield from _walk(_read(PLAYS / file))
        for verb in ("include_role", "import_role"):
            if verb in short:
                yield from role_tasks(short[verb]["name"], start=short[verb].get("tasks_from", "main"))
