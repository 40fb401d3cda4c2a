# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state of systemd's units: PID 1's, and those of users whose own systemd runs.

Users' services stop before the system's and start after them. A reload that went past systemd (kill -HUP, nginx -s reload) leaves no trace
in its state and is not seen, unless the service tells systemd of it.
"""

from __future__ import annotations

import contextlib
import functools
import os
import threading
from collections.abc import Callable

from ..errors import ProbeFailed
from . import shelf, transient
from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe
from .lingering import linger_again, lingering, running, stays, stop_lingering
from .systemctl import QUERY, Systemctl
from .unitstate import Unit
from .unitundo import UnitUndo, read_units


class Systemd(Probe):
    name = "systemd"

    def __init__(self) -> None:
        self._system = Systemctl()
        # By uid; None is PID 1's. Made in the first half of an undo, for what the second has to know of it.
        self._undos: dict[int | None, tuple[Image | None, UnitUndo]] = {}

    def capture(self) -> Image:
        if not os.path.isdir("/run/systemd/system"):
            return {"managed": False, "units": {}}
        users = running()
        others: dict[int, Image] = {}

        def look(uid: int) -> None:
            with contextlib.suppress(ProbeFailed):  # a user may log out at any moment, and the manager ends with it
                others[uid] = _look(Systemctl(uid))

        # Each manager is a process of its own, and takes its time.
        threads = [threading.Thread(target=look, args=(uid,)) for uid in users]
        for thread in threads:
            thread.start()
        try:
            found = _look(self._system)
        finally:
            for thread in threads:
                thread.join()
        return {
            "managed": True,
            **found,
            "users": {str(uid): {"invocation": users[uid], **seen} for uid, seen in sorted(others.items())},
            "lingering": lingering(),
            "shelves": shelf.look(),
        }

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        if not before["managed"]:
            return []
        if not now["managed"]:
            return ["systemd was PID 1, and is not."]
        if circumstances.at_boot or _of_another_boot(circumstances):
            return []
        sentences = self._undo(None, before, circumstances).differences(read_units(now["units"]), circumstances)
        for uid in self._same_users(before, now):
            seen = read_units(now["users"][str(uid)]["units"])
            found = self._undo(uid, before, circumstances).differences(seen, circumstances)
            sentences += found if found and stays(uid, _invocation(before, uid)) else []
        return sentences + [
            f"The services of user {user} run without a login, and did not." for user in _born_lingering(before, now, circumstances)
        ]

    def before_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        if not before["managed"] or circumstances.at_boot or _of_another_boot(circumstances):
            return NOTHING
        outcome = NOTHING
        for user in _born_lingering(before, {"lingering": lingering()}, circumstances):
            outcome += stop_lingering(user)
        for uid in self._same_users(before):
            outcome += _unless_it_ends(self._undo(uid, before, circumstances).stop, circumstances, uid, _invocation(before, uid))
        return outcome + _or_failure(self._undo(None, before, circumstances).stop, circumstances)

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        if not before["managed"]:
            return NOTHING
        outcome = NOTHING
        if not circumstances.at_boot and not _of_another_boot(circumstances):
            outcome += self._files_of_managers(before, circumstances)
        # A unit file that is back is older than what systemd has read, so it would not notice.
        if circumstances.rereads:
            outcome += _reload(self._system)
        if circumstances.at_boot:
            return outcome + _boot_again(self._system)
        if _of_another_boot(circumstances):
            return outcome + Outcome(notes=("The host has rebooted since: services that are up run on as they were started at boot.",))
        outcome += _or_failure(self._undo(None, before, circumstances).bring_back, circumstances)
        for user in sorted(set(before["lingering"]) - set(lingering())):
            if circumstances.left is None or user not in circumstances.left["lingering"]:
                outcome += linger_again(user, shelf.mtime_ns(before["shelves"], shelf.LINGER, user))
        for uid in self._same_users(before):
            if circumstances.rereads:
                reload = functools.partial(_reload, Systemctl(uid))
                outcome += _unless_it_ends(reload, circumstances, uid, _invocation(before, uid))
            bring_back = self._undo(uid, before, circumstances).bring_back
            outcome += _unless_it_ends(bring_back, circumstances, uid, _invocation(before, uid))
        at_commit = None if circumstances.left is None else circumstances.left["shelves"]
        try:
            shelf.lingering_since(before["shelves"], at_commit, circumstances.by_a_daemon)
            shelf.settle(before["shelves"], at_commit)
        except OSError as error:
            outcome += Outcome(failures=(f"Times below /var/lib/systemd cannot be set back: {error.strerror}.",))
        return outcome

    def _files_of_managers(self, before: Image, circumstances: Circumstances) -> Outcome:
        """What only a manager writes, and reads when it starts a unit."""
        try:
            for uid in [None, *self._same_users(before)] if circumstances.left is None else []:
                image = before if uid is None else before["users"][str(uid)]
                made = {name for name, unit in _units_of(before, uid).items() if unit.transient}
                transient.put_back(Systemctl(uid).transient, image["transient"], made)
            return Outcome(actions=tuple(shelf.stamps_back(before["shelves"], circumstances.by_a_step)))
        except OSError as error:
            return Outcome(failures=(f"{error.filename!r} cannot be put back: {error.strerror}.",))

    def _undo(self, uid: int | None, before: Image, circumstances: Circumstances) -> UnitUndo:
        left = circumstances.left
        known = self._undos.get(uid)
        if known is None or known[0] is not left:
            known = left, UnitUndo(Systemctl(uid), _units_of(before, uid), left=None if left is None else _units_of(left, uid))
            self._undos[uid] = known
        return known[1]

    def _same_users(self, before: Image, now: Image | None = None) -> list[int]:
        """Whose manager is the one that was captured: another one's units were all started anew, by logins."""
        there = running() if now is None else {int(uid): user["invocation"] for uid, user in now["users"].items()}
        return sorted(int(uid) for uid, user in before["users"].items() if there.get(int(uid)) == user["invocation"])


