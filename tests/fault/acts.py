# SPDX-License-Identifier: GPL-3.0-or-later
"""What happens on a small host: a transaction from its seed, and recoveries. Each function here runs in a boot (small.py).

A scenario is a shape (how the transaction goes) and a kind of program (what its steps do): SCENARIOS names them all.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import pkgutil
import random
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "host" / "engine" / "onhost")]

import operations
import tree
from faults import ENGINE, STEP, Faults
from small import Say

SHAPES = ("rollback", "commit", "rollback after commit", "savepoint", "savepoint and commit", "race")
PROGRAMS = {
    "anything": tuple(row[0] for row in operations.KINDS),
    "names": ("create", "rename", "rename_over", "swap", "rename_new", "whiteout", "link", "unlink", "symlink", "nameless", "mkdir"),
    "contents": ("write", "append", "mapped", "cut", "hole", "replace", "hold", "write_held", "create"),
    "metadata": ("chmod", "chown", "utime", "setxattr", "removexattr", "lock", "change_held", "hold"),
    "trees": ("mkdir", "copytree", "rmtree", "rename", "rmdir", "swap", "fifo", "device", "create"),
}
SCENARIOS = tuple(f"{shape}/{program}" for shape in SHAPES for program in PROGRAMS)


def load_engine(folder: Path) -> None:
    """Import all of the engine that lies in `folder`/engine, from there and from nowhere else."""
    sys.path.insert(0, str(folder))
    import engine

    for module in pkgutil.walk_packages(engine.__path__, "engine."):
        if module.name != "engine.cli.__main__":
            importlib.import_module(module.name)
    global undo_random
    undo_random = importlib.import_module("undo_random")


undo_random: Any = None


class Refused(Exception):
    """The engine said no, or there is none."""


def ask(**request: Any) -> dict[str, Any]:
    """The agent's answer; its errors and its absence raise Refused."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        try:
            sock.connect(undo_random.SOCKET)
            data = json.dumps(request).encode()
            sock.sendall(b"%d" % len(data))
            sock.sendall(data)
            length, body = int(sock.recv(32) or b"-1"), b""
            while 0 <= len(body) < length:
                piece = sock.recv(1 << 17)
                if not piece:
                    break
                body += piece
        except OSError as error:
            raise Refused(f"{request['op']}: {error}") from error
    if length < 0 or len(body) < length:
        raise Refused(f"{request['op']}: the agent is gone")
    answer: dict[str, Any] = json.loads(body)
    if "error" in answer:
        raise Refused(f"{request['op']}: {answer['error']}")
    return answer


def start_agent(faults: Faults) -> int:
    child = os.fork()
    if child == 0:
        code = 98
        try:
            faults.role(ENGINE)
            code = sys.modules["engine.agent"].main()
        finally:
            os._exit(code)
    end = time.monotonic() + 20
    while True:
        with contextlib.suppress(Refused):
            ask(op="ping")
            return child
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended or time.monotonic() > end:
            raise Refused(f"the agent does not start ({status if ended else 'it is silent'})")
        time.sleep(0.001)


def program(chosen: random.Random, kind: str, length: int, *, locks: bool = True) -> list[list[object]]:
    picked: list[list[object]] = []
    while len(picked) < length:
        picked += [one for one in operations.program(chosen, length, locks=locks) if one[0] in PROGRAMS[kind]]
    return picked[:length]


def _without_names(seen: dict[str, Any] | None) -> dict[str, Any] | None:
    """A file of which the step has changed another name only is as it was: what others write there is no change of the step's."""
    return None if seen is None else {key: value for key, value in seen.items() if key not in ("nlink", "same inode as")}


def grow(folder: str, chosen: random.Random) -> None:
    """A tree made by a random program."""
    os.makedirs(folder)
    os.chdir(folder)
    operations.Program().run(operations.program(chosen, 25, locks=chosen.random() < 0.3))
    os.chdir("/")


