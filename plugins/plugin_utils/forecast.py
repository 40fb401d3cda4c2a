# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Says before a play starts how each of its tasks would be undone, as far as the playbook itself says so.

What cannot be known yet (a templated `delegate_to`, an argument, a condition) is met when its task runs (`fence.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from . import effects, walk
from .fence import module_of
from .special_tasks import REBOOT, only_sends
from .tasks import OWN_ACTIONS, WITHOUT_PYTHON, action_name

TEMPLATE = ("{{", "{%")

# Wherever they are delegated to, these run on the controller and change nothing outside Ansible.
CONTROLLER_ONLY = frozenset(
    f"ansible.builtin.{name}"
    for name in ("add_host", "assert", "debug", "fail", "group_by", "include_vars", "meta", "pause", "set_fact", "set_stats")
    + ("validate_argument_spec",)
)

NOTHING, TRACE, COMPENSATION, IRREVERSIBLE, REFUSED, LATER = "nothing", "trace", "compensation", "irreversible", "refused", "later"


class Undo(NamedTuple):
    """How a task would be undone. `probes` None: all of them. `depends`: what will decide whether it is so; empty: it is."""

    how: str
    why: str = ""
    probes: tuple[str, ...] | None = ()
    depends: tuple[str, ...] = ()


def undo_of(task: Any, hosts: Collection[str], *, connection: str = "") -> Undo:
    """`hosts`: those whose transactions the task may be a step of."""
    module = module_of(task)
    if module in CONTROLLER_ONLY | OWN_ACTIONS:
        return Undo(NOTHING, "it runs in Ansible itself")
    target = task.delegate_to
    outside = isinstance(target, str) and not _is_template(target) and target not in hosts
    if outside and only_sends(module, arguments_of(task)):
        outside = False  # what it changes is on the task's own host
    found = effects.current().of(effects.Doing(module, arguments_of(task), connection))
    variables = task.get_vars()
    if variables.get("acid_compensate") is not None:
        return Undo(COMPENSATION, _names_of(variables["acid_compensate"]))
    if found is not None and found.effect == effects.NONE:
        return Undo(NOTHING, "it only looks")
    if found is not None and found.effect == effects.BOOT and not outside and module != REBOOT:
        return Undo(REFUSED, "it belongs into a play of its own, with 'acid_transaction: false'")
    on = f" on {target} (delegate_to)" if outside else ""
    if found is not None:
        return Undo(IRREVERSIBLE, f"{module}{on}: {found.why}", depends=found.depends)
    if outside:
        return Undo(IRREVERSIBLE, f"{module}{on}")
    if variables.get("acid_capture") == "none":
        return Undo(IRREVERSIBLE, f"{module} with 'acid_capture: none'")
    depends = ("delegate_to",) if isinstance(target, str) and _is_template(target) else ()
    return Undo(TRACE, probes=effects.current().probes_of(module), depends=depends)


class Named(NamedTuple):
    """`certain`: it will be so, whatever the variables are, unless the play ends before."""

    what: str
    certain: bool


def irreversible(play: Any, hosts: Collection[str], variables: Mapping[str, Any]) -> list[Named]:
    """In the order of the play's tasks, each sentence once."""
    found: dict[str, bool] = {}
    for task, kind, _closed in walk.closed(play, variables):
        undo = undo_of(task, hosts)
        if undo.how == IRREVERSIBLE:
            what = f"{task.get_name()}: {undo.why}"
            uncertain = undo.depends or kind == walk.RESCUE or is_conditional(task)
            found[what] = found.get(what, False) or not uncertain
    return [Named(what, certain) for what, certain in found.items()]


def is_conditional(task: Any) -> bool:
    at = task
    while at is not None:
        if getattr(at, "when", None):
            return True
        at = getattr(at, "_parent", None)
    return False


def for_real_in_check_mode(play: Any) -> list[str]:
    """Tasks that say `check_mode: false`."""
    return list(dict.fromkeys(task.get_name() for task in walk.tasks_of(play) if task.check_mode is False))


def starts_without_python(play: Any) -> bool:
    """The play's first task on the host is one that needs no Python there, as it is when the play goes on to install it."""
    first = next((action_name(task) for task in walk.tasks_of(play) if action_name(task) not in CONTROLLER_ONLY), "")
    return not play.gather_facts and first in WITHOUT_PYTHON


class _Arguments(dict[str, Any]):
    """With arguments that come out of a variable, nothing is known."""

    def get(self, name: str, default: Any = None) -> Any:
        return super().get(name, effects.UNKNOWN)


def arguments_of(task: Any) -> Mapping[str, Any]:
    known = {name: effects.UNKNOWN if _is_template(value) else value for name, value in task.args.items()}
    return _Arguments(known) if "_variable_params" in known or any(map(_is_template, known)) else known


def _is_template(value: Any) -> bool:
    return isinstance(value, str) and any(mark in value for mark in TEMPLATE)


def _names_of(compensation: Any) -> str:
    """What people call the tasks."""
    if isinstance(compensation, str):
        return compensation
    tasks = compensation if isinstance(compensation, list) else [compensation]
    known = ("name", "vars", "delegate_to", "run_once", "when", "register", "retries", "delay", "until", "become", "args")
    return ", ".join(
        str(task.get("name") or next((key for key in task if key not in known), "?")) for task in tasks if isinstance(task, Mapping)
    )
