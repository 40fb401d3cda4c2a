# SPDX-License-Identifier: GPL-3.0-or-later
"""How to reach a host: by ssh with the lab's key and control sockets of its own, or straight into its namespaces without a login."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import subprocess
from pathlib import Path

from .errors import LabError
from .model import KEY, Host, Lab
from .run import run, start_time, until


def options(lab: Lab) -> list[str]:
    return [
        "-F",
        "/dev/null",
        "-i",
        str(KEY),
        "-o",
        "IdentitiesOnly=yes",
        "-o",
        "StrictHostKeyChecking=no",
        "-o",
        "UserKnownHostsFile=/dev/null",
        "-o",
        "LogLevel=ERROR",
        "-o",
        "ConnectTimeout=10",
        "-o",
        "ControlMaster=auto",
        "-o",
        "ControlPersist=60s",
        "-o",
        f"ControlPath={lab.run}/cm/%r@%h",
    ]


def argv(host: Host, command: list[str], *, user: str = "root") -> list[str]:
    return ["ssh", *options(host.lab), f"{user}@{host.ip}", *command]


def forget_connections(host: Host) -> None:
    """End the control masters to a host that is about to die: they would hang instead of reconnecting."""
    for path in (host.lab.run / "cm").glob(f"*@{host.ip}"):
        run(["ssh", "-F", "/dev/null", "-o", f"ControlPath={path}", "-O", "exit", "x"], check=False)
        path.unlink(missing_ok=True)


def answers(host: Host) -> bool:
    try:
        with socket.create_connection((host.ip, 22), timeout=1) as connection:
            connection.settimeout(1)
            return connection.recv(4) == b"SSH-"
    except OSError:
        return False


def init_pid(host: Host) -> int | None:
    """The host's PID 1 as seen from outside. Looked for twice: a walk may stop at a cgroup of a login or a step that has just gone."""
    for _attempt in range(2):
        for pid in _members(host.cgroup):
            try:
                status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
            except OSError:
                continue
            for line in status.splitlines():
                if line.startswith("NSpid:") and line.split()[1:] == [str(pid), "1"]:
                    return pid
    return None


def _members(group: Path) -> list[int]:
    """Processes of the cgroup and those below it; of one that goes away meanwhile, none."""
    found: list[int] = []
    for folder, _folders, _files in os.walk(group):
        with contextlib.suppress(OSError):
            found += [int(line) for line in (Path(folder) / "cgroup.procs").read_text(encoding="ascii").split()]
    return found


def wait_ssh(host: Host, *, seconds: float = 120) -> None:
    def probe() -> bool:
        if start_time(host.keeper) != host.keeper_started:
            raise LabError(f"host {host.name} ended while booting; last words in {host.log}")
        return answers(host)

    until(probe, seconds=seconds, what=f"ssh of host {host.name}")


def wait_booted(host: Host) -> None:
    """Until PID 1 has no job left; a failed unit is no reason to fail here."""
    inside(host, ["systemctl", "is-system-running", "--wait"])


def inside(host: Host, command: list[str], *, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run a command in the host's namespaces as root with a clean environment; no login, no session, no log line."""
    pid = init_pid(host)
    if pid is None:
        raise LabError(f"host {host.name} is not running: `lab start {host.name}`")
    # cgroup first: entered processes would otherwise count for the caller's own cgroup namespace.
    return run(
        [
            "nsenter",
            "-t",
            str(pid),
            "-m",
            "-u",
            "-i",
            "-n",
            "-p",
            "-C",
            "-r",
            "-w",
            "env",
            "-i",
            "LC_ALL=C.UTF-8",
            "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            *command,
        ],
        stdin=stdin,
        check=False,
    )


def stdin_of_its_own() -> None:
    """ssh makes its stdin non-blocking, for all processes that share the open file with it; ansible-playbook refuses to start with such a
    one. So what we got is opened anew, at the same position. A terminal is left alone by ssh, and a socket cannot be opened."""
    if os.isatty(0):
        return
    with contextlib.suppress(OSError):
        own = os.open("/proc/self/fd/0", os.O_RDONLY | os.O_CLOEXEC)
        if stat.S_ISREG(os.fstat(0).st_mode):
            os.lseek(own, os.lseek(0, 0, os.SEEK_CUR), os.SEEK_SET)
        os.dup2(own, 0)


def interactive(host: Host, command: list[str], *, user: str) -> int:
    """Replace this process by ssh, so that stdin, terminal and signals are its own."""
    stdin_of_its_own()
    os.execvp("ssh", argv(host, command, user=user))
