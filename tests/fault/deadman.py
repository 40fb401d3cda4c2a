# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts that lose their controller in a play, and have to be as before by the end of their lease + 5 s.

    python tests/fault/deadman.py --lab NAME --hosts 3 --count 10 [--kinds kill,stop,link,locked,broken] [--lease 10] [--seed N]
    python tests/fault/deadman.py --lab NAME --hosts 2 --kinds reboot,planned --count 5
    python tests/fault/deadman.py --lab NAME --hosts 2 --healthy 100      transactions of each host that must not end by themselves

    kill      the controller gets SIGKILL                 stop      SIGSTOP, and later goes on: it must hear that it is too late
    link      the host's network goes away                locked    the play stops sshd, over connections that are not shared
    broken    the play breaks sshd's configuration, over a shared connection, which lives on until the commit
    reboot    SIGKILL, then an orderly reboot of the host  planned   ansible.builtin.reboot in the play, which goes on and fails or commits

Each host runs one trial after the other; the hosts run at the same time. The oracle is the lab's. One line of JSON for each trial, and a
last one with the counts, which are added to the results of this engine (report.py).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from onlab import each, hosts_of, start_play  # first: it finds the lab

# isort: split
from acidlab import lifecycle, ssh
from acidlab.model import Host
from acidlab.oracle.capture import capture
from acidlab.oracle.compare import compare
from acidlab.run import run
from programmes import Result, record

LATE = 5.0
REBOOTS = ("reboot", "planned")
KINDS = ("kill", "stop", "link", "locked", "broken", "reboot", "planned")

CHANGES = """
    - copy: {content: "one\\n", dest: /etc/deadman, mode: "0644"}
    - lineinfile: {path: /etc/services, line: "deadman 4711/tcp"}
    - user: {name: deadman, uid: 4711}
    - shell: mkdir /srv/deadman && for n in $(seq 200); do echo $n > /srv/deadman/$n; done
    - systemd_service: {name: cron.service, state: stopped}
"""
HOLD = "    - shell: touch /srv/hold; sleep 300\n"
AFTER = {
    "warm": "",
    "kill": HOLD,
    "stop": HOLD,
    "link": HOLD,
    "locked": "    - shell: touch /srv/hold; systemctl stop ssh.socket ssh.service\n    - command: 'true'\n",
    "broken": "    - shell: echo Nonsense yes >> /etc/ssh/sshd_config; touch /srv/hold; systemctl restart ssh.service || true\n",
    "reboot": HOLD,
    "planned": "    - reboot: {{reboot_timeout: 60}}\n    - lineinfile: {{path: /etc/deadman, line: after}}\n    - command: {last}\n",
}