def _of_another_boot(circumstances: Circumstances) -> bool:
    """And not by the transaction's own reboot: who started what at boot or later cannot be told."""
    return circumstances.rebooted and circumstances.left is None and not circumstances.booted


def _born_lingering(before: Image, now: Image, circumstances: Circumstances) -> list[str]:
    born = sorted(set(now["lingering"]) - set(before["lingering"]))
    return born if circumstances.left is None else [user for user in born if user in circumstances.left["lingering"]]


def _units_of(image: Image, uid: int | None) -> dict[str, Unit]:
    if uid is None:
        return read_units(image["units"])
    return read_units(image["users"].get(str(uid), {"units": {}})["units"])


def _look(manager: Systemctl) -> Image:
    """ProbeFailed."""
    units = manager.units()
    made = any(unit.transient for unit in units.values())
    return {
        "units": {name: unit.to_json() for name, unit in units.items()},
        "transient": transient.read(manager.transient) if made else {},
    }


def _or_failure(phase: Callable[[Circumstances], Outcome], circumstances: Circumstances) -> Outcome:
    """The files must be put back all the same when systemd does not answer."""
    try:
        return phase(circumstances)
    except ProbeFailed as error:
        return Outcome(failures=(str(error),))


def _unless_it_ends(phase: Callable[[Circumstances], Outcome], circumstances: Circumstances, uid: int, invocation: str) -> Outcome:
    """The user's last login has ended, 10 seconds ago (logind.conf(5), UserStopDelaySec=): the manager ends, and all units with it."""
    outcome = _or_failure(phase, circumstances)
    return outcome if not outcome.failures or stays(uid, invocation) else NOTHING


def _invocation(image: Image, uid: int) -> str:
    return str(image["users"][str(uid)]["invocation"])


def _reload(manager: Systemctl, _circumstances: Circumstances = UNKNOWN) -> Outcome:
    done = manager.ask("daemon-reload")
    if done.ok:
        return NOTHING
    return Outcome(failures=(f"systemd{manager.whose} did not read its unit files again: {done.complaint}.",))


def _boot_again(manager: Systemctl) -> Outcome:
    """PID 1 has queued its jobs from the files as they were: it has to plan again, unless a person boots into something else."""
    target = manager.ask("show", "--property=Id,Job", "default.target", timeout=QUERY)
    shown = dict(line.split("=", 1) for line in target.out.splitlines() if "=" in line)
    if shown.get("Job", "0") in ("", "0"):
        return NOTHING
    done = manager.ask("--no-block", "isolate", "default.target", timeout=QUERY)
    if not done.ok:
        return Outcome(failures=(f"systemd did not plan the boot again: {done.complaint}.",))
    return Outcome(actions=("the boot was planned again from the files as they were",))
