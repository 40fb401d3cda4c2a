# SPDX-License-Identifier: GPL-3.0-or-later
"""What the controller has noted of one host is damaged: that host does not commit, the others are settled. Fake engine, real Ansible."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.acid.host.plugins.plugin_utils import ledger as notes
from ansible_collections.acid.host.plugins.plugin_utils.batch import Batch
from ansible_collections.acid.host.plugins.plugin_utils.inner_play import OK, Outcome
from ansible_collections.acid.host.plugins.plugin_utils.ledger import BEGUN, DAMAGED, ENDED, STEP, WAITING, Ledger, OpenTransaction

OPEN = OpenTransaction("h1", "tx-1", 7, "0" * 16, "play", "play", "root", True, "local", "h1", 300, "warn")
OTHER = OpenTransaction(**{**OPEN.__dict__, "host": "h2", "tx": "tx-2"})


@pytest.fixture
def ledger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
    monkeypatch.setattr(notes, "_seen_to_begin", {})
    monkeypatch.setattr(notes, "_seen_to_end", set())
    found = Ledger(tmp_path)
    for transaction in (OPEN, OTHER):
        found.begun(transaction)
        found.append(transaction.host, STEP, id="a" * 32, task="one", by=transaction.host)
        found.append(transaction.host, STEP, id="b" * 32, task="zwei \u2028 \n", by=transaction.host)
        found.remember(transaction)
    return found


def test_what_is_written_is_read(ledger: Ledger) -> None:
    assert ledger.open_transaction("h1") == OPEN
    assert ledger.steps("h1") == ["a" * 32, "b" * 32]
    assert ledger.damage("h1") == ledger.damage("h2") == ""
    assert ledger.open_transaction("nobody") is None
    assert ledger.damage("nobody") == ""


def test_cut_off_at_every_byte(ledger: Ledger, tmp_path: Path) -> None:
    whole = (tmp_path / "h1").read_bytes()
    ends = {at for at in range(len(whole) + 1) if whole[:at].endswith(b"\n")}
    for at in range(len(whole)):
        (tmp_path / "h1").write_bytes(whole[:at])
        assert ledger.open_transaction("h1") == OPEN, at  # the main process has seen it begin
        # a line that is there but for its end is as it was written; whole lines that are missing are steps that are not asked about
        assert (ledger.damage("h1") == "") == (at in ends | {end - 1 for end in ends}), at
        assert ledger.damage("h2") == "", at


def test_one_byte_changed_at_every_place(ledger: Ledger, tmp_path: Path) -> None:
    whole = (tmp_path / "h1").read_bytes()
    for at in range(len(whole) - 1):
        for wrong in (whole[at] ^ 1, 0, 10, 255):
            if wrong != whole[at]:
                (tmp_path / "h1").write_bytes(whole[:at] + bytes((wrong,)) + whole[at + 1 :])
                assert ledger.open_transaction("h1") == OPEN, at
                assert "damaged" in ledger.damage("h1"), (at, wrong)


@pytest.mark.parametrize("file", ["gone", "a directory"])
def test_a_file_that_is_not_there_or_cannot_be_read(ledger: Ledger, tmp_path: Path, file: str) -> None:
    (tmp_path / "h1").unlink()
    if file == "a directory":
        (tmp_path / "h1").mkdir()
    assert ledger.open_transaction("h1") == OPEN
    assert ledger.damage("h1") != ""
    ledger.forget("h1", ended=OPEN.tx)
    assert ledger.open_transaction("h1") is None


def test_a_torn_line_spoils_none_that_comes_after_it(ledger: Ledger, tmp_path: Path) -> None:
    with (tmp_path / "h1").open("ab") as file:
        file.write(b'0123abcd {"kind": "st')
    ledger.append("h1", ENDED, tx=OPEN.tx)
    assert ledger.open_transaction("h1") is None
    assert [event.kind for event in ledger.events("h1")] == [BEGUN, STEP, STEP, DAMAGED, ENDED]


def test_damage_before_the_newest_begin_is_over(ledger: Ledger, tmp_path: Path) -> None:
    with (tmp_path / "h1").open("ab") as file:
        file.write(b"rubbish\n")
    again = OpenTransaction(**{**OPEN.__dict__, "tx": "tx-3"})
    ledger.begun(again)
    ledger.remember(again)
    assert ledger.open_transaction("h1") == again
    assert ledger.damage("h1") == ""


def test_a_host_that_may_have_begun_late_waits_no_more(ledger: Ledger, tmp_path: Path) -> None:
    ledger.append("h3", WAITING, msg="no Python", options={})
    assert ledger.waiting("h3") == {}
    with (tmp_path / "h3").open("ab") as file:
        file.write(b'0123abcd {"kind": "beg')
    assert ledger.waiting("h3") is None
    assert ledger.damage("h3") != ""


def test_a_full_disk_is_an_error_and_not_half_a_line(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:20]))
    with pytest.raises(OSError, match="No space left"):
        ledger.append("h1", STEP, id="c" * 32, task="three", by="h1")
    monkeypatch.undo()
    assert ledger.damage("h1") != ""


# -- whole plays ---------------------------------------------------------------------------------------------------------

# `spoil` runs on the controller between two tasks, with the ledger's folder in $L.
PLAY = """
- hosts: all
  gather_facts: false
  tasks:
    - command: touch {folder}/one-{{{{ inventory_hostname }}}}
    - shell: |
        L=$(echo {tmp}/ansible-local-*/acid-ledger)
        {spoil}
      delegate_to: localhost
      when: inventory_hostname == 'h2'
      vars: {{acid_capture: none}}
    - command: touch {folder}/two-{{{{ inventory_hostname }}}}
