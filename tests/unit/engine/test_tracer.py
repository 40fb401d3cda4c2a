# SPDX-License-Identifier: GPL-3.0-or-later
"""The thread behind a listener, with calls that are played."""

from __future__ import annotations

import errno
import os
import threading
import types

import pytest
from engine import tracer as module
from engine.errors import NotOnDisk, StoreFull
from engine.trace.calls import MACHINES
from engine.trace.notify import Gone, Note
from engine.trace.subjects import InStore, Pretended
from engine.tracer import CAPTURE, REFUSE, Slots, Tracer

#: an answer that is no errno
PRETENDED = -1
_ABI = MACHINES[os.uname().machine][0]
UNLINK = Note(8, 1, next(number for number, call in _ABI.calls.items() if call.name == "unlinkat"), _ABI.audit, (0,) * 6)


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

    def pretend(self, id_: int) -> None:
        self.answers.append((id_, PRETENDED))


class PlayedCapture:
    """Raises this for each call."""

    durable = False

    def __init__(self, error: Exception) -> None:
        self._error = error

    def resolver(self) -> None:
        return None

    def back(self, _thread: int) -> None:
        pass

    def handle(self, *_call: object) -> None:
        raise self._error


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


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize(("error", "answer"), [(Pretended(), PRETENDED), (InStore("a test says so"), errno.EIO)])
def test_what_is_pretended_is_no_failure(error: Exception, answer: int, durable: bool) -> None:
    """It is not told of, and its caller goes on as if it had happened. Whatever else would change the store is refused, and told of."""
    told: list[str] = []
    capture, slots = PlayedCapture(error), Slots()
    made = Tracer(
        name="t",
        fd=-1,
        slots=slots,
        lock=threading.Lock(),
        capture=capture,  # type: ignore[arg-type]
        step=1,
        mode=CAPTURE,
        failed=lambda _step, what: told.append(what),
        denied=lambda _step, _what: None,
        ended=lambda _tracer: None,
    )
    made.resolver = object()  # type: ignore[assignment]
    listener = made._listener = PlayedListener(UNLINK, UNLINK)  # type: ignore[assignment]
    if durable:
        capture.durable, capture.before_waiting, capture.sync = True, lambda _let_run: None, lambda: None  # type: ignore[attr-defined]
        listener.receive_all = lambda: [listener.receive()]  # type: ignore[attr-defined]
    made.start()
    made.join()
    assert listener.answers == [(8, answer), (8, answer)]
    assert told == ([] if answer == PRETENDED else ["unlinkat: a test says so"] * 2)
    slots.close()


@pytest.mark.parametrize(("error", "dooms"), [(NotOnDisk("a test says so"), True), (StoreFull("a test says so"), False)])
def test_an_image_that_did_not_reach_the_disk_dooms(error: Exception, dooms: bool) -> None:
    """For a full store one call is refused; a disk that has failed once is relied on no more."""
    failed, lost, call = [], [], MACHINES[os.uname().machine][0]

    def handle(*_arguments: object) -> None:
        raise error

    slots = Slots()
    made = Tracer(
        name="t",
        fd=-1,
        slots=slots,
        lock=threading.Lock(),
        capture=types.SimpleNamespace(resolver=object, back=lambda _thread: None, handle=handle),  # type: ignore[arg-type]
        step=1,
        mode=CAPTURE,
        failed=lambda _step, what: failed.append(what),
        lost=lost.append,
        denied=lambda _step, _what: None,
        ended=lambda _tracer: None,
    )
    assert made._judge(Note(8, 1, next(iter(call.calls)), call.audit, (0,) * 6)) == errno.EIO
    assert len(failed) == 1
    assert bool(lost) == dooms
    slots.close()


@pytest.mark.parametrize("dies", [False, True])
def test_what_was_judged_before_the_disk_was_lost_waits_for_its_images(dies: bool) -> None:
    """With `durability: power` the calls of a batch run when the images of all are on the disk; none of them runs when that is not so."""
    errors, synced, slots, waiting = [None, NotOnDisk("a test says so") if dies else None], [], Slots(), []

    def handle(*_call: object) -> None:
        error = errors.pop(0)
        if error is not None:
            raise error

    made = Tracer(
        name="t",
        fd=-1,
        slots=slots,
        lock=threading.Lock(),
        capture=types.SimpleNamespace(  # type: ignore[arg-type]
            resolver=object,
            back=lambda _thread: None,
            handle=handle,
            durable=True,
            before_waiting=waiting.append,
            sync=lambda: synced.append(True),
        ),
        step=1,
        mode=CAPTURE,
        failed=lambda _step, _what: None,
        lost=lambda _why: setattr(made, "mode", REFUSE),
        denied=lambda _step, _what: None,
        ended=lambda _tracer: None,
    )
    listener = made._listener = PlayedListener(UNLINK, UNLINK._replace(id=9))  # type: ignore[assignment]
    listener.receive_all = lambda: [listener.receive(), listener.receive()]  # type: ignore[attr-defined]
    made._several()
    assert listener.answers == [(8, errno.EIO if dies else 0), (9, errno.EIO if dies else 0)]
    assert dies or synced
    slots.close()
