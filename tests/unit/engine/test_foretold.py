# SPDX-License-Identifier: GPL-3.0-or-later
"""A call that needs no image since it will fail: where that is a guess of the agent's, the call is not made (docs/adr/0022)."""

from __future__ import annotations

import ctypes
import errno
import importlib.util
import mmap
import os
from pathlib import Path

import pytest
from engine.trace.caller import WillFail, foretold
from engine.trace.resolve import Elsewhere
from engine.trace.subjects import Answered

_spec = importlib.util.spec_from_file_location("traced_calls", Path(__file__).with_name("traced_calls.py"))
assert _spec is not None
assert _spec.loader is not None
traced_calls = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(traced_calls)
Traced = traced_calls.Traced

CWD, NOWHERE = -100, 8
MEMFD_SECRET = 447


def test_a_path_that_cannot_be_read(sandbox: Path) -> None:
    step = Traced(sandbox, sandbox / "elsewhere")
    for name, arguments in (
        ("unlinkat", (CWD, NOWHERE, 0)),
        ("openat", (CWD, NOWHERE, os.O_WRONLY)),
        ("openat2", (CWD, NOWHERE, NOWHERE, 24)),
        ("renameat2", (CWD, NOWHERE, CWD, NOWHERE, 0)),
        ("fchmodat", (CWD, NOWHERE, 0o600)),
        ("bind", (0, NOWHERE, 16)),
    ):
        with pytest.raises(Answered) as found:
            step.sees(name, *arguments)
        assert found.value.number == errno.EFAULT, name
    assert step.undo() == []


def test_a_path_that_the_kernel_reads_and_the_agent_does_not(sandbox: Path) -> None:
    """In memory of memfd_secret(2), which no other process may read: not even root."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd = libc.syscall(MEMFD_SECRET, 0)
    if fd < 0:
        assert ctypes.get_errno() in (errno.ENOSYS, errno.EPERM)  # built or booted without
        return
    victim = sandbox / "victim"
    victim.write_text("precious\n" * 1000)
    os.ftruncate(fd, mmap.PAGESIZE)
    secret = mmap.mmap(fd, mmap.PAGESIZE)
    secret[: len(bytes(victim)) + 1] = bytes(victim) + b"\0"
    address = ctypes.addressof(ctypes.c_char.from_buffer(secret))
    assert libc.access(ctypes.c_void_p(address), os.W_OK) == 0, "the kernel cannot read it either, so this shows nothing"
    step = Traced(sandbox, sandbox / "elsewhere")
    with pytest.raises(Answered):
        step.call("unlinkat", CWD, address, 0)
    assert victim.exists()


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOENT, WillFail),
        (errno.ENOTDIR, WillFail),
        (errno.ELOOP, WillFail),
        (errno.EACCES, Elsewhere),  # what root may not enter is served by somebody who lets others in
        (errno.EFAULT, Answered),
        (errno.EMFILE, OSError),
        (errno.ENOMEM, OSError),
    ],
)
def test_what_the_agents_own_error_means(number: int, kind: type[BaseException]) -> None:
    assert type(foretold(OSError(number, os.strerror(number)))) in (kind, FileNotFoundError if kind is OSError else kind)
