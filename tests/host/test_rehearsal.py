# SPDX-License-Identifier: GPL-3.0-or-later
"""Rehearsals of real plays: the host is exactly as before, what would have changed is shown, and no secret is."""

from __future__ import annotations

import json
import re

import pytest

PLAY = """
- name: Release
  hosts: h1
  gather_facts: false
  tasks:
    - name: a package
      apt: {name: acid-svc}
    - name: a setting
      copy: {content: "release = 2\\n", dest: /etc/shop.conf, mode: "0644"}
    - name: a key
      copy: {content: "secret-one\\n", dest: /etc/shop.key, mode: "0600"}
    - name: a key that is private only later
      shell: umask 022; echo secret-two > /etc/shop.hand; cp /etc/shop.hand /etc/moved.hand
    - name: and now
      file: {path: "{{ item }}", mode: "0600"}
      loop: [/etc/shop.hand, /etc/moved.hand]
    - name: moved while it could be read
      command: mv /etc/moved.hand /etc/moved.again
    - name: not to be logged
      lineinfile: {path: /etc/services, line: "secret-three 1/tcp"}
      no_log: true
    - name: the line itself is no secret
      lineinfile: {path: /etc/hosts, line: "192.0.2.7 shop"}
    - name: an odd name
      command: {argv: [touch, "/etc/odd <b>\\e[31m\\n"]}
    - name: gone
      file: {path: /etc/motd, state: absent}
    - name: linked
      command: ln /etc/hostname /etc/hostname.too
    - name: a service
      service: {name: acid-svc, state: restarted}
    - block:
        - name: tried
          copy: {content: "x\\n", dest: /etc/tried, mode: "0644"}
        - command: "false"
      rescue:
        - command: "true"
    - command: "false"
      when: failing | default(false) | bool
"""
SHOWN = ["+release = 2", "+192.0.2.7 shop", "- /etc/motd", "+ /etc/shop.key", "+ /etc/odd <b>\\x1b[31m\\n", "+ /etc/tried"]


@pytest.mark.parametrize("failing", [pytest.param("false", marks=pytest.mark.exact), "true"])
def test_the_host_is_as_before_and_the_changes_are_shown(warm_hosts, failing):
    hosts, page = warm_hosts, warm_hosts.folder / "page.html"
    before = hosts.state("h1", "before")
    run = hosts.play(PLAY, "-e", f"failing={failing}", ACID_REHEARSE="yes", ACID_REHEARSAL_PAGE=str(page))
    assert run.rc == (2 if failing == "true" else 0), run.stdout + run.stderr
    assert hosts.differences(before, hosts.state("h1", "after")) == ""
    assert re.search(r"^h1 : rehearsed  ", run.recap, re.M), run.recap
    assert ("the play failed here: a task failed" in run.recap) == (failing == "true")
    assert hosts.states("h1")[0] == "ABORTED"
    told = run.stderr.partition("REHEARSAL *")[2].partition("TRANSACTIONS")[0]
    html = page.read_text()
    for line in SHOWN:
        assert re.search(rf"^ +{re.escape(line)}", told, re.M), told
    assert "Unit acid-svc.service is active" in told
    for secret in ("secret-one", "secret-two", "secret-three"):
        assert secret not in told and secret not in html
    assert "192.0.2.7 shop" in html and "<b>\\x1b" not in html and "/etc/odd &lt;b&gt;" in html


def test_the_journal_of_a_rehearsal_and_the_stats_for_machines(warm_hosts):
    play = "- hosts: h1\n  gather_facts: false\n  vars: {acid_transaction: {rehearse: 'true'}}\n  tasks:\n    - command: touch /etc/one\n"
    run = warm_hosts.play(play, ANSIBLE_STDOUT_CALLBACK="ansible.posix.json", ANSIBLE_SHOW_CUSTOM_STATS="true")
    stats = json.loads(run.stdout)["global_custom_stats"]["acid"]
    assert stats["hosts"] == {"h1": "rehearsed"} and run.rc == 0
    assert "+ /etc/one" in run.stderr


def test_what_cannot_be_undone_does_not_happen_in_a_rehearsal_unless_allowed(warm_hosts):
    play = """
- hosts: h1
  gather_facts: false
  vars: {acid_transaction: {rehearse: true, irreversible: POLICY}}
  tasks:
    - shell: ipcmk -Q; touch /etc/after-it
"""
    queues = "ipcs -q | grep -c ^0x; ipcs -q | awk '/^0x/ {print $2}' | xargs -r -n1 ipcrm -q; ls /etc/after-it 2>/dev/null"
    run = warm_hosts.play(play.replace("POLICY", "warn"))
    assert run.rc == 2 and "could not have been committed: msgget made a System V object" in run.recap, run.recap
    assert "not undone" not in run.recap
    assert warm_hosts.ssh("h1", queues, check=False) == "0\n"
    run = warm_hosts.play(play.replace("POLICY", "allow"))
    assert run.rc == 0 and "not undone: msgget" in run.recap and "cannot be undone: msgget" in run.stderr
    assert warm_hosts.ssh("h1", queues, check=False) == "1\n"
