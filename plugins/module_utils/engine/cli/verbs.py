# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The verbs of acidctl: parse, ask the agent or do it here, print. Exit code 0, or the one of the error's class."""

from __future__ import annotations

import argparse
import base64
import contextlib
import getpass
import json
import os
import pwd
import sys
import typing as t

from .. import formats, health, ownership, recovery, retention, states, units, verify
from ..drift.verdict import POLICIES
from ..errors import AcidError, AgentUnavailable, FormatUnknown, NoTransaction, NotRoot, UndoFailed, Usage, WrongState
from ..journal import PATH, Journal
from ..leftovers import kill_leftovers
from ..model import Summary
from ..paths import directory_of, own_hash
from ..probes.registry import Probes, choose
from ..rollback import Manner, keep_reserve, refuse, roll_back
from . import client, debts

Answer = dict[str, t.Any]


def main(argv: list[str]) -> int:
    arguments = _parser().parse_args(argv)
    try:
        if os.geteuid() != 0:
            raise NotRoot("acidctl must be run as root.", hint="Use sudo.")
        return int(arguments.function(arguments) or 0)
    except AcidError as error:
        if arguments.json:
            say(json.dumps({"error": error.to_json()}))
        else:
            sys.stderr.write("acidctl: %s\n" % error)
        return error.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="acidctl", description="Transactions of this host (acid.host).")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(name: str, function: t.Callable[[argparse.Namespace], int | None], text: str) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=text, description=text)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        sub.add_argument("--request", default="", help=argparse.SUPPRESS)
        sub.set_defaults(function=function)
        return sub

    verb("begin", _begin, "Begin a transaction (the controller does this).")
    verb("savepoint", _to_agent, "Mark a point to which a transaction can be rolled back.").set_defaults(op="savepoint")
    verb("armed", _to_agent, "Whether these steps ran under the shim (the controller does this).").set_defaults(op="armed")
    verb("commit", _to_agent, "Commit the open transaction.").set_defaults(op="commit")
    verb("compensate", _to_agent, "Record a compensation, or its step's result (the controller does this).").set_defaults(op="compensate")
    verb("compensated", _compensated, "Say how a compensation went (the controller does this).")
    verb("denied", _to_agent, "What was refused since this was last asked (the controller does this).").set_defaults(op="denied")
    verb("doom", _to_agent, "Make sure that the open transaction can only be rolled back.").set_defaults(op="doom")
    verb("reboot", _to_agent, "A planned reboot follows (the controller does this).").set_defaults(op="reboot")
    verb("rebooted", _rebooted, "The planned reboot is over (the controller does this).")
    confirm = verb("confirm", _confirm, "Renew the lease of the open transaction.")
    confirm.add_argument("tx", nargs="?", default="")
    confirm.add_argument("--extend", type=float, default=0.0, metavar="SECONDS", help="Wait at least so long for the controller.")
    confirm.add_argument("--cancel", action="store_true", help="Wait for ever; the next `acidctl confirm` ends that.")
    rollback = verb("rollback", _rollback, "Roll back the open transaction, or a committed one within its retention.")
    rollback.add_argument("tx", nargs="?", default="")
    rollback.add_argument("--to", default="", metavar="SAVEPOINT")
    rollback.add_argument("--on-drift", default="", choices=POLICIES, help="What becomes of paths that others have changed since.")
    verb("info", _info, "The open transaction, if there is one.").add_argument("tx", nargs="?", default="")
    recover = verb("recover", _recover, "Undo what a crash left open.")
    recover.add_argument("--boot", action="store_true", help=argparse.SUPPRESS)
    recover.add_argument("--lease", action="store_true", help=argparse.SUPPRESS)
    resolve = verb("resolve", _resolve, "Take on what an undo could not bring back.")
    resolve.add_argument("tx")
    resolve.add_argument("--reason", default="resolved by %s" % getpass.getuser())
    verb("verify", _verify, "Check journal and undo logs.").add_argument("tx", nargs="?", default="")
    collect = verb("gc", _gc, "Drop images beyond their retention.")
    collect.add_argument("--days", type=float, default=None)
    verb("health", _health, "Whether this host can have a transaction.")
    verb("install", _install, "Write and enable the systemd units.")
    verb("uninstall", _uninstall, "Remove the systemd units; refused while a transaction is open, or not undone.")
    verb("agent", _agent, "Run the agent in the foreground (systemd does this).")
    from . import views

    views.add(verb)
    return parser


def say(text: str) -> None:
    sys.stdout.write(text + "\n")


def request_of(arguments: argparse.Namespace) -> Answer:
    if not arguments.request:
        return {}
    try:
        text = sys.stdin.readline() if arguments.request == "-" else arguments.request
        request = json.loads(base64.b64decode(text))
    except ValueError as error:
        raise Usage("--request is not base64 of JSON.") from error
    if not isinstance(request, dict):
        raise Usage("--request is not a JSON object.")
    return request


