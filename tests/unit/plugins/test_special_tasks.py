# SPDX-License-Identifier: GPL-3.0-or-later
"""What synchronize starts on the host: under the shim, as whoever it would run as without us."""

from __future__ import annotations

import os
import re
import subprocess
from types import SimpleNamespace

import pytest
from ansible.errors import AnsibleActionFail
from ansible_collections.acid.host.plugins.action import tx_step
from ansible_collections.acid.host.plugins.plugin_utils import elevation, paths, shim, special_tasks
from ansible_collections.acid.host.plugins.plugin_utils.hostcommand import HostError
from ansible_collections.acid.host.plugins.plugin_utils.ledger import OpenTransaction

STEP = shim.StepInfo("a" * 32, "sync", "ansible.posix.synchronize", "site.yml:1", False, False)
SYNCHRONIZE = "ansible.posix.synchronize"


def transaction(login: str) -> OpenTransaction:
    return OpenTransaction("h", "tx-1", 7, "0" * 16, "", "play", login, login == "root", "ssh", "h", 300, "warn")


def handler(login: str, become: str | None = None, *, method: str = "sudo", delegate_to: str | None = None, transport="ssh", **args):
    task = SimpleNamespace(resolved_action=SYNCHRONIZE, args={"src": "a/", "dest": "/b", **args}, delegate_to=delegate_to)
    context = SimpleNamespace(become=become is not None, become_user=become, become_method=method, remote_user=login)
    connection, templar = SimpleNamespace(transport=transport), SimpleNamespace(template=lambda value: value)
    return SimpleNamespace(_task=task, _play_context=context, _connection=connection, _templar=templar, _get_remote_user=lambda: login)


def lead(made, variables: dict | None = None, *, begun_by: str, step: shim.StepInfo = STEP) -> str | None:
    if special_tasks.starts_rsync_by_itself(made, variables or {}, host="h"):
        special_tasks.lead_rsync_through_shim(made, variables or {}, transaction(begun_by), step)
    return made._task.args.get("rsync_path")


def led(login: str, become: str | None = None, **more) -> str | None:
    return lead(handler(login, become, **more), begun_by=login)


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
    first = lead(made, begun_by="deploy")
    made._play_context.become = False  # synchronize leaves it so
    assert lead(made, begun_by="deploy", step=STEP._replace(id="b" * 32)) == first


@pytest.mark.parametrize(("capture", "traced"), [("trace", True), ("none", False)])
def test_the_explicit_form_leads_it_through_the_shim_too(monkeypatch, capture, traced):
    seen: list[bool] = []
    action = tx_step.ActionModule.__new__(tx_step.ActionModule)
    action._connection, action._task = SimpleNamespace(transport="ssh"), SimpleNamespace(get_path=lambda: "")
    made = handler("root")
    made.run = lambda task_vars: seen.append("acidctl" in made._task.args.get("rsync_path", "")) or {}
    made.cleanup = lambda: None
    monkeypatch.setattr(tx_step.fence, "declared", lambda task, connection: None)
    monkeypatch.setattr(tx_step.steps, "install", lambda: None)
    monkeypatch.setattr(tx_step.tasks, "supervise", lambda run, args, kwargs, **_more: run(*args, **kwargs))
    ledger = SimpleNamespace(open_transaction=lambda host: transaction("root") if host == "h" else None)
    monkeypatch.setattr(tx_step.Ledger, "of_this_run", staticmethod(lambda: ledger))
    action._step({"compensate": None, "capture": capture}, {"inventory_hostname": "h"}, transaction("root"), made, STEP)
    assert seen == [traced]
    made._task.delegate_to = "d"  # whose transaction it is a step of
    if traced:
        with pytest.raises(HostError, match="no open transaction on other"):
            action._step({"compensate": None, "capture": capture}, {"inventory_hostname": "other"}, transaction("root"), made, STEP)


def test_the_login_is_asked_of_the_task():
    """A task may log in as somebody else than the one that began."""
    made = handler("ops")
    assert "--user ops --" in lead(made, begun_by="deploy")
    assert elevation.login_of(made).name == "ops"


DELEGATE = {"delegate_to": "d", "transport": "local"}


