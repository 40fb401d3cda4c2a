# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What becomes of an open transaction whose agent died, or whose host was booted again (I8).

after_death(journal, value, step_was_running=...) -> RESUME | UNDO | WAIT
"""

from __future__ import annotations

import contextlib
import os
import time
import typing as t

from . import deadman, doommark, formats, lease, ownership, reserve, shutdown, states
from .boot import boot_id
from .commands import run
from .errors import JournalUnwritable
from .journal import Journal
from .leftovers import kill_leftovers
from .model import Summary, Transaction
from .paths import STATE, directory_of
from .rollback import Manner, roll_back

#: bytes and inodes: ext4 counts as free what it keeps for itself, up to 16 MiB; btrfs that has no metadata left says so by 0 available
_TIGHT, _FEW = 24 << 20, 16
RESUME, UNDO, WAIT = "resume", "undo", "wait"


def owned_by_us(journal: Journal) -> Transaction | None:
    """The open transaction, of whose log this process is the owner from now on (ownership.release ends that): as its owner before has left
    it. None: there is none, or it has come to its end meanwhile."""
    while True:
        value = journal.open_transaction()
        if value is None:
            return None
        ownership.take(directory_of(value.id))
        now = journal.open_transaction()
        if now is not None and now.id == value.id:
            return now
        ownership.release(directory_of(value.id))


def after_death(journal: Journal, value: Transaction, *, step_was_running: bool) -> str:
    """The agent is started anew and finds `value` open. Between steps nothing was lost, since images are written before the change; in a
    step
    calls may have failed, so the transaction is doomed: its controller hears so at the next request, or the lease ends it."""
    if not formats.known(directory_of(value.id)):
        return WAIT  # for the engine that can
    if value.state == states.ABORTING:
        return UNDO
    if value.state == states.PREPARED:
        return WAIT
    if value.state == states.WAITING_REBOOT and (value.boot_id == boot_id() or goes_on(journal, value)):
        return RESUME
    if value.boot_id != boot_id() or value.state == states.DOOMED:
        return UNDO
    doomed = _doomed(journal, value, step_was_running=step_was_running)
    if not doomed:
        return RESUME
    reserve.release_host(STATE)  # the undo's first write
    journal.set_state(value.id, states.DOOMED, reason=doomed)
    return UNDO


def goes_on_with(journal: Journal, value: Transaction, steps: t.Collection[int]) -> bool:
    """Whether one of these steps, of which processes lived when the agent died, is one that the transaction goes on with: an undo to a
    savepoint kills what came after it."""
    undone = {step.n for step in journal.steps(value.id) if value.rewinding_to is not None and step.epoch >= value.rewinding_to}
    return not undone.issuperset(steps)


def _doomed(journal: Journal, value: Transaction, *, step_was_running: bool) -> str:
    """Why a transaction of this boot cannot go on; empty: it can. One that is REWINDING can: that undo is gone on with first."""
    if value.state == states.COMMITTING:
        return "the agent died in the commit, and nobody knows whether all had reached the disk"
    torn = value.state == states.ACTIVE and _torn(journal, value)
    return "the agent died while a step was running" if step_was_running or torn else doommark.read(value.id)


def open_journal() -> Journal:
    """The journal of a host that may have no space left, not even for SQLite to open it: then the reserve is given for that. Whoever asks
    calls keep_reserve or rolls back. With blocks smaller than a page SQLite is ended by SIGBUS when its shared memory does not fit."""
    with contextlib.suppress(FileNotFoundError):  # of a host's first agent
        room = os.statvfs(STATE)
        if min(room.f_bfree, room.f_bavail) * room.f_frsize < _TIGHT or (room.f_files and room.f_ffree < _FEW):
            reserve.release_host(STATE)
    try:
        return Journal()
    except JournalUnwritable:
        reserve.release_host(STATE)
        return Journal()


def _torn(journal: Journal, value: Transaction) -> bool:
    """Whether a step's process was alive, whatever has become of it since."""
    return any(step.state == states.STARTED for step in journal.steps(value.id))


