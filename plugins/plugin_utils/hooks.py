# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The hooks in the controller: every play that runs while they are installed is a transaction on each of its hosts.

Two places are enough. `TaskExecutor` gives each task's action handler, in the worker: there the task becomes a step, and when it has run
(each item of a loop), what it returned is for its compensation.
`TaskQueueManager.run` runs a play (one batch of it): there transactions begin, and end when the verdict per host is final. Both
look the same on ansible-core 2.19, 2.20 and 2.21 (`selfcheck.py`). If anything is not as expected, the run hook still goes in,
and refuses every play: a play that asked for a transaction and cannot have one must not run its first task.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ansible import context
from ansible.errors import AnsibleError
from ansible.executor.task_executor import TaskExecutor
from ansible.executor.task_queue_manager import AnsibleEndPlay, TaskQueueManager
from ansible.template import Templar
from ansible.utils.display import Display

from . import delivery, effects, forecast, rehearsal, rehearsal_page, reports, selfcheck, steps, tasks
from .batch import Batch
from .configuration import Settings
from .interrupts import Interrupts, Terminated
from .options import OptionError, Options, parse
from .plan import Planner

display = Display()


class Hooks:
    """`defaults` is asked when a play starts (the callback has its options only then); `show` prints reports when no recap will come."""

    def __init__(
        self,
        *,
        defaults: Callable[[], Options],
        settings: Callable[[], Settings],
        show: Callable[[list[reports.Report], list[rehearsal.Rehearsal]], None],
    ) -> None:
        self._defaults, self._settings, self._show = defaults, settings, show
        self._planner = Planner()
        self.reports: list[reports.Report] = []
        self.rehearsals: list[rehearsal.Rehearsal] = []

    def install(self) -> None:
        """Once per process."""
        if getattr(TaskQueueManager, "_acid_hooks", None) is not None:
            return
        TaskQueueManager._acid_hooks = self
        complaints = selfcheck.complaints()
        run_play = TaskQueueManager.run
        if complaints:
            TaskQueueManager.run = _refusing(complaints)
            return
        steps.install()
        TaskExecutor._get_action_handler_with_module_context = _preparing(TaskExecutor._get_action_handler_with_module_context)
        TaskExecutor._execute = _compensated(TaskExecutor._execute)

        @functools.wraps(run_play)
        def run(tqm: Any, play: Any) -> Any:
            return self._run(tqm, play, run_play)

        TaskQueueManager.run = run

    def _run(self, tqm: Any, play: Any, run_play: Callable[[Any, Any], Any]) -> Any:
        if self._settings().plan:
            self._use_table()
            return self._planner.run(tqm, play, self._options_of_hosts(tqm, play)[0])
        plans, opted_out = self._plans(tqm, play)
        tasks.opted_out = opted_out
        if not plans:
            return run_play(tqm, play)
        self._use_table()
        delivery.engine()  # an incomplete collection is found before anything runs
        batch = Batch(tqm, play, plans, run_play=run_play)
        result: Any = None
        error: BaseException | None = None
        with Interrupts(tqm) as interrupts, ExitStack() as until_settled:
            try:
                batch.begin()
                until_settled.enter_context(batch.heartbeat())
                result = run_play(tqm, play)
            except BaseException as raised:
                error = raised
            interrupts.settling()
            ended = batch.settle(stopped=_why_stopped(error))
            self.reports += ended
            self._keep_rehearsals(tqm, ended)
            tqm._stats.set_custom_stats("acid", reports.custom_stats(self.reports))
            if interrupts.signum is not None or not isinstance(error, (AnsibleEndPlay, type(None))):
                self.show()
        interrupts.reraise()
        return _finish(tqm, ended, result=result, error=error)

    def show(self) -> None:
        """Once: what has been shown is forgotten."""
        self._show(self.reports, self.rehearsals)
        self.reports, self.rehearsals = [], []

    def _use_table(self) -> None:
        try:
            effects.use(self._settings().irreversible_table)
        except effects.TableError as error:
            raise AnsibleError(f"No task was run: {error}") from None

    def _keep_rehearsals(self, tqm: Any, ended: list[reports.Report]) -> None:
        known = [rehearsal.of_host(report) for report in ended if rehearsal.was_asked(report)]
        self.rehearsals += known
        path = self._settings().rehearsal_page
        if known and path:
            try:
                rehearsal_page.write(path, self.rehearsals, playbook=" ".join(context.CLIARGS.get("args", ())))
            except OSError as error:
                display.error(f"The page of the rehearsal could not be written to {path}: {error.strerror}")

    def _plans(self, tqm: Any, play: Any) -> tuple[dict[str, Options], frozenset[str] | None]:
        """None in check mode: there is nothing to undo. Second, the hosts that turned it off, where that matters."""
        plans, opted_out = self._options_of_hosts(tqm, play)
        if not play.check_mode:
            return plans, opted_out
        for name in forecast.for_real_in_check_mode(play) if plans else ():
            display.warning(f"'{name}' has 'check_mode: false'. In check mode there is no transaction: what it changes will not be undone.")
        return {}, None

    def _options_of_hosts(self, tqm: Any, play: Any) -> tuple[dict[str, Options], frozenset[str]]:
        """The options of each host of this batch that is still in the play, and the hosts that turned it off. Those are also looked for
        among hosts that are out of the play: `meta: clear_host_errors` may bring one back."""
        defaults = self._defaults()
        plans: dict[str, Options] = {}
        opted_out: set[str] = set()
        for host in tqm._inventory.get_hosts(play.hosts, order=play.order):
            is_out = host.name in tqm._failed_hosts or host.name in tqm._unreachable_hosts
            try:
                options = _options_of(tqm, play, host, defaults=defaults)
            except AnsibleError:
                if is_out:
                    continue  # it may lack the facts that its option is made of
                raise
            if options is None:
                opted_out.add(host.name)
            elif not is_out:
                plans[host.name] = options if options.name else _named(options, play)
        return plans, frozenset(opted_out)


