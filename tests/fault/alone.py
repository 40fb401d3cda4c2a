# SPDX-License-Identifier: GPL-3.0-or-later
"""An agent that dies alone, in an undo, while the host goes on: the next agent, and then a step and a commit are tried.

The caller who had asked for the undo is gone too, or asks again. Killed is at each call that the undo makes, of each kind of undo; now and
then the next agent as well, in what it makes of that. Whatever is let run or committed, the tree is as it was at the savepoint (or at the
begin), or as the steps left it: never mixed, and a step or a commit that is let be finds no undo half done.

Many transactions in one boot, one after the other (acts.py has those of which all die).
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import shutil
import time
from typing import Any

import acts
import operations
import tree
from acts import Refused, ask
from faults import ENGINE, KILL_SELF, Fault, Faults
from small import Say, SmallHost
from tree import differences

#: those with a savepoint are the ones that go on afterwards
KINDS = ("savepoint", "rollback", "two savepoints", "after commit", "compensation", "savepoint")
TO_SAVEPOINT = ("savepoint", "two savepoints", "compensation")
TRANSACTIONS = 24
#: calls of an undo, before one has been counted
CALLS = 80
AGAIN = 0.25
PATIENCE = 15.0


class Mixed(Exception):
    """What must never be."""


class Deaths:
    """Transactions from a seed, each of which meets one death of its agent, or two."""

    def __init__(self, faults: Faults, seed: int, count: int) -> None:
        self._faults, self._seed, self._count = faults, seed, count
        self._agent = 0
        self._calls: dict[str, int] = {}
        self.at: list[str] = []
        self.total: collections.Counter[str] = collections.Counter()

    def __call__(self, say: Say) -> None:
        acts.undo_random.clear()
        shutil.rmtree("/var/lib/acid", ignore_errors=True)
        os.makedirs(acts.undo_random.BASE + "/t")
        os.chdir(acts.undo_random.BASE + "/t")
        operations.Program().run(operations.program(random.Random(f"alone {self._seed}"), 25, locks=False))
        os.chdir("/")
        for number in range(self._count):
            chosen = random.Random(f"alone {self._seed} {number}")
            kind = KINDS[(self._seed + number) % len(KINDS)]
            try:
                One(self, chosen, kind).run()
            except (Mixed, Refused, acts.undo_random.Failed) as error:
                say(event="wrong", seed=self._seed, number=number, kind=kind, problems=[str(error)], at=self.at)
                break
        say(event="end", counts=dict(self.total))

    # -- agents ----------------------------------------------------------------------------------------------------------

    def agent(self) -> None:
        """There is one, to which nothing happens from here on."""
        self._faults.arm(Fault())
        while not self._lives():
            self._agent = acts.start_agent(self._faults)

    def _lives(self) -> bool:
        if self._agent and os.waitpid(self._agent, os.WNOHANG)[0]:
            self._agent = 0
        return bool(self._agent)

    def strike(self, chosen: random.Random, kind: str) -> None:
        """The agent dies at one of the calls that it makes from now on."""
        self._faults.arm(Fault(KILL_SELF, chosen.randint(1, self._calls.get(kind, CALLS)), roles=ENGINE))
        self._faults.on()

    def struck(self, kind: str) -> bool:
        """Whether it has died of it; else what it has done is counted, for the next time."""
        fired, count = self._faults.fired, self._faults.count
        self.at = [f"{self._faults.last} {count} of {self._calls.get(kind, CALLS)}"]
        self._faults.arm(Fault())
        if not fired:
            self._calls[kind] = max(1, count)
            return False
        if self._agent:  # that it dies is certain, and when it has died not
            os.waitpid(self._agent, 0)
            self._agent = 0
        return True

    def next_agent(self, chosen: random.Random) -> int:
        """Deaths of the next one, in what it does by itself."""
        died = 0
        if chosen.random() < AGAIN:
            self.strike(chosen, "again")
            with contextlib.suppress(Refused):
                self._agent = acts.start_agent(self._faults)
                time.sleep(chosen.random() * 0.05)
            if self._faults.fired:
                died = 1
                self.at.append(f"then {self._faults.last} {self._faults.count}")
                with contextlib.suppress(ChildProcessError):
                    os.wait()
                self._agent = 0
        self.agent()
        return died


class One:
    """One transaction."""

    def __init__(self, deaths: Deaths, chosen: random.Random, kind: str) -> None:
        self._deaths, self._chosen, self._kind = deaths, chosen, kind
        self._tx, self._token = "", 0
        self._trees: dict[str, dict[str, Any]] = {}

    def run(self) -> None:
        self._deaths.agent()
        self._trees["before"] = _look()
        self._begin()
        for attempt in range(2):
            self._deaths.strike(self._chosen, self._kind)
            undone = self._ask_for_undo()
            if self._deaths.struck(self._kind):
                self._died()
                return
            # Not met: its calls are counted now. Once more, if there is something to undo to.
            if not undone:
                raise Mixed(f"the {self._kind} was refused, and nothing had happened")
            if self._kind not in TO_SAVEPOINT or attempt:
                break
            self._step()
            self._trees["left"] = _look()
        self._end()

    def _begin(self) -> None:
        begun = ask(op="begin", name="alone", owner="alone", options={"probes": ["hostname"], "durability": self._durability()})
        self._tx, self._token = begun["tx"], begun["token"]
        self._step()
        if self._kind in TO_SAVEPOINT:
            ask(op="savepoint", tx=self._tx, token=self._token, name="here")
            self._trees["point"] = _look()
            if self._kind == "compensation":
                self._compensated(self._step)
            self._step()
            if self._kind == "two savepoints":
                ask(op="savepoint", tx=self._tx, token=self._token, name="later")
                self._step()
        else:
            self._step()
        self._trees["left"] = _look()
        if self._kind == "after commit":
            ask(op="commit", tx=self._tx, token=self._token, steps=[])
            self._trees["left"] = _look()

    def _durability(self) -> str:
        return "power" if self._chosen.random() < 0.3 else "process"

    def _step(self) -> None:
        kind = self._chosen.choice(sorted(acts.PROGRAMS))
        acts.undo_random.step(self._tx, self._token, [acts.program(self._chosen, kind, self._chosen.randint(3, 20), locks=False)])

    def _compensated(self, step: Any) -> None:
        host = [{"argv": ["true"]}]
        asked = {"op": "compensate", "tx": self._tx, "token": self._token, "id": "c", "name": "c", "step": "s", "body": "b", "host": host}
        ask(**asked, seconds=20)
        step()
        ask(**asked, result="{}")

    # -- the undo --------------------------------------------------------------------------------------------------------

    def _ask_for_undo(self) -> bool:
        """Whether it was answered."""
        to = {"to": "here"} if self._kind in TO_SAVEPOINT else {}
        try:
            done = ask(op="rollback", tx=self._tx, token=self._token, **to)
        except Refused:
            return False
        if done["differs"]:
            raise Mixed(f"the {self._kind} is not exact: {done['differs'][:3]}")
        return True

    def _died(self) -> None:
        total = self._deaths.total
        died = 1 + self._deaths.next_agent(self._chosen)
        total["points"] += died
        total["in undo to savepoints"] += died if self._kind in TO_SAVEPOINT else 0
        if self._chosen.random() < 0.4:  # the caller is there, and asks again
            total["caller goes on"] += 1
            self._until(lambda: self._ask_for_undo() or self._state() == "ABORTED")
            if self._kind in TO_SAVEPOINT and self._state() != "ABORTED":  # as it is where the last step was torn by the death
                self._is("point", "asked for again")
        else:
            total["caller gone"] += 1
            if self._chosen.random() < 0.5:
                self._settle()
        stepped = self._try_step()
        committed = self._try_commit()
        total["steps let run"] += stepped
        total["commits"] += committed
        self._end()

    def _settle(self) -> None:
        """What the next agent does by itself comes to its end. It may have to wait for its caller, where there is a compensation."""
        if self._kind == "savepoint":
            self._until(lambda: self._try_step() or self._state() == "ABORTED")
        elif self._kind in ("rollback", "after commit"):
            self._until(lambda: self._state() not in ("ABORTING", "DOOMED"))

    def _until(self, done: Any) -> None:
        end = time.monotonic() + PATIENCE
        while not done():
            if time.monotonic() > end:
                raise Mixed(f"{self._state()} after {PATIENCE:.0f} s")
            time.sleep(0.01)

    # -- what is tried ---------------------------------------------------------------------------------------------------

    def _try_step(self) -> bool:
        """One that changes nothing: whether it is let run."""
        try:
            acts.undo_random.step(self._tx, self._token, [[]])
        except acts.undo_random.Failed:
            return False
        self._whole("a step was let run")
        return True

    def _try_commit(self) -> bool:
        try:
            ask(op="commit", tx=self._tx, token=self._token, steps=[])
        except Refused:
            return False
        self._whole("a commit was let be")
        return True

    def _whole(self, what: str) -> None:
        now = _look()
        goal = "point" if self._kind in TO_SAVEPOINT else "before"
        told = {name: _but_links(differences(self._trees[name], now)) for name in ("left", goal)}
        if all(told.values()):
            raise Mixed(f"{what}, {self._state()}: {'; '.join(told[goal][:3])} and {'; '.join(told['left'][:3])}")

    def _is(self, name: str, when: str) -> None:
        told = _but_links(differences(self._trees[name], _look()))
        if told:
            raise Mixed(f"{when}, and not as at '{name}': {'; '.join(told[:4])}")

    def _state(self) -> str:
        journal = acts._journal()
        try:
            return str(journal.get(self._tx).state)
        finally:
            journal.close()

    def _end(self) -> None:
        """All of it is undone, by whoever has to."""
        if self._state() != "ABORTED":
            self._until(self._rolled_back)
        told = differences(self._trees["before"], _look())
        if told:
            raise Mixed(f"undone, {self._state()}, and not as before: {'; '.join(told[:4])}")

    def _rolled_back(self) -> bool:
        with contextlib.suppress(Refused):
            return bool(ask(op="rollback", tx=self._tx)["state"] == "ABORTED")
        return False


def _look() -> dict[str, Any]:
    return tree.look(acts.undo_random.BASE)


def _but_links(lines: list[str]) -> list[str]:
    """While it is open or kept, inodes have a link more in the store."""
    return [line for line in lines if not any(f": {name}: " in line for name in ("nlink", "same inode as"))]


class Alone:
    def __init__(self, host: SmallHost, faults: Faults, seed: int) -> None:
        self._host, self._faults, self._seed = host, faults, seed

    def run(self, count: int = TRANSACTIONS) -> tuple[dict[str, int], list[dict[str, Any]]]:
        """Counts, and what went wrong."""
        self._faults.arm(Fault())
        said = self._host.boot(Deaths(self._faults, self._seed, count), seconds=20.0 * count)
        wrong = [event for event in said.events if event["event"] == "wrong"]
        end = said.get("end")
        if end is None:
            wrong.append({"seed": self._seed, "problems": [f"it stopped: hung {said.hung}: {said.errors[-1500:]}"]})
        elif wrong:
            wrong[-1]["errors"] = said.errors[-1500:]
        return (end["counts"] if end is not None else {}), wrong
