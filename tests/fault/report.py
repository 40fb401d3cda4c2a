# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/reliability.md, between its two marks: what the programmes have shown of this engine, by the files in .build/fault."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from programmes import HOST_PROGRAMMES, PROGRAMMES, TOP, engine_hash

PAGE = TOP / "docs" / "reliability.md"
BEGIN, END = "<!-- results: written by make fault -->", "<!-- end of results -->"


def write(build: Path, engine: str = "") -> None:
    """Of the engine as it is, or of an earlier one by its hash."""
    text = PAGE.read_text(encoding="utf-8")
    head, rest = text.split(BEGIN)
    tail = rest.split(END)[1]
    PAGE.write_text(head + BEGIN + "\n" + "\n".join(_lines(build, engine or engine_hash())) + "\n" + END + tail, encoding="utf-8")


def _lines(build: Path, engine: str) -> list[str]:
    results = _results(build / f"{engine}.jsonl")
    lines = [f"Engine `{engine}`, {time.strftime('%Y-%m-%d', time.gmtime())}, on {_machine()}.", ""]
    lines += ["| programme | file system | points | wrong | less than 1 in (95 %) | asked for | seeds from | seconds |"]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for programme in (*PROGRAMMES, *HOST_PROGRAMMES):
        of = [one for one in results if one["programme"] == programme.name]
        for fs in programme.file_systems:
            lines.append(_row(programme.title, fs, [one for one in of if one["fs"] == fs], ""))
        if len(programme.file_systems) > 1:
            lines.append(_row(f"**{programme.title}**", "all", of, str(programme.figure)))
        else:
            lines[-1] = _row(f"**{programme.title}**", programme.file_systems[0], of, str(programme.figure))
    lines += ["", _details(results), ""]
    caught = json.loads((build / "mutants.json").read_text()) if (build / "mutants.json").exists() else {"engine": "", "mutants": []}
    lines += [f"Mutants, tried on engine `{caught['engine']}`:", "", "| invariant | safeguard taken away | caught by |", "|---|---|---|"]
    lines += [f"| {one['invariant']} | {one['name']} | {one['by'] or '**not caught**'} |" for one in caught["mutants"]]
    return lines


def _results(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def bound(points: int, wrong: int) -> str:
    """Where nothing went wrong: with 95 % confidence one point in fewer than so many does, by the rule of three (3/n)."""
    return f"{points // 3:,}" if points >= 3 and not wrong else "-"


def _starts(results: list[dict[str, Any]]) -> list[int]:
    """Their first seeds, but for those of slices that go on where the one before ended."""
    found, following = list[int](), set[tuple[str, int]]()
    for one in results:
        fs, seed = str(one["fs"]), int(one["counts"]["seed"])
        if (fs, seed) not in following:
            found.append(seed)
        following.add((fs, seed + int(one["counts"].get("seeds", 0))))
    return found


def _row(title: str, fs: str, results: list[dict[str, Any]], figure: str) -> str:
    points = sum(one["counts"].get("points", 0) for one in results)
    wrong = sum(len(one["wrong"]) + bool(one["died"]) for one in results)
    seeds = ", ".join(map(str, _starts(results))) if figure == "" or len({one["fs"] for one in results}) == 1 else ""
    seconds = sum(one["counts"].get("seconds", 0) for one in results)
    asked = f"{int(figure):,}" if figure else ""
    return f"| {title} | {fs} | {points:,} | {wrong} | {bound(points, wrong)} | {asked} | {seeds} | {seconds:.0f} |"


def _details(results: list[dict[str, Any]]) -> str:
    def total(programme: str, key: str) -> int:
        return sum(one["counts"].get(key, 0) for one in results if one["programme"] == programme)

    scenarios = {name for one in results if one["programme"] == "kill" for name, points in one["counts"]["scenarios"].items() if points}
    kinds = {name for one in results if one["programme"] == "kill" for name in one["counts"]["at"]}
    deep = ", ".join(f"{total('recovery', f'depth {depth}'):,} met {depth}" for depth in (3, 2, 1))
    passed = ", ".join(f"{total('corrupt', kind):,} {kind}" for kind in ("exact", "inexact, and said so", "refused then", "silently wrong"))
    process = ", ".join(f"{total('process', kind):,} {kind}" for kind in ("exact", "inexact, and said so", "inexact, and not said"))
    real = total("corrupt", "rolled back for real")
    return f"""Kill points: in {len(scenarios)} scenarios, at {len(kinds)} kinds of calls. Crashes in one recovery: {deep}.
Errors: {total("error", "inexact, and said so"):,} undos said on the failing disk that they were not exact, and were when repeated.
Power cuts with `durability: process`: {process}.
Deaths of the agent alone: {total("alone", "in undo to savepoints"):,} in undo to savepoints; {total("alone", "caller gone"):,} callers were
gone and {total("alone", "caller goes on"):,} went on; after that {total("alone", "steps let run"):,} steps and
{total("alone", "commits"):,} commits were let be.
Corruption: of {total("corrupt", "trials"):,}, {total("corrupt", "passed"):,} passed the checks; of these {real:,} were rolled back for
real: {passed}."""


def _machine() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "?")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 30
    return f"{os.cpu_count()} cores of {model}, {memory} GiB, Linux {os.uname().release}; file systems on loop devices in memory"
