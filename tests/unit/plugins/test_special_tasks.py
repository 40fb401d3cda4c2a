# SPDX-License-Identifier: GPL-3.0-or-later
"""What synchronize starts on the host: under the shim, as whoever it would run as without us."""

from __future__ import annotations

import os
import subprocess
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.acid.host.plugins.action import tx_step
from ansible_collections.acid.host.plugins.plugin_utils import elevation, paths, shim, special_tasks
from ansible_collections.acid.host.plugins.plugin_utils.ledger import OpenTransaction

STEP = shim.StepInfo("a" * 32, "sync", "ansible.posix.synchronize", "site.yml:1", False, False)
SYNCHRONIZE = "ansible.posix.synchronize"


def transaction(login: str) -> OpenTransaction:
    return OpenTransaction("h", "tx-1", 7, "0" * 16, "", "play", login, login == "root", "ssh", "h", 300, "warn")


def handler(login: str, become: str | None = None, *, method: str = "sudo", delegate_to: str | None = None, transport="ssh", **args):
    task = SimpleNamespace(resolved_action=SYNCHRONIZE, args={"src": "a/", "dest": "/b", **args}, delegate_to=delegate_to)
    context = SimpleNamespace(become=become is not None, become_user=become, become_method=method)
    connection = SimpleNamespace(transport=transport)
    return SimpleNamespace(_task=task, _play_context=context, _connection=connection, _get_remote_user=lambda: login)


def led(login: str, become: str | None = None, **more) -> str | None:
    made = handler(login, become, **more)
    special_tasks.lead_rsync_through_shim(made, transaction(login), STEP)
    return made._task.args.get("rsync_path")


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Runs a path with rsync's arguments after it, as sshd would; what programs were started, with their arguments."""
    log = tmp_path / "log"
    for name in ("sudo", "acidctl", "rsync"):
        then = {
            "sudo": '[ "$1" = -u ] && shift 2; exec "$@"',
            "acidctl": 'export UNTRACED=; while [ "$1" != -- ]; do shift; done; shift; exec "$@"',
        }
        # Of the shim's words the test looks at those that say who and what.
        shown = 'user=; for w in "$@"; do [ "$p" = --user ] && user=$w; p=$w; [ "$w" = -- ] && break; done; set -- "$@"'
        told = 'echo "acidctl user=$user"' if name == "acidctl" else f'echo "{name}" "$@" ${{UNTRACED-untraced}}'
        (tmp_path / name).write_text(f"#!/bin/sh\n{shown}\n{told} >>{log}\n{then.get(name, '')}\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setattr(paths, "acidctl", lambda engine: str(tmp_path / "acidctl"))

    def run(path: str) -> list[str]:
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "HOME": str(tmp_path)}
        subprocess.run(["/bin/sh", "-c", f"{path} --server . '/a b'"], check=True, env=environment)
        return [line if len(line) < 60 else line.split()[0] for line in log.read_text().splitlines()]

    return run


RSYNC = "rsync --server . /a b"


@pytest.mark.parametrize(
    ("login", "become", "given", "started"),
    [
        ("root", None, None, ["acidctl user=", RSYNC]),
        ("root", "root", None, ["acidctl user=", RSYNC]),
        ("root", "shop", None, ["acidctl user=", f"sudo -u shop {RSYNC}", RSYNC]),
        ("deploy", None, None, ["sudo", "acidctl user=deploy", RSYNC]),
        ("deploy", "root", None, ["sudo", "acidctl user=", RSYNC]),
        ("deploy", "shop", None, ["sudo", "acidctl user=deploy", f"sudo -u shop {RSYNC}", RSYNC]),
        # With a path of its own, synchronize becomes nobody.
        ("deploy", "shop", "sudo rsync", ["sudo", "acidctl user=deploy", f"sudo {RSYNC}", RSYNC]),
        ("root", None, "rsync --first && rsync", ["acidctl user=", "rsync --first", RSYNC]),
    ],
)
def test_rsync_runs_as_whoever_it_would_run_as(host, login, become, given, started):
    path = led(login, become, **({"rsync_path": given} if given else {}))
    assert host(path) == started


def test_the_shell_of_the_login_stays_while_rsync_runs():
    """The shim looks for a process of the login."""
    assert led("deploy").startswith("/bin/sh -c 'sudo ")
    assert "; exit $?' rsync" in led("deploy")


@pytest.mark.parametrize(("login", "become"), [("deploy", "root"), ("deploy", "shop"), ("root", "shop")])
def test_only_sudo_can_be_used(login, become):
    with pytest.raises(AnsibleActionFail, match="only sudo can be used, and the become method is 'doas'"):
        led(login, become, method="doas")


def test_where_nobody_has_to_become_anybody_the_method_does_not_matter():
    assert led("root", None, method="doas")
    assert led("root", "root", method="doas")


@pytest.mark.parametrize(
    ("arguments", "changes"),
    [
        ({}, True),
        ({"mode": "pull"}, False),
        ({"mode": "pull", "rsync_opts": ["--exclude=x"]}, False),
        ({"mode": "pull", "rsync_opts": ["-z", "--remove-source-files"]}, True),
        ({"mode": "pull", "rsync_opts": "-z,--remove-source-files"}, True),
        ({"mode": "pull", "rsync_opts": ["-M--log-file=/x"]}, True),
    ],
)
def test_pulling_is_traced_where_it_changes_the_host(arguments, changes):
    assert bool(led("root", **arguments)) is changes


@pytest.mark.parametrize("more", [{"transport": "local"}, {"delegate_to": "h"}])
def test_where_both_ends_are_on_the_host_the_module_is_the_step(more):
    assert led("deploy", "shop", method="su", **more) is None


def test_another_attempt_finds_the_path_of_the_first():
    made = handler("deploy", "shop")
    special_tasks.lead_rsync_through_shim(made, transaction("deploy"), STEP)
    first = made._task.args["rsync_path"]
    made._play_context.become = False  # synchronize leaves it so
    special_tasks.lead_rsync_through_shim(made, transaction("deploy"), STEP._replace(id="b" * 32))
    assert made._task.args["rsync_path"] == first


@pytest.mark.parametrize(("capture", "traced"), [("trace", True), ("none", False)])
def test_the_explicit_form_leads_it_through_the_shim_too(monkeypatch, capture, traced):
    seen: list[bool] = []
    action = tx_step.ActionModule.__new__(tx_step.ActionModule)
    action._connection, action._task = SimpleNamespace(transport="ssh"), SimpleNamespace(get_path=lambda: "")
    made = handler("root")
    made.run = lambda task_vars: seen.append("acidctl" in made._task.args.get("rsync_path", "")) or {}
    made.cleanup = lambda: None
    monkeypatch.setattr(tx_step.Ledger, "of_this_run", staticmethod(lambda: None))
    monkeypatch.setattr(tx_step.fence, "declared", lambda task, connection: None)
    monkeypatch.setattr(tx_step.steps, "install", lambda: None)
    monkeypatch.setattr(tx_step.tasks, "supervise", lambda run, args, kwargs, **_more: run(*args, **kwargs))
    action._step({"compensate": None, "capture": capture}, {}, transaction("root"), made, STEP)
    assert seen == [traced]


def test_the_login_is_asked_of_the_task():
    """A task may log in as somebody else than the one that began."""
    made = handler("ops")
    special_tasks.lead_rsync_through_shim(made, transaction("deploy"), STEP)
    assert "--user ops --" in made._task.args["rsync_path"]
    assert elevation.login_of(made).name == "ops"
