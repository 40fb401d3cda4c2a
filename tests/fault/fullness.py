# SPDX-License-Identifier: GPL-3.0-or-later
"""Transactions that fill their file systems to the last byte or inode, and the undo on what is then left: nothing.

Three layouts: all on one file system; the state in /var/lib/acid on one of its own, which somebody else fills; the tree on one of its own.
Three ends: a rollback by the agent; by the next agent, when that one was killed; by the recovery of another boot.
"""

from __future__ import annotations

import contextlib
import errno
import os
import random
import shutil
import signal
from typing import Any

import acts
import operations
import tree
from acts import Refused, ask
from faults import Fault, Faults
from small import Say, SmallHost
from tree import differences

LAYOUTS = {"one": "", "own state": "var/lib/acid", "own tree": "srv"}
ENDS = ("rollback", "next agent", "boot")
FILLS = ("fill_file 0", "fill_file 1", "fill_file 2", "fill_names 0", "fill_names 1")
BIG = 6 << 20


def fill(path: str) -> None:
    """By nobody's step."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        for size in (1 << 20, 4096, 1):
            with contextlib.suppress(OSError):
                while True:
                    os.write(fd, bytes(size))
    finally:
        os.close(fd)
    with contextlib.suppress(OSError):
        for number in range(5000):
            os.close(os.open(f"{path}-{number}", os.O_WRONLY | os.O_CREAT, 0o600))


def no_room(folder: str) -> bool:
    """Whether not even a small file fits in there."""
    path = f"{folder}/.tight"
    try:
        with open(path, "wb", buffering=0) as f:
            f.write(bytes(1 << 16))
            os.fsync(f.fileno())
    except OSError as error:
        return error.errno == errno.ENOSPC
    finally:
        with contextlib.suppress(OSError):
            os.unlink(path)
    return False


class Transaction:
    """Runs in a boot, and leaves its end to others unless it is a rollback by this agent or the next."""

    def __init__(self, faults: Faults, seed: int, *, own_state: bool, end: str, inodes: bool, copies: bool) -> None:
        """`copies`: the file system has no reflinks."""
        self._faults, self._chosen = faults, random.Random(f"full {seed}")
        self._own_state, self._end, self._inodes, self._little = own_state, end, inodes, copies and not inodes

    def __call__(self, say: Say) -> None:
        base = acts.undo_random.BASE
        self._grow()
        say(event="before", tree=tree.look(base))
        agent = acts.start_agent(self._faults)
        try:
            begun = ask(op="begin", name="full", owner="full", options={"probes": ["hostname"], "durability": self._durability()})
            say(event="begun", tx=begun["tx"])
            self._steps(begun["tx"], begun["token"], say)
            if self._own_state:
                fill("/var/lib/acid/ballast")
            room = [os.statvfs(path) for path in ("/srv", "/var/lib/acid")]
            numbers = {"free": [one.f_bfree * one.f_frsize for one in room], "inodes": [one.f_ffree for one in room]}
            say(event="filled", tight=[path for path in ("/srv", "/var/lib/acid") if no_room(path)], **numbers)
            say(event="left", tree=tree.look(base))
            if self._end == "next agent":
                os.kill(agent, signal.SIGKILL)
                os.waitpid(agent, 0)
                acts.start_agent(self._faults)
            elif self._end == "rollback" and os.waitpid(agent, os.WNOHANG)[0]:
                say(event="agent died")  # by SIGBUS, where btrfs has no metadata left for a page of the log; systemd starts the next
                acts.start_agent(self._faults)
            if self._end != "boot":
                done = ask(op="rollback", tx=begun["tx"])
                say(event="undone", state=done["state"], differs=done["differs"])
        except Refused as error:
            say(event="refused", what=str(error))
        say(event="end")

    def _durability(self) -> str:
        return "power" if self._end == "boot" or self._chosen.random() < 0.3 else "process"

    def _grow(self) -> None:
        acts.undo_random.clear()
        shutil.rmtree("/var/lib/acid", ignore_errors=True)
        for top in ("/srv/.acid-store", "/var/lib/acid/.acid-store"):
            shutil.rmtree(top, ignore_errors=True)
        os.makedirs(acts.undo_random.BASE + "/t", exist_ok=True)
        os.chdir(acts.undo_random.BASE + "/t")
        operations.Program().run(operations.program(self._chosen, 25, locks=False))
        for name in ("big", "big2", "big3"):
            if not os.path.lexists(name):
                with open(name, "wb") as f:
                    f.write(random.Random(1).randbytes(BIG))
        os.chdir("/")
        os.sync()
        self._little &= self._chosen.random() < 0.5
        self._leave_little()

    def _leave_little(self) -> None:
        """Less than copies of all that the steps cut would take: they may not have the space that the cutting frees."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink("/srv/ballast")
        if self._little:
            room, left = os.statvfs("/srv"), (9 << 20) + (16 << 20) * (os.stat("/srv").st_dev == os.stat("/var/lib").st_dev)
            fd = os.open("/srv/ballast", os.O_WRONLY | os.O_CREAT, 0o600)
            try:
                os.posix_fallocate(fd, 0, max(1, room.f_bfree * room.f_frsize - left))
            finally:
                os.close(fd)
            os.sync()

    def _steps(self, tx: str, token: int, say: Say) -> None:
        chosen = self._chosen
        ways = ["fill_names 0", "fill_names 1"] if self._inodes else [*FILLS]
        chosen.shuffle(ways)
        fills = [[way.split()[0], int(way.split()[1])] for way in ways[: chosen.randint(1, 3)]]
        if not self._inodes:
            fills += [["fill_names", chosen.randint(0, 1)], ["fill_file", chosen.choice((0, 1))]]
        cut = [["cut_big", chosen.choice((0, 0, 100, BIG // 2, 2 * BIG)), which] for which in range(chosen.randint(0, 3))]
        if self._little:
            cut, fills = [["cut_big", 0, which] for which in range(3)], [["fill_file", 0]]
        programs = [
            acts.program(chosen, "anything", 0 if self._little else chosen.randint(3, 25), locks=False),
            [*cut, *acts.program(chosen, "trees", chosen.randint(0, 8), locks=False), *fills],
            acts.program(chosen, "anything", chosen.choice((0, 0, 3, 25)), locks=False),  # may make room again
        ]
        acts.undo_random.LONGEST = 60
        for program in programs:
            try:
                acts.undo_random.step(tx, token, [program])
            except acts.undo_random.Failed as error:  # no room for the step's row: it is refused, as a whole
                say(event="step refused", what=str(error))


def look(say: Say) -> None:
    """The tree, the journal's states, and what of the engine's lies about that no transaction which has ended may leave."""
    for name in os.listdir("/var/lib/acid"):
        if name.startswith("ballast"):
            os.unlink(f"/var/lib/acid/{name}")
    acts.look(say)
    left = [
        os.path.join(folder, name)
        for top in ("/var/lib/acid", "/srv/.acid-store", "/.acid-store")
        for folder, folders, files in os.walk(top)
        for name in folders + files
        if name.startswith("reserve")
    ]
    say(event="left behind", names=left)


class Filled:
    """`host` and `faults` are this process's."""

    def __init__(self, host: SmallHost, faults: Faults, seed: int, *, inodes: bool) -> None:
        chosen = random.Random(f"layout {seed}")
        self._layout, self._end = chosen.choice(sorted(LAYOUTS)), chosen.choice(ENDS)
        self._host, self._faults, self._seed, self._inodes = host, faults, seed, inodes
        self.name = f"{self._layout}/{self._end}"

    def run(self) -> tuple[int, list[str]]:
        """Whether something was full, and what is wrong."""
        self._faults.arm(Fault())
        for name in ("srv", ".acid-store", "var/lib/acid"):  # of the last trial, also what this one's layout would hide
            shutil.rmtree(self._host.root / name, ignore_errors=True)
        (self._host.root / "srv").mkdir()
        self._host.second = LAYOUTS[self._layout]
        end = self._end
        own_state, copies = self._layout == "own state", self._host.fs == "ext4"
        act = Transaction(self._faults, self._seed, own_state=own_state, end=end, inodes=self._inodes, copies=copies)
        said = self._host.boot(act, seconds=120)
        recovered: list[Any] = []
        if end == "boot":
            again = self._host.boot(acts.Recovery(self._faults, boot=True), seconds=60)
            recovered = [again.events[-1:], again.errors]
        seen = self._host.boot(look)
        before, filled, now = said.get("before"), said.get("filled"), seen.get("tree")
        if before is None or now is None or filled is None:
            events = [event for event in said.events if "tree" not in event]
            looked = f"look: hung {seen.hung} {seen.errors[-800:]}"
            return 0, [f"died: {events} hung: {said.hung} {said.errors[-1500:]} {looked}", f"recovered: {recovered}"]
        problems = differences(before["tree"], now["tree"])[:5]
        state = now["transactions"][-1] if now["transactions"] else {"state": "none"}
        if state["state"] != "ABORTED":
            problems.append(f"ends in {state}")
        behind = seen.get("left behind")
        if behind is None or behind["names"]:
            problems.append(f"left behind: {behind}")
        if not differences(before["tree"], said.events[-1].get("tree", {})) or said.hung:
            problems.append("the steps changed nothing, or hang")
        if problems:
            problems += [f"filled {filled}", f"{said.get('undone')} {said.get('refused')}", said.errors[-4000:], str(recovered)]
        return int(bool(filled["tight"])), problems
