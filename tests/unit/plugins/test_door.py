# SPDX-License-Identifier: GPL-3.0-or-later
"""How the controller asks for a rollback where the host command cannot run. The agent is played by files."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.acid.host.plugins.plugin_utils import door
from ansible_collections.acid.host.plugins.plugin_utils.hostcommand import HostError, Output
from ansible_collections.acid.host.plugins.plugin_utils.ledger import OpenTransaction

SUMMARY = {"tx": "tx-1", "state": "ABORTED", "steps": [], "paths": 3, "told": ["a note of the undo's"]}
BROKEN = HostError("no-answer", "'acidctl rollback' ended with exit code 1 and no answer.")


class Shell:
    """Stands for HostCommand: no PATH. `agent` is called before each command that is not the first."""

    def __init__(self, agent: Any = lambda: None) -> None:
        self.agent, self.commands = agent, 0

    def as_login(self, command: str) -> Output:
        if self.commands:
            self.agent()
        self.commands += 1
        done = subprocess.run(["/bin/sh", "-c", command], env={"PATH": "/nowhere"}, capture_output=True, text=True, check=False)
        return Output(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OpenTransaction:
    monkeypatch.setattr(door, "TAKEN_WITHIN", 0.5)
    monkeypatch.setattr(door, "PAUSES", (0.01,))
    file = tmp_path / "it's a door"
    file.touch()
    common = ("h1", "tx-1", 7, "0" * 16, "", "play", "root", True, "ssh", "h1", 300, "warn")
    return OpenTransaction(*common, door=str(file), door_secret="ab" * 16)


def test_asked_taken_and_told(transaction: OpenTransaction) -> None:
    answers = iter([{"tx": "tx-1", "state": "ABORTING"}, {"tx": "tx-1", "state": "ABORTING"}, SUMMARY])

    def agent() -> None:
        Path(f"{transaction.door}.told").write_text(json.dumps(next(answers)) + "\n")

    found = door.roll_back(Shell(agent), transaction, BROKEN)  # type: ignore[arg-type]
    assert Path(transaction.door).read_text() == f"acid rollback tx-1 7 {'ab' * 16} end\n"
    assert found == {**SUMMARY, "told": [*SUMMARY["told"], found["told"][-1]]}
    assert "its agent was asked by a file ('acidctl rollback' ended with exit code 1" in found["told"][-1]


@pytest.mark.parametrize("what", ["nobody answers", "no door"])
def test_what_went_wrong_first_is_told_when_the_door_does_not_help(transaction: OpenTransaction, what: str) -> None:
    if what == "no door":
        Path(transaction.door).unlink()
    with pytest.raises(HostError) as raised:
        door.roll_back(Shell(), transaction, BROKEN)  # type: ignore[arg-type]
    assert raised.value is BROKEN
    assert Path(transaction.door).exists() == (what == "nobody answers"), "a file was made"


def test_the_agents_refusal_is_its_own(transaction: OpenTransaction) -> None:
    refusal = {"error": {"class": "stale-token", "msg": "Token 7 is not the one.", "hint": ""}}
    told = Path(f"{transaction.door}.told")
    with pytest.raises(HostError, match="Token 7") as raised:
        door.roll_back(Shell(lambda: told.write_text(json.dumps(refusal) + "\n")), transaction, BROKEN)  # type: ignore[arg-type]
    assert raised.value.kind == "stale-token"


def test_only_what_could_not_run_is_asked_by_a_file(transaction: OpenTransaction) -> None:
    for kind, helps in (("no-answer", True), ("not-installed", True), ("not-root", True), ("undo-failed", False), ("stale-token", False)):
        assert door.may_help(HostError(kind, ""), transaction) == helps, kind
    assert not door.may_help(BROKEN, OpenTransaction(**{**transaction.__dict__, "door": ""}))


def test_a_whole_play(controller: Any) -> None:
    """The fake host command begins, and can do nothing more."""
    file = controller.folder / "door"
    file.touch()
    Path(f"{file}.told").write_text(json.dumps(SUMMARY) + "\n")
    begun = {"tx": "tx-1", "token": 7, "state": "ACTIVE", "door": {"file": str(file), "secret": "cd" * 16}}
    controller.answer(begin={"out": begun}, rollback={"out": "rubbish", "rc": 1})
    run = controller.play("- hosts: all\n  gather_facts: false\n  tasks:\n    - command: 'false'\n")
    assert run.rc == 2
    assert re.search(r"^h1 : rolled back .*undone=3", run.recap, re.M), run.recap
    assert "its agent was asked by a file" in run.recap
    assert file.read_text() == f"acid rollback tx-1 7 {'cd' * 16} end\n"
    assert "cd" * 16 not in run.stdout + run.stderr
