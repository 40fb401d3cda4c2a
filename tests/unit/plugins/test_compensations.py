# SPDX-License-Identifier: GPL-3.0-or-later
"""Compensations on the controller's side: what is stored, what is run, with which variables. Fake engine, real ansible-playbook."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COMPENSATED = """
- hosts: all
  gather_facts: false
  vars:
    where: "{{ playbook_dir }}/{{ name }}"
    name: log
    tell: {shell: "echo 'late {{ word }} {{ acid_result.rc | default(9) }}' >> {{ where }}"}
  tasks:
    - command: echo one
      vars:
        acid_compensate:
          ansible.builtin.shell: "echo '{{ acid_result.stdout }} {{ acid_result.stdout_lines | length }}' >> {{ where }}"
    - command: echo {{ item }}
      loop: [a, b]
      vars:
        acid_compensate:
          - name: looks first
            ansible.builtin.command: echo {{ item }}-{{ acid_result.stdout }}
            register: looked
          - ansible.builtin.lineinfile: {path: "{{ where }}", line: "{{ looked.stdout }}", create: true, mode: "0644"}
            delegate_to: localhost
            when: acid_result.rc == 0
          - ansible.builtin.fail: {msg: never}
            when: acid_result is failed
    - command: "false"
      vars: {acid_compensate: "{{ tell }}", word: says}
"""


def stored(controller) -> list[dict]:
    return [call["request"] for call in controller.calls("compensate") if "body" in call["request"]]


def test_they_run_in_reverse_with_the_results_and_variables_of_their_steps(controller):
    run = controller.play(COMPENSATED)
    assert run.rc == 2, run.stdout + run.stderr
    said = [call["request"]["problem"] for call in controller.calls("compensated")]
    assert said == ["", "", "", ""], run.stderr
    assert (controller.folder / "log").read_text() == "late says 1\nb-b\na-a\none 1\n"
    assert [request["name"] for request in stored(controller)] == ["command"] * 4
    results = [call["request"] for call in controller.calls("compensate") if "result" in call["request"]]
    assert [request["id"] for request in results] == [request["id"] for request in stored(controller)]
    steps = list(dict.fromkeys(call["step"]["id"] for call in controller.calls("exec")))
    assert [request["step"] for request in stored(controller)] == steps


def test_a_compensation_is_stored_before_its_step_and_results_have_no_arguments(controller):
    controller.play(COMPENSATED)
    assert controller.verbs()[:4] == ["begin", "compensate", "exec", "compensate"]
    assert "invocation" not in json.dumps(controller.calls("compensate"))


def test_what_the_host_can_run_by_itself(controller):
    run = controller.play("""
- hosts: all
  gather_facts: false
  vars: {folder: /srv, undone: done, secret: !unsafe "{{ 7 * 7 }}"}
  tasks:
    - command: echo one
      vars:
        acid_compensate:
          - shell: "undo {{ acid_result.stdout | default('blind') }}"
            args: {chdir: "{{ folder }}", creates: "{{ undone }}"}
          - command: undo "two words" {{ secret }}
    - command: echo two
      vars: {acid_compensate: {command: "undo {{ acid_result.stdout }}"}}
    - command: echo three
      vars: {acid_compensate: {command: echo $HOME}}
    - command: echo four
      vars: {acid_compensate: {command: undo, delegate_to: elsewhere}}
    - command: echo five
      vars: {acid_compensate: {command: undo, no_log: true}}
    - command: echo six
      no_log: true
      vars: {acid_compensate: {command: undo}}
    - command: echo seven
      vars: {acid_compensate: {command: undo, when: acid_result.rc == 0}}
    - command: echo eight
      vars: {acid_compensate: {command: undo, become: true, become_user: nobody}}
""")
    assert run.rc == 0, run.stdout
    hosts: dict[str, list] = {}
    for call in controller.calls("compensate"):
        hosts.setdefault(call["request"]["id"], []).append(call["request"]["host"])
    (one, two, *others) = hosts.values()
    shell = {"argv": ["/bin/sh", "-c", "undo blind"], "chdir": "/srv", "creates": "done"}
    assert one[0] == [shell, {"argv": ["undo", "two words", "{{", "7", "*", "7", "}}"]}]
    assert one[1][0]["argv"][-1] == "undo one"
    assert two == [None, [{"argv": ["undo", "two"]}]]
    assert others == [[None, None]] * 6


def test_vault_values_stay_ciphertext_and_no_log_results_stay_here(controller):
    vault = str(Path(sys.executable).parent / "ansible-vault")
    (controller.folder / "password").write_text("abc")
    words = [vault, "encrypt_string", "--vault-password-file", str(controller.folder / "password"), "--name", "token", "opensesame"]
    inline = subprocess.run(words, capture_output=True, text=True, check=True).stdout.replace("\n", "\n    ")
    (controller.folder / "file.yml").write_text("whole: neverstored\n")
    subprocess.run([vault, "encrypt", *words[2:4], str(controller.folder / "file.yml")], capture_output=True, check=True)
    play = f"""
