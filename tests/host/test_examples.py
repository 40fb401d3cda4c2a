# SPDX-License-Identifier: GPL-3.0-or-later
"""Every EXAMPLES block of the documentation is a playbook that runs as it stands, without the callback."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

MODULES = sorted((Path(__file__).resolve().parents[2] / "plugins" / "modules").glob("*.py"))

# What each leaves on a host that had /etc/level.conf with "level = 1" before.
LEAVES = {
    "tx_begin": "level = 2\n",
    "tx_commit": "level = 1\nlevel = 3\n",
    "tx_rollback": "level = 1\n",
    "tx_savepoint": "level = 1\n",
    "tx_info": "level = 1\n",
    "tx_step": "level = 1\n",
}


def examples(module: Path) -> str:
    for node in ast.parse(module.read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "EXAMPLES":
            return str(ast.literal_eval(node.value))
    raise AssertionError(f"{module} has no EXAMPLES")


def test_every_module_is_known_here():
    assert {module.stem for module in MODULES} == set(LEAVES)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.stem)
def test_examples_run_and_do_what_they_say(warm_hosts, module):
    for host in ("h1", "h2"):
        warm_hosts.ssh(host, "echo 'level = 1' > /etc/level.conf")
    run = warm_hosts.play(examples(module), callback=False)
    assert run.rc == 0, run.stdout + run.stderr
    for host in ("h1", "h2"):
        assert warm_hosts.ssh(host, "cat /etc/level.conf; ls /etc/level-*.conf 2>/dev/null", check=False) == LEAVES[module.stem]
        assert "ACTIVE" not in warm_hosts.states(host)
        warm_hosts.ssh(host, "rm /etc/level.conf")
