# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Renews the leases of hosts that have heard nothing for a while: during a long task, or while other hosts or the controller are at one.

    with Heartbeat(hosts, beat=...):       `hosts` {name: lease in seconds}; beat(hosts) says a word to some of them, and returns
        run the play

A process of its own does it, forked before the play starts, so that it has inventory, variables, passwords and vault secrets as the play
has them. Each round is one more process: a host that does not answer delays no other. The controller itself is watched by a pipe into
which a thread of it writes: when it is stopped, hangs in the kernel or is gone, nothing more comes, and the leases run out as they should.
Should the process die, they run out as well: the safe side.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import NoReturn

from .ledger import Ledger

#: of a lease: how long a host may have heard nothing
SHARE = 1 / 3
#: rounds are looked for so often within that time
LOOKS = 4


class Heartbeat:
    """A context manager. Does nothing where no host has a lease."""

    def __init__(self, hosts: Mapping[str, int], *, beat: Callable[[list[str]], object]) -> None:
        self._leases = {host: seconds for host, seconds in hosts.items() if seconds > 0}
        self._beat = beat
        self._pause = min(self._leases.values(), default=0) * SHARE / LOOKS
        self._child = 0
        self._ticks = -1
        self._ended = threading.Event()
        self._ticking = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Heartbeat:
        if self._leases:
            read, self._ticks = os.pipe()
            self._child = os.fork()
            if not self._child:
                os.close(self._ticks)
                self._live(read)
            os.close(read)
            self._ticking.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._child:
            os.kill(self._child, signal.SIGKILL)  # its rounds end by themselves
            os.waitpid(self._child, 0)
            self._ticking.join()  # before its descriptor is closed: the number may be another file's at once
            os.close(self._ticks)
            self._child = 0

    def _tick(self) -> None:
        os.set_blocking(self._ticks, False)
        while not self._ended.wait(self._pause / 2):
            try:
                os.write(self._ticks, b".")
            except BlockingIOError:
                continue
            except OSError:
                return

    # -- the process -----------------------------------------------------------------------------------------------------

    def _live(self, ticks: int) -> NoReturn:
        try:
            os.setsid()  # Ctrl-C is for the controller
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _be_quiet()
            self._rounds(ticks)
        finally:
            os._exit(0)

    def _rounds(self, ticks: int) -> None:
        ledger = Ledger.of_this_run()
        heard = dict.fromkeys(self._leases, time.monotonic())
        written = {host: ledger.written(host) for host in self._leases}
        under_way: dict[int, list[str]] = {}
        while _controller_lives(ticks, self._pause * 2):
            for child in list(under_way):
                if os.waitpid(child, os.WNOHANG)[0]:
                    del under_way[child]
            busy = {host for hosts in under_way.values() for host in hosts}
            now = time.monotonic()
            due = []
            for host, seconds in self._leases.items():
                last = ledger.written(host)
                if last != written[host]:  # a step has ended
                    heard[host], written[host] = now, last
                elif now - heard[host] >= seconds * SHARE and host not in busy and ledger.open_transaction(host) is not None:
                    due.append(host)
            for host in due:
                heard[host] = now
                child = os.fork()
                if not child:
                    os.close(ticks)
                    try:
                        self._beat([host])
                    finally:
                        os._exit(0)
                under_way[child] = [host]
            time.sleep(self._pause)


def _controller_lives(ticks: int, patience: float) -> bool:
    """Waits for its next sign of life; False when it is gone. While it is stopped, this waits."""
    while True:
        if select.select([ticks], [], [], patience)[0]:
            return bool(os.read(ticks, 65536))


def _be_quiet() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
