# SPDX-License-Identifier: GPL-3.0-or-later
"""Settings of the kernel are known by whatever mount of /proc or /sys they are reached. No call is made: they are this machine's."""

from __future__ import annotations

import ctypes
import importlib.util
import os
import subprocess
from pathlib import Path

import pytest
from engine.filesystems import NAMED, policy
from engine.model import IRREVERSIBLE
from engine.wanted import read

_spec = importlib.util.spec_from_file_location("traced_calls", Path(__file__).with_name("traced_calls.py"))
assert _spec is not None
assert _spec.loader is not None
traced_calls = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(traced_calls)
Traced = traced_calls.Traced

CWD, SETTING = -100, b"/proc/sys/kernel/domainname"
FSOPEN, FSCONFIG, FSMOUNT, CREATE = 430, 431, 432, 6


def values(step: Traced) -> list[bytes]:
    step.capture.settle()
    step.log.close()
    step.store.close()
    return sorted(value.path for value in read(str(step.folder)).values.values())


@pytest.mark.parametrize(
    ("options", "source", "name"),
    [
        (("-t", "proc"), "none", "sys/kernel/domainname"),
        (("--bind",), "/proc/sys", "kernel/domainname"),
        (("--bind",), "/proc/sys/kernel", "domainname"),
    ],
)
def test_by_another_mount(sandbox: Path, options: tuple[str, ...], source: str, name: str) -> None:
    place = sandbox / "place"
    place.mkdir()
    subprocess.run(["mount", *options, source, str(place)], check=True)
    try:
        step = Traced(sandbox, sandbox / "elsewhere")
        step.sees("openat", CWD, str(place / name), os.O_WRONLY)
        assert values(step) == [SETTING]
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_by_a_proc_that_is_mounted_nowhere(sandbox: Path) -> None:
    """Container runtimes make such, for themselves."""
    libc = ctypes.CDLL(None, use_errno=True)
    made = libc.syscall(FSOPEN, b"proc", 0)
    assert made >= 0
    assert libc.syscall(FSCONFIG, made, CREATE, None, None, 0) == 0
    at = libc.syscall(FSMOUNT, made, 0, 0)
    assert at >= 0
    try:
        step = Traced(sandbox, sandbox / "elsewhere")
        step.sees("openat", at, "sys/kernel/domainname", os.O_WRONLY)
        step.sees("openat", at, "self/comm", os.O_WRONLY)
        assert step.observed == []
        assert values(step) == [SETTING]
    finally:
        os.close(at)
        os.close(made)


def test_their_owner_and_mode_are_named(sandbox: Path) -> None:
    step = Traced(sandbox, sandbox / "elsewhere")
    step.sees("fchmodat", CWD, "/proc/kallsyms", 0o400)
    assert [seen.kind for seen in step.observed] == [IRREVERSIBLE]


def test_what_else_the_kernel_shows_as_files_is_named(sandbox: Path) -> None:
    """A directory made in configfs makes something in the kernel, and so on; EFI variables even outlast a boot."""
    assert {policy(kind) for kind in (b"efivarfs", b"pstore", b"configfs", b"debugfs", b"tracefs")} == {NAMED}
    place = sandbox / "place"
    place.mkdir()
    kinds = [kind for kind in ("debugfs", "tracefs", "configfs") if f"\t{kind}\n" in Path("/proc/filesystems").read_text()]
    subprocess.run(["mount", "-t", kinds[0], "none", str(place)], check=True)
    try:
        step = Traced(sandbox, sandbox / "elsewhere")
        step.sees("mkdirat", CWD, str(place / "made"), 0o755)
        assert [seen.kind for seen in step.observed] == [IRREVERSIBLE]
    finally:
        subprocess.run(["umount", str(place)], check=True)
