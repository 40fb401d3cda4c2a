# SPDX-License-Identifier: GPL-3.0-or-later
"""Races inside a step, and what a step sees of itself: equal to plain."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"
sys.path.insert(0, str(SCENARIOS))

from scenario import compared
from scenario.catalog import Scenario
from scenario.player import BUILD, Player
from scenario.stage import PROGRAMS, Stage, World

ROUNDS = 10_000
THREADS = 16
SEED = random.SystemRandom().randrange(1, 1 << 30)
VIEW = SCENARIOS / "programs" / "src" / "view.py"


@dataclass(frozen=True)
class OnPrograms(Scenario):
    @property
    def world(self) -> World:
        return PROGRAMS


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    stage = Stage("races")
    stage.close()
    stage.open(PROGRAMS)
    yield Player(stage, "", BUILD / "scenarios" / "logs" / "races")
    stage.close()


def write(folder: Path, text: str, **more: Any) -> OnPrograms:
    path = folder / "play.yml"
    path.write_text(text, encoding="utf-8")
    return OnPrograms(name="play", path=path, **more)


def may_raise_limits() -> bool:
    """CAP_SYS_RESOURCE, which lab hosts have when this machine has it. sudo lowers the hard limit for core files; without the capability
    nobody on the host can raise it again, neither sudo nor the shim."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    bounding = next(int(line.split()[1], 16) for line in status.splitlines() if line.startswith("CapBnd:"))
    return bool(bounding >> 24 & 1)


@pytest.mark.parametrize("seed", [pytest.param(SEED + number, id=f"seed{SEED + number}") for number in range(3)])
def test_threads_race_for_ten_names_and_the_undo_is_exact(player: Player, tmp_path: Path, seed: int) -> None:
    scenario = write(
        tmp_path,
        f"""
- hosts: all
  gather_facts: false
  tasks:
    - name: Race
      ansible.builtin.command: /opt/bin/race /srv/w/race {ROUNDS} {THREADS} {seed}
      async: 300
      poll: 1
    - ansible.builtin.fail:
        msg: the end
""",
    )
    hosts = player.warm_hosts(scenario)
    before = compared.take(hosts)
    run = player.play(scenario, hosts, transaction=True, label=f"race-{seed}")
    assert "changed: [prog1]" in run.text, run.tail()
    assert run.code == 2, run.tail()
    assert not (differing := compared.lines(compared.differences(before, compared.take(hosts)))), "\n".join(differing)


def test_the_race_changes_the_tree_without_the_collection(player: Player, tmp_path: Path) -> None:
    scenario = write(
        tmp_path,
        f"- hosts: all\n  tasks:\n    - ansible.builtin.command: /opt/bin/race /srv/w/race {ROUNDS} {THREADS} {SEED}\n",
    )
    hosts = player.plain_hosts(scenario)
    before = compared.take(hosts)
    assert player.play(scenario, hosts, transaction=False, label="race-plain").code == 0
    found = compared.differences(before, compared.take(hosts))[hosts[0].name]
    assert sum(difference.key.name.startswith("/srv/w/race") for difference in found) >= 5


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[dict[str, str]]:
    """An ssh agent with one key."""
    socket = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(socket)], stdout=subprocess.DEVNULL)
    try:
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
        environment = {**os.environ, "SSH_AUTH_SOCK": str(socket)}
        deadline = time.monotonic() + 20
        # The socket has its name before it listens, so only ssh-add itself can tell: 2 is "no agent there".
        while (added := subprocess.run(["ssh-add", "-q", str(tmp_path / "key")], env=environment, check=False)).returncode == 2:
            assert time.monotonic() < deadline, "the ssh agent does not answer"
            time.sleep(0.05)
        added.check_returncode()
        yield {"SSH_AUTH_SOCK": str(socket)}
    finally:
        process.terminate()
        process.wait()