def goes_on(journal: Journal, value: Transaction) -> bool:
    """In another boot than the transaction's: whether this is the reboot that it waits for (I8). Then it is of this boot from now on, and
    has the planned time again, from now on."""
    directory = directory_of(value.id)
    if value.state != states.WAITING_REBOOT or not (value.durable or shutdown.was_clean(directory, value.boot_id)):
        return False
    shutdown.note_boot(directory)
    # Of whichever the journal says. Nothing is let happen before its controller is back, so that another reboot would be no harm.
    shutdown.mark(directory, value.boot_id, boot_id())
    ticks = value.deadline is not None  # else a person had taken over the watch
    journal.go_on(value.id, boot_id=boot_id(), deadline=lease.now() + shutdown.planned(directory) if ticks else None)
    return True


def at_boot(journal: Journal, *, agent_listens: t.Callable[[], bool] = lambda: False) -> Summary | None:
    """Undo what a crash left open; None when there was nothing to do, or an agent is at it, which does all that this does. Whoever has its
    log is waited for: an agent that comes up, another undo."""
    value = journal.open_transaction()
    while value is not None:
        with ownership.attempted(directory_of(value.id)) as mine:
            if mine:
                return _at_boot(journal)
        if agent_listens():
            return None
        time.sleep(0.05)
        value = journal.open_transaction()
    return None


def _at_boot(journal: Journal) -> Summary | None:
    value = journal.open_transaction()
    if value is None or value.state == states.PREPARED:
        return None
    kill_leftovers(journal, value.id)
    if value.state == states.WAITING_REBOOT and (value.boot_id == boot_id() or goes_on(journal, value)):
        # Of the same boot: systemd's soft-reboot and containers. The agent and its timer are gone all the same.
        look = deadman.verdict(journal.get(value.id), boot_id())
        if look.again is not None:
            deadman.arm(look.again)
        return None
    done = roll_back(journal, value.id, Manner("the host was booted with the transaction open", at_boot=True))
    if any(found.state == states.OWED and found.host is not None for found in journal.compensations(value.id)):
        _pay_when_booted(value.id)
    return done


def at_lease_end(journal: Journal, *, agent_answers: t.Callable[[], bool | None]) -> Summary | None:
    """What the timer behind the agent finds. `agent_answers`: None when there is no agent. The agent is given the time to do it; where it
    does not come back, it is done here. Never beside it: an agent that is there, and merely slow, owns the log."""
    found = deadman.verdict(journal.open_transaction(), boot_id())
    if found.again is None:
        return None
    if not found.due or agent_answers():
        _look_again(journal, found.again)
        return None
    for _attempt in range(3):
        if agent_answers() is False:
            deadman.kill_agent()
        else:
            deadman.start_agent()
        time.sleep(0.5)
        if agent_answers():
            _look_again(journal, deadman.AGAIN)
            return None
    value = journal.open_transaction()
    if value is None:
        return None
    with ownership.attempted(directory_of(value.id)) as mine:
        found = deadman.verdict(journal.open_transaction(), boot_id())  # as an agent that came and went has left it
        if mine and found.due:
            kill_leftovers(journal, value.id)
            return roll_back(journal, value.id, Manner("the lease ran out, and the agent does not answer"))
    if found.again is not None:
        _look_again(journal, found.again)
    return None


def _look_again(journal: Journal, seconds: float) -> None:
    deadman.arm(seconds)
    if journal.open_transaction() is None:  # it ended meanwhile, and the agent's own disarming came before that timer
        deadman.disarm()


def _pay_when_booted(tx: str) -> None:
    """Compensations want services and a network. Should PID 1 not take it, they stay debts, and the journal says so."""
    acidctl = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "acidctl")
    after = "--property=After=multi-user.target network-online.target"
    run(["systemd-run", "--no-block", "--collect", "--unit=acid-debts", after, acidctl, "rollback", tx], timeout=30)
