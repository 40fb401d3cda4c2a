# SPDX-License-Identifier: GPL-3.0-or-later
"""Random transactions on this host, each compared with the tree before it. Runs on the host.

    undo_random.py FIRST COUNT [--length N] [--processes N] [--only JSON] [--minimise]

A transaction: a tree is grown; one to four steps, with savepoints between some of them, some rolled back to;
then rolled back (or committed, and then
rolled back). One line of JSON for each seed that did not come back exactly, and a last line with the counts. --processes: each
step is that many
processes at once, racing over the same names.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback
import uuid

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, "/usr/local/lib/acid/current"]
sys.dont_write_bytecode = True

import fcntl

import operations
import tree
from engine import exec as shim

BASE = "/srv/random"
SOCKET = "/run/acid/agent.sock"


#: differences that the steps had left before they were undone, over all seeds: a tester that changes nothing shows nothing
changes = 0


#: seconds that a step or a seed may take before it counts as hanging
LONGEST = 20


class Failed(Exception):
    """The tree is not as it was, or the engine said something wrong."""


def ask(**request: object) -> dict[str, object]:
    """One request to the agent, as acidctl makes it; without starting a Python for each."""
    end = time.monotonic() + 20
    while True:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            sock.connect(SOCKET)
            data = json.dumps(request).encode()
            sock.sendall(b"%d" % len(data))
            sock.sendall(data)
            length, body = int(sock.recv(32) or b"-1"), b""
            while len(body) < length:
                body += sock.recv(1 << 17)
            if length > 0:
                return json.loads(body)
        except OSError:
            pass
        finally:
            sock.close()
        if time.monotonic() > end:
            raise Failed("the agent does not answer")
        subprocess.run(["systemctl", "start", "acid-agent"], check=False)


def answered(**request: object) -> dict[str, object]:
    answer = ask(**request)
    if "error" in answer:
        raise Failed(f"{request['op']}: {answer['error']}")
    return answer


def step(tx: str, token: int, programs: list[list[list[object]]]) -> None:
    """The shim in a forked child; where it would become the step's command, the operations run."""
    info = base64.b64encode(json.dumps({"id": uuid.uuid4().hex, "task": "random"}).encode()).decode()
    child = os.fork()
    if child == 0:
        try:
            os.chdir(BASE + "/t")
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(LONGEST)

            def become(*_arguments: object) -> None:
                others = []
                for one in programs[1:]:
                    pid = os.fork()
                    if pid == 0:
                        operations.Program().run(one)
                        os._exit(0)
                    others.append(pid)
                operations.Program().run(programs[0])
                for pid in others:
                    os.waitpid(pid, 0)
                os._exit(0)

            os.execvpe = become  # type: ignore[assignment]
            shim.main(["--tx", tx, "--token", str(token), "--step", info, "--", "random"])
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(99)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code != 0:
        raise Failed(f"a step ended with {code}")


def unlock(path: str) -> None:
    for folder, _folders, files in os.walk(path):
        for name in [".", *files]:
            full = os.path.join(folder, name)
            if os.path.islink(full) or not (os.path.isfile(full) or os.path.isdir(full)):
                continue
            fd = os.open(full, os.O_RDONLY | os.O_NONBLOCK)
            try:
                (flags,) = struct.unpack_from("<I", fcntl.ioctl(fd, 0x80086601, bytes(8)))
                if flags & 0x30:
                    fcntl.ioctl(fd, 0x40086602, struct.pack("<Q", flags & ~0x30))
            finally:
                os.close(fd)


def hangs(*_arguments: object) -> None:
    raise Failed("hangs: " + traceback.format_stack()[-2])


def clear() -> None:
    for _again in range(3):
        try:
            unlock(BASE)
            shutil.rmtree(BASE)
        except FileNotFoundError:
            return
        except OSError:
            continue
        return


def compare(what: str, before: dict, problems: list[str], *, without: tuple[str, ...] = ()) -> None:
    found = [line for line in tree.differences(before, tree.look(BASE)) if not any(f": {name}: " in line for name in without)]
    if found:
        problems.append(f"{what}: " + "; ".join(found[:8]) + (f"; and {len(found) - 8} more" if len(found) > 8 else ""))


def plan_of(seed: int, length: int, processes: int) -> list[list[object]]:
    """[["grow", program], ["step", program, ...], ["savepoint", name], ["back", name], ["commit"]]: what a seed stands for."""
    chosen = random.Random(seed)
    acts: list[list[object]] = [["grow", operations.program(chosen, 25, locks=chosen.random() < 0.3)]]
    names: list[str] = []
    for number in range(chosen.randint(1, 4)):
        if names and chosen.random() < 0.35:
            name = chosen.choice(names)
            del names[names.index(name) + 1 :]
            acts.append(["back", name])
        if chosen.random() < 0.4:
            names.append(f"s{number}")
            acts.append(["savepoint", names[-1]])
        acts.append(["step", *(operations.program(chosen, chosen.randint(1, length)) for _process in range(processes))])
    if chosen.random() < 0.15:
        acts.append(["commit"])
    return acts