"""

SPOILED = {
    "a torn line": 'printf \'0123abcd {"kind": "st\' >> $L/h1',
    "rubbish": "head -c 300 /dev/urandom > $L/h1",
    "cut off": "truncate -s 40 $L/h1",
    "gone": "rm $L/h1",
    "a directory": "rm $L/h1; mkdir $L/h1",
}


def play_and_spoil(controller: Any, spoil: str, **more: str) -> Any:
    tmp = controller.folder / "local"
    source = PLAY.format(folder=controller.folder, tmp=tmp, spoil=spoil)
    return controller.play(source, hosts="h1,h2,h3", ANSIBLE_LOCAL_TEMP=str(tmp), ANSIBLE_FORKS="1", **more)


def ends(controller: Any) -> list[str]:
    """In the order in which the hosts began: h1, h2, h3."""
    ended = [call for call in controller.calls() if call["verb"] in ("commit", "rollback")]
    return [call["verb"] for call in sorted(ended, key=lambda call: int(call["request"]["tx"].removeprefix("tx-")))]


@pytest.mark.parametrize("what", SPOILED)
def test_one_hosts_damaged_notes_are_no_other_hosts_trouble(controller: Any, what: str) -> None:
    run = play_and_spoil(controller, SPOILED[what])
    assert run.rc == 2, run.stdout + run.stderr
    assert ends(controller) == ["rollback", "commit", "commit"]
    assert re.search(r"^h1 : rolled back ", run.recap, re.M), run.recap
    assert "because: the controller's notes on this host are damaged" in run.recap or "because: a task failed" in run.recap
    for host in ("h2", "h3"):
        assert re.search(rf"^{host} : committed ", run.recap, re.M), run.recap


def test_an_answer_that_makes_no_sense_is_one_hosts_trouble(controller: Any) -> None:
    odd = {"tx": "tx-1", "state": "COMMITTED", "paths": "many", "steps": []}
    controller.answer(commit={"out": odd})
    run = controller.play("- hosts: all\n  gather_facts: false\n  tasks:\n    - command: 'true'\n", hosts="h1,h2")
    assert run.rc == 2
    for host in ("h1", "h2"):
        assert re.search(rf"^{host} : left to the host: the host says that it is committed, and the rest", run.recap, re.M), run.recap


def test_notes_of_no_host_can_be_read_any_more(controller: Any) -> None:
    run = play_and_spoil(controller, "rm -r $L; touch $L")
    assert run.rc == 2, run.stdout + run.stderr
    for host in ("h1", "h2", "h3"):
        assert re.search(rf"^{host} : rolled back ", run.recap, re.M), run.recap
    assert ends(controller) == ["rollback"] * 3


def test_a_controller_that_can_take_no_notes_begins_nothing(controller: Any) -> None:
    """What has begun on the host is rolled back at once, and no task runs there."""
    tmp = controller.folder / "local"
    source = f"""
- hosts: h1
  gather_facts: false
  vars: {{acid_transaction: false}}
  tasks:
    - shell: for run in {tmp}/ansible-local-*; do touch $run/acid-ledger; done
- hosts: h1
  gather_facts: false
  tasks:
    - command: touch {controller.folder}/later
"""
    run = controller.play(source, ANSIBLE_LOCAL_TEMP=str(tmp))
    assert run.rc == 2, run.stdout + run.stderr
    assert re.search(r"^h1 : not begun: the controller cannot take notes", run.recap, re.M), run.recap
    assert controller.verbs() == ["begin", "rollback"]
    assert not (controller.folder / "later").exists()


def test_what_one_host_raises_in_the_main_process_is_its_own_outcome() -> None:
    class Sick(Batch):
        def __init__(self) -> None:
            self.asked: list[list[str]] = []

        def _on_hosts(self, hosts: list[str], action: str, arguments: dict[str, Any]) -> dict[str, Outcome]:
            self.asked.append(hosts)
            if "h2" in hosts:
                raise ValueError("its variables make no sense")
            return {host: Outcome(OK, "", "", {"tx": host}) for host in hosts}

    sick = Sick()
    found = sick._ask(["h1", "h2", "h3"], "tx_commit", {})
    assert [(host, outcome.status, outcome.message) for host, outcome in found.items()] == [
        ("h1", "ok", ""),
        ("h2", "failed", "its variables make no sense"),
        ("h3", "ok", ""),
    ]
    assert sick._ask([], "tx_commit", {}) == {}
