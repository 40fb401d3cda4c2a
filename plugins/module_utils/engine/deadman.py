# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What stands behind the agent: a timer of systemd's at the end of the lease, for an agent that is stopped, hangs or does not start.

    arm(seconds)      run `acidctl recover --lease` then      disarm()     when the transaction has ended
    verdict(...)      what that finds, and when to look again

The timer is set once, not with each renewal: when it fires early it is set anew, from the deadline in the journal. Without systemd nothing
stands behind the agent.
"""

from __future__ import annotations

import os
import time
import typing as t

from . import lease, states
from .commands import run
from .model import Transaction
from .units import ACIDCTL, AGENT

_PREFIX = "acid-agent-lease-"
_TRANSIENT = "/run/systemd/transient"

#: seconds that the agent has for itself once the lease has run out, before the timer looks after it
GRACE = 1.0
#: seconds between two looks at an undo that takes its time
AGAIN = 5.0


def managed() -> bool:
    """What sd_booted(3) asks."""
    return os.path.isdir("/run/systemd/system")


def arm(seconds: float) -> bool:
    """False where systemd does not take it: the agent is alone then."""
    if not managed():
        return False
    words = ["systemd-run", "--quiet", "--collect", "--unit=%s%d" % (_PREFIX, time.monotonic_ns() // 1000), "--slice=system.slice"]
    words += ["--on-active=%.3fs" % max(0.1, seconds), "--timer-property=AccuracySec=100ms", "--property=OOMScoreAdjust=-900"]
    words += ["--property=LogLevelMax=notice", "--property=KillMode=process", ACIDCTL, "recover", "--lease"]
    return run(words, timeout=30).ok


def armed() -> bool:
    """Whether there may be such a timer: systemd keeps its text here."""
    return os.path.isdir(_TRANSIENT) and any(name.startswith(_PREFIX) for name in os.listdir(_TRANSIENT))


def disarm() -> None:
    if managed():
        run(["systemctl", "stop", _PREFIX + "*.timer"], timeout=30)


class Verdict(t.NamedTuple):
    """`again`: seconds until the next look; None: there is nothing to look after. `due`: somebody should be undoing it now."""

    due: bool
    again: float | None


def verdict(value: Transaction | None, boot: str) -> Verdict:
    if value is None or value.state == states.PREPARED or (value.deadline is None and value.state != states.ABORTING):
        return Verdict(False, None)
    left = 0.0 if value.deadline is None or value.boot_id != boot else value.deadline - lease.now()
    if value.state != states.ABORTING and left > 0:
        return Verdict(False, left + GRACE)
    return Verdict(True, AGAIN)


def kill_agent() -> None:
    """systemd starts it again, and the new one finds the lease at its end. One that is only coming up is let come: systemd itself has the
    patience for that (TimeoutStartSec)."""
    if run(["systemctl", "show", "--property=ActiveState", "--value", AGENT], timeout=30).out.strip() != "active":
        return
    run(["systemctl", "kill", "--signal=SIGKILL", "--kill-who=main", AGENT], timeout=30)


def start_agent() -> None:
    run(["systemctl", "reset-failed", AGENT], timeout=30)
    run(["systemctl", "start", "--no-block", AGENT], timeout=30)