def show(arguments: argparse.Namespace, answer: Answer) -> int:
    """Print the agent's answer, raising its error."""
    error = answer.get("error")
    if error is not None:
        if arguments.json:
            say(json.dumps({"error": error}))
        else:
            sys.stderr.write("acidctl: %s %s\n" % (error["msg"], error["hint"]))
        return int(answer.get("code", AcidError.exit_code))
    if arguments.json:
        say(json.dumps(answer))
    else:
        for key, value in answer.items():
            if value not in ([], "", None):
                say("%s: %s" % (key, value))
    return 0


def _begin(arguments: argparse.Namespace) -> int:
    health.check()
    request = request_of(arguments)
    options = dict(request.get("options") or {})
    if options.get("durability", "process") not in ("process", "power"):
        raise Usage("durability: %s is none of process, power." % options["durability"])
    choose(options.get("probes"))
    named = [*options.get("exclude", []), *request.get("exclude", [])]
    options["exclude"] = [path for path in map(os.path.expanduser, named) if path.startswith("/")]  # only the host knows its homes
    wish = {"op": "begin", "name": request.get("name", ""), "owner": request.get("owner", ""), "options": options}
    wish["uid"] = _login(str(request.get("login", "")))
    try:
        answer = client.start_and_ask(wish, may_repeat=lambda: Journal().open_transaction() is None)
    except AgentUnavailable:
        if os.path.exists(PATH):
            Journal().verify()  # where the journal is what keeps the agent from starting, that is what is to be said
        raise
    return show(arguments, answer)


def _login(name: str) -> int:
    """Whose door it is: the user that the controller logs in as, who became root."""
    with contextlib.suppress(KeyError, ValueError):
        return pwd.getpwnam(name).pw_uid if name else int(os.environ.get("SUDO_UID", "0"))
    return 0


def _to_agent(arguments: argparse.Namespace) -> int:
    request = request_of(arguments)
    answer = client.ask({**request, "op": arguments.op})
    if answer is None:
        _raise_no_agent(str(request.get("tx", "")))
    return show(arguments, t.cast(Answer, answer))


def _confirm(arguments: argparse.Namespace) -> int:
    request = request_of(arguments)
    by_hand = {"tx": arguments.tx, "extend": arguments.extend, "cancel": arguments.cancel}
    answer = client.ask({**by_hand, **request, "op": "confirm"})
    if answer is None:
        _raise_no_agent(str(request.get("tx", "") or arguments.tx))
    return show(arguments, t.cast(Answer, answer))


def _rebooted(arguments: argparse.Namespace) -> int:
    """In a fresh boot there is no agent yet."""
    request = request_of(arguments)
    value = _journal().get(str(request["tx"]))
    if value.state not in (states.WAITING_REBOOT, states.ACTIVE):
        _raise_no_agent(value.id)
    return show(arguments, client.start_and_ask({**request, "op": "rebooted"}, may_repeat=lambda: True))


def _raise_no_agent(tx: str) -> None:
    """No agent: then no transaction is open, or the host has just been booted."""
    journal = _journal()
    value = journal.get(tx) if tx else journal.open_transaction()
    if value is None:
        raise NoTransaction("No transaction is open on this host.")
    raise WrongState(
        "Transaction %s is %s%s." % (value.id, value.state, ": " + value.reason if value.reason else ""),
        hint="acidctl show %s tells more." % value.id,
    )


def _journal() -> Journal:
    if not os.path.exists(PATH):
        raise NoTransaction("There has been no transaction on this host (no %s)." % PATH)
    return Journal()


def _rollback(arguments: argparse.Namespace) -> int:
    request = {"tx": arguments.tx, "to": arguments.to, "on_drift": arguments.on_drift, **request_of(arguments)}
    if connected := client.connect():
        connected.close()
    else:
        journal = recovery.open_journal() if os.path.exists(PATH) else _journal()
        value = journal.get(request["tx"]) if request["tx"] else journal.open_transaction()
        if value is None:
            raise NoTransaction(
                "No transaction is open on this host.", hint="acidctl list shows committed ones, which can be rolled back by their id."
            )
        if value.state == states.ABORTED:
            return _ended(arguments, roll_back(journal, value.id, Manner("")))
    wish = {**{key: value for key, value in request.items() if value not in ("", None)}, "op": "rollback"}
    answer = client.start_and_ask(wish, may_repeat=lambda: True)
    if answer.get("error", {}).get("class") == FormatUnknown.kind:
        return _by_this_engine(arguments, str(request.get("tx", "")), answer)
    return show(arguments, answer) if "error" in answer else _ended(arguments, Summary.from_json(answer))


def _by_this_engine(arguments: argparse.Namespace, tx: str, answer: Answer) -> int:
    """The agent is of another version, and cannot undo it. This engine may be the one that wrote it."""
    journal = _journal()
    value = journal.get(tx) if tx else journal.open_transaction()
    if value is None or not formats.known(directory_of(value.id)):
        return show(arguments, answer)
    with ownership.owned(directory_of(value.id)):
        refuse(journal, value.id)
        kill_leftovers(journal, value.id)
        return _ended(arguments, roll_back(journal, value.id, Manner("asked for")))


