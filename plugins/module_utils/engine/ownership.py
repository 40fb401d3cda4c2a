# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""One owner of an undo log at any time (I6): the agent that has its transaction open, or who undoes it: agent, timer, recovery, acidctl.

    with owned(directory): ...            waits for the owner before
    with attempted(directory) as mine:    does not wait; `mine`: whether it could be had
    take(directory), release(directory)   likewise, of an owner whose life is no block

A flock of the transaction's directory: it needs no room, ends with its process however that ends, and closing another descriptor does not
drop it. Within a process it is counted: the agent's undo is part of its ownership. What was known of the transaction before is looked up
again once it is had. A directory that is not there has no owner, and needs none.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator

from . import systemd_notify

_AGAIN = 0.05
#: for a service manager that waits until the agent is up
_STILL_STARTING = "EXTEND_TIMEOUT_USEC=30000000"

_held: dict[str, tuple[int, int]] = {}  # directory -> (descriptor, how often)
_mutex = threading.Lock()


def take(directory: str, *, waits: bool = True) -> bool:
    """False: somebody else has it, and this does not wait."""
    told = time.monotonic()
    while not _try(directory):
        if not waits:
            return False
        if time.monotonic() - told > 10:
            told = time.monotonic()
            systemd_notify.notify(_STILL_STARTING)
        time.sleep(_AGAIN)
    return True


def release(directory: str) -> None:
    with _mutex:
        fd, count = _held.pop(directory)
        if count > 1:
            _held[directory] = fd, count - 1
        elif fd >= 0:
            os.close(fd)


@contextlib.contextmanager
def owned(directory: str) -> Iterator[None]:
    with attempted(directory, waits=True):
        yield


@contextlib.contextmanager
def attempted(directory: str, *, waits: bool = False) -> Iterator[bool]:
    mine = take(directory, waits=waits)
    try:
        yield mine
    finally:
        if mine:
            release(directory)


def _try(directory: str) -> bool:
    with _mutex:
        if directory in _held:
            fd, count = _held[directory]
            _held[directory] = fd, count + 1
            return True
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            _held[directory] = -1, 1
            return True
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
            return False
        except BaseException:
            os.close(fd)
            raise
        _held[directory] = fd, 1
        return True
