# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture is the name of an argument)
"""Compensations in the engine: their order among undone steps, against a model; claims, debts, and deaths in between."""

from __future__ import annotations

import base64
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
        request = {"tx": self.rig.tx, "token": self.rig.token, **request}
        return self.rig.run(
            "acidctl", "compensate", "--json", "--request", "-", stdin=base64.b64encode(json.dumps(request).encode()).decode()
        )

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
        return "error" not in self.undo(to=op.name).json

    def undo(self, *, to: str = "", session: str = "") -> Done:
        session = session or uuid.uuid4().hex
        request = {"tx": self.rig.tx, **({"to": to} if to else {}), **({"session": session} if self.own else {})}
        while True:
            done = self.rig.ctl("rollback", **request)
            handed = done.json.get("compensate")
            if not handed:
                return done
            assert done.json["state"] == ("REWINDING" if to else "ABORTING") or done.json["state"] in ("UNDO_FAILED", "DOOMED")
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
        return [(name, world) for name, _bar, world in (line.partition("|") for line in lines)]

    @property
    def world(self) -> str:
        found = self.rig.look()
        return told({name: self.rig.sh(f"cat {name}").out.strip() for name in FILES if name in found})


# Every second program's compensations are run by a controller: there a failing one costs no waiting.
PROGRAMS = [pytest.param(seed, marks=() if seed < 6 else pytest.mark.exact) for seed in range(50)]


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


def compensated(driver: Driver, *names: str, **more: Any) -> None:
    for number, name in enumerate(names):
        assert driver.compensate(name, **more).code == 0
        assert driver.rig.run(*driver.rig.argv(["bash", "-c", f"echo {number} > {driver.rig.root}/f0"], step=name)).code == 0
        assert driver.compensate(name, **more, result=json.dumps({"of": name})).code == 0


def next_one(driver: Driver, session: str, **more: str) -> dict[str, Any]:
    answer: dict[str, Any] = driver.rig.ctl("rollback", tx=driver.rig.tx, session=session, **more).json
    return answer


def test_a_claim_keeps_others_out_until_it_ends(rig: Rig) -> None:
    driver = Driver(rig, own=True)
    rig.begin()
    compensated(driver, "one", "two", seconds=-4)  # 6 seconds
    mine = next_one(driver, "a")["compensate"]
    assert mine["id"] == "two"
    assert next_one(driver, "b")["busy"]["name"] == "two"
    assert rig.ctl("commit", tx=rig.tx, token=rig.token, steps=[]).code != 0
    rig.sh("sleep 6.1")
    theirs = next_one(driver, "b")["compensate"]
    assert (theirs["id"], theirs["attempts"]) == ("two", 1)
    assert driver.report(mine, "late, and failed")["state"] == "RUNNING"
    assert driver.report(mine, "")["state"] == "PAID"  # late, and good: it has happened
    assert driver.report(theirs, "not today")["state"] == "PAID"
    assert next_one(driver, "a")["compensate"]["id"] == "one"
    assert next_one(driver, "b")["busy"]["name"] == "one"
    rig.sh("sleep 6.1")
    one = next_one(driver, "b")["compensate"]
    driver.report(one, "")
    assert next_one(driver, "b")["state"] == "ABORTED"
    assert next_one(driver, "a")["state"] == "ABORTED"


def test_on_its_way_to_a_savepoint_a_transaction_does_nothing_else(rig: Rig) -> None:
    driver = Driver(rig, own=True)
    rig.begin()
    rig.savepoint("s")
    compensated(driver, "one")
    handed = next_one(driver, "a", to="s")["compensate"]
    for refused in (
        rig.ctl("commit", tx=rig.tx, token=rig.token, steps=[]),
        rig.ctl("savepoint", tx=rig.tx, token=rig.token, name="t"),
        driver.compensate("two"),
    ):
        assert refused.error["class"] == "wrong-state"
    assert rig.run(*rig.argv(["true"])).code == 97
    rig.sh("pkill -9 -f 'acidctl [a]gent'")  # it has to know so after its death too
    rig.sh("for i in $(seq 50); do acidctl info >/dev/null && [ -S /run/acid/agent.sock ] && break; sleep 0.1; done; sleep 0.3")
    assert rig.ctl("commit", tx=rig.tx, token=rig.token, steps=[]).error["class"] == "wrong-state"
    driver.report(handed, "")
    assert next_one(driver, "b", to="s")["state"] == "ACTIVE"
    assert rig.run(*rig.argv(["true"])).code == 0
    rig.commit()


