# SPDX-License-Identifier: GPL-3.0-or-later
"""The lab's only file that runs subprocesses and waits for them."""

from __future__ import annotations

import os
import select
import subprocess
import time

from .errors import CommandFailed, LabError


def run(
    argv: list[str], *, stdin: bytes | None = None, check: bool = True, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """Run to the end, output captured. Raises CommandFailed unless check is False."""
    done = subprocess.run(
        argv, input=stdin if stdin is not None else b"", capture_output=True, check=False, env={**os.environ, **env} if env else None
    )
    if check and done.returncode:
        raise CommandFailed(argv, done.returncode, (done.stderr or done.stdout).decode(errors="replace"))
    return done


def text(argv: list[str]) -> str:
    return run(argv).stdout.decode()


def spawn(argv: list[str], *, log: str) -> subprocess.Popen[bytes]:
    """Start a process that outlives this one, its output appended to a log file."""
    with open(log, "ab") as out:
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True)


def start_time(pid: int) -> str | None:
    """Field 22 of /proc/PID/stat: with the pid it names one process for ever. None when there is none (or a zombie)."""
    try:
        with open(f"/proc/{pid}/stat") as stat:
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in "ZX" else fields[19]


def kill_process(pid: int, started: str, *, seconds: float = 30) -> None:
    """SIGKILL exactly that process and wait for its end."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return
    try:
        if start_time(pid) != started:
            return
        os.kill(pid, 9)
        if not select.select([pidfd], [], [], seconds)[0]:
            raise LabError(f"process {pid} did not end within {seconds} s of SIGKILL; look at /proc/{pid}/stack")
    except ProcessLookupError:
        return
    finally:
        os.close(pidfd)


def until(probe: object, *, seconds: float, what: str, every: float = 0.02) -> None:
    """Wait until probe() is true, else LabError."""
    assert callable(probe)
    end = time.monotonic() + seconds
    while not probe():
        if time.monotonic() > end:
            raise LabError(f"{what}: not within {seconds:g} s")
        time.sleep(every)
