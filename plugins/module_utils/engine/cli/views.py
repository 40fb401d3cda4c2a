# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The verbs that only look: list, show, diff, log. Each collects one JSON object, and renders it unless --json is given."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from ..errors import NoTransaction
from ..journal import PATH, Journal
from ..paths import STATE
from . import debts, diff, each, list, log, show, verbs

Verb = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]
View = Callable[[argparse.Namespace, Journal], "dict[str, Any]"]


def add(verb: Verb) -> None:
    """Add them to acidctl's parser."""
    verb("list", _printer(_list, list.render), "The transactions that this host knows, newest first.")
    one = verb("show", _printer(_show, show.render), "The steps of a transaction, and what each touched.")
    _takes_transaction(one)
    one.add_argument("--paths", action="store_true", help=f"name every path, not the first {show.LISTED} of each step")
    one.add_argument("--all", action="store_true", help="also paths that ended as they began")
    difference = verb("diff", _printer(_diff, _render_diff), "What a transaction, or one step of it, changed.")
    _takes_transaction(difference)
    difference.add_argument("step", nargs="?", type=int, default=None, help="number of the step (all of them)")
    difference.add_argument(
        "--secrets", action="store_true", help="also the content of no_log steps and of files that not everybody may read"
    )
    difference.add_argument("--all", action="store_true", help="also files that were written again with what they had held")
    difference.add_argument("--each", action="store_true", help="step by step")
    verb("debts", _printer(_debts, debts.render), "Compensations that are owed.")
    _takes_transaction(verb("log", _printer(_log, log.render), "What happened when in a transaction."))


def _takes_transaction(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("tx", nargs="?", default="", metavar="TX", help="id of the transaction (the newest)")


def _printer(view: View, render: Callable[[dict[str, Any]], str]) -> Callable[[argparse.Namespace], int]:
    def show_it(arguments: argparse.Namespace) -> int:
        if not os.path.exists(PATH):
            raise NoTransaction(f"There has been no transaction on this host: {PATH} is not there.")
        journal = Journal()
        try:
            data = view(arguments, journal)
        finally:
            journal.close()
        sys.stdout.write(json.dumps(data) + "\n" if arguments.json else render(data))
        return 0

    return show_it


def _transaction(arguments: argparse.Namespace, journal: Journal) -> str:
    if arguments.tx:
        return str(arguments.tx)
    known = journal.transactions()
    if not known:
        raise NoTransaction("There has been no transaction on this host.")
    return known[-1].id


def _list(_arguments: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    return list.collect(journal)


def _show(arguments: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    return show.collect(journal, _transaction(arguments, journal), state_dir=STATE, every_path=arguments.paths, every=arguments.all)


def _diff(arguments: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    request = verbs.request_of(arguments)
    arguments.tx = str(request.get("tx") or arguments.tx)
    if request.get("each") or arguments.each:
        return each.collect(journal, _transaction(arguments, journal), state_dir=STATE, secrets=arguments.secrets)
    return diff.collect(
        journal, _transaction(arguments, journal), arguments.step, state_dir=STATE, secrets=arguments.secrets, every=arguments.all
    )


def _debts(_arguments: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    return debts.collect(journal)


def _render_diff(data: dict[str, Any]) -> str:
    return each.render(data) if "each" in data else diff.render(data)


def _log(arguments: argparse.Namespace, journal: Journal) -> dict[str, Any]:
    return log.collect(journal, _transaction(arguments, journal))
