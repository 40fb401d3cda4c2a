# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Pieces of work that the agent does in threads, and the pipe by which whoever has something for its loop wakes it."""

from __future__ import annotations

import contextlib
import os
import threading
import traceback
import typing as t

from . import whole


class Work:
    """All methods may be called from any thread, and `wake` from a signal handler too."""

    def __init__(self) -> None:
        self._count, self._lock = 0, threading.Lock()
        self.wake_fd, self._wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def is_under_way(self) -> bool:
        return bool(self._count)

    def start(self, work: t.Callable[[t.Any], None], argument: t.Any) -> None:
        """Do it in a thread; while it is under way the agent is not idle."""

        def body() -> None:
            with self._counted():
                try:
                    work(argument)
                except Exception:
                    traceback.print_exc()
            self.wake()

        threading.Thread(target=body, daemon=True).start()

    def wake(self) -> None:
        with contextlib.suppress(BlockingIOError):
            whole.write(self._wake_write, b"x")

    def woken(self) -> None:
        """The loop has noticed."""
        os.read(self.wake_fd, 4096)

    @contextlib.contextmanager
    def _counted(self) -> t.Iterator[None]:
        with self._lock:
            self._count += 1
        try:
            yield
        finally:
            with self._lock:
                self._count -= 1
