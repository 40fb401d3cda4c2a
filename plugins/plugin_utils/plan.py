# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The plan: how each task of a play would be undone. Stands in for `TaskQueueManager.run`, so nothing is run, on no host.

Only what the controller has is read: playbook, roles, inventory and variables. What these leave open is said to be open.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from ansible.template import Templar
from ansible.utils.display import Display

from . import forecast, walk
from .fence import DENY, module_of
from .forecast import COMPENSATION, IRREVERSIBLE, LATER, NOTHING, REFUSED, TRACE, Undo
from .options import Options
from .tasks import position

display = Display()

TITLE, WIDTH = "PLAN", 80
SHOWN_HOSTS = 6

WORDS: Mapping[str, str] = {
    TRACE: "undone by the trace",
    COMPENSATION: "undone by a compensation",
    IRREVERSIBLE: "irreversible",
    REFUSED: "refused",
    LATER: "known when it runs",
    NOTHING: "nothing to undo",
}
COLOURS = {TRACE: "green", COMPENSATION: "cyan", IRREVERSIBLE: "red", REFUSED: "red", LATER: "yellow", NOTHING: "dark gray"}

Line = tuple[str, "str | None"]


class Row(NamedTuple):
    """`marks`: handler, rescue, conditional, loop, what it depends on."""

    name: str
    module: str
    position: str
    undo: Undo
    marks: tuple[str, ...]


class Plan(NamedTuple):
    """Of one play. `without`: its hosts that turned the transaction off."""

    play: str
    hosts: tuple[str, ...]
    without: tuple[str, ...]
    rows: tuple[Row, ...]

    def has(self, how: str) -> bool:
        return any(row.undo.how == how for row in self.rows)


def of_play(tqm: Any, play: Any, plans: Mapping[str, Options]) -> Plan:
    """`plans`: the options of the hosts that take part."""
    variables = tqm._variable_manager.get_vars(play=play)
    copy = play.copy()
    copy.post_validate(Templar(loader=tqm._loader, variables=variables))
    hosts = tqm._inventory.get_hosts(play.hosts, order=play.order)
    if not hosts:
        return Plan(play.get_name(), (), (), ())
    connection = str(tqm._variable_manager.get_vars(play=play, host=hosts[0]).get("ansible_connection") or copy.connection or "")
    rows = [
        _row(found, tuple(host.name for host in hosts), connection, covered=bool(plans))
        for found in walk.everything(copy, variables, host=hosts[0])
    ]
    names = tuple(host.name for host in hosts)
    return Plan(play.get_name(), names, tuple(name for name in names if name not in plans), tuple(dict.fromkeys(rows)))


def _row(found: walk.Found, hosts: tuple[str, ...], connection: str, *, covered: bool) -> Row:
    task = found.task
    marks = [found.kind] if found.kind != walk.TASK else []
    marks += ["conditional"] if forecast.is_conditional(task) else []
    marks += ["loop"] if task.loop or task.loop_with else []
    undo = Undo(LATER, f"the include is {found.closed}") if found.closed else forecast.undo_of(task, hosts, connection=connection)
    marks += [f"depends on {', '.join(undo.depends)}"] if undo.depends else []
    if not covered and undo.how in (TRACE, COMPENSATION):
        undo = Undo(IRREVERSIBLE, "the play has no transaction ('acid_transaction: false')")
    return Row(task.get_name(), module_of(task), position(task), undo, tuple(marks))


def lines(plan: Plan) -> Iterator[Line]:
    shown = ", ".join(plan.hosts[:SHOWN_HOSTS]) + (f" and {len(plan.hosts) - SHOWN_HOSTS} more" if len(plan.hosts) > SHOWN_HOSTS else "")
    yield f"{plan.play}  ({len(plan.hosts)} host{'' if len(plan.hosts) == 1 else 's'}{': ' if shown else ''}{shown})", "bright blue"
    if plan.without and len(plan.without) < len(plan.hosts):
        yield f"  without a transaction: {', '.join(plan.without)}", "red"
    width = max((len(WORDS[row.undo.how]) for row in plan.rows), default=0)
    for row in plan.rows:
        marks = f"  [{', '.join(row.marks)}]" if row.marks else ""
        yield f"  {WORDS[row.undo.how]:<{width}}  {row.name}{marks}  ({row.position})", COLOURS[row.undo.how]
        detail = _detail(row)
        if detail:
            yield f"  {'':<{width}}    {detail}", "dark gray"
    counts = Counter(row.undo.how for row in plan.rows)
    counted = ", ".join(f"{counts[how]} {word}" for how, word in WORDS.items() if counts[how])
    yield f"  {len(plan.rows)} task{'' if len(plan.rows) == 1 else 's'}{': ' if counted else ''}{counted}", None


def _detail(row: Row) -> str:
    undo = row.undo
    if undo.how == TRACE:
        probes = "all probes" if undo.probes is None else f"probes: {', '.join(undo.probes)}" if undo.probes else "files only"
        return f"{row.module}; {probes}"
    if undo.how == NOTHING:
        return ""
    return undo.why if undo.why.startswith(row.module) else f"{row.module}: {undo.why}"


class Planner:
    """Takes the place of each run of a play. A play under `serial` runs several times, and is told once."""

    def __init__(self) -> None:
        self._told: set[str] = set()
        self._denied = False

    def run(self, tqm: Any, play: Any, plans: Mapping[str, Options]) -> int:
        """The exit code: under `deny`, a play that has something irreversible in it is not a good one."""
        if play._uuid in self._told:
            return self._result(tqm)
        if not self._told:
            display.display(f"\n{TITLE} {'*' * (WIDTH - len(TITLE) - 1)}")
        self._told.add(play._uuid)
        inventory = tqm._inventory
        batch, inventory._restriction = inventory._restriction, None
        try:
            plan = of_play(tqm, play, plans)
        finally:
            inventory._restriction = batch
        display.display("")
        for text, colour in lines(plan):
            display.display(text, color=colour)
        self._denied |= plan.has(IRREVERSIBLE) and any(options.policy == DENY for options in plans.values())
        return self._result(tqm)

    def _result(self, tqm: Any) -> int:
        """ansible-playbook's exit code is the one of its last play."""
        return int(tqm.RUN_FAILED_HOSTS if self._denied else tqm.RUN_OK)