class Trial:
    """One play on one host. `problems` has a sentence for each thing that went wrong."""

    def __init__(self, host: Host, kind: str, seed: int, lease: int, folder: Path) -> None:
        self._host, self.kind, self._lease, self._folder = host, kind, lease, folder
        self._chosen = random.Random(seed)
        self.seed, self.problems = seed, list[str]()
        self.late: float | None = None
        self._said = ""

    def run(self) -> None:
        before = capture(self._host)
        controller = self._controller()
        try:
            if self.kind == "planned":
                self._planned(controller)
            else:
                self._until_held(controller)
                self._lose(controller)
        except (TimeoutError, LookupError, ValueError) as error:
            self.problems.append(f"{type(error).__name__}: {error}")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(controller.pid, signal.SIGKILL)
            controller.wait()
            run(["ip", "link", "set", self._host.veth, "up"])
            ssh.forget_connections(self._host)
        self._wait_for_logins()
        if self._state() == "COMMITTED":
            self._inside(["acidctl", "rollback", self._journal()[0]["tx"]])
        if self.kind == "stop":
            time.sleep(1)
        found = compare(before, capture(self._host), across_boot=self.kind in REBOOTS)
        self.problems += [str(difference) for difference in found[:8]]
        if self.problems:
            self.problems.append(self._said[-1500:])

    def warm(self) -> None:
        """The engine, and Ansible's own folders, are there when the first trial begins."""
        controller = self._controller()
        if controller.wait(timeout=120):
            raise LookupError(self._output.read_text())
        self._inside(["acidctl", "rollback", self._journal()[0]["tx"]])

    # -- the play --------------------------------------------------------------------------------------------------------

    def _controller(self) -> subprocess.Popen[str]:
        options = f"{{acid_transaction: {{confirm_timeout: {self._lease}}}}}"
        head = f"- hosts: all\n  gather_facts: false\n  vars: {options}\n  tasks:\n"
        self.fails = self._chosen.random() < 0.5
        play = head + CHANGES + AFTER[self.kind].format(last="'false'" if self.fails else "'true'")
        environment = {"ANSIBLE_SSH_ARGS": "-o ControlMaster=no -o ControlPath=none"} if self.kind == "locked" else {}
        self._output = self._folder / "output"
        return start_play(self._host, self._folder, play, **environment)

    def _until_held(self, controller: subprocess.Popen[str]) -> None:
        end = time.monotonic() + 120
        while not (self._host.root / "srv/hold").exists():
            if time.monotonic() > end or controller.poll() is not None:
                self._said = self._output.read_text()
                raise TimeoutError("the play did not get to its last task")
            time.sleep(0.05)

    def _planned(self, controller: subprocess.Popen[str]) -> None:
        code = controller.wait(timeout=240)
        self._said = self._output.read_text()
        if code != (2 if self.fails else 0):
            self.problems.append(f"exit code {code}")
        if self._state() != ("ABORTED" if self.fails else "COMMITTED"):
            self.problems.append(f"the transaction is {self._state()}")

    # -- the loss --------------------------------------------------------------------------------------------------------

    def _lose(self, controller: subprocess.Popen[str]) -> None:
        if self.kind not in ("locked", "broken"):
            time.sleep(self._chosen.random() * self._lease * 0.6)
        if self.kind in ("kill", "reboot"):
            controller.kill()
        elif self.kind == "stop":
            controller.send_signal(signal.SIGSTOP)
        elif self.kind == "link":
            run(["ip", "link", "set", self._host.veth, "down"])
        time.sleep(0.3)
        if self.kind == "reboot":
            lifecycle.reboot(self._host)
            self._wait_for_end(time.clock_gettime(time.CLOCK_BOOTTIME))
            return
        opened = json.loads(self._inside(["acidctl", "info", "--json"]))["open"]
        if opened is None and self.kind not in ("locked", "broken"):
            raise LookupError("the transaction has ended already")
        self._wait_for_end(opened["deadline"] if opened else time.clock_gettime(time.CLOCK_BOOTTIME))
        if self.kind == "stop":
            controller.send_signal(signal.SIGCONT)
            code = controller.wait(timeout=120)
            self._said = self._output.read_text()
            if code == 0:
                self.problems.append("the controller that went on too late ended with 0")

    def _wait_for_end(self, deadline: float) -> None:
        while (state := self._state()) != "ABORTED":
            if state == "UNDO_FAILED":
                raise LookupError(self._inside(["acidctl", "show", self._journal()[0]["tx"]]))
            opened = json.loads(self._inside(["acidctl", "info", "--json"]))["open"]
            if opened and opened["state"] == "ACTIVE":  # a word may have been under way
                deadline = max(deadline, opened["deadline"])
            if time.clock_gettime(time.CLOCK_BOOTTIME) > deadline + 30:
                raise TimeoutError(f"the transaction is {self._state()} 30 s after its lease: {self._journal()[:1]}")
            time.sleep(0.1)
        self.late = round(time.clock_gettime(time.CLOCK_BOOTTIME) - deadline, 2)
        if self.late > LATE:
            self.problems.append(f"{self.late} s late")

    def _wait_for_logins(self) -> None:
        """What the dead controller had sent reaches sshd when the link is up again, and its login writes the message of the day into /run:
        the oracle is to look after that. The end of a connection is sent again at growing intervals."""
        end = time.monotonic() + 120
        while self._inside(["sh", "-c", "pgrep -f '^sshd: (root|unknown|.accepted)' || true"]) and time.monotonic() < end:
            time.sleep(0.2)

    def _journal(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self._inside(["acidctl", "list", "--json"]) or '{"transactions": []}')["transactions"]
        return found

    def _state(self) -> str:
        return str((self._journal() or [{"state": "NONE"}])[0]["state"])

    def _inside(self, argv: list[str]) -> str:
        return ssh.inside(self._host, argv).stdout.decode()


