# SPDX-License-Identifier: GPL-3.0-or-later
"""What a run of one play in one mode showed; kept as JSON lines, so that a long programme can be taken up again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path

from .catalog import HERE

ROOT = HERE.parent.parent
PLUGINS = ROOT / "plugins"


@dataclass(frozen=True)
class Outcome:
    mode: str
    scenario: str
    problems: tuple[str, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)
    seed: int = 0
    round: int = 0
    key: str = ""

    @property
    def good(self) -> bool:
        return not self.problems


class Results:
    """One file per mode. An outcome counts as long as what decides it has not changed: the project's plugins and the scenarios."""

    def __init__(self, folder: Path, name: str, *, resume: bool, decides: tuple[Path, ...]) -> None:
        self.file = folder / f"{name}.jsonl"
        self.key = source_key(decides)
        folder.mkdir(parents=True, exist_ok=True)
        known = _read(self.file) if resume else []
        self.outcomes = [outcome for outcome in known if outcome.good and outcome.key == self.key]
        self.file.write_text("".join(_line(outcome) for outcome in self.outcomes), encoding="utf-8")

    def has(self, scenario: str, round_: int = 0) -> bool:
        return any(outcome.scenario == scenario and outcome.round == round_ for outcome in self.outcomes)

    def add(self, outcome: Outcome) -> None:
        self.outcomes.append(outcome)
        with open(self.file, "a", encoding="utf-8") as out:
            out.write(_line(outcome))


def measured(folder: Path) -> dict[str, float]:
    """How long each play took in earlier runs of this lab: only to choose random moments by."""
    runs = [outcome for mode in ("control", "exact") for outcome in _read(folder / f"{mode}.jsonl")]
    return {outcome.scenario: outcome.figures["seconds"] for outcome in runs if "seconds" in outcome.figures}


def decides(*, plain: bool) -> tuple[Path, ...]:
    """What the run of a play depends on: without the plugins for plain runs."""
    return (HERE / "plays", HERE / "prepare.sh") if plain else (PLUGINS, HERE)


def source_key(tops: tuple[Path, ...]) -> str:
    """Over the files and folders that decide what a run shows."""
    digest = hashlib.sha256()
    for top in tops:
        for path in [top] if top.is_file() else sorted(top.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts and "built" not in path.parts:
                digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


def _line(outcome: Outcome) -> str:
    return json.dumps(asdict(outcome)) + "\n"


def _read(file: Path) -> list[Outcome]:
    if not file.exists():
        return []
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        value = json.loads(line)
        found.append(Outcome(**{**value, "problems": tuple(value["problems"])}))
    return found


def table(outcomes: Iterable[Outcome]) -> str:
    """For people: one line per outcome, problems below it."""
    lines = []
    for outcome in outcomes:
        figures = "  ".join(f"{name} {value:g}" for name, value in outcome.figures.items())
        number = f" #{outcome.round}" if outcome.round else ""
        seed = f"  seed {outcome.seed}" if outcome.seed else ""
        lines.append(f"{'ok  ' if outcome.good else 'FAIL'} {outcome.mode:<9} {outcome.scenario + number:<36} {figures}{seed}")
        lines += [f"       {problem}" for problem in outcome.problems]
    return "\n".join(lines)
