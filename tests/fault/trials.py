# SPDX-License-Identifier: GPL-3.0-or-later
"""One trial: a transaction that meets a fault, recoveries that meet more of them, and the judgement of what is left.

The oracle is onhost/tree.py, which knows nothing of the engine: the tree is as before, or, when the commit can have been decided, as the
transaction left it.
"""

from __future__ import annotations

import errno
from typing import Any, NamedTuple

import acts
import faults as f
from faults import Fault, Faults
from small import Said, SmallHost
from tree import differences

POWER_CUTS = (f.POWER, f.HALF_POWER)


class GoesWrong(Exception):
    """A transaction to which nothing happened."""


class Outcome(NamedTuple):
    """`points`: faults that were met; `after`: those of them in recoveries (of errors: undos that said that they were not exact, and were
    when repeated); `problems`: nothing when all is as it must be; `at`: the calls at which the faults were."""

    points: int
    after: int
    problems: list[str]
    at: tuple[str, ...]


class Trial:
    """`host` and `faults` are this process's."""

    def __init__(self, host: SmallHost, faults: Faults, seed: int, scenario: str, *, durability: str = "process") -> None:
        self._host, self._faults, self._seed, self._scenario = host, faults, seed, scenario
        self._durability = durability
        self._met, self._at = 0, []
        self.hung = False

    def calls(self) -> list[str]:
        """The calls that the transaction makes when nothing happens to it, which must go well."""
        self._faults.arm(Fault())
        said = self._host.boot(self._transaction())
        names = self._faults.names()
        problems = self._judge(said, self._look(), undisturbed=True)
        end = said.get("end")
        if problems or end is None:
            raise GoesWrong(f"without a fault: {problems} {said.events[-1:]} {said.errors}")
        return names

    def crash(self, fault: Fault, recoveries: list[Fault], *, boot: bool) -> Outcome:
        """The fault, then a recovery for each of `recoveries` that meets it, then one that is let be."""
        said = self._meet(fault, self._transaction(), again=False)
        in_recovery = 0
        for another in recoveries:
            met = self._met
            self._meet(another, acts.Recovery(self._faults, boot=boot), again=not boot)
            if self._met == met:
                break
            in_recovery += 1
        self._faults.arm(Fault())
        recovered = self._host.boot(acts.Recovery(self._faults, boot=boot), again=not boot)
        problems = self._judge(said, self._look())
        if recovered.hung or recovered.get("recovered") is None:
            problems.append(f"the recovery {'hung' if recovered.hung else 'died'}: {recovered.errors[-1500:]}")
        if problems:
            problems.append(f"recovered: {recovered.events[-1:]} {recovered.errors[-800:]}")
        return Outcome(self._met, in_recovery, problems, tuple(self._at))

    def error(self, fault: Fault, *, boot: bool) -> Outcome:
        """System calls of the engine fail. Whatever it made of that: no commit that is none, no undo that is none, and no hang."""
        said = self._meet(fault, self._transaction(), again=False)
        self._faults.arm(Fault())
        recovered = self._host.boot(acts.Recovery(self._faults, boot=boot), again=not boot)
        # With `durability: process` another boot would be a reason of its own not to be exact.
        seen = self._look(again=not boot)
        now, honest = seen.get("tree"), 0
        if now is not None and now["transactions"] and now["transactions"][-1]["state"] == "UNDO_FAILED":
            honest = 1
            self._host.boot(acts.roll_back_again, again=not boot)
            seen = self._look(again=not boot)
        problems = self._judge(said, seen)
        left, committed = said.get("left"), said.get("committed")
        in_commit = committed is not None and left is not None and left["count"] < fault.at <= committed["count"]
        if in_commit and self._at[:1] in (["fsync"], ["fdatasync"], ["syncfs"]) and fault.error != errno.EINTR:
            problems.append("committed, though the disk had not taken it")
        if recovered.hung or recovered.get("recovered") is None:
            problems.append(f"the recovery {'hung' if recovered.hung else 'died'}")
        if problems:
            problems.append(f"refused: {said.get('refused')}; {recovered.events[-1:]} {said.errors[-600:]} {recovered.errors[-600:]}")
        return Outcome(self._met, honest, problems, tuple(self._at))

    def others(self) -> tuple[int, list[str]]:
        """Whether somebody changed a file after the step; and what is wrong: his change is gone, or nothing is said of it (I5)."""
        self._faults.arm(Fault())
        said = self._host.boot(self._transaction())
        theirs, undone = said.get("others"), said.get("undone")
        if theirs is None:
            return 0, []
        if undone is None:
            return 1, [f"no undo: {said.events[-1:]} {said.errors[-800:]}"]
        # At its path, or where the file was before the step: it may have gone back there with what they have written.
        there = theirs["seen"]["content"] in [now.get("content") for now in undone["tree"].values()]
        wrong = [] if there else [f"{theirs['path']}: their change was overwritten"]
        return 1, wrong if undone["differs"] else [*wrong, f"{theirs['path']}: nothing is said of it"]

    def order(self) -> tuple[int, list[str]]:
        """How many calls were let run, and which of them, or of HEAD's writes, came too early."""
        self._faults.arm(Fault())
        self._faults.record()
        self._host.boot(self._transaction())
        events = self._faults.events()
        return sum(event.kind == f.ANSWERED for event in events), out_of_order(events)

    def _transaction(self) -> acts.Transaction:
        return acts.Transaction(self._faults, self._seed, self._scenario, durability=self._durability)

    def _meet(self, fault: Fault, act: Any, *, again: bool) -> Said:
        self._faults.arm(fault)
        said = self._host.boot(act, again=again)
        if self._faults.fired:
            self._met += 1
            self._at.append(self._faults.last)
        if fault.mode in POWER_CUTS and self._faults.fired:
            self._host.cycle()
        self.hung |= said.hung
        return said

    def _look(self, *, again: bool = False) -> Said:
        return self._host.boot(acts.look, again=again)

    def _judge(self, said: Said, seen: Said, *, undisturbed: bool = False) -> list[str]:
        before, now = said.get("before"), seen.get("tree")
        if before is None or now is None:
            return [f"no tree was seen: {said.errors[-1500:]} {seen.errors[-1500:]}"]
        problems = self._savepoint(said) + (["hangs"] if self.hung or said.hung else [])
        states = [found["state"] for found in now["transactions"]]
        state = states[-1] if states else ""
        left, committed, undo = said.get("left"), said.get("committed"), said.get("undo")
        to_before = differences(before["tree"], now["tree"])
        to_left = but_kept_links(differences(left["tree"], now["tree"])) if left is not None else ["never left"]
        if undisturbed and said.get("refused"):
            problems.append(str(said.get("refused")))
        if state in ("", "ABORTED"):
            problems += to_before[:6]
            if committed is not None and undo is None:
                problems.append("it said that it had committed, and undid it")
        elif state == "COMMITTED":
            problems += to_left[:6]
        else:
            problems += [f"ends in {now['transactions'][-1]}", *to_before[:6]]
        return problems

    @staticmethod
    def _savepoint(said: Said) -> list[str]:
        point, back, undone = said.get("point"), said.get("back"), said.get("undone")
        problems = []
        if point is not None and back is not None and not back["differs"]:
            problems += [f"back to the savepoint: {line}" for line in differences(point["tree"], back["tree"])[:4]]
        before = said.get("before")
        if undone is not None and before is not None and undone["state"] == "ABORTED":
            problems += [f"undone: {line}" for line in differences(before["tree"], undone["tree"])[:4]]
        return problems


def out_of_order(events: list[f.Event]) -> list[str]:
    """`durability: power`: when a call is let run, or HEAD is written, the log and all copies are on the disk (I1)."""
    on_disk, copies, wrong = 0, set(), []
    for event in events:
        if event.kind == f.SYNCED_LOG:
            on_disk = max(on_disk, event.log)
        elif event.kind == f.MADE_COPY:
            copies.add(event.inode)
        elif event.kind == f.SYNCED_FILE:
            copies.discard(event.inode)
        elif event.kind == f.ANSWERED and event.log > on_disk:
            wrong.append(f"a call was let run with {event.log - on_disk} bytes of the undo log not on the disk")
        elif event.kind == f.ANSWERED and copies:
            wrong.append(f"a call was let run with {len(copies)} copies not on the disk")
        elif event.kind == f.WROTE_HEAD and event.log > on_disk:
            wrong.append(f"HEAD was written {event.log - on_disk} bytes before the log was on the disk")
    return wrong


def but_kept_links(lines: list[str]) -> list[str]:
    """A commit keeps images for the retention, so that link counts of kept inodes differ."""
    return [line for line in lines if not any(f": {name}: " in line for name in ("nlink", "same inode as"))]
