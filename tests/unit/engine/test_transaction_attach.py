# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: F811 (a fixture's name is a test's argument)
"""A step's processes come one after the other: what a tracer that comes does, and what the log says of the step's end meanwhile."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from engine.errors import JournalUnwritable, WrongState
from engine.kernel import AT_FDCWD, Reader
from engine.trace.resolve import Resolver, is_elsewhere
from engine.tracer import CAPTURE, REFUSE
from engine.wanted import read

sys.path.insert(0, str(Path(__file__).resolve().parent))

from played import PlayedTracer, attach, begin, end, opened  # noqa: F401


def test_the_end_that_was_noted_holds_no_more_when_another_process_comes(opened) -> None:
    made, log = opened
    step = begin(made)
    end(made, attach(made, step))
    assert read(log).after.sealed[step.n].ended_ns > 0
    second = attach(made, step)
    assert read(log).after.sealed[step.n].ended_ns == 0
    end(made, second)
    assert read(log).after.sealed[step.n].ended_ns > 0


def test_a_step_that_began_before_the_transaction_was_doomed_may_do_nothing(opened) -> None:
    made, _log = opened
    step = begin(made)
    assert attach(made, step).mode == CAPTURE
    made.doom("a test says so")
    assert attach(made, step).mode == REFUSE


def test_a_step_whose_process_comes_after_the_commit_is_refused(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it did would be of a committed transaction, and unseen."""
    made, _log = opened
    step = begin(made)
    monkeypatch.setattr(made, "capture_probes", lambda _epoch: None)
    monkeypatch.setattr(made, "summary", lambda *_state: None)
    made.commit([step.id])
    with pytest.raises(WrongState, match="at its end"):
        attach(made, step)


def test_a_doom_that_the_disk_does_not_take_refuses_all_the_same(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    """And does not end the thread that found it, which would look like the end of the step."""
    made, _log = opened
    tracer = attach(made, begin(made))

    def full(*_state: object, **_more: object) -> None:
        raise JournalUnwritable("a test says so")

    monkeypatch.setattr(made.journal, "set_state", full)
    made._lost("the disk does not take it")
    assert made.doomed and tracer.mode == REFUSE


def test_systemd_keeps_a_listener_before_its_tracer_can_close_it(opened, monkeypatch: pytest.MonkeyPatch) -> None:
    made, _log = opened
    order: list[str] = []
    monkeypatch.setattr(PlayedTracer, "start", lambda _tracer: order.append("served"))
    made.attach(begin(made), os.getpid(), -1, lambda _tracer: None, kept=lambda name, fds: order.append(f"kept {len(fds)}"))
    assert order == ["kept 2", "served"]


def test_a_shim_that_is_dead_by_then_leaves_nothing(opened) -> None:
    made, _log = opened
    step = begin(made)
    pid = child("same")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    kept: list[str] = []
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ProcessLookupError):
        made.attach(step, pid, -1, lambda _tracer: None, kept=lambda name, _fds: kept.append(name))
    assert (kept, made.processes.tracers, len(os.listdir("/proc/self/fd"))) == ([], [], before)


def child(place: str) -> int:
    """A process that waits, and is there."""
    ready, told = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            if place == "namespace":
                assert ctypes.CDLL(None).unshare(0x00020000) == 0
            elif place == "root":
                os.chroot("/usr")
            os.write(told, b"1")
            signal.pause()
        finally:
            os._exit(1)
    os.close(told)
    assert os.read(ready, 1) == b"1"
    os.close(ready)
    return pid


@pytest.fixture(params=["same", "namespace", "root"])
def process(request: pytest.FixtureRequest) -> Iterator[tuple[int, bool]]:
    """(a step's first process, whether its paths mean others than the agent's)"""
    pid = child(request.param)
    yield pid, request.param != "same"
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_who_has_another_root_or_namespace_is_elsewhere(process: tuple[int, bool]) -> None:
    pid, elsewhere = process
    assert is_elsewhere(pid) == elsewhere


def test_one_that_is_gone_is_taken_for_elsewhere() -> None:
    pid = child("same")
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert is_elsewhere(pid)


def test_paths_of_a_step_that_begins_elsewhere_are_resolved_there(opened, process: tuple[int, bool]) -> None:
    """By care from its first call on, not only once it leaves the namespace by itself."""
    made, _log = opened
    pid, elsewhere = process
    tracer = made.attach(begin(made), pid, -1, lambda _tracer: None)
    assert tracer.resolver.careful == elsewhere


def test_a_bind_mount_that_only_a_step_has_is_what_its_paths_mean(sandbox: Path) -> None:
    for name in ("here", "there"):
        (sandbox / name).mkdir()
        (sandbox / name / "file").write_text(name)
    inside = f"mount --bind {sandbox}/there {sandbox}/here && echo && exec sleep 100"
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", inside], stdout=subprocess.PIPE) as step:
        assert step.stdout is not None and step.stdout.readline() == b"\n"
        resolver = Resolver(Reader(), lambda _dev, _thread: None)
        resolver.careful = is_elsewhere(step.pid)
        place = resolver.place(step.pid, AT_FDCWD, os.fsencode(sandbox / "here" / "file"), follow=True)
        step.kill()
    assert place.found is not None and place.found.ino == (sandbox / "there" / "file").stat().st_ino
    os.close(place.fd)