class Transaction:
    """One transaction from its seed, on an empty host."""

    def __init__(self, faults: Faults, seed: int, scenario: str, *, durability: str = "process") -> None:
        self._faults, self._chosen = faults, random.Random(f"{scenario} {seed}")
        self._shape, self._kind = scenario.split("/")
        self._options = {"probes": ["hostname"], "durability": durability}
        self._tx, self._token = "", 0
        self._before: dict[str, Any] = {}

    def __call__(self, say: Say) -> None:
        self._grow()
        self._before = tree.look(undo_random.BASE)
        say(event="before", tree=self._before)
        self._faults.on()
        try:
            start_agent(self._faults)
            self._run(say)
        except (Refused, undo_random.Failed) as error:
            say(event="refused", what=str(error))
        say(event="end", count=self._faults.count, fired=self._faults.fired, last=self._faults.last)

    def _grow(self) -> None:
        undo_random.clear()
        shutil.rmtree("/var/lib/acid", ignore_errors=True)
        grow(undo_random.BASE + "/t", self._chosen)
        os.sync()

    def _run(self, say: Say) -> None:
        """`open`: the transaction is left so."""
        begun = ask(op="begin", name="fault", owner="fault", options=self._options)
        self._tx, self._token = begun["tx"], begun["token"]
        say(event="begun", tx=self._tx)
        with_savepoint = self._shape.startswith("savepoint")
        for _number in range(1 if with_savepoint else self._chosen.randint(1, 2)):
            self._step(say)
        if with_savepoint:
            ask(op="savepoint", tx=self._tx, token=self._token, name="here")
            say(event="point", tree=tree.look(undo_random.BASE))
            self._step(say)
            done = ask(op="rollback", tx=self._tx, token=self._token, to="here")
            say(event="back", differs=done["differs"], tree=tree.look(undo_random.BASE))
            if self._chosen.random() < 0.5:
                self._step(say)
        if self._shape == "open":
            ask(op="savepoint", tx=self._tx, token=self._token, name="sealed")
            say(event="left", tree=tree.look(undo_random.BASE))
            return
        if self._shape == "others":
            self._others(say)
        if "commit" in self._shape:
            say(event="left", tree=tree.look(undo_random.BASE), count=self._faults.count)
            ask(op="commit", tx=self._tx, token=self._token, steps=[])
            say(event="committed", tree=tree.look(undo_random.BASE), count=self._faults.count)
            self._faults.role(STEP)
            os.chown("/tmp", 0, 0)  # a call to be struck at when the commit has been answered
            self._faults.role(0)
        if self._shape not in ("commit", "savepoint and commit"):
            say(event="undo")
            done = ask(op="rollback", tx=self._tx)
            say(event="undone", state=done["state"], differs=done["differs"], tree=tree.look(undo_random.BASE))

    def _others(self, say: Say) -> None:
        """An administrator rewrites a file, one that the step has changed if there is one."""
        now = tree.look(undo_random.BASE)
        files = sorted(path for path, seen in now.items() if str(seen["mode"]).startswith("0o100") and seen["flags"] == "0x0")
        changed = [path for path in files if _without_names(now[path]) != _without_names(self._before.get(path))]
        if not changed:
            return
        path = self._chosen.choice(changed)
        time.sleep(0.5)  # the agent hears that the step's last process has ended a moment after it has, on a busy machine a longer one
        with open(f"{undo_random.BASE}/{path}", "r+b") as f:
            f.write(b"theirs")
        say(event="others", path=path, seen=tree.look(undo_random.BASE)[path])

    def _step(self, say: Say) -> None:
        count = 3 if self._shape == "race" else 1
        programs = [program(self._chosen, self._kind, self._chosen.randint(3, 25)) for _process in range(count)]
        self._faults.role(STEP)  # of the child that it forks; this process makes no call meanwhile
        try:
            undo_random.step(self._tx, self._token, programs)
        finally:
            self._faults.role(0)
        say(event="step")


def _journal() -> Any:
    return sys.modules["engine.journal"].Journal()


class Recovery:
    """What a boot does: `acidctl recover --boot`. Or, in the boot in which the agent died: another agent, and a rollback."""

    def __init__(self, faults: Faults, *, boot: bool) -> None:
        self._faults, self._boot = faults, boot

    def __call__(self, say: Say) -> None:
        self._faults.on()
        if self._boot:
            self._faults.role(ENGINE)
            code, out = self._acidctl("recover", "--boot", "--json")
            self._faults.role(0)
        else:
            code, out = self._by_agent()
        say(event="recovered", code=code, out=out[-1500:], count=self._faults.count)

    @staticmethod
    def _acidctl(*arguments: str) -> tuple[int, str]:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            code = sys.modules["engine.cli.verbs"].main(list(arguments))
        return code, out.getvalue()

    def _by_agent(self) -> tuple[int, str]:
        try:
            agent = start_agent(self._faults)
            journal = _journal()
            value = journal.open_transaction()
            journal.close()
            answer = {} if value is None else ask(op="rollback", tx=value.id)
            os.kill(agent, signal.SIGKILL)
        except Refused as error:
            return 1, str(error)
        return 0, json.dumps(answer)


class _Acidctl:
    """Stands for `subprocess` in undo_random.py, which sets right what went wrong by acidctl."""

    @staticmethod
    def run(command: list[str], **_options: Any) -> None:
        if command[0] == "acidctl":
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                sys.modules["engine.cli.verbs"].main(command[1:])


class Sequences:
    """Transactions of undo_random.py, one after the other, nothing happening to them."""

    def __init__(self, faults: Faults, first: int, count: int, processes: int) -> None:
        self._faults, self._seeds, self._processes = faults, range(first, first + count), processes

    def __call__(self, say: Say) -> None:
        undo_random.clear()
        undo_random.subprocess = _Acidctl
        shutil.rmtree("/var/lib/acid", ignore_errors=True)
        start_agent(self._faults)
        for seed in self._seeds:
            problems = undo_random.trial(undo_random.plan_of(seed, 25, self._processes))
            if problems:
                say(event="wrong", seed=seed, problems=problems)
        say(event="end", changes=undo_random.changes)


def roll_back_again(say: Say) -> None:
    """What a person does after an undo that said it was not exact, when the disk is well again."""
    journal = _journal()
    failed = [value.id for value in journal.transactions() if value.state == "UNDO_FAILED"]
    journal.close()
    for tx in failed:
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            done = sys.modules["engine.rollback"].roll_back(_journal(), tx, sys.modules["engine.rollback"].Manner("again"))
        say(event="again", state=done.state, differs=done.differs)


def look_only(say: Say) -> None:
    """The tree, whatever the journal is like."""
    say(event="tree", tree=tree.look(undo_random.BASE))


def look(say: Say) -> None:
    """The tree, and what the journal says of the last transaction."""
    transactions = []
    if os.path.exists("/var/lib/acid/journal.db"):
        journal = _journal()
        journal.verify()
        transactions = [{"tx": value.id, "state": value.state, "reason": value.reason} for value in journal.transactions()]
        journal.close()
    say(event="tree", tree=tree.look(undo_random.BASE), transactions=transactions)
