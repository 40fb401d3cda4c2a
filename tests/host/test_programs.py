# SPDX-License-Identifier: GPL-3.0-or-later
"""Real programs, each in a step of its own on a host of the big image: exact after rollback, or refused before the change and told why."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"
sys.path.insert(0, str(SCENARIOS))

from scenario import compared
from scenario.catalog import Scenario
from scenario.player import BUILD, Player, Run
from scenario.stage import PROGRAMS, Host, Stage, World

FOLDER = SCENARIOS / "programs"
NAMES = sorted(path.stem for path in FOLDER.glob("*.sh") if path.stem != "prepare")
# What may be refused: a program that brings a system call interface or a file server of its own. Everything else has to work.
REFUSABLE = frozenset(("i386", "int80", "fuse"))
REFUSAL = re.compile(r"acid: [a-z-]+: .+")


@dataclass(frozen=True)
class Programs(Scenario):
    @property
    def world(self) -> World:
        return PROGRAMS


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    stage = Stage("programs")
    stage.close()
    stage.open(PROGRAMS)
    yield Player(stage, "", BUILD / "scenarios" / "logs" / "programs")
    stage.close()


def play(folder: Path, names: list[str]) -> Programs:
    """A play with one task for each program and a last one that fails; a program that fails does not stop the play."""
    tasks = "".join(
        f"""
    - name: {name}
      ansible.builtin.script:
        cmd: {FOLDER / name}.sh
        executable: bash
      ignore_errors: true
"""
        for name in names
    )
    path = folder / f"{'-'.join(names)[:40]}.yml"
    path.write_text(
        f"- hosts: all\n  gather_facts: false\n  tasks:\n{tasks}\n    - ansible.builtin.fail:\n        msg: the end\n", encoding="utf-8"
    )
    return Programs(name=path.stem, path=path)


def failed(run: Run, names: list[str]) -> dict[str, str]:
    """Program -> what its task said, for those that failed."""
    parts = re.split(r"^TASK \[(.*?)\] \**$", run.text, flags=re.MULTILINE)
    return {name: text for name, text in zip(parts[1::2], parts[2::2]) if name in names and "...ignoring" in text}


def judge(run: Run, before: compared.States, hosts: list[Host], names: list[str]) -> None:
    differing = compared.lines(compared.differences(before, compared.take(hosts)))
    assert not differing, "\n".join(differing)
    assert run.code == 2, run.tail(60)
    wrong = {name: text for name, text in failed(run, names).items() if name not in REFUSABLE or not REFUSAL.search(text)}
    assert not wrong, "\n".join(f"{name}: {text}" for name, text in wrong.items())


def test_all_programs_in_one_play(player: Player, tmp_path: Path) -> None:
    scenario = play(tmp_path, NAMES)
    hosts = player.warm_hosts(scenario)
    before = compared.take(hosts)
    judge(player.play(scenario, hosts, transaction=True, label="all"), before, hosts, NAMES)


@pytest.mark.exact
@pytest.mark.parametrize("name", NAMES)
def test_each_program_in_a_play_of_its_own(player: Player, tmp_path: Path, name: str) -> None:
    scenario = play(tmp_path, [name])
    hosts = player.warm_hosts(scenario)
    before = compared.take(hosts)
    judge(player.play(scenario, hosts, transaction=True, label="each"), before, hosts, [name])


@pytest.mark.exact
@pytest.mark.parametrize("name", NAMES)
def test_each_program_does_its_work_without_the_collection(player: Player, tmp_path: Path, name: str) -> None:
    """The control: it succeeds, and it leaves changes behind."""
    scenario = play(tmp_path, [name])
    hosts = player.plain_hosts(scenario)
    before = compared.take(hosts)
    run = player.play(scenario, hosts, transaction=False, label="control")
    assert not failed(run, [name]), run.tail(40)
    found = compared.differences(before, compared.take(hosts))[hosts[0].name]
    assert sum(difference.key.kind == "path" for difference in found) >= 2
