# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Names before the play starts what in it no transaction can undo, as far as the playbook itself says so.

A literal `delegate_to` outside the play's hosts is seen here; a templated one, or one in an included file, when its task runs
(`tasks.py`).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from .tasks import LOOKS_ONLY, OWN_ACTIONS, WITHOUT_PYTHON, action_name

TEMPLATE = "{{"

# Wherever they are delegated to, these run on the controller and change nothing outside Ansible.
CONTROLLER_ONLY = frozenset(
    f"ansible.builtin.{name}"
    for name in ("add_host", "assert", "debug", "fail", "group_by", "include_vars", "meta", "pause", "set_fact", "set_stats")
)


def outside(play: Any, hosts: Collection[str]) -> list[str]:
    """Sentences, in the order of the play's tasks."""
    found = []
    for task in tasks_of(play):
        target = task.delegate_to
        if not isinstance(target, str) or TEMPLATE in target or target in hosts:
            continue
        if action_name(task) not in LOOKS_ONLY | OWN_ACTIONS | CONTROLLER_ONLY:
            found.append(f"{task.get_name()}: {action_name(task)} on {target} (delegate_to)")
    return list(dict.fromkeys(found))


def for_real_in_check_mode(play: Any) -> list[str]:
    """Tasks that say `check_mode: false`."""
    return list(dict.fromkeys(task.get_name() for task in tasks_of(play) if task.check_mode is False))


def starts_without_python(play: Any) -> bool:
    """The play's first task on the host is one that needs no Python there, as it is when the play goes on to install it."""
    first = next((action_name(task) for task in tasks_of(play) if action_name(task) not in CONTROLLER_ONLY), "")
    return not play.gather_facts and first in WITHOUT_PYTHON


def tasks_of(play: Any) -> Iterator[Any]:
    for block in play.compile():
        yield from _in_block(block)


def _in_block(block: Any) -> Iterator[Any]:
    for item in [*block.block, *block.rescue, *block.always]:
        if hasattr(item, "block"):
            yield from _in_block(item)
        else:
            yield item
