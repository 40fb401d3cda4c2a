# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs one play with ansible-playbook over ssh, as a user would: plain, or with the transaction callback enabled."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from .catalog import HERE, PLAYS, Scenario
from .stage import COLLECTIONS, Host, LabError, Stage, write_inventory

ROOT = HERE.parent.parent
BUILD = ROOT / ".build"
ANSIBLE = Path(os.environ.get("ANSIBLE_PLAYBOOK", BUILD / "venv/bin/ansible-playbook"))
CALLBACK = "acid.host.transaction"
LIMIT = 600  # seconds for one play


@dataclass(frozen=True)
class Run:
    code: int
    seconds: float
    log: Path

    @property
    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def tail(self, count: int = 25) -> str:
        return "\n".join(self.text.splitlines()[-count:])


@dataclass(frozen=True)
class Interruption:
    """A signal to ansible-playbook after so many seconds; to its whole process group as by a terminal's Ctrl-C, or to it alone."""

    signal: signal.Signals
    after: float
    group: bool

    def send(self, process: subprocess.Popen[bytes]) -> None:
        if self.group:
            os.killpg(process.pid, self.signal)
        else:
            process.send_signal(self.signal)


@dataclass(frozen=True)
class Player:
    stage: Stage
    mirror: str
    logs: Path
    _usual: dict[str, float] = field(default_factory=dict)

    def usual_seconds(self, scenario: Scenario) -> float:
        """How long the failing play takes without the collection, here and now."""
        if scenario.name not in self._usual:
            self._usual[scenario.name] = self.play(scenario, self.plain_hosts(scenario), transaction=False, label="usual").seconds
        return self._usual[scenario.name]

    def plain_hosts(self, scenario: Scenario) -> list[Host]:
        return self.stage.clones(scenario.world, scenario.hosts, user=scenario.user)

    def warm_hosts(self, scenario: Scenario) -> list[Host]:
        """Hosts that have had a transaction before: a play with the callback and no change."""
        return self.stage.clones(scenario.world, scenario.hosts, user=scenario.user, warm=self._warm)

    def _warm(self, host: Host) -> None:
        run = self.play(Scenario(name=f"warm-{host.name}", path=HERE / "warm.yml"), [host], transaction=True, label="warm")
        if run.code:
            raise LabError(f"the empty transaction on {host.name} ended with {run.code}: {run.log}\n{run.tail()}")

    def start(
        self, scenario: Scenario, hosts: list[Host], *, transaction: bool, fail: bool, label: str
    ) -> tuple[subprocess.Popen[bytes], Path]:
        """Start ansible-playbook in a process group of its own; its output goes to a log file."""
        if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
            # A runner in the background of a script has it ignored, and would hand that on.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        folder = self.logs / label
        folder.mkdir(parents=True, exist_ok=True)
        inventory = write_inventory(folder / f"{scenario.name}.inventory.json", self.stage.inventory(hosts, scenario.vars))
        argv = [
            str(ANSIBLE),
            "-i",
            str(inventory),
            str(scenario.path),
            "-e",
            json.dumps({"mirror": self.mirror, "scenario_fail": fail}),
            *scenario.args,
        ]
        log = folder / f"{scenario.name}.log"
        with open(log, "wb") as out:
            return subprocess.Popen(
                argv,
                cwd=PLAYS,
                env=environment(transaction=transaction),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ), log

    def play(
        self,
        scenario: Scenario,
        hosts: list[Host],
        *,
        transaction: bool,
        fail: bool = True,
        label: str,
        interrupt: Interruption | None = None,
    ) -> Run:
        started = time.monotonic()
        process, log = self.start(scenario, hosts, transaction=transaction, fail=fail, label=label)
        try:
            if interrupt:
                try:
                    process.wait(timeout=interrupt.after)
                except subprocess.TimeoutExpired:
                    interrupt.send(process)
            code = process.wait(timeout=LIMIT)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
            with open(log, "a", encoding="utf-8") as out:
                out.write(f"\nscenarios: ansible-playbook killed after {LIMIT} s\n")
        return Run(code=code, seconds=time.monotonic() - started, log=log)


def environment(*, transaction: bool) -> dict[str, str]:
    """The user's environment; the one difference between plain and with the collection is the enabled callback."""
    keep = {key: value for key, value in os.environ.items() if not key.startswith(("ANSIBLE_", "ACID_"))}
    return {
        **keep,
        "ANSIBLE_CONFIG": str(HERE / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_HOME": str(BUILD / "scenarios/home"),
        "PYTHONDONTWRITEBYTECODE": "1",
        **({"ANSIBLE_CALLBACKS_ENABLED": CALLBACK} if transaction else {}),
    }