# Who runs the step: variables of the connection, keywords of the task.
WHO = {
    "root": ({}, ""),
    "another user": ({}, "become: true\n      become_user: deploy"),
    "another user by su": ({}, "become: true\n      become_user: deploy\n      become_method: su"),
    "no become": ({"ansible_user": "deploy"}, "become: false"),
    "root by sudo": ({"ansible_user": "deploy"}, "become: true"),
    "another user by sudo with a password": (
        {"ansible_user": "pwuser", "ansible_become_password": "lab-secret"},
        "become: true\n      become_user: plain",
    ),
}
# New with each login. And SUDO_COMMAND: sudo says there what it was asked to run, and that is the shim (a documented limit).
NOT_COMPARED = "SSH_CONNECTION SSH_CLIENT XDG_SESSION_ID SSH_TTY SSH_AUTH_SOCK SUDO_COMMAND".split()  # noqa: SIM905

# What is drawn by lot for each login or task: sudo hands some of it on in SUDO_COMMAND.
RANDOM = re.compile(r"(?<=BECOME-SUCCESS-)[a-z]+|(?<=ansible-tmp-)[0-9.-]+|(?<=ansible-moduletmp-)[0-9a-z_.-]+|(?<=/dev/pts/)[0-9]+")


def flat(prefix: str, view: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """One entry for each thing that can be seen, without those that change with each login."""
    for name, value in view.items():
        if isinstance(value, dict):
            yield from flat(f"{prefix}{name}.", value)
        elif name not in NOT_COMPARED:
            yield f"{prefix}{name}", json.loads(RANDOM.sub("RANDOM", json.dumps(value)))


@pytest.mark.parametrize("pipelining", [False, True], ids=["files", "pipelining"])
@pytest.mark.parametrize("who", WHO)
def test_a_step_sees_what_it_would_see_without_the_shim(
    player: Player, tmp_path: Path, agent: dict[str, str], monkeypatch: pytest.MonkeyPatch, who: str, pipelining: bool
) -> None:
    variables, keywords = WHO[who]
    monkeypatch.setenv("SSH_AUTH_SOCK", agent["SSH_AUTH_SOCK"])
    hosts = player.warm_hosts(OnPrograms(name="view", path=tmp_path, vars=variables))
    common = player.stage.inventory(hosts, {})["all"]["vars"]["ansible_ssh_common_args"]  # type: ignore[index]
    # A control master of its own: the stage's login has opened one without the agent.
    args = re.sub(r"ControlPath=\S+", f"ControlPath={tmp_path}/%r", common) + " -o ForwardAgent=yes"
    scenario = write(
        tmp_path,
        f"""
- hosts: all
  gather_facts: false
  tasks:
    - name: By a command
      ansible.builtin.command: python3 /opt/bin/view
      {keywords}
      register: view
    - name: By a shell
      ansible.builtin.shell: cd / && exec python3 /opt/bin/view
      {keywords}
      register: shell
    - ansible.builtin.debug:
        msg: "{{{{ view.stdout }}}} {{{{ shell.stdout }}}}"
""",
        vars={**variables, "ansible_ssh_common_args": args, "ansible_pipelining": str(pipelining).lower()},
    )
    seen = []
    for transaction in (False, True):
        run = player.play(scenario, hosts, transaction=transaction, label=f"view-{transaction}")
        assert run.code == 0, run.tail()
        views = [dict(flat("", json.loads(base64.b64decode(found)))) for found in re.findall(r"VIEW:([A-Za-z0-9+/=]+)", run.text)]
        assert len(views) == 2, run.tail()
        seen.append(views)
    for plain, traced in zip(*seen):
        differing = {key: (plain.get(key), traced.get(key)) for key in {*plain, *traced} if plain.get(key) != traced.get(key)}
        if not may_raise_limits():
            differing.pop("limits.RLIMIT_CORE", None)
        assert not differing
    if who == "root":
        assert seen[0][0]["agent"] == 1, "the control: the agent is forwarded"
