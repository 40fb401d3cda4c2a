# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Begin, savepoint, commit and rollback on one host, as the tx_* actions call them in a worker process.

Each writes the ledger when the host has answered. If the worker dies between the host's answer and the ledger's line, a begun
transaction has no owner any more and ends by its lease; a committed or rolled-back one is reported as left to the host.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import posixpath
import socket
import time
import uuid
from collections.abc import Callable
from typing import Any

from ansible.utils.display import Display

from . import compensating, connections, delivery, door, elevation, paths, rehearsal
from .hostcommand import HostCommand, HostError, NotInstalled
from .ledger import BEGUN, ENDED, REFUSED, WAITING, Ledger, OpenTransaction
from .options import Options

display = Display()

COMMITTED = "committed"
ROLLED_BACK = "rolled_back"


# The request is one word of a command line, which Linux limits to 128 KiB: more steps than that are asked about in several.
MOST_STEPS = 2000

ORPHAN_PAUSE = 2.0  # seconds; a warm begin takes less than one

NO_PYTHON = ("no-python", "missing-python")


def begin(
    action: Any, task_vars: dict[str, Any], *, host: str, options: Options, held_by: str, may_wait: bool = False
) -> tuple[OpenTransaction, dict[str, Any]]:
    """Open a transaction on the action's host, and install the engine there first where it is missing. Raises HostError.

    With `may_wait` a host that has no Python for it yet is put down as waiting: `tasks.py` begins as soon as a task needs Python."""
    ledger = Ledger.of_this_run()
    try:
        return _begin(action, task_vars, host=host, options=options, held_by=held_by, ledger=ledger)
    except HostError as error:
        with contextlib.suppress(OSError):  # without the note no transaction is known, so no task is run
            if may_wait and error.kind in NO_PYTHON and options.policy != "deny":
                ledger.append(host, WAITING, msg=str(error), options=options.to_json())
            else:
                ledger.append(host, REFUSED, kind=error.kind, msg=str(error))
        raise


def _begin(
    action: Any, task_vars: dict[str, Any], *, host: str, options: Options, held_by: str, ledger: Ledger
) -> tuple[OpenTransaction, dict[str, Any]]:
    why = connections.refusal(action._connection)
    if why:
        raise HostError("connection", f"{why[0].upper()}{why[1:]}.", "Set 'acid_transaction: false' for this host to leave it out.")
    command = HostCommand(action, task_vars)
    engine = delivery.engine().hash
    started = time.monotonic()
    known = {**options.for_host(), "heartbeat": held_by == "play"}
    request = {"name": options.name, "owner": owner(), "options": known, "exclude": [*options.exclude, *remote_tmp(action)]}
    request["login"] = command.login.name
    try:
        answer = command.run("begin", request, engine=engine)
    except NotInstalled:
        delivery.deliver(action, task_vars, command)
        answer = command.run("begin", request, engine=engine)
    door_of = answer.pop("door", None) or {}
    transaction = OpenTransaction(
        host=host,
        tx=str(answer["tx"]),
        token=int(answer["token"]),
        engine=engine,
        name=options.name,
        held_by=held_by,
        login=command.login.name,
        login_is_root=bool(command.login.root),
        connection=connections.short_name(action._connection),
        address=connections.address_of(action),
        lease=options.confirm_timeout,
        irreversible=options.policy,
        door=str(door_of.get("file", "")),
        door_secret=str(door_of.get("secret", "")),
    )
    try:
        ledger.begun(transaction)
    except OSError as error:
        command.run("rollback", {"tx": transaction.tx, "token": transaction.token}, engine=engine)
        raise HostError("controller", f"the controller cannot take notes: {error}.", "Is its temporary directory full?") from error
    return transaction, {**answer, "seconds_seen": round(time.monotonic() - started, 3)}


def end(
    action: Any,
    task_vars: dict[str, Any],
    transaction: OpenTransaction,
    *,
    outcome: str,
    rehearsed: bool = False,
    on_drift: str = "",
) -> dict[str, Any]:
    """Commit or roll back; the answer is the host's summary. `rehearsed`: first ask what each step changed, and why a commit would have
    been refused (the summary's `refused`). Raises HostError, and then the transaction is as it was before the call, or the host says
    otherwise in the error."""
    ledger = Ledger.of_this_run()
    request: dict[str, Any] = {"tx": transaction.tx, "token": transaction.token}
    if outcome == COMMITTED:
        damage = ledger.damage(transaction.host)
        if damage:
            raise HostError("controller", f"{damage[0].upper()}{damage[1:]}.", "Roll it back.")
        steps = ledger.steps(transaction.host)
        while len(steps) > MOST_STEPS:
            call(action, task_vars, transaction, "armed", {**request, "steps": steps[:MOST_STEPS]})
            steps = steps[MOST_STEPS:]
        summary = call(action, task_vars, transaction, "commit", {**request, "steps": steps})
    else:
        request.update(_policy(on_drift))

        def say(verb: str, more: dict[str, Any]) -> dict[str, Any]:
            return call(action, task_vars, transaction, verb, more)

        refused = rehearsal.ask(say, request) if rehearsed else ""
        try:
            summary = _undo(action, task_vars, say, transaction.host, request)
        except HostError as error:
            if not door.may_help(error, transaction):
                raise
            summary = door.roll_back(HostCommand(action, task_vars), transaction, error)
        summary = {**summary, **({"refused": refused} if refused else {})}
    try:
        ledger.append(transaction.host, ENDED, tx=transaction.tx, outcome=outcome, summary=summary)
    except OSError as error:
        if transaction.held_by != "play":  # which hears of it by our result
            raise HostError("controller", f"{transaction.tx} has ended, and the controller cannot note it: {error}.") from error
    return summary