@pytest.mark.parametrize(
    ("variables", "user"),
    [
        ({}, "ops"),  # what the connection to the delegate says, or the task
        ({"ansible_user": "deploy"}, "deploy"),
    ],
)
def test_from_a_delegate_the_login_is_the_one_that_synchronize_names(variables, user):
    made = handler("ops", **DELEGATE)
    made._get_remote_user = lambda: "nobody of that host"
    assert f"--user {user} --" in lead(made, variables, begun_by="begin")


def test_the_delegate_may_be_the_host_under_its_address():
    variables = {"hostvars": {"h": {"ansible_host": "192.0.2.1"}}}
    assert lead(handler("root", delegate_to="192.0.2.1"), variables, begun_by="root") is None
    assert lead(handler("root", delegate_to="192.0.2.2"), variables, begun_by="root")


@pytest.mark.parametrize(
    ("arguments", "address", "only_sends"),
    [
        ({}, "h", True),
        ({"rsync_opts": ["--exclude=x", "-M--log-file=/x"]}, "h", True),
        ({"mode": "pull"}, "h", False),
        ({"rsync_opts": "-z,--remove-source-files"}, "h", False),
        ({"rsync_opts": ["--log-file=/x"]}, "h", False),
        ({}, "localhost", False),  # it may copy there without a second rsync
        ({"dest": "rsync://elsewhere/b"}, "h", False),
    ],
)
def test_whether_the_delegate_only_sends(arguments, address, only_sends):
    variables = {"hostvars": {"h": {"ansible_host": address}}}
    assert special_tasks.only_sends_from_delegate(handler("root", delegate_to="d", **arguments), variables, host="h") is only_sends


PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - name: sent
      ansible.posix.synchronize: {{src: tree/, {arguments}}}
      delegate_to: {to}
      when: inventory_hostname == 'h1'
      vars: {{acid_capture: {capture}}}
    - command: "true"
"""

# The host's shell gets what stands behind the host's name.
SSH = """#!/bin/sh
while :; do
  case $1 in
    -C|-t*|-v*) shift ;;
    -*) shift 2 ;;
    *) break ;;
  esac
