# SPDX-License-Identifier: GPL-3.0-or-later
"""Transactions in company: somebody else changes files, fills, covers, unmounts the disk, between two steps or between any two calls of the
engine. Each trial runs in a boot of its own; the judgement is made there, and knows nothing of the engine but what it says to people.

What must hold at the end, when what he did for a while is over and an undo that was not exact has been asked for again:
- what he has not touched is as before, or named;
- what he changed between two steps, or after them, is there, or a copy of it is kept, or the path is named;
- of what he touched, no change of the play's is left, or the path is named.
What he does while the very step runs that changes the same file is taken for the step's, and what he does within the undo may come too late
to be seen: then the first of these holds alone.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import acts
import tree
import visitors
from acts import Refused, ask, start_agent
from faults import Faults
from small import Say, SmallHost

#: seconds until a step's end is known to the agent, and in which the kernel's clock ticks
_QUIET = 0.04
SHAPES = ("rollback", "rollback", "savepoint", "rollback after commit")


class Visits(NamedTuple):
    """`between`: what he does before the n-th step (behind all: after the last); `during`: kinds of what he does at the call at which the
    faults are armed, one after the other."""

    between: dict[int, list[str]]
    during: list[str]


def plan(seed: int, in_memory: bool) -> Visits:
    """`in_memory`: what is unmounted is gone for good."""
    chosen = random.Random(f"visits {seed}")
    conditions = [kind for kind in visitors.CONDITIONS if not in_memory or kind != "away"]
    kinds = [chosen.choice(visitors.CHANGES if chosen.random() < 0.7 else conditions) for _visit in range(chosen.choice((0, 1, 1, 1, 2)))]
    if chosen.random() < 0.35:
        return Visits({}, kinds)
    between: dict[int, list[str]] = {}
    for kind in kinds:
        between.setdefault(chosen.randint(0, 2), []).append(kind)
    return Visits(between, [])


def grow_with_tool(base: str, seed: int) -> None:
    """A random tree with a program in it."""
    acts.grow(base + "/t", random.Random(f"grown {seed}"))
    shutil.copy("/usr/bin/sleep", base + "/t/tool")


@contextlib.contextmanager
def grown_with_tool(seed: int) -> Iterator[Path]:
    """The same in a folder that goes again, with what chattr has locked in it."""
    folder = tempfile.mkdtemp()
    try:
        grow_with_tool(folder, seed)
        yield Path(folder)
    finally:
        acts.undo_random.unlock(folder)
        shutil.rmtree(folder)


class Company(acts.Transaction):
    """The tree lies on the host's second disk; `grown`: it is there already (an image made by `mke2fs -d`)."""

    def __init__(self, faults: Faults, seed: int, host: SmallHost, *, grown: bool = False) -> None:
        chosen = random.Random(f"company {seed}")
        super().__init__(faults, seed, f"{chosen.choice(SHAPES)}/{chosen.choice(sorted(acts.PROGRAMS))}")
        self._options["on_drift"] = chosen.choice(("stop", "stop", "force", "merge"))
        self._visits = plan(seed, host.second_fs == "tmpfs")
        self._seed, self._host, self._grown = seed, host, grown
        self._done: list[visitors.Visit] = []
        self._said: list[str] = []
        self._contents: dict[str, bytes] = {}

    def __call__(self, say: Say) -> None:
        base = acts.undo_random.BASE
        if self._grown:
            shutil.rmtree("/var/lib/acid", ignore_errors=True)
        else:
            acts.undo_random.clear()
            shutil.rmtree("/var/lib/acid", ignore_errors=True)
            grow_with_tool(base, self._seed)
        os.sync()
        self._before, self._contents = tree.look(base), _contents(base)
        if not self._visits.during:
            self._faults.disarm()
        self._faults.on()
        state, problems = "", []
        try:
            start_agent(self._faults)
            state = self._play()
            self._over()
            if state == "UNDO_FAILED":
                state = self._undo()
        except (Refused, acts.undo_random.Failed) as error:
            problems.append(str(error))
            self._over()
        if not problems:
            self._hear(_shown(self._tx))
            problems = judge(self._before, self._contents, self._done, state, "\n".join(self._said), base)
        met = sum(not visit.get("failed") for visit in self._done)
        told = [{key: value for key, value in visit.items() if key != "at"} for visit in self._done]
        about = {"shape": self._shape, "kind": self._kind, "policy": self._options["on_drift"], "visits": told, "state": state}
        say(event="judged", problems=problems[:8], met=met, count=self._faults.count, about=about)

    def _play(self) -> str:
        """The state after the undo."""
        begun = ask(op="begin", name="company", owner="company", options=self._options)
        self._tx, self._token = begun["tx"], begun["token"]
        visitor = self._visitor()
        self._visit(0)
        self._one_step()
        if self._shape == "savepoint":
            ask(op="savepoint", tx=self._tx, token=self._token, name="here")
        self._visit(1)
        self._one_step()
        if self._shape == "savepoint":
            self._hear(ask(op="rollback", tx=self._tx, token=self._token, to="here"))
            self._one_step()
        if self._shape == "rollback after commit":
            ask(op="commit", tx=self._tx, token=self._token, steps=[])
        self._visit(2)
        state = self._undo()
        visitor()
        return state

    def _one_step(self) -> None:
        with contextlib.suppress(acts.undo_random.Failed):  # a disk that somebody has taken away, or filled
            self._step(lambda **_event: None)

    def _undo(self) -> str:
        done = ask(op="rollback", tx=self._tx)
        self._hear(done)
        return str(done["state"])

    def _hear(self, answer: dict[str, Any]) -> None:
        """What of an answer tells somebody that not all is as it was; not the list of what the steps had touched."""
        self._said.append(json.dumps([answer.get(key) for key in ("differs", "told", "moot", "drift", "held", "irreversible")]))

    def _visit(self, when: int) -> None:
        kinds = self._visits.between.get(when, ())
        if not kinds:
            return
        with contextlib.suppress(Refused):  # the step's end is noted; of a committed transaction there is none
            ask(op="denied", tx=self._tx, token=self._token, seal=True)
        time.sleep(_QUIET)
        for kind in kinds:
            self._do(kind, strict=True)
        time.sleep(_QUIET)

    def _do(self, kind: str, *, strict: bool) -> None:
        chosen, mark = random.Random(f"{kind} {self._seed} {len(self._done)}"), f"<{self._seed}.{len(self._done)}>"
        visit = visitors.act(kind, chosen, acts.undo_random.BASE, mark, self._host)
        self._done.append({**visit, "strict": strict})

    def _visitor(self) -> Callable[[], None]:
        """A process that acts when the armed call comes, while that waits for it; what is returned ends it, and learns what it did."""
        if not self._visits.during:
            return lambda: None
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.close(read)
                while not self._faults.asked():
                    time.sleep(0.0005)
                for kind in self._visits.during:
                    self._do(kind, strict=False)
                os.write(write, json.dumps(self._done).encode())
                self._faults.answer()
            finally:
                os._exit(0)
        os.close(write)

        def ended() -> None:
            self._faults.disarm()
            with contextlib.suppress(ProcessLookupError):
                if not self._faults.asked():
                    os.kill(child, 9)
            os.waitpid(child, 0)
            with open(read, "rb") as f:
                self._done += json.loads(f.read() or b"[]")

        return ended

    def _over(self) -> None:
        for visit in reversed(self._done):
            visitors.end(visit, acts.undo_random.BASE, self._host)


