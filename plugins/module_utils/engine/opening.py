# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""How a transaction comes to be open in the agent: a new one begins, or one is gone on with after a death of the agent or a reboot.

What is there before the transaction's row is: room for its undo, first of all, and its log. A log that never got a row, because the agent
died between, goes with retention.gc.
"""

from __future__ import annotations

import contextlib
import os
import typing as t

from . import kernel, lease, ownership, reserve, shutdown, states
from .boot import boot_id
from .errors import AcidError, StoreFull
from .journal import Journal
from .model import Transaction
from .paths import STATE, directory_of, own_hash
from .store import Store
from .transaction import OpenTransaction
from .undolog import Writer
from .wanted import read


def begin(journal: Journal, *, name: str, owner: str, options: dict[str, t.Any]) -> OpenTransaction:
    logs: list[Writer] = []
    ready = contextlib.ExitStack()  # what goes again where there is no transaction after all

    def prepare(tx: str) -> None:
        logs.append(_prepared(tx))
        ready.callback(reserve.release_host, STATE)
        ready.callback(logs[0].close)
        ownership.take(directory_of(tx))
        ready.callback(ownership.release, directory_of(tx))

    with ready:
        value = journal.begin(
            name=name,
            owner=owner,
            options=options,
            boot_id=boot_id(),
            engine=own_hash(),
            deadline=lease.first(options),
            prepare=prepare,
        )
        ready.pop_all()
    begun = OpenTransaction(journal, value, logs[0], Store(value.id, durable=value.durable), next_directory=1)
    ownership.release(directory_of(value.id))  # it has it too
    try:
        begun.capture.epoch(0, 0)
        begun.capture_probes(0)
        logs[0].write_head(durable=True)
        begun.watch.start()
    except BaseException:
        begun.give_up("begin failed")
        with contextlib.suppress(OSError, AcidError):
            begun.close()
        journal.set_state(value.id, states.ABORTING)
        journal.set_state(value.id, states.ABORTED)
        raise
    return begun


def resume(journal: Journal, value: Transaction) -> OpenTransaction:
    """After the agent died between steps, or a planned reboot: go on where the log ends."""
    directory = directory_of(value.id)
    if value.state != states.WAITING_REBOOT:
        shutdown.unmark(directory)
    wanted = read(directory)
    log, store = Writer.resume(directory), Store(value.id, durable=value.durable)
    for seen in wanted.file_systems.values():
        store.adopt(seen)
    store.next_number = wanted.next_number
    resumed = OpenTransaction(journal, value, log, store, next_directory=wanted.next_directory, holds_reserve=False)
    if value.rewinding_to is None:  # else that undo has the room first
        with contextlib.suppress(StoreFull):  # then the next step is refused, if it still is so
            resumed.take_reserves()
    resumed.capture.images.goes_on()
    resumed.capture.epoch(value.epoch, 0)
    resumed.watch.start()
    return resumed


def _prepared(tx: str) -> Writer:
    reserve.take_host(STATE)
    try:
        return _new_log(directory_of(tx))
    except BaseException:
        reserve.release_host(STATE)
        raise


def _new_log(directory: str) -> Writer:
    """On the disk when it returns, so that the row of a transaction never speaks of a log that is not there (I7)."""
    os.makedirs(directory, 0o700)
    log = Writer.create(directory)
    log.write_head(durable=True)
    for folder in (directory, os.path.dirname(directory), STATE):
        kernel.sync_directory(folder)
    return log
