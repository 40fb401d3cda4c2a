# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""systemd as a manager of units: PID 1, or a user's own (`systemctl --user`)."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import typing as t
from collections.abc import Iterable

from ..commands import Output, run
from ..errors import ProbeFailed
from .unitstate import ABSENT, KINDS, NOT_INACTIVE, PROPERTIES, Unit, concerns, parse

# A job may take as long as the unit's own TimeoutStopSec and TimeoutStartSec (90 s each by default).
JOB = 200.0
QUERY = 30.0


class Systemctl:
    """`uid`: whose; None is PID 1."""

    def __init__(self, uid: int | None = None) -> None:
        self.uid = uid

    @property
    def transient(self) -> str:
        """Where it keeps the unit files of systemd-run."""
        return "/run/systemd/transient" if self.uid is None else f"/run/user/{self.uid}/systemd/transient"

    def ask(self, *args: str, timeout: float = JOB) -> Output:
        return run([*self._way(), "--no-pager", "--no-ask-password", *args], timeout=timeout)

    def _way(self) -> list[str]:
        if self.uid is None:
            return ["systemctl"]
        place = ["env", f"XDG_RUNTIME_DIR=/run/user/{self.uid}", "systemctl", "--user"]
        if self.uid == os.geteuid():
            return place
        # Of another user's manager not even root may ask anything.
        return ["setpriv", f"--reuid={self.uid}", "--regid", str(self._group()), "--clear-groups", *place]

    def _group(self) -> int:
        """Also of a user whom a step has removed, or whose directory service does not answer any more."""
        try:
            return pwd.getpwuid(t.cast(int, self.uid)).pw_gid
        except KeyError:
            try:
                return os.stat(f"/run/user/{self.uid}").st_gid
            except OSError as error:
                raise ProbeFailed(f"There is no user {self.uid} any more, and its manager cannot be asked: {error.strerror}.") from error

    def units(self) -> dict[str, Unit]:
        """Those that a probe may ever act on, but the inactive ones: systemd forgets them, and their times, when it likes. ProbeFailed."""
        kinds, states = f"--type={','.join(KINDS)}", f"--state={','.join(NOT_INACTIVE)}"
        shown = self.ask("show", kinds, states, f"--property={','.join(PROPERTIES)}", "*", timeout=QUERY)
        if not shown.ok:
            raise ProbeFailed(f"systemd does not say which units there are: {shown.complaint}.", hint="Try `systemctl list-units`.")
        return {name: unit for name, unit in parse(shown.out).items() if concerns(name)}

    def with_down(self, shown: dict[str, Unit], was: Iterable[str]) -> dict[str, Unit]:
        """`shown` by `units`, and those of `was` that are down by now, with the times that systemd still knows: when they ended."""
        names = sorted(set(was) - set(shown))
        if not names:
            return shown
        asked = self.ask("show", f"--property={','.join(PROPERTIES)}", "--", *names, timeout=QUERY)
        found = parse(asked.out) if asked.ok else {}
        down = {name: found.get(name, ABSENT) for name in names if found.get(name, ABSENT).down}
        return {**shown, **{name: unit if any(unit.times) else self._from_journal(name, unit) for name, unit in down.items()}}

    def _from_journal(self, name: str, unit: Unit) -> Unit:
        """systemd forgets what is down and what nothing refers to, with its times; when its last job ended it has told the journal."""
        field = "UNIT" if self.uid is None else "USER_UNIT"
        wanted = [f"{field}={name}", "JOB_RESULT=done", "--boot", "--lines=1", "--output=json", "--output-fields=JOB_TYPE", "--quiet"]
        told = run(["journalctl", "--no-pager", *wanted], timeout=QUERY)
        with contextlib.suppress(ValueError, KeyError, TypeError):
            found = json.loads(told.out)
            if found["JOB_TYPE"] == "stop":
                return unit._replace(times=(int(found["__MONOTONIC_TIMESTAMP"]), *unit.times[1:]))
        return unit

    def unmet(self, names: Iterable[str]) -> frozenset[str]:
        """Those whose conditions (systemd.unit(5), ConditionPathExists= and others) did not hold when they were started at last."""
        return frozenset(name for name, unit in self.properties(names, "ConditionResult").items() if unit["ConditionResult"] == "no")

    def properties(self, names: Iterable[str], *wanted: str) -> dict[str, dict[str, str]]:
        """Of units by name; those of which systemd says nothing are missing."""
        asked = sorted(names)
        shown = self.ask("show", f"--property={','.join(('Id', *wanted))}", "--", *asked, timeout=QUERY) if asked else None
        found: dict[str, dict[str, str]] = {}
        for part in shown.out.split("\n\n") if shown is not None and shown.ok else ():
            unit = dict(line.split("=", 1) for line in part.splitlines() if "=" in line)
            if "Id" in unit:
                found[unit["Id"]] = {name: unit.get(name, "") for name in wanted}
        return found

    def newly_failed(self) -> dict[str, int]:
        """Mounts and scopes that failed, with the time (CLOCK_MONOTONIC us): nobody starts them again, but the failure shows."""
        kinds, names = "--type=mount,scope", "--property=Id,InactiveEnterTimestampMonotonic"
        shown = self.ask("show", kinds, "--state=failed", names, "*", timeout=QUERY)
        return {name: unit.times[-1] for name, unit in parse(shown.out).items()}

    @property
    def whose(self) -> str:
        """For a sentence: " of user root"; nothing for PID 1's."""
        if self.uid is None:
            return ""
        try:
            return f" of user {pwd.getpwuid(self.uid).pw_name}"
        except KeyError:
            return f" of user {self.uid}"
