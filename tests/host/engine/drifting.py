# SPDX-License-Identifier: GPL-3.0-or-later
"""Drift made by hand on a host of the rig, and what its rollback reports of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from rig import Rig, Tree

FILES = "echo one > one; echo two > two; mkdir d; echo three > d/three; seq 5000 > big; ln big hard"


def drift(summary: dict[str, Any], kind: str) -> list[str]:
    """Paths below rig.root that the report lists as this."""
    found = summary.get("drift", {}).get(kind, [])
    return sorted((one if isinstance(one, str) else one["path"]).removeprefix("/srv/rig/t/") for one in found)


def stopped(rig: Rig) -> dict[str, Any]:
    """Roll back; something is left."""
    summary = rig.rollback(exact=False)
    assert summary["state"] == "UNDO_FAILED", summary
    return summary


def only(before: Tree, after: Tree, paths: set[str]) -> None:
    """All else is as it was. A directory with drift in it keeps its times."""
    around = {str(Path(path).parent) for path in paths}
    for path in sorted({*before, *after} - paths):
        old, new = dict(before.get(path, {})), dict(after.get(path, {}))
        if path in around:
            old.pop("mtime", None), new.pop("mtime", None)
        assert old == new, (path, {key: (old.get(key), new.get(key)) for key in {*old, *new} if old.get(key) != new.get(key)})


def forced(rig: Rig, before: Tree) -> dict[str, Any]:
    """Then the rollback is finished by force, and exact."""
    summary = rig.ctl("rollback", tx=rig.tx, on_drift="force").json
    assert summary["state"] == "ABORTED", summary
    after = rig.look()
    only(before, after, set())
    return summary


def kept(rig: Rig, summary: dict[str, Any], path: str) -> str:
    """What the copy of this path holds."""
    where = next(one["kept"] for one in summary["drift"]["kept_aside"] if one["path"].endswith("/" + path))
    return rig.run("cat", where).out


def admin(rig: Rig, script: str) -> None:
    """Somebody else. On a busy machine the agent hears of a step's end a little later, and until then a change may be the step's."""
    rig.sh(f"sleep 0.5; {script}")


def in_a_step(rig: Rig, script: str) -> None:
    """Somebody else, while a step runs that has nothing to do with it."""
    rig.start(f"until pgrep -fx 'sleep 3.21'; do sleep 0.05; done; {script}")
    rig.step("sleep 3.21")


def begun(rig: Rig, *steps: str, prepare: str = FILES, **options: object) -> Tree:
    rig.sh(prepare)
    before = rig.look()
    rig.begin(**options)
    for step in steps:
        rig.step(step)
    return before


def state_of(rig: Rig) -> str:
    return next(str(value["state"]) for value in rig.ctl("list").json["transactions"] if value["tx"] == rig.tx)


def wait_for(rig: Rig, *states: str, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while state_of(rig) not in states:
        assert time.monotonic() < end, f"{rig.tx} is {state_of(rig)} and not {states} after {seconds} s"
        time.sleep(0.1)