def _options_of(tqm: Any, play: Any, host: Any, *, defaults: Options) -> Options | None:
    variables = tqm._variable_manager.get_vars(play=play, host=host)
    value = variables.get("acid_transaction")
    try:
        if value is not None:
            value = Templar(loader=tqm._loader, variables=variables).template(value)
        return parse(value, defaults=defaults)
    except OptionError as problem:
        raise AnsibleError(f"No task was run: {play.get_name()}: {problem}") from None


def _named(options: Options, play: Any) -> Options:
    return Options(**{**options.__dict__, "name": str(play.get_name() or "")})


def _preparing(get_handler: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(get_handler)
    def get_prepared_handler(executor: Any, templar: Any) -> Any:
        handler, context = get_handler(executor, templar=templar)
        tasks.prepare(executor, handler)
        return handler, context

    return get_prepared_handler


def _compensated(execute: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(execute)
    def execute_and_tell(executor: Any, *args: Any, **kwargs: Any) -> Any:
        tasks.item_starts(executor)
        result = execute(executor, *args, **kwargs)
        tasks.item_ended(executor, result)
        return result

    return execute_and_tell


def _refusing(complaints: list[str]) -> Callable[..., Any]:
    def run(tqm: Any, play: Any) -> Any:
        raise AnsibleError(
            f"acid.host cannot hold a transaction under this ansible-core: {'; '.join(complaints)}. No task was run. "
            "Use an ansible-core that this version of acid.host knows, or disable the callback acid.host.transaction."
        )

    return run


def _why_stopped(error: BaseException | None) -> str:
    if error is None or isinstance(error, AnsibleEndPlay):
        return ""
    if isinstance(error, KeyboardInterrupt):
        return "interrupted (Ctrl-C)"
    if isinstance(error, Terminated):
        return "terminated (SIGTERM)"
    return f"the play broke off: {str(error).splitlines()[0] if str(error) else type(error).__name__}"


def _finish(tqm: Any, ended: list[reports.Report], *, result: Any, error: BaseException | None) -> Any:
    """The play's own exit code, unless a host that it counts as good could not keep its changes."""
    failed = any(report.outcome != reports.COMMITTED and report.host in tqm._failed_hosts for report in ended)
    if isinstance(error, AnsibleEndPlay):
        error.result = error.result or (tqm.RUN_FAILED_HOSTS if failed else tqm.RUN_OK)
    if error is not None:
        raise error
    return result or (tqm.RUN_FAILED_HOSTS if failed else result)
