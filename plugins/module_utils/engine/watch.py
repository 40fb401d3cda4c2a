# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""An open transaction's watch over run-time state: looks when a step begins and ends, and when the kernel tells of a change in between.

The kernel tells of mounts by a poll of mountinfo (proc_pid_mountinfo(5)), of the network by rtnetlink's groups. While a step runs nobody
looks, since its end will: what matters there is only that a change came before it.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import threading
import time

from .probes.base import Image
from .probes.registry import Probes
from .probes.sightings import Acts, Sightings

# RTMGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV4_RULE, IPV6_IFADDR, IPV6_ROUTE, IPV6_RULE (linux/rtnetlink.h). Not neighbours: too many.
_GROUPS = 0x1 | 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000
#: seconds from the kernel's word to the look, so that many changes are one
_LINGER = 0.05


class Watch:
    """All methods may be called from any thread. The thread is there from `start` to `stop`."""

    def __init__(self, directory: str, option: object, acts: Acts) -> None:
        watched = [probe for probe in Probes(option).before_files() if probe.is_watched and not probe.check()]
        self._lock = threading.Lock()
        self._sightings = Sightings(directory, watched, acts=acts)
        self._stop = -1

    def first(self, images: dict[str, Image]) -> None:
        with self._lock:
            self._sightings.first(images)

    def began(self, step: int, epoch: int) -> None:
        with self._lock:
            self._sightings.began(step, epoch)

    def ended(self, step: int) -> None:
        with self._lock:
            self._sightings.ended(step)

    def close(self) -> None:
        """The transaction is about to be committed."""
        with self._lock:
            self._sightings.close()

    def start(self) -> None:
        read, self._stop = os.pipe2(os.O_CLOEXEC)
        threading.Thread(target=self._run, args=(read,), name="acid-watch", daemon=True).start()

    def stop(self) -> None:
        stop, self._stop = self._stop, -1
        if stop >= 0:
            os.close(stop)

    def _run(self, stop: int) -> None:
        poll = select.poll()
        with contextlib.ExitStack() as stack:
            stack.callback(os.close, stop)
            poll.register(stop, select.POLLIN)
            with contextlib.suppress(OSError):
                mounts = stack.enter_context(open("/proc/1/mountinfo", "rb", buffering=0))
                poll.register(mounts, select.POLLPRI)
            network = stack.enter_context(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, 0))
            network.bind((0, _GROUPS))
            poll.register(network, select.POLLIN)
            while True:
                if any(fd == stop for fd, _event in poll.poll()):
                    return
                time.sleep(_LINGER)
                _drain(network)
                with self._lock:
                    if not self._sightings.running and self._stop >= 0:
                        self._sightings.look()


def _drain(network: socket.socket) -> None:
    """What it says is looked up anyhow."""
    while True:
        try:
            network.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:  # ENOBUFS: some of it is lost, and there is a reason to look
            continue