def healthy(hosts: list[Host], count: int, seed: int, lease: int) -> int:
    """Without ansible-playbook, which would take most of the time: what is looked for is an undo that nobody wanted."""
    program = (Path(__file__).resolve().parent / "inhost_healthy.py").read_text()
    found, start = [], time.monotonic()
    for number, host in enumerate(hosts):
        argv = ssh.argv(host, ["python3", "-I", "-", str(seed + number), str(count), str(lease)])
        found.append(subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
        assert found[-1].stdin is not None
        found[-1].stdin.write(program)
        found[-1].stdin.close()
    bad = 0
    for host, process in zip(hosts, found):
        assert process.stdout is not None
        told = json.loads(process.stdout.read())
        process.wait()
        bad += count - told["committed"]
        print(json.dumps({"host": host.name, **told}), flush=True)
    counts = {"seed": seed, "points": count * len(hosts), "wrong": bad, "seconds": round(time.monotonic() - start, 1)}
    print(json.dumps(counts))
    record(Result("healthy", "btrfs", [{"false": bad}] * bool(bad), counts, ""))
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lab", default="deadman")
    parser.add_argument("--hosts", type=int, default=3)
    parser.add_argument("--count", type=int, default=3, help="trials of each host")
    parser.add_argument("--kinds", default="kill,stop,link,locked,broken")
    parser.add_argument("--lease", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--healthy", type=int, default=0)
    arguments = parser.parse_args()
    first = arguments.seed or random.SystemRandom().randrange(1, 1 << 30)
    kinds = arguments.kinds.split(",")
    known = hosts_of(arguments.lab, arguments.hosts)
    if arguments.healthy:
        return healthy(known, arguments.healthy, first, min(arguments.lease, 2))
    done: list[Trial] = []
    start = time.monotonic()
    lock = threading.Lock()

    def host_runs(number: int, host: Host, folder: Path) -> None:
        Trial(host, "warm", 0, arguments.lease, folder).warm()
        for turn in range(arguments.count):
            which = turn * len(known) + number
            trial = Trial(host, kinds[which % len(kinds)], first + which, arguments.lease, folder)
            try:
                trial.run()
            except Exception as error:
                trial.problems.append(repr(error))
            with lock:
                done.append(trial)
                told = {"host": host.name, "kind": trial.kind, "seed": trial.seed, "late": trial.late, "problems": trial.problems}
                print(json.dumps(told), flush=True)

    each(known, host_runs)
    bad = [trial for trial in done if trial.problems]
    late = [trial.late for trial in done if trial.late is not None]
    counts = {"seed": first, "points": len(done), "wrong": len(bad), "latest": max(late, default=None)}
    print(json.dumps(counts))
    for programme, kinds_of in (("deadman", set(KINDS) - set(REBOOTS)), ("reboot", set(REBOOTS))):
        of = [trial for trial in done if trial.kind in kinds_of]
        if of:
            wrong = [{"seed": trial.seed, "kind": trial.kind, "problems": trial.problems} for trial in of if trial.problems]
            mine = {"seed": first, "points": len(of), "latest": counts["latest"], "seconds": round(time.monotonic() - start, 1)}
            record(Result(programme, "btrfs", wrong, mine, ""))
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