def savepoint(action: Any, task_vars: dict[str, Any], transaction: OpenTransaction, *, name: str) -> dict[str, Any]:
    return call(action, task_vars, transaction, "savepoint", {"tx": transaction.tx, "token": transaction.token, "name": name})


def roll_back_to(action: Any, task_vars: dict[str, Any], transaction: OpenTransaction, *, name: str, on_drift: str = "") -> dict[str, Any]:
    """Undo what came after the savepoint; the transaction stays open."""
    request = {"tx": transaction.tx, "token": transaction.token, "to": name, **_policy(on_drift)}
    return _undo(action, task_vars, lambda verb, more: call(action, task_vars, transaction, verb, more), transaction.host, request)


def _policy(on_drift: str) -> dict[str, Any]:
    """Instead of the transaction's own option, when there is one."""
    return {"on_drift": on_drift} if on_drift else {}


def roll_back_ended(action: Any, task_vars: dict[str, Any], *, tx: str, any_controller: bool = False, on_drift: str = "") -> dict[str, Any]:
    """Undo a transaction that committed, or that another run left open, or go on with one whose compensations are owed."""
    command = HostCommand(action, task_vars)

    def say(verb: str, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return command.run(verb, request, engine=delivery.engine().hash)
        except NotInstalled:
            delivery.deliver(action, task_vars, command)
            return command.run(verb, request, engine=delivery.engine().hash)

    return _undo(
        action, task_vars, say, str(task_vars["inventory_hostname"]), {"tx": tx, **_policy(on_drift)}, any_controller=any_controller
    )


def _undo(
    action: Any,
    task_vars: dict[str, Any],
    say: Callable[[str, dict[str, Any]], dict[str, Any]],
    host: str,
    request: dict[str, Any],
    *,
    any_controller: bool = False,
) -> dict[str, Any]:
    """The host undoes as far as the next compensation that only a controller can run, and is told how that went. If we die here, the host
    waits for the end of its claim, and goes on by itself."""
    session = uuid.uuid4().hex
    while True:
        answer = say("rollback", {**request, "session": session})
        if "busy" in answer:
            display.v(f"{host}: compensation '{answer['busy']['name']}' is being run by another controller")
            time.sleep(min(5.0, max(0.5, float(answer["busy"]["seconds"]))))
            continue
        handed = answer.get("compensate")
        if handed is None:
            return answer
        display.v(f"{host}: compensation '{handed['name']}', attempt {handed['attempts']}")
        problem = compensating.pay(action, task_vars, handed, host=host, tx=request["tx"], any_controller=any_controller)
        said = say("compensated", {"tx": request["tx"], "id": handed["id"], "claim": handed["claim"], "problem": problem})
        time.sleep(float(said["wait"]))


def roll_back_orphan(action: Any, task_vars: dict[str, Any]) -> dict[str, Any]:
    """Undo a transaction of this very run of which the controller knows nothing, because it was stopped while the host began it."""
    for pause in (0, ORPHAN_PAUSE):
        time.sleep(pause)  # the host may still be at it
        found = info(action, task_vars, tx=None).get("open")
        if found and found.get("owner") == owner():
            return roll_back_ended(action, task_vars, tx=str(found["tx"]))
    return {}


def info(action: Any, task_vars: dict[str, Any], *, tx: str | None) -> dict[str, Any]:
    """What the host's journal says. A host without an engine has no transactions."""
    command, request = HostCommand(action, task_vars), {"tx": tx} if tx else {}
    for engine in (delivery.engine().hash, paths.CURRENT):  # a host that only another version of the collection has met is asked too
        try:
            return command.run("info", request, engine=engine)
        except NotInstalled:
            continue
    return {"open": None, "engine": None}


def owner() -> str:
    """Shown to whoever finds the host busy."""
    return f"{getpass.getuser()}@{socket.gethostname()} ansible[{os.getppid()}]"


# Where a task's own files may lie too. Left out as a whole, nothing done there would be undone, and nobody would say so.
SHARED = ("/dev/shm", "/run/lock", "/run/shm", "/run/user", "/usr/local", "/var/cache", "/var/lib", "/var/log", "/var/spool", "/var/tmp")


def remote_tmp(action: Any) -> list[str]:
    """Ansible's own temporary directories on the host: never part of a transaction. None where they are made in a directory that is not
    Ansible's alone (remote_tmp = /tmp): the trace knows whole directories only, so images of the temporary files are made there too."""
    folder = posixpath.normpath(str(action.get_shell_option("remote_tmp", default="~/.ansible/tmp")))
    if not _is_ansibles(folder):
        return []
    if not folder.startswith("~/"):
        return [folder]
    users = dict.fromkeys(user for user in (elevation.login_of(action).name, action.get_become_option("become_user"), "root") if user)
    return [f"~{user}/{folder[2:]}" for user in users]


def _is_ansibles(folder: str) -> bool:
    """Not a home, nor a directory at the top (/tmp, /srv, ...), nor one that others are known to use, nor one with such a one in it."""
    above, _dummy, _name = folder.rpartition("/")
    return above not in ("", "/", "/home") and folder not in SHARED


def call(action: Any, task_vars: dict[str, Any], transaction: OpenTransaction, verb: str, request: dict[str, Any]) -> dict[str, Any]:
    """One request to the transaction's host, over the action's own connection, which must lead there."""
    login = elevation.Login(transaction.login, transaction.login_is_root)
    return HostCommand(action, task_vars, login=login).run(verb, request, engine=transaction.engine)


__all__ = ["BEGUN", "COMMITTED", "ROLLED_BACK", "begin", "end", "info", "owner", "roll_back_ended", "roll_back_to", "savepoint"]
