# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The transactions of one run of a play: a whole play, or one batch of it under `serial`.

Calling sequence: `begin()` before the first task, ansible-core's own run, then `settle()`, whatever happened in between. A host
whose begin failed counts as failed before its first task, as if a task had failed there. `settle` rolls back and commits; it
never raises for a host, every host gets a `Report`. If the controller dies anywhere in between, the hosts' leases end what is
open.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ansible.errors import AnsibleError
from ansible.utils.display import Display

from . import fence, forecast, inner_play, reports
from .heartbeat import Heartbeat
from .hostcommand import encode
from .interrupts import Terminated
from .ledger import BYPASSED, ENDED, OUTSIDE, STEP, Event, Ledger, OpenTransaction
from .options import Options

display = Display()

HELD_BY = {"_held_by": "play"}


class Batch:
    """`run_play` is ansible-core's TaskQueueManager.run; `plans` has the options of each host that takes part.

    One host's trouble is that host's: whatever is damaged, unreadable or raises about one of them, the others are settled."""

    def __init__(self, tqm: Any, play: Any, plans: dict[str, Options], *, run_play: Callable[[Any, Any], Any]) -> None:
        self._tqm, self._play, self._run_play = tqm, play, run_play
        self.plans = plans
        self._ledger = Ledger.of_this_run()
        self._before: dict[str, tuple[int, int]] = {}
        self._refused: dict[str, reports.Report] = {}
        self._why: dict[str, str] = {}
        self._ended: dict[str, tuple[str, dict[str, Any]]] = {}
        self._asked_hosts = False
        self._stopped = ""

    def begin(self) -> None:
        """Open a transaction on every host. Raises AnsibleError only for what the user has to decide before anything starts."""
        self._name_irreversible()
        self._asked_hosts = True
        may_wait = {"_may_wait": forecast.starts_without_python(self._play)}
        for options, hosts in self._by_options():
            arguments = {**{key: value for key, value in options.to_json().items() if value != ""}, **HELD_BY, **may_wait}
            outcomes = self._on_hosts(hosts, "tx_begin", arguments)
            for host in hosts:
                if self._ledger.waiting(host) is not None:
                    display.warning(
                        f"{host}: no transaction yet: {outcomes[host].message} It begins with the first task that needs Python."
                    )
                elif (begun := self._transaction(host)) is None:
                    self._refuse(host, outcomes.get(host))
                else:
                    self._ledger.remember(begun)
        fatal = self._why_refusals_end_the_play()
        for host in self.plans if fatal else ():
            if host not in self._refused:
                self._why[host] = fatal
                self._mark_failed(host)
        stats = self._tqm._stats
        self._before = {host: (stats.failures.get(host, 0), stats.dark.get(host, 0)) for host in self.plans}

    def heartbeat(self) -> Heartbeat:
        """To be entered when all have begun; a host that begins later is looked after as well."""
        said = {"name": "-", "_verb": "confirm", "_request": encode({"beat": True})}
        return Heartbeat(
            {host: options.confirm_timeout for host, options in self.plans.items() if host not in self._refused},
            beat=lambda hosts: self._on_hosts(hosts, "tx_savepoint", said),
        )

    def settle(self, *, stopped: str = "") -> list[reports.Report]:
        """End every open transaction: all are undone when the play was `stopped` (a reason), else as each host's verdict says."""
        self._stopped = stopped
        open_now = {host: found for host in self.plans if (found := self._transaction(host)) is not None}
        undo = {host: reason for host in open_now if (reason := stopped or self._why_undo(host))}
        if undo and self._play.any_errors_fatal:  # Ansible saw to it, but for what only we know, or have found just now
            for host in open_now:
                if host not in undo:
                    undo[host] = "another host is rolled back, and the play has 'any_errors_fatal'"
                    self._mark_failed(host)
        failures: dict[str, str] = {}
        try:
            self._end_orphans(open_now, stopped)
            rehearsed = [host for host in open_now if self.plans[host].rehearse and not stopped]
            failures = self._end("tx_rollback", [host for host in undo if host not in rehearsed])
            failures.update(self._end("tx_rollback", rehearsed, {"_rehearsed": True}))
            keep = [host for host in open_now if host not in undo and not self.plans[host].rehearse]
            refused = self._end("tx_commit", keep)
            for host, why in refused.items():
                undo[host] = f"commit failed: {why}"
                self._mark_failed(host)
            failures.update(self._end("tx_rollback", list(refused)))
        except (KeyboardInterrupt, Terminated):
            pass  # a second signal: what has not ended yet is left to the hosts, and the reports say so
        except Exception as error:
            display.error(f"The transactions of this play could not all be ended: {error}")
        finally:
            result = [*self._refused.values(), *(self._report(found, undo.get(host, ""), failures) for host, found in open_now.items())]
        result = self._entangled(result)
        waiting = [self._give_up_waiting(host) for host in self.plans if self._ledger.waiting(host) is not None]
        for report in result:
            if report.outcome in (reports.UNDO_FAILED, reports.LEFT_TO_HOST):
                self._mark_failed(report.host)
            if report.outcome in (reports.ROLLED_BACK, reports.REHEARSED):
                self._clear_facts(report.host)
            self._ledger.forget(report.host, ended=report.tx if report.host in self._ended else "")
        return [*result, *waiting]

    def _clear_facts(self, host: str) -> None:
        try:
            self._tqm._variable_manager.clear_facts(host)
        except Exception as error:  # the cache is a plugin's: a file, a server
            display.error(f"{host}: its cached facts are from before the rollback, and could not be cleared: {error}")

    def _entangled(self, ended: list[reports.Report]) -> list[reports.Report]:
        """Each host ends by its own verdict; where delegation crossed that line, people have to know."""
        kept = {report.host: report.outcome == reports.COMMITTED for report in ended}
        notes: dict[str, list[str]] = {}
        for on in kept:
            for by in {event.data["by"] for event in self._ledger.since_begin(on) if event.kind == STEP}:
                if kept.get(by, kept[on]) == kept[on]:
                    continue
                if kept[on]:
                    notes.setdefault(on, []).append(f"it keeps what steps of {by}, which did not commit, did here (delegate_to)")
                else:
                    notes.setdefault(by, []).append(f"what its steps did on {on} was undone there (delegate_to)")
        return [replace(report, entangled=sorted(notes.get(report.host, []))) for report in ended]

    def _give_up_waiting(self, host: str) -> reports.Report:
        """The play ended, and no task had needed Python."""
        events = self._ledger.since_begin(host)
        try:
            self._ledger.append(host, ENDED, tx="")
        except OSError as error:
            display.error(f"{host}: it could not be noted that no transaction begins there any more: {error.strerror}")
        outside = [event.data["what"] for event in events if event.kind == OUTSIDE]
        reason = str(events[0].data["msg"])
        return reports.Report(host=host, play=self._play.get_name(), outcome=reports.REFUSED, reason=reason, irreversible=outside)

    def _end_orphans(self, open_now: dict[str, OpenTransaction], stopped: str) -> None:
        """Hosts that may have begun though we know nothing of it: a signal during begin killed their workers, or the note that a host
        began late is damaged."""
        unknown = {}
        for host in self.plans if self._asked_hosts else ():
            if host not in open_now and host not in self._refused and self._ledger.waiting(host) is None:
                why = "the controller was stopped before the host answered." if stopped else f"{self._ledger.damage(host)}."
                if stopped or why != ".":
                    unknown[host] = why
        outcomes = self._ask(list(unknown), "tx_rollback", {**HELD_BY, "_orphan": True})
        for host, reason in unknown.items():
            ended = outcomes.get(host)
            if ended is None or ended.status != inner_play.OK:
                reason += f" Should it have begun, it rolls itself back within {self.plans[host].confirm_timeout} s."
            elif ended.summary:
                reason += " It had begun, and was rolled back."
            if not stopped:
                self._mark_failed(host)
            self._refused[host] = reports.Report(host=host, play=self._play.get_name(), outcome=reports.REFUSED, reason=reason)

    def _name_irreversible(self) -> None:
        named = forecast.irreversible(self._play, self.plans, self._tqm._variable_manager.get_vars(play=self._play))
        policies = {options.policy for options in self.plans.values()}
        certain = [one.what for one in named if one.certain]
        if certain and fence.DENY in policies:
            allow = "'irreversible: allow'" if any(options.rehearse for options in self.plans.values()) else "'irreversible: warn'"
            raise AnsibleError(
                f"This play does what no transaction can undo, and {self._what_forbids()} forbids it: {'; '.join(certain)}. "
                f"Give it a compensation (acid_compensate), put hosts that it delegates to into the play, or allow it with {allow}. "
                "No task was run."
            )
        fence.named_before = {one.what for one in named}
        if named and fence.WARN in policies:
            display.warning(f"Outside the transaction, will not be undone: {'; '.join(one.what for one in named)}.")

    def _what_forbids(self) -> str:
        denied = any(options.irreversible == fence.DENY for options in self.plans.values())
        return "'irreversible: deny'" if denied else "a rehearsal, which has to leave nothing behind,"

    def _why_refusals_end_the_play(self) -> str:
        """Before its first task, as Ansible would after a failed one. For max_fail_percentage Ansible counts no unreachable hosts."""
        if self._refused and self._play.any_errors_fatal:
            return "another host could not begin, and the play has 'any_errors_fatal'"
        most = self._play.max_fail_percentage
        failed = [host for host in self._refused if host in self._tqm._failed_hosts]
        of = len(self._tqm._inventory.get_hosts(self._play.hosts, order=self._play.order))
        if failed and most is not None and len(failed) / of > most / 100.0:
            return f"{len(failed)} of {of} hosts could not begin, and that is more than the play's 'max_fail_percentage'"
        return ""

    def _by_options(self) -> list[tuple[Options, list[str]]]:
        groups: dict[str, tuple[Options, list[str]]] = {}
        for host, options in self.plans.items():  # as text: own probes are mappings, which cannot be keys
            groups.setdefault(json.dumps(options.to_json(), sort_keys=True), (options, []))[1].append(host)
        return list(groups.values())

    def _on_hosts(self, hosts: list[str], action: str, arguments: dict[str, Any]) -> dict[str, inner_play.Outcome]:
        return inner_play.run(self._tqm, self._play, hosts, action=action, arguments=arguments, run_play=self._run_play) if hosts else {}

    def _ask(self, hosts: list[str], action: str, arguments: dict[str, Any]) -> dict[str, inner_play.Outcome]:
        """As `_on_hosts`, but what one host's variables, connection or anything else raises in the main process is that host's outcome."""
        try:
            return self._on_hosts(hosts, action, arguments)
        except Exception as error:
            if len(hosts) == 1:
                sentence = str(error) or type(error).__name__
                return {hosts[0]: inner_play.Outcome(inner_play.FAILED, sentence, "")}
            return {name: outcome for host in hosts for name, outcome in self._ask([host], action, arguments).items()}

    def _transaction(self, host: str) -> OpenTransaction | None:
        if host in self._ended:
            return None
        found = self._ledger.open_transaction(host)
        return found if found is not None and found.held_by == "play" else None

    def _refuse(self, host: str, outcome: inner_play.Outcome | None) -> None:
        sentence = outcome.message if outcome else "the controller was stopped before the host answered."
        report = reports.Report(host=host, play=self._play.get_name(), outcome=reports.REFUSED, reason=sentence)
        self._refused[host] = report
        if outcome is not None and outcome.status == inner_play.UNREACHABLE:
            self._tqm._unreachable_hosts[host] = True
            self._tqm._stats.increment("dark", host)
        else:
            self._mark_failed(host)
        display.error(f"{host}: no transaction, so no task is run there: {sentence}")

    def _mark_failed(self, host: str) -> None:
        if host not in self._tqm._failed_hosts and host not in self._tqm._unreachable_hosts:
            self._tqm._failed_hosts[host] = True
            self._tqm._stats.increment("failures", host)

    def _why_undo(self, host: str) -> str:
        """Empty when the host may commit. Statistics count too: `meta: clear_host_errors` hides a failure from the other lists, and where
        Ansible's recap and exit code know of none, people have to be told why the host was rolled back all the same."""
        if host in self._why:
            return self._why[host]
        damage = self._ledger.damage(host)
        if damage:
            self._mark_failed(host)  # for Ansible all may have been well there
            return damage
        failures, dark = self._before.get(host, (0, 0))
        forgiven = f"; what let {host} go on, such as 'meta: clear_host_errors', does not let its transaction commit"
        if host in self._tqm._unreachable_hosts:
            return "the host became unreachable"
        if self._tqm._stats.dark.get(host, 0) > dark:
            return f"the host became unreachable{forgiven}"
        if host in self._tqm._failed_hosts:
            return "a task failed"
        if self._tqm._stats.failures.get(host, 0) > failures:
            return f"a task failed{forgiven}"
        bypassed = next((event.data["reason"] for event in self._ledger.since_begin(host) if event.kind == BYPASSED), "")
        if bypassed:
            self._mark_failed(host)  # for Ansible all was well there
        return bypassed

    def _end(self, action: str, hosts: list[str], more: dict[str, Any] | None = None) -> dict[str, str]:
        """The sentence of each host where it did not work."""
        outcomes = self._ask(hosts, action, {**HELD_BY, **(more or {})})
        how = reports.COMMITTED if action == "tx_commit" else reports.ROLLED_BACK
        self._ended.update({host: (how, ended.summary) for host, ended in outcomes.items() if ended.summary})
        return {host: self._sentence(host, outcomes) for host in hosts if self._transaction(host) is not None}

    def _sentence(self, host: str, outcomes: dict[str, inner_play.Outcome]) -> str:
        if host in outcomes:
            return outcomes[host].message
        if self._tqm._inventory.get_host(host) is None:
            return "the host is gone from the inventory since the play began, so it could not be reached"
        return "no answer"

    def _outcome(self, host: str, outcome: str) -> str:
        rehearsed = self.plans[host].rehearse and outcome == reports.ROLLED_BACK and not self._stopped
        return reports.REHEARSED if rehearsed else outcome

    def _report(self, transaction: OpenTransaction, reason: str, failures: dict[str, str]) -> reports.Report:
        host, play = transaction.host, self._play.get_name()
        events = self._ledger.since_begin(host)
        outside = list(dict.fromkeys(event.data["what"] for event in events if event.kind == OUTSIDE))
        why = failures.get(host) or "the controller was stopped before the host answered"
        ended = self._ended.get(host) or self._noted_end(transaction, events)
        if ended is not None:
            outcome, summary = self._outcome(host, ended[0]), ended[1]
            quiet = outcome == reports.COMMITTED and self.plans[host].irreversible == fence.ALLOW
            told = [] if quiet else outside
            refused = summary.get("refused")
            if refused and not reason:  # for Ansible all was well there
                self._mark_failed(host)
                reason = f"it could not have been committed: {refused}"
            try:
                return reports.of_summary(host, play, outcome, summary, reason=reason, outside=told)
            except (KeyError, TypeError, ValueError, AttributeError) as error:
                why = f"the host says that it is {outcome.replace('_', ' ')}, and the rest of its answer makes no sense ({error!r})"
        return replace(
            reports.Report(host=host, play=play, outcome=reports.LEFT_TO_HOST, tx=transaction.tx, reason=f"{why.rstrip('.')}."),
            steps=len(self._ledger.steps(host)),
            irreversible=outside,
            lease=transaction.lease,
        )

    @staticmethod
    def _noted_end(transaction: OpenTransaction, events: list[Event]) -> tuple[str, dict[str, Any]] | None:
        """Of a worker whose result did not reach us, because a signal came."""
        for event in events:
            if event.kind == ENDED and event.data["tx"] == transaction.tx:
                return str(event.data["outcome"]), event.data["summary"]
        return None
