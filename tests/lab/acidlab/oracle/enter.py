# SPDX-License-Identifier: GPL-3.0-or-later
"""Run a function of ours in a host's namespaces: in a forked child, with all code already loaded, leaving no trace in the host."""

from __future__ import annotations

import ctypes
import os
import pickle
import traceback
from collections.abc import Callable
from typing import TypeVar

from ..errors import LabError

Result = TypeVar("Result")
LIBC = ctypes.CDLL(None, use_errno=True)
NAMESPACES = ("mnt", "net", "uts", "ipc")


def _enter(pid: int) -> None:
    """The host's root and namespaces, but not its pid namespace: this process stays invisible there."""
    root = os.open(f"/proc/{pid}/root", os.O_RDONLY | os.O_DIRECTORY)
    spaces = [os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY) for name in NAMESPACES]
    for space in spaces:
        if LIBC.setns(space, 0):
            raise OSError(ctypes.get_errno(), f"setns into process {pid}")
        os.close(space)
    os.fchdir(root)
    os.chroot(".")
    os.close(root)


def sync(descriptor: int) -> None:
    if LIBC.syncfs(descriptor):
        raise OSError(ctypes.get_errno(), "syncfs")


def call(pid: int, function: Callable[[], Result]) -> Result:
    """function's result, computed inside. What it returns must be picklable, what it needs must be imported before."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            os.close(reader)
            _enter(pid)
            answer: tuple[bool, object] = (True, function())
            status = 0
        except BaseException:
            answer = (False, traceback.format_exc())
        with os.fdopen(writer, "wb") as pipe:
            pickle.dump(answer, pipe)
        os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        data = pipe.read()
    os.waitpid(child, 0)
    if not data:
        raise LabError(f"inside process {pid}: the child died without an answer")
    good, result = pickle.loads(data)
    if not good:
        raise LabError(f"inside process {pid}: {result}")
    found: Result = result
    return found
