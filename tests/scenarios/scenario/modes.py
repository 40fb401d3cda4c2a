# SPDX-License-Identifier: GPL-3.0-or-later
"""The ways in which each play is run, and what must hold in each. The figures are those of the README's table."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable

from . import compared
from .catalog import Scenario
from .compared import Difference
from .engineview import agent_pids, end_retention, memory_of_the_agent, open_transaction, rollback, step_pids, transactions
from .outcome import Outcome
from .player import Interruption, Player, Run
from .stage import Host

MEMORY = 200  # MB that an agent may take, also for 100,000 files
UNDO_FAILED = 25  # acidctl: the host is not as before, and it says where
Mode = Callable[[Player, Scenario, int], Outcome]


def _failed_as_meant(run: Run, scenario: Scenario) -> list[str]:
    """rc 2, and by the task that is there to fail: a play that breaks earlier has shown little."""
    problems = [] if run.code == 2 else [f"ansible-playbook ended with {run.code}, not 2: {run.log}\n{run.tail()}"]
    if not scenario.failed_in_its_task(run.text):
        problems.append(f"the play did not fail in the task that is there for it ({scenario.failing_task}): {run.log}\n{run.tail()}")
    return problems


def control(player: Player, scenario: Scenario, seed: int) -> Outcome:
    """Without the collection the failed play leaves its changes behind."""
    hosts = player.plain_hosts(scenario)
    before = compared.take(hosts)
    run = player.play(scenario, hosts, transaction=False, label="control")
    found = compared.differences(before, compared.take(hosts))
    paths = {name: sum(difference.key.kind == "path" for difference in several) for name, several in found.items()}
    # serial stops after the first batch: the hosts after it are not touched.
    most = max(paths.values())
    problems = _failed_as_meant(run, scenario)
    if most < scenario.enough:
        problems.append(f"only {most} changed paths: the play does too little")
    return Outcome("control", scenario.name, tuple(problems), {"paths": most, "seconds": round(run.seconds, 1)})


def exact(player: Player, scenario: Scenario, seed: int) -> Outcome:
    """The failed play leaves each host as it was."""
    hosts = player.warm_hosts(scenario)
    before = compared.take(hosts)
    with memory_of_the_agent(hosts) as memory:
        run = player.play(scenario, hosts, transaction=True, label="exact")
    after = compared.take(hosts)
    problems = [*_failed_as_meant(run, scenario), *compared.lines(compared.differences(before, after)), *_nothing_open(hosts)]
    if memory.most > MEMORY:
        problems.append(f"the agent took {memory.most:.0f} MB, more than {MEMORY}")
    return Outcome("exact", scenario.name, tuple(problems), {"seconds": round(run.seconds, 1), "agent MB": round(memory.most)})


def commit(player: Player, scenario: Scenario, seed: int) -> Outcome:
    """Without the failure the play ends as without the collection. Where it does not, a second plain run tells what is chance in the
    play itself: random keys, process ids in files."""
    problems: list[str] = []
    seconds: dict[str, float] = {}

    def end(label: str, *, transaction: bool) -> compared.States:
        hosts = player.warm_hosts(scenario)
        run = player.play(scenario, hosts, transaction=transaction, fail=False, label=label)
        if run.code:
            problems.append(f"{label}: ansible-playbook ended with {run.code}: {run.log}\n{run.tail()}")
        seconds[label] = round(run.seconds, 1)
        time.sleep(scenario.settle)
        for host in hosts:
            ended = end_retention(host)
            if ended.code:
                problems.append(f"{label}: acidctl gc on {host.name}: rc {ended.code}: {ended.text}")
        return compared.stable(compared.take(hosts))

    plain, committed = end("plain", transaction=False), end("commit", transaction=True)
    found = compared.differences(plain, committed, ignore=compared.TIMES)
    if any(found.values()):
        known = compared.chance(plain, end("again", transaction=False))
        found = {name: [difference for difference in several if not known(name, difference)] for name, several in found.items()}
    return Outcome("commit", scenario.name, (*problems, *compared.lines(found)), seconds)


def later(player: Player, scenario: Scenario, seed: int) -> Outcome:
    """A committed play is rolled back on the host, newest first; a second time does nothing."""
    hosts = player.warm_hosts(scenario)
    before = compared.take(hosts)
    # The disk is a snapshot of the one on which the warm play ran: what that transaction knows are files of another subvolume.
    warm = {host.name: set(transactions(host)) for host in hosts}
    run = player.play(scenario, hosts, transaction=True, fail=False, label="later")
    problems = [] if run.code == 0 else [f"ansible-playbook ended with {run.code}: {run.log}\n{run.tail()}"]
    seconds = 0.0
    for host in hosts:
        for found in [found for found in reversed(transactions(host)) if found not in warm[host.name]]:
            first = rollback(host, found)
            second = rollback(host, found)
            seconds += first.seconds
            problems += [
                f"{host.name}: acidctl rollback {found} {which}: rc {done.code}: {done.text}"
                for which, done in (("", first), ("again", second))
                if done.code and not (done.code == UNDO_FAILED and host is hosts[0] and _differs_beyond(done.text, scenario))
            ]
    differing, _quiet = compared.until_quiet(hosts, before, seconds=3)
    problems += compared.lines(_within(differing, scenario, hosts[0]))
    if scenario.beyond and not any("could not have been undone:" in line and "(delegate_to)" in line for line in run.text.splitlines()):
        problems.append(f"the recap does not say what was done on a host whose transaction was over: {run.log}")
    return Outcome("later", scenario.name, tuple(problems), {"rollback": round(seconds, 2)})


def _differs_beyond(told: str, scenario: Scenario) -> bool:
    """Whether the rollback says of these paths, and of no other, that somebody else has changed them and that they are left."""
    differs = json.loads(told)["differs"]
    return bool(differs) and all(sentence.partition(": drift: ")[0] in scenario.beyond for sentence in differs)


def _within(found: dict[str, list[Difference]], scenario: Scenario, first: Host) -> dict[str, list[Difference]]:
    """Without what the play did at its first host beyond the transaction, as catalog.yml names it."""
    folders = {os.path.dirname(path) for path in scenario.beyond}

    def beyond(one: Difference) -> bool:
        return one.key.kind == "path" and (one.key.name in scenario.beyond or (one.key.name in folders and set(one.fields) == {"mtime"}))

    return {name: [one for one in several if name != first.name or not beyond(one)] for name, several in found.items()}


def interrupted(number: signal.Signals) -> Mode:
    def mode(player: Player, scenario: Scenario, seed: int) -> Outcome:
        """A signal to ansible-playbook at a random moment: every host as before."""
        usual = player.usual_seconds(scenario)
        after = random.Random(seed).uniform(0.3, usual)
        interruption = Interruption(number, after, group=number == signal.SIGINT and seed % 2 == 0)
        hosts = player.warm_hosts(scenario)
        before = compared.take(hosts)
        run = player.play(scenario, hosts, transaction=True, label=f"{number.name}-{seed}", interrupt=interruption)
        problems = [] if run.code else [f"ansible-playbook ended with 0 after {number.name}: {run.log}"]
        found, waited = compared.until_quiet(hosts, before, seconds=20)
        problems += [*compared.lines(found), *_nothing_open(hosts)]
        if problems:
            problems.insert(0, f"rc {run.code}, {number.name} after {after:.2f} s: {run.log}")
        return Outcome(
            number.name.lower(), scenario.name, tuple(problems), {"after": round(after, 2), "quiet": round(waited, 1)}, seed=seed
        )

    return mode


def agent_killed(player: Player, scenario: Scenario, seed: int) -> Outcome:
    """SIGKILL for the agent at a random moment in a step: never committed, exact after recovery."""
    chosen = random.Random(seed)
    moment = chosen.uniform(0, player.usual_seconds(scenario) * 0.8)
    victim = chosen.randrange(scenario.hosts)
    for attempt in range(4):
        # A play that was over before its moment came has shown nothing: an earlier moment, from the start.
        hosts = player.warm_hosts(scenario)
        # The other hosts may commit: each host has its own transaction.
        before = compared.take([hosts[victim]])
        process, log = player.start(scenario, hosts, transaction=True, fail=False, label=f"agent-{seed}")
        killed = _kill_agent(hosts[victim], process, after=moment / 2**attempt)
        code = process.wait(timeout=600)
        if killed:
            break
    problems = []
    states = set(transactions(hosts[victim]).values()) if killed else set()
    if not killed:
        problems.append(f"no agent to kill before the play ended: {log}")
    elif code == 0:
        problems.append(f"rc 0 although the agent was killed; states {sorted(states)}: {log}")
    found, waited = compared.until_quiet([hosts[victim]], before, seconds=60)
    problems += [*compared.lines(found), *_nothing_open([hosts[victim]])]
    return Outcome("agent", scenario.name, tuple(problems), {"recovered": round(waited, 1), "after": round(killed, 2)}, seed=seed)


def _kill_agent(host: Host, process: subprocess.Popen[bytes], *, after: float) -> float:
    """Wait for a transaction to be open, then so long, then for a step at work, and kill its agent. Seconds since the transaction was
    seen; 0 when no step was at work any more, or when the step was over before the agent was dead."""
    while process.poll() is None and not agent_pids(host):
        time.sleep(0.01)
    seen = time.monotonic()
    while process.poll() is None and (time.monotonic() - seen < after or not step_pids(host)):
        time.sleep(0.005)
    at_work = step_pids(host)
    for pid in agent_pids(host):
        os.kill(pid, signal.SIGKILL)
    still = at_work & step_pids(host)
    return max(time.monotonic() - seen, 0.01) if still and process.poll() is None else 0.0


def _nothing_open(hosts: list[Host]) -> list[str]:
    return [f"{host.name}: transaction still open: {json.dumps(found)}" for host in hosts if (found := open_transaction(host))]


MODES: dict[str, Mode] = {
    "control": control,
    "exact": exact,
    "commit": commit,
    "later": later,
    "sigint": interrupted(signal.SIGINT),
    "sigterm": interrupted(signal.SIGTERM),
    "agent": agent_killed,
}
# These are repeated over a few plays at random moments; the others run once for each play.
RANDOM = ("sigint", "sigterm", "agent")
REPEATED = 20