def _contents(base: str) -> dict[str, bytes]:
    found = {}
    for folder, _folders, files in os.walk(base):
        for name in files:
            path = os.path.join(folder, name)
            if os.path.isfile(path) and not os.path.islink(path) and ".acid-store" not in path:
                found[os.path.relpath(path, base)] = Path(path).read_bytes()
    return found


def _shown(tx: str) -> dict[str, Any]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        sys.modules["engine.cli.verbs"].main(["show", tx, "--json"])
    shown: dict[str, Any] = json.loads(out.getvalue())
    return shown


# -- judgement -------------------------------------------------------------------------------------------------------------


def judge(
    before: dict[str, Any], contents: dict[str, bytes], visits: list[visitors.Visit], state: str, said: str, base: str
) -> list[str]:
    now, found, kept = tree.look(base), _contents(base), _everything(base)
    his = _his(before, now, found, visits)
    problems = []
    if state not in ("ABORTED", "UNDO_FAILED"):
        problems.append(f"ends in {state}")
    temporary = all(visit["kind"] in visitors.CONDITIONS or visit.get("failed") for visit in visits)
    if temporary and state != "ABORTED":
        problems.append("does not come back, though nothing of his is left")
    for line in tree.differences(before, now):
        path, what = line.split(": ")[:2]
        if path in his.touched or (path in his.around and what == "mtime"):
            continue
        if state == "UNDO_FAILED" and (what in ("nlink", "same inode as") or (what == "mtime" and _named_below(path, said, base))):
            continue  # images are kept for what is left, and directories around it have their own times
        if state == "ABORTED" or not _named(path, said, base):
            problems.append(f"silent: {line}")
    elsewhere = [number for number, visit in enumerate(visits) if visit["kind"] == "exchange" and not visit.get("failed")]
    if elsewhere:  # what he does after that he does on the other disk
        visits = visits[: elsewhere[0] + 1] + [{**visit, "strict": False} for visit in visits[elsewhere[0] + 1 :]]
    if not elsewhere or elsewhere[0] == len(visits) - 1:
        problems += [f"the disk in its stead: {line}" for visit in visits for line in visit.get("spoilt", ())]
    for number, visit in enumerate(visits):
        again = any(set(visit["paths"]) & set(later["paths"]) for later in visits[number + 1 :])  # he has changed it once more himself
        if visit["strict"] and not visit.get("failed") and not again:
            problems += _his_change(visit, before, contents, now, kept, said, base)
    return problems


