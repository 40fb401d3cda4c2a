# SPDX-License-Identifier: GPL-3.0-or-later
"""Which hosts commit and which roll back, and that Ansible's output and exit codes stay as they are.

Fake engine, real ansible-playbook.
"""

from __future__ import annotations

import json
import re

import pytest

TASKS = """
- hosts: all
  gather_facts: false
{play}
  tasks:
    - command: "true"
      changed_when: false
{tasks}
"""


def play(tasks: str, keywords: str = "") -> str:
    def indented(text: str, width: int) -> str:
        return "\n".join(" " * width + line for line in text.strip("\n").splitlines())

    return TASKS.format(play=indented(keywords, 2), tasks=indented(tasks, 4))


FAILS_ON_H1 = """
- command: "false"
  when: inventory_hostname == 'h1'
"""

# tasks, play keywords, outcome of h1 and h2, exit code
CASES = {
    "nothing fails": ("", "", ("committed", "committed"), 0),
    "a task fails on one host": (FAILS_ON_H1, "", ("rolled_back", "committed"), 2),
    "an ignored failure": (FAILS_ON_H1 + "  ignore_errors: true", "", ("committed", "committed"), 0),
    "a rescued failure": (
        """
- block:
    - command: "false"
  rescue:
    - command: "true"
""",
        "",
        ("committed", "committed"),
        0,
    ),
    "clear_host_errors does not hide a failure": (
        FAILS_ON_H1 + "- meta: clear_host_errors\n- command: 'true'",
        "",
        ("rolled_back", "committed"),
        0,
    ),
    "end_host": ("- meta: end_host\n  when: inventory_hostname == 'h1'\n- command: 'true'", "", ("committed", "committed"), 0),
    "end_play": ("- meta: end_play\n- command: 'false'", "", ("committed", "committed"), 0),
    "any_errors_fatal": (FAILS_ON_H1 + "- command: 'true'", "any_errors_fatal: true", ("rolled_back", "rolled_back"), 2),
    "max_fail_percentage tolerates": (FAILS_ON_H1 + "- command: 'true'", "max_fail_percentage: 60", ("rolled_back", "committed"), 2),
    "serial, the first batch fails": (FAILS_ON_H1, "serial: 1", ("rolled_back", None), 2),
    "free strategy": (FAILS_ON_H1, "strategy: free", ("rolled_back", "committed"), 2),
    "a handler fails": (
        "- command: 'true'\n  notify: broken\n  when: inventory_hostname == 'h1'",
        "handlers:\n  - name: broken\n    command: 'false'",
        ("rolled_back", "committed"),
        2,
    ),
}


# Also run without the callback: the same words on stdout, the same exit code.
COMPARED = ("a task fails on one host", "clear_host_errors does not hide a failure", "end_play", "any_errors_fatal", "a handler fails")


@pytest.mark.parametrize("name", CASES)
def test_the_verdict_and_the_exit_code_are_the_plays_own(controller, name):
    tasks, keywords, (h1, h2), rc = CASES[name]
    source = play(tasks, keywords)
    run = controller.play(source, hosts="h1,h2", ANSIBLE_FORKS="1")
    assert run.rc == rc, run.stdout + run.stderr
    if name in COMPARED:
        plain = controller.play(source, hosts="h1,h2", callback=False, ANSIBLE_FORKS="1")
        assert plain.rc == rc, plain.stdout
        assert timeless(run.stdout) == timeless(plain.stdout)
    for host, outcome in (("h1", h1), ("h2", h2)):
        words = {"committed": "committed", "rolled_back": "rolled back"}
        if outcome is None:
            assert f"{host} :" not in run.recap
        else:
            assert re.search(rf"^{host} : {words[outcome]} ", run.recap, re.M), run.recap
    ends = {"committed": "commit", "rolled_back": "rollback"}
    assert sorted(call["verb"] for call in controller.calls() if call["verb"] in ends.values()) == sorted(ends[o] for o in (h1, h2) if o)


def timeless(stdout: str) -> str:
    return re.sub(r"\d+:\d\d:\d\d\.\d+", "", stdout)


def test_a_failure_that_ansible_was_told_to_forget_is_still_the_reason(controller):
    run = controller.play(play(FAILS_ON_H1 + "- meta: clear_host_errors\n- command: 'true'"), hosts="h1,h2")
    assert run.rc == 0
    assert "because: a task failed; what let h1 go on, such as 'meta: clear_host_errors', does not let its transaction commit" in run.recap


