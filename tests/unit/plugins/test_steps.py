# SPDX-License-Identifier: GPL-3.0-or-later
"""What becomes a step and what is refused or dooms the transaction. Fake engine, real ansible-playbook."""

from __future__ import annotations

import json
import signal
import subprocess
import time

import pytest

PAST_THE_TRACE = {
    # An action plugin of somebody's that talks to the connection itself.
    "direct": """
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        rc, out, err = self._connection.exec_command("/bin/sh -c 'echo direct'")
        return {"changed": True, "rc": rc}
""",
    # One that puts a file where it likes.
    "put": """
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        self._transfer_file("/etc/hostname", self._task.args["dest"])
        return {"changed": True}
""",
    # One that behaves: its commands go the usual way.
    "proper": """
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        return {"changed": True, **self._low_level_execute_command("echo proper", executable="/bin/bash")}
""",
    # One that never goes to the host.
    "stays": """
from ansible.plugins.action import ActionBase
class ActionModule(ActionBase):
    def run(self, tmp=None, task_vars=None):
        super().run(tmp, task_vars)
        return {"changed": False, "answer": 42}
""",
}


@pytest.fixture
def plugins(controller):
    folder = controller.folder / "action_plugins"
    folder.mkdir()
    for name, source in PAST_THE_TRACE.items():
        (folder / f"{name}.py").write_text(source)
    return controller


def tasks(*lines: str) -> str:
    return "- hosts: all\n  gather_facts: false\n  tasks:\n" + "".join(f"    {line}\n" for text in lines for line in text.splitlines())


def test_a_command_past_the_trace_dooms_and_rolls_back(plugins):
    run = plugins.play(tasks("- direct:", "- command: 'true'"))
    assert run.rc == 2
    assert plugins.verbs() == ["begin", "doom", "exec", "rollback"]
    (doom,) = plugins.calls("doom")
    assert "did not go through _low_level_execute_command" in doom["request"]["reason"]
    assert "because: step 'direct' (direct) sent a command" in run.recap


def test_a_file_put_past_the_trace_is_refused_before_it_is_sent(plugins):
    target = plugins.folder / "put-here"
    run = plugins.play(tasks(f"- put: {{dest: {target}}}"))
    assert run.rc == 2
    assert not target.exists()
    assert f"would put {target} on h1 past the trace" in run.stdout
    plugins.play(tasks(f"- put: {{dest: {target}}}"), callback=False)
    assert target.exists()


def test_plugins_that_go_the_usual_way_or_nowhere(plugins):
    run = plugins.play(tasks("- proper:", "- stays:", "- debug: {msg: x}", "- set_fact: {x: 1}", "- assert: {that: true}"))
    assert run.rc == 0, run.stdout
    (call,) = plugins.calls("exec")
    assert call["argv"] == ["/bin/bash", "-c", "echo proper"]


def test_what_the_host_says_when_a_step_may_not_run_is_the_tasks_error(controller):
    controller.play(tasks("- command: 'true'"))
    controller.forget()
    controller.answer(refuse="trace-unavailable: this process has a listener already.")
    for task in ("- command: touch never", "- raw: touch never", "- copy: {content: x, dest: never}"):
        run = controller.play(tasks(task))
        assert run.rc == 2
        assert "The step was not let run on h1: trace-unavailable: this process has a listener already." in run.stdout, run.stdout
        assert not (controller.folder / "never").exists()


def test_a_step_is_told_to_the_host_without_its_arguments(controller):
    secret = "- name: a secret\n  command: echo hunter2\n  no_log: true"
    controller.play(tasks(secret, "- name: seen in check mode\n  command: 'true'\n  check_mode: true"))
    first, second = (call["step"] for call in controller.calls("exec"))
    assert (first["task"], first["module"], first["position"], first["no_log"]) == (
        "a secret",
        "ansible.builtin.command",
        "play.yml:4",
        True,
    )
    assert second["check"] is True
    assert "hunter2" not in json.dumps(first)


def test_results_are_those_of_the_module_and_nothing_else(controller):
    keep = '- copy: {content: "{{ r | to_json }}", dest: "{{ playbook_dir }}/result"}'
    source = tasks("- command: echo x\n  register: r", keep)
    plain = controller.play(source, callback=False)
    expected = json.loads((controller.folder / "result").read_text())
    run = controller.play(source)
    assert (plain.rc, run.rc) == (0, 0)
    assert set(json.loads((controller.folder / "result").read_text())) == set(expected)


SIGNALS = [(signal.SIGINT, 99, "interrupted (Ctrl-C)"), (signal.SIGTERM, -15, "terminated (SIGTERM)")]


@pytest.mark.parametrize(("signum", "rc", "reason"), SIGNALS)
def test_a_signal_rolls_back_and_ends_as_ansible_would(controller, signum, rc, reason):
    process = start(controller, tasks("- command: sleep 60"), until="exec")
    process.send_signal(signum)
    stdout, stderr = process.communicate(timeout=30)
    assert process.returncode == rc, stderr
    assert controller.verbs() == ["begin", "exec", "rollback"]
    assert f"because: {reason}" in stderr


