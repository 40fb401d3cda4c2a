# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whose own systemd runs, and who lingers (`loginctl enable-linger`): their services run without a login.

A manager comes with its user's first login and goes 10 seconds after the last, with all that it runs; so logins, the controller's own
among them, are left alone, and only who lingers is brought back.
"""

from __future__ import annotations

import contextlib
import os

from ..commands import run
from .base import NOTHING, Outcome
from .systemctl import QUERY

LINGER = "/var/lib/systemd/linger"
_TIMEOUT = 100.0


def running(*, run_user: str = "/run/user", units: str = "/run/systemd/units") -> dict[int, str]:
    """The managers that can be asked, by uid, each with its invocation: another one means that it has begun anew."""
    found = {}
    for name in os.listdir(run_user) if os.path.isdir(run_user) else ():
        if name.isdigit() and os.path.exists(f"{run_user}/{name}/systemd/private"):
            invocation = ""
            with contextlib.suppress(OSError):
                invocation = os.readlink(f"{units}/invocation:user@{name}.service")
            found[int(name)] = invocation
    return found


def stays(uid: int, invocation: str) -> bool:
    """Whether that manager is there and does not end. Its socket outlives it, until PID 1 takes /run/user/UID away; PID 1 knows first."""
    shown = run(["systemctl", "show", "--property=ActiveState", "--", f"user@{uid}.service"], timeout=QUERY)
    ends = shown.ok and shown.out.strip() in {f"ActiveState={state}" for state in ("deactivating", "inactive", "failed")}
    return not ends and running().get(uid) == invocation


def lingering() -> list[str]:
    """Names of users."""
    return sorted(os.listdir(LINGER)) if os.path.isdir(LINGER) else []


def stop_lingering(user: str) -> Outcome:
    done = run(["loginctl", "disable-linger", user], timeout=_TIMEOUT)
    if not done.ok:
        # logind knows nobody of that name: useradd has been undone already.
        with contextlib.suppress(OSError):
            os.unlink(f"{LINGER}/{user}")
    if os.path.lexists(f"{LINGER}/{user}"):
        return Outcome(failures=(f"The services of user {user} still run without a login: {done.complaint}.",))
    return Outcome(actions=(f"the services of user {user} run no more without a login",)) + _stop_manager(user)


def linger_again(user: str, mtime_ns: int | None) -> Outcome:
    done = run(["loginctl", "enable-linger", user], timeout=_TIMEOUT)
    if not done.ok:
        return Outcome(failures=(f"The services of user {user} ran without a login, and do not: {done.complaint}.",))
    if mtime_ns is not None:
        with contextlib.suppress(OSError):
            os.utime(f"{LINGER}/{user}", ns=(mtime_ns, mtime_ns))
    return Outcome(actions=(f"the services of user {user} run without a login again",))


def _stop_manager(user: str) -> Outcome:
    """logind would do it, in 10 seconds. Not while the user is logged in."""
    shown = run(["loginctl", "show-user", "--property=UID", "--property=Sessions", user], timeout=_TIMEOUT)
    seen = dict(line.split("=", 1) for line in shown.out.splitlines() if "=" in line)
    if not shown.ok or seen.get("Sessions") or not seen.get("UID", "").isdigit():
        return NOTHING
    unit = f"user@{seen['UID']}.service"
    done = run(["systemctl", "--no-ask-password", "stop", "--", unit], timeout=_TIMEOUT)
    return NOTHING if done.ok else Outcome(failures=(f"Unit {unit} did not stop: {done.complaint}.",))