def test_an_unreachable_host_is_rolled_back_by_its_lease_and_named(controller):
    source = play("""
- command: "true"
  vars: {ansible_connection: ssh, ansible_host: 127.0.0.9, ansible_port: 1}
  when: inventory_hostname == 'h1'
""")
    # the same host becomes unreachable only from the second task on; its transaction is reached by the local connection again
    run = controller.play(source, hosts="h1,h2")
    assert run.rc == 4
    assert re.search(r"^h1 : rolled back .*\n +because: the host became unreachable", run.recap, re.M), run.recap
    assert re.search(r"^h2 : committed", run.recap, re.M)


def test_a_host_that_cannot_be_reached_at_the_end_is_left_to_itself(controller):
    controller.play(play(""))  # a warm engine
    controller.forget()
    controller.answer(rollback={"rc": 255, "out": "connection lost"})
    run = controller.play(play("- command: 'false'"))
    assert run.rc == 2
    assert "h1 : left to the host: " in run.recap
    assert "rolls itself back by the end of its lease" in run.recap
    assert "transaction: tx-" in run.recap


def test_a_refused_commit_rolls_back_and_fails_the_host(controller):
    controller.play(play(""))
    controller.forget()
    controller.answer(commit={"rc": 21, "out": {"error": {"class": "doomed", "msg": "The agent died.", "hint": ""}}})
    run = controller.play(play(""))
    assert run.rc == 2
    assert controller.verbs() == ["begin", "exec", "commit", "rollback"]
    assert "failed=1" in run.stdout
    assert re.search(r"^h1 : rolled back .*\n +because: commit failed: The agent died\.", run.recap, re.M), run.recap


def test_a_failed_begin_fails_the_host_before_its_first_task(controller):
    controller.play(play(""))
    controller.forget()
    controller.answer(begin={"rc": 16, "out": {"error": {"class": "busy", "msg": "ops@box holds it since 10:42.", "hint": "Wait for it."}}})
    run = controller.play(play("- command: 'true'"), hosts="h1,h2")
    assert run.rc == 2
    assert controller.verbs() == ["begin", "begin"]
    assert "TASK [" not in run.stdout.replace("NO MORE HOSTS LEFT", "")
    assert "h1 : not begun: ops@box holds it since 10:42. Wait for it." in run.recap
    assert "[ERROR]: h1: no transaction, so no task is run there: ops@box holds it" in run.stderr


def test_the_outcome_is_in_the_custom_stats(controller):
    run = controller.play(
        play(FAILS_ON_H1), hosts="h1,h2", ANSIBLE_SHOW_CUSTOM_STATS="true", ANSIBLE_STDOUT_CALLBACK="ansible.builtin.default"
    )
    stats = json.loads(re.search(r"RUN: (\{.*\})", run.stdout, re.S).group(1))["acid"]
    assert stats["hosts"] == {"h1": "rolled_back", "h2": "committed"}
    by_host = {report["host"]: report for report in stats["transactions"]}
    assert by_host["h1"]["reason"] == "a task failed"
    assert by_host["h2"]["steps"] == 1


def test_commit_lists_the_steps_that_were_sent_once_each(controller):
    controller.play(play("- command: 'true'\n  loop: [1, 2, 3]\n- debug: msg=x\n- command: 'true'\n  when: false"))
    (commit,) = controller.calls("commit")
    sent = [call["step"]["id"] for call in controller.calls("exec")]
    assert len(sent) == 4
    assert commit["request"]["steps"] == list(dict.fromkeys(sent))
    assert len(commit["request"]["steps"]) == 2


def test_two_plays_are_two_transactions_and_a_failed_host_has_no_second(controller):
    run = controller.play(play(FAILS_ON_H1) + play("- command: 'true'"), hosts="h1,h2")
    assert run.rc == 2
    assert len(controller.calls("begin")) == 3
    assert run.recap.count("h1 :") == 1
    assert run.recap.count("h2 :") == 2


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("{scope: play}", "comes with the coordinator"),
        ("{irreversibel: deny}", "did you mean 'irreversible'?"),
        ("{confirm_timeout: soon}", "give a whole number"),
        ("perhaps", "give true, false, or a mapping"),
    ],
)
def test_a_bad_option_stops_everything_before_the_first_task(controller, setting, sentence):
    run = controller.play(play("- command: 'true'", f"vars:\n  acid_transaction: {setting}"))
    assert run.rc not in (0, 2, 4)
    assert sentence in run.stderr
    assert "No task was run: " in run.stderr
    assert controller.calls() == []
    assert "TASK [" not in run.stdout


