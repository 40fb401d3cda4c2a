# SPDX-License-Identifier: GPL-3.0-or-later
"""A real listener, and an agent that dies between its kernel's receive and its own first instruction after it."""

from __future__ import annotations

import array
import contextlib
import errno
import fcntl
import os
import select
import signal
import socket
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from engine import exec as shim
from engine.trace import filter as trace_filter
from engine.trace.notify import Listener, answer_orphans
from engine.tracer import Slots

_RECEIVE = 0xC0502100


def stepped(calls: Callable[[], int]) -> tuple[int, int]:
    """(listener, pid) of a child that installs the filter as the shim does, and then makes the calls; their outcome is its exit code."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        code = 99
        try:
            fd = shim._install(trace_filter.build(os.uname().machine).code)
            theirs.sendmsg([b"L"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
            os.close(fd)
            theirs.recv(1)
            code = calls()
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    theirs.close()
    _data, ancillary, _flags, _address = ours.recvmsg(1, socket.CMSG_SPACE(4))
    listener = array.array("i", bytes(ancillary[0][2]))[0]
    ours.send(b"g")
    ours.close()
    return listener, child


def error_of(call: Callable[[], object]) -> int:
    try:
        call()
    except OSError as error:
        return error.errno or 98
    return 0


def ended(child: int) -> int:
    """Its exit code, within a few seconds."""
    pidfd = os.pidfd_open(child)
    try:
        assert select.select([pidfd], [], [], 5)[0], "the call hangs"
    finally:
        os.close(pidfd)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.fixture
def step() -> Iterator[Callable[[Callable[[], int]], tuple[int, int]]]:
    made: list[tuple[int, int]] = []

    def make(calls: Callable[[], int]) -> tuple[int, int]:
        made.append(stepped(calls))
        return made[-1]

    yield make
    for listener, child in made:
        os.close(listener)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def received_and_died(listener: int) -> None:
    """What is left of an agent that is killed while the kernel wakes it up: the call counts as received, and nothing is written down."""
    assert select.select([listener], [], [], 5)[0]
    fcntl.ioctl(listener, _RECEIVE, bytearray(80))


@pytest.mark.parametrize("before", [1, 2, 20])
def test_a_call_that_was_received_and_not_written_down_is_answered(
    before: int, step: Callable[[Callable[[], int]], tuple[int, int]]
) -> None:
    def calls() -> int:
        for _number in range(before):
            assert error_of(lambda: os.mkdir("/proc/none")) == errno.ENOENT
        return error_of(lambda: os.mkdir("/proc/none"))

    listener, child = step(calls)
    slots = Slots()
    try:
        agent = Listener(listener, slots.view)
        for _number in range(before):
            agent.proceed(agent.receive().id)
        received_and_died(listener)
        answer_orphans(listener, slots.ids(), errno.EIO)
        assert ended(child) == errno.EIO
    finally:
        slots.close()


def test_one_that_nobody_has_received_is_left_to_the_next_agent(step: Callable[[Callable[[], int]], tuple[int, int]]) -> None:
    listener, child = step(lambda: error_of(lambda: os.mkdir("/proc/none")) and error_of(lambda: os.mkdir("/proc/none")))
    slots = Slots()
    try:
        agent = Listener(listener, slots.view)
        agent.proceed(agent.receive().id)
        assert select.select([listener], [], [], 5)[0]
        answer_orphans(listener, slots.ids(), errno.EIO)
        agent.refuse(agent.receive().id, errno.EROFS)
        assert ended(child) == errno.EROFS
    finally:
        slots.close()


def test_a_call_that_is_only_said_to_have_been_made(sandbox: Path, step: Callable[[Callable[[], int]], tuple[int, int]]) -> None:
    def calls() -> int:
        os.mkdir(sandbox / "none")
        return 7 if (sandbox / "none").exists() else 0

    listener, child = step(calls)
    slots = Slots()
    try:
        agent = Listener(listener, slots.view)
        agent.pretend(agent.receive().id)
        assert ended(child) == 0
    finally:
        slots.close()