def trial(acts: list[list[object]]) -> list[str]:
    """What was wrong; nothing, if all came back exactly."""
    global changes
    clear()
    os.makedirs(BASE + "/t")
    problems: list[str] = []
    points: dict[str, dict] = {}
    tx, token, before = "", 0, {}
    try:
        for act, *arguments in acts:
            if act == "grow":
                os.chdir(BASE + "/t")
                operations.Program().run(arguments[0])
                os.chdir("/")
                before = tree.look(BASE)
                begun = answered(op="begin", name="random", owner="random", options={"probes": ["hostname"]})
                tx, token = begun["tx"], begun["token"]
            elif act == "step":
                step(tx, token, arguments)
            elif act == "savepoint":
                answered(op="savepoint", tx=tx, token=token, name=arguments[0])
                points[arguments[0]] = tree.look(BASE)
            elif act == "back":
                done = answered(op="rollback", tx=tx, token=token, to=arguments[0])
                if done["differs"]:
                    problems.append(f"back to {arguments[0]}: it says: {done['differs'][:3]}")
                compare(f"back to {arguments[0]}", points[arguments[0]], problems)
            elif act == "commit":
                left = tree.look(BASE)
                answered(op="commit", tx=tx, token=token, steps=[])
                compare("commit", left, problems, without=("nlink", "same inode as"))  # kept links are dropped
        changes += len(tree.differences(before, tree.look(BASE)))
        done = answered(op="rollback", tx=tx)
        if done["differs"] or done["state"] != "ABORTED":
            problems.append(f"rollback: {done['state']}: it says: {done['differs'][:3]}")
        compare("rollback", before, problems)
    except Failed as problem:
        problems.append(str(problem))
        if tx:
            done = ask(op="rollback", tx=tx)
            if "error" in done:
                problems.append(f"rollback after that: {done['error']}")
    finally:
        for verb in ("rollback", "resolve") if problems and tx else ():
            subprocess.run(["acidctl", verb, tx], capture_output=True, check=False)
    return problems


def minimised(acts: list[list[object]], seconds: float) -> list[list[object]]:
    """Fewer acts and operations that still go wrong."""
    end = time.monotonic() + seconds
    kind = kind_of(trial(acts))
    changed = True
    while changed and time.monotonic() < end:
        changed = False
        for smaller in smaller_ones(acts):
            if time.monotonic() > end:
                break
            if kind_of(trial(smaller)) == kind:
                acts, changed = smaller, True
                break
    return acts


def kind_of(problems: list[str]) -> str:
    """What sort of failure the first one is, so that a smaller program does not fail for another cause."""
    return (
        " ".join(word for word in problems[0].replace(";", " ").split() if word.isalpha() or word in ("nlink:", "mode:", "mtime:"))
        if problems
        else ""
    )


def smaller_ones(acts: list[list[object]]):
    for at in range(len(acts) - 1, 0, -1):
        gone = acts[at][1] if acts[at][0] == "savepoint" else None
        yield [act for i, act in enumerate(acts) if i != at and not (gone and act[:2] == ["back", gone])]
    for at, act in enumerate(acts):
        if act[0] in ("grow", "step"):
            for which in range(1, len(act)):
                operations_ = act[which]
                size = len(operations_) // 2
                while size:
                    for start in range(0, len(operations_), size):
                        less = operations_[:start] + operations_[start + size :]
                        yield acts[:at] + [act[:which] + [less] + act[which + 1 :]] + acts[at + 1 :]
                    size //= 2


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    parser.add_argument("--length", type=int, default=25)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--minimise", type=float, default=0, metavar="SECONDS")
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(trial(json.loads(arguments.only)), indent=1))
        return 0
    start, failed = time.monotonic(), 0
    for seed in range(arguments.first, arguments.first + arguments.count):
        acts = plan_of(seed, arguments.length, arguments.processes)
        signal.signal(signal.SIGALRM, hangs)
        signal.alarm(LONGEST * 3)
        problems = trial(acts)
        signal.alarm(0)
        if problems:
            failed += 1
            if arguments.minimise and arguments.processes == 1:
                acts = minimised(acts, arguments.minimise)
                problems = trial(acts) or problems
            print(json.dumps({"seed": seed, "problems": problems, "acts": acts if arguments.minimise else []}), flush=True)
    clear()
    print(json.dumps({"seeds": arguments.count, "failed": failed, "changes": changes, "seconds": round(time.monotonic() - start, 1)}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