- hosts: all
  gather_facts: false
  vars_files: [file.yml]
  vars:
    {inline}
    credentials: "user:{{{{ token }}}}"
    tell: {{shell: "echo '{{{{ credentials }}}} {{{{ whole }}}} {{{{ acid_result.stdout }}}}' > {{{{ playbook_dir }}}}/log"}}
  tasks:
    - command: echo mysecret
      no_log: true
      vars: {{acid_compensate: "{{{{ tell }}}}"}}
    - command: "false"
"""
    run = controller.play(play, "--vault-password-file", str(controller.folder / "password"))
    assert [call["request"]["problem"] for call in controller.calls("compensated")] == [""], run.stdout + run.stderr
    assert (controller.folder / "log").read_text() == "user:opensesame neverstored mysecret\n"
    text = json.dumps(controller.calls("compensate"))
    for secret in ("opensesame", "neverstored", "mysecret"):
        assert secret not in text
    assert "$ANSIBLE_VAULT" in text
    assert [call["request"]["host"] for call in controller.calls("compensate")] == [None, None]


DELEGATED = """
- hosts: all
  gather_facts: false
  tasks:
    - command: echo outside
      delegate_to: localhost
      vars: {acid_compensate: {shell: "echo {{ acid_result.stdout }} >> {{ playbook_dir }}/log"}}
    - command: "false"
"""


@pytest.mark.parametrize("policy", ["warn", "deny"])
def test_a_compensated_task_elsewhere_is_not_irreversible(controller, policy):
    run = controller.play(DELEGATED.replace("localhost", "'{{ over }}'"), "-e", "over=there", hosts="h1,there,", ACID_IRREVERSIBLE=policy)
    assert "could not be undone" not in run.stdout + run.stderr
    assert "will not be undone" not in run.stdout + run.stderr


def test_a_task_elsewhere_is_compensated_with_its_own_host(controller):
    run = controller.play(DELEGATED)
    assert run.rc == 2
    assert controller.verbs() == ["begin", "compensate", "compensate", "exec", "rollback", "compensated", "rollback"], run.stdout
    assert (controller.folder / "log").read_text() == "outside\n"


def test_one_that_fails_says_why(controller):
    run = controller.play("""
- hosts: all
  gather_facts: false
  tasks:
    - command: echo one
      vars: {acid_compensate: [{command: /no/such/program}]}
    - command: echo two
      vars: {acid_compensate: [{debug: {msg: "{{ nowhere }}"}}]}
    - command: echo three
      vars: {acid_compensate: [{fail: {msg: sesame}, no_log: true}]}
    - command: "false"
""")
    three, two, one = [call["request"]["problem"] for call in controller.calls("compensated")]
    assert "no_log" in three
    assert "sesame" not in three
    assert "'nowhere' is undefined" in two
    assert one.startswith("command: Error executing command")
    assert run.rc == 2


def test_what_another_wrote_is_not_run(controller):
    """A host could hand out tasks of its own, to be run here."""
    text = controller.folder / "log"
    body = json.dumps({"tasks": [{"d": {"shell": {"t": f"touch {text}"}, "delegate_to": "localhost"}}], "values": {}, "left_out": {}})
    handed = {"id": "x", "name": "x", "body": f"{'0' * 64}:{body}", "result": None, "claim": "c", "attempts": 1}
    controller.answer(
        rollback={"out": {"tx": "tx-1", "state": "ABORTING", "compensate": handed}}, compensated={"out": {"tx": "x"}, "rc": 0}
    )
    controller.play("- hosts: all\n  gather_facts: false\n  tasks:\n    - command: 'false'\n")
    (said,) = controller.calls("compensated")
    assert "another controller" in said["request"]["problem"]
    assert not text.exists()


@pytest.mark.parametrize("wrong", ["3", "nothing", "[]", "[include_tasks: x]", "[acid.host.tx_commit: {}]", "[{command: x, shell: y}]"])
def test_a_compensation_that_cannot_be_stops_its_task(controller, wrong):
    run = controller.play(f"""
- hosts: all
  gather_facts: false
  tasks:
    - command: echo one
      vars: {{acid_compensate: {wrong}}}
