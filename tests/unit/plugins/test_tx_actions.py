# SPDX-License-Identifier: GPL-3.0-or-later
"""The explicit form, with and without the callback. Fake engine, real ansible-playbook; what it does to hosts is in tests/host."""

from __future__ import annotations

import pytest


def tasks(text: str) -> str:
    return "- hosts: all\n  gather_facts: false\n  tasks:\n" + "".join(f"    {line}\n" for line in text.strip("\n").splitlines())


def test_begin_step_commit(controller):
    run = controller.play(
        tasks("""
- acid.host.tx_begin: {name: upgrade, confirm_timeout: 60}
  register: begun
- command: echo outside
- acid.host.tx_step:
    task:
      command: echo inside
  register: inside
- assert: {that: [inside.stdout == 'inside', begun.tx is match('tx-'), not begun.changed]}
- acid.host.tx_commit:
"""),
        callback=False,
    )
    assert run.rc == 0, run.stdout
    assert controller.verbs() == ["begin", "exec", "commit"]
    (begin,), (step,), (commit,) = controller.calls("begin"), controller.calls("exec"), controller.calls("commit")
    assert begin["request"]["name"] == "upgrade"
    assert begin["request"]["options"]["confirm_timeout"] == 60
    assert commit["request"]["steps"] == [step["step"]["id"]]
    assert step["step"]["module"] == "ansible.builtin.command"


def test_a_wrapped_task_is_as_the_task_alone(controller):
    """Free form, arguments beside it, module_defaults, loops, and values that look like arguments or templates."""
    run = controller.play(
        """
- hosts: all
  gather_facts: false
  module_defaults:
    ansible.builtin.command: {chdir: /usr}
  vars:
    sly: "x chdir=/tmp"
    template: "{{ '{{' }} 1 + 1 {{ '}}' }}"
  tasks:
    - acid.host.tx_begin:
    - acid.host.tx_step:
        task:
          ansible.builtin.command: pwd
      register: defaults
    - acid.host.tx_step:
        task:
          ansible.builtin.shell: echo {{ sly }}; pwd
          args: {chdir: /etc}
      register: arguments
    - acid.host.tx_step:
        task:
          command: echo "{{ item }}" "{{ template }}"
      loop: [a, b]
      register: loop
    - acid.host.tx_step:
        task:
          copy: {content: "from copy\\n", dest: "{{ playbook_dir }}/copied"}
      register: copied
    - assert:
        that:
          - defaults.stdout == '/usr'
          - arguments.stdout_lines == ['x chdir=/tmp', '/etc']
          - loop.results | map(attribute='stdout') | list == ['a {{ "{{" }} 1 + 1 {{ "}}" }}', 'b {{ "{{" }} 1 + 1 {{ "}}" }}']
          - copied.changed
          - copied.checksum is defined
    - acid.host.tx_commit:
""",
        callback=False,
    )
    assert run.rc == 0, run.stdout
    assert (controller.folder / "copied").read_text() == "from copy\n"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("- acid.host.tx_commit:", "There is no open transaction of this play on h1, so there is nothing to commit."),
        ("- acid.host.tx_rollback:", "There is no open transaction of this play on h1"),
        ("- acid.host.tx_step: {task: {command: echo x}}", "so there is nothing to add a step to"),
        ("- acid.host.tx_info: {required: true}", "There is no open transaction of this play on h1"),
        ("- acid.host.tx_begin: {scop: x}", "Unsupported parameters"),
        ("- acid.host.tx_begin: {scope: play}", "comes with the coordinator"),
        ("- acid.host.tx_begin:\n- acid.host.tx_begin:", "is open on h1 already"),
        ("- acid.host.tx_begin:\n- acid.host.tx_step: {task: {command: x, shell: y}}", "give exactly one module under 'task'"),
        ("- acid.host.tx_begin:\n- acid.host.tx_step: {task: {include_tasks: x.yml}}", "is no module"),
        (
            "- acid.host.tx_begin:\n- acid.host.tx_step: {task: {command: x}, compensate: [{include_tasks: x}]}",
            "include_tasks is no module",
        ),
        ("- acid.host.tx_begin:\n- acid.host.tx_step: {task: {command: x}, compensate: [x]}", "give a task or a list of tasks"),
        ("- acid.host.tx_begin:\n- acid.host.tx_step: {task: {command: x}, compensate: 3}", "give a task or a list of tasks"),
    ],
)
def test_misuse_is_a_sentence(controller, text, sentence):
    run = controller.play(tasks(text), callback=False)
    assert run.rc == 2
    assert sentence in run.stdout


def test_capture_none_and_check_mode_leave_the_trace_out(controller):
    untraced = tasks("- acid.host.tx_begin:\n- acid.host.tx_step: {task: {command: 'true'}, capture: none}\n- acid.host.tx_rollback:")
    controller.play(untraced, callback=False)
    assert controller.verbs() == ["begin", "rollback"]
    controller.forget()
    checked = tasks("- acid.host.tx_begin:\n- acid.host.tx_step: {task: {copy: {content: x, dest: x}}}\n- acid.host.tx_commit:")
    run = controller.play(checked, "--check", "--diff", callback=False)
    assert run.rc == 0, run.stdout
    assert controller.calls() == []
    assert "+x" in run.stdout


def test_rollback_to_a_savepoint_and_of_another_transaction(controller):
    run = controller.play(
        tasks("""
- acid.host.tx_begin:
- acid.host.tx_savepoint: {name: here}
- acid.host.tx_rollback: {to: here}
- acid.host.tx_commit:
- acid.host.tx_rollback: {tx: tx-old}
"""),
        callback=False,
    )
    assert run.rc == 0, run.stdout
    first, second = (call["request"] for call in controller.calls("rollback"))
    assert first["to"] == "here"
    assert first["token"]
    assert second.pop("session")
    assert second == {"tx": "tx-old"}


def test_under_the_callback_a_play_cannot_end_its_transaction_but_can_use_savepoints(controller):
    run = controller.play(
        tasks("""
- acid.host.tx_info: {required: true}
- acid.host.tx_savepoint: {name: here}
- acid.host.tx_step: {task: {command: 'true'}}
- acid.host.tx_rollback: {to: here}
- acid.host.tx_commit:
""")
    )
    assert run.rc == 2
    assert "is held by the callback acid.host.transaction" in run.stdout
    assert controller.verbs() == ["begin", "info", "savepoint", "exec", "rollback", "rollback"]


def test_the_explicit_form_works_in_a_play_that_turned_the_callback_off(controller):
    source = tasks("- acid.host.tx_begin:\n- command: 'true'\n- acid.host.tx_step: {task: {command: 'true'}}\n- acid.host.tx_commit:")
    run = controller.play(source, "-e", "acid_transaction=no")
    assert run.rc == 0, run.stdout
    assert controller.verbs() == ["begin", "exec", "commit"]