class _His(NamedTuple):
    """Paths that he has touched, with further names of the same inodes; and directories around them."""

    touched: set[str]
    around: set[str]


def _his(before: dict[str, Any], now: dict[str, Any], found: dict[str, bytes], visits: list[visitors.Visit]) -> _His:
    named = {path for visit in visits if visit["kind"] != "cover" for path in visit["paths"]} | {"filler"}
    every, marks = {*before, *now}, [visit["mark"] for visit in visits]
    # A directory that his file is in may have moved.
    named |= {path for path in every if any(mark in path or mark.encode() in found.get(path, b"") for mark in marks)}
    if any(visit["kind"] == "chmod" for visit in visits):
        named |= {path for path, seen in now.items() if str(seen["mode"]).endswith("711")}
    touched = {path for path in every if any(path == one or path.startswith(one + "/") for one in named)}
    around = {os.path.dirname(path) or "." for path in named}
    worlds = [(path, seen) for world in (before, now) for path, seen in world.items() if "nlink" in seen]
    groups = {seen.get("same inode as", path) for path, seen in worlds if path in touched}
    linked = {path for path, seen in worlds if seen.get("same inode as", path) in groups}
    return _His(touched | linked, around)


def _named(path: str, said: str, base: str) -> bool:
    """The path, or a directory that it is in."""
    while path:
        if re.search(re.escape(f"{base}/{path}") + r"(?![A-Za-z0-9/._<>-])", said):
            return True
        path = os.path.dirname(path)
    return False


def _named_below(path: str, said: str, base: str) -> bool:
    return f"{base}/" in said if path == "." else f"{base}/{path}/" in said


def _everything(base: str) -> bytes:
    """All bytes of all files of the disk and of the engine's stores."""
    found = []
    for top in (base, "/var/lib/acid/store"):
        for folder, _folders, files in os.walk(top):
            for name in files:
                path = os.path.join(folder, name)
                if os.path.isfile(path) and not os.path.islink(path):
                    with contextlib.suppress(OSError), open(path, "rb") as f:
                        found.append(f.read())
    return b"\0".join(found)


def _his_change(
    visit: visitors.Visit, before: dict[str, Any], contents: dict[str, bytes], now: dict[str, Any], kept: bytes, said: str, base: str
) -> list[str]:
    kind, mark, paths = visit["kind"], visit["mark"].encode(), visit["paths"]
    if kind in visitors.CONDITIONS or any(_named(path, said, base) for path in paths):
        return [f"{paths[0]}: his change ({kind}) is nowhere any more"] if kind in _LEAVES_MARK and mark not in kept else []
    path = paths[0]
    if kind in _LEAVES_MARK and mark not in kept:
        return [f"{path}: his change ({kind}) is gone, and nothing is said"]
    if kind in ("mv", "ln", "new") and not any(os.path.basename(paths[-1]) == os.path.basename(one) for one in now):
        return [f"{paths[-1]}: his name ({kind}) is gone, and nothing is said"]
    if kind == "rm" and path in now:
        return [f"{path}: is there again, and nothing is said"]
    if kind == "chmod" and path in now and int(now[path]["mode"], 8) & 0o777 != 0o711:
        return [f"{path}: his mode is gone, and nothing is said"]
    return _plays_change(kind, path, mark, before, contents, now, base)


_LEAVES_MARK = ("append", "sed", "new", "rewrite")


def _plays_change(
    kind: str, path: str, mark: bytes, before: dict[str, Any], contents: dict[str, bytes], now: dict[str, Any], base: str
) -> list[str]:
    """What the play changed in a file that he edited, and nothing is said of."""
    if kind not in ("append", "sed", "rewrite") or not now.get(path, {"mode": "0"})["mode"].startswith("0o100"):
        return []
    was, found = contents.get(path), Path(base, path).read_bytes()
    if was is None:
        return [f"{path}: made by the play, edited by him, still there, and nothing is said"]
    wanted = was + mark if kind != "rewrite" else mark + was[len(mark) :]
    problems = [] if found == wanted else [f"{path}: holds something of the play's, and nothing is said"]
    same = ("mode", "uid", "gid")
    return problems + [f"{path}: {key} is the play's, and nothing is said" for key in same if before[path].get(key) != now[path].get(key)]
