# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The only file of the engine that runs other programs: lists, never a shell, always with a time limit.

A program that is missing or too slow is an answer (127, 124, as a shell would give), not an exception: whoever asks must look at
`code` anyway, and the caller knows what its failure means.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from typing import NamedTuple

MISSING = 127
TOO_SLOW = 124

# Not the caller's: sudo and systemd units set different ones, and /usr/local may hold an admin's wrapper of the same name.
PATH = "/usr/sbin:/usr/bin:/sbin:/bin"


class Output(NamedTuple):
    """`out` and `err` are text with surrogate escapes: os.fsencode gives back the bytes."""

    code: int
    out: str
    err: str

    @property
    def ok(self) -> bool:
        return self.code == 0

    @property
    def complaint(self) -> str:
        """The last line that the program said on stderr, for one sentence in a message."""
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        return lines[-1] if lines else f"exit code {self.code}"


def run(argv: list[str], *, timeout: float, input: str | None = None, folder: str = "/", as_user: bool = False) -> Output:
    """Runs argv[0] from PATH with LC_ALL=C, no other descriptors, in a session of its own. `timeout` in seconds.

    `as_user`: a command of the user's, which gets root's ordinary PATH and umask."""
    path = "/usr/local/sbin:/usr/local/bin:" + PATH if as_user else PATH
    env = {"PATH": path, "LC_ALL": "C", "HOME": "/root", "SYSTEMD_PAGER": "", "SYSTEMD_COLORS": "0"}
    if as_user:  # found by that PATH, not by the agent's
        argv = [shutil.which(argv[0], path=path) or argv[0], *argv[1:]]
    try:
        child = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=env,
            cwd=folder,
            umask=0o022 if as_user else -1,
            close_fds=True,
            start_new_session=True,
        )
    except (FileNotFoundError, PermissionError) as error:
        return Output(MISSING, "", f"{argv[0]}: {error.strerror}")
    try:
        out, err = child.communicate(None if input is None else os.fsencode(input), timeout=timeout)
    except subprocess.TimeoutExpired:
        # The whole session: a child of the program would hold the pipe open and communicate() with it.
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        for pipe in (child.stdin, child.stdout, child.stderr):
            if pipe is not None:
                pipe.close()
        return Output(TOO_SLOW, "", f"{argv[0]} did not end within {timeout:g} seconds")
    return Output(child.returncode, os.fsdecode(out), os.fsdecode(err))