def test_options_come_from_the_play_the_environment_and_ansible_cfg(controller):
    (controller.folder / "ansible.cfg").write_text("[acid]\nconfirm_timeout = 77\nexclude = /srv/a,/srv/b\n")
    config = str(controller.folder / "ansible.cfg")
    options = json.dumps({"acid_transaction": json.dumps({"irreversible": "allow", "name": "release"})})
    controller.play(play(""), "-e", options, ANSIBLE_CONFIG=config, ACID_ON_DRIFT="force")
    (begin,) = controller.calls("begin")
    assert begin["request"]["options"]["confirm_timeout"] == 77
    assert begin["request"]["options"]["irreversible"] == "allow"
    assert begin["request"]["options"]["on_drift"] == "force"
    assert begin["request"]["name"] == "release"
    assert begin["request"]["exclude"][:2] == ["/srv/a", "/srv/b"]


OWN_PROBES = """
vars:
  acid_transaction:
    probes:
      - all
      - {name: etc, trees: [/opt/app/conf]}
      - {name: app, capture: [appctl, export], restore: appctl import}
"""


def test_probes_of_ones_own_reach_every_host(controller):
    run = controller.play(play("", OWN_PROBES), hosts="h1,h2")
    assert run.rc == 0, run.stderr
    wanted = [
        "all",
        {"name": "etc", "trees": ["/opt/app/conf"]},
        {"name": "app", "capture": ["appctl", "export"], "restore": "appctl import"},
    ]
    assert [begin["request"]["options"]["probes"] for begin in controller.calls("begin")] == [wanted, wanted]


def test_an_empty_list_is_not_the_default(controller):
    run = controller.play(play("", "vars:\n  acid_transaction: {probes: [], retention: []}"))
    assert run.rc == 0, run.stderr
    (begin,) = controller.calls("begin")
    assert (begin["request"]["options"]["probes"], begin["request"]["options"]["retention"]) == ([], {})


def test_a_shared_remote_tmp_is_not_left_out(controller):
    controller.play(play(""), ANSIBLE_REMOTE_TEMP="/tmp")
    assert [begin["request"]["exclude"] for begin in controller.calls("begin")] == [[]]


def test_an_unknown_key_in_ansible_cfg_is_an_error(controller):
    (controller.folder / "ansible.cfg").write_text("[acid]\ntimeout = 77\n")
    run = controller.play(play(""), ANSIBLE_CONFIG=str(controller.folder / "ansible.cfg"))
    assert run.rc != 0
    assert "[acid] timeout is unknown" in run.stderr


@pytest.mark.parametrize("off", ["false", "'no'", "'off'"])
def test_a_play_can_be_left_out(controller, off):
    run = controller.play(play("- command: 'true'", f"vars:\n  acid_transaction: {off}"))
    assert run.rc == 0
    assert controller.calls() == []
    assert run.recap == ""


def test_a_single_host_can_be_left_out_by_its_own_variable(controller):
    source = play("- command: 'true'", "vars:\n  acid_transaction: \"{{ inventory_hostname != 'h2' }}\"")
    run = controller.play(source, hosts="h1,h2")
    assert run.rc == 0
    assert len(controller.calls("begin")) == 1
    assert "h1 : committed" in run.recap
    assert "h2" not in run.recap


def test_check_mode_begins_nothing_and_says_what_runs_for_real(controller):
    run = controller.play(play("- name: really\n  command: 'true'\n  check_mode: false"), "--check")
    assert run.rc == 0
    assert controller.calls() == []
    assert "'really' has 'check_mode: false'" in run.stderr


def test_tags_step_and_start_at_task_do_not_reach_our_own_tasks(controller):
    source = play("- name: later\n  command: 'true'\n  tags: [late]")
    for arguments in (("--tags", "late"), ("--skip-tags", "always"), ("--start-at-task", "later")):
        controller.forget()
        run = controller.play(source, *arguments)
        assert run.rc == 0, run.stderr
        assert controller.verbs() == ["begin", "exec", "commit"], arguments


def test_facts_of_a_rolled_back_host_are_forgotten(controller):
    source = """
- hosts: all
  gather_facts: false
  tasks:
    - set_fact: {colour: green, cacheable: true}
    - command: "false"
      when: inventory_hostname == 'h1'
- hosts: localhost
  gather_facts: false
  vars: {acid_transaction: false}
  tasks:
    - debug: msg="h1 {{ hostvars.h1.ansible_facts.colour | default('none') }} h2 {{ hostvars.h2.ansible_facts.colour | default('none') }}"
"""
    run = controller.play(source, hosts="h1,h2")
    assert "h1 none h2 green" in run.stdout