def test_a_dead_agent_goes_on_where_it_was(rig: Rig) -> None:
    """Killed again and again in the undo: each is paid, in order, and what was paid stays so."""
    driver = Driver(rig, own=False)
    names = [f"c{number}" for number in range(8)]
    before = rig.look()
    rig.begin()
    for name in names:
        host = [{"argv": ["sh", "-c", driver.tell(name) + "; sleep 0.2"]}]
        compensated(driver, name, host=host)
    kills = 4
    rig.start(f"acidctl rollback {rig.tx} > {LOG}/out 2>&1")
    for _kill in range(kills):
        rig.sh("sleep 0.37; pkill -9 -f 'acidctl [a]gent'", good=False)
    for _wait in range(150):
        if rig.ctl("info", rig.tx).json["transaction"]["state"] == "ABORTED":
            break
        rig.sh("sleep 0.2")
    order = [name for name, _world in driver.log]
    assert list(dict.fromkeys(order)) == names[::-1]
    assert order == sorted(order, reverse=True)
    assert len(order) - len(names) <= kills
    assert [one["state"] for one in rig.ctl("show", rig.tx).json["compensations"]] == ["PAID"] * len(names)
    assert rig.changed(before) == []


def test_odd_commands_and_names(rig: Rig) -> None:
    driver = Driver(rig, own=False)
    odd = "n\"a'm\\e\n\t\u2028 {{ x }} \udc80".encode("utf-8", "replace").decode()
    rig.begin()
    commands = [
        {"argv": ["sh", "-c", f"cat > {LOG}/stdin"], "stdin": "in\n"},
        {"argv": ["false"], "creates": f"{LOG}/std*"},
        {"argv": ["false"], "removes": f"{LOG}/nothing"},
        {"argv": ["./here", "two words"], "chdir": LOG},
        {"argv": ["sh", "-c", f"umask > {LOG}/umask; echo $PATH > {LOG}/path; ps -o ni= $$ > {LOG}/nice"]},
    ]
    rig.write(f"{LOG}/here", '#!/bin/sh\necho "$1" > said\n', mode=0o755)
    compensated(driver, odd, host=commands)
    assert driver.rig.ctl("rollback", tx=rig.tx).json["state"] == "ABORTED"
    assert rig.sh(f"cd {LOG}; cat stdin said umask path").out.splitlines()[:3] == ["in", "two words", "0022"]
    assert "/usr/local/bin" in rig.sh(f"cat {LOG}/path").out
    assert odd[:4] in rig.run("acidctl", "show", rig.tx).out
    assert rig.ctl("debts").json["debts"] == []


def test_the_host_leaves_to_others_what_it_cannot_run_and_resolve_ends_the_debt(rig: Rig) -> None:
    driver = Driver(rig, own=True)
    before = rig.look()
    rig.begin()
    compensated(driver, "far")
    driver.own = False
    compensated(driver, "near")
    done = rig.ctl("rollback", tx=rig.tx).json
    assert done["state"] == "UNDO_FAILED"
    assert [(one["name"], one["state"]) for one in done["compensations"]] == [("far", "OWED"), ("near", "PAID")]
    assert rig.changed(before) == []
    (debt,) = rig.ctl("debts").json["debts"]
    assert (debt["name"], debt["host"]) == ("far", None)
    assert rig.ctl("info").json["debts"] == [rig.tx]
    assert rig.try_begin().error["class"] == "blocked"
    rig.ctl("resolve", rig.tx)
    assert rig.ctl("debts").json["debts"] == []
    assert rig.try_begin().code == 0


@pytest.mark.parametrize("own", [False, True])
def test_what_a_compensation_changes_is_nobodys_drift(rig: Rig, own: bool) -> None:
    """It runs between the undo of two steps: a file that an earlier step had changed goes back to what it was before that."""
    driver = Driver(rig, own=own)
    rig.sh("echo before > f0; echo before > f1")
    before = rig.look()
    rig.begin()
    change = f"cd {rig.root}; echo compensation > f1"
    for name in ("one", "two"):
        host = None if own else [{"argv": ["sh", "-c", change]}]
        assert driver.compensate(name, host=host).code == 0
        rig.step(f"echo {name} > f0; echo {name} > f1")
        assert driver.compensate(name, host=host, result="{}").code == 0
    for name in ("two", "one"):
        if own:
            handed = next_one(driver, "a")["compensate"]
            assert handed["id"] == name
            rig.sh(change)
            driver.report(handed, "")
    done = next_one(driver, "a") if own else rig.ctl("rollback", tx=rig.tx).json
    assert (done["state"], done["differs"]) == ("ABORTED", [])
    assert rig.changed(before) == []