def test_the_second_signal_leaves_the_rest_to_the_hosts_and_names_them(controller):
    process = start(controller, tasks("- command: sleep 60"), until="exec")
    controller.answer(rollback={"sleep": 60, "out": {}})
    process.send_signal(signal.SIGINT)
    wait_for(lambda: controller.calls("rollback"))
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=30)[1]
    assert process.returncode == 99
    assert "h1 : left to the host: " in stderr
    assert "transaction: tx-" in stderr


def test_a_signal_while_committing_waits_for_the_commit(controller):
    controller.play(tasks("- command: 'true'"))
    controller.forget()
    controller.answer(commit={"sleep": 3})
    process = start(controller, tasks("- command: 'true'"), until="commit")
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=30)[1]
    assert process.returncode == 99
    assert controller.verbs() == ["begin", "exec", "commit"]
    assert "h1 : committed" in stderr


def start(controller, source: str, *, until: str) -> subprocess.Popen[str]:
    """A play that has just made its first call of that verb."""
    process = subprocess.Popen(
        controller.command(source), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=controller.folder, env=controller.env()
    )
    wait_for(lambda: controller.calls(until))
    return process


def wait_for(true) -> None:
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.05)


def test_a_task_can_ask_for_a_savepoint_or_for_no_trace(controller):
    run = controller.play(
        tasks(
            "- name: marked\n  command: 'true'\n  vars: {acid_savepoint: \"before-{{ inventory_hostname }}\"}",
            "- name: left out\n  command: 'true'\n  vars: {acid_capture: none}",
        )
    )
    assert run.rc == 0, run.stdout
    assert controller.verbs() == ["begin", "savepoint", "exec", "commit"]
    assert [call["step"]["task"] for call in controller.calls("exec")] == ["marked"]
    assert controller.calls("savepoint")[0]["request"]["name"] == "before-h1"
    assert "could not have been undone: left out: ansible.builtin.command with 'acid_capture: none'" in run.recap


@pytest.mark.parametrize(
    ("variable", "sentence"),
    [("acid_capture: some", "give 'trace' or 'none'"), ("acid_compensate: 3", "give a task or a list of tasks")],
)
def test_a_wish_that_cannot_be_met_stops_the_task(controller, variable, sentence):
    run = controller.play(tasks(f"- command: 'true'\n  vars: {{{variable}}}"))
    assert run.rc == 2
    assert sentence in run.stdout
    assert controller.calls("exec") == []


def test_a_signal_while_beginning_ends_what_the_host_began_unseen(controller):
    controller.play(tasks("- command: 'true'"))
    controller.forget()
    controller.answer(begin={"sleep": 3})
    process = start(controller, tasks("- command: 'true'"), until="begin")
    owner = controller.calls("begin")[0]["request"]["owner"]
    controller.answer(info={"out": {"open": {"tx": "tx-unseen", "owner": owner}}})
    process.send_signal(signal.SIGINT)
    stderr = process.communicate(timeout=30)[1]
    assert process.returncode == 99
    assert [call["request"]["tx"] for call in controller.calls("rollback")] == ["tx-unseen"]
    assert "h1 : not begun: the controller was stopped before the host answered." in stderr


def test_what_is_forbidden_beforehand_asks_no_host(controller):
    far = tasks("- name: far\n  command: 'true'\n  delegate_to: elsewhere")
    run = controller.play(far, ACID_IRREVERSIBLE="deny")
    assert run.rc == 1
    assert "far: ansible.builtin.command on elsewhere (delegate_to)" in run.stderr
    assert controller.calls() == []


FAR_IN_A_RESCUE = """
- block:
    - command: 'true'
  rescue:
    - block:
        - name: far
          command: 'true'
          delegate_to: elsewhere
"""


def test_what_stands_in_a_rescue_is_not_certain_to_run(controller):
    run = controller.play(tasks(FAR_IN_A_RESCUE.strip()), ACID_IRREVERSIBLE="deny")
    assert run.rc == 0, run.stderr
    assert controller.verbs() == ["begin", "exec", "commit"]
    always = controller.play(tasks(FAR_IN_A_RESCUE.strip().replace("rescue:", "always:")), ACID_IRREVERSIBLE="deny")
    assert always.rc == 1
    assert "far: ansible.builtin.command on elsewhere (delegate_to)" in always.stderr


def test_nobody_elses_transaction_is_ended(controller):
    controller.play(tasks("- command: 'true'"))
    controller.forget()
    controller.answer(begin={"sleep": 3}, info={"out": {"open": {"tx": "tx-theirs", "owner": "ops@elsewhere ansible[1]"}}})
    process = start(controller, tasks("- command: 'true'"), until="begin")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=30)
    assert controller.calls("rollback") == []
