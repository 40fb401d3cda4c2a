# SPDX-License-Identifier: GPL-3.0-or-later
"""Units on a real host: begin, the steps, rollback, and neither the oracle nor systemd itself says that anything is not as before.

One host for all: what a rollback leaves is what the next one starts from. `make test` runs some of them in one transaction, `make exact`
all of them one by one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from acidlab.oracle.compare import compare

sys.path.insert(0, str(Path(__file__).resolve().parent / "engine"))

from probehost import NAME, Host, encoded, lab
from unit_scenarios import PREPARED, SCENARIOS, STARTED, Scenario

# What the oracle does not look at: invocations, which command line runs, root's own units.
UNITS = r"""
python3 - <<'X'
import json, os, subprocess
LEFT_OUT = ("user", "run-user", "run-credentials", "acid-", "ssh@", "systemd-hostnamed")
def show(prefix, argv, env):
    found = {}
    names = "Id,ActiveState,SubState,InvocationID,MainPID,UnitFileState,Result"
    text = subprocess.run([*argv, "show", "*", "--property=" + names], env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
    for block in text.split("\n\n"):
        unit = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if not unit or unit["ActiveState"] == "inactive" or unit["Id"].endswith((".scope", ".device")):
            continue
        # Logins, daemons that end by themselves, and mounts, which are PID 1's.
        if unit["Id"].endswith(".mount") if prefix else unit["Id"].startswith(LEFT_OUT):
            continue
        try:
            unit["MainPID"] = open("/proc/%s/cmdline" % unit.get("MainPID", "0")).read().replace("\0", " ").strip()
        except OSError:
            unit["MainPID"] = ""
        found[prefix + unit.pop("Id")] = unit
    return found
env = {**os.environ, "LC_ALL": "C", "XDG_RUNTIME_DIR": "/run/user/0"}
print(json.dumps({**show("", ["systemctl"], env), **show("user/", ["systemctl", "--user"], env)}))
X
"""


def units(host: Host) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = json.loads(host.sh(UNITS))
    return found


class World:
    """The host, and what it looked like at last."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.last, self.units = host.state(), units(host)

    def look(self) -> tuple[Any, dict[str, dict[str, str]]]:
        was = self.last, self.units
        self.last, self.units = self.host.state(), units(self.host)
        return was


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    lab("down")
    lab("up", "1")
    host = Host("h1")
    host.sh(PREPARED + STARTED)
    host.install()
    yield World(host)
    lab("down")


def differences(was: dict[str, dict[str, str]], now: dict[str, dict[str, str]], moved: set[str]) -> list[str]:
    """What systemd says of its units that is not as before. `moved`: units that may have another invocation."""
    found = [f"{name} is {now[name]['ActiveState']}, and was not there" for name in sorted(now) if name not in was]
    for name, unit in sorted(was.items()):
        then = now.get(name)
        if then is None:
            found.append(f"{name} is gone, and was {unit['ActiveState']}")
            continue
        for key, value in unit.items():
            if then.get(key) != value and not (key == "InvocationID" and name in moved):
                found.append(f"{name} has {key} {then.get(key)}, and had {value}")
    return found


def exact(world: World, *scenarios: Scenario, control: bool = False, how: str = "rollback") -> dict[str, Any]:
    host, moved = world.host, {unit for scenario in scenarios for unit in scenario.moves}
    if any(scenario.name.startswith("not ours") for scenario in scenarios):
        host.sh("systemctl start lab-crash lab-fire.timer")
    host.begin()
    if how == "savepoint":
        host.sh(f"acidctl savepoint --json --request {encoded({'tx': host.tx, 'token': host.token, 'name': 'here'})}")
    try:
        _steps(world, scenarios, control=control)
    except BaseException:
        host.sh("acidctl rollback", check=False)
        world.look()
        raise
    for scenario in scenarios:
        if scenario.during:
            host.sh(scenario.during)
    if how == "savepoint":
        host.sh(f"acidctl rollback --json --request {encoded({'tx': host.tx, 'token': host.token, 'to': 'here'})}")
    if how == "commit":
        assert host.commit()["state"] == "COMMITTED"
    summary = host.rollback()
    for scenario in scenarios:
        if scenario.after:
            host.sh(scenario.after)
    last, before = world.look()
    found = [f"{difference}" for difference in compare(last, world.last)] + differences(before, world.units, moved)
    if summary["state"] != "ABORTED":
        found += [summary["state"], *summary["differs"]]
        host.sh(f"acidctl resolve --json {host.tx}", check=False)
    assert "\n".join(found) == ""
    return summary


def _steps(world: World, scenarios: tuple[Scenario, ...], *, control: bool) -> None:
    host = world.host
    for at in range(max(len(scenario.steps) for scenario in scenarios)):
        for scenario in scenarios:
            for script in scenario.steps[at : at + 1]:
                host.step(script)
    if control:
        changed = compare(world.last, host.state()) or differences(world.units, units(host), set())
        assert changed != [], "it changes nothing, so that its undo shows nothing"


QUICK = (
    "masked: a unit that runs, one that does not, one no more",
    "linked: a unit file from afar, and one no more",
    "templates: instances come and go, the template changes",
    "timers: stopped, changed, new with a stamp",
    "sockets: another address, what they activate, and connections",
    "paths: a change and a flag start what watches them",
    "mounts: a unit comes, a unit goes, one fails",
    "user units of root",
    "failed: before the transaction, which mends it",
    "dependencies: a restart goes up the chain",
    "born: a service with directories, users, socket, timer and slice",
    "born: what a service and its start script leave in /run",
    "born: what a service makes for itself in /var",
    "transient: restarted, and changed while it runs",
)


def test_there_are_enough_and_each_has_a_name() -> None:
    names = {scenario.name for scenario in SCENARIOS}
    assert len(names) == len(SCENARIOS) >= 20
    assert set(QUICK) <= {scenario.name for scenario in SCENARIOS if not scenario.alone}


def test_a_few_at_once(world: World) -> None:
    exact(world, *(scenario for scenario in SCENARIOS if scenario.name in QUICK))


def test_an_older_unit_file_runs_the_older_command(world: World) -> None:
    host = world.host
    command = "tr '\\0' ' ' < /proc/$(systemctl show -P MainPID lab-one)/cmdline"
    assert "sleep 1001" in host.sh(command)
    host.begin()
    host.step("sed -i s/1001/2001/ /etc/systemd/system/lab-one.service; systemctl daemon-reload; systemctl restart lab-one")
    assert "sleep 2001" in host.sh(command)
    host.rollback()
    assert "sleep 1001" in host.sh(command)


PLAY = """
- hosts: h1
  gather_facts: false
  tasks:
    - ansible.builtin.copy: {dest: /etc/lab/one.conf, content: "new\\n"}
    - ansible.builtin.replace: {path: /etc/systemd/system/lab-one.service, regexp: "1001", replace: "2001"}
      notify: restart one
    - ansible.builtin.meta: flush_handlers
    - ansible.builtin.systemd_service: {name: "{{ item.name }}", state: "{{ item.state }}", enabled: "{{ item.enabled | default(omit) }}"}
      loop:
        - {name: lab-idle.service, state: started, enabled: true}
        - {name: lab-two.service, state: reloaded}
        - {name: lab-tpl@z.service, state: started, enabled: true}
        - {name: lab-tpl@a.service, state: stopped, enabled: false}
        - {name: lab-sock.socket, state: restarted}
    - ansible.builtin.systemd_service: {name: cron, masked: true, state: stopped}
    - ansible.builtin.systemd_service: {name: lab-u2, scope: user, enabled: true, state: started}
    - ansible.builtin.systemd_service: {daemon_reexec: true}
    - ansible.builtin.command: {argv: [systemd-run, -u, lab-run, sleep, "3000"]}
    - ansible.builtin.fail: {msg: enough}
  handlers:
    - name: restart one
      ansible.builtin.systemd_service: {name: lab-one, state: restarted, daemon_reload: true}
"""


def test_a_play_of_systemd_service(world: World, hosts_of: Callable[[str], Any]) -> None:
    hosts = hosts_of(NAME)
    hosts.play("- {hosts: h1, gather_facts: false, tasks: [ping: ]}", callback=False)  # Ansible makes its own folder in /root
    world.look()
    done = hosts.play(PLAY)
    last, before = world.look()
    assert done.rc == 2, done.stdout + done.stderr
    assert "enough" in done.stdout
    moved = {"lab-one.service", "lab-tpl@a.service", "lab-sock.socket", "cron.service"}
    found = [str(difference) for difference in compare(last, world.last)] + differences(before, world.units, moved)
    assert done.outcome("h1") == "rolled back", done.stderr
    assert "\n".join(found) == ""


@pytest.mark.exact
@pytest.mark.parametrize("scenario", SCENARIOS, ids=[scenario.name for scenario in SCENARIOS])
def test_all(world: World, scenario: Scenario) -> None:
    exact(world, scenario, control=True)


@pytest.mark.exact
def test_what_systemd_run_had_made_and_a_step_ended_runs_again(world: World) -> None:
    """systemd does not take a unit that is read from a file for a transient one any more; nothing else differs."""
    host = world.host
    host.begin()
    host.step("systemctl stop lab-adhoc")
    host.rollback()
    last, before = world.look()
    assert [str(found) for found in compare(last, world.last)] == ["changed unit lab-adhoc.service: Transient 'yes' -> 'no'"]
    assert differences(before, world.units, {"lab-adhoc.service"}) == []
    host.sh("systemctl stop lab-adhoc; rm -r /run/systemd/transient/lab-adhoc.*; systemctl daemon-reload")
    host.sh('systemd-run -qu lab-adhoc -p CPUWeight=70 -p "Environment=A=x%%y B=z" sleep 1019')
    world.look()


@pytest.mark.exact
@pytest.mark.parametrize("how", ["commit", "savepoint"])
def test_after_a_commit_and_to_a_savepoint(world: World, how: str) -> None:
    names = ("an older file: the old command runs again", "timers: stopped, changed, new with a stamp", "user units of root")
    exact(world, *(scenario for scenario in SCENARIOS if scenario.name in names), how=how)


KILLED = r"""
import os, signal, subprocess, sys, time
done = subprocess.Popen(["acidctl", "rollback", "--json", sys.argv[1]], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
time.sleep(float(sys.argv[2]))
for pid in [*os.listdir("/proc")]:
    try:
        line = open("/proc/%s/cmdline" % pid, "rb").read()
    except (OSError, ValueError):
        continue
    if pid.isdigit() and (b"acidctl\0agent" in line or b"acidctl\0rollback" in line):
        os.kill(int(pid), signal.SIGKILL)
done.wait()
"""


@pytest.mark.exact
@pytest.mark.parametrize("after", [0.1, 0.3, 0.5, 0.8, 1.1, 1.5, 2.0, 2.6])
def test_an_undo_that_is_killed_goes_on(world: World, after: float) -> None:
    host = world.host
    host.begin()
    host.step(
        "sed -i s/1001/2001/ /etc/systemd/system/lab-{one,two}.service; systemctl daemon-reload; systemctl restart lab-slow lab-one lab-two"
    )
    host.step("echo new > /etc/lab/base.conf; systemctl restart lab-base; systemctl stop lab-tpl@a; systemctl enable --now lab-idle")
    lab("ssh", host.name, f"cat > /run/killed.py; python3 /run/killed.py {host.tx} {after}; rm /run/killed.py", data=KILLED.encode())
    summary = host.rollback()
    last, before = world.look()
    found = [str(difference) for difference in compare(last, world.last)]
    found += differences(
        before, world.units, {f"lab-{name}.service" for name in ("one", "two", "slow", "base", "middle", "top", "part", "tpl@a")}
    )
    assert "\n".join([*found, *summary["differs"]]) == ""


@pytest.mark.exact
def test_the_same_play_without_the_collection_leaves_much(world: World, hosts_of: Callable[[str], Any]) -> None:
    """The control; the last test of the file, since nothing undoes it."""
    done = hosts_of(NAME).play(PLAY, callback=False)
    last, before = world.look()
    assert "enough" in done.stdout, done.stdout + done.stderr
    assert len(compare(last, world.last)) > 10
    assert len(differences(before, world.units, set())) > 5
