# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The state of systemd's units: what the steps started is stopped before the files go back, the rest is brought back after them.

What a step restarted is stopped before as well and started after: a service that writes its state when it ends must do so before its
files are put back. Units that carry the host (`unitstate.kept_up`) are restarted in one go instead.
A reload that went past systemd (kill -HUP, nginx -s reload) leaves no trace in its state and is not seen.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from ..commands import Output, run
from ..errors import ProbeFailed
from .base import NOTHING, UNKNOWN, Circumstances, Image, Outcome, Probe
from .unitstate import ABSENT, PROPERTIES, Moves, Unit, concerns, kept_up, moves, parse

# A job may take as long as the unit's own TimeoutStopSec and TimeoutStartSec (90 s each by default).
_JOB = 200.0
_QUERY = 30.0


class Systemd(Probe):
    name = "systemd"

    def __init__(self) -> None:
        # What went down with a unit that before_files stopped (Requires=, BindsTo=): after_files starts it again.
        self._taken_down: frozenset[str] = frozenset()

    def capture(self) -> Image:
        if not os.path.isdir("/run/systemd/system"):
            return {"managed": False, "units": {}}
        shown = _systemctl("show", "--property=" + ",".join(PROPERTIES), "*", timeout=_QUERY)
        if not shown.ok:
            raise ProbeFailed(f"systemd does not say which units there are: {shown.complaint}.", hint="Try `systemctl list-units`.")
        return {"managed": True, "units": {name: unit.to_json() for name, unit in parse(shown.out).items() if concerns(name)}}

    def compare(self, before: Image, now: Image, circumstances: Circumstances = UNKNOWN) -> list[str]:
        if not before["managed"]:
            return []
        if not now["managed"]:
            return ["systemd was PID 1, and is not."]
        if circumstances.at_boot:
            return []
        was, is_now = _units(before), _units(now)
        left = None if circumstances.left is None else _units(circumstances.left)
        by_a_step = _clock(circumstances, undo_too=False) if left is None else None
        moved = moves(was, is_now, by_a_step=by_a_step, rebooted=circumstances.rebooted)
        ours = moved.names if left is None else moves(was, left).names
        sentences = [
            f"Unit {name} is {is_now.get(name, ABSENT).active}, and was {was.get(name, ABSENT).active}."
            for name in moved.stop + moved.start
            if name in ours
        ]
        # Enabling has no time of its own: who did it is told by the links, which are the probe etc's and the trace's.
        for name in sorted({*was, *is_now} if not circumstances.windows else ()):
            old, new = was.get(name, ABSENT).enabled, is_now.get(name, ABSENT).enabled
            if old and new and old != new and (left is None or left.get(name, ABSENT).enabled != old):
                sentences.append(f"Unit {name} is {new}, and was {old}.")
        return sentences

    def before_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        return _or_failure(self._stop, before, circumstances)

    def after_files(self, before: Image, circumstances: Circumstances) -> Outcome:
        return _or_failure(self._bring_back, before, circumstances)

    def _stop(self, before: Image, circumstances: Circumstances) -> Outcome:
        if not before["managed"] or (circumstances.rebooted and circumstances.left is None):
            return NOTHING
        now = _units(self.capture())
        moved = self._moved(before, now, circumstances)
        born = [name for name in moved.stop if not now.get(name, ABSENT).down]
        held = [name for name in moved.restart if not now.get(name, ABSENT).down and not kept_up(name)]
        if not born and not held:
            return NOTHING
        done = _systemctl("stop", "--", *born, *held, timeout=_JOB)
        then = _units(self.capture())
        up_before = {name for name, unit in now.items() if unit.up}
        self._taken_down |= frozenset(name for name in up_before if then.get(name, ABSENT).down and name not in born)
        return Outcome(
            actions=tuple(f"stopped {name}" for name in born if then.get(name, ABSENT).down),
            failures=tuple(f"Unit {name} did not stop: {done.complaint}." for name in born + held if not then.get(name, ABSENT).down),
            units=tuple(born),
        )

    def _bring_back(self, before: Image, circumstances: Circumstances) -> Outcome:
        if not before["managed"]:
            return NOTHING
        # Always: a unit file that is back is older than what systemd has read, so it would not notice.
        reloaded = _systemctl("daemon-reload", timeout=_JOB)
        outcome = NOTHING if reloaded.ok else Outcome(failures=(f"systemd did not read its unit files again: {reloaded.complaint}.",))
        if circumstances.at_boot:
            return outcome + _boot_again()
        if circumstances.rebooted and circumstances.left is None:
            return outcome + Outcome(notes=("The host has rebooted since: services that are up run on as they were started at boot.",))
        was, now = _units(before), _units(self.capture())
        moved = self._moved(before, now, circumstances)
        again = [name for name in self._to_start(was, moved) if not now.get(name, ABSENT).up]
        restart = [name for name in moved.restart if now.get(name, ABSENT).invocation != was[name].invocation and kept_up(name)]
        reload = [name for name in moved.reload if now.get(name, ABSENT).up]
        failed = [name for name in moved.reset if now.get(name, ABSENT).active == "failed"]
        lost = [name for name in again if was[name].transient and now.get(name, ABSENT).load == "not-found"]
        outcome += Outcome(notes=tuple(f"Unit {name}, made by systemd-run, has ended and cannot be started again." for name in lost))
        again = [name for name in again if name not in lost]
        outcome += _ask("reset-failed", failed)
        outcome += _ask("start", again)
        outcome += _ask("restart", restart)
        outcome += _ask("reload", reload)
        then = _units(self.capture())
        return outcome + _verdict(was, then, started=again + restart)

    def _moved(self, before: Image, now: dict[str, Unit], circumstances: Circumstances) -> Moves:
        was = _units(before)
        if circumstances.left is not None:
            return moves(was, _units(circumstances.left))
        return moves(was, now, by_a_step=_clock(circumstances), rebooted=circumstances.rebooted)

    def _to_start(self, was: dict[str, Unit], moved: Moves) -> list[str]:
        held = {name for name in moved.restart if not kept_up(name)}
        taken = {name for name in self._taken_down if was.get(name, ABSENT).up}
        return sorted(name for name in {*moved.start, *held, *taken} if name in was)


