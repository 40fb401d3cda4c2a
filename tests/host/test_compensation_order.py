# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""Compensations in the engine: their order among undone steps, against a model; claims, debts, and deaths in between."""

from __future__ import annotations

import json
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from fixtures import rig, rigs  # noqa: F401
from programs import FILES, Model, Op, program, told
from rig import Done, Rig

LOG = "/opt/rig/order.log"


class Driver:
    """The controller's part, by hand. With `own` it runs the compensations itself, else the host does."""

    def __init__(self, rig: Rig, *, own: bool) -> None:
        self.rig, self.own = rig, own
        rig.sh(f"rm -rf {LOG}; mkdir {LOG}")

    def tell(self, name: str, fails: int = 0) -> str:
        """What a compensation does: tell the world that it sees, and fail its first attempts."""
        world = f'cd {self.rig.root}; w=; for f in {" ".join(FILES)}; do [ -e $f ] && w="$w $f=$(cat $f)"; done'
        return f'{world}; echo "{name}|${{w# }}" >> {LOG}/all; echo >> {LOG}/{name}; [ $(wc -l < {LOG}/{name}) -gt {fails} ]'

    def compensate(self, name: str, fails: int = 0, **more: Any) -> Done:
        host = None if self.own else [{"argv": ["sh", "-c", self.tell(name, fails)]}]
        request = {"id": name, "name": name, "step": name, "body": json.dumps([name, fails]), "host": host, "seconds": 30, **more}
        return self.rig.ctl("compensate", tx=self.rig.tx, token=self.rig.token, **request)

    def step(self, op: Op) -> bool:
        if op.kind in ("compensated", "torn") and self.compensate(op.name, op.fails).code:
            return False
        words = self.rig.argv(["bash", "-c", f"cd {self.rig.root}; {op.change.script if op.change else ''}"], step=op.name)
        if self.rig.run(*words).code:
            return False
        if op.kind == "compensated":
            done = self.compensate(op.name, op.fails, result=json.dumps({"of": op.name}))
            assert done.code == 0, done
        return True

    def do(self, op: Op) -> bool:
        """Whether it was let do it."""
        if op.change is not None:
            return self.step(op)
        if op.kind == "savepoint":
            return self.rig.ctl("savepoint", tx=self.rig.tx, token=self.rig.token, name=op.name).code == 0
        if op.kind == "commit":
            return self.rig.ctl("commit", tx=self.rig.tx, token=self.rig.token, steps=[]).code == 0
        return self.undo(to=op.name).code == 0

    def undo(self, *, to: str = "", session: str = "") -> Done:
        session = session or uuid.uuid4().hex
        request = {"tx": self.rig.tx, **({"to": to} if to else {}), **({"session": session} if self.own else {})}
        while True:
            done = self.rig.ctl("rollback", **request)
            handed = done.json.get("compensate") if done.code == 0 else None
            if not handed:
                return done
            assert done.json["state"] == ("ACTIVE" if to else "ABORTING") or done.json["state"] in ("UNDO_FAILED", "DOOMED")
            name, fails = json.loads(handed["body"])
            assert handed["result"] in (None, json.dumps({"of": name}))
            good = self.rig.run("sh", "-c", self.tell(name, fails)).code == 0
            self.report(handed, "" if good else "not today")

    def report(self, handed: dict[str, Any], problem: str) -> dict[str, Any]:
        said: dict[str, Any] = self.rig.ctl("compensated", tx=self.rig.tx, id=handed["id"], claim=handed["claim"], problem=problem).json
        return said

    @property
    def log(self) -> list[tuple[str, str]]:
        lines = self.rig.sh(f"cat {LOG}/all 2>/dev/null || true").out.splitlines()
        return [(name, world) for name, _, world in (line.partition("|") for line in lines)]

    @property
    def world(self) -> str:
        found = self.rig.look()
        return told({name: self.rig.sh(f"cat {name}").out.strip() for name in FILES if name in found})


# Every second program's compensations are run by a controller: there a failing one costs no waiting.
PROGRAMS = [pytest.param(seed, marks=() if seed < 12 else pytest.mark.exact) for seed in range(50)]


@pytest.mark.parametrize("seed", PROGRAMS)
def test_a_random_program_leads_to_what_the_model_says(rig: Rig, seed: int) -> None:
    own = seed % 2 == 0
    driver, model = Driver(rig, own=own), Model()
    before = rig.look()
    rig.begin()
    ops = program(seed, failures=(0, 0, 0, 1, 4, 8) if own else (0,) * 12 + (1,))
    for op in ops:
        refuses = model.refuses(op)
        assert driver.do(op) != refuses, op
        if not refuses:
            model.do(op)
        assert driver.log == model.log, op
    for _again in range(2):
        shown = rig.ctl("show", rig.tx).json
        unpaid = sorted(one["name"] for one in shown["compensations"] if one["state"] != "PAID")
        assert (shown["state"], unpaid) == ("UNDO_FAILED" if model.owes else "ABORTED", model.owes)
        assert all(any(f"'{name}'" in sentence for sentence in shown["differs"]) for name in model.owes)
        assert rig.changed(before) == []
        if not model.owes:
            break
        driver.undo()
        model.do(Op("rollback"))
        assert driver.log == model.log
    assert model.owes == []
