# SPDX-License-Identifier: GPL-3.0-or-later
"""A run from Python by ansible-runner, as AWX does it: the outcome of each host is read from the custom stats key `acid`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import ansible_runner
import pytest

TOP = Path(__file__).resolve().parents[2]
LAB = TOP / "tests" / "lab" / "lab"
NAME = f"runner{os.getpid()}"  # several runs on one machine do not meet
COLLECTIONS = os.environ.get("ANSIBLE_COLLECTIONS_PATH", str(TOP / ".build" / "collections"))

PLAY = """
- name: A release on two hosts, of which h1 fails
  hosts: all
  gather_facts: false
  tasks:
    - name: An account
      ansible.builtin.user: {name: shop}
    - name: Its settings
      ansible.builtin.copy: {content: "release = 2\\n", dest: /home/shop/shop.conf, owner: shop, mode: "0640"}
    - name: A line in a file of the system
      ansible.builtin.lineinfile: {path: /etc/services, line: shop 8042/tcp}
    - name: A wait, in which a job can be cancelled
      ansible.builtin.shell: "until test {{ wait | default(0) }} = 0 -o -e /run/runner-go; do sleep 0.3; done"
    - name: Health check
      ansible.builtin.command: "test {{ inventory_hostname }} != {{ broken | default('nobody') }}"
"""


def lab(*arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(LAB), "--lab", NAME, *arguments], capture_output=True, text=True, check=check)


@pytest.fixture(scope="module")
def inventory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Two hosts on which the engine has been: what Ansible and the engine put there once is no difference."""
    lab("up", "2")
    hosts = json.loads(lab("inventory").stdout)
    run(tmp_path_factory.mktemp("first"), hosts, broken="h1")
    yield hosts
    lab("down")


def state(file: Path) -> Path:
    """h1 as the oracle sees it."""
    file.write_text(lab("state", "h1").stdout, encoding="utf-8")
    return file


def start(folder: Path, inventory: dict[str, Any], cancelled: Callable[[], bool] | None = None, **extra: Any) -> ansible_runner.Runner:
    project = folder / "project"
    project.mkdir(parents=True)
    (project / "play.yml").write_text(PLAY, encoding="utf-8")
    return ansible_runner.run(
        private_data_dir=str(folder),
        playbook="play.yml",
        inventory=inventory,
        extravars=extra,
        quiet=True,
        cancel_callback=cancelled,
        envvars={
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "ANSIBLE_COLLECTIONS_PATH": COLLECTIONS,
            "ANSIBLE_HOME": str(folder / "home"),
            "ANSIBLE_CALLBACKS_ENABLED": "acid.host.transaction",
        },
    )


def run(folder: Path, inventory: dict[str, Any], **extra: Any) -> tuple[ansible_runner.Runner, dict[str, Any]]:
    """The finished run, and what its custom stats say under the key `acid`."""
    runner = start(folder, inventory, **extra)
    stats = [event for event in runner.events if event["event"] == "playbook_on_stats"]
    assert stats, runner.stdout.read()
    return runner, stats[-1]["event_data"].get("artifact_data", {}).get("acid", {})


def test_a_host_that_failed_is_rolled_back_and_the_other_one_committed(inventory: dict[str, Any], tmp_path: Path) -> None:
    before = state(tmp_path / "before")
    runner, outcome = run(tmp_path / "run", inventory, broken="h1")
    after = state(tmp_path / "after")

    assert (runner.status, runner.rc) == ("failed", 2)
    assert outcome["hosts"] == {"h1": "rolled_back", "h2": "committed"}
    (undone,) = (report for report in outcome["transactions"] if report["host"] == "h1")
    assert (undone["steps"], undone["differs"], undone["irreversible"]) == (5, [], [])
    assert undone["paths"] > 0
    difference = lab("diff", str(before), str(after), check=False)
    assert difference.returncode == 0, difference.stdout
    assert lab("ssh", "h2", "cat /home/shop/shop.conf; grep -c shop /etc/services").stdout == "release = 2\n1\n"


def test_a_run_that_succeeds_is_committed_everywhere(inventory: dict[str, Any], tmp_path: Path) -> None:
    runner, outcome = run(tmp_path / "run", inventory)
    assert (runner.status, runner.rc) == ("successful", 0), runner.stdout.read()
    assert outcome["hosts"] == {"h1": "committed", "h2": "committed"}
    assert lab("ssh", "h1", "stat -c '%U %a' /home/shop/shop.conf").stdout == "shop 640\n"
    listed = json.loads(lab("ssh", "h1", "acidctl list --json").stdout)
    assert all(report["tx"] in json.dumps(listed) for report in outcome["transactions"] if report["host"] == "h1")


def test_a_cancelled_job_is_undone_by_the_hosts_themselves(inventory: dict[str, Any], tmp_path: Path) -> None:
    """Cancelling kills ansible-playbook with SIGKILL, so nobody tells the hosts: their leases do.

    What a step has begun runs on without its controller; the lease counts from its end.
    """
    before = state(tmp_path / "before")

    def cancelled() -> bool:
        return "runner-go" in lab("ssh", "h1", "pgrep -af 'until tes[t]' || true").stdout

    options = {"confirm_timeout": 10}
    runner = start(tmp_path / "run", inventory, cancelled, broken="h1", wait=1, acid_transaction=options)
    assert runner.status == "canceled"
    lab("ssh", "h1", "touch /run/runner-go")
    deadline = time.monotonic() + 90
    while newest(lab("ssh", "h1", "acidctl list --json").stdout) != "ABORTED":
        assert time.monotonic() < deadline, lab("ssh", "h1", "acidctl show; journalctl -u acid-agent -n 30 --no-pager").stdout
        time.sleep(2)
    lab("ssh", "h1", "rm /run/runner-go")
    after = state(tmp_path / "after")
    difference = lab("diff", str(before), str(after), check=False)
    assert difference.returncode == 0, difference.stdout


def newest(listed: str) -> str:
    """The state of the newest transaction in the answer of `acidctl list --json`."""
    newest_first = sorted(json.loads(listed)["transactions"], key=lambda value: value["created_ns"], reverse=True)
    return str(newest_first[0]["state"])
