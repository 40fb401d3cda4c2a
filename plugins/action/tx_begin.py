# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Controller side of acid.host.tx_begin."""

from __future__ import annotations

from typing import Any

from ansible_collections.acid.host.plugins.plugin_utils import lifecycle
from ansible_collections.acid.host.plugins.plugin_utils.hostcommand import HostError
from ansible_collections.acid.host.plugins.plugin_utils.options import NAMES, OptionError, Options, override, parse
from ansible_collections.acid.host.plugins.plugin_utils.tx_action import TxAction


class ActionModule(TxAction):
    ARGUMENTS = {
        **{name: {"type": "raw"} for name in NAMES},
        "_held_by": {"type": "str", "default": "tasks"},
        "_may_wait": {"type": "bool", "default": False},
    }

    def act(self, arguments: dict[str, Any], task_vars: dict[str, Any]) -> dict[str, Any]:
        held_by, may_wait = arguments.pop("_held_by"), arguments.pop("_may_wait")
        options = parse(True, defaults=override(Options(), arguments, where="acid.host.tx_begin")) or Options()
        if options.rehearse and held_by == "tasks":
            raise OptionError("'rehearse' is the callback's: enable acid.host.transaction, and it rehearses whole plays, unchanged")
        before = self.open_transaction(task_vars)
        if before is not None:
            raise HostError(
                "busy",
                f"The transaction {before.tx} of this play is open on {before.host} already.",
                "Commit or roll it back first"
                + (", or set 'acid_transaction: false' on the play: the callback began it." if before.held_by == "play" else "."),
            )
        if self._task.check_mode:
            return {"changed": False, "skipped": True, "msg": "A transaction would be begun here; check mode changes nothing, so none is."}
        host = self.host(task_vars)
        transaction, answer = lifecycle.begin(self, task_vars, host=host, options=options, held_by=held_by, may_wait=may_wait)
        return {
            "changed": False,
            "tx": transaction.tx,
            "state": answer.get("state"),
            "engine": transaction.engine,
            "seconds": answer.get("seconds"),
        }