def _or_failure(phase: Callable[[Image, Circumstances], Outcome], before: Image, circumstances: Circumstances) -> Outcome:
    """The files must be put back all the same when systemd does not answer."""
    try:
        return phase(before, circumstances)
    except ProbeFailed as error:
        return Outcome(failures=(str(error),))


def _clock(circumstances: Circumstances, *, undo_too: bool = True) -> Callable[[int], bool] | None:
    """Tells whether a time of systemd's (CLOCK_MONOTONIC us) can be a step's doing, or (`undo_too`) of an undo, which comes after them."""
    if not circumstances.windows or circumstances.rebooted:
        return None
    offset = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    last = max(end for dummy, end in circumstances.windows)

    def by_a_step(us: int) -> bool:
        ns = us * 1000 + offset
        return (undo_too and ns > last) or circumstances.by_a_step(ns)

    return by_a_step


def _units(image: Image) -> dict[str, Unit]:
    return {name: Unit.from_json(data) for name, data in image["units"].items()}


def _systemctl(*args: str, timeout: float) -> Output:
    return run(["systemctl", "--no-pager", "--no-ask-password", *args], timeout=timeout)


_PAST = {"start": "started", "restart": "restarted", "reload": "reloaded", "reset-failed": "forgot the failure of"}


def _ask(verb: str, names: list[str]) -> Outcome:
    """One call for all: systemd puts the jobs in order."""
    if not names:
        return NOTHING
    done = _systemctl(verb, "--", *names, timeout=_JOB)
    units = () if verb == "reset-failed" else tuple(names)
    if verb == "reload" and not done.ok:
        return Outcome(failures=(f"Reloading {', '.join(names)} failed: {done.complaint}.",), units=units)
    return Outcome(actions=tuple(f"{_PAST[verb]} {name}" for name in names), units=units)


def _verdict(was: dict[str, Unit], then: dict[str, Unit], *, started: list[str]) -> Outcome:
    failures = [
        f"Unit {name} was {was[name].active} and is {then.get(name, ABSENT).active}: see `systemctl status {name}`."
        for name in started
        if not then.get(name, ABSENT).up and was[name].up and was[name].type != "oneshot"
    ]
    notes = [
        f"Unit {name} had failed before, and is {then[name].active} now."
        for name, unit in was.items()
        if unit.active == "failed" and name in then and then[name].active != "failed"
    ]
    return Outcome(failures=tuple(failures), notes=tuple(notes))


def _boot_again() -> Outcome:
    """PID 1 has queued its jobs from the files as they were: it has to plan again, unless a person boots into something else."""
    target = _systemctl("show", "--property=Id,Job", "default.target", timeout=_QUERY)
    shown = dict(line.split("=", 1) for line in target.out.splitlines() if "=" in line)
    if shown.get("Job", "0") in ("", "0"):
        return NOTHING
    done = _systemctl("--no-block", "isolate", "default.target", timeout=_QUERY)
    if not done.ok:
        return Outcome(failures=(f"systemd did not plan the boot again: {done.complaint}.",))
    return Outcome(actions=("the boot was planned again from the files as they were",))
