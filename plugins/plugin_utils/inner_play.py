# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Runs one task of ours on some hosts as a play inside the play's own TaskQueueManager: same inventory, variables, passwords and
connections.

Nothing of it shows: callbacks are set aside, results go to a `Collector`, statistics and the lists of failed hosts are swapped
out and in. Options of the command line that are meant for the user's tasks (--start-at-task, --step, --tags) do not apply.
Results of workers that a signal killed must not be read as ours, hence a queue of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from ansible import context
from ansible.executor.stats import AggregateStats
from ansible.playbook.block import Block
from ansible.playbook.task import Task
from ansible.plugins.callback import CallbackBase
from ansible.utils.context_objects import CLIArgs

OK, FAILED, UNREACHABLE = "ok", "failed", "unreachable"


class Outcome(NamedTuple):
    """`message` is the task's `msg`, `kind` its error class where it has one, `summary` the host's, where a transaction ended."""

    status: str
    message: str
    kind: str
    summary: dict[str, Any] | None = None


class Collector(CallbackBase):  # type: ignore[misc]
    """The only callback that sees our task."""

    def __init__(self) -> None:
        super().__init__()
        self.outcomes: dict[str, Outcome] = {}
        self._init_callback_methods()

    def v2_runner_on_ok(self, result: Any) -> None:
        self._note(result, OK)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._note(result, OK)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._note(result, FAILED)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._note(result, UNREACHABLE)

    def _note(self, result: Any, status: str) -> None:
        data = result.result
        message = str(data.get("msg", "")).removeprefix("Task failed: ").removeprefix("Action failed: ")
        summary = data.get("summary") if status == OK else None
        self.outcomes[result.host.get_name()] = Outcome(status, message, str(data.get("error_class", "")), summary)


def run(
    tqm: Any, play: Any, hosts: Sequence[str], *, action: str, arguments: dict[str, Any], run_play: Callable[[Any, Any], Any]
) -> dict[str, Outcome]:
    """`run_play` is TaskQueueManager.run as ansible-core has it. A host that is missing in the answer never got its turn, or
    has left the inventory (`meta: refresh_inventory`)."""
    hosts = [name for name in hosts if tqm._inventory.get_host(name) is not None]
    if not hosts:
        return {}
    inner = _play(play, hosts, action=action, arguments=arguments)
    collector = Collector()
    with _set_aside(tqm, hosts, collector), _own_command_line():
        run_play(tqm, inner)
    return collector.outcomes


def _play(play: Any, hosts: Sequence[str], *, action: str, arguments: dict[str, Any]) -> Any:
    inner = play.copy()
    inner.name = f"acid.host: {action}"
    inner.hosts = list(hosts)
    inner.gather_facts = False
    inner.any_errors_fatal = inner.force_handlers = False
    inner.max_fail_percentage = None
    inner.strategy = "ansible.builtin.linear"
    for name in ("pre_tasks", "roles", "post_tasks", "handlers", "vars_prompt", "tags"):
        setattr(inner, name, [])
    inner.only_tags, inner.skip_tags = frozenset(("all",)), set()
    block = Block(play=inner)
    block._variable_manager, block._loader = play._variable_manager, play._loader
    keywords = {
        "name": f"acid.host: {action}",
        f"acid.host.{action}": arguments,
        "ignore_errors": False,
        "ignore_unreachable": False,
        "run_once": False,
        "any_errors_fatal": False,
        "timeout": 0,
        "throttle": 0,
        "debugger": "never",
        "no_log": False,
        "check_mode": False,
        "diff": False,
    }
    block.block = [Task.load(keywords, block=block, variable_manager=play._variable_manager, loader=play._loader)]
    inner.tasks = [block]
    return inner


@contextmanager
def _set_aside(tqm: Any, hosts: Sequence[str], collector: Collector) -> Iterator[None]:
    inventory = tqm._inventory
    names = ("_failed_hosts", "_unreachable_hosts", "_stats", "_callback_plugins", "_final_q", "_start_at_done", "_terminated")
    before = {name: getattr(tqm, name) for name in names}
    restriction = inventory._restriction
    queue = type(before["_final_q"])()
    tqm._failed_hosts, tqm._unreachable_hosts, tqm._stats = {}, {}, AggregateStats()
    tqm._callback_plugins, tqm._final_q, tqm._start_at_done, tqm._terminated = [collector], queue, True, False
    try:
        inventory.restrict_to_hosts([inventory.get_host(name) for name in hosts])
        yield
    finally:
        for name, value in before.items():
            setattr(tqm, name, value)
        inventory._restriction = restriction
        queue.close()


@contextmanager
def _own_command_line() -> Iterator[None]:
    before = context.CLIARGS
    context.CLIARGS = CLIArgs({**before, "step": False, "start_at_task": None})
    try:
        yield
    finally:
        context.CLIARGS = before