def _compensated(arguments: argparse.Namespace) -> int:
    """A success must not be lost, even when the agent has gone idle meanwhile."""
    return show(arguments, client.start_and_ask({**request_of(arguments), "op": "compensated"}, may_repeat=lambda: True))


def _ended(arguments: argparse.Namespace, done: Summary) -> int:
    if arguments.json:
        say(json.dumps(done.to_json()))
    else:
        say("%s: %s, %d paths, %.2f s" % (done.tx, done.state, done.paths, done.seconds))
        for sentence in done.differs:
            say("  differs: %s" % sentence)
        for sentence in done.extra.get("told", ()):
            say("  note: %s" % sentence)
    return 0 if done.state != states.UNDO_FAILED else UndoFailed.exit_code


def _info(arguments: argparse.Namespace) -> int:
    request = request_of(arguments)
    tx = arguments.tx or request.get("tx", "")
    answer: Answer = {"open": None, "debts": [], "engine": own_hash()}
    if os.path.exists(PATH):
        journal = Journal()
        value = journal.open_transaction()
        answer["open"] = None if value is None else value.to_json()
        answer["debts"] = debts.owing(journal)
        if tx:
            answer["transaction"] = journal.get(tx).to_json()
            answer["savepoints"] = [point.to_json() for point in journal.savepoints(tx)]
    return show(arguments, answer)


def _recover(arguments: argparse.Namespace) -> int:
    if not os.path.exists(PATH):
        return show(arguments, {"recovered": None})
    journal = recovery.open_journal()
    value = journal.open_transaction()
    if value is None:
        retention.release_left_reserves(journal)
        keep_reserve(journal)
        return show(arguments, {"recovered": None})
    if arguments.lease:
        done = recovery.at_lease_end(journal, agent_answers=client.answers)
        return show(arguments, {"recovered": None}) if done is None else _ended(arguments, done)
    if arguments.boot or client.connect() is None:
        done = recovery.at_boot(journal, agent_listens=client.listens)
        return show(arguments, {"recovered": None}) if done is None else _ended(arguments, done)
    raise WrongState("Transaction %s is open and its agent runs: this is no crash." % value.id, hint="acidctl rollback ends it.")


def _resolve(arguments: argparse.Namespace) -> int:
    journal = _journal()
    with ownership.owned(directory_of(arguments.tx)):  # an undo that is tried again may be under way
        value = journal.set_state(arguments.tx, states.RESOLVED, reason=arguments.reason)
    keep_reserve(journal)
    return show(arguments, {"tx": value.id, "state": value.state})


def _verify(arguments: argparse.Namespace) -> int:
    journal = _journal()
    journal.verify()
    chosen = [journal.get(arguments.tx)] if arguments.tx else journal.transactions()
    records = {value.id: verify.check(journal, value) for value in chosen if value.images}
    return show(arguments, {"transactions": len(records), "records": sum(records.values())})


def _gc(arguments: argparse.Namespace) -> int:
    limits = retention.Limits(days=arguments.days) if arguments.days is not None else None
    return show(arguments, {"dropped": retention.gc(_journal(), limits=limits)})


def _health(arguments: argparse.Namespace) -> int:
    health.check()
    answer: Answer = {"healthy": True, "engine": own_hash(), "kernel": os.uname().release, "agent": client.connect() is not None}
    # A probe that does not apply is no illness: the host has nothing of that kind.
    answer["probes"] = {probe.name: probe.check() or "applies" for probe in Probes().before_files()}
    return show(arguments, answer)


def _install(arguments: argparse.Namespace) -> int:
    return show(arguments, {"engine": own_hash(), "changed": units.install()})


def _uninstall(arguments: argparse.Namespace) -> int:
    answer = client.ask({"op": "ping"})
    if answer is not None and answer.get("left_behind"):
        raise WrongState(
            "%d step(s) of ended transactions have left processes running, and the agent answers their calls." % answer["left_behind"],
            hint="Restart those services first: they keep their filter as long as they live.",
        )
    if os.path.exists(PATH):
        journal = Journal()
        value = journal.open_transaction()
        if value is not None:
            raise WrongState("Transaction %s is %s." % (value.id, value.state), hint="End it first: acidctl rollback.")
        for ended in journal.transactions():
            if ended.state == states.UNDO_FAILED:
                hint = "Its images would go too: finish it (acidctl rollback %s), or accept the host as it is (acidctl resolve %s)."
                raise WrongState("Transaction %s is not undone." % ended.id, hint=hint % (ended.id, ended.id))
        for ended in journal.transactions():
            if (ended.images or os.path.isdir(directory_of(ended.id))) and not retention.drop(journal, ended):
                raise WrongState("Images of transaction %s cannot be removed." % ended.id, hint="Is a file system read-only?")
        journal.close()
    return show(arguments, {"changed": units.uninstall()})


def _agent(arguments: argparse.Namespace) -> int:
    from .. import agent

    return agent.main()
