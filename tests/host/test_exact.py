# SPDX-License-Identifier: GPL-3.0-or-later
"""The scenario plays over ssh, judged by the oracle: the quick selection in `make test`, all of them in `make exact`.

Longer programmes, resumable and with a table: tests/scenarios/run.py.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

SCENARIOS = Path(__file__).resolve().parents[1] / "scenarios"
sys.path.insert(0, str(SCENARIOS))

from scenario import built, catalog, modes
from scenario.outcome import table
from scenario.player import BUILD, Player
from scenario.stage import Stage

LAB = "exact"
SEED = random.SystemRandom().randrange(1, 1 << 30)
ALL = catalog.load()
QUICK = [scenario for scenario in ALL if scenario.quick]
SMALL = [scenario for scenario in ALL if not scenario.big]


@pytest.fixture(scope="module")
def player() -> Iterator[Player]:
    stage = Stage(LAB)
    stage.close()
    with built.mirror(stage.open()) as url:
        yield Player(stage, url, BUILD / "scenarios" / "logs" / LAB)
    stage.close()


def check(player: Player, mode: str, scenario: catalog.Scenario, seed: int = 0) -> None:
    outcome = modes.MODES[mode](player, scenario, seed)
    assert outcome.good, table([outcome])


def names(scenarios: list[catalog.Scenario]) -> list[str]:
    return [scenario.name for scenario in scenarios]


def moments(mode: str, scenarios: list[catalog.Scenario], rounds: int) -> list[object]:
    """(scenario, seed) pairs; the seed is in the test's name, so that a failure can be run again: run.py MODE PLAY --rounds 1 --seed."""
    chosen = random.Random(f"{SEED} {mode}")
    pairs = [(scenarios[chosen.randrange(len(scenarios))], chosen.randrange(1, 1 << 30)) for dummy in range(rounds)]
    return [pytest.param(scenario, seed, id=f"{scenario.name}-seed{seed}") for scenario, seed in pairs]


@pytest.mark.parametrize("scenario", QUICK, ids=names(QUICK))
def test_a_failed_play_leaves_the_host_as_it_was(player: Player, scenario: catalog.Scenario) -> None:
    check(player, "exact", scenario)


def test_the_oracle_sees_what_a_plain_play_leaves(player: Player) -> None:
    """The control of the tests above, on one play; `make exact` does it for all."""
    check(player, "control", QUICK[0])


@pytest.mark.parametrize("mode", ["sigint", "sigterm", "agent"])
def test_once_at_a_random_moment(player: Player, mode: str) -> None:
    seed = time.time_ns() % (1 << 30)
    print(f"seed {seed}")
    check(player, mode, QUICK[0], seed)


def test_a_committed_play_is_rolled_back_later(player: Player) -> None:
    check(player, "later", QUICK[0])


@pytest.mark.exact
@pytest.mark.parametrize("scenario", [scenario for scenario in ALL if not scenario.quick], ids=lambda scenario: scenario.name)
def test_every_failed_play_leaves_its_hosts_as_they_were(player: Player, scenario: catalog.Scenario) -> None:
    check(player, "exact", scenario)


@pytest.mark.exact
@pytest.mark.parametrize("scenario", ALL, ids=names(ALL))
def test_every_play_leaves_twenty_changed_paths_without_the_collection(player: Player, scenario: catalog.Scenario) -> None:
    check(player, "control", scenario)


@pytest.mark.exact
@pytest.mark.parametrize("scenario", ALL, ids=names(ALL))
def test_every_committed_play_ends_as_without_the_collection(player: Player, scenario: catalog.Scenario) -> None:
    check(player, "commit", scenario)


@pytest.mark.exact
@pytest.mark.parametrize("scenario", ALL, ids=names(ALL))
def test_every_committed_play_can_be_rolled_back_later(player: Player, scenario: catalog.Scenario) -> None:
    check(player, "later", scenario)


@pytest.mark.exact
@pytest.mark.parametrize(("scenario", "seed"), moments("sigint", SMALL, modes.REPEATED))
def test_ctrl_c_at_random_moments(player: Player, scenario: catalog.Scenario, seed: int) -> None:
    check(player, "sigint", scenario, seed)


@pytest.mark.exact
@pytest.mark.parametrize(("scenario", "seed"), moments("sigterm", SMALL, modes.REPEATED))
def test_sigterm_at_random_moments(player: Player, scenario: catalog.Scenario, seed: int) -> None:
    check(player, "sigterm", scenario, seed)


@pytest.mark.exact
@pytest.mark.parametrize(("scenario", "seed"), moments("agent", SMALL, modes.REPEATED))
def test_the_agent_is_killed_at_random_moments(player: Player, scenario: catalog.Scenario, seed: int) -> None:
    check(player, "agent", scenario, seed)