done
shift
exec /bin/sh -c "$*"
"""


@pytest.fixture
def synchronized(controller):
    """Runs the play; gives the run, and for each transaction of h1 and h2 what was started under it."""
    (controller.folder / "tree").mkdir()
    (controller.folder / "tree" / "file").write_text("x")
    (controller.folder / "bin").mkdir()
    (controller.folder / "bin" / "ssh").write_text(SSH)
    (controller.folder / "bin" / "ssh").chmod(0o755)

    def run(*, to: str, arguments: str = "", capture: str = "trace", hosts: str = "h1,h2", **environment: str):
        path = f"{controller.folder / 'bin'}:{os.environ['PATH']}"
        if "dest:" not in arguments:
            arguments = f'dest: "{{{{ playbook_dir }}}}/there", {arguments}'
        source = PLAY.format(to=to, arguments=arguments, capture=capture)
        ran = controller.play(source, hosts=hosts, PATH=path, ANSIBLE_FORKS="1", **environment)
        ends = [call["request"]["tx"] for call in controller.calls("commit")]
        steps = [(call["tx"], call["argv"][0].rpartition("/")[2], call["step"]["task"]) for call in controller.calls("exec")]
        return ran, [[program for tx, program, task in steps if tx == end and task == "sent"] for end in ends]

    return run


def named(run) -> list[str]:
    return re.findall(r"could not have been undone: (.*)", run.recap)


def test_with_a_delegate_of_the_play_each_end_is_a_step_of_its_own_host(synchronized, controller):
    run, (h1, h2) = synchronized(to="h2")
    assert run.rc == 0, run.stdout
    assert (h1, h2) == (["rsync"], ["sh"])
    assert (controller.folder / "there" / "file").exists()
    assert named(run) == []


def test_with_localhost_as_the_delegate_the_hosts_end_is_a_step(synchronized, controller):
    run, (h1,) = synchronized(to="localhost", hosts="h1,", ACID_IRREVERSIBLE="deny")
    assert run.rc == 0, run.stdout + run.stderr
    assert h1 == ["rsync"]
    assert (controller.folder / "there" / "file").exists()
    assert named(run) == []


@pytest.mark.parametrize(("arguments", "traced"), [("mode: pull", []), ("rsync_opts: [--remove-source-files]", ["rsync"])])
def test_what_changes_the_delegate_outside_is_named(synchronized, controller, arguments, traced):
    (controller.folder / "tree" / "file").touch()
    run, (h1,) = synchronized(to="localhost", hosts="h1,", arguments=arguments)
    assert run.rc == 0, run.stdout
    assert h1 == traced
    assert named(run) == ["sent: ansible.posix.synchronize on localhost (delegate_to)"]


@pytest.mark.parametrize("to", ["h2", "localhost"])
def test_without_capture_neither_end_is_a_step(synchronized, to):
    run, (h1, h2) = synchronized(to=to, capture="none")
    assert run.rc == 0, run.stdout
    assert (h1, h2) == ([], [])
    assert named(run) == ["sent: ansible.posix.synchronize with 'acid_capture: none'"]


@pytest.mark.parametrize(("capture", "traced"), [("trace", ["rsync"]), ("none", [])])
def test_without_capture_and_delegate_the_hosts_end_is_no_step_either(synchronized, controller, capture, traced):
    (controller.folder / "inventory").write_text(f"h1 ansible_connection=ssh ansible_ssh_executable={controller.folder}/bin/ssh\n")
    run, (h1,) = synchronized(to="'{{ omit }}'", capture=capture, hosts="inventory", ANSIBLE_REMOTE_USER="root")
    assert run.rc == 0, run.stdout
    assert (controller.folder / "there" / "file").exists()
    assert h1 == traced
    assert len(named(run)) == (capture == "none")


OWN_VARS = {"hostvars": {"h": {"ansible_host": "10.0.0.1"}}}
MODULE = "rsync://third/module"


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({}, ""),
        ({"dest": "relative/a:b"}, ""),
        ({"dest": "/a:b"}, ""),
        ({"dest": "h:/x"}, ""),
        ({"dest": "root@10.0.0.1:/x"}, ""),
        ({"dest": "third:/x"}, "third"),
        ({"dest": "root@[fe80::1]:/x"}, "fe80::1"),
        ({"dest": "third:"}, "third"),
        ({"dest": MODULE}, f"{MODULE} (an rsync daemon)"),
        ({"dest": "third::module/x"}, "third::module/x (an rsync daemon)"),
        ({"dest": "third:/x", "delegate_to": "other"}, "third"),
        ({"dest": "third:/x", "delegate_to": "h"}, "third"),
        ({"dest": "third:/x", "transport": "local"}, "third"),
        ({"dest": "h:/x", "delegate_to": "h"}, "h"),  # by an ssh of the host's own, past the trace
        ({"mode": "pull", "src": "third:/x"}, ""),
        ({"mode": "pull", "src": "third:/x", "rsync_opts": ["--remove-source-files"]}, "third"),
        ({"mode": "pull", "src": MODULE, "rsync_opts": "-v,--remove-source-files"}, f"{MODULE} (an rsync daemon)"),
    ],
)
def test_a_third_host_that_the_arguments_name_is_known(more, where):
    assert special_tasks.changes_elsewhere(handler("root", **more), OWN_VARS, host="h") == where


@pytest.mark.parametrize("to", ["h1", "h2", "localhost"])
def test_what_a_third_host_gets_is_named_and_no_transaction_claims_it(synchronized, controller, to):
    """As without us: it is done, by whichever host starts rsync."""
    there = controller.folder / "third"
    run, ended = synchronized(to=to, arguments=f"dest: 'third:{there}'")
    assert run.rc == 0, run.stdout + run.stderr
    assert (there / "file").exists()
    assert "rsync" not in [program for programs in ended for program in programs], "another host's transaction claims it"
    assert "sent: ansible.posix.synchronize changes third, where no transaction sees it" in named(run)


@pytest.mark.parametrize("to", ["h1", "h2", "localhost"])
def test_a_third_host_is_refused_under_deny_before_anything_is_sent(synchronized, controller, to):
    run, _ended = synchronized(to=to, arguments=f"dest: 'third:{controller.folder}/third'", ACID_IRREVERSIBLE="deny")
    assert run.rc == 2
    assert "changes third, where no transaction sees it. Nothing was sent" in run.stdout + run.stderr
    assert not (controller.folder / "third").exists()
