# SPDX-License-Identifier: GPL-3.0-or-later
"""The thread behind a listener, with calls that are played."""

from __future__ import annotations

import errno
import threading

import pytest
from engine import tracer as module
from engine.trace.notify import Gone, Note
from engine.tracer import CAPTURE, REFUSE, Slots, Tracer


class PlayedListener:
    """Gives these calls, raises what is no call, and then says that nobody is left."""

    def __init__(self, *calls: Note | Exception) -> None:
        self._calls, self.answers = list(calls), list[tuple[int, int]]()

    def receive(self) -> Note:
        if not self._calls:
            raise Gone
        call = self._calls.pop(0)
        if isinstance(call, Exception):
            raise call
        return call

    def proceed(self, id_: int) -> None:
        self.answers.append((id_, 0))

    def refuse(self, id_: int, number: int) -> None:
        self.answers.append((id_, number))


def test_a_mistake_of_ours_does_not_leave_the_step_without_its_listener(monkeypatch: pytest.MonkeyPatch) -> None:
    orphans, ended = [], []
    monkeypatch.setattr(module, "answer_orphans", lambda fd, ids, number: orphans.append((fd, ids, number)))
    slots = Slots()
    slots.view[:8] = (7).to_bytes(8, "little")
    made = Tracer(
        name="t",
        fd=-1,
        slots=slots,
        lock=threading.Lock(),
        capture=None,
        step=1,
        mode=CAPTURE,
        failed=lambda _step, _what: None,
        denied=lambda _step, _what: None,
        ended=ended.append,
    )
    listener = made._listener = PlayedListener(ValueError("a mistake"), Note(8, 1, 2, 3, (0,) * 6))  # type: ignore[assignment]
    made.start()
    made.join()
    assert orphans == [(-1, [7], errno.EIO)]
    assert listener.answers == [(8, errno.EIO)]
    assert made.mode == REFUSE and ended == [made]
    slots.close()
