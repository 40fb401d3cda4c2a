# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One manager's units brought back: what the steps started is stopped before the files go back, the rest after them.

What a step restarted is stopped before as well and started after: a service that writes its state when it ends must do so before its
files are put back. Units that carry the host (`unitstate.kept_up`) and those that are gone once they stop (systemd-run's) are restarted
in one go instead. A socket, a path or a client may start a unit again while it is held down: `bring_back` looks once more.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from . import standin
from .base import NOTHING, Circumstances, Outcome
from .systemctl import Systemctl
from .unitstate import ABSENT, Clock, Moves, Unit, Units, kept_up, moves


class UnitUndo:
    """For one undo: `stop`, then `bring_back`. `left`: the units at commit, when the undo comes after it."""

    def __init__(self, manager: Systemctl, was: Units, *, left: Units | None = None) -> None:
        self._manager, self._was, self._left = manager, was, left
        # What went down with a unit that `stop` stopped (Requires=, BindsTo=) is started again.
        self._taken_down: frozenset[str] = frozenset()
        self._held: frozenset[str] = frozenset()
        self._handled: frozenset[str] = frozenset()
        self._unmet: frozenset[str] = frozenset()

    def stop(self, circumstances: Circumstances) -> Outcome:
        now = self._now()
        moved = self._moved(now, circumstances)
        born = [name for name in moved.stop if not now[name].down and not name.endswith(".slice")]
        held = [name for name in moved.restart if not now[name].down and not self._in_one_go(name)]
        self._held = self._remember(held, circumstances.memory)
        if not born and not held:
            return NOTHING
        done = self._manager.ask("stop", "--", *born, *held)
        then = self._manager.units()
        self._taken_down |= frozenset(name for name, unit in now.items() if unit.up and then.get(name, ABSENT).down and name not in born)
        return Outcome(
            actions=tuple(f"stopped {name}" for name in born if then.get(name, ABSENT).down),
            # A socket or a path may have started it again at once; it is looked at when the files are back.
            failures=tuple(f"{self.sentence(name)} did not stop: {done.complaint}." for name in born + held if then.get(name) == now[name]),
            units=tuple(born),
        )

    def bring_back(self, circumstances: Circumstances) -> Outcome:
        """When systemd has read its unit files again."""
        standin.clear(self._manager, self._had_failed())
        now = self._now()
        moved = self._moved(now, circumstances)
        outcome = NOTHING
        late = [name for name in moved.stop if not now[name].down and not name.endswith(".slice")]
        if late:
            outcome += self._stop_late(late)
        wanted = self._to_start(moved)
        again = [name for name in wanted if not now.get(name, ABSENT).up]
        # What is up by now was started by somebody while the files were not yet as before.
        restart = [name for name in moved.restart if name in now and not now[name].down]
        lost = [name for name in again if self._is_over(name)]
        again = [name for name in again if name not in lost and name not in restart]
        outcome += Outcome(
            notes=tuple(f"{self.sentence(name)}, made by systemd-run, has ended and cannot be started again." for name in lost)
        )
        again += self._in_the_way(again, now)
        failed = [name for name in moved.reset if now.get(name, ABSENT).active == "failed"]
        outcome += self._do("reset-failed", failed + self._failed_mounts(circumstances))
        outcome += self._do("start", again)
        outcome += self._do("restart", restart)
        outcome += self._do("reload", [name for name in moved.reload if now.get(name, ABSENT).up])
        outcome += self._empty_slices(moved)
        self._handled = moved.names - set(lost)
        then = now if outcome == NOTHING else self._now()
        healed = [name for name in moved.fail if then.get(name, ABSENT).active == "inactive"]
        if healed:
            standin.fail_again(self._manager, healed)
            then = self._now()
            failed = [name for name in healed if then.get(name, ABSENT).active == "failed"]
            outcome += Outcome(actions=tuple(f"made {name} failed again" for name in failed), units=tuple(failed))
        if circumstances.rebooted:
            self._unmet = self._manager.unmet(name for name in again if then.get(name, ABSENT).down)
            outcome += Outcome(notes=tuple(f"{self.sentence(name)} {_UNMET}." for name in sorted(self._unmet)))
            healed = [name for name in self._had_failed() if then.get(name, ABSENT).active != "failed"]
            outcome += Outcome(notes=tuple(f"{self.sentence(name)} had failed before the reboot, which tried it again." for name in healed))
        return outcome + self._verdict([name for name in again + restart if name not in self._unmet], then)

    def _now(self) -> dict[str, Unit]:
        return self._manager.with_down(self._manager.units(), self._was)

    def differences(self, shown: dict[str, Unit], circumstances: Circumstances) -> list[str]:
        """Sentences on what is not as before. `shown`: by the manager, when it was asked for all."""
        now = self._manager.with_down(shown, self._was)
        clock = _clock(circumstances, since=None)
        ours = None if self._left is None else moves(self._was, self._left).names
        moved = moves(self._was, now, clock=None if ours is not None else clock, rebooted=circumstances.rebooted)
        again = moves(self._was, now, rebooted=circumstances.rebooted)
        names = {name for name in moved.stop + moved.start + moved.fail if ours is None or name in ours}
        names |= {name for name in again.stop + again.start + again.fail if name in self._handled}
        return [
            f"{self.sentence(name)} is {now.get(name, ABSENT).active}, and was {self._was.get(name, ABSENT).active}."
            for name in sorted(names)
            if not (name.endswith(".slice") or self._is_over(name) or name in self._unmet)
        ]

    def sentence(self, name: str) -> str:
        return f"Unit {name}{self._manager.whose}"

    def _is_over(self, name: str) -> bool:
        """What systemd-run had made, and whose unit file is not there any more: told in a note."""
        return self._was.get(name, ABSENT).transient and not os.path.exists(f"{self._manager.transient}/{name}")

    def _failed_mounts(self, circumstances: Circumstances) -> list[str]:
        clock = _clock(circumstances, since=circumstances.since)
        if self._left is not None or clock is None:
            return []
        return sorted(name for name, us in self._manager.newly_failed().items() if clock.by_a_daemon(us))

    def _moved(self, now: Units, circumstances: Circumstances) -> Moves:
        if self._left is not None:
            # Of what the transaction moved, what is still there.
            found = moves(self._was, self._left)
            return found._replace(
                stop=tuple(name for name in found.stop if name in now),
                # What is down was stopped by somebody since the commit, or by this undo.
                restart=tuple(name for name in found.restart if not now.get(name, ABSENT).down or name in self._held),
            )
        return moves(self._was, now, clock=_clock(circumstances, since=circumstances.since), rebooted=circumstances.rebooted)

    def _remember(self, held: list[str], memory: str) -> frozenset[str]:
        """And what attempts that died have held: written before it is stopped, since systemd may forget what is down with its times."""
        known = set(held)
        if memory and self._left is not None:  # an undo of an open transaction goes by when a unit was moved
            mine = f"{self._manager.uid} "
            with open(memory, "a+", encoding="utf-8") as file:
                file.seek(0)
                known |= {line[len(mine) : -1] for line in file if line.startswith(mine) and line.endswith("\n")}
                file.writelines(f"{mine}{name}\n" for name in held)
        return frozenset(known)

    def _in_one_go(self, name: str) -> bool:
        return kept_up(name) or self._was[name].transient

    def _to_start(self, moved: Moves) -> list[str]:
        held = {name for name in moved.restart if not self._in_one_go(name)}
        taken = {name for name in self._taken_down if self._was.get(name, ABSENT).up}
        return sorted(name for name in {*moved.start, *held, *taken} if name in self._was)

    def _do(self, verb: str, names: list[str]) -> Outcome:
        """One call for all: systemd puts the jobs in order."""
        if not names:
            return NOTHING
        done = self._manager.ask(verb, "--", *names)
        units = () if verb == "reset-failed" else tuple(names)
        if verb == "reload" and not done.ok:
            return Outcome(failures=(f"Reloading {', '.join(names)} failed: {done.complaint}.",), units=units)
        return Outcome(actions=tuple(f"{_PAST[verb]} {name}" for name in names), units=units)

    def _stop_late(self, late: list[str]) -> Outcome:
        done = self._manager.ask("stop", "--", *late)
        then = self._manager.units()
        still = [name for name in late if not then.get(name, ABSENT).down]
        sockets = sorted(
            {name for unit in still for name in then[unit].triggered_by if name.endswith(".socket") and then.get(name, ABSENT).up}
        )
        if sockets:
            # What waits in a socket's queue starts the service again at once; only a socket that is made anew has none.
            done = self._manager.ask("stop", "--", *sockets, *still)
            self._manager.ask("start", "--", *[name for name in sockets if self._was.get(name, ABSENT).up])
        outcome = Outcome(actions=tuple(f"stopped {name}" for name in late), units=(*late, *sockets))
        return outcome if done.ok else outcome + Outcome(failures=(f"{', '.join(late)} did not stop: {done.complaint}.",))

    def _in_the_way(self, again: list[str], now: Units) -> list[str]:
        """systemd starts no socket while its service runs: those services are stopped, and start with it."""
        sockets = {name for name in again if name.endswith(".socket")}
        # Of a socket that it has forgotten, systemd does not say any more whose it was.
        triggers = {name: {*unit.triggered_by, *self._was.get(name, ABSENT).triggered_by} for name, unit in now.items() if unit.up}
        services = sorted(name for name, by in triggers.items() if sockets & by and name not in again)
        if services:
            self._manager.ask("stop", "--", *services)
        return [name for name in services if self._was.get(name, ABSENT).up]

    def _empty_slices(self, moved: Moves) -> Outcome:
        """systemd makes slices as it needs them and keeps them; whatever is in one would stop with it."""
        born = [name for name in moved.stop if name.endswith(".slice")]
        outcome = NOTHING
        for name in sorted(born, key=lambda name: -name.count("-")):
            shown = self._manager.ask("show", "--property=Slice", f"--state={_INSIDE}", "*")
            used = {line.partition("=")[2] for line in shown.out.splitlines() if line}
            if shown.ok and name not in used:
                outcome += self._do("stop", [name])
        return outcome

    def _verdict(self, started: Iterable[str], then: Units) -> Outcome:
        was = self._was
        failures = [
            f"{self.sentence(name)} was {was[name].active} and is {then.get(name, ABSENT).active}: see `systemctl status {name}`."
            for name in started
            if not then.get(name, ABSENT).up and was[name].up and was[name].type != "oneshot"
        ]
        return Outcome(failures=tuple(failures))

    def _had_failed(self) -> list[str]:
        return [name for name, unit in self._was.items() if unit.active == "failed"]


_PAST = {"start": "started", "stop": "stopped", "restart": "restarted", "reload": "reloaded", "reset-failed": "forgot the failure of"}
_UNMET = "was active before the reboot, and is not: its conditions do not hold any more"
_INSIDE = "active,reloading,refreshing,activating,deactivating"


def _clock(circumstances: Circumstances, *, since: int | None) -> Clock | None:
    """`since`: what was moved from then on is the undo's own doing; None: the undo's doing does not count."""
    if not circumstances.windows or (circumstances.rebooted and not circumstances.booted):
        return None
    offset = _offset()
    # An undo that does not say when it began comes after every step.
    start = None if since is None else since or max(end for dummy, end in circumstances.windows)

    def by_the_undo(ns: int) -> bool:
        return start is not None and ns >= start

    def by_a_step(us: int) -> bool:
        ns = us * 1000 + offset
        return by_the_undo(ns) or circumstances.by_a_step(ns)

    def by_a_daemon(us: int) -> bool:
        ns = us * 1000 + offset
        return by_the_undo(ns) or circumstances.by_a_daemon(ns)

    return Clock(by_a_step, by_a_daemon)


def _offset() -> int:
    """From CLOCK_MONOTONIC to CLOCK_REALTIME, in ns."""
    return time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def read_units(data: dict[str, list[object]]) -> dict[str, Unit]:
    return {name: Unit.from_json(fields) for name, fields in data.items()}
