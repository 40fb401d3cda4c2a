# SPDX-License-Identifier: GPL-3.0-or-later
"""Random programs of steps, savepoints, rollbacks and compensations, and what they must lead to.

The model knows nothing of the engine: a world of four small files, a list of what happened, and the rule that undo goes backwards through
that list. A compensation tells which world it saw.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

FILES = ("f0", "f1", "f2", "f3")
SAVEPOINTS = ("a", "b", "c")
ATTEMPTS = 4
World = dict[str, str]


@dataclass(frozen=True)
class Change:
    verb: str
    one: str
    other: str
    text: str

    @property
    def script(self) -> str:
        return {
            "write": f"echo {self.text} > {self.one}",
            "remove": f"rm -f {self.one}; echo {self.text} > {self.other}",
            "move": f"echo {self.text} > {self.one}; mv -f {self.one} {self.other}",
        }[self.verb]

    def on(self, world: World) -> World:
        left = {name: text for name, text in world.items() if self.verb == "write" or name != self.one}
        return {**left, (self.one if self.verb == "write" else self.other): self.text}


@dataclass(frozen=True)
class Op:
    """`kind`: step, compensated, torn (compensated, and nobody says how it ended), savepoint, to, commit, rollback. `fails`: how many
    attempts of the compensation fail."""

    kind: str
    name: str = ""
    change: Change | None = None
    fails: int = 0


def program(seed: int, *, failures: tuple[int, ...]) -> list[Op]:
    dice = random.Random(seed)
    ops: list[Op] = []
    for number in range(dice.randint(5, 11)):
        kind = dice.choices(("step", "compensated", "torn", "savepoint", "to"), (3, 6, 1, 3, 3))[0]
        if kind in ("savepoint", "to"):
            ops.append(Op(kind, dice.choice(SAVEPOINTS)))
            continue
        change = Change(dice.choice(("write", "write", "remove", "move")), *dice.sample(FILES, 2), text=str(number))
        ops.append(Op(kind, f"c{number}", change, dice.choice(failures) if kind != "step" else 0))
    return [*ops, *([Op("commit")] if dice.random() < 0.3 else []), Op("rollback")]


def told(world: World) -> str:
    return " ".join(f"{name}={world[name]}" for name in sorted(world))


@dataclass
class Happened:
    op: Op
    before: World
    tried: int = 0


class Model:
    """`log`: (compensation, the world that it saw) of each attempt."""

    def __init__(self) -> None:
        self.world: World = {}
        self.log: list[tuple[str, str]] = []
        self.doomed = False
        self._past: list[Happened] = []
        self._unpaid: list[Happened] = []

    def refuses(self, op: Op) -> bool:
        if op.kind == "rollback":
            return False
        unknown = op.kind == "to" and not any(past.op.kind == "savepoint" and past.op.name == op.name for past in self._past)
        return unknown or (self.doomed and op.kind != "to")

    def do(self, op: Op) -> None:
        if op.kind == "to":
            newest = max(at for at, past in enumerate(self._past) if past.op.kind == "savepoint" and past.op.name == op.name)
            self._undo(newest + 1)
            self.doomed = self.doomed or bool(self._unpaid)
        elif op.kind == "rollback":
            self._undo(0)
        elif op.kind != "commit":
            self._past.append(Happened(op, self.world))
            self.world = op.change.on(self.world) if op.change else self.world

    @property
    def owes(self) -> list[str]:
        return sorted(past.op.name for past in self._unpaid)

    def _undo(self, first: int) -> None:
        undone, self._past = self._past[first:], self._past[:first]
        again, self._unpaid = self._unpaid, []
        for past in again:
            self._pay(past)
        for past in reversed(undone):
            if past.op.kind in ("compensated", "torn"):
                self._pay(past)
            self.world = past.before

    def _pay(self, past: Happened) -> None:
        for _attempt in range(ATTEMPTS):
            self.log.append((past.op.name, told(self.world)))
            past.tried += 1
            if past.tried > past.op.fails:
                return
        self._unpaid.append(past)