""")
    assert run.rc == 2
    assert "task was not run" in run.stdout, run.stdout
    assert controller.calls("exec") == []


SAVEPOINTS = """
- hosts: all
  gather_facts: false
  tasks:
    - vars: {acid_savepoint: outer}
      block:
        - command: echo 1
        - vars: {acid_savepoint: "inner-{{ 1 + 1 }}"}
          block:
            - command: echo 2
            - command: "false"
          rescue:
            - acid.host.tx_rollback: {to: inner-2}
            - command: echo 3
        - command: echo {{ item }}
          loop: [4, 5]
          vars: {acid_savepoint: loop}
    - command: echo 6
"""


def test_a_block_sets_its_savepoint_once_before_its_first_task(controller):
    run = controller.play(SAVEPOINTS)
    assert run.rc == 0, run.stdout
    shown = [
        call["request"].get("name") or call["request"].get("to") or call["verb"]
        for call in controller.calls()
        if call["verb"] not in ("exec", "install", "begin", "commit")
    ]
    assert shown == ["outer", "inner-2", "inner-2", "loop"]
    assert controller.verbs() == ["begin", "savepoint", "exec", "savepoint", "exec", "rollback", "exec", "savepoint", "exec", "commit"]


KEYWORDS = """
- hosts: all
  gather_facts: false
  strategy: free
  vars: {log: "{{ playbook_dir }}/log", each: [1, 2], acid_savepoint: start, ansible_async_dir: "{{ playbook_dir }}/jobs"}
  handlers:
    - name: handled
      command: echo handler
      vars: {acid_compensate: {shell: "echo {{ acid_result.stdout }} >> {{ log }}"}}
  tasks:
    - command: echo notifies
      notify: handled
      become: false
      vars:
        acid_compensate:
          - shell: echo {{ item }}-{{ inner }} >> {{ log }}
            loop: "{{ each }}"
            vars: {inner: "{{ acid_result.stdout }}"}
          - shell: test -f {{ log }}.2 || { touch {{ log }}.2; false; }
            register: tried
            until: tried is succeeded
            delay: 0
          - set_fact: {fact: "{{ tried.attempts }}"}
          - command: echo {{ fact }}
            register: said
            changed_when: false
            failed_when: said.stdout != '2'
          - command: "false"
            ignore_errors: true
          - shell: echo done >> {{ log }}
            async: 10
            poll: 1
    - include_tasks: more.yml
      loop: [x, y]
      loop_control: {loop_var: outer}
    - meta: flush_handlers
    - command: sleep 3
      timeout: 1
      vars: {acid_compensate: {shell: "echo {{ acid_result is failed }}-{{ acid_result.interrupted | default('no') }} >> {{ log }}"}}
"""
MORE = """
- command: echo {{ outer }}{{ item }}
  loop: [1, 2]
  register: tries
  until: tries is failed or tries.attempts == 2
  retries: 1
  delay: 0
  failed_when: false
  vars: {acid_compensate: {shell: "echo {{ acid_result.stdout }} >> {{ log }}"}}
"""


def test_all_keywords_of_tasks(controller):
    controller.write(MORE, "more.yml")
    run = controller.play(KEYWORDS)
    assert run.rc == 2, run.stdout + run.stderr
    assert [call["request"]["problem"] for call in controller.calls("compensated")] == [""] * 7, run.stderr
    lines = (controller.folder / "log").read_text().split()
    assert lines == ["True-no", "handler", "y2", "y1", "x2", "x1", "1-notifies", "2-notifies", "done"], run.stdout


def test_tx_step_compensates_each_item(controller):
    run = controller.play(
        """
- hosts: all
  gather_facts: false
  tasks:
    - acid.host.tx_begin:
    - acid.host.tx_step:
        task: {command: "echo {{ item }}"}
        compensate:
          shell: "echo {{ item }}-{{ acid_result.stdout }} >> {{ playbook_dir }}/log"
      loop: [a, b]
      register: steps
    - acid.host.tx_step:
        task: {command: "false"}
        compensate: "{{ by }}"
      ignore_errors: true
      vars: {by: [{shell: "echo {{ acid_result.rc }} >> {{ playbook_dir }}/log"}]}
    - assert:
        that: steps.results | map(attribute='stdout') | list == ['a', 'b']
    - acid.host.tx_rollback:
""",
        callback=False,
    )
    assert run.rc == 0, run.stdout
    assert (controller.folder / "log").read_text() == "1\nb-b\na-a\n"


def test_an_undo_that_is_not_exact_fails_the_task_that_asked_for_it(controller):
    answer = {"tx": "tx-1", "state": "UNDO_FAILED", "differs": ["compensation 'x' is owed"], "steps": [], "paths": 0}
    controller.answer(rollback={"out": answer})
    text = "- hosts: all\n  gather_facts: false\n  tasks:\n    - acid.host.tx_begin:\n    - acid.host.tx_rollback:\n"
    run = controller.play(text, callback=False)
    assert run.rc == 2
    assert "compensation 'x' is owed" in run.stdout
